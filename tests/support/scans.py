"""Scans in processes of their own."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

from support.forks import Child, fork
from support.processes import wait_until


def start(root: Path, num_proc: int = 1, held: Path | None = None) -> Child:
    """Begin a scan of a folder in a process of its own.

    Args:
        root: the folder, whose cases need not be all that there are.
        num_proc: of the scan.
        held: a FIFO that it, and what it starts, have as stderr.
    """
    return fork("support.scans:scan_there", str(root), num_proc, None if held is None else str(held))


def scan_there(root: str, num_proc: int, held: str | None) -> None:
    """What `start` begins."""
    import ctspine1k

    if held is not None:
        os.dup2(os.open(held, os.O_WRONLY), 2)
    warnings.simplefilter("ignore")
    ctspine1k.open_collection(data_dir=root).scan(num_proc=num_proc, on_missing="skip")


def wait_for_notes(root: Path, count: int) -> Path:
    """Wait until a scan of a folder has noted so many cases; return the path of its notes."""
    journal = root / ".cases.parquet.partial"
    wait_until(lambda: journal.exists() and journal.read_text().count('"version"') >= count)
    return journal
