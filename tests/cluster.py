"""A Dask cluster of processes, started by their commands, over TCP on loopback."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import distributed
from exports import process_of, wait_until


@contextlib.contextmanager
def scheduler(folder: Path, **environment: str) -> Iterator[str]:
    """A scheduler's address."""
    file = folder / "scheduler.json"
    command = ("dask", "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard")
    log = folder / "scheduler.log"
    with process_of(*command, "--scheduler-file", str(file), log=log, **environment):
        wait_until(lambda: file.exists() and file.read_text().endswith("}"))
        yield json.loads(file.read_text())["address"]


def worker(
    folder: Path, address: str, name: str, **environment: str
) -> contextlib.AbstractContextManager[subprocess.Popen]:
    """A worker of it, without the nanny that would start another if it died."""
    command = ("dask", "worker", address, "--host", "127.0.0.1", "--nthreads", "1", "--no-nanny")
    return process_of(*command, "--no-dashboard", "--name", name, log=folder / f"{name}.log", **environment)


def wait_for_workers(address: str, count: int) -> None:
    """Wait until so many are there."""
    with distributed.Client(address, set_as_default=False) as client:
        client.wait_for_workers(count, timeout=60)
