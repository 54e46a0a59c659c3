"""How fast a read of compact storage could be: Blosc2's decoding alone, into memory that is used again.

    .venv/bench/bin/python benchmarks/limits.py [--slices 300] [--repeat 15]

Each read is timed beside the same read of a dense row, and beside the decoding of the chunks that it touches,
on as many threads, with nothing copied, converted or checked.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from cases import load, make_cases
from measuring import in_turn, median_ms
from run import corner, part, part_of, whole

import ctspine1k
from ctspine1k.running.threads import spread, usable_threads
from ctspine1k.storage.chunks import StoredArray
from ctspine1k.storage.codec import require_blosc2


def chunks_of(stored: StoredArray, where: tuple[slice, ...]) -> list[Any]:
    """Return the compressed chunks, but those of zeros, that a read of this part decodes."""
    ranges = [range(size)[one] for size, one in zip(stored.shape, where, strict=True)]
    return [part.chunk for part in stored.parts(ranges) if not part.is_zeros]


def decode(chunks: list[Any]) -> None:
    """Decode chunks on all cores, each thread into one buffer."""
    decompress = require_blosc2().decompress2

    def work(some: list[Any]) -> None:
        buffer = np.empty(1 << 20, np.uint8)
        for chunk in some:
            decompress(chunk, dst=buffer, nthreads=1)

    spread(work, chunks, min(usable_threads(), len(chunks)))


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--repeat", type=int, default=15)
    args = parser.parse_args()
    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        make_cases(root, args.slices, 2)
        print("| read | dense row | compact | decoding alone | dense against decoding alone |")
        print("|---|---|---|---|---|")
        every = (slice(None),) * 3
        for what, name in (("volume, stored types", "3d"), ("patch pair", "3d"), ("slice pair", "2d")):
            dense = load(root, name, "dense", 2).with_format("numpy")
            kind = "stored" if "stored" in what else "float32"
            lazy = ctspine1k.LazyDataset(load(root, name, "compact", 2), dtype=kind)
            is_patch = what.startswith("patch")

            def place(lazy: Any = lazy, is_patch: bool = is_patch) -> tuple[Any, tuple[slice, ...]]:
                row = lazy[random.randrange(len(lazy))]
                return row, corner(row.image.shape) if is_patch else every[: row.image.ndim]

            prepared = {}
            for turn in range(args.repeat + 1):
                random.seed(turn)
                row, where = place()
                arrays = row.image._stored, row.segmentation._stored
                prepared[turn] = [chunk for stored in arrays for chunk in chunks_of(stored, where)]
            times = in_turn(
                args.repeat,
                dense=lambda n, dense=dense, is_patch=is_patch: (
                    part_of(dense[n % len(dense)], corner((args.slices, 512, 512)))
                    if is_patch
                    else (dense[n % len(dense)]["image"], 0)
                ),
                compact=lambda n, place=place, is_patch=is_patch: (
                    part(*place()) if is_patch else whole(place()[0])
                ),
                alone=lambda n, prepared=prepared: decode(prepared[n]),
            )
            row_ms, ours, alone = (median_ms(times[key]) for key in ("dense", "compact", "alone"))
            print(f"| {what} | {row_ms:.3g} ms | {ours:.3g} ms | {alone:.3g} ms | {row_ms / alone:.3g} |")


if __name__ == "__main__":
    main()
