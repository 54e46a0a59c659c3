"""Verbs that write the data set in other forms."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from ctspine1k.cli.options import (
    CASES,
    JSON,
    MASKS,
    ON_ERROR,
    ON_MISSING,
    ON_VOXELS,
    OTHER_LABELS,
    PLACE,
    READING,
    SCHEDULER,
    CompletedText,
    chosen,
    is_given,
    label_schemes,
    require_somewhere,
)
from ctspine1k.cli.output import print_json
from ctspine1k.cli.verbs import DEBUG, Verbs, help_if_bare, verb

if TYPE_CHECKING:
    from ctspine1k.exports.nnunet import NnunetReport
    from ctspine1k.exports.run import ExportReport

__all__ = ["export"]

LABEL_SCHEME = click.option(
    "--label-scheme",
    type=CompletedText("scheme", label_schemes),
    help="What masks contain, such as binary [labels as they are].",
)
ON_GEOMETRY = click.option(
    "--on-geometry",
    type=click.Choice(["raise", "warn"]),
    help="If headers leave in doubt where voxels lie: raise an error, or warn [warn].",
)


@click.group("export", cls=Verbs, invoke_without_command=True)
@DEBUG
@click.pass_context
def export(ctx: click.Context) -> int | None:
    """Write the data set in a form that loads without this package."""
    return help_if_bare(ctx)


@verb(
    "parquet",
    click.argument("out", type=click.Path()),
    click.option("--config", type=click.Choice(["3d", "2d", "all"]), help="Volumes, slices, or both [all]."),
    *PLACE,
    *CASES,
    MASKS,
    click.option(
        "--image-size",
        type=int,
        nargs=2,
        metavar="I J",
        help="Size that slices must have; none is resized [512 512; any where slices differ].",
    ),
    click.option(
        "--orientation", metavar="CODE", help="Target orientation of the volumes, such as RAS [as stored]."
    ),
    LABEL_SCHEME,
    OTHER_LABELS,
    click.option(
        "--geometry",
        is_flag=True,
        help="Add columns source, spacing, affine, array_affine, orientation, n_labelled.",
    ),
    click.option(
        "--points/--no-points",
        default=None,
        help="Add the column points, or leave it out [add it if each case must have a file of them].",
    ),
    READING,
    ON_MISSING,
    ON_ERROR,
    ON_GEOMETRY,
    ON_VOXELS,
    click.option("--cases-per-shard", type=click.IntRange(min=1), help="Cases per shard (file) [4]."),
    click.option(
        "--num-proc",
        type=click.IntRange(min=1),
        help="Number of processes; each needs up to 9 GB of memory for 3d, 0.5 GB for 2d [1].",
    ),
    SCHEDULER,
    click.option("--verify", is_flag=True, help="Read all existing shards, and make damaged ones again."),
    JSON,
)
def parquet(
    out: str, reading: str | None, geometry: bool, verify: bool, as_json: bool, **options: Any
) -> int:
    """Write Parquet files, a table of cases, a card and a manifest.

    OUT is a folder or an fsspec URL. A stopped export resumes where it was. The exit status is 0, or 1 if
    some shards failed; the others are made.
    """
    from ctspine1k.files.transfer import progress_on_terminal

    own = is_given({name: options.pop(name) for name in _OWN})
    if reading is not None:  # which in Python is a value of points=
        if own.get("points") is False:
            raise click.UsageError("--no-points leaves out what --reading is for: give one.")
        own["points"] = reading
    require_somewhere(options)
    if options["scan"] is not None:
        own["scan"] = options["scan"]
    collection = chosen(uses_scan=True, **options)
    with progress_on_terminal(), _ended_by_sigterm():
        report = collection.export_parquet(out, geometry=geometry, verify=verify, **own)
    return _told(report, as_json)


#: Options of the export itself.
_OWN = (
    *("config", "image_size", "orientation", "label_scheme", "other_labels", "points"),
    *("on_missing", "on_error", "on_geometry", "on_voxels"),
    *("cases_per_shard", "num_proc", "scheduler"),
)


@verb(
    "nnunet",
    click.argument("out", type=click.Path()),
    click.option("--id", type=click.IntRange(1, 999), help="Number of the data set in nnU-Net [511]."),
    click.option("--name", help="Name of the data set in nnU-Net [the data set's own]."),
    click.option("--only", metavar="SPLIT", help="Export only the cases of this split, such as train."),
    click.option("--copy", is_flag=True, help="Copy files instead of making symbolic links."),
    click.option("--plain-ids", is_flag=True, help="Replace dots in the ids of cases by _."),
    *PLACE,
    *CASES,
    MASKS,
    LABEL_SCHEME,
    OTHER_LABELS,
    ON_MISSING,
    ON_ERROR,
    ON_GEOMETRY,
    click.option(
        "--num-proc", type=click.IntRange(min=1), help="Number of processes; each needs 0.3 GB of memory [1]."
    ),
    JSON,
)
def nnunet(out: str, copy: bool, plain_ids: bool, as_json: bool, **options: Any) -> int:
    """Write nnU-Net's raw format, with links to the raw files.

    It is a folder in OUT, such as $nnUNet_raw. A stopped export resumes where it was. The exit status is 0,
    or 1 if some cases failed; the others are exported.
    """
    from ctspine1k.files.transfer import progress_on_terminal

    own = is_given({name: options.pop(name) for name in _OWN_OF_NNUNET})
    require_somewhere(options)
    collection = chosen(**options)
    with progress_on_terminal(), _ended_by_sigterm():
        report = collection.export_nnunet(out, copy=copy, plain_ids=plain_ids, **own)
    return _told(report, as_json)


_OWN_OF_NNUNET = (
    *("id", "name", "only", "label_scheme", "other_labels"),
    *("on_missing", "on_error", "on_geometry", "num_proc"),
)

for _command in (parquet, nnunet):
    export.add_command(_command)


def _told(report: ExportReport | NnunetReport, as_json: bool) -> int:
    """Print a report, and return the exit status."""
    if as_json:
        print_json({**asdict(report), "ok": report.ok})
    else:
        click.echo(report.summary())
    return 0 if report.ok else 1


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Raise KeyboardInterrupt on SIGTERM, which clusters send when the time limit of a job is reached."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
