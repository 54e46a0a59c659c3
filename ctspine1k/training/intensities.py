"""What the image of a patch or slice has in it: HU, a window of them, or stored numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ctspine1k._messages import check_choice
from ctspine1k.storage.chunks import StoredArray
from ctspine1k.volumes.scaling import Scaling
from ctspine1k.volumes.windows import Window, apply_window, window_limits

__all__ = ["Intensities"]

#: HU of what lies outside a volume: what scanners write outside the field of view.
_OUTSIDE = -1024.0

_INT16 = np.iinfo(np.int16)


@dataclass(frozen=True)
class Intensities:
    """How intensities are returned.

    Raises:
        ValueError: arguments that are not allowed, or contradict each other.
    """

    dtype: Literal["float32", "stored"] = "float32"  #: "stored": int16, to which `scaling` is to be applied
    window: Window | None = None  #: HU that become 0 and 1

    def __post_init__(self) -> None:
        check_choice("dtype", str(self.dtype), ("float32", "stored"))
        if self.window is None:
            return
        window_limits(self.window)
        if self.dtype == "stored":
            raise ValueError(
                f"window={self.window!r}: stored numbers have no window. Apply scaling and window later "
                '(on the GPU, say), or pass dtype="float32".'
            )

    @property
    def type(self) -> np.dtype[Any]:
        """Type of the arrays."""
        return np.dtype(np.int16 if self.dtype == "stored" else np.float32)

    def scaling(self, image: StoredArray) -> Scaling:
        """Return what makes HU of the stored numbers of `read`."""
        return image.header.scaling if _fits(image) else Scaling()

    def outside(self, image: StoredArray) -> float:
        """Return the number for voxels outside the volume."""
        if self.dtype == "stored":
            scaling = self.scaling(image)
            number = round((_OUTSIDE - scaling.intercept) / scaling.slope)
            return min(max(number, _INT16.min), _INT16.max)
        if self.window is None:
            return _OUTSIDE
        return float(apply_window(np.array([_OUTSIDE], np.float32), self.window)[0])

    def read(self, image: StoredArray, ranges: Sequence[range], out: NDArray[Any], threads: int) -> None:
        """Read a part of an image into an array of this type."""
        if self.dtype == "stored":
            if _fits(image):
                image.read(ranges, None, threads, out=out)
            else:
                values = image.read(ranges, np.float32, threads)
                out[...] = np.clip(np.rint(values, out=values), _INT16.min, _INT16.max)
            return
        image.read(ranges, np.float32, threads, out=out)
        if self.window is not None:
            apply_window(out, self.window, out=out)

    def write(self, stored: NDArray[Any], scaling: Scaling, out: NDArray[np.float32]) -> None:
        """Write stored numbers, as HU or windowed, into an array of float32."""
        scaling.write(stored, out)
        if self.window is not None:
            apply_window(out, self.window, out=out)


def _fits(image: StoredArray) -> bool:
    return np.can_cast(image.dtype, np.int16)
