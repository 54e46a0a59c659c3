"""How fast patches and slices for training are: draws, batches, patches through workers, slices in slabs."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import ways
from cases import load
from measuring import Row, Timed, compare, in_turn, median_ms
from numpy.typing import NDArray
from torch.utils.data import DataLoader

import ctspine1k
from ctspine1k import training
from ctspine1k.running.threads import spread, usable_threads
from ctspine1k.storage.chunks import ChunkPart, StoredArray
from ctspine1k.storage.codec import COMPRESSIONS, decompress
from ctspine1k.storage.collate import empty_batch
from ctspine1k.storage.form import checksum
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


class Unread:
    """Batches of zeros: what it takes to send so many bytes from a worker."""

    def __init__(self, patches: training.PatchDataset, *dtypes: type) -> None:
        self.patches, self.dtypes = patches, dtypes

    def __len__(self) -> int:
        return len(self.patches)

    def __getitems__(self, indices: list[int]) -> list[dict[str, Any]]:
        made = empty_batch(*(((len(indices), *self.patches.size), dtype) for dtype in self.dtypes))
        for array, _ in made:
            array[...] = 0
        return [{name: tensor for name, (_, tensor) in zip(("image", "segmentation"), made, strict=True)}]


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


def batch_rows(root: Path, count: int, turns: int) -> list[Row]:
    """Batches of two patches, half of them in the foreground, on one core: against nnU-Net's loader."""
    rows, loaded = [], {name: load_patches(root, count, name) for name in COMPRESSIONS}
    volumes = [
        (row.image[...], row.segmentation[...])
        for row in ctspine1k.LazyDataset(loaded["small"], dtype="stored")
    ]
    for size in SIZES:
        ways.nnunet_write(volumes, root / "nnunet", size)
        sets = {name: patches_of(data, size, 200 * turns) for name, data in loaded.items()}
        for patches, case in itertools.product(sets.values(), range(count)):
            patches.draw(case)  # opens the case
        with one_core():
            batches = {name: batches_of(patches) for name, patches in sets.items()}
            batches["nnU-Net"] = ways.nnunet_loader(root / "nnunet", size)
            work = {name: partial(lambda one, _: next(one), one) for name, one in batches.items()}
            for name, patches in sets.items():
                work[f"decoding {name}"] = decoding(loaded[name], patches, 30 * turns + 1)
                work[f"writing {name}"] = decoding(loaded[name], patches, 30 * turns + 1, is_written=True)
            times = in_turn(30 * turns, **work)
        what = f"two {named(size)} patches, one core"
        for name, bar in (("fast", ">= 2.0"), ("small", ">= 1.2")):
            rows.append(compare(f'{what}, "{name}"', times, name, "nnU-Net", bar))
            rows.append(compare(f"{what}, decoding alone", times, f"decoding {name}", "nnU-Net"))
            rows.append(compare(f"{what}, decoded, checked, written", times, f"writing {name}", "nnU-Net"))
        shutil.rmtree(root / "nnunet")
    return rows


def decoding(
    data: datasets.Dataset,
    patches: training.PatchDataset,
    batches: int,
    threads: int = 1,
    *,
    is_written: bool = False,
) -> Callable[[int], None]:
    """Return what decodes the chunks of a batch, and does nothing else: no read of them takes less.

    With ``is_written``, each is compared with its checksum, and written to its place as float32 or uint8.
    """
    volumes, chunks = Volumes(data), []
    places = {
        name: np.empty(patches.size, dtype)
        for name, dtype in zip(volumes.columns, (np.float32, np.uint8), strict=False)
    }
    for index in range(2 * batches):
        row, corner, _ = patches.draw(index)
        ranges = [
            range(max(at, 0), min(at + size, length))
            for at, size, length in zip(corner, patches.size, volumes[row].shape, strict=True)
        ]
        columns = [(volumes[row].column(name), place) for name, place in places.items()]
        parts = [(part, *column) for column in columns for part in column[0].parts(ranges)]
        chunks.append([one for one in parts if not one[0].is_zeros])
    most = max(part.nbytes for one in chunks for part, *_ in one)

    def decode(parts: list[tuple[ChunkPart, StoredArray, NDArray[Any]]]) -> None:
        buffer = np.empty(most, np.uint8)
        for part, stored, place in parts:
            if is_written:
                assert checksum(part.chunk, stored.seed, part.number) == stored.checksums[part.number]
            voxels = buffer[: part.nbytes]
            decompress(part.chunk, voxels)
            if is_written:
                place[part.outside] = voxels.view(stored.dtype).reshape(part.shape)[part.inside]

    return lambda turn: spread(decode, chunks[2 * turn] + chunks[2 * turn + 1], threads)


def other_rows(root: Path, count: int, turns: int) -> list[Row]:
    """Two patches against the ways of MONAI and TorchIO, each as its users run it."""
    size, cache, per_volume = SIZES[1], root / "monai", 10
    loaded = {name: load_patches(root, count, name) for name in COMPRESSIONS}
    sets = {name: patches_of(data, size, 100 * turns) for name, data in loaded.items()}
    batches = {name: batches_of(patches) for name, patches in sets.items()}
    alone = decoding(loaded["small"], sets["small"], 10, usable_threads())
    single = ways.monai_persistent_patch(root / "cases", cache, size)
    several = ways.monai_persistent_patch(root / "cases", cache, size, 4)

    def ten(name: str) -> None:
        for _ in range(10):
            next(batches[name])  # dropped, as in a training loop

    def queue(_: int) -> None:
        for batch in ways.torchio_queue(root / "cases", 1, size, per_volume):
            del batch

    times = in_turn(
        turns,
        small=lambda _: ten("small"),
        fast=lambda _: ten("fast"),
        decoding=lambda _: [alone(batch) for batch in range(10)],
        single=lambda n: single(n % count),
        several=lambda n: several(n % count),
        queue=queue,
    )
    patches = {"small": 20, "fast": 20, "decoding": 20, "single": 1, "several": 4, "queue": per_volume}
    others = {
        "single": ("MONAI PersistentDataset, RandCropByPosNegLabeld", ">= 25"),
        "several": ("the same, 4 patches of a case", ""),
        "queue": (f"TorchIO Queue, {per_volume} patches of a case", ">= 50"),
    }
    each = {others.get(name, (name,))[0]: [s / patches[name] for s in times[name]] for name in patches}
    rows = [
        compare(f'{named(size)} patch, "{name}"', each, name, other, bar)
        for name in COMPRESSIONS
        for other, bar in others.values()
    ]
    what = f'{named(size)} patch, "small", decoding alone'
    return [*rows, compare(what, each, "decoding", others["queue"][0])]


def worker_rows(root: Path, count: int, turns: int) -> list[Row]:
    """Patches of each size through two workers."""
    rows = []
    for name, size in itertools.product(COMPRESSIONS, SIZES):
        data = load_patches(root, count, name)
        options: dict[str, Any] = {"foreground": 0.5, "overhang": 0, "patches_per_case": 240 // len(data)}
        stored = training.PatchDataset(data, size, dtype="stored", **options)
        sets = {
            "int16 + uint8": stored,
            "float32 + uint8": training.PatchDataset(data, size, **options),
            "float32 + int32": Plain(ctspine1k.LazyDataset(data), stored),
            "int16 + uint8, nothing read": Unread(stored, np.int16, np.uint8),
            "float32 + int32, nothing read": Unread(stored, np.float32, np.int32),
        }
        times: Timed = {types: [] for types in sets}
        for turn in range(turns + 1):
            for types, items in sets.items():
                seconds = epoch_seconds(items)
                if turn:
                    times[types].append(seconds)
        what = f'{named(size)} patch, 2 workers, "{name}"'
        rows += [
            compare(what, times, "int16 + uint8", "float32 + int32", ">= 1.5"),
            compare(what, times, "int16 + uint8", "float32 + uint8"),
            compare(
                f"{what}, nothing read", times, "int16 + uint8, nothing read", "float32 + int32, nothing read"
            ),
        ]
    return rows


def load_patches(root: Path, count: int, compression: str) -> datasets.Dataset:
    """Load volumes to take patches of."""
    return load(root, "3d", "compact", count, compression=compression, geometry=True)


def patches_of(data: datasets.Dataset, size: tuple[int, ...], count: int) -> training.PatchDataset:
    """Return so many patches, drawn as nnU-Net draws them."""
    per_case = -(-count // len(data))
    return training.PatchDataset(data, size, 0.5, balance="class", overhang=0, patches_per_case=per_case)


def batches_of(patches: training.PatchDataset) -> Iterator[Any]:
    """Return batches of two patches."""
    return iter(DataLoader(patches, batch_size=2))


def named(size: tuple[int, ...]) -> str:
    """Return a size as text."""
    return " x ".join(map(str, size))


@contextlib.contextmanager
def one_core() -> Iterator[None]:
    """Stay on one core, as a worker among others does: nnU-Net's loader has one thread, too."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def epoch_seconds(items: Any) -> float:
    """Return seconds per patch, from the first batch of an epoch on."""
    options: dict[str, Any] = {"collate_fn": itemgetter(0)} if isinstance(items, Unread) else {}
    batches = iter(DataLoader(items, batch_size=2, num_workers=2, **options))
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


def training_rows(root: Path, count: int, turns: int) -> list[Row]:
    """All of it."""
    data = load_patches(root, count, "small")
    volumes = Volumes(data)
    rows = draw_rows(volumes, turns) + slice_rows(data, volumes, turns)
    rows += batch_rows(root, count, turns) + other_rows(root, count, turns)
    return rows + worker_rows(root, count, turns)
