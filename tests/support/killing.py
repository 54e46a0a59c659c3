"""Verbs that are killed, or whose disk fills up. ``make chaos`` does it for long.

PYTHONPATH=tests python -m support.killing [KILLS] [--seed SEED] [--only VERB]

Each verb is killed as often as that at random moments, half as often just before a change of a file, and its
disk is filled a fifth as often. The next run must end, and leave what an undisturbed run leaves.
"""

from __future__ import annotations

import argparse
import os
import pkgutil
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support import loopback  # noqa: F401 (imported for what it does)
from support.changes import before_changes
from support.disks import fill, mounted
from support.forks import Child, fork
from support.hub import Hub
from support.processes import wait_until

#: Seconds before each change of a file, so that kills at random moments fall into the midst of the work.
_PAUSE = 0.005

_NAMES = ("convert", "download", "scan", "export", "nnunet", "evaluate")


def start(verb: Any, out: Path, num_proc: int = 1, pause: float = 0, **at: int) -> Child:
    """Begin a run of a `support.killed.Verb` in a process of its own.

    Args:
        verb: what runs.
        out: where it writes.
        num_proc: how many processes of its own it has.
        pause: seconds before each change of a file.
        at: before which change of a file it is killed (``kill``), or its disk filled (``fill``).
    """
    arguments = (verb.work, str(out), verb.options, num_proc, pause, at)
    return fork("support.killing:run_there", *arguments, imports=["support.killed", *verb.imports])


def run_there(work: str, out: str, options: dict, num_proc: int, pause: float, at: dict[str, int]) -> None:
    """What `start` begins: at its end, it prints how many changes of files there were."""
    calls: dict[str, Callable[[], object]] = {
        "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
        "fill": lambda: fill(Path(out).parent),
    }
    changes = 0

    def disturb(number: int) -> None:
        nonlocal changes
        changes = number
        time.sleep(pause)
        for name, change in at.items():
            if number == change:
                calls[name]()

    before_changes(out, disturb)
    pkgutil.resolve_name(work)(Path(out), num_proc, **options)
    sys.stdout.write(str(changes))


@dataclass(frozen=True)
class Undisturbed:
    """A run of a verb to which nothing happened."""

    verb: Any
    left: Any  #: what it left on disk
    done: int
    bytes: int
    changes: int  #: of files

    @classmethod
    def of(cls, verb: Any, out: Path) -> Undisturbed:
        """Run a verb."""
        process = start(verb, out)
        assert process.wait() == 0, process.printed
        sizes = [path.stat().st_size for path in out.rglob("*") if path.is_file()]
        return cls(verb, verb.left(out), verb.done(out), sum(sizes), int(process.printed[0]))

    def finish(self, out: Path, num_proc: int = 1) -> None:
        """Run it again where a run was disturbed: it must end, and all must be as if nothing had been."""
        process = start(self.verb, out, num_proc)
        assert process.wait() == 0, process.printed
        self.check(out)
        shutil.rmtree(out)

    def check(self, out: Path) -> None:
        """Check that all is as if nothing had been."""
        found = self.verb.left(out)
        assert found == self.left, f"{self.verb}: {_difference(found, self.left)}"

    def spread(self, count: int) -> Iterable[int]:
        """Numbers of changes of files, so many at most, evenly spread."""
        return sorted({1 + self.changes * number // count for number in range(count)})


def kill_at_changes(whole: Undisturbed, out: Path, kills: int) -> int:
    """Kill runs just before a change of a file, each another one; each is finished then. Returns how many."""
    changes = whole.spread(kills)
    for change in changes:
        process = start(whole.verb, out, kill=change)
        assert process.wait() == -signal.SIGKILL, process.printed
        whole.finish(out)
    return len(changes)


def kill_again_and_again(whole: Undisturbed, out: Path, kills: int, seed: int) -> tuple[int, int]:
    """Kill so many runs, each at a random moment of its work.

    Each goes on where the one before was; whenever one comes to its end, all must be as if nothing had been.
    Returns how many ends there were, and how many kills left some of the work done, but not all.
    """
    chance = random.Random(seed)
    verb, ends, halves = whole.verb, 0, 0
    for number in range(kills):
        num_proc = verb.processes[number % len(verb.processes)]
        there = _done(verb, out)
        goal = there + chance.randint(1, max(1, (whole.done - there) // 2))
        process = start(verb, out, num_proc, _PAUSE)
        wait_until(lambda: _done(verb, out) >= goal or process.poll() is not None)  # noqa: B023
        time.sleep(chance.uniform(0, 0.05))
        process.kill()
        halves += 0 < _done(verb, out) < whole.done
        if process.poll() != -signal.SIGKILL:  # it was too fast for us
            assert process.poll() == 0, process.printed
            ends += 1
            whole.check(out)
            shutil.rmtree(out)
    whole.finish(out)
    return ends + 1, halves


def fill_disks(whole: Undisturbed, place: Path, times: int) -> int | None:
    """Fill the disk just before a change of a file, each time another one, and finish when there is room again.

    A run whose disk is full ends with `NoSpaceError`, unless what remains needs no room. Returns how often it
    was so; None if no small file system can be mounted.
    """
    found = 0
    with mounted(place, 8 * whole.bytes + (4 << 20)) as is_small:
        if not is_small:
            return None
        for change in whole.spread(times):
            process = start(whole.verb, place / "out", fill=change)
            status = process.wait()
            told = process.printed[1].strip()
            assert status == 0 or "NoSpaceError: " in told.splitlines()[-1], told
            found += status != 0
            (place / "filler").unlink()
            whole.finish(place / "out")
    return found


def _done(verb: Any, out: Path) -> int:
    try:
        return verb.done(out)
    except FileNotFoundError:  # moved meanwhile
        return 0


def _difference(found: Any, left: Any) -> str:
    """What only one of them has."""
    if isinstance(found, tuple):
        return "; ".join(map(_difference, found, left))
    differing = [name for name in {*found} & {*left} if isinstance(found, dict) and found[name] != left[name]]
    return f"only here: {sorted({*found} - {*left})}, not here: {sorted({*left} - {*found})}, {differing}"


def disturb(name: str, root: Path, hub: Hub, kills: int, seed: int) -> str:
    """Kill all runs of a verb's name, and fill their disks; return a line about it."""
    from support.killed import verbs_of

    verbs = verbs_of(root / "raw", hub, [name])
    ends = halves = steps = full = 0
    shares = [kills // len(verbs) + (number < kills % len(verbs)) for number in range(len(verbs))]
    for number, (verb, share) in enumerate(zip(verbs, shares, strict=True)):
        whole = Undisturbed.of(verb, root / f"whole-{number}")
        more_ends, more_halves = kill_again_and_again(whole, root / "out", share, seed + number)
        ends, halves = ends + more_ends, halves + more_halves
        steps += kill_at_changes(whole, root / "out", max(1, share // 2))
        found = fill_disks(whole, root / f"small-{number}", max(1, share // 5))
        full = None if found is None or full is None else full + found
    disks = "no small disk can be mounted" if full is None else f"{full} full disks"
    return (
        f"{name}: {kills} kills at random moments (seed {seed}), {halves} of them in the midst of the work, "
        f"{ends} times brought to the end; {steps} kills before a change of a file; {disks}: nothing is lost"
    )


def main() -> None:
    """Disturb verbs, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("kills", nargs="?", type=int, default=50, help="of each verb")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--only", choices=_NAMES)
    options = parser.parse_args()
    hub = Hub()
    for name in _NAMES if options.only is None else (options.only,):
        with tempfile.TemporaryDirectory() as folder:
            os.environ.update(hub.environment(folder))
            sys.stdout.write(f"{disturb(name, Path(folder), hub, options.kills, options.seed)}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
