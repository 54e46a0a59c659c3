"""Converted splits in a cache: what each was made from, which are there, which fits a request, and deleting.

A record beside the rows, ``conversion.json``, says what they are. So they can be found when the raw files
have been moved or deleted.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import posixpath
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

from ctspine1k._messages import warn
from ctspine1k.catalog.dataset import DataSet
from ctspine1k.catalog.registry import names
from ctspine1k.errors import CTSpine1KWarning
from ctspine1k.rows.kept import KEPT
from ctspine1k.rows.options import RowOptions
from ctspine1k.running.disk import exclusive_lock

__all__ = [
    "Conversion",
    "clear",
    "find_conversion",
    "list_conversions",
    "record_conversion",
    "record_of",
]

#: Name of the record.
_RECORD = "conversion.json"

#: What `datasets` appends to the name of a folder while it writes there.
_INCOMPLETE = ".incomplete"


@dataclass(frozen=True)
class Conversion:
    """Rows in a cache, or what is left of a conversion that was stopped."""

    id: str  #: of the options, cases and files of the rows; "kept" for what is left of several conversions
    folder: Path
    is_finished: bool
    bytes: int
    collection: str  #: the data set's name
    config: str  #: "3d" or "2d"
    splits: tuple[str, ...]
    cases: int | None  #: number of cases that were requested; None if there is no record
    place: str | None  #: where the raw files were
    options: Mapping[str, Any]  #: those of the rows that were given
    request: str | None  #: digest of options and cases


#: Options of rows, and for each case its id, split, index and source.
Asked: TypeAlias = "tuple[Mapping[str, Any], Sequence[Any]]"


def _request(asked: Asked) -> str:
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]


def record_of(asked: Asked, data_set: DataSet, place: str) -> dict[str, Any]:
    """Return the record of rows that are made from the files of a data set in a place."""
    options, cases = asked
    plain = {**asdict(RowOptions()), "on_missing": "raise", "on_error": "raise"}
    plain |= {"image_size": data_set.image_size, "label_scheme": data_set.vocabulary.schemes[0]}
    return {
        "request": _request(asked),
        "splits": list(dict.fromkeys(split for _, split, *_ in cases)),
        "cases": len(cases),
        "options": {
            name: value for name, value in options.items() if name != "config" and value != plain[name]
        },
        "place": place,
    }


def record_conversion(filesystem: Any, folder: str, record: Mapping[str, Any]) -> None:
    """Write down what the rows in ``folder`` (of an fsspec file system) are made from."""
    with filesystem.open(posixpath.join(folder, _RECORD), "w") as file:
        json.dump(record, file, indent=1)


def list_conversions(cache_dir: Path) -> list[Conversion]:
    """List the conversions in a cache of `datasets` that this library made, in the order of their folders."""
    # <cache>/<data set>/<id>/<version of rows>
    paths = (path for path in cache_dir.glob("*/[23]d-*/*") if path.is_dir())
    folders = sorted({path.with_name(path.name.removesuffix(_INCOMPLETE)) for path in paths})
    found = [conversion for folder in folders if (conversion := _conversion(folder)) is not None]
    kept = sorted({path.parent for path in cache_dir.glob(f"*/{KEPT}/*-{'?' * 16}.arrow")})
    return [*found, *map(_kept, kept)]


def _kept(folder: Path) -> Conversion:
    """Return the cases that stopped conversions have finished, as one conversion."""
    return Conversion(
        id=KEPT,
        folder=folder,
        is_finished=False,
        bytes=_size([folder]),
        collection=folder.parent.name,
        config="3d",
        splits=(),
        cases=len(list(folder.glob("*.arrow"))),
        place=None,
        options={},
        request=None,
    )


def _folders(folder: Path) -> Iterator[Path]:
    """Yield the folders that a conversion has."""
    for suffix in ("", _INCOMPLETE):
        if (path := folder.with_name(folder.name + suffix)).is_dir():
            yield path


def _conversion(folder: Path) -> Conversion | None:
    record: dict[str, Any] = {}
    for path in _folders(folder):
        try:
            record = record or json.loads((path / _RECORD).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
    is_finished = (folder / "dataset_info.json").is_file()
    collection = folder.parent.parent.name
    if not record and collection not in names():
        return None  # of another library
    return Conversion(
        id=folder.parent.name,
        folder=folder,
        is_finished=is_finished,
        bytes=_size(list(_folders(folder))),
        collection=collection,
        config=folder.parent.name.partition("-")[0],
        splits=tuple(record.get("splits", ())),
        cases=record.get("cases"),
        place=record.get("place"),
        options=record.get("options", {}),
        request=record.get("request"),
    )


def _size(folders: Sequence[Path]) -> int:
    """Return the bytes of all files below folders; a file with two names counts once."""
    sizes: dict[tuple[int, int], int] = {}
    for folder in folders:
        for path in folder.rglob("*"):
            with contextlib.suppress(FileNotFoundError):  # a conversion that runs has renamed or deleted it
                status = path.lstat()
                sizes[status.st_dev, status.st_ino] = status.st_size if path.is_file() else 0
    return sum(sizes.values())


def find_conversion(cache_dir: str, asked: Asked, place: str, what: str) -> str:
    """Return the id of the finished conversion for a request; of several, that from ``place``, or the newest.

    Args:
        cache_dir: the cache of `datasets`.
        asked: options and cases.
        place: where the raw files are supposed to be.
        what: the rows, for messages.

    Raises:
        FileNotFoundError: there is none.
    """
    request = _request(asked)
    every = list_conversions(Path(cache_dir).expanduser())
    found = [one for one in every if one.is_finished and one.request == request]
    if not found:
        raise FileNotFoundError(
            f"verify_files=False: expected converted {what} with these cases and options in {cache_dir}, "
            "found none. `ctspine1k cache` lists what is there. Without this option, raw files are converted."
        )
    here = [one for one in found if one.place == place] or found
    newest = max(here, key=lambda one: (one.folder / "dataset_info.json").stat().st_mtime_ns)
    if len({one.place for one in here}) > 1:
        places = ", ".join(sorted({str(one.place) for one in here}))
        warn(
            f"verify_files=False: there are {what} from {places}; the newest are used, from {newest.place}",
            CTSpine1KWarning,
        )
    return newest.id


def clear(conversion: Conversion) -> None:
    """Delete a conversion.

    Raises:
        BusyError: it is being written.
    """
    lock = Path(f"{conversion.folder}_builder.lock")  # of `datasets`
    with exclusive_lock(conversion.folder, lock):
        for folder in _folders(conversion.folder):
            shutil.rmtree(folder)
    if not os.listdir(conversion.folder.parent):  # noqa: PTH208
        conversion.folder.parent.rmdir()
