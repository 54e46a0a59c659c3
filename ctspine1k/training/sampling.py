"""What is drawn: it depends on seed, epoch and index alone, not on workers, their number or their start."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.context import get_spawning_popen
from multiprocessing.sharedctypes import RawValue
from numbers import Real
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ctspine1k._messages import check_choice, check_count
from ctspine1k.training.volumes import Around, Volume

__all__ = ["Epoch", "PatchPlan", "check_size", "generator", "shuffled"]

#: What is drawn for, so that no two things are drawn alike.
_PATCH, _ORDER, _BUFFER = range(3)

#: In place of the number of an epoch that nobody has set.
_UNSET = -1


class Epoch:
    """The number of the epoch, in memory that the processes share which are started with it.

    So workers that stay (``persistent_workers=True``) see a new one.
    """

    def __init__(self, number: int = _UNSET) -> None:
        self._shared = RawValue("q", number)

    def __reduce__(self) -> tuple[Any, ...]:
        if get_spawning_popen() is None:  # a copy, or a file: `RawValue` goes only to a process that starts
            return Epoch, (self._shared.value,)
        return _attached, (self._shared,)

    @property
    def number(self) -> int:
        """The number, as set last; 0 before."""
        return max(0, int(self._shared.value))

    @number.setter
    def number(self, number: int) -> None:
        check_count("epoch", number, 0)
        self._shared.value = number

    @property
    def is_set(self) -> bool:
        """Whether the number was set, in any of the processes."""
        return bool(self._shared.value != _UNSET)


def _attached(shared: Any) -> Epoch:
    epoch = Epoch.__new__(Epoch)
    epoch._shared = shared
    return epoch


def generator(seed: int, *key: int) -> np.random.Generator:
    """Return what draws for one patch: always the same for the same numbers."""
    return _generator(seed, _PATCH, *key)


def shuffled(seed: int, count: int, *key: int, of_buffer: bool = False) -> NDArray[np.int64]:
    """Return the numbers below ``count`` in an order that depends on seed and key."""
    return _generator(seed, _BUFFER if of_buffer else _ORDER, *key).permutation(count)


def _generator(seed: int, *key: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=key)))


def check_size(size: Sequence[int], axes: int) -> tuple[int, ...]:
    """Return a size as integers.

    Raises:
        ValueError: it is not one positive integer for each axis.
    """
    try:
        checked = tuple(map(int, size))
        is_size = len(checked) == axes and checked == tuple(size) and min(checked) > 0
    except (TypeError, ValueError):
        is_size = False
    if not is_size:
        raise ValueError(f"size={size!r}: expected {axes} positive integers, one for each axis of the array")
    return checked


@dataclass(frozen=True)
class PatchPlan:
    """Where patches are taken from.

    Raises:
        ValueError: arguments that are not allowed.
    """

    size: tuple[int, ...]
    foreground: float
    balance: Literal["voxel", "class"]
    overhang: int | None
    seed: int
    around: Around = "labels"

    def __post_init__(self) -> None:
        if not (isinstance(self.foreground, Real) and 0 <= self.foreground <= 1):
            raise ValueError(f"foreground={self.foreground!r}: expected a share, from 0 to 1")
        check_choice("balance", str(self.balance), ("voxel", "class"))
        check_count("overhang", self.overhang, 0, or_none=True)
        check_count("seed", self.seed, 0)

    def corner(self, volume: Volume, epoch: int, index: int) -> tuple[tuple[int, ...], bool]:
        """Return the first voxel of a patch, negative where it overhangs, and whether it is on a centre."""
        random = generator(self.seed, epoch, index)
        is_foreground = random.random() < self.foreground
        centre = None
        if is_foreground:
            centre = volume.centres(self.around).draw(random, by_class=self.balance == "class")
        if centre is None:
            corner = [int(random.integers(low, high + 1)) for low, high in self._limits(volume.shape)]
            return tuple(corner), False
        corner = [at - size // 2 for at, size in zip(centre, self.size, strict=True)]
        if self.overhang is not None:
            limits = self._limits(volume.shape)
            corner = [min(max(at, low), high) for at, (low, high) in zip(corner, limits, strict=True)]
        return tuple(corner), True

    def _limits(self, shape: Sequence[int]) -> list[tuple[int, int]]:
        """Return the least and the greatest corner along each axis; a smaller volume lies in the middle."""
        spare = [length - size for length, size in zip(shape, self.size, strict=True)]
        beyond = self.overhang or 0
        return [
            (-beyond, one + beyond)
            if one >= 0
            else (math.floor(one / 2) - beyond, math.floor(one / 2) + beyond)
            for one in spare
        ]
