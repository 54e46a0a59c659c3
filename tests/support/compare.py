"""Rows as they are, and as they must be."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from support.volumes import IDS, expected

CONFIGS = ("3d", "2d")


def rows(dataset) -> list[dict]:
    """Rows with arrays in the features' own types, however the format hands them out."""
    arrays = {"image": np.float32, "segmentation": np.int32}
    return [{k: np.asarray(v, arrays[k]) if k in arrays else v for k, v in row.items()} for row in dataset]


def large_rows(dataset) -> list[dict]:
    """Rows as NumPy has them: as Python's lists of numbers, a scan takes seconds."""
    return rows(dataset.with_format("numpy"))


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def identical(a: list[dict], b: list[dict]) -> bool:
    def bits(row):
        return {k: (v.shape, v.tobytes()) if isinstance(v, np.ndarray) else v for k, v in row.items()}

    return [bits(row) for row in a] == [bits(row) for row in b]


def wanted(tree: Path, name: str, split: str) -> list[dict]:
    """The rows of a split by another path: plain nibabel."""
    return list(itertools.chain(*wanted_by_id(tree, name, IDS[split]).values()))


def wanted_by_id(tree: Path, name: str, ids: Iterable[str]) -> dict[str, list[dict]]:
    """The rows of each case of a split."""
    result = {}
    for index, case_id in enumerate(ids):
        image = expected(next(tree.rglob(f"{case_id}.nii.gz")), "f4")
        segmentation = expected(next(tree.rglob(f"{case_id}_seg.nii.gz")), "i4")
        case = {"patient_id": case_id, "index": index}
        if name == "3d":
            result[case_id] = [{"image": image, "segmentation": segmentation, **case}]
        else:
            result[case_id] = [
                {"image": image[k], "segmentation": segmentation[k], **case, "slice_index": k}
                for k in range(len(image))
            ]
    return result
