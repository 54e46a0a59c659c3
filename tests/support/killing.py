"""Exports that are killed: at random moments, and at every step. ``make chaos`` does it for long.

PYTHONPATH=tests python -m support.killing [KILLS]
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from support.exports import (
    Gate,
    finish,
    options_of,
    options_of_many,
    same,
    shards_in,
    start,
)
from support.paths import ROOT
from support.processes import wait_until
from support.volumes import ALL_IDS, save_case

#: Seconds that an export that is killed takes longer for each file, so that kills fall into the midst of it.
_PAUSE = 0.01


def stop_at_every_step(whole: Path, root: Path, options: dict, first: int = 1, step: int = 1) -> int:
    """Kill an export just before it changes a file for the first time, the second, and so on; each goes on then.

    Each must end as if nothing had been. Returns how many there were.
    """
    last = first
    while True:
        out = root / str(last)
        process = start(out, options, last_change=last)
        if (status := process.wait()) == 0:
            return (last - first) // step
        assert status == -signal.SIGKILL, process.printed
        finish(out, options)
        assert same(out, whole), out
        last += step


def kill_again_and_again(whole: Path, out: Path, options: dict, kills: int, seed: int) -> tuple[int, int]:
    """Kill as many exports, of one process and of two, each at a random moment of its work.

    Each goes on where the one before was; whenever one comes to its end, all must be as if nothing had been.
    Returns how many ends there were, and how many kills left some shards, but not all.
    """
    chance = random.Random(seed)
    gate = Gate(out.with_name(f"{out.name}-gate"), 10**6)
    ends = halves = 0
    for number in range(kills):
        there, every = len(shards_in(out)), len(shards_in(whole))
        goal = min(every, there + chance.randint(1, max(1, (every - there) // 2)))
        process = start(out, {**options, "num_proc": 1 + number % 2}, gate, pause=_PAUSE)
        wait_until(lambda: len(shards_in(out)) >= goal or process.poll() is not None)  # noqa: B023
        time.sleep(chance.uniform(0, 0.1))
        process.kill()
        halves += 0 < len(shards_in(out)) < every
        if process.printed[0]:  # it was too fast for us
            ends += 1
            assert same(out, whole)
            shutil.rmtree(out)
    finish(out, options)
    assert same(out, whole)
    return ends + 1, halves


def main() -> None:
    kills = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        os.environ["HF_HOME"] = str(place)
        many = options_of_many(place / "many")
        finish(place / "whole-many", many)
        seed = int(time.time())
        ends, halves = kill_again_and_again(place / "whole-many", place / "out", many, kills, seed)
        print(
            f"{kills} kills at random moments (seed {seed}), {halves} of them with some shards there, "
            f"{ends} times brought to the end: the same bytes"
        )
        for number, case_id in enumerate(ALL_IDS):
            save_case(place / "tree", case_id, seed=number, shape=(60, 50, 40 + number))
        split_file = ROOT / "data_split.txt"
        options = options_of(
            place / "tree", split_file, cases=ALL_IDS, cases_per_shard=1, image_size=[60, 50]
        )
        finish(place / "whole", options)
        (place / "steps").mkdir()
        steps = stop_at_every_step(place / "whole", place / "steps", options)
        print(f"{steps} kills, one before each change of a file: the same bytes")


if __name__ == "__main__":
    main()
