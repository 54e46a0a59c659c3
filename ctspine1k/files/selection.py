"""Raw files of the cases you select: listed, downloaded, paired."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from ctspine1k.catalog.cases import WHAT_SELECTS, Case, Catalog, load_catalog
from ctspine1k.errors import (
    MissingFilesError,
    ScanTableError,
    SkippedCasesWarning,
    check_choice,
    shortened,
)
from ctspine1k.files.raw import KINDS, CaseFiles, Kind, RawFile
from ctspine1k.files.sources import DEFAULT_REPO, Source, find_source
from ctspine1k.scans.tables import is_current, read_tables
from ctspine1k.volumes.vertebrae import label, name

__all__ = [
    "ask_scan",
    "download_files",
    "find_files",
    "list_files",
    "pair_files",
    "require_cases",
    "select_cases",
]


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
        source: one of `ctspine1k.catalog.cases.SOURCES`.
        case: one case or several, by id or as `Case`.
        special_case: one of `ctspine1k.catalog.cases.SPECIAL_CASES`.
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
    *,
    has_vertebrae: str | Iterable[str] | None = None,
    scan: str | os.PathLike[str] | None = None,
    place: Source | None = None,
    **criteria: str | None,
) -> Catalog:
    """Select the cases named, or all, that match the criteria of `Catalog.where` and what a scan found.

    With ``has_vertebrae``, cases whose files are missing or cannot be used are kept: who reads them says so.

    Args:
        split_file: another assignment than the official one.
        case: one case or several; None for all.
        has_vertebrae: names of vertebrae that a case must hold, all of them.
        scan: the scan's table of cases; None for where a scan of ``place`` puts it.
        place: where the raw files are, for ``has_vertebrae``.
        criteria: as of `Catalog.where`.

    Raises:
        ValueError: a value that cannot match.
        UnknownCaseError: a case that is not in the catalog.
        ScanTableError: there is no such table, or it has not seen files that are there.
    """
    chosen = load_catalog(split_file).select(case).where(**criteria)
    if has_vertebrae is None or place is None:
        return chosen
    lacking = {one.case_id for one in ask_scan(chosen, has_vertebrae, scan, place)[1]}
    return Catalog(tuple(one for one in chosen if one.case_id not in lacking))


def require_cases(cases: Catalog) -> list[Case]:
    """Give the cases as a list.

    Raises:
        ValueError: there are none, so that nothing would be done.
    """
    if not cases:
        raise ValueError(f"no case is selected: {WHAT_SELECTS}")
    return list(cases)


def ask_scan(
    catalog: Catalog,
    vertebrae: str | Iterable[str],
    scan: str | os.PathLike[str] | None,
    place: Source,
) -> tuple[Catalog, Catalog]:
    """Tell which cases hold all of some vertebrae, and which do not; of the others the scan knows nothing.

    Raises:
        ValueError: there is no such vertebra.
        ScanTableError: there is no table, or it has not seen files that are there.
    """
    table = place.default_scan() if scan is None else Path(scan).expanduser()
    names = {name(label(which)) for which in ([vertebrae] if isinstance(vertebrae, str) else vertebrae)}
    rows = {row["case_id"]: row for row in read_tables(table).cases}
    files: dict[str, dict[str, str]] = {}
    for file in place.find(catalog):
        files.setdefault(file.case.case_id, {})[file.kind] = place.state(file)
    whole = {case_id: states for case_id, states in files.items() if len(states) == len(KINDS)}
    unseen = [
        case_id
        for case_id, states in whole.items()
        if case_id not in rows or not is_current(rows[case_id], states["image"], states["mask"])
    ]
    if unseen:
        found = f"none, or of other files, for {shortened(unseen)}"
        raise ScanTableError(str(table), "a row for each case's files as they are now", found)
    known = {case_id for case_id in whole if rows[case_id]["problem"] is None}
    holding = {case_id for case_id in known if names <= set(rows[case_id]["vertebrae"])}
    return (
        Catalog(tuple(case for case in catalog if case.case_id in holding)),
        Catalog(tuple(case for case in catalog if case.case_id in known - holding)),
    )


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
    return MissingFilesError(absent, len(cases), source.describe(), source.hint()) if absent else None
