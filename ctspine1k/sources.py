"""Where raw files are: a Hub repo or a folder. Lists them, pairs them with cases, fetches and verifies them.

Files are known by their names alone: ``<case_id>.nii.gz`` is an image and ``<case_id>_seg.nii.gz`` its mask
(``.nii`` is fine too), in whatever folder. So every layout in circulation is read: the Hub's ``raw_data/``
(its card writes ``rawdata/``), the ``data/`` beside ``label/`` or ``label_new/`` of Google Drive and Baidu,
and flat folders. Names of folders are not looked at; two files for one image or mask are an error.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import IO, Any, Literal, Protocol, TypeAlias, cast

import huggingface_hub
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils.tqdm import tqdm

from ctspine1k import __version__
from ctspine1k.catalog import Case, Catalog, check_choice, load_catalog
from ctspine1k.errors import (
    AmbiguousFilesError,
    ChecksumError,
    CTSpine1KError,
    HubError,
    MissingFilesError,
    SkippedCasesWarning,
)

__all__ = [
    "DEFAULT_REPO",
    "CaseFiles",
    "FolderSource",
    "HubSource",
    "RawFile",
    "Source",
    "download_files",
    "find_source",
    "list_files",
    "pair_files",
]

#: The Hub repo (dataset) that holds the published raw files.
DEFAULT_REPO = "alexanderdann/CTSpine1K"

Kind: TypeAlias = Literal["image", "mask"]
KINDS: tuple[Kind, Kind] = ("image", "mask")

#: What follows the case id in a file's name.
_SUFFIXES: dict[Kind, tuple[str, ...]] = {
    "image": (".nii.gz", ".nii"),
    "mask": ("_seg.nii.gz", "_seg.nii"),
}


@dataclass(frozen=True)
class RawFile:
    """One raw file, on the Hub or on disk."""

    case: Case
    kind: Kind
    size: int  #: bytes
    path: str  #: in the repo, or the absolute path on disk
    url: str
    sha256: str | None  #: as the Hub records it; None for a file in a folder


@dataclass(frozen=True)
class CaseFiles:
    """Image and mask of one case."""

    case: Case
    image: RawFile
    mask: RawFile


class Source(Protocol):
    """Where raw files are. Pure data: no file is open and no connection held."""

    def describe(self) -> str:
        """Name the place, for messages."""

    def find(self, cases: Iterable[Case]) -> list[RawFile]:
        """List the files of ``cases`` that are there: in the order of cases, image before mask."""

    def fetch(self, files: Sequence[RawFile]) -> list[Path]:
        """Make files local, whole and verified, and give their paths in the same order."""

    def open(self, file: RawFile) -> contextlib.AbstractContextManager[IO[bytes]]:
        """Open a file to be read from start to end, without fetching it first."""

    def fingerprint(self, cases: Iterable[Case]) -> list[str]:
        """Tell what the rows of ``cases`` depend on: it changes when their files do."""

    def advice(self) -> str:
        """Say what to do about files that are not there."""


def find_source(
    data_dir: str | os.PathLike[str] | None,
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
        return HubSource(repo_id, revision or "main", token)
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

    def find(self, cases: Iterable[Case]) -> list[RawFile]:
        """List the files of ``cases`` that are in the folder."""
        return [
            RawFile(case, kind, os.stat(path).st_size, path, Path(path).as_uri(), None)  # noqa: PTH116
            for case, kind, path in _matched(self._paths, cases)
        ]

    def fetch(self, files: Sequence[RawFile]) -> list[Path]:
        """Give the paths: the files are here."""
        return [Path(file.path) for file in files]

    def open(self, file: RawFile) -> contextlib.AbstractContextManager[IO[bytes]]:
        """Open a file."""
        return Path(file.path).open("rb")

    def fingerprint(self, cases: Iterable[Case]) -> list[str]:
        """Tell path, size and modification time of each file."""
        stats = ((file.path, os.stat(file.path)) for file in self.find(cases))  # noqa: PTH116
        return [f"{path} {stat.st_size} {stat.st_mtime_ns}" for path, stat in stats]

    def advice(self) -> str:
        """Say what to do about files that are not there."""
        found = sum(path.endswith(_SUFFIXES["image"]) for path in self._paths)
        return (
            f"The folder holds {found:,} NIfTI files in all; an image is <case_id>.nii.gz, a mask "
            '<case_id>_seg.nii.gz. Pass on_missing="skip" to go on without these cases, or cases=[...] '
            "to name those you want."
        )

    @cached_property
    def _paths(self) -> list[str]:
        paths, visited = [], set()
        # Links to folders are followed, as people link large folders in; a loop of them is walked once.
        for folder, subfolders, names in os.walk(self.root, followlinks=True):
            if (real := os.path.realpath(folder)) in visited:
                subfolders.clear()
                continue
            visited.add(real)
            subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
            paths += [os.path.join(folder, name) for name in names]  # noqa: PTH118 (thousands of them)
        return paths


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

    @cached_property
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
            return cast("str", self._api.dataset_info(self.repo_id, revision=self.revision).sha)

    def find(self, cases: Iterable[Case]) -> list[RawFile]:
        """List the files of ``cases`` that are in the repo; offline, those that are cached."""
        return [
            RawFile(case, kind, size, path, self._url(path), sha256)
            for case, kind, path in _matched(self._records, cases)
            for size, sha256 in [self._records[path]]
        ]

    def fetch(self, files: Sequence[RawFile]) -> list[Path]:
        """Download what is not in the Hub's cache, eight at a time, and check size and sha256 of all."""
        if not files:
            return []
        if _is_offline():
            paths = [self._cached_snapshot / file.path for file in files]
            for path, file in zip(paths, files, strict=True):
                _verify(path, file)
            return paths
        with self._explained():
            self._record_revision(files[0])
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

    def open(self, file: RawFile) -> contextlib.AbstractContextManager[IO[bytes]]:
        """Open a file as one request, of which only what is read is transferred."""
        if _is_offline():
            return (self._cached_snapshot / file.path).open("rb")
        with self._explained():
            filesystem = huggingface_hub.HfFileSystem(token=self.token)
            # block_size=0: a stream, not blocks that are read ahead.
            stream = filesystem.open(f"datasets/{self.repo_id}@{self.commit}/{file.path}", "rb", block_size=0)
        return cast("contextlib.AbstractContextManager[IO[bytes]]", stream)

    def fingerprint(self, cases: Iterable[Case]) -> list[str]:
        """Tell repo and commit."""
        return [f"{self.repo_id}@{self.commit}"]

    def advice(self) -> str:
        """Say what to do about files that are not there."""
        if _is_offline():
            return (
                'HF_HUB_OFFLINE is set: unset it to download them, or pass on_missing="skip" to go on '
                "without these cases."
            )
        return 'Pass on_missing="skip" to go on without these cases, or cases=[...] to name those you want.'

    @property
    def _api(self) -> huggingface_hub.HfApi:
        return huggingface_hub.HfApi(token=self.token, library_name="ctspine1k", library_version=__version__)

    @cached_property
    def _records(self) -> dict[str, tuple[int, str | None]]:
        """Size and sha256 of each file, by its path in the repo."""
        if _is_offline():
            root = self._cached_snapshot
            paths = (Path(path) for path in FolderSource(root)._paths)
            return {path.relative_to(root).as_posix(): _cached_record(path) for path in paths}
        with self._explained():
            tree = self._api.list_repo_tree(
                self.repo_id, recursive=True, revision=self.commit, repo_type="dataset"
            )
            return {
                entry.path: (entry.size, entry.lfs.sha256 if entry.lfs else None)
                for entry in tree
                if isinstance(entry, RepoFile)
            }

    @cached_property
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
                "cache. Unset it and download once, or pass data_dir=... for a folder."
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
        _verify(Path(path), file)
        return Path(path)

    def _url(self, path: str) -> str:
        return huggingface_hub.hf_hub_url(self.repo_id, path, repo_type="dataset", revision=self.commit)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn what the Hub's client raises into a `HubError`.

        It comes from requests, httpx or huggingface_hub, by version: all that is not ours is the Hub's.
        """
        try:
            yield
        except CTSpine1KError:
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise HubError(
                f"{self.describe()}: {type(error).__name__}: {error}\nCheck repo_id, the revision, your "
                "token (for a private repo) and the network. What is downloaded stays; run again to go on "
                "from there. HF_HUB_OFFLINE=1 serves what is in the local cache."
            ) from error


class _NoProgress(tqdm):
    """No bar for one file that is only fetched to record its revision; a class, as the client wants one."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "disable": True})  # type: ignore[no-untyped-call]


def _is_offline() -> bool:
    return bool(huggingface_hub.constants.HF_HUB_OFFLINE)


def _cached_record(path: Path) -> tuple[int, str | None]:
    """Size and, where the cache's blob is named by it, sha256."""
    blob = path.resolve()
    return blob.stat().st_size, blob.name if len(blob.name) == 64 else None


def _verify(path: Path, file: RawFile) -> None:
    size = path.stat().st_size
    if size != file.size:
        raise ChecksumError(str(path), "size", str(file.size), str(size))
    if file.sha256 is None:  # not in LFS: git has no sha256 of it
        return
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    if digest.hexdigest() != file.sha256:
        raise ChecksumError(str(path), "sha256", file.sha256, digest.hexdigest())


def _matched(paths: Iterable[str], cases: Iterable[Case]) -> Iterator[tuple[Case, Kind, str]]:
    """Find image and mask of each case among paths, by file name."""
    names = {case.case_id + suffix for case in cases for kind in KINDS for suffix in _SUFFIXES[kind]}
    found: dict[str, list[str]] = {}
    for path in paths:
        name = os.path.basename(path)  # noqa: PTH119 (thousands of them)
        if name in names:
            found.setdefault(name, []).append(path)
    for case in cases:
        for kind in KINDS:
            candidates = [path for suffix in _SUFFIXES[kind] for path in found.get(case.case_id + suffix, [])]
            if len(candidates) > 1:
                raise AmbiguousFilesError(case.case_id, kind, sorted(candidates))
            for path in candidates:
                yield case, kind, path


def pair_files(
    source: Source, cases: Sequence[Case], on_missing: Literal["raise", "skip"]
) -> tuple[list[CaseFiles], MissingFilesError | None]:
    """Pair the files of each case, in order.

    Returns:
        The pairs, and what is missing, if anything is.

    Raises:
        MissingFilesError: a case lacks its image or mask, and ``on_missing`` is "raise" or all do.
    """
    files = source.find(cases)
    missing = _missing(files, cases, KINDS, source)
    by_case: dict[str, list[RawFile]] = {}
    for file in files:
        by_case.setdefault(file.case.case_id, []).append(file)
    pairs = [
        CaseFiles(case, *found) for case in cases if len(found := by_case.get(case.case_id, [])) == len(KINDS)
    ]
    if missing and (on_missing == "raise" or not pairs):
        raise missing
    return pairs, missing


def _missing(
    files: Iterable[RawFile], cases: Sequence[Case], kinds: Sequence[Kind], source: Source
) -> MissingFilesError | None:
    there = {(file.case, file.kind) for file in files}
    absent = {
        case.case_id: " and ".join(lacking)
        for case in cases
        if (lacking := [kind for kind in kinds if (case, kind) not in there])
    }
    return MissingFilesError(absent, len(cases), source.describe(), source.advice()) if absent else None


def list_files(
    *,
    split: str | None = None,
    source: str | None = None,
    case: str | Case | Iterable[str | Case] | None = None,
    kind: Kind | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    repo_id: str = DEFAULT_REPO,
    revision: str | None = None,
    split_file: str | os.PathLike[str] | None = None,
    token: str | bool | None = None,
) -> list[RawFile]:
    """List raw files of the cases that match all that is given, without reading any.

    Args:
        split: "train", "validation" or "test".
        source: one of `ctspine1k.catalog.SOURCES`.
        case: one case or several, by id or as `Case`.
        kind: "image" or "mask"; None for both.
        data_dir: a folder with raw files in any layout, instead of the Hub.
        repo_id: a Hub repo (dataset) with them.
        revision: its branch, tag or commit; None for "main".
        split_file: another assignment in the format of ``data_split.txt``.
        token: for a private repo; None for the token you are logged in with.

    Returns:
        The files that are there, in the catalog's order, image before mask. Offline
        (``HF_HUB_OFFLINE=1``) these are the files in the Hub's local cache.

    Raises:
        ValueError: a value that cannot match.
        UnknownCaseError: a case that is not in the catalog.
        AmbiguousFilesError: several files for one image or mask.
        HubError: the Hub cannot be reached, or has no such repo or revision.
    """
    place = find_source(data_dir, repo_id, revision, token)
    kinds = _kinds(kind)
    cases = _selected(load_catalog(split_file), split, source, case)
    return [file for file in place.find(cases) if file.kind in kinds]


def download_files(  # noqa: D417 (the selection's arguments are those of list_files)
    *,
    split: str | None = None,
    source: str | None = None,
    case: str | Case | Iterable[str | Case] | None = None,
    kind: Kind | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    repo_id: str = DEFAULT_REPO,
    revision: str | None = None,
    split_file: str | os.PathLike[str] | None = None,
    token: str | bool | None = None,
    on_missing: Literal["raise", "skip"] = "raise",
) -> list[Path]:
    """Download raw files to the Hub's local cache and check them; what is there is not fetched again.

    The selection is that of `list_files`. A transfer that breaks off goes on where it stopped, at the next
    call at the latest. Size and sha256 of each file are compared with the Hub's record, also where it was
    in the cache before.

    Args:
        split: with all that follows as in `list_files`.
        on_missing: "raise" if a selected file is not there, or "skip" it with a warning.

    Returns:
        Local paths, in the order of `list_files`. Do not write to them: they are the cache's own.

    Raises:
        MissingFilesError: a selected file is not there, and ``on_missing`` is "raise".
        ChecksumError: a file differs from the Hub's record.
        HubError: the Hub cannot be reached, or has no such repo or revision.
    """
    check_choice("on_missing", on_missing, ("raise", "skip"))
    place = find_source(data_dir, repo_id, revision, token)
    kinds = _kinds(kind)
    cases = _selected(load_catalog(split_file), split, source, case)
    files = [file for file in place.find(cases) if file.kind in kinds]
    if missing := _missing(files, cases, kinds, place):
        if on_missing == "raise":
            raise missing
        warnings.warn(str(missing), SkippedCasesWarning, stacklevel=2)
    return place.fetch(files)


def _kinds(kind: Kind | None) -> tuple[Kind, ...]:
    check_choice("kind", kind, KINDS)
    return KINDS if kind is None else (kind,)


def _selected(catalog: Catalog, split: str | None, source: str | None, case: Any) -> list[Case]:
    named = catalog if case is None else catalog.select(case)
    return list(named.where(split=split, source=source))
