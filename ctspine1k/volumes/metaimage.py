"""One MetaImage file (``.mhd`` with ``.raw``, or ``.mha``) as a stream of its voxels, read by SimpleITK.

Its header is checked first (`ctspine1k.volumes.metaheader`), and how many bytes there are: SimpleITK
allocates what a header asks for. Slices are read some at a time where voxels are stored as they are;
where they are compressed, SimpleITK needs the whole volume in memory.
"""

from __future__ import annotations

import contextlib
import importlib
import zlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.affines import voxel_sizes
from numpy.typing import NDArray

from ctspine1k.errors import (
    CorruptFileError,
    FileFormatError,
    GeometryError,
    MissingPackageError,
    TruncatedFileError,
)
from ctspine1k.volumes.alignment import are_close
from ctspine1k.volumes.headers import GET_AGAIN, WRITE_AGAIN, VolumeHeader
from ctspine1k.volumes.metaheader import MetaHeader, read_meta_header
from ctspine1k.volumes.nifti import MAX_PADDING
from ctspine1k.volumes.orientation import degenerate_axes
from ctspine1k.volumes.positions import Doubt, DoubtKind, unit_doubt
from ctspine1k.volumes.scaling import Scaling

__all__ = ["MetaImageFile", "open_metaimage", "require_simpleitk"]

#: Bytes that are read, or inflated, at a time: at least one slice is read.
_PIECE = 1 << 22

#: From LPS, the directions of ITK, to RAS.
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@cache
def require_simpleitk() -> Any:
    """Import SimpleITK, which only MetaImage files need.

    Raises:
        MissingPackageError: it is not installed.
    """
    try:
        return importlib.import_module("SimpleITK")
    except ModuleNotFoundError as error:
        raise MissingPackageError("Reading .mhd and .mha files", "SimpleITK", "msr") from error


@contextlib.contextmanager
def open_metaimage(path: str) -> Iterator[MetaImageFile]:
    """Open a file, and read its header; no voxel is read yet.

    Raises:
        FileFormatError: it is not a MetaImage file of a scan, or its voxels are elsewhere than beside it.
        TruncatedFileError: there are fewer voxels than it says.
        FileNotFoundError: there is no file at the path.
        MissingPackageError: SimpleITK is not installed.
    """
    header = read_meta_header(path)
    header.check_data()
    yield MetaImageFile(header)


class MetaImageFile:
    """An open file: its header, then the bytes of its voxels in order, in the machine's byte order."""

    def __init__(self, header: MetaHeader) -> None:
        self._meta = header
        with self._explained():
            self._reader = require_simpleitk().ImageFileReader()
            self._reader.SetImageIO("MetaImageIO")
            self._reader.SetFileName(header.name)
            self._reader.ReadImageInformation()
        self.header = self._checked()
        self._next = 0  # slice that is read next
        self._rest = memoryview(b"")  # of what was read

    def readinto(self, buffer: memoryview) -> int:
        """Read the next bytes into ``buffer``, and return how many; 0 only after the last voxel.

        Raises:
            TruncatedFileError: there are fewer voxels than the header says.
            CorruptFileError: they cannot be inflated, or read.
        """
        if not self._rest:
            self._rest = self._more()
        part = self._rest[: len(buffer)]
        buffer[: len(part)] = part
        self._rest = self._rest[len(part) :]
        return len(part)

    def check_end(self) -> None:
        """Check that only zeros follow the last voxel, if anything.

        Raises:
            CorruptFileError: there are more bytes.
        """
        meta = self._meta
        if meta.packed is not None or meta.start < 0:  # the end was found, or is the end of the file
            return
        with Path(meta.data).open("rb") as file:
            file.seek(meta.start + meta.bytes)
            more = file.read(MAX_PADDING + 1)
        if len(more) > MAX_PADDING or more.strip(b"\0"):
            expected = "the end of the file after the last slice"
            raise CorruptFileError(meta.data, expected, "more bytes", WRITE_AGAIN)

    def _more(self) -> memoryview:
        """Read the next slices, or all of a volume that is compressed."""
        i, j, k = self._meta.shape
        count = k - self._next
        if not count:
            return memoryview(b"")
        if self._meta.packed is None:
            count = min(count, max(1, _PIECE // (i * j * self.header.dtype.itemsize)))
        else:
            self._check_packed()
        with self._explained():
            self._reader.SetExtractIndex([0, 0, self._next])
            self._reader.SetExtractSize([i, j, count])
            voxels = require_simpleitk().GetArrayFromImage(self._reader.Execute())
        if voxels.shape != (count, j, i) or voxels.dtype != self.header.dtype:
            raise self._other(f"{voxels.dtype} {voxels.shape}")
        self._next += count
        return memoryview(voxels.ravel().view(np.uint8))

    def _check_packed(self) -> None:
        """Inflate compressed voxels, keeping none, and count them, before memory is allocated for all."""
        meta = self._meta
        count, is_end = 0, False
        inflater = zlib.decompressobj(wbits=47)  # zlib's own form, or gzip's
        with Path(meta.data).open("rb") as file:
            file.seek(meta.start)
            while not is_end and count <= meta.bytes:
                data = inflater.unconsumed_tail or file.read(1 << 16)
                try:
                    piece = inflater.decompress(data, _PIECE)
                except zlib.error as error:
                    raise CorruptFileError(meta.data, "intact zlib data", str(error), GET_AGAIN) from error
                count, is_end = count + len(piece), inflater.eof
                if not data and not piece and not is_end:
                    found = "the end of the file in compressed data"
                    raise TruncatedFileError(meta.data, f"{meta.shape[2]:,} slices", found, GET_AGAIN)
            used = file.tell() - len(inflater.unused_data) - meta.start
        if count != meta.bytes or not is_end:
            kind, found = (
                (CorruptFileError, "more") if count > meta.bytes else (TruncatedFileError, f"{count:,}")
            )
            expected = f"{meta.bytes:,} bytes for its {meta.shape[2]:,} slices"
            raise kind(meta.data, expected, found, WRITE_AGAIN)
        if meta.packed and meta.packed != used:
            raise FileFormatError(meta.name, f"CompressedDataSize = {used}", str(meta.packed), WRITE_AGAIN)

    def _checked(self) -> VolumeHeader:
        """Return the header as SimpleITK reads it, which must be what was checked."""
        meta, reader = self._meta, self._reader
        found = reader.GetDimension(), tuple(reader.GetSize()), reader.GetNumberOfComponents()
        if found != (3, meta.shape, 1):
            raise self._other(str(found))
        spacing = np.array(reader.GetSpacing(), np.float64)
        affine = np.eye(4)
        affine[:3, :3] = np.array(reader.GetDirection(), np.float64).reshape(3, 3) * spacing
        affine[:3, 3] = reader.GetOrigin()
        affine = _LPS_TO_RAS @ affine
        affine[:3] *= meta.unit[1]
        if not np.isfinite(affine).all():
            raise FileFormatError(meta.name, "a finite affine", str(affine[:3].tolist()), WRITE_AGAIN)
        if what := degenerate_axes(affine):  # SimpleITK refuses it when it reads voxels
            expected = "an affine with a length and a direction for each axis"
            raise FileFormatError(meta.name, expected, f"{affine[:3].tolist()} ({what})", WRITE_AGAIN)
        return VolumeHeader(
            name=meta.name,
            shape=meta.shape,
            file_type=meta.file_type.newbyteorder("="),  # SimpleITK swaps bytes
            affine=affine,
            zooms=spacing * meta.unit[1],
            doubts=tuple(
                Doubt(kind, GeometryError(meta.name, *texts))
                for kind, *texts in _doubts(meta, affine, spacing)
            ),
            scaling=Scaling(),
        )

    def _other(self, found: str) -> FileFormatError:
        meta = self._meta
        expected = f"one {meta.file_type} for each voxel of {meta.shape}, as in its header"
        return FileFormatError(meta.name, expected, f"{found} by SimpleITK", WRITE_AGAIN)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Translate errors of SimpleITK, with theirs as the cause."""
        try:
            yield
        except (RuntimeError, UnicodeError, TypeError) as error:
            found = (str(error).strip() or type(error).__name__).splitlines()[-1]
            raise CorruptFileError(
                self._meta.name, "a file that SimpleITK reads", found, WRITE_AGAIN
            ) from error


def _doubts(
    meta: MetaHeader, affine: NDArray[np.float64], spacing: NDArray[np.float64]
) -> Iterator[tuple[DoubtKind, str, str, str]]:
    """Yield kind, what was expected, what was found, and a hint; ``spacing`` is that of the header."""
    unit, in_mm = meta.unit
    sizes = voxel_sizes(affine) / in_mm
    if not are_close(sizes, spacing):
        lengths = (sizes / spacing).round(4).tolist()
        hint = "Affine and spacing come from both, as in SimpleITK: the spacing is {} {}."
        hint = hint.format(sizes.round(4).tolist(), unit)
        yield "header", "a TransformMatrix of directions, whose lengths are 1", f"lengths {lengths}", hint
    if in_mm != 1.0:
        yield "units", *unit_doubt(unit, affine, "DistanceUnits")
    if not meta.has_directions:
        hint = "The directions of the axes are a guess: left, posterior and superior, as in SimpleITK."
        yield "unplaced", "a header with a TransformMatrix", "none", hint
