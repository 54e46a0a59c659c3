"""Resampling to another spacing: image and labels on one grid, a few slices in memory at a time.

An axis of n voxels, d mm apart, becomes one of n d / e voxels, rounded, e mm apart, at least one. The border
before the first voxel stays where it was, so the centre of the first voxel moves by (e - d) / 2. An axis that
has the spacing already, but for rounding, stays as it is.

Intensities are interpolated linearly. Where an axis shrinks, each is the mean of the voxels within e mm, with
weights that fall linearly to 0 at that distance: a prefilter, without which fine structures and noise would
be sampled by chance. Outside the volume, the weights are 0. Intensities keep the type of the file: whole
numbers are rounded. Labels are those of the nearest voxel.

Axes are resampled one after the other, with elementwise arithmetic alone, so that results do not depend on
threads or libraries.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from ctspine1k.errors import FileFormatError
from ctspine1k.volumes.arrays import Voxels, read_all
from ctspine1k.volumes.cases import CaseReader
from ctspine1k.volumes.headers import Geometry
from ctspine1k.volumes.orientation import degenerate_axes
from ctspine1k.volumes.scaling import Scaling

__all__ = ["Axis", "ResampledCase", "Spacing", "check_spacing", "resampled_geometry"]

#: mm along the patient's left-right, front-back and head-feet axes.
Spacing: TypeAlias = "tuple[float, float, float]"

#: Voxels by which an axis may be longer or shorter and still have the spacing that is asked for.
_SAME = 0.01

#: Slices that are read at a time.
_DEPTH = 8


def check_spacing(spacing: Sequence[float] | None) -> Spacing | None:
    """Return a spacing as three floats, or None.

    Raises:
        ValueError: it is neither None nor three positive numbers.
    """
    if spacing is None:
        return None
    try:
        x, y, z = map(float, spacing)
        if not isinstance(spacing, str) and all(0 < size < math.inf for size in (x, y, z)):
            return x, y, z
    except (TypeError, ValueError):
        pass
    raise ValueError(
        f"spacing={spacing!r}: expected three positive numbers, mm from left to right, front to back and "
        "head to feet, such as (1, 1, 1)"
    )


@dataclass(frozen=True)
class Axis:
    """How one axis is resampled."""

    size: int  #: voxels before
    new_size: int
    ratio: float  #: new spacing / old spacing; 1 if the axis stays as it is

    @classmethod
    def of(cls, size: int, spacing: float, new_spacing: float) -> Axis:
        """Return how an axis of so many voxels is brought from one spacing to another."""
        ratio = new_spacing / spacing
        if abs(ratio - 1) * size < _SAME:
            return cls(size, size, 1.0)
        return cls(size, max(1, math.floor(size / ratio + 0.5)), ratio)

    @property
    def stays(self) -> bool:
        """Whether the axis stays as it is."""
        return self.ratio == 1.0

    @cached_property
    def positions(self) -> NDArray[np.float64]:
        """Where the new voxels' centres are, as indices before."""
        return (np.arange(self.new_size, dtype=np.float64) + 0.5) * self.ratio - 0.5

    @cached_property
    def nearest(self) -> NDArray[np.intp]:
        """For each new voxel the index of the nearest; of two, the second."""
        nearest: NDArray[np.intp] = np.floor(self.positions + 0.5).clip(0, self.size - 1).astype(np.intp)
        return nearest

    @cached_property
    def taps(self) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """For each new voxel the indices of those that it is a mean of, and their weights: (taps, voxels)."""
        reach = max(1.0, self.ratio)
        first = np.floor(self.positions - reach).astype(np.intp) + 1
        count = 1 if self.stays else min(math.ceil(2 * reach), self.size)
        index = first.clip(0, self.size - count) + np.arange(count)[:, np.newaxis]
        weight = np.maximum(0.0, 1 - np.abs(index - self.positions) / reach)
        return index, weight / weight.sum(axis=0)


def _axes_of(geometry: Geometry, spacing: Spacing, name: str) -> tuple[Axis, Axis, Axis]:
    """Return how the axes of a file (i, j, k) are resampled.

    Raises:
        FileFormatError: its affine has no direction for each axis.
    """
    if what := degenerate_axes(geometry.affine):
        expected, found = (
            "an affine with a direction for each axis",
            f"{geometry.affine[:3].tolist()} ({what})",
        )
        raise FileFormatError(name, expected, found, "Load it without spacing.")
    along = nib.orientations.io_orientation(geometry.affine)[:, 0].astype(int)
    i, j, k = (
        Axis.of(geometry.shape[axis], geometry.spacing[axis], spacing[to])
        for axis, to in zip((1, 2, 0), along, strict=True)
    )
    return i, j, k


def resampled_geometry(geometry: Geometry, spacing: Spacing, name: str) -> Geometry:
    """Return the geometry of a volume after resampling; ``name`` is for messages.

    Raises:
        FileFormatError: its affine has no direction for each axis.
    """
    return _geometry(geometry, _axes_of(geometry, spacing, name))


def _geometry(geometry: Geometry, axes: Sequence[Axis]) -> Geometry:
    ratios = np.array([axis.ratio for axis in axes])
    affine = geometry.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ (ratios - 1) / 2
    affine[:3, :3] *= ratios
    i, j, k = (axis.new_size for axis in axes)
    return Geometry.of(affine, (i, j, k))


class ResampledCase:
    """An open case at another spacing, read once, from the first slice to the last.

    Args:
        case: the case, of which no voxel was read yet.
        spacing: the new spacing, along the patient's axes.

    Raises:
        FileFormatError: the image's affine has no direction for each axis.
    """

    def __init__(self, case: CaseReader, spacing: Spacing) -> None:
        self._case = case
        self._axes = _axes_of(case.geometry, spacing, case.name)
        self.geometry = _geometry(case.geometry, self._axes)

    @property
    def name(self) -> str:
        """Path or name of the image, for messages."""
        return self._case.name

    @property
    def scaling(self) -> Scaling:
        """From the stored intensities to Hounsfield units."""
        return self._case.scaling

    @property
    def stored_types(self) -> tuple[np.dtype[Any], ...]:
        """Types of the arrays that `voxels` yields."""
        return self._case.stored_types

    def check(self) -> None:
        """Read both files to their ends, as `CaseReader.check`."""
        self._case.check()

    def read_voxels(self) -> Voxels:
        """Read all slices, as `CaseReader.read_voxels`."""
        return read_all(self.geometry, self.scaling, self.voxels())

    def voxels(self, depth: int = _DEPTH) -> Iterator[Voxels]:
        """Yield ``depth`` slices at a time, as `CaseReader.voxels`, in C order."""
        slices, rows, columns = self.geometry.shape
        resampled = self._slices()
        for start in range(0, slices, depth):
            shape = min(depth, slices - start), rows, columns
            arrays = tuple(np.empty(shape, dtype) for dtype in self.stored_types)
            for number in range(shape[0]):
                for array, one in zip(arrays, next(resampled), strict=True):
                    array[number] = one
            yield arrays
        for _ in resampled:  # to the end of the files, where they are checked
            pass

    def _slices(self) -> Iterator[Voxels]:
        """Yield one slice after the other, then read to the end."""
        i, j, k = self._axes
        stored = self.stored_types[0]
        work = _work_type(stored)
        index, weight = k.taps[0], k.taps[1].astype(work)
        held: deque[Voxels] = deque()  # slices that are resampled along i and j
        first, done = 0, 0  # the number of the first of them, and of the next new slice
        for slab in self._case.voxels(_DEPTH):
            for image, *masks in zip(*slab, strict=True):
                labels = (mask.T[j.nearest].T[i.nearest] for mask in masks)
                held.append((_resampled_slice(image, i, j, work), *labels))
                while done < k.new_size and index[-1, done] < first + len(held):
                    parts = [held[number - first][0] for number in index[:, done]]
                    resampled = _as_stored(_mean(parts, weight[:, done]), stored)
                    yield resampled, *held[k.nearest[done] - first][1:]
                    done += 1
                    while held and done < k.new_size and first < index[0, done]:
                        held.popleft()
                        first += 1


def _work_type(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return a float type that holds the numbers of another, in which means of them are computed."""
    is_small = dtype.itemsize <= 2 or (dtype.kind == "f" and dtype.itemsize <= 4)
    return np.dtype(np.float32 if is_small else np.float64)


def _resampled_slice(image: NDArray[Any], i: Axis, j: Axis, work: np.dtype[Any]) -> NDArray[Any]:
    """Return a slice (i, j), resampled along both axes.

    Each time along the first axis in memory, whose rows are copied as a whole: in a file, that is j.
    """
    by_columns = _blended(np.ascontiguousarray(image.T, work), j)
    return _blended(np.array(by_columns.T, order="C"), i)


def _blended(values: NDArray[Any], axis: Axis) -> NDArray[Any]:
    """Resample along the first of two axes."""
    if axis.stays:
        return values
    index, weight = axis.taps
    return _mean((values[numbers] for numbers in index), weight.astype(values.dtype)[..., np.newaxis])


def _mean(parts: Iterable[NDArray[Any]], weights: NDArray[Any]) -> NDArray[Any]:
    """Return the weighted sum of one array or several, as a new array of their type."""
    weighted = (part * weight for part, weight in zip(parts, weights, strict=True))
    total: NDArray[Any] = next(weighted)
    for one in weighted:
        total += one
    return total


def _as_stored(values: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return means as numbers of the file's type. None is beyond those that it was made of."""
    return np.rint(values, out=values).astype(dtype) if dtype.kind in "iu" else values.astype(dtype)
