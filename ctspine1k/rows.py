"""From an opened case to its rows, a batch at a time: what each config and storage puts into a row.

A batch has its columns whole, as Arrow will hold them: a conversion hands them to Arrow without a copy, while
`datasets`, given row after row, would copy every voxel three times.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import datasets
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ctspine1k.boxes import ArrayWriter, store
from ctspine1k.catalog import Case
from ctspine1k.compact import CompactArray, stored_column
from ctspine1k.reader import PairReader

__all__ = ["Batch", "Storage", "batches", "row_features"]

Storage: TypeAlias = Literal["dense", "compact"]

#: Arrow counts the elements of a column of lists in 31 bits.
_MAX_ELEMENTS = 2**31 - 1


def row_features(
    config: str, storage: Storage, image_size: tuple[int, int] | None, geometry: bool
) -> datasets.Features:
    """Tell the columns of config "3d" or "2d", and their types; dense slices are of ``image_size``."""
    if storage == "compact":
        image, segmentation = CompactArray("float32"), CompactArray("int32")
    else:
        kind, shape = (
            (datasets.Array3D, (None, *(image_size or ())))
            if config == "3d"
            else (datasets.Array2D, image_size)
        )
        image, segmentation = kind(shape, "float32"), kind(shape, "int32")
    columns: dict[str, Any] = {
        "image": image,
        "segmentation": segmentation,
        "patient_id": datasets.Value("string"),
        "index": datasets.Value("int32"),
    }
    if config == "2d":
        columns["slice_index"] = datasets.Value("int32")
    if geometry:
        columns |= {
            "source": datasets.Value("string"),
            "spacing": datasets.Sequence(datasets.Value("float64"), length=3),
            "affine": datasets.Array2D((4, 4), "float64"),
            "orientation": datasets.Value("string"),
        }
    return datasets.Features(columns)


@dataclass(frozen=True)
class Batch:
    """Some rows of one case."""

    keys: Sequence[str]
    columns: dict[str, Sequence[Any]]  #: a value for each key; arrays may be stacked

    def rows(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield key and columns of each row."""
        for number, key in enumerate(self.keys):
            yield key, {name: values[number] for name, values in self.columns.items()}

    def table(self, features: datasets.Features) -> pa.Table:
        """Give all rows as Arrow, without a copy of dense voxels, or of the bytes of a compact volume."""
        arrays = [_column(self.columns[name], feature) for name, feature in features.items()]
        return pa.Table.from_arrays(arrays, schema=features.arrow_schema)


def batches(
    config: str, storage: Storage, case: Case, pair: PairReader, depth: int, geometry: bool
) -> Iterator[Batch]:
    """Yield the rows of a case: one for "3d"; for "2d" one a slice, ``depth`` at a time."""
    makers = {
        ("3d", "dense"): _dense_volume,
        ("3d", "compact"): _compact_volume,
        ("2d", "dense"): _dense_slices,
        ("2d", "compact"): _compact_slices,
    }
    case_columns: dict[str, Any] = {"patient_id": case.case_id, "index": case.index}
    if geometry:
        case_columns |= {
            "source": case.source,
            "spacing": list(pair.geometry.spacing),
            "affine": pair.geometry.affine,
            "orientation": pair.geometry.orientation,
        }
    done = 0
    for image, segmentation in makers[config, storage](case.case_id, pair, depth):
        count = len(image)
        columns: dict[str, Any] = {"image": image, "segmentation": segmentation}
        columns |= {name: [value] * count for name, value in case_columns.items()}
        keys = [case.case_id]
        if config == "2d":
            numbers = range(done, done + count)
            columns["slice_index"] = list(numbers)
            keys = [_slice_key(case.case_id, number) for number in numbers]
        yield Batch(keys, columns)
        done += count


#: Image and segmentation of some rows: stacked arrays, or a list of stored ones.
_Voxels: TypeAlias = "Iterator[tuple[Any, Any]]"


def _slice_key(case_id: str, number: int) -> str:
    return f"{case_id}/{number:04d}"


def _dense_volume(case_id: str, pair: PairReader, depth: int) -> _Voxels:
    volume = pair.read()
    yield volume.image[np.newaxis], volume.segmentation[np.newaxis]


def _compact_volume(case_id: str, pair: PairReader, depth: int) -> _Voxels:
    shape, types = pair.geometry.shape, pair.stored_types
    image = ArrayWriter(shape, types[0], scaling=pair.scaling, name=f"{case_id} image")
    segmentation = ArrayWriter(shape, types[1], name=f"{case_id} segmentation")
    for stored, labels in pair.slabs(image.depth):
        image.append(stored)
        segmentation.append(labels)
    yield [image.fields()], [segmentation.fields()]


def _dense_slices(case_id: str, pair: PairReader, depth: int) -> _Voxels:
    rows, columns = pair.geometry.shape[1:]
    for stored, labels in pair.slabs(min(depth, _MAX_ELEMENTS // (rows * columns))):
        image = np.empty(stored.shape, np.float32)
        pair.scaling.write(stored, image)
        # In C order, as Arrow has it: labels lie the other way round, and would be copied once more.
        yield image, labels.astype(np.int32, order="C")


def _compact_slices(case_id: str, pair: PairReader, depth: int) -> _Voxels:
    done = 0
    for images, labels in pair.slabs(depth):
        names = [_slice_key(case_id, number) for number in range(done, done + len(images))]
        yield (
            [
                store(image, scaling=pair.scaling, name=f"{name} image")
                for name, image in zip(names, images, strict=True)
            ],
            [store(mask, name=f"{name} segmentation") for name, mask in zip(names, labels, strict=True)],
        )
        done += len(images)


def _column(values: Sequence[Any], feature: Any) -> pa.Array:
    if isinstance(feature, CompactArray):
        return stored_column(values)
    if isinstance(feature, (datasets.Array2D, datasets.Array3D)):
        return _array_column(np.asarray(values), feature)
    return pa.array(values, datasets.Features({"": feature}).arrow_schema.field("").type)


def _array_column(values: NDArray[Any], feature: Any) -> pa.ExtensionArray:
    """Wrap an array of arrays as Arrow's lists of lists, which share its memory."""
    column = pa.array(values.reshape(-1))
    for axis in range(values.ndim - 1, 0, -1):
        step = values.shape[axis]
        offsets = np.arange(0, len(column) + 1, step, dtype=np.int32)
        column = pa.ListArray.from_arrays(pa.array(offsets), column)
    return pa.ExtensionArray.from_storage(feature(), column)
