"""Means of an evaluation's table by a preset, with what they are of, and intervals over patients.

Every mean says how many vertebrae it is of, how many of the reference were missed, and how many were
predicted that are not in it, so that nothing is dropped in silence.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctspine1k.catalog.cases import Case
from ctspine1k.catalog.vocabulary import Vocabulary
from ctspine1k.evaluation.presets import Preset
from ctspine1k.evaluation.table import MEASURES, Row, ScoreTable

__all__ = [
    "LEVEL",
    "RESAMPLES",
    "Mean",
    "cells_of",
    "counted",
    "group_means",
    "main_measure",
    "mean_of",
    "resampled",
    "weighted_means",
]

#: Of the intervals: the share of resampled means between their ends.
LEVEL = 0.95

#: How often patients are drawn again.
RESAMPLES = 1000


@dataclass(frozen=True)
class Mean:
    """The mean of one measure."""

    value: float  #: NaN if there is nothing to average
    n: int  #: vertebrae that it is of
    n_missed: int  #: vertebrae of the reference that were not predicted
    n_false_positive: int  #: predicted ones that are not in the reference
    std: float  #: standard deviation of the vertebrae's values (of the population, as NumPy's default)
    median: float
    low: float = math.nan  #: ends of the interval; NaN if there is one patient only
    high: float = math.nan

    def document(self) -> dict[str, Any]:
        """Return it as plain values, with None for NaN, ready for JSON."""
        return {name: None if value != value else value for name, value in asdict(self).items()}


def counted(table: ScoreTable, preset: Preset, vocabulary: Vocabulary, *, sacrum: bool = False) -> ScoreTable:
    """Return the table without the vertebrae that a preset leaves out, unless ``sacrum`` asks for them.

    They were rivals when the others were identified, and stay so.
    """
    regions = () if sacrum else preset.leaves_out
    names = {one.name for one in vocabulary.vertebrae if one.region in regions} | set(regions)
    return table.keep(row for row in table.rows if row["vertebra"] not in names) if names else table


def main_measure(preset: Preset, *tables: ScoreTable) -> str:
    """Return the first measure of a preset that all tables have; if they have none, the first they have."""
    order = dict.fromkeys((*preset.measures, *MEASURES))
    taken = (measure for measure in order if all(measure in table.measures for table in tables))
    return next(taken, preset.measures[0])


def cells_of(
    table: ScoreTable, measure: str, preset: Preset, *, miss_penalty_mm: float | None = None
) -> NDArray[np.float64]:
    """Return the values that a preset averages, (cases, labels); NaN where nothing counts.

    Args:
        table: the rows.
        measure: one of `MEASURES`.
        preset: says what a label on one side only counts as.
        miss_penalty_mm: what a missed vertebra counts as in measures in mm; None to leave it out.
    """
    values = table.matrix(measure)
    is_there, is_predicted = (table.matrix(side) == 1 for side in ("reference", "prediction"))
    missed = MEASURES[measure]
    if measure.endswith("_mm") and miss_penalty_mm is not None:
        missed = miss_penalty_mm
    values[is_there & ~is_predicted] = missed
    counts = preset.counts_surplus and measure in preset.measures
    values[~is_there & is_predicted] = 0.0 if counts else math.nan
    return values


def weighted_means(
    cells: NDArray[np.float64], weights: NDArray[np.float64], preset: Preset
) -> NDArray[np.float64]:
    """Return the mean by a preset for each weighting of cases: (n,), given cells and weights (n, cases)."""
    if preset.over == "cases":
        of_case = _ratio(np.nan_to_num(cells).sum(axis=1), (~np.isnan(cells)).sum(axis=1))
        return _ratio(weights @ np.nan_to_num(of_case), weights @ ~np.isnan(of_case))
    sums, counts = weights @ np.nan_to_num(cells), weights @ ~np.isnan(cells)  # (n, labels)
    if preset.over == "all":
        return _ratio(sums.sum(axis=1), counts.sum(axis=1))
    of_label = _ratio(sums, counts)
    return _ratio(np.nan_to_num(of_label).sum(axis=1), (~np.isnan(of_label)).sum(axis=1))


def _ratio(part: NDArray[Any], whole: NDArray[Any]) -> NDArray[np.float64]:
    """Return part / whole, and NaN where whole is 0."""
    ratio: NDArray[np.float64] = np.divide(part, whole, out=np.full(np.shape(part), np.nan), where=whole > 0)
    return ratio


def resampled(patients: Sequence[str], resamples: int, seed: int) -> NDArray[np.float64]:
    """Return how often each case counts if patients are drawn again, (resamples, cases).

    As many patients are drawn as there are, with replacement; all cases of a patient go together.

    Args:
        patients: of each case.
        resamples: how often they are drawn.
        seed: of the draws.
    """
    names, of_case = np.unique(np.array(patients), return_inverse=True)
    drawn = np.random.default_rng(seed).multinomial(
        len(names), np.full(len(names), 1 / len(names)), resamples
    )
    return drawn[:, of_case.reshape(-1)].astype(float)


def mean_of(
    table: ScoreTable,
    measure: str,
    preset: Preset,
    *,
    patients: Mapping[str, str] | None = None,
    miss_penalty_mm: float | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Mean:
    """Return the mean of a measure by a preset.

    Args:
        table: the rows.
        measure: one of `MEASURES`.
        preset: the protocol.
        patients: of each case, by its id; None if each case is a patient of its own.
        miss_penalty_mm: as for `cells_of`.
        resamples: how often patients are drawn for the interval; 0 for none.
        seed: of these draws.
    """
    is_there, is_predicted = (table.matrix(side) == 1 for side in ("reference", "prediction"))
    counts = {
        "n_missed": int((is_there & ~is_predicted).sum()),
        "n_false_positive": int((~is_there & is_predicted).sum()),
    }
    cells = cells_of(table, measure, preset, miss_penalty_mm=miss_penalty_mm)
    used = cells[~np.isnan(cells)]
    if not used.size:
        return Mean(math.nan, 0, std=math.nan, median=math.nan, **counts)
    (value,) = weighted_means(cells, np.ones((1, len(cells))), preset)
    low = high = math.nan
    own = [(patients or {}).get(case_id, case_id) for case_id in table.case_ids]
    if resamples and len(set(own)) > 1:
        drawn = weighted_means(cells, resampled(own, resamples, seed), preset)
        low, high = np.nanquantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Mean(
        float(value), used.size, std=float(used.std()), median=float(np.median(used)),
        low=float(low), high=float(high), **counts,
    )  # fmt: skip


#: What a table is grouped by: a name, and the groups of a row, given its case if it is known.
_Groups = Callable[[Row, "Case | None"], Sequence[str]]


def _groupings(vocabulary: Vocabulary) -> dict[str, _Groups]:
    """Return what vertebrae are grouped by, in that order."""
    regions = {vertebra.name: vertebra.region for vertebra in vocabulary.vertebrae}
    regions |= {region: region for region in regions.values()}  # in the scheme of regions

    def fact(name: str) -> _Groups:
        return lambda row, case: [str(case.facts[name])] if case and case.facts.get(name) else []

    return {
        "vertebra": lambda row, case: [row["vertebra"]],
        "region": lambda row, case: [regions[row["vertebra"]]] if row["vertebra"] in regions else [],
        "source": fact("source"),
        "special_case": fact("special_case"),
        "issue": lambda row, case: sorted({issue.kind for issue in case.issues}) if case else [],
        "truncated": lambda row, case: ["cut by the scan" if row["truncated"] else "whole"],
    }


def group_means(
    table: ScoreTable,
    measure: str,
    preset: Preset,
    vocabulary: Vocabulary,
    cases: Mapping[str, Case],
    **options: Any,
) -> dict[str, dict[str, Mean]]:
    """Return the mean of a measure for each group of vertebrae, by what they are grouped by.

    Args:
        table: the rows.
        measure: one of `MEASURES`.
        preset: the protocol.
        vocabulary: of the labels.
        cases: what is known of cases, by id.
        options: as for `mean_of`.

    Returns:
        Means by group, by "vertebra", "region", "source", "special_case", "issue" and "truncated". A case
        with several known issues is in several groups.
    """
    means: dict[str, dict[str, Mean]] = {}
    for by, groups_of in _groupings(vocabulary).items():
        groups: dict[str, list[Row]] = {}
        for row in table.rows:
            for group in groups_of(row, cases.get(row["case_id"])):
                groups.setdefault(group, []).append(row)
        order = vocabulary.names_downwards(groups) if by in ("vertebra", "region") else sorted(groups)
        means[by] = {group: mean_of(table.keep(groups[group]), measure, preset, **options) for group in order}
    return means
