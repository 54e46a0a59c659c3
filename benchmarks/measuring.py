"""Things measured in turn, and the table of how they compare."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Row:
    """One line of the table: ours, the other, and how they compare."""

    what: str
    ours: str
    other: str
    ratio: float
    bar: str = ""  #: such as ">= 6" for "at least six times as good"

    @property
    def verdict(self) -> str:
        """Whether the bar is met."""
        if not self.bar:
            return ""
        relation, number = self.bar.split()
        is_met = self.ratio >= float(number) if relation == ">=" else self.ratio <= float(number)
        return f"{self.bar}: {'met' if is_met else 'NOT MET'}"


Timed = dict[str, list[float]]


def in_turn(turns: int, **work: Callable[[int], object]) -> Timed:
    """Time each in turn, after one turn that is not counted; numbers are drawn alike for all."""
    times: Timed = {name: [] for name in work}
    for turn in range(turns + 1):
        for name, once in work.items():
            random.seed(turn)
            start = time.perf_counter()
            once(turn)
            if turn:
                times[name].append(time.perf_counter() - start)
    return times


def median_ms(seconds: list[float]) -> float:
    """Return the median, in milliseconds."""
    return statistics.median(seconds) * 1e3


def compare(
    what: str, times: Timed, ours: str, other: str, bar: str = "", *, unit: str = "ms", is_time: bool = False
) -> Row:
    """Compare two medians: how many times faster ours is, or with ``is_time`` how many times its time."""
    mine, others = median_ms(times[ours]), median_ms(times[other])
    scale = {"ms": 1.0, "s": 1e-3}[unit]
    ratio = mine / others if is_time else others / mine
    return Row(what, f"{mine * scale:.3g} {unit}", f"{other}: {others * scale:.3g} {unit}", ratio, bar)


def peak_mb() -> float:
    """Return the most memory that this process ever held (VmHWM of Linux; getrusage's is its parent's)."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1e3


def table(rows: list[Row]) -> str:
    """Write Markdown."""
    lines = ["| what | ours | against | ratio | bar |", "|---|---|---|---|---|"]
    lines += [f"| {r.what} | {r.ours} | {r.other} | {r.ratio:.3g} | {r.verdict} |" for r in rows]
    return "\n".join(lines)
