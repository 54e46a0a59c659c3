"""What is checked: every check by its name, and how grave its findings are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

__all__ = ["CHECKS", "Check", "Level"]

Level: TypeAlias = Literal["error", "warning"]


@dataclass(frozen=True)
class Check:
    """Something that is checked."""

    level: Level  #: "error": the case cannot be used, or its voxels are wrong; "warning": a human should look
    what: str  #: what is wrong if there is a finding
    hint: str = "Look at the case: `ctspine1k preview`."  #: what to do, if no error of a file says so


_TWINS = "Get the files of both again: one of them may be a copy of the other."

CHECKS = {
    "missing": Check(
        "error",
        "a case has no image, or lacks another file that each case must have",
        "Get the files (`ctspine1k download`), or leave the case out.",
    ),
    "duplicated": Check(
        "error",
        "there are several files of one kind for a case",
        "Keep the one you trust and move the others out of the folder.",
    ),
    "checksum": Check("error", "a file differs from the Hub's record in size or sha256"),
    "format": Check(
        "error", "a file is not a scan, a mask or points: a web page, a Git LFS pointer, something else"
    ),
    "truncated": Check("error", "a file ends too early"),
    "corrupt": Check("error", "a file has damaged or surplus bytes"),
    "shape": Check("error", "image and mask differ in shape"),
    "values": Check("error", "non-finite intensities or invalid label values"),
    "points": Check("error", "points outside the image, or of vertebrae that the data set does not have"),
    "same_image": Check("error", "two cases have the same image", _TWINS),
    "same_mask": Check("error", "two cases have the same mask", _TWINS),
    "unexpected": Check(
        "warning",
        "a file belongs to no case",
        "Rename it, list its case in a split file, or move it out of the folder.",
    ),
    "wrong_place": Check(
        "warning",
        "a file is in the folder of another source, split or kind",
        "Check whose file it is, and move it to its folder.",
    ),
    "geometry": Check(
        "warning", "image and mask headers disagree on where voxels lie (spacing, origin or direction)"
    ),
    "header": Check(
        "warning", "a header contradicts itself about where voxels lie (sform, qform, pixdim), or is invalid"
    ),
    "units": Check("warning", "a header gives lengths in another unit than mm; they are converted"),
    "degenerate": Check("warning", "a header gives voxels no size: no length, or axes in one plane"),
    "unplaced": Check(
        "warning",
        "a header does not say where axes lead (neither sform nor qform): which side is left is a guess",
    ),
    "hu_range": Check(
        "warning",
        "intensities are not HU: there is no air (in cropped scans, no fat), or they wrapped around",
    ),
    "padded": Check("warning", "intensities are not finite, and were read as padding, as asked for"),
    "label_rounding": Check("warning", "labels are whole numbers only after rounding"),
    "no_labels": Check("warning", "a mask, or a file with points, is empty"),
    "gap": Check("warning", "a vertebra is missing between two labelled ones"),
    "order": Check("warning", "labels do not follow one another along the spine"),
    "distance": Check("warning", "neighbours are too near or too far apart"),
    "point_place": Check("warning", "a point lies outside the labels of its vertebra"),
    "pieces": Check("warning", "a vertebra is in several pieces, or reaches too far"),
    "volume": Check("warning", "a whole vertebra is too small or too large"),
    "intensity": Check("warning", "labels do not lie on bone"),
    "upside_down": Check("warning", "labels run upwards: flipped, or the header is wrong"),
    "front_to_back": Check("warning", "vertebrae face backwards: flipped, or the header is wrong"),
    "unlisted_l6": Check("warning", "an L6 in a case that is not listed for it"),
    "unlisted_t13": Check("warning", "a T13 in a case that is not listed for it"),
    "unlisted_range": Check("warning", "other vertebrae than the list of cases says"),
}
