"""What slabs of slices are read into: arrays whose memory grows as voxels arrive."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ctspine1k.volumes.growing import GROWTH, GrowingArray, Growth
from ctspine1k.volumes.headers import Geometry
from ctspine1k.volumes.scaling import Scaling

__all__ = ["Voxels", "read_all"]

#: Arrays of one shape: of an image, and of the labels if there is a mask.
Voxels: TypeAlias = "tuple[NDArray[Any], ...]"


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
