"""The verb that downloads raw files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ctspine1k.catalog.dataset import KINDS
from ctspine1k.cli.options import CASES, FOLDER, JSON, ON_MISSING, PLACE, chosen
from ctspine1k.cli.output import print_json, print_table, say
from ctspine1k.cli.verbs import verb
from ctspine1k.collection import Collection

__all__ = ["download"]


@verb(
    "download",
    *PLACE,
    *CASES,
    click.option("--kind", type=click.Choice(KINDS), help="Only files of this kind."),
    ON_MISSING,
    click.option("--to", type=FOLDER, help="Copy the files to this folder, in the published layout."),
    click.option("--link", is_flag=True, help="With --to: make symbolic links instead of copies."),
    click.option("--dry-run", is_flag=True, help="Print files, bytes and free disk; download nothing."),
    JSON,
)
def download(
    kind: Any,
    on_missing: Any,
    to: Path | None,
    link: bool,
    dry_run: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Download raw files to the Hub's local cache, and check them.

    Prints their paths. Files in the cache are not fetched again, and an interrupted transfer resumes where it
    stopped. With --to, the paths printed are those of the copies; copies that are there are kept.
    """
    from ctspine1k.files.transfer import progress_on_terminal

    if link and to is None:
        raise click.UsageError("--link needs --to: a folder for the links.")
    collection = chosen(**options)
    if dry_run:
        _plan(collection, kind, on_missing or "raise", to, link=link, as_json=as_json)
        return
    with progress_on_terminal():
        paths = collection.download(kind, on_missing=on_missing or "raise", to=to, link=link)
    if as_json:
        print_json(paths)
    else:
        click.echo("".join(f"{path}\n" for path in paths), nl=False)


def _plan(
    collection: Collection, kind: Any, on_missing: str, to: Path | None, *, link: bool, as_json: bool
) -> None:
    """Print what a download, and copies to a folder, would do, and raise the error that it would raise."""
    from ctspine1k.files.copies import find_targets
    from ctspine1k.files.transfer import plan_download
    from ctspine1k.running.disk import free_bytes

    to = None if to is None else to.expanduser()
    selection = collection.selection()
    plan = plan_download(selection, kind)
    rows = [{"size": file.size, "here": file not in plan.needed, "path": file.name} for file in plan.files]
    if as_json:
        totals = {"bytes": plan.bytes, "bytes_to_download": plan.bytes_needed, "bytes_free": plan.bytes_free}
        print_json({"files": rows, **totals, "cache": plan.cache})
    else:
        print_table(
            [{**row, "here": "yes" if row["here"] else "no"} for row in rows], ("size", "here", "path")
        )
    say(
        f"{len(plan.needed):,} of {len(plan.files):,} files to download, {plan.bytes_needed:,} bytes "
        f"({plan.bytes_needed / 1e9:,.2f} GB){plan.free_text}"
    )
    if to is not None and not link:
        say(
            f"copies take up to {plan.bytes:,} bytes ({plan.bytes / 1e9:,.2f} GB); "
            f"{free_bytes(to) / 1e9:,.2f} GB are free in {to}"
        )
    if plan.missing and on_missing == "raise":
        raise plan.missing
    if plan.missing:
        say(f"warning: {plan.missing.summary}")
    if to is not None:
        find_targets(selection, plan.files, to)
