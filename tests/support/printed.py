"""What commands print."""

from __future__ import annotations

import csv
import io


def table(text: str) -> list[dict[str, str]]:
    """Read tab-separated values with a header."""
    return list(csv.DictReader(io.StringIO(text), delimiter="\t"))
