"""What is in one case, measured in the one pass over its files: intensities, labels, each vertebra.

Only what a label covers is kept, one byte a voxel, so that a pass needs memory for some slices and for the
box around the spine. Vertebrae are measured in that box when all slices have come.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from ctspine1k.errors import MissingPackageError
from ctspine1k.volumes.cases import CaseReader
from ctspine1k.volumes.vertebrae import MAX_LABEL

__all__ = ["CaseMeasures", "VertebraMeasures", "measure", "require_scipy"]

#: Voxels that share a face, an edge or a corner are of one piece.
_NEIGHBOURS = np.ones((3, 3, 3), bool)

_Triple: TypeAlias = "tuple[int, int, int]"


@dataclass(frozen=True)
class VertebraMeasures:
    """One labelled vertebra. Indices and their order are of the array, slice first: (k, i, j)."""

    label: int
    voxels: int
    volume_cm3: float
    mean_hu: float  #: of the image's voxels below the label
    start: _Triple  #: first index of its bounding box along each axis
    stop: _Triple  #: one after the last
    centroid: tuple[float, float, float]  #: (k, i, j), the centre of a voxel being a whole number
    centroid_mm: tuple[float, float, float]  #: RAS+ millimetres
    touches_first_slice: bool  #: then the scan may cut it
    touches_last_slice: bool
    components: int  #: pieces that do not touch each other, not even at a corner
    largest_component: int  #: voxels of the largest piece


@dataclass(frozen=True)
class CaseMeasures:
    """One case. Axis order is of the array, slice first, where nothing else is said."""

    shape: _Triple  #: (k, i, j)
    spacing: tuple[float, float, float]  #: mm
    orientation: str  #: where the array's axes lead to, such as "SLA"
    affine: tuple[tuple[float, ...], ...]  #: 4 x 4, of the image's file: (i, j, k) -> RAS+ mm
    image_type: str  #: of the voxels in the file, such as "int16"
    mask_type: str
    slope: float  #: HU = slope x stored + intercept
    intercept: float
    hu_min: float
    hu_max: float
    hu_beside: float | None  #: mean of the voxels without label in the boxes around labels, slab by slab
    image_crc32: int  #: of the stored voxels: files that agree in it hold the same image
    mask_crc32: int  #: of labels and their places
    vertebrae: tuple[VertebraMeasures, ...]  #: in the order of labels


def require_scipy() -> Any:
    """Give SciPy's module for images.

    Raises:
        MissingPackageError: it is not installed.
    """
    try:
        from scipy import ndimage
    except ImportError:
        raise MissingPackageError("measuring vertebrae", "scipy", "scan") from None
    return ndimage


def measure(pair: CaseReader) -> CaseMeasures:
    """Measure a case that was opened as stored.

    Raises:
        CaseError: the files cannot be used.
        MissingPackageError: SciPy is not installed.
    """
    require_scipy()
    lowest, highest, image_crc32 = np.inf, -np.inf, 0
    hu_sums, beside_sum, beside_count = np.zeros(MAX_LABEL + 1), 0.0, 0
    spine = _Spine()
    for stored, labels in pair.slabs():
        # In the order of the file: the first axis comes last in memory.
        image, mask = stored.transpose(0, 2, 1), labels.transpose(0, 2, 1)
        lowest, highest = min(lowest, image.min()), max(highest, image.max())
        image_crc32 = isal_zlib.crc32(np.ascontiguousarray(image), image_crc32)
        found, window = spine.append(mask)
        if found.size:
            voxels = pair.scaling.values(image[window].reshape(-1))
            in_labels = voxels[found]
            hu_sums += np.bincount(spine.last.reshape(-1)[found], in_labels, MAX_LABEL + 1)
            beside_sum += float(voxels.sum(dtype=np.float64) - in_labels.sum(dtype=np.float64))
            beside_count += voxels.size - found.size
    extremes = pair.scaling.values(np.array([lowest, highest], pair.stored_types[0]))
    geometry = pair.geometry
    start, box = spine.joined()
    return CaseMeasures(
        shape=geometry.shape,
        spacing=geometry.spacing,
        orientation=geometry.orientation,
        affine=tuple(tuple(row) for row in geometry.affine.tolist()),
        image_type=pair.file_types[0].name,
        mask_type=pair.file_types[1].name,
        slope=pair.scaling.slope,
        intercept=pair.scaling.intercept,
        hu_min=float(extremes.min()),
        hu_max=float(extremes.max()),
        hu_beside=beside_sum / beside_count if beside_count else None,
        image_crc32=image_crc32,
        mask_crc32=isal_zlib.crc32(box, isal_zlib.crc32(repr((start, box.shape)).encode())),
        vertebrae=tuple(_vertebrae(start, box, hu_sums, geometry.shape[0], geometry.affine)),
    )


class _Spine:
    """The part of a mask that holds labels, gathered slab by slab in the order of the file, (k, j, i)."""

    def __init__(self) -> None:
        self.last: NDArray[np.uint8]  #: what the last slab had
        self._parts: list[tuple[_Triple, NDArray[np.uint8]]] = []
        self._slices = 0

    def append(self, mask: NDArray[Any]) -> tuple[NDArray[np.intp], tuple[slice, ...]]:
        """Keep the labels of a slab; tell which of the window's voxels have one, and the window."""
        flat = mask.max(axis=0)  # one look at every voxel, and few at most of them again
        rows, columns = (np.flatnonzero(flat.any(axis=axis)) for axis in (1, 0))
        self._slices += len(mask)
        if not rows.size:
            return rows, ()
        window = (slice(None), slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
        self.last = np.array(mask[window], np.uint8, order="C")  # a copy: the buffer is used again
        self._parts.append(((self._slices - len(mask), int(rows[0]), int(columns[0])), self.last))
        return np.flatnonzero(self.last), window

    def joined(self) -> tuple[_Triple, NDArray[np.uint8]]:
        """Give the box around all labels, and where it starts; (k, j, i)."""
        if not self._parts:
            return (0, 0, 0), np.zeros((0, 0, 0), np.uint8)
        starts = np.array([start for start, _ in self._parts])
        stops = starts + [part.shape for _, part in self._parts]
        first = starts.min(axis=0)
        box = np.zeros(stops.max(axis=0) - first, np.uint8)
        for start, stop, (_, part) in zip(starts - first, stops - first, self._parts, strict=True):
            box[tuple(map(slice, start, stop))] = part
        return (int(first[0]), int(first[1]), int(first[2])), box


def _vertebrae(
    origin: _Triple, box: NDArray[np.uint8], hu_sums: NDArray[np.float64], slices: int, affine: NDArray[Any]
) -> Iterator[VertebraMeasures]:
    """Measure each label in the box around them all; ``box`` and ``origin`` are (k, j, i)."""
    ndimage = require_scipy()
    voxel_cm3 = abs(float(np.linalg.det(affine[:3, :3]))) / 1000
    for label, place in enumerate(ndimage.find_objects(box, MAX_LABEL), start=1):
        if place is None:
            continue
        here = box[place] == label
        pieces, components = ndimage.label(here, _NEIGHBOURS)
        sizes = np.bincount(pieces.reshape(-1))[1:]
        voxels = int(sizes.sum())
        start = [first + side.start for first, side in zip(origin, place, strict=True)]
        k, j, i = (
            first + float(here.sum(axis=others) @ np.arange(size)) / voxels
            for first, size, others in zip(start, here.shape, ((1, 2), (0, 2), (0, 1)), strict=True)
        )
        stop = [first + size for first, size in zip(start, here.shape, strict=True)]
        in_mm = affine @ [i, j, k, 1]
        yield VertebraMeasures(
            label=label,
            voxels=voxels,
            volume_cm3=voxels * voxel_cm3,
            mean_hu=float(hu_sums[label]) / voxels,
            start=(start[0], start[2], start[1]),
            stop=(stop[0], stop[2], stop[1]),
            centroid=(k, i, j),
            centroid_mm=(float(in_mm[0]), float(in_mm[1]), float(in_mm[2])),
            touches_first_slice=start[0] == 0,
            touches_last_slice=stop[0] == slices,
            components=int(components),
            largest_component=int(sizes.max()),
        )
