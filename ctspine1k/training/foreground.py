"""Where patches are centred: on labelled voxels, found without decoding chunks of zeros, or on points."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ctspine1k.storage.chunks import StoredArray

__all__ = ["Centres", "Foreground", "Points"]

#: The chunks of a mask have so many values at most.
_LABELS = 256


class Centres(Protocol):
    """Voxels of a case, of which one is drawn."""

    def draw(self, random: np.random.Generator, *, by_class: bool = False) -> tuple[int, ...] | None:
        """Return the index (k, i, j) of a voxel; None if there is none.

        Args:
            random: what to draw from.
            by_class: draw a label first, then one of its voxels, instead of any voxel. Each is as likely as
                any other.
        """


class Points:
    """The voxels in which the points of a case are; they may lie outside the volume.

    Args:
        points: those of its row; None if it has no file of them.
    """

    def __init__(self, points: Sequence[Mapping[str, Any]] | None) -> None:
        self._of_label: dict[int, list[tuple[int, ...]]] = {}
        for point in points or ():
            # Of two voxels that are equally near, the second, as for the slices of "2d".
            voxel = tuple(math.floor(at + 0.5) for at in point["voxel"])
            self._of_label.setdefault(int(point["label"]), []).append(voxel)

    def draw(self, random: np.random.Generator, *, by_class: bool = False) -> tuple[int, ...] | None:
        """Return the voxel of a point, as `Centres.draw`."""
        groups = list(self._of_label.values())
        if not groups:
            return None
        voxels = groups[random.integers(len(groups))] if by_class else [one for of in groups for one in of]
        return voxels[random.integers(len(voxels))]


class Foreground:
    """How many labelled voxels each chunk of a mask has.

    Chunks of zeros are not decoded; others are once, to count their voxels, and one of them at each draw.

    Raises:
        StoredArrayError: damaged bytes, or labels above 255, at the first call that counts voxels.
    """

    def __init__(self, mask: StoredArray) -> None:
        self._mask = mask
        self._chunks = mask.chunks_with_voxels()

    @cached_property
    def _totals(self) -> NDArray[np.int64]:
        """Number of labelled voxels up to and with each chunk."""
        counts = [np.count_nonzero(self._voxels(number)) for number in range(len(self._chunks))]
        return np.cumsum(counts, dtype=np.int64)

    @cached_property
    def _totals_of(self) -> dict[int, NDArray[np.int64]]:
        """The same for each label that occurs. It takes longer to count."""
        counts = np.zeros((len(self._chunks), _LABELS), np.int64)
        for number in range(len(self._chunks)):
            voxels = self._voxels(number)
            counts[number] = np.bincount(voxels[voxels != 0], minlength=_LABELS)
        return {int(label): counts[:, label].cumsum() for label in np.flatnonzero(counts.any(axis=0))}

    @property
    def labels(self) -> tuple[int, ...]:
        """The labels that occur."""
        return tuple(self._totals_of)

    def draw(self, random: np.random.Generator, *, by_class: bool = False) -> tuple[int, ...] | None:
        """Return the index of a labelled voxel, as `Centres.draw`."""
        label = None
        if by_class:
            if not self.labels:
                return None
            label = self.labels[random.integers(len(self.labels))]
        totals = self._totals if label is None else self._totals_of[label]
        if not len(totals) or not totals[-1]:
            return None
        position = int(random.integers(totals[-1]))
        number = int(np.searchsorted(totals, position, side="right"))
        if number:
            position -= int(totals[number - 1])
        voxels = self._voxels(number)
        # As booleans: of numbers, NumPy finds those that are not zero several times as slowly.
        wanted = np.flatnonzero(voxels != 0 if label is None else voxels == label)
        inside = np.unravel_index(wanted[position], voxels.shape)
        return tuple(axis[int(at)] for axis, at in zip(self._chunks[number], inside, strict=True))

    def _voxels(self, number: int) -> NDArray[np.uint8]:
        return self._mask.read(self._chunks[number], np.uint8)
