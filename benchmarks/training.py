"""How fast patches and slices for training are: draws, batches through workers, slices in slabs.

    .venv/bench/bin/python benchmarks/training.py [--slices 300] [--cases 5] [--repeat 5]

Ways take turns, as in run.py. Through workers, an epoch is timed from the first batch on: starting the
workers does not count.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from cases import CASES, make_cases
from run import Row, Timed, compare, in_turn, median_ms, table
from torch.utils.data import DataLoader

import ctspine1k
from ctspine1k import training
from ctspine1k.training.foreground import Foreground
from ctspine1k.training.sampling import generator
from ctspine1k.training.volumes import Volumes
from ctspine1k.volumes.orientation import axis_along

SIZES = ((64, 64, 64), (96, 128, 128), (128, 128, 128))


class Plain:
    """The same patches as rows have them: float32 and int32, one by one, stacked by the DataLoader."""

    def __init__(self, lazy: ctspine1k.LazyDataset, patches: training.PatchDataset) -> None:
        self.lazy, self.patches = lazy, patches

    def __len__(self) -> int:
        return len(self.patches)

    def __getitem__(self, index: int) -> Any:
        row, corner, _ = self.patches.draw(index)
        where = tuple(slice(at, at + size) for at, size in zip(corner, self.patches.size, strict=True))
        return {"image": self.lazy[row].image[where], "segmentation": self.lazy[row].segmentation[where]}


def draw_rows(volumes: Volumes, turns: int) -> list[Row]:
    """Knowing where the labels of a case are, and drawing one of them."""
    masks = [volumes[row].segmentation for row in range(len(volumes))]
    known = [Foreground(mask) for mask in masks]
    for one in known:
        one.draw(generator(0)), one.draw(generator(0), by_class=True)
    times = in_turn(
        20 * turns,
        **{
            "knowing": lambda n: Foreground(masks[n % len(masks)]).draw(generator(0, n)),
            "knowing classes": lambda n: Foreground(masks[n % len(masks)]).draw(
                generator(0, n), by_class=True
            ),
            "voxel": lambda n: known[n % len(known)].draw(generator(0, n)),
            "class": lambda n: known[n % len(known)].draw(generator(0, n), by_class=True),
        },
    )
    bars = {
        "knowing": ("knowing a case", 30.0),
        "knowing classes": ("knowing a case, with its classes", 30.0),
        "voxel": ("a foreground centre", 0.5),
        "class": ("a foreground centre, class first", 0.5),
    }
    return [
        Row(what, f"{median_ms(times[name]):.3g} ms", f"{most} ms", median_ms(times[name]) / most, "<= 1.0")
        for name, (what, most) in bars.items()
    ]


def patch_rows(data: datasets.Dataset, turns: int) -> list[Row]:
    """Patches of each size through two workers."""
    lazy, rows = ctspine1k.LazyDataset(data), []
    for size in SIZES:
        options: dict[str, Any] = {"foreground": 0.5, "overhang": 0, "patches_per_case": 60 // len(data)}
        stored = training.PatchDataset(data, size, dtype="stored", **options)
        sets = {
            "int16 + uint8": stored,
            "float32 + uint8": training.PatchDataset(data, size, **options),
            "float32 + int32": Plain(lazy, stored),
        }
        times: Timed = {name: [] for name in sets}
        for turn in range(turns + 1):
            for name, items in sets.items():
                seconds = epoch_seconds(items)
                if turn:
                    times[name].append(seconds)
        what = f"{' x '.join(map(str, size))} patch, 2 workers"
        rows += [
            compare(what, times, "int16 + uint8", "float32 + int32", ">= 1.5"),
            compare(what, times, "int16 + uint8", "float32 + uint8"),
        ]
    return rows


def epoch_seconds(items: Any) -> float:
    """Return seconds per patch, from the first batch of an epoch on."""
    batches = iter(DataLoader(items, batch_size=2, num_workers=2))
    next(batches)
    start, count = time.perf_counter(), 0
    for batch in batches:
        count += len(batch["image"])
    return (time.perf_counter() - start) / count


def slice_rows(data: datasets.Dataset, volumes: Volumes, turns: int) -> list[Row]:
    """A sagittal slice of an epoch, and one by one."""
    lazy = ctspine1k.LazyDataset(data)
    axis, _ = axis_along(volumes[0].orientation, "R")
    times: Timed = {"in slabs": [], "one by one": []}
    for turn in range(turns + 1):
        slices = training.SliceDataset(data.select([turn % len(data)]), "sagittal", seed=turn)
        start = time.perf_counter()
        count = sum(1 for _ in slices)
        seconds = (time.perf_counter() - start) / count
        random.seed(turn)
        start = time.perf_counter()
        for _ in range(10):
            row = lazy[random.randrange(len(lazy))]
            where: list[Any] = [slice(None)] * 3
            where[axis] = random.randrange(row.image.shape[axis])
            np.asarray(row.image[tuple(where)]), np.asarray(row.segmentation[tuple(where)])
        if turn:
            times["in slabs"].append(seconds)
            times["one by one"].append((time.perf_counter() - start) / 10)
    return [compare("sagittal slice pair in an epoch", times, "in slabs", "one by one", ">= 20")]


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--cases", type=int, default=5)
    parser.add_argument("--repeat", type=int, default=5)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        make_cases(root, args.slices, args.cases)
        data = ctspine1k.load_dataset(
            "3d",
            split="train",
            data_dir=root / "cases",
            cases=CASES[: args.cases],
            cache_dir=root / "cache",
            storage="compact",
            geometry=True,
        )
        volumes = Volumes(data)
        rows = draw_rows(volumes, args.repeat) + slice_rows(data, volumes, args.repeat)
        print(table(rows + patch_rows(data, args.repeat)))


if __name__ == "__main__":
    main()
