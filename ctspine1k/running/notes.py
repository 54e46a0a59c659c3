"""Notes of what is done, appended to a file one by one, so that a stopped run loses nothing.

Each is a line after its sha256: a line that is incomplete, or was damaged on the disk, is not read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

__all__ = ["append_notes", "note_line", "read_notes"]


def note_line(note: str) -> str:
    """Return the line of a note, a text without line breaks in ASCII, as JSON is."""
    return f"{hashlib.sha256(note.encode()).hexdigest()} {note}"


def append_notes(path: Path, notes: Iterable[str]) -> None:
    """Append notes to a file."""
    with path.open("a", encoding="ascii", newline="\n") as file:
        for note in notes:
            # The line break comes first: a stopped run may have left an incomplete last line.
            file.write(f"\n{note_line(note)}")


def read_notes(path: Path) -> Iterator[str]:
    """Yield the intact notes in a file; none if there is no file."""
    text = path.read_bytes().decode("ascii", errors="replace") if path.exists() else ""
    for line in text.split("\n"):
        _, _, note = line.partition(" ")
        if line.isascii() and line == note_line(note):
            yield note
