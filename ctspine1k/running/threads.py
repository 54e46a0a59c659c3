"""How many threads there are, and the two ways they are used: making the next item in time, sharing a list.

Processes and threads share the processor cores: ``num_proc`` processes that convert have cores / ``num_proc``
threads each, and a process that another one started, such as a worker of a DataLoader, has one. Blosc2 never
starts threads of its own.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from typing import Any, TypeVar

__all__ = ["prefetch", "spread", "usable_threads"]

T = TypeVar("T")

_END: Any = object()


def usable_threads(processes: int = 1) -> int:
    """Tell how many threads each of so many processes may use, this one being one of them."""
    # `datasets` starts its workers with a fork of the standard library's module, which knows them alone.
    for starter in (multiprocessing, sys.modules.get("multiprocess")):
        if starter is not None and starter.parent_process() is not None:
            return 1  # its siblings have the other cores
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // processes)


def prefetch(items: Iterator[T]) -> Iterator[T]:
    """Yield the items, while a thread makes the one that comes next."""
    with ThreadPoolExecutor(1, thread_name_prefix="ctspine1k-ahead") as pool:
        upcoming = pool.submit(next, items, _END)
        while (item := upcoming.result()) is not _END:
            upcoming = pool.submit(next, items, _END)
            yield item
            del item  # it may be a volume: the one after the next must not find it here


def spread(work: Callable[[list[T]], None], items: list[T], threads: int) -> None:
    """Let so many threads, this one among them, each do its share of the items; raise what one raises."""
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


@cache
def _helpers() -> ThreadPoolExecutor:
    """Keep threads for `spread`, one a core: to start them takes as long as to decode some boxes."""
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="ctspine1k-share")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_helpers.cache_clear)  # a fork has none of its parent's threads
