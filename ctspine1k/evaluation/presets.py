"""Protocols by which published numbers were made: which rows count, as what, and how they are averaged.

The names are those of the protocols. Definitions were read in the sources of the tools:

====================  =========================  =========================  ==============================
preset                only predicted             only in the reference      mean
====================  =========================  =========================  ==============================
``ctspine1k``         left out                   0                          over cases, then over labels
``nnunet``            0                          0                          over cases, then over labels
``verse``             left out                   0                          over labels, then over cases
``totalsegmentator``  left out                   0                          over cases, then over labels
``msr``               left out                   not identified             of all vertebrae
====================  =========================  =========================  ==============================

That is for measures of overlap. A vertebra that is on one side only has no distance: it is counted, and left
out of the mean of distances unless a penalty is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from ctspine1k._messages import check_choice

__all__ = ["PRESETS", "Over", "Preset", "Published", "default_preset", "preset_of"]

#: How values of vertebrae are averaged: over the cases of each label, then over labels; over the labels of
#: each case, then over cases; or all at once.
Over: TypeAlias = Literal["labels", "cases", "all"]


@dataclass(frozen=True)
class Published:
    """A published number of a protocol."""

    measure: str
    value: float
    what: str  #: which method on which cases
    source: str


@dataclass(frozen=True)
class Preset:
    """One protocol."""

    name: str
    what: str  #: whose it is, and what it reports, in a sentence
    definition: str  #: how its mean is made, in a sentence
    over: Over
    measures: tuple[str, ...]  #: columns of the table that it reports; the first is its main one
    counts_surplus: bool = False  #: whether a predicted label that is not in the reference counts, as 0
    leaves_out: tuple[str, ...] = ()  #: regions whose vertebrae count only if they are asked for
    published: tuple[Published, ...] = ()


_PAPER = "arXiv:2105.14711"

PRESETS = {
    preset.name: preset
    for preset in (
        Preset(
            "ctspine1k",
            "The evaluator of CTSpine1K (arXiv:2105.14711).",
            "Mean over labels of the mean over the cases whose reference has the label; a missed label "
            "counts 0, a label that is only predicted is left out.",
            "labels",
            ("dice", "hd_mm"),
            published=(
                Published("dice", 0.840, "nnU-Net, the data set's test set", _PAPER),
                Published("dice", 0.619, "nnU-Net, VerSe", _PAPER),
                Published("dice", 0.766, "nnU-Net, VerSe with completed labels", _PAPER),
            ),
        ),
        Preset(
            "nnunet",
            "nnU-Net v2, evaluate_predictions.",
            "Mean over labels (foreground_mean) of the mean over cases; a label that is only predicted "
            "counts 0, as a missed one does; a label on neither side is left out.",
            "labels",
            ("dice", "iou"),
            counts_surplus=True,
        ),
        Preset(
            "verse",
            "VerSe 2019 and 2020, the official evaluation.",
            "Mean over cases of the mean over the labels of the reference; a missed label counts 0. "
            "Identification: among the labels on both sides, the nearest of the reference is its own, at "
            "most 20 mm away; rate of a case over its labels in the reference.",
            "cases",
            ("dice", "hd_mm", "identified", "centroid_mm"),
        ),
        Preset(
            "msr",
            "MICCAI 2013 (Glocker et al.), for centroids.",
            "All vertebrae pooled. Identification: of all in the reference, the nearest is its own, less "
            "than 20 mm away. S1 and S2 are left out unless asked for.",
            "all",
            ("identified_msr", "centroid_mm"),
            leaves_out=("sacral",),
            published=(Published("identified_msr", 0.974, "the best on the 302 scans", "arXiv:2012.07947"),),
        ),
        Preset(
            "totalsegmentator",
            "TotalSegmentator.",
            "Mean over labels of the mean over the cases whose reference has the label; a missed label "
            "counts 0, a label that is only predicted is left out; NSD at 3 mm by area. Its own evaluator "
            "takes voxels to be of 1.5 mm, to which it resamples; here they have the size in the file.",
            "labels",
            ("dice", "nsd_area_3mm"),
        ),
    )
}


def preset_of(name: str) -> Preset:
    """Return a preset by its name.

    Raises:
        ValueError: there is no such preset; the message lists those that exist.
    """
    check_choice("preset", name, tuple(PRESETS))
    return PRESETS[name]


def default_preset(*, is_of_masks: bool) -> str:
    """Return the name of the preset of an evaluation that names none."""
    return "ctspine1k" if is_of_masks else "verse"
