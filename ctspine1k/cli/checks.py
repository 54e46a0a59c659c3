"""Verbs that read raw files: scan and verify."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ctspine1k._messages import count_text
from ctspine1k.cli.options import (
    CASES,
    DIRECTORY,
    FILE,
    JSON,
    MASKS,
    NUM_PROC,
    ON_MISSING,
    ON_VOXELS,
    OTHER_LABELS,
    PLACE,
    READING,
    SCHEDULER,
    chosen,
    default_num_proc,
    is_given,
    require_somewhere,
)
from ctspine1k.cli.output import print_json, say, write_csv
from ctspine1k.cli.verbs import verb

if TYPE_CHECKING:
    from ctspine1k.collection import Collection

__all__ = ["scan", "verify"]


@verb(
    "scan",
    DIRECTORY,
    *PLACE,
    *CASES,
    MASKS,
    click.option(
        "--out",
        type=FILE,
        help="The table of cases to write [cases.parquet in DIR or that of --masks, or for the Hub in the "
        "working directory].",
    ),
    READING,
    OTHER_LABELS,
    ON_VOXELS,
    ON_MISSING,
    NUM_PROC,
    SCHEDULER,
    JSON,
)
def scan(
    out: Path | None,
    reading: str | None,
    other_labels: Any,
    on_voxels: Any,
    on_missing: Any,
    num_proc: int | None,
    scheduler: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Measure every case: shape, spacing, HU, and each vertebra. Writes two Parquet tables.

    NAME.parquet has one row per case, NAME.vertebrae.parquet one row per vertebra. A stopped scan resumes
    where it was. A second scan reads only files that have changed. Cases that cannot be used are named, and
    their rows say why: the exit status is 0 then, too.
    """
    require_somewhere(options)
    report = chosen(**options).scan(
        out,
        num_proc=default_num_proc(num_proc, scheduler),
        scheduler=scheduler,
        **is_given({"reading": reading, "other_labels": other_labels}),
        **is_given({"on_voxels": on_voxels, "on_missing": on_missing}),
    )
    if as_json:
        print_json(asdict(report))
        return
    click.echo(f"{report.cases}\n{report.vertebrae}")
    for case_id, problem in report.problems.items():
        say(f"warning: {case_id}: {problem}")
    say(
        f"{count_text(report.measured, 'case')} measured, "
        f"{report.kept:,} kept from before, {len(report.problems):,} unusable"
    )


@verb(
    "verify",
    DIRECTORY,
    *PLACE,
    *CASES,
    MASKS,
    click.option("--reread", is_flag=True, help="Read every file again, even if a scan has read it."),
    READING,
    OTHER_LABELS,
    ON_VOXELS,
    click.option("--out", type=FILE, help="Also write the findings to this CSV file."),
    NUM_PROC,
    SCHEDULER,
    JSON,
)
def verify(
    reread: bool,
    reading: str | None,
    other_labels: Any,
    on_voxels: Any,
    out: Path | None,
    num_proc: int | None,
    scheduler: str | None,
    as_json: bool,
    **options: Any,
) -> int:
    """Check that files are there, complete, consistent and plausible.

    Files that a scan has read, and that have not changed since, are not read again. The exit status is 0 if
    nothing was found, 1 if something was, 2 if it could not be done.
    """
    from ctspine1k.checks.verify import Finding
    from ctspine1k.running.disk import make_parent

    require_somewhere(options)
    collection = chosen(uses_scan=True, **options)
    if out is not None:
        _check_out(out, collection)
        make_parent(out)
    report = collection.verify(
        options["scan"],
        reread=reread,
        num_proc=default_num_proc(num_proc, scheduler),
        scheduler=scheduler,
        **is_given({"reading": reading, "other_labels": other_labels, "on_voxels": on_voxels}),
    )
    if as_json:
        print_json({**asdict(report), "ok": report.ok})
    else:
        click.echo(report.summary())
    if out is not None:
        rows = [{**asdict(finding), "known": " ".join(finding.known)} for finding in report.findings]
        write_csv(out, rows, Finding.__dataclass_fields__)
    return 0 if report.ok else 1


def _check_out(out: Path, collection: Collection) -> None:
    """Check that findings at a path replace no other file, and are not taken for one of the data set.

    Raises:
        OutputError: there is another file.
        ValueError: the name is that of a raw file, the split file or a scan's table.
    """
    from ctspine1k.checks.verify import Finding
    from ctspine1k.running.disk import require_replaceable

    header = ",".join(Finding.__dataclass_fields__).encode()
    require_replaceable(
        out,
        "findings of `ctspine1k verify`",
        lambda file: file.readline(2 * len(header)).strip() == header,
        "--out",
    )
    data_set, folder = collection.data_set, collection.place.folder
    is_split_file = folder is not None and out.resolve() == (folder / data_set.split_file).resolve()
    is_raw = out.name.lower().endswith(data_set.suffixes) or data_set.parse_name(out.name)
    if is_split_file or is_raw or out.suffix == ".parquet":
        raise ValueError(
            f"{out}: expected the name of a CSV file, such as findings.csv, found one of a file of "
            f"{data_set.title}, or of a scan's table"
        )
