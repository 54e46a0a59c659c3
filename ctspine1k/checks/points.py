"""The points of cases, one case after the other: from the files of a data set, or computed from its masks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

from ctspine1k import __version__
from ctspine1k._messages import check_choice, warn
from ctspine1k.catalog.cases import Case
from ctspine1k.catalog.dataset import DataSet, Kind, PointsFormat
from ctspine1k.catalog.vocabulary import Vocabulary
from ctspine1k.checks.reading import MeasureOptions
from ctspine1k.errors import CaseError, ChecksumError, OutputError, PointsError, SkippedCasesWarning
from ctspine1k.files.copies import require_outside
from ctspine1k.files.places import Place
from ctspine1k.files.raw import CaseFiles
from ctspine1k.files.selection import OnMissing, Selection, all_files, require_cases
from ctspine1k.files.transfer import fetch_case, quiet_hub, reading_case, worker_start
from ctspine1k.running.executors import Executor, executor
from ctspine1k.running.progress import run_with_bar
from ctspine1k.running.threads import usable_threads
from ctspine1k.running.versions import require_version
from ctspine1k.volumes.bodies import mask_indices
from ctspine1k.volumes.cases import CaseReader, open_case
from ctspine1k.volumes.orientation import degenerate_axes
from ctspine1k.volumes.points import (
    POINTS_KINDS,
    Points,
    PointsKind,
    check_reading,
    read_case_points,
    write_points,
    written_kind,
)
from ctspine1k.volumes.regions import LabelBox, require_scipy
from ctspine1k.volumes.relabel import Others, check_others
from ctspine1k.volumes.remarks import Remarks

__all__ = ["points_of_cases", "write_points_of_cases"]


def points_of_cases(
    selection: Selection,
    kind: PointsKind,
    *,
    reading: str | None = None,
    other_labels: Others = "raise",
    num_proc: int = 1,
    scheduler: str | None = None,
    on_missing: OnMissing = "raise",
    on_error: OnMissing = "raise",
) -> Iterator[tuple[Case, Points]]:
    """Check what is asked for, and yield each case with its points when read; see `Collection.points`."""
    check_choice("kind", kind, POINTS_KINDS)
    check_choice("on_missing", on_missing, ("raise", "skip"))
    check_choice("on_error", on_error, ("raise", "skip"))
    data_set = require_cases(selection).data_set
    required = _required(data_set, kind)
    if kind != "file":
        require_scipy()
        if reading is not None:
            raise ValueError(f"reading={reading!r}: expected None for kind={kind!r}, which reads no points")
        check_others(other_labels, data_set)
    else:
        check_reading(reading, data_set)
        if other_labels != "raise":
            wrong = f"other_labels={other_labels!r}"
            raise ValueError(f"{wrong}: expected 'raise' for kind='file', which reads no masks")
    workers = executor(num_proc, scheduler, initializer=worker_start())
    files, missing = all_files(selection, on_missing, required)
    if missing:
        warn(missing.summary, SkippedCasesWarning)
    selection.look.prepare([file for one in files for file in one.files.values()])
    options = MeasureOptions(reading, other_labels)
    how = data_set.vocabulary, data_set.points_format, kind, options
    work = partial(_points_of, __version__, selection.place, *how)
    return _read_all(work, files, workers, on_error)


@dataclass(frozen=True)
class _Result:
    """The points of a case, or why there are none."""

    case: Case
    found: Points | CaseError | ChecksumError
    remarks: Remarks


def _read_all(
    work: Callable[[CaseFiles], _Result], files: Sequence[CaseFiles], workers: Executor, on_error: OnMissing
) -> Iterator[tuple[Case, Points]]:
    names = [f"points/{one.case.case_id}" for one in files]
    with closing(run_with_bar(workers, work, files, names, "Reading points")) as results:
        for result in results:
            result.remarks.warn()
            if isinstance(result.found, Points):
                yield result.case, result.found
            elif on_error == "raise":
                raise result.found
            else:
                warn(f"{result.case.case_id} is left out: {result.found}", SkippedCasesWarning)


def _required(data_set: DataSet, kind: PointsKind) -> Sequence[Kind]:
    """Return the kinds of files that points of a kind are read from.

    Raises:
        ValueError: the data set has no such files; the message says what there is.
    """
    sources: dict[PointsKind, Kind] = {"file": "points", "mask": "mask", "body": "mask"}
    source = sources[kind]
    if source in data_set.possible:
        return "image", source
    there = [f"kind={other!r}" for other, needed in sources.items() if needed in data_set.possible]
    advice = f": pass {' or '.join(there)}" if there else ""
    raise ValueError(f"kind={kind!r}: expected {source} files of {data_set.title}, found none{advice}")


def _points_of(
    version: str,
    place: Place,
    vocabulary: Vocabulary,
    points_format: PointsFormat | None,
    kind: PointsKind,
    options: MeasureOptions,
    files: CaseFiles,
) -> _Result:
    """Return the points of one case, or why there are none; runs in any process."""
    require_version(version)
    remarks = Remarks()
    found: Points | CaseError | ChecksumError
    try:
        with quiet_hub():
            paths = fetch_case(place, files)
        opened = open_case(
            paths["image"],
            paths.get("mask"),
            on_geometry=None,  # whose warning advises to use that option
            other_labels=options.other_labels,
            vocabulary=vocabulary,
            threads=usable_threads(),
            on_change=remarks.changes.append,
        )
        with reading_case(files), opened as case:
            remarks.doubts += map(str, case.geometry_problems(by_place=True))
            if kind == "file":
                read = read_case_points(paths, case.geometry, vocabulary, points_format, options.reading)
                found = cast("Points", read)  # there is the file, else it would be missing
            else:
                found = _computed(case, kind, vocabulary)
    except (CaseError, ChecksumError) as error:
        found = error
    return _Result(files.case, found, remarks)


def _computed(case: CaseReader, kind: Literal["mask", "body"], vocabulary: Vocabulary) -> Points:
    """Return points computed from the mask of a case that was opened as stored."""
    if what := degenerate_axes(case.geometry.affine):
        expected = "an affine with a direction for each axis"
        raise PointsError(case.name, expected, what, "Its points have no position.")
    spine = LabelBox()
    for labels in case.label_slabs():
        spine.append(labels.transpose(0, 2, 1))  # to (k, j, i), the file's order in memory
    (k, j, i), box = spine.joined()
    indices = mask_indices(box.transpose(2, 1, 0), case.geometry, kind, (i, j, k))
    return Points.of(indices, case.geometry, vocabulary, kind)


#: The end of the names of files that are written.
_ENDING = "_ctd.json"


def write_points_of_cases(
    selection: Selection, out: Path, kind: PointsKind, **options: Any
) -> Iterator[Path]:
    """Write the points of each case to ``out``/CASE_ctd.json, and yield its path; see `Collection.points`.

    Raises:
        ValueError: the folder is in that of the raw files.
        OutputError: it holds points of another kind, or other files with these names.
    """
    check_choice("kind", kind, POINTS_KINDS)
    require_outside("out", out, [], selection.place.folder)
    for path in sorted(out.glob(f"*{_ENDING}")):
        with path.open("rb") as file:
            found = written_kind(file)
        if found != kind:
            what = f"points of kind {found!r}" if found else "another file"
            expected = f"no points but those that were written before, of kind {kind!r}"
            raise OutputError.occupied(str(path), expected, what)
    for case, points in points_of_cases(selection, kind, **options):
        path = out / f"{case.case_id}{_ENDING}"
        write_points(points, path)
        yield path
