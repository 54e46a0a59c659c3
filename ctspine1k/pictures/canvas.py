"""Shared by all pictures: an empty figure in whole pixels, its colours, and how it is written to a file.

Figures are made without pyplot, so that they need no display and no global state. matplotlib is imported when
the first picture is drawn.
"""

from __future__ import annotations

import functools
import io
import math
import os
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from ctspine1k.errors import MissingPackageError
from ctspine1k.running.disk import atomic_write, require_replaceable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "AMBER",
    "BRIGHT",
    "DIM",
    "DPI",
    "FACT_SIZE",
    "check_picture_name",
    "new_figure",
    "require_matplotlib",
    "require_replaceable_picture",
    "save_picture",
]

#: What each picture says of its origin. It keeps time and matplotlib's version out of the file.
_NAME = "ctspine1k"

#: Options of `savefig` that write it, by the suffixes of pictures.
_OPTIONS: dict[str, dict[str, Any]] = {
    ".png": {"metadata": {"Software": _NAME}},
    ".jpg": {"pil_kwargs": {"comment": _NAME.encode()}},
    ".pdf": {"metadata": {"CreationDate": None, "Creator": _NAME, "Producer": None}},
    ".svg": {"metadata": {"Date": None, "Creator": _NAME}},
}

#: How it is written in each of them.
_MARKS = (
    b"tEXtSoftware\x00ctspine1k",
    b"\xff\xfe\x00\x0bctspine1k",
    b"/Creator (ctspine1k)",
    b"<dc:title>ctspine1k</dc:title>",
)

#: How a PDF begins, which has it near the end, and the bytes at the beginning of the others that have it.
_PDF = b"%PDF-"
_HEAD_BYTES = 1024

#: Colours of the figure, and of text on it.
_DARK, BRIGHT, DIM, AMBER = "#101014", "#f2f2f2", "#b4b4bc", "#f0b860"

#: A power of two, so that whole pixels are exact in inches, and rounding loses none.
DPI = 128

#: Size in points of the text with facts.
FACT_SIZE = 6.7


def require_matplotlib() -> Any:
    """Import matplotlib, with the modules that pictures use.

    Raises:
        MissingPackageError: it is not installed.
    """
    try:
        import matplotlib
        import matplotlib.figure
        import matplotlib.patheffects
        import matplotlib.style
    except ImportError:
        raise MissingPackageError("pictures", "matplotlib", "preview") from None
    return matplotlib


def new_figure(width: float, height: float) -> Any:
    """Return an empty figure of this size in inches, rounded up to whole pixels."""
    size = [math.ceil(length * DPI) / DPI for length in (width, height)]
    return _picture_class()(figsize=size, dpi=DPI, facecolor=_DARK)


def save_picture(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure as PNG, JPEG, PDF or SVG, by the suffix of its name, completely or not at all.

    A picture that was written here before is replaced. The same figure gives the same bytes with the same
    matplotlib.

    Raises:
        ValueError: the suffix is another one.
        OutputError: something else is there.
        FileNotFoundError: there is no such folder.
    """
    target = check_picture_name(Path(path))
    require_replaceable_picture(target)
    suffix = target.suffix.lower()
    with atomic_write(target) as written, written.open("wb") as file:
        _write(figure, file, suffix)


def check_picture_name(path: Path) -> Path:
    """Return a path if its suffix is one of a picture.

    Raises:
        ValueError: it is another one.
    """
    if path.suffix.lower() not in _OPTIONS:
        raise ValueError(f"{path}: expected a name that ends in {', '.join(_OPTIONS)}, found {path.suffix!r}")
    return path


def require_replaceable_picture(path: Path) -> None:
    """Check that nothing is at a path but a picture that `save_picture` wrote.

    Raises:
        OutputError: something else is there, such as a picture of one's own.
    """
    require_replaceable(path, "a picture of `ctspine1k`", _is_ours, another="path")


def _is_ours(file: IO[bytes]) -> bool:
    head = file.read(_HEAD_BYTES)
    if head.startswith(_PDF):
        head += file.read()
    return any(mark in head for mark in _MARKS)


@functools.cache
def _picture_class() -> Any:
    """Return matplotlib's Figure class with the method by which notebooks show it."""
    return type("Picture", (require_matplotlib().figure.Figure,), {"_repr_png_": _png})


def _png(figure: Any) -> bytes:
    with io.BytesIO() as file:
        _write(figure, file, ".png")
        return file.getvalue()


def _write(figure: Any, file: IO[bytes], suffix: str) -> None:
    matplotlib = require_matplotlib()
    # The default style, since the user's own could crop, recolour or typeset the figure differently.
    with matplotlib.style.context("default"), matplotlib.rc_context({"svg.hashsalt": "ctspine1k"}):
        colour = figure.get_facecolor()
        figure.savefig(file, format=suffix[1:], dpi=figure.dpi, facecolor=colour, **_OPTIONS[suffix])
