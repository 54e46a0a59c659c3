"""The cases to sample from: rows of a compact data set, each opened once per process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ctspine1k.storage.chunks import StoredArray
from ctspine1k.storage.lazy import LazyDataset
from ctspine1k.training.foreground import Centres, Foreground, Points

__all__ = ["FILE_AXES", "Around", "Volume", "Volumes"]

#: What patches are centred on: labelled voxels of the mask, or points.
Around: TypeAlias = Literal["labels", "points"]

#: Where the axes (i, j, k) of a file are among those of its array, (k, i, j).
FILE_AXES = (1, 2, 0)

_GEOMETRY = "Load the data set with geometry=True."


@dataclass(frozen=True)
class Volume:
    """One case, opened: its voxels are still compressed. Arrays are (k, i, j)."""

    case_id: str
    image: StoredArray
    segmentation: StoredArray | None
    affine: NDArray[np.float64] | None  #: of the array, to RAS+ mm; None without geometry
    spacing: tuple[float, ...] | None  #: mm along the axes of the array
    orientation: str | None  #: the sides to which the axes of the array lead
    points: Sequence[Mapping[str, Any]] | None = None  #: as in the row; None if it has none

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes along the axes."""
        return self.image.shape

    @property
    def affine_of_file(self) -> NDArray[np.float64]:
        """The affine for the axes (i, j, k) of the file.

        Raises:
            ValueError: rows have no geometry.
        """
        if self.affine is None:
            raise ValueError(f"{self.case_id}: expected an affine, found none. {_GEOMETRY}")
        return self.affine[:, [*FILE_AXES, 3]]

    def column(self, name: str) -> StoredArray:
        """Return "image" or "segmentation".

        Raises:
            ValueError: the case has no mask.
        """
        stored = self.image if name == "image" else self.segmentation
        if stored is None:
            raise ValueError(f"{self.case_id}: expected a mask, found none")
        return stored

    @cached_property
    def foreground(self) -> Foreground:
        """Where its labels are.

        Raises:
            ValueError: the case has no mask.
        """
        if self.segmentation is None:
            raise ValueError(f"{self.case_id}: expected a mask to find the foreground in, found none")
        return Foreground(self.segmentation)

    def centres(self, around: Around) -> Centres:
        """Return what patches may be centred on; errors as for `foreground`."""
        return Points(self.points) if around == "points" else self.foreground


class Volumes:
    """The rows of a compact "3d" data set. Another process gets the data set, and opens rows itself.

    Args:
        data: the data set.
        need_geometry: whether rows must say where their voxels lie.

    Raises:
        ValueError: no such data set, or one without rows.
    """

    def __init__(self, data: Any, *, need_geometry: bool = False) -> None:
        self._rows = data if isinstance(data, LazyDataset) else LazyDataset(data)
        self._opened: dict[int, Volume] = {}
        if not len(self._rows):
            raise ValueError("expected at least one case to sample from, found a data set without rows")
        first = self._rows[0]
        if missing := [name for name in ("image", "patient_id") if name not in first]:
            raise ValueError(f"expected the columns image and patient_id; missing: {' and '.join(missing)}")
        self.has_masks = "segmentation" in first
        self.has_points = "points" in first
        self.has_geometry = {"array_affine", "spacing", "orientation"} <= set(first)
        if need_geometry and not self.has_geometry:
            raise ValueError(f"expected columns with the geometry of cases, found none. {_GEOMETRY}")
        self[0]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": {}}

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns with voxels."""
        return ("image", "segmentation") if self.has_masks else ("image",)

    @property
    def files(self) -> list[str]:
        """Paths of the files in which the rows are; none if they are in memory."""
        return self._rows.files

    def require_masks(self, option: str, value: object, *, without: object) -> None:
        """Raise a `ValueError` if there are no masks, which this option needs; ``without`` needs none."""
        if not self.has_masks:
            raise ValueError(
                f"{option}={value}: expected a column segmentation to find it in, found none. Without masks, "
                f"pass {option}={without}."
            )

    def require_centres(self, around: Around | None, foreground: float) -> Around:
        """Return what patches are centred on; None is labels where there are masks, else points.

        Raises:
            ValueError: there are none, and the share of these patches is not 0.
        """
        if around is None:
            around = "points" if self.has_points and not self.has_masks else "labels"
        if not foreground:
            return around
        if around == "points" and not self.has_points:
            raise ValueError(
                f'around="points", foreground={foreground}: expected a column points, found none. Load with '
                "points=True, or pass foreground=0."
            )
        if around == "labels":
            self.require_masks("foreground", foreground, without=0)
        return around

    def case_ids(self) -> list[str]:
        """Return the ids of the cases, without opening them."""
        return [row["patient_id"] for row in self._rows]

    def __getitem__(self, number: int) -> Volume:
        """Return a case, opened at the first call.

        Raises:
            ValueError: its row is not that of a volume, or has no mask where others have one.
        """
        if number not in self._opened:
            self._opened[number] = self._open(number)
        return self._opened[number]

    def _open(self, number: int) -> Volume:
        row = self._rows[number]
        case_id = row["patient_id"]
        image, mask = (
            getattr(row[name], "stored", None) if name in row else None for name in ("image", "segmentation")
        )
        if image is None or len(image.shape) != 3:
            found = "none in compact storage" if image is None else f"an array of shape {image.shape}"
            raise ValueError(f'{case_id}: expected a volume, found {found}. Load the config "3d".')
        if self.has_masks and mask is None:
            raise ValueError(
                f"{case_id}: expected a mask as in other rows, found none. Leave the case out, or all masks: "
                'data.remove_columns("segmentation").'
            )
        if mask is not None and mask.shape != image.shape:
            raise ValueError(f"{case_id}: expected a mask of shape {image.shape}, found {mask.shape}")
        geometry: tuple[Any, Any, Any] = (None, None, None)
        if self.has_geometry:
            affine = np.asarray(row["array_affine"], np.float64)
            geometry = affine, tuple(row["spacing"]), row["orientation"]
        points = row["points"] if self.has_points else None
        return Volume(case_id, image, mask, *geometry, points)
