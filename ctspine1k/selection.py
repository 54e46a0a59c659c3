"""Raw files of the cases you select: listed, downloaded, paired."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from ctspine1k.catalog import Case, Catalog, load_catalog
from ctspine1k.errors import (
    MissingFilesError,
    ScanTableError,
    SkippedCasesWarning,
    check_choice,
    shortened,
)
from ctspine1k.rawfiles import KINDS, CaseFiles, Kind, RawFile
from ctspine1k.sources import DEFAULT_REPO, Source, find_source
from ctspine1k.tables import read_tables
from ctspine1k.vertebrae import label, name

__all__ = ["download_files", "find_files", "list_files", "pair_files", "select_cases", "with_vertebrae"]


def list_files(
    *,
    split: str | None = None,
    source: str | None = None,
    case: str | Case | Iterable[str | Case] | None = None,
    special_case: str | None = None,
    exclude_issues: Literal["reported", "all"] | None = None,
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
        special_case: one of `ctspine1k.catalog.SPECIAL_CASES`.
        exclude_issues: leave out the cases with a "reported" issue, or "all" with any (`Catalog.where`).
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
    cases = select_cases(
        split_file,
        case,
        split=split,
        source=source,
        special_case=special_case,
        exclude_issues=exclude_issues,
    )
    return find_files(place, cases, kind)[0]


def download_files(  # noqa: D417 (the selection's arguments are those of list_files)
    *,
    split: str | None = None,
    source: str | None = None,
    case: str | Case | Iterable[str | Case] | None = None,
    special_case: str | None = None,
    exclude_issues: Literal["reported", "all"] | None = None,
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
    cases = select_cases(
        split_file,
        case,
        split=split,
        source=source,
        special_case=special_case,
        exclude_issues=exclude_issues,
    )
    files, missing = find_files(place, cases, kind)
    if missing:
        if on_missing == "raise":
            raise missing
        warnings.warn(missing.summary, SkippedCasesWarning, stacklevel=2)
    return place.fetch(files)


def select_cases(
    split_file: str | os.PathLike[str] | None,
    case: str | Case | Iterable[str | Case] | None,
    **criteria: str | None,
) -> Catalog:
    """Select the cases named, or all, that match the criteria of `Catalog.where`."""
    catalog = load_catalog(split_file)
    return (catalog if case is None else catalog.select(case)).where(**criteria)


def with_vertebrae(
    catalog: Catalog,
    vertebrae: str | Iterable[str],
    table: str | os.PathLike[str],
    source: Source,
) -> Catalog:
    """Keep the cases that hold all of some vertebrae, as a scan's table tells.

    Cases whose files are missing, or cannot be used, are kept: whoever reads them says so.

    Args:
        catalog: cases to look at.
        vertebrae: one name or several, such as "C1".
        table: a scan's table of cases.
        source: where the raw files are: the table must tell of them as they are now.

    Raises:
        ValueError: there is no such vertebra.
        ScanTableError: there is no such table, or it has not seen files that are there.
    """
    names = {name(label(which)) for which in ([vertebrae] if isinstance(vertebrae, str) else vertebrae)}
    rows = {row["case_id"]: row for row in read_tables(Path(table).expanduser()).cases}
    unseen: set[str] = set()
    lacking: set[str] = set()
    for file in source.find(catalog):
        case_id = file.case.case_id
        row = rows.get(case_id)
        if row is None or row[f"{file.kind}_file"] != source.state(file):
            unseen.add(case_id)
        elif row["problem"] is None and not names <= set(row["vertebrae"]):
            lacking.add(case_id)
    if unseen:
        found = f"none, or of other files, for {shortened(sorted(unseen))}"
        raise ScanTableError(str(table), "a row for each case's files as they are now", found)
    return Catalog(tuple(case for case in catalog if case.case_id not in lacking))


def find_files(
    place: Source, cases: Catalog, kind: Kind | None
) -> tuple[list[RawFile], MissingFilesError | None]:
    """Find the files of the cases, and tell which of them are missing."""
    check_choice("kind", kind, KINDS)
    kinds = KINDS if kind is None else (kind,)
    files = [file for file in place.find(cases) if file.kind in kinds]
    return files, _missing(files, list(cases), kinds, place)


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
