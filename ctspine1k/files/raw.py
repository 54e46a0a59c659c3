"""Raw files of cases, and how they are found by their names in a listing."""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from ctspine1k._messages import size_text
from ctspine1k.catalog.cases import Case
from ctspine1k.catalog.companions import companions
from ctspine1k.catalog.dataset import KINDS, DataSet, Kind
from ctspine1k.errors import AmbiguousFilesError

__all__ = [
    "CHANNEL",
    "CaseFiles",
    "Entry",
    "Listing",
    "RawFile",
    "find_files",
    "group_files",
    "is_hidden",
    "joined_state",
    "plain_id",
    "predicted_masks",
    "raw_file",
]


@dataclass(frozen=True)
class Entry:
    """Any file of a place."""

    size: int  #: bytes
    state: str  #: changes when its bytes do, see `Place.state`
    url: str
    sha256: str | None = None  #: as the Hub records it; None for a file in a folder
    local: str | None = None  #: absolute path of a file in a folder; None for one on the Hub


#: The end of the name of an image in nnU-Net's layout: the number of the channel, of which CT has one.
CHANNEL = "_0000"


def plain_id(case_id: str) -> str:
    """Return an id without dots, for tools that take what follows a dot for a file's type."""
    return case_id.replace(".", "_")


def is_hidden(name: str) -> bool:
    """Return whether a file or folder is hidden, or one that macOS adds: ``._x.nii.gz``, ``__MACOSX``."""
    return name.startswith(".") or name == "__MACOSX"


@dataclass(frozen=True)
class Listing:
    """All files of a place at one moment that are not hidden, by their path in it; None for a broken link."""

    entries: Mapping[str, Entry | None]
    #: Those of a folder with predicted masks, by their path in that: they are the masks of the place.
    predictions: Mapping[str, Entry | None] | None = None

    def __repr__(self) -> str:
        return f"Listing({len(self):,} files)"

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)


@dataclass(frozen=True)
class RawFile:
    """One raw file, on the Hub or on disk."""

    case: Case
    kind: Kind
    size: int  #: bytes
    path: str  #: in its place, with slashes: below the folder, or in the repo
    url: str
    sha256: str | None  #: as the Hub records it; None for a file in a folder
    local: str | None  #: absolute path of a file in a folder; None for one on the Hub
    state: str  #: when it was listed; changes when its bytes do, or those of files beside it
    beside: tuple[RawFile, ...] = ()  #: without which it is incomplete, such as the ``.raw`` of an ``.mhd``

    def __repr__(self) -> str:
        return f"RawFile({self.case.case_id}, {self.kind}, {size_text(self.total)}, {self.name!r})"

    @property
    def name(self) -> str:
        """The file's name in messages: its absolute path, or its path in the repo."""
        return self.local or self.path

    @property
    def every(self) -> tuple[RawFile, ...]:
        """The file, and those beside it."""
        return self, *self.beside

    @property
    def total(self) -> int:
        """Bytes of all of them."""
        return sum(one.size for one in self.every)


def joined_state(states: Iterable[str]) -> str:
    """Return the state of a file from its own and those of the files beside it."""
    return " + ".join(states)


@dataclass(frozen=True)
class CaseFiles:
    """The files of one case, by kind."""

    case: Case
    files: Mapping[Kind, RawFile]

    def __getitem__(self, kind: Kind) -> RawFile:
        return self.files[kind]

    @property
    def states(self) -> dict[Kind, str]:
        """The state of each file when it was listed."""
        return {kind: file.state for kind, file in self.files.items()}


def find_files(
    listing: Listing, data_set: DataSet, cases: Iterable[Case], *, every: bool = False
) -> list[RawFile]:
    """Find the files of cases by name, in any folder; only a folder of masks says more than the name.

    Args:
        listing: all files of the place.
        data_set: the data set, which knows how its files are named.
        cases: the cases whose files to find.
        every: if there are several files of one kind for a case, return them all.

    Returns:
        The files that are there: in the order of cases, and of `KINDS` within a case.

    Raises:
        AmbiguousFilesError: several files of one kind for a case, and ``every`` is False.
        ValueError: ids that differ by an ending such as ``_seg``, so that a file could belong to either case.
    """
    by_id = {case.case_id: case for case in cases}
    found: dict[tuple[str, Kind], dict[str, Entry]] = {}
    for path, entry, readings in _parsed(listing, data_set, by_id):
        if len(readings) > 1:
            name = posixpath.basename(path)
            first, second = (repr(case_id) for case_id, _ in readings[:2])
            raise ValueError(f"{name} could belong to {first} or to {second}: load only one of them")
        if readings and entry is not None:
            found.setdefault(readings[0], {})[path] = entry
    files = []
    for case in by_id.values():
        for kind in KINDS:
            candidates = found.get((case.case_id, kind), {})
            own = [raw_file(case, kind, path, candidates[path], listing) for path in sorted(candidates)]
            if len(own) > 1 and not every:
                raise AmbiguousFilesError(case.case_id, kind, [file.name for file in own])
            files += own
    return files


def _parsed(
    listing: Listing, data_set: DataSet, case_ids: Collection[str]
) -> Iterator[tuple[str, Entry | None, list[tuple[str, Kind]]]]:
    """Yield each file, with what it may be of these cases."""
    for path, entry in listing.entries.items():
        readings = [reading for reading in data_set.parse_name(path) if reading[0] in case_ids]
        if listing.predictions is not None:
            readings = [reading for reading in readings if reading[1] != "mask"]
        yield path, entry, readings
    for path, entry, owners in predicted_masks(listing, data_set, case_ids):
        yield path, entry, [(case_id, "mask") for case_id in owners]


def predicted_masks(
    listing: Listing, data_set: DataSet, case_ids: Collection[str]
) -> Iterator[tuple[str, Entry | None, list[str]]]:
    """Yield each file of a folder of predictions, with the cases whose mask it may be: none, or one.

    What would be an image elsewhere is a mask there, except with the number of a channel: then it is what
    nnU-Net predicts from. Dots in ids may have become ``_``.
    """
    plain: dict[str, list[str]] = {}
    for case_id in case_ids:
        plain.setdefault(plain_id(case_id), []).append(case_id)
    for path, entry in (listing.predictions or {}).items():
        name = posixpath.basename(path)  # folders say nothing: all are of masks
        named = [case_id for case_id, kind in data_set.parse_name(name) if kind != "points"]
        if f"{CHANNEL}." in name:
            named = [case_id for case_id in named if case_id.endswith(CHANNEL)]
        own = [case_id for case_id in named if case_id in case_ids]
        yield path, entry, list(dict.fromkeys(own or (one for name in named for one in plain.get(name, ()))))


def raw_file(case: Case, kind: Kind, path: str, entry: Entry, listing: Listing) -> RawFile:
    """Return a file of a case, with those beside it in a listing."""
    there = {other: listing.entries.get(other) for other in companions(path)}
    beside = tuple(
        RawFile(case, kind, one.size, other, one.url, one.sha256, one.local, one.state)
        for other, one in there.items()
        if one is not None
    )
    state = joined_state([entry.state, *(one.state for one in beside)])
    return RawFile(case, kind, entry.size, path, entry.url, entry.sha256, entry.local, state, beside)


def group_files(files: Iterable[RawFile]) -> dict[str, CaseFiles]:
    """Group files by case: return a mapping by case id, in the order of the files, one file of each kind."""
    grouped: dict[str, tuple[Case, dict[Kind, RawFile]]] = {}
    for file in files:
        grouped.setdefault(file.case.case_id, (file.case, {}))[1][file.kind] = file
    return {case_id: CaseFiles(case, own) for case_id, (case, own) in grouped.items()}
