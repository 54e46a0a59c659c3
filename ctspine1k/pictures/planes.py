"""The slices of a picture: which ones, turned as radiologists view them, with labels in colours.

Superior or anterior is up; on the left is the patient's right, or in a sagittal slice anterior. Slices are
turned by the array's orientation; no voxel is resampled. `ctspine1k.pictures.figures` draws them.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ctspine1k._messages import shortened
from ctspine1k.catalog.cases import Case
from ctspine1k.catalog.registry import load_catalog
from ctspine1k.catalog.vocabulary import BACKGROUND
from ctspine1k.volumes.cases import VolumePair
from ctspine1k.volumes.orientation import OPPOSITE, axis_along, check_orientation

__all__ = [
    "BONE_LEVEL_HU",
    "BONE_WIDTH_HU",
    "MASK_ALPHA",
    "SAGITTAL",
    "Panel",
    "Sample",
    "choose_slices",
    "label_colour",
    "label_counts",
    "overlay",
]

#: The window for bone: from black at -500 HU to white at 1300 HU.
BONE_LEVEL_HU = 400.0
BONE_WIDTH_HU = 1800.0

#: Opacity of the colour of a label over the image.
MASK_ALPHA = 0.45

#: The seven colours of Okabe and Ito, in the order in which neighbours, drawn over bone, differ most, with
#: and without colour blindness: blue, orange, green, yellow, purple, vermilion, sky blue.
_PALETTE = (
    (0, 114, 178),
    (230, 159, 0),
    (0, 158, 115),
    (240, 228, 66),
    (204, 121, 167),
    (213, 94, 0),
    (86, 180, 233),
)

#: Directions of the axes of a turned volume: slices go down, rows to the back, columns to the patient's left,
#: which is the right of the picture.
_VIEW = "IPL"

#: Names of the planes across each axis of a turned volume.
_PLANES = ("axial", "coronal", "sagittal")
_AXIAL, _CORONAL, SAGITTAL = range(3)

#: Points that are further from a slice (mm) are not drawn in it.
_NEAR_MM = 15.0

#: Slices of labels that are counted together: the depth of a chunk in compact storage.
_DEPTH = 32

_Volume: TypeAlias = Any  # an array, a LazyArray or a tensor: anything with a shape that can be sliced
_Pair: TypeAlias = "tuple[float, float]"
_Indices: TypeAlias = "tuple[int, int, int]"


def choose_slices(counts: Sequence[NDArray[np.int64]]) -> _Indices:
    """Return the indices of the slices that show the spine.

    Args:
        counts: voxels by index and label along the axes up-down, front-back and left-right, each of shape
            (size of the axis, labels), background left out (0).

    Returns:
        Along the first axis, the index with most voxels of the middle label; along the others, the index with
        most labelled voxels. Of several such indices, the middle one; without labels, the middle of the axis.
    """
    present = np.flatnonzero(counts[0].sum(axis=0))
    if not len(present):
        return len(counts[0]) // 2, len(counts[1]) // 2, len(counts[2]) // 2
    middle = present[len(present) // 2]
    front_back, left_right = (_fullest(along.sum(axis=1)) for along in counts[1:])
    return _fullest(counts[0][:, middle]), front_back, left_right


def _fullest(voxels: NDArray[np.int64]) -> int:
    equal = np.flatnonzero(voxels == voxels.max())
    return int(equal[len(equal) // 2])


def label_colour(label: int) -> tuple[int, int, int]:
    """Return the colour of a label, from 1, in all pictures: red, green and blue, 0 to 255."""
    return _PALETTE[(label - 1) % len(_PALETTE)]


def overlay(image: NDArray[Any], labels: NDArray[Any]) -> NDArray[np.uint8]:
    """Return one slice as pixels: the image in the window for bone, with the labels over it.

    Args:
        image: HU, of any shape; NaN is drawn black.
        labels: whole numbers from 0, background, of the same shape.

    Returns:
        Red, green and blue, 0 to 255, along an additional last axis.
    """
    darkest = BONE_LEVEL_HU - BONE_WIDTH_HU / 2
    hu = np.nan_to_num(np.asarray(image, np.float32), nan=darkest)
    grey = np.clip((hu - darkest) / BONE_WIDTH_HU, 0, 1) * 255
    colours = np.array([(0, 0, 0), *map(label_colour, range(1, int(labels.max()) + 1))], np.float32)
    alpha = np.where(labels == BACKGROUND, 0, MASK_ALPHA)[..., np.newaxis]
    return np.asarray(np.rint((1 - alpha) * grey[..., np.newaxis] + alpha * colours[labels]), np.uint8)


@dataclass(frozen=True)
class _View:
    """How a stored volume is viewed: for each axis of the view, the stored axis, and whether backwards."""

    axes: _Indices
    backwards: tuple[bool, bool, bool]

    @classmethod
    def of(cls, orientation: str | None) -> _View:
        if orientation is None:
            return cls((0, 1, 2), (False, False, False))
        down, back, left = (along for to in _VIEW if (along := axis_along(orientation, to)))
        return cls((down[0], back[0], left[0]), (down[1], back[1], left[1]))

    def counts(self, stored: Sequence[NDArray[np.int64]]) -> list[NDArray[np.int64]]:
        """Return counts along each axis of the view, given those along the stored axes."""
        return [
            stored[axis][::-1] if backward else stored[axis]
            for axis, backward in zip(self.axes, self.backwards, strict=True)
        ]

    def stored_index(self, across: int, index: int, shape: Sequence[int]) -> tuple[int, int]:
        """Return the axis and index in the stored volume for a slice across an axis of the view."""
        axis = self.axes[across]
        return axis, shape[axis] - 1 - index if self.backwards[across] else index

    def position(self, voxel: Sequence[float], shape: Sequence[int]) -> tuple[float, ...]:
        """Return the position along the axes of the view of a position in the stored volume."""
        return tuple(
            shape[axis] - 1 - voxel[axis] if backward else voxel[axis]
            for axis, backward in zip(self.axes, self.backwards, strict=True)
        )

    def cut(self, volume: _Volume, across: int, index: int) -> NDArray[Any]:
        """Return one slice of a stored volume, turned."""
        axis, stored = self.stored_index(across, index, volume.shape)
        key = (*[slice(None)] * axis, stored)
        plane = np.asarray(volume[key])
        rows, columns = _in_plane(across)
        if self.axes[rows] > self.axes[columns]:
            plane = plane.T
        return plane[:: -1 if self.backwards[rows] else 1, :: -1 if self.backwards[columns] else 1]


@dataclass(frozen=True)
class Panel:
    """One slice, turned, to be drawn."""

    name: str
    pixels: NDArray[np.uint8]  #: (rows, columns, 3)
    labels: NDArray[Any]  #: (rows, columns)
    spacing: _Pair  #: of rows and columns, in mm
    sides: str | None  #: anatomical directions of top, bottom, left and right, such as "SIRL"
    #: Labels and names of points near the slice, and where: (x, y) in pixels.
    points: tuple[tuple[int, str, _Pair], ...] = ()

    @property
    def size(self) -> _Pair:
        """Width and height in mm."""
        return self.labels.shape[1] * self.spacing[1], self.labels.shape[0] * self.spacing[0]


@dataclass(frozen=True)
class Sample:
    """A row of any config, or a pair, in one form; a single slice is a volume of one slice."""

    image: _Volume  #: (k, i, j), HU
    labels: _Volume  #: (k, i, j)
    spacing: tuple[float, ...] | None  #: mm, in array order
    orientation: str | None  #: in array order
    is_slice: bool = False
    slice_index: int | None = None
    source: str | None = None
    case_id: str | None = None
    case: Case | None = None
    has_mask: bool = True
    #: Labels, names (empty if they have none), and where: (k, i, j).
    points: tuple[tuple[int, str, tuple[float, ...]], ...] = ()

    @classmethod
    def of(cls, sample: Mapping[str, Any] | VolumePair, case: str | Case | None) -> Sample:
        """Read a row of any config, or a result of `read_pair`; errors as for `preview`."""
        if isinstance(sample, VolumePair):
            columns: Mapping[str, Any] = vars(sample)
        elif isinstance(sample, Mapping):
            columns = sample
        else:
            raise TypeError(
                "sample: expected a row, a mapping with image and segmentation, or a result of read_pair; "
                f"found {type(sample).__name__}"
            )
        image, labels = _volumes(columns)
        is_slice = len(image.shape) == 2
        spacing, orientation, index = map(columns.get, ("spacing", "orientation", "slice_index"))
        points = _points(columns.get("points"), 0 if not is_slice else index)
        case_id, known = _known_case(columns.get("patient_id") if case is None else case)
        return cls(
            image[np.newaxis] if is_slice else image,
            labels[np.newaxis] if is_slice else labels,
            None if spacing is None else _checked_spacing(spacing),
            None if orientation is None else str(orientation),
            is_slice,
            None if index is None else int(index),
            columns.get("source"),
            case_id,
            known,
            "segmentation" in columns,
            points,
        )

    @functools.cached_property
    def view(self) -> _View:
        """How the volume is viewed."""
        return _View.of(None if self.has_no_direction else check_orientation(self.orientation))

    @property
    def has_no_direction(self) -> bool:
        """Whether an axis of the file had no direction, which the orientation shows as a question mark."""
        return self.orientation is not None and "?" in self.orientation

    @property
    def pixel_sizes(self) -> tuple[float, ...]:
        """Sizes of a voxel in mm, in array order; 1 mm each if they are not known."""
        usable = self.spacing is not None and all(0 < size < math.inf for size in self.spacing)
        return self.spacing if usable and self.spacing is not None else (1.0, 1.0, 1.0)

    def indices(self, counts: Sequence[NDArray[np.int64]]) -> _Indices:
        """Return the indices of the slices that show the spine; without labels, those of the points.

        ``counts`` are along the stored axes, the result is along those of the view.
        """
        if self.points and not counts[0].any():
            # Their labels are the data set's own, whatever the scheme of the segmentation.
            end = max(label for label, *_ in self.points) + 1
            counts = [np.zeros((len(along), end), np.int64) for along in counts]
            for label, _, voxel in self.points:
                for along, at in zip(counts, voxel, strict=True):
                    along[min(max(0, math.floor(at + 0.5)), len(along) - 1), label] += 1
        return choose_slices(self.view.counts(counts))

    def panels(self, counts: Sequence[NDArray[np.int64]]) -> list[Panel]:
        """Return the slices to be drawn; ``counts`` are along the stored axes."""
        indices = self.indices(counts)
        planes = [self.view.axes.index(0)] if self.is_slice else [_AXIAL, _CORONAL, SAGITTAL]
        return [self.panel(across, indices[across]) for across in planes]

    def panel(self, across: int, index: int) -> Panel:
        """Return one slice across an axis of the view."""
        labels = self.view.cut(self.labels, across, index).astype(np.uint8)
        rows, columns = _in_plane(across)
        turned = self.orientation is not None and not self.has_no_direction
        row_mm, column_mm = (self.pixel_sizes[self.view.axes[n]] for n in (rows, columns))
        down, right = _VIEW[rows], _VIEW[columns]
        return Panel(
            ", ".join([*([_PLANES[across]] if turned else []), self.where(across, index)]),
            overlay(self.view.cut(self.image, across, index), labels),
            labels,
            (row_mm, column_mm),
            OPPOSITE[down] + down + OPPOSITE[right] + right if turned else None,
            tuple(self._near(across, index)),
        )

    def _near(self, across: int, index: int) -> Iterator[tuple[int, str, _Pair]]:
        """Yield the points near a slice, and where they are in it."""
        axis, at = self.view.stored_index(across, index, self.image.shape)
        rows, columns = _in_plane(across)
        for label, name, voxel in self.points:
            if abs(voxel[axis] - at) * self.pixel_sizes[axis] <= _NEAR_MM:
                turned = self.view.position(voxel, self.image.shape)
                yield label, name, (turned[columns], turned[rows])

    def where(self, across: int, index: int) -> str:
        """Return the position of a slice in the stored array, as text."""
        if self.is_slice:
            return "slice" if self.slice_index is None else f"slice {self.slice_index}"
        axis, stored = self.view.stored_index(across, index, self.image.shape)
        return f"image[{':, ' * axis}{stored}]"


def _in_plane(across: int) -> tuple[int, int]:
    """Return the axes of a view that are rows and columns of the slices across one axis."""
    rows, columns = (axis for axis in range(3) if axis != across)
    return rows, columns


def _known_case(case: str | Case | None) -> tuple[str | None, Case | None]:
    """Return the id, and the case if CTSpine1K has one with that id."""
    if case is None:
        return None, None
    if isinstance(case, Case):
        return case.case_id, case
    catalog = load_catalog()
    return str(case), catalog[case] if case in catalog else None  # noqa: SIM401 (a Catalog has no get)


def _volumes(columns: Mapping[str, Any]) -> tuple[_Volume, _Volume]:
    """Return image and segmentation, as arrays of any kind that can be sliced; without one, background."""
    if "image" not in columns:
        raise ValueError(f"sample: expected a column image, found {', '.join(columns)}")
    image = _sliceable(columns["image"])
    shape = tuple(image.shape)
    if len(shape) not in (2, 3) or 0 in shape:
        raise ValueError(f"image: expected one volume (k, i, j) or one slice (i, j), found shape {shape}")
    background = np.broadcast_to(np.uint8(BACKGROUND), shape)
    labels = _sliceable(columns.get("segmentation", background))
    if tuple(labels.shape) != shape:
        raise ValueError(f"segmentation: expected the image's shape, {shape}, found {tuple(labels.shape)}")
    return (image, labels) if len(shape) == 3 else (np.asarray(image), np.asarray(labels))


def _sliceable(array: Any) -> _Volume:
    # By attribute, since checking the type for LazyArray would import `datasets`.
    return array if hasattr(array, "shape") else np.asarray(array)


def _points(
    points: Iterable[Any] | None, first: int | None
) -> tuple[tuple[int, str, tuple[float, ...]], ...]:
    """Return labels, names and voxels of a column of points, or of `Points`.

    ``first`` is the index of the sample's first slice in its volume; without it, the points are nowhere.
    """
    found = []
    for point in points or () if first is not None else ():
        fields = point if isinstance(point, Mapping) else vars(point)
        k, i, j = map(float, fields["voxel"])
        found.append((int(fields["label"]), str(fields.get("name") or ""), (k - (first or 0), i, j)))
    return tuple(found)


def _checked_spacing(spacing: Iterable[Any]) -> tuple[float, ...]:
    sizes = tuple(map(float, spacing))
    if len(sizes) != 3:
        raise ValueError(f"spacing: expected 3 numbers, in mm and array order, found {len(sizes)}")
    return sizes


def label_counts(labels: _Volume, names: Mapping[int, str], scheme: str) -> list[NDArray[np.int64]]:
    """Count voxels by index and label along each axis.

    Args:
        labels: (k, i, j).
        names: of all labels of the scheme, without background.
        scheme: the label scheme, for messages.

    Returns:
        For each axis an array of shape (size of the axis, greatest label of the scheme + 1).

    Raises:
        ValueError: labels that have no name, or are not whole numbers.
    """
    counts = [np.zeros((size, max(names) + 1), np.int64) for size in labels.shape]
    for start in range(0, labels.shape[0], _DEPTH):
        slab = np.asarray(labels[start : start + _DEPTH])
        if slab.dtype.kind not in "biu":
            raise ValueError(f"segmentation: expected whole numbers in an integer type, found {slab.dtype}")
        places = np.nonzero(slab)
        found = slab[places].astype(np.int64)
        strange = sorted(set(np.unique(found).tolist()) - set(names))
        if strange:
            raise ValueError(
                f"segmentation: expected 0 to {max(names)} with label_scheme={scheme!r}, "
                f"found {shortened(strange)}"
            )
        for along, axis, indices in zip(counts, range(3), places, strict=True):
            flat = (indices + (start if axis == 0 else 0)) * along.shape[1] + found
            along += np.bincount(flat, minlength=along.size).reshape(along.shape)
    return counts
