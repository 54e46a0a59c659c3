"""Exports of the tests' tree, here and in processes of their own, and targets that say how fast they go."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

from fsspec.implementations.memory import MemoryFileSystem

from ctspine1k import load_catalog
from ctspine1k.exports.folder_target import FolderTarget
from ctspine1k.exports.opening import open_target
from ctspine1k.exports.targets import Target
from ctspine1k.running.stops import check_stopped
from support.forks import Child, fork
from support.processes import wait_until
from support.verbs import chosen
from support.volumes import SIZE, files_of, save_case

#: Options of an export; the others say where the files are, and which cases.
_OWN = (
    *("config", "image_size", "orientation", "label_scheme", "other_labels", "geometry"),
    *("on_missing", "on_error", "on_geometry", "on_voxels"),
    *("cases_per_shard", "scan", "verify", "num_proc", "scheduler"),
)


def export_parquet(out, *, workers=None, pauses=None, **options):
    """What `Collection.export_parquet` returns; with what only the function below it takes."""
    own = {name: options.pop(name) for name in _OWN if name in options}
    collection = chosen(**options)
    if isinstance(out, (str, os.PathLike)) and workers is pauses is None:
        return collection.export_parquet(out, **own)
    from ctspine1k.exports.options import ExportOptions
    from ctspine1k.exports.parquet import export_parquet

    if pauses is not None:
        own["pauses"] = pauses
    return export_parquet(collection.selection(), out, ExportOptions(**own), workers)


@dataclass(frozen=True)
class ByPickle:
    """An executor of one process: items and results pass as if they came from another."""

    @property
    def processes(self) -> int:
        return 1

    @contextlib.contextmanager
    def ready(self):
        yield lambda work, items, names: (self._done(work, item) for item in items)

    def _done(self, work, item):
        work, item = pickle.loads(pickle.dumps((work, item)))  # noqa: S301
        return pickle.loads(pickle.dumps(work(item)))  # noqa: S301


class Elsewhere(ByPickle):
    """An executor whose work finds no files in memory, and leaves none, as in a process of its own."""

    def _done(self, work, item):
        with patch.dict(MemoryFileSystem.store, clear=True):
            return super()._done(work, item)


@dataclass(frozen=True)
class StoppedAfter:
    """An executor of one process that is stopped when it has done some items."""

    items: int

    @property
    def processes(self) -> int:
        return 1

    @contextlib.contextmanager
    def ready(self):
        yield self._run

    def _run(self, work, items, names):
        yield from map(work, items[: self.items])
        raise KeyboardInterrupt


@dataclass(frozen=True)
class StoppedAt(FolderTarget):
    """A folder whose export is stopped where it would write a file of some name."""

    name: str

    @contextlib.contextmanager
    def atomic_write(self, name: str) -> Iterator[Path]:
        if self.name in name:
            raise KeyboardInterrupt
        with super().atomic_write(name) as path:
            yield path


@dataclass(frozen=True)
class SmallTarget(FolderTarget):
    """A folder on a disk with little room."""

    room: int

    def free(self) -> int:
        return self.room


@dataclass(frozen=True)
class Gated:
    """A target that lets as many shards through as a `Gate` says, and holds those that are being written."""

    inner: Target
    gate: Path

    def __getattr__(self, name):
        if name.startswith("__"):  # pickle asks before there is an inner one
            raise AttributeError(name)
        return getattr(self.inner, name)

    @contextlib.contextmanager
    def atomic_write(self, name: str) -> Iterator[Path]:
        with self.inner.atomic_write(name) as path:
            while _is_shard(name) and self._is_closed():
                check_stopped()  # as long work does
                (self.gate / f"held-{os.getpid()}").touch()
                time.sleep(0.005)
            yield path

    def _is_closed(self) -> bool:
        there = sum(map(_is_shard, self.inner.files()))
        return there >= int((self.gate / "shards").read_text())


def _is_shard(name: str) -> bool:
    return name.count("/") == 2 and name.endswith(".parquet")


class Gate:
    """A folder that says how many shards may pass, and which processes are held."""

    def __init__(self, folder: Path, shards: int) -> None:
        folder.mkdir()
        self.folder = folder
        self.open(shards)

    def open(self, shards: int = 10**6) -> None:
        """Let so many pass; each process lets one more through at most."""
        half = self.folder / "half"
        half.write_text(str(shards))
        half.rename(self.folder / "shards")

    def held(self) -> list[int]:
        """The processes that are held."""
        return [int(path.name.removeprefix("held-")) for path in self.folder.glob("held-*")]

    def wait_for(self, processes: int = 1) -> None:
        """Wait until so many processes are held."""
        wait_until(lambda: len(self.held()) >= processes)

    def before(self, out) -> Gated:
        """A target behind it."""
        return Gated(open_target(out), self.folder)


def options_of(tree: Path, split_file: Path, **options) -> dict:
    """Arguments that fit the tree."""
    return {"data_dir": str(tree), "split_file": str(split_file), "image_size": SIZE, **options}


def options_of_many(root: Path, count: int = 6) -> dict:
    """Make many small cases, and give the arguments for them: a shard each, of volumes and of slices."""
    first = save_case(root, "liver_0")
    ids = [case.case_id for case in load_catalog().where(source="MSD-T10")][:count]
    for case_id in ids:
        for path, suffix in zip(first, ("", "_seg"), strict=True):
            target = path.with_name(f"{case_id}{suffix}.nii.gz")
            if not target.exists():
                target.hardlink_to(path)
    return {"data_dir": str(root), "cases": ids, "image_size": SIZE, "cases_per_shard": 1}


def start(out, options: dict, gate: Gate | None = None) -> Child:
    """Begin an export in a process of its own.

    Args:
        out: where to.
        options: of `export_parquet`.
        gate: that its target is behind.
    """
    folder = None if gate is None else str(gate.folder)
    return fork("support.exports:export_there", str(out), options, folder)


def export_there(out: str, options: dict, gate: str | None) -> None:
    """What `start` begins: at its end, it prints which shards it has made and kept, and what failed."""
    target = open_target(out)
    if gate is not None:
        target = Gated(target, Path(gate))
    report = export_parquet(target, **options)
    sys.stdout.write(json.dumps([report.made, report.kept, report.failed]))


def replace_there(out: str, old: str, new: str, text: str) -> None:
    """Write a file of a target, and then remove another."""
    target = open_target(out)
    with target.atomic_write(new) as path:
        path.write_text(text)
    target.remove([old])


def die_with_lock(out: str) -> None:
    """End this process at once, with status 3, while it holds the lock of a target."""
    held = open_target(out).exclusive_lock()
    held.__enter__()
    os._exit(3)


def command_there(words: list[str], gate: str) -> int:
    """Run a command of ours whose export is behind a gate: its exit status."""
    from ctspine1k.cli.main import main
    from ctspine1k.exports import parquet

    parquet.open_target = lambda out, pauses: Gated(open_target(out, pauses), Path(gate))
    return main(words)


def ended(process: Child) -> list:
    """Wait for an export that ends in its own time: shards made and kept, and what failed."""
    status = process.wait()
    printed, told = process.printed
    assert status == 0, told
    return json.loads(printed)


def finish(out, options: dict) -> list:
    """Bring an export to its end, here: shards made and kept, and what failed."""
    report = export_parquet(out, **options)
    return [report.made, report.kept, report.failed]


def shards_in(out: Path) -> list[Path]:
    """The shards of an export."""
    return list(Path(out).glob("*/*/*.parquet"))


def same(out: Path, other: Path) -> bool:
    """Whether two folders hold the same files with the same bytes, hidden ones and empty folders included."""
    return files_of(out) == files_of(other) and folders_of(out) == folders_of(other)


def folders_of(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_dir()}
