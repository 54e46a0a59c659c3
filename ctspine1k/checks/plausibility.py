"""Plausibility of the intensities and labels of a case, judged only by its measures.

Checks are about the range of intensities, the labels that occur, their order and distance along the spine,
their size and pieces, and whether they are on bone. Some errors cannot be detected from voxels: all labels
off by one, left and right swapped, a variant of the anatomy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from statistics import median

from ctspine1k._messages import shortened
from ctspine1k.catalog.vocabulary import Vocabulary
from ctspine1k.checks.levels import Places, Strange, beside, distance, gap, order, upside_down
from ctspine1k.checks.measure import CaseMeasures, VertebraMeasures
from ctspine1k.volumes.orientation import axis_along

__all__ = ["implausible"]

#: Air, in and around the body, is near -1000 HU: a scan without a voxel below this has other numbers, such as
#: HU + 1024. One that is cropped to the spine may have no air, but fat, which is near -100 HU. CT has numbers
#: of 12 bits, or of 16 with metal: those beyond the greatest of these are negative ones that were taken for
#: numbers without a sign.
_AIR_HU, _FAT_HU = -500.0, -50.0
_GREATEST_HU = 32767.0

#: Whole vertebrae: half the least and 1.4 times the greatest volume (cm3) of each region in the masks of 80
#: subjects of VerSe 2019, as measured by the project SegQC-xnat (reference_verse_v1.json).
_VOLUME_CM3 = {"cervical": (4.0, 37.0), "thoracic": (8.0, 94.0), "lumbar": (18.0, 139.0)}

#: In the same masks the mean HU of a vertebra is 157 or more; osteoporosis and a loose mask lower it.
_MEAN_HU = (80.0, 1000.0)

#: HU by which labels exceed their surroundings: in the CT that the tests read, about 200 if they are on bone,
#: and below 60 if they are moved by 10 mm to the side or 20 mm to the back.
_CONTRAST_HU = 70.0

#: Allowed ratios of a vertebra's volume to that of its neighbours.
_VOLUME_RATIO = (0.6, 1.7)

#: Fraction of a vertebra's voxels that may be apart from its largest piece, and the allowed ratio of its
#: height to that of its neighbours.
_APART = 0.01
_HEIGHT_RATIO = 2.0

#: Least position of the centre of gravity within a vertebra, from -0.5 (back) to 0.5 (front): it should be
#: positive, since the body is in front of the processes.
_BACKWARDS = -0.04

#: Checks that need positions in mm.
_IN_MM = ("order", "distance", "upside_down", "front_to_back")


def implausible(
    measures: CaseMeasures, vocabulary: Vocabulary, *, is_cropped: bool = False
) -> Iterator[tuple[str, str, str]]:
    """Yield findings about a case: the check, what it expected, and what it found.

    Args:
        measures: of the case; without a mask, only its intensities are judged.
        vocabulary: names and regions of its labels, and their order down the spine.
        is_cropped: whether the image may show no air, since it is cropped to the spine.
    """
    lowest, highest = measures.hu_min, measures.hu_max
    darkest, below = ("fat", _FAT_HU) if is_cropped else ("air", _AIR_HU)
    if lowest > below or highest > _GREATEST_HU:
        expected = f"{darkest}, below {below:.0f} HU, and nothing beyond {_GREATEST_HU:,.0f} HU"
        yield "hu_range", expected, f"{lowest:,.0f} to {highest:,.0f} HU"
    if measures.replaced_voxels:
        yield "padded", "finite intensities", f"{measures.replaced_voxels:,} that are not, read as -1,024 HU"
    if measures.mask_type is None:
        return
    if measures.label_rounding:
        yield "label_rounding", "whole numbers", f"numbers that are up to {measures.label_rounding:.2g} off"
    if not measures.vertebrae:
        yield "no_labels", "labelled vertebrae", "only background"
        return
    of_label = {vertebra.label: vertebra for vertebra in measures.vertebrae}
    measures = replace(measures, vertebrae=tuple(map(of_label.__getitem__, vocabulary.downwards(of_label))))
    has_size = measures.vertebrae[0].volume_cm3 is not None
    for check, look in _CHECKS.items():
        if not has_size and check in _IN_MM:
            continue
        if strange := look(measures, vocabulary):
            yield check, *strange


def _places(measures: CaseMeasures, *, only_whole: bool = False) -> Places:
    return {v.label: v.centroid_mm for v in measures.vertebrae if not only_whole or _is_whole(v, measures)}


def _gap(measures: CaseMeasures, vocabulary: Vocabulary) -> Strange:
    return gap([vertebra.label for vertebra in measures.vertebrae], vocabulary)


def _order(measures: CaseMeasures, vocabulary: Vocabulary) -> Strange:
    return order(_places(measures), vocabulary)


def _upside_down(measures: CaseMeasures, vocabulary: Vocabulary) -> Strange:
    return upside_down(_places(measures), vocabulary)


def _distance(measures: CaseMeasures, vocabulary: Vocabulary) -> Strange:
    return distance(_places(measures, only_whole=True), vocabulary)


def _pieces(measures: CaseMeasures, vocabulary: Vocabulary) -> Strange:
    name = vocabulary.name
    along = axis_along(measures.orientation, "S")
    heights = (
        {v.label: float(v.stop[along[0]] - v.start[along[0]]) for v in measures.vertebrae} if along else {}
    )
    apart = {v.label: v.voxels - v.largest_component for v in measures.vertebrae}
    wrong = {
        v.label: f"{name(v.label)} in {v.components} pieces, {apart[v.label]:,} voxels apart"
        for v in measures.vertebrae
        if _is_whole(v, measures) and apart[v.label] >= _APART * v.voxels
    }
    # A label at two levels is too high, even if the scan cuts it or both parts touch. A few stray voxels,
    # which also stretch the box, are ignored.
    stray = {v.label for v in measures.vertebrae if 0 < apart[v.label] < _APART * v.voxels}
    whole = {v.label: heights[v.label] for v in measures.vertebrae if heights and _is_whole(v, measures)}
    for number, height, usual in beside(heights, vocabulary, whole):
        if height >= _HEIGHT_RATIO * usual and number not in stray:
            wrong.setdefault(number, f"{name(number)} {height / usual:.1f} times as high as those beside it")
    return ("each vertebra in one piece", shortened(wrong.values())) if wrong else None


def _volume(measures: CaseMeasures, vocabulary: Vocabulary) -> Strange:
    name = vocabulary.name
    whole = {
        v.label: v.volume_cm3
        for v in measures.vertebrae
        if v.volume_cm3 is not None and _is_whole(v, measures)
    }
    wrong = {}
    for number, volume in whole.items():
        least, most = _VOLUME_CM3.get(vocabulary.region(number), (0.0, math.inf))
        if not least <= volume <= most:
            wrong[number] = f"{name(number)} {volume:.1f} cm3 (of its region {least:.0f} to {most:.0f})"
    for number, volume, usual in beside(whole, vocabulary):
        if not _VOLUME_RATIO[0] <= volume / usual <= _VOLUME_RATIO[1]:
            wrong.setdefault(number, f"{name(number)} {volume:.1f} cm3 ({usual:.1f} cm3 beside it)")
    return ("whole vertebrae of a usual size", shortened(wrong.values())) if wrong else None


def _intensity(measures: CaseMeasures, vocabulary: Vocabulary) -> Strange:
    least, most = _MEAN_HU
    wrong = [
        f"{vocabulary.name(v.label)} {v.mean_hu:.0f} HU"
        for v in measures.vertebrae
        if not least <= v.mean_hu <= most
    ]
    voxels = sum(v.voxels for v in measures.vertebrae)
    inside = sum(v.mean_hu * v.voxels for v in measures.vertebrae) / voxels
    if measures.hu_beside is not None and inside - measures.hu_beside < _CONTRAST_HU:
        wrong.append(f"{inside:.0f} HU in labels and {measures.hu_beside:.0f} HU beside them")
    if not wrong:
        return None
    return f"bone: {least:.0f} to {most:.0f} HU, and {_CONTRAST_HU:.0f} HU more than beside it", shortened(
        wrong
    )


def _front_to_back(measures: CaseMeasures, vocabulary: Vocabulary) -> Strange:
    along = axis_along(measures.orientation, "A")
    if along is None:
        return None
    axis, sign = along[0], -1 if along[1] else 1
    leanings = [
        sign * (v.centroid[axis] - (v.start[axis] + v.stop[axis] - 1) / 2) / (v.stop[axis] - v.start[axis])
        for v in measures.vertebrae
        if vocabulary.region(v.label) != "cervical"  # whose bodies are smaller than their processes
        and _is_whole(v, measures)
    ]
    if len(leanings) < 2 or median(leanings) > _BACKWARDS:
        return None
    return "vertebral bodies in front of their processes, by the header", "them behind"


def _is_whole(vertebra: VertebraMeasures, measures: CaseMeasures) -> bool:
    """Return whether a vertebra touches no side of the volume, where the scan may cut it."""
    return all(vertebra.start) and all(
        stop < size for stop, size in zip(vertebra.stop, measures.shape, strict=True)
    )


_CHECKS: dict[str, Callable[[CaseMeasures, Vocabulary], Strange]] = {
    "gap": _gap,
    "order": _order,
    "distance": _distance,
    "pieces": _pieces,
    "volume": _volume,
    "intensity": _intensity,
    "upside_down": _upside_down,
    "front_to_back": _front_to_back,
}
