"""Verbs that print what is known about cases, labels and terms; all of them work offline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import click

from ctspine1k._messages import shortened
from ctspine1k.catalog.registry import data_set, load_catalog
from ctspine1k.catalog.vocabulary import Vertebra
from ctspine1k.cli.options import CASE_ID, CASES, COLLECTION, JSON, PLACE, SPLIT_FILE, VERTEBRA, chosen
from ctspine1k.cli.output import print_json, print_table, say
from ctspine1k.cli.verbs import verb
from ctspine1k.collection import Collection

__all__ = ["cite", "info", "list_cases", "vertebrae"]


@verb(
    "list",
    *PLACE,
    *CASES,
    click.option("--files", is_flag=True, help="List raw files instead of cases."),
    JSON,
)
def list_cases(
    has_vertebrae: tuple[str, ...], scan: Path | None, files: bool, as_json: bool, **options: Any
) -> None:
    """List the cases selected, or their raw files.

    On a terminal, columns are aligned; in a file or a pipe, they are separated by tabs.

    Cases are those of the catalogue (or of --split-file), listed offline, whether or not their files are in
    --data-dir. --files lists the files that are there. --has-vertebrae reads the table of a scan, and keeps
    cases of which it knows nothing, with a warning.
    """
    collection = chosen(scan=None if has_vertebrae else scan, **options)
    if has_vertebrae:
        collection = _containing(collection, has_vertebrae, scan)
    if files:
        _list_files(collection, as_json)
        return
    if options["data_dir"] is not None and not has_vertebrae:
        _say_what_is_listed(collection)
    if as_json:
        print_json([case.document() for case in collection])
    else:
        columns = ("case_id", "split", "index", *collection.data_set.listed, "issues")
        print_table([case.row() for case in collection], columns)


def _containing(collection: Collection, vertebrae: Sequence[str], scan: Path | None) -> Collection:
    """Return the cases that `Collection.where` keeps; warn about those of which no scan knows anything."""
    from ctspine1k.scans.containing import cases_containing

    found = cases_containing(collection.selection(), vertebrae, scan)
    found.warn()
    if found.without_files:
        listed = shortened((case.case_id for case in found.without_files), limit=3)
        say(
            "warning: cases listed without files, so that no scan knows what they contain: "
            f"{len(found.without_files):,}: {listed}. Get these files, and run `ctspine1k scan`."
        )
    return replace(collection, cases=found.kept)


def _say_what_is_listed(collection: Collection) -> None:
    """Print that cases are those of the catalogue, and how many of them have files in the folder."""
    there = {file.case.case_id for file in collection.selection().files(every=True)}
    say(
        f"cases of the catalogue: {len(collection):,}; of these with files in "
        f"{collection.place.describe()}: {len(there):,} (--files lists them)"
    )


def _list_files(collection: Collection, as_json: bool) -> None:
    files = collection.files()
    if as_json:
        names = ("kind", "size", "path", "local", "url", "sha256")
        print_json(
            [
                {"case_id": file.case.case_id, **{name: getattr(file, name) for name in names}}
                for file in files
            ]
        )
    else:
        rows = [
            {"case_id": file.case.case_id, "kind": file.kind, "size": file.size, "path": file.name}
            for file in files
        ]
        print_table(rows, ("case_id", "kind", "size", "path"))


@verb("info", click.argument("case_id", metavar="CASE", type=CASE_ID), COLLECTION, SPLIT_FILE, JSON)
def info(case_id: str, collection: str, split_file: Path | None, as_json: bool) -> None:
    """Print all that is known about CASE, offline."""
    case = load_catalog(collection, split_file=split_file)[case_id]
    document = case.document()
    if as_json:
        print_json(document)
        return
    del document["issues"]
    for name, value in document.items():
        click.echo(f"{name:14} {'-' if value is None else value}")
    for issue in case.issues:
        click.echo(f"{'issue':14} {issue.kind} ({issue.evidence}): {issue.detail}\n{'':14} {issue.reference}")
    if not case.issues:
        click.echo(f"{'issues':14} none known")


@verb(
    "vertebrae",
    click.argument("which", metavar="[NAME|LABEL]...", nargs=-1, type=VERTEBRA),
    COLLECTION,
    JSON,
)
def vertebrae(which: tuple[str, ...], collection: str, as_json: bool) -> None:
    """Print labels, names, and numbers in other data sets.

    volumes is the number of volumes that contain each; totalsegmentator means its task "total" in version 2.
    """
    vocabulary = data_set(collection).vocabulary
    labels = [vocabulary.label(one) for one in which]
    own = vocabulary.schemes[0]  # whose numbers the labels are
    columns = [field.name for field in fields(Vertebra) if field.name not in ("is_variant", own)]
    rows = [
        {column: getattr(one, column) for column in columns}
        for one in vocabulary.vertebrae
        if not labels or one.label in labels
    ]
    if as_json:
        print_json(rows)
    else:
        print_table(rows, columns)


@verb("cite", COLLECTION, JSON)
def cite(collection: str, as_json: bool) -> None:
    """Print the licence, and the BibTeX of the data set and sources."""
    chosen_set = data_set(collection)
    licence, entries = chosen_set.licence, chosen_set.citations()
    if as_json:
        print_json({"licence": licence.name, "terms": licence.terms, "bibtex": entries})
        return
    text = chosen_set.licence_text(chosen_set.read_cases(None))
    # BibTeX ignores text between entries.
    click.echo("\n\n".join([f"% The data are under {text}.", *entries]))
