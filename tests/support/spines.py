"""Spines of known geometry, for what measures and checks them: bodies with a spinous process behind, in tissue.

There is air on the patient's right, apart from the tissue around labels.

Files have axes (left, front, up) and unequal spacing, as most of the data set's do, unless an affine says else.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from support.volumes import save

#: mm along i, j and k.
SPACING = (0.9, 0.8, 1.5)
AFFINE = np.diag([-SPACING[0], SPACING[1], SPACING[2], 1.0])
AFFINE[:3, 3] = 40.0, -30.0, 7.0

#: Slices of one vertebra, and of the disc below it.
_HEIGHT, _DISC = 15, 3
_SHAPE = (56, 80)


def spine(labels: Sequence[int], *, margin: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Image (HU, int16) and mask (uint8), (i, j, k); the labels are given from the top downwards.

    Each vertebra has 40 mm of body in front, an arch with a process behind, and nothing of the next one's.
    """
    image, mask = _spine(tuple(labels), margin)
    return image.copy(), mask.copy()


@functools.cache
def _spine(labels: tuple[int, ...], margin: int) -> tuple[np.ndarray, np.ndarray]:
    slices = len(labels) * (_HEIGHT + _DISC) - _DISC + 2 * margin
    random = np.random.default_rng(len(labels))
    image = random.integers(20, 60, (*_SHAPE, slices)).astype(np.int16)
    mask = np.zeros(image.shape, np.uint8)
    i, j = np.ogrid[: _SHAPE[0], : _SHAPE[1]]
    body = ((i - 28) * SPACING[0] / 20) ** 2 + ((j - 45) * SPACING[1] / 16) ** 2 < 1
    process = (abs(i - 28) <= 3) & (j >= 4) & (j <= 30)
    for number, label in enumerate(reversed(labels)):
        first = margin + number * (_HEIGHT + _DISC)
        here = np.s_[:, :, first : first + _HEIGHT]
        mask[here][body | process] = label
    image[0] = -1000
    image[mask > 0] = random.normal(260, 60, (mask > 0).sum()).astype(np.int16)
    return image, mask


def save_spine(
    root: Path,
    case_id: str,
    image: np.ndarray,
    mask: np.ndarray,
    *,
    affine: np.ndarray = AFFINE,
    folder: str = "MSD-T10",
) -> tuple[Path, Path]:
    """Write a case in the Hub's layout."""
    return (
        save(root / f"raw_data/volumes/{folder}/{case_id}.nii.gz", image, affine=affine),
        save(root / f"raw_data/labels/{folder}/{case_id}_seg.nii.gz", mask, affine=affine),
    )
