"""Score predicted points of vertebrae: find both sides, read them, and compare.

Both sides are of one kind, "body" or "mask", which the caller names; it is never guessed. For "body", the
reference is the data set's own file, whose points are at vertebral bodies, or is computed from the mask of a
case without one. For "mask", it is always computed from masks. Points files say where points are in voxels of
an image or mask, of which only the header is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from ctspine1k._messages import check_choice, warn
from ctspine1k.catalog.companions import is_metaimage
from ctspine1k.catalog.dataset import DataSet
from ctspine1k.catalog.vocabulary import Vocabulary
from ctspine1k.errors import CaseError, ChecksumError, FileFormatError, PointsError, SkippedCasesWarning
from ctspine1k.evaluation.arguments import check_points
from ctspine1k.evaluation.centroids import Point
from ctspine1k.evaluation.overlap import first_and_last
from ctspine1k.evaluation.scores import CaseScore, score_points
from ctspine1k.evaluation.scoring import (
    NO_PREDICTION,
    Scored,
    ScoringOptions,
    Task,
    read_prediction,
    read_reference,
    rows_of,
)
from ctspine1k.files.places import Place, find_folder
from ctspine1k.files.predicted_points import POINTS_ENDINGS, find_points
from ctspine1k.files.predictions import WHOLE, case_names, require_predictions
from ctspine1k.files.raw import CaseFiles, RawFile, group_files
from ctspine1k.files.selection import OnMissing, Selection
from ctspine1k.files.transfer import fetch_case, quiet_hub, reading_case
from ctspine1k.running.versions import require_version
from ctspine1k.volumes.bodies import mask_indices
from ctspine1k.volumes.headers import Geometry
from ctspine1k.volumes.masks import Mask
from ctspine1k.volumes.opening import open_volume
from ctspine1k.volumes.orientation import degenerate_axes
from ctspine1k.volumes.point_formats import READINGS, format_of
from ctspine1k.volumes.points import Points, read_points
from ctspine1k.volumes.points_table import read_points_table
from ctspine1k.volumes.remarks import Remarks

__all__ = ["GivenPoints", "check_reference", "point_tasks", "score_points_of"]

#: Predictions in memory: the id of each case, and its points, in RAS+ mm by label.
GivenPoints: TypeAlias = "Iterable[tuple[str, Points | Mapping[int, Point]]]"

_Kind: TypeAlias = Literal["body", "mask"]

_Places: TypeAlias = "dict[int, Point]"


def check_reference(data_set: DataSet, options: ScoringOptions) -> None:
    """Check that a data set has a reference of the kind that is compared.

    Raises:
        ValueError: it does not; the message says what can be passed instead.
    """
    if options.points != "body" and "mask" not in data_set.kinds:
        raise ValueError(
            f"collection={data_set.name!r}, points={options.points!r}: expected a data set with masks, found "
            f'{" and ".join(data_set.kinds)}: pass points="body" (--points body) to compare points of '
            "vertebral bodies"
        )
    if options.points == "body" and "points" in data_set.possible and options.truncated == "drop":
        raise ValueError(
            'truncated="drop": expected masks as the reference, which show what the scan cuts, found points '
            f'of {data_set.title}: pass truncated="keep", or points="mask" if the data set has masks'
        )


def point_tasks(
    selection: Selection, predictions: Path | GivenPoints, options: ScoringOptions, on_missing: OnMissing
) -> tuple[list[Task], tuple[str, ...]]:
    """Return the cases to score, in order, and the predictions of no case.

    Args:
        selection: the cases.
        predictions: a folder with points files or masks, a CSV file, or points in memory.
        options: with the kind of the points.
        on_missing: what to do about cases without a reference.

    Raises:
        ValueError: points that are not allowed, options that apply to masks only, or a folder with neither
            points nor masks.
        CaseError: a table that cannot be used, or points in memory of another kind.
        MissingFilesError: cases without a reference, and ``on_missing`` is "raise", or no case has one.
        AmbiguousFilesError: several predictions for one case.
        FileNotFoundError: there are no predictions at the path.
    """
    tasks = _references(selection, options.points, on_missing)
    if isinstance(predictions, Path) and not predictions.expanduser().is_file():
        folder = find_folder(predictions, "predictions", "points or masks")
        found = find_points(folder, selection.data_set, selection.cases, selection.catalog)
        if not found.files:
            endings = (*POINTS_ENDINGS, *selection.data_set.suffixes)
            require_predictions(folder, predictions, "points or masks", endings)
        kinds = {file.kind for files in found.files.values() for file in files.values()}
        if "points" in kinds:
            _check_no_masks(options, tasks)
        _check_reading([file for own in found.files.values() for file in own.values()], tasks, options)
        tasks = [replace(one, prediction=found.files.get(one.case.case_id, {})) for one in tasks]
        return tasks, found.unknown
    _check_no_masks(options, tasks)
    _check_reading([], tasks, options)
    vocabulary = selection.data_set.vocabulary
    if isinstance(predictions, Path):
        given: Mapping[str, Mapping[int, Point]] = read_points_table(predictions.expanduser(), vocabulary)
    else:
        given = _checked(predictions, vocabulary, options.points)
    names = case_names(selection.catalog)
    places: dict[str, Mapping[int, Point]] = {}
    for name, points in given.items():
        if names.get(name, name) in places:
            raise ValueError(f"{name}: expected one prediction, found another one of {names[name]}")
        places[names.get(name, name)] = points
    unknown = tuple(sorted(name for name in places if name not in selection.catalog))
    return [replace(one, points=places.get(one.case.case_id)) for one in tasks], unknown


def _check_no_masks(options: ScoringOptions, tasks: Iterable[Task]) -> None:
    """Raise a `ValueError` if options of masks are given for points that are not computed from masks.

    Those of the reference may be, whose labels ``other_labels`` applies to, too.
    """
    defaults = ScoringOptions()
    is_of_masks = any(task.reference.kind == "mask" for task in tasks)
    for name in ("numbering",) if is_of_masks else ("numbering", "other_labels"):
        if (value := getattr(options, name)) != (default := getattr(defaults, name)):
            raise ValueError(f"{name}={value!r}: expected {default!r} for points that are not of masks")


def _check_reading(predicted: Iterable[RawFile], tasks: Iterable[Task], options: ScoringOptions) -> None:
    """Raise a `ValueError` if there are no files, on either side, in which coordinates can be meant so."""
    if options.reading is None or any(_reading_of_reference(task, options) for task in tasks):
        return
    files = [file for file in predicted if file.kind == "points"]
    if not files:
        expected = "None, or files of points (JSON, .lml) in which coordinates can be meant so"
        raise ValueError(f"reading={options.reading!r}: expected {expected}")
    for file in files:
        check_choice(f"{file.name}: reading", options.reading, READINGS[format_of(file.path)])


def _reading_of_reference(task: Task, options: ScoringOptions) -> str | None:
    """Return how coordinates of the reference are meant: .lml never says, JSON of a data set does."""
    is_lml = task.reference.kind == "points" and format_of(task.reference.path) == "lml"
    return options.reading if is_lml and options.reading in READINGS["lml"] else None


def _references(selection: Selection, kind: _Kind | None, on_missing: OnMissing) -> list[Task]:
    """Return a task without a prediction for each case; missing references are an error, or a warning."""
    data_set, files = selection.data_set, selection.files()
    tasks = []
    for one in group_files(files).values():
        own, mask = one.files.get("points"), one.files.get("mask")
        header = one.files.get("image", mask)
        if kind == "body" and own is not None and header is not None:
            tasks.append(Task(one.case, own, {}, header))
        elif mask is not None:
            tasks.append(Task(one.case, mask, {}, mask))
    if "mask" in data_set.kinds:  # a case with points of its own needs no mask
        there = [replace(task.reference, kind="mask") for task in tasks]
        missing = selection.missing(there, ("mask",), on_missing)
    else:
        missing = selection.missing(files, data_set.kinds, on_missing)
    if missing is not None:
        if on_missing == "raise" or not tasks:
            raise missing
        warn(missing.summary, SkippedCasesWarning)
    return tasks


def _checked(given: GivenPoints, vocabulary: Vocabulary, kind: _Kind | None) -> dict[str, _Places]:
    """Return points in memory, by case.

    Raises:
        ValueError: a position that is not three finite numbers, a label that the data set lacks, or two
            predictions for a case.
        PointsError: points of another kind.
    """
    labels = {vertebra.label for vertebra in vocabulary.vertebrae}
    found: dict[str, _Places] = {}
    for case_id, points in given:
        if case_id in found:
            raise ValueError(f"{case_id}: expected one prediction, found a second one")
        if isinstance(points, Points):
            _check_kind(points, kind, case_id)
            points = _places(points)
        found[case_id] = check_points(case_id, points)
        if strange := sorted(found[case_id].keys() - labels):
            expected = f"labels among {vocabulary.numbers}, without 0"
            raise ValueError(f"{case_id}: expected {expected}, found {strange[0]}")
    return found


def score_points_of(
    version: str, place: Place, vocabulary: Vocabulary, options: ScoringOptions, task: Task
) -> Scored:
    """Score the points of one case; runs in any process.

    Raises:
        CaseError, ChecksumError: the reference cannot be used.
        PointsError: points of another kind than the one that is compared, on either side.
    """
    require_version(version)
    remarks = Remarks()
    with quiet_hub():
        reference, cut = _reference(place, vocabulary, options, task, remarks)
    predicted: _Places = {}
    predicted_cut: set[int] = set()
    problem = "" if task.prediction or task.points is not None else NO_PREDICTION
    if not problem:
        try:
            predicted, predicted_cut, points = _predicted(place, vocabulary, options, task, remarks)
        except (CaseError, ChecksumError) as error:
            problem = str(error)
        else:
            if points is not None:
                _check_kind(points, options.points, task.prediction[WHOLE].name)
    score = score_points(reference, predicted)
    rows = tuple(
        replace(row, truncated=row.label in (cut if row.reference else predicted_cut)) for row in score.rows
    )
    score = CaseScore(rows, score.voxels)
    score = score.without_truncated() if options.truncated == "drop" else score
    found = rows_of(task.case, score, vocabulary, options)
    rows_with_problem = tuple({**row, "problem": problem} for row in found)
    return Scored(task.case.case_id, rows_with_problem, problem, remarks)


def _reference(
    place: Place, vocabulary: Vocabulary, options: ScoringOptions, task: Task, remarks: Remarks
) -> tuple[_Places, set[int]]:
    """Return the points of the reference, and the labels that the scan cuts: none without a mask."""
    if task.reference.kind == "mask":
        mask = read_reference(place, task, vocabulary, options)
        return _computed(mask, vocabulary, options.points, remarks), _cut(mask)
    path = fetch_case(place, CaseFiles(task.case, {"points": task.reference}))["points"]
    points = _read(place, vocabulary, task, path, _reading_of_reference(task, options), remarks)
    _check_kind(points, options.points, task.reference.name)
    return _places(points), set()


def _predicted(
    place: Place, vocabulary: Vocabulary, options: ScoringOptions, task: Task, remarks: Remarks
) -> tuple[_Places, set[int], Points | None]:
    """Return predicted points, the labels that the scan cuts, and the contents of the points file, if any."""
    if task.points is not None:
        return dict(task.points), set(), None
    file = next(iter(task.prediction.values()))
    if file.kind == "mask":
        mask = read_prediction(task, vocabulary, options)
        return _computed(mask, vocabulary, options.points, remarks), _cut(mask), None
    reading = options.reading if options.reading in READINGS[format_of(file.path)] else None
    points = _read(place, vocabulary, task, Path(file.name), reading, remarks)
    return _places(points), set(), points


def _cut(mask: Mask) -> set[int]:
    """Return the labels that the scan cuts: those in its first and last axial slice."""
    return first_and_last(mask.box, mask.start, mask.geometry.shape, mask.scan_axis)


def _read(
    place: Place, vocabulary: Vocabulary, task: Task, path: Path, reading: str | None, remarks: Remarks
) -> Points:
    """Read a points file, whose voxels are those of the task's image or mask."""
    header = task.header or task.reference
    local = place.local_path(header)
    with (
        reading_case(CaseFiles(task.case, {header.kind: header})),
        place.open(header) if local is None else nullcontext(local) as opened,
        open_volume(opened) as volume,
    ):
        geometry = Geometry.of(volume.header.affine, volume.header.shape)
        remarks.note(volume.header.doubts, by_place=True)
    with reading_case(CaseFiles(task.case, {"points": task.reference})):
        return read_points(
            path,
            geometry,
            vocabulary,
            format=format_of(path.name),
            reading=reading,
            world="LPS" if is_metaimage(header.path) else "RAS",
        )


def _computed(mask: Mask, vocabulary: Vocabulary, kind: _Kind | None, remarks: Remarks) -> _Places:
    """Return the points of a mask."""
    remarks.note(mask.doubts, mask.changes, by_place=True)
    if what := degenerate_axes(mask.geometry.affine):
        expected = "an affine with a length and a direction for each axis"
        raise FileFormatError(mask.name, expected, what, "Save the mask again with the header of its image.")
    labels, (k, i, j) = np.transpose(mask.box, (1, 2, 0)), mask.start
    indices = mask_indices(labels, mask.geometry, kind or "body", (i, j, k))
    return _places(Points.of(indices, mask.geometry, vocabulary, kind or "body"))


def _check_kind(points: Points, kind: _Kind | None, name: str) -> None:
    """Raise a `PointsError` if points are known to be of another kind than the one that is compared."""
    if points.kind not in ("file", kind):
        hint = (
            "The two kinds are 14 to 23 mm apart. Pass that of the predictions as points=... (--points); the "
            "reference is then of the same kind."
        )
        raise PointsError(name, f"points of kind {kind!r}", f"kind {points.kind!r}", hint)


def _places(points: Points) -> _Places:
    return {point.label: point.mm for point in points}
