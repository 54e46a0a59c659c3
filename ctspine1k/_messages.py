"""Wording that messages share."""

from __future__ import annotations

import html
import itertools
import operator
import re
import sys
import warnings
from collections.abc import Iterable, Sequence
from types import FrameType
from typing import TypeVar

__all__ = [
    "check_choice",
    "check_count",
    "count_text",
    "difference_text",
    "html_table",
    "shortened",
    "size_text",
    "warn",
    "without_stop",
]

Choice = TypeVar("Choice", bound="str | None")


def size_text(count: int) -> str:
    """Return a number of bytes in GB, or in MB if it is less than 0.1 GB."""
    return f"{count / 1e9:,.2f} GB" if count >= 1e8 else f"{count / 1e6:,.2f} MB"


def count_text(count: int, noun: str) -> str:
    """Return a number of things, such as "1 case" or "1,005 cases"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def shortened(names: Iterable[object], limit: int = 10) -> str:
    """Return names joined for a message: the first ``limit``, and the number of the others."""
    names = list(names)
    more = f" and {len(names) - limit:,} more" if len(names) > limit else ""
    return ", ".join(map(str, names[:limit])) + more


def without_stop(text: str) -> str:
    """Return a text without the full stop at its end, for a sentence that goes on after it.

    Messages of other packages often have one. That of an ellipsis, or of a path such as "..", stays.
    """
    return re.sub(r"(?<=[^./\\\s])\.\s*\Z", "", text)


def difference_text(where: str, expected: str, found: str, hint: str) -> str:
    """Return the message that something else was found than was expected, and what to do."""
    return f"{where}: expected {expected}, found {without_stop(found)}. {hint}"


def html_table(
    title: str, header: Sequence[str], rows: Iterable[Sequence[object]], count: int, limit: int = 10
) -> str:
    """Return a table for notebooks: the first ``limit`` of ``count`` rows, and the number of the others."""

    def text(cell: object) -> str:
        if cell is None:
            return ""
        return html.escape(f"{cell:.6g}" if isinstance(cell, float) else str(cell))

    def line(tag: str, cells: Iterable[object]) -> str:
        return f"<tr>{''.join(f'<{tag}>{text(cell)}</{tag}>' for cell in cells)}</tr>"

    shown = "".join(line("td", row) for row in itertools.islice(rows, limit))
    more = f"<p>and {count - limit:,} more</p>" if count > limit else ""
    return f"<p>{html.escape(title)}</p><table>{line('th', header)}{shown}</table>{more}"


def check_choice(name: str, value: Choice, allowed: Sequence[str], *, or_none: bool = False) -> Choice:
    """Return ``value`` if it is one of the allowed values; or None, if it may be.

    Raises:
        ValueError: it is not; the message lists the allowed values.
    """
    if value not in allowed and not (value is None and or_none):
        other = ", or None" if or_none else ""
        raise ValueError(f"{name}={value!r}: expected one of {', '.join(map(repr, allowed))}{other}")
    return value


def check_count(name: str, value: object, least: int, *, or_none: bool = False) -> None:
    """Check that ``value`` is a whole number, of any type, and not too small; or None, if it may be.

    Raises:
        ValueError: it is not; the message says what is expected.
    """
    if value is None and or_none:
        return
    kind = ""
    try:
        if not isinstance(value, bool) and operator.index(value) >= least:  # type: ignore[arg-type]
            return
    except TypeError:
        kind = "a whole number, "
    other = ", or None" if or_none else ""
    raise ValueError(f"{name}={value!r}: expected {kind}{least} or more{other}")


def warn(message: str, category: type[Warning]) -> None:
    """Issue a warning located at the line that called this package, however deep the call is.

    Frames of ``contextlib`` are skipped, too, as context managers have them.
    """
    level = 1
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _OWN_FRAMES:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


_OWN_FRAMES = ("ctspine1k", "contextlib")
