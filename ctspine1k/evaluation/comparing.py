"""Two evaluations of the same cases compared: differences of pairs, with interval and test."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctspine1k._messages import check_choice, check_count, count_text, html_table, shortened
from ctspine1k.catalog.vocabulary import Vocabulary
from ctspine1k.errors import MissingPackageError
from ctspine1k.evaluation.means import LEVEL, RESAMPLES, cells_of, main_measure, resampled, weighted_means
from ctspine1k.evaluation.presets import Preset
from ctspine1k.evaluation.scoring import ScoringOptions
from ctspine1k.evaluation.table import MEASURES, Row, ScoreTable

__all__ = ["Comparison", "Difference", "check_alike", "compare", "differing_options"]


@dataclass(frozen=True)
class Difference:
    """The mean of one measure in two evaluations, over the vertebrae that have a value in both."""

    group: str  #: "all", or the name of a vertebra
    n: int  #: vertebrae
    first: float
    second: float
    difference: float  #: second minus first
    low: float  #: ends of the interval of the difference, over patients; NaN if there is one patient only
    high: float
    p_value: float  #: of Wilcoxon's signed-rank test of the patients' mean differences; NaN without any


@dataclass(frozen=True)
class Comparison:
    """What differs between two evaluations."""

    measure: str
    preset: str
    differences: tuple[Difference, ...]  #: of all vertebrae, then of each
    only_first: tuple[str, ...]  #: cases that only the first evaluation has: they are left out
    only_second: tuple[str, ...]
    n_only_first: int = 0  #: vertebrae of cases of both with a value in the first alone: they are left out
    n_only_second: int = 0
    options: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)  #: those that differ

    def __repr__(self) -> str:
        return f"Comparison({self._head})"

    def _repr_html_(self) -> str:
        rows = self.document()["differences"]
        names = [one.name for one in fields(Difference)]
        return html_table(
            self._head, names, ([row[name] for name in names] for row in rows), len(rows), limit=50
        )

    @property
    def _head(self) -> str:
        return f"{self.measure} by preset {self.preset}: second minus first, with {LEVEL:.0%} interval"

    def document(self) -> dict[str, Any]:
        """Return it as plain values, with None for NaN, ready for JSON."""
        rows = [
            {name: None if value != value else value for name, value in asdict(row).items()}
            for row in self.differences
        ]
        return {**asdict(self), "differences": rows}

    def summary(self) -> str:
        """Return it as text: all vertebrae, each of them, what was left out, and options that differ."""
        lines = [self._head]
        for row in self.differences:
            interval = "" if math.isnan(row.low) else f" [{row.low:+.4f}, {row.high:+.4f}]"
            lines.append(
                f"{row.group:5} n {row.n:6,}  {row.first:9.4f} {row.second:9.4f}  {row.difference:+9.4f}"
                f"{interval}  p {row.p_value:.3g}"
            )
        for which, only, count in (
            ("first", self.only_first, self.n_only_first),
            ("second", self.only_second, self.n_only_second),
        ):
            if only:
                cases = count_text(len(only), "case")
                lines.append(f"left out, only in the {which}: {cases}: {shortened(only)}")
            if count:
                noun = "vertebra" if count == 1 else "vertebrae"
                lines.append(f"left out, with a value only in the {which}: {count:,} {noun}")
        for name, (first, second) in self.options.items():
            lines.append(
                f"not made alike: {name} is {first!r} in the first, {second!r} in the second. Evaluate one "
                "of them again to compare like with like."
            )
        return "\n".join(lines)


def check_alike(first: Mapping[str, Any], second: Mapping[str, Any], own_scheme: str) -> None:
    """Check that two evaluations measured the same, as far as their options tell.

    Args:
        first: options of one; without any, nothing is known of it.
        second: those of the other.
        own_scheme: the label scheme of the data set, which those without one have.

    Raises:
        ValueError: their points are of different kinds, or their labels of different schemes.
    """
    for name, default, hint in (
        ("points", "mask", "Their centroids are 14 to 23 mm apart (those of masks are of kind 'mask')"),
        ("label_scheme", own_scheme, "The same number means different labels"),
    ):
        values = [options.get(name) or default for options in (first, second)]
        if first and second and values[0] != values[1]:
            raise ValueError(
                f"{name}: expected the same in both evaluations, found {values[0]!r} and {values[1]!r}. "
                f"{hint}. Evaluate one of them again."
            )


def differing_options(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the options of scores that two evaluations do not have alike, and the value of each.

    Only those that change what is measured, and that `check_alike` allows: ``numbering`` and ``reading`` say
    how predictions are written, and ``distances`` adds columns.

    Args:
        first: options of one; without any, nothing is known of it.
        second: those of the other.
    """
    if not first or not second:
        return {}
    defaults = asdict(ScoringOptions())
    pairs = {
        name: (first.get(name, defaults[name]), second.get(name, defaults[name]))
        for name in ("truncated", "other_labels", "resample")
    }
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def compare(
    first: ScoreTable,
    second: ScoreTable,
    preset: Preset,
    measure: str | None = None,
    *,
    vocabulary: Vocabulary | None = None,
    patients: Mapping[str, str] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Comparison:
    """Compare two evaluations by a measure, over the cases that both have.

    Args:
        first: the rows of one.
        second: the rows of the other.
        preset: the protocol.
        measure: one of `MEASURES`; None for the preset's first one that both have.
        vocabulary: of the labels, whose vertebrae are listed from the head downwards; None to list them in
            the order of labels.
        patients: of each case, by its id; None if each case is a patient of its own.
        resamples: how often patients are drawn for the intervals.
        seed: of these draws.

    Raises:
        ValueError: they have no case in common, or an argument is not allowed.
        MissingPackageError: SciPy is not installed.
    """
    measure = main_measure(preset, first, second) if measure is None else measure
    check_choice("measure", measure, tuple(MEASURES))
    check_count("seed", seed, 0)
    shared = [case_id for case_id in first.case_ids if case_id in set(second.case_ids)]
    if not shared:
        raise ValueError("the two evaluations have no case in common: nothing can be compared")
    names = {row["label"]: row["vertebra"] for row in (*first.rows, *second.rows)}
    both = [_matching(table, shared, sorted(names), measure, preset) for table in (first, second)]
    has_value = [~np.isnan(cells) for cells in both]
    is_pair = has_value[0] & has_value[1]
    pairs = [np.where(is_pair, cells, np.nan) for cells in both]
    own = [(patients or {}).get(case_id, case_id) for case_id in shared]
    weights = resampled(own, resamples, seed)
    differences = [_difference("all", pairs, own, weights, preset)]
    columns = {names[label]: column for column, label in enumerate(sorted(names))}
    for name in columns if vocabulary is None else vocabulary.names_downwards(columns):
        if is_pair[:, columns[name]].any():
            of_label = [cells[:, [columns[name]]] for cells in pairs]
            differences.append(_difference(name, of_label, own, weights, preset))
    return Comparison(
        measure,
        preset.name,
        tuple(differences),
        tuple(case_id for case_id in first.case_ids if case_id not in shared),
        tuple(case_id for case_id in second.case_ids if case_id not in shared),
        n_only_first=int((has_value[0] & ~is_pair).sum()),
        n_only_second=int((has_value[1] & ~is_pair).sum()),
    )


def _matching(
    table: ScoreTable, case_ids: list[str], labels: list[int], measure: str, preset: Preset
) -> NDArray[np.float64]:
    """Return the cells of these cases and labels, in their order."""
    rows: dict[str, list[Row]] = {}
    for row in table.rows:
        rows.setdefault(row["case_id"], []).append(row)
    kept = table.keep(row for case_id in case_ids for row in rows[case_id])
    cells = np.full((len(case_ids), len(labels)), np.nan)
    cells[:, np.searchsorted(labels, kept.labels)] = cells_of(kept, measure, preset)
    return cells


def _difference(
    group: str,
    pairs: list[NDArray[np.float64]],
    patients: list[str],
    weights: NDArray[np.float64],
    preset: Preset,
) -> Difference:
    once = np.ones((1, len(patients)))
    before, after = (float(weighted_means(cells, once, preset)[0]) for cells in pairs)
    low = high = math.nan
    paired = {patient for patient, cells in zip(patients, pairs[0], strict=True) if not np.isnan(cells).all()}
    if len(paired) > 1 and len(weights):
        drawn = weighted_means(pairs[1], weights, preset) - weighted_means(pairs[0], weights, preset)
        low, high = np.nanquantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Difference(
        group,
        int((~np.isnan(pairs[0])).sum()),
        before,
        after,
        after - before,
        float(low),
        float(high),
        _p_value(pairs[1] - pairs[0], patients),
    )


def _p_value(differences: NDArray[np.float64], patients: list[str]) -> float:
    """Return the p-value of the patients' mean differences; 1 if there is no difference at all."""
    try:
        from scipy.stats import wilcoxon
    except ImportError:
        raise MissingPackageError("the test of a comparison", "scipy", "evaluate") from None
    values: dict[str, list[float]] = {}
    for patient, row in zip(patients, differences, strict=True):
        values.setdefault(patient, []).extend(row[~np.isnan(row)].tolist())
    means = [sum(own) / len(own) for own in values.values() if own]
    if not means:
        return math.nan
    differing = [mean for mean in means if mean]  # the test leaves out the others, after a warning
    return float(wilcoxon(differing).pvalue) if differing else 1.0
