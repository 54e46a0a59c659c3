"""Arrays that take memory as their elements arrive, not on a header's word."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = ["GrowingArray"]

#: Bytes that an array may be ahead of the elements that have arrived, whatever was promised.
_FIRST_ALLOCATION = 1 << 26

#: How much it may be ahead later, as a multiple of what has arrived: enough for every volume there is.
_GROWTH = 32


class GrowingArray:
    """An array that is filled along its first axis, up to a length that was promised."""

    def __init__(self, shape: Sequence[int], dtype: DTypeLike) -> None:
        self._limit, *self._rest = shape
        self._filled = 0
        self._array: NDArray[Any] = np.empty(0, dtype)

    def extend(self, count: int) -> NDArray[Any]:
        """Give the next elements to be written to."""
        start, self._filled = self._filled, self._filled + count
        if self._filled > len(self._array):
            at_first = _FIRST_ALLOCATION // (math.prod(self._rest) * self._array.itemsize)
            size = max(self._filled, min(self._limit, max(at_first, _GROWTH * self._filled)))
            # Not ndarray.resize: it would write zeros, and be slow to get memory that way.
            larger = np.empty((size, *self._rest), self._array.dtype)
            if start:
                larger[:start] = self._array[:start]
            self._array = larger
        return self._array[start : self._filled]

    @property
    def filled(self) -> NDArray[Any]:
        """What has arrived."""
        return self._array[: self._filled]
