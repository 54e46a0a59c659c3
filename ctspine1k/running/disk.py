"""Files that appear whole or not at all, and that one process at a time writes; sha256, and room on disk."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import filelock

from ctspine1k.errors import BusyError, NoSpaceError

__all__ = [
    "HINT_IF_FULL",
    "atomic_write",
    "device_of",
    "exclusive_lock",
    "explain_full_disk",
    "free_bytes",
    "make_parent",
    "sha256_of",
]

HINT_IF_FULL = "Make room there, or select fewer cases, and run again: what is done is kept."


def make_parent(path: Path) -> None:
    """Make the folder of a file, and see that it may be written to, before there is work to lose.

    Raises:
        OSError: that is not so.
    """
    folder = path.absolute().parent
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        pass


@contextlib.contextmanager
def atomic_write(path: Path, scratch: Path | None = None) -> Iterator[Path]:
    """Give a path to write to: what is there at the end, on the disk, takes the place of ``path``.

    After an error nothing is left of it, and what was at ``path`` before is still there.

    Args:
        path: the file.
        scratch: a folder, on the same disk, for what is not whole yet; None for that of the file.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    folder = path.absolute().parent
    with tempfile.TemporaryDirectory(prefix=".ctspine1k-", dir=scratch or folder) as place:
        written = Path(place) / path.name
        yield written
        _flush(written, os.O_RDWR)
        written.replace(path)
        if os.name != "nt":  # Windows opens no folders
            _flush(folder, os.O_RDONLY)


def _flush(path: Path, flags: int) -> None:
    """Have the disk hold what was written, before a power cut can take it."""
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def exclusive_lock(path: Path, lock: Path | None = None) -> Iterator[None]:
    """Be the only process that writes ``path`` meanwhile, by a lock file: hidden beside it, or ``lock``.

    Raises:
        BusyError: another process is.
    """
    lock = lock or path.with_name(f".{path.name}.lock")
    try:
        with filelock.FileLock(lock, timeout=0):
            try:
                yield
            finally:
                lock.unlink(missing_ok=True)
    except filelock.Timeout:
        raise BusyError(str(path)) from None


def sha256_of(file: IO[bytes]) -> str:
    """Give the sha256 of what is left to read."""
    sha256 = hashlib.sha256()
    while chunk := file.read(1 << 20):
        sha256.update(chunk)
    return sha256.hexdigest()


@contextlib.contextmanager
def explain_full_disk(folder: Path, purpose: str, needed: int) -> Iterator[None]:
    """Turn the machine's word for a full disk, or a full quota, into an error that says what is needed.

    Raises:
        NoSpaceError: that is so.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise NoSpaceError(str(folder), purpose, needed, free_bytes(folder), HINT_IF_FULL) from error


def device_of(folder: Path) -> int:
    """Name the disk where a folder is, or will be."""
    return _there(folder).stat().st_dev


def free_bytes(folder: Path) -> int:
    """Tell how many bytes are free where a folder is, or will be."""
    return shutil.disk_usage(_there(folder)).free


def _there(folder: Path) -> Path:
    return next(parent for parent in (folder, *folder.absolute().parents) if parent.is_dir())
