"""A demonstration: a phantom is made, loaded as 3d and as 2d, and drawn. Needs no network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np

from ctspine1k._messages import count_text
from ctspine1k.catalog.registry import DEFAULT, data_set
from ctspine1k.collection import Collection, open_collection
from ctspine1k.demo.phantom import make_phantom, phantom_cases
from ctspine1k.demo.small import PHANTOMS
from ctspine1k.running.progress import is_terminal
from ctspine1k.storage.codec import require_blosc2
from ctspine1k.volumes.metaimage import require_simpleitk

__all__ = ["draw_phantom", "load_phantom"]


def load_phantom(root: Path, cache_dir: Path, collection: str = DEFAULT) -> Iterator[str]:
    """Make a phantom, load it, and yield a description of its rows, line by line.

    Raises:
        ValueError: the data set has no phantom.
        OutputError: there are files at ``root``.
        MissingPackageError: files, or slices of different sizes, need a package that is not installed.
    """
    options: dict[str, Any] = {"cache_dir": cache_dir}
    if data_set(collection).image_size is None:  # slices differ in size
        require_blosc2()  # before there are files that would be in the way of the next run
        options["storage"] = "compact"
    if any(scan.image.endswith(".mhd") for scan in PHANTOMS.get(collection, ())):
        require_simpleitk()
    make_phantom(root, collection)
    if not is_terminal():
        datasets.disable_progress_bars()
    phantom = _phantom(root, collection)
    if phantom.data_set.points_format is not None:
        options["points"] = True
    for name in ("3d", "2d"):
        loaded = phantom.load(name, **options)
        counts = (f"{split} {count_text(len(rows), 'row')}" for split, rows in loaded.items())
        yield f"{name}: {', '.join(counts)}"
        for column, feature in loaded["train"].features.items():
            yield f"  {column}: {feature}"
        for split, rows in loaded.items():
            yield f"  {split}: {_voxels_text(rows)}"


def _voxels_text(rows: datasets.Dataset) -> str:
    """Return the shapes and labels in rows, as text."""
    has_masks = "segmentation" in rows.column_names
    columns = ("image", "segmentation") if has_masks else ("image",)
    shapes: dict[str, set[tuple[int, ...]]] = {column: set() for column in columns}
    labels: set[int] = set()
    for row in rows.with_format("numpy"):
        for column, seen in shapes.items():
            seen.add(row[column].shape)
        if has_masks:
            labels.update(np.flatnonzero(np.bincount(row["segmentation"].ravel())).tolist())
    text = "; ".join(f"{column} {sorted(seen)}" for column, seen in shapes.items())
    return f"{text}; labels {sorted(labels)}" if has_masks else text


def draw_phantom(root: Path, collection: str = DEFAULT) -> Path:
    """Draw one case of a phantom, and return the path of the picture.

    Raises:
        MissingPackageError: pictures need ``ctspine1k[preview]``.
    """
    last = phantom_cases(collection)[-1]
    (path,) = _phantom(root, collection).select(last).preview(root / "preview.png")
    return path


def _phantom(root: Path, collection: str) -> Collection:
    return open_collection(collection, data_dir=root, split_file=root / data_set(collection).split_file)
