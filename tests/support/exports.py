"""Exports of the tests' tree, and processes that make them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from ctspine1k import load_catalog
from support.paths import ROOT
from support.volumes import SIZE, files_of, save_case

#: A process of its own: it says when its imports are done and the work begins.
_RUN = """
import json, sys
import ctspine1k.exports.parquet
if __name__ == "__main__":
    out, options = sys.argv[1], json.loads(sys.argv[2])
    print("begins", flush=True)
    report = ctspine1k.export_parquet(out, **options)
    print(json.dumps([report.made, report.kept, report.failed]))
"""


def options_of(tree: Path, split_file: Path, **options) -> dict:
    """Arguments that fit the tree."""
    return {"data_dir": str(tree), "split_file": str(split_file), "image_size": SIZE, **options}


def options_of_many(root: Path) -> dict:
    """Make enough cases, of some size, to be stopped in the middle of, and give the arguments for them."""
    first = save_case(root, "liver_0", shape=(160, 150, 40))
    ids = [case.case_id for case in load_catalog().where(source="MSD-T10")][:16]
    for case_id in ids:
        for path, suffix in zip(first, ("", "_seg"), strict=True):
            target = path.with_name(f"{case_id}{suffix}.nii.gz")
            if not target.exists():
                target.hardlink_to(path)
    return {"data_dir": str(root), "case": ids, "image_size": [160, 150], "cases_per_shard": 1}


def start(out, options: dict) -> subprocess.Popen:
    """Begin an export in a process of its own; it is at work when this returns."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    script = Path(os.environ["HF_HOME"]) / "run_export.py"  # spawned workers read it again
    script.write_text(_RUN)
    process = subprocess.Popen(
        [sys.executable, script, str(out), json.dumps(options)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert process.stdout.readline() == "begins\n", process.communicate()
    return process


def finish(out, options: dict) -> list:
    """Let an export end in its own time: shards made and kept, and what failed."""
    process = start(out, options)
    printed, told = process.communicate(timeout=120)
    assert process.returncode == 0, told
    return json.loads(printed)


def shards_in(out: Path) -> list[Path]:
    """The shards of an export."""
    return list(Path(out).glob("*/*/*.parquet"))


def same(out: Path, other: Path) -> bool:
    """Whether two folders hold the same files with the same bytes, hidden ones and empty folders included."""
    return files_of(out) == files_of(other) and folders_of(out) == folders_of(other)


def folders_of(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_dir()}
