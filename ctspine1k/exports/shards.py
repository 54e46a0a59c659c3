"""How one shard is made: raw files are fetched, read and checked, and their rows are written and recorded.

A row group contains one volume, or some slices of one case. `ctspine1k.exports.encoding` encodes the rows.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ctspine1k import __version__
from ctspine1k.catalog.dataset import Kind
from ctspine1k.errors import (
    CaseError,
    ChecksumError,
    HubError,
    ImageSizeError,
    UnreadableFileError,
    WorkerError,
)
from ctspine1k.exports.encoding import parquet_schema, plain_columns, writer_settings
from ctspine1k.exports.ledger import ShardRecord, check_run, forget, note, withdraw
from ctspine1k.exports.plan import ShardOutcome, ShardTask
from ctspine1k.files.hub import hub_space
from ctspine1k.files.raw import CaseFiles
from ctspine1k.files.transfer import quiet_hub, reading_case
from ctspine1k.rows.batches import case_batches
from ctspine1k.rows.features import features_of
from ctspine1k.running.disk import explain_full_disk, sha256_of
from ctspine1k.running.retries import retry
from ctspine1k.running.stops import check_stopped
from ctspine1k.running.threads import usable_threads
from ctspine1k.running.versions import require_version

__all__ = ["export_shard"]

#: Slices in a row group: to read one slice, 16 MiB of image and 16 MiB of mask are decoded.
_SLICES = 16

#: Held while a shard is made: a worker of a cluster may have several threads, and each shard needs the memory
#: of a volume.
_ONE_AT_A_TIME = threading.Lock()


def export_shard(task: ShardTask) -> ShardOutcome:
    """Make one shard, write it to its path, and record it.

    Raises:
        HubError: the Hub cannot be reached, in spite of retries.
        NoSpaceError: a disk is full.
        WorkerError: this process has another version of ctspine1k, or its work is no longer needed.
    """
    require_version(task.version)
    with _ONE_AT_A_TIME, quiet_hub():
        maker = _Maker(task)
        record = maker.make()
        misplaced = tuple(maker.misplaced.values())
        return ShardOutcome(task.shard, record, maker.problems, misplaced, tuple(maker.changes))


class _ProblemsError(Exception):
    """The shard cannot be made: `_Maker.problems` says why."""


class _Maker:
    """One shard in the making."""

    def __init__(self, task: ShardTask) -> None:
        self.task = task
        self.files: dict[str, dict[str, Any]] = {}
        self.skipped = dict(task.missing)
        self.problems: dict[str, str] = {}
        self.misplaced: dict[str, str] = {}  #: warnings about where voxels lie, by case id
        self.changes: list[str] = []  #: what was changed in voxels
        self.rows = self.arrow_bytes = 0

    def make(self) -> ShardRecord | None:
        """Make the shard; return its record, or None if there are problems."""
        task = self.task
        local = [self._fetched(files) for files in task.files]
        try:
            with self._room(task.target.scratch()), task.target.atomic_write(task.shard.path) as written:
                self._write(written, local)
                with written.open("rb") as file:
                    sha256 = sha256_of(file)
                size = written.stat().st_size
                check_run(task.target, task.run)
                if task.replaces:
                    forget(task.target, task.shard.path)
        except _ProblemsError:
            return None
        record = self._record(size, sha256)
        with self._room(task.target.scratch()):
            try:
                check_run(task.target, task.run)  # an upload takes time, in which the run may end
            except WorkerError:
                withdraw(task.target, record)
                raise
            note(task.target, record)
        return record

    def _record(self, size: int, sha256: str) -> ShardRecord:
        return ShardRecord(
            path=self.task.shard.path,
            inputs=self.task.inputs,
            rows=self.rows,
            bytes=size,
            arrow_bytes=self.arrow_bytes,
            sha256=sha256,
            cases=[case.case_id for case in self.task.shard.cases if case.case_id not in self.skipped],
            skipped=self.skipped,
            misplaced=list(self.misplaced),
            policy=self.task.policy,
            files=self.files,
            versions={"ctspine1k": __version__, "pyarrow": pa.__version__},
        )

    def _room(self, folder: Path) -> contextlib.AbstractContextManager[None]:
        return explain_full_disk(folder, f"shard {self.task.shard.path}", self.task.size)

    def _fetched(self, files: CaseFiles) -> dict[Kind, Path]:
        """Fetch the files of a case, and note their sizes and hashes.

        Returns:
            The paths; an empty dict if there is a problem, which is noted.
        """
        check_stopped()
        place, raw = self.task.place, list(files.files.values())
        try:
            with reading_case(files):
                with self._room(hub_space()[1]):
                    place.prepare(raw, is_recorded=True)
                    paths = retry(lambda: place.fetch(raw), HubError, pauses=self.task.pauses)
                for file, path in zip(raw, paths, strict=True):
                    for one in file.every:
                        with path.with_name(Path(one.path).name).open("rb") as opened:
                            found = one.sha256 or sha256_of(opened)  # the Hub's has been compared already
                        self.files[one.path] = {"bytes": one.size, "sha256": found}
        except (ChecksumError, UnreadableFileError) as error:
            self.problems[files.case.case_id] = str(error)
            return {}
        return dict(zip(files.files, paths, strict=True))

    def _write(self, target: Path, local: Sequence[Mapping[Kind, Path]]) -> None:
        """Write the rows of all cases. After a problem, the others are still read, to find all problems."""
        schema = parquet_schema(features_of(self.task.options))
        # A Python file object, since Arrow cannot open paths that are not UTF-8.
        with target.open("wb") as file, pq.ParquetWriter(file, schema, **writer_settings(schema)) as writer:
            for files, paths in zip(self.task.files, local, strict=True):
                if paths:
                    self._write_case(writer, files, paths)
        if self.problems:
            raise _ProblemsError

    def _write_case(self, writer: pq.ParquetWriter, files: CaseFiles, paths: Mapping[Kind, Path]) -> None:
        """Write the rows of a case; no references to its volumes remain after this call."""
        before, case_id = self.rows, files.case.case_id

        def note_problem(text: str) -> None:
            self.misplaced[case_id] = text

        try:
            for table in _tables(self.task, files, paths, note_problem, self.changes.append):
                self.rows += len(table)
                self.arrow_bytes += table.nbytes
                if not self.problems:
                    plain = pa.Table.from_arrays(plain_columns(table), schema=writer.schema)
                    writer.write_table(plain, row_group_size=len(table))
        except UnreadableFileError as error:  # maybe not the case's fault, so it is never left out
            self.problems[case_id] = str(error)
        except CaseError as error:
            is_left_out = self.task.on_error == "skip" and self.rows == before
            reasons = self.skipped if is_left_out else self.problems
            reasons[case_id] = _published(error, files, paths)


def _tables(
    task: ShardTask,
    files: CaseFiles,
    paths: Mapping[Kind, Path],
    on_problem: Callable[[str], None],
    on_change: Callable[[str], None],
) -> Iterator[pa.Table]:
    """Yield the rows of a case, one row group at a time.

    Raises:
        CaseError: its files cannot be used, or were replaced while they were read.
        UnreadableFileError: the operating system cannot read them.
    """
    features = features_of(task.options)
    batches = case_batches(
        task.options,
        task.vocabulary,
        files.case,
        paths,
        depth=_SLICES,
        threads=usable_threads(),
        check_first=task.on_error == "skip",
        on_problem=on_problem,
        on_change=on_change,
    )
    with reading_case(files):
        for batch in batches:
            check_stopped()
            yield batch.table(features)
        found = {kind: task.place.state(file) for kind, file in files.files.items()}
    if found != files.states:
        name = str(next(iter(paths.values())))
        raise CaseError(name, "the files that were there when the export began", "others", "Run again.")


_HINT_ON_SIZE = (
    "Slices are not resized: export the cases of each size to a folder of their own, with image_size=(i, j) "
    '(--image-size I J), or leave this case out with on_error="skip" (--on-error skip).'
)


def _published(error: CaseError, files: CaseFiles, paths: Mapping[Kind, Path]) -> str:
    """Return the message of an error for manifest and card: paths of this machine made relative."""
    if isinstance(error, ImageSizeError):  # whose hint is for `load`
        error = ImageSizeError(error.file, error.expected, error.found, _HINT_ON_SIZE)
    text = str(error)
    for kind, path in paths.items():
        for one in files[kind].every:
            text = text.replace(str(path.with_name(Path(one.path).name)), one.path)
    return text
