"""A scan: every case measured, several at a time, and kept as two tables. Goes on where it was stopped.

Each case that is done is noted in a journal beside the tables, which appear when all are done. Tables and
journal tell which files they are of (by size and time of change, or on the Hub by sha256): a case whose files
have changed is measured anew, and no other.
"""

from __future__ import annotations

import contextlib
import json
import os
import warnings
from collections.abc import Generator, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, Literal

from ctspine1k.catalog.cases import Case, Catalog, load_catalog
from ctspine1k.checks.measure import CaseMeasures, measure, require_scipy
from ctspine1k.errors import (
    CaseError,
    ChecksumError,
    MissingFilesError,
    PairMismatchError,
    ScanTableError,
    SkippedCasesWarning,
    check_choice,
    unreadable,
)
from ctspine1k.files.raw import CaseFiles
from ctspine1k.files.selection import pair_files, require_cases, select_cases
from ctspine1k.files.sources import DEFAULT_REPO, Source, find_source, quiet_hub, silence_hub
from ctspine1k.running.disk import exclusive_lock
from ctspine1k.running.executors import executor
from ctspine1k.running.progress import progress_bar
from ctspine1k.running.threads import usable_threads
from ctspine1k.scans.tables import (
    SCAN_VERSION,
    ScanTables,
    check_target,
    is_current,
    read_tables,
    vertebrae_path,
    write_tables,
)
from ctspine1k.volumes.cases import check_file, open_case
from ctspine1k.volumes.vertebrae import name, region

__all__ = ["ScanReport", "ScannedCase", "scan_cases", "scan_files"]


@dataclass(frozen=True)
class ScannedCase:
    """What came of one case: its measures, or why its files cannot be used."""

    files: CaseFiles
    states: tuple[str, str]  #: of image and mask, as they were before they were read
    measures: CaseMeasures | None
    problems: tuple[CaseError | ChecksumError, ...] = ()  #: one a file at most; none if there are measures
    geometry_mismatch: PairMismatchError | None = None  #: what the two headers disagree on


@dataclass(frozen=True)
class ScanReport:
    """What a scan did."""

    cases: Path  #: the table of cases
    vertebrae: Path  #: the table of vertebrae
    measured: int  #: cases that were read
    kept: int  #: cases whose files have not changed since they were read
    problems: dict[str, str]  #: why a case's files cannot be used, by case id
    missing: dict[str, str]  #: what a case has no file of, by case id: it is in no table


def scan_files(
    *,
    data_dir: str | os.PathLike[str] | None = None,
    repo_id: str = DEFAULT_REPO,
    revision: str | None = None,
    split_file: str | os.PathLike[str] | None = None,
    split: str | None = None,
    source: str | None = None,
    case: str | Case | Iterable[str | Case] | None = None,
    special_case: str | None = None,
    exclude_issues: Literal["reported", "all"] | None = None,
    out: str | os.PathLike[str] | None = None,
    num_proc: int = 1,
    on_missing: Literal["raise", "skip"] = "skip",
    token: str | bool | None = None,
) -> ScanReport:
    """Measure the cases selected, and write two tables: `ctspine1k.scans.tables` tells their columns.

    A case whose files cannot be used has a row that says why. A scan that was stopped goes on where it was,
    and a table that is there is brought up to date: it then holds the cases selected and those that it held.

    Args:
        data_dir: a folder with raw files in any layout, instead of the Hub.
        repo_id: a Hub repo (dataset) with them; they are downloaded to the Hub's cache.
        revision: its branch, tag or commit; None for "main".
        split_file: another assignment in the format of ``data_split.txt``.
        split: with the next four, which cases, as of `Catalog.where` and `Catalog.select`.
        source: one of `ctspine1k.catalog.cases.SOURCES`.
        case: one case or several, by id or as `Case`.
        special_case: one of `ctspine1k.catalog.cases.SPECIAL_CASES`.
        exclude_issues: leave out cases with a "reported" issue, or "all" with any.
        out: the table of cases; that of vertebrae is ``NAME.vertebrae.parquet`` beside it. None for
            ``cases.parquet`` in ``data_dir``, or, for the Hub, in the working directory.
        num_proc: processes that measure; each needs up to 0.4 GB. More than one start Python anew, so a
            script needs ``if __name__ == "__main__":``.
        on_missing: what to do about cases without raw files: "skip" them with a warning, or "raise".
        token: for a private repo; None for the token you are logged in with.

    Raises:
        ValueError: an argument that is not allowed.
        MissingFilesError: cases have no raw files, and ``on_missing`` is "raise" or none has.
        MissingPackageError: SciPy is not installed.
        WorkerError: a worker process died; what is done is kept.
        HubError: the Hub cannot be reached; what is done is kept.
    """
    require_scipy()
    check_choice("on_missing", on_missing, ("raise", "skip"))
    place = find_source(data_dir, repo_id, revision, token)
    cases = select_cases(
        split_file,
        case,
        split=split,
        source=source,
        special_case=special_case,
        exclude_issues=exclude_issues,
    )
    pairs, missing = pair_files(place, require_cases(cases), on_missing)
    if missing:
        warnings.warn(missing.summary, SkippedCasesWarning, stacklevel=2)
    path = (place.default_scan() if out is None else Path(out).expanduser()).absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    with exclusive_lock(path):
        check_target(path)
        return _scan_to(path, place, pairs, missing, num_proc, load_catalog(split_file))


def _scan_to(
    path: Path,
    place: Source,
    pairs: Sequence[CaseFiles],
    missing: MissingFilesError | None,
    num_proc: int,
    catalog: Catalog,
) -> ScanReport:
    """Measure what is new, and write the tables; ``path`` is ours alone meanwhile."""
    journal = path.with_name(f".{path.name}.partial")
    recorded, noted = _recorded(path), _noted(journal)
    known = {**recorded, **noted}
    for case_id in missing.missing if missing else ():
        known.pop(case_id, None)
    fresh = []
    for pair in pairs:
        record = known.get(pair.case.case_id)
        if record is None or not _is_of(record["case"], pair, place):
            fresh.append(pair)
        else:
            record["case"] |= _facts(pair.case)  # they may be of another split file
    with (
        journal.open("a", encoding="utf-8") as notes,
        contextlib.closing(scan_cases(place, fresh, num_proc)) as scanned,
    ):
        for case_id in known.keys() - noted.keys():  # a stop between the two tables must lose nothing
            _note(notes, recorded[case_id])
        for one in scanned:
            record = known[one.files.case.case_id] = _record(one)
            _note(notes, record)
    records = [known.pop(case.case_id) for case in catalog if case.case_id in known]
    records += known.values()  # of another split file
    write_tables(
        path,
        ScanTables([record["case"] for record in records], [row for r in records for row in r["vertebrae"]]),
    )
    journal.unlink()
    by_id = {record["case"]["case_id"]: record["case"]["problem"] for record in records}
    return ScanReport(
        path,
        vertebrae_path(path),
        measured=len(fresh),
        kept=len(pairs) - len(fresh),
        problems={p.case.case_id: reason for p in pairs if (reason := by_id[p.case.case_id])},
        missing={} if missing is None else missing.missing,
    )


def scan_cases(
    source: Source, pairs: Sequence[CaseFiles], num_proc: int
) -> Generator[ScannedCase, None, None]:
    """Measure cases and yield each when it is done, with a progress bar where there is a terminal.

    Raises:
        ValueError: ``num_proc`` is below 1.
        WorkerError: a worker process died.
        HubError: the Hub cannot be reached.
    """
    workers = executor(num_proc, initializer=silence_hub)
    source.prepare([file for pair in pairs for file in (pair.image, pair.mask)])
    work = partial(_scan_case, source.pinned())
    names = [f"scan/{pair.case.split}/{pair.case.case_id}" for pair in pairs]
    with (
        quiet_hub(),  # of what this process does itself
        workers.ready() as run,
        contextlib.closing(run(work, pairs, names)) as scanned,
        progress_bar("Scanning", len(pairs), "case") as bar,
    ):
        for one in scanned:
            bar.update()
            yield one


def _scan_case(source: Source, files: CaseFiles) -> ScannedCase:
    try:
        # Before they are read: a file that is replaced meanwhile must not pass for what was measured.
        states = source.state(files.image), source.state(files.mask)
    except OSError as error:
        return ScannedCase(files, ("", ""), None, (unreadable(files.image.path, error),))
    try:
        image, mask = source.fetch([files.image, files.mask])
    except ChecksumError as error:
        return ScannedCase(files, states, None, (error,))
    try:
        with open_case(image, mask, on_geometry=None, threads=usable_threads()) as pair:
            return ScannedCase(files, states, measure(pair), geometry_mismatch=pair.geometry_mismatch())
    except (CaseError, OSError) as error:
        # The other file may be damaged as well, and this one too, beside what was seen first.
        problems = [problem for path in (image, mask) if (problem := _problem_of(path))]
        own = [error] if isinstance(error, CaseError) else []
        others = [problem for problem in problems if problem.file not in {e.file for e in own}]
        if not own and not others:
            raise
        return ScannedCase(files, states, None, (*own, *others))


def _problem_of(path: Path) -> CaseError | None:
    try:
        check_file(path)
    except CaseError as error:
        return error
    except OSError as error:
        return unreadable(str(path), error)
    return None


def _record(one: ScannedCase) -> dict[str, Any]:
    """Turn what came of a case into a row of the table of cases, and rows of that of vertebrae."""
    case = one.files.case
    row: dict[str, Any] = {
        **_facts(case),
        "image_file": one.states[0],
        "mask_file": one.states[1],
        "geometry_problem": one.geometry_mismatch and str(one.geometry_mismatch),
        "problem": " ".join(map(str, one.problems)) or None,
    }
    if one.measures is None:
        return {"version": SCAN_VERSION, "case": row, "vertebrae": []}
    measures = asdict(one.measures)
    vertebrae = [
        {"case_id": case.case_id, "vertebra": name(v["label"]), "region": region(v["label"]), **v}
        for v in measures.pop("vertebrae")
    ]
    row |= measures
    row["labels"] = [vertebra["label"] for vertebra in vertebrae]
    row["vertebrae"] = [vertebra["vertebra"] for vertebra in vertebrae]
    return {"version": SCAN_VERSION, "case": row, "vertebrae": vertebrae}


def _is_of(row: dict[str, Any], files: CaseFiles, source: Source) -> bool:
    """Tell whether a row is of these files, as they are now; what could not be used is looked at again."""
    return row["problem"] is None and is_current(row, source.state(files.image), source.state(files.mask))


def _facts(case: Case) -> dict[str, Any]:
    return {name: getattr(case, name) for name in ("case_id", "split", "index", "source", "special_case")}


def _recorded(path: Path) -> dict[str, dict[str, Any]]:
    """Give what earlier tables hold, by case id: nothing where there are none that can be used."""
    try:
        tables = read_tables(path)
    except ScanTableError:
        return {}
    records: dict[str, dict[str, Any]] = {
        row["case_id"]: {"version": SCAN_VERSION, "case": dict(row), "vertebrae": []} for row in tables.cases
    }
    for row in tables.vertebrae:
        records[row["case_id"]]["vertebrae"].append(dict(row))
    return records


def _note(notes: IO[str], record: dict[str, Any]) -> None:
    # The line break first: the last line of a scan that was stopped may lack its end.
    notes.write("\n" + json.dumps(record))
    notes.flush()


def _noted(journal: Path) -> dict[str, dict[str, Any]]:
    """Give what a scan that was stopped had done, by case id."""
    records = {}
    text = journal.read_bytes().decode(errors="replace") if journal.exists() else ""
    for line in text.splitlines():
        with contextlib.suppress(ValueError, LookupError, TypeError):  # the line that it was writing
            record = json.loads(line)
            if record["version"] == SCAN_VERSION:
                records[record["case"]["case_id"]] = record
    return records
