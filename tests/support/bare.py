"""A data set without masks: each case has an image, as ``.nii.gz``, ``.mha`` or ``.mhd`` with ``.raw``, and points."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import nibabel as nib
import numpy as np

from ctspine1k.catalog.cases import Case
from ctspine1k.catalog.dataset import Kind, parse_endings
from support.metaimage import AFFINE, save_metaimage
from support.tiny import IDS, SHAPE, TINY
from support.volumes import intensities, save

__all__ = ["ALL_IDS", "BARE", "IDS", "SHAPE", "image_of", "save_bare"]

ALL_IDS = [case_id for ids in IDS.values() for case_id in ids]

_ENDINGS: dict[str, Kind] = {
    ".nii.gz": "image", ".mhd": "image", ".mha": "image", ".lml": "points",
}  # fmt: skip

#: Ending of the image of each case.
ENDINGS = dict(zip(ALL_IDS, (".nii.gz", ".mhd", ".mha"), strict=True))

#: Index (i, j, k) of the points of each case, by name: between voxels, and near the first and the last slice.
POINTS: dict[str, dict[str, tuple[float, float, float]]] = {
    "a.1": {"T11": (1.25, 2.5, 10.4), "T12": (8.0, 6.0, 0.5), "T13": (3.0, 3.0, 0.0)},
    "b_2": {"T12": (4.0, 5.75, 5.5)},
    "c-3": {"T13": (2.0, 3.5, 4.0)},
}


def _parse_name(path: str) -> list[tuple[str, Kind]]:
    return parse_endings(path.rpartition("/")[2], _ENDINGS.items())


def _file_name(case: Case, kind: Kind) -> str:
    return f"{case.patient}/{case.case_id}{'.lml' if kind == 'points' else '.nii.gz'}"


BARE = dataclasses.replace(
    TINY,
    name="bare",
    title="Bare Spines",
    kinds=("image", "points"),
    optional=(),
    points_format="lml",
    image_size=None,
    suffixes=(".nii.gz", ".mhd", ".mha"),
    parse_name=_parse_name,
    file_name=_file_name,
)


def save_bare(root: Path) -> Path:
    """Write all cases below a folder, each with its points in mm from the first voxel."""
    spacing = nib.affines.voxel_sizes(AFFINE)
    for seed, case in enumerate(BARE.read_cases(None)):
        path = root / str(case.patient) / f"{case.case_id}{ENDINGS[case.case_id]}"
        if path.suffix == ".gz":
            save(path, intensities(seed, SHAPE), affine=AFFINE)
        else:
            save_metaimage(path, intensities(seed, SHAPE))
        lines = [
            f"{number}\t{name}_center\t"
            + "\t".join(repr(float(value)) for value in np.array(place) * spacing)
            for number, (name, place) in enumerate(POINTS[case.case_id].items())
        ]
        path.with_name(f"{case.case_id}.lml").write_text("\n".join(["id\tname\tx\ty\tz", *lines, ""]))
    return root


def image_of(case_id: str) -> np.ndarray:
    """The image of a row, (k, i, j), float32."""
    return intensities(ALL_IDS.index(case_id), SHAPE).transpose(2, 0, 1).astype(np.float32)
