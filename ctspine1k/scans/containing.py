"""Cases by the vertebrae that they contain, as a scan has found."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ctspine1k._messages import shortened, warn
from ctspine1k.catalog.cases import Catalog
from ctspine1k.catalog.dataset import KINDS
from ctspine1k.errors import CTSpine1KWarning, ScanTableError
from ctspine1k.files.places import Place
from ctspine1k.files.raw import group_files
from ctspine1k.files.selection import Selection
from ctspine1k.scans.tables import is_current, read_tables

__all__ = ["Containing", "cases_containing", "scan_path"]


def scan_path(place: Place, scan: str | os.PathLike[str] | None = None) -> Path:
    """Return the path of a scan's table of cases: the one given, or its default.

    The default is in the folder with the files; with predicted masks, in their folder; for the Hub, in the
    working directory.
    """
    return place.tables / "cases.parquet" if scan is None else Path(scan).expanduser()


@dataclass(frozen=True)
class Containing:
    """Cases that contain some vertebrae, as far as a scan knows."""

    kept: Catalog  #: those that contain them, or of which nothing is known
    without_files: Catalog  #: of these, those without files
    unusable: Catalog  #: and those that the scan could not use, as it was asked to read them

    def warn(self) -> None:
        """Issue a warning that names the unusable ones, if there are any."""
        if self.unusable:
            listed = shortened(case.case_id for case in self.unusable)
            text = (
                f"kept without knowing what they contain, as the scan could not use them: {listed}. "
                "`ctspine1k scan` says what is wrong. Repair them, or scan them with the options with which "
                "they are read: other_labels (--other-labels), on_voxels (--on-voxels)."
            )
            warn(text, CTSpine1KWarning)


def cases_containing(
    selection: Selection, vertebrae: str | Iterable[str], scan: str | os.PathLike[str] | None = None
) -> Containing:
    """Return the cases that contain all these vertebrae, or of which nothing is known.

    Args:
        selection: the cases, and where their files are.
        vertebrae: names or labels.
        scan: the scan's table of cases; None for `scan_path`.

    Raises:
        ValueError: there is no such vertebra.
        ScanTableError: there is no table, or it does not cover all files that are there.
    """
    table = scan_path(selection.place, scan)
    vocabulary = selection.data_set.vocabulary
    wanted = [vertebrae] if isinstance(vertebrae, str) else vertebrae
    names = {vocabulary.vertebra(which).name for which in wanted}
    rows = {row["case_id"]: row for row in read_tables(table).cases}
    kinds, possible = set(selection.data_set.kinds), selection.data_set.possible
    files = [file for file in selection.files() if file.kind in possible]
    complete = [one for one in group_files(files).values() if kinds <= one.files.keys()]
    unseen = [
        one.case.case_id
        for one in complete
        if one.case.case_id not in rows or not is_current(rows[one.case.case_id], one.states, KINDS)
    ]
    if unseen:
        found = f"no row, or a row of other files, for {shortened(unseen)}"
        raise ScanTableError(str(table), "a row for each case's files as they are now", found)
    there = {one.case.case_id: rows[one.case.case_id] for one in complete}
    unusable = {case_id for case_id, row in there.items() if row["problem"] is not None}
    lacking = {
        case_id
        for case_id, row in there.items()
        if case_id not in unusable and not names <= set(row["vertebrae"])
    }
    cases = selection.cases
    return Containing(
        cases.keep(case for case in cases if case.case_id not in lacking),
        cases.keep(case for case in cases if case.case_id not in there),
        cases.keep(case for case in cases if case.case_id in unusable),
    )
