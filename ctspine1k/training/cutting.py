"""Parts of volumes: the voxels of a patch, and all voxels with the axes of the file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ctspine1k.running.threads import usable_threads
from ctspine1k.storage.chunks import StoredArray
from ctspine1k.training.intensities import Intensities
from ctspine1k.training.volumes import FILE_AXES, Volume

__all__ = ["affine_of_patch", "read_as_file", "read_patch"]


def read_patch(
    volume: Volume, corner: Sequence[int], intensities: Intensities, voxels: dict[str, NDArray[Any]]
) -> None:
    """Read a patch into arrays of its size: image, and segmentation if there is an array for it.

    Args:
        volume: where it is read from.
        corner: (k, i, j) of its first voxel, negative where it overhangs.
        intensities: how those of the image are written.
        voxels: the arrays, by name. What lies outside the volume is air and background.
    """
    threads = usable_threads()
    image = voxels["image"]
    ranges, inside = [], []
    for start, size, length in zip(corner, image.shape, volume.shape, strict=True):
        part = range(min(max(start, 0), length), min(max(start + size, 0), length))
        ranges.append(part)
        inside.append(slice(part.start - start, part.stop - start))
    place = tuple(inside)
    is_whole = all(len(part) == size for part, size in zip(ranges, image.shape, strict=True))
    if not is_whole:
        image[...] = intensities.outside(volume.image)
    intensities.read(volume.image, ranges, image[place], threads)
    if volume.segmentation is not None and "segmentation" in voxels:
        segmentation = voxels["segmentation"]
        if not is_whole:
            segmentation[...] = 0
        volume.segmentation.read(ranges, np.uint8, threads, out=segmentation[place])


def affine_of_patch(affine: NDArray[np.float64], corner: Sequence[int]) -> NDArray[np.float64]:
    """Return the affine of a patch, of which ``corner`` is the first voxel."""
    moved: NDArray[np.float64] = affine.copy()
    moved[:, 3] = affine @ (*corner, 1)
    return moved


def read_as_file(stored: StoredArray, scaled: DTypeLike) -> NDArray[Any]:
    """Return all voxels with the axes (i, j, k): of the file's type, or ``scaled`` if they are scaled."""
    dtype = None if stored.header.scaling.is_identity else scaled
    voxels: NDArray[Any] = stored.read(None, dtype, usable_threads()).transpose(FILE_AXES)
    return voxels
