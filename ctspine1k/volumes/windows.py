"""Windows: the range of HU that matters, scaled to 0 to 1."""

from __future__ import annotations

from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

__all__ = ["WINDOWS", "Window", "apply_window", "check_window"]

#: HU that become 0 and 1.
Window: TypeAlias = "tuple[float, float]"

#: Windows by name.
WINDOWS: dict[str, Window] = {
    "bone": (-1000.0, 2000.0),  # the range that most published training code for spine CT uses
    "spine": (-200.0, 1500.0),
    "soft": (-350.0, 1150.0),  # level 400, width 1500, as DICOM writes it
    "wide": (-1024.0, 3071.0),  # all of a scanner's 12 bits
}


def check_window(window: Any) -> Window | None:
    """Return a window as two numbers, looked up if it is a name; None for None.

    Raises:
        ValueError: a name that is not in `WINDOWS`, or anything but two increasing, finite numbers.
    """
    if window is None:
        return None
    if isinstance(window, str) and window in WINDOWS:
        return WINDOWS[window]
    try:
        low, high = (float(number) for number in window)
        is_window = bool(np.isfinite([low, high]).all()) and low < high
    except (TypeError, ValueError):
        is_window = False
    if not is_window:
        names = ", ".join(map(repr, WINDOWS))
        raise ValueError(f"window={window!r}: expected two HU, such as (-1000, 2000), or one of {names}")
    return low, high


def apply_window(
    hu: NDArray[Any], window: Window, out: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """Return (hu - low) / (high - low), clipped to 0 to 1, as float32.

    Args:
        hu: intensities.
        window: low and high.
        out: array to write to, which may be ``hu``.
    """
    low, high = window
    scaled = np.subtract(hu, np.float32(low), out=out, dtype=np.float32, casting="unsafe")
    scaled /= np.float32(high - low)
    return cast("NDArray[np.float32]", np.clip(scaled, 0, 1, out=scaled))
