"""Compact storage as a feature of `datasets`: a column whose arrays are stored in chunks.

Importing this module registers the feature type "CompactArray", whose name is in the metadata of Arrow and
Parquet files. `datasets` cannot read such a file unless the type is registered.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import datasets
import numpy as np
import pyarrow as pa
from datasets.features.features import register_feature
from numpy.typing import NDArray

from ctspine1k.errors import StoredArrayError
from ctspine1k.running.threads import usable_threads
from ctspine1k.storage.chunks import StoredArray, store

__all__ = ["CompactArray", "stored_array", "stored_column"]

_FIELDS = {
    "header": pa.string(),
    "ends": pa.list_(pa.int64()),
    "checksums": pa.list_(pa.uint32()),
    "bytes": pa.large_binary(),
}


@dataclass
class CompactArray:
    """Arrays of any shape, stored without loss in their own type, and returned as ``dtype``.

    Args:
        dtype: of the arrays in rows, such as "float32" or "int32".
        decode: if False, rows have the stored form instead, a dict of the fields in `ctspine1k.storage.form`.
    """

    dtype: str = "float32"
    decode: bool = True
    id: str | None = field(default=None, repr=False)

    pa_type: ClassVar[pa.DataType] = pa.struct(list(_FIELDS.items()))
    _type: str = field(default="CompactArray", init=False, repr=False)

    def __call__(self) -> pa.DataType:
        """Return the Arrow type; `datasets` gets it by calling the feature."""
        return self.pa_type

    def encode_example(self, value: Any) -> dict[str, Any]:
        """Return the stored form of an array; one that is in stored form already is not changed.

        Raises:
            ValueError: numbers that ``dtype`` cannot represent, or values that are not numbers.
        """
        if isinstance(value, Mapping):
            return {**value, "bytes": bytes(value["bytes"])}  # the type that Arrow returns
        array = np.asarray(value)
        if np.dtype(self.dtype).kind in "iu" and array.dtype.kind in "iuf":
            with np.errstate(invalid="ignore"):
                whole = array.astype(self.dtype)
            if not np.array_equal(whole, array):
                raise ValueError(
                    f"expected numbers that {self.dtype} can hold, found others in {array.dtype}"
                )
            array = whole if array.dtype.kind == "f" else array
        return store(array)

    def decode_example(self, value: Mapping[str, Any], token_per_repo_id: object = None) -> NDArray[Any]:
        """Return the array of a stored form.

        Raises:
            StoredArrayError: the bytes are damaged, or of a newer version.
            MissingPackageError: Blosc2 is not installed.
        """
        if not self.decode:
            raise RuntimeError("this column is not decoded: cast it to CompactArray(decode=True)")
        stored = StoredArray.from_fields(value)
        return stored.read(None, self.dtype, usable_threads())

    def flatten(self) -> CompactArray | dict[str, Any]:
        """Return this feature if it is decoded, else the features of the columns of the stored form."""
        return self if self.decode else dict(datasets.Features.from_arrow_schema(pa.schema(_FIELDS)))

    def cast_storage(self, storage: pa.Array) -> pa.StructArray:
        """Return an Arrow array in stored form, made from one in stored form, or from lists of numbers.

        Raises:
            TypeError: it contains something else.
        """
        if pa.types.is_struct(storage.type):
            missing = [name for name in _FIELDS if storage.type.get_field_index(name) < 0]
            if missing:
                raise TypeError(f"expected the fields {', '.join(_FIELDS)}; missing: {', '.join(missing)}")
            columns = [storage.field(name).cast(kind) for name, kind in _FIELDS.items()]
            return pa.StructArray.from_arrays(columns, fields=list(self.pa_type), mask=storage.is_null())
        if isinstance(storage, pa.ExtensionArray):
            storage = storage.storage
        if not (pa.types.is_list(storage.type) or pa.types.is_large_list(storage.type)):
            raise TypeError(f"expected stored arrays, or lists of numbers; found {storage.type}")
        encoded = [
            self.encode_example(_array_of(storage[row : row + 1])) if valid else None
            for row, valid in enumerate(storage.is_valid().to_pylist())
        ]
        return pa.array(encoded, self.pa_type)


def _array_of(lists: pa.Array) -> NDArray[Any]:
    """Return the only value of a column of nested lists of numbers, as an array of the numbers' type.

    Raises:
        ValueError: lists of one level differ in length.
    """
    shape = []
    while pa.types.is_list(lists.type) or pa.types.is_large_list(lists.type):
        lengths = set(lists.value_lengths().to_pylist())
        if len(lengths) > 1:
            raise ValueError(f"expected lists of one length, found {sorted(lengths)}")
        shape.append(lengths.pop() if lengths else 0)
        lists = lists.flatten()
    array: NDArray[Any] = lists.to_numpy(zero_copy_only=False).reshape(shape)
    return array


def stored_column(stored: Sequence[Mapping[str, Any]]) -> pa.StructArray:
    """Return a column of stored forms; if there is only one, its bytes are not copied."""
    sizes = [len(one["bytes"]) for one in stored]
    data = stored[0]["bytes"] if len(stored) == 1 else b"".join(one["bytes"] for one in stored)
    offsets = pa.array(np.cumsum([0, *sizes], dtype=np.int64))
    columns = {
        name: pa.array([one[name] for one in stored], kind)
        for name, kind in _FIELDS.items()
        if name != "bytes"
    }
    columns["bytes"] = pa.LargeBinaryArray.from_buffers(
        pa.large_binary(), len(stored), [None, offsets.buffers()[1], pa.py_buffer(data)]
    )
    return pa.StructArray.from_arrays([columns[name] for name in _FIELDS], fields=list(CompactArray.pa_type))


def stored_array(column: pa.StructArray, where: str) -> StoredArray | None:
    """Open the first row of a column without copying its bytes; None for a null.

    Args:
        column: of stored forms.
        where: added to the array's name in messages.

    Raises:
        StoredArrayError: a newer version or another codec, or fields that contradict each other.
    """
    try:
        column[:1].validate(full=True)
    except pa.ArrowException as error:
        raise StoredArrayError(f"a stored array{where}", "valid columns of Arrow", str(error)) from error
    if column.null_count and not column[:1].is_valid()[0].as_py():
        return None
    # Views of Arrow's buffers, since its scalars are copies.
    header, ends, checksums, data = (column.field(name) for name in _FIELDS)
    fields = {
        "header": _first_bytes(header, np.int32),
        "ends": _first_list(ends),
        "checksums": _first_list(checksums),
        "bytes": _first_bytes(data, np.int64),
    }
    return StoredArray.from_fields(fields, where)


def _first_list(array: pa.ListArray) -> NDArray[Any]:
    start, end = _first_span(array, np.int32)
    numbers: NDArray[Any] = array.values[start:end].to_numpy()
    return numbers


def _first_bytes(array: pa.Array, offset_type: type[np.integer[Any]]) -> pa.Buffer:
    start, end = _first_span(array, offset_type)
    data = array.buffers()[2] or pa.py_buffer(b"")
    return data.slice(start, end - start)


def _first_span(array: pa.Array, offset_type: type[np.integer[Any]]) -> tuple[int, int]:
    offsets = np.frombuffer(array.buffers()[1], offset_type)
    return int(offsets[array.offset]), int(offsets[array.offset + 1])


with warnings.catch_warnings():
    warnings.simplefilter("ignore", UserWarning)  # `datasets` calls this experimental; there is no other way
    register_feature(CompactArray, "CompactArray")
