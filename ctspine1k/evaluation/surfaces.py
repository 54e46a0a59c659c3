"""Surfaces of the labels in a mask: their voxels, and the corners of voxels between a label and all else.

The surface of a label is its voxels without those whose six neighbours all have the label; beyond the border
of the volume is background. Masks are read a few slices at a time: for all labels at once, or if they are
scattered over the volume, for each label by itself. Then the surface voxels of one label at a time are in
memory, 12 bytes each.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctspine1k.evaluation.overlap import LABELS, Window, slabs
from ctspine1k.running.stops import check_stopped

__all__ = ["Box", "Corners", "Surfaces"]

#: Surface voxels of all labels that are kept at once: some times as many as a whole spine has.
_MOST_VOXELS = 1 << 22

#: From the first of the eight voxels around a corner to each of them.
_AROUND = tuple(itertools.product((0, 1), repeat=3))

#: The first and the last index along each axis.
Box = tuple[NDArray[np.int32], NDArray[np.int32]]


@dataclass(frozen=True)
class Corners:
    """Corners of voxels at which a label meets another one, or background."""

    places: NDArray[np.int32]  #: (n, 3): around (i, j, k) are voxels (i - 1, j - 1, k - 1) to (i, j, k)
    patterns: NDArray[np.uint8]  #: (n,), a bit for each of these eight, in C order: whether it has the label
    counts: NDArray[np.int64]  #: (256,): how many corners have which pattern, also those that are not listed


@dataclass(frozen=True)
class Surfaces:
    """The surfaces of all labels of a mask."""

    labels: NDArray[np.uint8]  #: the mask, three axes
    window: Window  #: outside of which all is background

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
            first, stop = ([getattr(side, end) for side in self.window] for end in ("start", "stop"))
            return np.array(first, np.int32), np.array(stop, np.int32)
        voxels = self._kept[label]
        return voxels.min(axis=0), voxels.max(axis=0) + np.int32(1)

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
            for at, whose, patterns in _corners(around if is_last else around[:-1]):
                found = np.bincount(whose.astype(np.uint16) << 8 | patterns)
                counts[: len(found)] += found
                at += start
                is_listed = np.ones(len(at), bool)
                for axis, along in enumerate(at.T):
                    is_listed &= (along >= first[axis][whose]) & (along <= last[axis][whose])
                at, whose, patterns = at[is_listed], whose[is_listed], patterns[is_listed]
                for label, where in _by_label(whose).items():
                    _append(listed[label][0], at[where])
                    _append(listed[label][1], patterns[where])
        by_pattern = counts.reshape(LABELS, 256)
        return {label: Corners(*own, by_pattern[label]) for label, own in listed.items()}

    @cached_property
    def _kept(self) -> dict[int, NDArray[np.int32]] | None:
        """The surface voxels of each label; None if there are too many to keep."""
        found = [(np.zeros((0, 3), np.int32), np.zeros(0, np.uint8))]
        count = 0
        for at, whose in self._found():
            found.append((at, whose))
            count += len(at)
            if count > _MOST_VOXELS:
                return None
        voxels, whose = map(np.concatenate, zip(*found, strict=True))
        return {label: voxels[where] for label, where in _by_label(whose).items()}

    def _found(self, label: int | None = None) -> Iterator[tuple[NDArray[np.int32], NDArray[np.uint8]]]:
        """Yield the surface voxels in each slab, with their labels: all of them, or those of one label."""
        for around, start, _ in self._around():
            if label is not None:
                around *= around == label
            at, whose = _surface_voxels(around)
            yield at + start, whose

    def _around(self) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int32], bool]]:
        """Yield slabs with a voxel more on each side, a neighbour or background.

        Each comes with the index of its first voxel in the mask, and whether it is the last one.
        """
        window = self.window
        for slab in slabs(window):
            check_stopped()
            around = np.zeros([side.stop - side.start + 2 for side in slab], np.uint8)
            first, last = slab[0].start > window[0].start, slab[0].stop < window[0].stop
            wider = (slice(slab[0].start - first, slab[0].stop + last), *slab[1:])
            around[1 - first : len(around) - 1 + last, 1:-1, 1:-1] = self.labels[wider]
            yield around, np.array([side.start for side in slab], np.int32), not last


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


def _surface_voxels(around: NDArray[np.uint8]) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    """Return the voxels on a surface, with their labels; not those at the border of the array."""
    inner = around[1:-1, 1:-1, 1:-1]
    is_surface = np.zeros(inner.shape, bool)
    for axis, begin in itertools.product(range(3), (0, 2)):
        neighbour = [slice(1, -1)] * 3
        neighbour[axis] = slice(begin, begin + inner.shape[axis])
        is_surface |= inner != around[tuple(neighbour)]
    is_surface &= inner != 0
    at = is_surface.nonzero()
    return np.stack(at, axis=1).astype(np.int32), inner[at]


def _corners(
    around: NDArray[np.uint8],
) -> Iterator[tuple[NDArray[np.int32], NDArray[np.uint8], NDArray[np.uint8]]]:
    """Yield the corners at which two labels meet, or a label and background: of each label one entry.

    Yields:
        Their indices, of which (0, 0, 0) is between the first two voxels along each axis; labels; patterns.
    """
    size_i, size_j, size_k = (size - 1 for size in around.shape)
    views = [around[i : i + size_i, j : j + size_j, k : k + size_k] for i, j, k in _AROUND]
    is_between = np.zeros(views[0].shape, bool)
    for view in views[1:]:
        is_between |= view != views[0]
    at = is_between.nonzero()
    place = np.stack(at, axis=1).astype(np.int32)
    eight = [view[at] for view in views]
    for number, label in enumerate(eight):
        is_new = label != 0
        for before in eight[:number]:
            is_new &= before != label
        own = label[is_new]
        pattern = np.zeros(len(own), np.uint8)
        for bit, other in enumerate(eight):
            pattern |= (other[is_new] == own).astype(np.uint8) << np.uint8(bit)
        yield place[is_new], own, pattern
