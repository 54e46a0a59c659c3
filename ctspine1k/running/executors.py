"""Executors run a list of work in this process, in processes of this machine, or on a Dask cluster.

They have one interface. ``ready()`` prepares the processes, or connects to the cluster, and yields a function
whose generator yields results in any order::

    with executor(num_proc=4).ready() as run, closing(run(work, items, names)) as results:
        for result in results:
            ...

``work`` is defined at the top of a module; unless this process does the work, items and results are pickled.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import TypeVar

from ctspine1k._messages import check_count
from ctspine1k.errors import CTSpine1KWarning, WorkerError
from ctspine1k.running.stops import Flag, check_stopped, stop_with
from ctspine1k.running.work import Executor, Run

__all__ = ["Executor", "InProcess", "Run", "Spawned", "executor"]

Item = TypeVar("Item")
Result = TypeVar("Result")

#: Seconds between checks for a deferred Ctrl-C while workers are busy.
_BEAT = 0.1


@dataclass(frozen=True)
class InProcess:
    """This process does the work, one item after the other."""

    @property
    def processes(self) -> int:
        """This process."""
        return 1

    @contextlib.contextmanager
    def ready(self) -> Iterator[Run]:
        """Yield a function that processes the items in order."""
        yield _run_here


def _run_here(
    work: Callable[[Item], Result], items: Sequence[Item], names: Sequence[str]
) -> Generator[Result, None, None]:
    for item in items:
        check_stopped()
        yield work(item)


@dataclass(frozen=True)
class Spawned:
    """Processes of this machine do the work. They end when the process that started them ends, in any way.

    A single item is done in this process, since starting another one takes longer than most items.
    """

    num_proc: int
    #: Called at the start of each worker, and only there. It is pickled.
    initializer: Callable[[], None] | None = None

    @property
    def processes(self) -> int:
        """The maximum number of workers."""
        return self.num_proc

    @contextlib.contextmanager
    def ready(self) -> Iterator[Run]:
        """Yield a function that starts the workers, and stops them when its generator is closed.

        Items that have begun then run to their ends, or to their next call of `check_stopped`. The function
        raises `WorkerError` if a worker dies.
        """
        yield self._run

    def _run(
        self, work: Callable[[Item], Result], items: Sequence[Item], names: Sequence[str]
    ) -> Generator[Result, None, None]:
        num_proc = min(self.num_proc, len(items))
        if num_proc <= 1:
            yield from _run_here(work, items, names)
            return
        # Spawned, not forked: a fork inherits locks that other threads hold, which are never released there.
        context = multiprocessing.get_context("spawn")
        # Not an Event, which has a lock: setting it would wait forever if a worker was killed while it asked.
        stop = context.RawValue("b", 0)
        pool = ProcessPoolExecutor(num_proc, context, _start_worker, (stop, self.initializer))
        try:
            with _interrupts_held():  # workers inherit the signal mask, and keep it
                futures = {pool.submit(work, item) for item in items}
            while futures:
                check_stopped()
                done, futures = wait(futures, timeout=_BEAT, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        except BrokenProcessPool as error:
            raise WorkerError(
                f"a worker process died before it was done, with {num_proc} at work: out of memory, or "
                "killed. Run again, with a smaller num_proc: what is done is kept."
            ) from error
        finally:
            stop.value = 1
            with _interrupts_ignored():
                pool.shutdown(cancel_futures=True)


def executor(
    num_proc: int = 1, scheduler: str | None = None, *, initializer: Callable[[], None] | None = None
) -> Executor:
    """Return the executor for these options.

    Args:
        num_proc: processes of this machine; 1 for this one.
        scheduler: the address of a Dask scheduler, or the path of its scheduler file, instead.
        initializer: function that each spawned worker calls when it starts.

    Raises:
        ValueError: ``num_proc`` is not 1 or more, or both options are given.
    """
    check_count("num_proc", num_proc, 1)
    if scheduler is None:
        return InProcess() if num_proc == 1 else Spawned(num_proc, initializer)
    if num_proc != 1:
        raise ValueError(
            "num_proc is for processes of this machine: with a scheduler its workers do the work"
        )
    from ctspine1k.running.cluster import Dask  # imports asyncio

    return Dask(scheduler)


def _start_worker(stop: Flag, initializer: Callable[[], None] | None) -> None:
    stop_with(stop)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    warnings.formatwarning = _without_place
    if initializer is not None:
        initializer()


_format = warnings.formatwarning


def _without_place(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """Format a warning of a worker: the line that called this package is one of ``concurrent.futures``."""
    if issubclass(category, CTSpine1KWarning):
        return f"warning: {message}\n"
    return _format(message, category, filename, lineno, line)


def _end_with_parent() -> None:
    """End this worker when the process that started it has ended, even if it was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextlib.contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Ignore a second Ctrl-C: it would end the wait for the workers, and the exit would wait forever."""
    if threading.current_thread() is not threading.main_thread():  # only the main one may set handlers
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Block SIGINT while workers are started: only the process that the user sees should handle Ctrl-C."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
