"""The two tables that a scan writes: what is in the files, one row per case and one row per vertebra.

Both are Parquet files: ``NAME.parquet`` and ``NAME.vertebrae.parquet``. Arrays and indices are in the order
of the array, slice first: (k, i, j). In the first:

=================  ======================================================================================
column             what
=================  ======================================================================================
case_id ... source  as in the catalog, with split, index and special_case
shape, spacing     voxels, and mm between them, along (k, i, j)
orientation        anatomical direction of each array axis, such as "SLA"
affine             4 x 4, of the image's file: voxel index (i, j, k) -> RAS+ mm
image_type, mask_type  types of the voxels in the files
slope, intercept   HU = slope x stored + intercept
hu_min, hu_max     least and greatest value of the image that is finite, if any is
hu_beside          mean of the image's voxels without label, in the boxes around labels
label_rounding     greatest distance from a whole number of the values in the mask, which are rounded
other_labels       labels in the mask that the data set lacks: they were read as background, as asked for
replaced_voxels    NaN and infinite voxels of the image: they were read as -1024 HU, as asked for
labels, vertebrae  labels that occur, and the vertebrae they stand for
geometry_problem   how the mask's header places voxels differently from the image's; null if it does not
header_problem     how the header of one of the files leaves in doubt where voxels lie; null if none does
image_crc32, mask_crc32  checksums of the voxels: equal for files with the same image, or mask
image_file, mask_file  state of the files: path, size and modification time, or sha256
problem            why the files cannot be used; the columns from shape on are then null
=================  ======================================================================================

and in the second, for each label that occurs in a case:

=================  ======================================================================================
case_id, label, vertebra, region  the case, and its vertebra
voxels, volume_cm3  size; volume_cm3 is null if the header gives voxels no size
mean_hu            mean of the image's voxels with the label
start, stop        bounding box: ``image[start[0]:stop[0], start[1]:stop[1], start[2]:stop[2]]``
centroid           (k, i, j); the centre of a voxel is a whole number
centroid_mm        RAS+ mm
touches_first_slice, touches_last_slice  if so, the scan may cut it
components         pieces that do not touch each other, not even at a corner
largest_component  voxels of the largest piece
=================  ======================================================================================

Of a data set that has files with points, the first table has the columns ``points_file`` and ``reading``, how
coordinates in that file were to be read (null: in the way that fits). The second has ``point``, (k, i, j),
and ``point_mm``, with a row for each vertebra that has a label or a point. Measures of labels are null for a
case without a mask, whose ``labels`` and ``vertebrae`` are those of its points.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ctspine1k.catalog.dataset import KINDS, Kind
from ctspine1k.errors import OutputError, ScanTableError
from ctspine1k.running.disk import atomic_write

__all__ = [
    "SCAN_VERSION",
    "ScanTables",
    "check_target",
    "file_columns",
    "is_current",
    "read_tables",
    "vertebrae_path",
    "write_tables",
]

#: Increase it when the same files give different rows: a scan then measures all of them again.
SCAN_VERSION = 4

_KEY = b"ctspine1k_scan"
_DIGEST = b"ctspine1k_scan_rows"

_TRIPLE, _TRIPLE_MM = pa.list_(pa.int32()), pa.list_(pa.float64())

CASES = pa.schema(
    {
        "case_id": pa.string(),
        "split": pa.string(),
        "index": pa.int32(),
        "source": pa.string(),
        "special_case": pa.string(),
        "shape": _TRIPLE,
        "spacing": _TRIPLE_MM,
        "orientation": pa.string(),
        "affine": pa.list_(_TRIPLE_MM),
        "image_type": pa.string(),
        "mask_type": pa.string(),
        "slope": pa.float64(),
        "intercept": pa.float64(),
        "hu_min": pa.float64(),
        "hu_max": pa.float64(),
        "hu_beside": pa.float64(),
        "label_rounding": pa.float64(),
        "other_labels": pa.list_(pa.int32()),
        "replaced_voxels": pa.int64(),
        "labels": pa.list_(pa.int32()),
        "vertebrae": pa.list_(pa.string()),
        "geometry_problem": pa.string(),
        "header_problem": pa.string(),
        "image_crc32": pa.int64(),
        "mask_crc32": pa.int64(),
        "image_file": pa.string(),
        "mask_file": pa.string(),
        "problem": pa.string(),
    }
)

VERTEBRAE = pa.schema(
    {
        "case_id": pa.string(),
        "label": pa.int32(),
        "vertebra": pa.string(),
        "region": pa.string(),
        "voxels": pa.int64(),
        "volume_cm3": pa.float64(),
        "mean_hu": pa.float64(),
        "start": _TRIPLE,
        "stop": _TRIPLE,
        "centroid": _TRIPLE_MM,
        "centroid_mm": _TRIPLE_MM,
        "touches_first_slice": pa.bool_(),
        "touches_last_slice": pa.bool_(),
        "components": pa.int32(),
        "largest_component": pa.int64(),
    }
)


#: Further columns for a data set that has files with points, by the columns that they follow.
_POINTS = {
    "mask_file": {"points_file": pa.string(), "reading": pa.string()},
    "centroid_mm": {"point": _TRIPLE_MM, "point_mm": _TRIPLE_MM},
}


def _with_points(schema: pa.Schema) -> pa.Schema:
    fields = []
    for field in schema:
        fields += [field, *(pa.field(name, kind) for name, kind in _POINTS.get(field.name, {}).items())]
    return pa.schema(fields)


@dataclass(frozen=True)
class ScanTables:
    """Rows of both tables."""

    cases: Sequence[Mapping[str, Any]]
    vertebrae: Sequence[Mapping[str, Any]]

    def __repr__(self) -> str:
        return f"ScanTables({len(self.cases):,} cases, {len(self.vertebrae):,} vertebrae)"


def vertebrae_path(path: Path) -> Path:
    """Return the path of the table of vertebrae, given that of cases."""
    return path.with_suffix(".vertebrae.parquet")


def file_columns(states: Mapping[Kind, str], kinds: Iterable[Kind]) -> dict[str, str | None]:
    """Return the columns of the table of cases that identify the measured files.

    Args:
        states: of the files; a case may lack some.
        kinds: all that files of the data set may have. The table has a column for points if they are among
            them, and always those for image and mask.
    """
    return {f"{kind}_file": states.get(kind) for kind in KINDS if kind != "points" or kind in kinds}


def is_current(
    row: Mapping[str, Any], states: Mapping[Kind, str], kinds: Iterable[Kind] | None = None
) -> bool:
    """Return whether a row of the table of cases was measured in files with these states (`Place.state`).

    ``kinds`` are those to compare, such as all `KINDS` if a file that is gone matters; None for those given.
    """
    compared = states if kinds is None else kinds
    return all(row.get(f"{kind}_file") == states.get(kind) for kind in compared)


def check_target(path: Path, option: str) -> None:
    """Check that a scan may write its tables to a path, which ``option`` gave.

    Raises:
        ValueError: the name does not end in ``.parquet``, or is that of a table of vertebrae.
        OutputError: there is a file that no scan wrote.
    """
    if path.suffix != ".parquet" or path.name.endswith(".vertebrae.parquet"):
        raise ValueError(f"{path}: expected a name that ends in .parquet, and not in .vertebrae.parquet")
    for target in (path, vertebrae_path(path)):
        if target.exists():
            try:
                _read(target)
            except ScanTableError as error:
                raise OutputError.occupied(error.path, error.expected, error.found, another=option) from error


#: Columns that say what was measured, and with which options: both tables are of the same.
_IDENTIFYING = (
    *("case_id", "image_file", "mask_file", "points_file"),
    *("reading", "other_labels", "replaced_voxels"),
)


def write_tables(path: Path, tables: ScanTables) -> None:
    """Write both tables, each completely or not at all."""
    has_points = any("points_file" in row for row in tables.cases)
    state = json.dumps([[row.get(column) for column in _IDENTIFYING] for row in tables.cases])
    mark = json.dumps({"version": SCAN_VERSION, "files": hashlib.sha256(state.encode()).hexdigest()})
    # The table of cases comes last: if it exists, so does that of vertebrae.
    for target, rows, schema in (
        (vertebrae_path(path), tables.vertebrae, _with_points(VERTEBRAE) if has_points else VERTEBRAE),
        (path, tables.cases, _with_points(CASES) if has_points else CASES),
    ):
        table = pa.Table.from_pylist(list(map(dict, rows)), schema=schema)
        table = table.replace_schema_metadata({_KEY: mark, _DIGEST: _digest(table.to_pylist())})
        with atomic_write(target) as written, written.open("wb") as file:  # names need not be UTF-8
            pq.write_table(table, file, compression="zstd")


def read_tables(path: Path) -> ScanTables:
    """Read the tables that `write_tables` wrote.

    Raises:
        ScanTableError: there is no table, or it is not one of a scan, or the two tables are of different
            scans, or of another version.
    """
    other = vertebrae_path(path)
    cases, vertebrae = _read(path), _read(other)
    if cases.schema.metadata[_KEY] != vertebrae.schema.metadata[_KEY]:
        raise ScanTableError(str(other), f"the vertebrae of {path.name}", "those of another scan")
    if _version(cases) != SCAN_VERSION:
        raise ScanTableError(str(path), f"a scan of version {SCAN_VERSION}", "another")
    return ScanTables(_rows(cases, CASES, path), _rows(vertebrae, VERTEBRAE, other))


def _rows(table: pa.Table, schema: pa.Schema, path: Path) -> list[dict[str, Any]]:
    if not any(table.schema.equals(one) for one in (schema, _with_points(schema))):
        raise ScanTableError(str(path), "the columns of a scan's table", "others")
    rows: list[dict[str, Any]] = table.to_pylist()
    if table.schema.metadata.get(_DIGEST) != _digest(rows):
        raise ScanTableError(str(path), "the rows that a scan wrote", "others")
    return rows


def _digest(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Return a hash of all rows: Parquet notices few of the bits that change in a file."""
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest().encode()


def _version(table: pa.Table) -> Any:
    try:
        return json.loads(table.schema.metadata[_KEY])["version"]
    except (ValueError, LookupError, TypeError):
        return None


def _read(path: Path) -> pa.Table:
    if not path.is_file():
        hint = "Run `ctspine1k scan` (or Collection.scan) first."
        raise ScanTableError(str(path), "a scan's table", "no file", hint)
    try:
        # From memory: Arrow reads a file of Python's on threads of its own, whatever its options, and these
        # may abort Python when it exits (https://github.com/apache/arrow/issues/34314).
        table = pq.read_table(pa.BufferReader(path.read_bytes()))
        table.validate(full=True)  # that text is UTF-8, too
    except (OSError, UnicodeDecodeError, pa.ArrowException) as error:  # pyarrow raises all three
        raise ScanTableError(str(path), "an intact Parquet file", str(error).strip()) from error
    if _KEY not in (table.schema.metadata or {}):
        raise ScanTableError(str(path), "a scan's table", "a Parquet file that no scan wrote")
    return table
