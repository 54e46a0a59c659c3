"""Means by each preset, against plain loops over the rows that follow the presets' texts."""

import math

import numpy as np
import pytest
from support.scores import VOCABULARY, random_table, row

from ctspine1k import load_catalog
from ctspine1k.evaluation.means import cells_of, group_means, mean_of, resampled, weighted_means
from ctspine1k.evaluation.presets import PRESETS, preset_of
from ctspine1k.evaluation.table import ScoreTable


def plain(table, preset, measure, penalty=None):
    """The mean as the text of the preset says it."""

    def value(one):
        if one["reference"] and one["prediction"]:
            return float(one[measure])
        if one["reference"]:
            return penalty if measure.endswith("_mm") else 0.0
        return 0.0 if preset == "nnunet" and measure in ("dice", "iou") else None

    values = {(one["case_id"], one["label"]): value(one) for one in table.rows}
    values = {key: found for key, found in values.items() if found is not None and not math.isnan(found)}
    if preset == "msr":
        return sum(values.values()) / len(values)
    which = 0 if preset == "verse" else 1
    groups = {}
    for key, found in values.items():
        groups.setdefault(key[which], []).append(found)
    return sum(sum(group) / len(group) for group in groups.values()) / len(groups)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("measure", ["dice", "hd_mm", "identified_msr", "nsd_3mm"])
def test_means_are_those_of_the_texts(preset, measure):
    for seed in range(5):
        table = random_table(seed)
        mean = mean_of(table, measure, preset_of(preset), resamples=0)
        assert mean.value == pytest.approx(plain(table, preset, measure), rel=1e-12)
        assert mean.n_missed == sum(one["reference"] and not one["prediction"] for one in table.rows)
        assert mean.n_false_positive == sum(one["prediction"] and not one["reference"] for one in table.rows)


def test_a_penalty_counts_missed_vertebrae_in_mm_only():
    table = random_table()
    options = {"miss_penalty_mm": 100.0, "resamples": 0}
    mean = mean_of(table, "hd_mm", preset_of("verse"), **options)
    assert mean.value == pytest.approx(plain(table, "verse", "hd_mm", penalty=100.0), rel=1e-12)
    assert mean.n == mean_of(table, "hd_mm", preset_of("verse"), resamples=0).n + mean.n_missed
    assert mean_of(table, "dice", preset_of("verse"), **options).value == pytest.approx(
        plain(table, "verse", "dice"), rel=1e-12
    )


def test_the_four_answers_to_empty_sides():
    """A case with one label right, one missed, and one that is only predicted."""
    rows = (
        row("a", 20, dice=0.8, iou=0.6),
        row("a", 21, prediction=False),
        row("a", 22, reference=False),
        row("b", 20, dice=0.4, iou=0.2),
    )
    values = {
        name: mean_of(ScoreTable(rows), "dice", preset, resamples=0).value for name, preset in PRESETS.items()
    }
    assert values == pytest.approx(
        {
            "ctspine1k": (0.6 + 0) / 2,
            "nnunet": (0.6 + 0 + 0) / 3,
            "verse": ((0.8 + 0) / 2 + 0.4) / 2,
            "totalsegmentator": (0.6 + 0) / 2,
            "msr": (0.8 + 0 + 0.4) / 3,
        }
    )


def test_nothing_to_average_is_told_and_not_dropped():
    table = ScoreTable((row("a", 20, prediction=False), row("a", 21, reference=False)))
    mean = mean_of(table, "hd_mm", preset_of("ctspine1k"))
    assert (mean.n, mean.n_missed, mean.n_false_positive) == (0, 1, 1)
    assert math.isnan(mean.value)
    assert mean.document()["value"] is None


def test_intervals_draw_patients_and_not_cases():
    weights = resampled(["p", "q", "p", "r"], 200, seed=3)
    assert weights.shape == (200, 4)
    assert (weights[:, 0] == weights[:, 2]).all()
    assert (weights[:, [0, 1, 3]].sum(axis=1) == 3).all()
    assert np.array_equal(weights, resampled(["p", "q", "p", "r"], 200, seed=3))
    assert not np.array_equal(weights, resampled(["p", "q", "p", "r"], 200, seed=4))


def test_an_interval_is_that_of_plainly_repeated_cases():
    table, preset = random_table(), preset_of("ctspine1k")
    weights = resampled(table.case_ids, 1000, seed=0)
    means = []
    for weight in weights[:50]:
        rows = [
            {**one, "case_id": f"{case_id}-{copy}"}
            for case_id, count in zip(table.case_ids, weight, strict=True)
            for copy in range(int(count))
            for one in table.by_case[case_id]
        ]
        means.append(plain(ScoreTable(tuple(rows)), "ctspine1k", "dice"))
    drawn = weighted_means(cells_of(table, "dice", preset), weights, preset)
    assert drawn[:50] == pytest.approx(means, rel=1e-12)
    mean = mean_of(table, "dice", preset)
    assert (mean.low, mean.high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])))
    assert mean.low < mean.value < mean.high


def test_one_patient_has_no_interval():
    table = random_table()
    mean = mean_of(table, "dice", preset_of("verse"), patients=dict.fromkeys(table.case_ids, "p"))
    assert math.isnan(mean.low)
    assert math.isnan(mean.high)


def test_groups():
    catalog = load_catalog()
    cases = {case_id: catalog[case_id] for case_id in ("liver_106", "liver_83", "HN_P023")}
    rows = (
        row("liver_106", 20, dice=0.9),
        row("liver_106", 5, dice=0.5),
        {**row("liver_83", 20, dice=0.7), "truncated": True},
        row("HN_P023", 5, reference=False),
    )
    groups = group_means(ScoreTable(rows), "dice", preset_of("ctspine1k"), VOCABULARY, cases, resamples=0)
    shown = {
        by: {group: (mean.value, mean.n) for group, mean in means.items()} for by, means in groups.items()
    }
    assert shown["vertebra"] == {"C5": (0.5, 1), "L1": (pytest.approx(0.8), 2)}
    assert list(shown["region"]) == ["cervical", "lumbar"]
    assert shown["truncated"] == {"cut by the scan": (0.7, 1), "whole": (pytest.approx(0.7), 2)}
    assert shown["source"]["MSD-T10"] == (pytest.approx((0.8 + 0.5) / 2), 3)
    assert groups["source"]["HNSCC-3DCT-RT"].n_false_positive == 1
    assert shown["special_case"] == {
        cases[name].special_case: (pytest.approx(value), n)
        for name, value, n in (("liver_106", 0.7, 2), ("liver_83", 0.7, 1))
        if cases[name].special_case
    }
    issues = {issue.kind for case in cases.values() for issue in case.issues}
    assert set(shown["issue"]) == issues


def test_an_unknown_preset_lists_the_known_ones():
    with pytest.raises(ValueError, match="preset='dsc': expected one of 'ctspine1k', 'nnunet', 'verse'"):
        preset_of("dsc")
