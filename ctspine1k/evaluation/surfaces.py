"""Surfaces of the labels in a mask: their voxels, and the corners of voxels between a label and all else.

The surface of a label is its voxels without those whose six neighbours all have the label; beyond the border
of the volume is background. Masks are read a few slices at a time: for all labels at once, or if they are
scattered over the volume, for each label by itself. Then the surface voxels of one label at a time are in
memory, 12 bytes each.

Slices are flattened with a border of background, so that a neighbour is so many bytes further on, whichever
the voxel: beside the last one of a row is the border of the next row.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctspine1k.evaluation.overlap import LABELS, slabs
from ctspine1k.running.stops import check_stopped

__all__ = ["Box", "Corners", "Surfaces"]

#: Surface voxels of all labels that are kept at once: some times as many as a whole spine has.
_MOST_VOXELS = 1 << 22

#: The first and the last index along each axis.
Box = tuple[NDArray[np.int32], NDArray[np.int32]]


@dataclass(frozen=True)
class Corners:
    """Corners of voxels at which a label meets another one, or background."""

    places: NDArray[np.int32]  #: (n, 3): around (i, j, k) are voxels (i - 1, j - 1, k - 1) to (i, j, k)
    patterns: NDArray[np.uint8]  #: (n,), a bit for each of these eight, in C order: whether it has the label
    counts: NDArray[np.int64]  #: (256,): how many corners have which pattern, also those that are not listed


class Surfaces:
    """The surfaces of all labels of a mask.

    Args:
        labels: three axes; outside of it all is background.
        start: index in the volume of its first voxel.
    """

    def __init__(self, labels: NDArray[np.uint8], start: tuple[int, ...] = (0, 0, 0)) -> None:
        self._labels, self._start = labels, np.array(start, np.int32)
        self._kept = self._voxels_by_label()

    @property
    def are_kept(self) -> bool:
        """Whether the surface voxels of all labels are in memory: there are not too many."""
        return self._kept is not None

    def voxels(self, label: int) -> NDArray[np.int32]:
        """Return the indices of a label's surface voxels, (n, 3); none if the mask does not have it."""
        if self._kept is not None:
            return self._kept.get(label, np.zeros((0, 3), np.int32))
        voxels = np.zeros((0, 3), np.int32)
        for at, _ in self._found(label):
            _append(voxels, at)
        return voxels

    def box(self, label: int) -> Box:
        """Return a box around the corners of a label: the smallest one, unless labels are scattered."""
        if self._kept is None:
            return self._start, self._start + np.array(self._labels.shape, np.int32)
        along = self._kept[label].T  # much faster than the extremes of all three together
        return np.array([one.min() for one in along]), np.array([one.max() + np.int32(1) for one in along])

    def corners(self, boxes: Mapping[int, Box]) -> dict[int, Corners]:
        """Find the corners of some labels, and list those in a box.

        Args:
            boxes: of each label that is looked for.
        """
        first, last = np.ones((3, LABELS), np.int32), np.zeros((3, LABELS), np.int32)  # of others: nowhere
        for label, (low, high) in boxes.items():
            first[:, label], last[:, label] = low, high
        counts = np.zeros(LABELS * 256, np.int64)
        listed = {label: (np.zeros((0, 3), np.int32), np.zeros(0, np.uint8)) for label in boxes}
        for around, start, is_last in self._around():
            # A corner between this slab and the next one is of the next.
            for at, own, patterns in _corners(around, len(around) - 1 if is_last else len(around) - 2):
                whose = own.astype(np.intp)
                found = np.bincount(whose << 8 | patterns)
                counts[: len(found)] += found
                places = _places(at, around.shape, start)
                is_listed = np.ones(len(at), bool)
                for axis, along in enumerate(places.T):
                    is_listed &= (along >= first[axis][whose]) & (along <= last[axis][whose])
                for label, where in _by_label(own * is_listed).items():
                    _append(listed[label][0], places.take(where, axis=0))  # faster than places[where]
                    _append(listed[label][1], patterns.take(where))
        by_pattern = counts.reshape(LABELS, 256)
        return {label: Corners(*own, by_pattern[label]) for label, own in listed.items()}

    def _voxels_by_label(self) -> dict[int, NDArray[np.int32]] | None:
        """Return the surface voxels of each label; None if there are too many to keep."""
        found = [(np.zeros((0, 3), np.int32), np.zeros(0, np.uint8))]
        count = 0
        for at, whose in self._found():
            found.append((at, whose))
            count += len(at)
            if count > _MOST_VOXELS:
                return None
        voxels, whose = map(np.concatenate, zip(*found, strict=True))
        return {label: voxels.take(where, axis=0) for label, where in _by_label(whose).items()}

    def _found(self, label: int | None = None) -> Iterator[tuple[NDArray[np.int32], NDArray[np.uint8]]]:
        """Yield the surface voxels in each slab, with their labels: all of them, or those of one label."""
        for around, start, _ in self._around():
            if label is not None:
                around *= around == label
            at = _surface_voxels(around)
            yield _places(at, around.shape, start - 1), around.reshape(-1)[at]

    def _around(self) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int32], bool]]:
        """Yield slabs with a voxel more on each side, a neighbour or background.

        Each comes with the index in the volume of its first voxel that is not such a one, and whether it is
        the last slab.
        """
        depth, *rest = self._labels.shape
        for slab in slabs(self._labels.shape):
            check_stopped()
            around = np.zeros([slab.stop - slab.start + 2, *(size + 2 for size in rest)], np.uint8)
            first, last = slab.start > 0, slab.stop < depth
            wider = slice(slab.start - first, slab.stop + last)
            around[1 - first : len(around) - 1 + last, 1:-1, 1:-1] = self._labels[wider]
            yield around, self._start + np.array([slab.start, 0, 0], np.int32), not last


def _append(rows: NDArray[Any], more: NDArray[Any]) -> None:
    """Append rows to an array in place: there may be very many, which then are in memory only once."""
    count = len(rows)
    rows.resize((count + len(more), *rows.shape[1:]), refcheck=False)
    rows[count:] = more


def _by_label(labels: NDArray[np.uint8]) -> dict[int, NDArray[np.intp]]:
    """Return where each label is."""
    order = np.argsort(labels, kind="stable")  # of bytes: sorted in linear time
    ends = np.searchsorted(labels[order], np.arange(LABELS + 1))
    return {
        label: order[ends[label] : ends[label + 1]]
        for label in range(1, LABELS)
        if ends[label] < ends[label + 1]
    }


def _places(at: NDArray[np.intp], shape: tuple[int, ...], start: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return indices along three axes, (n, 3), of elements of a flattened array.

    Args:
        at: which elements.
        shape: of the array.
        start: index of its first element.
    """
    places = np.empty((len(at), 3), np.int32)
    rows = at // shape[2]  # faster than unravel_index
    planes = rows // shape[1]
    places[:, 0] = planes
    places[:, 1] = rows - planes * shape[1]
    places[:, 2] = at - rows * shape[2]
    places += start
    return places


def _surface_voxels(around: NDArray[np.uint8]) -> NDArray[np.intp]:
    """Return which voxels are on a surface, as places in the flattened array; not those at its border."""
    flat = around.reshape(-1)
    plane = around[0].size
    is_surface = np.zeros(flat.size - 2 * plane, bool)
    for step in (1, around.shape[2], plane):
        differs = flat[:-step] != flat[step:]
        is_surface |= differs[plane : plane + is_surface.size]
        is_surface |= differs[plane - step : plane - step + is_surface.size]
    is_surface &= flat[plane:-plane] != 0
    at: NDArray[np.intp] = np.flatnonzero(is_surface)
    at += plane
    return at


def _corners(
    around: NDArray[np.uint8], planes: int
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.uint8], NDArray[np.uint8]]]:
    """Yield the corners at which two labels meet, or a label and background: of each label one entry.

    Args:
        around: labels, with a border of background.
        planes: corners behind how many of its first planes.

    Yields:
        The place in the flattened array of the first of the eight voxels at each corner; labels; patterns.
    """
    flat = around.reshape(-1)
    row, plane = around.shape[2], around[0].size
    # Whether two voxels differ, then the four at a corner of a plane, then the eight of two planes.
    pair = flat[:-1] != flat[1:]
    four = pair[:-row] | pair[row:]
    four |= flat[: four.size] != flat[row : row + four.size]
    eight = four[:-plane] | four[plane:]
    eight |= flat[: eight.size] != flat[plane : plane + eight.size]
    at = np.flatnonzero(eight[: planes * plane])
    labels = np.empty((8, len(at)), np.uint8)
    for bit in range(8):
        i, j, k = bit >> 2, bit >> 1 & 1, bit & 1
        flat.take(at + (i * plane + j * row + k), out=labels[bit], mode="clip")  # in place: not buffered
    # The greatest label at each corner, then of those with several the next one.
    while at.size:
        own = labels.max(axis=0)
        is_own = labels == own
        patterns = np.zeros(len(at), np.uint8)
        for bit, has in enumerate(is_own.view(np.uint8)):
            patterns |= has << np.uint8(bit)
        yield at, own, patterns
        labels *= ~is_own
        is_left = labels.max(axis=0) != 0
        at, labels = at[is_left], labels[:, is_left]
