"""Anatomical directions of a volume's axes, and volumes reoriented without resampling.

Orientations are written as in nibabel: one letter for each axis of the file, first to third, which is the
side towards which the index grows: R(ight) or L(eft), A(nterior) or P(osterior), S(uperior) or I(nferior).
An axis at exactly 45 degrees points to two sides equally: before and after reorientation, nibabel may choose
different ones.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import nibabel as nib
import numpy as np
from nibabel.affines import voxel_sizes
from numpy.typing import NDArray

__all__ = [
    "OPPOSITE",
    "ORIENTATIONS",
    "PLANES",
    "Plane",
    "Turn",
    "axis_along",
    "check_orientation",
    "degenerate_axes",
    "resolved",
    "sliced",
    "turn_to",
]

#: All 48: each of the three directions once, in any order and with either sign.
ORIENTATIONS = tuple(
    "".join(code)
    for order in itertools.permutations(("RL", "AP", "SI"))
    for code in itertools.product(*order)
)


#: Shorter than this (mm), an axis has no length; nearer to 0, the volume of a voxel whose sides have length 1
#: says that they lie in one plane. Sheared by a gantry tilted by 30 degrees, it is 0.87.
_NO_LENGTH_MM, _IN_ONE_PLANE = 1e-6, 1e-3

#: The opposite of each side.
OPPOSITE = dict(zip("RLAPSI", "LRPAIS", strict=True))


def axis_along(orientation: str, side: str) -> tuple[int, bool] | None:
    """Return which axis runs along the direction of a side, and whether away from it; None if none does."""
    for axis, code in enumerate(orientation):
        if code in (side, OPPOSITE[side]):
            return axis, code != side
    return None


#: Planes of slices, and the direction that leads through each.
Plane: TypeAlias = Literal["axial", "coronal", "sagittal"]
PLANES = {"axial": "S", "coronal": "A", "sagittal": "R"}


def sliced(orientation: str, plane: str) -> str:
    """Return an orientation whose slices lie in a plane: its axis across that plane becomes the third.

    The others keep their order, and all their directions: "RAS" becomes "ASR" for "sagittal".
    """
    across = PLANES[plane]
    (letter,) = (code for code in orientation if code in (across, OPPOSITE[across]))
    return orientation.replace(letter, "") + letter


def resolved(orientation: str, affine: NDArray[np.float64]) -> str:
    """Return one of `ORIENTATIONS`: the argument, or for one of `PLANES` that of the file with such slices.

    Args:
        orientation: one of either.
        affine: (4, 4), of the file, which must not have `degenerate_axes`.
    """
    if orientation not in PLANES:
        return orientation
    return sliced("".join(nib.orientations.aff2axcodes(affine)), orientation)


def check_orientation(orientation: str | None) -> str | None:
    """Return the argument if it is one of `ORIENTATIONS`, or None.

    Raises:
        ValueError: it is neither.
    """
    if orientation is not None and orientation not in ORIENTATIONS:
        raise ValueError(
            f"orientation={orientation!r}: expected three letters, one each of R or L, A or P, S or I, in any"
            ' order, such as "RAS"'
        )
    return orientation


def degenerate_axes(affine: NDArray[np.float64]) -> str | None:
    """Return what is wrong with an affine that gives voxels no size; None if nothing is."""
    sizes = voxel_sizes(affine)
    if (sizes < _NO_LENGTH_MM).any():
        return "no length along " + " and ".join(np.array(["i", "j", "k"])[sizes < _NO_LENGTH_MM])
    if abs(np.linalg.det(affine[:3, :3] / sizes)) < _IN_ONE_PLANE:
        return "axes in one plane"
    return None


@dataclass(frozen=True)
class Turn:
    """How a volume is reoriented: its axes in another order, some of them reversed."""

    steps: NDArray[np.float64]  #: (3, 2), for each axis of the file its new position, and 1 or -1 (reversed)
    affine: NDArray[np.float64]  #: (4, 4), of the turned volume: voxel index (i, j, k) -> RAS+ millimetres

    @property
    def keeps_slices(self) -> bool:
        """Whether the slices stay slices, in the same order."""
        return bool((self.steps[2] == (2, 1)).all())

    def shape(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """Return the shape of a file, (i, j, k), after the turn."""
        i, j, k = self.per_axis(np.array(shape)).tolist()
        return i, j, k

    def per_axis(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return one value for each axis of a file, such as sizes, after the turn."""
        turned = np.empty_like(values)
        turned[self.steps[:, 0].astype(int)] = values
        return turned

    def view(self, volume: NDArray[Any]) -> NDArray[Any]:
        """Return a view of a volume, or of some of its slices, after the turn; both are (k, i, j)."""
        turned = nib.orientations.apply_orientation(volume.transpose(1, 2, 0), self.steps)
        view: NDArray[Any] = np.asarray(turned).transpose(2, 0, 1)
        return view


def turn_to(orientation: str, affine: NDArray[np.float64], shape: tuple[int, int, int]) -> Turn:
    """Return the turn from a file's own orientation to another.

    Args:
        orientation: one of `ORIENTATIONS`, or of `PLANES` (`resolved`).
        affine: (4, 4), of the file.
        shape: of the file, (i, j, k).

    Raises:
        ValueError: an axis of the file has no length, or no direction of its own.
    """
    if what := degenerate_axes(affine):
        raise ValueError(what)
    stored = nib.orientations.io_orientation(affine)
    target = nib.orientations.axcodes2ornt(resolved(orientation, affine))
    steps = nib.orientations.ornt_transform(stored, target)
    return Turn(steps, affine @ nib.orientations.inv_ornt_aff(steps, shape))
