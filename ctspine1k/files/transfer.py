"""Transfer of raw files: downloads that check for space, temporary copies, hidden progress bars."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, cast

from ctspine1k._messages import check_choice, size_text, warn
from ctspine1k.catalog.dataset import Kind
from ctspine1k.errors import CTSpine1KError, MissingFilesError, SkippedCasesWarning, UnreadableFileError
from ctspine1k.files.checksums import check_file_is
from ctspine1k.files.places import Place
from ctspine1k.files.raw import CaseFiles, RawFile
from ctspine1k.files.selection import Look, OnMissing, Selection, selected_files
from ctspine1k.files.tokens import all_tokens, clean_token, learn_tokens
from ctspine1k.running.disk import explain_full_disk
from ctspine1k.running.progress import is_terminal

__all__ = [
    "DownloadPlan",
    "copied",
    "download",
    "download_selected",
    "fetch_case",
    "files_to_download",
    "know_token",
    "plan_download",
    "progress_on_terminal",
    "quiet_hub",
    "reading_case",
    "worker_start",
]


@dataclass(frozen=True)
class DownloadPlan:
    """What a download would do."""

    files: tuple[RawFile, ...]  #: the files selected that exist
    needed: tuple[RawFile, ...]  #: those of them that are not on this machine yet
    missing: MissingFilesError | None  #: the files selected that do not exist
    bytes_free: int | None  #: on the disk of the cache; None for a folder
    cache: Path | None  #: where downloads are kept; None for the files of a folder, which are not downloaded

    def __repr__(self) -> str:
        lacking = f"; {self.missing.args[0]}" if self.missing else ""
        return (
            f"DownloadPlan({len(self.needed):,} of {len(self.files):,} files to download, "
            f"{size_text(self.bytes_needed)}{self.free_text}{lacking})"
        )

    @property
    def free_text(self) -> str:
        """How much is free where downloads are kept, for a message; an empty text for a folder."""
        return "" if self.bytes_free is None else f"; {size_text(self.bytes_free)} are free in {self.cache}"

    @property
    def bytes(self) -> int:
        """Bytes of all files."""
        return sum(file.total for file in self.files)

    @property
    def bytes_needed(self) -> int:
        """Bytes to download."""
        return sum(file.total for file in self.needed)


def plan_download(selection: Selection, kind: Kind | None = None) -> DownloadPlan:
    """Return what a download of the files of cases would do; errors as for `selected_files`."""
    files, missing = selected_files(selection, kind)
    free, cache = None, None
    if selection.place.folder is None:
        from ctspine1k.files.hub import hub_space

        free, cache = hub_space()
    return DownloadPlan(tuple(files), tuple(selection.place.not_cached(files)), missing, free, cache)


def download_selected(
    selection: Selection, kind: Kind | None = None, on_missing: OnMissing = "raise"
) -> list[Path]:
    """Download the files of cases; see `ctspine1k.Collection.download`."""
    return download(selection.look, files_to_download(selection, kind, on_missing))


def files_to_download(selection: Selection, kind: Kind | None, on_missing: OnMissing) -> list[RawFile]:
    """Find the files of cases; missing ones are an error, or skipped with a warning."""
    check_choice("on_missing", on_missing, ("raise", "skip"))
    files, missing = selected_files(selection, kind)
    if missing:
        if on_missing == "raise":
            raise missing
        warn(missing.summary, SkippedCasesWarning)
    return files


def download(look: Look, files: Sequence[RawFile]) -> list[Path]:
    """Download files that are not local yet, and verify them; return the paths in the same order.

    Raises:
        NoSpaceError: they do not fit on the disk.
        OutputError: the Hub's cache is read-only, or another user's.
        ChecksumError: a file differs from the Hub's record.
        HubError: the Hub cannot be reached.
    """
    with _room_for(look.pinned, files):
        look.prepare(files)
        return look.pinned.fetch(files)


def fetch_case(place: Place, files: CaseFiles) -> dict[Kind, Path]:
    """Download and verify the files of a case; errors as for `download` and `reading_case`."""
    wanted = list(files.files.values())
    with reading_case(files), _room_for(place, wanted):
        return dict(zip(files.files, place.fetch(wanted), strict=True))


def _room_for(place: Place, files: Sequence[RawFile]) -> contextlib.AbstractContextManager[None]:
    """Return a context that explains a full disk, if files are downloaded."""
    if place.folder is not None:
        return contextlib.nullcontext()
    from ctspine1k.files.hub import hub_space

    return explain_full_disk(hub_space()[1], "a download", sum(file.total for file in files))


#: Errors that are not about one case: a disk or a quota is full, or too many files are open.
_OF_THE_MACHINE = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE)


@contextlib.contextmanager
def reading_case(files: CaseFiles) -> Iterator[None]:
    """Translate errors that occur while a case is read into those of this library.

    Raises:
        CaseError, ChecksumError: the case's files cannot be used.
        UnreadableFileError: the operating system cannot read a file.
        CTSpine1KError: anything else, such as an unreachable Hub or a full disk: not the case's fault.
    """
    try:
        yield
    except CTSpine1KError:
        raise
    except OSError as error:
        if error.errno in _OF_THE_MACHINE:
            raise
        first = next(iter(files.files.values()))
        raise UnreadableFileError.of(str(error.filename or first.name), error) from error


@contextlib.contextmanager
def copied(place: Place, file: RawFile) -> Iterator[str | IO[bytes]]:
    """Yield a verified temporary copy of a file, which can be read repeatedly, or the path of a local file.

    Raises:
        ChecksumError: it differs from the Hub's record.
        HubError: the Hub cannot be reached.
    """
    with place.open(file) as stream:
        if isinstance(stream, str):
            yield stream
            return
        with tempfile.NamedTemporaryFile(prefix="ctspine1k-") as copy:
            shutil.copyfileobj(stream, copy, 1 << 20)
            copy.flush()
            check_file_is(Path(copy.name), file, "Try again.")
            copy.seek(0)
            copy.name = file.path  # for messages; the file is still deleted by its real name
            yield cast("IO[bytes]", copy)


def know_token(place: Place, token: str | bool | None) -> None:
    """Keep the token of a place in this process, which may have got the place from another one."""
    if place.login is not None and (token := clean_token(token)) is not None:
        learn_tokens({place.login: token})


@contextlib.contextmanager
def quiet_hub() -> Iterator[None]:
    """Disable the progress bars of the Hub's client for a while; if it is not imported, there are none."""
    if "huggingface_hub" not in sys.modules:
        yield
        return
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    was_quiet = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if not was_quiet:
            enable_progress_bars()


def progress_on_terminal() -> contextlib.AbstractContextManager[Any]:
    """Disable the progress bars of the Hub's client for a while, unless stderr is a terminal."""
    return contextlib.nullcontext() if is_terminal() else quiet_hub()


def worker_start() -> partial[None]:
    """Return what a worker process of this machine runs first: it disables bars, and learns our tokens."""
    return partial(_start_worker, dict(all_tokens()))


def _start_worker(tokens: Mapping[str, str | bool]) -> None:
    # Not by a call: the client reads the variable when it is imported, which not every worker does.
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    learn_tokens(tokens)
