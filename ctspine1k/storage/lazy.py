"""Rows of compact storage, of which only the indexed parts are read and decoded."""

from __future__ import annotations

import itertools
import operator
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from types import EllipsisType
from typing import Any, Literal, NamedTuple, TypeAlias

import datasets
import numpy as np
import pyarrow as pa
from numpy.typing import DTypeLike, NDArray

from ctspine1k._messages import check_choice, check_count, html_table
from ctspine1k.errors import StoredArrayError
from ctspine1k.running.progress import progress_bar
from ctspine1k.running.threads import usable_threads
from ctspine1k.storage.chunks import StoredArray
from ctspine1k.storage.collate import empty_batch, register_collate
from ctspine1k.storage.feature import CompactArray, stored_array

__all__ = ["LazyArray", "LazyDataset", "LazyRow"]

#: DLPack's number of the processor's memory, and the number of the device.
_CPU = (1, 0)

Index: TypeAlias = "int | slice | EllipsisType"


class LazyArray:
    """An array that is stored in chunks: indexing it decodes only the chunks that it needs.

    Indices are integers, slices with any step, and an ellipsis, as in NumPy; the result is a new array.
    ``np.asarray(array)`` and ``torch.as_tensor(array)`` decode all of it, and a loop over it decodes each
    chunk once. Several threads may read it at once. One that is pickled, such as for another process, takes
    few bytes where its data set is in a file: it is opened there again.
    """

    def __init__(
        self, stored: StoredArray, dtype: DTypeLike | None, threads: int, cell: _Cell | None = None
    ) -> None:
        self._stored, self._dtype, self._threads = stored, dtype, threads
        self._cell = cell

    def __reduce__(self) -> tuple[Any, ...]:
        if self._cell is not None and self._cell.dataset.files:
            return _reopened, tuple(self._cell)
        return LazyArray, (self._stored, self._dtype, self._threads)

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes along the axes, slice first."""
        return self._stored.shape

    @property
    def stored(self) -> StoredArray:
        """The array in stored form."""
        return self._stored

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of what indexing returns."""
        return self._stored.dtype if self._dtype is None else np.dtype(self._dtype)

    @property
    def slope(self) -> float:
        """Slope of the stored numbers: value = slope x stored + intercept."""
        return self._stored.header.scaling.slope

    @property
    def intercept(self) -> float:
        """Intercept of the stored numbers."""
        return self._stored.header.scaling.intercept

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of an array without axes")
        return self.shape[0]

    def __iter__(self) -> Iterator[Any]:
        """Yield the elements along the first axis; the slices of one row of chunks are decoded together."""
        return itertools.chain.from_iterable(
            map(_own, self[start : start + self._depth]) for start in range(0, len(self), self._depth)
        )

    def __reversed__(self) -> Iterator[Any]:
        """Yield the elements along the first axis, from the last to the first."""
        starts = range(0, len(self), self._depth)
        return itertools.chain.from_iterable(
            map(_own, self[start : start + self._depth][::-1]) for start in reversed(starts)
        )

    @property
    def _depth(self) -> int:
        return self._stored.header.chunk_shape[0]

    def __getitem__(self, key: Index | tuple[Index, ...]) -> Any:
        given = key if isinstance(key, tuple) else (key,)
        keys = _expanded(given, self.shape)
        ranges = [
            _indices(one, size, axis) for axis, (one, size) in enumerate(zip(keys, self.shape, strict=True))
        ]
        backward = any(indices.step < 0 for indices in ranges)
        forward = [indices[::-1] if indices.step < 0 else indices for indices in ranges]
        found = self._stored.read(forward, self._dtype, self._threads)
        # Backward steps are read forward, then reversed; an integer removes its axis.
        turns: list[Any] = [
            slice(None, None, -1 if indices.step < 0 else 1) if isinstance(one, slice) else 0
            for one, indices in zip(keys, ranges, strict=True)
        ]
        if Ellipsis in given:
            turns.append(Ellipsis)  # so that NumPy returns an array without axes, not a number
        turned = found[tuple(turns)]
        return turned.copy() if backward else turned

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("a LazyArray cannot be given without a copy: its voxels are compressed")
        array: NDArray[Any] = self._stored.read(None, self._dtype, self._threads)
        return array if dtype is None else array.astype(dtype, copy=False)

    def __dlpack__(self, **options: Any) -> Any:
        """Return all of it to PyTorch and others that would else read it number by number."""
        return np.asarray(self).__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        """Return the device of what `__dlpack__` returns: the processor."""
        return _CPU

    def __repr__(self) -> str:
        return f"LazyArray({self._stored.header.name!r}, shape={self.shape}, dtype={self.dtype})"


class LazyRow(Mapping[str, Any]):
    """One row: compact columns as `LazyArray`, the others as plain Python values, read on access.

    ``row.image`` is the same as ``row["image"]``.
    """

    def __init__(self, dataset: LazyDataset, number: int) -> None:
        self._dataset, self._number = dataset, number
        self._cells = dataset._cells(number)

    def __reduce__(self) -> tuple[Any, ...]:
        return LazyRow, (self._dataset, self._number)

    def __getitem__(self, column: str) -> Any:
        if column not in self._cells.column_names:
            raise KeyError(f"{column!r}: expected one of {', '.join(self)}")
        if column in self._dataset._compact:
            return self._dataset._array(self._cells, self._number, column)
        return self._others[column]

    @cached_property
    def _others(self) -> dict[str, Any]:
        """The other columns: `datasets` always reads all of them."""
        others: dict[str, Any] = self._dataset._others[self._number]
        return others

    def __getattr__(self, column: str) -> Any:
        if column.startswith("_"):
            raise AttributeError(column)
        try:
            return self[column]
        except KeyError as error:
            raise AttributeError(error.args[0]) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._cells.column_names)

    def __len__(self) -> int:
        return len(self._cells.column_names)

    def __repr__(self) -> str:
        return f"LazyRow({', '.join(f'{name}={value!r}' for name, value in self.items())})"

    def _repr_html_(self) -> str:
        return html_table("LazyRow", ["column", "value"], self.items(), len(self), limit=len(self))


class LazyDataset(Sequence[LazyRow]):
    """A data set in compact storage whose voxels are read by slicing.

    ::

        lazy = ctspine1k.LazyDataset(dataset)
        lazy[0].image[20:116, 100:228, 100:228]  # decodes only these chunks

    It has the rows of the data set, after ``select``, ``shuffle`` and the like. Rows are read directly from
    the memory-mapped file. A ``DataLoader`` decodes in its workers, and stacks rows whose arrays have one
    shape; with ``batch_size=None`` or ``collate_fn=list`` it yields rows whose arrays are still lazy.

    Args:
        dataset: a data set with columns in compact storage (``load_dataset(..., storage="compact")``).
        dtype: "float32" for the values of rows (image float32 in HU, segmentation int32), or "stored" for
            the numbers of the file; each `LazyArray` has their ``slope`` and ``intercept``.
        threads: maximum number of threads that decode for one read; None for one per processor core, and one
            in a worker process.

    Raises:
        ValueError: a data set without such columns, or an argument that is not allowed.
    """

    def __init__(
        self,
        dataset: Any,
        *,
        dtype: Literal["float32", "stored"] = "float32",
        threads: int | None = None,
    ) -> None:
        check_choice("dtype", dtype, ("float32", "stored"))
        check_count("threads", threads, 1, or_none=True)
        if not isinstance(dataset, datasets.Dataset):
            raise ValueError(
                f"expected one split, a datasets.Dataset that is not streamed; found {type(dataset).__name__}"
            )
        features = dataset.features
        self._compact = {
            name: None if dtype == "stored" else feature.dtype
            for name, feature in features.items()
            if isinstance(feature, CompactArray)
        }
        if not self._compact:
            raise ValueError(
                f"expected a column in compact storage, found {', '.join(features)}. "
                'Load it with storage="compact".'
            )
        self._dataset = dataset.with_format("arrow")
        others = [name for name in features if name not in self._compact]
        self._others = dataset.with_format(None).select_columns(others)
        self._dtype, self._threads = dtype, threads

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: Any) -> Any:
        """Return a `LazyRow`, or for a slice a `LazyDataset` of those rows.

        Raises:
            IndexError: there is no such row.
            TypeError: neither an integer nor a slice.
        """
        if isinstance(index, slice):
            chosen = self._dataset.select(range(len(self))[index])
            return LazyDataset(chosen, dtype=self._dtype, threads=self._threads)
        try:
            number = range(len(self))[index]
        except TypeError:
            raise TypeError(
                f"expected an integer or a slice, found {index!r}. "
                'For a column of one row, lazy[0]["image"]; '
                "for several rows, LazyDataset(data.select([0, 1]))."
            ) from None
        # Here, since data sets around this one, such as PyTorch's ConcatDataset, collate single rows.
        register_collate(LazyArray, _stacked)
        register_collate(LazyRow, _collated)
        return LazyRow(self, number)

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """Return the rows of a batch, for PyTorch's DataLoader, which stacks arrays of the same shape."""
        return [dict(self[index]) for index in indices]

    def _cells(self, number: int) -> pa.Table:
        return self._dataset[number]

    def _array(self, cells: pa.Table, number: int, column: str) -> LazyArray | None:
        stored = _opened(cells, number, column)
        if stored is None:
            return None
        threads = self._threads or usable_threads()
        return LazyArray(stored, self._compact[column], threads, _Cell(self, number, column))

    @property
    def files(self) -> list[str]:
        """Paths of the memory-mapped files in which the rows are; none if they are in memory."""
        return [file["filename"] for file in self._dataset.cache_files]

    def __repr__(self) -> str:
        return f"LazyDataset({len(self):,} rows, {', '.join(self._dataset.column_names)})"

    def verify(self) -> list[StoredArrayError]:
        """Compare all stored bytes with their checksums, as every read does for the chunks that it reads.

        Returns:
            One error per damaged array, naming row and column; an empty list if none is damaged.
        """
        damaged = []
        with progress_bar("Verifying", len(self), "row") as bar:
            for index in range(len(self)):
                row = self._dataset[index]
                for name in self._compact:
                    try:
                        if (stored := _opened(row, index, name)) is not None:
                            stored.check()
                    except StoredArrayError as error:
                        damaged.append(error)
                bar.update()
        return damaged


class _Cell(NamedTuple):
    """Where an array is: what opens it again."""

    dataset: LazyDataset
    number: int
    column: str


def _reopened(dataset: LazyDataset, number: int, column: str) -> Any:
    return dataset[number][column]


def _stacked(batch: Sequence[LazyArray], **_: Any) -> Any:
    """Return a tensor of all of these arrays, for PyTorch: of a type that holds the numbers of each.

    Raises:
        ValueError: their shapes differ.
    """
    first, shapes = batch[0], sorted({one.shape for one in batch})
    if len(shapes) > 1:
        raise ValueError(
            f"expected arrays of one shape in a batch, found {' and '.join(map(str, shapes))}. "
            "ctspine1k.training.PatchDataset cuts patches of one size out of volumes, SliceDataset slices; "
            "batch_size=None yields single rows, and collate_fn=list lists of them, for you to index."
        )
    dtype = np.result_type(*(one.dtype for one in batch))  # as stored, those of several cases may differ
    ((array, tensor),) = empty_batch(((len(batch), *first.shape), dtype))
    for one, target in zip(batch, array, strict=True):
        one._stored.read(None, one._dtype, one._threads, out=target)
    return tensor


def _collated(batch: Sequence[LazyRow], **_: Any) -> Any:
    """Return a batch of rows as one dict. PyTorch would decode twice: it tries to make a `LazyRow` first."""
    return sys.modules["torch"].utils.data.default_collate([dict(row) for row in batch])


def _own(element: Any) -> Any:
    """Return an array that keeps no larger one in memory, or a number as it is."""
    return element.copy() if isinstance(element, np.ndarray) else element


def _opened(row: Any, index: int, column: str) -> StoredArray | None:
    return stored_array(row.column(column).chunk(0), f" (row {index}, column {column!r})")


def _expanded(keys: tuple[Any, ...], shape: tuple[int, ...]) -> list[Any]:
    """Return one key per axis: an ellipsis and missing keys are replaced by full slices."""
    dots = [at for at, key in enumerate(keys) if key is Ellipsis]
    if len(dots) > 1:
        raise IndexError("an index can only have a single ellipsis ('...')")
    missing = len(shape) - len(keys) + len(dots)
    if missing < 0:
        raise IndexError(f"too many indices: the array has {len(shape)} axes, found {len(keys) - len(dots)}")
    at = dots[0] if dots else len(keys)
    return [*keys[:at], *itertools.repeat(slice(None), missing), *keys[at + 1 :]]


def _indices(key: Any, size: int, axis: int) -> range:
    """Return the indices along an axis that a key selects; for an integer, a range of one."""
    if isinstance(key, slice):
        return range(*key.indices(size))
    try:
        if isinstance(key, (bool, np.bool_)):
            raise TypeError
        index = operator.index(key)
    except TypeError:
        raise IndexError(
            f"expected integers, slices and an ellipsis, found {key!r}; "
            "for more, index all of it: np.asarray(array)[...]"
        ) from None
    if not -size <= index < size:
        raise IndexError(f"index {index} is out of bounds for axis {axis} with size {size}")
    return range(index % size, index % size + 1)
