"""Shuffling a stream of volumes holds few of them."""

import gc
import inspect
import pickle
import weakref

import datasets
import pytest
from support.compare import identical, rows
from support.volumes import ALL_IDS, save_case

from ctspine1k.rows import batches


@pytest.fixture
def stream(load, tree, tmp_path):
    """Twelve volumes."""
    ids = [*ALL_IDS, *(f"own-{number:02d}" for number in range(8))]
    for seed, case_id in enumerate(ids):
        save_case(tree, case_id, seed=seed)
    (tmp_path / "twelve.txt").write_text("\n".join(["trainset:", *ids]))
    return load("3d", split="train", split_file=tmp_path / "twelve.txt", streaming=True)


def alive(references) -> int:
    """How many of these objects are still in memory."""
    return sum(reference() is not None for reference in references)


@pytest.fixture
def held(monkeypatch):
    """Count the volumes that are in memory; each entry is the count when another one was made."""
    made, counts = [], []
    make = batches._dense_volume

    def counted(*arguments):
        for voxels, labelled in make(*arguments):
            made.append(weakref.ref(voxels[0].base))
            if (count := alive(made)) > 4:  # some may wait for the garbage collector, which takes its time
                gc.collect()
                count = alive(made)
            counts.append(count)
            yield voxels, labelled

    monkeypatch.setattr(batches, "_dense_volume", counted)
    return counts


WAYS = {
    "alone": lambda stream: stream.shuffle(seed=1),
    "mapped": lambda stream: stream.map(lambda row: row).shuffle(seed=1),
    "chosen": lambda stream: stream.select_columns(["image", "index"]).shuffle(seed=1),
    "formatted": lambda stream: stream.with_format("numpy").shuffle(1),
    "filtered": lambda stream: stream.filter(lambda row: True).shuffle(seed=1),
    "pickled": lambda stream: pickle.loads(pickle.dumps(stream)).shuffle(seed=1),  # noqa: S301 (our own)
}


@pytest.mark.parametrize("way", WAYS)
def test_the_default_holds_few_volumes(stream, held, way):
    order = [int(row["index"]) for row in WAYS[way](stream)]
    assert sorted(order) == list(range(12))
    assert order != list(range(12))
    assert len(held) == 12
    assert max(held) <= 4  # that which is read, that in the buffer, and what the loop has


def test_every_case_may_come_first(stream):
    firsts = {next(iter(stream.select_columns(["index"]).shuffle(seed=seed)))["index"] for seed in range(40)}
    assert len(firsts) > 8


@pytest.mark.slow
def test_a_buffer_that_is_asked_for(stream, held):
    assert sorted(row["index"] for row in stream.shuffle(seed=1, buffer_size=12)) == list(range(12))
    assert max(held) >= 11


def test_no_method_returns_another_kind_of_stream(stream):
    """As a later release of `datasets` may have one more."""
    makers = {
        name
        for name, method in inspect.getmembers(datasets.IterableDataset, inspect.isfunction)
        if inspect.signature(method).return_annotation in ("IterableDataset", datasets.IterableDataset)
        and not name.startswith(("_", "from_"))
    }
    makers -= {"batch"}  # whose rows are batches
    assert "take" in makers
    assert [name for name in makers if not hasattr(getattr(type(stream), name), "__wrapped__")] == ["shuffle"]


def test_rows_and_kind_stay(load, stream):
    assert isinstance(stream, datasets.IterableDataset)
    again = stream.shuffle(seed=3)
    in_order = sorted(rows(again), key=lambda row: row["index"])
    assert identical(in_order, rows(stream))
    assert stream.features == again.features
    assert stream.n_shards == 12
    patches = stream.map(lambda row: {"n": [0, 1]}, batched=True, remove_columns=stream.column_names)
    assert type(patches) is datasets.IterableDataset  # as many rows as the function makes


def test_streams_by_split(load):
    streams = load("3d", streaming=True)
    assert isinstance(streams, datasets.IterableDatasetDict)
    shuffled = streams.with_format("numpy").shuffle(seed=1)
    assert {split: len(list(stream)) for split, stream in shuffled.items()} == {
        "train": 2,
        "validation": 1,
        "test": 1,
    }
    assert {type(stream) for stream in shuffled.values()} == {type(streams["train"])}


def test_slices_are_shuffled_as_datasets_does(load):
    assert type(load("2d", split="train", streaming=True)) is datasets.IterableDataset
