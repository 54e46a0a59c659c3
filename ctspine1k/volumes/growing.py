"""Arrays whose memory grows as elements arrive, so that a header which announces too many costs nothing."""

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
    """How much memory an array may take for elements that have not arrived yet."""

    first_bytes: int = 1 << 26  #: at first, however many were announced
    factor: int = 32  #: later, as a multiple of what has arrived


#: With these, each volume of the data set is copied at most once.
GROWTH = Growth()


class GrowingArray:
    """An array that is filled along its first axis.

    Args:
        shape: as announced; more elements along the first axis may come.
        dtype: of the elements.
        growth: how memory is allocated.
    """

    def __init__(self, shape: Sequence[int], dtype: DTypeLike, growth: Growth = GROWTH) -> None:
        self._limit, *self._rest = shape
        self._growth = growth
        self._filled = 0
        self._array: NDArray[Any] = np.empty(0, dtype)

    def extend(self, count: int) -> NDArray[Any]:
        """Return the next ``count`` elements along the first axis, uninitialised, to write to."""
        start, self._filled = self._filled, self._filled + count
        if self._filled > len(self._array):
            at_first = self._growth.first_bytes // (math.prod(self._rest) * self._array.itemsize)
            ahead = max(at_first, self._growth.factor * self._filled)
            size = max(self._filled, min(self._limit, ahead))
            # Not ndarray.resize: it fills the new memory with zeros, which takes time.
            larger = np.empty((size, *self._rest), self._array.dtype)
            if start:
                larger[:start] = self._array[:start]
            self._array = larger
        return self._array[start : self._filled]

    @property
    def filled(self) -> NDArray[Any]:
        """The elements that have arrived."""
        return self._array[: self._filled]
