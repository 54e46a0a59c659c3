"""Where raw files are: a folder, or a Hub repo. A place is pure data; a listing has its files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol, TypeAlias

from ctspine1k.files.folder import FolderPlace
from ctspine1k.files.raw import Listing, RawFile

__all__ = ["Opened", "Place", "find_folder", "find_place"]

#: The path of a file that is local, or a stream of one that is not.
Opened: TypeAlias = "str | IO[bytes]"


class Place(Protocol):
    """Where raw files are: pure data that other processes can get, without token, listing or open files."""

    @property
    def folder(self) -> Path | None:
        """The folder; None for a place that is not one."""

    @property
    def tables(self) -> Path:
        """The folder for tables about its files, if none is given."""

    @property
    def login(self) -> str | None:
        """The key of its token, if it has one (`ctspine1k.files.tokens`)."""

    def describe(self) -> str:
        """Return the place's name for messages."""

    def recorded(self) -> str:
        """Return the place's name for records: always the same for the same place."""

    def origin(self) -> dict[str, str]:
        """Return where the files come from, in a form that may be published."""

    def at_commit(self) -> Place:
        """Return the place with its revision resolved: every process that gets it sees the same files."""

    def listing(self) -> Listing:
        """List all files that the place has now, including those of no case."""

    def state(self, file: RawFile) -> str:
        """Return the current state of a file: a text that changes when its bytes do."""

    def identity(self, file: RawFile) -> str:
        """Return a text that is the same for the same file in another place, where that is safe to tell."""

    def version(self) -> str | None:
        """Return one text that changes when any file does, such as a commit; None if there is none."""

    def prepare(self, files: Sequence[RawFile], *, is_recorded: bool) -> None:
        """Check that files can be fetched, before the first one is.

        Args:
            files: what will be fetched.
            is_recorded: whether this was done before, for other files of the same place.

        Raises:
            NoSpaceError: they do not fit on the disk.
            HubError: the Hub cannot be reached.
        """

    def not_cached(self, files: Sequence[RawFile]) -> list[RawFile]:
        """Return the files that are not on this machine yet."""

    def local_path(self, file: RawFile) -> str | None:
        """Return the path of a file that is on this machine; None if it is not. It is not verified."""

    def fetch(self, files: Sequence[RawFile]) -> list[Path]:
        """Download files that are not local yet, and verify them; return the paths in the same order.

        Files beside them (`RawFile.beside`) are then in the same folder.
        """

    def open(self, file: RawFile) -> AbstractContextManager[Opened]:
        """Open a file to read it once, from start to end, without fetching it; yield a local one's path."""

    def hint(self, listing: Listing, suffixes: tuple[str, ...], naming: str) -> str:
        """Return what may explain that files are not there; an empty text if nothing is known.

        Args:
            listing: what is there.
            suffixes: endings of the names of images and masks.
            naming: how files are named, in words.
        """


@dataclass(frozen=True)
class UnknownPlace(FolderPlace):
    """A missing place: if a data set is in no Hub repo, its cases can be listed, but not its files."""

    folder: Path = Path()
    how_to_get: str = ""  #: where to get the files, in words

    def describe(self) -> str:
        """Return a text that says so."""
        return "no place"

    def at_commit(self) -> FolderPlace:
        """Raise an error that says where files are expected, and where to get them.

        Raises:
            ValueError: always.
        """
        where = "expected data_dir, a folder: the files of this data set are in no Hub repo"
        raise ValueError(f"{where}. {self.how_to_get}" if self.how_to_get else where)


def find_place(
    data_dir: str | os.PathLike[str] | None = None,
    repo_id: str | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
    how_to_get: str = "",
) -> Place:
    """Return the folder if one is given, else the Hub repo, if there is one.

    ``how_to_get`` says where to get files that are in no repo, for the error of a verb that needs them.

    Raises:
        FileNotFoundError: there is no folder at ``data_dir``.
        ValueError: a revision for a folder, or a token that cannot be sent.
    """
    if data_dir is None:
        if repo_id is None:
            if revision is not None:
                raise ValueError(f"revision={revision!r}: the files of this data set are in no Hub repo")
            return UnknownPlace(how_to_get=how_to_get)
        from ctspine1k.files.hub import HubPlace  # imports the Hub's client

        return HubPlace.of(repo_id, revision or "main", token)
    found = find_folder(data_dir)
    if revision is not None:
        raise ValueError(
            f"data_dir={os.fspath(data_dir)!r} has no revisions: give data_dir or a revision, not both"
        )
    return found


def find_folder(
    path: str | os.PathLike[str], argument: str = "data_dir", what: str = "raw files"
) -> FolderPlace:
    """Return the folder at a path, which an argument gave; ``what`` is expected in it.

    Raises:
        ValueError: the path is empty.
        FileNotFoundError: there is no folder.
    """
    if not os.fspath(path):
        raise ValueError(f"{argument} is empty: expected a folder")
    root = Path(path).expanduser()
    if not root.is_dir():
        found = "a file" if root.exists() else "none"
        raise FileNotFoundError(
            f"{argument}={os.fspath(path)!r}: expected a folder with {what}, found {found} at "
            f"{root.absolute()}. Pass the folder that has them, at any depth."
        )
    return FolderPlace(root.resolve())
