"""CTSpine1K: 1,005 CT scans from four sources, with voxel labels for more than 11,100 vertebrae.

The facts (cases, splits, variants, known issues) are at the top of the repository, and are copied into the
wheel; ``facts/ctspine1k/cases.csv`` lists where each scan came from.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path

from ctspine1k.catalog.cases import Case, Catalog, Facet, Issue, fits, has_issue, lacks_issue
from ctspine1k.catalog.dataset import (
    KIND_FOLDERS,
    DataSet,
    Kind,
    Licence,
    Misplaced,
    is_among_masks,
    parse_endings,
    read_citations,
    read_csv,
    telling_folder,
)
from ctspine1k.catalog.split_file import parse_sections, parse_split
from ctspine1k.catalog.vocabulary import Vocabulary, read_vertebrae

__all__ = [
    "CTSPINE1K",
    "ERROR_KINDS",
    "EVIDENCE",
    "ISSUE_KINDS",
    "SECTIONS",
    "SOURCES",
    "SPECIAL_CASES",
    "special_cases",
]

#: Each section of the split file, and the split it stands for.
SECTIONS = {"trainset": "train", "test_public": "validation", "test_private": "test"}

#: Folder names of the four sources, as on the Hub.
SOURCES = ("COLONOG", "COVID-19", "HNSCC-3DCT-RT", "MSD-T10")

#: Anatomical variants that the data set lists.
SPECIAL_CASES = ("sacral_lumbarization", "lumbar_sacralization")

#: Position of the patient, where the name of the source's series tells it.
SCAN_POSITIONS = ("prone", "supine")

#: Kinds of known issues of a case: errors, or things worth knowing.
ISSUE_KINDS = (
    "label_missing",  # a vertebra between two labelled ones has no label
    "label_wrong_value",  # a vertebra, or a part of one, has the label of another
    "label_discontinuous",  # labels do not follow one another along the spine
    "label_incomplete",  # a part of a vertebra has no label
    "image_label_mismatch",  # the mask does not lie on bone
    "orientation_ap_inverted",  # image and mask are inverted front to back
    "orientation_suspected",  # the series' name says that the image was flipped
    "numbering_suspected",  # all labels may be off by one
    "transitional_not_listed",  # a lumbosacral variant that the published lists do not have: information
    "castellvi_grade",  # a reading of a lumbosacral variant: information, not an error
)

#: Those that mean that labels or geometry are wrong, or may be; the last two are information only.
ERROR_KINDS = ISSUE_KINDS[:-2]

#: What an issue is based on: the original data set's tracker, another project, or the name of a series.
EVIDENCE = ("reported", "third_party", "derived")

_FACTS = Path(__file__).resolve().parent / "facts"
_OWN_FACTS = _FACTS / "ctspine1k"

#: Facts of each case, in the order of the columns.
_FACT_NAMES = ("source", "special_case", "tcia_series", "scan_position")

_FACETS = (
    Facet("split", "Only cases of this split.", tuple(SECTIONS.values())),
    Facet("source", "Only cases from this source.", SOURCES),
    Facet("special_case", "Only cases with this variant of the anatomy.", SPECIAL_CASES),
    Facet(
        "exclude_issues",
        "Leave out cases with this kind of issue, a reported one, any error, or any issue.",
        ("reported", "errors", "all", *ISSUE_KINDS),
        lacks_issue,
        {"errors": ERROR_KINDS},
    ),
    Facet("scan_position", "Only cases scanned in this position, where that is known.", SCAN_POSITIONS),
    Facet(
        "tcia_series",
        "Only cases from this TCIA series: its path, or a pattern such as '*Prone*'.",
        None,
        fits,
    ),
    Facet("issue", "Only cases with this known issue.", ISSUE_KINDS, has_issue),
    Facet("evidence", "Only cases with an issue based on this evidence.", EVIDENCE, has_issue),
)

_SUFFIXES = (".nii.gz", ".nii")

#: Endings of file names, after the case id: in a folder of masks, and elsewhere. In nnU-Net's layout, names
#: of images end in the number of a channel, of which CT has one, and masks are told by their folder.
_ENDINGS_OF_MASKS: tuple[tuple[str, Kind], ...] = (
    ("_seg.nii.gz", "mask"),
    ("_seg.nii", "mask"),
    (".nii.gz", "mask"),
    (".nii", "mask"),
)
_ENDINGS: tuple[tuple[str, Kind], ...] = (
    ("_seg.nii.gz", "mask"),
    ("_seg.nii", "mask"),
    ("_0000.nii.gz", "image"),
    ("_0000.nii", "image"),
    (".nii.gz", "image"),
    (".nii", "image"),
)

#: Names of the folders that the layouts in circulation have for each source, in lower case.
_SOURCE_FOLDERS = {
    "colonog": "COLONOG", "colon": "COLONOG", "conlon": "COLONOG",
    "covid-19": "COVID-19",
    "hnscc-3dct-rt": "HNSCC-3DCT-RT", "hnscc-3dct-rt_neck": "HNSCC-3DCT-RT",
    "msd-t10": "MSD-T10", "liver": "MSD-T10",
}  # fmt: skip

_LABEL_ISSUES = ("label_missing", "label_wrong_value", "label_discontinuous", "label_incomplete")
_FLIPPED = ("orientation_ap_inverted", "orientation_suspected")


def _read_cases(split_file: Path | None) -> Catalog:
    """Read the cases of a split file. Ids that CTSpine1K does not have are cases without facts."""
    return _official_catalog() if split_file is None else _read_catalog(split_file)


@functools.cache
def _official_catalog() -> Catalog:
    return _read_catalog(_top() / "data_split.txt")


def _read_catalog(path: Path) -> Catalog:
    scans, variants, issues = _scans(), special_cases(), _issues()
    assignment = parse_split(path.read_bytes(), str(path), SECTIONS, known=scans)

    def case_of(case_id: str, split: str, index: int) -> Case:
        scan = scans.get(case_id, {})
        series = scan.get("tcia_series")  # on TCIA, a series is in its patient's folder
        facts = {**scan, "special_case": variants.get(case_id)}
        return Case(
            case_id,
            split,
            index,
            patient=series.partition("/")[0] if series else None,
            facts={name: facts.get(name) for name in _FACT_NAMES},
            issues=issues.get(case_id, ()),
        )

    cases = tuple(
        case_of(case_id, split, index)
        for split, case_ids in assignment.items()
        for index, case_id in enumerate(case_ids)
    )
    return Catalog(cases, tuple(SECTIONS.values()), _FACETS, _FACT_NAMES)


@functools.cache
def _scans() -> dict[str, dict[str, str | None]]:
    """Read where each scan came from: source, series and position, by case id."""
    return {
        row.pop("case_id"): {name: value or None for name, value in row.items()}
        for row in read_csv(_OWN_FACTS / "cases.csv")
    }


@functools.cache
def _issues() -> dict[str, tuple[Issue, ...]]:
    issues: dict[str, tuple[Issue, ...]] = {}
    for row in read_csv(_top() / "special_cases" / "known_issues.csv"):
        case_id = row.pop("case_id")
        issues[case_id] = (*issues.get(case_id, ()), Issue(**row))
    return issues


@functools.cache
def special_cases(section: str = "ctspine1k") -> dict[str, str]:
    """Return the variant of each case that the published lists name in a section: "ctspine1k" or "verse"."""
    found = {}
    for kind in SPECIAL_CASES:
        path = _top() / "special_cases" / f"{kind}.txt"
        sections = parse_sections(path.read_bytes(), str(path), ("ctspine1k", "verse"), known=())
        found.update(dict.fromkeys(sections[section], kind))
    return found


def _top() -> Path:
    """Return where the split file and the special cases are: in the wheel, or at the top of a checkout."""
    return _OWN_FACTS if (_OWN_FACTS / "data_split.txt").is_file() else _OWN_FACTS.parents[3]


def _parse_name(path: str) -> list[tuple[str, Kind]]:
    """Return what a file may be: ``x_seg.nii.gz`` is the mask of x, or the image of a case named x_seg.

    In a folder of masks, ``x.nii.gz`` is the mask of x, as in nnU-Net's layout: nothing there is an image.
    """
    name = path.rpartition("/")[2]
    return parse_endings(name, _ENDINGS_OF_MASKS if is_among_masks(path) else _ENDINGS)


def _file_name(case: Case, kind: Kind) -> str:
    folder, suffix = {"image": ("volumes", ""), "mask": ("labels", "_seg")}[kind]
    return f"raw_data/{folder}/{case.source or 'other'}/{case.case_id}{suffix}.nii.gz"


def _misplaced(path: str, case: Case, kind: Kind) -> Iterator[Misplaced]:
    """Compare the folders that a file is in with those of its source, split and kind."""
    folders = path.split("/")[:-1]
    for what, names, right in (
        ("source", _SOURCE_FOLDERS, case.source),
        ("split", SECTIONS, case.split),
        ("kind", KIND_FOLDERS, kind),
    ):
        telling = telling_folder(folders, names)
        if right is not None and telling is not None and names[telling.lower()] != right:
            yield f"a folder of {what} {right}", f"folder {telling}"


def _odd_labels(case: Case, labels: Sequence[int]) -> Iterator[tuple[str, str, str]]:
    """List an L6 in a case that the published list of lumbarizations does not name."""
    has_l6 = CTSPINE1K.vocabulary.label("L6") in labels
    if has_l6 and case.source is not None and case.special_case != "sacral_lumbarization":
        yield "unlisted_l6", "L5 as the lowest, or a case of sacral_lumbarization", "L6"


def _terms(case: Case) -> Licence:
    """Return the data set's licence, which is that of each case."""
    return CTSPINE1K.licence


def _citations() -> list[str]:
    return read_citations(_OWN_FACTS / "citations.bib")


CTSPINE1K = DataSet(
    name="ctspine1k",
    title="CTSpine1K",
    description="1,005 spine CT scans with voxel labels for more than 11,100 vertebrae.",
    homepage="https://arxiv.org/abs/2105.14711",
    repo_id="alexanderdann/CTSpine1K",
    naming="An image is <case_id>.nii.gz, a mask <case_id>_seg.nii.gz.",
    kinds=("image", "mask"),
    splits=tuple(SECTIONS.values()),
    sections=SECTIONS,
    facets=_FACETS,
    listed=("source", "scan_position", "special_case"),
    vocabulary=Vocabulary(
        read_vertebrae(_FACTS / "vertebrae.csv"), ("ctspine1k", "region", "binary", "verse")
    ),
    image_size=(512, 512),
    suffixes=_SUFFIXES,
    split_file="metadata/data_split.txt",
    licence=Licence("CC BY-NC-SA", "attribution, no commercial use, share alike", "cc-by-nc-sa"),
    credit="the data set and its four sources",
    known_by={
        "gap": _LABEL_ISSUES,
        "order": _LABEL_ISSUES,
        "distance": _LABEL_ISSUES,
        "pieces": _LABEL_ISSUES,
        "volume": _LABEL_ISSUES,
        "intensity": ("image_label_mismatch",),
        "upside_down": ("orientation_suspected",),
        "front_to_back": _FLIPPED,
        "unlisted_l6": ("numbering_suspected",),
    },
    read_cases=_read_cases,
    parse_name=_parse_name,
    file_name=_file_name,
    misplaced=_misplaced,
    odd_labels=_odd_labels,
    citations=_citations,
    terms=_terms,
)
