"""Measures stored between runs: the tables of a scan, and a journal of cases that are not in them yet."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeAlias

from ctspine1k._messages import warn
from ctspine1k.catalog.cases import Case, Catalog
from ctspine1k.catalog.dataset import KINDS, DataSet
from ctspine1k.catalog.vocabulary import Vocabulary
from ctspine1k.checks.measure import CaseMeasures, VertebraMeasures
from ctspine1k.checks.reading import MeasureOptions, ScannedCase
from ctspine1k.errors import BusyError, CTSpine1KWarning, OutputError, ScanTableError
from ctspine1k.files.raw import CaseFiles
from ctspine1k.running.disk import exclusive_lock, make_folder
from ctspine1k.running.notes import append_notes, read_notes
from ctspine1k.scans.tables import (
    SCAN_VERSION,
    ScanTables,
    check_target,
    file_columns,
    is_current,
    read_tables,
    write_tables,
)
from ctspine1k.volumes.points import Point

__all__ = ["Record", "Records", "measures_of", "own_records", "record_of", "records_if_possible"]

#: One case: its row in the table of cases, its rows in that of vertebrae, and the version of both tables.
Record: TypeAlias = "dict[str, Any]"

#: Columns of the table of cases that come from the catalog.
_FACTS = ("case_id", "split", "index", "source", "special_case")


class Records:
    """Measures of cases from earlier runs and from this one.

    Each case is noted in a hidden file beside the tables as soon as it is done, so that a stopped run loses
    nothing.
    """

    def __init__(self, path: Path, *, is_kept: bool = True, is_optional: bool = False) -> None:
        self._path, self._is_kept, self._is_optional = path, is_kept, is_optional
        self._journal = path.with_name(f".{path.name}.partial")
        recorded, noted = _recorded(path), _noted(self._journal)
        self._known = {**recorded, **noted}
        self._unnoted = [recorded[case_id] for case_id in recorded.keys() - noted.keys()]

    def current(self, files: CaseFiles, options: MeasureOptions | None = None) -> Record | None:
        """Return the record of these files in their current state; None if they have to be read (again).

        A case that could not be used is read again: the cause, such as a disk error, may be gone. So is one
        that was measured with other options than these, if they are given, and they would not give the same.
        """
        record = self._known.get(files.case.case_id)
        if record is None or record["case"]["problem"] is not None:
            return None
        if not is_current(record["case"], files.states, KINDS):
            return None
        if options is not None and not options.would_give(record["case"]):
            return None
        record["case"] |= _facts(files.case)  # the record may come from another split file
        return record

    def drop(self, case_id: str) -> None:
        """Remove a case whose files are gone."""
        self._unnoted = [record for record in self._unnoted if record["case"]["case_id"] != case_id]
        self._known.pop(case_id, None)

    def note(self, record: Record) -> None:
        """Keep the record of a case that was measured."""
        self._known[record["case"]["case_id"]] = record
        if not self._is_kept:
            return
        # Records of the tables, too: they are replaced one by one, and a stop in between invalidates both.
        records, self._unnoted = [*self._unnoted, record], []
        with self._kept_if_possible():
            self._append(records)

    def write(self, catalog: Catalog) -> None:
        """Write the tables: the cases in the order of the catalog, then those of other split files."""
        if not self._is_kept:
            return
        with self._kept_if_possible():
            self._write(catalog)

    def _write(self, catalog: Catalog) -> None:
        self._append(self._unnoted)
        ordered = [self._known.pop(case.case_id) for case in catalog if case.case_id in self._known]
        records = [*ordered, *self._known.values()]
        self._known = {record["case"]["case_id"]: record for record in records}
        rows = [row for record in records for row in record["vertebrae"]]
        write_tables(self._path, ScanTables([record["case"] for record in records], rows))
        self._journal.unlink()

    def problems(self, files: Iterable[CaseFiles]) -> dict[str, str]:
        """Return why cases cannot be used, by their id."""
        found = {one.case.case_id: self._known[one.case.case_id]["case"]["problem"] for one in files}
        return {case_id: problem for case_id, problem in found.items() if problem}

    @contextlib.contextmanager
    def _kept_if_possible(self) -> Iterator[None]:
        """Stop storing after an error, such as a full disk, with a warning, if storing is optional."""
        try:
            yield
        except (OSError, OutputError) as error:
            if not self._is_optional:
                raise
            self._is_kept = False
            warn(_NOT_KEPT.format(error), CTSpine1KWarning)

    def _append(self, records: Iterable[Record]) -> None:
        append_notes(self._journal, map(json.dumps, records))


#: The warning if results cannot be written.
_NOT_KEPT = "measures are not stored for other runs: {}"


@contextlib.contextmanager
def own_records(path: Path) -> Iterator[Records]:
    """Open the records whose table of cases is at ``path``, locked for this process.

    Raises:
        ValueError: the name is not that of such a table.
        OutputError: a file is in the place of its folder, or there is one that no scan wrote.
        BusyError: another process is writing there.
    """
    make_folder(path.parent)
    with exclusive_lock(path):
        check_target(path, "--out")
        yield Records(path)


@contextlib.contextmanager
def records_if_possible(path: Path) -> Iterator[Records]:
    """Open the records as `own_records` does; if that fails, warn, and store nothing."""
    with contextlib.ExitStack() as stack:
        try:
            make_folder(path.parent)
            stack.enter_context(exclusive_lock(path))
            check_target(path, "--scan")
        except (BusyError, OSError, OutputError) as error:
            warn(_NOT_KEPT.format(error), CTSpine1KWarning)
            yield Records(path, is_kept=False)
        else:
            yield Records(path, is_optional=True)


def record_of(scanned: ScannedCase, data_set: DataSet, options: MeasureOptions) -> Record:
    """Return the result of a case as a row of the table of cases, and rows of that of vertebrae."""
    vocabulary = data_set.vocabulary
    case, mismatch = scanned.files.case, scanned.geometry_mismatch
    row: dict[str, Any] = {
        **_facts(case),
        **file_columns(scanned.states, data_set.possible),
        "reading": options.reading if "points" in scanned.states else None,
        "geometry_problem": None if mismatch is None else str(mismatch),
        "header_problem": " ".join(str(doubt.error) for doubt in scanned.doubts) or None,
        "problem": " ".join(map(str, scanned.problems)) or None,
    }
    if scanned.measures is None:
        return {"version": SCAN_VERSION, "case": row, "vertebrae": []}
    measures = asdict(scanned.measures)
    labelled, points = measures.pop("vertebrae"), measures.pop("points")
    row |= measures
    vertebrae = _vertebra_rows(case.case_id, labelled, points, vocabulary)
    # Without a mask, the vertebrae of a case are those that have points.
    found = [one for one in vertebrae if one["voxels"] is not None] if measures["mask_type"] else vertebrae
    row["labels"] = [vertebra["label"] for vertebra in found]
    row["vertebrae"] = [vertebra["vertebra"] for vertebra in found]
    return {"version": SCAN_VERSION, "case": row, "vertebrae": vertebrae}


def _vertebra_rows(
    case_id: str,
    labelled: Sequence[dict[str, Any]],
    points: Sequence[dict[str, Any]] | None,
    vocabulary: Vocabulary,
) -> list[dict[str, Any]]:
    """Return a row for each vertebra that has a label in the mask, or a point, in the order of labels."""
    own = {one["label"]: one for one in labelled}
    places = {one["label"]: {"point": one["voxel"], "point_mm": one["mm"]} for one in points or ()}
    rows = []
    for label in sorted({*own, *places}):
        vertebra = vocabulary.vertebra(label)
        names = {"case_id": case_id, "vertebra": vertebra.name, "region": vertebra.region, "label": label}
        measured = own.get(label) or dict.fromkeys(VertebraMeasures.__dataclass_fields__)
        rows.append({**names, **measured, "label": label, **places.get(label, {})})
    return rows


def measures_of(record: Record) -> CaseMeasures:
    """Return the measures that a record was made from."""

    def fields(kind: type[Any], row: dict[str, Any]) -> dict[str, Any]:
        names = [name for name in kind.__dataclass_fields__ if name not in ("vertebrae", "points")]
        return {name: _as_tuples(row[name]) for name in names}

    rows, points = record["vertebrae"], None
    if record["case"].get("points_file") is not None:
        points = tuple(
            Point(row["label"], row["vertebra"], _as_tuples(row["point"]), _as_tuples(row["point_mm"]))
            for row in rows
            if row.get("point") is not None
        )
    vertebrae = tuple(
        VertebraMeasures(**fields(VertebraMeasures, row)) for row in rows if row["voxels"] is not None
    )
    return CaseMeasures(**fields(CaseMeasures, record["case"]), vertebrae=vertebrae, points=points)


def _as_tuples(value: Any) -> Any:
    return tuple(map(_as_tuples, value)) if isinstance(value, (list, tuple)) else value


def _facts(case: Case) -> dict[str, Any]:
    row = case.row()
    return {name: row.get(name) for name in _FACTS}


def _recorded(path: Path) -> dict[str, Record]:
    """Return the records of earlier tables, by case id; none if there are no usable tables."""
    try:
        tables = read_tables(path)
    except ScanTableError:
        return {}
    records: dict[str, Record] = {
        row["case_id"]: {"version": SCAN_VERSION, "case": dict(row), "vertebrae": []} for row in tables.cases
    }
    for row in tables.vertebrae:
        records[row["case_id"]]["vertebrae"].append(dict(row))
    return records


def _noted(journal: Path) -> dict[str, Record]:
    """Return the records of a run that was stopped, by case id."""
    records = map(json.loads, read_notes(journal))
    return {record["case"]["case_id"]: record for record in records if record["version"] == SCAN_VERSION}
