"""Pictures of cases: slices through the spine with its labels, and a sheet of many cases.

What is drawn is chosen, turned and coloured in `ctspine1k.pictures.planes`; here it is laid out, and
stretched by the spacing. Figures are made without pyplot, so that they need no display and leave no state
behind. Pictures are not for diagnosis.
"""

from __future__ import annotations

import functools
import io
import itertools
import math
import os
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ctspine1k.catalog.cases import Case
from ctspine1k.errors import MissingPackageError
from ctspine1k.pictures.planes import Panel, Sample, Thumbnail, label_counts, label_names
from ctspine1k.running.disk import atomic_write
from ctspine1k.volumes.cases import VolumePair
from ctspine1k.volumes.vertebrae import BACKGROUND, MAX_LABEL, LabelScheme

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["check_picture_name", "contact_sheet", "preview", "save_picture"]

#: Suffixes of pictures, and what keeps the time and the version out of each.
_METADATA: dict[str, dict[str, None] | None] = {
    ".png": {"Software": None},
    ".jpg": None,
    ".pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    ".svg": {"Date": None, "Creator": None},
}

_BACKGROUND, _BRIGHT, _DIM, _AMBER = "#101014", "#f2f2f2", "#b4b4bc", "#f0b860"

#: A power of two: a whole number of pixels is so many inches exactly, and no pixel is lost to rounding.
_DPI = 128

_Pair: TypeAlias = "tuple[float, float]"


def preview(
    sample: Mapping[str, Any] | VolumePair,
    *,
    case: str | Case | None = None,
    label_scheme: LabelScheme = "ctspine1k",
) -> Figure:
    """Draw one case: axial, coronal and sagittal slices through the spine, with its labels and their names.

    A row of config "2d" is drawn as the one slice that it is. Of a `LazyRow`, the image is read by slices
    and the segmentation some slices at a time. Without the columns of ``geometry=True``, arrays are drawn as
    they lie, with square pixels. What a picture shows is not for diagnosis.

    Args:
        sample: a row of config "3d" or "2d" in any format (``image`` in HU and ``segmentation``, of shape
            (k, i, j) or (i, j); with ``spacing`` in mm and ``orientation``, both in array order, if it has
            them), a `LazyRow`, or what `read_pair` gives.
        case: what the title tells of; None for the case of the row's ``patient_id``.
        label_scheme: what the numbers in the segmentation stand for, as `load_dataset` was told.

    Returns:
        matplotlib.figure.Figure: with one axes a slice; a notebook shows it.

    Raises:
        ValueError: a row without the columns, of another shape, or with a label that the scheme lacks.
        TypeError: it is neither row nor pair.
        MissingPackageError: matplotlib is not installed.
    """
    matplotlib = _require_matplotlib()
    names = label_names(label_scheme)
    scan = Sample.of(sample, case)
    counts = label_counts(scan.labels, names, label_scheme)
    with matplotlib.style.context("default"):
        return _drawn(scan.panels(counts), _title(scan, bool(counts[0].any())), names)


def contact_sheet(samples: Iterable[tuple[Case | str, Mapping[str, Any] | VolumePair]]) -> Figure:
    """Draw the sagittal slice of many cases side by side, with labels and without their names.

    A case with known issues (`Case.issues`) has an amber title and a mark. Each sample is let go once its
    slice is cut, so that an iterator needs memory for one at a time. All 1,005 cases fit into a picture of
    less than 8,000 pixels a side.

    Args:
        samples: for each case, the case or its id, and a row of config "3d" or what `read_pair` gives, as
            for `preview`.

    Returns:
        matplotlib.figure.Figure: with one axes, and in it one image of at most 160 pixels a side per case.

    Raises:
        ValueError: no samples, or one that `preview` refuses, or a row of config "2d".
        TypeError: a sample that is neither row nor pair.
        MissingPackageError: matplotlib is not installed.
    """
    matplotlib = _require_matplotlib()
    # Not a loop, whose variable would hold the last sample while the next is made.
    thumbnails = list(itertools.starmap(Thumbnail.of, samples))
    if not thumbnails:
        raise ValueError("samples: expected at least one case, found none")
    with matplotlib.style.context("default"):
        return _drawn_sheet(thumbnails)


def save_picture(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure as PNG, JPEG, PDF or SVG, which its name tells: all of the file, or nothing.

    What is there already is replaced. One figure gives the same bytes with the same matplotlib.

    Raises:
        ValueError: the name ends in something else.
        FileNotFoundError: there is no such folder.
    """
    target = check_picture_name(Path(path))
    suffix = target.suffix.lower()
    with atomic_write(target) as written, written.open("wb") as file:
        _write(figure, file, suffix)


def check_picture_name(path: Path) -> Path:
    """Return a path if its suffix is one of a picture.

    Raises:
        ValueError: it ends in something else.
    """
    if path.suffix.lower() not in _METADATA:
        raise ValueError(
            f"{path}: expected a name that ends in {', '.join(_METADATA)}, found {path.suffix!r}"
        )
    return path


def _require_matplotlib() -> Any:
    """Give matplotlib with what pictures use of it.

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


#: Holds the words of one fact together where a title is broken into lines.
_NO_BREAK = "\N{NO-BREAK SPACE}"


def _title(scan: Sample, has_labels: bool) -> tuple[str, str, str]:
    """Give id, facts and known issues, a line each; empty where there is nothing to tell."""
    case = scan.case
    facts = [(case and case.source) or scan.source, case and case.split, *_geometry_facts(scan)]
    facts.append(case and case.special_case)
    if not has_labels:
        facts.append("no labels in this slice" if scan.is_slice else "no labels")
    issues = dict.fromkeys(f"{issue.kind} ({issue.evidence})" for issue in case.issues) if case else {}
    return (
        scan.case_id or "",
        f"{_NO_BREAK}· ".join(fact.replace(" ", _NO_BREAK) for fact in facts if fact),
        "known: " * bool(issues) + ", ".join(issue.replace(" ", _NO_BREAK) for issue in issues),
    )


def _geometry_facts(scan: Sample) -> Iterator[str]:
    if scan.spacing is None:
        yield "spacing not in the row: load with geometry=True"
    else:
        between, *within = scan.spacing
        yield f"{' x '.join(f'{size:.2f}' for size in (*within, between))} mm (in plane x between slices)"
        if scan.pixel_sizes != scan.spacing:
            yield "drawn with square pixels"
    if scan.has_no_direction or (scan.orientation is None and scan.spacing is not None):
        yield "orientation not known: drawn as stored"


# Lengths of the layout are in inches, text sizes in points.
_WIDEST, _HIGHEST = 9.8, 4.8
_MARGIN, _GAP, _ABOVE, _BELOW = 0.2, 0.35, 0.33, 0.17  # around each panel there are letters and a name
_NARROWEST_CELL, _NARROWEST_FIGURE = 1.35, 3.6
_ID_SIZE, _FACT_SIZE, _NAME_SIZE = 9.5, 6.7, 5.6


@dataclass(frozen=True)
class _Layout:
    """Where panels go; in inches, from the upper left corner."""

    boxes: list[tuple[float, float, float, float]]  #: left, top, width and height of each panel
    width: float
    height: float
    scale: float  #: inches per mm, the same in all panels


def _layout(sizes: Sequence[_Pair]) -> _Layout:
    """Put panels side by side, or the last two in one column, whichever draws them larger.

    Args:
        sizes: width and height of each panel in mm.
    """
    every = list(range(len(sizes)))
    arrangements = [[[n] for n in every], [every[:1], every[1:]]] if len(sizes) > 1 else [[every]]
    scale, columns = max(((_scale(sizes, columns), columns) for columns in arrangements), key=lambda s: s[0])
    boxes, left, height = {}, _MARGIN, 0.0
    for column in columns:
        cell = max(_NARROWEST_CELL, *(sizes[n][0] * scale for n in column))
        top = 0.0
        for n in column:
            width, high = sizes[n][0] * scale, sizes[n][1] * scale
            boxes[n] = (left + (cell - width) / 2, top + _ABOVE, width, high)
            top += _ABOVE + high + _BELOW
        left += cell + _GAP
        height = max(height, top)
    return _Layout([boxes[n] for n in every], left - _GAP + _MARGIN, height, scale)


def _scale(sizes: Sequence[_Pair], columns: Sequence[Sequence[int]]) -> float:
    """Tell how large panels can be drawn in these columns: inches per mm."""
    width = sum(max(sizes[n][0] for n in column) for column in columns)
    room = _WIDEST - 2 * _MARGIN - _GAP * (len(columns) - 1)
    heights = (
        (_HIGHEST - len(column) * (_ABOVE + _BELOW)) / sum(sizes[n][1] for n in column) for column in columns
    )
    return min(room / width, *heights)


def _drawn(panels: Sequence[Panel], title: Sequence[str], names: Mapping[int, str]) -> Figure:
    layout = _layout([panel.size for panel in panels])
    width = max(layout.width, _NARROWEST_FIGURE)
    lines = [line for text, style in zip(title, _TITLE, strict=True) for line in style.lines(text, width)]
    top = _MARGIN + sum(line.height for line in lines)
    figure: Figure = _figure(width, top + layout.height + _MARGIN / 2)
    width, height = figure.get_size_inches()
    y = height - _MARGIN
    for line in lines:
        style: dict[str, Any] = {"size": line.size, "color": line.colour, "weight": line.weight}
        figure.text(_MARGIN / width, y / height, line.text, va="top", parse_math=False, **style)
        y -= line.height
    aside = (width - layout.width) / 2
    for panel, (left, down, wide, high) in zip(panels, layout.boxes, strict=True):
        bottom = height - top - down - high
        axes = figure.add_axes(((left + aside) / width, bottom / height, wide / width, high / height))
        _draw_panel(axes, panel, layout.scale, names)
    return figure


@dataclass(frozen=True)
class _Line:
    """A line of text, and how it looks."""

    size: float
    colour: str
    weight: str
    letter: float  #: width of one, as part of the size
    text: str = ""

    @property
    def height(self) -> float:
        return self.size * 1.45 / 72

    def lines(self, text: str, width: float) -> list[_Line]:
        """Break a text so that it fits a figure of this width; an empty one is no line."""
        letters = int((width - 2 * _MARGIN) * 72 / (self.letter * self.size))
        parts = textwrap.wrap(text, letters, break_on_hyphens=False)
        return [replace(self, text=part.replace(_NO_BREAK, " ")) for part in parts]


#: Id, facts and known issues.
_TITLE = (
    _Line(_ID_SIZE, _BRIGHT, "bold", 0.72),
    _Line(_FACT_SIZE, _DIM, "normal", 0.62),
    _Line(_FACT_SIZE, _AMBER, "normal", 0.62),
)


def _draw_panel(axes: Any, panel: Panel, scale: float, names: Mapping[int, str]) -> None:
    row_mm, column_mm = panel.spacing
    axes.imshow(panel.pixels, aspect=row_mm / column_mm, origin="upper", interpolation="antialiased")
    axes.set_axis_off()
    axes.set_title(panel.name, size=_FACT_SIZE, color=_DIM, pad=12, parse_math=False)
    if panel.sides is not None:
        for letter, (x, y, ha, va) in zip(panel.sides, _SIDES, strict=True):
            style = {"size": _FACT_SIZE, "color": _BRIGHT, "ha": ha, "va": va, "annotation_clip": False}
            shift = (5 * x - 2.5, 5 * y - 2.5)  # points, outwards
            style |= {"xycoords": "axes fraction", "textcoords": "offset points"}
            axes.annotate(letter, (x, y), shift, **style)
    outline = _require_matplotlib().patheffects.withStroke(linewidth=1.6, foreground="black")
    for name, (x, y) in _placed_names(panel, scale, names):
        style = {"size": _NAME_SIZE, "color": "white", "ha": "center", "va": "center", "weight": "bold"}
        axes.text(x, y, name, path_effects=[outline], clip_on=True, **style)


#: Where the letters of a panel stand, as fractions of it: top, bottom, left, right.
_SIDES = (
    (0.5, 1, "center", "bottom"),
    (0.5, 0, "center", "top"),
    (0, 0.5, "right", "center"),
    (1, 0.5, "left", "center"),
)


def _placed_names(panel: Panel, scale: float, names: Mapping[int, str]) -> Iterator[tuple[str, _Pair]]:
    """Yield names and where they stand, in pixels: (x, y) of each label's centre, or beside it.

    In a thin slab of slices, vertebrae are less high than their names: these are moved sideways then.
    """
    high = _NAME_SIZE * 1.25 / 72 / scale / panel.spacing[0]
    taken: list[tuple[float, float, float]] = []
    labels, sizes = np.unique(panel.labels[panel.labels != BACKGROUND], return_counts=True)
    for label in labels[np.argsort(-sizes, kind="stable")].tolist():  # the largest have the first choice
        y, x = (float(indices.mean()) for indices in np.nonzero(panel.labels == label))
        wide = len(names[label]) * _NAME_SIZE * 0.8 / 72 / scale / panel.spacing[1]
        for step in range(2 * MAX_LABEL):  # to the right, to the left, further
            shifted = x + wide * ((step + 1) // 2) * (1 if step % 2 else -1)
            if not any(abs(y - y2) < high and abs(shifted - x2) < (wide + w2) / 2 for x2, y2, w2 in taken):
                break
        taken.append((shifted, y, wide))
        yield names[label], (shifted, y)


#: Pixels of a contact sheet.
_CELL_WIDTH, _CELL_HEIGHT, _HEADER, _BORDER = Thumbnail.SIDE + 10, Thumbnail.SIDE + 24, 22, 6
_LONGEST_TITLE = 27


def _drawn_sheet(thumbnails: Sequence[Thumbnail]) -> Figure:
    columns = min(len(thumbnails), math.ceil(math.sqrt(len(thumbnails) * _CELL_HEIGHT / _CELL_WIDTH)))
    width = columns * _CELL_WIDTH + 2 * _BORDER
    height = math.ceil(len(thumbnails) / columns) * _CELL_HEIGHT + _HEADER + 2 * _BORDER
    figure: Figure = _figure(width / _DPI, height / _DPI)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set(xlim=(0, width), ylim=(height, 0), autoscale_on=False)
    with_issues = sum(thumbnail.has_issues for thumbnail in thumbnails)
    cases = "1 case" if len(thumbnails) == 1 else f"{len(thumbnails):,} cases"
    header = f"{cases}, {with_issues:,} with known issues (!)" if with_issues else cases
    axes.text(_BORDER + 4, _BORDER, header, size=_FACT_SIZE, color=_DIM, va="top", clip_on=True)
    for number, thumbnail in enumerate(thumbnails):
        row, column = divmod(number, columns)
        x, y = _BORDER + column * _CELL_WIDTH, _BORDER + _HEADER + row * _CELL_HEIGHT
        _draw_thumbnail(axes, thumbnail, x, y)
    return figure


def _draw_thumbnail(axes: Any, thumbnail: Thumbnail, x: int, y: int) -> None:
    """Draw a thumbnail in the cell whose upper left corner is there, its name above it."""
    name = _shortened_middle(thumbnail.name, _LONGEST_TITLE)
    text, colour = (f"! {name}", _AMBER) if thumbnail.has_issues else (name, _BRIGHT)
    style = {"size": 5.1, "color": colour, "ha": "center", "va": "center", "parse_math": False}
    axes.text(x + _CELL_WIDTH / 2, y + 9, text, clip_on=True, **style)
    high, wide = thumbnail.pixels.shape[:2]
    left, top = x + (_CELL_WIDTH - wide) // 2, y + 18 + (Thumbnail.SIDE - high) // 2
    place = {"extent": (left, left + wide, top + high, top), "aspect": "auto", "origin": "upper"}
    axes.imshow(thumbnail.pixels, interpolation="nearest", **place)


def _shortened_middle(text: str, limit: int) -> str:
    kept = limit - 1
    return text if len(text) <= limit else f"{text[: kept - kept // 2]}…{text[-(kept // 2) :]}"


def _figure(width: float, height: float) -> Any:
    """Make an empty figure of this size in inches, made up to whole pixels."""
    size = [math.ceil(length * _DPI) / _DPI for length in (width, height)]
    return _picture_class()(figsize=size, dpi=_DPI, facecolor=_BACKGROUND)


@functools.cache
def _picture_class() -> Any:
    """Give matplotlib's Figure, with what shows it in a notebook."""
    return type("Picture", (_require_matplotlib().figure.Figure,), {"_repr_png_": _png})


def _png(figure: Any) -> bytes:
    with io.BytesIO() as file:
        _write(figure, file, ".png")
        return file.getvalue()


def _write(figure: Any, file: IO[bytes], suffix: str) -> None:
    matplotlib = _require_matplotlib()
    # Not as the user's own style says: it could crop, recolour or typeset what we laid out.
    with matplotlib.style.context("default"), matplotlib.rc_context({"svg.hashsalt": "ctspine1k"}):
        colour = figure.get_facecolor()
        figure.savefig(file, format=suffix[1:], dpi=figure.dpi, facecolor=colour, metadata=_METADATA[suffix])
