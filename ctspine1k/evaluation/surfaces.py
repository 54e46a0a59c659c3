"""Surfaces of the labels in a mask: their voxels, and the corners of voxels between a label and all else.

The surface of a label is its voxels without those whose six neighbours all have the label; beyond the border
of the volume is background. Masks are read a few slices at a time.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ctspine1k.evaluation.overlap import LABELS, Window, slabs

__all__ = ["Surface", "surfaces"]

#: From the first of the eight voxels around a corner to each of them.
_AROUND = tuple(itertools.product((0, 1), repeat=3))


@dataclass(frozen=True)
class Surface:
    """The surface of one label."""

    voxels: NDArray[np.int32]  #: (n, 3), indices
    corners: NDArray[np.int32]  #: (m, 3): around (i, j, k) are voxels (i - 1, j - 1, k - 1) to (i, j, k)
    patterns: NDArray[np.uint8]  #: (m,), a bit for each of these eight, in C order: whether it has the label


def surfaces(labels: NDArray[np.uint8], window: Window) -> dict[int, Surface]:
    """Find the surfaces of all labels of a mask.

    Args:
        labels: the mask, three axes.
        window: outside of which all is background.
    """
    voxels = [(np.zeros((0, 3), np.int32), np.zeros(0, np.uint8))]
    corners = [(*voxels[0], np.zeros(0, np.uint8))]
    for slab in slabs(window):
        # With a voxel more on each side: a neighbour, or background.
        around = np.zeros([side.stop - side.start + 2 for side in slab], np.uint8)
        first, last = slab[0].start > window[0].start, slab[0].stop < window[0].stop
        wider = (slice(slab[0].start - first, slab[0].stop + last), *slab[1:])
        around[1 - first : len(around) - 1 + last, 1:-1, 1:-1] = labels[wider]
        start = np.array([side.start for side in slab], np.int32)
        at, whose = _surface_voxels(around)
        voxels.append((at + start, whose))
        # A corner between this slab and the next one is of the next.
        at, whose, patterns = _corners(around[: len(around) - last])
        corners.append((at + start, whose, patterns))
    (at, whose), (corner, whose_corner, pattern) = (
        tuple(map(np.concatenate, zip(*parts, strict=True))) for parts in (voxels, corners)
    )
    by_label, corners_by_label = _by_label(whose), _by_label(whose_corner)
    return {
        label: Surface(at[where], corner[corners_by_label[label]], pattern[corners_by_label[label]])
        for label, where in by_label.items()
    }


def _by_label(labels: NDArray[np.uint8]) -> dict[int, NDArray[np.intp]]:
    """Return where each label is."""
    order = np.argsort(labels, kind="stable")  # of bytes: sorted in linear time
    ends = np.searchsorted(labels[order], np.arange(LABELS + 1))
    return {
        label: order[ends[label] : ends[label + 1]]
        for label in range(1, LABELS)
        if ends[label] < ends[label + 1]
    }


def _surface_voxels(around: NDArray[np.uint8]) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    """Return the voxels on a surface, with their labels; not those at the border of the array."""
    inner = around[1:-1, 1:-1, 1:-1]
    is_surface = np.zeros(inner.shape, bool)
    for axis, begin in itertools.product(range(3), (0, 2)):
        neighbour = [slice(1, -1)] * 3
        neighbour[axis] = slice(begin, begin + inner.shape[axis])
        is_surface |= inner != around[tuple(neighbour)]
    is_surface &= inner != 0
    at = is_surface.nonzero()
    return np.stack(at, axis=1).astype(np.int32), inner[at]


def _corners(
    around: NDArray[np.uint8],
) -> tuple[NDArray[np.int32], NDArray[np.uint8], NDArray[np.uint8]]:
    """Return the corners at which two labels meet, or a label and background: of each label one entry.

    Returns:
        Their indices, of which (0, 0, 0) is between the first two voxels along each axis; labels; patterns.
    """
    size_i, size_j, size_k = (size - 1 for size in around.shape)
    views = [around[i : i + size_i, j : j + size_j, k : k + size_k] for i, j, k in _AROUND]
    is_between = np.zeros(views[0].shape, bool)
    for view in views[1:]:
        is_between |= view != views[0]
    at = is_between.nonzero()
    place = np.stack(at, axis=1).astype(np.int32)
    eight = [view[at] for view in views]
    places, labels, patterns = [], [], []
    for number, label in enumerate(eight):
        is_new = label != 0
        for before in eight[:number]:
            is_new &= before != label
        pattern = np.zeros(int(is_new.sum()), np.uint8)
        for bit, other in enumerate(eight):
            pattern |= (other[is_new] == label[is_new]).astype(np.uint8) << np.uint8(bit)
        places.append(place[is_new])
        labels.append(label[is_new])
        patterns.append(pattern)
    return np.concatenate(places), np.concatenate(labels), np.concatenate(patterns)
