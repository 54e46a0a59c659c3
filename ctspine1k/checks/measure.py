"""Measures of one case, taken in a single pass over its files: intensities, labels, each vertebra.

Only labels are kept, one byte per voxel of the box around the spine; of the image, a pass needs memory for
a few slices. Vertebrae are measured in that box after the last slice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from ctspine1k.volumes.cases import CaseReader
from ctspine1k.volumes.headers import Geometry
from ctspine1k.volumes.orientation import degenerate_axes
from ctspine1k.volumes.points import Point, Points
from ctspine1k.volumes.regions import LabelBox, Region, label_regions, require_scipy

__all__ = ["CaseMeasures", "VertebraMeasures", "measure", "require_scipy"]

_Triple: TypeAlias = "tuple[int, int, int]"


@dataclass(frozen=True)
class VertebraMeasures:
    """One labelled vertebra. Indices are of the array, slice first: (k, i, j)."""

    label: int
    voxels: int
    volume_cm3: float | None  #: None if the affine gives voxels no size
    mean_hu: float  #: of the image's voxels that have the label
    start: _Triple  #: first index of its bounding box along each axis
    stop: _Triple  #: one after the last
    centroid: tuple[float, float, float]  #: (k, i, j); the centre of a voxel is a whole number
    centroid_mm: tuple[float, float, float]  #: RAS+ millimetres
    touches_first_slice: bool  #: if True, the scan may cut it
    touches_last_slice: bool
    components: int  #: pieces that do not touch each other, not even at a corner
    largest_component: int  #: voxels of the largest piece


@dataclass(frozen=True)
class CaseMeasures:
    """One case. Axes are in the order of the array, slice first, unless another is given."""

    shape: _Triple  #: (k, i, j)
    spacing: tuple[float, float, float]  #: mm
    orientation: str  #: anatomical directions of the array's axes, such as "SLA"
    affine: tuple[tuple[float, ...], ...]  #: 4 x 4, of the image's file: (i, j, k) -> RAS+ mm
    image_type: str  #: of the voxels in the file, such as "int16"
    mask_type: str | None  #: None for a case without a mask, as other measures of labels
    slope: float  #: HU = slope x stored + intercept
    intercept: float
    hu_min: float  #: of the voxels that are finite, if any are
    hu_max: float
    hu_beside: float | None  #: mean of the voxels without label in the boxes around labels, one per slab
    label_rounding: float | None  #: greatest distance from a whole number of the values in the mask
    other_labels: tuple[int, ...] | None  #: of the mask, that the data set lacks, and that became background
    replaced_voxels: int  #: NaN and infinite ones of the image, which were read as padding
    image_crc32: int  #: of the stored voxels; equal for files with the same image
    mask_crc32: int | None  #: of the labels and their positions
    vertebrae: tuple[VertebraMeasures, ...]  #: of the mask, in the order of labels
    points: tuple[Point, ...] | None = None  #: of the points file; None if there is none


def measure(case: CaseReader, points: Points | None = None) -> CaseMeasures:
    """Measure a case that was opened as stored, with its mask if it has one.

    Raises:
        CaseError: the files cannot be used.
        MissingPackageError: SciPy is not installed.
    """
    require_scipy()  # before the files are read
    labels_and_background = case.vocabulary.max_label + 1
    lowest, highest, image_crc32 = np.inf, -np.inf, 0
    hu_sums, beside_sum, beside_count = np.zeros(labels_and_background), 0.0, 0
    spine = LabelBox()
    for stored, labels in _slabs(case):
        # To (k, j, i), the file's order in memory, so that the arrays are contiguous.
        image = stored.transpose(0, 2, 1)
        lowest, highest = min(lowest, image.min()), max(highest, image.max())
        image_crc32 = isal_zlib.crc32(np.ascontiguousarray(image), image_crc32)
        if labels is None:
            continue
        window, labelled = spine.append(labels.transpose(0, 2, 1))
        if labelled.size:
            voxels = case.scaling.values(image[window].ravel())
            in_labels = voxels[labelled]
            hu_sums += np.bincount(spine.last.ravel()[labelled], in_labels, labels_and_background)
            beside_sum += float(voxels.sum(dtype=np.float64) - in_labels.sum(dtype=np.float64))
            beside_count += voxels.size - labelled.size
    if case.replaced_voxels and np.isfinite(case.finite_range).all():  # else all is padding
        lowest, highest = case.finite_range
    extremes = case.scaling.values(np.array([lowest, highest]))
    geometry = case.geometry
    start, box = spine.joined()
    regions = label_regions(box, case.vocabulary.max_label, start)
    return CaseMeasures(
        shape=geometry.shape,
        spacing=geometry.spacing,
        orientation=geometry.orientation,
        affine=tuple(tuple(row) for row in geometry.affine.tolist()),
        image_type=case.file_types[0].name,
        mask_type=case.file_types[1].name if case.has_mask else None,
        slope=case.scaling.slope,
        intercept=case.scaling.intercept,
        hu_min=float(extremes.min()),
        hu_max=float(extremes.max()),
        hu_beside=beside_sum / beside_count if beside_count else None,
        label_rounding=case.label_rounding if case.has_mask else None,
        other_labels=case.other_labels if case.has_mask else None,
        replaced_voxels=case.replaced_voxels,
        image_crc32=image_crc32,
        mask_crc32=_checksum(start, box) if case.has_mask else None,
        vertebrae=tuple(_vertebra(region, float(hu_sums[region.label]), geometry) for region in regions),
        points=None if points is None else points.points,
    )


def _slabs(case: CaseReader) -> Iterator[tuple[NDArray[Any], NDArray[Any] | None]]:
    """Yield image and labels, as `CaseReader.slabs`; None for labels if there is no mask."""
    return case.slabs() if case.has_mask else ((image, None) for image in case.image_slabs())


def _checksum(start: _Triple, box: NDArray[np.uint8]) -> int:
    return isal_zlib.crc32(box, isal_zlib.crc32(repr((start, box.shape)).encode()))


def _vertebra(region: Region, hu_sum: float, geometry: Geometry) -> VertebraMeasures:
    """Return the measures of a region in array order, (k, i, j); the region's axes are (k, j, i)."""
    k, j, i = region.centroid
    in_mm = geometry.affine @ [i, j, k, 1]
    has_size = degenerate_axes(geometry.affine) is None
    voxel_cm3 = abs(float(np.linalg.det(geometry.affine[:3, :3]))) / 1000
    return VertebraMeasures(
        label=region.label,
        voxels=region.voxels,
        volume_cm3=region.voxels * voxel_cm3 if has_size else None,
        mean_hu=hu_sum / region.voxels,
        start=(region.start[0], region.start[2], region.start[1]),
        stop=(region.stop[0], region.stop[2], region.stop[1]),
        centroid=(k, i, j),
        centroid_mm=(float(in_mm[0]), float(in_mm[1]), float(in_mm[2])),
        touches_first_slice=region.start[0] == 0,
        touches_last_slice=region.stop[0] == geometry.shape[0],
        components=region.components,
        largest_component=region.largest_component,
    )
