"""One NIfTI file as a stream: files that are not NIfTI are recognised, gzip is inflated, errors translated.

A ``.nii.gz`` is one gzip stream, which ISA-L inflates while it is read. The first bytes of a file decide
whether it is gzip, not its name.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import os
from collections.abc import Iterator
from typing import IO, Any, TypeAlias

from isal import igzip, isal_zlib

from ctspine1k.errors import CorruptFileError, FileFormatError, TruncatedFileError
from ctspine1k.volumes.headers import GET_AGAIN, VolumeHeader, header_size, parse_header

__all__ = ["NiftiFile", "Readable", "open_nifti"]

#: A path of a ``.nii.gz`` or ``.nii`` file, or a binary stream of one (it need not seek, and stays open).
Readable: TypeAlias = "str | os.PathLike[str] | IO[bytes]"

_GZIP_MAGIC = b"\x1f\x8b"

_TOO_EARLY = "the end of the file too early"


@contextlib.contextmanager
def open_nifti(source: Readable) -> Iterator[NiftiFile]:
    """Open a file, and read it up to its first voxel.

    Raises:
        FileFormatError: it is not NIfTI, or has no three-dimensional scan.
        TruncatedFileError: it ends before the first voxel.
        CorruptFileError: gzip cannot inflate it.
        FileNotFoundError: there is no file at the path.
    """
    if isinstance(source, (str, os.PathLike)):
        name = os.fspath(source)
        opened: contextlib.AbstractContextManager[IO[bytes]] = open(source, "rb", buffering=0)  # noqa: PTH123, SIM115
    else:
        name = str(getattr(source, "name", None) or getattr(source, "path", None) or "<stream>")
        opened = contextlib.nullcontext(source)  # the caller closes it
    with opened as stream:
        yield NiftiFile(stream, name)


class NiftiFile:
    """An open file: its header, then the bytes of its voxels in order."""

    def __init__(self, stream: IO[bytes], name: str) -> None:
        self._name = name
        self._stream = _inflated(stream, name)
        start = self._read(4)
        size = header_size(start)
        if size is None:
            found = f"bytes {start.hex(' ')} instead of its length"
            raise FileFormatError(name, "a NIfTI header", found, GET_AGAIN)
        self.header: VolumeHeader = parse_header(start + self._read(size - 4), name)
        self._skip(self.header.offset - size)

    def readinto(self, buffer: memoryview) -> int:
        """Read the next bytes into ``buffer``, and return how many; 0 only at the end of the file.

        Raises:
            TruncatedFileError: the gzip stream is cut off.
            CorruptFileError: it is damaged.
        """
        with _explained(self._name):
            return self._stream.readinto(buffer)

    def check_end(self) -> None:
        """Check that nothing follows the last voxel; at the end, gzip also checks CRC and length.

        Raises:
            TruncatedFileError: the gzip stream is cut off.
            CorruptFileError: it is damaged, or there are more bytes.
        """
        with _explained(self._name):
            more = self._stream.read(1)
        if more:
            expected = "the end of the file after the last slice"
            raise CorruptFileError(self._name, expected, "more bytes", GET_AGAIN)

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


def _inflated(stream: IO[bytes], name: str) -> io.BufferedIOBase:
    """Return the stream, inflated if its first bytes are those of gzip."""
    head = b""
    while len(head) < 512 and (more := stream.read(512 - len(head))):
        head += more
    _check_kind(head, name)
    raw = _Prefixed(head, stream)
    if head.startswith(_GZIP_MAGIC):
        return igzip.IGzipFile(fileobj=raw, mode="rb")
    return io.BufferedReader(raw)


def _check_kind(head: bytes, name: str) -> None:
    """Raise an error if a file is not NIfTI; it names what is often saved as ``.nii.gz`` by mistake."""
    text = head.lstrip().lower()
    if not head:
        raise FileFormatError(name, "a NIfTI file", "an empty file", GET_AGAIN)
    if text.startswith(b"version https://git-lfs"):
        hint = "Run `git lfs pull`, or use ctspine1k.download_files."
        raise FileFormatError(name, "a NIfTI file", "a Git LFS pointer", hint)
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        raise FileFormatError(name, "a NIfTI file", "a web page", f"The download failed. {GET_AGAIN}")
    if not head.startswith(_GZIP_MAGIC) and header_size(head) is None:
        found = f"a file that begins with bytes {head[:4].hex(' ')}"
        raise FileFormatError(name, "gzip or NIfTI data", found, GET_AGAIN)


@contextlib.contextmanager
def _explained(name: str) -> Iterator[None]:
    """Translate errors of gzip, isal and zlib into errors of the case, with theirs as the cause."""
    try:
        yield
    except EOFError as error:
        found = "incomplete gzip data, or extra bytes after it"
        hint = "The download was probably cut off: delete the file and download it again."
        raise TruncatedFileError(name, "a complete gzip stream", found, hint) from error
    except gzip.BadGzipFile as error:
        trailing = "Not a gzipped file" in str(error)  # the file began as gzip, so this is about what follows
        found = "other bytes after its end" if trailing else str(error)
        raise CorruptFileError(name, "one intact gzip stream", found, GET_AGAIN) from error
    except isal_zlib.error as error:  # type: ignore[misc]  # its stub has an instance
        raise CorruptFileError(name, "one intact gzip stream", str(error), GET_AGAIN) from error
