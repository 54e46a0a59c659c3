"""An export: the rows of `load_dataset` as Parquet files that load anywhere, without this package.

::

    OUT/3d/train/00000-of-00153.parquet    rows of whole cases (`ctspine1k.exports.shards`)
    OUT/2d/...
    OUT/cases.parquet                      what is known of each case
    OUT/README.md                          the card (`ctspine1k.exports.card`)
    OUT/manifest.json                      what was made of what; there when all is

Each shard is one piece of work, done by a process of this machine or by a worker of a Dask cluster.
"""

from __future__ import annotations

import contextlib
import os
import uuid
import warnings
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from ctspine1k import __version__
from ctspine1k._messages import check_choice, shortened
from ctspine1k.catalog.cases import Case
from ctspine1k.errors import (
    GeometryWarning,
    MissingFilesError,
    NoSpaceError,
    NothingLeftError,
    OutputError,
    SkippedCasesWarning,
)
from ctspine1k.exports.card import SplitSize, make_card, split_sizes
from ctspine1k.exports.cases_table import MISPLACED, case_table
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
from ctspine1k.exports.shards import ShardOutcome, ShardTask, export_shard, plan_shards
from ctspine1k.exports.targets import Entry, Target, open_target
from ctspine1k.files.raw import CaseFiles
from ctspine1k.files.selection import pair_files, require_cases, select_cases
from ctspine1k.files.sources import DEFAULT_REPO, Source, find_source, free_space, silence_hub
from ctspine1k.rows.batches import RowOptions
from ctspine1k.running.disk import HINT_IF_FULL, device_of, explain_full_disk, free_bytes
from ctspine1k.running.executors import Executor, executor
from ctspine1k.running.progress import progress_bar
from ctspine1k.volumes.vertebrae import LabelScheme

__all__ = ["ExportReport", "export_parquet"]

_CONFIGS = ("3d", "2d")


@dataclass(frozen=True)
class ExportReport:
    """What an export did."""

    out: str  #: the folder
    made: int  #: shards that were written
    kept: int  #: shards that were there
    sizes: tuple[SplitSize, ...]  #: of what is there, by config and split
    failed: dict[str, str]  #: why a shard could not be made, by case id and shard
    skipped: dict[str, str]  #: why a case was left out, by case id

    @property
    def ok(self) -> bool:
        """Whether the export is whole."""
        return not self.failed

    def summary(self) -> str:
        """Tell it in some lines."""
        lines = [
            f"{size.config} {size.split}: rows {size.rows:,}, shards {size.shards:,}, bytes {size.bytes:,}"
            for size in self.sizes
        ]
        lines += [f"left out: {case_id}: {reason}" for case_id, reason in self.skipped.items()]
        lines += [f"failed: {what}: {reason}" for what, reason in self.failed.items()]
        lines.append(f"shards: {self.made:,} made, {self.kept:,} kept; failures: {len(self.failed):,}")
        return "\n".join(lines)


def export_parquet(
    out: str | os.PathLike[str],
    *,
    config: Literal["3d", "2d", "all"] = "all",
    data_dir: str | os.PathLike[str] | None = None,
    repo_id: str = DEFAULT_REPO,
    revision: str | None = None,
    split_file: str | os.PathLike[str] | None = None,
    split: str | None = None,
    source: str | None = None,
    case: str | Case | Iterable[str | Case] | None = None,
    special_case: str | None = None,
    exclude_issues: Literal["reported", "all"] | None = None,
    has_vertebrae: str | Sequence[str] | None = None,
    scan: str | os.PathLike[str] | None = None,
    image_size: tuple[int, int] | None = None,
    orientation: str | None = None,
    label_scheme: LabelScheme = "ctspine1k",
    geometry: bool = False,
    on_missing: Literal["raise", "skip"] = "raise",
    on_error: Literal["raise", "skip"] = "raise",
    on_geometry: Literal["raise", "warn"] = "warn",
    cases_per_shard: int = 4,
    num_proc: int = 1,
    scheduler: str | None = None,
    verify: bool = False,
    token: str | bool | None = None,
) -> ExportReport:
    """Write the rows of `load_dataset` as Parquet shards, with a card, a table of cases and a manifest.

    An export that was stopped, however it was, goes on where it was: shards that are there are kept, unless
    their options, the raw files or their own bytes have changed. The same selection gives the same bytes.

    Args:
        out: a folder, or an fsspec URL such as "s3://bucket/folder"; how to log in there is for fsspec's
            configuration. It holds this export alone.
        config: "3d", one row a case, "2d", one row an axial slice, or "all" for both.
        data_dir: a folder with raw files in any layout, instead of the Hub.
        repo_id: a Hub repo (dataset) with them; they are downloaded to the Hub's cache.
        revision: its branch, tag or commit; None for "main".
        split_file: another assignment in the format of ``data_split.txt``.
        split: with the next four, which cases, as of `Catalog.where` and `Catalog.select`.
        source: one of `ctspine1k.catalog.cases.SOURCES`.
        case: one case or several, by id or as `Case`.
        special_case: one of `ctspine1k.catalog.cases.SPECIAL_CASES`.
        exclude_issues: leave out cases with a "reported" issue, or "all" with any.
        has_vertebrae: only cases that hold all of these, as a scan has found.
        scan: the table of cases that `ctspine1k.scan_files` wrote, whose columns ``cases.parquet`` then has,
            too; None for the place where a scan puts it, if it is there.
        image_size: voxels along the first and second axis of each slice; None for (512, 512).
        orientation: with the next two as of `load_dataset`.
        label_scheme: what segmentations hold.
        geometry: add columns source, spacing, affine and orientation.
        on_missing: "raise" if a case has no raw files, or "skip" it: manifest and card then name it.
        on_error: "raise" lets the shard of a case whose files cannot be used fail, and makes the others;
            "skip" leaves the case out: manifest and card then name it.
        on_geometry: "warn" if a mask lies elsewhere than its image, or "raise".
        cases_per_shard: whole cases in a file; 4 make some 600 MB.
        num_proc: processes that make shards; each needs up to 9 GB for "3d", and 0.5 GB for "2d". More
            than one start Python anew, so a script needs ``if __name__ == "__main__":``.
        scheduler: the address of a Dask scheduler, such as "tcp://node1:8786", or its scheduler file: its
            workers make the shards, instead of processes of this machine.
        verify: read all shards that are there, and make those anew whose bytes are not what they were.
        token: for a private repo; None for the token you are logged in with.

    Returns:
        What was done. Where a shard failed, ``ok`` is False, there is no manifest yet, and ``failed`` says
        why: mend the files, or leave them out, and run again.

    Raises:
        ValueError: an argument that is not allowed.
        MissingFilesError: cases have no raw files, and ``on_missing`` is "raise" or none has.
        NothingLeftError: all cases were skipped.
        OutputError: ``out`` holds something else, or an export of other cases.
        BusyError: another process is writing there.
        NoSpaceError: a disk is too small, or full; what is done is kept.
        HubError: the Hub cannot be reached; what is done is kept.
        WorkerError: a worker died, or the scheduler is lost; what is done is kept.
        MissingPackageError: a scheduler needs ``ctspine1k[cluster]``.
        KeyboardInterrupt: says how much is done, which is kept.
    """
    check_choice("config", config, (*_CONFIGS, "all"))
    check_choice("on_missing", on_missing, ("raise", "skip"))
    check_choice("on_error", on_error, ("raise", "skip"))
    workers = executor(num_proc, scheduler, initializer=silence_hub)
    if cases_per_shard < 1:
        raise ValueError(f"cases_per_shard={cases_per_shard}: expected 1 or more")
    options = [
        RowOptions(
            config=one,
            image_size=image_size,
            orientation=orientation,
            label_scheme=label_scheme,
            geometry=geometry,
            on_geometry=on_geometry,
        )
        for one in (_CONFIGS if config == "all" else (config,))
    ]
    folder = open_target(out)
    place = find_source(data_dir, repo_id, revision, token)
    if data_dir is not None and folder.is_at(Path(data_dir)):
        raise ValueError(f"out={os.fspath(out)!r} is data_dir: give a folder of its own")
    chosen = select_cases(
        split_file,
        case,
        split=split,
        source=source,
        special_case=special_case,
        exclude_issues=exclude_issues,
        has_vertebrae=has_vertebrae,
        scan=scan,
        place=place,
    )
    pairs, missing = pair_files(place, require_cases(chosen), on_missing)
    if missing:
        warnings.warn(missing.summary, SkippedCasesWarning, stacklevel=2)
    work = _Export(folder, place, options, on_error, cases_per_shard, workers)
    tasks = work.plan(list(chosen), pairs, missing)
    table = case_table(list(chosen), pairs, place, scan)
    with folder.exclusive_lock():
        return work.run(tasks, table, verify=verify)


@dataclass(frozen=True)
class _Export:
    """An export to a folder: what is the same for all of its shards."""

    folder: Target
    place: Source
    options: list[RowOptions]
    on_error: Literal["raise", "skip"]
    cases_per_shard: int
    workers: Executor

    def plan(
        self, cases: Sequence[Case], pairs: Sequence[CaseFiles], missing: MissingFilesError | None
    ) -> list[ShardTask]:
        """Give the work that there is, were nothing done yet."""
        files = {pair.case.case_id: pair for pair in pairs}
        states = {
            case_id: (self.place.state(pair.image), self.place.state(pair.mask))
            for case_id, pair in files.items()
        }
        absent = {} if missing is None else missing.reasons
        options = {one.config: one for one in self.options}
        pinned, run = self.place.pinned(), uuid.uuid4().hex
        tasks = []
        for shard in plan_shards(cases, list(options), self.cases_per_shard):
            there = [one.case_id for one in shard.cases if one.case_id in files]
            tasks.append(
                ShardTask(
                    shard=shard,
                    files=tuple(files[case_id] for case_id in there),
                    states=tuple(states[case_id] for case_id in there),
                    missing={
                        one.case_id: absent[one.case_id] for one in shard.cases if one.case_id in absent
                    },
                    options=options[shard.config],
                    on_error=self.on_error,
                    source=pinned,
                    folder=self.folder,
                    run=run,
                )
            )
        return tasks

    def run(self, tasks: Sequence[ShardTask], table: pa.Table, *, verify: bool) -> ExportReport:
        """Make what is missing, and finish; the folder is ours alone meanwhile."""
        entries = self.folder.files()
        _check_target(self.folder, entries, tasks)
        there, bad = self._there(tasks, read_records(self.folder, entries), verify=verify)
        entries = {name: entry for name, entry in entries.items() if name not in bad}
        done = {  # under this policy they had been the same
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
        with explain_full_disk(self.folder.scratch(), "an export", needed), _stop_told(todo, done):
            if todo:
                self._check_room(todo, entries)
                with contextlib.closing(self._make(todo, there)) as outcomes:
                    for outcome in outcomes:
                        path = outcome.shard.path
                        failed |= {f"{case_id} ({path})": why for case_id, why in outcome.problems.items()}
                        if outcome.record is not None:
                            done[path] = outcome.record
            records = [done[task.shard.path] for task in tasks if task.shard.path in done]
            skipped = {case_id: why for record in records for case_id, why in record.skipped.items()}
            sizes = split_sizes(records)
            if not failed:
                if not sizes:
                    raise NothingLeftError("the export", skipped)
                self._check_there(records)
                self._finish(records, sizes, skipped, table)
        return ExportReport(self.folder.describe(), len(done) - kept, kept, tuple(sizes), failed, skipped)

    def _there(
        self, tasks: Sequence[ShardTask], recorded: Mapping[str, Recorded], *, verify: bool
    ) -> tuple[dict[str, ShardRecord], list[str]]:
        """Give the records of shards that are what they were, of whatever options they are, by their path.

        Delete those that are not, and give their paths, too.
        """
        there = {path: found.record for path, found in recorded.items() if found.is_sure}
        doubtful = [
            found.record
            for task in tasks
            if (found := recorded.get(task.shard.path)) is not None
            and task.is_made(found.record)
            and (verify or not found.is_sure)
        ]
        bad: list[str] = []
        if not doubtful:
            return there, bad
        names = [f"verify/{record.path}" for record in doubtful]
        with self.workers.ready() as run:
            verified = run(partial(_verify, self.folder), doubtful, names)
            with contextlib.closing(verified), progress_bar("Verifying", len(doubtful), "shard") as bar:
                for path, is_same in verified:
                    bar.update()
                    if not is_same:
                        bad.append(path)
        there |= {record.path: record for record in doubtful}
        for path in bad:
            del there[path]
        # Size and time may be right: nothing but their absence tells the next run that they are not.
        self.folder.remove(bad)
        return there, bad

    def _check_room(self, todo: Sequence[ShardTask], entries: Mapping[str, Entry]) -> None:
        """See that there is room before work begins, where that can be known."""
        free, where = self.folder.free(), self.folder.scratch()
        sizes = [task.size for task in todo]
        needed = at_once = max(sizes) * min(self.workers.processes or 1, len(todo))
        if free is None:  # a shard is here only until it is uploaded
            free = free_bytes(where)
            if not self.workers.processes:
                return  # the workers' disks are theirs
        else:
            freed = sum(entries[task.shard.path].size for task in todo if task.replaces)
            needed = max(sum(sizes) - freed, at_once)
        if self.workers.processes:
            both = (file for task in todo for pair in task.files for file in (pair.image, pair.mask))
            files = list(dict.fromkeys(both))  # 3d and 2d are of the same ones
            self.place.prepare(files)
            if device_of(free_space()[1]) == device_of(where):
                needed += sum(file.size for file in self.place.not_cached(files))
        if needed > free:
            raise NoSpaceError(str(where), "an export", needed, free, HINT_IF_FULL)

    def _make(
        self, todo: Sequence[ShardTask], there: Mapping[str, ShardRecord]
    ) -> Generator[ShardOutcome, None, None]:
        """Make shards, and yield what comes of each; the records of those that are there stay until then."""
        names = [f"export/{task.shard.path}" for task in todo]
        warned: set[str] = set()
        left = {task.shard.path: task.size for task in todo}
        try:
            with (
                self.workers.ready() as run,
                contextlib.closing(run(export_shard, todo, names)) as outcomes,
                progress_bar("Exporting", sum(len(task.shard.cases) for task in todo), "case") as bar,
            ):
                begin(self.folder, there.values(), todo[0].run)
                for outcome in outcomes:
                    bar.update(len(outcome.shard.cases))
                    if outcome.record is not None:
                        del left[outcome.shard.path]
                    for text in outcome.warnings:
                        if text not in warned:  # 3d and 2d each tell of it
                            warnings.warn(text, GeometryWarning, stacklevel=4)
                            warned.add(text)
                    yield outcome
        except NoSpaceError as error:
            if self.folder.free() is None or error.folder != str(self.folder.scratch()):
                raise  # it is about a place where files only pass
            what = f"the {len(left):,} shards left"
            raise NoSpaceError(error.folder, what, sum(left.values()), error.free, HINT_IF_FULL) from error

    def _check_there(self, records: Sequence[ShardRecord]) -> None:
        """See that what workers say they have made is here, before it is said to all."""
        entries = self.folder.files()
        absent = [
            record.path
            for record in records
            if record.path not in entries or entries[record.path].size != record.bytes
        ]
        if absent:
            raise OutputError(
                self.folder.describe(),
                "the shards that were made",
                f"none, or others, at {shortened(absent)}",
                "Processes and workers must write to the same folder: give one that they share, or a URL.",
            )

    def _finish(
        self,
        records: Sequence[ShardRecord],
        sizes: Sequence[SplitSize],
        skipped: Mapping[str, str],
        table: pa.Table,
    ) -> None:
        """Write what stands beside the shards; the manifest, which says that all is there, comes last."""
        with self.folder.atomic_write(CASES_TABLE) as path, path.open("wb") as file:
            pq.write_table(table, file, compression="zstd")
        origin = self.place.origin()
        card = make_card(self.options, sizes, skipped, origin, is_scanned=MISPLACED in table.column_names)
        with self.folder.atomic_write(CARD) as path:
            path.write_text(card, encoding="utf-8", errors="backslashreplace")  # names need not be
        options = asdict(self.options[0])
        del options["config"], options["storage"]  # it is both configs, or stands in their names; and dense
        about = {
            "source": origin,
            "options": {**options, "on_error": self.on_error, "cases_per_shard": self.cases_per_shard},
            "versions": {"ctspine1k": __version__, "pyarrow": pa.__version__},
            "splits": [asdict(size) for size in sizes],
            "skipped": skipped,
        }
        finish(self.folder, about, records)


@contextlib.contextmanager
def _stop_told(todo: Sequence[ShardTask], done: Mapping[str, ShardRecord]) -> Iterator[None]:
    """Have Ctrl-C say how far the work was."""
    try:
        yield
    except KeyboardInterrupt:
        count = f"{sum(task.shard.path in done for task in todo):,} of {len(todo):,} shards are made"
        raise KeyboardInterrupt(f"{count}; run again to go on from there") from None


def _verify(folder: Target, record: ShardRecord) -> tuple[str, bool]:
    """Tell whether a shard has the bytes that it had."""
    return record.path, folder.sha256_of(record.path) == record.sha256


def _check_target(folder: Target, entries: Mapping[str, Entry], tasks: Sequence[ShardTask]) -> None:
    """See that nothing is there that is not of this export."""
    where = folder.describe()
    strange = [name for name in (MANIFEST, CARD, CASES_TABLE) if name in entries]
    if strange and not is_export(entries):
        hint = "Give a folder of its own, or delete them."
        raise OutputError(where, "an empty folder or an export", shortened(strange), hint)
    planned = {task.shard.path for task in tasks}
    others = [
        name
        for name in entries
        if name.startswith(tuple(f"{one}/" for one in _CONFIGS))
        and name.endswith(".parquet")
        and name not in planned
    ]
    if others:
        raise OutputError(
            where,
            "shards of the cases, configs and cases_per_shard given, and no others",
            shortened(others),
            "Give the same as before, or another folder; or delete this export first.",
        )
