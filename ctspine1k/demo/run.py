"""The main job on a phantom: it is made, loaded as 3d and as 2d, and drawn. Needs no network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import datasets
import numpy as np

from ctspine1k.catalog.cases import load_catalog
from ctspine1k.demo.phantom import PHANTOM_CASES, make_phantom
from ctspine1k.files.sources import find_source
from ctspine1k.pictures.previews import draw_cases
from ctspine1k.rows.load import load_dataset
from ctspine1k.running.progress import is_terminal

__all__ = ["draw_phantom", "load_phantom"]


def load_phantom(root: Path, cache_dir: Path) -> Iterator[str]:
    """Make a phantom, load it, and tell what is there: lines of text.

    Raises:
        FileExistsError: there is something at ``root``.
    """
    make_phantom(root)
    if not is_terminal():
        datasets.disable_progress_bars()
    for name in ("3d", "2d"):
        loaded = load_dataset(name, data_dir=root, cases=PHANTOM_CASES, cache_dir=cache_dir)
        yield f"{name}: {', '.join(f'{split} {len(rows)} rows' for split, rows in loaded.items())}"
        for column, feature in loaded["train"].features.items():
            yield f"  {column}: {feature}"
        for split, rows in loaded.items():
            yield f"  {split}: {_voxels_told(rows)}"


def _voxels_told(rows: datasets.Dataset) -> str:
    """Tell shapes and labels that are there."""
    shapes: dict[str, set[tuple[int, ...]]] = {"image": set(), "segmentation": set()}
    labels: set[int] = set()
    for row in rows.with_format("numpy"):
        for column, seen in shapes.items():
            seen.add(row[column].shape)
        labels.update(np.flatnonzero(np.bincount(row["segmentation"].ravel())).tolist())
    told = "; ".join(f"{column} {sorted(seen)}" for column, seen in shapes.items())
    return f"{told}; labels {sorted(labels)}"


def draw_phantom(root: Path) -> Path:
    """Draw one case of a phantom, and tell where the picture is.

    Raises:
        MissingPackageError: pictures need ``ctspine1k[preview]``.
    """
    cases = [load_catalog()[PHANTOM_CASES[-1]]]
    (path,) = draw_cases(cases, find_source(data_dir=root), root / "preview.png")
    return path
