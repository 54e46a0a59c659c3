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


def release(fifo: Path) -> None:
    """Let those go on who wait for somebody to write a FIFO: they find an empty file."""
    with contextlib.suppress(OSError):  # nobody does
        os.close(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))
