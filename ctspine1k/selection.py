"""Raw files of the cases you select: listed, downloaded, paired."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from ctspine1k.catalog import Case, load_catalog
from ctspine1k.errors import MissingFilesError, SkippedCasesWarning, check_choice
from ctspine1k.rawfiles import KINDS, CaseFiles, Kind, RawFile
from ctspine1k.sources import DEFAULT_REPO, Source, find_source

__all__ = ["download_files", "list_files", "pair_files"]


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
    return _select(place, split, source, case, kind, split_file)[0]


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
    files, missing = _select(place, split, source, case, kind, split_file)
    if missing:
        if on_missing == "raise":
            raise missing
        warnings.warn(missing.summary, SkippedCasesWarning, stacklevel=2)
    return place.fetch(files)


def _select(
    place: Source,
    split: str | None,
    source: str | None,
    case: str | Case | Iterable[str | Case] | None,
    kind: Kind | None,
    split_file: str | os.PathLike[str] | None,
) -> tuple[list[RawFile], MissingFilesError | None]:
    """Find the files selected, and tell which of them are missing."""
    check_choice("kind", kind, KINDS)
    kinds = KINDS if kind is None else (kind,)
    catalog = load_catalog(split_file)
    named = catalog if case is None else catalog.select(case)
    cases = list(named.where(split=split, source=source))
    files = [file for file in place.find(cases) if file.kind in kinds]
    return files, _missing(files, cases, kinds, place)


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
