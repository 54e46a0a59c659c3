"""What does a list of work, whatever that is: the interface of all executors."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager
from typing import Protocol, TypeVar

__all__ = ["Executor", "Run"]

Item = TypeVar("Item")
Result = TypeVar("Result")


class Run(Protocol):
    """What does the work."""

    def __call__(
        self, work: Callable[[Item], Result], items: Sequence[Item], names: Sequence[str]
    ) -> Generator[Result, None, None]:
        """Yield the result of ``work`` for each item, in any order.

        Closing the generator cancels what has not begun.

        Args:
            work: a function of one item.
            items: what it is called with.
            names: of the items, such as "export/3d/train/00000-of-00153.parquet", for a dashboard.
        """


class Executor(Protocol):
    """Who does the work. A value: nothing is started or connected to before `ready`."""

    @property
    def processes(self) -> int:
        """How many processes of this machine work at once; 0 if other machines do."""

    def ready(self) -> AbstractContextManager[Run]:
        """Connect to what does the work."""
