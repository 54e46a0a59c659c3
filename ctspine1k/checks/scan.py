"""A scan: every case is measured, several at a time, and stored in two tables. It resumes where it stopped.

Each case that is done is noted in a journal beside the tables, which are written when all are done. Tables
and journal say which files they describe (by size and modification time, or on the Hub by sha256), and with
which options: only cases whose files have changed, or that other options measure otherwise, are measured
again.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from ctspine1k._messages import check_choice, html_table, warn
from ctspine1k.checks.measure import require_scipy
from ctspine1k.checks.reading import MeasureOptions, read_cases
from ctspine1k.checks.records import own_records, record_of
from ctspine1k.errors import SkippedCasesWarning
from ctspine1k.files.selection import OnMissing, Selection, all_files, require_cases
from ctspine1k.files.transfer import worker_start
from ctspine1k.running.disk import explain_full_disk
from ctspine1k.running.executors import executor
from ctspine1k.running.stops import deferred_interrupts, explain_stop
from ctspine1k.scans.containing import scan_path
from ctspine1k.scans.tables import vertebrae_path
from ctspine1k.volumes.relabel import Others
from ctspine1k.volumes.slices import OnVoxels

__all__ = ["ScanReport", "scan"]

#: What a case takes in the journal, or in the tables, if it has all vertebrae.
_BYTES_OF_CASE = 16 << 10


@dataclass(frozen=True)
class ScanReport:
    """What a scan did."""

    cases: Path  #: the table of cases
    vertebrae: Path  #: the table of vertebrae
    measured: int  #: cases that were read
    kept: int  #: cases whose files have not changed since they were read, with options that give the same
    problems: dict[str, str]  #: why a case's files cannot be used, by case id
    missing: dict[str, str]  #: which file a case lacks, by case id; such a case is in no table

    def __repr__(self) -> str:
        return f"ScanReport({self._head})"

    def _repr_html_(self) -> str:
        lacking = {case_id: f"no {what} file" for case_id, what in self.missing.items()}
        rows = [*self.problems.items(), *lacking.items()]
        return html_table(self._head, ["case_id", "problem"], rows, len(rows), limit=50)

    @property
    def _head(self) -> str:
        return (
            f"{self.cases}: {self.measured:,} measured, {self.kept:,} kept, "
            f"{len(self.problems):,} unusable, {len(self.missing):,} missing"
        )


def scan(
    selection: Selection,
    out: Path | None,
    *,
    num_proc: int,
    scheduler: str | None,
    on_missing: OnMissing,
    reading: str | None = None,
    other_labels: Others = "raise",
    on_voxels: OnVoxels = "raise",
) -> ScanReport:
    """Measure cases, and write two tables (`ctspine1k.scans.tables`); see `Collection.scan`."""
    require_scipy()
    check_choice("on_missing", on_missing, ("raise", "skip"))
    options = MeasureOptions(reading, other_labels, on_voxels)
    options.check(selection.data_set)
    workers = executor(num_proc, scheduler, initializer=worker_start())
    files, missing = all_files(require_cases(selection), on_missing)
    if missing:
        warn(missing.summary, SkippedCasesWarning)
    path = scan_path(selection.place, out).absolute()
    room = explain_full_disk(path.parent, "a scan", _BYTES_OF_CASE * len(files))
    with deferred_interrupts(), room, own_records(path) as records:
        for case_id in missing.missing if missing else ():
            records.drop(case_id)
        fresh = [one for one in files if records.current(one, options) is None]
        done = len(files) - len(fresh)
        with (
            explain_stop(lambda: f"{done:,} of {len(files):,} cases are done"),
            closing(read_cases(selection, fresh, workers, options)) as scanned,
        ):
            for one in scanned:
                records.note(record_of(one, selection.data_set, options))
                done += 1
        records.write(selection.catalog)
    return ScanReport(
        path,
        vertebrae_path(path),
        measured=len(fresh),
        kept=len(files) - len(fresh),
        problems=records.problems(files),
        missing={} if missing is None else missing.missing,
    )
