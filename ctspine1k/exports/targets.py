"""Where an export writes: a folder on a local or shared disk, or at any fsspec URL.

Files in it are written completely or not at all, by one process at a time. Unfinished work is in its hidden
folder `WORKING`, which is deleted when the export is complete.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

__all__ = ["LOCK", "SCRATCH", "WORKING", "Entry", "Target"]

#: The folder of unfinished work.
WORKING = ".ctspine1k"

#: The folder of files that are being written.
SCRATCH = f"{WORKING}/scratch"

#: The beginning of the names of lock files.
LOCK = ".export.lock"


@dataclass(frozen=True)
class Entry:
    """A file of a target."""

    size: int  #: bytes
    modified: float | None  #: seconds since 1970; None if the file system does not record it


class Target(Protocol):
    """A folder to write to. Pure data, which can be pickled for another process."""

    def describe(self) -> str:
        """Return the name of the folder, for messages."""

    def files(self) -> dict[str, Entry]:
        """List all files below the folder, including hidden ones, by their paths with slashes."""

    def read(self, name: str) -> bytes:
        """Read a small file.

        Raises:
            FileNotFoundError: there is no such file.
        """

    def sha256_of(self, name: str) -> str | None:
        """Return the sha256 of a file; None if it does not exist, or the disk cannot read all of it."""

    def is_at(self, path: Path) -> bool:
        """Return whether ``path`` is this folder, under any name."""

    def atomic_write(self, name: str) -> contextlib.AbstractContextManager[Path]:
        """Yield a local path to write to; when the block ends, the complete file appears in the folder."""

    def remove(self, names: Iterable[str]) -> None:
        """Delete files; those that do not exist are skipped."""

    def clear(self) -> None:
        """Delete everything below `WORKING`."""

    def exclusive_lock(self) -> contextlib.AbstractContextManager[None]:
        """Hold the lock of the folder, and delete half-written files of a process that was killed.

        Raises:
            BusyError: another process holds the lock.
        """

    def scratch(self) -> Path:
        """Return the local folder in which files are written."""

    def free(self) -> int | None:
        """Return the number of free bytes; None if that is not known."""
