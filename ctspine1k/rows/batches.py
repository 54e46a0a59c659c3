"""From an opened case to its rows, a batch at a time: what each config and storage puts into a row.

A batch has its columns whole, as Arrow will hold them: a conversion hands them to Arrow without a copy, while
`datasets`, given row after row, would copy every voxel three times.
"""

from __future__ import annotations

import contextlib
import operator
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import datasets
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ctspine1k.catalog.cases import Case
from ctspine1k.errors import ImageSizeError, check_choice
from ctspine1k.storage.chunks import ArrayWriter, require_blosc2, store
from ctspine1k.storage.feature import CompactArray, stored_column
from ctspine1k.volumes.cases import CaseReader, Readable, open_case
from ctspine1k.volumes.orientation import check_orientation
from ctspine1k.volumes.vertebrae import LABEL_SCHEMES, LabelScheme

__all__ = ["ROWS_VERSION", "Batch", "RowOptions", "Storage", "case_batches"]

Storage: TypeAlias = Literal["dense", "compact"]

#: Raise it when the same files and options give other rows: it is part of every cache's path, and of what an
#: export knows of a shard.
ROWS_VERSION = "1.0.0"

#: Arrow counts the elements of a column of lists in 31 bits.
_MAX_ELEMENTS = 2**31 - 1


@dataclass(frozen=True)
class RowOptions:
    """What decides what the rows of a case hold, beside its files; options of `load_dataset`."""

    config: str = "3d"  #: "3d", a row a case, or "2d", a row an axial slice
    storage: Storage = "dense"
    image_size: tuple[int, int] | None = None  #: voxels of a slice; None for any, or (512, 512) if dense
    orientation: str | None = None  #: where the files' axes shall lead to; None for as stored
    label_scheme: LabelScheme = "ctspine1k"
    geometry: bool = False  #: whether there are columns of it
    on_geometry: Literal["raise", "warn"] | None = "warn"  #: None compares nothing

    def __post_init__(self) -> None:
        """Check the options, and write each in one way, however it was given.

        Raises:
            ValueError: an option that is not allowed.
            MissingPackageError: compact storage needs a package that is not installed.
        """
        check_choice("on_geometry", self.on_geometry, ("raise", "warn"))
        if not isinstance(self.geometry, bool):
            raise ValueError(f"geometry={self.geometry!r}: expected True or False")
        check_choice("storage", self.storage, ("dense", "compact"))
        check_orientation(self.orientation)
        check_choice("label_scheme", self.label_scheme, LABEL_SCHEMES)
        size = self.image_size
        if self.storage == "compact":
            require_blosc2()
        elif size is None:  # dense features promise a size: that of all the published volumes
            size = 512, 512
        object.__setattr__(self, "image_size", None if size is None else _checked_size(size))

    def features(self) -> datasets.Features:
        """Tell the columns and their types; dense slices are of ``image_size``."""
        if self.storage == "compact":
            image, segmentation = CompactArray("float32"), CompactArray("int32")
        else:
            kind, shape = (
                (datasets.Array3D, (None, *(self.image_size or ())))
                if self.config == "3d"
                else (datasets.Array2D, self.image_size)
            )
            image, segmentation = kind(shape, "float32"), kind(shape, "int32")
        columns: dict[str, Any] = {
            "image": image,
            "segmentation": segmentation,
            "patient_id": datasets.Value("string"),
            "index": datasets.Value("int32"),
        }
        if self.config == "2d":
            columns["slice_index"] = datasets.Value("int32")
        if self.geometry:
            columns |= {
                "source": datasets.Value("string"),
                "spacing": datasets.Sequence(datasets.Value("float64"), length=3),
                "affine": datasets.Array2D((4, 4), "float64"),
                "orientation": datasets.Value("string"),
            }
        return datasets.Features(columns)


def _checked_size(image_size: tuple[int, int]) -> tuple[int, int]:
    try:
        first, second = map(operator.index, image_size)
        if min(first, second) < 1:
            raise ValueError
    except (TypeError, ValueError):
        raise ValueError(
            f"image_size={image_size!r}: expected two positive numbers, such as (512, 512)"
        ) from None
    return first, second


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


def case_batches(
    options: RowOptions,
    case: Case,
    image: Readable,
    mask: Readable,
    *,
    depth: int,
    threads: int = 1,
    check_first: bool = False,
) -> Iterator[Batch]:
    """Yield the rows of a case: one for "3d"; for "2d" one a slice, ``depth`` at a time.

    Slices are given before the end of the file is seen: with ``check_first`` it is seen before, by reading
    the files twice.

    Raises:
        CaseError: the files cannot be used.
    """
    if check_first and options.config == "2d":
        with _opened(replace(options, on_geometry=None), image, mask, threads) as pair:
            pair.check()
        _rewind(image, mask)
    with _opened(options, image, mask, threads) as pair:
        yield from _batches(options, case, pair, depth)


@contextlib.contextmanager
def _opened(options: RowOptions, image: Readable, mask: Readable, threads: int) -> Iterator[CaseReader]:
    with open_case(
        image,
        mask,
        on_geometry=options.on_geometry,
        orientation=options.orientation,
        label_scheme=options.label_scheme,
        threads=threads,
    ) as pair:
        size, expected = pair.geometry.shape[1:], options.image_size
        if expected is not None and size != expected:
            raise ImageSizeError(
                pair.name,
                f"slices of {expected[0]} x {expected[1]}",
                f"{size[0]} x {size[1]}",
                f"Load cases of this size with image_size={size} (and cases=[...]), or leave this "
                'one out with on_error="skip".',
            )
        yield pair


def _rewind(*files: Readable) -> None:
    for file in files:
        if not isinstance(file, (str, os.PathLike)):
            file.seek(0)


def _batches(options: RowOptions, case: Case, pair: CaseReader, depth: int) -> Iterator[Batch]:
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
            "source": case.source,
            "spacing": list(pair.geometry.spacing),
            "affine": pair.geometry.affine,
            "orientation": pair.geometry.orientation,
        }
    done = 0
    for image, segmentation in makers[config, options.storage](case.case_id, pair, depth):
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


def _dense_volume(case_id: str, pair: CaseReader, depth: int) -> _Voxels:
    volume = pair.read()
    yield volume.image[np.newaxis], volume.segmentation[np.newaxis]


def _compact_volume(case_id: str, pair: CaseReader, depth: int) -> _Voxels:
    shape, types = pair.geometry.shape, pair.stored_types
    image = ArrayWriter(shape, types[0], scaling=pair.scaling, name=f"{case_id} image")
    segmentation = ArrayWriter(shape, types[1], name=f"{case_id} segmentation")
    for stored, labels in pair.slabs(image.depth):
        image.append(stored)
        segmentation.append(labels)
    yield [image.fields()], [segmentation.fields()]


def _dense_slices(case_id: str, pair: CaseReader, depth: int) -> _Voxels:
    rows, columns = pair.geometry.shape[1:]
    for stored, labels in pair.slabs(min(depth, _MAX_ELEMENTS // (rows * columns))):
        image = np.empty(stored.shape, np.float32)
        pair.scaling.write(stored, image)
        # In C order, as Arrow has it: labels lie the other way round, and would be copied once more.
        yield image, labels.astype(np.int32, order="C")


def _compact_slices(case_id: str, pair: CaseReader, depth: int) -> _Voxels:
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
