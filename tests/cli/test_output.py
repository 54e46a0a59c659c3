"""What a terminal shows, and what a pipe gets."""

import io
import sys

from ctspine1k.cli.main import main
from ctspine1k.cli.output import print_table


class Screen(io.StringIO):
    def isatty(self):
        return True


def shown(*words):
    assert main(list(words)) == 0
    return sys.stdout.getvalue().splitlines()


def test_tables_are_aligned_on_a_terminal_and_tab_separated_elsewhere(monkeypatch):
    monkeypatch.setattr(sys, "stdout", Screen())
    header, one = shown("list", "--case", "1.3.6.1.4.1.9328.50.4.0615")
    assert (
        header
        == "case_id                     split  index  source   scan_position  special_case          issues"
    )
    assert one == (
        "1.3.6.1.4.1.9328.50.4.0615  test     104  COLONOG  prone          lumbar_sacralization  castellvi_grade"
    )
    monkeypatch.setattr(sys, "stdout", Screen())
    assert shown("list", "--case", "HN_P023", "--case", "liver_106")[1:] == [
        "liver_106  train         507  MSD-T10                       sacral_lumbarization",
        "HN_P023    validation    152  HNSCC-3DCT-RT",
    ]
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert shown("list", "--case", "HN_P023")[1:] == ["HN_P023\tvalidation\t152\tHNSCC-3DCT-RT\t\t\t"]


def test_a_table_without_rows_has_its_header(monkeypatch):
    monkeypatch.setattr(sys, "stdout", Screen())
    assert shown("list", "--case", "HN_P023", "--split", "test") == [
        "case_id  split  index  source  scan_position  special_case  issues"
    ]


def test_columns_of_numbers_end_at_the_right_on_a_terminal(monkeypatch):
    rows = [
        {"name": "12", "size": 5, "mm": -0.25, "age": "61", "of": "61", "none": None},
        {"name": "x", "size": 1234, "mm": 1e-07, "age": None, "of": "61-65", "none": ""},
    ]
    monkeypatch.setattr(sys, "stdout", Screen())
    print_table(rows, rows[0])
    assert sys.stdout.getvalue().splitlines() == [
        "name  size     mm  age  of     none",
        "12       5  -0.25   61  61",
        "x     1234  1e-07       61-65",
    ]
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    print_table(rows, rows[0])
    assert sys.stdout.getvalue().splitlines()[1:] == ["12\t5\t-0.25\t61\t61\t", "x\t1234\t1e-07\t\t61-65\t"]
