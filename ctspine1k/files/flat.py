"""Raw files in one call, with all options as its arguments."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from ctspine1k.catalog.cases import Case, Criterion
from ctspine1k.catalog.dataset import Kind
from ctspine1k.catalog.registry import DEFAULT
from ctspine1k.files.raw import RawFile
from ctspine1k.files.selection import OnMissing, open_selection, selected_files
from ctspine1k.files.transfer import download_selected

__all__ = ["download_files", "list_files"]


def list_files(
    *,
    cases: str | Case | Iterable[str | Case] | None = None,
    kind: Kind | None = None,
    collection: str = DEFAULT,
    data_dir: str | os.PathLike[str] | None = None,
    repo_id: str | None = None,
    revision: str | None = None,
    split_file: str | os.PathLike[str] | None = None,
    token: str | bool | None = None,
    **criteria: Criterion,
) -> list[RawFile]:
    """List raw files of the cases that match all criteria, without reading any.

    Args:
        cases: one case or several, by id or as `Case`; None for all.
        kind: "image", "mask" or "points"; None for all that cases may have.
        collection: the data set's name; the next five as for `ctspine1k.open_collection`.
        data_dir: a folder with raw files in any known layout, instead of the Hub.
        repo_id: a Hub repo (dataset) with them; None for the data set's own.
        revision: its branch, tag or commit; None for "main".
        split_file: split file to use instead of the data set's own (same format). None for the one in
            ``data_dir`` if that folder lacks files of the data set's own cases.
        token: for a private repo; None for the token you are logged in with.
        criteria: facets of the data set, such as ``split="train"``; as for `Catalog.where`.

    Returns:
        The files that are there, as for `ctspine1k.Collection.files`.

    Raises:
        ValueError, TypeError: a value that is not allowed, or no such facet.
        UnknownCaseError: a case that is not in the catalog.
        AmbiguousFilesError: several files for one image or mask.
        HubError: the Hub cannot be reached, or has no such repo or revision.
    """
    opened = open_selection(
        collection, data_dir=data_dir, repo_id=repo_id, revision=revision, split_file=split_file, token=token
    )
    return selected_files(opened.narrow(cases, criteria), kind)[0]


def download_files(
    *,
    cases: str | Case | Iterable[str | Case] | None = None,
    kind: Kind | None = None,
    collection: str = DEFAULT,
    data_dir: str | os.PathLike[str] | None = None,
    repo_id: str | None = None,
    revision: str | None = None,
    split_file: str | os.PathLike[str] | None = None,
    token: str | bool | None = None,
    on_missing: OnMissing = "raise",
    **criteria: Criterion,
) -> list[Path]:
    """Download raw files of the cases that match all criteria, as `ctspine1k.Collection.download` does.

    Args:
        cases: one case or several, by id or as `Case`; None for all.
        kind: "image", "mask" or "points"; None for all that cases may have.
        collection: the data set's name; the next five as for `ctspine1k.open_collection`.
        data_dir: a folder with raw files in any known layout, whose paths are then returned.
        repo_id: a Hub repo (dataset) with them; None for the data set's own.
        revision: its branch, tag or commit; None for "main".
        split_file: split file to use instead of the data set's own (same format). None for the one in
            ``data_dir`` if that folder lacks files of the data set's own cases.
        token: for a private repo; None for the token you are logged in with.
        on_missing: "raise" if a selected file is not there, or "skip" it with a warning.
        criteria: facets of the data set, such as ``split="train"``; as for `Catalog.where`.

    Returns:
        Local paths, in the order of `list_files`. Do not write to them: they belong to the cache.

    Raises:
        ValueError, TypeError: a value that is not allowed, or no such facet.
        UnknownCaseError: a case that is not in the catalog.
        MissingFilesError: a selected file is not there, and ``on_missing`` is "raise".
        NoSpaceError: the files do not fit on the disk.
        ChecksumError: a file differs from the Hub's record.
        HubError: the Hub cannot be reached, or has no such repo or revision.
    """
    opened = open_selection(
        collection, data_dir=data_dir, repo_id=repo_id, revision=revision, split_file=split_file, token=token
    )
    return download_selected(opened.narrow(cases, criteria), kind, on_missing)
