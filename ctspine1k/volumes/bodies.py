"""Points computed from labels: the centre of each vertebra's whole mask, or of its body.

The body is the part of a vertebra in front of its spinal canal, found as follows (lengths in mm, in space):

1. The direction of the spine at a vertebra is that between the centres of the masks next to it; of a single
   one, upwards. The front is the patient's front, at right angles to it.
2. The mask is projected along the spine on a grid of 1 mm. The canal is a straight tube, so its projection
   is a hole in that of the ring around it: the largest hole, of at least 40 mm2. The direction is tilted
   forwards and backwards by up to 30 degrees, in steps of 5: the tilt with the largest hole is taken.
3. The plane through the front of the hole, along the tilted direction, parts the vertebra. The body is the
   largest connected piece in front of it, and its point the mean of that piece's voxels.
4. Where there is no such hole, as in a vertebra that is cut or whose arch is open, the plane lies where it
   does in the nearest two vertebrae that have one, relative to the centre of the mask; in a case without
   any, it goes through that centre.

Of C1, which has no body, this is the front arch.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ctspine1k.volumes.headers import Geometry
from ctspine1k.volumes.regions import centroid_of, require_scipy

__all__ = ["mask_indices"]

#: The grid on which masks are projected, and the distance between the samples of a voxel that leaves no cell
#: within a slice empty, however it is turned (mm).
_CELL_MM, _SAMPLE_MM = 1.0, 0.7

#: Holes that are smaller are no spinal canal, such as those of arteries in cervical vertebrae (mm2).
_LEAST_CANAL_MM2 = 40.0

#: Tilts of the direction of the spine that are tried (degrees).
_TILTS = range(-30, 31, 5)

#: Half the width of the strip in the middle of a canal in which its front is looked for (mm).
_MIDDLE_MM = 4.0

#: Shorter than this, the way between two centres has no direction (mm).
_NO_LENGTH_MM = 1e-6

#: More samples of a vertebra than this say nothing new about its outline.
_SAMPLES = 60_000

_Vector: TypeAlias = "NDArray[np.float64]"


@dataclass(frozen=True)
class _Vertebra:
    """One label: the box around it, and its voxels."""

    label: int
    start: _Vector  #: index (i, j, k) of the first voxel of the box
    mask: NDArray[np.bool_]  #: (i, j, k)
    centre: _Vector  #: mm, relative to the first voxel of the volume


@dataclass(frozen=True)
class _Frame:
    """The directions at a vertebra, of length 1."""

    up: _Vector
    front: _Vector

    @classmethod
    def along(cls, up: _Vector) -> _Frame:
        """Return the frame whose front is as near to the patient's as the direction of the spine allows.

        Without a direction, as of two masks with the same centre, it is upwards.
        """
        length = np.linalg.norm(up)
        up = up / length if length > _NO_LENGTH_MM else np.array([0.0, 0.0, 1.0])
        sides = (side - (side @ up) * up for side in (np.array([0.0, 1.0, 0.0]), np.array([0.0, 0.0, -1.0])))
        front = next(side for side in sides if np.linalg.norm(side) > 0.1)
        return cls(up, front / np.linalg.norm(front))

    def tilted(self, degrees: float) -> _Frame:
        """Return the frame turned about its third direction: up moves to the front."""
        cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
        return _Frame(cos * self.up + sin * self.front, cos * self.front - sin * self.up)


def mask_indices(
    labels: NDArray[Any], geometry: Geometry, kind: Literal["mask", "body"], start: Sequence[int] = (0, 0, 0)
) -> dict[int, _Vector]:
    """Return the index (i, j, k) of the point of each label.

    Args:
        labels: whole numbers, 0 for background, of shape (i, j, k): all of a volume, or a box in it.
        geometry: of the volume, which gives voxels a size.
        kind: what the point is the centre of.
        start: index of the box's first voxel.

    Raises:
        MissingPackageError: SciPy is not installed.
    """
    axes = geometry.affine[:3, :3]
    found = list(_vertebrae(labels, axes, np.asarray(start, np.float64)))
    to_index = np.linalg.inv(axes)
    if kind == "mask":
        return {one.label: to_index @ one.centre for one in found}
    planes = _planes(found, axes)
    return {one.label: _body(one, axes, *planes[one.label]) for one in found}


def _vertebrae(labels: NDArray[Any], axes: _Vector, start: _Vector) -> Iterator[_Vertebra]:
    # Of a box without any voxel, as around no labels, SciPy finds no greatest label.
    places = require_scipy().find_objects(labels) if labels.size else []
    for label, place in enumerate(places, start=1):
        if place is not None:
            mask = labels[place] == label
            first = start + [side.start for side in place]
            yield _Vertebra(label, first, mask, axes @ (first + centroid_of(mask)))


def _planes(found: Sequence[_Vertebra], axes: _Vector) -> dict[int, tuple[_Frame, float]]:
    """Return the plane in front of each canal: its frame, and how far it is in front of the mask's centre."""
    down = sorted(found, key=lambda one: -one.centre[2])
    planes, without = {}, []
    for number, one in enumerate(down):
        upper, lower = down[max(0, number - 1)], down[min(len(down) - 1, number + 1)]
        frame = _Frame.along(upper.centre - lower.centre)
        plane = _plane(_samples(one, axes), frame)
        if plane is None:
            without.append((one, frame))
        else:
            planes[one.label] = plane
    known = [one for one in down if one.label in planes]
    for one, frame in without:
        near = sorted(known, key=lambda other: float(np.linalg.norm(other.centre - one.centre)))[:2]
        offsets = [planes[other.label][1] for other in near]
        planes[one.label] = frame, float(np.mean(offsets)) if offsets else 0.0
    return planes


def _samples(one: _Vertebra, axes: _Vector) -> _Vector:
    """Return places in all voxels of a vertebra, relative to its centre (mm): several in each large voxel."""
    counts = np.ceil(np.linalg.norm(axes, axis=0) / _SAMPLE_MM).astype(int)
    indices = np.argwhere(one.mask)
    indices = indices[:: max(1, len(indices) * int(counts.prod()) // _SAMPLES)]
    within = np.array(list(itertools.product(*((np.arange(n) + 0.5) / n - 0.5 for n in counts))))
    places = (indices[:, np.newaxis] + within + one.start).reshape(-1, 3)
    samples: _Vector = places @ axes.T - one.centre
    return samples


def _plane(samples: _Vector, frame: _Frame) -> tuple[_Frame, float] | None:
    """Return the plane in front of the canal, as in `_planes`; None if there is no canal."""
    canals = ((_canal(samples, frame.tilted(degrees)), frame.tilted(degrees)) for degrees in _TILTS)
    hole, tilted = max(canals, key=lambda canal: len(canal[0]))
    if len(hole) * _CELL_MM**2 < _LEAST_CANAL_MM2:
        return None
    is_middle = abs(hole[:, 0] - hole[:, 0].mean()) <= _MIDDLE_MM
    return tilted, float(hole[is_middle, 1].max()) + _CELL_MM / 2


def _canal(samples: _Vector, frame: _Frame) -> _Vector:
    """Return the centres of the cells of the largest hole in the projection along the spine.

    They are of shape (cells, 2): mm to the side, and to the front.
    """
    ndimage = require_scipy()
    to_side, to_front = samples @ np.cross(frame.front, frame.up), samples @ frame.front
    first = np.array([to_side.min(), to_front.min()])
    side = ((to_side - first[0]) * (1 / _CELL_MM)).astype(np.intp)
    ahead = ((to_front - first[1]) * (1 / _CELL_MM)).astype(np.intp)
    outline = np.zeros((side.max() + 1, ahead.max() + 1), bool)
    outline[side, ahead] = True
    holes, count = ndimage.label(ndimage.binary_fill_holes(outline) & ~outline)
    if not count:
        return np.zeros((0, 2))
    largest = 1 + int(np.bincount(holes.ravel())[1:].argmax())
    hole: _Vector = first + (np.argwhere(holes == largest) + 0.5) * _CELL_MM
    return hole


def _body(one: _Vertebra, axes: _Vector, frame: _Frame, offset: float) -> _Vector:
    """Return the index of the centre of the part in front of a plane."""
    i, j, k = np.ogrid[tuple(map(slice, one.mask.shape))]
    along = frame.front @ axes
    first = frame.front @ (axes @ one.start - one.centre)
    is_front = first + along[0] * i + along[1] * j + along[2] * k > offset
    pieces, count = require_scipy().label(one.mask & is_front, np.ones((3, 3, 3), bool))
    if not count:
        return np.linalg.inv(axes) @ one.centre
    largest = 1 + int(np.bincount(pieces.ravel())[1:].argmax())
    index: _Vector = one.start + centroid_of(pieces == largest)
    return index
