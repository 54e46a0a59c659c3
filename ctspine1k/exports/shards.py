"""Shards: which cases go into which Parquet file, and how one such file is made.

The plan depends on the selection alone, so that every run and every worker has the same. A shard holds whole
cases; a row group holds one volume, or some slices of one case. How voxels are encoded was chosen by
measurement (``benchmarks/README.md``): the image's bytes are split into streams, which zstd then shrinks to
less than the raw file; the mask needs nothing beside zstd. A page is one slice of 512 x 512 in 2d, or one
volume in 3d: content-defined chunking would cut at the same places, and take half as long again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from ctspine1k import __version__
from ctspine1k.catalog.cases import Case
from ctspine1k.errors import (
    CaseError,
    ChecksumError,
    FileFormatError,
    GeometryWarning,
    HubError,
    NoSpaceError,
    WorkerError,
    unreadable,
)
from ctspine1k.exports.ledger import ShardRecord, check_run, forget, note, withdraw
from ctspine1k.exports.targets import Target
from ctspine1k.files.raw import CaseFiles
from ctspine1k.files.sources import Source, free_space, quiet_hub
from ctspine1k.rows.batches import ROWS_VERSION, RowOptions, case_batches
from ctspine1k.running.disk import explain_full_disk, sha256_of
from ctspine1k.running.executors import check_stopped
from ctspine1k.running.retries import retry
from ctspine1k.running.threads import usable_threads

__all__ = ["Shard", "ShardOutcome", "ShardTask", "export_shard", "plan_shards"]

#: Raise it when the same rows are written in another way: all shards are then made anew.
_SHARDS_VERSION = 1

#: Slices in a row group: 16 MiB of image, and as much of mask, are what a reader of one of them takes.
_SLICES = 16

#: Of a process with several threads, as workers of a cluster may be: a shard takes the memory of a volume,
#: and what a reader warns of is caught for the whole process.
_ONE_AT_A_TIME = threading.Lock()


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
    """Put the cases of each split into shards, in order; shards of the same cases follow each other."""
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
    """All that a process needs to make a shard, wherever it runs. It is sent, so it is small."""

    shard: Shard
    files: tuple[CaseFiles, ...]  #: of the cases that have them, in order
    states: tuple[tuple[str, str], ...]  #: of their images and masks
    missing: dict[str, str]  #: why the other cases are left out
    options: RowOptions
    on_error: Literal["raise", "skip"]
    source: Source
    folder: Target
    run: str  #: names the run that it is of
    version: str = __version__
    replaces: bool = False  #: whether another shard is in its place

    @property
    def size(self) -> int:
        """Bytes that the shard will have, about: those of the raw files, were they compressed."""
        files = (file for pair in self.files for file in (pair.image, pair.mask))
        return sum(file.size if file.path.endswith(".gz") else file.size // 2 for file in files)

    @property
    def inputs(self) -> str:
        """What stands for all that the shard is made of: equal for equal shards."""
        options = {**asdict(self.options), "on_geometry": None}  # that is for `policy`
        cases = [(case.case_id, case.index, case.source) for case in self.shard.cases]
        made_of = [_SHARDS_VERSION, ROWS_VERSION, options, cases, self.states, self.missing]
        return hashlib.sha256(json.dumps(made_of).encode()).hexdigest()

    @property
    def policy(self) -> str:
        """What is to be done about a case that cannot be used, and about a mask that lies elsewhere."""
        return f"on_error={self.on_error}, on_geometry={self.options.on_geometry}"

    def is_made(self, record: ShardRecord) -> bool:
        """Tell whether a record is of this shard; another policy counts if there was something to decide."""
        undecided = record.skipped.keys() <= self.missing.keys() and not record.misplaced
        return record.inputs == self.inputs and (undecided or record.policy == self.policy)


@dataclass(frozen=True)
class ShardOutcome:
    """What came of a task: a record, or why there is none."""

    shard: Shard
    record: ShardRecord | None
    problems: dict[str, str]  #: by case id
    warnings: tuple[str, ...]  #: masks that lie elsewhere than their images


def export_shard(task: ShardTask) -> ShardOutcome:
    """Make one shard, put it in its place, and record it.

    Raises:
        HubError: the Hub cannot be reached, again and again.
        NoSpaceError: a disk is full.
        WorkerError: this process has another version of ctspine1k, or nobody waits for it any more.
    """
    if task.version != __version__:
        raise WorkerError(
            f"a worker has ctspine1k {__version__}, the export was begun by {task.version}: install the same "
            "version everywhere"
        )
    with _ONE_AT_A_TIME, quiet_hub():
        maker = _Maker(task)
        record = maker.make()
        return ShardOutcome(task.shard, record, maker.problems, tuple(maker.misplaced.values()))


class _ProblemsError(Exception):
    """The shard cannot be made: `_Maker.problems` tells why."""


class _UnreadableError(Exception):
    """The machine does not hand out a file."""


class _Maker:
    """One shard in the making."""

    def __init__(self, task: ShardTask) -> None:
        self.task = task
        self.files: dict[str, dict[str, Any]] = {}
        self.skipped = dict(task.missing)
        self.problems: dict[str, str] = {}
        self.misplaced: dict[str, str] = {}  #: what was warned of, by case id
        self.rows = self.arrow_bytes = 0

    def make(self) -> ShardRecord | None:
        """Give the record, or None where there are problems."""
        task = self.task
        local = [self._fetched(files) for files in task.files]
        try:
            with self._room(task.folder.scratch()), task.folder.atomic_write(task.shard.path) as written:
                self._write(written, local)
                with written.open("rb") as file:
                    sha256 = sha256_of(file)
                size = written.stat().st_size
                check_run(task.folder, task.run)
                if task.replaces:
                    forget(task.folder, task.shard.path)
        except _ProblemsError:
            return None
        record = ShardRecord(
            path=task.shard.path,
            inputs=task.inputs,
            rows=self.rows,
            bytes=size,
            arrow_bytes=self.arrow_bytes,
            sha256=sha256,
            cases=[case.case_id for case in task.shard.cases if case.case_id not in self.skipped],
            skipped=self.skipped,
            misplaced=list(self.misplaced),
            policy=task.policy,
            files=self.files,
            versions={"ctspine1k": __version__, "pyarrow": pa.__version__},
        )
        with self._room(task.folder.scratch()):
            try:
                check_run(task.folder, task.run)  # to upload may have taken its time
            except WorkerError:
                withdraw(task.folder, record)
                raise
            note(task.folder, record)
        return record

    def _room(self, folder: Path) -> contextlib.AbstractContextManager[None]:
        return explain_full_disk(folder, f"shard {self.task.shard.path}", self.task.size)

    def _fetched(self, files: CaseFiles) -> tuple[Path, ...]:
        """Make the files of a case local, and note what they are; give nothing where that cannot be done."""
        check_stopped()
        both = (files.image, files.mask)
        try:
            with self._room(free_space()[1]):
                paths = retry(lambda: self.task.source.fetch(both), HubError)
            for file, path in zip(both, paths, strict=True):
                with path.open("rb") as opened:
                    found = file.sha256 or sha256_of(opened)  # the source has compared the one that it knows
                self.files[self.task.source.relative(file.path)] = {"bytes": file.size, "sha256": found}
        except (HubError, NoSpaceError):
            raise
        except ChecksumError as error:
            self.problems[files.case.case_id] = str(error)
            return ()
        except OSError as error:
            self.problems[files.case.case_id] = _unreadable(error, files)
            return ()
        return tuple(paths)

    def _write(self, target: Path, local: Sequence[tuple[Path, ...]]) -> None:
        """Write the rows of all cases. After a problem the others are read all the same, to tell of all."""
        schema = _schema(self.task.options.features())
        # A file of Python's: Arrow takes no name that is not UTF-8.
        with target.open("wb") as file, pq.ParquetWriter(file, schema, **_settings(schema)) as writer:
            for files, states, paths in zip(self.task.files, self.task.states, local, strict=True):
                if paths:
                    self._write_case(writer, files, states, paths)
        if self.problems:
            raise _ProblemsError

    def _write_case(
        self, writer: pq.ParquetWriter, files: CaseFiles, states: tuple[str, str], paths: tuple[Path, ...]
    ) -> None:
        """Write the rows of a case; what is a volume is let go at the end of it."""
        before = self.rows
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("ignore")
            warnings.simplefilter("always", GeometryWarning)
            try:
                for table in _tables(self.task, files, states, paths):
                    self.rows += len(table)
                    self.arrow_bytes += table.nbytes
                    if not self.problems:
                        plain = pa.Table.from_arrays(_plain(table), schema=writer.schema)
                        writer.write_table(plain, row_group_size=len(table))
            except CaseError as error:
                is_left_out = self.task.on_error == "skip" and self.rows == before
                reasons = self.skipped if is_left_out else self.problems
                reasons[files.case.case_id] = _published(error, self.task.source, files, paths)
            except _UnreadableError as error:  # may be the machine's affair, not the case's: never left out
                self.problems[files.case.case_id] = str(error)
        for told in caught:  # one at most
            self.misplaced[files.case.case_id] = str(told.message)


def _tables(
    task: ShardTask, files: CaseFiles, states: tuple[str, str], paths: tuple[Path, ...]
) -> Iterator[pa.Table]:
    """Yield the rows of a case, a row group at a time.

    Raises:
        CaseError: its files cannot be used, or were replaced while they were read.
        _UnreadableError: the machine does not hand them out.
    """
    features = task.options.features()
    batches = case_batches(
        task.options,
        files.case,
        *paths,
        depth=_SLICES,
        threads=usable_threads(),
        check_first=task.on_error == "skip",
    )
    try:
        for batch in batches:
            check_stopped()
            yield batch.table(features)
        found = task.source.state(files.image), task.source.state(files.mask)
    except OSError as error:
        raise _UnreadableError(_unreadable(error, files)) from error
    if found != states:
        raise CaseError(
            str(paths[0]), "the files that were there when the export began", "others", "Run again."
        )


def _unreadable(error: OSError, files: CaseFiles) -> str:
    """Tell of a file that the machine does not hand out."""
    if isinstance(error, FileNotFoundError):
        expected, found = "the raw file that was there when the export began", "none"
        hint = "All processes and workers must see the raw files: share the folder, or let them use the Hub."
        return str(FileFormatError(str(error.filename or files.image.path), expected, found, hint))
    return str(unreadable(str(error.filename or files.image.path), error))


def _published(error: CaseError, source: Source, files: CaseFiles, paths: tuple[Path, ...]) -> str:
    """Tell of an error as the manifest and the card may: without where files lie on this machine."""
    text = str(error)
    for file, path in zip((files.image, files.mask), paths, strict=True):
        text = text.replace(str(path), source.relative(file.path))
    return text


def _schema(features: datasets.Features) -> pa.Schema:
    """Give the columns as lists, and beside them what they are to `datasets`.

    Not its own types for arrays, which `Dataset.to_parquet` writes: Polars before 1.36 stops at them.
    """
    schema = features.arrow_schema
    told = json.loads(schema.metadata[b"huggingface"])
    told["info"]["features"] = _oldest_words(told["info"]["features"])
    fields = [
        field.with_type(field.type.storage_type) if isinstance(field.type, pa.BaseExtensionType) else field
        for field in schema
    ]
    return pa.schema(fields, {"huggingface": json.dumps(told)})


def _oldest_words(features: Any) -> Any:
    """Write features as `datasets` 3 does, which later releases read, too: they say "List" for "Sequence"."""
    if not isinstance(features, dict):
        return features
    kind = {"_type": "Sequence"} if features.get("_type") == "List" else {}
    return {name: _oldest_words(value) for name, value in features.items()} | kind


def _plain(table: pa.Table) -> list[pa.Array]:
    """Give the same columns as lists, without a copy."""
    columns = [column.combine_chunks() for column in table.columns]
    return [column.storage if isinstance(column, pa.ExtensionArray) else column for column in columns]


def _settings(schema: pa.Schema) -> dict[str, Any]:
    """Choose how columns are written."""
    small = [name for name in schema.names if name not in ("image", "segmentation")]
    return {
        "compression": "zstd",
        "compression_level": 3,
        "use_byte_stream_split": [_leaf(schema.field("image"))],
        "use_dictionary": small,
        "write_statistics": small,
        "write_page_index": True,
    }


def _leaf(field: pa.Field) -> str:
    """Name the column of a field of nested lists as Parquet does."""
    name, kind = field.name, field.type
    while pa.types.is_list(kind):
        name, kind = f"{name}.list.element", kind.value_type
    return str(name)
