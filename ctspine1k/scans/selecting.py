"""From flat options to a selection, for `load_dataset`, the script, commands and collections alike."""

from __future__ import annotations

import os
from collections.abc import Iterable

from ctspine1k.catalog.cases import Case
from ctspine1k.catalog.dataset import DataSet
from ctspine1k.catalog.registry import DEFAULT, data_set, load_catalog
from ctspine1k.files.places import find_place
from ctspine1k.files.selection import Look, Selection

__all__ = ["open_selection", "select"]


def open_selection(
    collection: str = DEFAULT,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    repo_id: str | None = None,
    revision: str | None = None,
    split_file: str | os.PathLike[str] | None = None,
    token: str | bool | None = None,
) -> Selection:
    """Return all cases of a data set, and the place with their files. Nothing is listed yet.

    Args:
        collection: the data set's name.
        data_dir: a folder with raw files in any known layout, instead of the Hub.
        repo_id: a Hub repo (dataset) with them; None for the data set's own.
        revision: its branch, tag or commit; None for "main".
        split_file: another assignment in the format of the data set's own; None for that.
        token: for a private repo; None for the token you are logged in with.

    Raises:
        ValueError: an argument that is not allowed, or arguments that contradict each other.
        FileNotFoundError: there is no folder at ``data_dir``, or no file at ``split_file``.
        SplitFileError: the split file cannot be read.
    """
    chosen: DataSet = data_set(collection)
    if data_dir is not None and repo_id not in (None, chosen.repo_id):
        raise ValueError(f"data_dir={os.fspath(data_dir)!r} and repo_id={repo_id!r} are two places: give one")
    place = find_place(data_dir, repo_id or chosen.repo_id, revision, token)
    catalog = load_catalog(collection, split_file=split_file)
    return Selection(chosen, catalog, catalog, Look(place))


def select(
    selection: Selection,
    cases: str | Case | Iterable[str | Case] | None = None,
    *,
    has_vertebrae: str | Iterable[str] | None = None,
    scan: str | os.PathLike[str] | None = None,
    **criteria: str | None,
) -> Selection:
    """Narrow a selection: to the cases named that meet all criteria, and contain all of some vertebrae.

    With ``has_vertebrae``, cases whose files are missing or cannot be used are kept: whoever reads them says
    so.

    Args:
        selection: where to select from.
        cases: one case or several; None for all.
        has_vertebrae: names of vertebrae that a case must contain, all of them, as a scan has found.
        scan: the scan's table of cases; None for where a scan keeps it.
        criteria: as of `Catalog.where`.

    Raises:
        ValueError: a value that cannot match.
        UnknownCaseError: a case that is not in the catalog.
        ScanTableError: there is no such table, or it has not seen files that are there.
    """
    chosen = selection.keep(selection.cases.select(cases).where(**criteria))
    if has_vertebrae is None:
        return chosen
    from ctspine1k.scans.containing import cases_containing  # reads Parquet, which most selections do without

    lacking = {case.case_id for case in cases_containing(chosen, has_vertebrae, scan)[1]}
    return chosen.keep(chosen.cases.keep(case for case in chosen.cases if case.case_id not in lacking))
