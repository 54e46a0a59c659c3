"""Predicted masks: their own rule for names, and a place where they stand in for a data set's masks.

Tools name predictions in several ways (`ctspine1k.files.raw.predicted_masks`), in any folder below the one
that is given:

==========================  ===========================================================
``liver_106.nii.gz``        nnU-Net and most others: here it is a mask, not an image
``liver_106_seg.nii.gz``    the published name
``sub-.._msk.nii.gz``       any other name that the data set's masks have
``1_3_6_1.nii.gz``          the plain name of ``1.3.6.1``, whose dots became ``_``
==========================  ===========================================================

Images that lie beside them (``liver_106_0000.nii.gz``) are left out. To be evaluated, a case may also have
one file for each vertebra, as TotalSegmentator writes them: ``liver_106/vertebrae_L1.nii.gz``, in any folder
below the case's.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

from ctspine1k._messages import count_text
from ctspine1k.catalog.cases import Catalog
from ctspine1k.catalog.dataset import DataSet
from ctspine1k.catalog.vocabulary import Vocabulary
from ctspine1k.errors import AmbiguousFilesError
from ctspine1k.files.folder import FolderPlace
from ctspine1k.files.places import Opened, Place
from ctspine1k.files.raw import Entry, Listing, RawFile, find_files, plain_id, predicted_masks, raw_file

__all__ = [
    "WHOLE",
    "Predictions",
    "PredictionsPlace",
    "case_names",
    "find_predictions",
    "require_predictions",
]

#: The name of a file that has all vertebrae of a case.
WHOLE = ""

#: TotalSegmentator's file of one vertebra.
_VERTEBRA = re.compile(r"vertebrae_(\w+)\.nii(\.gz)?", re.IGNORECASE)


@dataclass(frozen=True)
class PredictionsPlace:
    """The images of a place, with predicted masks from a folder instead of its own."""

    images: Place
    masks: FolderPlace

    @property
    def folder(self) -> Path | None:
        """The folder of the images; None for a place that is not one."""
        return self.images.folder

    @property
    def tables(self) -> Path:
        """The folder with the masks: tables of a scan describe them, not those of the data set."""
        return self.masks.folder

    @property
    def login(self) -> str | None:
        """The key of the token for the images, if they need one."""
        return self.images.login

    def describe(self) -> str:
        """Return both places."""
        return f"{self.images.describe()} with masks in {self.masks.describe()}"

    def recorded(self) -> str:
        """Return both places, for records."""
        return f"{self.images.recorded()} with masks in {self.masks.recorded()}"

    def origin(self) -> dict[str, str]:
        """Return where the images come from, and the name of the folder with the masks."""
        return {**self.images.origin(), "masks": self.masks.folder.name}

    def at_commit(self) -> PredictionsPlace:
        """Return the place with the images' revision resolved."""
        return replace(self, images=self.images.at_commit())

    def listing(self) -> Listing:
        """List the files of both, apart."""
        return Listing(self.images.listing().entries, predictions=self.masks.listing().entries)

    def state(self, file: RawFile) -> str:
        """Return the current state of a file, as its place does."""
        return self._place_of(file).state(file)

    def identity(self, file: RawFile) -> str:
        """Return a text that is the same for the same file in another place, where that is safe to tell."""
        return self._place_of(file).identity(file)

    def version(self) -> None:
        """Return None: masks may change at any time."""

    def prepare(self, files: Sequence[RawFile], *, is_recorded: bool) -> None:
        """Check that images can be fetched; errors as for `Place.prepare`."""
        self.images.prepare([file for file in files if file.kind != "mask"], is_recorded=is_recorded)

    def not_cached(self, files: Sequence[RawFile]) -> list[RawFile]:
        """Return the images that are not on this machine yet."""
        return self.images.not_cached([file for file in files if file.kind != "mask"])

    def local_path(self, file: RawFile) -> str | None:
        """Return the path of a file that is on this machine; None if it is not."""
        return self._place_of(file).local_path(file)

    def fetch(self, files: Sequence[RawFile]) -> list[Path]:
        """Download images that are not local yet, and verify them; return the paths in the same order."""
        images = [file for file in files if file.kind != "mask"]
        fetched = dict(zip(images, self.images.fetch(images), strict=True))
        return [fetched[file] if file in fetched else self.masks.fetch([file])[0] for file in files]

    def open(self, file: RawFile) -> AbstractContextManager[Opened]:
        """Open a file to read it once, as its place does."""
        return self._place_of(file).open(file)

    def hint(self, listing: Listing, suffixes: tuple[str, ...], naming: str) -> str:
        """Return what may explain that files are not there."""
        found = sum(path.lower().endswith(suffixes) for path in listing.predictions or ())
        return (
            f"{self.masks.describe()} contains {count_text(found, 'file')} with a mask's ending; that of a "
            "case is <case_id>.nii.gz, or named as in the data set."
        )

    def _place_of(self, file: RawFile) -> Place:
        return self.masks if file.kind == "mask" else self.images


@dataclass(frozen=True)
class Predictions:
    """What a folder of predictions has."""

    files: Mapping[str, Mapping[str, RawFile]]  #: of each case by its id: by vertebra, or one that is `WHOLE`
    unknown: tuple[str, ...]  #: paths of files that may be masks, and belong to no case


def case_names(cases: Catalog) -> dict[str, str]:
    """Return the id of each case by the names that it may have: the id itself, or without dots."""
    return {
        **{plain_id(case.case_id): case.case_id for case in cases},
        **{case.case_id: case.case_id for case in cases},
    }


def find_predictions(place: FolderPlace, data_set: DataSet, cases: Catalog, known: Catalog) -> Predictions:
    """Find the predicted masks of cases, by name.

    Args:
        place: the folder.
        data_set: the data set, which knows how its files are named.
        cases: those to find.
        known: all cases of the data set: a file of another one of them is no unknown file.

    Raises:
        AmbiguousFilesError: several masks of a case, or of one of its vertebrae.
        ValueError: a file that could belong to either of two cases.
    """
    listing = Listing({}, predictions=place.listing().entries)
    files: dict[str, dict[str, RawFile]] = {
        file.case.case_id: {WHOLE: file} for file in find_files(listing, data_set, cases)
    }
    singles = list(_single_vertebrae(listing, data_set.vocabulary, known))
    for path, entry, case_id, name in singles:
        if case_id not in cases:
            continue
        file = raw_file(cases[case_id], "mask", path, entry, listing)
        own = files.setdefault(case_id, {})
        if own.keys() & {WHOLE, name}:
            paths = [other.name for key, other in own.items() if key in (WHOLE, name)]
            raise AmbiguousFilesError(case_id, "mask", [*paths, file.name])
        own[name] = file
    owned = {path for path, *_ in singles}
    by_id = {case.case_id: case for case in known}
    unknown = [
        path
        for path, _, owners in predicted_masks(listing, data_set, by_id)
        if not owners and path not in owned and path.lower().endswith(data_set.suffixes)
    ]
    return Predictions(files, tuple(sorted(unknown)))


def require_predictions(place: FolderPlace, given: Path, what: str, endings: Sequence[str]) -> None:
    """Check that there may be predictions in a folder, of whatever cases.

    Args:
        place: the folder.
        given: its path as it was passed, for the message.
        what: what is expected, such as "masks".
        endings: of the names of its files, in lower case.

    Raises:
        ValueError: no file has one of these endings.
    """
    if not any(path.lower().endswith(tuple(endings)) for path in place.listing()):
        names = " or ".join(f"*{ending}" for ending in endings)
        raise ValueError(f"{given}: expected {what} ({names}), found none. Pass the folder that has them.")


def _single_vertebrae(
    listing: Listing, vocabulary: Vocabulary, cases: Catalog
) -> Iterator[tuple[str, Entry, str, str]]:
    """Yield files of one vertebra with its name, and the case whose folder they are in."""
    case_ids = case_names(cases)
    names = {vertebra.name for vertebra in vocabulary.vertebrae}
    for path, entry in sorted((listing.predictions or {}).items()):
        folder, name = posixpath.split(path)
        match = _VERTEBRA.fullmatch(name)
        if entry is None or match is None or match[1].upper() not in names:
            continue
        for part in reversed(folder.split("/")):
            stem = re.sub(r"(_0000)?\.nii(\.gz)?$", "", part)  # some name the folder as the image
            if stem in case_ids:
                yield path, entry, case_ids[stem], match[1].upper()
                break
