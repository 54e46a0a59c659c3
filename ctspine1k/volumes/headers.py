"""What a NIfTI header says about its voxels, checked: shape, type, position in space, scaling."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError
from numpy.typing import NDArray

from ctspine1k.errors import FileFormatError
from ctspine1k.volumes.positions import Doubt, doubts_about, unit_of
from ctspine1k.volumes.scaling import Scaling

__all__ = [
    "GET_AGAIN",
    "WRITE_AGAIN",
    "Geometry",
    "VolumeHeader",
    "array_affine",
    "header_size",
    "parse_header",
]

#: The hint of errors that another copy of the file would fix.
GET_AGAIN = "Delete the file and download it again."

#: The hint of errors that another copy of the file may fix, or that a program may have written into it.
WRITE_AGAIN = (
    "Download it again; if the new copy is the same, the program that wrote it is at fault: save the scan "
    "again from its source."
)

#: The kind of header by its first four bytes, which are its length in one of the two byte orders.
_HEADERS: dict[bytes, type[nib.Nifti1Header]] = {
    kind.sizeof_hdr.to_bytes(4, order): kind
    for kind in (nib.Nifti1Header, nib.Nifti2Header)
    for order in ("little", "big")
}

#: nibabel logs what it corrects in a header, without the file's name: `Doubt` names it.
_SILENT = logging.Logger("ctspine1k.headers", level=logging.CRITICAL + 1)

#: The severity from which nibabel's remarks about a header are errors.
_ERROR_LEVEL = 40


def array_affine(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the affine of an array (k, i, j) from that of its file (i, j, k), both to RAS+ millimetres."""
    return affine[:, [2, 0, 1, 3]]


@dataclass(frozen=True)
class Geometry:
    """The position of a volume's voxels in space."""

    shape: tuple[int, int, int]  #: of the array: (slices, first axis, second axis)
    affine: NDArray[np.float64]  #: (4, 4), of the file: voxel index (i, j, k) -> RAS+ millimetres
    spacing: tuple[float, float, float]  #: mm, in the array's axis order
    orientation: str  #: anatomical directions of the array's axes, such as "SLA": slices go up, rows left

    @classmethod
    def of(cls, affine: NDArray[np.float64], shape: tuple[int, int, int]) -> Geometry:
        """Return the geometry of an array (k, i, j), given affine and shape of its file (i, j, k)."""
        i, j, k = shape
        along_i, along_j, along_k = (float(size) for size in voxel_sizes(affine))
        codes = nib.orientations.aff2axcodes(affine)
        return cls(
            shape=(k, i, j),
            affine=affine,
            spacing=(along_k, along_i, along_j),
            orientation="".join(codes[axis] or "?" for axis in (2, 0, 1)),
        )


@dataclass(frozen=True)
class VolumeHeader:
    """What a file says about its voxels. Axes are in the file's order, (i, j, k)."""

    name: str  #: of the file, for messages
    shape: tuple[int, int, int]  #: each at least 1
    file_type: np.dtype[Any]  #: of the stored numbers, in the file's byte order
    affine: NDArray[np.float64]  #: (4, 4), finite: voxel index -> RAS+ millimetres
    zooms: NDArray[np.float64]  #: (3,), mm, from a field of its own, which may contradict the affine
    doubts: tuple[Doubt, ...]  #: why the affine may be wrong
    scaling: Scaling  #: from the stored numbers to values
    offset: int = 0  #: bytes before the first voxel, if it is NIfTI

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the stored numbers, in the machine's byte order."""
        native: np.dtype[Any] = self.file_type.newbyteorder("=")
        return native

    @property
    def is_placed(self) -> bool:
        """Whether the file says where its voxels lie: the affine is neither a guess nor degenerate."""
        return not any(doubt.kind in ("degenerate", "unplaced") for doubt in self.doubts)


def header_size(start: bytes) -> int | None:
    """Return the size in bytes of a header that begins like this; None if it is not a NIfTI header."""
    kind = _HEADERS.get(start[:4])
    return None if kind is None else int(kind.sizeof_hdr)


def parse_header(block: bytes, name: str) -> VolumeHeader:
    """Read a complete header block, of `header_size` bytes; ``name`` is for messages.

    Raises:
        FileFormatError: invalid fields, or voxels that are not one scan of real numbers.
    """
    try:
        stored = _HEADERS[block[:4]](block, check=False)
        header = stored.copy()
        header.check_fix(_SILENT, _ERROR_LEVEL)
        is_single_file = bytes(header["magic"]).startswith(b"n+")
        slope, inter = header.get_slope_inter()  # None where the header's values mean "unscaled"
        in_mm = unit_of(header)[1]
        with np.errstate(all="ignore"):  # numbers that are not finite are an error below
            affine = _affine(header, name)
            affine[:3] *= in_mm
            numbers = *affine.flat, *voxel_sizes(affine)
        offset = int(header.get_data_offset())
    except FileFormatError:  # a ValueError, too
        raise
    except (HeaderDataError, WrapStructError, ValueError, OverflowError) as error:
        raise FileFormatError(name, "a valid NIfTI header", str(error), WRITE_AGAIN) from error
    if not np.isfinite(numbers).all():
        raise FileFormatError(name, "a finite affine", str(affine[:3].tolist()), WRITE_AGAIN)
    if not is_single_file:
        expected, found = "header and voxels in one file", 'the header of a .hdr/.img pair, with magic "ni1"'
        hint = 'Save the pair as one file: nibabel.save(nibabel.load("x.hdr"), "x.nii.gz").'
        raise FileFormatError(name, expected, found, hint)
    if offset < header.single_vox_offset:  # nibabel lets 0 pass, and other libraries read elsewhere
        expected = f"voxels from byte {header.single_vox_offset} or later"
        raise FileFormatError(name, expected, f"vox_offset {offset}", WRITE_AGAIN)
    return VolumeHeader(
        name=name,
        shape=_checked_shape(header, name),
        file_type=_checked_type(header, name),
        affine=affine,
        zooms=np.asarray(header.get_zooms()[:3], np.float64) * in_mm,
        doubts=doubts_about(header, stored, affine, name),
        scaling=Scaling(1.0 if slope is None else float(slope), 0.0 if inter is None else float(inter)),
        offset=offset,
    )


def _affine(header: nib.Nifti1Header, name: str) -> NDArray[np.float64]:
    try:
        return np.asarray(header.get_best_affine(), np.float64)
    except ValueError as error:  # raised for the quaternion of qform, which is used if sform is not set
        quaternion = tuple(float(header[f"quatern_{letter}"]) for letter in "bcd")
        expected = "a qform whose quaternion (b, c, d) has a length of at most 1"
        hint = "The directions of its axes are lost: save the scan again from its source."
        raise FileFormatError(name, expected, str(quaternion), hint) from error


def _checked_shape(header: nib.Nifti1Header, name: str) -> tuple[int, int, int]:
    shape = tuple(int(size) for size in header.get_data_shape())
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if empty := [f"dim[{axis}] = {size}" for axis, size in enumerate(shape, 1) if size < 1]:
        found = f"shape {shape}, with {' and '.join(empty)}"
        hint = "The size of an axis that is not used must be 1: save the scan again from its source."
        raise FileFormatError(name, "at least 1 voxel along each axis", found, hint)
    if len(shape) != 3:
        raise FileFormatError(name, "3 dimensions", f"shape {shape}", "This data set has one scan per file.")
    return shape


def _checked_type(header: nib.Nifti1Header, name: str) -> np.dtype[Any]:
    dtype: np.dtype[Any] = header.get_data_dtype()
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        expected = "voxels that are real numbers of at most 64 bits"
        raise FileFormatError(name, expected, f"type {dtype}", "Convert the file.")
    return dtype
