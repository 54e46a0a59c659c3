"""What converting a case costs, beside the same rows made with nibabel's ``get_fdata()``.

    python benchmarks/conversion.py [--slices 300] [--repeat 5] [--out benchmarks/results]

The case is made of the real slices that CTSPINE1K_SAMPLE names, each shifted and with a little noise, or,
without it, of the phantom's. Every run is a process of its own that converts it twice, under two ids, since
the second volume is read while the first is still held; the ways take turns, and medians are told.
"""

from __future__ import annotations

import argparse
import gzip
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import nibabel as nib
import numpy as np
from isal import igzip

import ctspine1k
from ctspine1k.phantom import make_phantom

CASES = ("liver_106", "liver_107")
BATCH = {"3d": 1, "2d": 16}  #: the library's defaults, for both
WAYS = ("ctspine1k 3d", "get_fdata 3d", "ctspine1k 2d", "get_fdata 2d", "inflate alone")


class GetFdata(datasets.GeneratorBasedBuilder):
    """The same rows as a loader writes them that reads whole volumes with ``get_fdata()``."""

    BUILDER_CONFIGS = [datasets.BuilderConfig(name=name) for name in ("3d", "2d")]  # noqa: RUF012

    def _info(self) -> datasets.DatasetInfo:
        voxels, shape = (
            (datasets.Array3D, (None, 512, 512))
            if self.config.name == "3d"
            else (datasets.Array2D, (512, 512))
        )
        position = {} if self.config.name == "3d" else {"slice_index": datasets.Value("int32")}
        columns = {
            "image": voxels(shape, "float32"),
            "segmentation": voxels(shape, "int32"),
            "patient_id": datasets.Value("string"),
            "index": datasets.Value("int32"),
        }
        return datasets.DatasetInfo(features=datasets.Features({**columns, **position}))

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        return [datasets.SplitGenerator(name="train", gen_kwargs={"root": self.config.data_dir})]

    def _generate_examples(self, root: str) -> Iterator[tuple[str, dict[str, Any]]]:
        for index, case_id in enumerate(CASES):
            files = ctspine1k.list_files(case=case_id, data_dir=root)
            image = np.transpose(nib.load(files[0].path).get_fdata(), (2, 0, 1)).astype(np.float32)
            mask = np.transpose(nib.load(files[1].path).get_fdata(), (2, 0, 1)).astype(np.int32)
            case = {"patient_id": case_id, "index": index}
            if self.config.name == "3d":
                yield case_id, {"image": image, "segmentation": mask, **case}
                continue
            for k in range(len(image)):
                yield (
                    f"{case_id}/{k}",
                    {"image": image[k], "segmentation": mask[k], **case, "slice_index": k},
                )


def convert(way: str, root: Path) -> dict[str, float]:
    """Convert all cases once, in this process, and tell seconds a case and peak memory (MB)."""
    datasets.disable_progress_bars()
    who, name = way.rsplit(" ", 1)
    with tempfile.TemporaryDirectory(dir=root) as cache:
        start = time.perf_counter()
        if who == "ctspine1k":
            ctspine1k.load_dataset(name, split="train", data_dir=root, cases=CASES, cache_dir=cache)
        elif who == "get_fdata":
            builder = GetFdata(cache, config_name=name, data_dir=str(root), writer_batch_size=BATCH[name])
            builder.download_and_prepare()
        else:
            for file in ctspine1k.list_files(case=CASES, data_dir=root):
                with igzip.open(file.path) as stream:
                    while stream.read(1 << 20):
                        pass
        seconds = time.perf_counter() - start
    return {"seconds": seconds / len(CASES), "peak_mb": peak_mb()}


def peak_mb() -> float:
    """Tell the most memory that this process ever held (Linux). What getrusage tells is its parent's, too."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1e3


def make_case(root: Path, slices: int) -> str:
    """Write image and mask of a case with so many slices, under each id, and tell what they are made of."""
    if "CTSPINE1K_SAMPLE" in os.environ:
        tree, origin = Path(os.environ["CTSPINE1K_SAMPLE"]), "real slices"
        sources = [sorted(tree.rglob("*_000?.nii.gz")), sorted(tree.rglob("*_seg.nii.gz"))]
    else:
        tree, origin = make_phantom(root / "phantom"), "phantom slices"
        files = ctspine1k.list_files(data_dir=tree)
        sources = [[f.path for f in files if f.kind == kind] for kind in ("image", "mask")]
    (root / "cases").mkdir()
    random = np.random.default_rng(0)
    for paths, suffix in zip(sources, ("", "_seg"), strict=True):
        loaded = [nib.load(path) for path in paths]
        stack = np.concatenate([np.asarray(volume.dataobj) for volume in loaded], axis=2)
        shifted = [
            np.roll(stack[..., k % stack.shape[2]], k // stack.shape[2], axis=0) for k in range(slices)
        ]
        voxels = np.stack(shifted, axis=2)
        if not suffix:
            noise = random.integers(-1, 2, voxels.shape, voxels.dtype)
            voxels = np.where(voxels > voxels.min(), voxels + noise, voxels)  # what pads a scan has none
        image = nib.Nifti1Image(voxels, loaded[0].affine)
        compressed = gzip.compress(image.to_bytes(), 6)
        for case_id in CASES:
            (root / "cases" / f"{case_id}{suffix}.nii.gz").write_bytes(compressed)
    return origin


def run_in_turn(root: Path, repeat: int) -> dict[str, list[dict[str, float]]]:
    """Run every way in a process of its own, in turn, after one turn that is not counted."""
    runs: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for turn in range(repeat + 1):
        for way in WAYS:
            command = [sys.executable, __file__, "--one", way, "--root", str(root)]
            result = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
            if turn:
                runs[way].append(result)
    return runs


def table(runs: dict[str, list[dict[str, float]]]) -> str:
    """Write medians, ranges and ratios as Markdown."""
    medians = {
        way: {key: statistics.median(r[key] for r in results) for key in results[0]}
        for way, results in runs.items()
    }
    lines = ["| way | seconds a case (range) | peak memory (MB) | against get_fdata |", "|---|---|---|---|"]
    for way, results in runs.items():
        seconds = [r["seconds"] for r in results]
        other = medians.get(way.replace("ctspine1k", "get_fdata"))
        ratio = ""
        if way.startswith("ctspine1k") and other:
            faster = other["seconds"] / medians[way]["seconds"]
            ratio = f"{faster:.1f} x faster, {medians[way]['peak_mb'] / other['peak_mb']:.2f} x the memory"
        spread = f"{medians[way]['seconds']:.2f} ({min(seconds):.2f} to {max(seconds):.2f})"
        lines.append(f"| {way} | {spread} | {medians[way]['peak_mb']:,.0f} | {ratio} |")
    return "\n".join(lines)


def main() -> None:
    """Make the case, run the ways, print the table and keep it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--out", type=Path, help="folder for conversion.json and conversion.md")
    parser.add_argument("--one", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(convert(args.one, args.root)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        origin = make_case(root, args.slices)
        raw = sum(path.stat().st_size for path in (root / "cases").iterdir()) / len(CASES)
        runs = run_in_turn(root / "cases", args.repeat)
    packages = ("datasets", "nibabel", "numpy", "pyarrow", "isal")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    head = (
        f"A case of {args.slices} slices of 512 x 512 ({origin}, {raw / 1e6:.0f} MB raw), "
        f"medians of {args.repeat} runs in turn; {os.cpu_count()} cores, {platform.machine()}, "
        f"Python {platform.python_version()}, {versions}."
    )
    text = f"{head}\n\n{table(runs)}\n"
    print(text)
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "conversion.md").write_text(text)
        (args.out / "conversion.json").write_text(json.dumps({"head": head, "runs": runs}, indent=1) + "\n")


if __name__ == "__main__":
    main()
