"""Distances between the surfaces of a label in two masks, in millimetres.

The surface of a label is its voxels without those whose six neighbours all have the label; beyond the border
of the volume is background. A distance is between the centres of two voxels, or for areas between two corners
of voxels.

Only the voxels of surfaces are compared, by k-d trees: what a distance transform of both masks' union box
gives at these voxels, bit for bit, at half the time, and without a box that a stray voxel makes large.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctspine1k.errors import MissingPackageError
from ctspine1k.evaluation.areas import corner_areas
from ctspine1k.evaluation.overlap import LABELS, Window, slabs

__all__ = ["Surface", "SurfaceDistances", "nsd", "surface_distances", "surfaces"]


@dataclass(frozen=True)
class Surface:
    """The surface of one label in a mask; empty if the mask does not contain the label."""

    labels: NDArray[np.uint8]  #: the mask
    label: int
    voxels: NDArray[np.int64]  #: indices into the mask flattened in C order, ascending

    @cached_property
    def corners(self) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
        """Corners of voxels between the label and something else.

        Returns:
            Their indices, flattened, ascending, in the grid of all corners, which has one element more along
            each axis: around corner (i, j, k) are voxels (i - 1, j - 1, k - 1) to (i, j, k). And for each a
            byte, with a bit for each of these eight voxels: whether it has the label.
        """
        shape = self.labels.shape
        grid = tuple(size + 1 for size in shape)
        at = np.unravel_index(self.voxels, shape)
        # Among the voxels around such a corner is one of the surface, since steps along axes connect them.
        steps = np.array([np.ravel_multi_index(step, grid) for step in _AROUND])
        corners = np.unique(np.ravel_multi_index(at, grid)[:, None] + steps)
        place = np.unravel_index(corners, grid)
        codes = np.zeros(corners.size, np.uint8)
        for bit, step in enumerate(_AROUND):
            voxel = [axis - 1 + one for axis, one in zip(place, step, strict=True)]
            is_inside = np.ones(corners.size, bool)
            for axis, size in zip(voxel, shape, strict=True):
                is_inside &= (axis >= 0) & (axis < size)
                np.clip(axis, 0, size - 1, out=axis)
            has_label = is_inside & (self.labels[tuple(voxel)] == self.label)
            codes |= has_label.astype(np.uint8) << np.uint8(bit)
        is_between = codes != 255
        return corners[is_between], codes[is_between]


#: From the lowest of the eight voxels around a corner to each of them.
_AROUND = tuple(itertools.product((0, 1), repeat=3))


def surfaces(labels: NDArray[np.uint8], window: Window) -> dict[int, Surface]:
    """Find the surfaces of all labels of a mask.

    Args:
        labels: the mask, three axes.
        window: outside of which all is background.
    """
    found, whose = [np.zeros(0, np.int64)], [np.zeros(0, np.uint8)]
    for slab in slabs(labels.shape, window):
        # With the slices before and after, which are neighbours, where there are any.
        before = slab[0].start > window[0].start
        after = slab[0].stop < window[0].stop
        wider = (slice(slab[0].start - before, slab[0].stop + after), *slab[1:])
        is_surface = _is_surface(labels[wider])[int(before) : -1 if after else None]
        at = is_surface.nonzero()
        whose.append(labels[slab][at])
        shifted = tuple(axis + side.start for axis, side in zip(at, slab, strict=True))
        found.append(np.ravel_multi_index(shifted, labels.shape))
    voxels, label_of = np.concatenate(found), np.concatenate(whose)
    order = np.argsort(label_of, kind="stable")  # of bytes: sorted in linear time
    ends = np.searchsorted(label_of[order], np.arange(LABELS + 1))
    return {
        label: Surface(labels, label, voxels[order[ends[label] : ends[label + 1]]])
        for label in range(1, LABELS)
        if ends[label] < ends[label + 1]
    }


def _is_surface(labels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return which voxels have a label that not all six neighbours share; outside is background."""
    is_inner = np.ones(labels.shape, bool)
    for axis in range(labels.ndim):
        lower, upper = _along(axis, slice(None, -1)), _along(axis, slice(1, None))
        is_same = labels[lower] == labels[upper]
        is_inner[lower] &= is_same
        is_inner[upper] &= is_same
        is_inner[_along(axis, 0)] = is_inner[_along(axis, -1)] = False
    np.logical_not(is_inner, out=is_inner)
    is_inner &= labels != 0
    return is_inner


def _along(axis: int, part: slice | int) -> tuple[slice | int, ...]:
    return (*(slice(None),) * axis, part)


@dataclass(frozen=True)
class SurfaceDistances:
    """From each surface voxel of a label to the nearest of the same label in the other mask, in mm.

    Of corners, which `nsd` needs for areas, they are with the areas of the surface there, in mm2.
    """

    from_reference: NDArray[np.float64]
    from_prediction: NDArray[np.float64]
    corners_from_reference: NDArray[np.float64]
    corners_from_prediction: NDArray[np.float64]
    areas_of_reference: NDArray[np.float64]
    areas_of_prediction: NDArray[np.float64]

    @cached_property
    def pooled(self) -> NDArray[np.float64]:
        """The distances of both directions."""
        return np.concatenate([self.from_reference, self.from_prediction])

    @property
    def hd_mm(self) -> float:
        """Hausdorff distance: the greatest distance."""
        return float(self.pooled.max())

    @property
    def hd95_mm(self) -> float:
        """The greater of the 95th percentiles of the two directions (MONAI)."""
        return float(max(np.percentile(self.from_reference, 95), np.percentile(self.from_prediction, 95)))

    @property
    def hd95_pooled_mm(self) -> float:
        """The 95th percentile of the distances of both directions (medpy)."""
        return float(np.percentile(self.pooled, 95))

    @property
    def assd_mm(self) -> float:
        """The mean of the distances of both directions (medpy 0.5, MONAI)."""
        return float(self.pooled.mean())

    @property
    def assd_two_means_mm(self) -> float:
        """The mean of the means of the two directions (older medpy, panoptica)."""
        return float((self.from_reference.mean() + self.from_prediction.mean()) / 2)


@dataclass(frozen=True)
class NSD:
    """Normalized surface Dice: the part of two surfaces within a tolerance of each other, by three rules."""

    pooled: float  #: of the voxels of both surfaces (MONAI, TotalSegmentator)
    two_means: float  #: mean of the parts of the voxels of each (panoptica)
    area: float  #: of the areas of both (DeepMind's surface-distance)


def nsd(distances: SurfaceDistances, tolerance_mm: float) -> NSD:
    """Return what part of the surfaces is at most ``tolerance_mm`` away from the other."""
    in_reference = distances.from_reference <= tolerance_mm
    in_prediction = distances.from_prediction <= tolerance_mm
    area = distances.areas_of_reference[distances.corners_from_reference <= tolerance_mm].sum()
    area += distances.areas_of_prediction[distances.corners_from_prediction <= tolerance_mm].sum()
    whole = distances.areas_of_reference.sum() + distances.areas_of_prediction.sum()
    return NSD(
        pooled=float((in_reference.sum() + in_prediction.sum()) / distances.pooled.size),
        two_means=float((in_reference.mean() + in_prediction.mean()) / 2),
        area=float(area / whole) if whole else math.nan,
    )


def surface_distances(
    reference: Surface, prediction: Surface, spacing: tuple[float, ...]
) -> SurfaceDistances:
    """Measure the distances between two surfaces of one label; neither may be empty.

    Args:
        reference: in one mask.
        prediction: in another of the same shape.
        spacing: mm, in the masks' axis order.

    Raises:
        MissingPackageError: SciPy is not installed.
    """
    shape = reference.labels.shape
    grid = tuple(size + 1 for size in shape)
    (corners, codes), (other_corners, other_codes) = reference.corners, prediction.corners
    areas = corner_areas(spacing)
    return SurfaceDistances(
        from_reference=_distances(reference.voxels, prediction.voxels, shape, spacing),
        from_prediction=_distances(prediction.voxels, reference.voxels, shape, spacing),
        corners_from_reference=_distances(corners, other_corners, grid, spacing),
        corners_from_prediction=_distances(other_corners, corners, grid, spacing),
        areas_of_reference=areas[codes],
        areas_of_prediction=areas[other_codes],
    )


def _distances(
    points: NDArray[np.int64], others: NDArray[np.int64], shape: tuple[int, ...], spacing: tuple[float, ...]
) -> NDArray[np.float64]:
    """Return how far each point is from the nearest of the others; both are ascending indices of a grid."""
    distances = np.zeros(points.size)
    position = np.minimum(np.searchsorted(others, points), others.size - 1)
    is_apart = others[position] != points
    if not is_apart.any():
        return distances
    scale = np.array(spacing)
    here = np.stack(np.unravel_index(points[is_apart], shape), axis=1)
    there = np.stack(np.unravel_index(others, shape), axis=1)
    # Points in order of a grid: trees that are not balanced are built in a third of the time, and as good.
    tree = _tree_type()(there * scale, balanced_tree=False, compact_nodes=False)
    nearest = tree.query(here * scale)[1]
    # Again from whole numbers, so that distances do not depend on where the surfaces are.
    steps = (here - there[nearest]) * scale
    distances[is_apart] = np.sqrt((steps * steps).sum(axis=1))
    return distances


def _tree_type() -> Any:
    try:
        from scipy.spatial import cKDTree
    except ImportError:
        raise MissingPackageError("distances between surfaces", "scipy", "evaluate") from None
    return cKDTree
