"""Shards: which cases go into which Parquet file, and all that a process needs to make one.

The plan depends on the selection alone, so that every run and every worker has the same. A shard holds whole
cases.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from ctspine1k import __version__
from ctspine1k.catalog.cases import Case
from ctspine1k.catalog.vocabulary import Vocabulary
from ctspine1k.exports.ledger import ShardRecord
from ctspine1k.exports.targets import Target
from ctspine1k.files.places import Place
from ctspine1k.files.raw import CaseFiles
from ctspine1k.rows.options import ROWS_VERSION, Policy, RowOptions
from ctspine1k.running.retries import PAUSES

__all__ = ["Shard", "ShardOutcome", "ShardTask", "plan_shards"]

#: Raise it when the same rows are written in another way: all shards are then made again.
_SHARDS_VERSION = 1


@dataclass(frozen=True)
class Shard:
    """A file of the export, and the cases that belong into it."""

    config: str
    split: str
    number: int
    count: int  #: shards of this config and split
    cases: tuple[Case, ...]

    @property
    def path(self) -> str:
        """Where it is in the export."""
        return f"{self.config}/{self.split}/{self.number:05d}-of-{self.count:05d}.parquet"


def plan_shards(cases: Sequence[Case], configs: Sequence[str], cases_per_shard: int) -> list[Shard]:
    """List the shards of each split, with its cases in order; shards of the same cases follow each other."""
    shards = []
    for split in dict.fromkeys(case.split for case in cases):
        members = [case for case in cases if case.split == split]
        parts = [
            tuple(members[first : first + cases_per_shard])
            for first in range(0, len(members), cases_per_shard)
        ]
        shards += [
            Shard(config, split, number, len(parts), part)
            for number, part in enumerate(parts)
            for config in configs
        ]
    return shards


@dataclass(frozen=True)
class ShardTask:
    """All that a process needs to make a shard, wherever it runs: small, as it is pickled, and no token."""

    shard: Shard
    files: tuple[CaseFiles, ...]  #: of the cases that have them, in order: those that rows are made of
    missing: dict[str, str]  #: why the other cases are left out
    options: RowOptions
    vocabulary: Vocabulary
    on_error: Policy
    place: Place  #: of the files
    target: Target
    run: str  #: names the run that it is of
    version: str = __version__
    replaces: bool = False  #: whether another shard is in its place
    pauses: tuple[float, ...] = PAUSES  #: seconds between one try of a download and the next

    @property
    def size(self) -> int:
        """Bytes that the shard will have, about: those of the raw files, were they compressed."""
        files = (file for one in self.files for file in one.files.values())
        return sum(file.size if file.path.endswith(".gz") else file.size // 2 for file in files)

    @property
    def inputs(self) -> str:
        """A hash of all that the shard is made of: equal for equal shards."""
        options = {**asdict(self.options), "on_geometry": None}  # that is for `policy`
        cases = [(case.case_id, case.index, case.facts.get("source")) for case in self.shard.cases]
        states = [list(one.states.values()) for one in self.files]
        made_of = [_SHARDS_VERSION, ROWS_VERSION, options, cases, states, self.missing]
        return hashlib.sha256(json.dumps(made_of).encode()).hexdigest()

    @property
    def policy(self) -> str:
        """What is to be done about a case that cannot be used, and about a mask that lies elsewhere."""
        return f"on_error={self.on_error}, on_geometry={self.options.on_geometry}"

    def is_made(self, record: ShardRecord) -> bool:
        """Return whether a record is of this shard; its policy counts if there was something to decide."""
        undecided = record.skipped.keys() <= self.missing.keys() and not record.misplaced
        return record.inputs == self.inputs and (undecided or record.policy == self.policy)


@dataclass(frozen=True)
class ShardOutcome:
    """What came of a task: a record, or why there is none."""

    shard: Shard
    record: ShardRecord | None
    problems: dict[str, str]  #: by case id
    warnings: tuple[str, ...]  #: masks that lie elsewhere than their images
