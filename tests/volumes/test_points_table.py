"""Tables of points: what is read, and what is said of a table that cannot be."""

import pytest

from ctspine1k.catalog.registry import data_set
from ctspine1k.errors import FileFormatError, PointsError
from ctspine1k.volumes.points_table import read_points_table

VOCABULARY = data_set("verse").vocabulary
HEAD = "case_id,label,x_mm,y_mm,z_mm\n"


def read(path, text):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_points_table(path, VOCABULARY)


@pytest.mark.parametrize("start", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_points_are_read_by_case_and_label(tmp_path, start, end):
    """Columns are found by their names, and others may stand between them."""
    lines = [
        "z_mm,vertebra,note,case_id,y_mm,x_mm",
        '3,T1,"a, b", second ,2, 1.5 ',
        "6.25,l5,,first,-5,4e1",
        "9,T13,,second,8,7",
    ]
    found = read(tmp_path / "a.csv", start + end.join(lines) + end)
    assert list(found) == ["second", "first"]
    assert found == {"second": {8: (1.5, 2, 3), 28: (7, 8, 9)}, "first": {24: (40, -5, 6.25)}}
    numbers = read(tmp_path / "b.csv", f"vertebra,{HEAD}T9,a,8,1,2,3\n")  # a label counts before a name
    assert numbers == {"a": {8: (1, 2, 3)}}


@pytest.mark.parametrize(
    ("text", "error", "expected", "found", "hint"),
    [
        ("", FileFormatError, "the columns case_id, label or vertebra, x_mm, y_mm, z_mm in line 1", "no column case_id, x_mm, y_mm, z_mm, label (or vertebra) among none", "Name the columns so, with commas between them."),
        ("case_id,label,x_mm,y_mm\n", FileFormatError, "the columns case_id, label or vertebra, x_mm, y_mm, z_mm in line 1", "no column z_mm among case_id, label, x_mm, y_mm", "Name the columns so, with commas between them."),
        (f"{HEAD}a,8,1,2,3\nb,8,1,5,2,3\n", FileFormatError, "5 cells in line 3, as there are columns", "6", "Correct the table."),
        (f"{HEAD} ,8,1,2,3\n", FileFormatError, "a case in line 2, column case_id", "an empty cell", "Correct the table."),
        (f"{HEAD}a,{'9' * 50},1,2,3\n", PointsError, "a vertebra of the data set in line 2, column label", repr("9" * 40), "There is "),
        (f"{HEAD}a\n", PointsError, "a vertebra of the data set in line 2, column label", "''", "There is "),
        (f"{HEAD}a,8,1,2,3\na,8,1,2,4\n", PointsError, "one T1 of a", "a second one in line 3, column label", "Correct the table."),
        (f"{HEAD}a,8,{'x' * 50},2,3\n", FileFormatError, "a finite number of mm in line 2, column x_mm", repr("x" * 40), "Correct the table."),
        (f"{HEAD}a,8,1,inf,3\n", FileFormatError, "a finite number of mm in line 2, column y_mm", "'inf'", "Correct the table."),
        (f"{HEAD}a,8,1,2\n", FileFormatError, "a finite number of mm in line 2, column z_mm", "an empty cell", "Correct the table."),
        (b"\xff" + HEAD.encode(), FileFormatError, "a CSV file in UTF-8", "'utf-8' codec can't decode byte 0xff", "Save it in that encoding."),
        (f"{HEAD}a,8,1,2,{'3' * 140_000}\n", FileFormatError, "a table with commas in line 2", "field larger than field limit", "Correct the table."),
    ],
    ids=str,
)  # fmt: skip
def test_what_is_no_table_of_points(tmp_path, text, error, expected, found, hint):
    path = tmp_path / "a.csv"
    with pytest.raises(error) as caught:
        read(path, text)
    assert caught.value.file == str(path)
    assert caught.value.expected == expected
    assert caught.value.found.startswith(found)
    assert caught.value.hint.startswith(hint)
    with pytest.raises(FileNotFoundError):
        read_points_table(tmp_path / "none.csv", VOCABULARY)
