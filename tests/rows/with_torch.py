"""Streams in PyTorch's DataLoader. Run by `make test-torch`, as tests/storage/with_torch.py is."""

import pytest
from datasets.distributed import split_dataset_by_node
from support.streams import names, save_unequal_splits
from torch.utils.data import DataLoader

pytestmark = [
    pytest.mark.processes,
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),  # more than there are cores
]


@pytest.fixture
def unequal(load, tmp_path):
    """Load streams of splits with unequal numbers of cases."""
    save_unequal_splits(tmp_path / "unequal", tmp_path / "unequal.txt")

    def run(name, split):
        files = {"data_dir": tmp_path / "unequal", "split_file": tmp_path / "unequal.txt"}
        return load(name, split=split, streaming=True, **files)

    return run


def read(stream, workers):
    return names(DataLoader(stream, batch_size=None, num_workers=workers))


@pytest.mark.parametrize("workers", range(1, 10))
@pytest.mark.parametrize("spec", ["train", "train+validation", "test+validation+train"])
def test_no_worker_loses_rows(unequal, name, spec, workers):
    stream = unequal(name, spec)
    assert sorted(read(stream, workers)) == sorted(names(stream))


@pytest.mark.parametrize("workers", [1, 2, 3, 7])
def test_no_worker_loses_rows_of_a_shuffled_stream(unequal, name, workers):
    stream = unequal(name, "train+validation")
    shuffled = stream.shuffle(seed=3, buffer_size=4)
    assert sorted(read(shuffled, workers)) == sorted(names(stream))


@pytest.mark.parametrize("workers", [1, 2, 4, 9])
@pytest.mark.parametrize("nodes", [2, 3, 4])
def test_no_node_loses_rows(unequal, name, nodes, workers):
    stream = unequal(name, "train+validation")
    parts = [read(split_dataset_by_node(stream, node, nodes), workers) for node in range(nodes)]
    assert sorted(row for part in parts for row in part) == sorted(names(stream))
