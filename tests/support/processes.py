"""Waiting for what other processes do, and interrupts at chosen moments."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path


def wait_until(condition, seconds: float = 60) -> None:
    """Wait for what another process does."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


@contextlib.contextmanager
def interrupt_at(file: str, function: str, event: str, is_time: Callable[[], bool]) -> Iterator[None]:
    """Have a Ctrl-C come where a function is called, or returns, as soon as it is time.

    Args:
        file: how the path of its module ends.
        function: its name.
        event: "call" or "return".
        is_time: asked each time.
    """

    def interrupt(frame, found, _):
        code = frame.f_code
        is_there = found == event and code.co_name == function and code.co_filename.endswith(file)
        if is_there and is_time():
            sys.setprofile(None)
            signal.raise_signal(signal.SIGINT)

    sys.setprofile(interrupt)
    try:
        yield
    finally:
        sys.setprofile(None)


def release(fifo: Path) -> None:
    """Let those go on who wait for somebody to write a FIFO: they find an empty file."""
    with contextlib.suppress(OSError):  # nobody does
        os.close(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))


def is_at_its_end(pipe: int) -> bool:
    """Return whether all is read, and nobody is left who could write more."""
    try:
        return os.read(pipe, 4096) == b""
    except BlockingIOError:
        return False
