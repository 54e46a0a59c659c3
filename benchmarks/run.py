"""All benchmarks: `make bench`, or ``python benchmarks/run.py [--slices 300] [--repeat 5] [--out FOLDER]``.

Every figure is a ratio of medians of things measured in turn in one run, since a machine's speed drifts.
Conversions run in processes of their own; reads take turns within one, that of their section. See README.md.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import multiprocessing
import os
import platform
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import compressions
import datasets
import nnunet
import numpy as np
import ways
from cases import CASES, load, make_cases
from measuring import Row, Timed, compare, in_turn, peak_mb, table

import ctspine1k
from ctspine1k.storage.codec import require_blosc2

SECTIONS = (
    "conversion", "memory", "scans", "exports", "costs", "reads", "epochs", "growth", "training", "nnunet",
    "compressions",
)  # fmt: skip

PACKAGES = (
    "datasets", "pyarrow", "numpy", "nibabel", "isal", "blosc2", "torch", "monai", "torchio",
    "nnunetv2", "zarr",
)  # fmt: skip


# Conversion: each run is a process.


def convert(way: str, root: Path, count: int) -> dict[str, float]:
    """Convert the cases once, in this process: seconds a volume, also of the processor, memory and bytes."""
    datasets.disable_progress_bars()
    require_blosc2()  # importing it takes as long for many cases as for a few
    who, _, name = way.partition(" ")
    folder, batch = root / "cases", None
    if who == "published-one-by-one":  # with more cases than its default holds in memory at once
        who, batch = "published", {"3d": 1, "2d": 16}[name]
    with tempfile.TemporaryDirectory(dir=root) as cache:
        start, cpu = time.perf_counter(), user_seconds()
        if who == "inflate":
            ways.inflate([p for pair in ways.pairs_of(folder)[:count] for p in pair.values()], int(name or 1))
        elif who == "scan":
            chosen(folder, count).scan(Path(cache) / "cases.parquet", num_proc=int(name))
        elif who == "verify":
            chosen(folder, count).verify(Path(cache) / "cases.parquet", num_proc=int(name))
        elif who in ("export", "cluster"):
            config, _, processes = name.partition(" ")
            export(who, config, int(processes or 1), chosen(folder, count), Path(cache))
        elif who == "to_parquet":
            loaded = ctspine1k.load_dataset(
                name, split="train", data_dir=folder, cases=CASES[:count], cache_dir=Path(cache) / "dense"
            )
            loaded.to_parquet(Path(cache) / "all.parquet")
        elif who == "published":
            files = [pair["image"] for pair in ways.pairs_of(folder)[:count]]
            ways.Published(
                cache, config_name=name, data_files={"train": files}, writer_batch_size=batch
            ).download_and_prepare()
        else:
            ctspine1k.load_dataset(
                name, split="train", data_dir=folder, cases=CASES[:count], cache_dir=cache, storage=who
            )
        seconds, cpu = time.perf_counter() - start, user_seconds() - cpu
        kind = "*.parquet" if who in ("export", "cluster", "to_parquet") else "*.arrow"
        size = sum(path.stat().st_size for path in Path(cache).rglob(kind))
    return {"seconds": seconds / count, "cpu": cpu / count, "peak_mb": peak_mb(), "mb": size / count / 1e6}


def chosen(folder: Path, count: int) -> ctspine1k.Collection:
    """Return the first cases of a folder."""
    return ctspine1k.open_collection(data_dir=folder).select(CASES[:count])


def export(who: str, config: Any, processes: int, cases: ctspine1k.Collection, cache: Path) -> None:
    """Export with so many processes of ours, or workers of a Dask cluster."""
    if who == "export":
        cases.export_parquet(cache / "out", config=config, cases_per_shard=1, num_proc=processes)
        return
    import distributed

    with distributed.LocalCluster(
        n_workers=processes, threads_per_worker=1, dashboard_address=None
    ) as cluster:
        scheduler = cluster.scheduler_address
        cases.export_parquet(cache / "out", config=config, cases_per_shard=1, scheduler=scheduler)


def user_seconds() -> float:
    """Return the processor's time that all threads of this process have spent outside of the kernel."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_utime


def conversions(
    root: Path, names: Iterable[str], count: int, turns: int, counted_from: int = 1
) -> dict[str, list[dict[str, float]]]:
    """Run conversions in turn, each in a process of its own; the first turn is not counted."""
    results: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for turn in range(turns + counted_from):
        for name in results:
            command = [sys.executable, __file__, "--one", name, "--root", root, "--cases", str(count)]
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            if turn >= counted_from:
                results[name].append(json.loads(output.splitlines()[-1]))
    return results


def conversion_rows(root: Path, slices: int, count: int, turns: int) -> list[Row]:
    """Time of conversion and bytes on disk, against the published way, the raw files and dense storage."""
    names = ["inflate"] + [
        f"{who} {name}" for name in ("3d", "2d") for who in ("published", "dense", "compact")
    ]
    results = conversions(root, names, count, turns)
    times = {name: [result["seconds"] for result in runs] for name, runs in results.items()}
    bars = {"dense 3d": ">= 6", "compact 3d": ">= 10", "dense 2d": ">= 3", "compact 2d": ">= 5"}
    rows = []
    for way, bar in bars.items():
        row = compare(f"conversion, {way}", times, way, f"published {way[-2:]}", bar, unit="s")
        rate = 1 / statistics.median(times[way])
        row.ours += f" a volume ({rate:.2f} volumes/s, {rate * slices:.0f} slices/s)"
        rows.append(row)
    for way, bar in {"compact 3d": "<= 2.0", "compact 2d": "", "dense 3d": ""}.items():
        rows.append(compare(f"time of {way} conversion", times, way, "inflate", bar, unit="s", is_time=True))
    cpu = {name: [result["cpu"] for result in runs] for name, runs in results.items()}
    what = "processor's time of compact 3d conversion"
    rows.append(compare(what, cpu, "compact 3d", "inflate", "<= 2.4", unit="s", is_time=True))
    raw = sum(Path(path).stat().st_size for path in ways.pairs_of(root / "cases")[0].values()) / 1e6
    size = {name: runs[0]["mb"] for name, runs in results.items()}
    for name in ("3d", "2d"):
        compact, dense = size[f"compact {name}"], size[f"dense {name}"]
        mine = f"{compact:.1f} MB a volume"
        rows.append(Row(f"bytes, compact {name}", mine, f"raw: {raw:.1f} MB", compact / raw, "<= 0.85"))
        rows.append(
            Row(f"bytes, compact {name}", mine, f"dense: {dense:.1f} MB", compact / dense, "<= 0.1111")
        )
    return rows


def memory_rows(scratch: Path, lengths: Iterable[int]) -> list[Row]:
    """Peak memory of a conversion of two cases, since the second is read while the first is still held."""
    rows = []
    for slices in lengths:
        root = scratch / f"memory-{slices}"
        root.mkdir()
        make_cases(root, slices, 2)
        names = [f"{who} {name}" for name in ("3d", "2d") for who in ("published", "dense", "compact")]
        peaks = {
            name: runs[0]["peak_mb"] for name, runs in conversions(root, names, 2, 1, counted_from=0).items()
        }
        row_mb = slices * 512 * 512 * 8 / 1e6
        bars = {"dense 2d": 350, "compact 2d": 350, "dense 3d": 2.5 * row_mb + 300}
        if slices == 600:
            bars["compact 3d"] = 500
        for way in ("dense 3d", "compact 3d", "dense 2d", "compact 2d"):
            what, published = f"peak memory, {slices} slices, {way}", f"published {way[-2:]}"
            limit = bars.get(way)
            rows.append(
                Row(
                    f"{what} (at most {limit:,.0f} MB)" if limit else what,
                    f"{peaks[way]:,.0f} MB",
                    f"{published}: {peaks[published]:,.0f} MB",
                    peaks[way] / (limit or peaks[published]),
                    "<= 1.0" if limit else "",
                )
            )
        shutil.rmtree(root)
    return rows


def scan_rows(scratch: Path, slices: int, turns: int) -> list[Row]:
    """Rate of scan and verify against inflating the same files in as many processes, and their memory."""
    root = scratch / "scans"
    root.mkdir()
    make_cases(root, slices, 20)
    rows = []
    for processes in (1, 2):
        names = [f"{way} {processes}" for way in ("inflate", "scan", "verify")]
        times = {
            name: [run["seconds"] for run in runs]
            for name, runs in conversions(root, names, 20, turns).items()
        }
        for way in ("scan", "verify"):
            what = f"{way}, 20 cases, {processes} process{'es' if processes > 1 else ''}, a case"
            ours, inflating = f"{way} {processes}", f"inflate {processes}"
            rows.append(compare(what, times, ours, inflating, ">= 0.6", unit="s"))
    shutil.rmtree(root)
    for way, peak in peaks(scratch, ["scan 1", "verify 1"]).items():
        rows.append(
            Row(f"peak memory, 600 slices, {way[:-2]}", f"{peak:,.0f} MB", "600 MB", peak / 600, "<= 1.0")
        )
    return rows


def peaks(scratch: Path, names: Sequence[str], slices: int = 600) -> dict[str, float]:
    """Peak memory of each way, in MB, on two long cases."""
    root = scratch / "long"
    root.mkdir()
    make_cases(root, slices, 2)
    found = {way: runs[0]["peak_mb"] for way, runs in conversions(root, names, 2, 1, counted_from=0).items()}
    shutil.rmtree(root)
    return found


def export_rows(scratch: Path, slices: int, turns: int) -> list[Row]:
    """Bytes, time and memory of an export, against the raw files, dense storage and `to_parquet`."""
    root, count = scratch / "exports", 3
    root.mkdir()
    make_cases(root, slices, count)
    ways_of = ("export", "to_parquet", "dense")
    names = [f"{way} {name}" for name in ("3d", "2d") for way in ways_of]
    results = conversions(root, names, count, turns)
    times = {name: [result["seconds"] for result in runs] for name, runs in results.items()}
    size = {name: runs[0]["mb"] for name, runs in results.items()}
    raw = sum(Path(path).stat().st_size for path in ways.pairs_of(root / "cases")[0].values()) / 1e6
    rows = []
    for name in ("3d", "2d"):
        ours, theirs, dense = (size[f"{way} {name}"] for way in ways_of)
        mine = f"{ours:.1f} MB a volume"
        rows += [
            Row(f"bytes, export {name}", mine, f"raw: {raw:.1f} MB", ours / raw, "<= 1.05"),
            Row(f"bytes, export {name}", mine, f"dense: {dense:.1f} MB", ours / dense, "<= 0.1667"),
            Row(f"bytes, to_parquet {name}", f"{theirs:.1f} MB a volume", f"raw: {raw:.1f} MB", theirs / raw),
            compare(f"export {name}, a volume", times, f"export {name}", f"to_parquet {name}", unit="s"),
        ]
    shutil.rmtree(root)
    for way, peak in peaks(scratch, ["export 3d", "export 2d"]).items():
        rows.append(Row(f"peak memory, 600 slices, {way}", f"{peak:,.0f} MB", "a slice", peak / 600))
    return rows


def cost_rows(scratch: Path, slices: int) -> list[Row]:
    """How the time of an export, both configs, grows: against what 5 cases and 1 process foretell."""
    root = scratch / "costs"
    root.mkdir()
    make_cases(root, slices, 40)
    rows: list[Row] = []
    per_case = 0.0
    for count in (5, 10, 20, 40):
        ways_of = ["export all 1", "export all 2", "cluster all 2"]
        for way, runs in conversions(root, ways_of, count, 1, counted_from=0).items():
            total = runs[0]["seconds"] * count
            per_case = per_case or total / count
            workers = int(way[-1])
            predicted = per_case * count / workers
            rows.append(
                Row(
                    f"{way}, {count} cases",
                    f"{total:.1f} s",
                    f"predicted: {predicted:.1f} s",
                    total / predicted,
                )
            )
    shutil.rmtree(root)
    return rows


# Reads: in one process, in turn.


def corner(shape: tuple[int, ...]) -> tuple[slice, ...]:
    """Draw a patch."""
    starts = [random.randrange(max(1, n - p + 1)) for n, p in zip(shape, ways.PATCH, strict=True)]
    return tuple(slice(start, start + p) for start, p in zip(starts, ways.PATCH, strict=True))


def read_rows(root: Path, slices: int, count: int, turns: int) -> list[Row]:
    """A random volume, patch and slice."""
    shape = (slices, 512, 512)
    dense, compact = load(root, "3d", "dense", count), load(root, "3d", "compact", count)
    lazy = ctspine1k.LazyDataset(compact)
    one_thread = ctspine1k.LazyDataset(compact, threads=1)
    stored = ctspine1k.LazyDataset(compact, dtype="stored")
    in_numpy, in_torch = dense.with_format("numpy"), dense.with_format("torch")
    other = root / "other"
    other.mkdir()
    raw = [(row.image[...], row.segmentation[...]) for row in stored]
    ways.nnunet_write(raw, other / "nnunet", ways.PATCH)
    of_nnunet, zarr = ways.nnunet_read(other / "nnunet"), ways.zarr_sharded(raw, other)
    del raw
    folder, every = root / "cases", (slice(None),) * 3
    volume = {
        "compact": lambda n: whole(lazy[n]),
        "compact, stored types": lambda n: whole(stored[n]),
        "compact, rows in NumPy format": lambda n: compact.with_format("numpy")[n],
        "a dense row": lambda n: in_numpy[n],
        "a dense row in torch": lambda n: in_torch[n],
        "datasets.Nifti": ways.nifti_feature(folder),
        "MONAI LoadImaged": ways.monai_load(folder),
        "TorchIO": ways.torchio_load(folder),
        "nnU-Net's files": lambda n: of_nnunet(n, every),
        "Zarr sharded": lambda n: zarr(n, every),
    }
    times = in_turn(turns, **of_each_case(volume, count))
    rows = [
        compare("random volume, compact", times, "compact", "a dense row", ">= 1.5"),
        compare(
            "random volume, compact, stored types", times, "compact, stored types", "a dense row", ">= 4"
        ),
        compare(
            "random volume, compact, row in NumPy format",
            times,
            "compact, rows in NumPy format",
            "a dense row",
        ),
    ]
    rows += [compare("random volume, compact", times, "compact", name) for name in list(volume)[4:]]
    patch = {
        "compact": lambda n: part(lazy[n], corner(shape)),
        "compact, one thread": lambda n: part(one_thread[n], corner(shape)),
        "a dense row": lambda n: part_of(in_numpy[n], corner(shape)),
        "a dense row in torch": lambda n: part_of(in_torch[n], corner(shape)),
        "MONAI PersistentDataset": ways.monai_persistent_patch(folder, other / "monai", ways.PATCH),
        "TorchIO UniformSampler": ways.torchio_patch(folder),
        "nnU-Net's files": lambda n: of_nnunet(n, corner(shape)),
        "Zarr sharded": lambda n: zarr(n, corner(shape)),
    }
    times = in_turn(2 * turns, **of_each_case(patch, count))
    bars = {"a dense row": ">= 80", "MONAI PersistentDataset": ">= 25"}
    for name in patch:
        if not name.startswith("compact"):
            rows.append(compare("random patch pair, compact", times, "compact", name, bars.get(name, "")))
    rows.append(compare("the same, one thread", times, "compact, one thread", "nnU-Net's files"))
    return rows + slice_rows(root, count, turns)


def of_each_case(work: dict[str, Callable[[int], object]], count: int) -> dict[str, Callable[[int], object]]:
    """Go through the cases, turn by turn."""
    return {name: partial(lambda once, turn: once(turn % count), once) for name, once in work.items()}


def slice_rows(root: Path, count: int, turns: int) -> list[Row]:
    """A random axial slice of 2d rows."""
    dense, compact = load(root, "2d", "dense", count), load(root, "2d", "compact", count)
    lazy, in_numpy = ctspine1k.LazyDataset(compact), dense.with_format("numpy")
    compact_numpy = compact.with_format("numpy")

    def columns(row: Any) -> Any:
        return row["image"], row["segmentation"]

    times = in_turn(
        20 * turns,
        **{
            "compact": lambda n: whole(lazy[random.randrange(len(lazy))]),
            "compact, rows in NumPy format": lambda n: columns(compact_numpy[random.randrange(len(lazy))]),
            "a dense row": lambda n: columns(in_numpy[random.randrange(len(lazy))]),
        },
    )
    return [
        compare("random slice pair, compact", times, "compact", "a dense row", ">= 1.0"),
        compare(
            "random slice pair, compact rows in NumPy format",
            times, "compact, rows in NumPy format", "a dense row",
        ),
    ]  # fmt: skip


def whole(row: Any) -> Any:
    """Read image and segmentation."""
    return np.asarray(row.image), np.asarray(row.segmentation)


def part(row: Any, where: tuple[slice, ...]) -> Any:
    """Read a patch of a lazy row."""
    return row.image[where], row.segmentation[where]


def part_of(row: Any, where: tuple[slice, ...]) -> Any:
    """Cut a patch out of a row that has been read."""
    return row["image"][where] + 0, row["segmentation"][where] + 0


class Items:
    """What a DataLoader draws: slices of 2d rows, or patches of 3d rows, from either storage."""

    def __init__(self, dataset: Any, shape: tuple[int, ...] | None, length: int) -> None:
        self.dataset, self.shape, self.length = dataset, shape, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        random.seed(index)
        row = self.dataset[random.randrange(len(self.dataset))]
        is_lazy = isinstance(self.dataset, ctspine1k.LazyDataset)
        if self.shape is None:
            return whole(row) if is_lazy else (row["image"], row["segmentation"])
        return part(row, corner(self.shape)) if is_lazy else part_of(row, corner(self.shape))


def epoch_rows(root: Path, slices: int, count: int) -> list[Row]:
    """An epoch of random slices and of patches through a DataLoader; seconds an item."""
    from torch.utils.data import DataLoader

    rows = []
    for what, name, shape, lengths in (
        ("slices", "2d", None, {"compact": 400, "dense": 400}),
        ("patches", "3d", (slices, 512, 512), {"compact": 60, "dense": 12}),
    ):
        sets = {
            "compact": ctspine1k.LazyDataset(load(root, name, "compact", count)),
            "dense": load(root, name, "dense", count).with_format("torch"),
        }
        for workers in (0, 2):

            def epoch(storage: str, name: str = name, workers: int = workers) -> float:
                items = Items(sets[storage], shape, lengths[storage])  # noqa: B023 (called in this turn)
                start = time.perf_counter()
                for _ in DataLoader(items, batch_size=4 if name == "2d" else 2, num_workers=workers):
                    pass
                return (time.perf_counter() - start) / len(items)

            times: Timed = {storage: [] for storage in sets}
            for turn in range(4):
                for storage in sets:
                    seconds = epoch(storage)
                    if turn:
                        times[storage].append(seconds)
            rows.append(
                compare(f"epoch of random {what}, {workers} workers, an item", times, "compact", "dense")
            )
    return rows


def growth_rows(scratch: Path, slices: int, turns: int) -> list[Row]:
    """How the cost of one volume, and of one patch, changes from 5 cases to 20."""
    root = scratch / "growth"
    root.mkdir()
    make_cases(root, slices, 20)
    names = ["compact 3d", "dense 3d", "compact 2d", "dense 2d", "published-one-by-one 3d"]
    few, many = (conversions(root, names, count, 1, counted_from=0) for count in (5, 20))
    rows = [
        Row(
            f"conversion of 20 cases, a volume, {name}",
            f"{many[name][0]['seconds']:.3g} s",
            f"of 5: {few[name][0]['seconds']:.3g} s",
            many[name][0]["seconds"] / few[name][0]["seconds"],
        )
        for name in names
    ]
    shape = (slices, 512, 512)
    read: dict[str, Callable[[int], object]] = {}
    for count in (5, 20):
        lazy = ctspine1k.LazyDataset(load(root, "3d", "compact", count))
        dense = load(root, "3d", "dense", count).with_format("numpy")
        read[f"compact, of {count}"] = partial(lambda ds, n: part(ds[n % len(ds)], corner(shape)), lazy)
        read[f"dense, of {count}"] = partial(lambda ds, n: part_of(ds[n % len(ds)], corner(shape)), dense)
    times = in_turn(8 * turns, **read)
    for storage in ("compact", "dense"):
        ours, other = f"{storage}, of 20", f"{storage}, of 5"
        rows.append(compare(f"random patch of 20 cases, {storage}", times, ours, other, is_time=True))
    shutil.rmtree(root)
    return rows


def training_rows(root: Path, count: int, turns: int) -> list[Row]:
    """What needs PyTorch, which is imported here: conversions are held to memory, of which it takes much."""
    import training

    return training.training_rows(root, count, turns)


def main() -> None:
    """Run the sections asked for, print the table and keep it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("sections", nargs="*", default=SECTIONS, help=f"of {', '.join(SECTIONS)}; all")
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--cases", type=int, default=5)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--out", type=Path, help="folder for results.json and results.md")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.slices < ways.PATCH[0]:
        parser.error(f"--slices {args.slices}: expected at least {ways.PATCH[0]}, as patches have")
    quiet()
    if args.one:
        print(json.dumps(convert(args.one, args.root, args.cases)))
        return
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as temporary:
        scratch, root = Path(temporary), Path(temporary) / "main"
        root.mkdir()
        origin = make_cases(root, args.slices, args.cases)
        for name in args.sections:
            print(f"{name} ...", file=sys.stderr, flush=True)
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as own:
                rows += own.submit(section, name, scratch, args).result()
            keep(args, origin, rows)  # after each, so that a run that is stopped leaves what it has measured


def section(name: str, scratch: Path, args: argparse.Namespace) -> list[Row]:
    """Measure one section, in a process of its own: so that it reuses no memory that another has freed."""
    quiet()
    # A spawned process would spawn its own: those of a DataLoader start in the way that is usual here.
    multiprocessing.set_start_method(multiprocessing.get_all_start_methods()[0], force=True)
    root = scratch / "main"
    work: dict[str, Callable[[], list[Row]]] = {
        "conversion": lambda: conversion_rows(root, args.slices, args.cases, args.repeat),
        "memory": lambda: memory_rows(scratch, (150, 300, 600)),
        "scans": lambda: scan_rows(scratch, args.slices, args.repeat),
        "exports": lambda: export_rows(scratch, args.slices, args.repeat),
        "costs": lambda: cost_rows(scratch, args.slices),
        "reads": lambda: read_rows(root, args.slices, args.cases, 3 * args.repeat),
        "epochs": lambda: epoch_rows(root, args.slices, args.cases),
        "growth": lambda: growth_rows(scratch, args.slices, args.repeat),
        "training": lambda: training_rows(root, args.cases, args.repeat),
        "nnunet": lambda: nnunet.nnunet_rows(scratch, args.repeat),
        "compressions": lambda: compressions.compression_rows(root, args.repeat),
    }
    return work[name]()


def quiet() -> None:
    """Show no progress bars, nor warnings of the others' packages."""
    warnings.simplefilter("ignore")
    datasets.disable_progress_bars()


def keep(args: argparse.Namespace, origin: str, rows: list[Row]) -> None:
    """Print all rows so far, and write them to files."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    head = (
        f"{args.cases} cases of {args.slices} slices of 512 x 512 ({origin}), medians of runs in turn; "
        f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, {versions}."
    )
    text = f"{head}\n\n{table(rows)}\n"
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "results.md").write_text(text)
        kept = [{**asdict(row), "verdict": row.verdict} for row in rows]
        (args.out / "results.json").write_text(json.dumps({"head": head, "rows": kept}, indent=1) + "\n")
    print(text, flush=True)


if __name__ == "__main__":
    main()
