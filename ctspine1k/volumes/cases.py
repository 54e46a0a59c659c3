"""One case from its two NIfTI files: one gzip pass, slice by slice, checked.

A ``.nii.gz`` is one gzip stream in which the slices come in order. It is inflated with ISA-L, some slices at
a time, into two buffers in turn, and whoever needs them transposes and converts them in one step: float64
copies of a volume never exist, and a pass over the slices needs memory for a few of them. Where a second
thread may be used, it inflates the next slices meanwhile. What comes out is, bit for bit,
``np.transpose(nibabel.load(file).get_fdata(), (2, 0, 1))``, cast.

Axis order: files have axes (i, j, k); arrays here are slice first, (k, i, j). Nothing is resampled, and
nothing reoriented unless that is asked for: then arrays are what they would be had the file been stored so.
"""

from __future__ import annotations

import contextlib
import gzip
import io
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
from ctspine1k.running.threads import prefetch, usable_threads
from ctspine1k.volumes.growing import GrowingArray
from ctspine1k.volumes.orientation import Turn, check_orientation, turn_to
from ctspine1k.volumes.scaling import Scaling
from ctspine1k.volumes.vertebrae import MAX_LABEL, LabelScheme, label_table

__all__ = ["CaseReader", "Geometry", "VolumePair", "check_file", "open_case", "read_pair"]

#: A path of a ``.nii.gz`` or ``.nii`` file, or a binary stream of one (it need not seek, and stays open).
Readable: TypeAlias = "str | os.PathLike[str] | IO[bytes]"

#: Headers of one scan, written by two programs, differ by rounding to this degree (affine entries, mm).
GEOMETRY_TOLERANCE = 1e-3

#: Slices that are read at a time where nothing else is said.
_DEPTH = 8

#: Bytes that are inflated at a time: what the cache holds, since they are copied once.
_PIECE = 1 << 19

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

    @classmethod
    def of(cls, affine: NDArray[np.float64], shape: tuple[int, int, int]) -> Geometry:
        """Tell it from affine and shape of a file, (i, j, k)."""
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
class VolumePair:
    """Image and segmentation of one case, slice first."""

    image: NDArray[np.float32]  #: (k, i, j), Hounsfield units
    segmentation: NDArray[np.int32]  #: (k, i, j), 0 background, 1-25 vertebrae
    affine: NDArray[np.float64]  #: (4, 4), of the file: voxel index (i, j, k) -> RAS+ millimetres
    spacing: tuple[float, float, float]  #: mm, in the array's axis order
    orientation: str  #: where the array's axes lead to, such as "SLA"


def read_pair(
    image: Readable,
    mask: Readable,
    *,
    on_geometry: Literal["raise", "warn"] = "warn",
    orientation: str | None = None,
) -> VolumePair:
    """Read one case as arrays, not resampled.

    Args:
        image: the CT, a path or an open binary stream, ``.nii.gz`` or ``.nii``.
        mask: its label map, likewise.
        on_geometry: what to do when the two headers place the voxels differently.
        orientation: None for as stored; or where the axes (i, j, k) of the files shall lead to, such as
            "RAS": arrays, affine and spacing are then what they would be had both files been stored so.
            Arrays are slice first all the same: theirs is then "SRA".

    Returns:
        VolumePair: ``image`` float32 in HU and ``segmentation`` int32, both of shape (k, i, j), with the
        image's affine, spacing and orientation.

    Raises:
        CaseError: the files cannot be used; its subclasses and its message say why.
        FileNotFoundError: there is no file at a path.
    """
    options: dict[str, Any] = {"on_geometry": on_geometry, "orientation": orientation}
    with open_case(image, mask, threads=usable_threads(), **options) as pair:
        return pair.read()


@contextlib.contextmanager
def open_case(
    image: Readable,
    mask: Readable,
    *,
    on_geometry: Literal["raise", "warn"] | None = "warn",
    orientation: str | None = None,
    label_scheme: LabelScheme = "ctspine1k",
    threads: int = 1,
) -> Iterator[CaseReader]:
    """Open one case and read both headers; arguments and errors as of `read_pair`.

    With ``on_geometry=None`` the places of the two are not compared; ``label_scheme`` is what labels become
    (`ctspine1k.volumes.vertebrae`); with ``threads`` above 1, a thread reads ahead.
    """
    check_choice("on_geometry", on_geometry, ("raise", "warn"))
    check_orientation(orientation)
    table = label_table(label_scheme)
    with contextlib.ExitStack() as stack:
        image_reader = stack.enter_context(_VolumeReader.opened(image))
        mask_reader = stack.enter_context(_VolumeReader.opened(mask))
        pair = CaseReader(image_reader, mask_reader, orientation, table, threads)
        if on_geometry is not None and (error := pair.geometry_mismatch()):
            if on_geometry == "raise":
                raise error
            warnings.warn(str(error), GeometryWarning, stacklevel=3)
        yield pair


def check_file(file: Readable) -> None:
    """Read one file from its header to the end of gzip, whatever its voxels mean.

    Raises:
        CaseError: it is damaged, or no NIfTI file of a scan.
        FileNotFoundError: there is none.
    """
    with _VolumeReader.opened(file) as reader:
        for _ in reader.stored(_DEPTH):
            pass


class CaseReader:
    """The two files of one case, opened side by side; read once, from the first slice to the last."""

    def __init__(
        self,
        image: _VolumeReader,
        mask: _VolumeReader,
        orientation: str | None,
        table: NDArray[np.uint8] | None,
        threads: int,
    ) -> None:
        _check_same_shape(image, mask)
        self._image, self._mask, self._table, self._threads = image, mask, table, threads
        self.name = image.name  #: of the image's file, for messages
        self.scaling = image.scaling  #: from the stored intensities to Hounsfield units
        #: Of what `slabs` yields.
        self.stored_types = image.dtype, mask.label_type if table is None else table.dtype
        self._turn = None if orientation is None else _turn_of(image, orientation)
        self.geometry = (
            Geometry.of(image.affine, image.shape)
            if self._turn is None
            else Geometry.of(self._turn.affine, self._turn.shape(image.shape))
        )

    @property
    def file_types(self) -> tuple[np.dtype[Any], np.dtype[Any]]:
        """Types of the voxels in the files of image and mask."""
        return self._image.dtype, self._mask.dtype

    def geometry_mismatch(self) -> PairMismatchError | None:
        """Tell in what the headers of image and mask place the same voxel differently, if they do."""
        return _misplacement(self._image, self._mask)

    def slabs(self, depth: int = _DEPTH) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        """Yield image and labels of ``depth`` slices at a time (the last time, of those that are left).

        Both are of shape (slices, i, j), though in memory another axis comes last, and of the types in
        `stored_types`, in the file's byte order: the image as it is stored, to be scaled with `scaling`, and
        finite when it is; the labels as whole numbers from 0 to 25. They are views of buffers, written over
        when the next are asked for. The end of both files is checked after the last slice.

        Where another orientation is asked for, in which slices are others or come in another order, both
        volumes are read whole first.
        """
        slabs = self._stored_slabs(depth)
        if self._turn is None:
            yield from slabs
        elif self._turn.keeps_slices:
            for stored, labels in slabs:
                yield self._turn.view(stored), self._turn.view(labels)
        else:
            image, mask = (self._turn.view(volume) for volume in self._whole(slabs))
            for start in range(0, len(image), depth):
                yield image[start : start + depth], mask[start : start + depth]

    def _stored_slabs(self, depth: int) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        pairs = zip(self._image.images(depth), self._mask.labels(depth), strict=True)
        for stored, labels in prefetch(pairs) if self._threads > 1 else pairs:
            yield stored, labels if self._table is None else self._table[labels]

    def _whole(self, slabs: Iterator[tuple[NDArray[Any], NDArray[Any]]]) -> Iterator[NDArray[Any]]:
        i, j, k = self._image.shape
        volumes = [GrowingArray((k, i, j), dtype) for dtype in self.stored_types]
        for slab in slabs:
            for volume, part in zip(volumes, slab, strict=True):
                np.copyto(volume.extend(len(part)), part)
        return (volume.filled for volume in volumes)

    def read(self) -> VolumePair:
        """Read all slices into two arrays."""
        image, segmentation = (
            GrowingArray(self.geometry.shape, "f4"),
            GrowingArray(self.geometry.shape, "i4"),
        )
        for stored, labels in self.slabs():
            self.scaling.write(stored, image.extend(len(stored)))
            np.copyto(segmentation.extend(len(labels)), labels, casting="unsafe")
        geometry = self.geometry
        return VolumePair(
            image.filled, segmentation.filled, geometry.affine, geometry.spacing, geometry.orientation
        )

    def check(self) -> None:
        """Read everything and keep nothing."""
        for _ in self._stored_slabs(_DEPTH):
            pass


def _check_same_shape(image: _VolumeReader, mask: _VolumeReader) -> None:
    if image.shape != mask.shape:
        raise PairMismatchError(
            mask.name,
            f"the shape of {image.name}, {image.shape}",
            str(mask.shape),
            "The mask belongs to another volume, or one of the two was resampled.",
        )


def _misplacement(image: _VolumeReader, mask: _VolumeReader) -> PairMismatchError | None:
    places = {"affine": (image.affine, mask.affine), "spacing": (image.zooms, mask.zooms)}
    differing = {
        name: both for name, both in places.items() if not np.allclose(*both, rtol=0, atol=GEOMETRY_TOLERANCE)
    }
    if not differing:
        return None
    expected, found = (
        " and ".join(str(both[which].round(4).tolist()) for both in differing.values()) for which in (0, 1)
    )
    return PairMismatchError(
        mask.name,
        f"the {' and '.join(differing)} of {image.name}, {expected}",
        found,
        'Voxels are paired by index. Pass on_geometry="raise" to stop here, on_geometry="warn" to go on.',
    )


def _turn_of(image: _VolumeReader, orientation: str) -> Turn:
    try:
        return turn_to(orientation, image.affine, image.shape)
    except ValueError as error:
        raise FileFormatError(
            image.name,
            "an affine that leads somewhere along each axis",
            f"{image.affine[:3].tolist()} ({error})",
            "Load it as stored, without orientation.",
        ) from error


class _VolumeReader:
    """One NIfTI file: its header, then its slices in order, as they are stored."""

    def __init__(self, stream: io.BufferedIOBase, name: str) -> None:
        self.name = name
        self.affine: NDArray[np.float64]
        self._stream = stream
        self._buffer, self._other_buffer = bytearray(), bytearray()
        header = self._read_header()
        self.shape = self._checked_shape(header)
        self._file_type = self._checked_dtype(header)
        self.dtype: np.dtype[Any] = self._file_type.newbyteorder("=")
        slope, inter = header.get_slope_inter()  # None where the header's values mean "unscaled"
        self.scaling = Scaling(1.0 if slope is None else float(slope), 0.0 if inter is None else float(inter))
        self.zooms: NDArray[np.float64] = np.asarray(header.get_zooms()[:3], np.float64)

    @classmethod
    @contextlib.contextmanager
    def opened(cls, source: Readable) -> Iterator[_VolumeReader]:
        name, opened = _opened(source)
        with opened as stream:
            with _explained(name):  # not around the yield: what happens there has a file of its own
                reader = cls(_inflated(stream, name), name)
            yield reader

    @property
    def label_type(self) -> np.dtype[Any]:
        """The type that keeps labels: the file's if it holds them as whole numbers, else the smallest."""
        return self.dtype if self._holds_labels else np.dtype(np.uint8)

    @property
    def _holds_labels(self) -> bool:
        return self.dtype.kind in "iu" and self.scaling.is_identity

    def images(self, depth: int) -> Iterator[NDArray[Any]]:
        """Yield intensities as stored, (slices, i, j), whose values are finite."""
        for stored in self.stored(depth):
            if self.dtype.kind == "f" or not self.scaling.is_identity:
                for one in stored:
                    self._check_finite(one)
            yield stored

    def labels(self, depth: int) -> Iterator[NDArray[Any]]:
        """Yield labels, (slices, i, j). A value that is not a label is an error, not a cast."""
        for stored in self.stored(depth):
            if self._holds_labels:
                if stored.min() < 0 or stored.max() > MAX_LABEL:
                    raise self._no_label(stored[(stored < 0) | (stored > MAX_LABEL)][0])
                yield stored
            else:
                yield np.stack([self._to_label_type(one) for one in stored])

    def stored(self, depth: int) -> Iterator[NDArray[Any]]:
        """Yield slabs as they lie in the file, seen slice first: views of two buffers in turn."""
        rows, columns, count = self.shape
        size = rows * columns * self.dtype.itemsize
        for start in range(0, count, depth):
            slices = min(depth, count - start)
            with _explained(self.name):
                filled = self._fill_buffer(slices * size)
            if filled < slices * size:
                found = f"the end of the file in slice {start + filled // size}"
                raise TruncatedFileError(self.name, f"{count} slices", found, _AGAIN)
            stored = np.frombuffer(self._buffer, self._file_type, slices * rows * columns)
            yield stored.reshape(slices, columns, rows).transpose(0, 2, 1)
            # One buffer is filled while the other is looked at.
            self._buffer, self._other_buffer = self._other_buffer, self._buffer
        with _explained(self.name):
            self._check_end()

    def _check_finite(self, stored: NDArray[Any]) -> None:
        values = np.empty(stored.shape, np.float32)
        self.scaling.write(stored, values)
        if not np.isfinite(values).all():
            bad = values[~np.isfinite(values)][0]
            raise VoxelValueError(
                self.name,
                "finite intensities",
                f"{bad} among the voxels",
                "The scan cannot be used as it is.",
            )

    def _to_label_type(self, stored: NDArray[Any]) -> NDArray[Any]:
        values = self.scaling.values(stored)
        with np.errstate(invalid="ignore"):
            is_label = (np.trunc(values) == values) & (values >= 0) & (values <= MAX_LABEL)
        if not is_label.all():
            raise self._no_label(values[~is_label][0])
        return values.astype(self.label_type)

    def _no_label(self, found: object) -> VoxelValueError:
        return VoxelValueError(
            self.name,
            f"labels, whole numbers from 0 to {MAX_LABEL}",
            f"{found} among the voxels",
            "Is this the mask, and of this data set?",
        )

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

    def _fill_buffer(self, size: int) -> int:
        """Read ``size`` bytes to the buffer's start, and tell how many there were.

        It grows as bytes arrive, not on the header's word.
        """
        filled = 0
        while filled < size:
            if len(self._buffer) == filled:
                # A new buffer: NumPy may still hold the old one, which then cannot be resized.
                self._buffer = self._buffer + bytes(min(size - filled, max(filled, 1 << 20)))
            piece = memoryview(self._buffer)[filled : min(size, filled + _PIECE)]
            count = self._stream.readinto(piece)
            if not count:
                break
            filled += count
        return filled

    def _read(self, size: int) -> bytes:
        if self._fill_buffer(size) < size:
            raise TruncatedFileError(self.name, "a NIfTI header", "the end of the file in it", _AGAIN)
        return bytes(self._buffer[:size])

    def _skip(self, size: int) -> None:
        while size > 0:
            step = min(size, 1 << 16)
            if self._fill_buffer(step) < step:
                expected, found = "voxels after the header", "the end of the file before them"
                raise TruncatedFileError(self.name, expected, found, _AGAIN)
            size -= step

    def _check_end(self) -> None:
        # Reading on also makes gzip check the CRC and the length.
        if self._stream.read(1):
            raise CorruptFileError(
                self.name, "the end of the file after the last slice", "more bytes", _AGAIN
            )


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
