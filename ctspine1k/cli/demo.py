"""The verb that demonstrates the library with a phantom."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

from ctspine1k.cli.options import COLLECTION, FOLDER
from ctspine1k.cli.output import say
from ctspine1k.cli.verbs import verb
from ctspine1k.errors import MissingPackageError

__all__ = ["demo"]


@verb(
    "demo",
    COLLECTION,
    click.option(
        "--out",
        type=FOLDER,
        help="Keep the phantom, and a picture, in this new or empty folder [nothing is kept].",
    ),
)
def demo(collection: str, out: Path | None) -> None:
    """Make a small phantom of a data set and load it, offline."""
    from ctspine1k.demo.run import draw_phantom, load_phantom

    with tempfile.TemporaryDirectory(prefix="ctspine1k-") as scratch:
        root = out or Path(scratch) / "phantom"
        for line in load_phantom(root, Path(scratch) / "cache", collection):
            click.echo(line)
        if out is None:
            return
        say(f"The files are in {root}")
        try:
            say(f"A picture of a case is {draw_phantom(root, collection)}")
        except MissingPackageError as error:  # a demo must not fail because an extra is not installed
            say(f"no picture: {error}")
