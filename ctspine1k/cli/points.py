"""The verb that prints or writes points."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ctspine1k.cli.options import (
    CASES,
    DIRECTORY,
    FOLDER,
    JSON,
    MASKS,
    NUM_PROC,
    ON_ERROR,
    ON_MISSING,
    OTHER_LABELS,
    PLACE,
    READING,
    SCHEDULER,
    chosen,
    default_num_proc,
    require_somewhere,
)
from ctspine1k.cli.output import print_json, print_table
from ctspine1k.cli.verbs import verb

__all__ = ["points"]

_COLUMNS = ("case_id", "kind", "label", "vertebra", "k", "i", "j", "x_mm", "y_mm", "z_mm")


@verb(
    "points",
    DIRECTORY,
    *PLACE,
    *CASES,
    MASKS,
    click.option(
        "--kind",
        type=click.Choice(["file", "mask", "body"]),
        required=True,
        help="From the data set's files; or computed: centres of whole masks, or of vertebral bodies.",
    ),
    READING,
    OTHER_LABELS,
    click.option("--out", type=FOLDER, help="Write a JSON file per case, as VerSe has them, to this folder."),
    ON_MISSING,
    ON_ERROR,
    NUM_PROC,
    SCHEDULER,
    JSON,
)
def points(
    kind: Any,
    reading: str | None,
    other_labels: Any,
    out: Path | None,
    on_missing: Any,
    on_error: Any,
    num_proc: int | None,
    scheduler: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Print one point for each vertebra of each case, or write them.

    On a terminal, columns are aligned; in a file or a pipe, they are separated by tabs.

    Voxels (k, i, j) are those of the image as stored, slice first; x, y and z are RAS+ mm. They are rounded
    to 0.001, except with --json and --out.
    """
    require_somewhere(options)
    collection = chosen(**options)
    how: dict[str, Any] = {
        "reading": reading,
        "other_labels": other_labels or "raise",
        "num_proc": default_num_proc(num_proc, scheduler),
        "scheduler": scheduler,
        "on_missing": on_missing or "raise",
        "on_error": on_error or "raise",
    }
    if out is not None:
        paths = collection.write_points(out, kind, **how)
        if as_json:
            print_json(paths)
        else:
            for path in paths:
                click.echo(path)
        return
    found = {case.case_id: list(own) for case, own in collection.points(kind, **how)}
    rows = [
        dict(zip(_COLUMNS, (case.case_id, kind, one.label, one.name, *one.voxel, *one.mm), strict=True))
        for case in collection
        for one in found.get(case.case_id, ())
    ]
    if as_json:
        print_json(rows)
    else:
        rounded = [
            {key: round(at, 3) if isinstance(at, float) else at for key, at in row.items()} for row in rows
        ]
        print_table(rounded, _COLUMNS)
