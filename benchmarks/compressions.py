"""What ``compression="fast"`` takes on disk and gains in reads, against "small".

    .venv/bench/bin/python benchmarks/compressions.py [--slices 300] [--repeat 25]

Reads are those of one thread, as in a worker of a DataLoader, of image and segmentation at random places. The
time is the processor's, so that what else a machine does changes little.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import datasets
from cases import make_cases
from run import load
from ways import pairs_of

import ctspine1k
from ctspine1k.storage.codec import COMPRESSIONS

#: (slices, first, second axis) of the part that is read, by config; None for all of a row.
PARTS: tuple[tuple[str, tuple[int, ...] | None], ...] = (
    ("3d", (64, 64, 64)),
    ("3d", (96, 128, 128)),
    ("3d", (128, 128, 128)),
    ("3d", None),
    ("2d", None),
)


def read(lazy: Any, size: tuple[int, ...] | None) -> None:
    """Read a pair at a random place."""
    row = lazy[random.randrange(len(lazy))]
    where: tuple[slice, ...] = ()
    if size is not None:
        starts = [
            random.randint(0, max(0, whole - part)) for whole, part in zip(row.image.shape, size, strict=True)
        ]
        where = tuple(slice(start, start + part) for start, part in zip(starts, size, strict=True))
    row.image[where or ...], row.segmentation[where or ...]


def milliseconds(both: list[Any], size: tuple[int, ...] | None, turns: int) -> list[float]:
    """Return the median time of a read from each, in turn, after one turn that is not counted."""
    times: list[list[float]] = [[] for _ in both]
    for turn in range(turns + 1):
        for lazy, seconds in zip(both, times, strict=True):
            random.seed(turn)
            start = time.process_time()
            read(lazy, size)
            if turn:
                seconds.append(time.process_time() - start)
    return [statistics.median(seconds) * 1e3 for seconds in times]


def main() -> None:
    """Print two tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--repeat", type=int, default=25)
    args = parser.parse_args()
    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        make_cases(root, args.slices, 1)
        raw = sum(Path(path).stat().st_size for path in pairs_of(root / "cases")[0].values())
        rows = {
            (name, compression): load(root, name, "compact", 1, compression=compression)
            for name in ("3d", "2d")
            for compression in COMPRESSIONS
        }
        print(f"| rows | small | fast | fast against raw, {raw / 1e6:.1f} MB |\n|---|---|---|---|")
        for name in ("3d", "2d"):
            small, fast = (
                sum(Path(file["filename"]).stat().st_size for file in rows[name, compression].cache_files)
                for compression in COMPRESSIONS
            )
            print(f"| {name} | {small / 1e6:.1f} MB | {fast / 1e6:.1f} MB | {fast / raw:.3g} |")
        print("\n| read | types | small | fast | small against fast |\n|---|---|---|---|---|")
        for name, size in PARTS:
            what = " x ".join(map(str, size)) if size else "volume" if name == "3d" else "slice of 2d"
            for dtype in ("float32", "stored"):
                both = [
                    ctspine1k.LazyDataset(rows[name, compression], dtype=dtype, threads=1)
                    for compression in COMPRESSIONS
                ]
                small_ms, fast_ms = milliseconds(both, size, args.repeat)
                types = "float32, int32" if dtype == "float32" else "int16, uint8"
                print(
                    f"| {what} | {types} | {small_ms:.3g} ms | {fast_ms:.3g} ms | {small_ms / fast_ms:.3g} |"
                )


if __name__ == "__main__":
    main()
