"""An executor that gives work to the workers of a Dask cluster."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import threading
import time
import uuid
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ctspine1k._messages import warn
from ctspine1k.errors import CTSpine1KWarning, MissingPackageError, WorkerError
from ctspine1k.running.stops import check_stopped, interruptible

if TYPE_CHECKING:
    from distributed import Client, Future

    from ctspine1k.running.work import Run

__all__ = ["Dask"]

Item = TypeVar("Item")
Result = TypeVar("Result")

#: How often Dask retries a task that raises an error, on any worker. Lost workers do not count.
_RETRIES = 2

#: An address that Dask can connect to. With other strings, its client waits for a long time before it fails.
_ADDRESS = re.compile(r"((tcp|tls|ucx|ws|wss)://)?(\[[^]]+\]|[^/:\s]+):\d+/?")


@dataclass(frozen=True)
class Dask:
    """The workers of a Dask cluster do the work.

    Dask gives the work of a lost worker to another one, and waiting work to workers that join later. Workers
    import the function from its module, so they need the same packages. Items pass through the scheduler, so
    they should be small. The dashboard groups items whose names are in the same folder.
    """

    scheduler: str  #: its address, such as "tcp://node1:8786", or the path of its scheduler file
    #: Seconds to wait for the scheduler, or for its file: a cluster job may start both at the same time.
    patience: float = 60.0

    @property
    def processes(self) -> int:
        """0: the workers are on other machines, as far as is known."""
        return 0

    @contextlib.contextmanager
    def ready(self) -> Iterator[Run]:
        """Connect to the scheduler, and yield a function that submits items to it.

        Raises:
            MissingPackageError: Dask's ``distributed`` is not installed.
            WorkerError: there is no such scheduler, or it is lost, or several workers died at the same item;
                the other items are then done.
        """
        try:
            import distributed
        except ImportError as error:
            raise MissingPackageError("a Dask cluster", "distributed", "cluster") from error
        with contextlib.ExitStack() as running:
            for name in ("distributed.client", "distributed.batched"):
                running.enter_context(_without_tracebacks(name))
            try:
                with interruptible():
                    address = _find_address(self.scheduler, self.patience)
                    _check_answers(address, self.patience)
                    client = running.enter_context(distributed.Client(address, set_as_default=False))
                    has_workers = bool(client.nthreads())
            except (OSError, ValueError, asyncio.TimeoutError) as error:
                raise _lost(self.scheduler, error) from error
            if not has_workers:
                text = (
                    f"{self.scheduler} has no workers yet: waiting for some (`dask worker {self.scheduler}`)"
                )
                warn(text, CTSpine1KWarning)
            yield _Connection(client, self.scheduler).run


@dataclass(frozen=True)
class _Connection:
    """A client that is connected to a scheduler."""

    client: Client
    scheduler: str

    def run(
        self, work: Callable[[Item], Result], items: Sequence[Item], names: Sequence[str]
    ) -> Generator[Result, None, None]:
        """Submit the items, and yield results as they arrive; when closed, cancel unfinished items."""
        import distributed

        run, killers = uuid.uuid4().hex, []
        futures = [
            # Keys of only this run: for a key that it knows, a scheduler returns the result it has stored.
            self.client.submit(
                work, item, key=(f"{name.rpartition('/')[0]}-{run}", number), retries=_RETRIES, pure=False
            )
            for number, (item, name) in enumerate(zip(items, names, strict=True))
        ]
        try:
            completed = distributed.as_completed(futures, loop=self.client.loop)
            while (future := _next(completed)) is not None:
                try:
                    yield self._result(future)
                except distributed.scheduler.KilledWorker as error:
                    killers.append(f"{names[future.key[1]]} ({error.last_worker.address})")
        finally:
            if self.client.status == "running":  # else the scheduler is gone
                self.client.cancel([future for future in futures if not future.done()])
        if killers:
            raise WorkerError(
                f"workers died again and again at {', '.join(killers)}: out of memory, or killed. Give each "
                "worker more memory, or one thread, and run again: what is done is kept."
            )

    def _result(self, future: Future[Result]) -> Result:
        try:
            return future.result()
        except Exception as error:
            # If the scheduler is lost, futures are cancelled, or the connection breaks as a result arrives.
            # In between, Dask's client can raise any error: its state is then no longer "running".
            is_of_connection = isinstance(error, (CancelledError, OSError, asyncio.TimeoutError))
            is_of_work = future.status == "error"
            if is_of_work or not (is_of_connection or self.client.status != "running"):
                raise
            raise _lost(self.scheduler, error) from error


def _next(completed: Iterator[Any]) -> Any:
    """Wait for the next future that is done; None if there is none left."""
    check_stopped()
    with interruptible():
        return next(completed, None)


def _find_address(scheduler: str, patience: float) -> str:
    """Return the address itself, or the one in a scheduler file, which may appear some seconds later.

    Raises:
        ValueError: it is neither an address, nor a scheduler file after ``patience`` seconds.
    """
    if _ADDRESS.fullmatch(scheduler):
        return scheduler
    end, has_warned = time.monotonic() + patience, False
    while True:
        try:
            address = str(json.loads(Path(scheduler).read_bytes())["address"])
        except (OSError, ValueError, LookupError, TypeError) as error:
            found = error
        else:
            if _ADDRESS.fullmatch(address):
                return address
            found = ValueError(f"not an address: {address!r}")
        is_hopeless = isinstance(found, IsADirectoryError) or (
            isinstance(found, OSError) and "://" in scheduler
        )
        if is_hopeless or time.monotonic() > end:
            raise ValueError(f"neither an address such as tcp://node1:8786 nor a scheduler file: {found}")
        if not has_warned:
            text = f"{scheduler} is not a scheduler file yet: waiting for it, {patience:g} s at most"
            warn(text, CTSpine1KWarning)
            has_warned = True
        time.sleep(0.1)


def _check_answers(address: str, patience: float) -> None:
    """Check that a scheduler answers: with another server, Dask's client would wait forever for a message.

    Raises:
        ConnectionError: no scheduler answers.
    """
    from distributed import Security, rpc

    failures: list[Exception] = []

    async def ask() -> None:
        # TLS from Dask's configuration, as its client uses it.
        async with rpc(address, connection_args=Security().get_connection_args("client")) as scheduler:
            await asyncio.wait_for(scheduler.identity(), patience)

    def run() -> None:
        try:
            asyncio.run(ask())
        except Exception as error:  # Dask can raise any error if another server answers
            failures.append(error)

    # In another thread, since in a notebook this one already runs an event loop. Not in a pool, for whose
    # threads Ctrl-C would wait.
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join()
    if failures:
        raise ConnectionError(str(failures[0]) or "no answer") from failures[0]


@contextlib.contextmanager
def _without_tracebacks(name: str) -> Iterator[None]:
    """Drop a logger's records with tracebacks: a lost scheduler is reported by our error, not by a log."""

    def has_none(record: logging.LogRecord) -> bool:
        return record.exc_info is None

    logger = logging.getLogger(name)
    logger.addFilter(has_none)
    try:
        yield
    finally:
        logger.removeFilter(has_none)


def _lost(scheduler: str, error: BaseException) -> WorkerError:
    reason = " ".join(str(error).split())
    return WorkerError(
        f"{scheduler}: expected a Dask scheduler, found none, or lost it ({reason}). Start one with "
        "`dask scheduler`, and run again: what is done is kept."
    )
