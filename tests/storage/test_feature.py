"""Compact columns go through whatever `datasets` does with a data set, and give the arrays of dense ones."""

import pickle
import sys
import types

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import concatenate_datasets, load_from_disk
from support.compare import identical, rows

from ctspine1k import LazyDataset
from ctspine1k.errors import MissingPackageError, StoredArrayError
from ctspine1k.running.threads import usable_threads
from ctspine1k.storage.chunks import StoredArray, store
from ctspine1k.storage.codec import require_blosc2
from ctspine1k.storage.feature import CompactArray, stored_array, stored_column


def in_memory(dataset):
    return datasets.Dataset(dataset.data.table, info=dataset.info)


OPERATIONS = {
    "as it is": lambda ds, _: ds,
    "select": lambda ds, _: concatenate_datasets([ds.select([0]), ds.select(range(1, len(ds)))]),
    "shuffle and back": lambda ds, _: ds.shuffle(seed=1).select(np.argsort(ds.add_column("at", range(len(ds))).shuffle(seed=1)["at"])),
    "filter": lambda ds, _: ds.filter(lambda row: row["image"].size > 0),
    "map": lambda ds, _: ds.map(lambda row: {"length": len(row["image"])}, writer_batch_size=1).remove_columns("length"),
    "map of another column": lambda ds, _: ds.map(lambda index: {"more": index}, input_columns=["index"]).remove_columns("more"),
    "map in batches with num_proc": lambda ds, _: ds.map(lambda batch: {"more": batch["index"]}, batched=True, num_proc=2).remove_columns("more"),
    "save_to_disk": lambda ds, path: (ds.save_to_disk(path / "saved"), load_from_disk(path / "saved"))[1],
    "to_parquet": lambda ds, path: (ds.to_parquet(path / "a.parquet"), datasets.Dataset.from_parquet(str(path / "a.parquet"), cache_dir=path))[1],
    "load parquet": lambda ds, path: (ds.to_parquet(path / "a.parquet"), datasets.load_dataset("parquet", data_files=str(path / "a.parquet"), cache_dir=path, split="train"))[1],
    "stream parquet": lambda ds, path: (ds.to_parquet(path / "a.parquet"), datasets.load_dataset("parquet", data_files=str(path / "a.parquet"), streaming=True, split="train"))[1],
    "to_iterable_dataset": lambda ds, _: ds.to_iterable_dataset(num_shards=2),
    "to_list and back": lambda ds, _: datasets.Dataset.from_list(ds.cast_column("image", CompactArray("float32", decode=False)).cast_column("segmentation", CompactArray("int32", decode=False)).to_list(), features=ds.features),
    "concatenate_datasets": lambda ds, _: concatenate_datasets([ds, ds.select([0])]).select(range(len(ds))),
    "pickle": lambda ds, _: pickle.loads(pickle.dumps(ds)),  # noqa: S301 (our own)
    "in memory": lambda ds, _: in_memory(ds),
    "flatten": lambda ds, _: ds.flatten(),
    "cast": lambda ds, _: ds.cast(ds.features),
    "decode off and on": lambda ds, _: ds.cast_column("image", CompactArray("float32", decode=False)).cast_column("image", CompactArray("float32")),
}  # fmt: skip


def starts_processes(operation):
    return pytest.param(operation, marks=pytest.mark.processes) if "num_proc" in operation else operation


@pytest.mark.parametrize("operation", [starts_processes(operation) for operation in OPERATIONS])
def test_rows_survive(compact, right, operation, tmp_path):
    done = OPERATIONS[operation](compact, tmp_path)
    assert identical(rows(done), right)
    assert dict(done.features) == dict(compact.features)
    table = getattr(done, "data", None)
    assert table is None or table.schema.field("image").type == CompactArray.pa_type  # still compact


def test_decoded_arrays_have_their_types(compact):
    row = compact[0]
    assert (row["image"].dtype, row["segmentation"].dtype) == (np.float32, np.int32)
    assert [a.dtype for a in compact["segmentation"]] == [np.int32] * len(compact)
    streamed = next(iter(compact.to_iterable_dataset()))
    assert (streamed["image"].dtype, streamed["segmentation"].dtype) == (np.float32, np.int32)


@pytest.mark.parametrize("columns", [None, ["image", "segmentation"]])
def test_numpy_format(compact, right, columns):
    formatted = compact.with_format("numpy", columns=columns)
    for row, want in zip(formatted, right, strict=True):
        assert row["image"].dtype == np.float32
        assert np.array_equal(row["image"], want["image"])
        assert np.array_equal(row["segmentation"], want["segmentation"])
    batch = formatted[:2]["image"]
    assert all(np.array_equal(a, want["image"]) for a, want in zip(batch, right, strict=False))
    assert all(
        np.array_equal(a, want["segmentation"])
        for a, want in zip(formatted["segmentation"], right, strict=True)
    )


@pytest.mark.parametrize("form", [None, "numpy", "arrow"])
def test_stored_form(compact, form):
    off = compact.cast_column("image", CompactArray("float32", decode=False)).with_format(form)
    stored = off[0]["image"].to_pylist()[0] if form == "arrow" else off[0]["image"]
    assert list(stored) == ["header", "ends", "checksums", "bytes"]
    assert isinstance(stored["bytes"], bytes)
    again = CompactArray("float32").decode_example(stored)
    assert again.tobytes() == compact[0]["image"].tobytes()
    with pytest.raises(RuntimeError, match="decode=True"):
        off.features["image"].decode_example(stored)


@pytest.mark.parametrize("kind", ["offsets of ends", "offsets of bytes"])
def test_damaged_columns(compact, kind):
    column = compact.data.column("image").combine_chunks()
    column = column.chunk(0) if hasattr(column, "chunk") else column
    fields = {name: column.field(name) for name in ("header", "ends", "checksums", "bytes")}
    name = kind.rpartition(" ")[2]
    array = fields[name]
    offsets = np.frombuffer(array.buffers()[1], np.int32 if name == "ends" else np.int64).copy()
    offsets[1] = 10**8
    buffers = [None, pa.py_buffer(offsets), *array.buffers()[2:3]]
    children = [array.values] if name == "ends" else None
    fields[name] = pa.Array.from_buffers(
        array.type, len(array), buffers[: 2 if children else 3], children=children
    )
    damaged = pa.StructArray.from_arrays(list(fields.values()), names=list(fields))
    with pytest.raises(StoredArrayError, match="a stored array here: expected valid columns of Arrow"):
        stored_array(damaged, " here")


def test_a_map_that_looks_at_images_writes_them_anew_without_loss(compact, right):
    """`datasets` writes back what was decoded: float32 and int32 then, and no wider."""
    seen = compact.map(
        lambda row: {"mean": row["image"].mean() + row["segmentation"].mean()}, writer_batch_size=2
    )
    assert identical(rows(seen.remove_columns("mean")), right)
    stored = LazyDataset(seen, dtype="stored")[0]
    assert (stored.image.dtype, stored.segmentation.dtype) == (np.float32, np.int32)


@pytest.mark.processes
def test_workers_of_a_map_have_one_thread_each(compact):
    counted = compact.map(lambda index: {"threads": usable_threads()}, input_columns=["index"], num_proc=2)
    assert set(counted["threads"]) == {1}


def test_a_cast_to_another_type(compact):
    with pytest.raises(StoredArrayError, match="expected numbers that uint8 holds"):
        compact.cast_column("image", CompactArray("uint8"))[0]
    assert compact.cast_column("image", CompactArray("int16"))[0]["image"].dtype == np.int16


def test_streamed_stored_forms_are_bytes(load, name):
    streamed = load(name, split="train", storage="compact", streaming=True)
    row = next(iter(streamed.cast_column("image", CompactArray("float32", decode=False))))
    assert isinstance(pickle.loads(pickle.dumps(row))["image"]["bytes"], bytes)  # noqa: S301 (our own)


def test_uneven_lists_are_no_array(load):
    with pytest.raises(ValueError, match=r"expected lists of one length, found \[1, 2\]"):
        CompactArray("float32").cast_storage(pa.array([[[1.0, 2.0], [3.0]]]))


def test_replaced_images_are_compact_too(compact, right):
    clipped = compact.map(lambda row: {"image": np.clip(row["image"], -200, 300)}, writer_batch_size=2)
    assert clipped.data.schema.field("image").type == CompactArray.pa_type
    assert all(
        np.array_equal(row["image"], np.clip(want["image"], -200, 300))
        for row, want in zip(clipped, right, strict=True)
    )


def test_any_arrays_make_a_column(tmp_path):
    arrays = [np.arange(24, dtype="i2").reshape(2, 3, 4), np.arange(6.0).reshape(2, 3), None]
    features = datasets.Features({"x": CompactArray("float32")})
    made = datasets.Dataset.from_generator(
        lambda: ({"x": a} for a in arrays), features=features, cache_dir=str(tmp_path)
    )
    assert [None if a is None else a.tolist() for a in made["x"]] == [
        None if a is None else a.tolist() for a in arrays
    ]


def test_features_survive_as_text(compact):
    features = datasets.Features.from_dict(compact.features.to_dict())
    assert features == compact.features
    assert repr(compact.features["image"]) == "CompactArray(dtype='float32', decode=True)"


@pytest.mark.parametrize("array", [np.array([0.5]), np.array([2**40]), np.array([np.nan])])
def test_what_the_dtype_cannot_hold(array):
    with pytest.raises(ValueError, match="expected numbers that int32 can hold"):
        CompactArray("int32").encode_example(array)


def test_floats_are_rounded_only_when_they_are_read():
    numbers = np.array([0.1, 2.0**24 + 1])
    stored = CompactArray("float32").encode_example(numbers)
    assert CompactArray("float64").decode_example(stored).tolist() == numbers.tolist()
    assert CompactArray("float32").decode_example(stored).tolist() == numbers.astype("f4").tolist()


def test_whole_numbers_are_stored_in_their_own_type_or_that_of_the_column():
    for given, kept in (("i2", "i2"), ("u1", "u1"), ("f4", "i4"), ("f8", "i4")):
        encoded = CompactArray("int32").encode_example(np.array([3, 7], given))
        assert StoredArray.from_fields(encoded).dtype == kept
        assert CompactArray("int32").decode_example(encoded).tolist() == [3, 7]


def test_a_null_among_numbers_is_nan():
    column = pa.array([[1.5, None]])
    stored = CompactArray("float32").cast_storage(column)[0].as_py()
    np.testing.assert_array_equal(CompactArray("float32").decode_example(stored), [1.5, np.nan])
    with pytest.raises(ValueError, match="expected numbers that int32 can hold"):
        CompactArray("int32").cast_storage(column)


def test_what_is_in_other_rows_does_not_matter():
    forms = [store(np.arange(n, dtype="u1")) for n in (5, 3)]
    column = pa.array([forms[0], None, forms[1]], CompactArray.pa_type)
    assert stored_array(column, "").shape == (5,)
    assert stored_array(column[1:], "") is None
    assert stored_array(column[2:], "").shape == (3,)


def test_lists_without_elements_are_arrays_without_any():
    column = CompactArray("float32").cast_storage(pa.array([[]], pa.list_(pa.list_(pa.float32()))))
    assert CompactArray("float32").decode_example(column[0].as_py()).shape == (0, 0)


def test_what_is_no_stored_form():
    feature = CompactArray("int32")
    with pytest.raises(TypeError, match="expected stored arrays, or lists of numbers; found string"):
        feature.cast_storage(pa.array(["a"]))
    with pytest.raises(TypeError, match="missing: ends, checksums, bytes"):
        feature.cast_storage(pa.array([{"header": "a"}]))


def test_errors_name_row_and_column(compact, name):
    stored = compact.cast_column("segmentation", CompactArray("int32", decode=False))[0]["segmentation"]
    stored["bytes"] = b"x" + stored["bytes"][1:]
    row = {"3d": "1.3.6.1.4.1.9328.50.4.0001", "2d": "1.3.6.1.4.1.9328.50.4.0001/0000"}[name]
    with pytest.raises(StoredArrayError, match=rf"^{row} segmentation, chunk 0: expected checksum"):
        CompactArray("int32").decode_example(stored)


def test_a_cell_is_opened_where_it_lies(compact):
    """Without a copy, whatever stands before it in the column."""
    column = compact.data.column("image").combine_chunks()
    column = column.chunk(0) if hasattr(column, "chunk") else column
    for number in range(len(column)):
        stored = stored_array(column[number:], "")
        assert stored.data.address >= column.field("bytes").buffers()[2].address
        assert stored.data.address < column.field("bytes").buffers()[2].address + column.nbytes
        assert (
            stored.read([range(size) for size in stored.shape], "f4").tobytes()
            == compact[number]["image"].tobytes()
        )


def test_columns_of_stored_forms_are_whole(compact):
    forms = [store(np.arange(n, dtype="u1")) for n in (5, 0, 300)]
    column = stored_column(forms)
    column.validate(full=True)
    assert [CompactArray("int32").decode_example(one).tolist() for one in column.to_pylist()] == [
        list(np.arange(n, dtype="u1")) for n in (5, 0, 300)
    ]
    assert column.type == CompactArray.pa_type


def test_parquet_of_others_is_readable_without_us(compact, tmp_path):
    """The stored form is plain columns: any reader of Parquet gets at them."""
    compact.to_parquet(tmp_path / "a.parquet")
    table = pq.read_table(tmp_path / "a.parquet")
    assert table.column("image")[0].as_py()["header"].startswith('{"version": 1, "codec": "blosc2"')


@pytest.mark.processes
def test_without_our_import_datasets_says_what_is_missing(load, tmp_path, python):
    load("3d", split="train", storage="compact").save_to_disk(tmp_path / "saved")
    code = """
import sys
import datasets
try:
    datasets.load_from_disk(sys.argv[1])
except Exception as error:
    print("CompactArray" in str(error))
import ctspine1k.storage.feature
print(datasets.load_from_disk(sys.argv[1])[0]["image"].dtype)
"""
    run = python(code, str(tmp_path / "saved"))
    assert run.stdout == "True\nfloat32\n", run.stderr


@pytest.mark.parametrize("version", [None, "2.7.1"])
def test_compact_storage_needs_blosc2_of_version_3(monkeypatch, version):
    installed = types.ModuleType("blosc2")
    installed.__version__ = version
    monkeypatch.setitem(sys.modules, "blosc2", installed if version else None)
    with pytest.raises(
        MissingPackageError, match=r"needs blosc2 3 or later: pip install 'ctspine1k\[compact\]'"
    ):
        require_blosc2.__wrapped__()


def test_columns_of_datasets_own_arrays_become_compact():
    features = datasets.Features({"a": datasets.Array2D((2, 3), "int32")})
    arrays = np.arange(12, dtype="i4").reshape(2, 2, 3)
    table = datasets.Dataset.from_dict({"a": list(arrays)}, features).cast_column("a", CompactArray("int32"))
    assert np.array_equal([row["a"] for row in table], arrays)
