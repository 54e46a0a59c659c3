"""Shapes of volumes that can be known before a conversion: from the headers of files of this machine."""

from __future__ import annotations

import warnings
from pathlib import Path

from ctspine1k.errors import CaseError
from ctspine1k.files.places import Place
from ctspine1k.files.raw import RawFile
from ctspine1k.rows.options import RowOptions
from ctspine1k.volumes.headers import Geometry
from ctspine1k.volumes.opening import open_volume
from ctspine1k.volumes.orientation import turn_to
from ctspine1k.volumes.resampling import resampled_geometry

__all__ = ["local_shape"]


def local_shape(image: RawFile, place: Place, options: RowOptions) -> tuple[int, int, int] | None:
    """Return the shape of an image's array, (k, i, j); None if its file is not here, or cannot be used."""
    path = place.local_path(image)
    if path is None or not Path(path).is_file():  # a named pipe could not be read once more
        return None
    try:
        # The conversion itself warns about the header, and raises the error of a file that cannot be used.
        with warnings.catch_warnings(), open_volume(path) as file:
            warnings.simplefilter("ignore")
            header = file.header
        affine, shape = header.affine, header.shape
        if (target := options.turned_to) is not None:
            turn = turn_to(target, affine, shape)
            affine, shape = turn.affine, turn.shape(shape)
        geometry = Geometry.of(affine, shape)
        if options.spacing is not None:
            geometry = resampled_geometry(geometry, options.spacing, header.name)
    except (CaseError, OSError, ValueError):
        return None
    return geometry.shape
