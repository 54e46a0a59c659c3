"""Distances between the surfaces of a label in two masks, in millimetres, and what is made of them.

Only points of surfaces are compared, which gives what distance transforms of both masks' union box give at
these points, but for rounding in the last bit. Most points have a point of the other surface beside them
(`nearest_mm`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ctspine1k.evaluation.areas import corner_areas
from ctspine1k.evaluation.nearest import nearest_mm
from ctspine1k.evaluation.surfaces import Corners, Surfaces
from ctspine1k.running.threads import spread_map, usable_threads

__all__ = ["NSD", "SurfaceDistances", "measure_surfaces", "nsd"]

T = TypeVar("T")

#: Voxels, more than any volume has along an axis.
_FAR = 1 << 30


@dataclass(frozen=True)
class SurfaceDistances:
    """From each point of a label's surface to the nearest of the same label in the other mask, in mm.

    Points are centres of voxels; for areas they are corners of voxels, each with the pattern of the voxels
    around it, of which the area depends. Corners beyond the greatest tolerance are infinitely far, or are not
    listed.
    """

    from_reference: NDArray[np.float64]
    from_prediction: NDArray[np.float64]
    corners_from_reference: NDArray[np.float64]
    corners_from_prediction: NDArray[np.float64]
    patterns_of_reference: NDArray[np.uint8]
    patterns_of_prediction: NDArray[np.uint8]
    counts: NDArray[np.int64]  #: corners of both surfaces by pattern, also those that are not listed
    areas: NDArray[np.float64]  #: by pattern, mm2

    @property
    def pooled(self) -> NDArray[np.float64]:
        """The distances of both directions: a copy, not kept, as there may be very many."""
        return np.concatenate([self.from_reference, self.from_prediction])

    @property
    def hd_mm(self) -> float:
        """Hausdorff distance: the greatest distance."""
        return float(max(self.from_reference.max(), self.from_prediction.max()))

    @property
    def hd95_mm(self) -> float:
        """The greater of the 95th percentiles of the two directions (MONAI)."""
        return float(max(np.percentile(self.from_reference, 95), np.percentile(self.from_prediction, 95)))

    @property
    def hd95_pooled_mm(self) -> float:
        """The 95th percentile of the distances of both directions (medpy, panoptica)."""
        return float(np.percentile(self.pooled, 95, overwrite_input=True))

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
    near = [
        patterns[corners <= tolerance_mm]
        for patterns, corners in (
            (distances.patterns_of_reference, distances.corners_from_reference),
            (distances.patterns_of_prediction, distances.corners_from_prediction),
        )
    ]
    area = np.bincount(np.concatenate(near), minlength=len(distances.areas)) @ distances.areas
    return NSD(
        pooled=float((in_reference.sum() + in_prediction.sum()) / (in_reference.size + in_prediction.size)),
        two_means=float((in_reference.mean() + in_prediction.mean()) / 2),
        area=float(area / (distances.counts @ distances.areas)),
    )


def measure_surfaces(
    parts: Sequence[NDArray[np.uint8]],
    start: tuple[int, ...],
    labels: Sequence[int],
    spacing: tuple[float, ...],
    tolerance_mm: float,
    measure: Callable[[SurfaceDistances], T],
) -> dict[int, T]:
    """Measure the distances between the surfaces of labels in two masks, in as many threads as may be used.

    Args:
        parts: the same part of both masks, outside of which all is background.
        start: index in the volume of their first voxel.
        labels: which both have.
        spacing: mm, in the masks' axis order.
        tolerance_mm: the greatest for which there will be an NSD.
        measure: takes the distances of one label, which are then forgotten.

    Returns:
        What ``measure`` returned for each label.

    Raises:
        MissingPackageError: SciPy is not installed.
    """
    threads = usable_threads()
    sides = spread_map(lambda part: Surfaces(part, start), parts, threads)
    if not all(side.are_kept for side in sides):
        threads = 1  # one label of noise takes as much memory as all else, and the time between two checks
    # Only corners that may be within the tolerance of the other surface are listed.
    reach = np.array([min(math.ceil(tolerance_mm / size), _FAR) for size in spacing], np.int32)
    around = [
        {label: (low - reach, high + reach) for label in labels for low, high in [side.box(label)]}
        for side in sides
    ]
    corners = spread_map(
        lambda pair: pair[0].corners(pair[1]), list(zip(sides, around[::-1], strict=True)), threads
    )
    measured = spread_map(
        lambda label: measure(_between(sides, label, corners, spacing, tolerance_mm)), labels, threads
    )
    return dict(zip(labels, measured, strict=True))


def _between(
    sides: Sequence[Surfaces],
    label: int,
    corners: Sequence[dict[int, Corners]],
    spacing: tuple[float, ...],
    tolerance_mm: float,
) -> SurfaceDistances:
    """Measure the distances of one label, whose corners are removed: those of noise take much memory."""
    voxels = sides[0].voxels(label), sides[1].voxels(label)
    from_reference, from_prediction = nearest_mm(*voxels, spacing), nearest_mm(*voxels[::-1], spacing)
    del voxels  # of noise as large as all else
    near = corners[0].pop(label), corners[1].pop(label)
    places = near[0].places, near[1].places
    return SurfaceDistances(
        from_reference=from_reference,
        from_prediction=from_prediction,
        corners_from_reference=nearest_mm(*places, spacing, tolerance_mm),
        corners_from_prediction=nearest_mm(*places[::-1], spacing, tolerance_mm),
        patterns_of_reference=near[0].patterns,
        patterns_of_prediction=near[1].patterns,
        counts=near[0].counts + near[1].counts,
        areas=corner_areas(spacing),
    )
