"""What commands print: results to stdout, messages to stderr."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO

import click

__all__ = ["print_json", "print_table", "say", "write_csv"]


def say(text: str) -> None:
    """Write a message to stderr."""
    click.echo(text, err=True)


def print_json(value: object) -> None:
    """Print a value as JSON, in ASCII, since names of files need not be UTF-8."""
    click.echo(json.dumps(value, indent=2, default=str))


def print_table(rows: Sequence[Mapping[str, object]], columns: Iterable[str]) -> None:
    """Print rows with a header: in aligned columns on a terminal, elsewhere as tab-separated values."""
    if sys.stdout is not None and sys.stdout.isatty():
        click.echo(_aligned(rows, list(columns)))
        return
    out = io.StringIO()
    _write(out, rows, columns, delimiter="\t", lineterminator="\n")
    click.echo(out.getvalue(), nl=False)


def _aligned(rows: Sequence[Mapping[str, object]], columns: Sequence[str]) -> str:
    """Return rows with a header as text whose columns are two spaces apart."""
    lines = [columns, *(["" if row[name] is None else str(row[name]) for name in columns] for row in rows)]
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(map(str.ljust, line, widths)).rstrip()  # the last column may be empty
        for line in lines
    )


def write_csv(path: Path, rows: Sequence[Mapping[str, object]], columns: Iterable[str]) -> None:
    """Write rows as a CSV file, completely or not at all."""
    from ctspine1k.running.disk import atomic_write

    with (
        atomic_write(path) as written,
        written.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        _write(file, rows, columns, delimiter=",", lineterminator="\r\n")


def _write(
    file: IO[str],
    rows: Sequence[Mapping[str, object]],
    columns: Iterable[str],
    *,
    delimiter: str,
    lineterminator: str,
) -> None:
    writer = csv.DictWriter(
        file, list(columns), delimiter=delimiter, lineterminator=lineterminator, extrasaction="ignore"
    )
    writer.writeheader()
    writer.writerows(rows)
