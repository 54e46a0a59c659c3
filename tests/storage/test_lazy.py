import multiprocessing
import pickle
import re
from concurrent.futures import ThreadPoolExecutor

import datasets
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from support.volumes import intensities, save

import ctspine1k
from ctspine1k.running.threads import usable_threads
from ctspine1k.storage import codec
from ctspine1k.storage.chunks import StoredArray, store
from ctspine1k.storage.feature import CompactArray
from ctspine1k.storage.lazy import LazyArray, LazyRow
from ctspine1k.volumes.scaling import Scaling


@pytest.fixture
def compact(load, name):
    return load(name, split="train", storage="compact", geometry=True)


def array_of(array, chunk_shape=None, dtype=None, **options):
    return LazyArray(
        StoredArray.from_fields(store(array, chunk_shape=chunk_shape, **options)), dtype, threads=2
    )


INDEX = hnp.basic_indices((7, 6, 5), allow_newaxis=False, allow_ellipsis=True)


@pytest.mark.slow
@given(INDEX, st.tuples(st.integers(1, 8), st.integers(1, 8), st.integers(1, 8)))
def test_any_index_is_numpys(index, chunk_shape):
    array = np.random.default_rng(0).integers(-999, 999, (7, 6, 5), "i2")
    found, want = array_of(array, chunk_shape)[index], array[index]
    assert type(found) is type(want)
    assert found.dtype == want.dtype
    assert np.array_equal(found, want)
    assert found.shape == want.shape
    assert not isinstance(found, np.ndarray) or all(stride >= 0 for stride in found.strides)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (7, "index 7 is out of bounds for axis 0 with size 7"),
        ((0, -7), "index -7 is out of bounds for axis 1 with size 6"),
        ((0, 0, 0, 0), "too many indices: the array has 3 axes, found 4"),
        ((..., ...), "single ellipsis"),
        (True, "expected integers, slices and an ellipsis, found True"),
        ([0, 1], r"found \[0, 1\]; for more, index all of it: np.asarray"),
        (None, "found None"),
        (1.0, "found 1.0"),
    ],
)
def test_other_indices(index, message):
    with pytest.raises(IndexError, match=message):
        array_of(np.zeros((7, 6, 5), "i2"))[index]


def test_an_array_tells_what_it_is():
    array = array_of(np.arange(24, dtype=">i2").reshape(2, 3, 4), name="x", scaling=Scaling(2.0, 1.0))
    assert (array.shape, array.ndim, array.dtype, len(array)) == ((2, 3, 4), 3, np.dtype("<i2"), 2)
    assert (array.slope, array.intercept) == (2.0, 1.0)
    assert repr(array) == "LazyArray('x', shape=(2, 3, 4), dtype=int16)"
    assert np.asarray(array).dtype == "<i2"
    assert np.asarray(array, "f8").dtype == "f8"
    assert np.array_equal(list(array), np.arange(24).reshape(2, 3, 4))
    with pytest.raises(ValueError, match="without a copy"):
        array.__array__(copy=False)
    with pytest.raises(TypeError, match="without axes"):
        len(array_of(np.array(1)))


def test_threads_that_are_asked_for_decode(all_compact, monkeypatch):
    used = []
    read = StoredArray.read
    monkeypatch.setattr(
        StoredArray,
        "read",
        lambda stored, indices, dtype, threads=0, **more: (
            used.append(threads) or read(stored, indices, dtype, threads, **more)
        ),
    )
    compact = all_compact["2d"]
    for threads, wanted in ((3, 3), (None, usable_threads())):
        lazy = ctspine1k.LazyDataset(compact, threads=threads)
        for row in (lazy[0], lazy[:1][0]):
            np.asarray(row.image)
            assert row.image[0, 0] == row.image[:][0, 0]
            assert used == [wanted] * 3
            used.clear()
    assert compact[0]["image"].shape == lazy[0].image.shape
    assert set(used) == {usable_threads()}


def test_rows_are_those_of_the_data_set(compact, right, name):
    lazy = ctspine1k.LazyDataset(compact)
    assert len(lazy) == len(right)
    for row, plain, want in zip(lazy, compact, right, strict=True):
        assert list(row) == compact.column_names
        assert isinstance(row.image, LazyArray)
        assert (row.image.dtype, row.segmentation.dtype) == (np.float32, np.int32)
        assert np.asarray(row.image).tobytes() == want["image"].tobytes()
        assert np.asarray(row["segmentation"]).tobytes() == want["segmentation"].tobytes()
        assert row.image[..., 1:4].tobytes() == want["image"][..., 1:4].tobytes()
        others = set(row) - {"image", "segmentation"}
        assert {n: str(row[n]) for n in others} == {n: str(plain[n]) for n in others}
    assert repr(lazy) == f"LazyDataset({len(right)} rows, {', '.join(compact.column_names)})"
    assert "patient_id='liver_106'" in repr(lazy[-1])


def test_other_columns_and_indices(compact):
    lazy = ctspine1k.LazyDataset(compact)
    row = lazy[0]
    with pytest.raises(AttributeError, match="'mask': expected one of image, segmentation"):
        row.mask  # noqa: B018
    with pytest.raises(KeyError, match="'mask': expected one of"):
        row["mask"]
    assert lazy[-1].patient_id == compact[-1]["patient_id"]
    assert [r.index for r in lazy[1:]] == compact["index"][1:]
    assert lazy[np.int64(1)].index == compact["index"][1]
    with pytest.raises(IndexError):
        lazy[len(lazy)]


@pytest.mark.parametrize("index", ["image", [0, 1], (0, "image"), 1.0, None])
def test_neither_a_row_nor_a_slice_of_rows(compact, index):
    hint = 'For a column of one row, lazy[0]["image"]; for several rows, LazyDataset(data.select([0, 1])).'
    message = re.escape(f"expected an integer or a slice, found {index!r}. {hint}")
    with pytest.raises(TypeError, match=f"^{message}$"):
        ctspine1k.LazyDataset(compact)[index]


def test_it_follows_the_data_set(compact, right):
    for order in ([1, 0], list(range(len(right)))[::-1]):
        chosen = ctspine1k.LazyDataset(compact.select(order).with_format("numpy", columns=["index"]))
        assert [np.asarray(row.image).tobytes() for row in chosen] == [
            right[n]["image"].tobytes() for n in order
        ]
    shuffled = compact.shuffle(seed=3)
    assert [np.asarray(r.image).tobytes() for r in ctspine1k.LazyDataset(shuffled)] == [
        r["image"].tobytes() for r in shuffled
    ]


def test_stored_types(load, tree):
    save(
        next(tree.rglob("HN_P023.nii.gz")), intensities(dtype=">i2", shape=(6, 5, 5)), slope=0.5, inter=-1024
    )
    compact = load("3d", split="validation", storage="compact")
    (row,) = ctspine1k.LazyDataset(compact, dtype="stored")
    assert (row.image.dtype, row.segmentation.dtype) == (np.int16, np.uint8)
    assert (row.image.slope, row.image.intercept) == (0.5, -1024)
    assert np.array_equal(row.image[...], intensities(dtype=">i2", shape=(6, 5, 5)).transpose(2, 0, 1))
    assert np.array_equal(np.float32(row.image[...] * 0.5 - 1024), compact[0]["image"])
    (sliced,) = ctspine1k.LazyDataset(compact, dtype="stored")[:1]
    assert sliced.image.dtype == np.int16


def voxels_of(lazy, index):
    row = lazy[index]
    return row.image[..., ::2].tobytes(), row.segmentation[...].tobytes()


@pytest.fixture(scope="module")
def spawned():
    """A process that starts with nothing imported."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        yield pool


@pytest.mark.processes
def test_many_threads_and_processes_read_at_once(compact, spawned):
    lazy = ctspine1k.LazyDataset(compact)
    indices = list(range(len(lazy))) * 20
    one_by_one = [voxels_of(lazy, index) for index in indices]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda index: voxels_of(lazy, index), indices)) == one_by_one
        row = lazy[0]
        assert len(set(pool.map(lambda _: row.image[...].tobytes(), range(40)))) == 1
    some = [(lazy, index) for index in indices[:10]]
    assert spawned.starmap(voxels_of, some) == one_by_one[:10]
    with multiprocessing.get_context("fork").Pool(2) as forked:
        assert forked.starmap(voxels_of, some) == one_by_one[:10]


@pytest.mark.processes
def test_threads_of_one_read(tmp_path, load, tree):
    """Enough chunks for several threads, in this process and in one that is forked after they have started."""
    voxels = np.random.default_rng(0).integers(-999, 999, (130, 140, 70)).astype("<i2")
    save(next(tree.rglob("HN_P023.nii.gz")), voxels)
    save(next(tree.rglob("HN_P023_seg.nii.gz")), np.zeros((130, 140, 70), "u1"))
    compact = load("3d", split="validation", storage="compact", image_size=None)
    wanted = voxels.transpose(2, 0, 1).astype("f4").tobytes()
    lazy = ctspine1k.LazyDataset(compact, threads=3)
    assert np.asarray(lazy[0].image).tobytes() == wanted
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply(voxels_of, (lazy, 0)) == voxels_of(lazy, 0)


def test_rows_can_be_pickled(compact, right):
    row = pickle.loads(pickle.dumps(ctspine1k.LazyDataset(compact)[1]))  # noqa: S301 (our own)
    assert np.asarray(row.image).tobytes() == right[1]["image"].tobytes()


def test_pickled_arrays_of_a_file_take_few_bytes(tmp_path, load, tree):
    voxels = intensities(shape=(130, 140, 70))  # noise, which does not compress
    save(next(tree.rglob("HN_P023.nii.gz")), voxels)
    save(next(tree.rglob("HN_P023_seg.nii.gz")), np.zeros((130, 140, 70), "u1"))
    compact = load("3d", split="validation", storage="compact", image_size=None)
    array = ctspine1k.LazyDataset(compact, dtype="stored")[0].image
    data = pickle.dumps(array)
    assert len(data) < 20_000 < voxels.nbytes
    again = pickle.loads(data)  # noqa: S301 (our own)
    assert again.dtype == np.int16
    assert np.array_equal(again[1:3, 5], voxels.transpose(2, 0, 1)[1:3, 5])
    in_memory = datasets.Dataset.from_list(
        [{"x": store(voxels)}] * 3, datasets.Features({"x": CompactArray("int16")})
    )
    data = pickle.dumps(ctspine1k.LazyDataset(in_memory)[1].x)
    assert voxels.nbytes < len(data) < 2 * voxels.nbytes  # its own bytes, not those of three rows
    assert np.array_equal(pickle.loads(data), voxels)  # noqa: S301 (our own)


def test_rows_of_a_batch_are_lazy(compact):
    lazy = ctspine1k.LazyDataset(compact)
    batch = lazy.__getitems__([1, 0])
    assert [row["patient_id"] for row in batch] == [lazy[1].patient_id, lazy[0].patient_id]
    assert [type(row) for row in batch] == [dict, dict]
    assert isinstance(batch[0]["image"], LazyArray)


def test_the_other_columns_of_a_row_are_read_once(compact, monkeypatch):
    """`datasets` reads all of them each time: of a row with geometry, these take longer than its voxels."""
    lazy, read = ctspine1k.LazyDataset(compact), []
    original = datasets.Dataset.__getitem__
    monkeypatch.setattr(
        datasets.Dataset, "__getitem__", lambda data, key: read.append(data) or original(data, key)
    )
    row = dict(lazy[1])
    assert len([data for data in read if "image" not in data.column_names]) == 1
    assert row["patient_id"] == compact["patient_id"][1]


def test_it_can_be_pickled(compact):
    lazy = pickle.loads(pickle.dumps(ctspine1k.LazyDataset(compact, threads=1)))  # noqa: S301 (our own)
    assert voxels_of(lazy, 0) == voxels_of(ctspine1k.LazyDataset(compact), 0)


def test_damage_is_told_by_row_and_column_and_all_of_it_on_request(compact, name):
    off = compact.cast_column("image", CompactArray("float32", decode=False))
    plain = off.to_list()
    plain[1]["image"]["bytes"] = plain[1]["image"]["bytes"][:-1] + b"?"
    damaged = datasets.Dataset.from_list(
        [{"image": row["image"], "index": row["index"]} for row in plain],
        features=datasets.Features({"image": CompactArray("float32"), "index": datasets.Value("int32")}),
    )
    lazy = ctspine1k.LazyDataset(damaged)
    row = {"3d": "liver_106", "2d": "1.3.6.1.4.1.9328.50.4.0001/0001"}[name]
    message = rf"^{row} image \(row 1, column 'image'\), chunk 0: expected checksum"
    with pytest.raises(ctspine1k.errors.StoredArrayError, match=message):
        np.asarray(lazy[1].image)
    assert np.asarray(lazy[0].image).tobytes() == compact[0]["image"].tobytes()
    (error,) = lazy.verify()
    assert error.name.startswith(f"{row} image (row 1, column 'image')")
    assert ctspine1k.LazyDataset(compact).verify() == []


def test_nulls(tmp_path):
    features = datasets.Features({"x": CompactArray("int32")})
    lazy = ctspine1k.LazyDataset(
        datasets.Dataset.from_list([{"x": None}, {"x": store(np.arange(3))}], features=features)
    )
    assert lazy[0].x is None
    assert lazy[1].x[1] == 1
    assert lazy.verify() == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dtype": "int16"}, "dtype='int16': expected one of 'float32', 'stored'"),
        ({"threads": 0}, "threads=0: expected 1 or more, or None"),
        ({"threads": 1.5}, "threads=1.5: expected a whole number, 1 or more, or None"),
    ],
)
def test_bad_arguments(load, arguments, message):
    with pytest.raises(ValueError, match=message):
        ctspine1k.LazyDataset(load(split="test", storage="compact"), **arguments)


def test_other_data_sets(load):
    with pytest.raises(
        ValueError, match=r'expected a column in compact storage, found image, .*storage="compact"'
    ):
        ctspine1k.LazyDataset(load(split="test"))
    for other in (load(storage="compact"), load(split="test", storage="compact", streaming=True)):
        with pytest.raises(ValueError, match=f"expected one split, .* found {type(other).__name__}"):
            ctspine1k.LazyDataset(other)


@pytest.fixture
def decoded(monkeypatch):
    """The sizes of the chunks that are decoded."""
    sizes = []
    decompress = codec.decompress
    monkeypatch.setattr(
        codec, "decompress", lambda chunk, out: sizes.append(out.shape) or decompress(chunk, out)
    )
    return sizes


@pytest.mark.parametrize("shape", [(7, 6, 5), (7, 6), (7,), (2, 3, 4, 5)])
def test_a_loop_decodes_each_chunk_once(decoded, shape):
    array = np.random.default_rng(0).integers(-999, 999, shape, "i2")
    lazy = array_of(array, tuple(min(3, size) for size in shape))
    chunks = int(np.prod([-(-size // min(3, size)) for size in shape]))
    for loop, want in ((iter, array), (reversed, array[::-1])):
        decoded.clear()
        found = list(loop(lazy))
        assert len(decoded) == chunks
        assert len(found) == len(want)
        for one, right in zip(found, want, strict=True):
            assert type(one) is type(right)
            assert np.array_equal(one, right)
            assert not isinstance(one, np.ndarray) or one.base is None  # a slice that is kept keeps no others


def test_a_loop_that_ends_early_decodes_what_it_needs(decoded):
    lazy = array_of(np.ones((70, 6, 5), "i2"), (10, 6, 5))
    assert next(iter(lazy)).sum() == 30
    assert len(decoded) == 1
    assert next(reversed(lazy)).sum() == 30
    assert len(decoded) == 2


@pytest.mark.parametrize("dtype", [None, "f4"])
def test_other_libraries_get_all_of_it_at_once(decoded, dtype):
    """PyTorch, JAX and others take what has DLPack's protocol, and would else read number by number."""
    array = np.random.default_rng(0).integers(-999, 999, (7, 6, 5), "i2")
    lazy = array_of(array, (4, 6, 5), dtype)
    found = np.from_dlpack(lazy)
    assert found.dtype == (array.dtype if dtype is None else np.dtype(dtype))
    assert np.array_equal(found, array)
    assert len(decoded) == 2
    assert lazy.__dlpack_device__() == np.zeros(1).__dlpack_device__()


def test_no_loop_over_an_array_without_axes():
    with pytest.raises(TypeError, match="without axes"):
        iter(array_of(np.array(1)))


def test_what_an_array_and_a_row_do_not_have(compact):
    row = ctspine1k.LazyDataset(compact)[0]
    assert row.image.stored.shape == row.image.shape
    page = row._repr_html_()
    assert page.startswith("<p>LazyRow</p><table><tr><th>column</th><th>value</th></tr><tr><td>image</td>")
    assert page.count("<tr>") == 1 + len(row)
    assert not hasattr(row, "_repr_png_")
    assert not hasattr(object.__new__(LazyRow), "_cells")  # nor looks for one, such as while it is copied
    with pytest.raises(AttributeError, match=r"^'nothing': expected one of "):
        _ = row.nothing
