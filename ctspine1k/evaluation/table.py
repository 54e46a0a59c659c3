"""The table of an evaluation: a row for each case and label, in memory and as ``cases.csv``.

Truth values are ``True`` and ``False``, NaN is an empty cell. The first columns:

========================  ==============================================================================
column                    what
========================  ==============================================================================
case_id, label, vertebra  the case, and the label's number and name
reference, prediction     whether the label is there
truncated                 whether it is in the first or last axial slice: of the reference, else predicted
dice ... recall           overlap
hd_mm ... assd_two_means_mm  distances of surfaces; empty if the label is on one side only
nsd_1mm ...               normalized surface Dice, pooled
centroid_mm, identified   distance of the centroids, and whether the vertebra is identified by VerSe's rule
========================  ==============================================================================

Later ones: identification by the rule of MICCAI 2013, volume error, voxels on either side, in both and of the
volume, the shift (label predicted for most of the vertebra, or of points that of the nearest, minus its own),
the NSD as mean of two directions and by area, and the problem of a case that could not be judged, whose
vertebrae count as missed. Points have only identification, distances of centroids and shifts.
"""

from __future__ import annotations

import csv
import hashlib
import io
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ctspine1k.errors import OutputError

__all__ = ["COLUMNS", "DEFINITIONS", "MEASURES", "SHARES", "Row", "ScoreTable", "read_scores"]

Row: TypeAlias = "Mapping[str, Any]"

_OVERLAP = ("dice", "iou", "precision", "recall")
_DISTANCES = ("hd_mm", "hd95_mm", "hd95_pooled_mm", "assd_mm", "assd_two_means_mm")
_NSD = ("nsd_1mm", "nsd_2mm", "nsd_3mm")
_LATER_NSD = tuple(f"nsd_{how}_{mm}mm" for mm in (1, 2, 3) for how in ("two_means", "area"))
_TRUTHS = ("reference", "prediction", "truncated", "identified", "identified_msr")
_COUNTS = ("label", "reference_voxels", "prediction_voxels", "common_voxels", "volume_voxels", "shift")
_TEXTS = ("case_id", "vertebra", "problem")

COLUMNS = (
    "case_id", "label", "vertebra", "reference", "prediction", "truncated",
    *_OVERLAP, *_DISTANCES, *_NSD, "centroid_mm", "identified",
    "identified_msr", "volume_error",
    "reference_voxels", "prediction_voxels", "common_voxels", "volume_voxels", "shift",
    *_LATER_NSD, "problem",
)  # fmt: skip

#: Measures from 0 to 1.
SHARES = (*_OVERLAP, *_NSD, *_LATER_NSD, "identified", "identified_msr")

#: What a vertebra that was missed has in each column that is averaged; NaN where it has no value.
MEASURES: dict[str, float] = {
    **dict.fromkeys(_OVERLAP, 0.0),
    "precision": math.nan,
    **dict.fromkeys(_DISTANCES, math.nan),
    **dict.fromkeys((*_NSD, *_LATER_NSD), 0.0),
    "centroid_mm": math.nan,
    "identified": 0.0,
    "identified_msr": 0.0,
    "volume_error": math.nan,
}

#: Distances, which a missed vertebra lacks, and what it has, 0, where these are measured.
_TAKEN_WITH = {**dict.fromkeys(_DISTANCES, "nsd_1mm"), "centroid_mm": "identified"}

#: What each measure is.
DEFINITIONS: dict[str, str] = {
    "dice": "2 TP / (2 TP + FP + FN), of voxels",
    "iou": "TP / (TP + FP + FN), of voxels",
    "precision": "TP / (TP + FP), of voxels",
    "recall": "TP / (TP + FN), of voxels",
    "hd_mm": "Hausdorff distance: the greater of both directed maxima between the surfaces",
    "hd95_mm": "the greater of both directed 95th percentiles of the distances of surface voxels (MONAI)",
    "hd95_pooled_mm": "95th percentile of the distances of both directions together (medpy)",
    "assd_mm": "mean of the distances of both directions together (medpy, MONAI)",
    "assd_two_means_mm": "mean of the two directed means of the distances (panoptica)",
    **{f"nsd_{mm}mm": f"part of all surface voxels within {mm} mm of the other surface" for mm in (1, 2, 3)},
    **{
        f"nsd_two_means_{mm}mm": f"mean of the parts of each surface's voxels within {mm} mm (panoptica)"
        for mm in (1, 2, 3)
    },
    **{
        f"nsd_area_{mm}mm": f"part of both surfaces within {mm} mm, by area (DeepMind's surface-distance)"
        for mm in (1, 2, 3)
    },
    "centroid_mm": "distance of the centres of mass, or of the points that are compared",
    "identified": "VerSe: of the labels on both sides, the nearest is its own, at most 20 mm away",
    "identified_msr": "MICCAI 2013: of all in the reference, the nearest is its own, less than 20 mm away",
    "volume_error": "(prediction - reference) / reference, of voxels",
}

_NUMBERS = tuple(name for name in MEASURES if name not in _TRUTHS)


@dataclass(frozen=True)
class ScoreTable:
    """Rows of an evaluation, in the order of cases, then of labels."""

    rows: tuple[Row, ...]

    def __repr__(self) -> str:
        return f"ScoreTable({len(self.case_ids):,} cases, {len(self.rows):,} rows)"

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def case_ids(self) -> tuple[str, ...]:
        """The cases, in order."""
        return tuple(dict.fromkeys(row["case_id"] for row in self.rows))

    @cached_property
    def labels(self) -> tuple[int, ...]:
        """The labels on either side of any case, from the smallest."""
        return tuple(sorted({row["label"] for row in self.rows}))

    @cached_property
    def measures(self) -> tuple[str, ...]:
        """The measures that were taken: any row has a value of them, or of what is taken with them."""
        valued = {name for name in MEASURES if any(row[name] == row[name] for row in self.rows)}
        return tuple(name for name in MEASURES if name in valued or _TAKEN_WITH.get(name) in valued)

    def keep(self, rows: Iterable[Row]) -> ScoreTable:
        """Return a table with only these rows."""
        return ScoreTable(tuple(rows))

    def matrix(self, column: str) -> NDArray[np.float64]:
        """Return a column as (cases, labels); NaN where there is no row, and for empty cells."""
        values = np.full((len(self.case_ids), len(self.labels)), np.nan)
        for (case, label), row in zip(self._places, self.rows, strict=True):
            value = row[column]
            values[case, label] = np.nan if value is None else value
        return values

    @cached_property
    def _places(self) -> list[tuple[int, int]]:
        cases = {case_id: number for number, case_id in enumerate(self.case_ids)}
        labels = {label: number for number, label in enumerate(self.labels)}
        return [(cases[row["case_id"]], labels[row["label"]]) for row in self.rows]

    @cached_property
    def by_case(self) -> dict[str, tuple[Row, ...]]:
        """The rows of each case, by its id."""
        rows: dict[str, list[Row]] = {}
        for row in self.rows:
            rows.setdefault(row["case_id"], []).append(row)
        return {case_id: tuple(own) for case_id, own in rows.items()}

    def csv(self) -> str:
        """Return the table as text."""
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for row in self.rows:
            writer.writerow({name: _cell(row[name]) for name in COLUMNS})
        # The name of a file that cannot be used need not be UTF-8.
        return text.getvalue().encode(errors="backslashreplace").decode()

    def digest(self) -> str:
        """Return the sha256 of the table as text."""
        return hashlib.sha256(self.csv().encode()).hexdigest()


def _cell(value: Any) -> Any:
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else value


def read_scores(path: Path) -> ScoreTable:
    """Read a table that `evaluate` wrote: the text of `ScoreTable.csv`.

    Args:
        path: the file, or the folder of an evaluation with its ``cases.csv``.

    Raises:
        OutputError: there is no such table, or it has other columns or cells.
    """
    path = path / "cases.csv" if path.is_dir() else path
    expected, hint = "the table of an evaluation", "Make one with `ctspine1k evaluate --out FOLDER`."
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            if not set(COLUMNS) <= set(reader.fieldnames or ()):
                lacking = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
                raise OutputError(str(path), expected, f"a file without the column {lacking[0]}", hint)
            return ScoreTable(tuple(_parsed(row) for row in reader))
    except FileNotFoundError:
        raise OutputError(str(path), expected, "no file", hint) from None
    except (UnicodeDecodeError, ValueError, KeyError, csv.Error) as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(str(path), expected, f"a cell that it cannot have ({error})", hint) from error


def _parsed(row: Mapping[str, str]) -> Row:
    truths = {"True": True, "False": False}
    if None in row:  # more cells than columns: those after a comma too many are not what they seem
        raise ValueError("a row with more cells than there are columns")
    parsed: dict[str, Any] = {name: row[name] for name in _TEXTS}
    parsed |= {name: truths[row[name]] for name in _TRUTHS}
    parsed |= {name: int(row[name]) if row[name] else None for name in _COUNTS}
    parsed |= {name: float(row[name]) if row[name] else math.nan for name in _NUMBERS}
    if parsed["label"] is None:
        raise ValueError("a row without a label")
    return {name: parsed[name] for name in COLUMNS}
