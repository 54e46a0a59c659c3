"""Scans in processes of their own."""

from __future__ import annotations

import contextlib
import json
import os
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ctspine1k.files.folder import FolderPlace
from ctspine1k.files.raw import RawFile
from ctspine1k.running.stops import check_stopped
from support.forks import Child, fork
from support.processes import wait_until


@dataclass(frozen=True)
class Held(FolderPlace):
    """A folder in which whoever asks for the files of some cases is held, until it is stopped."""

    ids: tuple[str, ...]
    marks: Path | None = None  #: a folder to which each process that is held adds a file, named by its number

    def fetch(self, files: Sequence[RawFile]) -> list[Path]:
        while {file.case.case_id for file in files} & {*self.ids}:
            if self.marks is not None:
                (self.marks / str(os.getpid())).touch()
            check_stopped()  # as long work does
            time.sleep(0.005)
        return super().fetch(files)


def start(root: Path, num_proc: int = 1, held: Sequence[str] = (), stderr: Path | None = None) -> Child:
    """Begin a scan of a folder in a process of its own.

    Args:
        root: the folder, whose cases need not be all that there are.
        num_proc: of the scan.
        held: the cases at which it is held.
        stderr: a FIFO that it, and what it starts, have as such.
    """
    arguments = (str(root), num_proc, list(held), None if stderr is None else str(stderr))
    return fork("support.scans:scan_there", *arguments)


def scan_there(root: str, num_proc: int, held: list[str], stderr: str | None) -> None:
    """What `start` begins."""
    import ctspine1k

    if stderr is not None:
        os.dup2(os.open(stderr, os.O_WRONLY), 2)
    warnings.simplefilter("ignore")
    collection = ctspine1k.open_collection(data_dir=root)
    collection = replace(collection, place=Held(collection.place.folder, tuple(held)))
    collection.scan(num_proc=num_proc, on_missing="skip")


def notes_in(journal: Path) -> list[str]:
    """The lines that are whole: one may just be written, of which a reader may see a part."""
    lines = journal.read_text().split("\n") if journal.exists() else []
    return [line for line in lines if _is_whole(line)]


def _is_whole(line: str) -> bool:
    with contextlib.suppress(ValueError):
        json.loads(line.partition(" ")[2])
        return True
    return False


def wait_for_notes(root: Path, count: int) -> Path:
    """Wait until a scan of a folder has noted so many cases; return the path of its notes."""
    journal = root / ".cases.parquet.partial"
    wait_until(lambda: len(notes_in(journal)) >= count)
    return journal
