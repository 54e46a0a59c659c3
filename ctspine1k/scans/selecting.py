"""Cases selected by what is known of them, and by what a scan has found: the one way for all verbs.

`load_dataset`, the script's config, the command line and collections all come to their cases by it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from ctspine1k.catalog.cases import Case
from ctspine1k.files.selection import Selection

__all__ = ["select", "select_splits"]


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
        criteria: as for `Catalog.where`.

    Raises:
        ValueError: a value that cannot match, or a scan and nothing to ask it for.
        UnknownCaseError: a case that is not in the catalog.
        ScanTableError: there is no such table, or it has not seen files that are there.
    """
    chosen = selection.narrow(cases, criteria)
    if has_vertebrae is None:
        if scan is not None:
            raise ValueError(
                f"scan={os.fspath(scan)!r}: expected has_vertebrae beside it, for which the table is read"
            )
        return chosen
    from ctspine1k.scans.containing import cases_containing  # reads Parquet, which most selections do without

    lacking = {case.case_id for case in cases_containing(chosen, has_vertebrae, scan)[1]}
    return chosen.keep(chosen.cases.keep(case for case in chosen.cases if case.case_id not in lacking))


def select_splits(selection: Selection, splits: str | Sequence[str] | None) -> Selection:
    """Narrow a selection to some splits, in that order; None for all, in the order of the data set.

    Raises:
        ValueError: there is no such split, or no case in any of them.
    """
    by_split = selection.cases.by_split(splits)
    return selection.keep(selection.cases.keep(case for cases in by_split.values() for case in cases))
