"""The column "points": those of a case's file, on the grid of the array that the row has.

None means that the case has no file of points, an empty list that its file has none (or, in "2d", that none
is nearest to this slice).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeAlias

from ctspine1k.catalog.dataset import Kind
from ctspine1k.catalog.vocabulary import Vocabulary
from ctspine1k.rows.options import RowOptions
from ctspine1k.volumes.cases import CaseReader
from ctspine1k.volumes.headers import Geometry
from ctspine1k.volumes.nifti import Readable
from ctspine1k.volumes.points import read_case_points

__all__ = ["PointRows", "nearest_to", "point_rows"]

#: Points as rows have them: label, name, voxel (k, i, j) of the volume's array, and mm (RAS+).
PointRows: TypeAlias = "list[dict[str, Any]]"


def point_rows(
    options: RowOptions,
    vocabulary: Vocabulary,
    case: CaseReader,
    geometry: Geometry,
    files: Mapping[Kind, Readable],
) -> PointRows | None:
    """Return the points of a case, if rows have them; None if there is no file.

    Args:
        options: with the data set's own defaults filled in (`RowOptions.of`).
        vocabulary: the vertebrae of the data set.
        case: the image, opened.
        geometry: of the array that rows have.
        files: of the case; one of points only if there is one.

    Raises:
        CaseError: the file cannot be used, or its points were computed from a mask.
    """
    reading = options.points if isinstance(options.points, str) else None
    points = read_case_points(files, case.file_geometry, vocabulary, options.points_format, reading)
    if points is None:
        return None
    if options.turned_to is not None or options.spacing is not None:
        points = points.on(geometry)
    return [
        {"label": one.label, "name": one.name, "voxel": list(one.voxel), "mm": list(one.mm)} for one in points
    ]


def nearest_to(points: PointRows | None, number: int, slices: int) -> PointRows | None:
    """Return the points to which no other slice of the volume is nearer; of two, it is the second's."""
    if points is None:
        return None
    return [one for one in points if min(max(math.floor(one["voxel"][0] + 0.5), 0), slices - 1) == number]
