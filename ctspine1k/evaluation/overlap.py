"""Overlap of two masks, by label, from one joint histogram of their labels.

Both masks are read once, a few slices at a time: memory is needed for those, not for the volume.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "LABELS",
    "JointHistogram",
    "Overlap",
    "Window",
    "best_match",
    "joint_histogram",
    "label_window",
    "slabs",
]

#: Labels are whole numbers below this, 0 for background.
LABELS = 256

#: Voxels that are looked at together: temporary arrays are a few times as large.
_SLAB_VOXELS = 1 << 21

Window: TypeAlias = "tuple[slice, ...]"


@dataclass(frozen=True)
class Overlap:
    """Voxels of one label in both masks. Measures whose formula is 0 / 0 are NaN."""

    reference: int
    prediction: int
    common: int  #: true positives

    @property
    def dice(self) -> float:
        """2 TP / (2 TP + FP + FN)."""
        return _ratio(2 * self.common, self.reference + self.prediction)

    @property
    def iou(self) -> float:
        """TP / (TP + FP + FN)."""
        return _ratio(self.common, self.reference + self.prediction - self.common)

    @property
    def precision(self) -> float:
        """TP / (TP + FP); NaN if the label is not predicted."""
        return _ratio(self.common, self.prediction)

    @property
    def recall(self) -> float:
        """TP / (TP + FN); NaN if the label is not in the reference."""
        return _ratio(self.common, self.reference)

    @property
    def volume_error(self) -> float:
        """(prediction - reference) / reference; NaN if the label is not in the reference."""
        return _ratio(self.prediction - self.reference, self.reference)


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else math.nan


def slabs(window: Window) -> Iterator[Window]:
    """Yield windows of few voxels each, one after the other along the first axis, that make up ``window``."""
    first, *rest = window
    depth = max(1, _SLAB_VOXELS // max(1, math.prod(side.stop - side.start for side in rest)))
    for start in range(first.start, first.stop, depth):
        yield (slice(start, min(start + depth, first.stop)), *rest)


def label_window(*masks: NDArray[Any]) -> Window:
    """Return the smallest window that contains every label of some masks of one shape; empty without any."""
    shape = masks[0].shape
    flat = np.zeros(shape[1:], bool)
    used = np.zeros(shape[0], bool)
    for slab in slabs(tuple(slice(0, size) for size in shape)):
        labels = masks[0][slab]
        for other in masks[1:]:
            labels = labels | other[slab]
        in_slab = np.bitwise_or.reduce(labels, axis=0) != 0
        if in_slab.any():
            flat |= in_slab
            used[slab[0]] = labels.any(axis=tuple(range(1, labels.ndim)))
    axes = range(flat.ndim)
    others = [tuple(other for other in axes if other != axis) for axis in axes]
    return (_extent(used), *(_extent(np.asarray(flat.any(axis=rest))) for rest in others))


def _extent(used: NDArray[np.bool_]) -> slice:
    at = np.flatnonzero(used)
    return slice(int(at[0]), int(at[-1]) + 1) if at.size else slice(0, 0)


@dataclass(frozen=True)
class JointHistogram:
    """Voxels of two masks by both labels: element (r, p) is of label r in the first and p in the second."""

    counts: NDArray[np.int64]  #: (256, 256), how many
    sums: NDArray[
        np.float64
    ]  #: (axes, 256, 256), of their indices along each axis; whole, without background


def joint_histogram(
    reference: NDArray[np.uint8], prediction: NDArray[np.uint8], window: Window
) -> JointHistogram:
    """Count voxels by their two labels.

    Args:
        reference: labels, of any shape.
        prediction: of the same shape.
        window: outside of which both are background.
    """
    counts = np.zeros(LABELS * LABELS, np.int64)
    sums = np.zeros((reference.ndim, counts.size))
    for slab in slabs(window):
        pairs = reference[slab].astype(np.uint16) << 8
        pairs |= prediction[slab]
        at = np.flatnonzero(pairs)
        found = pairs.reshape(-1)[at]
        counts += np.bincount(found, minlength=counts.size)
        for axis, index in enumerate(np.unravel_index(at, pairs.shape)):
            sums[axis] += np.bincount(found, index + slab[axis].start, counts.size)
    counts[0] = math.prod(reference.shape) - int(counts.sum())
    return JointHistogram(counts.reshape(LABELS, LABELS), sums.reshape(-1, LABELS, LABELS))


def best_match(counts: NDArray[np.int64], label: int) -> int | None:
    """Return the predicted label that has most voxels of a reference label; None if none has any.

    Of several with equally many, it is the one nearest to ``label``, then the smaller one.
    """
    row = counts[label, 1:]
    if not row.any():
        return None
    best = np.flatnonzero(row == row.max()) + 1
    return int(min(best.tolist(), key=lambda other: (abs(other - label), other)))
