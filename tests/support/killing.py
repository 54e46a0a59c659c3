"""Exports that are killed: at random moments, and at every step. ``make chaos`` does it for long.

PYTHONPATH=tests python -m support.killing [KILLS]
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from support.exports import ROOT, finish, options_of, options_of_many, same, shards_in, start
from support.processes import wait_until
from support.volumes import ALL_IDS, save_case

_STEPS = """
import json, os, signal, sys
import ctspine1k.exports.parquet

CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate"}

def changes(event, arguments, out):
    if event == "open":
        path, mode, flags = arguments
        is_change = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    else:
        path, is_change = arguments[0], event in CHANGES
        if event in ("os.remove", "os.rmdir") and arguments[1] != -1:  # a name in an open folder
            path = os.path.join(os.readlink(f"/proc/self/fd/{arguments[1]}"), path)
    return is_change and str(path).startswith(out)

def export(out, options, last):
    seen = 0
    def count(event, arguments):
        nonlocal seen
        if (event == "open" or event.startswith("os.")) and changes(event, arguments, out):
            seen += 1
            if seen == last:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(count)
    ctspine1k.export_parquet(out, **options)

def apart(*arguments):
    if (child := os.fork()) == 0:
        status = 1
        try:
            export(*arguments)
            status = 0
        finally:
            os._exit(status)
    return os.waitpid(child, 0)[1]

root, options, first, step = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
for last in range(first, 10**6, step):
    out = f"{root}/{last}"
    if (status := apart(out, options, last)) == 0:
        break
    assert status == signal.SIGKILL, status
    assert apart(out, options, 0) == 0
    print(out, flush=True)
"""


def stop_at_every_step(whole: Path, root: Path, options: dict, first: int = 1, step: int = 1) -> int:
    """Kill an export just before it changes a file for the first time, the second, and so on; each goes on then.

    Each must end as if nothing had been. Returns how many there were.
    """
    arguments = [str(root), json.dumps(options), str(first), str(step)]
    run = subprocess.run(
        [sys.executable, "-c", _STEPS, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert run.returncode == 0, run.stderr
    ended = run.stdout.split()
    assert [out for out in ended if not same(Path(out), whole)] == []
    return len(ended)


def kill_again_and_again(whole: Path, out: Path, options: dict, kills: int, seed: int) -> tuple[int, int]:
    """Kill as many exports, of one process and of two, each at a random moment of its work.

    Each goes on where the one before was; whenever one comes to its end, all must be as if nothing had been.
    Returns how many ends there were, and how many kills left some shards, but not all.
    """
    chance = random.Random(seed)
    ends = halves = 0
    for number in range(kills):
        there, every = len(shards_in(out)), len(shards_in(whole))
        goal = min(every, there + chance.randint(1, max(1, (every - there) // 2)))
        process = start(out, {**options, "num_proc": 1 + number % 2})
        wait_until(lambda: len(shards_in(out)) >= goal or process.poll() is not None)  # noqa: B023
        time.sleep(chance.uniform(0, 0.1))
        process.kill()
        printed, _ = process.communicate()
        halves += 0 < len(shards_in(out)) < every
        if printed:  # it was too fast for us
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
        options = options_of(place / "tree", split_file, case=ALL_IDS, cases_per_shard=1, image_size=[60, 50])
        finish(place / "whole", options)
        (place / "steps").mkdir()
        steps = stop_at_every_step(place / "whole", place / "steps", options)
        print(f"{steps} kills, one before each change of a file: the same bytes")


if __name__ == "__main__":
    main()
