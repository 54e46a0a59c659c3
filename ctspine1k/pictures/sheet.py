"""A contact sheet: one sagittal slice of each of many cases, side by side in one picture.

Pictures are not for diagnosis.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ctspine1k._messages import count_text
from ctspine1k.catalog.cases import Case
from ctspine1k.catalog.registry import data_set
from ctspine1k.catalog.vocabulary import Vocabulary
from ctspine1k.pictures.canvas import AMBER, BRIGHT, DIM, DPI, FACT_SIZE, new_figure, require_matplotlib
from ctspine1k.pictures.planes import SAGITTAL, Sample, label_colour, label_counts
from ctspine1k.volumes.cases import VolumePair

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["contact_sheet"]

#: Lengths in pixels: of a thumbnail's longer side, of the cell around it, of the header, and of the border.
_SIDE = 160
_CELL_WIDTH, _CELL_HEIGHT, _HEADER, _BORDER = _SIDE + 10, _SIDE + 24, 22, 6

_LONGEST_TITLE = 27


def contact_sheet(
    samples: Iterable[tuple[Case | str, Mapping[str, Any] | VolumePair]],
    *,
    vocabulary: Vocabulary | None = None,
) -> Figure:
    """Draw one sagittal slice of each of many cases side by side, with labels and points, without names.

    A case with known issues (`Case.issues`) has an amber title and a mark. A sample is released after its
    slice is cut, so that an iterator needs memory for only one at a time. All 1,005 cases of CTSpine1K fit
    into a picture of less than 8,000 pixels per side.

    Args:
        samples: for each case, the case or its id, and a row of config "3d" or a result of `read_pair`, as
            for `preview`.
        vocabulary: the labels that segmentations may contain; by default those of CTSpine1K.

    Returns:
        matplotlib.figure.Figure: with one axes, which has one image of at most 160 pixels per side per case.

    Raises:
        ValueError: no samples, or one that `preview` rejects, or a row of config "2d".
        TypeError: a sample that is neither a row nor a pair.
        MissingPackageError: matplotlib is not installed.
    """
    matplotlib = require_matplotlib()
    # Not a loop: its variable would keep the last sample in memory while the next one is made.
    of_labels = vocabulary or data_set().vocabulary
    thumbnails = list(itertools.starmap(partial(_Thumbnail.of, of_labels), samples))
    if not thumbnails:
        raise ValueError("samples: expected at least one case, found none")
    with matplotlib.style.context("default"):
        return _drawn(thumbnails)


@dataclass(frozen=True)
class _Thumbnail:
    """One case on a contact sheet."""

    name: str
    pixels: NDArray[np.uint8]  #: (rows, columns, 3), of which the larger is `_SIDE`
    has_issues: bool

    @classmethod
    def of(
        cls, vocabulary: Vocabulary, case: Case | str, sample: Mapping[str, Any] | VolumePair
    ) -> _Thumbnail:
        """Return the sagittal slice of a case, made small."""
        scan = Sample.of(sample, case)
        if scan.is_slice:
            raise ValueError(f"{scan.case_id}: expected a volume, a row of config '3d'; found a single slice")
        scheme = vocabulary.schemes[0]
        counts = label_counts(scan.labels, vocabulary.names(scheme), scheme)
        panel = scan.panel(SAGITTAL, scan.indices(counts)[SAGITTAL])
        longer = max(panel.size)
        # Pixels of equal size, by nearest-neighbour sampling of the slice.
        rows, columns = (
            _strides(size, max(1, round(_SIDE * length / longer)))
            for size, length in zip(panel.labels.shape, panel.size[::-1], strict=True)
        )
        has_issues = scan.case is not None and bool(scan.case.issues)
        pixels = panel.pixels[rows][:, columns]
        for label, _, (x, y) in panel.points:
            down, right = (
                min(int((at + 0.5) * wanted / size), wanted - 1)
                for at, wanted, size in zip((y, x), pixels.shape, panel.labels.shape, strict=False)
            )
            _mark(pixels, down, right, label_colour(label))
        return cls(str(scan.case_id), pixels, has_issues)


def _mark(pixels: NDArray[np.uint8], down: int, right: int, colour: tuple[int, int, int]) -> None:
    """Draw a dot with a white rim: the vertebra around a point has the same colour."""
    for reach, shade in ((2, (255, 255, 255)), (1, colour)):
        place = tuple(slice(max(0, at - reach), at + reach + 1) for at in (down, right))
        pixels[place] = shade


def _strides(size: int, wanted: int) -> NDArray[np.int64]:
    """Return ``wanted`` indices along an axis, at equal steps, each in the middle of its step."""
    return ((np.arange(wanted) + 0.5) * size / wanted).astype(np.int64)


def _drawn(thumbnails: Sequence[_Thumbnail]) -> Figure:
    columns = min(len(thumbnails), math.ceil(math.sqrt(len(thumbnails) * _CELL_HEIGHT / _CELL_WIDTH)))
    width = columns * _CELL_WIDTH + 2 * _BORDER
    height = math.ceil(len(thumbnails) / columns) * _CELL_HEIGHT + _HEADER + 2 * _BORDER
    figure: Figure = new_figure(width / DPI, height / DPI)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set(xlim=(0, width), ylim=(height, 0), autoscale_on=False)
    with_issues = sum(thumbnail.has_issues for thumbnail in thumbnails)
    cases = count_text(len(thumbnails), "case")
    header = f"{cases}, {with_issues:,} with known issues (!)" if with_issues else cases
    axes.text(_BORDER + 4, _BORDER, header, size=FACT_SIZE, color=DIM, va="top", clip_on=True)
    for number, thumbnail in enumerate(thumbnails):
        row, column = divmod(number, columns)
        x, y = _BORDER + column * _CELL_WIDTH, _BORDER + _HEADER + row * _CELL_HEIGHT
        _draw_thumbnail(axes, thumbnail, x, y)
    return figure


def _draw_thumbnail(axes: Any, thumbnail: _Thumbnail, x: int, y: int) -> None:
    """Draw a thumbnail, its name above it, in the cell whose upper left corner is at (x, y)."""
    name = _shortened_middle(thumbnail.name, _LONGEST_TITLE)
    text, colour = (f"! {name}", AMBER) if thumbnail.has_issues else (name, BRIGHT)
    style = {"size": 5.1, "color": colour, "ha": "center", "va": "center", "parse_math": False}
    axes.text(x + _CELL_WIDTH / 2, y + 9, text, clip_on=True, **style)
    high, wide = thumbnail.pixels.shape[:2]
    left, top = x + (_CELL_WIDTH - wide) // 2, y + 18 + (_SIDE - high) // 2
    place = {"extent": (left, left + wide, top + high, top), "aspect": "auto", "origin": "upper"}
    axes.imshow(thumbnail.pixels, interpolation="nearest", **place)


def _shortened_middle(text: str, limit: int) -> str:
    kept = limit - 1
    return text if len(text) <= limit else f"{text[: kept - kept // 2]}…{text[-(kept // 2) :]}"
