"""Files on disk: written completely or not at all, by one process at a time; sha256 and free space."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

import filelock

from ctspine1k.errors import BusyError, NoSpaceError, OutputError

__all__ = [
    "HINT_IF_FULL",
    "atomic_write",
    "delete_abandoned",
    "device_of",
    "exclusive_lock",
    "explain_forbidden",
    "explain_full_disk",
    "explain_unwritable",
    "free_bytes",
    "is_forbidden",
    "is_full_disk",
    "make_folder",
    "make_parent",
    "require_folder",
    "require_plain_path",
    "require_replaceable",
    "sha256_of",
]

#: A full disk, and an exceeded quota.
_FULL = (errno.ENOSPC, errno.EDQUOT)

#: Errors of a disk that is read-only, and of files that are another user's.
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)

#: How names of temporary folders begin, and the name of the lock in them.
_TEMPORARY = ".ctspine1k-"
_LOCK = ".lock"

HINT_IF_FULL = "Make room there, or select fewer cases, and run again: what is done is kept."


def require_plain_path(option: str, path: str | os.PathLike[str], others: Sequence[str] = ()) -> None:
    """Check that a path, once it is made absolute, is one that `datasets` and fsspec leave whole.

    fsspec reads "::" as a chain of URLs, such as "zip://a::s3://b": it cuts a local path there, and opens, or
    deletes, the folder that the first part names.

    Args:
        option: name of the option, for the message.
        path: its value.
        others: further texts that it may not contain.

    Raises:
        ValueError: it contains "::", or one of ``others``.
    """
    whole = os.path.abspath(os.path.expanduser(path))  # noqa: PTH100, PTH111 (Path would change a URL)
    for text in ("::", *others):
        if text in whole:
            what = (
                "at which datasets cuts it in two" if text == "::" else "which datasets replaces by a number"
            )
            raise ValueError(
                f"{option}={os.fspath(path)!r}: expected a path without {text!r}, {what}, found {whole}. "
                "Rename that folder, or use another one."
            )


def require_folder(folder: Path) -> None:
    """Check that no file, nor a link that leads nowhere, is where a folder is, or is to be made.

    Raises:
        OutputError: one is there, or where one of the folders above it should be; or nobody may look there.
    """
    for place in (folder, *folder.absolute().parents):
        with explain_unwritable(folder):
            is_folder = place.is_dir()
        if is_folder:
            return
        if os.path.lexists(place):
            expected = "a folder, or a path at which one can be made"
            found = f"the file {place}" if place.exists() else f"the link {place}, which leads nowhere"
            raise OutputError.occupied(str(folder), expected, found)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, where they are not there.

    Raises:
        OutputError: a file is in the place of one, or it cannot be made.
    """
    require_folder(folder)
    with explain_unwritable(folder):
        folder.mkdir(parents=True, exist_ok=True)


def make_parent(path: Path) -> None:
    """Make the folder of a file, and check that the file can be written, before any work is done.

    Raises:
        OutputError: a file is in the place of the folder, or a folder in that of the file, or the folder
            cannot be made, or written to.
    """
    with explain_unwritable(path):
        is_folder = path.is_dir()
    if is_folder:
        raise OutputError.occupied(str(path), "a file, or none", "a folder", another="path")
    folder = path.absolute().parent
    make_folder(folder)
    with explain_unwritable(path), tempfile.TemporaryFile(dir=folder):
        pass


def require_replaceable(path: Path, what: str, is_ours: Callable[[IO[bytes]], bool], another: str) -> None:
    """Check that nothing is at a path but what may be replaced there: a file of ours, or an empty one.

    Args:
        path: where a file is to be written.
        what: what may be replaced, for the message.
        is_ours: whether an open file is one of these.
        another: what to choose instead, such as "path", or an option.

    Raises:
        OutputError: something else is there.
    """
    with explain_unwritable(path):
        if not path.exists():
            return
        found = "a folder" if path.is_dir() else "another file"
        if path.is_file():
            with path.open("rb") as file:
                if not path.stat().st_size or is_ours(file):
                    return
    raise OutputError.occupied(str(path), f"no file, or {what}", found, another=another)


@contextlib.contextmanager
def atomic_write(path: Path, scratch: Path | None = None) -> Iterator[Path]:
    """Yield a path to write to. At the end that file is flushed to disk and renamed to ``path``.

    After an error the half-written file is deleted, and ``path`` is as it was before. What a process that
    was killed has left half-written in the folder of ``path`` is deleted by the next one that writes there.

    Args:
        path: the file; what is there is replaced.
        scratch: a folder on the same disk for the half-written file; None for the folder of ``path``.

    Raises:
        FileNotFoundError: the folder does not exist.
        OutputError: the file cannot be written there.
    """
    folder = path.absolute().parent
    with contextlib.ExitStack() as writing:
        with explain_unwritable(path, passing=FileNotFoundError):
            place = writing.enter_context(
                _locked_folder(folder) if scratch is None else _temporary_folder(scratch)
            )
        written = Path(place) / path.name
        yield written
        with explain_unwritable(path, passing=FileNotFoundError):
            _flush(written, os.O_RDWR)
            written.replace(path)
            if os.name != "nt":  # Windows cannot open folders
                _flush(folder, os.O_RDONLY)


def _temporary_folder(folder: Path) -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix=_TEMPORARY, dir=folder)


@contextlib.contextmanager
def _locked_folder(folder: Path) -> Iterator[str]:
    """Yield a temporary folder, locked as long as this process lives; delete those without an owner."""
    delete_abandoned(folder)
    while True:
        with _temporary_folder(folder) as place:
            lock = filelock.FileLock(Path(place, _LOCK))
            with contextlib.suppress(OSError, NotImplementedError):  # no locks here: then nobody deletes it
                lock.acquire()
            try:
                # Another process may have taken it for abandoned just before the lock was held.
                if Path(lock.lock_file if lock.is_locked else place).exists():
                    yield place
                    return
            finally:
                lock.release()


def delete_abandoned(folder: Path) -> None:
    """Delete what processes that were killed in `atomic_write` have left in a folder, if it exists."""
    for other in folder.glob(f"{_TEMPORARY}*"):
        with contextlib.suppress(OSError, NotImplementedError):
            _delete_if_abandoned(other)


def _delete_if_abandoned(folder: Path) -> None:
    """Delete a temporary folder if no process holds its lock, or if nothing is in it, not even a lock."""
    if (lock := folder / _LOCK).exists():
        # Under the lock: else a process that has just made the folder could acquire it, and lose its file.
        with filelock.FileLock(lock, timeout=0):
            shutil.rmtree(folder, ignore_errors=True)  # Windows keeps the lock, an open file
    folder.rmdir()  # if it is still there: the release has deleted the lock


def _flush(path: Path, flags: int) -> None:
    """Flush a file, or the names in a folder, from the kernel's memory to the disk, against power cuts."""
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def exclusive_lock(path: Path, lock: Path | None = None) -> Iterator[None]:
    """Hold an exclusive lock on ``path``.

    Args:
        path: the file to write.
        lock: the lock file; None for a hidden one beside ``path``. It is deleted at the end.

    Raises:
        BusyError: another process holds the lock.
        OutputError: there can be no lock file.
    """
    lock = lock or path.with_name(f".{path.name}.lock")
    with contextlib.ExitStack() as held:
        with explain_unwritable(lock if os.path.lexists(lock) else path):  # it may be another user's
            try:
                held.enter_context(filelock.FileLock(lock, timeout=0))
            except filelock.Timeout:  # which is an OSError
                raise BusyError(str(path)) from None
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def sha256_of(file: IO[bytes]) -> str:
    """Return the sha256, as 64 hexadecimal digits, of the rest of an open file."""
    sha256 = hashlib.sha256()
    while chunk := file.read(1 << 20):
        sha256.update(chunk)
    return sha256.hexdigest()


@contextlib.contextmanager
def explain_unwritable(
    path: Path,
    expected: str = "a place to write to",
    hint: str = "Check its permissions, and that nothing else has its name, or choose another place.",
    passing: type[OSError] | tuple[type[OSError], ...] = (),
    source: Path | None = None,
) -> Iterator[None]:
    """Raise an `OutputError` instead of an `OSError`, except for a full disk, which callers explain.

    Args:
        path: what is to be written.
        expected: what it should be, for the message.
        hint: what to do about it.
        passing: errors that are raised as they are.
        source: a file that is read within the block, whose errors are raised as they are.

    Raises:
        OutputError: it cannot be written.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL or isinstance(error, passing):
            raise
        if source is not None and error.filename == str(source):
            raise
        raise OutputError(str(path), expected, error.strerror or str(error), hint) from error


def is_forbidden(error: BaseException | None) -> bool:
    """Return whether an error means a disk that is read-only, or files that are another user's."""
    return isinstance(error, OSError) and error.errno in _FORBIDDEN


@contextlib.contextmanager
def explain_forbidden(path: Path, expected: str, hint: str) -> Iterator[None]:
    """Raise an `OutputError` for an `OSError` of a disk that is read-only, or of files of another user.

    It replaces one that was raised for such an error within the block, such as that of `make_parent`.

    Args:
        path: what is to be written.
        expected: what it should be, for the message.
        hint: what to do about it.

    Raises:
        OutputError: it may not be written.
    """
    try:
        yield
    except (OSError, OutputError) as error:
        cause = error.__cause__ if isinstance(error, OutputError) else error
        if not isinstance(cause, OSError) or not is_forbidden(cause):
            raise
        found = f"{cause.strerror} ({cause.filename or path})"
        raise OutputError(str(path), expected, found, hint) from error


@contextlib.contextmanager
def explain_full_disk(folder: Path, purpose: str, needed: int, hint: str = HINT_IF_FULL) -> Iterator[None]:
    """Raise `NoSpaceError` for an `OSError` that means a full disk or an exceeded quota.

    Args:
        folder: where files are written.
        purpose: what the space is for, such as "an export".
        needed: bytes that it needs.
        hint: what to do about it.

    Raises:
        NoSpaceError: the disk is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise NoSpaceError(str(folder), purpose, needed, free_bytes(folder), hint) from error


def is_full_disk(error: BaseException | None) -> bool:
    """Return whether an error, or one that it came from, means a full disk or an exceeded quota."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        if isinstance(error, OSError) and error.errno in _FULL:
            return True
        seen.append(error)
        error = error.__cause__ or error.__context__
    return False


def device_of(folder: Path) -> int:
    """Return the device number of the disk of a folder, which need not exist yet."""
    return _existing(folder).stat().st_dev


def free_bytes(folder: Path) -> int:
    """Return the number of free bytes on the disk of a folder, which need not exist yet."""
    return shutil.disk_usage(_existing(folder)).free


def _existing(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that exists."""
    return next(parent for parent in (folder, *folder.absolute().parents) if parent.is_dir())
