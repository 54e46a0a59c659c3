"""Points of vertebrae, such as the centres of their bodies: read, turned, resampled and written.

`ctspine1k.volumes.point_formats` lists the formats, and the frames of their coordinates.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ctspine1k._messages import check_choice
from ctspine1k.catalog.dataset import DataSet, Kind, PointsFormat
from ctspine1k.catalog.vocabulary import Vocabulary
from ctspine1k.errors import FileFormatError, PointsError
from ctspine1k.running.disk import atomic_write, make_parent, require_replaceable
from ctspine1k.volumes.headers import Geometry
from ctspine1k.volumes.nifti import Readable
from ctspine1k.volumes.opening import world_of
from ctspine1k.volumes.orientation import ORIENTATIONS, degenerate_axes
from ctspine1k.volumes.point_formats import (
    MAX_POINTS_BYTES,
    READINGS,
    World,
    lml_indices,
    read_bytes,
    verse_indices,
)

__all__ = [
    "POINTS_KINDS",
    "READINGS",
    "Point",
    "Points",
    "PointsKind",
    "check_reading",
    "read_case_points",
    "read_points",
    "write_points",
    "written_kind",
]

#: Where points come from: a file of the data set, or computed from masks, as the centre of all voxels of a
#: vertebra ("mask") or of the part in front of the spinal canal ("body").
PointsKind: TypeAlias = Literal["file", "mask", "body"]
POINTS_KINDS: tuple[PointsKind, ...] = ("file", "mask", "body")

_Triple: TypeAlias = "tuple[float, float, float]"


@dataclass(frozen=True)
class Point:
    """One point of a vertebra."""

    label: int
    name: str  #: of the vertebra, such as "T12"
    voxel: _Triple  #: index in the array, (k, i, j), from 0; the centre of a voxel is a whole number
    mm: _Triple  #: RAS+ millimetres


@dataclass(frozen=True)
class Points:
    """The points of one case, all of one kind, in the order of their labels."""

    points: tuple[Point, ...]
    kind: PointsKind
    orientation: str  #: anatomical directions of the axes of the array that voxels refer to, such as "SLA"

    def __iter__(self) -> Iterator[Point]:
        return iter(self.points)

    def __len__(self) -> int:
        return len(self.points)

    def on(self, geometry: Geometry) -> Points:
        """Return the same points on the grid of another array of the image, turned or resampled.

        Raises:
            ValueError: its affine gives voxels no size.
        """
        if what := degenerate_axes(geometry.affine):
            raise ValueError(f"points have no position in a volume that has {what}")
        to_index = np.linalg.inv(geometry.affine)
        moved = []
        for point in self.points:
            i, j, k = _triple(to_index[:3] @ [*point.mm, 1.0])
            moved.append(replace(point, voxel=(k, i, j)))
        return Points(tuple(moved), self.kind, geometry.orientation)

    @classmethod
    def of(
        cls,
        indices: Mapping[int, Sequence[float] | NDArray[np.float64]],
        geometry: Geometry,
        vocabulary: Vocabulary,
        kind: PointsKind,
    ) -> Points:
        """Return points, given the index (i, j, k) of each label in the image's file."""
        points = []
        for label in sorted(indices):
            i, j, k = map(float, indices[label])
            mm = _triple(geometry.affine[:3] @ [i, j, k, 1.0])
            points.append(Point(label, vocabulary.name(label), (k, i, j), mm))
        return cls(tuple(points), kind, geometry.orientation)


def check_reading(reading: str | None, data_set: DataSet) -> None:
    """Check that a way to read coordinates is one that files of a data set have; None for the one that fits.

    Raises:
        ValueError: the data set has no files of points, or their format has no such reading.
    """
    if reading is not None and data_set.points_format is None:
        raise ValueError(f"reading={reading!r}: expected None, since {data_set.title} has no files of points")
    if data_set.points_format is not None:
        check_choice("reading", reading, READINGS[data_set.points_format], or_none=True)


def read_points(
    file: Readable,
    geometry: Geometry,
    vocabulary: Vocabulary,
    *,
    format: str,
    reading: str | None = None,
    world: World = "RAS",
) -> Points:
    """Read the points of one case.

    Entries with NaN are left out. Of several points of a vertebra, the first is kept, with a warning.

    Args:
        file: a path, or an open binary stream.
        geometry: of the image, as stored in its file, such as ``Geometry.of(affine, shape)``.
        vocabulary: the vertebrae that points may be of.
        format: one of `READINGS`.
        reading: how the coordinates are meant, one of the format's `READINGS`; None for the one that fits.
        world: the convention of coordinates in the image's header, for "affine": "LPS" for MetaImage.

    Returns:
        Points: of kind "file", or of the kind that `write_points` has noted; with voxels of the array as
        stored, (k, i, j). `Points.on` brings them into another one.

    Raises:
        ValueError: an argument that is not allowed.
        FileFormatError: the file has another format, or the image's affine gives voxels no size.
        PointsError: a vertebra that the vocabulary does not have, or points outside the image.
        FileNotFoundError: there is no file at the path.
    """
    check_choice("format", format, tuple(READINGS))
    check_choice("reading", reading, READINGS[format], or_none=True)
    data, name = read_bytes(file)
    if what := degenerate_axes(geometry.affine):
        expected = "points of an image whose affine has a direction for each axis"
        raise FileFormatError(name, expected, what, "Load the image without points.")
    kind: PointsKind = "file"
    if format == "lml":
        indices = lml_indices(data, geometry, vocabulary, reading, world, name)
    else:
        indices, noted = verse_indices(data, geometry, vocabulary, reading, name)
        kind = noted if noted in ("mask", "body") else "file"  # type: ignore[assignment]
    return Points.of(indices, geometry, vocabulary, kind)


def read_case_points(
    files: Mapping[Kind, Readable],
    geometry: Geometry,
    vocabulary: Vocabulary,
    points_format: PointsFormat | None,
    reading: str | None = None,
) -> Points | None:
    """Read the points among the files of one case; None if it has no file with points.

    Args:
        files: as paths or streams; the name of the image says in which convention its header is.
        geometry: of the image, as stored in its file.
        vocabulary: the vertebrae that points may be of.
        points_format: that of the data set.
        reading: as for `read_points`, which has the other errors.

    Raises:
        PointsError: the points were computed from a mask: kinds are not mixed.
    """
    if points_format is None or "points" not in files:
        return None
    file, world = files["points"], world_of(files["image"])
    options: dict[str, Any] = {"format": points_format, "reading": reading, "world": world}
    points = read_points(file, geometry, vocabulary, **options)
    if points.kind != "file":
        found = f"points computed from a mask, of kind {points.kind!r}"
        hint = f"Ask for kind={points.kind!r}, or put the data set's own file in its place."
        raise PointsError(str(getattr(file, "name", file)), "the data set's own points", found, hint)
    return points


def write_points(points: Points, path: str | os.PathLike[str]) -> None:
    """Write points as JSON of VerSe's first form: the file appears whole, and replaces one written before.

    Coordinates are those of `Point.voxel`. Their kind, which `read_points` reads again, is noted beside the
    direction.

    Args:
        points: of one case, on the grid of its image as stored or of another array.
        path: the file, such as ``CASE_ctd.json``; its folder is made.

    Raises:
        ValueError: an axis of the array has no direction.
        OutputError: another file is there, such as one of a data set, or it cannot be written.
    """
    k, i, j = tuple(points.orientation)
    if i + j + k not in ORIENTATIONS:
        raise ValueError(f"orientation {points.orientation!r}: expected a direction for each axis")
    head = {"direction": [i, j, k], "kind": points.kind}
    entries = [
        {"label": point.label, "X": point.voxel[1], "Y": point.voxel[2], "Z": point.voxel[0]}
        for point in points
    ]
    text = json.dumps([head, *entries], allow_nan=False)
    make_parent(Path(path))
    require_replaceable(
        Path(path), "points that were written before", lambda file: written_kind(file) is not None, "path"
    )
    with atomic_write(Path(path)) as written:
        written.write_text(text, encoding="utf-8")


def written_kind(file: IO[bytes]) -> PointsKind | None:
    """Return the kind of the points in a file that `write_points` wrote; None for any other file."""
    try:
        kind: object = json.loads(file.read(MAX_POINTS_BYTES))[0]["kind"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    return next((one for one in POINTS_KINDS if one == kind), None)


def _triple(values: Iterable[Any]) -> _Triple:
    x, y, z = map(float, values)
    return x, y, z
