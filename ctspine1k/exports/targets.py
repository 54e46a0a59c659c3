"""What an export writes to: a folder on a disk of this machine or a shared one, or at any fsspec URL.

A file in it appears whole or not at all, and one process at a time writes to it. Unfinished work lies in the
hidden folder `WORKING` of it, which is deleted when the export is complete.
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
