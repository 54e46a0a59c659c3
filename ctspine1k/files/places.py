"""Where raw files are: a folder, or a Hub repo. A place is pure data; what is in it, a listing says."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol, TypeAlias

from ctspine1k.files.folder import FolderPlace
from ctspine1k.files.raw import Listing, RawFile

__all__ = ["Place", "find_place"]

#: The path of a file that is local, or a stream of one that is not.
Opened: TypeAlias = "str | IO[bytes]"


class Place(Protocol):
    """Where raw files are. Pure data, to be sent to other processes: no token, no listing, nothing open."""

    @property
    def folder(self) -> Path | None:
        """The folder; None for a place that is not one."""

    @property
    def login(self) -> str | None:
        """The key under which a process may know a token for it (`ctspine1k.files.tokens`)."""

    def describe(self) -> str:
        """Return the place's name for messages."""

    def origin(self) -> dict[str, str]:
        """Return where the files are from, in a form that may be published."""

    def at_commit(self) -> Place:
        """Return the same place with its revision resolved: whoever it is sent to sees the same files."""

    def listing(self) -> Listing:
        """List all files of the place as it is now, those of no case, too."""

    def state(self, file: RawFile) -> str:
        """Return what distinguishes the bytes of a file from others, as it is now."""

    def version(self) -> str | None:
        """Return what says at once which files the place has, such as a commit; None if only they say it."""

    def prepare(self, files: Sequence[RawFile], *, is_recorded: bool = False) -> None:
        """Check that files can be fetched before the first of them is.

        With ``is_recorded`` this was done before, for other files of the same place.

        Raises:
            NoSpaceError: they do not fit on the disk.
            HubError: the Hub cannot be reached.
        """

    def not_cached(self, files: Sequence[RawFile]) -> list[RawFile]:
        """Return the files that are not on this machine yet."""

    def fetch(self, files: Sequence[RawFile]) -> list[Path]:
        """Make files local, complete and verified; return their paths in the same order."""

    def open(self, file: RawFile) -> AbstractContextManager[Opened]:
        """Open a file to be read from start to end without fetching it; a local one is given as its path."""

    def hint(self, listing: Listing, suffixes: tuple[str, ...]) -> str:
        """Return what to do about files that are not there."""


@dataclass(frozen=True)
class UnknownPlace(FolderPlace):
    """No place: of a data set that is in no Hub repo, cases can be listed, and no files."""

    folder: Path = Path()

    def describe(self) -> str:
        """Return that nothing is known."""
        return "no place"

    def at_commit(self) -> FolderPlace:
        """Say where the files would have to be.

        Raises:
            ValueError: always.
        """
        raise ValueError("expected data_dir, a folder: the files of this data set are in no Hub repo")


def find_place(
    data_dir: str | os.PathLike[str] | None = None,
    repo_id: str | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
) -> Place:
    """Return the folder if one is given, else the Hub repo, if there is one.

    Raises:
        FileNotFoundError: there is no folder at ``data_dir``.
        ValueError: a revision of a folder, or a token that cannot be sent.
    """
    if data_dir is None:
        if repo_id is None:
            if revision is not None:
                raise ValueError(f"revision={revision!r}: the files of this data set are in no Hub repo")
            return UnknownPlace()
        from ctspine1k.files.hub import HubPlace  # imports the Hub's client

        return HubPlace.of(repo_id, revision or "main", token)
    if not os.fspath(data_dir):
        raise ValueError("data_dir is empty: expected a folder")
    if revision is not None:
        raise ValueError(
            f"data_dir={os.fspath(data_dir)!r} has no revisions: give data_dir or a revision, not both"
        )
    root = Path(data_dir).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(
            f"data_dir={os.fspath(data_dir)!r}: no such folder (looked for {root.absolute()})"
        )
    return FolderPlace(root.resolve())
