"""Verification: whether raw files are all there, whole, consistent and plausible.

Each thing that is not as it should be is a `Finding`; `CHECKS` lists what is looked at: the files (are they
there, under the right name, at the right place, and whole), the pair (shapes, headers, label values), and the
labels (`ctspine1k.checks.plausibility`).
"""

from __future__ import annotations

import itertools
import os
import posixpath
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from ctspine1k.catalog.cases import Case, Catalog, load_catalog
from ctspine1k.checks.measure import CaseMeasures, require_scipy
from ctspine1k.checks.plausibility import implausible
from ctspine1k.checks.scan import ScannedCase, scan_cases
from ctspine1k.errors import (
    ChecksumError,
    CorruptFileError,
    FileFormatError,
    PairMismatchError,
    TruncatedFileError,
    VoxelValueError,
    shortened,
)
from ctspine1k.files.raw import KINDS, CaseFiles, RawFile, file_names
from ctspine1k.files.selection import require_cases, select_cases
from ctspine1k.files.sources import DEFAULT_REPO, Source, find_source
from ctspine1k.volumes.vertebrae import label

__all__ = ["CHECKS", "Check", "Finding", "Report", "verify_files"]

Level: TypeAlias = Literal["error", "warning"]


@dataclass(frozen=True)
class Check:
    """Something that is looked at."""

    level: Level  #: "error": the case cannot be used, or its voxels are wrong; "warning": look at it
    what: str  #: what is wrong when there is a finding
    issues: tuple[str, ...] = ()  #: kinds of known issues that would be found by it


_LABELS = ("label_missing", "label_wrong_value", "label_discontinuous", "label_incomplete")

_FLIPPED = ("orientation_ap_inverted", "orientation_suspected")

CHECKS = {
    "missing": Check("error", "a case has no image, or no mask"),
    "duplicated": Check("error", "there are several files for one image or mask"),
    "checksum": Check("error", "a file differs from the Hub's record in size or sha256"),
    "format": Check("error", "a file is no NIfTI scan: a web page, a Git LFS pointer, something else"),
    "truncated": Check("error", "a file ends too early"),
    "corrupt": Check("error", "a file has damaged or surplus bytes"),
    "shape": Check("error", "image and mask differ in shape"),
    "values": Check("error", "intensities that are not finite, or labels that are none"),
    "same_image": Check("error", "two cases have the same image"),
    "same_mask": Check("error", "two cases have the same mask"),
    "unexpected": Check("warning", "a file belongs to no case"),
    "wrong_place": Check("warning", "a file is in the folder of another source, split or kind"),
    "geometry": Check("warning", "the headers of image and mask place the same voxel differently"),
    "no_labels": Check("warning", "a mask is empty"),
    "gap": Check("warning", "a label between two that occur does not occur", _LABELS),
    "order": Check("warning", "labels do not follow one another along the spine", _LABELS),
    "distance": Check("warning", "neighbours are too near or too far apart", _LABELS),
    "pieces": Check("warning", "a vertebra is in several pieces, or reaches too far", _LABELS),
    "volume": Check("warning", "a whole vertebra is too small or too large", _LABELS),
    "intensity": Check("warning", "labels do not lie on bone", ("image_label_mismatch",)),
    "upside_down": Check("warning", "labels run upwards: flipped, or the header is wrong", _FLIPPED[1:]),
    "front_to_back": Check("warning", "vertebrae face backwards: flipped, or the header is wrong", _FLIPPED),
    "unlisted_l6": Check("warning", "an L6 in a case that is not listed for it", ("numbering_suspected",)),
}

#: Which check an error belongs to.
_CHECK_OF = {
    ChecksumError: "checksum",
    FileFormatError: "format",
    TruncatedFileError: "truncated",
    CorruptFileError: "corrupt",
    PairMismatchError: "shape",
    VoxelValueError: "values",
}

#: Folders in which the layouts in circulation keep each source, split and kind.
_SOURCE_FOLDERS = {
    "COLONOG": "COLONOG", "colon": "COLONOG", "conlon": "COLONOG",
    "COVID-19": "COVID-19",
    "HNSCC-3DCT-RT": "HNSCC-3DCT-RT", "HNSCC-3DCT-RT_neck": "HNSCC-3DCT-RT",
    "MSD-T10": "MSD-T10", "liver": "MSD-T10", "Liver": "MSD-T10",
}  # fmt: skip
_SPLIT_FOLDERS = {"trainset": "train", "test_public": "validation", "test_private": "test"}
_KIND_FOLDERS = {"volumes": "image", "data": "image", "labels": "mask", "label": "mask", "label_new": "mask"}


@dataclass(frozen=True)
class Finding:
    """Something that is not as it should be."""

    level: Level
    check: str  #: one of `CHECKS`
    case_id: str | None  #: None for a file of no case
    file: str | None  #: the file, where it is about one
    expected: str
    found: str
    known: tuple[str, ...]  #: kinds of known issues of the case that this may be: empty if it is news


@dataclass(frozen=True)
class Report:
    """What a verification found."""

    place: str  #: where the files are
    cases: int  #: that were asked for
    measured: int  #: that were read to the end and measured
    findings: tuple[Finding, ...]  #: in the order of the catalog

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    def summary(self) -> str:
        """Tell it in some lines, a check each."""
        lines = [f"{self.place}: {self.measured:,} of {self.cases:,} cases read to the end"]
        for check, count in Counter(finding.check for finding in self.findings).most_common():
            of_it = [finding for finding in self.findings if finding.check == check]
            known = sum(bool(finding.known) for finding in of_it)
            names = shortened(dict.fromkeys(str(f.case_id or f.file) for f in of_it), limit=5)
            told = f", {known:,} of them known" if known else ""
            lines.append(
                f"{CHECKS[check].level:8} {check:13} {count:5,}  {CHECKS[check].what}{told}: {names}"
            )
        return "\n".join(lines if self.findings else [*lines, "nothing found"])


def verify_files(
    *,
    data_dir: str | os.PathLike[str] | None = None,
    repo_id: str = DEFAULT_REPO,
    revision: str | None = None,
    split_file: str | os.PathLike[str] | None = None,
    split: str | None = None,
    source: str | None = None,
    case: str | Case | Iterable[str | Case] | None = None,
    special_case: str | None = None,
    exclude_issues: Literal["reported", "all"] | None = None,
    num_proc: int = 1,
    token: str | bool | None = None,
) -> Report:
    """Verify the raw files of the cases selected: all `CHECKS`. Every file is read to its end.

    Args:
        data_dir: a folder with raw files in any layout, instead of the Hub.
        repo_id: a Hub repo (dataset) with them; they are downloaded to the Hub's cache.
        revision: its branch, tag or commit; None for "main".
        split_file: another assignment in the format of ``data_split.txt``.
        split: with the next four, which cases, as of `Catalog.where` and `Catalog.select`.
        source: one of `ctspine1k.catalog.cases.SOURCES`.
        case: one case or several, by id or as `Case`.
        special_case: one of `ctspine1k.catalog.cases.SPECIAL_CASES`.
        exclude_issues: leave out cases with a "reported" issue, or "all" with any.
        num_proc: processes that read; each needs up to 0.4 GB. More than one start Python anew, so a script
            needs ``if __name__ == "__main__":``.
        token: for a private repo; None for the token you are logged in with.

    Raises:
        ValueError: an argument that is not allowed.
        MissingPackageError: SciPy is not installed.
        WorkerError: a worker process died.
        HubError: the Hub cannot be reached.
    """
    require_scipy()
    place = find_source(data_dir, repo_id, revision, token)
    cases = select_cases(
        split_file,
        case,
        split=split,
        source=source,
        special_case=special_case,
        exclude_issues=exclude_issues,
    )
    require_cases(cases)
    pairs, findings = _files(cases, load_catalog(split_file), place)
    scanned = list(scan_cases(place, pairs, num_proc))
    for one in scanned:
        findings += _of_case(one)
    findings += _twins(scanned)
    position = {case.case_id: number for number, case in enumerate(cases)}
    check_order = list(CHECKS)
    findings.sort(
        key=lambda f: (position.get(f.case_id or "", len(position)), check_order.index(f.check), f.file or "")
    )
    measured = len({one.files.case.case_id for one in scanned if one.measures})
    return Report(place.describe(), len(cases), measured, tuple(findings))


def _finding(check: str, case: Case | None, expected: str, found: str, file: str | None = None) -> Finding:
    known = [issue.kind for issue in case.issues if issue.kind in CHECKS[check].issues] if case else []
    case_id = case.case_id if case else None
    return Finding(CHECKS[check].level, check, case_id, file, expected, found, tuple(dict.fromkeys(known)))


def _files(cases: Catalog, catalog: Catalog, place: Source) -> tuple[list[CaseFiles], list[Finding]]:
    """Pair the files of the cases; tell what is missing, duplicated, unexpected or at a wrong place."""
    findings = _unexpected(catalog, place)
    by_case: dict[str, dict[str, list[RawFile]]] = {case.case_id: {} for case in cases}
    for file in place.find(cases, every=True):
        by_case[file.case.case_id].setdefault(file.kind, []).append(file)
        findings += _misplaced(file, place)
    pairs = []
    for case_id, own in by_case.items():
        case = cases[case_id]
        for kind, several in own.items():
            if len(several) > 1:
                found = shortened(file.path for file in several)
                findings.append(_finding("duplicated", case, f"one {kind}", found))
        if len(own) == len(KINDS):
            # Of duplicates each is looked at: what is found may tell which of them to keep.
            pairs += [CaseFiles(case, *files) for files in itertools.product(own["image"], own["mask"])]
        else:
            there = f"the {' and '.join(own)} alone" if own else "neither"
            findings.append(_finding("missing", case, " and ".join(KINDS), there))
    return pairs, findings


def _misplaced(file: RawFile, place: Source) -> Iterator[Finding]:
    """Compare the folders that a file is in with those of its source, split and kind."""
    folders = place.relative(file.path).split("/")[:-1]
    for what, names, right in (
        ("source", _SOURCE_FOLDERS, file.case.source),
        ("split", _SPLIT_FOLDERS, file.case.split),
        ("kind", _KIND_FOLDERS, file.kind),
    ):
        told = [folder for folder in folders if folder in names][-1:]  # the innermost that says something
        if right is not None and told and names[told[0]] != right:
            expected = f"a folder of {what} {right}"
            yield _finding("wrong_place", file.case, expected, f"folder {told[0]}", file.path)


def _unexpected(catalog: Catalog, place: Source) -> list[Finding]:
    """Tell the files that are called like scans and are of no case."""
    names = {file_name for case in catalog for file_name in file_names(case)}
    return [
        _finding("unexpected", None, "the name of a case's image or mask", posixpath.basename(path), path)
        for path in sorted(place.paths())
        if ".nii" in posixpath.basename(path) and posixpath.basename(path) not in names
    ]


def _of_case(one: ScannedCase) -> Iterator[Finding]:
    """Tell what is wrong with a case that was read."""
    case = one.files.case
    for error in one.problems:
        yield _finding(_CHECK_OF[type(error)], case, error.expected, error.found, error.file)
    if one.geometry_mismatch:
        error = one.geometry_mismatch
        yield _finding("geometry", case, error.expected, error.found, error.file)
    if one.measures:
        for check, expected, found in implausible(one.measures):
            yield _finding(check, case, expected, found, one.files.mask.path)
        yield from _unlisted_l6(case, one.measures, one.files.mask.path)


def _unlisted_l6(case: Case, measures: CaseMeasures, file: str) -> Iterator[Finding]:
    has_l6 = any(vertebra.label == label("L6") for vertebra in measures.vertebrae)
    if has_l6 and case.source is not None and case.special_case != "sacral_lumbarization":
        expected = "L5 as the lowest, or a case of sacral_lumbarization"
        yield _finding("unlisted_l6", case, expected, "L6", file)


def _twins(scanned: Sequence[ScannedCase]) -> Iterator[Finding]:
    """Tell cases that have the same image, or the same mask."""
    for check, what in (("same_image", "image"), ("same_mask", "mask")):
        groups: dict[object, dict[str, Case]] = {}
        for one in scanned:
            if one.measures and (what == "image" or one.measures.vertebrae):
                checksum = getattr(one.measures, f"{what}_crc32")
                group = groups.setdefault((one.measures.shape, checksum), {})
                group[one.files.case.case_id] = one.files.case
        for cases in groups.values():
            for case in cases.values() if len(cases) > 1 else ():
                others = shortened(other for other in cases if other != case.case_id)
                yield _finding(check, case, f"{what} of its own", f"that of {others}")
