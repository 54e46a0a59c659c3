"""How the volumes of a case go together: voxel by voxel as stored, or each turned by its own header."""

from __future__ import annotations

from dataclasses import dataclass

import nibabel as nib
import numpy as np
from nibabel.affines import voxel_sizes
from numpy.typing import NDArray

from ctspine1k.errors import FileFormatError, PairMismatchError
from ctspine1k.volumes.headers import VolumeHeader
from ctspine1k.volumes.orientation import Turn, resolved, turn_to
from ctspine1k.volumes.positions import GEOMETRY_TOLERANCE

__all__ = ["Alignment", "are_close"]


@dataclass(frozen=True)
class Alignment:
    """How image and mask are turned; None for as stored."""

    image: Turn | None
    mask: Turn | None
    by_own_headers: bool  #: whether the mask is turned by its own header; else voxels are paired by index

    @classmethod
    def of(cls, image: VolumeHeader, mask: VolumeHeader | None, orientation: str | None) -> Alignment:
        """Return how the volumes of a case are brought into an orientation, or into slices of a plane.

        Each is turned by its own affine. A mask is turned as its image if one of the two headers does not say
        where its voxels lie, or if theirs are not of the same voxels: sizes that differ after the turn.

        Raises:
            FileFormatError: the image's affine has no direction for each axis.
            PairMismatchError: the shapes of image and mask differ.
        """
        turn = None if orientation is None else _turn_of(image, orientation)
        if mask is None:
            return cls(turn, None, by_own_headers=False)
        if turn is not None and orientation is not None and image.is_placed and mask.is_placed:
            own = turn_to(resolved(orientation, image.affine), mask.affine, mask.shape)
            if own.shape(mask.shape) == turn.shape(image.shape) and are_close(
                voxel_sizes(own.affine), voxel_sizes(turn.affine)
            ):
                return cls(turn, own, by_own_headers=True)
        if image.shape != mask.shape:
            raise _other_shape(image, mask)
        return cls(turn, turn, by_own_headers=False)

    def mismatch(self, image: VolumeHeader, mask: VolumeHeader) -> PairMismatchError | None:
        """Return an error that says how the two headers place voxels differently; None if they agree."""
        places = {"affine": [image.affine, mask.affine], "spacing": [image.zooms, mask.zooms]}
        if self.by_own_headers and self.image is not None and self.mask is not None:
            turns = self.image, self.mask
            places["affine"] = [turn.affine for turn in turns]
            places["spacing"] = [
                turn.per_axis(zooms) for turn, zooms in zip(turns, places["spacing"], strict=True)
            ]
        differing = {name: both for name, both in places.items() if not are_close(*both)}
        if not differing:
            return None
        expected, found = (
            " and ".join(str(both[which].round(4).tolist()) for both in differing.values())
            for which in (0, 1)
        )
        if self.by_own_headers:
            pairing = "Each was turned by its own header; without orientation, voxels are paired by index."
        else:
            pairing = "Voxels are paired by index."
            found += _advice(image, mask) if self.image is None and "affine" in differing else ""
        return PairMismatchError(
            mask.name,
            f"the {' and '.join(differing)} of {image.name}, {expected}",
            found,
            pairing,
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


def _other_shape(image: VolumeHeader, mask: VolumeHeader) -> PairMismatchError:
    advice = _advice(image, mask)
    hint = "The mask belongs to another volume, or one of the two was resampled."
    if advice:
        hint = "Its axes are stored in another order: pass orientation."
    return PairMismatchError(
        mask.name, f"the shape of {image.name}, {image.shape}", f"{mask.shape}{advice}", hint
    )


def _advice(image: VolumeHeader, mask: VolumeHeader) -> str:
    """Return what to add to a message if turning each volume by its own header brings both to one place."""
    if not (image.is_placed and mask.is_placed):
        return ""
    turned = turn_to("".join(nib.orientations.aff2axcodes(image.affine)), mask.affine, mask.shape)
    is_same = (
        turned.shape(mask.shape) == image.shape
        and are_close(turned.affine, image.affine)
        and are_close(turned.per_axis(mask.zooms), image.zooms)
    )
    return ', which orientation="RAS" would bring to the same place' if is_same else ""


def are_close(one: NDArray[np.float64], other: NDArray[np.float64]) -> bool:
    """Return whether two affines, or sizes in mm, are of the same place."""
    return bool(np.allclose(one, other, rtol=0, atol=GEOMETRY_TOLERANCE, equal_nan=True))
