"""Public spine CT data sets (CTSpine1K, VerSe and others) for Hugging Face `datasets`, NumPy and PyTorch.

::

    import ctspine1k

    spine = ctspine1k.open_collection(data_dir="raw")
    spine.where(split="validation").load("3d")

Importing this package reads no data file, opens no socket and imports no heavy package: each name imports its
module when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ctspine1k import errors as errors

if TYPE_CHECKING:
    from ctspine1k import training as training
    from ctspine1k.catalog.cases import Case as Case
    from ctspine1k.catalog.cases import Catalog as Catalog
    from ctspine1k.catalog.cases import Issue as Issue
    from ctspine1k.catalog.registry import load_catalog as load_catalog
    from ctspine1k.collection import Collection as Collection
    from ctspine1k.collection import open_collection as open_collection
    from ctspine1k.errors import CTSpine1KError as CTSpine1KError
    from ctspine1k.files.flat import download_files as download_files
    from ctspine1k.files.flat import list_files as list_files
    from ctspine1k.files.raw import RawFile as RawFile
    from ctspine1k.pictures.figures import preview as preview
    from ctspine1k.rows.load import load_dataset as load_dataset
    from ctspine1k.rows.options import RowOptions as RowOptions
    from ctspine1k.storage.lazy import LazyDataset as LazyDataset
    from ctspine1k.volumes import vertebrae as vertebrae
    from ctspine1k.volumes.cases import VolumePair as VolumePair
    from ctspine1k.volumes.cases import read_pair as read_pair
    from ctspine1k.volumes.points import Points as Points
    from ctspine1k.volumes.points import read_points as read_points
    from ctspine1k.volumes.points import write_points as write_points

__version__ = "0.1.0"

_MODULES = {
    "CTSpine1KError": "errors",
    "Case": "catalog.cases",
    "Catalog": "catalog.cases",
    "Collection": "collection",
    "Issue": "catalog.cases",
    "LazyDataset": "storage.lazy",
    "Points": "volumes.points",
    "RawFile": "files.raw",
    "RowOptions": "rows.options",
    "VolumePair": "volumes.cases",
    "download_files": "files.flat",
    "list_files": "files.flat",
    "load_catalog": "catalog.registry",
    "load_dataset": "rows.load",
    "open_collection": "collection",
    "preview": "pictures.figures",
    "read_pair": "volumes.cases",
    "read_points": "volumes.points",
    "write_points": "volumes.points",
}

__all__ = ["__version__", "errors", "training", "vertebrae", *_MODULES]


def __getattr__(name: str) -> Any:
    if name in ("training", "vertebrae"):
        return importlib.import_module(f"{__name__}.{'volumes.' if name == 'vertebrae' else ''}{name}")
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
