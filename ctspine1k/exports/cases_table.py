"""The table of cases beside exported rows: what is known of each, and what a scan has measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from ctspine1k._messages import shortened, warn
from ctspine1k.errors import CTSpine1KWarning, ScanTableError
from ctspine1k.files.raw import CaseFiles
from ctspine1k.files.selection import Selection
from ctspine1k.scans.containing import scan_path
from ctspine1k.scans.tables import CASES, is_current, read_tables

__all__ = ["MISPLACED", "case_table"]

#: Whether the headers of image and mask place the same voxel differently; there only if a scan is.
MISPLACED = "mask_misplaced"

#: What a scan has measured: its columns behind the facts, but for those that say where files lie, or hold
#: text that does.
_MEASURED = [
    field
    for field in list(CASES)[CASES.get_field_index("shape") :]
    if field.name not in ("image_file", "mask_file", "problem", "geometry_problem")
]


def case_table(selection: Selection, files: Sequence[CaseFiles], scan: Path | None) -> pa.Table:
    """Return one row per case: what is known of it, and, where there is a scan, what that has measured.

    Args:
        selection: the cases, and where their files are.
        files: of the cases that have them.
        scan: the scan's table of cases; None for where a scan keeps it, if it is there.

    Raises:
        ScanTableError: the table that was named is not one of a scan.
    """
    rows = [case.row() for case in selection.cases]
    fields = [pa.field(name, pa.int32() if name == "index" else pa.string()) for name in rows[0]]
    scanned = _scanned(selection, files, scan)
    if scanned:
        for row in rows:
            found = scanned.get(row["case_id"])
            row |= {field.name: found and found[field.name] for field in _MEASURED}
            row[MISPLACED] = found and found["geometry_problem"] is not None
        fields += [*_MEASURED, pa.field(MISPLACED, pa.bool_())]
        if unseen := [one.case.case_id for one in files if one.case.case_id not in scanned]:
            text = f"the scan knows nothing of the files, as they are now, of {shortened(unseen)}"
            warn(text, CTSpine1KWarning)
    return pa.Table.from_pylist(rows, schema=pa.schema(fields))


def _scanned(
    selection: Selection, files: Sequence[CaseFiles], scan: Path | None
) -> dict[str, Mapping[str, Any]]:
    """Return the scan's rows of these files as they are now, by case id."""
    path = scan_path(selection.place, scan)
    if scan is None and not path.exists():
        return {}
    try:
        rows = {row["case_id"]: row for row in read_tables(path).cases}
    except ScanTableError as error:
        if scan is not None:
            raise
        warn(f"{error} The table of cases goes without.", CTSpine1KWarning)
        return {}
    return {
        one.case.case_id: row
        for one in files
        if (row := rows.get(one.case.case_id)) is not None and is_current(row, one.states)
    }
