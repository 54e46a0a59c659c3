"""The table of cases beside exported rows: what is known of each, and what a scan has measured."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from ctspine1k._messages import shortened
from ctspine1k.catalog.cases import Case
from ctspine1k.errors import CTSpine1KWarning, ScanTableError
from ctspine1k.files.raw import CaseFiles
from ctspine1k.files.sources import Source
from ctspine1k.scans.tables import CASES, is_current, read_tables

__all__ = ["MISPLACED", "case_table"]

#: Whether the headers of image and mask place the same voxel differently; there only if a scan is.
MISPLACED = "mask_misplaced"

#: Columns of a scan that say where files lie, or hold text that does: that is not for others.
_PRIVATE = ("image_file", "mask_file", "problem", "geometry_problem")


def case_table(
    cases: Sequence[Case],
    pairs: Sequence[CaseFiles],
    place: Source,
    scan: str | os.PathLike[str] | None,
) -> pa.Table:
    """Give a row a case: the fields of `Case`, and, where there is a scan, its columns.

    Args:
        cases: which, and in which order.
        pairs: the files of those that have them.
        place: where these are.
        scan: the scan's table of cases; None for where a scan of ``place`` puts it, if it is there.

    Raises:
        ScanTableError: the table that was named is none.
    """
    rows: list[dict[str, Any]] = [dict(case.row()) for case in cases]
    fields = [pa.field(name, pa.int32() if name == "index" else pa.string()) for name in rows[0]]
    scanned = _scanned(pairs, place, scan)
    if scanned:
        measured = [field for field in CASES if field.name not in (*rows[0], *_PRIVATE)]
        for row in rows:
            found = scanned.get(row["case_id"])
            row |= {field.name: found and found[field.name] for field in measured}
            row[MISPLACED] = found and found["geometry_problem"] is not None
        fields += [*measured, pa.field(MISPLACED, pa.bool_())]
        if unseen := [pair.case.case_id for pair in pairs if pair.case.case_id not in scanned]:
            text = f"the scan knows nothing of the files, as they are now, of {shortened(unseen)}"
            warnings.warn(text, CTSpine1KWarning, stacklevel=3)
    return pa.Table.from_pylist(rows, schema=pa.schema(fields))


def _scanned(
    pairs: Sequence[CaseFiles], place: Source, scan: str | os.PathLike[str] | None
) -> dict[str, Mapping[str, Any]]:
    """Give the scan's rows of these files as they are now, by case id."""
    path = place.default_scan() if scan is None else Path(scan).expanduser()
    if scan is None and not path.exists():
        return {}
    try:
        rows = {row["case_id"]: row for row in read_tables(path).cases}
    except ScanTableError as error:
        if scan is not None:
            raise
        warnings.warn(f"{error} The table of cases goes without.", CTSpine1KWarning, stacklevel=4)
        return {}
    return {
        pair.case.case_id: row
        for pair in pairs
        if (row := rows.get(pair.case.case_id)) is not None
        and is_current(row, place.state(pair.image), place.state(pair.mask))
    }
