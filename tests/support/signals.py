"""Verbs in processes of their own, each with two workers that are held, for a signal to end one of the three."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import ctspine1k
from support.forks import Child, fork, fork_workers
from support.processes import wait_until
from support.scans import Held, notes_in
from support.volumes import save_case

#: Where a verb notes which cases are done.
_JOURNALS = {
    "scan": "raw/.cases.parquet.partial",
    "verify": "raw/.cases.parquet.partial",
    "evaluate": "scores/.scores.partial",
}

#: What they import late.
_IMPORTS = ["ctspine1k.checks.scan", "ctspine1k.checks.verify", "ctspine1k.evaluation.run"]


@dataclass(frozen=True)
class HeldVerb:
    """A verb and its four cases, of which the last two hold whoever reads them."""

    name: str  #: "scan", "verify" or "evaluate", which compares the masks with themselves
    folder: Path
    ids: tuple[str, ...]

    @classmethod
    def of(cls, name: str, folder: Path) -> HeldVerb:
        """Write the cases below a folder."""
        ids = tuple(case.case_id for case in ctspine1k.load_catalog().where(source="MSD-T10"))[:4]
        for seed, case_id in enumerate(ids):
            save_case(folder / "raw", case_id, seed=seed, folder="MSD-T10")
        (folder / "marks").mkdir()
        return cls(name, folder, ids)

    def notes(self) -> list[str]:
        """What it has noted, a line for each case that is done."""
        return notes_in(self.folder / _JOURNALS[self.name])

    def start(self, stderr: Path | None = None) -> Child:
        """Begin it; when this returns, two cases are done, and two workers are held.

        Args:
            stderr: a FIFO that the process and its workers have as such.
        """
        for mark in (self.folder / "marks").iterdir():
            mark.unlink()
        path = None if stderr is None else str(stderr)
        arguments = (self.name, str(self.folder), self.ids, path)
        process = fork("support.signals:run_there", *arguments, imports=_IMPORTS)
        wait_until(lambda: len(self.workers()) == 2 and len(self.notes()) == 2)
        return process

    def workers(self) -> list[int]:
        """The processes that are held."""
        return [int(mark.name) for mark in (self.folder / "marks").iterdir()]

    def run(self, *held: str, num_proc: int = 1) -> None:
        """Run it in this process, held at some cases."""
        spine = ctspine1k.open_collection(data_dir=self.folder / "raw").select(self.ids)
        spine = replace(spine, place=Held(spine.place.folder, held, self.folder / "marks"))
        if self.name == "evaluate":
            masks = self.folder / "raw/raw_data/labels"
            spine.evaluate(masks, self.folder / "scores", distances=False, num_proc=num_proc)
        else:
            getattr(spine, self.name)(num_proc=num_proc)


def run_there(name: str, folder: str, ids: Sequence[str], stderr: str | None) -> None:
    """What `HeldVerb.start` begins."""
    if stderr is not None:
        os.dup2(os.open(stderr, os.O_WRONLY), 2)
    fork_workers()
    HeldVerb(name, Path(folder), tuple(ids)).run(*ids[2:], num_proc=2)
