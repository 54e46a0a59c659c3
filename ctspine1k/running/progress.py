"""Progress bars, which are shown only on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, closing
from typing import Protocol, TypeVar, cast

from ctspine1k.running.work import Executor

__all__ = ["ProgressBar", "is_terminal", "progress_bar", "run_with_bar"]

Item = TypeVar("Item")
Result = TypeVar("Result")


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


def run_with_bar(
    workers: Executor,
    work: Callable[[Item], Result],
    cases: Sequence[Item],
    names: Sequence[str],
    desc: str,
) -> Generator[Result, None, None]:
    """Yield the result of ``work`` for each case, in any order, while a bar counts them.

    Closing the generator cancels cases that have not begun; arguments and errors as for `Run`.
    """
    with (
        workers.ready() as run,
        closing(run(work, cases, names)) as results,
        progress_bar(desc, len(cases), "case") as bar,
    ):
        for result in results:
            bar.update()
            yield result
