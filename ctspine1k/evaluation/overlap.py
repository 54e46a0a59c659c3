"""Overlap of two masks, by label, from one joint histogram of their labels.

Both masks are read once, a few slices at a time: memory is needed for those, not for the volume.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
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
    "first_and_last",
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


def slabs(shape: Sequence[int]) -> Iterator[slice]:
    """Yield slices of few voxels each, one after the other along the first axis, that make up an array."""
    depth, *rest = shape
    step = max(1, _SLAB_VOXELS // max(1, math.prod(rest)))
    for start in range(0, depth, step):
        yield slice(start, min(start + step, depth))


def label_window(*masks: NDArray[Any]) -> Window:
    """Return the smallest window that contains every label of some masks of one shape; empty without any."""
    shape = masks[0].shape
    flat = np.zeros(shape[1:], bool)
    used = np.zeros(shape[0], bool)
    for slab in slabs(shape):
        labels = masks[0][slab]
        for other in masks[1:]:
            labels = labels | other[slab]
        in_slab = np.bitwise_or.reduce(labels, axis=0) != 0
        if in_slab.any():
            flat |= in_slab
            used[slab] = labels.any(axis=tuple(range(1, labels.ndim)))
    axes = range(flat.ndim)
    others = [tuple(other for other in axes if other != axis) for axis in axes]
    return (_extent(used), *(_extent(np.asarray(flat.any(axis=rest))) for rest in others))


def first_and_last(
    part: NDArray[np.uint8], start: Sequence[int], shape: Sequence[int], axis: int
) -> set[int]:
    """Return the labels in the first and last slice of a volume.

    Args:
        part: of a mask; outside of it is background.
        start: index in the volume of its first voxel.
        shape: of the volume.
        axis: along which slices follow one another.
    """
    along, labels = np.moveaxis(part, axis, 0), set()
    if len(along) and start[axis] == 0:
        labels |= set(np.unique(along[0]).tolist())
    if len(along) and start[axis] + len(along) == shape[axis]:
        labels |= set(np.unique(along[-1]).tolist())
    return labels


def _extent(used: NDArray[np.bool_]) -> slice:
    at = np.flatnonzero(used)
    return slice(int(at[0]), int(at[-1]) + 1) if at.size else slice(0, 0)


@dataclass(frozen=True)
class JointHistogram:
    """Voxels of two masks by both labels: element (r, p) is of label r in the first and p in the second.

    Voxels that are background in both are not counted.
    """

    counts: NDArray[np.int64]  #: (256, 256), how many
    sums: NDArray[np.float64]  #: (3, 256, 256), of their indices along each axis; whole


def joint_histogram(
    reference: NDArray[np.uint8], prediction: NDArray[np.uint8], start: Sequence[int] = (0, 0, 0)
) -> JointHistogram:
    """Count voxels by their two labels.

    Args:
        reference: labels, with three axes.
        prediction: of the same shape.
        start: index in the volume of their first voxel.
    """
    counts = np.zeros(LABELS * LABELS, np.int64)
    sums = np.zeros((3, counts.size))
    _, height, width = reference.shape
    for slab in slabs(reference.shape):
        pairs = reference[slab].astype(np.uint16, order="C").reshape(-1) << 8
        pairs |= prediction[slab].reshape(-1)
        at = np.flatnonzero(pairs != 0)
        found = pairs[at].astype(np.intp)
        counts += np.bincount(found, minlength=counts.size)
        rows = at // width  # faster than unravel_index
        planes = rows // height
        indices = planes + slab.start, rows - planes * height, at - rows * width
        for axis, (index, first) in enumerate(zip(indices, start, strict=True)):
            sums[axis] += np.bincount(found, index + first, counts.size)
    return JointHistogram(counts.reshape(LABELS, LABELS), sums.reshape(3, LABELS, LABELS))


def best_match(counts: NDArray[np.int64], label: int) -> int | None:
    """Return the predicted label that has most voxels of a reference label; None if none has any.

    Of several with equally many, it is the one nearest to ``label``, then the smaller one.
    """
    row = counts[label, 1:]
    if not row.any():
        return None
    best = np.flatnonzero(row == row.max()) + 1
    return int(min(best.tolist(), key=lambda other: (abs(other - label), other)))
