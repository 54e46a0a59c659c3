"""A run of an export: existing shards are kept, missing ones are made, and then the export is finished."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Generator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq

from ctspine1k import __version__
from ctspine1k._messages import html_table, shortened, warn
from ctspine1k.errors import GeometryWarning, NoSpaceError, NothingLeftError, OutputError, VoxelWarning
from ctspine1k.exports.card import SplitSize, make_card, split_sizes
from ctspine1k.exports.cases_table import MISPLACED
from ctspine1k.exports.ledger import (
    CARD,
    CASES_TABLE,
    MANIFEST,
    Recorded,
    ShardRecord,
    begin,
    finish,
    is_export,
    read_records,
)
from ctspine1k.exports.options import ExportOptions
from ctspine1k.exports.plan import ShardOutcome, ShardTask, plan_shards
from ctspine1k.exports.shards import export_shard
from ctspine1k.exports.targets import Entry, Target
from ctspine1k.files.hub import hub_space
from ctspine1k.files.raw import CaseFiles
from ctspine1k.files.selection import Selection
from ctspine1k.rows.options import CONFIGS, RowOptions
from ctspine1k.running.disk import HINT_IF_FULL, device_of, explain_full_disk, free_bytes
from ctspine1k.running.progress import progress_bar
from ctspine1k.running.stops import check_stopped, explain_stop
from ctspine1k.running.work import Executor

__all__ = ["Export", "ExportReport"]


@dataclass(frozen=True)
class ExportReport:
    """What an export did."""

    out: str  #: the folder
    made: int  #: shards that were written
    kept: int  #: shards that existed already
    sizes: tuple[SplitSize, ...]  #: of all shards, by config and split
    failed: dict[str, str]  #: why a shard could not be made, by case id and shard
    skipped: dict[str, str]  #: why a case was left out, by case id

    def __repr__(self) -> str:
        return f"ExportReport({self.out}: {self._counts})"

    def _repr_html_(self) -> str:
        names = [one.name for one in fields(SplitSize)]
        sizes = ([getattr(size, name) for name in names] for size in self.sizes)
        return html_table(f"{self.out}: {self._counts}", names, sizes, len(self.sizes))

    @property
    def _counts(self) -> str:
        return f"shards: {self.made:,} made, {self.kept:,} kept; failures: {len(self.failed):,}"

    @property
    def ok(self) -> bool:
        """Whether the export is complete."""
        return not self.failed

    def summary(self) -> str:
        """Return the report as text, in a few lines."""
        lines = [
            f"{size.config} {size.split}: rows {size.rows:,}, shards {size.shards:,}, bytes {size.bytes:,}"
            for size in self.sizes
        ]
        lines += [f"left out: {case_id}: {reason}" for case_id, reason in self.skipped.items()]
        lines += [f"failed: {what}: {reason}" for what, reason in self.failed.items()]
        lines.append(self._counts)
        return "\n".join(lines)


@dataclass(frozen=True)
class Export:
    """An export to a folder: everything that its shards have in common."""

    selection: Selection
    target: Target
    options: ExportOptions
    rows: list[RowOptions]  #: of each config
    workers: Executor

    def plan(self, files: Sequence[CaseFiles], missing: Mapping[str, str]) -> list[ShardTask]:
        """List the tasks of all shards, including existing ones.

        Args:
            files: of the cases that have them, and only those that rows need.
            missing: why the other cases are left out, by case id.
        """
        run, there = uuid.uuid4().hex, {one.case.case_id: one for one in files}
        options = {one.config: one for one in self.rows}
        return [
            ShardTask(
                shard=shard,
                files=tuple(there[case.case_id] for case in shard.cases if case.case_id in there),
                missing={
                    case.case_id: missing[case.case_id] for case in shard.cases if case.case_id in missing
                },
                options=options[shard.config],
                vocabulary=self.selection.data_set.vocabulary,
                on_error=self.options.on_error,
                place=self.selection.place,
                target=self.target,
                run=run,
                pauses=self.options.pauses,
            )
            for shard in plan_shards(list(self.selection.cases), list(options), self.options.cases_per_shard)
        ]

    def run(self, tasks: Sequence[ShardTask], table: pa.Table) -> ExportReport:
        """Make the shards that are missing, and finish. The caller holds the lock of the target.

        Args:
            tasks: as returned by `plan`.
            table: the table of cases.
        """
        entries = self.target.files()
        recorded = read_records(self.target, entries)
        _check_target(self.target, entries, tasks, recorded)
        there, bad = self._there(tasks, recorded)
        entries = {name: entry for name, entry in entries.items() if name not in bad}
        done = {  # with the policy of this run, which would have made the same shards
            path: replace(there[path], policy=task.policy)
            for task in tasks
            if (path := task.shard.path) in there and task.is_made(there[path])
        }
        kept = len(done)
        todo = [
            replace(task, replaces=task.shard.path in entries)
            for task in tasks
            if task.shard.path not in done
        ]
        failed: dict[str, str] = {}
        needed = sum(task.size for task in todo)

        def progress() -> str:
            return f"{sum(task.shard.path in done for task in todo):,} of {len(todo):,} shards are made"

        with explain_full_disk(self.target.scratch(), "an export", needed), explain_stop(progress):
            if todo:
                self._check_room(todo, entries)
                with contextlib.closing(self._make(todo, there)) as outcomes:
                    for outcome in outcomes:
                        path = outcome.shard.path
                        failed |= {f"{case_id} ({path})": why for case_id, why in outcome.problems.items()}
                        if outcome.record is not None:
                            done[path] = outcome.record
            check_stopped()
            records = [done[task.shard.path] for task in tasks if task.shard.path in done]
            skipped = {case_id: why for record in records for case_id, why in record.skipped.items()}
            sizes = split_sizes(records, self.selection.data_set.splits)
            if not failed:
                if not sizes:
                    raise NothingLeftError("the export", skipped)
                self._check_there(records)
                self._finish(records, sizes, skipped, table)
            check_stopped()
        return ExportReport(self.target.describe(), len(done) - kept, kept, tuple(sizes), failed, skipped)

    def _there(
        self, tasks: Sequence[ShardTask], recorded: Mapping[str, Recorded]
    ) -> tuple[dict[str, ShardRecord], list[str]]:
        """Find the shards that are intact, whatever their options, and delete those that are not.

        Returns:
            The records of the first, and the paths of the second.
        """
        there = {path: found.record for path, found in recorded.items() if found.is_sure}
        doubtful = [
            found.record
            for task in tasks
            if (found := recorded.get(task.shard.path)) is not None
            and task.is_made(found.record)
            and (self.options.verify or not found.is_sure)
        ]
        bad: list[str] = []
        if not doubtful:
            return there, bad
        names = [f"verify/{record.path}" for record in doubtful]
        with self.workers.ready() as run:
            verified = run(partial(_verify, self.target), doubtful, names)
            with contextlib.closing(verified), progress_bar("Verifying", len(doubtful), "shard") as bar:
                for path, is_same in verified:
                    bar.update()
                    if not is_same:
                        bad.append(path)
        there |= {record.path: record for record in doubtful}
        for path in bad:
            del there[path]
        # Their sizes and times may be right: they are deleted so that the next run does not keep them.
        self.target.remove(bad)
        return there, bad

    def _check_room(self, todo: Sequence[ShardTask], entries: Mapping[str, Entry]) -> None:
        """Raise a `NoSpaceError` before work begins, if it is known that there is not enough space."""
        free, where = self.target.free(), self.target.scratch()
        sizes = [task.size for task in todo]
        needed = at_once = max(sizes) * min(self.workers.processes or 1, len(todo))
        if free is None:  # a shard is on the local disk only until it is uploaded
            free = free_bytes(where)
            if not self.workers.processes:
                return  # workers on other machines have their own disks
        else:
            freed = sum(entries[task.shard.path].size for task in todo if task.replaces)
            needed = max(sum(sizes) - freed, at_once)
        if self.workers.processes:
            files = list(
                dict.fromkeys(file for task in todo for one in task.files for file in one.files.values())
            )
            self.selection.look.prepare(files)
            if device_of(hub_space()[1]) == device_of(where):
                needed += sum(file.total for file in self.selection.place.not_cached(files))
        if needed > free:
            raise NoSpaceError(str(where), "an export", needed, free, HINT_IF_FULL)

    def _make(
        self, todo: Sequence[ShardTask], there: Mapping[str, ShardRecord]
    ) -> Generator[ShardOutcome, None, None]:
        """Make shards, and yield the outcome of each; records of existing shards stay until then."""
        names = [f"export/{task.shard.path}" for task in todo]
        warned: set[str] = set()
        left = {task.shard.path: task.size for task in todo}
        try:
            with (
                self.workers.ready() as run,
                contextlib.closing(run(export_shard, todo, names)) as outcomes,
                progress_bar("Exporting", sum(len(task.shard.cases) for task in todo), "case") as bar,
            ):
                begin(self.target, there.values(), todo[0].run)
                for outcome in outcomes:
                    bar.update(len(outcome.shard.cases))
                    if outcome.record is not None:
                        del left[outcome.shard.path]
                    _warn_once(outcome, warned)
                    yield outcome
        except NoSpaceError as error:
            if self.target.free() is None or error.folder != str(self.target.scratch()):
                raise  # it is about a disk for temporary files
            what = f"the {len(left):,} shards left"
            raise NoSpaceError(error.folder, what, sum(left.values()), error.free, HINT_IF_FULL) from error

    def _check_there(self, records: Sequence[ShardRecord]) -> None:
        """Raise an `OutputError` if a shard that a worker has made is not in this process's folder."""
        entries = self.target.files()
        absent = [
            record.path
            for record in records
            if record.path not in entries or entries[record.path].size != record.bytes
        ]
        if absent:
            raise OutputError(
                self.target.describe(),
                "the shards that were made",
                f"none, or others, at {shortened(absent)}",
                "Processes and workers must write to the same folder: use one that they share, or a URL.",
            )

    def _finish(
        self,
        records: Sequence[ShardRecord],
        sizes: Sequence[SplitSize],
        skipped: Mapping[str, str],
        table: pa.Table,
    ) -> None:
        """Write the files beside the shards; last the manifest, which marks the export as complete."""
        with self.target.atomic_write(CASES_TABLE) as path, path.open("wb") as file:
            pq.write_table(table, file, compression="zstd")
        origin = self.selection.place.origin()
        card = make_card(
            self.selection.data_set,
            self.rows,
            sizes,
            skipped,
            origin,
            facts=("split", *self.selection.catalog.facts, "issues"),
            is_scanned=MISPLACED in table.column_names,
            cases=self.selection.cases,
        )
        with self.target.atomic_write(CARD) as path:
            path.write_text(card, encoding="utf-8", errors="backslashreplace")  # names need not be UTF-8
        options = self.rows[0].key()
        del options["config"], options["storage"]  # paths of shards have the config; storage is always dense
        about = {
            "source": origin,
            "options": {
                **options,
                "on_error": self.options.on_error,
                "cases_per_shard": self.options.cases_per_shard,
            },
            "versions": {"ctspine1k": __version__, "pyarrow": pa.__version__},
            "splits": [asdict(size) for size in sizes],
            "skipped": skipped,
        }
        finish(self.target, about, records)


def _verify(target: Target, record: ShardRecord) -> tuple[str, bool]:
    """Return the path of a shard, and whether its bytes are unchanged."""
    return record.path, target.sha256_of(record.path) == record.sha256


def _check_target(
    target: Target,
    entries: Mapping[str, Entry],
    tasks: Sequence[ShardTask],
    recorded: Mapping[str, Recorded],
) -> None:
    """Raise an `OutputError` if the folder has files that do not belong to this export."""
    where = target.describe()
    strange = [name for name in (MANIFEST, CARD, CASES_TABLE) if name in entries]
    if strange and not is_export(entries):
        raise OutputError.occupied(where, "a new or an empty folder, or an export", shortened(strange))
    planned = {task.shard.path for task in tasks}
    others = [
        name
        for name in entries
        if name.startswith(tuple(f"{config}/" for config in CONFIGS))
        and name.endswith(".parquet")
        and name not in planned
    ]
    for task in tasks:  # shards of another data set, or of other cases, may have the same paths
        made = recorded[task.shard.path].record.cases if task.shard.path in recorded else []
        if made and not {case.case_id for case in task.shard.cases} & set(made):
            others.append(task.shard.path)
    if others:
        raise OutputError.occupied(
            where,
            "shards of the cases, configs and cases_per_shard given, and no others",
            shortened(others),
            others=["give the same cases and options as before"],
        )


def _warn_once(outcome: ShardOutcome, warned: set[str]) -> None:
    """Issue the warnings of a shard, except those that the shard of the other config had, too."""
    for category, texts in ((GeometryWarning, outcome.warnings), (VoxelWarning, outcome.changes)):
        for text in texts:
            if text not in warned:
                warn(text, category)
                warned.add(text)
