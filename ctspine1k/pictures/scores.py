"""Pictures of an evaluation: values by vertebra, labels taken for others, and cases side by side."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ctspine1k.pictures.canvas import (
    AMBER,
    BRIGHT,
    DIM,
    FACT_SIZE,
    new_figure,
    require_matplotlib,
    require_replaceable_picture,
    save_picture,
)
from ctspine1k.pictures.figures import draw_panel
from ctspine1k.pictures.planes import SAGITTAL, Panel, Sample, choose_slices, label_counts
from ctspine1k.volumes.masks import Judged

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["check_pictures", "confusion", "draw_scores", "side_by_side", "values_by_vertebra"]

#: The pictures of an evaluation.
_VERTEBRAE, _CONFUSION, _WORST = "vertebrae.png", "confusion.png", "worst.png"

_LINE = "#6aa9e9"

#: Of the cases side by side: mm around labels, and mm that are as long as an inch.
_MARGIN_MM, _MM_PER_INCH = 20.0, 110.0

#: Inches: the room around each slice, above it for the title, the least for a title, and the widest picture.
_AROUND, _ABOVE, _TITLE, _WIDEST = 0.25, 0.45, 2.6, 9.8


def values_by_vertebra(
    values: Mapping[str, Sequence[float]], measure: str, *, is_share: bool = False
) -> Figure:
    """Draw the values of a measure as a box for each vertebra, with every value as a dot.

    Args:
        values: by the name of the vertebra, in order.
        measure: its name.
        is_share: whether its values are from 0 to 1: such pictures have one scale.

    Raises:
        MissingPackageError: matplotlib is not installed.
    """
    with require_matplotlib().style.context("default"):
        figure: Figure = new_figure(max(3.6, 0.9 + 0.28 * len(values)), 2.9)
        axes = figure.add_axes((0.7 / figure.get_figwidth(), 0.17, 1 - 0.85 / figure.get_figwidth(), 0.7))
        _style(axes)
        random = np.random.default_rng(0)
        for place, own in enumerate(values.values(), start=1):
            beside = place + random.uniform(-0.15, 0.15, len(own))
            axes.plot(beside, own, ".", color=AMBER, markersize=2, alpha=0.7)
        line = {"color": _LINE, "linewidth": 0.8}
        style: dict[str, Any] = {f"{part}props": line for part in ("box", "whisker", "cap")}
        style["medianprops"] = {"color": BRIGHT, "linewidth": 1.0}
        axes.boxplot([list(own) for own in values.values()], widths=0.6, showfliers=False, **style)
        axes.set_xticks(range(1, len(values) + 1), list(values), size=FACT_SIZE, color=DIM)
        if is_share:
            axes.set_ylim(-0.03, 1.03)
        axes.set_title(f"{measure} by vertebra", size=FACT_SIZE + 1, color=BRIGHT)
        return figure


def confusion(counts: NDArray[np.int64], rows: Sequence[str], columns: Sequence[str]) -> Figure:
    """Draw which label most voxels of each vertebra of the reference have in the prediction.

    Args:
        counts: vertebrae, (rows, columns).
        rows: names in the reference.
        columns: names in the prediction; the last one for vertebrae that have no label there.

    Raises:
        MissingPackageError: matplotlib is not installed.
    """
    with require_matplotlib().style.context("default"):
        side = max(2.6, 0.24 * max(counts.shape))
        figure: Figure = new_figure(side + 0.9, side + 0.9)
        axes = figure.add_axes(
            (0.75 / (side + 0.9), 0.6 / (side + 0.9), side / (side + 0.9), side / (side + 0.9))
        )
        _style(axes)
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        axes.imshow(shares, cmap="magma", vmin=0, vmax=1, interpolation="nearest", aspect="auto")
        for row, column in zip(*counts.nonzero(), strict=True):
            colour = "black" if shares[row, column] > 0.6 else "white"
            style: dict[str, Any] = {"size": 5, "ha": "center", "va": "center", "color": colour}
            axes.text(column, row, str(counts[row, column]), **style)
        axes.set_xticks(range(len(columns)), list(columns), size=5, color=DIM, rotation=90)
        axes.set_yticks(range(len(rows)), list(rows), size=5, color=DIM)
        axes.set_xlabel("prediction", size=FACT_SIZE, color=DIM)
        axes.set_ylabel("reference", size=FACT_SIZE, color=DIM)
        return figure


def _style(axes: Any) -> None:
    axes.set_facecolor("none")
    axes.tick_params(colors=DIM, labelsize=FACT_SIZE, length=2, width=0.5)
    for spine in axes.spines.values():
        spine.set(color=DIM, linewidth=0.5)


def side_by_side(cases: Iterable[Judged], names: Mapping[int, str]) -> Figure:
    """Draw one sagittal slice of each case twice: with the labels of the reference, and of the prediction.

    The slice is the one with most of both, cut to the spine. Cases are in rows. Each is released before the
    next one is made.

    Args:
        cases: at least one.
        names: of all labels.

    Raises:
        ValueError: no cases, or a label without a name.
        MissingPackageError: matplotlib is not installed.
    """
    matplotlib = require_matplotlib()
    drawn = list(map(partial(_panels, names), cases))
    if not drawn:
        raise ValueError("cases: expected at least one, found none")
    sizes = [tuple(side / _MM_PER_INCH for side in panels[0].size) for _, panels in drawn]
    widths = [max(2 * (wide + _AROUND), _TITLE) for wide, _ in sizes]
    heights = [_ABOVE + high + _AROUND for _, high in sizes]
    places, width, height = _rows(widths, heights)
    with matplotlib.style.context("default"):
        figure: Figure = new_figure(width, height)
        width, height = figure.get_size_inches()
        for (title, panels), (across, down), (left, top) in zip(drawn, sizes, places, strict=True):
            style: dict[str, Any] = {"size": FACT_SIZE, "color": BRIGHT, "va": "top", "parse_math": False}
            figure.text(left / width, 1 - (top + 0.06) / height, title, **style)
            for number, (panel, what) in enumerate(zip(panels, ("reference", "prediction"), strict=True)):
                start, bottom = left + number * (across + _AROUND), height - top - _ABOVE - down
                box = (start / width, bottom / height, across / width, down / height)
                draw_panel(figure.add_axes(box), replace(panel, name=what), 1 / _MM_PER_INCH, names)
        return figure


def _rows(
    widths: Sequence[float], heights: Sequence[float]
) -> tuple[list[tuple[float, float]], float, float]:
    """Return where cells begin, from the left and from the top, in rows; the width and height of all."""
    places: list[tuple[float, float]] = []
    left, top, high, widest = _AROUND, 0.0, 0.0, 0.0
    for wide, own in zip(widths, heights, strict=True):
        if places and left + wide > _WIDEST:
            left, top, high = _AROUND, top + high, 0.0
        places.append((left, top))
        left, high = left + wide + _AROUND, max(high, own)
        widest = max(widest, left)
    return places, widest, top + high


def _panels(names: Mapping[int, str], case: Judged) -> tuple[str, list[Panel]]:
    """Return the title of a case, and its slice with either labels."""
    columns = {"segmentation": case.reference, "spacing": case.spacing, "orientation": case.orientation}
    sample = Sample.of({"image": case.reference, **columns}, None)  # until the slice is known
    both = np.where(case.reference != 0, case.reference, case.prediction)
    index = choose_slices(sample.view.counts(label_counts(both, names, "")))[SAGITTAL]
    axis, stored = sample.view.stored_index(SAGITTAL, index, both.shape)
    # Every slice along the axis is this one: only it is drawn, and only it was kept.
    image = np.broadcast_to(np.expand_dims(case.plane(axis, stored), axis), both.shape)
    samples = (replace(sample, image=image, labels=labels) for labels in (case.reference, case.prediction))
    return case.title, _framed([one.panel(SAGITTAL, index) for one in samples])


def _framed(panels: Sequence[Panel]) -> list[Panel]:
    """Return panels cut to their labels and what is around these; names have room beyond the volume, too."""
    at = np.nonzero(np.any([panel.labels != 0 for panel in panels], axis=0))
    if not at[0].size:
        return list(panels)
    margins = [round(_MARGIN_MM / mm) for mm in panels[0].spacing]
    around = [(margin, margin) for margin in margins]
    frame = tuple(
        slice(along.min(), along.max() + 1 + 2 * margin) for along, margin in zip(at, margins, strict=True)
    )
    return [
        replace(
            panel,
            pixels=np.pad(panel.pixels, [*around, (0, 0)])[frame],
            labels=np.pad(panel.labels, around)[frame],
        )
        for panel in panels
    ]


def check_pictures(out: Path) -> None:
    """Check that the pictures of an evaluation may be written into a folder.

    Raises:
        OutputError: something else than a picture of ours has the name of one.
    """
    for name in (_VERTEBRAE, _CONFUSION, _WORST):
        require_replaceable_picture(out / name)


def draw_scores(
    out: Path,
    measure: str,
    is_share: bool,
    values: Mapping[str, Sequence[float]],
    confused: tuple[NDArray[np.int64], Sequence[str], Sequence[str]],
    worst: Iterable[Judged],
    names: Mapping[int, str],
) -> list[tuple[str, str]]:
    """Draw the pictures of an evaluation into a folder.

    Args:
        out: the folder.
        measure: the name of the measure.
        is_share: whether its values are from 0 to 1.
        values: of each vertebra, for `values_by_vertebra`.
        confused: arguments of `confusion`.
        worst: cases for `side_by_side`; none for no such picture.
        names: of all labels.

    Returns:
        The name of each picture, and what it shows.

    Raises:
        MissingPackageError: matplotlib is not installed.
        OutputError: something else than a picture of ours has the name of one, or it cannot be written.
    """
    check_pictures(out)
    for name in (_VERTEBRAE, _CONFUSION, _WORST):
        (out / name).unlink(missing_ok=True)  # of an earlier run, which may have had more of them
    drawn = []
    if any(map(len, values.values())):
        save_picture(values_by_vertebra(values, measure, is_share=is_share), out / _VERTEBRAE)
        drawn.append((_VERTEBRAE, f"{measure} by vertebra"))
    if confused[0].size:
        save_picture(confusion(*confused), out / _CONFUSION)
        drawn.append((_CONFUSION, "Which label the vertebrae of the reference have in the prediction"))
    first = next(cases := iter(worst), None)
    if first is not None:
        save_picture(side_by_side(itertools.chain([first], cases), names), out / _WORST)
        drawn.append((_WORST, "The worst cases: reference and prediction"))
    return drawn
