"""A folder with raw files, in any layout."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from ctspine1k._messages import count_text, warn
from ctspine1k.errors import CTSpine1KWarning
from ctspine1k.files.raw import Entry, Listing, RawFile, is_hidden, joined_state

__all__ = ["FolderPlace", "walk"]


@dataclass(frozen=True)
class FolderPlace:
    """Raw files below a folder."""

    folder: Path

    @property
    def tables(self) -> Path:
        """The folder itself."""
        return self.folder

    @property
    def login(self) -> None:
        """None: a folder needs no token."""

    def describe(self) -> str:
        """Return the folder's path."""
        return str(self.folder)

    def recorded(self) -> str:
        """Return the same."""
        return self.describe()

    def origin(self) -> dict[str, str]:
        """Return the folder's name: its location is private to this machine."""
        return {"folder": self.folder.name}

    def at_commit(self) -> FolderPlace:
        """Return the folder as it is: it has no commits."""
        return self

    def listing(self) -> Listing:
        """List all files below the folder, except hidden ones and those in hidden folders."""
        return Listing(dict(map(self._entry, walk(self.folder))))

    def _entry(self, local: str) -> tuple[str, Entry | None]:
        path = os.path.relpath(local, self.folder).replace(os.sep, "/")
        try:
            status = os.stat(local)  # noqa: PTH116 (thousands of them)
        except OSError:  # a broken link, or one to itself
            return path, None
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISFIFO(status.st_mode)):  # such as a socket
            return path, None
        return path, Entry(status.st_size, _state(path, status), Path(local).as_uri(), local=local)

    def state(self, file: RawFile) -> str:
        """Return path, size and modification time as they are now."""
        return joined_state(_state(one.path, os.stat(self.folder / one.path)) for one in file.every)  # noqa: PTH116

    def identity(self, file: RawFile) -> str:
        """Return path in the folder, size and modification time as listed, so that the folder may be moved.

        Times in whole seconds are those of archives, which several files may have: then the checksum at the
        end of a gzip file is added, or the folder's path.
        """
        beside = [one.state for one in file.beside]
        own = file.state.removesuffix(joined_state(["", *beside]))
        return joined_state(
            self._identity(one.path, state) for one, state in zip(file.every, [own, *beside], strict=True)
        )

    def _identity(self, path: str, state: str) -> str:
        if int(state.rpartition(" ")[2]) % 10**9:
            return state
        checksum = _gzip_end(str(self.folder / path))
        return f"{state} {checksum}" if checksum else f"{self.folder}/{state}"

    def version(self) -> None:
        """Return None: the files of a folder may change at any time."""

    def prepare(self, files: Sequence[RawFile], *, is_recorded: bool) -> None:
        """Do nothing: the files are local."""

    def not_cached(self, files: Sequence[RawFile]) -> list[RawFile]:
        """Return an empty list: the files are local."""
        return []

    def local_path(self, file: RawFile) -> str:
        """Return the path: the file is local."""
        return str(self.folder / file.path)

    def fetch(self, files: Sequence[RawFile]) -> list[Path]:
        """Return the paths: the files are local."""
        return [self.folder / file.path for file in files]

    def open(self, file: RawFile) -> nullcontext[str]:
        """Yield the path: the file is local."""
        return nullcontext(str(self.folder / file.path))

    def hint(self, listing: Listing, suffixes: tuple[str, ...], naming: str) -> str:
        """Return what may explain that files are not there."""
        found = sum(path.lower().endswith(suffixes) for path in listing)
        endings = " or ".join(f"*{suffix}" for suffix in suffixes)
        return f"The folder contains {count_text(found, 'file')} {endings} in all. {naming}"


def walk(root: Path) -> Iterator[str]:
    """Yield the path of each file below a folder; hidden files and folders are left out."""
    visited = set()
    # Links to folders are followed, since large folders are often linked. A loop of links ends, since no
    # folder is walked twice.
    for folder, subfolders, names in os.walk(root, onerror=_warn_unread, followlinks=True):
        if (real := os.path.realpath(folder)) in visited:
            subfolders.clear()
            continue
        visited.add(real)
        subfolders[:] = sorted(name for name in subfolders if not is_hidden(name))
        for name in names:
            if not is_hidden(name):
                yield os.path.join(folder, name)  # noqa: PTH118 (thousands of them)


def _gzip_end(path: str) -> str | None:
    """Return the last 8 bytes of a gzip file: CRC-32 and length of what it contains. None for other files."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116
            return None
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123
            if file.read(2) != b"\x1f\x8b":
                return None
            file.seek(-8, os.SEEK_END)
            return file.read(8).hex()
    except OSError:
        return None


def _warn_unread(error: OSError) -> None:
    warn(f"{error.filename}: {error.strerror}: the files in it are not listed", CTSpine1KWarning)


def _state(path: str, status: os.stat_result) -> str:
    state = f"{path} {status.st_size} {status.st_mtime_ns}"
    return state.encode(errors="backslashreplace").decode()  # a name need not be UTF-8
