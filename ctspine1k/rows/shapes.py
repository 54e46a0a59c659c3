"""Shapes of volumes that can be known before a conversion, by the headers of files here; numbers of rows."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ctspine1k.errors import CaseError
from ctspine1k.files.places import Place
from ctspine1k.files.raw import CaseFiles, RawFile
from ctspine1k.rows.options import RowOptions
from ctspine1k.volumes.headers import Geometry
from ctspine1k.volumes.opening import open_volume
from ctspine1k.volumes.orientation import turn_to
from ctspine1k.volumes.resampling import resampled_geometry

__all__ = ["local_shape", "row_counts"]


def local_shape(image: RawFile, place: Place, options: RowOptions) -> tuple[int, int, int] | None:
    """Return the shape of an image's array, (k, i, j); None if its file is not here, or cannot be used."""
    path = place.local_path(image)
    if path is None or not Path(path).is_file():  # a named pipe could not be read once more
        return None
    try:
        with open_volume(path) as file:
            header = file.header
        affine, shape = header.affine, header.shape
        if (target := options.turned_to) is not None:
            turn = turn_to(target, affine, shape)
            affine, shape = turn.affine, turn.shape(shape)
        geometry = Geometry.of(affine, shape)
        if options.spacing is not None:
            geometry = resampled_geometry(geometry, options.spacing, header.name)
    except (CaseError, OSError, ValueError):  # the conversion itself says what is wrong with the file
        return None
    return geometry.shape


def row_counts(files: Iterable[CaseFiles], place: Place, options: RowOptions) -> list[int] | None:
    """Return the number of rows of each case; None if that is not known before a conversion."""
    counts = []
    for one in files:
        shape = (1,) if options.config == "3d" else local_shape(one["image"], place, options)
        if shape is None:
            return None
        counts.append(shape[0])
    return counts
