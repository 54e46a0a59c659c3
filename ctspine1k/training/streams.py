"""Data sets to iterate over: shared between nodes and workers, and resumed where they stopped."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from multiprocessing.context import get_spawning_popen
from typing import Any, NamedTuple, TypeAlias

from ctspine1k._messages import check_count, difference_text
from ctspine1k.training.sampling import Epoch

__all__ = ["END", "Position", "Share", "Stream"]

#: Where a worker is: the number of its batch, patch or buffer, and how much of a buffer has been yielded.
Position: TypeAlias = "tuple[int, int]"

_START: Position = (0, 0)

#: Where a worker is that has yielded all. If it resumes an epoch, it yields nothing more of it.
END: Position = (-1, 0)


class Share(NamedTuple):
    """What is this process's: of ``world_size`` nodes this one, and of its workers this one."""

    rank: int = 0
    world_size: int = 1
    worker: int = 0
    workers: int = 1


class Stream:
    """What the data sets have in common: PyTorch takes them for its ``IterableDataset``.

    Args:
        epoch: its number, shared with the workers.
        rank: number of this node; None for that of ``torch.distributed``, if it is in use, else 0.
        world_size: number of nodes; None likewise.
        counted: what else positions count in, by the name of its argument.

    Raises:
        ValueError: ``rank`` without ``world_size``, or not below it.
    """

    def __init__(self, epoch: Epoch, rank: int | None, world_size: int | None, **counted: int | None) -> None:
        if (rank is None) != (world_size is None):
            raise ValueError("expected both rank and world_size, or neither")
        check_count("rank", rank, 0, or_none=True)
        check_count("world_size", world_size, 1, or_none=True)
        if rank is not None and world_size is not None and rank >= world_size:
            raise ValueError(f"rank={rank}: expected 0 to {world_size - 1}, as world_size={world_size}")
        self._epoch = epoch
        self._node = None if rank is None or world_size is None else (int(rank), int(world_size))
        self._counted = {name: None if count is None else int(count) for name, count in counted.items()}
        self._at = self._start = _START
        self._loaded: dict[str, int | None] = {}
        _register(type(self))

    def __getstate__(self) -> dict[str, Any]:
        if get_spawning_popen() is None:
            return self.__dict__
        return {**self.__dict__, "_node": self._share()[:2]}  # a spawned worker is not in the process group

    def set_epoch(self, epoch: int) -> None:
        """Draw and order anew, from the next iteration on; workers that stay see it, too.

        Raises:
            ValueError: no whole number, or a negative one.
        """
        if epoch != self._epoch.number:  # else a position that was loaded stays
            self._at = self._start = _START
            self._loaded = {}
        self._epoch.number = epoch

    def state_dict(self) -> dict[str, Any]:
        """Return epoch and position of this process, and what it counts in, for `load_state_dict`."""
        options = self._loaded or self._options()
        return {"epoch": self._epoch.number, "position": list(self._at), "options": options}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue, at the next iteration, where another process was when it returned this state.

        In a loop of your own, load it before `set_epoch`, which keeps the position in the epoch of the state,
        and begins another one at its start. Loaded afterwards, the state of an epoch that has ended, or has
        not begun, changes no epoch that was set, but its position holds: after one that has ended, the next
        iteration yields nothing. That is for ``StatefulDataLoader``, which loads it after the `set_epoch` of
        the next epoch, and then iterates once more.

        In the middle of an epoch, a position counts in batches or buffers of one size, shared between as many
        nodes and workers: under other options, the next iteration raises a ValueError.
        """
        first, second = state["position"]
        position = int(first), int(second)
        if position not in (_START, END) or not self._epoch.is_set:
            self.set_epoch(state["epoch"])
        self._at = self._start = position
        self._loaded = dict(state["options"])

    def __iter__(self) -> Iterator[Any]:
        """Yield what is this node's and this worker's.

        Raises:
            ValueError: the state that was loaded is of the middle of an epoch, under other options.
        """
        if self._start not in (_START, END):
            self._check(self._options())  # here, since the number of workers is known only in a worker
        self._at, self._start, self._loaded = self._start, _START, {}
        return self._rest(self._at)

    def _check(self, options: dict[str, int | None]) -> None:
        """Raise if the position that was loaded counts in anything else."""
        expected, found = (
            ", ".join(sorted(f"{name}={count}" for name, count in one.items() - other.items()))
            for one, other in ((self._loaded, options), (options, self._loaded))
        )
        if expected or found:
            epoch = self._epoch.number
            raise ValueError(
                difference_text(
                    f"state in the middle of epoch {epoch}",
                    expected,
                    found,
                    f"Resume with the same, or leave the state out and start with set_epoch({epoch + 1}).",
                )
            )

    def _options(self) -> dict[str, int | None]:
        """Return what positions of this process count in."""
        share = self._share()
        return {**self._counted, "world_size": share.world_size, "workers": share.workers}

    def _rest(self, start: Position) -> Iterator[Any]:
        if start != END:
            for position, item in self._items(self._epoch.number, start, self._share()):
                self._at = position
                yield item
        self._at = END

    def _items(self, epoch: int, start: Position, share: Share) -> Iterator[tuple[Position, Any]]:
        """Yield what follows a position, each with the position after it: after the last `END`."""
        raise NotImplementedError

    def _share(self) -> Share:
        torch = sys.modules.get("torch")
        node = self._node or (0, 1)
        if torch is None:
            return Share(*node)
        distributed = torch.distributed
        if self._node is None and distributed.is_available() and distributed.is_initialized():
            node = distributed.get_rank(), distributed.get_world_size()
        info = torch.utils.data.get_worker_info()
        return Share(*node) if info is None else Share(*node, info.id, info.num_workers)


def _register(kind: type) -> None:
    """Make PyTorch, if it is installed, take this class for its ``IterableDataset``."""
    try:
        data = importlib.import_module("torch.utils.data")
    except ImportError:
        return
    data.IterableDataset.register(kind)
