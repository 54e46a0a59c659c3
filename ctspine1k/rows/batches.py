"""From an opened case to its rows, in batches: what each config and storage puts into a row.

A batch has complete columns in Arrow's memory layout, so that a conversion passes them on without a copy;
`datasets` would copy every voxel three times if it got single rows.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import datasets
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ctspine1k.catalog.cases import Case
from ctspine1k.catalog.dataset import Kind
from ctspine1k.catalog.vocabulary import Vocabulary
from ctspine1k.errors import ImageSizeError
from ctspine1k.rows.options import RowOptions
from ctspine1k.rows.points import PointRows, nearest_to, point_rows
from ctspine1k.storage.chunks import ArrayWriter, store
from ctspine1k.storage.feature import CompactArray, stored_column
from ctspine1k.volumes.cases import CaseReader, Readable, open_case
from ctspine1k.volumes.headers import array_affine
from ctspine1k.volumes.positions import with_choice
from ctspine1k.volumes.resampling import ResampledCase
from ctspine1k.volumes.scaling import Scaling

__all__ = ["Batch", "case_batches", "joined"]

#: Columns with voxels, in the order of `CaseReader.voxels`.
VOXEL_COLUMNS = ("image", "segmentation")

#: Arrow counts the elements of a column of lists in 31 bits.
_MAX_ELEMENTS = 2**31 - 1


#: A case as it is stored, or at another spacing.
AnyCase: TypeAlias = "CaseReader | ResampledCase"


@dataclass(frozen=True)
class Batch:
    """Some rows of one case."""

    keys: Sequence[str]
    columns: dict[str, Sequence[Any]]  #: one value per key; arrays may be stacked

    def rows(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield key and columns of each row."""
        for number, key in enumerate(self.keys):
            yield key, {name: values[number] for name, values in self.columns.items()}

    def table(self, features: datasets.Features) -> pa.Table:
        """Return all rows as Arrow, without copying dense voxels, or the bytes of a compact volume."""
        arrays = [_column(self.columns[name], feature) for name, feature in features.items()]
        return pa.Table.from_arrays(arrays, schema=features.arrow_schema)


def case_batches(
    options: RowOptions,
    vocabulary: Vocabulary,
    case: Case,
    files: Mapping[Kind, Readable],
    *,
    depth: int,
    threads: int = 1,
    check_first: bool = False,
    on_problem: Callable[[str], None] | None = None,
    on_change: Callable[[str], None] | None = None,
) -> Iterator[Batch]:
    """Yield the rows of a case: one for "3d"; for "2d" one per slice, ``depth`` at a time.

    Slices are yielded before the end of the files is read. With ``check_first``, the files are read twice,
    the first time to their ends.

    Args:
        options: with the data set's own defaults filled in (`RowOptions.of`).
        vocabulary: the labels of the data set.
        case: the case.
        files: those of `RowOptions.kinds`, as paths or streams; one of points only if the case has it.
        depth: slices in a batch.
        threads: if above 1, other threads read ahead.
        check_first: read the files to their end before the first row.
        on_problem: called with the text of the warning that ``on_geometry="warn"`` would give, instead of it.
        on_change: called instead of a warning with what was changed in the voxels of a file (`open_case`).

    Raises:
        CaseError: the files cannot be used.
    """
    if check_first and options.config == "2d":
        silent = replace(options, on_geometry=None)  # the second time, there are reports
        with _opened(silent, vocabulary, files, threads, on_change=lambda _: None) as (pair, _):
            pair.check()
        _rewind(*files.values())
    with _opened(options, vocabulary, files, threads, on_problem, on_change) as (pair, points):
        yield from _batches(options, case, pair, points, depth)


@contextlib.contextmanager
def _opened(
    options: RowOptions,
    vocabulary: Vocabulary,
    files: Mapping[Kind, Readable],
    threads: int,
    on_problem: Callable[[str], None] | None = None,
    on_change: Callable[[str], None] | None = None,
) -> Iterator[tuple[AnyCase, PointRows | None]]:
    reports = on_problem if options.on_geometry == "warn" else None
    with open_case(
        files["image"],
        files["mask"] if options.masks else None,
        vocabulary=vocabulary,
        on_geometry=None if reports else options.on_geometry,
        on_voxels=options.on_voxels,
        orientation=options.turned_to,
        label_scheme=options.label_scheme,
        other_labels=options.other_labels,
        threads=threads,
        on_change=on_change,
    ) as pair:
        if reports and (problems := pair.geometry_problems()):
            reports("\n".join(str(with_choice(problem)) for problem in problems))
        rows = pair if options.spacing is None else ResampledCase(pair, options.spacing)
        size, expected = rows.geometry.shape[1:], options.image_size
        if expected is not None and size != expected:
            found = f"{size[0]} x {size[1]}"
            raise ImageSizeError(
                pair.name, f"slices of {expected[0]} x {expected[1]}", found, _size_hint(options, size)
            )
        yield rows, point_rows(options, vocabulary, pair, rows.geometry, files)


def _size_hint(options: RowOptions, size: tuple[int, int]) -> str:
    """Return what to do about slices of another size than ``image_size``."""
    other = (
        f"load cases of this size with image_size={size} (and cases=[...]), or leave this one out with "
        'on_error="skip".'
    )
    if options.storage == "compact":
        return f"image_size checks slices and resizes none: {other}"
    turning = [f"{name}={getattr(options, name)!r}" for name in ("orientation", "plane", "spacing")]
    given = " and ".join(text for text in turning if not text.endswith("None"))
    turned = f", and {given} may change it" if given else ""
    return (
        f"In dense storage all slices must have image_size, which resizes none{turned}. Pass "
        f'storage="compact", where slices may have any size; {other}'
    )


def _rewind(*files: Readable) -> None:
    for file in files:
        if not isinstance(file, (str, os.PathLike)):
            file.seek(0)


def _batches(
    options: RowOptions, case: Case, pair: AnyCase, points: PointRows | None, depth: int
) -> Iterator[Batch]:
    config = options.config
    makers = {
        ("3d", "dense"): _dense_volume,
        ("3d", "compact"): _compact_volume,
        ("2d", "dense"): _dense_slices,
        ("2d", "compact"): _compact_slices,
    }
    case_columns: dict[str, Any] = {"patient_id": case.case_id, "index": case.index}
    if options.geometry:
        case_columns |= {
            "source": case.facts.get("source") or "",  # a DataLoader cannot collate None
            "spacing": list(pair.geometry.spacing),
            "affine": pair.geometry.affine,
            "array_affine": array_affine(pair.geometry.affine),
            "orientation": pair.geometry.orientation,
        }
    done = 0
    for voxels, counts in makers[config, options.storage](options, case.case_id, pair, depth):
        count = len(voxels[0])
        columns: dict[str, Any] = dict(zip(VOXEL_COLUMNS, voxels, strict=False))
        columns |= {name: [value] * count for name, value in case_columns.items()}
        if options.geometry and options.masks:
            columns["n_labelled"] = counts
        numbers = range(done, done + count)
        if options.points:
            slices = pair.geometry.shape[0]
            of_slices = (nearest_to(points, number, slices) for number in numbers)
            columns["points"] = [points] if config == "3d" else list(of_slices)
        keys = [case.case_id]
        if config == "2d":
            columns["slice_index"] = list(numbers)
            keys = [_slice_key(case.case_id, number) for number in numbers]
        yield Batch(keys, columns)
        done += count


#: The `VOXEL_COLUMNS` of some rows, as stacked arrays or a list of stored ones, and their `_counts`.
_Rows: TypeAlias = "Iterator[tuple[Sequence[Any], list[int]]]"


def _slice_key(case_id: str, number: int) -> str:
    return f"{case_id}/{number:04d}"


def _counts(options: RowOptions, *masks: Iterable[NDArray[Any]]) -> list[int]:
    """Return the number of labelled voxels in each array of a mask, if rows have a column for it."""
    return [int(np.count_nonzero(one)) for mask in masks for one in mask] if options.geometry else []


def _dense_volume(options: RowOptions, case_id: str, pair: AnyCase, depth: int) -> _Rows:
    arrays = [array[np.newaxis] for array in pair.read_voxels()]
    yield arrays, _counts(options, *arrays[1:])


def _compact_volume(options: RowOptions, case_id: str, pair: AnyCase, depth: int) -> _Rows:
    how: dict[str, Any] = {"compression": options.compression or "small"}
    scalings = (pair.scaling, Scaling())
    writers = [
        ArrayWriter(pair.geometry.shape, dtype, scaling=scaling, name=f"{case_id} {column}", **how)
        for column, dtype, scaling in zip(VOXEL_COLUMNS, pair.stored_types, scalings, strict=False)
    ]
    count = 0
    for slab in pair.voxels(writers[0].depth):
        for writer, stored in zip(writers, slab, strict=True):
            writer.append(stored)
        count += sum(_counts(options, *slab[1:]))
    yield [[writer.fields()] for writer in writers], [count]


def _dense_slices(options: RowOptions, case_id: str, pair: AnyCase, depth: int) -> _Rows:
    rows, columns = pair.geometry.shape[1:]
    for stored, *masks in pair.voxels(min(depth, _MAX_ELEMENTS // (rows * columns))):
        image = np.empty(stored.shape, np.float32)
        pair.scaling.write(stored, image)
        # In C order, for Arrow: the labels have the file's order, and would be copied once more.
        yield [image, *(mask.astype(np.int32, order="C") for mask in masks)], _counts(options, *masks)


def _compact_slices(options: RowOptions, case_id: str, pair: AnyCase, depth: int) -> _Rows:
    how: dict[str, Any] = {"compression": options.compression or "small"}
    scalings = (pair.scaling, Scaling())
    done = 0
    for slab in pair.voxels(depth):
        keys = [_slice_key(case_id, number) for number in range(done, done + len(slab[0]))]
        columns = [
            [
                store(one, scaling=scaling, name=f"{key} {column}", **how)
                for key, one in zip(keys, stored, strict=True)
            ]
            for column, stored, scaling in zip(VOXEL_COLUMNS, slab, scalings, strict=False)
        ]
        yield columns, _counts(options, *slab[1:])
        done += len(keys)


def joined(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Join each table of one row with the next: `datasets` 3 would write it after the next table."""
    held: list[pa.Table] = []
    for table in tables:
        held.append(table)
        if len(table) > 1 or len(held) > 1:
            yield pa.concat_tables(held)
            held.clear()
    yield from held


def _column(values: Sequence[Any], feature: Any) -> pa.Array:
    if isinstance(feature, CompactArray):
        return stored_column(values)
    if isinstance(feature, (datasets.Array2D, datasets.Array3D)):
        return pa.ExtensionArray.from_storage(feature(), _nested_lists(np.asarray(values)))
    if isinstance(values, np.ndarray):
        return _nested_lists(values)
    return pa.array(values, datasets.Features({"": feature}).arrow_schema.field("").type)


def _nested_lists(values: NDArray[Any]) -> pa.Array:
    """Return an array of arrays as Arrow's lists of lists, which share its memory."""
    column = pa.array(values.reshape(-1))
    for axis in range(values.ndim - 1, 0, -1):
        step = values.shape[axis]
        offsets = np.arange(0, len(column) + 1, step, dtype=np.int32)
        column = pa.ListArray.from_arrays(pa.array(offsets), column)
    return column
