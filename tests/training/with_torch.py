"""Patches and slices in PyTorch's DataLoader, and torchdata's StatefulDataLoader. Run by `make test-torch`."""

import numpy as np
import pytest
import torch
from support.loaders import raises_in_loader
from torch.utils.data import DataLoader, DistributedSampler, default_collate

from ctspine1k import training

pytestmark = [
    pytest.mark.processes,
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),  # more than there are cores
    pytest.mark.filterwarnings("ignore:'set_vital' is deprecated:UserWarning"),  # torchdata 0.11 calls it
]

SIZE = (9, 20, 8)


@pytest.fixture
def patches(volumes):
    return training.PatchDataset(volumes, SIZE, 0.5, patches_per_case=5)


def same(batches, others) -> bool:
    """Whether batches are equal, in all that they have."""
    batches, others = list(batches), list(others)
    assert len(batches) == len(others)
    for one, other in zip(batches, others, strict=True):
        assert list(one) == list(other)
        for name, value in one.items():
            if isinstance(value, torch.Tensor):
                assert (value.dtype, value.shape) == (other[name].dtype, other[name].shape)
                assert torch.equal(value, other[name])
            else:
                assert value == other[name]
    return True


def stacked(patches, indices):
    """A batch by another path."""
    items = [patches[index] for index in indices]
    return {
        name: [item[name] for item in items]
        if name == "case_id"
        else torch.from_numpy(np.stack([item[name] for item in items]))
        for name in items[0]
    }


@pytest.mark.parametrize(
    ("workers", "method", "dtype"),
    [
        (0, None, "float32"),
        (0, None, "stored"),
        (1, "fork", "float32"),
        (3, "fork", "stored"),
        (3, "spawn", "float32"),
        (3, "forkserver", "float32"),
    ],
)
def test_batches_are_the_same_for_any_workers(volumes, workers, method, dtype):
    patches = training.PatchDataset(volumes, SIZE, 0.5, patches_per_case=4, dtype=dtype)
    patches.set_epoch(2)
    loader = DataLoader(patches, batch_size=5, num_workers=workers, multiprocessing_context=method)
    batches = list(loader)
    assert same(batches, [stacked(patches, part) for part in (range(5), range(5, 10), range(10, 12))])
    image = batches[0]["image"]
    assert image.dtype == (torch.int16 if dtype == "stored" else torch.float32)
    assert image.is_shared() == bool(workers)
    for batch in batches:
        assert type(batch) is dict
        pieces = {batch[name].untyped_storage().data_ptr() for name in ("image", "segmentation")}
        assert len(pieces) == (1 if workers else 2)  # each that is sent takes a connection
        assert not batch["corner"].is_shared()  # comes as bytes: a shared one takes longer than some reads


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_workers_that_stay_see_the_epoch(patches, method):
    loader = DataLoader(
        patches, batch_size=5, num_workers=1, persistent_workers=True, multiprocessing_context=method
    )
    for epoch in (0, 7, 3):
        patches.set_epoch(epoch)
        found = list(loader)
        assert same(found, DataLoader(patches, batch_size=5))


def test_streams_in_workers_that_stay_see_the_epoch(patches, volumes):
    stream = training.PatchStream(patches, batch_size=4)
    slices = training.SliceDataset(volumes, "axial", size=(8, 8))
    for dataset, size in ((stream, None), (slices, 4)):
        loader = DataLoader(dataset, batch_size=size, num_workers=1, persistent_workers=True)
        for epoch in (0, 7, 0):
            dataset.set_epoch(epoch)
            assert same(list(loader), DataLoader(dataset, batch_size=size))


def test_items_and_lists_of_them(patches):
    """Other ways to collate get the items as they are."""
    (items,) = DataLoader(patches, batch_size=15, num_workers=1, collate_fn=list)
    assert [item["case_id"] for item in items] == [patches[index]["case_id"] for index in range(15)]
    assert all(np.array_equal(item["image"], patches[at]["image"]) for at, item in enumerate(items))
    for at, item in enumerate(DataLoader(patches, batch_size=None)):
        assert torch.equal(item["image"], torch.from_numpy(patches[at]["image"]))


def test_items_that_are_changed_are_not_lost(patches):
    """A collate_fn, or a data set around ours, may replace images, leave out items, or add to them."""

    def collate(items):
        for item in items[1:]:
            item["image"] = item["image"][:4] * 2
        return default_collate(items[1:] if len(items) == 3 else items)

    wanted = torch.stack([torch.from_numpy(patches[index]["image"][:4] * 2) for index in (1, 2)])
    (batch, *_) = DataLoader(patches, batch_size=3, collate_fn=collate)
    assert torch.equal(batch["image"], wanted)

    def replace(items):
        for item in items:
            item["image"] = item["image"] * 2
            item["weight"] = 0.5
            item["heat"] = np.full(5000, 7.0)
        batch = default_collate(items)
        batch["corner"] = torch.zeros(2, dtype=torch.bfloat16)
        batch["name"] = "x"
        return batch

    wanted = stacked(patches, range(2))
    for workers in (0, 1):
        (batch, *_) = DataLoader(patches, batch_size=2, collate_fn=replace, num_workers=workers)
        assert torch.equal(batch["image"], wanted["image"] * 2)
        assert torch.equal(batch["segmentation"], wanted["segmentation"])
        assert batch["weight"].tolist() == [0.5, 0.5]
        assert torch.equal(batch["heat"], torch.full((2, 5000), 7.0, dtype=torch.float64))
        assert (batch["corner"].dtype, batch["name"]) == (torch.bfloat16, "x")


@pytest.mark.parametrize(
    "fields",
    [
        (np.zeros(2, "f4"), np.ones(2, "f4")),
        (np.float32(1), np.float32(2)),
        (np.array([1, 2]), np.array([0.1, 0.2], "f4")),
        (np.zeros(2), np.zeros(3)),
        (np.zeros(2, ">f4"), np.zeros(2, ">f4")),
        (np.zeros(2), [0.5, 1.0]),
    ],
    ids=["alike", "scalars", "types", "shapes", "bytes", "lists"],
)
def test_fields_of_your_own_become_what_pytorch_makes_of_them(patches, fields):
    def outcome(values):
        try:
            found = default_collate(values)
        except (TypeError, ValueError, RuntimeError, AttributeError) as error:
            return type(error), str(error)
        found = found["own"] if isinstance(found, dict) else found
        return found.dtype, found.tolist()

    items = [patches[0], patches[1]]
    for item, value in zip(items, fields, strict=True):
        item["own"] = value
    assert outcome(items) == outcome(list(fields))


def test_ranks_of_a_distributed_sampler_see_each_patch_once(patches):
    found = []
    for rank in range(3):
        sampler = DistributedSampler(patches, num_replicas=3, rank=rank)
        for batch in DataLoader(patches, batch_size=2, sampler=sampler):
            found += map(tuple, batch["corner"].tolist())
    assert sorted(found) == sorted(patches.draw(index).corner for index in range(15))


@pytest.mark.parametrize(("workers", "method"), [(0, None), (1, "fork"), (3, "fork"), (3, "spawn")])
def test_a_stream_of_batches_is_the_same_for_any_workers(patches, workers, method):
    stream = training.PatchStream(patches, batch_size=2)
    assert isinstance(stream, torch.utils.data.IterableDataset)
    loader = DataLoader(stream, batch_size=None, num_workers=workers, multiprocessing_context=method)
    assert len(loader) == 8
    assert same(loader, list(stream))


@pytest.mark.parametrize("workers", [0, 2])
def test_two_ranks_see_each_patch_once(patches, workers):
    found = []
    for rank in range(2):
        stream = training.PatchStream(patches, rank=rank, world_size=2)
        for batch in DataLoader(stream, batch_size=4, num_workers=workers):
            found += map(tuple, batch["corner"].tolist())
    assert sorted(found) == sorted(patches.draw(index).corner for index in range(15))


def test_ranks_of_a_process_group(patches, tmp_path):
    """Those of spawned workers, too, which are not in it."""
    stream = training.PatchStream(patches)
    torch.distributed.init_process_group(
        "gloo", rank=0, world_size=1, init_method=f"file://{tmp_path / 'group'}"
    )
    try:
        patch = pytest.MonkeyPatch()
        patch.setattr(torch.distributed, "get_rank", lambda: 1)
        patch.setattr(torch.distributed, "get_world_size", lambda: 4)
        assert len(stream) == 4
        loader = DataLoader(stream, batch_size=4, num_workers=1, multiprocessing_context="spawn")
        (batch,) = loader
        patch.undo()
    finally:
        torch.distributed.destroy_process_group()
    wanted = next(iter(training.PatchStream(patches, batch_size=4, rank=1, world_size=4)))
    assert torch.equal(batch["corner"], wanted["corner"])


@pytest.mark.parametrize("workers", [0, 2])
def test_stop_and_resume(patches, volumes, workers):
    stateful = pytest.importorskip("torchdata.stateful_dataloader").StatefulDataLoader

    def loaders():
        again = training.PatchDataset(volumes, SIZE, 0.5, patches_per_case=5)
        slices = training.SliceDataset(volumes, "sagittal", size=(8, 8), buffer=1)
        streams = training.PatchStream(again, batch_size=2), training.PatchStream(again), slices
        for dataset, size in zip((again, *streams), (2, None, 2, 8), strict=True):
            dataset.set_epoch(4)
            generator = torch.Generator().manual_seed(1)
            shuffle = True if dataset is again else None
            yield stateful(
                dataset, batch_size=size, num_workers=workers, shuffle=shuffle, generator=generator
            )

    for whole, stopped, resumed in zip(loaders(), loaders(), loaders(), strict=True):
        wanted = list(whole)
        running = iter(stopped)
        first = [next(running) for _ in range(3)]
        state = stopped.state_dict()
        del running
        resumed.load_state_dict(state)
        assert same(first + list(resumed), wanted)


@pytest.mark.parametrize("workers", [0, 2])
def test_resumed_under_other_options(patches, workers):
    """Else patches would be left out, or come twice, for the rest of the epoch."""
    stateful = pytest.importorskip("torchdata.stateful_dataloader").StatefulDataLoader

    def loader(size):
        stream = training.PatchStream(patches, batch_size=size)
        return stateful(stream, batch_size=None, num_workers=workers)

    stopped, resumed = loader(2), loader(4)
    running = iter(stopped)
    for _ in range(4):
        next(running)
    resumed.load_state_dict(stopped.state_dict())
    del running, stopped
    with raises_in_loader(ValueError, "expected batch_size=2, found batch_size=4. Resume with the same"):
        list(resumed)


def test_resumed_in_another_number_of_workers(patches):
    """Only the workers know how many there are."""
    stream = training.PatchStream(patches, batch_size=2)
    next(iter(stream))
    state = stream.state_dict()
    resumed = training.PatchStream(patches, batch_size=2)
    resumed.load_state_dict(state)
    with raises_in_loader(ValueError, "expected workers=1, found workers=2. Resume with the same"):
        list(DataLoader(resumed, batch_size=None, num_workers=2))
    assert len(list(resumed)) == 7  # of 8


@pytest.mark.parametrize("workers", [0, 2])
def test_resumed_between_two_epochs(volumes, workers):
    """The loader gives its workers the state after the loop has set the next epoch."""
    stateful = pytest.importorskip("torchdata.stateful_dataloader").StatefulDataLoader

    def loader(epoch):
        stream = training.PatchStream(training.PatchDataset(volumes, SIZE, patches_per_case=2), batch_size=2)
        stream.set_epoch(epoch)
        return stateful(stream, batch_size=None, num_workers=workers)

    first, resumed = loader(0), loader(1)
    assert len(list(first)) == 3
    resumed.load_state_dict(first.state_dict())
    assert same(resumed, loader(1))


@pytest.mark.parametrize("workers", [0, 2])
def test_each_slice_once(volumes, workers):
    slices = training.SliceDataset(volumes, "coronal", size=(40, 70))
    found = []
    for batch in DataLoader(slices, batch_size=4, num_workers=workers):
        assert batch["image"].shape[1:] == batch["segmentation"].shape[1:] == (40, 70)
        assert (batch["image"].dtype, batch["segmentation"].dtype) == (torch.float32, torch.uint8)
        assert batch["spacing"].shape == (len(batch["image"]), 2)
        found += zip(batch["case_id"], batch["index"].tolist(), strict=True)
    assert sorted(found) == sorted((one["case_id"], one["index"]) for one in slices)


def test_slices_of_different_sizes(volumes):
    slices = training.SliceDataset(volumes, "coronal")
    with raises_in_loader(ValueError, r"found \(4, 6\) and .* Pass size= to SliceDataset"):
        list(DataLoader(slices, batch_size=200, num_workers=1))
    assert all(one["image"].ndim == 2 for one in DataLoader(slices, batch_size=None))
