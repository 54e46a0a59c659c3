"""How the volumes of a case go together: voxel by voxel as stored."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ctspine1k.errors import FileFormatError, PairMismatchError
from ctspine1k.volumes.headers import VolumeHeader
from ctspine1k.volumes.orientation import Turn, turn_to
from ctspine1k.volumes.positions import CHOICE, GEOMETRY_TOLERANCE

__all__ = ["Alignment"]


@dataclass(frozen=True)
class Alignment:
    """How image and mask are turned; None for as stored."""

    image: Turn | None
    mask: Turn | None

    @classmethod
    def of(cls, image: VolumeHeader, mask: VolumeHeader | None, orientation: str | None) -> Alignment:
        """Return how the volumes of a case are brought into an orientation.

        A mask is turned as its image.

        Raises:
            FileFormatError: the image's affine has no direction for each axis.
            PairMismatchError: the shapes of image and mask differ.
        """
        turn = None if orientation is None else _turn_of(image, orientation)
        if mask is None:
            return cls(turn, None)
        if image.shape != mask.shape:
            expected = f"the shape of {image.name}, {image.shape}"
            hint = "The mask belongs to another volume, or one of the two was resampled."
            raise PairMismatchError(mask.name, expected, str(mask.shape), hint)
        return cls(turn, turn)

    def mismatch(self, image: VolumeHeader, mask: VolumeHeader) -> PairMismatchError | None:
        """Return an error that says how the two headers place voxels differently; None if they agree."""
        places = {"affine": [image.affine, mask.affine], "spacing": [image.zooms, mask.zooms]}
        differing = {name: both for name, both in places.items() if not _are_close(*both)}
        if not differing:
            return None
        expected, found = (
            " and ".join(str(both[which].round(4).tolist()) for both in differing.values())
            for which in (0, 1)
        )
        return PairMismatchError(
            mask.name,
            f"the {' and '.join(differing)} of {image.name}, {expected}",
            found,
            f"Voxels are paired by index. {CHOICE}",
        )


def _turn_of(image: VolumeHeader, orientation: str) -> Turn:
    try:
        return turn_to(orientation, image.affine, image.shape)
    except ValueError as error:
        raise FileFormatError(
            image.name,
            "an affine with a direction for each axis",
            f"{image.affine[:3].tolist()} ({error})",
            "Load it as stored, without orientation.",
        ) from error


def _are_close(one: NDArray[np.float64], other: NDArray[np.float64]) -> bool:
    return bool(np.allclose(one, other, rtol=0, atol=GEOMETRY_TOLERANCE, equal_nan=True))
