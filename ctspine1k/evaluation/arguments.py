"""What is compared, as it is needed: masks of bytes, spacing, tolerances, points."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Real

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ctspine1k.evaluation.centroids import Point
from ctspine1k.evaluation.overlap import LABELS

__all__ = ["check_mask", "check_points", "check_spacing", "check_tolerances"]


def check_mask(name: str, labels: ArrayLike) -> NDArray[np.uint8]:
    """Return labels as bytes.

    Raises:
        ValueError: they are not, or have not three axes.
    """
    if isinstance(labels, Mapping):
        raise ValueError(
            f"{name}: expected a mask, found centroids. Compare centroids with centroids (score_points): "
            "centres of mass of masks are 14 to 23 mm from points in vertebral bodies."
        )
    mask = np.asarray(labels)
    if mask.ndim != 3 or not mask.size:
        raise ValueError(f"{name}: expected a mask with three axes, found shape {mask.shape}")
    if mask.dtype.kind not in "biu":
        raise ValueError(f"{name}: expected whole numbers from 0 to 255, found {mask.dtype}")
    if mask.dtype != np.uint8:
        lowest, highest = mask.min(), mask.max()
        if lowest < 0 or highest >= LABELS:
            found = lowest if lowest < 0 else highest
            raise ValueError(f"{name}: expected labels from 0 to 255, found {found}")
        mask = mask.astype(np.uint8)
    return mask


def check_spacing(spacing: Sequence[float]) -> Point:
    """Return the sizes of a voxel.

    Raises:
        ValueError: they are not three positive numbers.
    """
    sizes = tuple(float(size) for size in spacing)
    if len(sizes) != 3 or not all(math.isfinite(size) and size > 0 for size in sizes):
        raise ValueError(f"spacing: expected three positive numbers, in mm, found {spacing!r}")
    return sizes


def check_tolerances(tolerances: Sequence[float]) -> tuple[float, ...]:
    """Return tolerances in mm.

    Raises:
        ValueError: one is negative, or not finite.
    """
    numbers = tuple(float(tolerance) for tolerance in tolerances)
    if not all(math.isfinite(number) and number >= 0 for number in numbers):
        raise ValueError(f"tolerances_mm: expected numbers from 0, found {tolerances!r}")
    return numbers


def check_points(name: str, points: Mapping[int, Point]) -> dict[int, Point]:
    """Return positions by label.

    Raises:
        ValueError: they are not positions by label, a label is not a whole number, or a position is not three
            finite numbers.
    """
    if not isinstance(points, Mapping):
        raise ValueError(
            f"{name}: expected positions by label, found {type(points).__name__}. Compare masks with masks "
            "(score_case): their centres of mass are 14 to 23 mm from points in vertebral bodies."
        )
    places: dict[int, Point] = {}
    for label, point in points.items():
        if not (isinstance(label, Real) and float(label).is_integer()):
            raise ValueError(f"{name}: expected whole numbers as labels, such as 20 for L1, found {label!r}")
        place = tuple(float(number) for number in point)
        if len(place) != 3 or not all(map(math.isfinite, place)):
            raise ValueError(f"{name}: expected three finite numbers for label {label}, found {point!r}")
        places[int(label)] = place
    return places
