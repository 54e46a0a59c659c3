"""Verbs whose runs are killed: conversions, downloads, scans, exports, evaluations; what each leaves on disk."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

import ctspine1k
from support.exports import export_parquet, folders_of, shards_in
from support.hub import Hub, Repo
from support.volumes import files_of, save_case

#: Of slices; the volumes differ in the number of slices.
_SIZE = (30, 24)

_REPO_ID = "tests/killed"


@dataclass(frozen=True)
class Verb:
    """A verb with options, writing to a folder."""

    name: str  #: several verbs that differ in their options may have the same
    work: str  #: the function that runs it, given the folder, ``num_proc`` and the options
    left: Callable[[Path], Any]  #: what is in the folder: the same after every run that has finished
    done: Callable[[Path], int]  #: how much of it is there, which grows while it runs
    options: dict[str, Any] = field(default_factory=dict)
    processes: Sequence[int] = (1, 2)  #: values of ``num_proc``, in turn
    imports: Sequence[str] = ()  #: modules that it imports late, and that take long


def verbs_of(root: Path, hub: Hub, names: Sequence[str] = (), count: int = 8) -> list[Verb]:
    """Make cases in a folder and on a Hub, and return verbs for them.

    Args:
        root: the folder.
        hub: where they are downloaded from.
        names: of those to return; empty for all.
        count: of cases.
    """
    ids = [case.case_id for case in ctspine1k.load_catalog().where(source="MSD-T10")][:count]
    for seed, case_id in enumerate(ids):
        save_case(root, case_id, seed=seed, shape=(*_SIZE, 20 + seed), folder="MSD-T10")
    hub.repos[_REPO_ID] = Repo()
    hub.repos[_REPO_ID].commit(files_of(root))
    every = _verbs({"data_dir": str(root), "cases": ids}, {"repo_id": _REPO_ID, "cases": ids})
    return [verb for verb in every if not names or verb.name in names]


def _verbs(here: dict[str, Any], there: dict[str, Any]) -> Iterator[Verb]:
    for config in ("3d", "2d"):
        for storage in ("dense", "compact"):
            options = {**here, "config": config, "storage": storage}
            yield Verb("convert", "support.killed:convert", _rows, _bytes_of_rows, options)
    for copies in (False, True):
        options = {**there, "copies": copies}
        yield Verb("download", "support.killed:download", _files_of_cache, _count_files, options, (1,))
    seldom = (1, 1, 1, 2)  # where processes are spawned, which takes long
    yield Verb("scan", "support.killed:scan", _files, _count_scanned, here, seldom)
    yield Verb("export", "support.killed:export", _files, lambda out: len(shards_in(out)), here, seldom)
    options = {**here, "label_scheme": "region"}  # all masks are written
    yield Verb("nnunet", "support.killed:export_nnunet", _files, _count_masks, options, seldom)

    options = {**here, "predictions": str(Path(here["data_dir"], "raw_data", "labels"))}
    drawing = ("ctspine1k.evaluation.run", "ctspine1k.pictures.scores", "matplotlib.backends.backend_agg")
    yield Verb("evaluate", "support.killed:evaluate", _files, _count_scored, options, seldom, drawing)


def convert(out: Path, num_proc: int, config: str, storage: Any, cases: list[str], **place: Any) -> None:
    """Convert rows; nothing checks beforehand that there is room for them."""
    ctspine1k.open_collection(**place).select(cases).load(
        config,
        storage=storage,
        image_size=_SIZE,
        cache_dir=str(out),
        num_proc=None if num_proc == 1 else num_proc,
        verification_mode="no_checks",
    )


def download(out: Path, num_proc: int, copies: bool, cases: list[str], **place: Any) -> None:
    """Download files to a cache of the Hub, and, if asked to, copy them."""
    import huggingface_hub

    huggingface_hub.constants.HF_HUB_CACHE = str(out / "hub")
    to = out / "copies" if copies else None
    ctspine1k.open_collection(**place).select(cases).download(to=to)


def scan(out: Path, num_proc: int, cases: list[str], **place: Any) -> None:
    """Scan cases."""
    ctspine1k.open_collection(**place).select(cases).scan(out / "cases.parquet", num_proc=num_proc)


def export(out: Path, num_proc: int, **options: Any) -> None:
    """Export cases, a shard each."""
    report = export_parquet(out, cases_per_shard=1, image_size=_SIZE, num_proc=num_proc, **options)
    if not report.ok:
        raise RuntimeError(report.failed)


def export_nnunet(out: Path, num_proc: int, label_scheme: Any, cases: list[str], **place: Any) -> None:
    """Export cases for nnU-Net."""
    chosen = ctspine1k.open_collection(**place).select(cases)
    report = chosen.export_nnunet(out, label_scheme=label_scheme, num_proc=num_proc)
    if not report.ok:
        raise RuntimeError(report.failed)


def evaluate(out: Path, num_proc: int, predictions: str, cases: list[str], **place: Any) -> None:
    """Judge masks, which are those of the cases themselves; few labels, which are drawn in a moment."""
    chosen = ctspine1k.open_collection(**place).select(cases)
    chosen.evaluate(predictions, out, num_proc=num_proc, label_scheme="region")


def _count_scored(out: Path) -> int:
    """Cases that are noted, or in the table; one more for each file of the results."""
    journal, table = out / ".scores.partial", out / "cases.csv"
    noted = journal.read_bytes().count(b"\n") if journal.exists() else 0
    return max(noted, 8 if table.exists() else 0) + len(list(out.glob("[!.]*")))


def _files(out: Path) -> tuple[dict[str, bytes], set[str]]:
    return files_of(out), folders_of(out)


def _files_of_cache(out: Path) -> dict[str, bytes]:
    # The rest is of the Hub's client, which leaves files with other names behind after a kill.
    own = re.compile(r"copies/.*|hub/[^/]+/(snapshots/.*|refs/main|blobs/\w{64})")
    return {name: data for name, data in files_of(out).items() if own.fullmatch(name)}


def _count_files(out: Path) -> int:
    return sum(path.suffix == ".gz" or len(path.name) == 64 for path in out.rglob("*"))


def _count_masks(out: Path) -> int:
    return sum(path.parent.name in ("labelsTr", "labelsTs") for path in out.rglob("*.nii.gz"))


def _rows(out: Path) -> tuple[dict[str, pa.Table], set[str]]:
    """The rows of each conversion, and the names of all other files.

    `datasets` writes a file for each process, and notes that in its ``dataset_info.json``. Its locks have the
    whole path in their name.
    """
    rows: dict[str, list[pa.Table]] = {}
    for path in sorted(out.rglob("*.arrow")):
        with pa.memory_map(str(path)) as file:
            table = pa.ipc.open_stream(file).read_all()
        rows.setdefault(path.parent.relative_to(out).as_posix(), []).append(table)
    others = {path for path in out.rglob("*") if path.suffix != ".arrow"}
    tables = {folder: pa.concat_tables(parts).combine_chunks() for folder, parts in rows.items()}
    prefix = str(out).replace("/", "_")
    return tables, {path.relative_to(out).as_posix().removeprefix(prefix) for path in others}


def _bytes_of_rows(out: Path) -> int:
    """A case that is kept has two names."""
    status = [path.stat() for path in out.rglob("*.arrow")]
    return sum({one.st_ino: one.st_size for one in status}.values())


def _count_scanned(out: Path) -> int:
    if (table := out / "cases.parquet").exists():
        return pq.read_metadata(table).num_rows
    journal = out / ".cases.parquet.partial"
    return journal.read_text().count('"version"') if journal.exists() else 0
