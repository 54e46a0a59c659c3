"""Commands that run beside a test, and waiting for what they do."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from support.paths import ROOT


@contextlib.contextmanager
def process_of(*command: str, log: Path, **environment: str) -> Iterator[subprocess.Popen]:
    """Run a command of our environment meanwhile."""
    with log.open("w") as told:
        process = subprocess.Popen(
            [str(Path(sys.executable).with_name(command[0])), *command[1:]],
            stdout=told,
            stderr=told,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def wait_until(condition, seconds: float = 60) -> None:
    """Wait for what another process does."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


@contextlib.contextmanager
def blocked(*paths: Path) -> Iterator[None]:
    """Meanwhile, whoever opens one of these files is held there, until `release` is called in a loop."""
    whole = [path.rename(path.with_name(f"whole-{path.name}.held")) for path in paths]
    for path in paths:
        os.mkfifo(path)
    yield
    for path, kept in zip(paths, whole, strict=True):
        path.unlink()
        kept.rename(path)


def release(*paths: Path) -> None:
    """Let those who are held go on: they find an empty file."""
    for path in paths:
        with contextlib.suppress(OSError):  # nobody is
            os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
