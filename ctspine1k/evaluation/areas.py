"""Areas of the surface at the corners of voxels, as DeepMind's surface-distance has them.

Around a corner are eight voxels, of which some have a label. Marching cubes puts triangles between those that
have it and those that do not. Which triangles depends only on the pattern of the eight, and is the same for a
pattern turned or mirrored, or with label and background exchanged: fourteen patterns stand for all 256.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

__all__ = ["corner_areas"]

#: Of each pattern with surface: the sizes of its triangles' normals, as multiples of the areas of a voxel's
#: faces across the first, second and third axis. Bits are the voxels (0, 0, 0), (0, 0, 1), (0, 1, 0), ...
_EIGHTH, _QUARTER, _THREE_EIGHTHS = (0.125,) * 3, (0.25,) * 3, (0.375,) * 3
_NORMALS: dict[int, tuple[tuple[float, float, float], ...]] = {
    0b00000001: (_EIGHTH,),
    0b00000011: ((0.25, 0.25, 0.0),) * 2,
    0b00000110: (_EIGHTH,) * 2,
    0b00000111: (_EIGHTH, _QUARTER, (0.5, 0.0, 0.0)),
    0b00001111: ((0.5, 0.0, 0.0),) * 2,
    0b00010110: (_EIGHTH,) * 3,
    0b00010111: (_EIGHTH, _EIGHTH, _QUARTER, _QUARTER),
    0b00011000: (_EIGHTH,) * 2,
    0b11100110: (_EIGHTH, (0.0, 0.25, 0.25), (0.0, 0.25, 0.25)),
    0b00011011: (_EIGHTH, (0.0, 0.25, 0.25), (0.25, 0.0, 0.25), _THREE_EIGHTHS),
    0b00011110: (_EIGHTH, _EIGHTH, _QUARTER, (0.5, 0.0, 0.0)),
    0b00111100: ((0.25, 0.25, 0.0),) * 4,
    0b01101001: (_EIGHTH,) * 4,
}


def corner_areas(spacing: tuple[float, ...]) -> NDArray[np.float64]:
    """Return the area of the surface for each pattern of the eight voxels around a corner, in mm2.

    Args:
        spacing: mm along each of the three axes.

    Returns:
        (256,): bit 0 of a pattern is the voxel that comes first along all axes, bit 1 its neighbour along the
        third axis, bit 2 that along the second, and so on in C order.
    """
    faces = [spacing[1] * spacing[2], spacing[0] * spacing[2], spacing[0] * spacing[1]]
    areas: NDArray[np.float64] = np.sqrt(((_normals() * faces) ** 2).sum(axis=2)).sum(axis=1)
    return areas


@functools.cache
def _normals() -> NDArray[np.float64]:
    """Return the normals of all patterns, (256, 4, 3); those that a pattern has not are zero."""
    found = np.zeros((256, 4, 3))
    for pattern, normals in _NORMALS.items():
        for turned, order in _turned(pattern):
            found[[turned, 255 - turned], : len(normals)] = np.array(normals)[:, order]
    return found


def _turned(pattern: int) -> Iterator[tuple[int, list[int]]]:
    """Yield a pattern turned and mirrored in all 48 ways, and which axis became which."""
    cube = np.array([pattern >> bit & 1 for bit in range(8)]).reshape(2, 2, 2)
    for order in itertools.permutations(range(3)):
        for steps in itertools.product((1, -1), repeat=3):
            turned = cube.transpose(order)[tuple(slice(None, None, step) for step in steps)]
            yield int(turned.reshape(-1) @ (1 << np.arange(8))), list(order)
