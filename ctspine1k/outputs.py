"""Files that appear whole or not at all, and that one process at a time writes."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import filelock

from ctspine1k.errors import BusyError

__all__ = ["only_writer", "whole_file"]


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a path to write to, in the same folder: what is there at the end takes the place of ``path``.

    After an error nothing is left of it, and what was at ``path`` before is still there.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    with tempfile.TemporaryDirectory(prefix=".ctspine1k-", dir=path.absolute().parent) as scratch:
        written = Path(scratch) / path.name
        yield written
        written.replace(path)


@contextlib.contextmanager
def only_writer(path: Path) -> Iterator[None]:
    """Be the only process that writes ``path`` meanwhile, by a hidden lock file beside it.

    Raises:
        BusyError: another process is.
    """
    lock = path.with_name(f".{path.name}.lock")
    try:
        with filelock.FileLock(lock, timeout=0):
            try:
                yield
            finally:
                lock.unlink(missing_ok=True)
    except filelock.Timeout:
        raise BusyError(str(path)) from None
