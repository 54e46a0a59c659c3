"""The worst cases of an evaluation, to be looked at: both masks on one grid, and slices of the CT."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from ctspine1k._messages import warn
from ctspine1k.errors import CaseError, ChecksumError, SkippedCasesWarning
from ctspine1k.evaluation.results import Evaluation
from ctspine1k.evaluation.scoring import NO_PREDICTION, ScoringOptions, read_reference, read_task
from ctspine1k.files.selection import Selection
from ctspine1k.volumes.masks import Judged
from ctspine1k.volumes.slices import read_plane

__all__ = ["worst_cases"]

#: Cases without a prediction that are drawn: they all look alike.
_MISSED = 2


def worst_cases(selection: Selection, evaluation: Evaluation, count: int = 5) -> Iterator[Judged]:
    """Yield the worst cases whose CT is on this machine, read one after the other.

    A prediction that is missing or cannot be used is empty; of these there are two at most. Cases that cannot
    be read are left out with a warning.
    """
    options = ScoringOptions(
        **{name: evaluation.options[name] for name in ScoringOptions.__dataclass_fields__}
    )
    vocabulary = selection.data_set.vocabulary
    every = evaluation.worst(len(evaluation.results))
    missed = [(one, mean) for one, mean in every if one.problem]
    # Predictions in memory are gone: those have no file.
    judged = [(one, mean) for one, mean in every if not one.problem and one.task.prediction]
    worst = [*missed[:_MISSED], *judged][:count]
    chosen = selection.keep(selection.cases.select([one.case_id for one, _ in worst]))
    images = {file.case.case_id: file for file in chosen.files() if file.kind == "image"}
    for one, mean in worst:
        image = images.get(one.case_id)
        path = None if image is None else selection.place.local_path(image)
        if path is None:
            continue
        try:
            if one.problem:
                reference = read_reference(selection.place, one.task, vocabulary, options)
                prediction = np.zeros_like(reference.labels)
            else:
                reference, mask = read_task(selection.place, one.task, vocabulary, options)
                prediction = mask.labels
            yield Judged(
                f"{one.case_id}: {f'Dice {mean:.3f}' if not one.problem else _short(one.problem)}",
                reference.labels,
                prediction,
                reference.geometry.spacing,
                reference.geometry.orientation,
                partial(read_plane, path),
            )
        except (CaseError, ChecksumError) as error:
            warn(f"{one.case_id} is not drawn: {error}", SkippedCasesWarning)


def _short(problem: str) -> str:
    return problem if problem == NO_PREDICTION else "prediction not usable"
