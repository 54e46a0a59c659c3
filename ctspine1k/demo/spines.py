"""Made-up volumes with a spine, small ones: stored in any orientation, tilted, with the centres of bodies."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

__all__ = ["SLICES_PER_VERTEBRA", "Spine", "make_spine", "vertebra"]

#: What shapes of vertebrae are defined in: mm along i, j and k, and slices of one vertebra with its disc.
_UNIT_MM = (0.8, 0.7, 3.0)
SLICES_PER_VERTEBRA = 9

_WIDTH_MM, _DEPTH_MM, _FRONT_MM = 104.0, 120.0, 32.0


@dataclass(frozen=True)
class Spine:
    """A made-up volume."""

    image: NDArray[np.int16]  #: HU, (i, j, k)
    mask: NDArray[np.uint8]  #: labels, (i, j, k)
    affine: NDArray[np.float64]  #: from (i, j, k) to RAS+ mm
    centres: Mapping[int, tuple[float, float, float]]  #: (i, j, k) of the body of each labelled vertebra

    @property
    def spacing(self) -> tuple[float, ...]:
        """Size of voxels along i, j and k, in mm."""
        return tuple(float(size) for size in nib.affines.voxel_sizes(self.affine))


def make_spine(
    labels: Sequence[int],
    spacing: tuple[float, float, float],
    orientation: str,
    tilt_degrees: float,
    seed: int,
) -> Spine:
    """Make a spine of whole vertebrae, from the top downwards, below one that is cut and not labelled.

    Args:
        labels: of the vertebrae, from the top downwards.
        spacing: mm along the axes to the left, the front and upwards.
        orientation: in which the volume is stored.
        tilt_degrees: by which its axes are turned about the axis from left to right.
        seed: of the noise.
    """
    height_mm = (len(labels) + 0.5) * SLICES_PER_VERTEBRA * _UNIT_MM[2]
    size = [int(mm / step) for mm, step in zip((_WIDTH_MM, _DEPTH_MM, height_mm), spacing, strict=True)]
    image, mask = np.full(size, -1000, np.int16), np.zeros(size, np.uint8)
    across = np.arange(size[0])[:, None] * spacing[0] - _WIDTH_MM / 2
    along = np.arange(size[1])[None, :] * spacing[1] - (_DEPTH_MM - _FRONT_MM)
    outline = (across / 48) ** 2 + ((along + 28) / 56) ** 2 < 1
    for k in range(size[2]):
        number, height = divmod(int(k * spacing[2] // _UNIT_MM[2]), SLICES_PER_VERTEBRA)
        bone = vertebra(across / _UNIT_MM[0], (along - _bend(k * spacing[2])) / _UNIT_MM[1], height)
        image[..., k][outline] = 40
        image[..., k][bone] = 250
        if number < len(labels):
            mask[..., k][bone] = labels[len(labels) - 1 - number]
    image += np.random.default_rng(seed).integers(-15, 16, image.shape, np.int16)
    centres = {}
    for number, label in enumerate(reversed(labels)):
        up_mm = (number * SLICES_PER_VERTEBRA + (SLICES_PER_VERTEBRA + 1) / 2) * _UNIT_MM[2]
        centre_mm = (_WIDTH_MM / 2, _DEPTH_MM - _FRONT_MM + _bend(up_mm), up_mm)
        centres[label] = tuple(mm / step for mm, step in zip(centre_mm, spacing, strict=True))
    cos, sin = math.cos(math.radians(tilt_degrees)), math.sin(math.radians(tilt_degrees))
    affine = np.array([[1, 0, 0, 50], [0, cos, -sin, -90], [0, sin, cos, -40], [0, 0, 0, 1.0]])
    return _stored(image, mask, affine @ np.diag([-spacing[0], *spacing[1:], 1.0]), centres, orientation)


def _bend(up_mm: float) -> float:
    """Return how far to the front the spine is, in mm, at a height."""
    return 5 * math.cos(up_mm / 40)


def _stored(
    image: NDArray[np.int16],
    mask: NDArray[np.uint8],
    affine: NDArray[np.float64],
    centres: Mapping[int, Sequence[float]],
    orientation: str,
) -> Spine:
    """Turn a volume, and the centres in it, into the orientation in which it is stored."""
    axes = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt("LAS"), nib.orientations.axcodes2ornt(orientation)
    )
    turned = [nib.Nifti1Image(voxels, affine).as_reoriented(axes) for voxels in (image, mask)]
    to_index = np.linalg.inv(turned[0].affine) @ affine
    moved = {label: tuple(map(float, to_index[:3] @ [*centre, 1])) for label, centre in centres.items()}
    return Spine(
        np.asarray(turned[0].dataobj),
        np.asarray(turned[1].dataobj),
        turned[0].affine,
        moved,  # type: ignore[arg-type]
    )


def vertebra(i: NDArray[Any], j: NDArray[Any], height: int) -> NDArray[np.bool_]:
    """Return one slice of a vertebra, given indices relative to its centre; at height 0 there is disc."""
    if not height:
        return np.zeros(np.broadcast_shapes(i.shape, j.shape), np.bool_)
    body = (i / 30) ** 2 + (j / 22) ** 2 < 1
    canal = (i / 13) ** 2 + ((j + 32) / 12) ** 2
    arch = (canal > 1) & (canal < 2.6) & (j < -18)
    process = (abs(i) < 5) & (j < -48) & (j > -2 * (SLICES_PER_VERTEBRA - height) - 62)
    wings = (abs(i) < 52) & (abs(j + 34 + abs(i) / 4) < 6) & (canal > 1) & (height > 3)
    return body | arch | process | wings
