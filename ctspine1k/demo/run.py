"""A demonstration: a phantom is made, loaded as 3d and as 2d, and drawn. Needs no network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import datasets
import numpy as np

from ctspine1k.collection import Collection, open_collection
from ctspine1k.demo.phantom import PHANTOM_CASES, make_phantom
from ctspine1k.running.progress import is_terminal

__all__ = ["draw_phantom", "load_phantom"]


def load_phantom(root: Path, cache_dir: Path) -> Iterator[str]:
    """Make a phantom, load it, and yield a description of its rows, line by line.

    Raises:
        FileExistsError: there are files at ``root``.
    """
    make_phantom(root)
    if not is_terminal():
        datasets.disable_progress_bars()
    phantom = _phantom(root)
    for name in ("3d", "2d"):
        loaded = phantom.load(name, cache_dir=cache_dir)
        yield f"{name}: {', '.join(f'{split} {len(rows)} rows' for split, rows in loaded.items())}"
        for column, feature in loaded["train"].features.items():
            yield f"  {column}: {feature}"
        for split, rows in loaded.items():
            yield f"  {split}: {_voxels_text(rows)}"


def _voxels_text(rows: datasets.Dataset) -> str:
    """Return the shapes and labels in rows, as text."""
    shapes: dict[str, set[tuple[int, ...]]] = {"image": set(), "segmentation": set()}
    labels: set[int] = set()
    for row in rows.with_format("numpy"):
        for column, seen in shapes.items():
            seen.add(row[column].shape)
        labels.update(np.flatnonzero(np.bincount(row["segmentation"].ravel())).tolist())
    text = "; ".join(f"{column} {sorted(seen)}" for column, seen in shapes.items())
    return f"{text}; labels {sorted(labels)}"


def draw_phantom(root: Path) -> Path:
    """Draw one case of a phantom, and return the path of the picture.

    Raises:
        MissingPackageError: pictures need ``ctspine1k[preview]``.
    """
    (path,) = _phantom(root).select(PHANTOM_CASES[-1]).preview(root / "preview.png")
    return path


def _phantom(root: Path) -> Collection:
    return open_collection(data_dir=root, split_file=root / "metadata" / "data_split.txt")
