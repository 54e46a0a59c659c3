"""Cases read to their ends and measured, in this process or in workers."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ctspine1k import __version__
from ctspine1k._messages import check_choice
from ctspine1k.catalog.dataset import DataSet, Kind, PointsFormat
from ctspine1k.catalog.vocabulary import Vocabulary
from ctspine1k.checks.measure import CaseMeasures, measure
from ctspine1k.errors import CaseError, ChecksumError, PairMismatchError, UnreadableFileError
from ctspine1k.files.places import Place
from ctspine1k.files.raw import CaseFiles
from ctspine1k.files.selection import Selection
from ctspine1k.files.transfer import fetch_case, quiet_hub, reading_case
from ctspine1k.running.executors import Executor
from ctspine1k.running.progress import run_with_bar
from ctspine1k.running.threads import usable_threads
from ctspine1k.running.versions import require_version
from ctspine1k.volumes.cases import check_file, open_case
from ctspine1k.volumes.points import check_reading, read_case_points
from ctspine1k.volumes.positions import Doubt
from ctspine1k.volumes.relabel import Others, check_others
from ctspine1k.volumes.slices import OnVoxels

__all__ = ["MeasureOptions", "ScannedCase", "read_cases"]


@dataclass(frozen=True)
class MeasureOptions:
    """Options that decide, together with the files of a case, what its measures are."""

    reading: str | None = None  #: how coordinates in files of points are meant; None for the way that fits
    other_labels: Others = "raise"  #: labels in masks that the data set lacks: an error, or "background"
    on_voxels: OnVoxels = "raise"  #: NaN and infinite intensities: an error, or "replace" them by padding

    def check(self, data_set: DataSet) -> None:
        """Raise a `ValueError` if an option is not allowed for a data set."""
        check_reading(self.reading, data_set)
        check_others(self.other_labels, data_set)
        check_choice("on_voxels", self.on_voxels, ("raise", "replace"))

    def would_give(self, row: Mapping[str, Any]) -> bool:
        """Return whether these options would give a row of the table of cases, which has no problem."""
        if row.get("points_file") is not None and row["reading"] != self.reading:
            return False
        if row["replaced_voxels"] and self.on_voxels == "raise":
            return False
        return self.other_labels == "background" or not row["other_labels"]


@dataclass(frozen=True)
class ScannedCase:
    """The result of one case: its measures, or why its files cannot be used."""

    files: CaseFiles
    states: dict[Kind, str]  #: of the files, from before they were read
    measures: CaseMeasures | None
    problems: tuple[CaseError | ChecksumError, ...] = ()  #: one per file at most; none if there are measures
    geometry_mismatch: PairMismatchError | None = None  #: what the two headers disagree on
    doubts: tuple[Doubt, ...] = ()  #: about the position that a header gives


def read_cases(
    selection: Selection, files: Sequence[CaseFiles], workers: Executor, options: MeasureOptions
) -> Generator[ScannedCase, None, None]:
    """Measure cases and yield each when it is done, with a progress bar where there is a terminal.

    Raises:
        WorkerError: a worker process died, or the scheduler is lost.
        HubError: the Hub cannot be reached.
    """
    if not files:  # without work, no cluster is connected to
        return
    selection.look.prepare([file for one in files for file in one.files.values()])
    data_set = selection.data_set
    of_data_set = data_set.vocabulary, data_set.points_format
    work = partial(_scan_case, __version__, selection.place, *of_data_set, options)
    names = [f"scan/{one.case.case_id}" for one in files]
    yield from run_with_bar(workers, work, files, names, "Scanning")


def _scan_case(
    version: str,
    place: Place,
    vocabulary: Vocabulary,
    points_format: PointsFormat | None,
    options: MeasureOptions,
    files: CaseFiles,
) -> ScannedCase:
    """Measure one case; runs in any process."""
    require_version(version)
    with quiet_hub():
        return _scanned(place, vocabulary, points_format, options, files)


def _scanned(
    place: Place,
    vocabulary: Vocabulary,
    points_format: PointsFormat | None,
    options: MeasureOptions,
    files: CaseFiles,
) -> ScannedCase:
    try:
        with reading_case(files):
            # Before reading: a file that is replaced meanwhile must not be mistaken for the measured one.
            states = {kind: place.state(file) for kind, file in files.files.items()}
    except UnreadableFileError as error:
        return ScannedCase(files, dict.fromkeys(files.files, ""), None, (error,))
    try:
        paths = fetch_case(place, files)
    except (ChecksumError, UnreadableFileError) as error:
        return ScannedCase(files, states, None, (error,))
    try:
        with (
            reading_case(files),
            open_case(
                paths["image"],
                paths.get("mask"),
                on_geometry=None,
                vocabulary=vocabulary,
                other_labels=options.other_labels,
                on_voxels=options.on_voxels,
                threads=usable_threads(),
                on_change=lambda _: None,  # it is among the measures
            ) as case,
        ):
            points = read_case_points(paths, case.geometry, vocabulary, points_format, options.reading)
            measures, mismatch = measure(case, points), case.geometry_mismatch()
            return ScannedCase(files, states, measures, geometry_mismatch=mismatch, doubts=case.doubts)
    except CaseError as error:
        return ScannedCase(files, states, None, tuple(_all_problems(error, files, paths)))


def _all_problems(seen: CaseError, files: CaseFiles, paths: dict[Kind, Path]) -> list[CaseError]:
    """List the problems of each file: the second file may be damaged, too, and the first in other ways.

    Points cannot be read without the image.
    """
    problems = [] if isinstance(seen, UnreadableFileError) else [seen]
    for path in (path for kind, path in paths.items() if kind != "points"):
        try:
            with reading_case(files):
                check_file(path)
        except CaseError as error:
            if error.file not in {problem.file for problem in problems}:
                problems.append(error)
    return problems or [seen]
