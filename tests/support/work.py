"""Work for other processes. They import this module to find it, so it imports nothing that takes its time."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ctspine1k._messages import warn
from ctspine1k.errors import CTSpine1KWarning
from ctspine1k.running.stops import check_stopped


def go_on_until_stopped(folder: str | None) -> None:
    """Begin, and say so in a folder; or, without one, do nothing."""
    if folder is not None:
        Path(folder, "began").touch()
        while True:
            check_stopped()
            time.sleep(0.01)


def wait_for(path: str | None) -> None:
    """Wait until a file is there, if one is named."""
    while path is not None and not Path(path).exists():
        time.sleep(0.01)


def holds_interrupts(_: object) -> bool:
    """Return whether Ctrl-C is blocked in this process."""
    return signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def die_of_none(item: int | None) -> int:
    """End this process at once if there is no item."""
    if item is None:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def die_while_asking(item: int) -> None:
    """Ask whether to stop, and end this process at once when that has taken so many calls, or is done."""
    steps = iter(range(item))

    def count(frame: object, event: str, argument: object) -> None:
        if next(steps, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(count)
    check_stopped()
    os.kill(os.getpid(), signal.SIGKILL)


def set_up(folder: str) -> None:
    """Note in the environment of this process, and in a folder, that it was set up; and warn of it."""
    os.environ["CTSPINE1K_SET_UP"] = "yes"
    Path(folder, str(os.getpid())).touch()
    warn("set up", CTSpine1KWarning)


def is_set_up(_: object) -> tuple[int, str | None]:
    """Return which process this is, and whether it was set up."""
    return os.getpid(), os.environ.get("CTSPINE1K_SET_UP")


def set_environment(environment: Mapping[str, str]) -> None:
    """Set variables of this process."""
    os.environ.update(environment)


def count_done(dask_scheduler: Any) -> int:
    """Return how many tasks a scheduler knows the results of."""
    return sum(task.state == "memory" for task in dask_scheduler.tasks.values())
