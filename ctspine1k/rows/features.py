"""The columns of rows, as `datasets` describes them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import datasets

from ctspine1k.rows.options import RowOptions
from ctspine1k.storage.feature import CompactArray

__all__ = ["features_of", "lists_in"]


def features_of(options: RowOptions) -> datasets.Features:
    """Return the columns of rows and their types.

    Dense slices have ``image_size``, or are nested lists if they may differ in size.
    """
    if options.storage == "compact":
        image, segmentation = CompactArray("float32"), CompactArray("int32")
    else:
        image, segmentation = _dense(options, "float32"), _dense(options, "int32")
    columns: dict[str, Any] = {"image": image}
    if options.masks:
        columns["segmentation"] = segmentation
    columns |= {"patient_id": datasets.Value("string"), "index": datasets.Value("int32")}
    if options.config == "2d":
        columns["slice_index"] = datasets.Value("int32")
    if options.geometry:
        geometry = {
            "source": datasets.Value("string"),
            "spacing": datasets.Sequence(datasets.Value("float64"), length=3),
            "affine": datasets.Array2D((4, 4), "float64"),
            "array_affine": datasets.Array2D((4, 4), "float64"),
            "orientation": datasets.Value("string"),
            "n_labelled": datasets.Value("int64"),
        }
        columns |= {name: geometry[name] for name in options.geometry_columns}
    if options.points:
        triple = datasets.Sequence(datasets.Value("float64"), length=3)
        label, name = datasets.Value("int32"), datasets.Value("string")
        # Not `Sequence`, nor a list with one element: `datasets` 3 and 4 take them for different things.
        columns["points"] = datasets.LargeList({"label": label, "name": name, "voxel": triple, "mm": triple})
    return datasets.Features(columns)


def _dense(options: RowOptions, dtype: str) -> Any:
    """Return the feature of dense voxels."""
    if options.image_size is None:  # arrays of `datasets` have one size, except along the first axis
        feature = datasets.Value(dtype)
        for _ in range(3 if options.config == "3d" else 2):
            feature = datasets.Sequence(feature)
        return feature
    if options.config == "3d":
        return datasets.Array3D((None, *options.image_size), dtype)
    return datasets.Array2D(options.image_size, dtype)


def lists_in(feature: Any) -> Iterator[Any]:
    """Yield the features in a feature that later releases of `datasets` call "List"."""
    for one in feature.values() if isinstance(feature, dict) else [getattr(feature, "feature", None)]:
        if getattr(one, "_type", None) == "List":
            yield one
        if one is not None:
            yield from lists_in(one)
