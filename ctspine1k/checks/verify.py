"""Verification: whether raw files are all there, complete, consistent and plausible.

Each problem is a `Finding`. `CHECKS` lists what is checked: the files (do they exist, with the right name, in
the right folder, complete), the pair (shapes, headers, label values), and the labels
(`ctspine1k.checks.plausibility`).
"""

from __future__ import annotations

import itertools
import posixpath
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

from ctspine1k._messages import difference_text, html_table, shortened
from ctspine1k.catalog.cases import Case
from ctspine1k.catalog.dataset import KINDS, DataSet, Kind
from ctspine1k.checks.catalogue import CHECKS, Check, Level
from ctspine1k.checks.levels import implausible_points
from ctspine1k.checks.measure import CaseMeasures, require_scipy
from ctspine1k.checks.plausibility import implausible
from ctspine1k.checks.reading import MeasureOptions, ScannedCase, read_cases
from ctspine1k.checks.records import Record, Records, measures_of, record_of, records_if_possible
from ctspine1k.errors import (
    CaseError,
    ChecksumError,
    CorruptFileError,
    FileFormatError,
    PairMismatchError,
    PointsError,
    TruncatedFileError,
    UnreadableFileError,
    VoxelValueError,
)
from ctspine1k.files.raw import CaseFiles, RawFile, predicted_masks
from ctspine1k.files.selection import Selection, require_cases
from ctspine1k.files.transfer import fetch_case, reading_case, worker_start
from ctspine1k.running.executors import Executor, executor
from ctspine1k.running.stops import check_stopped, deferred_interrupts, explain_stop
from ctspine1k.scans.containing import scan_path
from ctspine1k.scans.tables import is_current
from ctspine1k.volumes.cases import open_case
from ctspine1k.volumes.positions import Doubt
from ctspine1k.volumes.relabel import Others
from ctspine1k.volumes.slices import OnVoxels

__all__ = ["CHECKS", "Check", "Finding", "Report", "verify"]

#: The check that each error belongs to.
_CHECK_OF = {
    ChecksumError: "checksum",
    FileFormatError: "format",
    UnreadableFileError: "format",
    TruncatedFileError: "truncated",
    CorruptFileError: "corrupt",
    PairMismatchError: "shape",
    VoxelValueError: "values",
    PointsError: "points",
}


@dataclass(frozen=True)
class Finding:
    """One problem that was found."""

    level: Level
    check: str  #: one of `CHECKS`
    case_id: str | None  #: None for a file of no case
    file: str | None  #: None if it is not about a single file
    expected: str
    found: str
    known: tuple[str, ...]  #: kinds of the case's known issues that may explain it; empty if none does
    hint: str  #: what to do about it

    def __str__(self) -> str:
        known = f" This may be the known issue {' or '.join(self.known)}." if self.known else ""
        where = self.file or self.case_id
        return difference_text(str(where), self.expected, self.found, f"{self.hint}{known}")


#: Checks of measures that are about the image.
_OF_IMAGES = ("hu_range", "padded")

#: Findings of a check that a summary shows.
_SHOWN = 5


@dataclass(frozen=True)
class Report:
    """What a verification found."""

    place: str  #: where the files are
    cases: int  #: number of cases selected
    measured: int  #: of these, how many were read to the end and measured
    findings: tuple[Finding, ...]  #: in the order of the catalog
    kept: int  #: of those measured, how many an earlier run had read: their files have not changed since

    def __repr__(self) -> str:
        counts = Counter(finding.check for finding in self.findings)
        found = ", ".join(f"{check} {count:,}" for check, count in counts.most_common()) or "nothing found"
        return f"Report({self._head}: {found})"

    def _repr_html_(self) -> str:
        names = [one.name for one in fields(Finding)]
        rows = ([getattr(finding, name) for name in names] for finding in self.findings)
        return html_table(self._head, names, rows, len(self.findings), limit=50)

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    @property
    def _head(self) -> str:
        before = f" ({self.kept:,} of them by an earlier scan)" if self.kept else ""
        return f"{self.place}: {self.measured:,} of {self.cases:,} cases read to the end{before}"

    def summary(self) -> str:
        """Return the report as text: a line per check, and one for each of its first findings."""
        lines = [self._head]
        for check, count in Counter(finding.check for finding in self.findings).most_common():
            of_it = [finding for finding in self.findings if finding.check == check]
            known = sum(bool(finding.known) for finding in of_it)
            names = shortened(dict.fromkeys(str(f.case_id or f.file) for f in of_it), limit=_SHOWN)
            text = f", {known:,} of them known" if known else ""
            lines.append(
                f"{CHECKS[check].level:8} {check:13} {count:5,}  {CHECKS[check].what}{text}: {names}"
            )
            lines += [f"{'':9}{finding}" for finding in of_it[:_SHOWN]]
            if len(of_it) > _SHOWN:
                lines.append(f"{'':9}and {len(of_it) - _SHOWN:,} more")
        text = "\n".join(lines if self.findings else [*lines, "nothing found"])
        return text.encode(errors="backslashreplace").decode()  # a file's name need not be UTF-8


def verify(
    selection: Selection,
    table: Path | None,
    *,
    reread: bool,
    num_proc: int,
    scheduler: str | None,
    reading: str | None = None,
    other_labels: Others = "raise",
    on_voxels: OnVoxels = "raise",
) -> Report:
    """Check the raw files of cases: all `CHECKS`; see `Collection.verify`."""
    require_scipy()
    require_cases(selection)
    options = MeasureOptions(reading, other_labels, on_voxels)
    options.check(selection.data_set)
    workers = executor(num_proc, scheduler, initializer=worker_start())
    files, findings = _files(selection)
    path = scan_path(selection.place, table).absolute()
    with deferred_interrupts():
        kept = [] if reread else _kept(selection, files, path, options)
        again = "run again without reread (--reread)" if reread else "run again"
        read = _read(selection, files, kept, workers, path, options, again)
    for scanned in (*kept, *read):
        findings += _of_case(selection.data_set, scanned)
    findings += _twins(selection.data_set, [*kept, *read])
    position = {case.case_id: number for number, case in enumerate(selection.cases)}
    check_order = list(CHECKS)
    findings.sort(
        key=lambda f: (position.get(f.case_id or "", len(position)), check_order.index(f.check), f.file or "")
    )
    measured = {one.files.case.case_id for one in (*kept, *read) if one.measures}
    return Report(
        selection.look.place.describe(), len(selection.cases), len(measured), tuple(findings), len(kept)
    )


def _kept(
    selection: Selection, files: Sequence[CaseFiles], path: Path, options: MeasureOptions
) -> list[ScannedCase]:
    """Return the results of an earlier run for the files that have not changed since."""
    records, kept = Records(path, is_kept=False), []
    current = {one.case.case_id: record for one in files if (record := records.current(one, options))}
    if not current:
        return []
    selection.look.prepare([file for one in files for file in one.files.values()])
    for one in files:
        check_stopped()
        record = current.get(one.case.case_id)
        # Of duplicate files, only those that were measured.
        if record is not None and is_current(record["case"], one.states, KINDS):
            try:
                mismatch, doubts = _looked_at(selection, one, record)
            except (CaseError, ChecksumError):
                continue  # it is read again, which gives the finding
            measures = measures_of(record)
            kept.append(ScannedCase(one, one.states, measures, geometry_mismatch=mismatch, doubts=doubts))
    return kept


def _looked_at(
    selection: Selection, files: CaseFiles, record: Record
) -> tuple[PairMismatchError | None, tuple[Doubt, ...]]:
    """Check what a record does not contain: the bytes in the Hub's cache, and what is wrong with the headers.

    The state of a file in a folder is enough to know that its bytes were measured. The state of a file on the
    Hub is about the Hub's own copy: the one in the cache may be damaged, or gone.
    """
    texts = [record["case"][column] for column in ("geometry_problem", "header_problem")]
    is_sound = texts == [None, None]  # else the findings need the headers
    if selection.place.folder is not None and is_sound:
        return None, ()
    paths = fetch_case(selection.place, files)  # compares size and sha256 with the Hub's record
    if is_sound:
        return None, ()
    options: dict[str, Any] = {"vocabulary": selection.data_set.vocabulary, "on_geometry": None}
    with reading_case(files), open_case(paths["image"], paths.get("mask"), **options) as case:
        return case.geometry_mismatch(), case.doubts


def _read(
    selection: Selection,
    files: Sequence[CaseFiles],
    kept: Sequence[ScannedCase],
    workers: Executor,
    path: Path,
    options: MeasureOptions,
    again: str,
) -> list[ScannedCase]:
    """Read the cases that are not ``kept`` to their ends, and store their measures for other runs.

    Of a stop it is said how many are done, those that are kept included, and how to resume (``again``).

    Nothing is stored of a case with several files of a kind: it is not known which file is the right one.
    Nor is a record replaced that has other options, such as those of a scan.
    """
    known = {id(one.files) for one in kept}
    fresh = [one for one in files if id(one) not in known]
    if not fresh:
        return []
    count = Counter(one.case.case_id for one in files)
    read: list[ScannedCase] = []
    reading = closing(read_cases(selection, fresh, workers, options))
    stop = explain_stop(lambda: f"{len(kept) + len(read):,} of {len(files):,} cases are done", again)
    with stop, records_if_possible(path) as records, reading as scanned:
        for one in scanned:
            read.append(one)
            record = records.current(one.files)
            is_free = record is None or options.would_give(record["case"])
            if is_free and count[one.files.case.case_id] == 1:
                records.note(record_of(one, selection.data_set, options))
        records.write(selection.catalog)
    # Sorted, since several processes yield them in any order.
    return sorted(read, key=lambda one: [file.name for file in one.files.files.values()])


def _finding(
    data_set: DataSet,
    check: str,
    case: Case | None,
    expected: str,
    found: str,
    file: str | None = None,
    hint: str = "",
) -> Finding:
    kinds = data_set.known_by.get(check, ())
    known = [issue.kind for issue in case.issues if issue.kind in kinds] if case else []
    case_id = case.case_id if case else None
    level, hint = CHECKS[check].level, hint or CHECKS[check].hint
    return Finding(level, check, case_id, file, expected, found, tuple(dict.fromkeys(known)), hint)


def _files(selection: Selection) -> tuple[list[CaseFiles], list[Finding]]:
    """Find the files of the cases; list the missing, duplicated, unexpected and misplaced ones."""
    data_set = selection.data_set
    finding = partial(_finding, data_set)
    findings = list(_unexpected(selection))
    by_case: dict[str, dict[Kind, list[RawFile]]] = {case.case_id: {} for case in selection.cases}
    for file in selection.files(every=True):
        if file.kind not in data_set.possible:
            continue
        by_case[file.case.case_id].setdefault(file.kind, []).append(file)
        if file.kind == "mask" and selection.listing.predictions is not None:
            continue  # tools have folders of their own
        for expected, found in data_set.misplaced(file.path, file.case, file.kind):
            findings.append(finding("wrong_place", file.case, expected, found, file.name))
    complete, incomplete = [], []
    for case in selection.cases:
        own = by_case[case.case_id]
        for kind, several in own.items():
            if len(several) > 1:
                listed = shortened(file.name for file in several)
                findings.append(finding("duplicated", case, f"one {kind}", listed))
        if set(data_set.kinds) <= own.keys():
            # Duplicates are all read: the findings may tell which one to keep.
            complete += [
                CaseFiles(case, dict(zip(own, files, strict=True)))
                for files in itertools.product(*own.values())
            ]
        else:
            incomplete.append((case, list(own)))
    return complete, findings + _missing(selection, incomplete)


def _missing(selection: Selection, incomplete: Sequence[tuple[Case, Sequence[Kind]]]) -> list[Finding]:
    """List the cases that lack files, given what each has, with advice on where to get the others."""
    if not incomplete:
        return []
    data_set, place = selection.data_set, selection.place
    published = data_set.read_cases(None)
    here = place.hint(selection.listing, data_set.suffixes, data_set.naming)
    own_files = f"{here} Add the files, or leave the case out.".lstrip()
    findings = []
    for case, own in incomplete:
        lacking = [kind for kind in data_set.kinds if kind not in own]
        is_predicted = selection.listing.predictions is not None and "mask" in lacking
        hint = own_files
        if case.case_id in published and not is_predicted:
            if data_set.how_to_get:
                hint = f"{data_set.how_to_get} Or leave the case out."
            elif data_set.repo_id and place.folder:
                hint = CHECKS["missing"].hint  # the Hub has them
        there = f"only the {' and '.join(own)}" if own else "neither"
        expected = " and ".join(data_set.kinds)
        findings.append(_finding(data_set, "missing", case, expected, there, hint=hint))
    return findings


def _unexpected(selection: Selection) -> Iterator[Finding]:
    """List the files that have names of scans and belong to no case."""
    data_set, place, listing = selection.data_set, selection.place, selection.listing
    unknown = [
        (path, place.folder)
        for path in sorted(listing)
        if not any(case_id in selection.catalog for case_id, _ in data_set.parse_name(path))
    ]
    known = {case.case_id: case for case in selection.catalog}
    predicted = predicted_masks(listing, data_set, known)
    unknown += [(path, place.tables) for path, _, owners in predicted if not owners]
    for path, folder in unknown:
        name = posixpath.basename(path)
        if any(suffix in name.lower() for suffix in data_set.suffixes):
            where = str(folder / path) if folder else path
            yield _finding(data_set, "unexpected", None, "the name of a case's image or mask", name, where)


def _of_case(data_set: DataSet, one: ScannedCase) -> Iterator[Finding]:
    """List what is wrong with a case that was read."""
    case = one.files.case
    finding = partial(_finding, data_set)
    for error in one.problems:
        yield finding(_CHECK_OF[type(error)], case, error.expected, error.found, error.file, error.hint)
    of_place: list[tuple[str, CaseError]] = [(doubt.kind, doubt.error) for doubt in one.doubts]
    if one.geometry_mismatch:
        of_place.append(("geometry", one.geometry_mismatch))
    for check, error in of_place:
        hint = f"{error.hint} {CHECKS[check].hint}"
        yield finding(check, case, error.expected, error.found, error.file, hint)
    if one.measures:
        for kind, check, expected, found in _implausible(data_set, case, one.measures):
            yield finding(check, case, expected, found, one.files[kind].name)


def _implausible(
    data_set: DataSet, case: Case, measures: CaseMeasures
) -> Iterator[tuple[Kind, str, str, str]]:
    """List what is strange about the measures of a case, each with the kind of file that it is about."""
    vocabulary, points = data_set.vocabulary, measures.points
    for check, *texts in implausible(measures, vocabulary, is_cropped=data_set.is_cropped):
        yield "image" if check in _OF_IMAGES else "mask", check, texts[0], texts[1]
    if points is not None:
        boxes = {vertebra.label: (vertebra.start, vertebra.stop) for vertebra in measures.vertebrae}
        for check, *texts in implausible_points(points, boxes, vocabulary):
            yield "points", check, texts[0], texts[1]
    has_mask = measures.mask_type is not None
    labels = [one.label for one in (measures.vertebrae if has_mask else points or ())]
    for check, *texts in data_set.odd_labels(case, labels):
        yield "mask" if has_mask else "points", check, texts[0], texts[1]


def _twins(data_set: DataSet, scanned: Sequence[ScannedCase]) -> Iterator[Finding]:
    """List cases that have the same image, or the same mask."""
    for check, what in (("same_image", "image"), ("same_mask", "mask")):
        groups: dict[object, dict[str, Case]] = {}
        for one in scanned:
            if one.measures and (what == "image" or one.measures.vertebrae):
                checksum = getattr(one.measures, f"{what}_crc32")
                group = groups.setdefault((one.measures.shape, checksum), {})
                group[one.files.case.case_id] = one.files.case
        for cases in groups.values():
            for case in cases.values() if len(cases) > 1 else ():
                others = shortened(other for other in cases if other != case.case_id)
                yield _finding(data_set, check, case, f"its own {what}", f"that of {others}")
