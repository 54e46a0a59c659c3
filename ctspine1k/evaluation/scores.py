"""Scores of one case: a row for each label in the reference or the prediction, and what follows for the case.

::

    score = score_case(reference, prediction, spacing)   # two masks, (k, i, j), and mm along their axes
    score.rows                                           # a LabelScore for each label in either mask
    score.row(20).dice                                   # of L1
    score.columns()                                      # the rows as dictionaries, for tables
    score.missed, score.false_positives                  # labels on one side only
    score.shifts                                         # {1: 17}: 17 vertebrae are numbered one too high
    score.all_right                                      # every vertebra is there, with its own number
    score.without_truncated()                            # without what the first or last slice cuts

    score_points(reference, prediction)                  # the same of centroids: {label: (x, y, z) in mm}

Scores are pure values of arrays: nothing is read, written or averaged here, and no row is left out. Which
rows count, and as what, is for a preset to say: ``reference`` and ``prediction`` of a row tell on which side
its label is. A label that is on one side only has

- Dice, IoU and the NSD of 0, as the formulas give;
- no precision if it was not predicted, no recall and no volume error if it is not in the reference: NaN;
- no distances: NaN.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ctspine1k.evaluation.arguments import check_mask, check_points, check_spacing, check_tolerances
from ctspine1k.evaluation.centroids import WITHIN_MM, Point, identify, mask_centroids
from ctspine1k.evaluation.distances import NSD, SurfaceDistances, measure_surfaces, nsd
from ctspine1k.evaluation.overlap import (
    LABELS,
    Overlap,
    best_match,
    first_and_last,
    joint_histogram,
    label_window,
)

__all__ = ["TOLERANCES_MM", "CaseScore", "LabelScore", "score_case", "score_parts", "score_points"]

#: Tolerances of the normalized surface Dice, in mm.
TOLERANCES_MM = (1.0, 2.0, 3.0)


@dataclass(frozen=True)
class LabelScore:
    """One label of a case. Measures that were not taken, or that it cannot have, are NaN."""

    label: int
    reference: bool  #: whether it is there
    prediction: bool  #: likewise
    truncated: bool  #: it touches the first or last slice: in the reference, or if it is not there, predicted
    dice: float = math.nan
    iou: float = math.nan
    precision: float = math.nan
    recall: float = math.nan
    hd_mm: float = math.nan  #: Hausdorff distance
    hd95_mm: float = math.nan  #: the greater of the 95th percentiles of both directions
    hd95_pooled_mm: float = math.nan  #: the 95th percentile of the distances of both directions together
    assd_mm: float = math.nan  #: average symmetric surface distance: mean of the distances of both directions
    assd_two_means_mm: float = math.nan  #: mean of the means of both directions
    nsd: Mapping[float, NSD] = field(default_factory=dict)  #: normalized surface Dice, by tolerance in mm
    centroid_mm: float = math.nan  #: between the centroids on both sides
    identified: bool = False  #: by VerSe's rule
    identified_msr: bool = False  #: by that of MICCAI 2013
    volume_error: float = math.nan  #: (prediction - reference) / reference
    reference_voxels: int = 0
    prediction_voxels: int = 0
    common_voxels: int = 0  #: that have the label on both sides
    shift: int | None = None  #: label predicted for most of its voxels, minus its own; None: it has none
    reference_centroid: Point | None = None  #: mm; of masks along the array's axes from its first voxel
    prediction_centroid: Point | None = None

    def columns(self) -> dict[str, Any]:
        """Return the measures for a row of a table, one value for each column."""
        columns: dict[str, Any] = {name: getattr(self, name) for name in _COLUMNS}
        for tolerance, value in self.nsd.items():
            columns[f"nsd_{tolerance:g}mm"] = value.pooled
        columns |= {name: getattr(self, name) for name in _LATER_COLUMNS}
        for tolerance, value in self.nsd.items():
            columns[f"nsd_two_means_{tolerance:g}mm"] = value.two_means
            columns[f"nsd_area_{tolerance:g}mm"] = value.area
        return columns


#: Columns of tables before those of the normalized surface Dice, and after them.
_COLUMNS = (
    "label", "reference", "prediction", "truncated", "dice", "iou", "precision", "recall",
    "hd_mm", "hd95_mm", "hd95_pooled_mm", "assd_mm", "assd_two_means_mm",
)  # fmt: skip
_LATER_COLUMNS = (
    "centroid_mm", "identified", "identified_msr", "volume_error",
    "reference_voxels", "prediction_voxels", "common_voxels", "shift",
)  # fmt: skip


@dataclass(frozen=True)
class CaseScore:
    """The rows of a case, in the order of labels, and what follows from them."""

    rows: tuple[LabelScore, ...]
    voxels: int  #: of the volume; 0 for centroids

    def row(self, label: int) -> LabelScore:
        """Return the row of a label.

        Raises:
            KeyError: it is on neither side.
        """
        for row in self.rows:
            if row.label == label:
                return row
        raise KeyError(label)

    def columns(self) -> list[dict[str, Any]]:
        """Return the rows for a table."""
        return [row.columns() for row in self.rows]

    @property
    def missed(self) -> tuple[int, ...]:
        """Labels of the reference that were not predicted."""
        return tuple(row.label for row in self.rows if not row.prediction)

    @property
    def false_positives(self) -> tuple[int, ...]:
        """Predicted labels that are not in the reference."""
        return tuple(row.label for row in self.rows if not row.reference)

    @property
    def shifts(self) -> dict[int, int]:
        """How many vertebrae of the reference have which shift; without those that have none at all."""
        shifts = Counter(row.shift for row in self.rows if row.shift is not None)
        return {shift: shifts[shift] for shift in sorted(shifts)}

    @property
    def unmatched(self) -> tuple[int, ...]:
        """Labels of the reference for which nothing was predicted, under no label."""
        return tuple(row.label for row in self.rows if row.reference and row.shift is None)

    @property
    def all_right(self) -> bool:
        """Whether both sides have the same labels, and each its own for most of its voxels."""
        return all(row.reference and row.prediction and row.shift == 0 for row in self.rows)

    def without_truncated(self) -> CaseScore:
        """Return the score without truncated vertebrae, which are no rivals in identification either."""
        return replace(self, rows=_identified([row for row in self.rows if not row.truncated]))


def score_case(
    reference: ArrayLike,
    prediction: ArrayLike,
    spacing: Sequence[float],
    *,
    slice_axis: int = 0,
    distances: bool = True,
    tolerances_mm: Sequence[float] = TOLERANCES_MM,
) -> CaseScore:
    """Compare two masks.

    Beside the masks, memory is needed for a few slices and for the surfaces; masks of another type than uint8
    are copied.

    Args:
        reference: labels, whole numbers from 0 (background) to 255, with three axes.
        prediction: likewise, on the same grid: a place in the array is a place in the patient.
        spacing: mm, in the arrays' axis order.
        slice_axis: the axis along which the scanner moves, for ``truncated``.
        distances: whether to measure surfaces, which takes most of the time and needs SciPy.
        tolerances_mm: of the normalized surface Dice.

    Raises:
        ValueError: arguments that are not allowed; the message says which.
        MissingPackageError: SciPy is not installed, and there are distances to be measured.
    """
    masks = check_mask("reference", reference), check_mask("prediction", prediction)
    if masks[0].shape != masks[1].shape:
        raise ValueError(
            f"prediction: expected the shape of the reference, {masks[0].shape}, found {masks[1].shape}. "
            "Resample it onto the reference's grid first."
        )
    sizes, tolerances = check_spacing(spacing), check_tolerances(tolerances_mm)
    if slice_axis not in (0, 1, 2):
        raise ValueError(f"slice_axis: expected 0, 1 or 2, found {slice_axis!r}")
    order = _memory_order(masks[0])
    window = label_window(*(mask.transpose(order) for mask in masks))
    parts = [mask[tuple(window[order.index(axis)] for axis in range(3))] for mask in masks]
    start = tuple(window[order.index(axis)].start for axis in range(3))
    return score_parts(
        (parts[0], parts[1]),
        start,
        masks[0].shape,
        sizes,
        slice_axis=slice_axis,
        tolerances_mm=tolerances if distances else None,
    )


def score_parts(
    parts: tuple[NDArray[np.uint8], NDArray[np.uint8]],
    start: tuple[int, ...],
    shape: tuple[int, ...],
    spacing: tuple[float, ...],
    *,
    slice_axis: int = 0,
    tolerances_mm: tuple[float, ...] | None = TOLERANCES_MM,
) -> CaseScore:
    """Compare two masks of which only a part is in memory; outside of it both are background.

    Args:
        parts: the same part of the reference and of the prediction.
        start: index in the volume of their first voxel.
        shape: of the volume.
        spacing: mm.
        slice_axis: as for `score_case`.
        tolerances_mm: likewise; None for no distances.

    Raises:
        MissingPackageError: SciPy is not installed, and there are distances to be measured.
    """
    cut = [first_and_last(part, start, shape, slice_axis) for part in parts]
    # Both in the reference's order in memory, so that a slab is read in one piece.
    order = _memory_order(parts[0])
    first, second = (part.transpose(order) for part in parts)
    sizes, origin = tuple(spacing[axis] for axis in order), tuple(start[axis] for axis in order)
    rows = _rows((first, second), origin, sizes, tolerances_mm)
    back = [order.index(axis) for axis in range(3)]
    rows = [
        replace(
            row,
            truncated=row.label in cut[0 if row.reference else 1],
            reference_centroid=_in_order(row.reference_centroid, back),
            prediction_centroid=_in_order(row.prediction_centroid, back),
        )
        for row in rows
    ]
    return CaseScore(_identified(rows), math.prod(shape))


def _memory_order(mask: NDArray[np.uint8]) -> list[int]:
    """Return the axes, that with the greatest steps in memory first."""
    return sorted(range(3), key=lambda axis: (-abs(mask.strides[axis]), axis))


def _rows(
    parts: tuple[NDArray[np.uint8], NDArray[np.uint8]],
    start: tuple[int, ...],
    spacing: tuple[float, ...],
    tolerances: tuple[float, ...] | None,
) -> list[LabelScore]:
    """Return the rows of two masks, but for whether a label is truncated or identified."""
    joint = joint_histogram(*parts, start)
    counts, by_label = joint.counts, (joint.counts.sum(axis=1), joint.counts.sum(axis=0))
    centroids = [
        mask_centroids(voxels, joint.sums.sum(axis=axis), spacing)
        for voxels, axis in zip(by_label, (2, 1), strict=True)
    ]
    in_reference, in_prediction = (voxels.tolist() for voxels in by_label)
    both = np.flatnonzero(by_label[0] * by_label[1])
    measured: dict[int, dict[str, Any]] = {}
    if tolerances is not None:
        measured = measure_surfaces(
            parts,
            start,
            both[both > 0].tolist(),
            spacing,
            max(tolerances, default=0.0),
            partial(_of_surfaces, tolerances),
        )
    rows = []
    for label in range(1, LABELS):
        overlap = Overlap(in_reference[label], in_prediction[label], int(counts[label, label]))
        if not overlap.reference and not overlap.prediction:
            continue
        match = best_match(counts, label) if overlap.reference else None
        rows.append(
            LabelScore(
                label=label,
                reference=overlap.reference > 0,
                prediction=overlap.prediction > 0,
                truncated=False,
                dice=overlap.dice,
                iou=overlap.iou,
                precision=overlap.precision,
                recall=overlap.recall,
                **measured.get(label, {"nsd": dict.fromkeys(tolerances or (), _NOT_NEAR)}),
                volume_error=overlap.volume_error,
                reference_voxels=overlap.reference,
                prediction_voxels=overlap.prediction,
                common_voxels=overlap.common,
                shift=None if match is None else match - label,
                reference_centroid=centroids[0].get(label),
                prediction_centroid=centroids[1].get(label),
            )
        )
    return rows


#: Fields of a row that are properties of the distances of its surfaces.
_DISTANCES = ("hd_mm", "hd95_mm", "hd95_pooled_mm", "assd_mm", "assd_two_means_mm")


#: Of a label that has only one surface.
_NOT_NEAR = NSD(0.0, 0.0, 0.0)


def _of_surfaces(tolerances: tuple[float, ...], distances: SurfaceDistances) -> dict[str, Any]:
    """Return the fields of a row that are of surfaces."""
    return {
        **{name: getattr(distances, name) for name in _DISTANCES},
        "nsd": {tolerance: nsd(distances, tolerance) for tolerance in tolerances},
    }


def score_points(reference: Mapping[int, Point], prediction: Mapping[int, Point]) -> CaseScore:
    """Compare two sets of centroids.

    They must be of one kind: points in vertebral bodies on both sides, or centres of mass. The rows have no
    measures of masks. The shift is that of the nearest prediction, if it is at most 20 mm away.

    Args:
        reference: position of each label, in mm.
        prediction: likewise, in the same system of axes.

    Raises:
        ValueError: a position that is not three finite numbers.
    """
    places = check_points("reference", reference), check_points("prediction", prediction)
    rows = [
        LabelScore(
            label=label,
            reference=label in places[0],
            prediction=label in places[1],
            truncated=False,
            shift=_nearest_shift(label, places[0].get(label), places[1]),
            reference_centroid=places[0].get(label),
            prediction_centroid=places[1].get(label),
        )
        for label in sorted({*places[0], *places[1]})
    ]
    return CaseScore(_identified(rows), 0)


def _nearest_shift(label: int, place: Point | None, predicted: Mapping[int, Point]) -> int | None:
    if place is None or not predicted:
        return None
    distance, _, nearest = min(
        (math.dist(place, other), abs(number - label), number) for number, other in predicted.items()
    )
    return nearest - label if distance <= WITHIN_MM else None


def _identified(rows: list[LabelScore]) -> tuple[LabelScore, ...]:
    """Return the rows with the distances between centroids, and whether each is identified among them."""
    judged = identify(
        {row.label: row.reference_centroid for row in rows if row.reference_centroid is not None},
        {row.label: row.prediction_centroid for row in rows if row.prediction_centroid is not None},
    )
    return tuple(
        replace(
            row,
            centroid_mm=judged[row.label].error_mm,
            identified=judged[row.label].verse,
            identified_msr=judged[row.label].msr,
        )
        for row in rows
    )


def _in_order(place: Point | None, order: Sequence[int]) -> Point | None:
    return None if place is None else tuple(place[axis] for axis in order)
