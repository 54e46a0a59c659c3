"""The table as a file: every number to its last bit; other files are refused."""

import math

import pandas as pd
import pytest
from support.scores import random_table

from ctspine1k.errors import OutputError
from ctspine1k.evaluation.table import COLUMNS, DEFINITIONS, MEASURES, read_scores


def saved(path, table):
    path.write_text(table.csv(), encoding="utf-8")
    return path


def test_a_table_comes_back_to_the_last_bit(tmp_path):
    table = random_table()
    back = read_scores(saved(tmp_path / "cases.csv", table))
    assert back.digest() == table.digest()
    for one, other in zip(table.rows, back.rows, strict=True):
        for name in ("case_id", "label", "reference", "prediction", "dice", "hd_mm", "identified", "shift"):
            same = one[name] == other[name] or (one[name] != one[name] and other[name] != other[name])
            assert same, (name, one[name], other[name])
    assert read_scores(tmp_path).rows[0]["case_id"] == "c0"  # the folder of the results


def test_its_first_columns_and_types_for_other_tools(tmp_path):
    path = saved(tmp_path / "cases.csv", random_table())
    frame = pd.read_csv(path)
    assert list(frame.columns[:20]) == [
        "case_id",
        "label",
        "vertebra",
        "reference",
        "prediction",
        "truncated",
        "dice",
        "iou",
        "precision",
        "recall",
        "hd_mm",
        "hd95_mm",
        "hd95_pooled_mm",
        "assd_mm",
        "assd_two_means_mm",
        "nsd_1mm",
        "nsd_2mm",
        "nsd_3mm",
        "centroid_mm",
        "identified",
    ]
    assert frame.reference.dtype == bool
    assert frame.dice.dtype == float
    assert frame.hd_mm.isna().sum() == (~(frame.reference & frame.prediction)).sum()


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda text: text.replace(",dice,", ",dsc,"), "a file without the column dice"),
        (lambda text: text.replace("True", "yes", 1), "a cell that it cannot have"),
        (lambda text: text.replace(",T12,", ",T12,extra,", 1), "a cell that it cannot have"),
        (lambda text: text.rstrip() + ",0.5\n", "a cell that it cannot have .a row with more cells than"),
        (lambda text: "\x00" + text, "a (file|cell)"),
        (lambda text: "", "a file without the column case_id"),
    ],
)
def test_other_files_are_refused(tmp_path, change, found):
    path = tmp_path / "cases.csv"
    path.write_text(change(random_table().csv()), encoding="utf-8")
    with pytest.raises(OutputError, match=f"expected the table of an evaluation, found {found}"):
        read_scores(path)


def test_every_measure_has_a_definition():
    assert DEFINITIONS.keys() == MEASURES.keys()


def test_no_file(tmp_path):
    with pytest.raises(OutputError, match="found no file"):
        read_scores(tmp_path)


def test_matrices_have_a_row_for_each_case():
    table = random_table()
    dice = table.matrix("dice")
    assert dice.shape == (len(table.case_ids), len(table.labels))
    for one in table.rows:
        at = table.case_ids.index(one["case_id"]), table.labels.index(one["label"])
        assert dice[at] == one["dice"]
    assert math.isclose(float((~pd.isna(dice)).sum()), len(table.rows))
    assert len(COLUMNS) == len(set(COLUMNS))
