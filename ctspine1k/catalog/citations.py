"""Whom to cite, and under what terms the data may be used."""

from __future__ import annotations

from pathlib import Path

__all__ = ["LICENCE", "TERMS", "bibtex"]

LICENCE = "CC BY-NC-SA"

#: What the licence asks for.
TERMS = "attribution, no commercial use, share alike"


def bibtex() -> list[str]:
    """Give the BibTeX entries: of the data set, then of its four sources."""
    text = (Path(__file__).parent / "facts/ctspine1k/citations.bib").read_text(encoding="utf-8")
    return [entry.strip() for entry in text.split("\n\n")]
