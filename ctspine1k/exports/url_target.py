"""A target at a URL of any file system that fsspec knows: an object store, a Hub repo, a server."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import posixpath
import re
import socket
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import fsspec
from huggingface_hub.errors import EntryNotFoundError

from ctspine1k.errors import BusyError, MissingPackageError, OutputError
from ctspine1k.exports.targets import LOCK, SCRATCH, WORKING, Entry
from ctspine1k.files.hub import offline_variable
from ctspine1k.running.disk import sha256_of
from ctspine1k.running.retries import PAUSES, retry
from ctspine1k.running.stops import interruptible

__all__ = ["UrlTarget"]

Answer = TypeVar("Answer")

#: Protocols of stores without folders, where files appear only when complete. `makedirs` would make buckets.
_OBJECT_STORES = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "oci", "hf")

#: Errors of file systems for a file that does not exist: the Hub's has a class of its own, too.
_ABSENT = (FileNotFoundError, EntryNotFoundError)


@dataclass(frozen=True)
class UrlTarget:
    """A folder of a file system that fsspec knows; logins are in fsspec's configuration."""

    url: str = field(repr=False)  #: may contain a password
    pauses: tuple[float, ...] = PAUSES  #: seconds between attempts of a request

    def check(self) -> None:
        """Raise an error if there is no such file system; errors as for `open_target`."""
        # fsspec reads the first three as patterns, even when it deletes, and cuts a URL at the last one.
        if set(self.url) & set("*?[") or "::" in self.url:
            raise ValueError(f"{self.describe()}: expected a URL without *, ?, [ and ::")
        if self.url.startswith("hf://") and (variable := offline_variable()):
            hint = f"Unset {variable}, or export to a folder, and upload that later."
            raise OutputError(self.describe(), "a Hub that may be reached", f"{variable} set", hint)
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
        """Return the URL without password and signature."""
        return re.sub(r"://[^/]*@", "://", re.split("[?#]", self.url)[0])

    def files(self) -> dict[str, Entry]:
        """List all files below the folder."""

        def listed(filesystem: Any, root: str) -> dict[str, Entry]:
            # fsspec's `walk` ignores errors by default; in asynchronous file systems it has no such option.
            is_walked = not self._is_object_store and not filesystem.async_impl
            options = {"on_error": _raise_unless_absent} if is_walked else {}
            found: dict[str, Any] = filesystem.find(root, detail=True, **options)
            return {
                posixpath.relpath(path, root): Entry(info["size"], _modified(info))
                for path, info in found.items()
            }

        with contextlib.suppress(FileNotFoundError):
            return self._call(listed)
        return {}

    def read(self, name: str) -> bytes:
        """Read a small file."""
        data: bytes = self._call(lambda filesystem, root: filesystem.cat_file(f"{root}/{name}"))
        return data

    def sha256_of(self, name: str) -> str | None:
        """Read a file, and return its sha256."""

        def read(filesystem: Any, root: str) -> str:
            with interruptible(), filesystem.open(f"{root}/{name}", "rb") as file:
                return sha256_of(file)

        with contextlib.suppress(FileNotFoundError):
            return self._call(read)
        return None

    def is_at(self, path: Path) -> bool:
        """Return False: a URL has no local path."""
        return False

    @contextlib.contextmanager
    def atomic_write(self, name: str) -> Iterator[Path]:
        """Yield a path of a temporary file, then upload it; failures are retried."""
        with tempfile.TemporaryDirectory(prefix="ctspine1k-") as place:
            written = Path(place) / Path(name).name
            yield written
            self._put(written, name)

    def _put(self, written: Path, name: str, *, retried: bool = True) -> None:
        """Upload a file: directly if that is atomic, else to `SCRATCH`, and then rename it."""

        def put(filesystem: Any, root: str) -> None:
            if self._is_object_store:  # an object appears when its upload is complete
                with interruptible():
                    filesystem.put_file(str(written), f"{root}/{name}")
                return
            half = f"{root}/{SCRATCH}/{uuid.uuid4().hex}"
            filesystem.makedirs(half.rpartition("/")[0], exist_ok=True)
            with interruptible():
                filesystem.put_file(str(written), half)
            _rename(filesystem, half, f"{root}/{name}")

        try:
            self._call(put, retried=retried)
        except FileNotFoundError as error:  # such as a bucket
            raise self._failed(error) from None

    def remove(self, names: Iterable[str]) -> None:
        """Delete files."""
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                self._call(partial(_remove, name=name))

    def clear(self) -> None:
        """Delete unfinished work."""
        with contextlib.suppress(FileNotFoundError):
            self._call(lambda filesystem, root: filesystem.rm(f"{root}/{WORKING}", recursive=True))

    @contextlib.contextmanager
    def exclusive_lock(self) -> Iterator[None]:
        """Write a lock file that names this process, and only then look for those of others.

        If two processes do so at once, at least one sees the other. Lock files of processes of this machine
        that have ended are ignored.
        """
        mine, is_there = f"{LOCK}.{uuid.uuid4().hex}", False
        try:
            with tempfile.TemporaryDirectory(prefix="ctspine1k-") as place:
                note = Path(place) / mine
                note.write_text(json.dumps({"host": socket.gethostname(), "pid": os.getpid()}))
                self._put(note, mine, retried=False)  # a wrong URL fails at once
            is_there = True
            self._check_others(mine)
            yield
        finally:
            with contextlib.suppress(OutputError, FileNotFoundError):  # the store itself may have failed
                self._call(partial(_remove, name=mine), retried=is_there)

    def _check_others(self, mine: str) -> None:
        """Delete lock files of processes that have ended; raise a `BusyError` if there is any other."""
        gone = []
        for name in self.files():
            if name == mine or not name.startswith(LOCK):
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
        """Return the machine's folder for temporary files."""
        return Path(tempfile.gettempdir())

    def free(self) -> None:
        """Return None: fsspec cannot tell."""

    def _call(self, call: Callable[[Any, str], Answer], *, retried: bool = True) -> Answer:
        """Return the result of a call with the file system and our folder's path; failures are retried.

        Raises:
            FileNotFoundError: there is no such file.
            OutputError: every attempt failed.
        """

        def try_once() -> Answer:
            filesystem, root = fsspec.core.url_to_fs(self.url)
            filesystem.invalidate_cache()
            return call(filesystem, root.rstrip("/"))

        pauses = self.pauses if retried else ()
        try:
            return retry(try_once, Exception, (*_ABSENT, PermissionError), pauses)
        except _ABSENT as error:
            failure: Exception = FileNotFoundError(str(error))
        # File systems raise errors of any class, some of which cannot be pickled.
        except Exception as error:
            failure = self._failed(error)
        raise failure

    @property
    def _is_object_store(self) -> bool:
        return self.url.partition("://")[0] in _OBJECT_STORES

    def _failed(self, error: Exception) -> OutputError:
        text = " ".join(f"{type(error).__name__}: {error}".split()).replace(self.url, self.describe())
        hint = (
            "Check that it exists, that you are logged in there and may write to it (docs/scaling.md), and "
            "run again: what is done is kept."
        )
        return OutputError(self.describe(), "a place that can be written to and read", text, hint)


def _remove(filesystem: Any, root: str, name: str) -> None:
    filesystem.rm_file(f"{root}/{name}")


def _rename(filesystem: Any, half: str, target: str) -> None:
    """Rename a file. Some file systems do not replace existing files, some of them without an error."""
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


def _raise_unless_absent(error: Exception) -> None:
    """Raise the error of a folder that cannot be listed, unless it no longer exists."""
    if not isinstance(error, _ABSENT):
        raise error


def _modified(info: dict[str, Any]) -> float | None:
    """Return when a file was written, in seconds since 1970; None if the file system does not say."""
    for key in ("LastModified", "last_modified", "mtime", "updated"):
        value = info.get(key)
        if isinstance(value, datetime.datetime):
            return value.timestamp()
        if isinstance(value, (int, float)):
            return float(value)
    return None


def _is_gone(holder: dict[str, Any]) -> bool:
    """Return whether the process of a lock file is known to have ended."""
    if holder["host"] != socket.gethostname() or os.name == "nt":  # on Windows, os.kill kills
        return False
    try:
        os.kill(holder["pid"], 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return False
