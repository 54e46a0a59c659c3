"""Shards: which cases go into which Parquet file, and all that a process needs to make one.

The plan depends only on the selection, so that every run and every worker has the same one. A case is never
split between shards.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

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

#: Increase it when the same rows are written differently: all shards are then made again.
_SHARDS_VERSION = 1


@dataclass(frozen=True)
class Shard:
    """A file of the export, and the cases in it."""

    config: str
    split: str
    number: int
    count: int  #: number of shards of this config and split
    cases: tuple[Case, ...]

    @property
    def path(self) -> str:
        """Its path in the export."""
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
    """All that a process on any machine needs to make a shard: small, as it is pickled, and without token."""

    shard: Shard
    files: tuple[CaseFiles, ...]  #: of the cases that have them, in order: only those that rows need
    missing: dict[str, str]  #: why the other cases are left out
    options: RowOptions
    vocabulary: Vocabulary
    on_error: Policy
    place: Place  #: of the files
    target: Target
    run: str  #: id of the run that it belongs to
    version: str = __version__
    replaces: bool = False  #: whether there is another shard at its path
    pauses: tuple[float, ...] = PAUSES  #: seconds between attempts of a download

    @property
    def size(self) -> int:
        """Approximate bytes of the shard: those of the raw files, if they were compressed."""
        files = (file for one in self.files for file in one.files.values())
        return sum(file.total if file.path.lower().endswith(".gz") else file.total // 2 for file in files)

    @property
    def inputs(self) -> str:
        """A hash of all that the shard is made from: equal for equal shards."""
        options = {**self.options.key(), "on_geometry": None}  # it is in `policy`
        cases = [(case.case_id, case.index, case.facts.get("source")) for case in self.shard.cases]
        states = [list(one.states.values()) for one in self.files]
        made_of = [_SHARDS_VERSION, ROWS_VERSION, options, cases, states, self.missing]
        return hashlib.sha256(json.dumps(made_of).encode()).hexdigest()

    @property
    def policy(self) -> str:
        """What to do about a case that cannot be used, and headers that leave in doubt where voxels lie."""
        return f"on_error={self.on_error}, on_geometry={self.options.on_geometry}"

    def is_made(self, record: ShardRecord) -> bool:
        """Return whether a record is of this shard; its policy matters only if it was applied to a case."""
        undecided = record.skipped.keys() <= self.missing.keys() and not record.misplaced
        return record.inputs == self.inputs and (undecided or record.policy == self.policy)


@dataclass(frozen=True)
class ShardOutcome:
    """The result of a task: a record, or why there is none."""

    shard: Shard
    record: ShardRecord | None
    problems: dict[str, str]  #: by case id
    warnings: tuple[str, ...]  #: about headers that leave in doubt where voxels lie
    changes: tuple[str, ...] = ()  #: what was changed in voxels
