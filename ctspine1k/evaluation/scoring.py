"""Scores of cases from their files, in this process or in workers."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ctspine1k import __version__
from ctspine1k._messages import check_choice
from ctspine1k.catalog.cases import Case
from ctspine1k.catalog.vocabulary import BACKGROUND, Vocabulary
from ctspine1k.errors import CaseError, ChecksumError, FileFormatError, VoxelValueError
from ctspine1k.evaluation.centroids import Point
from ctspine1k.evaluation.scores import TOLERANCES_MM, CaseScore, score_parts
from ctspine1k.evaluation.table import COLUMNS, Row
from ctspine1k.files.places import Place
from ctspine1k.files.predictions import WHOLE
from ctspine1k.files.raw import CaseFiles, RawFile
from ctspine1k.files.transfer import fetch_case, quiet_hub, reading_case
from ctspine1k.running.executors import Executor
from ctspine1k.running.progress import run_with_bar
from ctspine1k.running.threads import spread, usable_threads
from ctspine1k.running.versions import require_version
from ctspine1k.volumes.masks import Mask, common_window, joined, on_grid, read_mask
from ctspine1k.volumes.orientation import degenerate_axes
from ctspine1k.volumes.relabel import Others, accepted_labels, label_table
from ctspine1k.volumes.remarks import Remarks

__all__ = [
    "NO_PREDICTION",
    "Score",
    "Scored",
    "ScoringOptions",
    "Task",
    "read_prediction",
    "read_reference",
    "read_task",
    "rows_of",
    "score_arrays",
    "score_files",
    "score_masks_of",
]

#: The problem of a case that was not predicted.
NO_PREDICTION = "no prediction"

#: Increase it when the same files and options give other scores: results of earlier runs are then not used.
_VERSION = 3


@dataclass(frozen=True)
class ScoringOptions:
    """What scores of a case depend on, beside its files; as for `Collection.evaluate`."""

    label_scheme: str | None = None
    numbering: Literal["own", "totalsegmentator"] = "own"
    other_labels: Others = "raise"
    resample: Literal["nearest"] | None = None
    truncated: Literal["keep", "drop"] = "keep"
    distances: bool = True
    points: Literal["body", "mask"] | None = None
    reading: str | None = None

    def __post_init__(self) -> None:
        check_choice("numbering", self.numbering, ("own", "totalsegmentator"))
        check_choice("other_labels", self.other_labels, ("raise", "background"))
        if self.resample is not None:
            check_choice("resample", self.resample, ("nearest",))
        check_choice("truncated", self.truncated, ("keep", "drop"))
        if self.points is None:
            if self.reading is not None:
                raise ValueError(f"reading={self.reading!r}: expected None without points=: masks have none")
            return
        check_choice("points", self.points, ("body", "mask"))
        for name in ("label_scheme", "resample"):
            if (value := getattr(self, name)) is not None:
                raise ValueError(
                    f"{name}={value!r}: expected None with points={self.points!r}: it is for masks"
                )

    def reference_table(self, vocabulary: Vocabulary) -> NDArray[np.uint8]:
        """Return what each byte of a reference becomes.

        Labels that the data set lacks, or that have no number in the label scheme, become background, or 255
        if they are an error.

        Raises:
            ValueError: there is no such label scheme.
        """
        own = label_table(vocabulary, self.label_scheme)
        accepted = accepted_labels(vocabulary, self.label_scheme)
        table = self._table_of_others()
        numbers = [BACKGROUND, *(vertebra.label for vertebra in accepted.vertebrae)]
        table[numbers] = numbers if own is None else own[numbers]
        return table

    def prediction_table(self, vocabulary: Vocabulary) -> NDArray[np.uint8]:
        """Return the same for predictions, in their numbering."""
        reference = self.reference_table(vocabulary)
        if self.numbering == "own":
            return reference
        table = self._table_of_others()
        for vertebra in vocabulary.vertebrae:
            if vertebra.totalsegmentator is not None:
                table[vertebra.totalsegmentator] = reference[vertebra.label]
        return table

    def _table_of_others(self) -> NDArray[np.uint8]:
        """Return a table in which each byte but background is a label that a mask may not have."""
        others = BACKGROUND if self.other_labels == "background" else _STRANGE
        table = np.full(256, others, np.uint8)
        table[BACKGROUND] = BACKGROUND
        return table


#: What stands for a label that a mask may not have.
_STRANGE = 255


@dataclass(frozen=True)
class Task:
    """One case to score."""

    case: Case
    reference: RawFile
    prediction: Mapping[str, RawFile]  #: by vertebra, for files with one each; or one that is `WHOLE`
    header: RawFile | None = None  #: the image or mask whose header says where voxels of points files are
    points: Mapping[int, Point] | None = None  #: predicted ones that are not in a file of their own, RAS+ mm

    def key(self, options: ScoringOptions, place: Place) -> str:
        """Return a text that changes when the files of the case, or the options, do.

        Files of two folders may have one name, size and time: predictions count with their whole path.
        """
        predictions = (f"{name} {file.name} {file.state}" for name, file in self.prediction.items())
        states = [place.identity(self.reference), *predictions]
        given = None if self.points is None else sorted(self.points.items())
        header = None if self.header is None else place.identity(self.header)
        text = json.dumps([_VERSION, asdict(options), self.case.case_id, states, header, given])
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Scored:
    """The result of one case."""

    case_id: str
    rows: tuple[Row, ...]
    problem: str = ""  #: why it could not be judged; its vertebrae then count as missed
    remarks: Remarks = field(default_factory=Remarks)  #: none if it was judged in an earlier run


#: Scores one case, given the version of the package, the place of the reference and what it depends on.
Score: TypeAlias = "Callable[[str, Place, Vocabulary, ScoringOptions, Task], Scored]"


def score_files(
    place: Place,
    tasks: Sequence[Task],
    vocabulary: Vocabulary,
    options: ScoringOptions,
    workers: Executor,
    score: Score,
) -> Generator[Scored, None, None]:
    """Score cases and yield each when it is done, with a progress bar where there is a terminal.

    What is doubtful about their files is a warning. ``score`` scores one case in any process:
    `score_masks_of`, or that of points.

    Raises:
        CaseError, ChecksumError: the reference of a case cannot be used.
        WorkerError: a worker process died, or the scheduler is lost.
        HubError: the Hub cannot be reached.
    """
    if not tasks:
        return
    work = partial(score, __version__, place, vocabulary, options)
    names = [f"evaluate/{task.case.case_id}" for task in tasks]
    with closing(run_with_bar(workers, work, tasks, names, "Evaluating")) as results:
        for scored in results:
            scored.remarks.warn()
            yield scored


def score_masks_of(
    version: str, place: Place, vocabulary: Vocabulary, options: ScoringOptions, task: Task
) -> Scored:
    """Score the masks of one case; runs in any process."""
    require_version(version)
    masks: dict[str, Mask] = {}
    order = ["reference", "prediction"]

    def read(sides: list[str]) -> None:
        for side in sides:
            if side == "reference":
                masks[side] = read_reference(place, task, vocabulary, options)
            elif task.prediction:
                masks[side] = read_prediction(task, vocabulary, options)

    prediction, problem = None, "" if task.prediction else NO_PREDICTION
    try:
        with quiet_hub():
            spread(read, order, min(2, usable_threads()))
        if "prediction" in masks:
            prediction = _on_reference(masks["prediction"], masks["reference"], options)
    except (CaseError, ChecksumError) as error:
        if "reference" not in masks:
            raise
        problem = str(error)
    if prediction is None:
        scored = _missed(task.case, masks["reference"], vocabulary, options, problem)
    else:
        scored = score_masks(task.case, masks["reference"], prediction, vocabulary, options)
    is_turned = prediction is not masks.get("prediction")
    for side in order:  # not that of the threads, which differs from run to run
        if side in masks:
            mask = masks[side]
            scored.remarks.note(mask.doubts, mask.changes, by_place=is_turned)
    return scored


def read_task(place: Place, task: Task, vocabulary: Vocabulary, options: ScoringOptions) -> tuple[Mask, Mask]:
    """Read the reference and the prediction of a case, on one grid, with the labels that are compared.

    Raises:
        CaseError, ChecksumError: a file cannot be used.
    """
    reference = read_reference(place, task, vocabulary, options)
    return reference, _on_reference(read_prediction(task, vocabulary, options), reference, options)


def read_reference(place: Place, task: Task, vocabulary: Vocabulary, options: ScoringOptions) -> Mask:
    """Read the mask of the reference, with the labels that are compared; errors as for `read_task`."""
    files = CaseFiles(task.case, {"mask": task.reference})
    path = fetch_case(place, files)["mask"]
    with reading_case(files):
        mask = read_mask(path)
    if what := degenerate_axes(mask.geometry.affine):
        expected = "an affine with a length and a direction for each axis"
        hint = "Distances are measured by it: correct the header, or leave the case out."
        raise FileFormatError(mask.name, expected, f"{mask.geometry.affine[:3].tolist()} ({what})", hint)
    return _mapped(mask, options.reference_table(vocabulary), options)


def _on_reference(prediction: Mask, reference: Mask, options: ScoringOptions) -> Mask:
    """Bring a prediction onto the grid of the reference."""
    return on_grid(prediction, reference, resample=options.resample is not None)


def read_prediction(task: Task, vocabulary: Vocabulary, options: ScoringOptions) -> Mask:
    """Read the prediction of a case, one mask or one for each vertebra; errors as for `read_task`."""
    with reading_case(CaseFiles(task.case, {"mask": next(iter(task.prediction.values()))})):
        if WHOLE in task.prediction:
            mask = read_mask(task.prediction[WHOLE].name)
            return _mapped(mask, options.prediction_table(vocabulary), options)
        table = options.reference_table(vocabulary)
        masks = []
        for name, file in task.prediction.items():
            label, mask = vocabulary.label(name), read_mask(file.name)
            if table[label] == _STRANGE and mask.box.any():  # else it is not in the case
                raise _no_label(mask.name, table, [label], options)
            masks.append((int(table[label]), mask))
        return joined(masks, task.case.case_id)


def _mapped(mask: Mask, table: NDArray[np.uint8], options: ScoringOptions) -> Mask:
    """Return a mask with labels mapped by a table.

    Raises:
        VoxelValueError: it has a label that it may not have.
    """
    if (table == np.arange(256)).all():
        return mask
    counts = np.zeros(256, np.int64)
    for one in mask.box:  # bincount makes eight bytes of each
        counts += np.bincount(one.reshape(-1), minlength=256)
    used = np.flatnonzero(counts)
    strange = used[table[used] == _STRANGE]
    if strange.size:
        raise _no_label(mask.name, table, strange.tolist(), options)
    if (table[used] == used).all():
        return mask
    return replace(mask, box=table[mask.box])


def _no_label(
    name: str, table: NDArray[np.uint8], found: Sequence[int], options: ScoringOptions
) -> VoxelValueError:
    """Return an error about labels that a mask may not have: a table says which it may."""
    allowed = np.flatnonzero(table != _STRANGE)
    runs = np.split(allowed, np.flatnonzero(np.diff(allowed) > 1) + 1)
    numbers = ", ".join(f"{run[0]} to {run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
    of_scheme = f" that label_scheme={options.label_scheme!r} has" if options.label_scheme else ""
    return VoxelValueError(
        name,
        f"labels{of_scheme}, {numbers}",
        f"{', '.join(map(str, found))} among the voxels",
        'Pass other_labels="background" (--other-labels background) to leave out other labels, on both '
        "sides: of references and of predictions.",
    )


def score_masks(
    case: Case,
    reference: Mask,
    prediction: Mask,
    vocabulary: Vocabulary,
    options: ScoringOptions,
) -> Scored:
    """Score a case whose masks are on one grid."""
    window = common_window(reference, prediction)
    score = score_parts(
        (reference.part(window), prediction.part(window)),
        tuple(side.start for side in window),
        reference.geometry.shape,
        reference.geometry.spacing,
        slice_axis=reference.scan_axis,
        tolerances_mm=TOLERANCES_MM if options.distances else None,
    )
    score = score.without_truncated() if options.truncated == "drop" else score
    return Scored(case.case_id, tuple(rows_of(case, score, vocabulary, options)))


def score_arrays(
    place: Place,
    task: Task,
    prediction: NDArray[Any],
    vocabulary: Vocabulary,
    options: ScoringOptions,
) -> Scored:
    """Score a case whose prediction is an array, (k, i, j) as rows have it, on the grid of the reference.

    Raises:
        ValueError: it has another shape, or labels that it may not have.
        CaseError, ChecksumError: the reference cannot be used.
    """
    reference = read_reference(place, task, vocabulary, options)
    array = np.asarray(prediction)
    if array.shape != reference.geometry.shape or array.dtype.kind not in "iu":
        raise ValueError(
            f"{task.case.case_id}: expected whole numbers of shape {reference.geometry.shape}, slice first "
            f"as in rows, found {array.dtype} of shape {array.shape}"
        )
    if array.size and (array.min() < 0 or array.max() > 255):
        found = f"{array.min()} to {array.max()}"
        raise ValueError(f"{task.case.case_id}: expected labels from 0 to 255, found {found}")
    given = Mask.of(array, reference.geometry, f"prediction of {task.case.case_id}")
    mapped = _mapped(given, options.prediction_table(vocabulary), options)
    scored = score_masks(task.case, reference, mapped, vocabulary, options)
    scored.remarks.note(reference.doubts, reference.changes, by_place=False)
    scored.remarks.warn()
    return scored


def rows_of(
    case: Case, score: CaseScore, vocabulary: Vocabulary, options: ScoringOptions
) -> Generator[Row, None, None]:
    """Yield the rows of a case for the table; measures that were not taken are NaN."""
    names = vocabulary.names(options.label_scheme or vocabulary.schemes[0])
    nothing: dict[str, Any] = dict.fromkeys(COLUMNS, math.nan)  # columns of distances that were not measured
    for row in score.columns():
        yield {
            **nothing,
            "case_id": case.case_id,
            **row,
            "vertebra": names[row["label"]],
            "volume_voxels": score.voxels,
            "problem": "",
        }


def _missed(
    case: Case, reference: Mask, vocabulary: Vocabulary, options: ScoringOptions, problem: str
) -> Scored:
    """Return the result of a case without a usable prediction: every vertebra of its reference is missed."""
    empty = replace(reference, box=reference.box[:0])
    scored = score_masks(case, reference, empty, vocabulary, options)
    return Scored(scored.case_id, tuple({**row, "problem": problem} for row in scored.rows), problem)
