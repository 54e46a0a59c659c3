"""A run of an evaluation: it goes over the reference, keeps what earlier runs did, and writes results."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeAlias, cast

from numpy.typing import NDArray

from ctspine1k._messages import check_count, warn
from ctspine1k.errors import OutputError, SkippedCasesWarning
from ctspine1k.evaluation.journal import SUMMARY, TABLE, Journal, check_folder
from ctspine1k.evaluation.pointed import GivenPoints, check_reference, point_tasks, score_points_of
from ctspine1k.evaluation.presets import preset_of
from ctspine1k.evaluation.report import report
from ctspine1k.evaluation.results import CaseResult, Evaluation
from ctspine1k.evaluation.scoring import (
    Scored,
    ScoringOptions,
    Task,
    score_arrays,
    score_files,
    score_masks_of,
)
from ctspine1k.evaluation.table import ScoreTable
from ctspine1k.files.places import find_folder
from ctspine1k.files.predicted_points import find_points
from ctspine1k.files.predictions import case_names, find_predictions, require_predictions
from ctspine1k.files.raw import RawFile
from ctspine1k.files.selection import OnMissing, Selection, require_cases
from ctspine1k.files.transfer import worker_start
from ctspine1k.running.disk import (
    atomic_write,
    delete_abandoned,
    exclusive_lock,
    explain_full_disk,
    make_folder,
)
from ctspine1k.running.executors import Executor, executor
from ctspine1k.running.stops import deferred_interrupts, explain_stop

__all__ = ["REPORT", "EvaluationOptions", "evaluate", "write_results"]

REPORT = "report.md"

#: What a case takes in the notes and in the table, if it has all vertebrae.
_BYTES_OF_CASE = 64 << 10

#: Predictions in memory: the id of each case, and its mask.
Arrays: TypeAlias = "Iterable[tuple[str, NDArray[Any]]]"

#: Draws the pictures of an evaluation into a folder, and returns the name of each, and what it shows.
Draw: TypeAlias = "Callable[[Evaluation, Path], Sequence[tuple[str, str]]]"


@dataclass(frozen=True)
class EvaluationOptions:
    """Options of `Collection.evaluate`, but for those of a case's scores."""

    preset: str = "ctspine1k"
    on_missing: OnMissing = "raise"
    miss_penalty_mm: float | None = None
    seed: int = 0
    sacrum: bool = False
    num_proc: int = 1
    scheduler: str | None = None
    scoring: ScoringOptions = field(default_factory=ScoringOptions)

    def __post_init__(self) -> None:
        preset_of(self.preset)
        check_count("seed", self.seed, 0)
        if self.miss_penalty_mm is not None and not 0 <= self.miss_penalty_mm < math.inf:
            raise ValueError(f"miss_penalty_mm={self.miss_penalty_mm}: expected 0 mm or more, or None")


def evaluate(
    selection: Selection,
    predictions: Path | Arrays | GivenPoints,
    out: Path | None = None,
    options: EvaluationOptions | None = None,
    draw: Draw | None = None,
) -> Evaluation:
    """Score predictions of cases; see `Collection.evaluate`.

    ``draw`` draws pictures into the folder of the results, and returns their names and what they show.
    """
    options = options or EvaluationOptions()
    check_reference(selection.data_set, options.scoring)
    options.scoring.reference_table(selection.data_set.vocabulary)  # checks the label scheme
    require_cases(selection)
    is_of_masks = options.scoring.points is None
    if is_of_masks and not isinstance(predictions, Path):
        with deferred_interrupts(), _journal(selection, None, out) as journal:
            evaluation = _of_arrays(selection, cast("Arrays", predictions), options)
            _finish(evaluation, out, journal, draw)
        return evaluation
    workers = executor(options.num_proc, options.scheduler, initializer=worker_start())
    if is_of_masks:
        tasks, unknown = _mask_tasks(selection, cast("Path", predictions), options.on_missing)
    else:
        given = cast("Path | GivenPoints", predictions)
        tasks, unknown = point_tasks(selection, given, options.scoring, options.on_missing)
    folder = predictions if isinstance(predictions, Path) else None
    with deferred_interrupts(), _journal(selection, folder, out) as journal:
        scored = _scored(selection, tasks, options, workers, journal)
        results = [
            CaseResult(task, task.key(options.scoring, selection.place), scored[task.case.case_id].problem)
            for task in tasks
        ]
        evaluation = _evaluation(selection, list(scored.values()), results, unknown, options)
        _finish(evaluation, out, journal, draw)
    return evaluation


@contextmanager
def _journal(selection: Selection, predictions: Path | None, out: Path | None) -> Iterator[Journal | None]:
    """Yield the journal in the folder of the results, locked for this process; None without a folder."""
    if out is None:
        yield None
        return
    check_folder(out)
    _check_apart(out, {"predictions": predictions, "raw files": selection.place.folder})
    make_folder(out)
    needed = _BYTES_OF_CASE * len(selection.cases)
    with explain_full_disk(out, "an evaluation", needed), exclusive_lock(out / TABLE):
        delete_abandoned(out)
        yield Journal(out)


def _finish(evaluation: Evaluation, out: Path | None, journal: Journal | None, draw: Draw | None) -> None:
    """Write the results, if there is a folder for them."""
    if out is not None and journal is not None:
        write_results(evaluation, out, journal, draw)
        journal.delete()


def _mask_tasks(
    selection: Selection, predictions: Path, on_missing: OnMissing
) -> tuple[list[Task], tuple[str, ...]]:
    """Return the cases whose masks to score, in order, and the predictions of no case."""
    if predictions.is_file():
        raise ValueError(
            f"{predictions}: expected a folder with masks, found a file. A table of points needs "
            'points="body" or points="mask" (--points): which of the two they are.'
        )
    references = _references(selection, on_missing)
    folder = find_folder(predictions, "predictions", "masks")
    found = find_predictions(folder, selection.data_set, selection.cases, selection.catalog)
    if not found.files:
        if find_points(folder, selection.data_set, selection.cases, selection.catalog).files:
            raise ValueError(
                f'{predictions}: expected masks, found files of points. Pass points="body" or points="mask" '
                "(--points): which of the two they are."
            )
        require_predictions(folder, predictions, "masks", selection.data_set.suffixes)
    tasks = [Task(file.case, file, found.files.get(case_id, {})) for case_id, file in references.items()]
    return tasks, found.unknown


def _check_apart(out: Path, folders: Mapping[str, Path | None]) -> None:
    """Check that results lie in none of these folders.

    Raises:
        OutputError: they would.
    """
    where = out.expanduser().resolve()
    for what, folder in folders.items():
        if folder is not None and where.is_relative_to(folder.expanduser().resolve()):
            hint = "Choose a folder beside it."
            raise OutputError(str(out), f"a folder outside of that with the {what}", str(folder), hint)


def _references(selection: Selection, on_missing: OnMissing) -> dict[str, RawFile]:
    """Return the mask of each case, by id; missing ones are an error, or left out with a warning."""
    files = {file.case.case_id: file for file in selection.files() if file.kind == "mask"}
    missing = selection.missing(list(files.values()), ["mask"], on_missing)
    if missing is not None:
        if on_missing == "raise" or not files:
            raise missing
        warn(missing.summary, SkippedCasesWarning)
    return files


def _scored(
    selection: Selection,
    tasks: Sequence[Task],
    options: EvaluationOptions,
    workers: Executor,
    journal: Journal | None,
) -> dict[str, Scored]:
    """Return the scores of all cases in their order, from earlier runs where nothing has changed."""
    keys = {task.case.case_id: task.key(options.scoring, selection.place) for task in tasks}
    done: dict[str, Scored] = {}
    if journal is not None:
        done = {case_id: kept for case_id, key in keys.items() if (kept := journal.get(key, case_id))}
    fresh = [task for task in tasks if task.case.case_id not in done]
    selection.look.prepare([task.reference for task in fresh])
    vocabulary = selection.data_set.vocabulary
    score = score_masks_of if options.scoring.points is None else score_points_of
    with (
        explain_stop(lambda: f"{len(done):,} of {len(tasks):,} cases are done"),
        closing(score_files(selection.place, fresh, vocabulary, options.scoring, workers, score)) as scored,
    ):
        for one in scored:
            done[one.case_id] = one
            if journal is not None:
                journal.note(keys[one.case_id], one)
    return {case_id: done[case_id] for case_id in keys}


def _of_arrays(selection: Selection, arrays: Arrays, options: EvaluationOptions) -> Evaluation:
    """Score masks in memory, one after the other."""
    references = _references(selection, options.on_missing)
    vocabulary = selection.data_set.vocabulary
    names = case_names(selection.catalog)
    done: dict[str, Scored] = {}
    unknown = []
    for name, array in arrays:
        case_id = names.get(name, name)
        if isinstance(array, Mapping):
            raise ValueError(
                f'{case_id}: expected a mask, found points. Pass points="body" or points="mask": which '
                "of the two they are."
            )
        if case_id not in references:
            if case_id not in selection.catalog:
                unknown.append(case_id)
            continue
        if case_id in done:
            raise ValueError(f"{case_id}: expected one prediction, found a second one")
        task = Task(selection.cases[case_id], references[case_id], {})
        done[case_id] = score_arrays(selection.place, task, array, vocabulary, options.scoring)
    absent = [Task(file.case, file, {}) for case_id, file in references.items() if case_id not in done]
    missed = score_files(selection.place, absent, vocabulary, options.scoring, executor(1), score_masks_of)
    done |= {one.case_id: one for one in missed}
    results = [
        CaseResult(Task(file.case, file, {}), None, done[case_id].problem)
        for case_id, file in references.items()
    ]
    ordered = [done[case_id] for case_id in references]
    return _evaluation(selection, ordered, results, tuple(unknown), options)


def _evaluation(
    selection: Selection,
    scored: Sequence[Scored],
    results: Sequence[CaseResult],
    unknown: tuple[str, ...],
    options: EvaluationOptions,
) -> Evaluation:
    return Evaluation(
        selection.data_set,
        preset_of(options.preset),
        ScoreTable(tuple(row for one in scored for row in one.rows)),
        tuple(results),
        unknown,
        asdict(options.scoring),
        {case.case_id: case for case in selection.cases},
        options.miss_penalty_mm,
        options.seed,
        options.sacrum,
    )


def write_results(evaluation: Evaluation, out: Path, journal: Journal, draw: Draw | None = None) -> None:
    """Write the results into a folder: pictures, table and report, and last the summary.

    Nothing is written, or drawn, if they are there; a report that is not makes all of them again.
    """
    document = evaluation.document()
    summary = json.dumps(document, indent=2, allow_nan=False) + "\n"
    table = evaluation.table.csv()
    files = ((SUMMARY, summary), (TABLE, table))
    if (out / REPORT).exists() and all(_is_same(out / name, text) for name, text in files):
        return  # an earlier run has written them, the summary last
    journal.keep()  # what stops this run now leaves no summary
    (out / SUMMARY).unlink(missing_ok=True)  # until all files are of this run
    pictures = draw(evaluation, out) if draw is not None else ()
    for name, text in (
        (TABLE, table),
        (REPORT, report(evaluation, pictures)),
        (SUMMARY, summary),
    ):
        with atomic_write(out / name) as written:
            written.write_text(text, encoding="utf-8", newline="\n")


def _is_same(path: Path, text: str) -> bool:
    return path.exists() and path.read_bytes() == text.encode()
