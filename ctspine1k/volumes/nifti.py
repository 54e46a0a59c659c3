"""One NIfTI file as a stream: files that are not NIfTI are recognised, gzip is inflated, errors translated.

A ``.nii.gz`` is one gzip stream, which ISA-L inflates while it is read. The first bytes of a file decide
whether it is gzip, not its name.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import re
from collections.abc import Iterator
from typing import IO, Any, TypeAlias

from isal import igzip, isal_zlib

from ctspine1k.errors import CorruptFileError, FileFormatError, TruncatedFileError
from ctspine1k.volumes.headers import GET_AGAIN, WRITE_AGAIN, VolumeHeader, header_size, parse_header

__all__ = ["MAX_PADDING", "NiftiFile", "Readable", "open_nifti", "stand_in"]

#: A path of a ``.nii.gz`` or ``.nii`` file, or a binary stream of one (it need not seek, and stays open).
Readable: TypeAlias = "str | os.PathLike[str] | IO[bytes]"

_TAKEN = "expected a path of a .nii.gz or .nii file, or a binary stream of one"

#: The beginning of a URL; a single letter is a drive of Windows.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")

#: What to do with other objects, by an attribute that they have.
_ADVICE = {
    "dataobj": ": an image of nibabel is in memory already; pass its path, image.get_filename()",
    "__array__": ": arrays have no header; pass the path of the file that they are from",
    "hex": ": pass io.BytesIO(data) for the bytes of a file",
}

_GZIP_MAGIC = b"\x1f\x8b"

#: What is often saved as ``.nii.gz`` by mistake: where it has which bytes, what it is, and what to do.
_UNPACK = "Unpack it, and use the NIfTI file that is in it."
_CONVERT = "Convert it to NIfTI, such as with SimpleITK."
_OTHER_FORMATS = (
    (0, b"PK\x03\x04", "a zip archive", _UNPACK),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    (0, b"Rar!", "a RAR archive", _UNPACK),
    (257, b"ustar", "a tar archive", _UNPACK),
    (0, b"BZh", "bzip2 data", "Decompress it with bunzip2, and name the result .nii."),
    (0, b"\xfd7zXZ", "xz data", "Decompress it with unxz, and name the result .nii."),
    (0, b"\x28\xb5\x2f\xfd", "Zstandard data", "Decompress it with unzstd, and name the result .nii."),
    (0, _GZIP_MAGIC, "gzip data", "It was compressed twice: decompress it once with gunzip."),
    (128, b"DICM", "a DICOM file", _CONVERT),
    (0, b"NRRD", "an NRRD file", _CONVERT),
    (0, b"ObjectType", "a MetaImage header", "Name it .mhd, as its .raw is named, or .mha if it has voxels."),
    (0, b"\x89HDF", "an HDF5 file", _CONVERT),
)

#: Bytes at the beginning of a file by which it is recognised.
_HEAD = 512

#: Zeros that may follow the last voxel: programs, tapes and disks fill up a last block.
MAX_PADDING = 1 << 16

_TOO_EARLY = "the end of the file too early"


@contextlib.contextmanager
def open_nifti(source: Readable) -> Iterator[NiftiFile]:
    """Open a file, and read it up to its first voxel.

    Raises:
        FileFormatError: it is not NIfTI, or has no three-dimensional scan.
        TruncatedFileError: it ends before the first voxel.
        CorruptFileError: gzip cannot inflate it.
        FileNotFoundError: there is no file at the path.
        TypeError: it is neither a path nor a binary stream.
    """
    if isinstance(source, (str, os.PathLike)):
        _check_path(os.fspath(source))
        name = os.fspath(source)
        opened: contextlib.AbstractContextManager[IO[bytes]] = open(source, "rb", buffering=0)  # noqa: PTH123, SIM115
    else:
        _check_stream(source)
        name = str(getattr(source, "name", None) or getattr(source, "path", None) or "<stream>")
        opened = contextlib.nullcontext(source)  # the caller closes it
    with opened as stream:
        yield NiftiFile(stream, name)


def _check_path(path: str) -> None:
    """Raise a `TypeError` if a path is a URL, of which `pathlib` makes "https:/"."""
    if _URL.match(path) and not os.path.exists(path):  # noqa: PTH110
        raise TypeError(f"{path}: {_TAKEN}; found a URL: download the file, or open it with fsspec.open(...)")


def _check_stream(source: object) -> None:
    """Raise a `TypeError` if something is not a binary stream."""
    if isinstance(source, io.TextIOBase):
        raise TypeError(f'{_TAKEN}; found a stream of text: open it with open(path, "rb")')
    if not callable(getattr(source, "read", None)):
        kind = type(source)
        advice = next((text for name, text in _ADVICE.items() if hasattr(source, name)), "")
        raise TypeError(f"{_TAKEN}; found {kind.__module__}.{kind.__qualname__}{advice}")


class NiftiFile:
    """An open file: its header, then the bytes of its voxels in order."""

    def __init__(self, stream: IO[bytes], name: str) -> None:
        self._name = name
        self._file, self._start = stream, stream.tell() if _can_seek(stream) else None
        self._stream = _inflated(stream, name)
        start = self._read(4)
        size = header_size(start)
        if size is None:
            rest = bytearray(_HEAD - 4)
            raise _not_nifti(start + rest[: self._fill(rest)], name, inside=" inside gzip")
        self.header: VolumeHeader = parse_header(start + self._read(size - 4), name)
        self._skip(self.header.offset - size)

    def readinto(self, buffer: memoryview) -> int:
        """Read the next bytes into ``buffer``, and return how many; 0 only at the end of the file.

        Raises:
            TruncatedFileError: the gzip stream is cut off.
            CorruptFileError: it is damaged.
        """
        with self._explained():
            return self._stream.readinto(buffer)

    def check_end(self) -> None:
        """Check that only zeros follow the last voxel, if anything; at the end, gzip checks CRC and length.

        Raises:
            TruncatedFileError: the gzip stream is cut off.
            CorruptFileError: it is damaged, or there are more bytes.
        """
        with self._explained():
            more = self._stream.read(MAX_PADDING + 1)
        if len(more) > MAX_PADDING or more.strip(b"\0"):
            expected = "the end of the file after the last slice"
            raise CorruptFileError(self._name, expected, "more bytes", WRITE_AGAIN)

    def _read(self, size: int) -> bytes:
        data = bytearray(size)
        if self._fill(data) < size:
            raise TruncatedFileError(self._name, "a NIfTI header", _TOO_EARLY, GET_AGAIN)
        return bytes(data)

    def _skip(self, size: int) -> None:
        while size > 0:
            part = bytearray(min(size, 1 << 16))
            if self._fill(part) < len(part):
                raise TruncatedFileError(self._name, "voxels after the header", _TOO_EARLY, GET_AGAIN)
            size -= len(part)

    def _fill(self, data: bytearray) -> int:
        filled = 0
        while filled < len(data) and (count := self.readinto(memoryview(data)[filled:])):
            filled += count
        return filled

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Translate errors of gzip, isal and zlib into errors of the case, with theirs as the cause."""
        expected, trailing = "one intact gzip stream", "other bytes after its end"
        try:
            yield
        except EOFError as error:  # also raised for extra bytes that are too few for a gzip header
            if self._start is None:
                found = "incomplete gzip data, or extra bytes after it"
            elif _has_other_bytes(self._file, self._start):
                raise CorruptFileError(self._name, expected, trailing, WRITE_AGAIN) from error
            else:
                found = "incomplete gzip data"
            hint = "The download was probably cut off: delete the file and download it again."
            raise TruncatedFileError(self._name, "a complete gzip stream", found, hint) from error
        except gzip.BadGzipFile as error:
            is_trailing = "Not a gzipped file" in str(error)  # it began as gzip: this is about what follows
            found, hint = (trailing, WRITE_AGAIN) if is_trailing else (str(error), GET_AGAIN)
            raise CorruptFileError(self._name, expected, found, hint) from error
        except isal_zlib.error as error:  # type: ignore[misc]  # its stub has an instance
            raise CorruptFileError(self._name, expected, str(error), GET_AGAIN) from error


def _can_seek(stream: IO[bytes]) -> bool:
    return hasattr(stream, "seekable") and stream.seekable()


def _has_other_bytes(stream: IO[bytes], start: int) -> bool:
    """Inflate a file once more, and return whether its gzip data is complete and followed by other bytes."""
    stream.seek(start)
    inflater: Any = None
    begun = b""  # the first two bytes of the member of gzip that has not ended yet
    for piece in iter(lambda: stream.read(1 << 16), b""):
        rest = piece
        while rest := rest if begun else rest.lstrip(b"\0"):
            inflater = inflater if begun else isal_zlib.decompressobj(wbits=31)
            begun = (begun + rest)[:2]
            try:
                inflater.decompress(rest)
            except isal_zlib.error:  # type: ignore[misc]  # its stub has an instance
                return True
            rest = inflater.unused_data
            if inflater.eof:
                begun = b""
    return not _GZIP_MAGIC.startswith(begun)


class _Prefixed(io.RawIOBase):
    """A stream whose first bytes have been read already, to find out what it is."""

    def __init__(self, head: bytes, stream: IO[bytes]) -> None:
        self._head, self._stream = head, stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._head[: len(buffer)] if self._head else self._stream.read(len(buffer))
        self._head = self._head[len(data) :]
        buffer[: len(data)] = data
        return len(data)


class _Gzip(igzip.IGzipFile):
    """A gzip stream that is inflated into place: its base class would copy what `read` returns."""

    def readinto(self, buffer: Any) -> int:
        return int(self._buffer.readinto(buffer))


def _inflated(stream: IO[bytes], name: str) -> io.BufferedIOBase:
    """Return the stream, inflated if its first bytes are those of gzip."""
    head = b""
    while len(head) < _HEAD and (more := stream.read(_HEAD - len(head))):
        head += more
    if not head.startswith(_GZIP_MAGIC) and header_size(head) is None:
        raise _not_nifti(head, name)
    raw = _Prefixed(head, stream)
    if head.startswith(_GZIP_MAGIC):
        return _Gzip(fileobj=raw, mode="rb")  # type: ignore[no-untyped-call]
    return io.BufferedReader(raw)


def stand_in(head: bytes) -> tuple[str, str] | None:
    """Return what stands where a file should be, by its first bytes, and what to do; None if nothing does."""
    text = bytes(head).lstrip().lower()
    if text.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer", "Run `git lfs pull`, or download the file itself."
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return "a web page", f"The download failed. {GET_AGAIN}"
    return None


def _not_nifti(head: bytes, name: str, inside: str = "") -> FileFormatError:
    """Return an error that says what a file is instead of NIfTI, by its first bytes.

    Args:
        head: up to `_HEAD` bytes.
        name: of the file.
        inside: what to add, if the bytes were inflated.
    """
    expected = "a NIfTI file"
    if not head:
        return FileFormatError(name, expected, "an empty file", GET_AGAIN)
    if instead := stand_in(head):
        found, hint = instead
        return FileFormatError(name, expected, f"{found}{inside}", hint)
    for offset, magic, what, hint in _OTHER_FORMATS:
        if head[offset:].startswith(magic):
            return FileFormatError(name, expected, f"{what}{inside}", hint)
    if inside:
        found = f"bytes {head[:4].hex(' ')} instead of its length"
        return FileFormatError(name, "a NIfTI header", found, WRITE_AGAIN)
    found = f"a file that begins with bytes {head[:4].hex(' ')}"
    return FileFormatError(name, "gzip or NIfTI data", found, WRITE_AGAIN)
