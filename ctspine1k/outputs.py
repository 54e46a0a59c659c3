"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

__all__ = ["whole_file"]


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
