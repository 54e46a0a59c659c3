"""Points of many cases in one CSV file, a row for each vertebra.

=========================  =====================================================
column                     what
=========================  =====================================================
case_id                    the case
label, or else vertebra    the number of the vertebra in the data set, or its name
x_mm, y_mm, z_mm           RAS+ millimetres, with decimal points
=========================  =====================================================

Other columns are ignored.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from pathlib import Path

from ctspine1k.catalog.vocabulary import Vocabulary
from ctspine1k.errors import FileFormatError, PointsError

__all__ = ["read_points_table"]

_PLACE = ("x_mm", "y_mm", "z_mm")

_HINT = "Correct the table."


def read_points_table(path: Path, vocabulary: Vocabulary) -> dict[str, dict[int, tuple[float, float, float]]]:
    """Read a table of points.

    Returns:
        RAS+ mm by label, for each case, in the order of the table.

    Raises:
        FileFormatError: a column is missing, or a cell is not a number; the message says which.
        PointsError: a vertebra that the vocabulary does not have, or that a case has twice.
        FileNotFoundError: there is no file at the path.
    """
    name = str(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise FileFormatError(name, "a CSV file in UTF-8", str(error), "Save it in that encoding.") from error
    reader = csv.DictReader(io.StringIO(text, newline=""))
    try:
        columns = list(reader.fieldnames or ())
        which = _column_of_vertebrae(columns, name)
        points: dict[str, dict[int, tuple[float, float, float]]] = {}
        for row in reader:
            line = f"line {reader.line_num}"
            if None in row:  # such as a decimal comma, which would move the cells after it
                expected = f"{len(columns)} cells in {line}, as there are columns"
                raise FileFormatError(name, expected, f"{len(columns) + len(row[None])}", _HINT)
            case_id = (row["case_id"] or "").strip()
            if not case_id:
                raise FileFormatError(name, f"a case in {line}, column case_id", "an empty cell", _HINT)
            label = _label(row, which, vocabulary, name, line)
            x, y, z = (_number(row, column, name, line) for column in _PLACE)
            own = points.setdefault(case_id, {})
            if label in own:
                found = f"a second one in {line}, column {which}"
                raise PointsError(name, f"one {vocabulary.name(label)} of {case_id}", found, _HINT)
            own[label] = x, y, z
    except csv.Error as error:
        expected = f"a table with commas in line {reader.reader.line_num}"
        raise FileFormatError(name, expected, str(error), _HINT) from error
    return points


def _column_of_vertebrae(columns: list[str], name: str) -> str:
    """Return the column that says which vertebra a row is of."""
    lacking = [column for column in ("case_id", *_PLACE) if column not in columns]
    which = next((column for column in ("label", "vertebra") if column in columns), None)
    if which is None:
        lacking.append("label (or vertebra)")
    if which is None or lacking:
        expected = "the columns case_id, label or vertebra, x_mm, y_mm, z_mm in line 1"
        found = f"no column {', '.join(lacking)} among {', '.join(columns) or 'none'}"
        raise FileFormatError(name, expected, found, "Name the columns so, with commas between them.")
    return which


def _label(row: Mapping[str, str | None], which: str, vocabulary: Vocabulary, name: str, line: str) -> int:
    text = (row[which] or "").strip()
    try:
        return vocabulary.label(text)
    except ValueError as error:
        expected = f"a vertebra of the data set in {line}, column {which}"
        hint = f"There is {error}."
        raise PointsError(name, expected, repr(text[:40]), hint) from error


def _number(row: Mapping[str, str | None], column: str, name: str, line: str) -> float:
    text = (row[column] or "").strip()
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        expected = f"a finite number of mm in {line}, column {column}"
        raise FileFormatError(name, expected, repr(text[:40]) if text else "an empty cell", _HINT)
    return value
