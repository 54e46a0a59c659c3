"""Arrays that take memory as their elements arrive: a header that promises too much costs nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = ["GROWTH", "GrowingArray", "Growth"]


@dataclass(frozen=True)
class Growth:
    """How far an array's memory may be ahead of the elements that have arrived."""

    first_bytes: int = 1 << 26  #: whatever was promised
    factor: int = 32  #: later, as a multiple of what has arrived


#: Enough for every volume there is to be copied at most once.
GROWTH = Growth()


class GrowingArray:
    """An array that is filled along its first axis.

    Args:
        shape: what is promised; more slices than its first number may come.
        dtype: of the elements.
        growth: how memory is taken.
    """

    def __init__(self, shape: Sequence[int], dtype: DTypeLike, growth: Growth = GROWTH) -> None:
        self._limit, *self._rest = shape
        self._growth = growth
        self._filled = 0
        self._array: NDArray[Any] = np.empty(0, dtype)

    def extend(self, count: int) -> NDArray[Any]:
        """Return the next ``count`` elements along the first axis, to be written to."""
        start, self._filled = self._filled, self._filled + count
        if self._filled > len(self._array):
            at_first = self._growth.first_bytes // (math.prod(self._rest) * self._array.itemsize)
            ahead = max(at_first, self._growth.factor * self._filled)
            size = max(self._filled, min(self._limit, ahead))
            # Not ndarray.resize: it would write zeros, and take its time for the memory.
            larger = np.empty((size, *self._rest), self._array.dtype)
            if start:
                larger[:start] = self._array[:start]
            self._array = larger
        return self._array[start : self._filled]

    @property
    def filled(self) -> NDArray[Any]:
        """What has arrived."""
        return self._array[: self._filled]
