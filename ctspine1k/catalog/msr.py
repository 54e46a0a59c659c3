"""The Microsoft Research spine CT database: 302 scans with centres of vertebral bodies, and no masks.

It is the 242 scans of MICCAI 2013, and the 60 test scans of the challenge CSI 2014. ``facts/msr/scans.csv``
lists them. The data were not seen by the authors of this package: the facts are from public readers.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from ctspine1k.catalog.cases import Case, Catalog, Facet, is_within, lacks_issue
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

__all__ = ["MSR"]

_SPLITS = ("train", "test")

#: Sections of a split file; none is published.
_SECTIONS = {split: split for split in _SPLITS}

_FACTS = Path(__file__).resolve().parent / "facts"
_OWN_FACTS = _FACTS / "msr"

#: Facts of each case, in the order of the columns: the fold of MICCAI 2013, the first and the last annotated
#: vertebra, and how many are annotated.
_FACT_NAMES = ("fold", "top", "bottom", "annotated")

_SUFFIXES = (".nii.gz", ".nii", ".mhd", ".mha")

_NAME = re.compile(r"(?P<scan>\d{7})(?P<end>(?:_0000)?\.nii(?:\.gz)?|\.mhd|\.mha|\.lml)", re.IGNORECASE)
_PATIENT_FOLDER = re.compile(r"patient\d{4}")  # in lower case
_SPLIT_FOLDER = re.compile(r"spine-(?:(?P<train>\d)|test-data)", re.IGNORECASE)


def _vertebrae() -> tuple[Vertebra, ...]:
    """Return the vertebrae that files name: C1 to L6 with the numbers of CTSpine1K, and S1 and S2.

    Files have names and no numbers: those of S1 and S2 are this package's own. In other data sets, 26 and 27
    are something else.
    """
    shared = [replace(one, volumes=None) for one in read_vertebrae(_FACTS / "vertebrae.csv")]
    sacral = [Vertebra(26 + number, f"S{1 + number}", "sacral", None, None, None) for number in range(2)]
    return (*shared, *sacral)


def _names_of_vertebrae() -> tuple[str, ...]:
    return tuple(vertebra.name for vertebra in _vertebrae())


_FACETS = (
    Facet("split", "Only cases of this split.", _SPLITS),
    Facet("fold", "Only scans of this fold of the two-fold protocol of MICCAI 2013.", ("1", "2")),
    Facet("top", "Only scans whose first annotated vertebra is this one.", _names_of_vertebrae()),
    Facet("bottom", "Only scans whose last annotated vertebra is this one.", _names_of_vertebrae()),
    Facet(
        "annotated",
        "Only scans with so many annotated vertebrae, or a range such as 10-15.",
        None,
        is_within,
    ),
    Facet("exclude_issues", "Leave out cases with an issue; none is known.", ("errors", "all"), lacks_issue),
)


def _read_cases(split_file: Path | None) -> Catalog:
    """Read the cases of a split file. Ids that the database does not have are cases without facts."""
    scans = _scans()
    if split_file is None:
        assignment = {
            split: [case_id for case_id, row in scans.items() if row["split"] == split] for split in _SPLITS
        }
    else:
        assignment = parse_split(split_file.read_bytes(), str(split_file), _SECTIONS, known=scans)
    cases = tuple(
        Case(case_id, split, index, facts={name: scans.get(case_id, {}).get(name) for name in _FACT_NAMES})
        for split, ids in assignment.items()
        for index, case_id in enumerate(ids)
    )
    return Catalog(cases, _SPLITS, _FACETS, _FACT_NAMES)


@functools.cache
def _scans() -> dict[str, dict[str, str | None]]:
    """Read the scans, by id."""
    return {
        row["scan_id"]: {
            **{name: row[name] or None for name in ("split", "top", "bottom", "annotated")},
            "fold": row["miccai2013_fold"] or None,
        }
        for row in read_csv(_OWN_FACTS / "scans.csv")
    }


def _parse_name(path: str) -> list[tuple[str, Kind]]:
    """Return the scan and the kind of a file, by its name; what is in a folder of masks is no image."""
    found = _NAME.fullmatch(path.rpartition("/")[2])
    if found is None:
        return []
    kind: Kind = "points" if found["end"].lower() == ".lml" else "image"
    return [] if kind == "image" and is_among_masks(path) else [(found["scan"], kind)]


def _parse_patient(path: str) -> str | None:
    """Return the patient of a file: the folder ``patientNNNN`` that it is in."""
    folders = path.lower().split("/")[:-1]
    return next((folder for folder in reversed(folders) if _PATIENT_FOLDER.fullmatch(folder)), None)


def _file_name(case: Case, kind: Kind) -> str:
    """Return the path below the folder of the patient, whose number is in no list."""
    return f"{case.case_id}/{case.case_id}{'.lml' if kind == 'points' else '.nii.gz'}"


def _misplaced(path: str, case: Case, kind: Kind) -> Iterator[Misplaced]:
    """Compare the folders that a file is in with its scan and split."""
    for folder in path.split("/")[:-1]:
        if re.fullmatch(r"\d{7}", folder) and folder != case.case_id:
            yield f"a folder of scan {case.case_id}", f"folder {folder}"
        found = _SPLIT_FOLDER.fullmatch(folder)
        if found and (found["train"] is not None) != (case.split == "train"):
            yield f"a folder of split {case.split}", f"folder {folder}"


def _odd_labels(case: Case, labels: Sequence[int]) -> Iterator[tuple[str, str, str]]:
    """List annotated vertebrae that are more, fewer or others than the list of scans says."""
    if case.annotated is None or not labels:
        return
    ordered = MSR.vocabulary.downwards(labels)
    expected = f"{case.annotated} vertebrae from {case.top} to {case.bottom}"
    first, last = (MSR.vocabulary.name(ordered[end]) for end in (0, -1))
    found = f"{len(ordered)} vertebrae from {first} to {last}"
    if found != expected:
        yield "unlisted_range", expected, found


def _terms(case: Case) -> Licence:
    """Return the terms of the database, which are those of each case."""
    return MSR.licence


def _citations() -> list[str]:
    return read_citations(_OWN_FACTS / "citations.bib")


MSR = DataSet(
    name="msr",
    title="Microsoft Research spine CT database",
    description="302 spine CT scans with centres of vertebral bodies, and no masks.",
    homepage="",  # it is not in the facts
    repo_id=None,
    naming="An image is <scan>.mhd (with its .raw), .mha, .nii or .nii.gz, and its points <scan>.lml.",
    how_to_get=(
        "Get the database from Microsoft Research, under its terms, and unpack its archives side by side "
        "into a folder: patientNNNN/<scan>/<scan>.mhd, .raw and .lml, or .nii.gz beside the same .lml. Keep "
        "the folders of patients: nothing else says which scans are of one patient."
    ),
    kinds=("image", "points"),
    splits=_SPLITS,
    sections=_SECTIONS,
    facets=_FACETS,
    listed=_FACT_NAMES,
    vocabulary=Vocabulary(_vertebrae(), ("msr", "region", "binary")),
    image_size=None,
    suffixes=_SUFFIXES,
    split_file="split.txt",
    licence=Licence(
        "non-commercial research use",
        "under the terms of its page, without redistribution",
        "non-commercial-research-use",
    ),
    credit="Microsoft Research",
    known_by={},
    read_cases=_read_cases,
    parse_name=_parse_name,
    parse_patient=_parse_patient,
    file_name=_file_name,
    misplaced=_misplaced,
    odd_labels=_odd_labels,
    citations=_citations,
    terms=_terms,
    points_format="lml",
    is_cropped=True,
)
