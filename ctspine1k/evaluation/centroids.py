"""Centroids of vertebrae, and whether they are identified, by the rules of VerSe and of MICCAI 2013.

Positions are in mm, in any one system of axes. Both sides must be of one kind: centres of mass of masks are
14 to 23 mm from points in vertebral bodies.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["WITHIN_MM", "Identification", "Point", "identify", "mask_centroids"]

Point: TypeAlias = "tuple[float, ...]"

#: How far a vertebra may be from where it was predicted, by both rules.
WITHIN_MM = 20.0


@dataclass(frozen=True)
class Identification:
    """What became of one vertebra of the reference, or of a prediction of none (both rules: False)."""

    error_mm: float  #: from the predicted centroid to that of the same label; NaN if one is not there
    verse: bool  #: of the labels on both sides, its own is the nearest to the prediction, within 20 mm
    msr: bool  #: of all in the reference, its own is the nearest to the prediction, less than 20 mm away


def identify(reference: Mapping[int, Point], prediction: Mapping[int, Point]) -> dict[int, Identification]:
    """Judge predicted centroids by both rules.

    A label that is as near as its nearest rival is the nearest, too.

    Args:
        reference: position of each label.
        prediction: likewise, and of the same kind.

    Returns:
        One for each label on either side, in the order of labels.
    """
    both = [label for label in reference if label in prediction]
    judged = {}
    for label in sorted({*reference, *prediction}):
        if label not in reference or label not in prediction:
            judged[label] = Identification(math.nan, verse=False, msr=False)
            continue
        to = {other: math.dist(prediction[label], place) for other, place in reference.items()}
        error = to[label]
        judged[label] = Identification(
            error,
            verse=error <= min(to[other] for other in both) and error <= WITHIN_MM,
            msr=error <= min(to.values()) and error < WITHIN_MM,
        )
    return judged


def mask_centroids(
    counts: NDArray[np.int64], sums: NDArray[np.float64], spacing: tuple[float, ...]
) -> dict[int, Point]:
    """Return the centre of mass of each label but 0: index times spacing, in mm along the mask's axes.

    Args:
        counts: (256,), voxels by label.
        sums: (axes, 256), of their indices along each axis; sums of whole numbers are exact.
        spacing: mm, in their order.
    """
    return {
        label: tuple(
            float(total / counts[label] * size) for total, size in zip(sums[:, label], spacing, strict=True)
        )
        for label in np.flatnonzero(counts).tolist()
        if label
    }
