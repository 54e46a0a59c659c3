"""One case from its two NIfTI files: one gzip pass, slice by slice, checked.

A ``.nii.gz`` is one gzip stream in which the slices come in order. It is inflated with ISA-L into one
reused buffer, and each slice is transposed and converted while it is in the processor's cache: float64
copies of a volume never exist, and a pass over the slices needs memory for a few of them. What comes out
is, bit for bit, ``np.transpose(nibabel.load(file).get_fdata(), (2, 0, 1))``, cast.

Axis order: files have axes (i, j, k); arrays here are slice first, (k, i, j). Nothing is resampled or
reoriented.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import math
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any, Literal, TypeAlias

import nibabel as nib
import numpy as np
from isal import igzip, isal_zlib
from nibabel.affines import voxel_sizes
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError
from numpy.typing import NDArray

from ctspine1k.errors import (
    CaseError,
    CorruptFileError,
    FileFormatError,
    GeometryWarning,
    PairMismatchError,
    TruncatedFileError,
    VoxelValueError,
    check_choice,
)

__all__ = ["Geometry", "PairReader", "VolumePair", "open_pair", "read_pair"]

#: A path of a ``.nii.gz`` or ``.nii`` file, or a binary stream of one (it need not seek, and stays open).
Readable: TypeAlias = "str | os.PathLike[str] | IO[bytes]"

#: Highest label: 25 is L6. 0 is background.
MAX_LABEL = 25

#: Headers of one scan, written by two programs, differ by rounding to this degree (affine entries, mm).
GEOMETRY_TOLERANCE = 1e-3

#: Bytes a buffer may be ahead of the voxels that have arrived, whatever a header promises.
_FIRST_ALLOCATION = 1 << 26

_AGAIN = "Delete the file and get it again."
_GZIP_MAGIC = b"\x1f\x8b"

#: The kind of header by its first four bytes, which are its own length in either byte order.
_HEADERS: dict[bytes, type[nib.Nifti1Header]] = {
    kind.sizeof_hdr.to_bytes(4, order): kind
    for kind in (nib.Nifti1Header, nib.Nifti2Header)
    for order in ("little", "big")
}


@dataclass(frozen=True)
class Geometry:
    """Where the voxels of a volume lie."""

    shape: tuple[int, int, int]  #: of the array: (slices, first axis, second axis)
    affine: NDArray[np.float64]  #: (4, 4), of the file: voxel index (i, j, k) -> RAS+ millimetres
    spacing: tuple[float, float, float]  #: mm, in the array's axis order
    orientation: str  #: where the array's axes lead to, such as "SLA": slices upwards, rows to the left


@dataclass(frozen=True)
class VolumePair:
    """Image and segmentation of one case, slice first."""

    image: NDArray[np.float32]  #: (k, i, j), Hounsfield units
    segmentation: NDArray[np.int32]  #: (k, i, j), 0 background, 1-25 vertebrae
    affine: NDArray[np.float64]  #: (4, 4), of the file: voxel index (i, j, k) -> RAS+ millimetres
    spacing: tuple[float, float, float]  #: mm, in the array's axis order
    orientation: str  #: where the array's axes lead to, such as "SLA"


def read_pair(
    image: Readable, mask: Readable, *, on_geometry: Literal["raise", "warn"] = "warn"
) -> VolumePair:
    """Read one case as arrays, as stored: neither resampled nor reoriented.

    Args:
        image: the CT, a path or an open binary stream, ``.nii.gz`` or ``.nii``.
        mask: its label map, likewise.
        on_geometry: what to do when the two headers place the voxels differently.

    Returns:
        VolumePair: ``image`` float32 in HU and ``segmentation`` int32, both of shape (k, i, j), with the
        image's affine, spacing and orientation.

    Raises:
        CaseError: the files cannot be used; its subclasses and its message say why.
        FileNotFoundError: there is no file at a path.
    """
    with open_pair(image, mask, on_geometry=on_geometry) as pair:
        return pair.read()


@contextlib.contextmanager
def open_pair(
    image: Readable, mask: Readable, *, on_geometry: Literal["raise", "warn"] = "warn"
) -> Iterator[PairReader]:
    """Open one case and read both headers. Arguments and errors as of `read_pair`."""
    check_choice("on_geometry", on_geometry, ("raise", "warn"))
    with contextlib.ExitStack() as stack:
        image_reader = stack.enter_context(_VolumeReader.opened(image))
        mask_reader = stack.enter_context(_VolumeReader.opened(mask))
        yield PairReader(image_reader, mask_reader, on_geometry)


class PairReader:
    """The two files of one case, opened side by side; read once, from the first slice to the last."""

    def __init__(self, image: _VolumeReader, mask: _VolumeReader, on_geometry: str) -> None:
        _check_same_place(image, mask, on_geometry)
        self._image, self._mask = image, mask
        self.name = image.name  #: of the image's file, for messages
        i, j, k = image.shape
        along_i, along_j, along_k = (float(size) for size in voxel_sizes(image.affine))
        codes = nib.orientations.aff2axcodes(image.affine)
        self.geometry = Geometry(
            shape=(k, i, j),
            affine=image.affine,
            spacing=(along_k, along_i, along_j),
            orientation="".join(codes[axis] or "?" for axis in (2, 0, 1)),
        )

    def slices(self) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int32]]]:
        """Yield image (float32, HU) and segmentation (int32) of each slice, both of shape (i, j).

        The end of both files is checked after the last slice.
        """
        shape = self.geometry.shape[1:]
        for raw_image, raw_mask in zip(self._image.slices(), self._mask.slices(), strict=True):
            image, segmentation = np.empty(shape, np.float32), np.empty(shape, np.int32)
            self._image.to_intensities(raw_image, image)
            self._mask.to_labels(raw_mask, segmentation)
            yield image, segmentation

    def read(self) -> VolumePair:
        """Read all slices into two arrays."""
        image, segmentation = (
            _GrowingVolume(self.geometry.shape, "f4"),
            _GrowingVolume(self.geometry.shape, "i4"),
        )
        for raw_image, raw_mask in zip(self._image.slices(), self._mask.slices(), strict=True):
            self._image.to_intensities(raw_image, image.next_slice())
            self._mask.to_labels(raw_mask, segmentation.next_slice())
        geometry = self.geometry
        return VolumePair(
            image.voxels, segmentation.voxels, geometry.affine, geometry.spacing, geometry.orientation
        )

    def check(self) -> None:
        """Read everything and keep nothing."""
        for _ in self.slices():
            pass


def _check_same_place(image: _VolumeReader, mask: _VolumeReader, on_geometry: str) -> None:
    if image.shape != mask.shape:
        raise PairMismatchError(
            mask.name,
            f"the shape of {image.name}, {image.shape}",
            str(mask.shape),
            "The mask belongs to another volume, or one of the two was resampled.",
        )
    places = {"affine": (image.affine, mask.affine), "spacing": (image.zooms, mask.zooms)}
    differing = {
        name: both for name, both in places.items() if not np.allclose(*both, rtol=0, atol=GEOMETRY_TOLERANCE)
    }
    if not differing:
        return
    expected, found = (
        " and ".join(str(both[which].round(4).tolist()) for both in differing.values()) for which in (0, 1)
    )
    error = PairMismatchError(
        mask.name,
        f"the {' and '.join(differing)} of {image.name}, {expected}",
        found,
        'Voxels are paired by index. Pass on_geometry="raise" to stop here, on_geometry="warn" to go on.',
    )
    if on_geometry == "raise":
        raise error
    warnings.warn(str(error), GeometryWarning, stacklevel=2)


class _VolumeReader:
    """One NIfTI file: its header, then its slices in order, as they are stored."""

    def __init__(self, stream: io.BufferedIOBase, name: str) -> None:
        self.name = name
        self.affine: NDArray[np.float64]
        self._stream = stream
        self._buffer = bytearray()
        header = self._read_header()
        self.shape = self._checked_shape(header)
        self.dtype = self._checked_dtype(header)
        slope, inter = header.get_slope_inter()  # None where the header's values mean "unscaled"
        self._slope, self._inter = 1.0 if slope is None else slope, 0.0 if inter is None else inter
        self.zooms: NDArray[np.float64] = np.asarray(header.get_zooms()[:3], np.float64)

    @classmethod
    @contextlib.contextmanager
    def opened(cls, source: Readable) -> Iterator[_VolumeReader]:
        name, opened = _opened(source)
        with opened as stream:
            with _explained(name):  # not around the yield: what happens there has a file of its own
                reader = cls(_inflated(stream, name), name)
            yield reader

    def slices(self) -> Iterator[NDArray[Any]]:
        """Yield each slice as a view, of shape (i, j) and the stored type, of a buffer that is used again."""
        rows, columns, count = self.shape
        size = rows * columns * self.dtype.itemsize
        for number in range(count):
            with _explained(self.name):
                self._fill_buffer(size, f"{count} slices", f"the end of the file in slice {number}")
            yield np.frombuffer(self._buffer, self.dtype, rows * columns).reshape(columns, rows).T
        with _explained(self.name):
            self._check_end()

    def to_intensities(self, stored: NDArray[Any], out: NDArray[np.float32]) -> None:
        """Convert a slice to float32, scaled as nibabel scales it."""
        # An infinite result is reported below, by file and value, not as NumPy's warning.
        with np.errstate(over="ignore", invalid="ignore"):
            np.copyto(out, self._scaled(stored), casting="unsafe")
        if (self.dtype.kind == "f" or self._is_scaled) and not np.isfinite(out).all():
            bad = out[~np.isfinite(out)][0]
            raise VoxelValueError(
                self.name,
                "finite intensities",
                f"{bad} among the voxels",
                "The scan cannot be used as it is.",
            )

    def to_labels(self, stored: NDArray[Any], out: NDArray[np.int32]) -> None:
        """Convert a slice to int32. A value that is not a label is an error, not a cast."""
        values = self._scaled(stored)
        with np.errstate(invalid="ignore"):
            np.copyto(out, values, casting="unsafe")
        wrong = None
        if values.dtype.kind == "f" and (out != values).any():
            wrong = values[out != values][0]
        elif values.min() < 0 or values.max() > MAX_LABEL:
            wrong = values[(values < 0) | (values > MAX_LABEL)][0]
        if wrong is not None:
            raise VoxelValueError(
                self.name,
                f"labels, whole numbers from 0 to {MAX_LABEL}",
                f"{wrong} among the voxels",
                "Is this the mask, and of this data set?",
            )

    @property
    def _is_scaled(self) -> bool:
        return self._slope != 1.0 or self._inter != 0.0

    def _scaled(self, stored: NDArray[Any]) -> NDArray[Any]:
        """Apply slope and intercept, one slice at a time in float64, as nibabel does for a volume."""
        if not self._is_scaled:
            # 64-bit integers round twice on nibabel's way to float32, over float64; all else is exact.
            is_wide = self.dtype.kind in "iu" and self.dtype.itemsize == 8
            return stored.astype(np.float64) if is_wide else stored
        scaled = stored.astype(np.float64)
        if self._slope != 1.0:
            scaled *= self._slope
        if self._inter != 0.0:  # adding 0.0 would turn -0.0 into 0.0
            scaled += self._inter
        return scaled

    def _read_header(self) -> nib.Nifti1Header:
        start = self._read(4)
        if start not in _HEADERS:
            raise FileFormatError(
                self.name, "a NIfTI header", f"bytes {start.hex(' ')} where its length stands", _AGAIN
            )
        kind = _HEADERS[start]
        block = start + self._read(kind.sizeof_hdr - 4)
        try:
            header = kind(block, check=True)
            single = bytes(header["magic"]).startswith(b"n+")
            header.get_slope_inter()
            self.affine = np.asarray(header.get_best_affine(), np.float64)
            offset = int(header.get_data_offset())
        except (HeaderDataError, WrapStructError, ValueError, OverflowError) as error:
            raise FileFormatError(self.name, "a valid NIfTI header", str(error), _AGAIN) from error
        if not np.isfinite(self.affine).all():
            found = str(self.affine[:3].tolist())
            raise FileFormatError(self.name, "a finite affine", found, _AGAIN)
        if not single:
            raise FileFormatError(
                self.name,
                "header and voxels in one file",
                "the header of a .hdr/.img pair",
                "Convert it to .nii.gz.",
            )
        self._skip(offset - kind.sizeof_hdr)
        return header

    def _checked_shape(self, header: nib.Nifti1Header) -> tuple[int, int, int]:
        shape = tuple(int(size) for size in header.get_data_shape())
        while len(shape) > 3 and shape[-1] == 1:
            shape = shape[:-1]
        if len(shape) != 3 or min(shape) < 1:
            raise FileFormatError(
                self.name, "3 dimensions", f"shape {shape}", "This data set has one scan a file."
            )
        return shape

    def _checked_dtype(self, header: nib.Nifti1Header) -> np.dtype[Any]:
        dtype: np.dtype[Any] = header.get_data_dtype()
        if dtype.kind not in "iuf" or dtype.itemsize > 8:
            raise FileFormatError(
                self.name,
                "voxels that are real numbers of at most 64 bits",
                f"type {dtype}",
                "Convert the file.",
            )
        return dtype

    def _fill_buffer(self, size: int, expected: str, found: str) -> None:
        """Read ``size`` bytes to the buffer's start. It grows as bytes arrive, not on the header's word."""
        filled = 0
        while filled < size:
            if len(self._buffer) == filled:
                # A new buffer: NumPy may still hold the old one, which then cannot be resized.
                self._buffer = self._buffer + bytes(min(size - filled, max(filled, 1 << 20)))
            count = self._stream.readinto(memoryview(self._buffer)[filled:size])
            if not count:
                raise TruncatedFileError(self.name, expected, found, _AGAIN)
            filled += count

    def _read(self, size: int) -> bytes:
        self._fill_buffer(size, "a NIfTI header", "the end of the file in it")
        return bytes(self._buffer[:size])

    def _skip(self, size: int) -> None:
        while size > 0:
            step = min(size, 1 << 16)
            self._fill_buffer(step, "voxels after the header", "the end of the file before them")
            size -= step

    def _check_end(self) -> None:
        # Reading on also makes gzip check the CRC and the length.
        if self._stream.read(1):
            raise CorruptFileError(
                self.name, "the end of the file after the last slice", "more bytes", _AGAIN
            )


class _GrowingVolume:
    """An array of slices that takes memory as the slices arrive, not on a header's word."""

    def __init__(self, shape: tuple[int, int, int], dtype: str) -> None:
        self._count, *self._slice_shape = shape
        self._filled = 0
        self.voxels: NDArray[Any] = np.empty(0, dtype)

    def next_slice(self) -> NDArray[Any]:
        """Give the next slice to be written to; the one before must have been let go."""
        if self._filled == 0 or self._filled == len(self.voxels):
            at_first = _FIRST_ALLOCATION // (math.prod(self._slice_shape) * self.voxels.itemsize)
            size = min(self._count, max(at_first, 2 * self._filled, 1))
            self.voxels.resize((size, *self._slice_shape), refcheck=False)
        self._filled += 1
        return self.voxels[self._filled - 1]  # type: ignore[no-any-return]


class _Prefixed(io.RawIOBase):
    """A stream some of whose bytes have been read already, to see what it is."""

    def __init__(self, head: bytes, stream: IO[bytes]) -> None:
        self._head, self._stream = head, stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._head[: len(buffer)] if self._head else self._stream.read(len(buffer))
        self._head = self._head[len(data) :]
        buffer[: len(data)] = data
        return len(data)


def _opened(source: Readable) -> tuple[str, contextlib.AbstractContextManager[IO[bytes]]]:
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source), open(source, "rb", buffering=0)  # noqa: PTH123 (closed by the caller)
    name = getattr(source, "name", None) or getattr(source, "path", None) or "<stream>"
    return str(name), contextlib.nullcontext(source)


def _inflated(stream: IO[bytes], name: str) -> io.BufferedIOBase:
    """See what the stream holds by its first bytes, and inflate it if it is gzip."""
    head = b""
    while len(head) < 512 and (more := stream.read(512 - len(head))):
        head += more
    _check_kind(head, name)
    raw = _Prefixed(head, stream)
    if head.startswith(_GZIP_MAGIC):
        return igzip.IGzipFile(fileobj=raw, mode="rb")
    return io.BufferedReader(raw)


def _check_kind(head: bytes, name: str) -> None:
    """Tell the usual things that are saved as ``.nii.gz`` and are none."""
    text = head.lstrip().lower()
    if not head:
        raise FileFormatError(name, "a NIfTI file", "an empty file", _AGAIN)
    if text.startswith(b"version https://git-lfs"):
        raise FileFormatError(
            name, "a NIfTI file", "a Git LFS pointer", "Run `git lfs pull`, or use ctspine1k.download_files."
        )
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        raise FileFormatError(name, "a NIfTI file", "a web page", f"The download failed. {_AGAIN}")
    if not head.startswith(_GZIP_MAGIC) and head[:4] not in _HEADERS:
        raise FileFormatError(
            name, "gzip or NIfTI data", f"a file that begins with bytes {head[:4].hex(' ')}", _AGAIN
        )


@contextlib.contextmanager
def _explained(name: str) -> Iterator[None]:
    """Turn what gzip, isal and zlib raise into our errors."""
    try:
        yield
    except CaseError:
        raise
    except EOFError as error:
        found = "the end of the file in it, or stray bytes after it"
        raise TruncatedFileError(name, "a whole gzip stream", found, _AGAIN) from error
    except gzip.BadGzipFile as error:
        trailing = "Not a gzipped file" in str(error)  # the first member was gzip: this is what follows it
        found = "other bytes after its end" if trailing else str(error)
        raise CorruptFileError(name, "one intact gzip stream", found, _AGAIN) from error
    except isal_zlib.error as error:  # type: ignore[misc]  # its stub has an instance
        raise CorruptFileError(name, "one intact gzip stream", str(error), _AGAIN) from error
