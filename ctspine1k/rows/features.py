"""The columns of rows, as `datasets` describes them."""

from __future__ import annotations

from typing import Any

import datasets

from ctspine1k.rows.options import RowOptions
from ctspine1k.storage.feature import CompactArray

__all__ = ["features_of"]


def features_of(options: RowOptions) -> datasets.Features:
    """Return the columns of rows and their types; dense slices have ``image_size``."""
    if options.storage == "compact":
        image, segmentation = CompactArray("float32"), CompactArray("int32")
    else:
        kind, shape = (
            (datasets.Array3D, (None, *(options.image_size or ())))
            if options.config == "3d"
            else (datasets.Array2D, options.image_size)
        )
        image, segmentation = kind(shape, "float32"), kind(shape, "int32")
    columns: dict[str, Any] = {
        "image": image,
        "segmentation": segmentation,
        "patient_id": datasets.Value("string"),
        "index": datasets.Value("int32"),
    }
    if options.config == "2d":
        columns["slice_index"] = datasets.Value("int32")
    if options.geometry:
        columns |= {
            "source": datasets.Value("string"),
            "spacing": datasets.Sequence(datasets.Value("float64"), length=3),
            "affine": datasets.Array2D((4, 4), "float64"),
            "array_affine": datasets.Array2D((4, 4), "float64"),
            "orientation": datasets.Value("string"),
            "n_labelled": datasets.Value("int64"),
        }
    return datasets.Features(columns)
