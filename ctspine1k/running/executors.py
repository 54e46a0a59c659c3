"""Work done by processes of this machine, or by the workers of a Dask cluster: results as they come.

Those of this machine end with the process that started them, however that goes.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import multiprocessing
import os
import re
import signal
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import CancelledError, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from huggingface_hub.utils.tqdm import disable_progress_bars

from ctspine1k.errors import CTSpine1KWarning, MissingPackageError, WorkerError
from ctspine1k.files.sources import quiet_hub

if TYPE_CHECKING:
    from distributed import Client, Future

__all__ = ["Each", "check_num_proc", "check_stopped", "in_processes", "on_cluster"]

Item = TypeVar("Item")
Result = TypeVar("Result")

#: Of a worker: set when its results are not wanted any more.
_stop: Event | None = None

#: How often a cluster tries a task that raises, on any worker. A worker that is lost does not count.
_RETRIES = 2

#: What Dask could connect to: it waits long for what it could not.
_ADDRESS = re.compile(r"((tcp|tls|ucx|ws|wss)://)?(\[[^]]+\]|[^/:\s]+):\d+/?")

#: How many seconds a scheduler, or its file, is waited for: a job starts the scheduler and us together.
_PATIENCE = 60.0


def check_num_proc(num_proc: int) -> None:
    """See that there is at least one process.

    Raises:
        ValueError: there is none.
    """
    if num_proc < 1:
        raise ValueError(f"num_proc={num_proc}: expected 1 or more")


def in_processes(
    work: Callable[[Item], Result], items: Sequence[Item], num_proc: int
) -> Generator[Result, None, None]:
    """Yield what ``work`` gives for each item, in any order; with one process, it is this one.

    When the generator is closed, work that has begun goes on to its end, or to where it asks `check_stopped`.

    Raises:
        WorkerError: a worker process died.
    """
    num_proc = min(num_proc, len(items))
    if num_proc <= 1:
        with quiet_hub():
            yield from map(work, items)
        return
    # Started anew, not forked: a fork of a process with threads may hang.
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    pool = ProcessPoolExecutor(num_proc, context, initializer=_start_worker, initargs=(stop,))
    try:
        with _interrupts_held():  # by the workers for as long as they live, as they inherit it
            futures = [pool.submit(work, item) for item in items]
        for future in as_completed(futures):
            yield future.result()
    except BrokenProcessPool as error:
        raise WorkerError(
            f"a worker process died before it was done, with {num_proc} at work: out of memory, or killed. "
            "Run again, with a smaller num_proc: what is done is kept."
        ) from error
    finally:
        stop.set()
        with _interrupts_ignored():
            pool.shutdown(cancel_futures=True)


def check_stopped() -> None:
    """End the work at hand if nobody waits for it any more: to be asked now and then by long work.

    Raises:
        WorkerError: that is so.
    """
    if _stop is not None and _stop.is_set():
        raise WorkerError("stopped, as this process is not needed any more")


#: What does the work: it yields what a function gives for each item, in any order. Paths name the items, for
#: whoever watches.
Each: TypeAlias = Callable[[Callable[[Any], Any], Sequence[Any], Sequence[str]], Generator[Any, None, None]]


@contextlib.contextmanager
def on_cluster(scheduler: str) -> Iterator[Each]:
    """Connect to a Dask cluster, and give what has work done by its workers.

    Dask gives the work of a lost worker to another one, and ours to workers that come later, too. The work is
    a function of a module that the workers have; items are sent, so they are to be small. The dashboard
    counts those together whose names are in one folder.

    Args:
        scheduler: the scheduler's address, such as "tcp://node1:8786", or the path of its scheduler file.

    Raises:
        MissingPackageError: Dask's ``distributed`` is not installed.
        WorkerError: there is no such scheduler, or it is lost, or an item has cost several workers their
            life; the others are done then.
    """
    try:
        import distributed
    except ImportError as error:
        raise MissingPackageError("a Dask cluster", "distributed", "cluster") from error
    with contextlib.ExitStack() as running:
        running.enter_context(_quiet("distributed.client"))
        try:
            address = _address(scheduler)
            _check_answers(address)
            client = running.enter_context(distributed.Client(address, set_as_default=False))
            has_workers = bool(client.nthreads())
        except (OSError, ValueError, asyncio.TimeoutError) as error:
            raise _lost(scheduler, error) from error
        if not has_workers:
            text = f"{scheduler} has no workers yet: waiting for some (`dask worker {scheduler}`)"
            warnings.warn(text, CTSpine1KWarning, stacklevel=2)
        yield partial(_each_on, client, scheduler)


def _each_on(
    client: Client,
    scheduler: str,
    work: Callable[[Item], Result],
    items: Sequence[Item],
    names: Sequence[str],
) -> Generator[Result, None, None]:
    import distributed

    run, killers = uuid.uuid4().hex, []
    futures = [
        # Keys of this run alone: a scheduler hands out results that it has under the same key.
        client.submit(
            work, item, key=(f"{name.rpartition('/')[0]}-{run}", number), retries=_RETRIES, pure=False
        )
        for number, (item, name) in enumerate(zip(items, names, strict=True))
    ]
    try:
        for future in distributed.as_completed(futures, loop=client.loop):
            try:
                yield _result(future, scheduler)
            except distributed.scheduler.KilledWorker as error:
                killers.append(f"{names[future.key[1]]} ({error.last_worker.address})")
    finally:
        if client.status == "running":  # else nobody is there to be told
            client.cancel([future for future in futures if not future.done()])
    if killers:
        raise WorkerError(
            f"workers died again and again at {', '.join(killers)}: out of memory, or killed. Give each "
            "worker more memory, or one thread, and run again: what is done is kept."
        )


def _address(scheduler: str) -> str:
    """Give the address, which may stand in a scheduler file, which may be there some seconds later."""
    if _ADDRESS.fullmatch(scheduler):
        return scheduler
    end, is_told = time.monotonic() + _PATIENCE, False
    while True:
        try:
            address = str(json.loads(Path(scheduler).read_bytes())["address"])
        except (OSError, ValueError, LookupError, TypeError) as error:
            found = error
        else:
            if _ADDRESS.fullmatch(address):
                return address
            found = ValueError(f"no address: {address!r}")
        is_hopeless = isinstance(found, IsADirectoryError) or (
            isinstance(found, OSError) and "://" in scheduler
        )
        if is_hopeless or time.monotonic() > end:
            raise ValueError(f"no address such as tcp://node1:8786, and no scheduler file: {found}")
        if not is_told:
            text = f"{scheduler} is no scheduler file yet: waiting for it, {_PATIENCE:g} s at most"
            warnings.warn(text, CTSpine1KWarning, stacklevel=2)
            is_told = True
        time.sleep(0.1)


def _check_answers(address: str) -> None:
    """See that a scheduler is there: Dask's client would wait for the first word of another server for ever.

    Raises:
        ConnectionError: there is none.
    """
    from distributed import Security, rpc

    failures: list[Exception] = []

    async def ask() -> None:
        # TLS as Dask's configuration has it, which is where its client takes it from.
        async with rpc(address, connection_args=Security().get_connection_args("client")) as scheduler:
            await asyncio.wait_for(scheduler.identity(), _PATIENCE)

    def run() -> None:
        try:
            asyncio.run(ask())
        except Exception as error:  # what another server says can make Dask fail in any way
            failures.append(error)

    # In a notebook, this thread has a loop that runs. Not a pool's thread: Ctrl-C would wait for it.
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join()
    if failures:
        raise ConnectionError(str(failures[0]) or "no answer") from failures[0]


@contextlib.contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Have a logger print no tracebacks: of a scheduler that is lost, we tell."""

    def has_none(record: logging.LogRecord) -> bool:
        return record.exc_info is None

    logger = logging.getLogger(name)
    logger.addFilter(has_none)
    try:
        yield
    finally:
        logger.removeFilter(has_none)


def _result(future: Future[Result], scheduler: str) -> Result:
    try:
        return future.result()
    # A scheduler that is lost takes what it has been told with it, or ends the talk about a result.
    except (CancelledError, OSError, asyncio.TimeoutError) as error:
        if future.status == "error":  # raised by the work
            raise
        raise _lost(scheduler, error) from error


def _lost(scheduler: str, error: BaseException) -> WorkerError:
    reason = " ".join(str(error).split())
    return WorkerError(
        f"{scheduler}: expected a Dask scheduler, found none, or lost it ({reason}). Start one with "
        "`dask scheduler`, and run again: what is done is kept."
    )


def _start_worker(stop: Event) -> None:
    global _stop
    _stop = stop
    disable_progress_bars()
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this worker when the process that started it is gone, however it went."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextlib.contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Let a second Ctrl-C pass: it would end the wait for the workers, and the exit would wait for ever."""
    if threading.current_thread() is not threading.main_thread():  # which alone may say so
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Hold Ctrl-C back until the workers are started: it is for the process that the user sees."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
