"""The known data sets, by name."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import cast

from ctspine1k._messages import check_choice
from ctspine1k.catalog.cases import Catalog
from ctspine1k.catalog.dataset import DataSet

__all__ = ["DEFAULT", "data_set", "is_built_in", "load_catalog", "names", "register"]

#: The data set that is used if none is named.
DEFAULT = "ctspine1k"

#: Module and name of each data set of this package: imported when it is first used.
_BUILT_IN = {
    "ctspine1k": ("ctspine1k.catalog.ctspine1k", "CTSPINE1K"),
    "verse": ("ctspine1k.catalog.verse", "VERSE"),
    "msr": ("ctspine1k.catalog.msr", "MSR"),
}

_registered: dict[str, DataSet] = {}


def names() -> tuple[str, ...]:
    """List the names of all data sets."""
    return (*_BUILT_IN, *_registered)


def is_built_in(name: str) -> bool:
    """Return whether a data set is one of this package."""
    return name in _BUILT_IN


def data_set(name: str = DEFAULT) -> DataSet:
    """Return a data set by its name.

    Raises:
        ValueError: no data set has that name; the message lists the known ones.
    """
    check_choice("collection", name, names())
    if name in _registered:
        return _registered[name]
    module, constant = _BUILT_IN[name]
    return cast("DataSet", getattr(importlib.import_module(module), constant))


def register(added: DataSet) -> None:
    """Register a data set of your own under its name, in this process.

    Raises:
        ValueError: a data set of this package has that name.
    """
    if is_built_in(added.name):
        raise ValueError(f"collection={added.name!r}: expected a name that no data set has yet")
    _registered[added.name] = added


def load_catalog(collection: str = DEFAULT, *, split_file: str | os.PathLike[str] | None = None) -> Catalog:
    """Load the cases of a data set, in the order of its split file.

    Args:
        collection: the data set's name.
        split_file: split file to use instead of the data set's own (same format). Cases of the data set keep
            their facts; any other id is a case of your own, about which nothing is known.

    Raises:
        ValueError: there is no such data set.
        SplitFileError: the file cannot be parsed; the message gives line and text.
        FileNotFoundError: there is no file at ``split_file``.
    """
    chosen = data_set(collection)
    if split_file is None:
        return chosen.read_cases(None)
    path = Path(split_file).expanduser()
    if not path.is_file():
        found = "a folder" if path.is_dir() else "none"
        raise FileNotFoundError(
            f"split_file={os.fspath(split_file)!r}: expected a file with case ids, found {found} at "
            f"{path.absolute()}. Pass its path, or leave the option out for the list of {chosen.title}."
        )
    return chosen.read_cases(path)
