"""A second data set, unlike CTSpine1K wherever one may differ: names of files and splits, labels, sizes, facts.

Its cases have points beside image and mask, which nothing asks for; its labels end at 28 with a gap before.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ctspine1k.catalog.cases import Case, Catalog, Facet, Issue, has_issue, lacks_issue
from ctspine1k.catalog.dataset import DataSet, Kind, Licence, parse_endings
from ctspine1k.catalog.split_file import parse_split
from ctspine1k.catalog.vocabulary import Vertebra, Vocabulary
from support.volumes import intensities, save

#: (i, j, k) of each file.
SHAPE = (9, 7, 11)
IDS = {"learn": ["a.1", "b_2"], "judge": ["c-3"]}
LABELS = (0, 18, 19, 28)

_SECTIONS = {"for_learning": "learn", "for_judging": "judge"}
_SPLIT_FILE = "for_learning:\na.1\nb_2\nfor_judging:\nc-3\n"
_ENDINGS: dict[str, Kind] = {"-ct.nii.gz": "image", "-labels.nii.gz": "mask", "-points.json": "points"}
_FACETS = (
    Facet("split", "Only cases of this split.", tuple(_SECTIONS.values())),
    Facet("scanner", "Only cases from this scanner.", ("old", "new")),
    Facet("exclude_issues", "Leave out cases with an issue.", ("reported", "all"), lacks_issue),
    Facet("issue", "Only cases with this known issue.", ("label_missing",), has_issue),
)


def _read_cases(split_file: Path | None) -> Catalog:
    data = _SPLIT_FILE.encode() if split_file is None else split_file.read_bytes()
    assignment = parse_split(data, str(split_file or "tiny"), _SECTIONS, known=())
    cases = [
        Case(
            case_id,
            split,
            index,
            patient=case_id[0],
            facts={"scanner": "old" if case_id == "a.1" else "new"},
            issues=(Issue("label_missing", "reported", "no T13", "tests"),) if case_id == "b_2" else (),
        )
        for split, ids in assignment.items()
        for index, case_id in enumerate(ids)
    ]
    return Catalog(tuple(cases), tuple(_SECTIONS.values()), _FACETS, ("scanner",))


def _parse_name(path: str) -> list[tuple[str, Kind]]:
    return parse_endings(path.rpartition("/")[2], _ENDINGS.items())


def _file_name(case: Case, kind: Kind) -> str:
    ending = next(ending for ending, other in _ENDINGS.items() if other == kind)
    return f"{case.scanner}/{case.case_id}{ending}"


def _misplaced(path: str, case: Case, kind: Kind) -> list[tuple[str, str]]:
    folder = path.split("/")[0]
    return (
        [(f"folder {case.scanner}", f"folder {folder}")]
        if folder in ("old", "new") and folder != case.scanner
        else []
    )


def _odd_labels(case: Case, labels: Sequence[int]) -> list[tuple[str, str, str]]:
    return []


def _terms(case: Case) -> Licence:
    return TINY.licence


def _citations() -> list[str]:
    return ["@misc{tiny,\n  title = {Tiny Spines},\n}"]


TINY = DataSet(
    name="tiny",
    title="Tiny Spines",
    description="Three made-up spines.",
    homepage="https://example.org/tiny",
    repo_id=None,
    naming="An image is <case_id>-ct.nii.gz, a mask <case_id>-labels.nii.gz.",
    kinds=("image", "mask"),
    splits=tuple(_SECTIONS.values()),
    sections=_SECTIONS,
    facets=_FACETS,
    listed=("scanner",),
    vocabulary=Vocabulary(
        (
            Vertebra(18, "T11", "thoracic", 18, 33, 0),
            Vertebra(19, "T12", "thoracic", 19, 32, 0),
            Vertebra(28, "T13", "thoracic", 28, None, 0, is_variant=True),
        ),
        ("tiny", "region", "binary", "verse"),
    ),
    image_size=SHAPE[:2],
    suffixes=(".nii.gz",),
    split_file="lists/tiny.txt",
    licence=Licence("CC0", "nothing", "cc0-1.0"),
    credit="nobody",
    known_by={"gap": ("label_missing",)},
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


def save_tiny(root: Path) -> Path:
    """Write all cases below a folder, in the data set's layout."""
    for seed, case in enumerate(TINY.read_cases(None)):
        mask = np.random.default_rng(seed).choice(np.array(LABELS, np.uint8), SHAPE)
        save(root / TINY.file_name(case, "image"), intensities(seed, SHAPE))
        save(root / TINY.file_name(case, "mask"), mask)
        (root / TINY.file_name(case, "points")).write_text(
            json.dumps([{"direction": ["L", "A", "S"]}, {"label": 19, "X": 1, "Y": 2, "Z": 3}])
        )
    return root
