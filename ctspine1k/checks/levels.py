"""Whether vertebrae follow one another, judged by their labels and positions, in masks or as points."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from statistics import mean
from typing import TypeAlias

from ctspine1k._messages import shortened
from ctspine1k.catalog.vocabulary import Vocabulary
from ctspine1k.volumes.points import Point

__all__ = ["Places", "Strange", "beside", "distance", "gap", "implausible_points", "order", "upside_down"]

#: What was expected and what was found; None if nothing is wrong.
Strange: TypeAlias = "tuple[str, str] | None"

#: Where vertebrae are (RAS+ mm) by their labels, from the head downwards.
Places: TypeAlias = "Mapping[int, tuple[float, float, float]]"

#: Allowed ratios of a distance to those beside it.
_DISTANCE_RATIO = (0.6, 1.6)

#: Allowed distances of the centres of neighbours, from the necks of children to the lumbar spines of tall men
#: (mm): beyond them, coordinates were taken for others, such as voxels for mm.
_DISTANCE_MM = (8.0, 60.0)

#: How far the point of a vertebra may be outside the box around its mask (voxels): points are rounded.
_ASIDE = 1.0


def gap(labels: Sequence[int], vocabulary: Vocabulary) -> Strange:
    """Check that no vertebra is missing between the first label and the last."""
    name = vocabulary.name
    missing = [v.name for v in vocabulary.missing(labels[0], labels[-1]) if v.label not in labels]
    if not missing:
        return None
    return (
        f"all labels from {name(labels[0])} to {name(labels[-1])}",
        f"no {shortened(missing, limit=len(vocabulary.vertebrae))}",
    )


def _steps(places: Places) -> list[tuple[int, int, float]]:
    """List each pair of labels that follow one another, and how much higher the second one is (mm)."""
    return [(upper, lower, places[lower][2] - places[upper][2]) for upper, lower in pairwise(places)]


def order(places: Places, vocabulary: Vocabulary) -> Strange:
    """Check that each vertebra is below the one before, unless all are above it (`upside_down`)."""
    name, steps = vocabulary.name, _steps(places)
    wrong = [f"{name(lower)} above {name(upper)}" for upper, lower, rise in steps if rise >= 0]
    if not wrong or len(wrong) == len(steps):
        return None
    return "each vertebra below the one before", shortened(wrong)


def upside_down(places: Places, vocabulary: Vocabulary) -> Strange:
    """Check that not all vertebrae are above the one before."""
    steps = _steps(places)
    if not steps or any(rise < 0 for *_, rise in steps):
        return None
    first, *_, last = map(vocabulary.name, places)
    return f"{first} above {last}, by the header", "it below"


def _distances(places: Places, vocabulary: Vocabulary) -> dict[tuple[int, int], float]:
    """Return how far apart neighbours are (mm)."""
    return {
        (upper, lower): math.dist(places[upper], places[lower])
        for upper, lower in pairwise(places)
        if not vocabulary.missing(upper, lower)
    }


def distance(places: Places, vocabulary: Vocabulary) -> Strange:
    """Check that neighbours are as far apart as those beside them."""
    name = vocabulary.name
    found = {upper: (lower, apart) for (upper, lower), apart in _distances(places, vocabulary).items()}
    wrong = [
        f"{name(upper)} to {name(found[upper][0])} {apart:.0f} mm ({usual:.0f} mm beside it)"
        for upper, apart, usual in beside({upper: apart for upper, (_, apart) in found.items()}, vocabulary)
        if not _DISTANCE_RATIO[0] <= apart / usual <= _DISTANCE_RATIO[1]
    ]
    return ("neighbours as far apart as those beside them", shortened(wrong)) if wrong else None


def beside(
    values: Mapping[int, float], vocabulary: Vocabulary, among: Mapping[int, float] | None = None
) -> Iterator[tuple[int, float, float]]:
    """Yield each label, its value, and the mean value of its neighbours, which ``among`` may give."""
    others = values if among is None else among
    downwards = vocabulary.downwards({*values, *others})
    near_to: dict[int, list[int]] = {label: [] for label in downwards}
    for upper, lower in pairwise(downwards):
        if not vocabulary.missing(upper, lower):
            near_to[upper].append(lower)
            near_to[lower].append(upper)
    for number, value in values.items():
        near = [others[other] for other in near_to[number] if other in others]
        if any(near):  # distances are 0 if vertebrae have the same centre
            yield number, value, mean(near)


def implausible_points(
    points: Sequence[Point],
    boxes: Mapping[int, tuple[Sequence[int], Sequence[int]]],
    vocabulary: Vocabulary,
) -> Iterator[tuple[str, str, str]]:
    """Yield findings about the points of a case: the check, what it expected, and what it found.

    Args:
        points: with voxels of the image as stored.
        boxes: of the vertebrae in the mask, start and stop in its array, (k, i, j); none without a mask.
        vocabulary: names of the labels, and their order down the spine.
    """
    of_label = {point.label: point for point in points}
    labels = vocabulary.downwards(of_label)
    if not labels:
        yield "no_labels", "points of vertebrae", "none"
        return
    if strange := gap(labels, vocabulary):
        yield "gap", *strange
    places = {label: of_label[label].mm for label in labels}
    for check, look in (("order", order), ("distance", _far), ("upside_down", upside_down)):
        if strange := look(places, vocabulary):
            yield check, *strange
    aside = [vocabulary.name(label) for label in labels if _is_aside(of_label[label], boxes)]
    if aside:
        yield "point_place", "points within the boxes around the labels of their vertebrae", shortened(aside)


def _far(places: Places, vocabulary: Vocabulary) -> Strange:
    """Check that neighbours are a plausible distance apart, and as far as those beside them."""
    least, most = _DISTANCE_MM
    wrong = [
        f"{vocabulary.name(upper)} to {vocabulary.name(lower)} {apart:.0f} mm"
        for (upper, lower), apart in _distances(places, vocabulary).items()
        if not least <= apart <= most
    ]
    if wrong:
        return f"neighbours {least:.0f} to {most:.0f} mm apart", shortened(wrong)
    return distance(places, vocabulary)


def _is_aside(point: Point, boxes: Mapping[int, tuple[Sequence[int], Sequence[int]]]) -> bool:
    if point.label not in boxes:
        return bool(boxes)
    start, stop = boxes[point.label]
    return not all(
        first - 0.5 - _ASIDE <= at <= last - 0.5 + _ASIDE
        for first, at, last in zip(start, point.voxel, stop, strict=True)
    )
