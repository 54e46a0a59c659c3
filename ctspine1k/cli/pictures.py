"""The verb that draws cases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ctspine1k.catalog.registry import load_catalog
from ctspine1k.cli.options import (
    CASES,
    JSON,
    MASKS,
    OTHER_LABELS,
    PLACE,
    READING,
    CompletedText,
    FilePath,
    case_ids,
    chosen,
    is_given,
    require_somewhere,
)
from ctspine1k.cli.output import print_json
from ctspine1k.cli.verbs import verb
from ctspine1k.errors import UnknownCaseError

__all__ = ["preview"]


@verb(
    "preview",
    click.argument(
        "target",
        metavar="[CASE|DIR]",
        required=False,
        type=CompletedText("case or folder", case_ids, or_folder=True),
    ),
    *PLACE,
    *CASES,
    MASKS,
    click.option(
        "--out",
        type=FilePath(path_type=Path),
        help="The picture file [CASE.png, sheet.png]; for several pictures, their folder [previews].",
    ),
    click.option("--sheet", is_flag=True, help="Draw all cases into one picture."),
    READING,
    OTHER_LABELS,
    JSON,
)
def preview(
    target: str | None,
    out: Path | None,
    sheet: bool,
    reading: str | None,
    other_labels: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Draw cases with their labels: axial, coronal, sagittal slices.

    CASE is an id. DIR is a folder, the same as --data-dir DIR. Prints the path of each picture.
    """
    if target == "":
        raise click.UsageError("CASE or DIR: expected an id or a folder, found an empty string.")
    if target is not None:
        catalog = load_catalog(options["collection"], split_file=options["split_file"])
        if target not in catalog and Path(target).is_dir():
            options["directory"] = Path(target)
        elif target not in catalog and options["data_dir"] is None:  # nor in a split file that is in a folder
            try:
                catalog[target]
            except UnknownCaseError as error:
                raise click.UsageError(f"CASE or DIR: no folder {target!r}, and {error}") from None
        else:
            options["cases"] = (target, *options["cases"])
    require_somewhere(options)
    own = is_given({"reading": reading, "other_labels": other_labels})
    pictures = chosen(**options).preview(out, sheet=sheet, **own)
    if as_json:
        print_json(pictures)
        return
    for path in pictures:
        click.echo(path)
