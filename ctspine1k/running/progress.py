"""Progress bars, which are shown only on a terminal."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from typing import Protocol, cast

__all__ = ["ProgressBar", "is_terminal", "progress_bar"]


class ProgressBar(Protocol):
    """A bar that counts up to its total."""

    def update(self, n: int = 1, /) -> object:
        """Add ``n`` to the count."""


def is_terminal() -> bool:
    """Return whether stderr is a terminal, so that progress bars can be seen."""
    return sys.stderr is not None and sys.stderr.isatty()


def progress_bar(desc: str, total: int, unit: str) -> AbstractContextManager[ProgressBar]:
    """Return a progress bar on stderr, which shows nothing if that is not a terminal or there is no work.

    Args:
        desc: what is done, such as "Scanning".
        total: number of units.
        unit: the unit, in the singular.
    """
    from tqdm import tqdm  # takes 40 ms, which `is_terminal` does not need

    bar = tqdm(desc=desc, total=total, unit=unit, disable=not total or not is_terminal())
    return cast("AbstractContextManager[ProgressBar]", bar)
