"""What slabs of slices are read into: arrays whose memory grows as voxels arrive, and pairs of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ctspine1k.volumes.growing import GROWTH, GrowingArray, Growth
from ctspine1k.volumes.headers import Geometry, array_affine
from ctspine1k.volumes.scaling import Scaling

__all__ = ["VolumePair", "Voxels", "pair_of", "read_all"]

#: Arrays of one shape: of an image, and of the labels if there is a mask.
Voxels: TypeAlias = "tuple[NDArray[Any], ...]"


@dataclass(frozen=True)
class VolumePair:
    """Image and segmentation of one case, slice first."""

    image: NDArray[np.float32]  #: (k, i, j), Hounsfield units
    segmentation: NDArray[np.int32]  #: (k, i, j), 0 background, else the label of a vertebra
    affine: NDArray[np.float64]  #: (4, 4), of the file: voxel index (i, j, k) -> RAS+ millimetres
    spacing: tuple[float, float, float]  #: mm, in the array's axis order
    orientation: str  #: anatomical directions of the array's axes, such as "SLA"

    def __repr__(self) -> str:
        spacing = " x ".join(f"{size:.3g}" for size in self.spacing)
        return f"VolumePair(shape={self.image.shape}, spacing {spacing} mm, orientation {self.orientation!r})"

    @property
    def array_affine(self) -> NDArray[np.float64]:
        """(4, 4), of the arrays: index (k, i, j) -> RAS+ millimetres."""
        return array_affine(self.affine)


def read_all(
    geometry: Geometry, scaling: Scaling, slabs: Iterator[Voxels], growth: Growth = GROWTH
) -> Voxels:
    """Read slabs, as `CaseReader.voxels` yields them, into arrays whose memory grows by ``growth``.

    Returns:
        The image, float32 in Hounsfield units, and, if there is a mask, its labels, int32.
    """
    image, *labels = arrays = [GrowingArray(geometry.shape, dtype, growth) for dtype in ("f4", "i4")]
    count = 0
    for stored, *masks in slabs:
        scaling.write(stored, image.extend(len(stored)))
        for array, mask in zip(labels, masks, strict=False):
            np.copyto(array.extend(len(mask)), mask, casting="unsafe")
        count = 1 + len(masks)
    return tuple(array.filled for array in arrays[:count])


def pair_of(geometry: Geometry, voxels: Voxels) -> VolumePair:
    """Return image and labels as a `VolumePair`."""
    image, segmentation = voxels
    return VolumePair(image, segmentation, geometry.affine, geometry.spacing, geometry.orientation)
