"""The table of cases beside exported rows: what is known about each, and what a scan has measured."""

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

#: Column: whether the headers of image and mask place the same voxel differently. It needs a scan.
MISPLACED = "mask_misplaced"

#: Columns that a scan has measured, except those about its files, which may contain paths, and its options.
_OF_SCAN = (
    *("image_file", "mask_file", "problem", "geometry_problem", "header_problem"),
    *("other_labels", "replaced_voxels"),
)
_MEASURED = [field for field in list(CASES)[CASES.get_field_index("shape") :] if field.name not in _OF_SCAN]


def case_table(selection: Selection, files: Sequence[CaseFiles], scan: Path | None) -> pa.Table:
    """Return one row per case: what is known about it, and what a scan has measured, if there is one.

    Args:
        selection: the cases, and where their files are.
        files: of the cases that have them.
        scan: the scan's table of cases; None for its default path, if it exists.

    Raises:
        ScanTableError: ``scan`` is given, and is not the table of a scan.
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
            text = (
                f"not measured by the scan, or not with their current files: {shortened(unseen)}. Their "
                "columns are empty. Run `ctspine1k scan` (or Collection.scan) on all cases, with the "
                "export's other_labels and on_voxels, and export again: what is measured already is kept."
            )
            warn(text, CTSpine1KWarning)
    return pa.Table.from_pylist(rows, schema=pa.schema(fields))


def _scanned(
    selection: Selection, files: Sequence[CaseFiles], scan: Path | None
) -> dict[str, Mapping[str, Any]]:
    """Return the scan's rows of these files in their current state, by case id; those that have measures."""
    path = scan_path(selection.place, scan)
    if scan is None and not path.exists():
        return {}
    try:
        rows = {row["case_id"]: row for row in read_tables(path).cases}
    except ScanTableError as error:
        if scan is not None:
            raise
        warn(f"{error} The table of cases is written without its columns.", CTSpine1KWarning)
        return {}
    return {
        one.case.case_id: row
        for one in files
        if (row := rows.get(one.case.case_id)) is not None
        and row["problem"] is None
        and is_current(row, one.states)
    }
