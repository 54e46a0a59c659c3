"""What an export has done: one record per shard, so that a run resumes where the last one was stopped.

During a run, the record of each shard is a file of its own in the hidden folder, written after the shard. In
the end all are in ``manifest.json``, which is written last: where it is, the export is complete. The same
command writes the same manifest.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ctspine1k._messages import shortened
from ctspine1k.errors import OutputError, WorkerError
from ctspine1k.exports.targets import WORKING, Entry, Target

__all__ = [
    "CARD",
    "CASES_TABLE",
    "MANIFEST",
    "Recorded",
    "ShardRecord",
    "begin",
    "check_run",
    "finish",
    "forget",
    "is_export",
    "note",
    "read_records",
    "withdraw",
]

MANIFEST = "manifest.json"

#: What stands beside it: the card, and the table of the cases.
CARD = "README.md"
CASES_TABLE = "cases.parquet"

#: Raise it when manifests of older versions cannot be read any more.
_FORMAT = 1

_KEPT = f"{WORKING}/kept.json"
_FORGOTTEN = f"{WORKING}/forgotten/"
_DONE = f"{WORKING}/done/"


@dataclass(frozen=True)
class ShardRecord:
    """A shard that is complete."""

    path: str  #: in the export
    inputs: str  #: a hash of the options, cases and files that it was made of
    rows: int
    bytes: int  #: of the file
    arrow_bytes: int  #: of its rows in memory
    sha256: str  #: of the file
    cases: list[str]  #: those in it, by id
    skipped: dict[str, str]  #: why a case was left out, by id
    misplaced: list[str]  #: cases whose headers leave in doubt where voxels lie, by id
    policy: str  #: what was to be done about both
    files: dict[str, dict[str, Any]]  #: bytes and sha256 of each raw file, by its path
    versions: dict[str, str]  #: of the packages that made it


@dataclass(frozen=True)
class Recorded:
    """The record of a shard that is there, with its size unchanged."""

    record: ShardRecord
    is_sure: bool  #: False if the shard is newer than its record, so that it may be another one


def is_export(entries: Mapping[str, Entry]) -> bool:
    """Return whether an export has written to the folder with these files."""
    return any(name == MANIFEST or name.startswith(f"{WORKING}/") for name in entries)


def read_records(folder: Target, entries: Mapping[str, Entry]) -> dict[str, Recorded]:
    """Read the records of the shards among these files, by their path.

    Raises:
        OutputError: there is a manifest that is not one of an export.
    """
    found: dict[str, Recorded] = {}
    for name in _noted(entries):
        with contextlib.suppress(FileNotFoundError):  # a run that began meanwhile has deleted it
            forgotten, records = _parsed(folder, name, folder.read(name))
            for path in forgotten:
                found.pop(path, None)
            for record in records:
                found[record.path] = Recorded(record, not _is_younger(entries, record.path, name))
    return {
        path: one for path, one in found.items() if path in entries and entries[path].size == one.record.bytes
    }


def _noted(entries: Mapping[str, Entry]) -> list[str]:
    """List the files with records: of those about one shard, the last counts."""
    if MANIFEST in entries:  # a run deletes it before it changes a shard: others are left from before it
        return [MANIFEST]
    notes = [sorted(name for name in entries if name.startswith(place)) for place in (_FORGOTTEN, _DONE)]
    return [name for name in (_KEPT, *notes[0], *notes[1]) if name in entries]


def _is_younger(entries: Mapping[str, Entry], name: str, other: str) -> bool:
    times = [entries[one].modified if one in entries else None for one in (name, other)]
    return times[0] is not None and times[1] is not None and times[0] > times[1]


def note(folder: Target, record: ShardRecord) -> None:
    """Write the record of a shard that is in its place."""
    _write(folder, _note_of(_DONE, record.path), {"shards": [asdict(record)]})


def forget(folder: Target, path: str) -> None:
    """Cancel the record of a shard, before another one takes its place."""
    _write(folder, _note_of(_FORGOTTEN, path), {"forgotten": [path], "shards": []})


def withdraw(folder: Target, record: ShardRecord) -> None:
    """Delete a shard that was uploaded after its run was over, unless it is the one that is recorded."""
    recorded = read_records(folder, folder.files()).get(record.path)
    if (recorded is None or recorded.record.sha256 != record.sha256) and folder.sha256_of(
        record.path
    ) == record.sha256:
        folder.remove([record.path])


def _note_of(place: str, path: str) -> str:
    return place + path.replace("/", "-") + ".json"


def begin(folder: Target, kept: Collection[ShardRecord], run: str) -> None:
    """Write which shards are kept, and which run it is, before any shard is changed.

    Raises:
        WorkerError: a task of the run before has changed one of them, after their records were read.
    """
    _write(folder, _KEPT, {"run": run, "shards": [asdict(record) for record in kept]})
    entries = folder.files()
    now = read_records(folder, entries)
    if changed := [one.path for one in kept if one.path not in now or now[one.path].record != one]:
        raise WorkerError(
            f"{folder.describe()}: expected the shards that were there when this run began, found others at "
            f"{shortened(changed)}: a worker of a run that was stopped is still busy. Run again."
        )
    # First what marks the export as complete, and what others load it by.
    folder.remove(name for name in (MANIFEST, CARD) if name in entries)
    folder.remove(name for name in entries if name.startswith(_FORGOTTEN))
    folder.remove(name for name in entries if name.startswith(_DONE))


def check_run(folder: Target, run: str) -> None:
    """Check that the export is still of this run: a cluster continues tasks of a run that was stopped.

    Raises:
        WorkerError: another run has begun, or ended.
    """
    try:
        current = json.loads(folder.read(_KEPT)).get("run")
    except FileNotFoundError:
        current = None
    if current == run:
        return
    found = (
        "another one"
        if current
        else "none: the run has ended, or this machine has a different folder of that name"
    )
    raise WorkerError(
        f"{folder.describe()}: expected the run that this shard belongs to, found {found}. Processes and "
        "workers must share the folder: use one that all of them can access, or a URL."
    )


def finish(folder: Target, about: Mapping[str, Any], records: Iterable[ShardRecord]) -> None:
    """Write the manifest, which marks the export as complete, and delete what else is recorded.

    Args:
        folder: the target.
        about: the manifest's other fields, besides files and shards.
        records: of all shards, in order.
    """
    shards = [asdict(record) for record in records]
    files: dict[str, Any] = {}
    for shard in shards:  # the shards of both configs are made of the same files
        files |= shard["files"]
        shard["files"] = sorted(shard["files"])
    _write(folder, MANIFEST, {**about, "files": dict(sorted(files.items())), "shards": shards})
    folder.clear()


def _write(folder: Target, name: str, document: Mapping[str, Any]) -> None:
    with folder.atomic_write(name) as path:
        text = json.dumps({"ctspine1k_export": _FORMAT, **document}, indent=1)
        path.write_text(text + "\n", encoding="utf-8")


def _parsed(folder: Target, name: str, data: bytes) -> tuple[list[str], list[ShardRecord]]:
    """Return the paths of shards whose records a file cancels, and the records that it contains.

    Raises:
        OutputError: it is a manifest, but not one of an export.
    """
    found = "something else"
    with contextlib.suppress(ValueError, LookupError, TypeError, AttributeError, RecursionError):
        document = json.loads(data)
        if (version := document["ctspine1k_export"]) == _FORMAT:
            files = document.get("files")  # only in a manifest: elsewhere each record has its own
            shards = [
                shard if files is None else {**shard, "files": {path: files[path] for path in shard["files"]}}
                for shard in document["shards"]
            ]
            forgotten = [str(path) for path in document.get("forgotten", ())]
            return forgotten, [_checked(ShardRecord(**shard)) for shard in shards]
        found = f"format {version}"
    if name != MANIFEST:  # it was cut off in the middle: its shards are made again
        return [], []
    raise OutputError(
        f"{folder.describe()}/{name}",
        f"the manifest of an export, format {_FORMAT}",
        found,
        f"Delete it, {CARD} and {CASES_TABLE} to make all shards again, or use another folder.",
    )


def _checked(record: ShardRecord) -> ShardRecord:
    """Return the record.

    Raises:
        TypeError: a field has another type: somebody has edited it.
    """
    kinds = (
        (str, ("path", "inputs", "sha256", "policy")),
        (int, ("rows", "bytes", "arrow_bytes")),
        (list, ("cases", "misplaced")),
        (dict, ("skipped", "files", "versions")),
    )
    for kind, names in kinds:
        for name in names:
            if not isinstance(getattr(record, name), kind):
                raise TypeError(name)
    return record
