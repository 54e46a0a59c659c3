"""A picture of one case: slices through the spine, with its labels and what is known about the case.

`ctspine1k.pictures.planes` chooses slices, and turns and colours them; this module lays them out, scaled by
the spacing. Pictures are not for diagnosis.
"""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ctspine1k.catalog.cases import Case
from ctspine1k.catalog.registry import data_set
from ctspine1k.catalog.vocabulary import BACKGROUND, Vocabulary
from ctspine1k.pictures.canvas import AMBER, BRIGHT, DIM, FACT_SIZE, new_figure, require_matplotlib
from ctspine1k.pictures.planes import Panel, Sample, label_colour, label_counts
from ctspine1k.volumes.cases import VolumePair
from ctspine1k.volumes.regions import centroid_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw_panel", "preview"]

_Pair: TypeAlias = "tuple[float, float]"


def preview(
    sample: Mapping[str, Any] | VolumePair,
    *,
    case: str | Case | None = None,
    label_scheme: str | None = None,
    vocabulary: Vocabulary | None = None,
) -> Figure:
    """Draw one case: axial, coronal and sagittal slices through the spine, with its labels and their names.

    A row of config "2d" is drawn as one slice. From a `LazyRow`, only the slices to be drawn are read of the
    image, and the segmentation a few slices at a time. Without the columns of ``geometry=True``, arrays are
    drawn as stored, with square pixels. Pictures are not for diagnosis.

    Args:
        sample: a row of config "3d" or "2d" in any format (``image`` in HU and, if there is a mask,
            ``segmentation``, of shape (k, i, j) or (i, j); optionally ``spacing`` in mm and ``orientation``,
            both in array order, and ``points``), a `LazyRow`, or a result of `read_pair`.
        case: the case for the title, with what is known about it; None for the one of ``patient_id``.
        label_scheme: the scheme of the segmentation, as passed to `load_dataset`; None for the data set's own
            labels.
        vocabulary: the labels of the data set; by default those of CTSpine1K.

    Returns:
        matplotlib.figure.Figure: with one axes per slice; a notebook shows it.

    Raises:
        ValueError: a row without the columns, with other shapes, or with a label that the scheme lacks.
        TypeError: ``sample`` is neither a row nor a pair.
        MissingPackageError: matplotlib is not installed.
    """
    matplotlib = require_matplotlib()
    vocabulary = vocabulary or data_set().vocabulary
    scheme = label_scheme or vocabulary.schemes[0]
    names = vocabulary.names(scheme)
    scan = Sample.of(sample, case)
    counts = label_counts(scan.labels, names, scheme)
    with matplotlib.style.context("default"):
        has_labels = bool(counts[0].any()) or not scan.has_mask
        return _drawn(scan.panels(counts), _title(scan, has_labels), names)


#: Joins the words of a fact, so that titles are not broken within it.
_NO_BREAK = "\N{NO-BREAK SPACE}"


def _title(scan: Sample, has_labels: bool) -> tuple[str, str, str]:
    """Return id, facts and known issues, one line each; a line is empty where nothing is known."""
    case = scan.case
    known = case.facts if case else {}
    facts = [known.get("source") or scan.source, case and case.split, *_geometry_facts(scan)]
    facts.append(known.get("special_case"))
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


# Lengths of the layout are in inches, sizes of text in points.
_WIDEST, _HIGHEST = 9.8, 4.8
_MARGIN, _GAP, _ABOVE, _BELOW = 0.2, 0.35, 0.33, 0.17  # around each panel there are letters and a name
_NARROWEST_CELL, _NARROWEST_FIGURE = 1.35, 3.6
_ID_SIZE, _NAME_SIZE = 9.5, 5.6


@dataclass(frozen=True)
class _Layout:
    """Where panels go; in inches, from the upper left corner."""

    boxes: list[tuple[float, float, float, float]]  #: left, top, width and height of each panel
    width: float
    height: float
    scale: float  #: inches per mm, the same in all panels


def _layout(sizes: Sequence[_Pair]) -> _Layout:
    """Return panels side by side, or with the last two in one column, whichever draws them larger.

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
    """Return the scale at which panels fit in these columns: inches per mm."""
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
    figure: Figure = new_figure(width, top + layout.height + _MARGIN / 2)
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
        draw_panel(axes, panel, layout.scale, names)
    return figure


@dataclass(frozen=True)
class _Line:
    """A line of text, and its style."""

    size: float
    colour: str
    weight: str
    letter: float  #: width of a letter, as a fraction of the size
    text: str = ""

    @property
    def height(self) -> float:
        return self.size * 1.45 / 72

    def lines(self, text: str, width: float) -> list[_Line]:
        """Return a text broken into lines that fit a figure of this width; none for an empty text."""
        letters = int((width - 2 * _MARGIN) * 72 / (self.letter * self.size))
        parts = textwrap.wrap(text, letters, break_on_hyphens=False)
        return [replace(self, text=part.replace(_NO_BREAK, " ")) for part in parts]


#: Id, facts and known issues.
_TITLE = (
    _Line(_ID_SIZE, BRIGHT, "bold", 0.72),
    _Line(FACT_SIZE, DIM, "normal", 0.62),
    _Line(FACT_SIZE, AMBER, "normal", 0.62),
)


def draw_panel(axes: Any, panel: Panel, scale: float, names: Mapping[int, str]) -> None:
    """Draw a slice into axes of its size, with its sides and the names of its labels.

    Args:
        axes: of matplotlib.
        panel: the slice.
        scale: inches per mm, so that names do not lie on each other.
        names: of all its labels.
    """
    row_mm, column_mm = panel.spacing
    axes.imshow(panel.pixels, aspect=row_mm / column_mm, origin="upper", interpolation="antialiased")
    axes.set_axis_off()
    axes.set_title(panel.name, size=FACT_SIZE, color=DIM, pad=12, parse_math=False)
    if panel.sides is not None:
        for letter, (x, y, ha, va) in zip(panel.sides, _SIDES, strict=True):
            style = {"size": FACT_SIZE, "color": BRIGHT, "ha": ha, "va": va, "annotation_clip": False}
            shift = (5 * x - 2.5, 5 * y - 2.5)  # points, outwards
            style |= {"xycoords": "axes fraction", "textcoords": "offset points"}
            axes.annotate(letter, (x, y), shift, **style)
    outline = require_matplotlib().patheffects.withStroke(linewidth=1.6, foreground="black")
    for name, (x, y) in _placed_names(panel, scale, names):
        style = {"size": _NAME_SIZE, "color": "white", "ha": "center", "va": "center", "weight": "bold"}
        axes.text(x, y, name, path_effects=[outline], clip_on=True, **style)
    _draw_points(axes, panel, names, outline)


def _draw_points(axes: Any, panel: Panel, names: Mapping[int, str], outline: Any) -> None:
    """Draw points as dots; those whose vertebra has no name in the slice get their name beside them."""
    if not panel.points:
        return
    axes.autoscale(False)
    named = {names.get(label) for label in np.unique(panel.labels).tolist()}
    for label, own_name, (x, y) in panel.points:
        name = own_name or names.get(label, str(label))
        colour = tuple(part / 255 for part in label_colour(label))
        axes.plot([x], [y], "o", markersize=3.2, color=colour, markeredgecolor="white", markeredgewidth=0.7)
        if name not in named:
            style = {"size": _NAME_SIZE, "color": "white", "va": "center", "weight": "bold"}
            style |= {"textcoords": "offset points", "annotation_clip": True}
            axes.annotate(name, (x, y), (4, 0), path_effects=[outline], **style)


#: Positions of a panel's letters, as fractions of its size: top, bottom, left, right.
_SIDES = (
    (0.5, 1, "center", "bottom"),
    (0.5, 0, "center", "top"),
    (0, 0.5, "right", "center"),
    (1, 0.5, "left", "center"),
)


def _placed_names(panel: Panel, scale: float, names: Mapping[int, str]) -> Iterator[tuple[str, _Pair]]:
    """Yield names and their positions in pixels: (x, y) of each label's centroid, or beside it.

    In a volume of few slices, names are higher than vertebrae, and are then moved sideways.
    """
    high = _NAME_SIZE * 1.25 / 72 / scale / panel.spacing[0]
    taken: list[tuple[float, float, float]] = []
    labels, sizes = np.unique(panel.labels[panel.labels != BACKGROUND], return_counts=True)
    for label in labels[np.argsort(-sizes, kind="stable")].tolist():  # the largest choose first
        y, x = centroid_of(panel.labels == label)
        wide = len(names[label]) * _NAME_SIZE * 0.8 / 72 / scale / panel.spacing[1]
        for step in itertools.count():  # to the right, to the left, further
            shifted = x + wide * ((step + 1) // 2) * (1 if step % 2 else -1)
            if not any(abs(y - y2) < high and abs(shifted - x2) < (wide + w2) / 2 for x2, y2, w2 in taken):
                break
        taken.append((shifted, y, wide))
        yield names[label], (shifted, y)
