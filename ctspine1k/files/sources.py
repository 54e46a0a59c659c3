"""Where raw files are: a Hub repo or a folder. Finds, fetches, verifies and opens them."""

from __future__ import annotations

import contextlib
import functools
import glob
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol, cast

import huggingface_hub
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils.tqdm import (
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
    tqdm,
)

from ctspine1k import __version__
from ctspine1k.catalog.cases import Case
from ctspine1k.errors import ChecksumError, CTSpine1KError, CTSpine1KWarning, HubError, NoSpaceError
from ctspine1k.files.raw import RawFile, is_image_name, match_names
from ctspine1k.running.disk import free_bytes, sha256_of
from ctspine1k.running.progress import is_terminal

__all__ = [
    "DEFAULT_REPO",
    "FolderSource",
    "HubSource",
    "Source",
    "find_source",
    "free_space",
    "quiet_hub",
    "silence_hub",
]

#: The Hub repo (dataset) that holds the published raw files.
DEFAULT_REPO = "alexanderdann/CTSpine1K"


class Source(Protocol):
    """Where raw files are. Pure data: no file is open and no connection held."""

    def describe(self) -> str:
        """Name the place, for messages."""

    def find(self, cases: Iterable[Case], *, every: bool = False) -> list[RawFile]:
        """List the files of ``cases`` that are there: in the order of cases, image before mask.

        Where there are several for one image or mask, that is an error, or they are all given.
        """

    def prepare(self, files: Sequence[RawFile]) -> None:
        """See that files can be fetched, before the first of them is: that there is room, for one."""

    def fetch(self, files: Sequence[RawFile]) -> list[Path]:
        """Make files local, whole and verified, and give their paths in the same order."""

    def open(self, file: RawFile) -> contextlib.AbstractContextManager[str | IO[bytes]]:
        """Give the path of a file that is local, or open it to be read from start to end, unfetched."""

    def copy(self, file: RawFile) -> contextlib.AbstractContextManager[str | IO[bytes]]:
        """Give the path of a file that is local, or fetch it, verified, for as long as it is open."""

    def not_cached(self, files: Sequence[RawFile]) -> list[RawFile]:
        """Tell which files are not local yet."""

    def fingerprint(self, cases: Iterable[Case]) -> list[str]:
        """Tell what the rows of ``cases`` depend on: it changes when their files do."""

    def state(self, file: RawFile) -> str:
        """Tell which file it is, wherever the place is seen from: it changes when the file does."""

    def pinned(self) -> Source:
        """Give the same place at the commit it is at, without what was looked up: small, to be sent."""

    def origin(self) -> dict[str, str]:
        """Tell where the files are from, in a form that may be published."""

    def paths(self) -> list[str]:
        """List all files of the place, also those of no case: in the repo, or absolute on disk."""

    def relative(self, path: str) -> str:
        """Tell where a file is within the place, with slashes."""

    def default_scan(self) -> Path:
        """Tell where a scan's table of cases is kept, if nothing else is said."""

    def hint(self) -> str:
        """Say what to do about files that are not there."""


def find_source(
    data_dir: str | os.PathLike[str] | None = None,
    repo_id: str = DEFAULT_REPO,
    revision: str | None = None,
    token: str | bool | None = None,
) -> Source:
    """Choose the folder if one is given, else the Hub repo.

    Raises:
        FileNotFoundError: there is no folder at ``data_dir``.
        ValueError: a revision of a folder.
    """
    if data_dir is None:
        return HubSource(repo_id, revision or "main", _clean(token))
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
    return FolderSource(root.resolve())


@dataclass(frozen=True)
class FolderSource:
    """Raw files below a folder, in any layout."""

    root: Path

    def describe(self) -> str:
        """Name the folder."""
        return str(self.root)

    def prepare(self, files: Sequence[RawFile]) -> None:
        """Do nothing: the files are here."""

    def find(self, cases: Iterable[Case], *, every: bool = False) -> list[RawFile]:
        """List the files of ``cases`` that are in the folder."""
        return [
            RawFile(case, kind, os.stat(path).st_size, path, Path(path).as_uri(), None)  # noqa: PTH116
            for case, kind, path in match_names(self.paths(), cases, every=every)
            if os.path.isfile(path)  # noqa: PTH113 (a link may lead nowhere)
        ]

    def fetch(self, files: Sequence[RawFile]) -> list[Path]:
        """Give the paths: the files are here."""
        return [Path(file.path) for file in files]

    def not_cached(self, files: Sequence[RawFile]) -> list[RawFile]:
        """Tell of none: the files are here."""
        return []

    def open(self, file: RawFile) -> contextlib.AbstractContextManager[str]:
        """Give the path: the file is here."""
        return contextlib.nullcontext(file.path)

    def copy(self, file: RawFile) -> contextlib.AbstractContextManager[str]:
        """Give the path: the file is here."""
        return contextlib.nullcontext(file.path)

    def fingerprint(self, cases: Iterable[Case]) -> list[str]:
        """Tell path, size and modification time of each file."""
        return [f"{self.root}/{self.state(file)}" for file in self.find(cases)]

    def state(self, file: RawFile) -> str:
        """Tell path, size and modification time."""
        stat = os.stat(file.path)  # noqa: PTH116 (thousands of them)
        state = f"{self.relative(file.path)} {stat.st_size} {stat.st_mtime_ns}"
        return state.encode(errors="backslashreplace").decode()  # a name need not be UTF-8

    def pinned(self) -> FolderSource:
        """Give the folder as it is: it has no commits."""
        return FolderSource(self.root)

    def origin(self) -> dict[str, str]:
        """Tell the folder's name: where it lies is nobody else's affair."""
        return {"folder": self.root.name}

    def paths(self) -> list[str]:
        """List all files below the folder but hidden ones."""
        return self._paths

    def default_scan(self) -> Path:
        """Keep it with the files."""
        return self.root / "cases.parquet"

    def relative(self, path: str) -> str:
        """Tell the path below the folder."""
        return os.path.relpath(path, self.root).replace(os.sep, "/")

    def hint(self) -> str:
        """Say what to do about files that are not there."""
        found = sum(map(is_image_name, self.paths()))
        return (
            f"The folder holds {found:,} NIfTI files in all; an image is <case_id>.nii.gz, a mask "
            '<case_id>_seg.nii.gz. Pass on_missing="skip" to go on without these cases, or cases=[...] '
            "to name those you want."
        )

    @functools.cached_property
    def _paths(self) -> list[str]:
        return _walk(self.root)


@dataclass(frozen=True)
class HubSource:
    """Raw files in a Hub repo of type "dataset", at one revision. Offline: those in the Hub's local cache."""

    repo_id: str
    revision: str
    token: str | bool | None = field(default=None, repr=False)

    def describe(self) -> str:
        """Name repo and revision."""
        cache = "the local cache of " if _is_offline() else ""
        return f"{cache}Hub repo {self.repo_id} at {self.revision}"

    @functools.cached_property
    def commit(self) -> str:
        """The commit that the revision stands for.

        Raises:
            HubError: the Hub cannot be reached, or has no such repo or revision.
        """
        if len(self.revision) == 40 and set(self.revision) <= set("0123456789abcdef"):
            return self.revision
        if _is_offline():
            return self._cached_snapshot.name
        with self._explained():
            return cast("str", _api(self.token).dataset_info(self.repo_id, revision=self.revision).sha)

    def prepare(self, files: Sequence[RawFile]) -> None:
        """See that there is room for what is not in the cache, and have it remember the revision, once."""
        if _is_offline() or not files:
            return
        needed = sum(file.size for file in self.not_cached(files))
        free, cache = free_space()
        if needed > free:
            hint = "Select fewer cases, or set HF_HUB_CACHE to a folder on a larger disk."
            raise NoSpaceError(str(cache), "a download", needed, free, hint)
        if "is_recorded" not in vars(self):
            with self._explained():
                self._record_revision(files[0])
            vars(self)["is_recorded"] = True  # as a cached_property: it goes along to worker processes

    def find(self, cases: Iterable[Case], *, every: bool = False) -> list[RawFile]:
        """List the files of ``cases`` that are in the repo; offline, those that are cached."""
        return [
            RawFile(case, kind, size, path, self._url(path), sha256)
            for case, kind, path in match_names(self._records, cases, every=every)
            for size, sha256 in [self._records[path]]
        ]

    def fetch(self, files: Sequence[RawFile]) -> list[Path]:
        """Download what is not in the Hub's cache, eight at a time, and check size and sha256 of all."""
        if not files:
            return []
        if _is_offline():
            paths = [self._cached_snapshot / file.path for file in files]
            for path, file in zip(paths, files, strict=True):
                _verify(path, file, _delete_advice(path))
            return paths
        self.prepare(files)
        with self._explained():
            total = sum(file.size for file in files)
            paths = []
            with (
                ThreadPoolExecutor(max_workers=8) as pool,
                tqdm(desc=f"Fetching {self.repo_id}", total=total, unit="B", unit_scale=True) as progress,
            ):
                for path, file in zip(pool.map(self._fetch_one, files), files, strict=True):
                    paths.append(path)
                    progress.update(file.size)
            return paths

    def not_cached(self, files: Sequence[RawFile]) -> list[RawFile]:
        """Tell which files are not in the Hub's cache."""
        return [
            file
            for file in files
            if not isinstance(
                huggingface_hub.try_to_load_from_cache(
                    self.repo_id, file.path, revision=self.commit, repo_type="dataset"
                ),
                str,
            )
        ]

    @contextlib.contextmanager
    def open(self, file: RawFile) -> Iterator[str | IO[bytes]]:
        """Open a file as one request, of which only what is read is transferred; offline, give its path."""
        if _is_offline():
            yield str(self._cached_snapshot / file.path)
            return
        with self._explained():
            filesystem = huggingface_hub.HfFileSystem(token=self.token)
            # block_size=0: a stream, not blocks that are read ahead.
            stream = filesystem.open(f"datasets/{self.repo_id}@{self.commit}/{file.path}", "rb", block_size=0)
        with stream:
            yield cast("IO[bytes]", _HubStream(stream, file.path, self._explained))

    @contextlib.contextmanager
    def copy(self, file: RawFile) -> Iterator[str | IO[bytes]]:
        """Fetch a file to a temporary one, verified, that can be read again; offline, give its path."""
        with self.open(file) as stream:
            if isinstance(stream, str):
                yield stream
                return
            with tempfile.NamedTemporaryFile(prefix="ctspine1k-") as copy:
                shutil.copyfileobj(stream, copy, 1 << 20)
                copy.flush()
                _verify(Path(copy.name), file, "Try again.")
                copy.seek(0)
                copy.name = file.path  # what messages call it; it is removed by its own name all the same
                yield cast("IO[bytes]", copy)

    def fingerprint(self, cases: Iterable[Case]) -> list[str]:
        """Tell repo and commit."""
        return [f"{self.repo_id}@{self.commit}"]

    def state(self, file: RawFile) -> str:
        """Tell path and sha256, or, of a file that has none on the Hub, size and commit."""
        return f"{file.path} {file.sha256 or f'{file.size} {self.commit}'}"

    def pinned(self) -> HubSource:
        """Give the repo at its commit."""
        return HubSource(self.repo_id, self.commit, self.token)

    def origin(self) -> dict[str, str]:
        """Tell repo and commit."""
        return {"repo_id": self.repo_id, "commit": self.commit}

    def paths(self) -> list[str]:
        """List all files of the repo; offline, those that are cached."""
        return list(self._records)

    def default_scan(self) -> Path:
        """Keep it in the working directory: the Hub's cache is not ours."""
        return Path("cases.parquet")

    def relative(self, path: str) -> str:
        """Give the path in the repo as it is."""
        return path

    def hint(self) -> str:
        """Say what to do about files that are not there."""
        if _is_offline():
            return (
                'HF_HUB_OFFLINE is set: unset it to download them, or pass on_missing="skip" to go on '
                "without these cases."
            )
        return 'Pass on_missing="skip" to go on without these cases, or cases=[...] to name those you want.'

    @functools.cached_property
    def _records(self) -> dict[str, tuple[int, str | None]]:
        """Size and sha256 of each file, by its path in the repo."""
        if _is_offline():
            root = self._cached_snapshot
            paths = (Path(path) for path in _walk(root))
            return {
                path.relative_to(root).as_posix(): _cached_record(path) for path in paths if path.is_file()
            }
        with self._explained():
            entries = _api(self.token).list_repo_tree(
                self.repo_id, recursive=True, revision=self.commit, repo_type="dataset"
            )
            return {
                entry.path: (entry.size, entry.lfs.sha256 if entry.lfs else None)
                for entry in entries
                if isinstance(entry, RepoFile)
            }

    @functools.cached_property
    def _cached_snapshot(self) -> Path:
        try:
            snapshot = huggingface_hub.snapshot_download(
                self.repo_id,
                repo_type="dataset",
                revision=self.revision,
                local_files_only=True,
                allow_patterns=[],
            )
        except FileNotFoundError as error:  # huggingface_hub's errors of a cache that lacks it
            raise HubError(
                f"HF_HUB_OFFLINE is set, and nothing of {self.repo_id} at {self.revision} is in the local "
                "cache. Unset it and download once, or pass data_dir=... for a folder. What was converted "
                "before the cache was emptied is found by its commit: data_revision=..."
            ) from error
        return Path(snapshot)

    def _record_revision(self, file: RawFile) -> None:
        """Have the cache remember which commit the revision stands for: offline, there is nobody to ask."""
        if self.revision == self.commit:
            return
        snapshot = huggingface_hub.snapshot_download(
            self.repo_id,
            repo_type="dataset",
            revision=self.revision,
            token=self.token,
            allow_patterns=[glob.escape(file.path)],
            tqdm_class=_NoProgress,
        )
        if Path(snapshot).name != self.commit:
            raise HubError(
                f"{self.repo_id}: {self.revision} moved meanwhile, from {self.commit} to "
                f"{Path(snapshot).name}. Run again."
            )

    def _fetch_one(self, file: RawFile) -> Path:
        path = huggingface_hub.hf_hub_download(
            self.repo_id,
            file.path,
            repo_type="dataset",
            revision=self.commit,
            token=self.token,
            library_name="ctspine1k",
            library_version=__version__,
        )
        _verify(Path(path), file, _delete_advice(Path(path)))
        return Path(path)

    def _url(self, path: str) -> str:
        return huggingface_hub.hf_hub_url(self.repo_id, path, repo_type="dataset", revision=self.commit)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn what the Hub's client raises into a `HubError`, and let all else pass."""
        try:
            yield
        except Exception as error:
            if isinstance(error, CTSpine1KError) or not _is_of_the_hub(error):
                raise
            raise HubError(
                f"{self.describe()}: {type(error).__name__}: {error}. Check repo_id, the revision, your "
                "token (for a private repo) and the network. What is downloaded stays; run again to go on "
                "from there. HF_HUB_OFFLINE=1 serves what is in the local cache."
            ) from error


class _HubStream:
    """A stream from the Hub, with a name for messages, whose failures are told as the Hub's."""

    def __init__(self, stream: Any, name: str, explained: Callable[[], Any]) -> None:
        self.name = name
        self._stream, self._explained = stream, explained

    def read(self, size: int) -> bytes:
        with self._explained():
            return cast("bytes", self._stream.read(size))


def silence_hub() -> None:
    """Turn off the progress bars of the Hub's client: a worker's would be mixed up with those of others."""
    disable_progress_bars()


@contextlib.contextmanager
def quiet_hub() -> Iterator[None]:
    """Have no progress bars of the Hub's client meanwhile."""
    was_quiet = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if not was_quiet:
            enable_progress_bars()


@contextlib.contextmanager
def progress_on_terminal() -> Iterator[None]:
    """Let the Hub's client show bars on a terminal alone."""
    with contextlib.nullcontext() if is_terminal() else quiet_hub():
        yield


def free_space() -> tuple[int, Path]:
    """Tell how many bytes are free where the Hub's cache is, or will be, and where that is."""
    cache = Path(huggingface_hub.constants.HF_HUB_CACHE)
    return free_bytes(cache), cache


def _api(token: str | bool | None) -> huggingface_hub.HfApi:
    return huggingface_hub.HfApi(token=token, library_name="ctspine1k", library_version=__version__)


class _NoProgress(tqdm):
    """No bar for one file that is only fetched to record its revision; a class, as the client wants one."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "disable": True})  # type: ignore[no-untyped-call]


def _clean(token: str | bool | None) -> str | bool | None:
    """Strip a token, as read from a file; one that no header can carry would be printed by the client."""
    if not isinstance(token, str):
        return token
    token = token.strip()
    if not token.isascii() or not token.isprintable() or " " in token:
        raise ValueError("token: expected letters and digits, found other characters among them")
    return token


def _walk(root: Path) -> list[str]:
    """List all files below a folder; what is hidden is left out."""
    paths, visited = [], set()
    # Links to folders are followed, as people link large folders in; a loop of them is walked once.
    for folder, subfolders, names in os.walk(root, onerror=_warn_unread, followlinks=True):
        if (real := os.path.realpath(folder)) in visited:
            subfolders.clear()
            continue
        visited.add(real)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        paths += [os.path.join(folder, name) for name in names]  # noqa: PTH118 (thousands of them)
    return paths


def _warn_unread(error: OSError) -> None:
    message = f"{error.filename}: {error.strerror}: what is in it is not seen"
    warnings.warn(message, CTSpine1KWarning, stacklevel=2)


def _is_of_the_hub(error: Exception) -> bool:
    """Tell the client's errors from the machine's: by version they come from one HTTP library or another."""
    package = type(error).__module__.partition(".")[0]
    clients = {"huggingface_hub", "requests", "urllib3", "httpx", "httpx2", "httpcore", "httpcore2"}
    # The client itself raises a bare OSError where sizes do not agree; the machine's have a number.
    return package in clients or (isinstance(error, OSError) and error.errno is None)


def _is_offline() -> bool:
    return bool(huggingface_hub.constants.HF_HUB_OFFLINE)


def _cached_record(path: Path) -> tuple[int, str | None]:
    """Size and, where the cache's blob is named by it, sha256."""
    blob = path.resolve()
    return blob.stat().st_size, blob.name if len(blob.name) == 64 else None


def _delete_advice(path: Path) -> str:
    # The blob is what has to go: while it is there, the cache hands it out again.
    return f"Delete {path.resolve()} and download again."


def _verify(path: Path, file: RawFile, hint: str) -> None:
    size = path.stat().st_size
    if size != file.size:
        raise ChecksumError(file.url, "size", str(file.size), str(size), hint)
    if file.sha256 is None:  # not in LFS: git has no sha256 of it
        return
    with path.open("rb") as stream:
        found = sha256_of(stream)
    if found != file.sha256:
        raise ChecksumError(file.url, "sha256", file.sha256, found, hint)
