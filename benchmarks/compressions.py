"""What ``compression="fast"`` takes on disk and gains in reads, against "small".

Reads are those of one thread, as in a worker of a DataLoader, of image and segmentation at random places. The
time is the processor's, so that what else a machine does changes little.
"""

from __future__ import annotations

import random
import statistics
import time
from pathlib import Path
from typing import Any

from cases import load
from measuring import Row
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


def compression_rows(root: Path, turns: int) -> list[Row]:
    """Bytes and reads of one case."""
    raw = sum(Path(path).stat().st_size for path in pairs_of(root / "cases")[0].values()) / 1e6
    loaded = {
        (name, compression): load(root, name, "compact", 1, compression=compression)
        for name in ("3d", "2d")
        for compression in COMPRESSIONS
    }
    rows = []
    for name, bar in (("3d", "<= 1.1"), ("2d", "")):
        files = loaded[name, "fast"].cache_files
        size = sum(Path(file["filename"]).stat().st_size for file in files) / 1e6
        ours = f"{size:.1f} MB a volume"
        rows.append(Row(f'bytes, "fast" {name}', ours, f"raw: {raw:.1f} MB", size / raw, bar))
    for name, part in PARTS:
        what = " x ".join(map(str, part)) if part else "volume" if name == "3d" else "slice of 2d"
        for dtype, types in (("float32", "float32 + int32"), ("stored", "int16 + uint8")):
            both = [
                ctspine1k.LazyDataset(loaded[name, compression], dtype=dtype, threads=1)
                for compression in COMPRESSIONS
            ]
            small, fast = milliseconds(both, part, 5 * turns)
            what_of = f'processor\'s time, {what}, {types}, "fast"'
            rows.append(Row(what_of, f"{fast:.3g} ms", f"small: {small:.3g} ms", small / fast))
    return rows
