"""How long an export for nnU-Net takes, and how many bytes of voxels it writes.

One pair of files has many names. In place, files are linked. The others are a second run, which keeps all,
and an export in another label scheme, for which every mask is rewritten.
"""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from cases import CASES, make_cases
from measuring import Row

import ctspine1k


def written(out: Path) -> int:
    """Return the bytes of the images and masks that are no links."""
    return sum(path.stat().st_size for path in out.rglob("*.nii.gz") if not path.is_symlink())


def seconds(repeat: int, work: Callable[[], object], before: Callable[[], object]) -> float:
    """Return the median time, after one turn that is not counted."""
    times = []
    for _ in range(repeat + 1):
        before()
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def nnunet_rows(scratch: Path, repeat: int) -> list[Row]:
    """Exports of many cases: only headers are read in place, so that few slices do."""
    root, count = scratch / "nnunet", 100
    root.mkdir()
    make_cases(root, 100, count)
    spine = ctspine1k.open_collection(data_dir=root / "cases").select(CASES[:count])
    out = root / "raw"

    def empty() -> None:
        shutil.rmtree(out, ignore_errors=True)

    def nothing() -> None:
        pass

    what = f"export for nnU-Net, {count} cases"
    in_place = seconds(repeat, lambda: spine.export_nnunet(out), empty)
    rows = [
        Row(f"{what}, in place", f"{in_place:.3g} s", "a second", in_place, "<= 2"),
        Row(f"{what}, bytes of voxels", f"{written(out):,}", "one byte", written(out), "<= 0"),
    ]
    again = seconds(repeat, lambda: spine.export_nnunet(out), nothing)
    rows.append(Row(f"{what}, again", f"{again:.3g} s", "a second", again))
    binary = seconds(1, lambda: spine.export_nnunet(out, label_scheme="binary"), empty)
    rows.append(Row(f"{what}, binary labels", f"{binary:.3g} s", "a second", binary))
    shutil.rmtree(root)
    return rows
