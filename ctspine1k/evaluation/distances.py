"""Distances between the surfaces of a label in two masks, in millimetres, and what is made of them.

Only points of surfaces are compared, which gives what distance transforms of both masks' union box give at
these points, bit for bit. Most points have a point of the other surface beside them: the steps to all places
near by are tried in the order of their lengths. For those that are left there is a k-d tree.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctspine1k.errors import MissingPackageError
from ctspine1k.evaluation.areas import corner_areas
from ctspine1k.evaluation.surfaces import Surface

__all__ = ["NSD", "SurfaceDistances", "nearest_mm", "nsd", "surface_distances"]

#: Places around a point that are tried before a tree is built, and looks per point on average before that.
_PLACES, _LOOKS = 500, 30


@dataclass(frozen=True)
class SurfaceDistances:
    """From each point of a label's surface to the nearest of the same label in the other mask, in mm.

    Points are centres of voxels; for areas they are corners of voxels, each with the area around it, in mm2.
    Corners beyond the greatest tolerance are infinitely far.
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
        """The 95th percentile of the distances of both directions (medpy, panoptica)."""
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

    pooled: float  #: of the voxels of both surfaces (MONAI)
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
        area=float(area / whole),
    )


def surface_distances(
    reference: Surface, prediction: Surface, spacing: tuple[float, ...], tolerance_mm: float
) -> SurfaceDistances:
    """Measure the distances between the surfaces of one label.

    Args:
        reference: in one mask.
        prediction: in another of the same shape.
        spacing: mm, in the masks' axis order.
        tolerance_mm: the greatest for which there will be an NSD.

    Raises:
        MissingPackageError: SciPy is not installed.
    """
    areas = corner_areas(spacing)
    return SurfaceDistances(
        from_reference=nearest_mm(reference.voxels, prediction.voxels, spacing),
        from_prediction=nearest_mm(prediction.voxels, reference.voxels, spacing),
        corners_from_reference=nearest_mm(reference.corners, prediction.corners, spacing, tolerance_mm),
        corners_from_prediction=nearest_mm(prediction.corners, reference.corners, spacing, tolerance_mm),
        areas_of_reference=areas[reference.patterns],
        areas_of_prediction=areas[prediction.patterns],
    )


def nearest_mm(
    points: NDArray[np.int32],
    others: NDArray[np.int32],
    spacing: tuple[float, ...],
    within_mm: float = math.inf,
) -> NDArray[np.float64]:
    """Return how far each point is from the nearest of others, in mm.

    Args:
        points: (n, 3), whole numbers.
        others: (m, 3), at least one.
        spacing: mm, of one along each axis.
        within_mm: what is farther than this is infinitely far, and costs little time.

    Raises:
        MissingPackageError: SciPy is not installed.
    """
    tree_type = _tree_type()
    steps, lengths = _steps(spacing)
    reach = steps.max(axis=0)
    first = np.minimum(points.min(axis=0), others.min(axis=0)) - reach
    box = tuple((np.maximum(points.max(axis=0), others.max(axis=0)) + reach + 1 - first).tolist())
    # Memory that is never written to is never allocated, so a stray point far away costs nothing.
    is_other = np.zeros(math.prod(box), bool)
    is_other[np.ravel_multi_index(tuple((others - first).T), box)] = True
    places = np.ravel_multi_index(tuple((points - first).T), box)
    ways = steps @ [box[1] * box[2], box[2], 1]
    distances = np.full(len(points), math.inf)
    left = np.arange(len(points))
    looks = _LOOKS * len(points)
    for way, length in zip(ways.tolist(), lengths.tolist(), strict=True):
        if length > within_mm:
            return distances
        is_there = is_other[places + way]
        distances[left[is_there]] = length
        left, places = left[~is_there], places[~is_there]
        looks -= len(left)
        if not left.size or looks < 0:
            break
    if left.size:
        # Of far places many are nearly the nearest: leaves of many points are searched faster.
        tree = tree_type(others * np.array(spacing), leafsize=64, compact_nodes=False)
        bound = within_mm * (1 + 1e-9)  # the tree leaves out what is just as far, and computes from positions
        nearest = tree.query(points[left] * np.array(spacing), distance_upper_bound=bound)[1]
        left, nearest = left[nearest < len(others)], nearest[nearest < len(others)]
        # Again from steps, so that a distance does not depend on where the points are.
        distances[left] = _lengths(points[left] - others[nearest], spacing)
    return distances


@lru_cache(maxsize=8)
def _steps(spacing: tuple[float, ...]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the steps to all places around a point within a ball of some `_PLACES`, the shortest first."""
    radius = (3 * _PLACES * math.prod(spacing) / (4 * math.pi)) ** (1 / 3)
    radius = min(radius, _PLACES * min(spacing))  # of voxels as thin as hairs, not millions along one axis
    reach = [int(radius / size) for size in spacing]
    steps = np.indices([2 * size + 1 for size in reach]).reshape(3, -1).T - reach
    lengths = _lengths(steps, spacing)
    order = np.argsort(lengths, kind="stable")
    order = order[lengths[order] <= radius]
    return steps[order], lengths[order]


def _lengths(steps: NDArray[Any], spacing: tuple[float, ...]) -> NDArray[np.float64]:
    in_mm: NDArray[np.float64] = steps * np.array(spacing)
    lengths: NDArray[np.float64] = np.sqrt((in_mm * in_mm).sum(axis=1))
    return lengths


def _tree_type() -> Any:
    try:
        from scipy.spatial import cKDTree
    except ImportError:
        raise MissingPackageError("distances between surfaces", "scipy", "evaluate") from None
    return cKDTree
