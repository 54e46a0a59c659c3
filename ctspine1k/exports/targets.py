"""The folder that an export writes to: on a disk of this machine or a shared one, or at any fsspec URL.

A file in it appears whole or not at all, and one process at a time is its writer. What is not finished is in
the hidden folder `WORKING` of it, which goes when all is done.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import json
import os
import posixpath
import re
import shutil
import socket
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import fsspec
from huggingface_hub.errors import EntryNotFoundError

from ctspine1k.errors import BusyError, MissingPackageError, OutputError
from ctspine1k.running.disk import atomic_write, exclusive_lock, free_bytes, sha256_of
from ctspine1k.running.retries import retry

__all__ = ["WORKING", "Entry", "Target", "open_target"]

Answer = TypeVar("Answer")

#: What is not finished is below it.
WORKING = ".ctspine1k"

_SCRATCH = f"{WORKING}/scratch"

#: Protocols of stores without folders, and with whole files alone. Their `makedirs` would make buckets.
_OBJECT_STORES = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "oci", "hf")

#: Folders that an export makes.
_OURS = (WORKING, _SCRATCH, "[23]d", "[23]d/*")

#: What the names of locks begin with.
_LOCK = ".export.lock"

#: How a file system says that something is not there: that of the Hub has a word of its own for it, too.
_ABSENT = (FileNotFoundError, EntryNotFoundError)


@dataclass(frozen=True)
class Entry:
    """A file of a folder."""

    size: int  #: bytes
    modified: float | None  #: seconds since 1970, where the file system tells


class Target(Protocol):
    """A folder to write to. Pure data: it can be sent to another process."""

    def describe(self) -> str:
        """Name the folder, for messages."""

    def files(self) -> dict[str, Entry]:
        """List all files below it, hidden ones too, by their path with slashes."""

    def read(self, name: str) -> bytes:
        """Read a small file."""

    def sha256_of(self, name: str) -> str | None:
        """Give the sha256 of a file; None if it is not there, or the disk has lost some of it."""

    def is_at(self, path: Path) -> bool:
        """Tell whether it is this folder, by whatever name."""

    def atomic_write(self, name: str) -> contextlib.AbstractContextManager[Path]:
        """Give a local path to write to: what is there at the end becomes the file, whole."""

    def remove(self, names: Iterable[str]) -> None:
        """Delete files that are there."""

    def clear(self) -> None:
        """Delete all below `WORKING`."""

    def exclusive_lock(self) -> contextlib.AbstractContextManager[None]:
        """Be the only process that writes here meanwhile, and drop what one that was killed has left half.

        Raises:
            BusyError: another process is.
        """

    def scratch(self) -> Path:
        """Tell the local folder where a file lies until it is whole."""

    def free(self) -> int | None:
        """Tell how many bytes are free, where that is known."""


def open_target(out: str | os.PathLike[str]) -> Target:
    """Take a path, or an fsspec URL such as "s3://bucket/folder". Nothing is written yet.

    Raises:
        ValueError: it is empty, or fsspec knows no such protocol, or the package for it is not installed.
        MissingPackageError: s3:// needs ``ctspine1k[s3]``.
        NotADirectoryError: there is a file.
    """
    place = os.fspath(out)
    if not place:
        raise ValueError("out is empty: expected a folder or a URL")
    if re.match(r"[a-z][a-z0-9+.-]+:/(?!/)", place):
        raise ValueError(
            f"out={place!r}: expected a folder or a URL with two slashes, as text: Path drops one"
        )
    protocol, separator, rest = place.partition("://")
    if separator and not rest.strip("/"):
        raise ValueError(f"out={place!r}: expected a place after {protocol}://, such as a bucket")
    if separator and protocol not in ("file", "local"):
        folder = UrlTarget(place.rstrip("/"))
        folder.check()
        return folder
    root = Path(rest.removeprefix("localhost") if separator else place).expanduser().absolute()
    if root.exists() and not root.is_dir():
        raise NotADirectoryError(f"{root}: expected a folder, found a file")
    return FolderTarget(root)


@dataclass(frozen=True)
class FolderTarget:
    """A folder of this machine, or of a disk that machines share."""

    root: Path

    def describe(self) -> str:
        """Give its path."""
        return str(self.root)

    def files(self) -> dict[str, Entry]:
        """List all files below it."""
        found = {}
        for folder, _, names in os.walk(self.root):
            for name in names:
                path = Path(folder, name)
                with contextlib.suppress(FileNotFoundError):  # a dangling link
                    stat = path.stat()
                    found[path.relative_to(self.root).as_posix()] = Entry(stat.st_size, stat.st_mtime)
        return found

    def read(self, name: str) -> bytes:
        """Read a small file."""
        return (self.root / name).read_bytes()

    def sha256_of(self, name: str) -> str | None:
        """Read a file."""
        try:
            with (self.root / name).open("rb") as file:
                return sha256_of(file)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno == errno.EIO:
                return None
            hint = "See to its rights and its disk, and run again: what is done is kept."
            found = error.strerror or str(error)
            raise OutputError(str(self.root / name), "a file that can be read", found, hint) from error

    def is_at(self, path: Path) -> bool:
        """Compare where both lead to."""
        return self.root.resolve() == path.expanduser().resolve()

    @contextlib.contextmanager
    def atomic_write(self, name: str) -> Iterator[Path]:
        """Write beside, then flush and rename."""
        path = self.root / name
        with contextlib.ExitStack() as writing:
            with self._told():
                self.scratch().mkdir(parents=True, exist_ok=True)
                written = writing.enter_context(atomic_write(path, self.scratch()))
            yield written
            with self._told():
                path.parent.mkdir(parents=True, exist_ok=True)
                writing.close()

    def remove(self, names: Iterable[str]) -> None:
        """Delete files."""
        for name in names:
            with self._told():
                (self.root / name).unlink(missing_ok=True)

    def clear(self) -> None:
        """Delete what was not finished, and folders of ours that nothing came into."""
        shutil.rmtree(self.root / WORKING, ignore_errors=True)
        for pattern in reversed(_OURS):
            for path in self.root.glob(pattern):
                with contextlib.suppress(OSError):  # it is not empty
                    path.rmdir()

    @contextlib.contextmanager
    def exclusive_lock(self) -> Iterator[None]:
        """Hold a lock that the kernel gives back when this process ends, however it does."""
        with contextlib.ExitStack() as writing:
            with self._told():
                self.root.mkdir(parents=True, exist_ok=True)
                self._check_within()
                writing.enter_context(exclusive_lock(self.root, self.root / _LOCK))
            shutil.rmtree(self.scratch(), ignore_errors=True)
            yield

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Turn what the machine says into our words; that a disk is full, whoever asks for room tells."""
        try:
            yield
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            where = str(error.filename2 or error.filename or self.root)
            hint = "See to its rights, and that nothing else has its name."
            raise OutputError(where, "a place to write to", error.strerror or str(error), hint) from error

    def _check_within(self) -> None:
        """See that no folder in it is another place: that is not ours to clear, or cannot be moved to."""
        disk = self.root.stat().st_dev
        for path in (path for pattern in _OURS for path in self.root.glob(pattern)):
            if path.is_dir() and (path.is_symlink() or path.stat().st_dev != disk):
                hint = "Give a folder of its own, on one disk."
                raise OutputError(str(path), "a folder within the export", "a link or another disk", hint)

    def scratch(self) -> Path:
        """Keep it on the same disk."""
        return self.root / _SCRATCH

    def free(self) -> int:
        """Ask the disk."""
        return free_bytes(self.root)


@dataclass(frozen=True)
class UrlTarget:
    """A folder of a file system that fsspec knows. How to log in there is for fsspec's configuration."""

    url: str = field(repr=False)  #: it may hold a password

    def check(self) -> None:
        """See that there is such a file system; errors as of `out_folder`."""
        if set(self.url) & set("*?["):  # fsspec reads them as patterns, also where it deletes
            raise ValueError(f"{self.describe()}: expected a URL without *, ? and [")
        try:
            fsspec.get_filesystem_class(self.url.partition("://")[0])
        except ImportError as error:
            if self.url.startswith("s3://"):
                raise MissingPackageError("s3://", "s3fs", "s3") from error
            raise ValueError(f"{self.describe()}: expected the package that opens it. {error}") from error
        except ValueError as error:
            raise ValueError(
                f"{self.describe()}: expected a URL that fsspec can open, found none: {error}"
            ) from None

    def describe(self) -> str:
        """Give the URL, without a password or a signature in it."""
        return re.sub(r"://[^/]*@", "://", re.split("[?#]", self.url)[0])

    def files(self) -> dict[str, Entry]:
        """List all files below it."""

        def listed(filesystem: Any, root: str) -> dict[str, Entry]:
            # Else a folder that cannot be listed is passed over in silence.
            is_walked = not self._is_object_store and not filesystem.async_impl
            options = {"on_error": _refuse} if is_walked else {}
            found: dict[str, Any] = filesystem.find(root, detail=True, **options)
            return {
                posixpath.relpath(path, root): Entry(info["size"], _modified(info))
                for path, info in found.items()
            }

        with contextlib.suppress(FileNotFoundError):
            return self._ask(listed)
        return {}

    def read(self, name: str) -> bytes:
        """Read a small file."""
        data: bytes = self._ask(lambda filesystem, root: filesystem.cat_file(f"{root}/{name}"))
        return data

    def sha256_of(self, name: str) -> str | None:
        """Read a file."""

        def read(filesystem: Any, root: str) -> str:
            with filesystem.open(f"{root}/{name}", "rb") as file:
                return sha256_of(file)

        with contextlib.suppress(FileNotFoundError):
            return self._ask(read)
        return None

    def is_at(self, path: Path) -> bool:
        """It is at no path."""
        return False

    @contextlib.contextmanager
    def atomic_write(self, name: str) -> Iterator[Path]:
        """Write to a local file, then upload it; again, where that fails."""
        with tempfile.TemporaryDirectory(prefix="ctspine1k-") as place:
            written = Path(place) / Path(name).name
            yield written
            self._put(written, name)

    def _put(self, written: Path, name: str, *, again: bool = True) -> None:
        def put(filesystem: Any, root: str) -> None:
            if self._is_object_store:  # what is uploaded is there when it is whole
                filesystem.put_file(str(written), f"{root}/{name}")
                return
            half = f"{root}/{_SCRATCH}/{uuid.uuid4().hex}"
            filesystem.makedirs(half.rpartition("/")[0], exist_ok=True)
            filesystem.put_file(str(written), half)
            _rename(filesystem, half, f"{root}/{name}")

        try:
            self._ask(put, again=again)
        except FileNotFoundError as error:  # such as a bucket
            raise self._failed(error) from None

    def remove(self, names: Iterable[str]) -> None:
        """Delete files."""
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                self._ask(partial(_remove, name=name))

    def clear(self) -> None:
        """Delete what was not finished."""
        with contextlib.suppress(FileNotFoundError):
            self._ask(lambda filesystem, root: filesystem.rm(f"{root}/{WORKING}", recursive=True))

    @contextlib.contextmanager
    def exclusive_lock(self) -> Iterator[None]:
        """Leave a note of who writes, and only then look for others: of two, one at least sees the other.

        The note of a process of this machine that is gone does not count.
        """
        mine, is_there = f"{_LOCK}.{uuid.uuid4().hex}", False
        try:
            with tempfile.TemporaryDirectory(prefix="ctspine1k-") as place:
                note = Path(place) / mine
                note.write_text(json.dumps({"host": socket.gethostname(), "pid": os.getpid()}))
                self._put(note, mine, again=False)  # so that a wrong URL is told at once
            is_there = True
            self._check_others(mine)
            yield
        finally:
            with contextlib.suppress(OutputError, FileNotFoundError):  # the work may have ended with it
                self._ask(partial(_remove, name=mine), again=is_there)

    def _check_others(self, mine: str) -> None:
        gone = []
        for name in self.files():
            if name == mine or not name.startswith(_LOCK):
                continue
            try:
                data = self.read(name)
            except FileNotFoundError:
                continue
            try:
                holder = json.loads(data)
                who = f"process {int(holder['pid'])} of {holder['host']}"
            except (ValueError, LookupError, TypeError):
                who = "somebody"
            else:
                if _is_gone(holder):
                    gone.append(name)
                    continue
            raise BusyError(self.describe(), f"{who} (if that is dead, delete {self.describe()}/{name})")
        self.remove(gone)

    def scratch(self) -> Path:
        """Use the machine's folder for temporary files."""
        return Path(tempfile.gettempdir())

    def free(self) -> None:
        """Nobody tells."""

    def _ask(self, call: Callable[[Any, str], Answer], *, again: bool = True) -> Answer:
        """Have the file system do something in our folder; where it fails, again.

        Raises:
            FileNotFoundError: there is no such file.
            OutputError: it fails each time.
        """

        def ask() -> Answer:
            filesystem, root = fsspec.core.url_to_fs(self.url)
            filesystem.invalidate_cache()
            return call(filesystem, root.rstrip("/"))

        try:
            return retry(ask, Exception, (*_ABSENT, PermissionError)) if again else ask()
        except _ABSENT as error:
            failure: Exception = FileNotFoundError(str(error))
        # Each file system has errors of its own, which may not go between processes.
        except Exception as error:
            failure = self._failed(error)
        raise failure

    @property
    def _is_object_store(self) -> bool:
        return self.url.partition("://")[0] in _OBJECT_STORES

    def _failed(self, error: Exception) -> OutputError:
        text = " ".join(f"{type(error).__name__}: {error}".split()).replace(self.url, self.describe())
        hint = (
            "See that it exists, that you are logged in there and may write to it (docs/scaling.md), and run "
            "again: what is done is kept."
        )
        return OutputError(self.describe(), "a place that can be written to and read", text, hint)


def _remove(filesystem: Any, root: str, name: str) -> None:
    filesystem.rm_file(f"{root}/{name}")


def _rename(filesystem: Any, half: str, target: str) -> None:
    """Put a file in its place. Some file systems only do so where there is none, and some do not say so."""
    filesystem.makedirs(target.rpartition("/")[0], exist_ok=True)
    with contextlib.suppress(OSError):
        filesystem.mv(half, target)
    filesystem.invalidate_cache()
    try:
        filesystem.info(half)
    except _ABSENT:
        return
    with contextlib.suppress(*_ABSENT):
        filesystem.rm_file(target)
    filesystem.mv(half, target)


def _refuse(error: Exception) -> None:
    """Let a folder be gone, and nothing else."""
    if not isinstance(error, _ABSENT):
        raise error


def _modified(info: dict[str, Any]) -> float | None:
    """Tell when a file was written: each file system has a name of its own for it, if it has any."""
    for key in ("LastModified", "last_modified", "mtime", "updated"):
        value = info.get(key)
        if isinstance(value, datetime.datetime):
            return value.timestamp()
        if isinstance(value, (int, float)):
            return float(value)
    return None


def _is_gone(holder: dict[str, Any]) -> bool:
    if holder["host"] != socket.gethostname() or os.name == "nt":  # there, signal 0 is no question
        return False
    try:
        os.kill(holder["pid"], 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return False
