"""A Hub repo with raw files: lists, fetches, verifies and opens them; offline, those in the local cache."""

from __future__ import annotations

import contextlib
import functools
import glob
import importlib
import itertools
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any, cast

import huggingface_hub
import huggingface_hub.errors
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils.tqdm import tqdm

from ctspine1k import __version__
from ctspine1k._messages import without_stop
from ctspine1k.catalog.companions import is_metaimage
from ctspine1k.errors import CTSpine1KError, HubError, NoSpaceError
from ctspine1k.files.checksums import check_file_is
from ctspine1k.files.folder import walk
from ctspine1k.files.raw import Entry, Listing, RawFile, is_hidden, joined_state
from ctspine1k.files.tokens import keep_token, known_token
from ctspine1k.running.disk import explain_forbidden, free_bytes
from ctspine1k.running.stops import interruptible

__all__ = ["HubPlace", "hub_space", "offline_variable"]


@dataclass(frozen=True)
class HubPlace:
    """Raw files in a Hub repo of type "dataset", at one revision; offline, those in the Hub's local cache."""

    repo_id: str
    revision: str
    commit: str | None = None  #: the commit that the revision stands for, once it was looked up
    login: str | None = field(default=None, repr=False)  #: key of the token (`ctspine1k.files.tokens`)

    @classmethod
    def of(cls, repo_id: str, revision: str, token: str | bool | None = None) -> HubPlace:
        """Return the place, with a token for a private repo.

        Raises:
            ValueError: the token cannot be sent.
        """
        return cls(repo_id, revision, login=keep_token(token))

    @property
    def folder(self) -> None:
        """None: it is not a folder."""

    tables = Path()  #: the working directory: the Hub's cache is not ours

    def describe(self) -> str:
        """Return repo and revision."""
        return f"{'the local cache of ' if offline_variable() else ''}{self.recorded()}"

    def recorded(self) -> str:
        """Return repo and revision, the same online and offline."""
        return f"Hub repo {self.repo_id} at {self.revision}"

    def origin(self) -> dict[str, str]:
        """Return repo and commit."""
        return {"repo_id": self.repo_id, "commit": self._commit}

    def at_commit(self) -> HubPlace:
        """Return the repo at the commit that its revision stands for now.

        Raises:
            HubError: the Hub cannot be reached, or has no such repo or revision.
        """
        return self if self.commit is not None else replace(self, commit=self._commit)

    @property
    def _commit(self) -> str:
        if self.commit is not None:
            return self.commit
        if len(self.revision) == 40 and set(self.revision) <= set("0123456789abcdef"):
            return self.revision
        if offline_variable():
            return self._cached_snapshot().name
        with self._explained():
            return cast("str", self._api().dataset_info(self.repo_id, revision=self.revision).sha)

    def listing(self) -> Listing:
        """List all files of the repo that are not hidden; offline, those that are cached.

        Raises:
            HubError: the Hub cannot be reached, or has no such repo or revision.
        """
        here = self.at_commit()
        return Listing(
            {
                path: Entry(size, here._state(path, size, sha256), here._url(path), sha256)
                for path, size, sha256 in here._records()
                if not any(map(is_hidden, path.split("/")))
            }
        )

    def _records(self) -> Iterator[tuple[str, int, str | None]]:
        """Yield path, size and sha256 of each file."""
        if offline_variable():
            root = self._cached_snapshot()
            for path in map(Path, walk(root)):
                if path.is_file():
                    blob = path.resolve()  # named by its sha256, where the file is in LFS
                    sha256 = blob.name if len(blob.name) == 64 else None
                    yield path.relative_to(root).as_posix(), blob.stat().st_size, sha256
            return
        with self._explained():
            entries = self._api().list_repo_tree(
                self.repo_id, recursive=True, revision=self._commit, repo_type="dataset"
            )
            for entry in entries:
                if isinstance(entry, RepoFile):
                    yield entry.path, entry.size, entry.lfs.sha256 if entry.lfs else None

    def state(self, file: RawFile) -> str:
        """Return the path, and the sha256, or size and commit if the Hub has no sha256."""
        return joined_state(self._state(one.path, one.size, one.sha256) for one in file.every)

    def identity(self, file: RawFile) -> str:
        """Return its state, which says nothing about the repo."""
        return file.state

    def _state(self, path: str, size: int, sha256: str | None) -> str:
        return f"{path} {sha256 or f'{size} {self._commit}'}"

    def version(self) -> str:
        """Return repo and commit."""
        return f"{self.repo_id}@{self._commit}"

    def prepare(self, files: Sequence[RawFile], *, is_recorded: bool) -> None:
        """Check that there is room for files that are not in the cache, and record the revision there.

        Args:
            files: what will be fetched.
            is_recorded: whether the revision was recorded before.

        Raises:
            NoSpaceError: there is not enough.
            OutputError: the cache is read-only, or another user's.
            HubError: the Hub cannot be reached, or the revision moved in the meantime.
        """
        if offline_variable() or not files:
            return
        needed = sum(file.total for file in self.not_cached(files))
        free, cache = hub_space()
        if needed > free:
            hint = "Select fewer cases, or set HF_HUB_CACHE to a folder on a larger disk."
            raise NoSpaceError(str(cache), "a download", needed, free, hint)
        if not is_recorded and self.revision != self._commit:
            with self._explained():
                self._record_revision(files[0])

    def not_cached(self, files: Sequence[RawFile]) -> list[RawFile]:
        """Return the files that are not in the Hub's cache."""
        commit = self._commit
        return [file for file in files if any(self._cached_path(one, commit) is None for one in file.every)]

    def local_path(self, file: RawFile) -> str | None:
        """Return the path of a file in the Hub's cache; None if it, or a file beside it, is not there."""
        commit = self._commit
        path, *beside = (self._cached_path(one, commit) for one in file.every)
        return None if None in beside else path

    def _cached_path(self, file: RawFile, commit: str) -> str | None:
        found = huggingface_hub.try_to_load_from_cache(
            self.repo_id, file.path, revision=commit, repo_type="dataset"
        )
        return found if isinstance(found, str) else None

    def fetch(self, files: Sequence[RawFile]) -> list[Path]:
        """Download files that are not in the Hub's cache, eight at a time; check size and sha256 of all.

        Raises:
            ChecksumError: a file differs from the Hub's record.
            OutputError: the cache is read-only, or another user's.
            HubError: the Hub cannot be reached.
        """
        if not files:
            return []
        if offline_variable():
            root = self._cached_snapshot()
            paths = [root / file.path for file in files]
            for one in itertools.chain.from_iterable(file.every for file in files):
                check_file_is(root / one.path, one, _hint_to_delete(root / one.path))
            return paths
        at_commit, paths = self.at_commit(), []
        with (
            self._explained(),
            ThreadPoolExecutor(max_workers=8) as pool,
            tqdm(
                desc=f"Fetching {self.repo_id}",
                total=sum(file.total for file in files),
                unit="B",
                unit_scale=True,
            ) as progress,
        ):
            for path, file in zip(pool.map(at_commit._fetch_one, files), files, strict=True):
                paths.append(path)
                progress.update(file.total)
        return paths

    @contextlib.contextmanager
    def open(self, file: RawFile) -> Iterator[str | IO[bytes]]:
        """Yield a stream of a file, which transfers only what is read; offline, yield its path.

        A MetaImage file is fetched, and its path yielded.

        Raises:
            HubError: the Hub cannot be reached; reading from the stream also raises it.
        """
        if offline_variable():
            yield str(self._cached_snapshot() / file.path)
            return
        if is_metaimage(file.path):  # SimpleITK reads files of a disk only
            yield str(self.fetch([file])[0])
            return
        with self._explained():
            filesystem = huggingface_hub.HfFileSystem(token=self._token)
            # block_size=0: one request for the file, not blocks that are read ahead.
            stream = filesystem.open(
                f"datasets/{self.repo_id}@{self._commit}/{file.path}", "rb", block_size=0
            )
        with stream:
            yield cast("IO[bytes]", _HubStream(stream, file.path, self._explained))

    def hint(self, listing: Listing, suffixes: tuple[str, ...], naming: str) -> str:
        """Return what may explain that files are not there; an empty text if nothing is known."""
        variable = offline_variable()
        return f"{variable} is set: unset it to download them." if variable else ""

    @property
    def _token(self) -> str | bool | None:
        return known_token(self.login)

    def _api(self) -> huggingface_hub.HfApi:
        return huggingface_hub.HfApi(token=self._token, library_name="ctspine1k", library_version=__version__)

    def _url(self, path: str) -> str:
        return huggingface_hub.hf_hub_url(self.repo_id, path, repo_type="dataset", revision=self._commit)

    def _cached_snapshot(self) -> Path:
        try:
            snapshot = huggingface_hub.snapshot_download(
                self.repo_id,
                repo_type="dataset",
                revision=self.commit or self.revision,
                local_files_only=True,
                allow_patterns=[],
            )
        except FileNotFoundError as error:  # huggingface_hub raises subclasses if the cache lacks the repo
            variable = offline_variable()
            raise HubError(
                f"{variable} is set, and nothing of {self.repo_id} at {self.revision} is in the local "
                f"cache. Unset {variable} and download once, or pass data_dir=... for a folder. Splits "
                "that are converted already still load if you pin the commit they were made from: "
                "revision=..."
            ) from error
        return Path(snapshot)

    def _record_revision(self, file: RawFile) -> None:
        """Record in the Hub's cache which commit the revision stands for: offline, only the cache knows."""
        with _explained_cache():
            snapshot = huggingface_hub.snapshot_download(
                self.repo_id,
                repo_type="dataset",
                revision=self.revision,
                token=self._token,
                allow_patterns=[glob.escape(file.path)],
                tqdm_class=_NoProgress,
            )
        if Path(snapshot).name != self._commit:
            raise HubError(
                f"{self.repo_id}: {self.revision} moved meanwhile, from {self._commit} to "
                f"{Path(snapshot).name}. Run again."
            )

    def _fetch_one(self, file: RawFile) -> Path:
        """Fetch a file, after those beside it, which the cache has in the same folder."""
        for one in file.beside:
            self._fetch_one(one)
        options: dict[str, Any] = {"repo_type": "dataset", "revision": self._commit, "token": self._token}
        options |= {"library_name": "ctspine1k", "library_version": __version__}
        with interruptible(), _explained_cache():
            path = Path(huggingface_hub.hf_hub_download(self.repo_id, file.path, **options))
            if path.stat().st_size < file.size:  # an empty file, say, which the client leaves on a full disk
                options["force_download"] = True
                path = Path(huggingface_hub.hf_hub_download(self.repo_id, file.path, **options))
        check_file_is(path, file, _hint_to_delete(path))
        return path

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Raise errors of the Hub's client as `HubError`, and all others as they are."""
        try:
            yield
        except CTSpine1KError:
            raise
        except Exception as error:
            # The client raises a plain OSError if sizes differ; those of the operating system have an errno.
            if not isinstance(error, _client_errors()) and not (
                type(error) is OSError and error.errno is None
            ):
                raise
            raise HubError(
                f"{self.describe()}: {type(error).__name__}: {without_stop(str(error))}. Check repo_id, the "
                "revision, your token (for a private repo) and the network. Downloaded files are kept: run "
                "again to resume. With HF_HUB_OFFLINE=1, files from the local cache are used."
            ) from error


class _HubStream:
    """A stream from the Hub, with a name for messages, whose errors are raised as `HubError`."""

    def __init__(self, stream: Any, name: str, explained: Callable[[], Any]) -> None:
        self.name = name
        self._stream, self._explained = stream, explained

    def read(self, size: int) -> bytes:
        with self._explained():
            return cast("bytes", self._stream.read(size))


class _NoProgress(tqdm):
    """A bar that is never shown, for a file that is fetched only to record its revision."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "disable": True})  # type: ignore[no-untyped-call]


@functools.cache
def _client_errors() -> tuple[type[Exception], ...]:
    """Return the classes of the errors that the Hub's client raises.

    They are its own and those of the library that it speaks HTTP with: requests (and below it urllib3) before
    version 1, later httpx or httpx2. The base classes of its own HTTP error tell which one it is.
    """
    errors = huggingface_hub.errors
    own = (  # besides its HTTP error, which is one of the library's
        "EntryNotFoundError",
        "OfflineModeIsEnabled",
        "LocalTokenNotFoundError",
        "FileMetadataError",
        "HFValidationError",
        "XetDownloadError",  # only later versions have this one and the next
        "RevisionResolutionError",
    )
    transport = next(
        base.__module__.partition(".")[0]
        for base in errors.HfHubHTTPError.__mro__[1:]
        if not base.__module__.startswith("huggingface_hub")
    )
    library = sys.modules[transport]
    theirs = ("RequestException", "HTTPError", "StreamError", "InvalidURL")
    found = [getattr(errors, name, None) for name in own] + [getattr(library, name, None) for name in theirs]
    if transport == "requests":
        found.append(importlib.import_module("urllib3.exceptions").HTTPError)
    return tuple(error for error in found if error is not None)


def hub_space() -> tuple[int, Path]:
    """Return the bytes that are free on the disk of the Hub's cache, and the path of the cache."""
    cache = Path(huggingface_hub.constants.HF_HUB_CACHE)
    return free_bytes(cache), cache


def _explained_cache() -> contextlib.AbstractContextManager[None]:
    """Return a context that explains a cache of the Hub that is read-only, or another user's."""
    return explain_forbidden(
        Path(huggingface_hub.constants.HF_HUB_CACHE),
        "a cache that can be written to, as files are not downloaded yet",
        "Set HF_HUB_CACHE to a folder of your own, or have the owner of this one download them: they are "
        "then read as they are.",
    )


def offline_variable() -> str:
    """Return the name of the environment variable that forbids the network; an empty text if none does."""
    if huggingface_hub.constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE"
    # Only `datasets` reads this one, by the same rules as the Hub's client, and it may not be imported.
    is_set = os.environ.get("HF_DATASETS_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    return "HF_DATASETS_OFFLINE" if is_set else ""


def _hint_to_delete(path: Path) -> str:
    # Name the blob, not the link to it: as long as the blob exists, the cache returns it again.
    return f"Delete {path.resolve()} and download again."
