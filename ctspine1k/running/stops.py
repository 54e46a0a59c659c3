"""Work that stops only at safe points: after Ctrl-C, or if its results are no longer needed.

Python raises `KeyboardInterrupt` in the main thread between any two instructions. In a destructor it is
printed and lost, and the work continues; in a callback of C code it becomes another error; in `tempfile` it
leaves a folder behind; between acquiring a lock and entering its ``with``, the lock is never released. Work
that must not leave anything half done therefore runs in `deferred_interrupts`, and calls `check_stopped` from
time to time.
"""

from __future__ import annotations

import atexit
import contextlib
import math
import os
import signal
import threading
import time
import weakref
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, Protocol, TypeAlias, TypeVar

from ctspine1k.errors import WorkerError

__all__ = [
    "Flag",
    "check_stopped",
    "closed_at_exit",
    "deferred_interrupts",
    "explain_stop",
    "interruptible",
    "stop_with",
]

T = TypeVar("T")

Handler: TypeAlias = Callable[[int, FrameType | None], object]


@dataclass
class _Deferral:
    """Signals that have arrived, and their original handlers."""

    handlers: dict[int, Handler]
    patience: float
    waiting: int | None = None  #: a signal that has not been handled yet
    since: float = -math.inf  #: when it arrived
    raised: int | None = None  #: a signal that was handled at once: what its handler raised may be lost
    regions: int = 0  #: number of `interruptible` blocks that are active
    process: int = field(default_factory=os.getpid)  #: a forked child inherits the handlers

    def receive(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal, or note it for later."""
        if os.getpid() != self.process:
            # Ctrl-C reaches all processes of a terminal: the one that forked this worker decides what to do.
            if number != signal.SIGINT:
                self.handlers[number](number, frame)
            return
        is_repeated = time.monotonic() <= self.since + self.patience
        if self.regions and self.raised is not None and is_repeated:
            return  # what the first one raised is on its way
        if self.regions or (self.waiting is not None and not is_repeated):
            self.waiting, self.raised, self.since = None, number, time.monotonic()
            self.handlers[number](number, frame)
        elif self.waiting is None:
            self.waiting, self.since = number, time.monotonic()

    def handle(self) -> None:
        """Call the handler of a signal that has arrived, if one has."""
        number = self.waiting or self.raised
        if number is not None:  # else nothing is reset: a signal may arrive just now
            self.waiting = self.raised = None
            self.handlers[number](number, None)


_deferral: _Deferral | None = None


class Flag(Protocol):
    """A number in memory that processes share, without a lock: a worker that is killed cannot keep it."""

    value: int


#: In a worker: 1 when its results are no longer needed.
_stop: Flag | None = None


def stop_with(stop: Flag) -> None:
    """Set the flag that makes `check_stopped` raise an error in this process."""
    global _stop
    _stop = stop


@contextlib.contextmanager
def deferred_interrupts(patience: float = 2.0) -> Iterator[None]:
    """Defer SIGINT and SIGTERM until `check_stopped` is called, or until the end of the block.

    Their handlers are then called, which raise `KeyboardInterrupt`. Only the main thread handles signals, so
    in other threads this does nothing. Signals without a Python handler are ignored, or end the process, as
    before.

    Args:
        patience: a second signal is not deferred if it arrives this many seconds after the first. Before that
            it counts as the same one: a terminal and the program that started us may both send it.
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
    """Raise an error if this process should stop. Long work calls it from time to time.

    Raises:
        WorkerError: this is a worker, and its results are no longer needed.
        KeyboardInterrupt: Ctrl-C was deferred until now (raised by Python's own handler).
    """
    if _stop is not None and _stop.value:
        raise WorkerError("stopped, as this process is not needed any more")
    if _deferral is not None and threading.current_thread() is threading.main_thread():
        _deferral.handle()


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Handle signals at once within the block, in which this process only waits, such as for a network."""
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


@contextlib.contextmanager
def explain_stop(progress: Callable[[], str], how: str = "run again") -> Iterator[None]:
    """Raise a `KeyboardInterrupt` that says how much is done, and how to resume."""
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"{progress()}; {how} to resume") from None


#: Generators that have begun, and may not have ended.
_generators: weakref.WeakSet[Generator[Any, None, None]] = weakref.WeakSet()


def closed_at_exit(generator: Generator[T, None, None]) -> Generator[T, None, None]:
    """Return the generator, which is closed at the end of the program if it has not ended by then.

    Python would close it after it has cleared the modules that the generator's handlers need: it would print
    errors of them, and leave files open.
    """
    _generators.add(generator)
    return generator


@atexit.register
def _close_generators() -> None:
    for generator in list(_generators):
        with contextlib.suppress(ValueError):  # another thread is running it
            generator.close()
