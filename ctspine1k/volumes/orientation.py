"""Where the axes of a volume lead to, and volumes turned so that they lead elsewhere.

Orientations are written as nibabel does: three letters for the file's first, second and third axis, each the
side that its index grows towards: R(ight) or L(eft), A(nterior) or P(osterior), S(uperior) or I(nferior).
Turning reorders voxels and resamples nothing. An axis at exactly 45 degrees leads to two sides
alike: which of them nibabel takes may then differ before and after.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

__all__ = ["OPPOSITE", "ORIENTATIONS", "Turn", "axis_along", "check_orientation", "turn_to"]

#: All 48: each of the three directions once, in any order and either way.
ORIENTATIONS = tuple(
    "".join(code)
    for order in itertools.permutations(("RL", "AP", "SI"))
    for code in itertools.product(*order)
)


#: For each side the one across.
OPPOSITE = dict(zip("RLAPSI", "LRPAIS", strict=True))


def axis_along(orientation: str, side: str) -> tuple[int, bool] | None:
    """Tell which axis leads to a side, and whether it does so backwards; None if none of them does."""
    for axis, code in enumerate(orientation):
        if code in (side, OPPOSITE[side]):
            return axis, code != side
    return None


def check_orientation(orientation: str | None) -> str | None:
    """Return an orientation if it is one, or None.

    Raises:
        ValueError: it is none of the 48.
    """
    if orientation is not None and orientation not in ORIENTATIONS:
        raise ValueError(
            f"orientation={orientation!r}: expected three letters, one each of R or L, A or P, S or I, in any"
            ' order, such as "RAS"'
        )
    return orientation


@dataclass(frozen=True)
class Turn:
    """How a volume is turned: its axes in another order, some of them the other way round."""

    steps: NDArray[np.float64]  #: (3, 2), for each axis of the file where it goes, and 1 or -1 (flipped)
    affine: NDArray[np.float64]  #: (4, 4), of the turned volume: voxel index (i, j, k) -> RAS+ millimetres

    @property
    def keeps_slices(self) -> bool:
        """Whether the slices stay slices, in the same order."""
        return bool((self.steps[2] == (2, 1)).all())

    def shape(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """Turn the shape of a file, (i, j, k)."""
        turned = [0, 0, 0]
        for size, (axis, _) in zip(shape, self.steps, strict=True):
            turned[int(axis)] = size
        return turned[0], turned[1], turned[2]

    def view(self, volume: NDArray[Any]) -> NDArray[Any]:
        """Give a turned view of a volume, or of some of its slices; both are slice first, (k, i, j)."""
        turned = nib.orientations.apply_orientation(volume.transpose(1, 2, 0), self.steps)
        view: NDArray[Any] = np.asarray(turned).transpose(2, 0, 1)
        return view


def turn_to(orientation: str, affine: NDArray[np.float64], shape: tuple[int, int, int]) -> Turn:
    """Find the turn that leads to an orientation.

    Args:
        orientation: one of `ORIENTATIONS`.
        affine: (4, 4), of the file.
        shape: of the file, (i, j, k).

    Raises:
        ValueError: an axis of the file leads nowhere, so that there is none.
    """
    stored = nib.orientations.io_orientation(affine)
    if np.isnan(stored).any():
        raise ValueError("an axis has no direction")
    steps = nib.orientations.ornt_transform(stored, nib.orientations.axcodes2ornt(orientation))
    return Turn(steps, affine @ nib.orientations.inv_ornt_aff(steps, shape))
