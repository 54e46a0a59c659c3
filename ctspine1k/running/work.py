"""The interface of executors, which run a list of work of any kind."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager
from typing import Protocol, TypeVar

__all__ = ["Executor", "Run"]

Item = TypeVar("Item")
Result = TypeVar("Result")


class Run(Protocol):
    """A function that runs the work."""

    def __call__(
        self, work: Callable[[Item], Result], items: Sequence[Item], names: Sequence[str]
    ) -> Generator[Result, None, None]:
        """Yield the result of ``work`` for each item, in any order.

        Closing the generator cancels items that have not begun.

        Args:
            work: a function of one item.
            items: its arguments, one per call.
            names: names of the items, such as "export/3d/train/00000-of-00153.parquet", for a dashboard.
        """


class Executor(Protocol):
    """Where work is run. Executors are values: nothing is started or connected before `ready`."""

    @property
    def processes(self) -> int:
        """Number of processes of this machine that work at once; 0 if other machines do the work."""

    def ready(self) -> AbstractContextManager[Run]:
        """Prepare the processes, or connect to the cluster; yield the function that runs the work."""
