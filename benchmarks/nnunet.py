"""How long an export for nnU-Net takes, and how many bytes of voxels it writes.

    .venv/bench/bin/python benchmarks/nnunet.py [--slices 300] [--cases 100] [--repeat 5]

The cases are of `cases.py`, one pair of files under many names. In place, files are linked. The others are a
second run, which keeps all, and an export in another label scheme, for which every mask is rewritten.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from cases import CASES, make_cases
from run import Row, table

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


def rows_of(root: Path, count: int, repeat: int) -> list[Row]:
    """Measure exports of so many cases."""
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
    return rows


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--cases", type=int, default=100)
    parser.add_argument("--repeat", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        origin = make_cases(Path(temporary), args.slices, args.cases)
        rows = rows_of(Path(temporary), args.cases, args.repeat)
    print(f"{args.cases} cases of {args.slices} slices of 512 x 512 ({origin})\n\n{table(rows)}")


if __name__ == "__main__":
    main()
