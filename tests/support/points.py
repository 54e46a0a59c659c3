"""Spines with points: cases of the real data sets that have them, with a mask or without."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ctspine1k.catalog.registry import data_set
from support.spines import AFFINE, SPACING, spine
from support.volumes import save

#: T10 to L2, from the top downwards, and where the centres of their bodies are, (i, j, k).
LABELS = (17, 18, 19, 20, 21)
CENTRES = {label: (28.0, 45.0, 11.0 + 18 * number) for number, label in enumerate(reversed(LABELS))}


def world(index: Sequence[float]) -> np.ndarray:
    """RAS+ mm of an index (i, j, k)."""
    return (AFFINE @ [*index, 1.0])[:3]


def write_json(path: Path, centres: Mapping[int, Sequence[float]] = CENTRES) -> None:
    """Write points as VerSe does, of an image whose axes go to L, A and S."""
    entries = [{"label": label, **dict(zip("XYZ", place, strict=True))} for label, place in centres.items()]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([{"direction": ["L", "A", "S"]}, *entries]))


def write_lml(path: Path, centres: Mapping[int, Sequence[float]] = CENTRES) -> None:
    """Write points as the Microsoft database does: mm from the first voxel."""
    names = data_set("msr").vocabulary
    rows = [
        f"{number}\t{names.name(label)}_center\t" + "\t".join(str(at) for at in np.multiply(place, SPACING))
        for number, (label, place) in enumerate(centres.items(), start=1)
    ]
    path.write_text("\n".join(["Landmarks-VTK-File", *rows, ""]))


def _with_canals(image: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Put a canal, and an arch around it, behind each body."""
    i, j = np.ogrid[: mask.shape[0], : mask.shape[1]]
    distance = np.hypot((i - 28) * SPACING[0], (j - 16) * SPACING[1])
    for k in np.flatnonzero(mask.any(axis=(0, 1))):
        mask[distance < 12, k] = mask[:, :, k].max()
        image[distance < 12, k] = 260
        mask[distance < 7.5, k] = 0
        image[distance < 7.5, k] = 40
    return image, mask


def save_with_points(root: Path, name: str, case_id: str) -> dict[str, Path]:
    """Write a case in the published layout of a data set, and return its files by kind."""
    chosen = data_set(name)
    case = chosen.read_cases(None)[case_id]
    image, mask = _with_canals(*spine(LABELS))
    files = {kind: root / chosen.file_name(case, kind) for kind in chosen.possible}
    save(files["image"], image, affine=AFFINE)
    if "mask" in files:
        save(files["mask"], mask, affine=AFFINE)
    (write_json if chosen.points_format == "verse" else write_lml)(files["points"])
    return files
