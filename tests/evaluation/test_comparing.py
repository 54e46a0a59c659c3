"""Two evaluations of the same cases: paired differences, against plain loops and SciPy."""

import json
import math

import numpy as np
import pytest
from support.scores import random_table, row

from ctspine1k.evaluation.comparing import check_alike, compare, differing_options
from ctspine1k.evaluation.presets import preset_of
from ctspine1k.evaluation.table import ScoreTable


def p_value(differences):
    """Of Wilcoxon's signed ranks, by SciPy, which takes long to import."""
    from scipy.stats import wilcoxon

    return wilcoxon(differences).pvalue


@pytest.mark.slow
def test_differences_are_of_pairs():
    first, second = random_table(1), random_table(2)
    comparison = compare(first, second, preset_of("msr"), "hd_mm")
    values = [
        {(one["case_id"], one["label"]): one["hd_mm"] for one in table.rows if not math.isnan(one["hd_mm"])}
        for table in (first, second)
    ]
    shared = values[0].keys() & values[1].keys()
    every, *vertebrae = comparison.differences
    assert every.n == len(shared)
    assert every.first == pytest.approx(np.mean([values[0][key] for key in shared]))
    assert every.difference == pytest.approx(np.mean([values[1][key] - values[0][key] for key in shared]))
    assert every.low < every.difference < every.high
    by_case = {}
    for case_id, label in shared:
        by_case.setdefault(case_id, []).append(values[1][case_id, label] - values[0][case_id, label])
    assert every.p_value == pytest.approx(p_value([np.mean(own) for own in by_case.values()]))
    assert sum(one.n for one in vertebrae) == every.n
    only = [len(own.keys() - shared) for own in values]
    assert [comparison.n_only_first, comparison.n_only_second] == only
    assert f"left out, with a value only in the second: {only[1]} vertebrae" in comparison.summary()
    assert [one.group for one in vertebrae] == ["C5", "C6", "T12", "L1"]


@pytest.mark.slow
def test_missed_in_one_counts_as_0_in_overlap():
    first = ScoreTable((row("a", 20, dice=0.8), row("b", 20, dice=0.6)))
    second = ScoreTable((row("a", 20, prediction=False), row("b", 20, dice=0.6)))
    (every, l1) = compare(first, second, preset_of("ctspine1k")).differences
    assert every.difference == pytest.approx(-0.4)
    assert l1.n == 2
    both = [table.keep({**one, "hd_mm": math.nan if not one["prediction"] else 2.0} for one in table.rows)
            for table in (first, second)]  # fmt: skip
    missed = compare(*both, preset_of("ctspine1k"), "hd_mm")
    assert (missed.differences[0].n, missed.n_only_first, missed.n_only_second) == (1, 1, 0)
    assert missed.summary().splitlines()[-1] == "left out, with a value only in the first: 1 vertebra"


def test_cases_of_one_side_are_left_out_and_named():
    first = ScoreTable((row("a", 20, dice=0.8), row("b", 20, dice=0.5)))
    second = ScoreTable((row("b", 20, dice=0.5), row("c", 20, dice=0.1)))
    comparison = compare(first, second, preset_of("ctspine1k"))
    assert (comparison.only_first, comparison.only_second) == (("a",), ("c",))
    assert comparison.differences[0].n == 1
    assert comparison.differences[0].p_value == 1.0
    text = comparison.summary()
    assert "nan" not in text  # no interval of one patient
    assert "left out, only in the first: 1 case: a" in text
    assert "left out, only in the second: 1 case: c" in text
    document = json.loads(json.dumps(comparison.document(), allow_nan=False))
    assert document["differences"][0]["low"] is None
    with pytest.raises(ValueError, match="measure='nope': expected one of 'dice'"):
        compare(first, second, preset_of("verse"), "nope")
    with pytest.raises(ValueError, match="no case in common"):
        compare(first, ScoreTable((row("z", 20, dice=0.5),)), preset_of("nnunet"))


def test_cases_of_a_patient_count_as_one():
    first = ScoreTable(tuple(row(f"c{n}", 20, dice=0.5) for n in range(6)))
    second = ScoreTable(tuple(row(f"c{n}", 20, dice=0.5 + 0.01 * (n + 1)) for n in range(6)))
    alone = compare(first, second, preset_of("verse"))
    paired = compare(first, second, preset_of("verse"), patients={f"c{n}": f"p{n // 2}" for n in range(6)})
    assert alone.differences[0].p_value == p_value([0.01 * (n + 1) for n in range(6)])
    assert paired.differences[0].p_value == p_value([0.015, 0.035, 0.055])
    assert paired.differences[0].difference == pytest.approx(alone.differences[0].difference)
    rare = [ScoreTable((*table.rows, row("c0", 7, dice=0.5))) for table in (first, second)]
    c7, l1 = compare(*rare, preset_of("verse")).differences[1:]
    assert (c7.n, math.isnan(c7.low), math.isnan(l1.low)) == (1, True, False)  # one patient has no interval


def test_what_was_not_measured_alike_is_not_compared():
    for first, second in (({"points": "body"}, {"points": "mask"}), ({"points": None}, {"points": "body"}),
                          ({"label_scheme": None}, {"label_scheme": "binary"}),):  # fmt: skip
        with pytest.raises(ValueError, match=f"{next(iter(first))}: expected the same in both evaluations"):
            check_alike(first, second, "ctspine1k")
    check_alike({"points": None, "truncated": "keep"}, {"points": "mask", "truncated": "drop"}, "ctspine1k")
    check_alike({"points": "body"}, {}, "ctspine1k")  # of which nothing is known
    check_alike({"label_scheme": None}, {"label_scheme": "ctspine1k"}, "ctspine1k")


def test_options_that_differ():
    dropped = {"truncated": "drop", "distances": False, "numbering": "totalsegmentator"}
    assert differing_options(dropped, {}) == {}  # of which nothing is known
    assert differing_options(dropped, {"resample": None, "numbering": "own"}) == {
        "truncated": ("drop", "keep")
    }
