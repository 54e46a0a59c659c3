"""Damaged inputs, read by the real readers: each ends in an error of ours or in right values. ``make fuzz``.

PYTHONPATH=tests python -m support.fuzzing [INPUTS] [--seed 0] [--only NUMBER]

An input is made from the seed and its number alone, so that one that failed can be read again. Inputs are read
in a process of its own, with little memory; one that takes too long, or ends the process, has failed, too.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import resource
import select
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from ctspine1k.errors import CTSpine1KError
from support.damaging import damaged
from support.fuzzed import Subject, subjects

__all__ = ["failures", "fuzz_there"]

#: Limits for one input.
_SECONDS = 10
_BYTES = 2 << 30


def failures(inputs: range, seed: int = 0, *, disable: bool | None = True) -> Iterator[str]:
    """Read damaged inputs, and yield what is wrong with each that fails.

    Args:
        inputs: their numbers.
        seed: what they are drawn from.
        disable: of the progress bar; None for one on a terminal.
    """
    with tempfile.TemporaryDirectory() as folder, tqdm(total=len(inputs), disable=disable) as bar:
        at = inputs.start
        while at < inputs.stop:
            for number, failure in _readings(range(at, inputs.stop), seed, Path(folder)):
                bar.update(number + 1 - at)
                at = number + 1
                if failure is not None:
                    yield f"input {number} of seed {seed}: {failure}"


def fuzz_there(count: int, seed: int) -> int:
    """Read so many inputs, and print what failed; for a process of its own. Returns how many failed."""
    found = list(failures(range(count), seed))
    sys.stdout.write("\n".join(found))
    return min(len(found), 100)


def _readings(inputs: range, seed: int, folder: Path) -> Iterator[tuple[int, str | None]]:
    """Read inputs in a child, until it ends: yield the number of each, and its failure."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _read_all(inputs, seed, folder, writer)
    os.close(writer)
    following = iter(inputs)
    with os.fdopen(reader, "rb", buffering=0) as outcomes:
        pending = b""
        while True:
            is_heard, _, _ = select.select([outcomes], [], [], _SECONDS)
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
        yield number, f"{_subject(number).name}: {ended}"


def _read_all(inputs: range, seed: int, folder: Path, writer: int) -> None:
    """What the child does: it writes a line for each input."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + _BYTES, used + _BYTES))
    for number in inputs:
        line = _failure(_subject(number), number, seed, folder) or ""
        os.write(writer, line.replace("\n", " | ").encode() + b"\n")
    os._exit(0)


def _subject(number: int) -> Subject:
    every = subjects()
    return every[number % len(every)]


def _failure(subject: Subject, number: int, seed: int, folder: Path) -> str | None:
    """Read one input; None if that ends as it should."""
    data = damaged(random.Random(f"{seed} {number}"), subject.whole, subject.focus)  # noqa: S311
    try:
        with contextlib.suppress(CTSpine1KError):
            subject.check(data, folder)
    except BaseException:
        return f"{subject.name}: {traceback.format_exc(limit=-6)}"
    return None


def main() -> int:
    """Read inputs, print what fails, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("inputs", nargs="?", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, metavar="NUMBER", help="read one input again")
    options = parser.parse_args()
    inputs = range(options.inputs) if options.only is None else range(options.only, options.only + 1)
    begun, count = time.monotonic(), 0
    for count, failure in enumerate(failures(inputs, options.seed, disable=None), start=1):  # noqa: B007
        tqdm.write(failure.replace(" | ", "\n"))
    seconds = time.monotonic() - begun
    sys.stdout.write(f"{len(inputs):,} inputs of seed {options.seed}, {count} failed, {seconds:.0f} s\n")
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main())
