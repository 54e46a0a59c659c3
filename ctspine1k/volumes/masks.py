"""Masks on their own: only the part around all labels is in memory, as bytes.

They are brought onto another grid, joined from several files, and put side by side to be drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from ctspine1k.catalog.vocabulary import Vocabulary
from ctspine1k.errors import MissingPackageError, PairMismatchError, VoxelValueError
from ctspine1k.running.stops import check_stopped
from ctspine1k.volumes.alignment import are_close
from ctspine1k.volumes.headers import Geometry, array_affine
from ctspine1k.volumes.nifti import Readable
from ctspine1k.volumes.opening import open_volume
from ctspine1k.volumes.orientation import axis_along, degenerate_axes, turn_to
from ctspine1k.volumes.positions import Doubt
from ctspine1k.volumes.regions import LabelBox
from ctspine1k.volumes.relabel import ALL_BYTES
from ctspine1k.volumes.slices import VolumeReader

__all__ = ["Judged", "Mask", "common_window", "joined", "on_grid", "read_mask"]

#: Slices that are read at a time.
_DEPTH = 8


@dataclass(frozen=True)
class Mask:
    """The labels of a volume, of which only a box around them all is in memory, and where its voxels lie."""

    box: NDArray[np.uint8]  #: (k, i, j), 0 for background, as around it
    start: tuple[int, int, int]  #: index in the volume of the box's first voxel
    geometry: Geometry
    name: str  #: of the file, for messages
    doubts: tuple[Doubt, ...] = ()  #: why the position that its header gives may be wrong
    changes: tuple[str, ...] = ()  #: what was changed in its voxels, such as labels that were rounded

    @classmethod
    def of(cls, labels: NDArray[Any], geometry: Geometry, name: str) -> Mask:
        """Return the mask of a whole volume, (k, i, j), whole numbers from 0 to 255."""
        spine = LabelBox()
        for slices in np.array_split(labels, range(_DEPTH, len(labels), _DEPTH)):
            spine.append(slices)
        start, box = spine.joined()
        return cls(box, start, geometry, name)

    @property
    def labels(self) -> NDArray[np.uint8]:
        """The labels of the whole volume, (k, i, j): the box, or a new array."""
        return self.part(tuple(slice(0, size) for size in self.geometry.shape))

    @property
    def window(self) -> tuple[slice, ...]:
        """Where the box is in the volume."""
        return tuple(
            slice(first, first + size) for first, size in zip(self.start, self.box.shape, strict=True)
        )

    @property
    def scan_axis(self) -> int:
        """The axis along which axial slices follow one another; the first if the header does not tell."""
        along = axis_along(self.geometry.orientation, "S")
        return 0 if along is None else along[0]

    def part(self, window: tuple[slice, ...]) -> NDArray[np.uint8]:
        """Return the labels in a window of the volume that contains the box: the box, or a new array."""
        if window == self.window:
            return self.box
        part = np.zeros([side.stop - side.start for side in window], np.uint8)
        if self.box.size:
            part[
                tuple(
                    slice(own.start - side.start, own.stop - side.start)
                    for own, side in zip(self.window, window, strict=True)
                )
            ] = self.box
        return part


def read_mask(file: Readable, vocabulary: Vocabulary = ALL_BYTES) -> Mask:
    """Read a mask as stored.

    Args:
        file: a path or an open binary stream, ``.nii.gz`` or ``.nii``.
        vocabulary: the labels that it may contain; by default all numbers of a byte.

    Raises:
        CaseError: the file cannot be used, or has other labels.
        FileNotFoundError: there is no file at the path.
    """
    with open_volume(file) as opened:
        reader = VolumeReader(opened)
        geometry = Geometry.of(reader.header.affine, reader.header.shape)
        spine = LabelBox()
        for slab in reader.labels(_DEPTH, vocabulary):
            check_stopped()
            spine.append(slab)
        start, box = spine.joined()
        changes = tuple(reader.new_changes())
        return Mask(box, start, geometry, reader.header.name, reader.header.doubts, changes)


@dataclass(frozen=True)
class Judged:
    """One case with the labels of its reference and of its prediction, (k, i, j), on one grid."""

    title: str
    reference: NDArray[np.uint8]
    prediction: NDArray[np.uint8]
    spacing: tuple[float, float, float]  #: mm, in array order
    orientation: str  #: of the array's axes
    plane: Callable[[int, int], NDArray[np.float32]]  #: reads one slice of the CT, given an axis and an index


def common_window(*masks: Mask) -> tuple[slice, ...]:
    """Return the smallest window of a volume that contains the boxes of some masks of it."""
    windows = [mask.window for mask in masks if mask.box.size] or [masks[0].window]
    return tuple(
        slice(min(side.start for side in along), max(side.stop for side in along))
        for along in zip(*windows, strict=True)
    )


def joined(masks: Sequence[tuple[int, Mask]], name: str) -> Mask:
    """Return one mask of several, each with the voxels of one label; what is not 0 in it has the label.

    Args:
        masks: at least one, each with its label; several may have the same.
        name: of the result, for messages.

    Raises:
        PairMismatchError: they are not of one grid.
        VoxelValueError: two of them have the same voxel.
    """
    first = masks[0][1]
    labels = np.zeros(first.geometry.shape, np.uint8)
    for label, mask in masks:
        here = on_grid(mask, first)
        place, is_here = labels[here.window], here.box != 0
        if (taken := place[is_here]).any():
            found = f"{np.count_nonzero(taken):,} voxels that another one has, too"
            raise VoxelValueError(mask.name, "voxels of no other vertebra", found, "Predict the case again.")
        place[is_here] = label
    doubts, changes = (
        tuple(one for _, mask in masks for one in getattr(mask, field)) for field in ("doubts", "changes")
    )
    return replace(Mask.of(labels, first.geometry, name), doubts=doubts, changes=changes)


def on_grid(mask: Mask, grid: Mask, *, resample: bool = False) -> Mask:
    """Return a mask on the grid of another one.

    A mask that is stored in another orientation, and lies at the same place, is turned: its voxels stay what
    they are.

    Args:
        mask: the one to bring there.
        grid: has the grid.
        resample: whether a mask of another grid is resampled, each voxel becoming that of the mask which lies
            nearest; outside of the mask it is background. It needs SciPy.

    Raises:
        PairMismatchError: the grids differ, and ``resample`` is False or a header gives voxels no size.
        MissingPackageError: SciPy is needed, and is not installed.
    """
    if _is_same(mask.geometry, grid.geometry):
        return mask
    are_sound = (
        degenerate_axes(mask.geometry.affine) is None and degenerate_axes(grid.geometry.affine) is None
    )
    if are_sound:
        k, i, j = mask.geometry.shape
        codes = "".join(str(code) for code in nib.orientations.aff2axcodes(grid.geometry.affine))
        turn = turn_to(codes, mask.geometry.affine, (i, j, k))
        turned = Geometry.of(turn.affine, turn.shape((i, j, k)))
        if _is_same(turned, grid.geometry):
            return Mask.of(turn.view(mask.labels), turned, mask.name)
        if resample:
            return Mask.of(_nearest(mask, grid.geometry), grid.geometry, mask.name)
    differing = [
        name
        for name, equal in (
            ("shape", mask.geometry.shape == grid.geometry.shape),
            ("affine", are_close(mask.geometry.affine, grid.geometry.affine)),
        )
        if not equal
    ]
    expected, found = (
        " and ".join(_text(geometry, name) for name in differing)
        for geometry in (grid.geometry, mask.geometry)
    )
    hint = (
        'Pass resample="nearest" (--resample nearest) to bring it onto that grid.'
        if are_sound
        else "One of the headers gives voxels no size: save the mask again with the other's."
    )
    raise PairMismatchError(mask.name, f"the grid of {grid.name}, {expected}", found, hint)


def _is_same(one: Geometry, other: Geometry) -> bool:
    return one.shape == other.shape and are_close(one.affine, other.affine)


def _text(geometry: Geometry, what: str) -> str:
    return f"shape {geometry.shape}" if what == "shape" else f"affine {geometry.affine.round(4).tolist()}"


def _nearest(mask: Mask, grid: Geometry) -> NDArray[np.uint8]:
    """Return the labels of the nearest voxels, for each voxel of a grid."""
    try:
        from scipy.ndimage import affine_transform
    except ImportError:
        raise MissingPackageError("resampling", "scipy", "evaluate") from None
    # From an index of the grid's array to one of the mask's.
    indices = np.linalg.inv(array_affine(mask.geometry.affine)) @ array_affine(grid.affine)
    labels: NDArray[np.uint8] = affine_transform(
        mask.labels,
        indices[:3, :3],
        indices[:3, 3],
        output_shape=grid.shape,
        order=0,
        mode="grid-constant",  # a voxel reaches half its size beyond its centre, at the border, too
        cval=0,
        prefilter=False,
    )
    return labels
