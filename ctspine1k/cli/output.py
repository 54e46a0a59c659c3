"""What commands print: results to stdout, messages to stderr."""

from __future__ import annotations

import csv
import io
import json
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
    """Print rows as tab-separated values, with a header."""
    out = io.StringIO()
    _write(out, rows, columns, delimiter="\t", lineterminator="\n")
    click.echo(out.getvalue(), nl=False)


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
