"""An export: the rows of `load_dataset` as Parquet files that load without this package.

::

    OUT/3d/train/00000-of-00153.parquet    all rows of some cases (`ctspine1k.exports.shards`)
    OUT/2d/...
    OUT/cases.parquet                      what is known about each case
    OUT/README.md                          the card (`ctspine1k.exports.card`)
    OUT/manifest.json                      what each file was made from; written last

Each shard is one item of work, for a process of this machine or a worker of a Dask cluster.
"""

from __future__ import annotations

import os

from ctspine1k._messages import warn
from ctspine1k.errors import SkippedCasesWarning
from ctspine1k.exports.cases_table import case_table
from ctspine1k.exports.opening import open_target
from ctspine1k.exports.options import ExportOptions
from ctspine1k.exports.run import Export, ExportReport
from ctspine1k.exports.targets import Target
from ctspine1k.files.selection import Selection, case_files, require_cases
from ctspine1k.running.stops import deferred_interrupts
from ctspine1k.running.work import Executor

__all__ = ["export_parquet"]


def export_parquet(
    selection: Selection,
    out: str | os.PathLike[str] | Target,
    options: ExportOptions,
    workers: Executor | None = None,
) -> ExportReport:
    """Write the rows of a selection as Parquet; see `Collection.export_parquet`.

    Args:
        selection: the cases, and where their files are.
        out: a folder, or an fsspec URL.
        options: options of the export.
        workers: the executor that makes the shards; None for the one of the options.

    Raises:
        ValueError: an option that the data set does not have, ``out`` is the folder of the raw files, or no
            case is selected.
        CTSpine1KError: the errors of `Collection.export_parquet`.
    """
    rows = options.rows(selection.data_set)
    target = open_target(out, options.pauses) if isinstance(out, (str, os.PathLike)) else out
    folder = selection.look.place.folder
    if folder is not None and target.is_at(folder):
        raise ValueError(f"out={target.describe()!r} is data_dir: use a separate folder")
    files, missing = case_files(require_cases(selection), options.on_missing, rows[0].kinds)
    if missing:
        warn(missing.summary, SkippedCasesWarning)
    export = Export(selection, target, options, rows, workers or options.workers())
    tasks = export.plan(files, {} if missing is None else missing.reasons)
    table = case_table(selection, files, options.scan_table)
    with deferred_interrupts(), target.exclusive_lock():
        return export.run(tasks, table)
