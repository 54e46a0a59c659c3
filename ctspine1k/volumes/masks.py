"""Masks on their own: read whole as bytes, brought onto another grid, joined from several files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from ctspine1k.catalog.vocabulary import Vocabulary
from ctspine1k.errors import MissingPackageError, PairMismatchError, VoxelValueError
from ctspine1k.running.stops import check_stopped
from ctspine1k.running.threads import prefetch, usable_threads
from ctspine1k.volumes.alignment import are_close
from ctspine1k.volumes.growing import GrowingArray
from ctspine1k.volumes.headers import Geometry, array_affine
from ctspine1k.volumes.nifti import Readable
from ctspine1k.volumes.opening import open_volume
from ctspine1k.volumes.orientation import degenerate_axes, turn_to
from ctspine1k.volumes.relabel import ALL_BYTES
from ctspine1k.volumes.slices import VolumeReader

__all__ = ["Mask", "joined", "on_grid", "read_mask"]

#: Slices that are read at a time.
_DEPTH = 8


@dataclass(frozen=True)
class Mask:
    """The labels of a volume, and where its voxels lie."""

    labels: NDArray[np.uint8]  #: (k, i, j), 0 for background
    geometry: Geometry
    name: str  #: of the file, for messages


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
        labels = GrowingArray(geometry.shape, np.uint8)
        slabs = reader.labels(_DEPTH, vocabulary)
        for slab in prefetch(slabs) if usable_threads() > 1 else slabs:
            check_stopped()
            np.copyto(labels.extend(len(slab)), slab, casting="unsafe")  # checked: they fit into a byte
        return Mask(labels.filled, geometry, reader.header.name)


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
        is_here = on_grid(mask, first).labels != 0
        if (taken := labels[is_here]).any():
            found = f"{np.count_nonzero(taken):,} voxels that another one has, too"
            raise VoxelValueError(mask.name, "voxels of no other vertebra", found, "Predict the case again.")
        labels[is_here] = label
    return Mask(labels, first.geometry, name)


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
            return replace(mask, labels=turn.view(mask.labels), geometry=turned)
        if resample:
            return replace(mask, labels=_nearest(mask, grid.geometry), geometry=grid.geometry)
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
    hint = 'Pass resample="nearest" (--resample nearest) to bring it onto that grid.'
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
        np.ascontiguousarray(mask.labels),
        indices[:3, :3],
        indices[:3, 3],
        output_shape=grid.shape,
        order=0,
        mode="grid-constant",  # a voxel reaches half its size beyond its centre, at the border, too
        cval=0,
        prefilter=False,
    )
    return labels
