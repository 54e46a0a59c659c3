"""1,005 spine CT scans with vertebra labels, for Hugging Face `datasets` and NumPy.

::

    import ctspine1k

    ctspine1k.load_dataset("3d", split="validation")
    ctspine1k.read_pair(*ctspine1k.download_files(case="liver_106"))

Importing this package opens no file of the data and no socket, and loads no heavy package: what a name needs
is imported when the name is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ctspine1k import errors as errors

if TYPE_CHECKING:
    from ctspine1k import vertebrae as vertebrae
    from ctspine1k.catalog import Case as Case
    from ctspine1k.catalog import Catalog as Catalog
    from ctspine1k.catalog import Issue as Issue
    from ctspine1k.catalog import load_catalog as load_catalog
    from ctspine1k.checks import verify_files as verify_files
    from ctspine1k.errors import CTSpine1KError as CTSpine1KError
    from ctspine1k.exporting import export_parquet as export_parquet
    from ctspine1k.lazy import LazyDataset as LazyDataset
    from ctspine1k.loading import load_dataset as load_dataset
    from ctspine1k.pictures import preview as preview
    from ctspine1k.rawfiles import RawFile as RawFile
    from ctspine1k.reader import VolumePair as VolumePair
    from ctspine1k.reader import read_pair as read_pair
    from ctspine1k.scanning import scan_files as scan_files
    from ctspine1k.selection import download_files as download_files
    from ctspine1k.selection import list_files as list_files

__version__ = "0.1.0"

_MODULES = {
    "CTSpine1KError": "errors",
    "Case": "catalog",
    "Catalog": "catalog",
    "Issue": "catalog",
    "LazyDataset": "lazy",
    "RawFile": "rawfiles",
    "VolumePair": "reader",
    "download_files": "selection",
    "export_parquet": "exporting",
    "list_files": "selection",
    "load_catalog": "catalog",
    "load_dataset": "loading",
    "preview": "pictures",
    "read_pair": "reader",
    "scan_files": "scanning",
    "verify_files": "checks",
}

__all__ = ["__version__", "errors", "vertebrae", *_MODULES]


def __getattr__(name: str) -> Any:
    if name == "vertebrae":
        return importlib.import_module(f"{__name__}.vertebrae")
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
