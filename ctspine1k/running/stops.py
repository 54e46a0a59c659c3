"""Work that is stopped at safe points only: by Ctrl-C, or because nobody waits for its results any more.

Python raises `KeyboardInterrupt` in the main thread between any two instructions. In a destructor it is
printed and lost, and the work goes on; in a callback of C code it becomes another error; in `tempfile` it
leaves a folder behind; between a lock and its ``with`` the lock is never released. Work that must leave
nothing half done therefore runs in `deferred_interrupts`, and calls `check_stopped` now and then.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Protocol, TypeAlias

from ctspine1k.errors import WorkerError

__all__ = ["check_stopped", "deferred_interrupts", "interruptible", "stop_with"]

Handler: TypeAlias = Callable[[int, FrameType | None], object]


@dataclass
class _Deferral:
    """Signals that have come, and what handled them before."""

    handlers: dict[int, Handler]
    patience: float
    waiting: int | None = None  #: a signal that has not been handled yet
    since: float = 0.0
    raised: int | None = None  #: a signal that was handled at once: what its handler raised may be lost
    regions: int = 0  #: blocks of `interruptible` that are entered

    def receive(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal, or note it."""
        if self.regions or (self.waiting is not None and time.monotonic() > self.since + self.patience):
            self.waiting, self.raised = None, number
            self.handlers[number](number, frame)
        elif self.waiting is None:
            self.waiting, self.since = number, time.monotonic()

    def handle(self) -> None:
        """Call the handler of a signal that has come, if one has."""
        number = self.waiting or self.raised
        if number is not None:  # else one may come just now, and must not be forgotten
            self.waiting = self.raised = None
            self.handlers[number](number, None)


_deferral: _Deferral | None = None


class Event(Protocol):
    """What another process may set."""

    def is_set(self) -> bool:
        """Return whether it was set."""


#: In a worker: set when nobody waits for its results any more.
_stop: Event | None = None


def stop_with(stop: Event) -> None:
    """Have `check_stopped` raise in this process when an event is set."""
    global _stop
    _stop = stop


@contextlib.contextmanager
def deferred_interrupts(patience: float = 2.0) -> Iterator[None]:
    """Defer SIGINT and SIGTERM until `check_stopped` is called, or to the end of the block.

    Their handlers are called then, which is where `KeyboardInterrupt` is raised. Only the main thread handles
    signals, so in others this does nothing. Signals without a handler of Python's are ignored, or end the
    process, as before.

    Args:
        patience: a second signal, so many seconds after the first, is not deferred. Two at once are one: a
            terminal and the program that has started us may both send it.
    """
    global _deferral
    if _deferral is not None or threading.current_thread() is not threading.main_thread():
        yield
        return
    known = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    deferral = _Deferral(
        {number: handler for number, handler in known.items() if callable(handler)}, patience
    )
    try:
        _deferral = deferral
        for number in deferral.handlers:
            signal.signal(number, deferral.receive)
        yield
    except BaseException:
        deferral.raised = None  # it was not lost
        raise
    finally:
        _deferral = None
        for number, handler in deferral.handlers.items():
            signal.signal(number, handler)
        deferral.handle()


def check_stopped() -> None:
    """Raise if the work of this process is not wanted any more. Long work calls it now and then.

    Raises:
        WorkerError: this is a worker, and nobody waits for its results.
        KeyboardInterrupt: Ctrl-C was deferred until now. That is what Python's own handler raises.
    """
    if _stop is not None and _stop.is_set():
        raise WorkerError("stopped, as this process is not needed any more")
    if _deferral is not None and threading.current_thread() is threading.main_thread():
        _deferral.handle()


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Handle signals at once for as long as this process only waits: for a network, or for others."""
    deferral = _deferral
    if deferral is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = deferral.regions
    try:
        deferral.regions = before + 1
        if deferral.waiting is not None:
            deferral.receive(deferral.waiting, None)
        yield
    finally:
        deferral.regions = before
