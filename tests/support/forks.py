"""Processes that are forked from one whose imports are done: a new interpreter takes 1.5 s for them.

That one process, the nursery, has a single thread, so that no fork copies a lock that another thread holds.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from support.paths import ROOT

__all__ = ["Child", "command_there", "fork", "fork_workers"]


class Child:
    """A process of the nursery."""

    def __init__(self, folder: Path, pid: int) -> None:
        self.pid = pid
        self._folder = folder

    def poll(self) -> int | None:
        """Its exit status, or minus the signal that ended it; None while it runs."""
        with contextlib.suppress(FileNotFoundError):
            return int((self._folder / "status").read_text())
        return None

    def wait(self, seconds: float = 120) -> int:
        """Wait for its end: the status."""
        end = time.monotonic() + seconds
        while (status := self.poll()) is None:
            assert time.monotonic() < end, f"still at work: {self.printed}"
            time.sleep(0.005)
        return status

    @property
    def printed(self) -> tuple[str, str]:
        """What it has written to stdout and stderr."""
        return (self._folder / "stdout").read_text(), (self._folder / "stderr").read_text()

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it, and wait until it is gone."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                self.send_signal(signal.SIGKILL)
        self.wait()


def fork(work: str, *arguments: Any, imports: Sequence[str] = ()) -> Child:
    """Have a process of its own call a function, with our environment; its result is the exit status.

    Args:
        work: the function, such as "support.exports:export_there".
        arguments: what it is called with, as JSON holds it.
        imports: modules that it imports late, to be imported before, once for all that are forked after.
    """
    if not hasattr(os, "fork"):
        import pytest

        pytest.skip("Windows forks no processes")
    folder = Path(tempfile.mkdtemp(dir=_home().name))
    modules = [work.partition(":")[0], *imports]
    request = {"work": work, "arguments": arguments, "folder": str(folder), "environment": dict(os.environ)}
    nursery = _nursery()
    nursery.stdin.write(json.dumps([modules, request]) + "\n")
    nursery.stdin.flush()
    assert nursery.stdout.readline() == "forked\n"
    pid = folder / "pid"
    while not pid.exists():
        time.sleep(0.001)
    child = Child(folder, int(pid.read_text()))
    atexit.register(child.kill)  # if a test has failed before its end
    return child


def fork_workers() -> None:
    """Have this process fork the workers that executors would spawn, as it has done their imports, too."""
    forking = multiprocessing.get_context("fork")
    multiprocessing.get_context = lambda method=None: forking


def command_there(words: Sequence[str]) -> int:
    """Run a command of ours with forked workers: its exit status."""
    from ctspine1k.cli.main import main

    fork_workers()
    return main(words)


@functools.cache
def _home() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="ctspine1k-forks-")


@functools.cache
def _nursery() -> subprocess.Popen[str]:
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    nursery = subprocess.Popen(
        [sys.executable, "-m", "support.forks"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    atexit.register(nursery.stdin.close)  # which ends it
    return nursery


def _serve() -> None:
    """Fork for each line of stdin, to its end."""
    import scipy.ndimage  # noqa: F401 (each scan needs it)

    import ctspine1k.cli.main
    import ctspine1k.collection
    import ctspine1k.exports.nnunet
    import ctspine1k.exports.parquet
    import ctspine1k.scans.selecting  # noqa: F401

    for line in sys.stdin:
        modules, request = json.loads(line)
        for module in modules:
            importlib.import_module(module)  # once, for all that are forked after
        if os.fork() == 0:
            _mind(**request)
        os.wait()  # the first fork ends at once: what it forks is nobody's child
        sys.stdout.write("forked\n")
        sys.stdout.flush()


def _mind(work: str, arguments: list[Any], folder: str, environment: Mapping[str, str]) -> None:
    """Fork what does the work, and note how it ends."""
    if os.fork():
        os._exit(0)
    if (pid := os.fork()) == 0:
        _work(work, arguments, folder, environment)
    _write(Path(folder, "pid"), str(pid))
    _, status = os.waitpid(pid, 0)
    _write(Path(folder, "status"), str(os.waitstatus_to_exitcode(status)))
    os._exit(0)


def _work(work: str, arguments: list[Any], folder: str, environment: Mapping[str, str]) -> None:
    status = 1
    try:
        os.environ.clear()
        os.environ.update(environment)
        for descriptor, name in ((1, "stdout"), (2, "stderr")):
            opened = os.open(Path(folder, name), os.O_WRONLY | os.O_CREAT)
            os.dup2(opened, descriptor)
        module, _, function = work.partition(":")
        status = getattr(importlib.import_module(module), function)(*arguments) or 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _write(path: Path, text: str) -> None:
    """Write a file that appears whole."""
    half = path.with_name(f"{path.name}.half")
    half.write_text(text)
    half.rename(path)


if __name__ == "__main__":
    _serve()
