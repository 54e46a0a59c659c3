"""Everything that is specific to one data set, as a value: each data set has its own module in this folder.

To add a data set, write such a module and list it in `ctspine1k.catalog.registry`; no other code depends on
which data set it is. ``tests/catalog/test_datasets.py`` tests what all of them must do.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from ctspine1k._messages import count_text
from ctspine1k.catalog.cases import Case, Catalog, Facet
from ctspine1k.catalog.vocabulary import Vocabulary

__all__ = [
    "KINDS",
    "KIND_FOLDERS",
    "DataSet",
    "Kind",
    "Licence",
    "Misplaced",
    "PointsFormat",
    "is_among_masks",
    "parse_endings",
    "read_citations",
    "read_csv",
    "telling_folder",
]

#: What a file of a case contains: the CT, its label map, or points such as the centres of vertebrae.
Kind: TypeAlias = Literal["image", "mask", "points"]
KINDS: tuple[Kind, ...] = ("image", "mask", "points")

#: Names of the folders that the layouts in circulation have for each kind, in lower case.
KIND_FOLDERS: dict[str, Kind] = {
    "volumes": "image", "data": "image", "imagestr": "image", "imagests": "image",
    "labels": "mask", "label": "mask", "label_new": "mask", "labelstr": "mask", "labelsts": "mask",
    "masks": "mask",
}  # fmt: skip

#: How points are written: as VerSe's JSON files, or as the Microsoft database's ``.lml`` files.
PointsFormat: TypeAlias = Literal["verse", "lml"]

#: A file in the folder of another source, split or kind: what was expected, and what was found.
Misplaced: TypeAlias = tuple[str, str]


def read_csv(path: Path) -> list[dict[str, str]]:
    """Read a table of facts, a CSV file: return its rows."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def read_citations(path: Path) -> list[str]:
    """Read BibTeX entries with blank lines between them."""
    return [entry.strip() for entry in path.read_text(encoding="utf-8").split("\n\n")]


def parse_endings(name: str, endings: Iterable[tuple[str, Kind]]) -> list[tuple[str, Kind]]:
    """Return what a file may be by the end of its name, in any case of letters, as case id and kind."""
    return [(name[: -len(end)], kind) for end, kind in endings if name[-len(end) :].lower() == end]


def telling_folder(folders: Sequence[str], names: Container[str]) -> str | None:
    """Return the innermost folder that has one of these names, in any case of letters; None if none has."""
    return next((folder for folder in reversed(folders) if folder.lower() in names), None)


def is_among_masks(path: str) -> bool:
    """Return whether a file is in a folder of masks, where none is an image, whatever its name says."""
    folder = telling_folder(path.split("/")[:-1], KIND_FOLDERS)
    return folder is not None and KIND_FOLDERS[folder.lower()] == "mask"


@dataclass(frozen=True)
class Licence:
    """The terms under which the data may be used."""

    name: str
    terms: str  #: its conditions, in words
    hub_name: str  #: its id in cards on the Hub


@dataclass(frozen=True)
class DataSet:
    """One data set: its names, cases, files, labels and texts. Contains no data.

    Its functions are defined at the top of a module, so that it can be pickled.
    """

    name: str  #: as passed to `ctspine1k.open_collection` and ``--collection``
    title: str  #: for people
    description: str  #: one sentence
    homepage: str  #: empty if the facts do not say it
    repo_id: str | None  #: the Hub repo (dataset) that holds the published files, if one does
    #: A sentence on how images and other files are named, for those who miss some.
    naming: str
    kinds: tuple[Kind, ...]  #: of the files that each case must have
    splits: tuple[str, ...]  #: in order
    sections: Mapping[str, str] = field(hash=False)  #: of a split file, and the split that each stands for
    facets: tuple[Facet, ...]  #: criteria by which cases can be selected
    listed: tuple[str, ...]  #: facts that fit into a line per case, in that order
    vocabulary: Vocabulary
    image_size: tuple[int, int] | None  #: voxels of a slice, which dense rows declare; None if slices differ
    suffixes: tuple[str, ...]  #: endings of the file names of images and masks
    split_file: str  #: path of the split file in a folder, where there is one
    licence: Licence  #: of its cases, unless `terms` says otherwise
    credit: str  #: whom to credit, for the card of an export
    #: For each check, the kinds of known issues that it may find.
    known_by: Mapping[str, tuple[str, ...]] = field(hash=False)

    #: Read the cases of a split file, or those of the data set's own if it is None.
    read_cases: Callable[[Path | None], Catalog]

    #: Return what a file may be, given its path in the place, as case id and kind, the likeliest first;
    #: nothing if it is not a file of the data set. Names may end in upper or lower case (`parse_endings`).
    parse_name: Callable[[str], Sequence[tuple[str, Kind]]]

    #: Return the path of a case's file in the published layout.
    file_name: Callable[[Case, Kind], str]

    #: List how the folders of a file, given its path in the place, contradict its case and kind.
    misplaced: Callable[[str, Case, Kind], Iterable[Misplaced]]

    #: List the labels of a case that its catalogue does not explain, as check, expected and found.
    odd_labels: Callable[[Case, Sequence[int]], Iterable[tuple[str, str, str]]]

    #: Return the BibTeX entries: of the data set, then of its sources.
    citations: Callable[[], list[str]]

    #: Return the licence of one case, which need not be that of the data set.
    terms: Callable[[Case], Licence]

    #: Sentences on where to get the files, and how to lay them out, if they are in no Hub repo.
    how_to_get: str = ""
    #: Return the patient of a file, given its path in the place, where only folders say it.
    parse_patient: Callable[[str], str | None] | None = None
    optional: tuple[Kind, ...] = ()  #: kinds of files that a case may have, or lack
    #: How files with points are written, which chooses their reader; None if there are none.
    points_format: PointsFormat | None = None
    is_cropped: bool = False  #: whether images are cropped to the spine, and may lack the air around the body

    def licence_text(self, cases: Iterable[Case]) -> str:
        """Return the licence and its terms, and those of the cases that have another one, in words."""
        counts = Counter(map(self.terms, cases))
        del counts[self.licence]
        others = (
            f"; of {count_text(count, 'case')}, {licence.name}: {licence.terms}"
            for licence, count in counts.items()
        )
        return f"{self.licence.name}: {self.licence.terms}{''.join(others)}"

    def licence_names(self, cases: Iterable[Case]) -> str:
        """Return the names of the licences of cases, joined; that of the data set if there are no cases."""
        names = dict.fromkeys(self.terms(case).name for case in cases)
        return " and ".join(names) or self.licence.name

    @property
    def possible(self) -> tuple[Kind, ...]:
        """Kinds of files that a case must or may have, in the order of `KINDS`."""
        return tuple(kind for kind in KINDS if kind in self.kinds or kind in self.optional)

    def __repr__(self) -> str:
        return f"DataSet({self.name!r}, {self.title!r})"
