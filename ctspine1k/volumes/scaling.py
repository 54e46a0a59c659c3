"""From stored numbers to the values they stand for: slope and intercept, as nibabel applies them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Scaling"]


@dataclass(frozen=True)
class Scaling:
    """value = slope x stored + intercept, bit for bit as ``get_fdata()`` gives it, cast."""

    slope: float = 1.0
    intercept: float = 0.0

    @property
    def is_identity(self) -> bool:
        """Whether the values are the stored numbers."""
        return self.slope == 1.0 and self.intercept == 0.0

    def values(self, stored: NDArray[Any]) -> NDArray[Any]:
        """Give the values, exact: in float64 if they are scaled, else in a type that they fit."""
        if self.is_identity:
            # 64-bit integers round twice on nibabel's way to float32, over float64; all else is exact.
            is_wide = stored.dtype.kind in "iu" and stored.dtype.itemsize == 8
            return stored.astype(np.float64) if is_wide else stored
        scaled = stored.astype(np.float64)
        if self.slope != 1.0:
            scaled *= self.slope
        if self.intercept != 0.0:  # adding 0.0 would turn -0.0 into 0.0
            scaled += self.intercept
        return scaled

    def write(self, stored: NDArray[Any], out: NDArray[Any]) -> None:
        """Write the values into ``out``, of the same shape, cast to its type."""
        if stored.ndim > 2 and not self.is_identity:
            for one, target in zip(stored, out, strict=True):  # float64 of a slice, not of all
                self.write(one, target)
            return
        if self.is_identity and out.dtype.kind != "f":
            np.copyto(out, stored, casting="unsafe")
            return
        # An infinite result is the caller's to report, by file and value, not NumPy's.
        with np.errstate(over="ignore", invalid="ignore"):
            np.copyto(out, self.values(stored), casting="unsafe")
