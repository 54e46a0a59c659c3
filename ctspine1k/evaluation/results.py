"""The results of an evaluation, by any preset: means, groups, what was missed, and as a document for JSON."""

from __future__ import annotations

import math
import platform
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from importlib import metadata
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctspine1k import __version__
from ctspine1k._messages import count_text, html_table, shortened
from ctspine1k.catalog.cases import Case
from ctspine1k.catalog.dataset import DataSet
from ctspine1k.evaluation.means import Mean, cells_of, counted, group_means, main_measure, mean_of
from ctspine1k.evaluation.presets import Preset, preset_of
from ctspine1k.evaluation.scoring import Task
from ctspine1k.evaluation.table import DEFINITIONS, MEASURES, Row, ScoreTable

__all__ = ["CaseResult", "Evaluation"]


@dataclass(frozen=True)
class CaseResult:
    """What became of one case."""

    task: Task  #: its files
    key: str | None  #: changes when its files or the options do; None for arrays
    problem: str  #: why it could not be judged; an empty text if it was

    @property
    def case_id(self) -> str:
        """The case."""
        return self.task.case.case_id

    @property
    def prediction_file(self) -> str | None:
        """The file of the prediction, the first if there are several; None if there is none."""
        return min((file.name for file in self.task.prediction.values()), default=None)


@dataclass(frozen=True)
class Evaluation:
    """Scores of predictions, and their means by a preset."""

    data_set: DataSet
    preset: Preset
    table: ScoreTable
    results: tuple[CaseResult, ...]  #: of each case, in order
    unknown: tuple[str, ...]  #: paths of predictions that belong to no case
    options: Mapping[str, Any]  #: with which the scores were made
    cases: Mapping[str, Case]  #: what is known of each case, by id
    miss_penalty_mm: float | None = None
    seed: int = 0
    sacrum: bool = False  #: whether vertebrae count that the preset leaves out unless they are asked for

    def __repr__(self) -> str:
        return f"Evaluation({self._head})"

    def _repr_html_(self) -> str:
        header = ["measure", *(one.name for one in fields(Mean))]
        rows = ([name, *self.means[name].document().values()] for name in self.reported)
        return html_table(self._head, header, rows, len(self.reported))

    @property
    def _head(self) -> str:
        kind = self.options["points"]
        of_kind = "" if kind is None else f"points of kind {kind!r}, "
        cases = count_text(len(self.results), "case")
        return f"{self.data_set.title}, {cases}, {of_kind}preset {self.preset.name}: {self.preset.what}"

    def by(self, preset: str) -> Evaluation:
        """Return the same scores by another preset.

        Raises:
            ValueError: there is no such preset.
        """
        return replace(self, preset=preset_of(preset))

    @property
    def failed(self) -> dict[str, str]:
        """Why cases could not be judged, by id: their vertebrae count as missed."""
        return {one.case_id: one.problem for one in self.results if one.problem}

    @property
    def empty(self) -> tuple[str, ...]:
        """The cases with labels on neither side, which have no rows."""
        return tuple(
            one.case_id for one in self.results if not one.problem and one.case_id not in self.table.by_case
        )

    @cached_property
    def counted(self) -> ScoreTable:
        """The rows that count by the preset: for "msr", those of S1 and S2 only with ``sacrum``."""
        return counted(self.table, self.preset, self.data_set.vocabulary, sacrum=self.sacrum)

    @property
    def main(self) -> str:
        """The first measure of the preset that was taken."""
        return main_measure(self.preset, self.table)

    @cached_property
    def means(self) -> dict[str, Mean]:
        """The mean of each measure that was taken, those of the preset first."""
        order = dict.fromkeys((*self.preset.measures, *MEASURES))
        means = {
            measure: mean_of(self.counted, measure, self.preset, **self._options)
            for measure in order
            if measure in self.table.measures
        }
        return {measure: mean for measure, mean in means.items() if mean.n}

    @property
    def reported(self) -> tuple[str, ...]:
        """The measures of the preset that were taken, or if it has none of them, all that were."""
        return tuple(name for name in self.preset.measures if name in self.means) or tuple(self.means)

    @cached_property
    def groups(self) -> dict[str, dict[str, dict[str, Mean]]]:
        """The means of the preset's measures by vertebra, region, source, variant, issue, cut or whole."""
        vocabulary, options = self.data_set.vocabulary, self._options
        return {
            measure: group_means(self.counted, measure, self.preset, vocabulary, self.cases, **options)
            for measure in self.reported
        }

    @property
    def patients(self) -> dict[str, str]:
        """The patient of each case; a case of an unknown one is a patient of its own."""
        return {case_id: case.patient or case_id for case_id, case in self.cases.items()}

    @property
    def _means_options(self) -> dict[str, Any]:
        return {"miss_penalty_mm": self.miss_penalty_mm, "seed": self.seed, "sacrum": self.sacrum}

    @property
    def _options(self) -> dict[str, Any]:
        return {"patients": self.patients, "miss_penalty_mm": self.miss_penalty_mm, "seed": self.seed}

    @cached_property
    def shifts(self) -> dict[int, int]:
        """How many vertebrae of the reference are numbered how much too high; 0 is right."""
        shifts = Counter(row["shift"] for row in self.counted.rows if row["shift"] is not None)
        return {shift: shifts[shift] for shift in sorted(shifts)}

    @property
    def all_right(self) -> tuple[str, ...]:
        """The cases in which every vertebra was found under its own number, and no other."""
        return tuple(
            one.case_id
            for one in self.results
            if not one.problem and all(_is_right(row) for row in self.counted.by_case.get(one.case_id, ()))
        )

    @property
    def label_names(self) -> dict[int, str]:
        """Names of the labels that were compared, from the head downwards."""
        vocabulary = self.data_set.vocabulary
        return vocabulary.names(self.options["label_scheme"] or vocabulary.schemes[0])

    def values_by_vertebra(self) -> dict[str, list[float]]:
        """Return the values of the preset's main measure that count, by the name of the vertebra."""
        cells = cells_of(self.counted, self.main, self.preset, miss_penalty_mm=self.miss_penalty_mm)
        names, labels = self.label_names, self.counted.labels
        values = {label: own[~np.isnan(own)].tolist() for label, own in zip(labels, cells.T, strict=True)}
        return {names[label]: values[label] for label in self._downwards(labels)}

    def _downwards(self, labels: Iterable[int]) -> list[int]:
        """Return labels in the order of their vertebrae, from the head; those without a name come last."""
        places = {label: place for place, label in enumerate(self.label_names)}
        return sorted(labels, key=lambda label: (places.get(label, len(places)), label))

    def confusion(self) -> tuple[NDArray[np.int64], list[str], list[str]]:
        """Return how many vertebrae of the reference have mostly which label in the prediction.

        Returns:
            Counts, (labels of the reference, labels of the prediction and one more column for none), and the
            names of rows and columns.
        """
        names = self.label_names
        taken = [
            (row["label"], None if row["shift"] is None else row["label"] + row["shift"])
            for row in self.counted.rows
            if row["reference"]
        ]
        rows = self._downwards({label for label, _ in taken})
        others = {*rows, *(other for _, other in taken if other is not None)}
        columns: list[int | None] = [*self._downwards(others), None]
        counts = np.zeros((len(rows), len(columns)), np.int64)
        for label, other in taken:
            counts[rows.index(label), columns.index(other)] += 1
        return (
            counts,
            [names[label] for label in rows],
            ["none" if label is None else names.get(label, str(label)) for label in columns],
        )

    def worst(self, count: int = 5) -> list[tuple[CaseResult, float]]:
        """Return the cases with the least mean Dice over labels, and that mean, the worst first.

        Those without a usable prediction are among them, as all of their vertebrae were missed; those whose
        every label is perfect are not. Points have no Dice: of them there are none.
        """
        if "dice" not in self.table.measures:
            return []
        means = {
            case_id: mean_of(self.table.keep(rows), "dice", preset_of("nnunet"), resamples=0).value
            for case_id, rows in self.table.by_case.items()
        }
        judged = [one for one in self.results if means.get(one.case_id, math.nan) < 1]  # nor NaN
        worst = sorted(judged, key=lambda one: means[one.case_id])[:count]
        return [(one, means[one.case_id]) for one in worst]

    def summary(self) -> str:
        """Return the results as text: a line for each mean, and what was missed."""
        lines = [self._head]
        for measure in self.reported:
            mean = self.means[measure]
            interval = "" if math.isnan(mean.low) else f" [{mean.low:.4f}, {mean.high:.4f}]"
            lines.append(
                f"{measure:14} {mean.value:9.4f}{interval}  n {mean.n:,}, missed {mean.n_missed:,}, "
                f"false positive {mean.n_false_positive:,}"
            )
        cases = count_text(len(self.results), "case")
        lines.append(f"every label right: {len(self.all_right):,} of {cases}")
        for what, names in (
            ("not judged", [f"{case_id} ({problem})" for case_id, problem in self.failed.items()]),
            ("without a label on either side", self.empty),
            ("predictions of no case", self.unknown),
        ):
            if names:
                lines.append(f"{what}: {len(names):,}: {shortened(names)}")
        return "\n".join(lines)

    def document(self) -> dict[str, Any]:
        """Return the results as plain values: nnU-Net's fields, then ours."""
        preset = self.preset
        return {
            **_nnunet_fields(self.table, self.results),
            "data_set": self.data_set.name,
            "preset": preset.name,
            "what": preset.what,
            "definition": preset.definition,
            "definitions": {measure: DEFINITIONS[measure] for measure in self.means},
            "versions": _versions(),
            "options": {**self.options, **self._means_options},
            "means": {measure: mean.document() for measure, mean in self.means.items()},
            "groups": {
                measure: {
                    by: {group: mean.document() for group, mean in means.items()}
                    for by, means in groups.items()
                }
                for measure, groups in self.groups.items()
            },
            "n_cases": len(self.results),
            "n_all_right": len(self.all_right),
            "shifts": {str(shift): count for shift, count in self.shifts.items()},
            "failed": self.failed,
            "empty": list(self.empty),
            "unknown": list(self.unknown),
            "cases": {one.case_id: {"key": one.key, "problem": one.problem or None} for one in self.results},
            "table": self.table.digest(),
        }


def _versions() -> dict[str, str]:
    """Return the versions of what makes the numbers; SciPy only if it is installed."""
    names = [name for name in ("numpy", "scipy", "nibabel") if find_spec(name)]
    return {
        "ctspine1k": __version__,
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in names},
    }


def _is_right(row: Row) -> bool:
    return bool(row["reference"] and row["prediction"] and row["shift"] == 0)


def _nnunet_fields(table: ScoreTable, results: Sequence[CaseResult]) -> dict[str, Any]:
    """Return the fields of nnU-Net's summary.

    Labels on neither side of a case are left out of it; in means of counts it has none of their voxels.
    """
    nnunet = preset_of("nnunet")
    metrics = {
        one.case_id: {
            str(row["label"]): _metrics(row)
            for row in table.by_case.get(one.case_id, ())
            if row["volume_voxels"]
        }
        for one in results
    }
    per_case = [
        {
            "metrics": metrics[one.case_id],
            "prediction_file": one.prediction_file,
            "reference_file": one.task.reference.name,
        }
        for one in results
    ]
    labels = sorted({label for own in metrics.values() for label in own}, key=int)
    absent = {case_id: _absent(rows) for case_id, rows in table.by_case.items() if metrics.get(case_id)}
    mean = {
        label: _mean([metrics[case_id].get(label, nothing) for case_id, nothing in absent.items()])
        for label in labels
    }
    foreground = {
        name: mean_of(table, measure, nnunet, resamples=0).value
        for name, measure in (("Dice", "dice"), ("IoU", "iou"))
        if mean
    }
    counts = {name: sum(own[name] for own in mean.values()) / len(mean) for name in _COUNTED if mean}
    return {"foreground_mean": {**foreground, **counts}, "mean": mean, "metric_per_case": per_case}


_COUNTED = ("FN", "FP", "TN", "TP", "n_pred", "n_ref")


def _metrics(row: Row) -> dict[str, float]:
    reference, prediction, common = (row[f"{name}_voxels"] for name in ("reference", "prediction", "common"))
    return {
        "Dice": row["dice"],
        "FN": reference - common,
        "FP": prediction - common,
        "IoU": row["iou"],
        "TN": row["volume_voxels"] - reference - prediction + common,
        "TP": common,
        "n_pred": prediction,
        "n_ref": reference,
    }


def _absent(rows: Sequence[Row]) -> dict[str, float]:
    """Return the metrics of a label that is on neither side of a case with these rows."""
    nothing = dict.fromkeys((f"{name}_voxels" for name in ("reference", "prediction", "common")), 0)
    volume = max(row["volume_voxels"] for row in rows)
    return _metrics({**nothing, "volume_voxels": volume, "dice": math.nan, "iou": math.nan})


def _mean(metrics: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the mean of each value, without NaN."""
    values = {name: [own[name] for own in metrics if not math.isnan(own[name])] for name in metrics[0]}
    return {name: sum(own) / len(own) for name, own in values.items()}
