"""Selection of cases by what is known about them, and by what a scan has found.

`load_dataset`, the script's config, the command line and collections all use it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from ctspine1k.catalog.cases import Case, Criterion
from ctspine1k.files.selection import Selection

__all__ = ["select", "select_splits"]


def select(
    selection: Selection,
    cases: str | Case | Iterable[str | Case] | None = None,
    *,
    has_vertebrae: str | Iterable[str] | None = None,
    scan: str | os.PathLike[str] | None = None,
    **criteria: Criterion,
) -> Selection:
    """Return a selection with only the cases that meet all criteria.

    With ``has_vertebrae``, cases whose files are missing are kept: reading them raises the error. So are
    those that the scan could not use, with a warning: other options (``other_labels``, ``on_voxels``) may
    read them.

    Args:
        selection: where to select from.
        cases: one case or several; None for all.
        has_vertebrae: names of vertebrae that a case must contain, all of them, as a scan has found.
        scan: the scan's table of cases; None for its default path.
        criteria: as for `Catalog.where`.

    Raises:
        ValueError: a value that is not allowed, or a scan without ``has_vertebrae``.
        UnknownCaseError: a case that is not in the catalog.
        ScanTableError: there is no such table, or it does not cover all files that are there.
    """
    chosen = selection.narrow(cases, criteria)
    if has_vertebrae is None:
        if scan is not None:
            raise ValueError(
                f"scan={os.fspath(scan)!r}: expected has_vertebrae, too, for which the table is read"
            )
        return chosen
    from ctspine1k.scans.containing import cases_containing  # imports pyarrow, which few selections need

    found = cases_containing(chosen, has_vertebrae, scan)
    found.warn()
    return chosen.keep(found.kept)


def select_splits(selection: Selection, splits: str | Sequence[str] | None) -> Selection:
    """Return a selection with only these splits, in that order; None for all, in the data set's order.

    Raises:
        ValueError: there is no such split, or no case in any of them.
    """
    by_split = selection.cases.by_split(splits)
    return selection.keep(selection.cases.keep(case for cases in by_split.values() for case in cases))
