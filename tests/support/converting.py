"""Conversions that are stopped, each in a process of its own."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import multiprocess

import ctspine1k
from ctspine1k.rows import builder


def convert_slowly(options: dict[str, Any], folder: str) -> None:
    """Convert cases, each of which takes until there is a file "release", and print how that ended.

    The process is the leader of a group, as one is that a terminal starts.
    """
    os.setsid()
    read = builder.case_batches

    def slow(*arguments: Any, **more: Any) -> Iterator[Any]:
        Path(folder, f"reading-{os.getpid()}").touch()
        while not Path(folder, "release").exists():
            time.sleep(0.02)
        yield from read(*arguments, **more)

    builder.case_batches = slow
    try:
        ctspine1k.load_dataset("3d", split="train", **options)
    except KeyboardInterrupt:
        sys.stdout.write(f"interrupted {len(multiprocess.active_children())}\n")


def convert_until(options: dict[str, Any], case_id: str, number: str) -> None:
    """Convert cases, and send this process a signal where it begins one of them."""
    read = builder.case_batches

    def stopped(row_options: Any, vocabulary: Any, case: Any, *arguments: Any, **more: Any) -> Iterator[Any]:
        if case.case_id == case_id:
            os.kill(os.getpid(), signal.Signals[number])
        yield from read(row_options, vocabulary, case, *arguments, **more)

    builder.case_batches = stopped
    ctspine1k.load_dataset("3d", split="train", **options)
