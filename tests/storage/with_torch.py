"""What compact storage is for: PyTorch. Run by `make test-torch`, in the environment of the benchmarks.

PyTorch takes gigabytes where no build for the CPU is to be had, so `make test` does without it.
"""

import datasets
import numpy as np
import pytest
import torch
from support.compare import wanted
from support.loaders import raises_in_loader
from torch.utils.data import ConcatDataset, DataLoader

import ctspine1k
from ctspine1k.storage.chunks import StoredArray, store
from ctspine1k.storage.feature import CompactArray

pytestmark = pytest.mark.processes


def same(rows, right) -> bool:
    return all(
        np.array_equal(row[column], want[column])
        for row, want in zip(rows, right, strict=True)
        for column in ("image", "segmentation")
    )


def test_torch_format(compact, right):
    formatted = compact.with_format("torch")
    assert formatted[0]["image"].dtype == torch.float32
    assert same([{k: np.asarray(v) for k, v in row.items()} for row in formatted], right)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_loader_of_rows(compact, right, workers, method):
    loader = DataLoader(
        compact.with_format("torch"),
        batch_size=None,
        num_workers=workers,
        multiprocessing_context=method if workers else None,
    )
    assert same([{k: np.asarray(v) for k, v in row.items()} for row in loader], right)


@pytest.fixture
def reads(monkeypatch):
    """The reads of stored arrays in this process."""
    found = []
    read = StoredArray.read
    monkeypatch.setattr(
        StoredArray, "read", lambda *given, **more: found.append(given) or read(*given, **more)
    )
    return found


@pytest.mark.parametrize("workers", [0, 2])
def test_loader_of_lazy_rows(load, tree, workers, reads):
    """Slices of one size are stacked, by the workers, in memory that they share."""
    lazy = ctspine1k.LazyDataset(load("2d", split="train", storage="compact"))
    batches = list(DataLoader(lazy, batch_size=2, num_workers=workers))
    right = wanted(tree, "2d", "train")
    assert [len(batch["image"]) for batch in batches] == [2] * (len(right) // 2) + [1] * (len(right) % 2)
    for column in ("image", "segmentation"):
        assert all(batch[column].is_shared() == bool(workers) for batch in batches)
        found = torch.cat([batch[column] for batch in batches]).numpy()
        assert found.tobytes() == np.stack([row[column] for row in right]).tobytes()
    assert [one for batch in batches for one in batch["patient_id"]] == [row["patient_id"] for row in right]
    assert len(reads) == (0 if workers else 2 * len(right))


@pytest.mark.parametrize("workers", [0, 1])
def test_loader_of_stored_values(load, workers):
    """Their type is that of the file."""
    lazy = ctspine1k.LazyDataset(load("2d", split="train", storage="compact"), dtype="stored")
    (batch,) = DataLoader(lazy, batch_size=len(lazy), num_workers=workers)
    for column, dtype in (("image", torch.int16), ("segmentation", torch.uint8)):
        assert batch[column].dtype == dtype
        assert np.array_equal(batch[column].numpy(), np.stack([row[column] for row in lazy]))


@pytest.mark.parametrize("workers", [0, 1])
def test_loader_of_stored_values_of_several_types(workers):
    """None is wrapped or rounded to the type of the first."""
    arrays = [np.full((2, 3), 1000, "i2"), np.full((2, 3), 40_000, "u2"), np.full((2, 3), -0.75, "f4")]
    features = datasets.Features({"x": CompactArray("float32")})
    data = datasets.Dataset.from_list([{"x": store(one)} for one in arrays], features)
    (batch,) = DataLoader(ctspine1k.LazyDataset(data, dtype="stored"), batch_size=3, num_workers=workers)
    assert batch["x"][:, 1, 2].tolist() == [1000, 40_000, -0.75]


def test_loader_of_a_data_set_around_lazy_rows(load, tree, reads):
    """It asks for single rows. Each array is decoded once."""
    lazy = ctspine1k.LazyDataset(load("2d", split="train", storage="compact"))
    (batch,) = DataLoader(ConcatDataset([lazy, lazy]), batch_size=2 * len(lazy))
    right = [*wanted(tree, "2d", "train")] * 2
    for column in ("image", "segmentation"):
        assert batch[column].numpy().tobytes() == np.stack([row[column] for row in right]).tobytes()
    assert type(batch) is dict
    assert list(batch) == list(lazy[0])
    assert batch["patient_id"] == [row["patient_id"] for row in right]
    assert len(reads) == 2 * len(right)


@pytest.mark.parametrize("workers", [0, 2])
def test_loader_of_lazy_volumes(load, tree, workers):
    lazy = ctspine1k.LazyDataset(load("3d", split="train", storage="compact"))
    message = r"one shape in a batch, found \(3, 6, 5\) and \(4, 6, 5\)\. ctspine1k\.training\.PatchDataset"
    with raises_in_loader(ValueError, message):
        next(iter(DataLoader(lazy, batch_size=2, num_workers=workers)))
    right = wanted(tree, "3d", "train")
    assert same(DataLoader(lazy, batch_size=None, num_workers=workers), right)
    (rows,) = DataLoader(lazy, batch_size=2, num_workers=workers, collate_fn=list)
    assert same(rows, right)


class Patches:
    def __init__(self, lazy):
        self.lazy = lazy

    def __len__(self):
        return len(self.lazy)

    def __getitem__(self, index):
        row = self.lazy[index]
        return {"image": row.image[..., :2, 1:4], "segmentation": row.segmentation[..., :2, 1:4]}


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_loader_of_patches(compact, right, workers, method):
    patches = Patches(ctspine1k.LazyDataset(compact))
    loader = DataLoader(
        patches, batch_size=None, num_workers=workers, multiprocessing_context=method if workers else None
    )
    want = [{k: row[k][..., :2, 1:4] for k in ("image", "segmentation")} for row in right]
    assert same([{k: np.asarray(v) for k, v in row.items()} for row in loader], want)


def test_iterable_data_set_in_workers(compact, right):
    loader = DataLoader(
        compact.to_iterable_dataset(num_shards=2).with_format("torch"), batch_size=None, num_workers=2
    )
    rows = sorted(loader, key=lambda row: (int(row["index"]), int(row.get("slice_index", 0))))
    assert same([{k: np.asarray(v) for k, v in row.items() if k != "patient_id"} for row in rows], right)


@pytest.mark.parametrize("convert", [torch.as_tensor, torch.tensor, torch.from_dlpack])
def test_tensors_of_lazy_arrays(compact, right, convert, reads):
    """All of it at once, not number by number."""
    for row, want in zip(ctspine1k.LazyDataset(compact), right, strict=True):
        image, segmentation = convert(row.image), convert(row.segmentation)
        assert (image.dtype, segmentation.dtype) == (torch.float32, torch.int32)
        assert same([{"image": image.numpy(), "segmentation": segmentation.numpy()}], [want])
    assert len(reads) == 2 * len(right)


@pytest.mark.parametrize("workers", [0, 2])
def test_shuffled_stream_in_workers(load, name, right, workers):
    stream = load(name, split="train", streaming=True).shuffle(seed=1).with_format("torch")
    loader = DataLoader(stream, batch_size=None, num_workers=workers)
    rows = sorted(loader, key=lambda row: (int(row["index"]), int(row.get("slice_index", 0))))
    assert same([{k: np.asarray(v) for k, v in row.items() if k != "patient_id"} for row in rows], right)


def test_tensors_are_drawn(compact, right):
    (first, *_) = compact.with_format("torch")
    assert isinstance(first["image"], torch.Tensor)
    own, other = (ctspine1k.preview(row) for row in (first, right[0]))
    for axes, others in zip(own.axes, other.axes, strict=True):
        assert np.array_equal(axes.images[0].get_array(), others.images[0].get_array())
