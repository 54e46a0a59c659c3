"""Damaged inputs, read by the real readers: each ends in an error of ours or in right values. ``make fuzz``.

PYTHONPATH=tests python -m support.fuzzing [INPUTS] [--seed 0] [--only NUMBER]

An input is made from the seed and its number alone, so that one that failed can be read again. Inputs are read
in a process of its own, on Linux with little memory; one that takes too long, or ends the process, has failed, too.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import pkgutil
import random
import resource
import select
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from ctspine1k.errors import CTSpine1KError
from support.damaging import damaged
from support.fuzzed import Subject, subjects

__all__ = ["Campaign", "fuzz_there"]

#: Limits for one input.
_SECONDS = 10
_BYTES = 2 << 30


@dataclass(frozen=True)
class Campaign:
    """Inputs that are made of the same subjects in turn."""

    subjects: Sequence[Subject]
    seed: int = 0  #: what damages are drawn from
    seconds: float = _SECONDS  #: that one input may take

    def failures(self, inputs: range, *, disable: bool | None = True) -> Iterator[str]:
        """Read the inputs with these numbers, and yield what is wrong with each that fails.

        ``disable`` is that of the progress bar: None for one on a terminal.
        """
        with tempfile.TemporaryDirectory() as folder, tqdm(total=len(inputs), disable=disable) as bar:
            at = inputs.start
            while at < inputs.stop:
                for number, failure in _readings(self, range(at, inputs.stop), Path(folder)):
                    bar.update(number + 1 - at)
                    at = number + 1
                    if failure is not None:
                        name = self.subject(number).name
                        yield f"input {number} of seed {self.seed}, {name}: {failure}"

    def subject(self, number: int) -> Subject:
        """Return what an input is made of."""
        return self.subjects[number % len(self.subjects)]

    def failure(self, number: int, folder: Path) -> str | None:
        """Read one input here; None if that ends as it should."""
        subject = self.subject(number)
        chance = random.Random(f"{self.seed} {number}")  # noqa: S311
        data = damaged(chance, subject.whole, subject.focus)
        try:
            with contextlib.suppress(CTSpine1KError):
                subject.check(data, folder)
        except BaseException:
            return traceback.format_exc(limit=-6)
        return None


def fuzz_there(
    count: int, seed: int = 0, seconds: float = _SECONDS, of: str = "support.fuzzed:subjects"
) -> int:
    """Read so many inputs, and print what failed; for a process of its own. Returns how many failed.

    Args:
        count: of inputs.
        seed: what damages are drawn from.
        seconds: that one input may take.
        of: a function that returns the subjects.
    """
    campaign = Campaign(pkgutil.resolve_name(of)(), seed, seconds)
    found = list(campaign.failures(range(count)))
    sys.stdout.write("\n".join(found))
    return min(len(found), 100)


def _readings(campaign: Campaign, inputs: range, folder: Path) -> Iterator[tuple[int, str | None]]:
    """Read inputs in a child, until it ends: yield the number of each, and its failure."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _read_all(campaign, inputs, folder, writer)
    os.close(writer)
    following = iter(inputs)
    with os.fdopen(reader, "rb", buffering=0) as outcomes:
        pending = b""
        while True:
            is_heard, _, _ = select.select([outcomes], [], [], campaign.seconds)
            data = outcomes.read(1 << 16) if is_heard else b""
            *lines, pending = (pending + data).split(b"\n")
            for line in lines:
                yield next(following), line.decode() or None
            if not data:
                break
    if not is_heard:
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    if (number := next(following, None)) is not None:
        ended = (
            "took too long" if not is_heard else f"ended the process ({os.waitstatus_to_exitcode(status)})"
        )
        yield number, ended


def _read_all(campaign: Campaign, inputs: range, folder: Path, writer: int) -> None:
    """What the child does: it writes a line for each input."""
    if sys.platform == "linux":  # macOS refuses a limit of memory, or does not keep to it
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + _BYTES, used + _BYTES))
    for number in inputs:
        line = campaign.failure(number, folder) or ""
        os.write(writer, line.strip().replace("\n", " | ").encode() + b"\n")
    os._exit(0)


def main() -> int:
    """Read inputs, print what fails, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("inputs", nargs="?", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, metavar="NUMBER", help="read one input again")
    options = parser.parse_args()
    inputs = range(options.inputs) if options.only is None else range(options.only, options.only + 1)
    campaign = Campaign(subjects(), options.seed)
    begun, count = time.monotonic(), 0
    for count, failure in enumerate(campaign.failures(inputs, disable=None), start=1):  # noqa: B007
        tqdm.write(failure.replace(" | ", "\n"))
    seconds = time.monotonic() - begun
    sys.stdout.write(f"{len(inputs):,} inputs of seed {options.seed}, {count} failed, {seconds:.0f} s\n")
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main())
