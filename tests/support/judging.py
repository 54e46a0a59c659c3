"""Measures of a prediction by their definitions, voxel by voxel: slow, plain, and another path than the package's."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

#: Boxes of the published test vectors.
A = np.s_[10:40, 10:40, 10:30]
SPUR = np.s_[40:56, 23:27, 18:22]
MOVED = np.s_[12:42, 10:40, 10:30]
CUBE = np.s_[24:26, 24:26, 19:21]


def volume(*parts: tuple, shape: tuple[int, ...] = (60, 60, 40)) -> np.ndarray:
    """A mask with label 1 in these places."""
    mask = np.zeros(shape, np.uint8)
    for part in parts:
        mask[part] = 1
    return mask


def surface(mask: np.ndarray) -> list[tuple[int, ...]]:
    """The voxels of a mask of which a neighbour is not in it; what lies outside of the volume is not."""
    inside = {tuple(at) for at in np.argwhere(mask).tolist()}
    steps = [tuple(sign * (axis == one) for axis in range(3)) for one in range(3) for sign in (-1, 1)]
    return [at for at in sorted(inside) if any(tuple(np.add(at, step)) not in inside for step in steps)]


def corners(mask: np.ndarray) -> list[tuple[int, ...]]:
    """The corners at which voxels in the mask and others meet."""
    inside = {tuple(at) for at in np.argwhere(mask).tolist()}
    around = list(itertools.product((-1, 0), repeat=3))
    every = itertools.product(*(range(size + 1) for size in mask.shape))
    return [at for at in every if 0 < sum(tuple(np.add(at, step)) in inside for step in around) < 8]


def directed(mask: np.ndarray, other: np.ndarray, spacing: Sequence[float]) -> list[float]:
    """From each surface voxel to the nearest of the other mask, in mm."""
    to = [np.multiply(at, spacing) for at in surface(other)]
    return [min(math.dist(np.multiply(at, spacing), place) for place in to) for at in surface(mask)]


def percentile(values: Sequence[float], part: float) -> float:
    """Between the two values that enclose it, in proportion."""
    ordered, place = sorted(values), part * (len(values) - 1)
    low = math.floor(place)
    high = min(low + 1, len(values) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def judged(reference: np.ndarray, prediction: np.ndarray, spacing: Sequence[float]) -> dict[str, float]:
    """All measures of one label that is in both masks, which are boolean."""
    tp = sum(map(int, (reference & prediction).flat))
    fp, fn = sum(map(int, prediction.flat)) - tp, sum(map(int, reference.flat)) - tp
    there, back = directed(reference, prediction, spacing), directed(prediction, reference, spacing)
    both = there + back
    centres = [np.multiply(np.argwhere(mask).mean(axis=0), spacing) for mask in (reference, prediction)]
    measures = {
        "dice": 2 * tp / (2 * tp + fp + fn),
        "iou": tp / (tp + fp + fn),
        "precision": tp / (tp + fp),
        "recall": tp / (tp + fn),
        "volume_error": (fp - fn) / (tp + fn),
        "hd_mm": max(both),
        "hd95_mm": max(percentile(there, 0.95), percentile(back, 0.95)),
        "hd95_pooled_mm": percentile(both, 0.95),
        "assd_mm": sum(both) / len(both),
        "assd_two_means_mm": (sum(there) / len(there) + sum(back) / len(back)) / 2,
        "centroid_mm": math.dist(*centres),
    }
    for tolerance in (1, 2, 3):
        near = [[distance <= tolerance for distance in one] for one in (there, back)]
        measures[f"nsd_{tolerance}mm"] = sum(map(sum, near)) / len(both)
        measures[f"nsd_two_means_{tolerance}mm"] = sum(sum(one) / len(one) for one in near) / 2
    return measures
