"""Predicted masks: their own rule for names, and a place where they stand in for a data set's masks.

Tools name predictions in several ways (`ctspine1k.files.raw.predicted_masks`), in any folder below the one
that is given:

==========================  ===========================================================
``liver_106.nii.gz``        nnU-Net and most others: here it is a mask, not an image
``liver_106_seg.nii.gz``    the published name
``sub-.._msk.nii.gz``       any other name that the data set's masks have
``1_3_6_1.nii.gz``          the plain name of ``1.3.6.1``, whose dots became ``_``
==========================  ===========================================================

Images that lie beside them (``liver_106_0000.nii.gz``) are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

from ctspine1k.files.folder import FolderPlace
from ctspine1k.files.places import Opened, Place
from ctspine1k.files.raw import Listing, RawFile

__all__ = ["PredictionsPlace"]


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

    def prepare(self, files: Sequence[RawFile], *, is_recorded: bool = False) -> None:
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

    def hint(self, listing: Listing, suffixes: tuple[str, ...]) -> str:
        """Return what may explain that files are not there."""
        found = sum(path.lower().endswith(suffixes) for path in listing.predictions or ())
        return (
            f"{self.masks.describe()} contains {found:,} files that may be masks; that of a case is "
            "<case_id>.nii.gz, or named as in the data set."
        )

    def _place_of(self, file: RawFile) -> Place:
        return self.masks if file.kind == "mask" else self.images
