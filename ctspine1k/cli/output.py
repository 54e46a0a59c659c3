"""What commands print: results to stdout, messages to stderr."""

from __future__ import annotations

import csv
import io
import json
import re
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
    """Return rows with a header as text, in columns two spaces apart; those of numbers end at the right."""
    lines = [columns, *(["" if row[name] is None else str(row[name]) for name in columns] for row in rows)]
    padded = map(_padded, zip(*lines, strict=True))
    return "\n".join("  ".join(line).rstrip() for line in zip(*padded, strict=True))


#: A number as a cell shows it. Facts of cases, such as an age, are texts.
_NUMBER = re.compile(r"-?\d+(\.\d+)?(e[+-]?\d+)?")


def _padded(column: Sequence[str]) -> list[str]:
    """Return the cells of a column, of which the first is its name, in equal widths."""
    width, filled = max(map(len, column)), [cell for cell in column[1:] if cell]
    is_of_numbers = bool(filled) and all(map(_NUMBER.fullmatch, filled))
    return [cell.rjust(width) if is_of_numbers else cell.ljust(width) for cell in column]


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
