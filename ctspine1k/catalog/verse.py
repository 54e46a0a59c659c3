"""VerSe 2019 and 2020: 374 CT series of 355 patients, with masks and centres of vertebrae.

The facts are in ``facts/verse``. ``series.csv`` has the series, with the file names of two releases: those
that were "listed" in a source, and those that were "derived". ``issues.csv`` has the known issues, from a
compilation of public sources. What is not in these files is not known.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from ctspine1k.catalog.cases import (
    Case,
    Catalog,
    Facet,
    Issue,
    fits,
    has_issue,
    is_flagged,
    is_within,
    lacks_issue,
)
from ctspine1k.catalog.ctspine1k import SPECIAL_CASES, special_cases
from ctspine1k.catalog.dataset import (
    DataSet,
    Kind,
    Licence,
    Misplaced,
    is_among_masks,
    read_citations,
    read_csv,
)
from ctspine1k.catalog.split_file import parse_split
from ctspine1k.catalog.vocabulary import Vertebra, Vocabulary, read_vertebrae

__all__ = ["ERROR_KINDS", "EVIDENCE", "ISSUE_KINDS", "VERSE"]

_SPLITS = ("train", "validation", "test")

#: Sections of a split file; VerSe publishes none.
_SECTIONS = {split: split for split in _SPLITS}

#: Kinds of known issues of a series: errors, or things worth knowing.
ISSUE_KINDS = (
    "orientation_differs",  # image and mask are stored in different orientations
    "spurious_labels",  # a few voxels have a label that marks no vertebra
    "label_missing",  # a vertebra between two labelled ones has no label
    "header_mismatch",  # the headers of image and mask differ slightly
    "numbering_suspected",  # the numbering is shifted, or there is a T13
    "several_series",  # the patient has other series, in the same split: information, not an error
)

#: Those that mean that labels or geometry are wrong, or may be; the last one is information only.
ERROR_KINDS = ISSUE_KINDS[:-1]

#: What an issue is based on: a compilation of public sources, or names that were listed in one, or derived.
EVIDENCE = ("compiled", "listed", "derived")

_FACTS = Path(__file__).resolve().parent / "facts"
_OWN_FACTS = _FACTS / "verse"

#: Facts of each case, in the order of the columns.
_FACT_NAMES = (
    *("patient", "release", "direction", "sex", "age", "in_miccai19", "in_miccai20", "special_case"),
    "licence",
)

_BY_SA = Licence("CC BY-SA 4.0", "attribution, share alike", "cc-by-sa-4.0")
_BY_NC_ND = Licence(
    "CC BY-NC-ND",
    "attribution, no commercial use, no derivatives: so says one card of the gl series, and no other source",
    "cc-by-nc-nd",
)

_DIRECTIONS = ("ax", "sag", "iso", "cor")
_YES_OR_NO = ("yes", "no")

_FACETS = (
    Facet("split", "Only cases of this split.", _SPLITS),
    Facet("patient", "Only series of this patient, such as verse408, or a pattern.", None, fits),
    Facet("release", "Only series in the folders of this release.", ("2019", "2020")),
    Facet("direction", "Only series whose file names have this dir- token.", _DIRECTIONS),
    Facet("sex", "Only series of patients of this sex, where that is known.", ("F", "M")),
    Facet("age", "Only series of patients of this age, or range such as 40-60, 70- or -30.", None, is_within),
    Facet("in_miccai19", "Only series in, or not in, the release of MICCAI 2019.", _YES_OR_NO, is_flagged),
    Facet("in_miccai20", "Only series in, or not in, the release of MICCAI 2020.", _YES_OR_NO, is_flagged),
    Facet("special_case", "Only cases with this variant of the anatomy.", SPECIAL_CASES),
    Facet("licence", "Only series under this licence.", (_BY_SA.name, _BY_NC_ND.name)),
    Facet(
        "exclude_issues",
        "Leave out cases with this kind of issue, any error, or any issue.",
        ("errors", "all", *ISSUE_KINDS),
        lacks_issue,
        {"errors": ERROR_KINDS},
    ),
    Facet("issue", "Only cases with this known issue.", ISSUE_KINDS, has_issue),
    Facet("evidence", "Only cases with an issue based on this evidence.", EVIDENCE, has_issue),
)

#: A series, or a patient of several.
_ID = r"(?:verse|gl)\d{3}"

#: The subject-based release: sub-verse408_split-verse223_dir-iso_ct.nii.gz is series verse223 of verse408.
_SUBJECT_BASED = re.compile(
    rf"sub-(?P<patient>{_ID})(?:_split-(?P<series>{_ID}))?(?:_dir-(?:ax|sag|iso|cor))?"
    r"_(?P<end>ct\.nii(?:\.gz)?|seg-vert_msk\.nii(?:\.gz)?|seg-(?:subreg|vb)_ctd\.json)",
    re.IGNORECASE,
)

#: MICCAI 2019: verse005_seg.nii.gz. MICCAI 2020: verse401_verse201_CT-iso.nii.gz, GL124_CT_ax-iso-ctd.json.
#: What stands between series and ending differs between the files of a series: only the series counts. In
#: nnU-Net's layout, an image ends in the number of a channel, of which CT has one.
_MICCAI = re.compile(
    rf"(?:(?P<patient>{_ID})[_-])?(?P<series>{_ID})(?:_CT[_-](?:ax|sag|iso|cor))?"
    r"(?P<end>(?:_0000)?\.nii(?:\.gz)?|_seg\.nii(?:\.gz)?|_ctd\.json|[_-]iso-ctd\.json)",
    re.IGNORECASE,
)

#: Names of the splits in folders.
_PHASES = {"train": "training", "validation": "validation", "test": "test"}

#: What folders say: which kinds of files are in them, and which release and split; and whose files they are.
_KIND_FOLDERS: dict[str, tuple[Kind, ...]] = {"rawdata": ("image",), "derivatives": ("mask", "points")}
_SPLIT_FOLDER = re.compile(
    r"(?:dataset-verse(?P<release>\d\d)|dataset-\d\d|\d\d_)(?P<split>training|validation|test)", re.IGNORECASE
)
_OWNER_FOLDER = re.compile(rf"(?:sub-)?(?P<owner>{_ID})", re.IGNORECASE)


def _read_cases(split_file: Path | None) -> Catalog:
    """Read the cases of a split file. Ids that VerSe does not have are cases without facts."""
    series = _series()
    if split_file is None:
        assignment = {
            split: [case_id for case_id, row in series.items() if row["split"] == split] for split in _SPLITS
        }
    else:
        assignment = parse_split(split_file.read_bytes(), str(split_file), _SECTIONS, known=series)
    cases = tuple(
        _case(case_id, split, index) for split, ids in assignment.items() for index, case_id in enumerate(ids)
    )
    return Catalog(cases, _SPLITS, _FACETS, _FACT_NAMES)


def _case(case_id: str, split: str, index: int) -> Case:
    row = _series().get(case_id, {})
    facts = {name: row.get(name) for name in _FACT_NAMES}
    if row:
        facts["special_case"] = _special_cases().get(case_id)
        facts["licence"] = (_BY_NC_ND if case_id.startswith("gl") else _BY_SA).name
    return Case(
        case_id, split, index, patient=row.get("patient"), facts=facts, issues=_issues().get(case_id, ())
    )


@functools.cache
def _series() -> dict[str, dict[str, str | None]]:
    """Read the series, by id: sex is that of the patient, in all series; flags are "yes" or None."""
    rows = read_csv(_OWN_FACTS / "series.csv")
    sexes = {row["patient"]: row["sex"] for row in rows if row["sex"]}
    return {
        row["series"]: {
            **{name: value or None for name, value in row.items()},
            "sex": sexes.get(row["patient"]),
            "in_miccai19": "yes" if row["in_miccai19"] == "1" else None,
            "in_miccai20": "yes" if row["in_miccai20"] == "1" else None,
        }
        for row in rows
    }


@functools.cache
def _special_cases() -> dict[str, str]:
    """Return the variants that CTSpine1K's lists name in VerSe, by names of the release of MICCAI 2020."""
    return {
        case_id: variant
        for name, variant in special_cases("verse").items()
        for case_id, _ in _parse_name(f"{name}.nii.gz")
    }


@functools.cache
def _issues() -> dict[str, tuple[Issue, ...]]:
    issues: dict[str, tuple[Issue, ...]] = {}
    for row in read_csv(_OWN_FACTS / "issues.csv"):
        case_id = row.pop("case_id")
        issues[case_id] = (*issues.get(case_id, ()), Issue(**row))
    return issues


def _parse_name(path: str) -> list[tuple[str, Kind]]:
    """Return the series and the kind of a file, by its name: folders may be any.

    Only in one of masks, ``verse004.nii.gz`` is the mask of verse004, as in nnU-Net's layout, and no image.
    """
    name = path.rpartition("/")[2]
    found = _SUBJECT_BASED.fullmatch(name) or _MICCAI.fullmatch(name)
    if found is None:
        return []
    end = found["end"].lower()
    is_mask = end.startswith(("_seg", "seg-vert")) or is_among_masks(path)
    kind: Kind = "points" if end.endswith(".json") else "mask" if is_mask else "image"
    if kind == "mask" and end.startswith("_0000"):
        return []
    return [((found["series"] or found["patient"]).lower(), kind)]


def _file_name(case: Case, kind: Kind) -> str:
    """Return the path in the subject-based release."""
    patient = case.patient or case.case_id
    split = "" if patient == case.case_id else f"_split-{case.case_id}"
    direction = f"_dir-{case.direction}" if case.direction else ""
    end = {"image": "ct.nii.gz", "mask": "seg-vert_msk.nii.gz", "points": "seg-subreg_ctd.json"}[kind]
    tree = next(folder for folder, kinds in _KIND_FOLDERS.items() if kind in kinds)
    release = f"dataset-verse{(case.release or '2020')[2:]}{_PHASES[case.split]}"
    return f"{release}/{tree}/sub-{patient}/sub-{patient}{split}{direction}_{end}"


def _misplaced(path: str, case: Case, kind: Kind) -> Iterator[Misplaced]:
    """Compare the folders that a file is in with its kind, release, split and patient."""
    folders = path.split("/")[:-1]
    for folder in reversed(folders):
        kinds = _KIND_FOLDERS.get(folder.lower())
        if kinds is not None and kind not in kinds:
            yield f"a folder other than {folder} for a file of kind {kind}", f"folder {folder}"
        if found := _SPLIT_FOLDER.fullmatch(folder):
            if found["split"].lower() != _PHASES[case.split]:
                yield f"a folder of split {case.split}", f"folder {folder}"
            if found["release"] and case.release and found["release"] != case.release[2:]:
                yield f"a folder of release {case.release}", f"folder {folder}"
        owners = (case.case_id, case.patient or case.case_id)
        if (found := _OWNER_FOLDER.fullmatch(folder)) and found["owner"].lower() not in owners:
            yield f"a folder of {case.patient or case.case_id}", f"folder {folder}"


def _odd_labels(case: Case, labels: Sequence[int]) -> Iterator[tuple[str, str, str]]:
    """List a T13 in a case that is not listed as one that may have it."""
    may_have_t13 = any(issue.kind == "numbering_suspected" for issue in case.issues)
    if VERSE.vocabulary.label("T13") in labels and case.release is not None and not may_have_t13:
        yield "unlisted_t13", "T12 as the last thoracic vertebra, or a case of numbering_suspected", "T13"


def _terms(case: Case) -> Licence:
    """Return the licence of a case: one card gives another one for the series whose ids begin with gl."""
    return _BY_NC_ND if case.licence == _BY_NC_ND.name else _BY_SA


def _citations() -> list[str]:
    return read_citations(_OWN_FACTS / "citations.bib")


def _vertebrae() -> tuple[Vertebra, ...]:
    """Return VerSe's vertebrae: those of CTSpine1K, with the same numbers, and T13 before L1."""
    shared = [
        replace(vertebra, label=vertebra.verse, volumes=None)
        for vertebra in read_vertebrae(_FACTS / "vertebrae.csv")
        if vertebra.verse is not None
    ]
    t13 = Vertebra(28, "T13", "thoracic", 28, None, None, is_variant=True)
    above = [vertebra.region for vertebra in shared].index("lumbar")
    return (*shared[:above], t13, *shared[above:])


VERSE = DataSet(
    name="verse",
    title="VerSe",
    description="374 spine CT series of 355 patients with vertebra masks and centroids: VerSe 2019 and 2020.",
    homepage="https://github.com/anjany/verse",
    repo_id=None,
    naming=(
        "An image is sub-<series>_ct.nii.gz, or <series>.nii.gz as at MICCAI; a mask "
        "sub-<series>_seg-vert_msk.nii.gz, or <series>_seg.nii.gz. <series> is verse or gl, and three digits."
    ),
    how_to_get=(
        "Get VerSe 2019 and VerSe 2020 from their publishers, https://github.com/anjany/verse, and unpack "
        "the archives side by side into a folder: folders may be any, since only file names count. Use "
        "the subject-based release, or that of MICCAI: a series that is there twice is an error. At MICCAI, "
        "105 series are in both 2019 and 2020: keep one copy of each."
    ),
    kinds=("image", "mask"),
    splits=_SPLITS,
    sections=_SECTIONS,
    facets=_FACETS,
    listed=("patient", "release", "direction", "sex", "age", "licence"),
    vocabulary=Vocabulary(_vertebrae(), ("verse", "region", "binary", "ctspine1k")),
    image_size=None,
    suffixes=(".nii.gz", ".nii"),
    split_file="split.txt",
    licence=_BY_SA,
    credit="the authors of VerSe",
    known_by={
        "gap": ("label_missing", "spurious_labels", "numbering_suspected"),
        "order": ("spurious_labels",),
        "distance": ("spurious_labels", "label_missing"),
        "pieces": ("spurious_labels",),
        "volume": ("spurious_labels",),
        "shape": ("orientation_differs",),
        "geometry": ("orientation_differs", "header_mismatch"),
    },
    read_cases=_read_cases,
    parse_name=_parse_name,
    file_name=_file_name,
    misplaced=_misplaced,
    odd_labels=_odd_labels,
    citations=_citations,
    terms=_terms,
    optional=("points",),
    points_format="verse",
)
