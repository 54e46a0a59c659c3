"""Cases of unequal splits, and the share of a stream that each worker of a DataLoader gets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from datasets import IterableDataset

import ctspine1k
from support.volumes import save_case

#: Cases of each split: all differ, and one has a single case.
COUNTS = {"train": 5, "validation": 1, "test": 2}


def save_unequal_splits(root: Path, split_file: Path) -> None:
    """Write cases of unequal numbers of slices, and a split file with `COUNTS` of them."""
    ids = iter([case.case_id for case in ctspine1k.load_catalog()])
    lines = []
    for section, count in zip(("trainset", "test_public", "test_private"), COUNTS.values(), strict=True):
        lines.append(f"{section}:")
        for number in range(count):
            lines.append(next(ids))
            save_case(root, lines[-1], seed=len(lines), shape=(6, 5, 2 + number))
    split_file.write_text("\n".join(lines) + "\n")


def shares(stream: IterableDataset, workers: int) -> Iterator[IterableDataset]:
    """What each worker of a DataLoader reads; those beyond the number of shards get nothing."""
    for worker in range(min(workers, stream.n_shards)):
        yield stream.shard(workers, worker, contiguous=False)


def names(stream) -> list[tuple[str, int]]:
    """Case and slice of each row, in their order."""
    return [(row["patient_id"], int(row.get("slice_index", 0))) for row in stream]
