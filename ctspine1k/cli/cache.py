"""The verb that lists and deletes converted rows."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from ctspine1k._messages import count_text, shortened, size_text
from ctspine1k.cli.options import FOLDER, JSON
from ctspine1k.cli.output import print_json, print_table, say
from ctspine1k.cli.verbs import verb
from ctspine1k.errors import BusyError, OutputError

__all__ = ["cache"]


@verb(
    "cache",
    click.argument("ids", metavar="[ID]...", nargs=-1),
    click.option("--cache-dir", type=FOLDER, help="The cache [that of datasets]."),
    click.option("--clear", is_flag=True, help="Delete the conversions listed."),
    click.option("--all", "every", is_flag=True, help="With --clear: all, not only those with an ID."),
    click.option("--unfinished", is_flag=True, help="Only what is left of conversions that were stopped."),
    JSON,
)
def cache(
    ids: tuple[str, ...], cache_dir: Path | None, clear: bool, every: bool, unfinished: bool, as_json: bool
) -> None:
    """List converted rows, or delete them.

    All of them, or only those with an ID, and what they were made from. What is left of a stopped conversion
    of volumes is used when that is run again.
    """
    from ctspine1k.rows.conversions import clear as delete
    from ctspine1k.rows.conversions import list_conversions

    if clear and not (ids or every or unfinished):
        raise click.UsageError("--clear needs an ID, --unfinished or --all.")
    if cache_dir is None:
        import datasets

        cache_dir = Path(datasets.config.HF_DATASETS_CACHE)
    found = list_conversions(cache_dir)
    if unknown := set(ids) - {one.id for one in found}:
        raise click.UsageError(
            f"no conversion {', '.join(sorted(unknown))} in {cache_dir}. `ctspine1k cache` lists their ids."
        )
    chosen = [one for one in found if (not ids or one.id in ids) and not (unfinished and one.is_finished)]
    kept = []
    for one in list(chosen) if clear else ():
        try:
            delete(one)
        except (BusyError, OSError, OutputError) as error:
            say(f"{one.id} is not deleted: {error}")
            kept.append(one.id)
            chosen.remove(one)
    if as_json:
        print_json([asdict(one) for one in chosen])
    else:
        rows = [
            {
                "id": one.id,
                "splits": " ".join(one.splits),
                "cases": one.cases,
                "bytes": one.bytes,
                "state": "finished" if one.is_finished else "unfinished",
                "options": " ".join(f"{name}={value}" for name, value in one.options.items()),
                "from": one.place,
            }
            for one in chosen
        ]
        print_table(rows, ("id", "splits", "cases", "bytes", "state", "options", "from"))
    size = size_text(sum(one.bytes for one in chosen))
    count = count_text(len(chosen), "conversion")
    say(f"{count}, {size}, {'deleted from' if clear else 'in'} {cache_dir}")
    if kept:
        hint = "Delete them when nobody writes them, as the user whose they are."
        raise OutputError(
            str(cache_dir), "conversions that can be deleted", f"others: {shortened(kept)}", hint
        )
