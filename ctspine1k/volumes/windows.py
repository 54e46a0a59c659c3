"""Windows of Hounsfield units: ranges that are scaled to [0, 1], by their numbers or by name."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["WINDOWS", "Window", "apply_window", "window_limits"]

#: Lowest and highest HU, or one of `WINDOWS`.
Window: TypeAlias = "str | tuple[float, float]"

#: Windows by name, as lowest and highest HU.
WINDOWS = {
    "bone": (-1000.0, 2000.0),  #: what most networks for vertebrae are trained with
    "wide": (-1024.0, 3071.0),  #: all that 12 bits of a scanner hold
    "spine": (-200.0, 1500.0),
    "soft": (-350.0, 1150.0),  #: level 400, width 1500
}


def window_limits(window: Window) -> tuple[float, float]:
    """Return the lowest and highest HU of a window.

    Raises:
        ValueError: it is neither a name in `WINDOWS` nor two finite numbers, the lower first.
    """
    if isinstance(window, str):
        if window in WINDOWS:
            return WINDOWS[window]
    else:
        try:
            low, high = map(float, window)
            if math.isfinite(high - low) and low < high:
                return low, high
        except (TypeError, ValueError):
            pass
    raise ValueError(
        f"window={window!r}: expected {', '.join(map(repr, WINDOWS))}, or the lowest and highest HU, such as "
        "(-1000, 2000)"
    )


def apply_window(
    values: NDArray[Any], window: Window, out: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """Scale Hounsfield units so that a window becomes [0, 1]; what is beyond becomes 0 or 1.

    Args:
        values: of any shape, and any type of real numbers.
        window: as for `window_limits`.
        out: where to write the result, float32 of the same shape; may be ``values`` itself. None for a new
            array.

    Raises:
        ValueError: ``window`` is none, or ``out`` is of another shape or type.
    """
    low, high = window_limits(window)
    if out is None:
        out = np.empty(values.shape, np.float32)
    elif out.shape != values.shape or out.dtype != np.float32:
        raise ValueError(f"out: expected float32 {values.shape}, found {out.dtype} {out.shape}")
    # In float32, whatever the type of the values: HU are whole numbers that it holds exactly.
    np.subtract(values, np.float32(low), out=out, dtype=np.float32)
    np.divide(out, np.float32(high - low), out=out)
    return np.clip(out, 0, 1, out=out)
