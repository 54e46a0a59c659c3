"""What evaluations say of their scores: in which order, which cases are the worst, and what means leave out."""

import math

import numpy as np
import pytest
from support.scores import row

from ctspine1k.catalog.registry import data_set, load_catalog
from ctspine1k.evaluation.comparing import compare
from ctspine1k.evaluation.presets import preset_of
from ctspine1k.evaluation.report import report
from ctspine1k.evaluation.results import CaseResult, Evaluation
from ctspine1k.evaluation.scoring import Task
from ctspine1k.evaluation.table import ScoreTable
from ctspine1k.files.raw import RawFile

VERSE = data_set("verse")
CASES = load_catalog("verse")


def verse_row(case, label, **values):
    """A row of a case of VerSe, whose labels have names of their own."""
    found = row(case.case_id, 20, **values)
    return {**found, "label": label, "vertebra": VERSE.vocabulary.name(label), "volume_voxels": 100}


def evaluation_of(*rows, **options):
    cases = {one["case_id"]: CASES[one["case_id"]] for one in rows}
    results = [
        CaseResult(Task(case, RawFile(case, "mask", 0, "m.nii.gz", "m.nii.gz", None, None, ""), {}), None, "")
        for case in cases.values()
    ]
    return Evaluation(
        VERSE, preset_of("verse"), ScoreTable(rows), tuple(results), (),
        {"label_scheme": None, "points": None}, cases, **options,
    )  # fmt: skip


@pytest.fixture
def with_t13():
    """A case with T12, T13 (28) and L1, of which the first was taken for the second."""
    (case, *_) = CASES
    values = {"dice": 0.5, "hd_mm": 2.0, "reference_voxels": 5, "prediction_voxels": 5, "common_voxels": 2}
    return evaluation_of(
        verse_row(case, 19, **{**values, "shift": 9}),
        verse_row(case, 20, **values),
        verse_row(case, 28, **values),
    )


def test_t13_is_listed_above_l1(with_t13):
    wanted = ["T12", "T13", "L1"]
    assert list(with_t13.values_by_vertebra()) == wanted
    counts, rows, columns = with_t13.confusion()
    assert (rows, columns) == (wanted, [*wanted, "none"])
    assert np.array_equal(counts, [[0, 1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]])
    assert list(with_t13.groups["dice"]["vertebra"]) == wanted
    lines = report(with_t13).partition("## dice by vertebra")[2].splitlines()
    assert [line.split()[1] for line in lines if line.startswith("| ")][1:4] == wanted
    tables = with_t13.table, with_t13.table
    differences = compare(*tables, with_t13.preset, vocabulary=VERSE.vocabulary, resamples=0).differences
    assert [one.group for one in differences] == ["all", *wanted]
    assert with_t13.table.labels == (19, 20, 28)  # rows of tables stay in the order of labels


def test_perfect_cases_are_not_among_the_worst():
    first, second, third, *_ = CASES
    rows = [verse_row(case, label, dice=1.0) for case in (first, second, third) for label in (20, 21)]
    perfect = evaluation_of(*rows)
    assert perfect.worst() == []
    assert "Dice over labels: none, as every label of every case is perfect." in report(perfect)
    rows[-1]["dice"] = 0.5
    surplus = verse_row(first, 22, reference=False, shift=None)
    found = evaluation_of(*rows, surplus)
    assert [(one.case_id, mean) for one, mean in found.worst()] == [
        (first.case_id, 2 / 3),
        (third.case_id, 0.75),
    ]
    listed = f"Dice over labels: `{first.case_id}` 0.6667, `{third.case_id}` 0.7500."
    assert listed in report(found)


def test_reports_say_which_means_leave_missed_vertebrae_out():
    case, *_ = CASES
    rows = (
        verse_row(case, 20, dice=0.5, hd_mm=2.0, centroid_mm=1.0, volume_error=0.1),
        verse_row(case, 21, prediction=False, volume_error=-1.0),
    )
    text = report(evaluation_of(*rows))
    assert "no value in `hd_mm`, `centroid_mm`: these means leave it out." in text.partition("## Cases")[0]
    assert "no value in `volume_error`: these means leave it out." in text.partition("## Other measures")[2]
    (line,) = [line for line in text.splitlines() if line.startswith("| volume_error ")]
    assert line.endswith("| 1 | 1 | 0 |")  # n, missed, false
    penalised = report(evaluation_of(*rows, miss_penalty_mm=100.0))
    assert "In `hd_mm`, `centroid_mm` a missed one counts 100 mm." in penalised
    assert "no value in `volume_error`" in penalised
    assert math.isclose(evaluation_of(*rows, miss_penalty_mm=100.0).means["hd_mm"].value, 51)


def test_a_notebook_shows_means_and_differences():
    first, second, *_ = CASES
    rows = [verse_row(case, 20, dice=2 / 3) for case in (first, second)]
    found = evaluation_of(*rows)
    page = found._repr_html_()
    assert page.startswith("<p>VerSe, 2 cases, preset verse: ")
    assert "<tr><th>measure</th><th>value</th><th>n</th>" in page
    assert "<tr><td>dice</td><td>0.666667</td><td>2</td><td>0</td><td>0</td>" in page
    other = ScoreTable(tuple({**one, "dice": 0.5} for one in rows[:1]))
    page = compare(found.table, other, found.preset, "dice")._repr_html_()
    assert page.startswith("<p>dice by preset verse: second minus first, with 95% interval</p>")
    numbers = "<td>1</td><td>0.666667</td><td>0.5</td><td>-0.166667</td><td></td><td></td><td>1</td></tr>"
    assert page.endswith(f"<tr><td>all</td>{numbers}<tr><td>L1</td>{numbers}</table>")
