"""Labels in an array, one at a time: bounding box, centroid, and connected pieces of each.

Arrays may have any number of axes; indices are in their order, and a box has ``start`` and ``stop`` like a
slice. A part of a volume, such as the `LabelBox` around all its labels, gives the same numbers as the whole
volume if its position is passed as ``origin``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctspine1k.errors import MissingPackageError

__all__ = ["LabelBox", "Region", "centroid_of", "label_regions", "require_scipy"]


@dataclass(frozen=True)
class Region:
    """One label in an array. Indices are of the whole array, in its axis order."""

    label: int
    voxels: int
    start: tuple[int, ...]  #: first index of its bounding box along each axis
    stop: tuple[int, ...]  #: one after the last
    centroid: tuple[float, ...]  #: the centre of a voxel is a whole number
    components: int  #: pieces that do not touch each other, not even at a corner
    largest_component: int  #: voxels of the largest piece


def require_scipy() -> Any:
    """Import SciPy's module for images.

    Raises:
        MissingPackageError: it is not installed.
    """
    try:
        from scipy import ndimage
    except ImportError:
        raise MissingPackageError("measuring vertebrae", "scipy", "scan") from None
    return ndimage


def label_regions(
    labels: NDArray[Any], max_label: int, origin: Sequence[int] | None = None
) -> Iterator[Region]:
    """Yield each label from 1 to ``max_label`` that occurs.

    Args:
        labels: whole numbers, 0 for background, with any number of axes.
        max_label: greater labels are left out.
        origin: index of the array's first element in the volume of which it is a part; None for zeros.

    Raises:
        MissingPackageError: SciPy is not installed.
    """
    ndimage = require_scipy()
    neighbours = np.ones((3,) * labels.ndim, bool)  # voxels that share only a corner are connected, too
    origin = (0,) * labels.ndim if origin is None else origin
    for label, place in enumerate(ndimage.find_objects(labels, max_label), start=1):
        if place is None:
            continue
        here = labels[place] == label
        pieces, components = ndimage.label(here, neighbours)
        sizes = np.bincount(pieces.ravel())[1:]
        start = tuple(first + side.start for first, side in zip(origin, place, strict=True))
        yield Region(
            label=label,
            voxels=int(sizes.sum()),
            start=start,
            stop=tuple(first + size for first, size in zip(start, here.shape, strict=True)),
            centroid=tuple(first + at for first, at in zip(start, centroid_of(here), strict=True)),
            components=int(components),
            largest_component=int(sizes.max()),
        )


def centroid_of(mask: NDArray[np.bool_]) -> tuple[float, ...]:
    """Return the mean index of the True elements along each axis; there must be at least one.

    Sums are of whole numbers, hence exact: only the division rounds.
    """
    count = int(np.count_nonzero(mask))
    axes = range(mask.ndim)
    return tuple(
        float(mask.sum(axis=tuple(other for other in axes if other != axis)) @ np.arange(size)) / count
        for axis, size in zip(axes, mask.shape, strict=True)
    )


class LabelBox:
    """The part of a volume around all its labels, collected slab by slab as uint8.

    It needs memory for the window around the labels of each slab, not for the volume. Slabs follow one
    another along the first axis, along which they are kept whole.
    """

    def __init__(self) -> None:
        self.last: NDArray[np.uint8]  #: the labels of the last slab, in its window
        self._parts: list[tuple[tuple[int, int, int], NDArray[np.uint8]]] = []
        self._slices = 0

    def append(self, labels: NDArray[Any]) -> tuple[tuple[slice, ...], NDArray[np.intp]]:
        """Keep the labels of the next slab.

        Returns:
            The window around them, as a key of the slab, and which of its voxels have a label, as indices
            into the window flattened in C order. Both are empty if no voxel has a label.
        """
        flat = labels.max(axis=0)  # reads every voxel once; what follows reads only those in the window
        rows, columns = (np.flatnonzero(flat.any(axis=axis)) for axis in (1, 0))
        self._slices += len(labels)
        if not rows.size:
            return (), rows
        window = (slice(None), slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
        self.last = np.array(labels[window], np.uint8, order="C")  # a copy: the buffer is reused
        self._parts.append(((self._slices - len(labels), int(rows[0]), int(columns[0])), self.last))
        return window, np.flatnonzero(self.last)

    def joined(self) -> tuple[tuple[int, int, int], NDArray[np.uint8]]:
        """Return the first index of the box around all labels, and its labels: empty if there are none."""
        if not self._parts:
            return (0, 0, 0), np.zeros((0, 0, 0), np.uint8)
        starts = np.array([start for start, _ in self._parts])
        stops = starts + [part.shape for _, part in self._parts]
        first = starts.min(axis=0)
        box = np.zeros(stops.max(axis=0) - first, np.uint8)
        for start, stop, (_, part) in zip(starts - first, stops - first, self._parts, strict=True):
            box[tuple(map(slice, start, stop))] = part
        return (int(first[0]), int(first[1]), int(first[2])), box
