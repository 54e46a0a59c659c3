"""Threads: how many to use, prefetching the next item, and sharing a list.

Processes and threads share the processor cores. Each of ``num_proc`` processes that convert has
cores / ``num_proc`` threads. A process that another one started, such as a worker of a DataLoader, has one.
Blosc2 never starts threads of its own.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import cache
from typing import Any, TypeVar

from ctspine1k.running.stops import check_stopped

__all__ = ["prefetch", "prefetch_together", "spread", "spread_map", "usable_threads"]

T = TypeVar("T")
R = TypeVar("R")

_END: Any = object()

#: Seconds between checks for a deferred Ctrl-C while a thread is busy.
_BEAT = 0.1


def usable_threads(processes: int = 1) -> int:
    """Return the number of threads for this process if ``processes`` of its kind run, including itself."""
    # `datasets` starts its workers with `multiprocess`, a fork of the standard library's module. Each of the
    # two modules knows only the processes that it started itself.
    for starter in (multiprocessing, sys.modules.get("multiprocess")):
        if starter is not None and starter.parent_process() is not None:
            return 1  # other workers use the other cores
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // processes)


def prefetch(items: Iterator[T]) -> Iterator[T]:
    """Yield the items, while a thread reads the next one from the iterator."""
    for (item,) in prefetch_together(items):
        yield item
        del item  # may be a volume: free it before waiting for the next one


def prefetch_together(*iterators: Iterator[T]) -> Iterator[tuple[T, ...]]:
    """Yield the next items of several iterators, while a thread for each of them reads the one after.

    Raises:
        ValueError: one of them ends before the others.
    """
    with ThreadPoolExecutor(len(iterators), thread_name_prefix="ctspine1k-prefetch") as pool:
        upcoming = [pool.submit(next, items, _END) for items in iterators]
        while True:
            found = tuple(map(_awaited, upcoming))
            ended = sum(item is _END for item in found)
            if ended == len(found):
                return
            if ended:
                raise ValueError(f"{ended} of {len(found)} iterators ended before the others")
            upcoming = [pool.submit(next, items, _END) for items in iterators]
            yield found
            del found


def _awaited(upcoming: Future[T]) -> T:
    """Return the result of a thread; a deferred Ctrl-C ends the wait for it."""
    while not upcoming.done():
        check_stopped()
        wait([upcoming], timeout=_BEAT)
    return upcoming.result()


def spread(work: Callable[[list[T]], None], items: list[T], threads: int) -> None:
    """Divide the items among threads, including this one, and wait for all of them.

    Args:
        work: called once per thread with every ``threads``-th item.
        items: the items to share.
        threads: number of threads; 1 or fewer for only this one.

    Raises:
        Exception: any error that ``work`` raises, in any thread.
    """
    if threads <= 1:
        work(items)
        return
    others = [_helpers().submit(work, items[n::threads]) for n in range(1, threads)]
    try:
        work(items[::threads])
    finally:
        wait(others)
    for other in others:
        other.result()


def spread_map(work: Callable[[T], R], items: Sequence[T], threads: int) -> list[R]:
    """Return what ``work`` returns for each item, in their order; arguments and errors as for `spread`."""
    results: dict[int, R] = {}

    def share(own: list[tuple[int, T]]) -> None:
        results.update((number, work(item)) for number, item in own)

    spread(share, list(enumerate(items)), min(threads, len(items)))
    return [results[number] for number in range(len(items))]


@cache
def _helpers() -> ThreadPoolExecutor:
    """Return the threads of `spread`, one per core. They are kept, since starting them takes time."""
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="ctspine1k-spread")


if hasattr(os, "register_at_fork"):
    # A forked child inherits the pool, but none of its threads: work in it would wait forever.
    os.register_at_fork(after_in_child=_helpers.cache_clear)
