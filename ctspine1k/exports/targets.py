"""What an export writes to: a folder on a disk of this machine or a shared one, or at any fsspec URL.

A file in it appears whole or not at all, and one process at a time writes to it. Unfinished work lies in the
hidden folder `WORKING` of it, which is deleted when the export is complete.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ctspine1k.running.retries import PAUSES

__all__ = ["LOCK", "SCRATCH", "WORKING", "Entry", "Target", "open_target"]

#: The folder of unfinished work.
WORKING = ".ctspine1k"

#: Files that are being written.
SCRATCH = f"{WORKING}/scratch"

#: What the names of lock files begin with.
LOCK = ".export.lock"


@dataclass(frozen=True)
class Entry:
    """A file of a target."""

    size: int  #: bytes
    modified: float | None  #: seconds since 1970; None where the file system does not record it


class Target(Protocol):
    """A folder to write to. Pure data, so that it can be pickled for another process."""

    def describe(self) -> str:
        """Return the name of the folder, for messages."""

    def files(self) -> dict[str, Entry]:
        """List all files below the folder, hidden ones too, by their path with slashes."""

    def read(self, name: str) -> bytes:
        """Read a small file.

        Raises:
            FileNotFoundError: there is no such file.
        """

    def sha256_of(self, name: str) -> str | None:
        """Return the sha256 of a file; None if it is not there, or the disk has lost some of it."""

    def is_at(self, path: Path) -> bool:
        """Return whether ``path`` is this folder, under whatever name."""

    def atomic_write(self, name: str) -> contextlib.AbstractContextManager[Path]:
        """Yield a local path to write to; when the block ends, the file appears in the folder, whole."""

    def remove(self, names: Iterable[str]) -> None:
        """Delete files; those that are not there are passed over."""

    def clear(self) -> None:
        """Delete all below `WORKING`."""

    def exclusive_lock(self) -> contextlib.AbstractContextManager[None]:
        """Hold the lock of the folder, and delete what a process that was killed has left half written.

        Raises:
            BusyError: another process holds it.
        """

    def scratch(self) -> Path:
        """Return the local folder where a file lies while it is being written."""

    def free(self) -> int | None:
        """Return how many bytes are free; None where that is not known."""


def open_target(out: str | os.PathLike[str], pauses: tuple[float, ...] = PAUSES) -> Target:
    """Return the target of a path, or of an fsspec URL such as "s3://bucket/folder". Nothing is written yet.

    Args:
        out: the path or URL.
        pauses: seconds between one try of a request to a URL and the next.

    Raises:
        ValueError: it is empty, or fsspec knows no such protocol, or the package for it is not installed.
        MissingPackageError: s3:// needs ``ctspine1k[s3]``.
        NotADirectoryError: there is a file at the path.
    """
    # Both modules import this one.
    from ctspine1k.exports.folder_target import FolderTarget
    from ctspine1k.exports.url_target import UrlTarget

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
        target = UrlTarget(place.rstrip("/"), pauses)
        target.check()
        return target
    root = Path(rest.removeprefix("localhost") if separator else place).expanduser().absolute()
    if root.exists() and not root.is_dir():
        raise NotADirectoryError(f"{root}: expected a folder, found a file")
    return FolderTarget(root)
