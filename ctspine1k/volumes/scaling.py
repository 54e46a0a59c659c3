"""From stored numbers to values: slope and intercept, as nibabel applies them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Scaling"]


@dataclass(frozen=True)
class Scaling:
    """Value = slope x stored + intercept, bit for bit equal to nibabel's ``get_fdata()``, cast."""

    slope: float = 1.0
    intercept: float = 0.0

    @property
    def is_identity(self) -> bool:
        """Whether the values are the stored numbers."""
        return self.slope == 1.0 and self.intercept == 0.0

    def values(self, stored: NDArray[Any]) -> NDArray[Any]:
        """Return the values exactly: as float64 if they are scaled, else in a type that can hold them."""
        if self.is_identity:
            # nibabel converts to float64 first: 64-bit integers are then rounded twice, others never.
            is_wide = stored.dtype.kind in "iu" and stored.dtype.itemsize == 8
            return stored.astype(np.float64) if is_wide else stored
        scaled = stored.astype(np.float64)
        if self.slope != 1.0:
            scaled *= self.slope
        if self.intercept != 0.0:  # adding 0.0 would turn -0.0 into 0.0
            scaled += self.intercept
        return scaled

    def is_cast(self, stored: np.dtype[Any], wanted: np.dtype[Any]) -> bool:
        """Return whether `write` from and to these types casts the stored numbers, and does no more."""
        is_exact = stored.kind in "iu" and np.can_cast(stored, wanted)
        return self.is_identity and (is_exact or wanted.kind != "f")

    def write(self, stored: NDArray[Any], out: NDArray[Any]) -> None:
        """Write the values into ``out``, of the same shape, cast to its type."""
        if stored.ndim > 2 and not self.is_identity:
            for one, target in zip(stored, out, strict=True):  # one slice in float64 at a time
                self.write(one, target)
            return
        if self.is_cast(stored.dtype, out.dtype):
            np.copyto(out, stored, casting="unsafe")
            return
        # NumPy's warnings are off: the caller reports infinite results, with file and value.
        with np.errstate(over="ignore", invalid="ignore"):
            np.copyto(out, self.values(stored), casting="unsafe")
