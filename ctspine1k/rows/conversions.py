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
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from ctspine1k._messages import shortened, warn
from ctspine1k.catalog.dataset import DataSet
from ctspine1k.catalog.registry import names
from ctspine1k.errors import CTSpine1KWarning
from ctspine1k.rows.kept import KEPT, kept_files
from ctspine1k.rows.options import ROWS_VERSION, RowOptions
from ctspine1k.running.disk import exclusive_lock

__all__ = [
    "Conversion",
    "NotConvertedError",
    "clear",
    "find_conversion",
    "list_conversions",
    "record_conversion",
    "record_of",
    "whole_of",
]

#: Name of the record.
_RECORD = "conversion.json"

#: What `datasets` appends to the name of a folder while it writes there.
_INCOMPLETE = ".incomplete"

#: Names of the folders of conversions, and of those in them. Others are not ours, and are never deleted.
_ID = re.compile(r"[23]d-[0-9a-f]{16}")
_VERSION = re.compile(rf"\d+\.\d+\.\d+({re.escape(_INCOMPLETE)})?")


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
    whole: Mapping[str, Any] | None = None  #: of a part of a split: what `whole_of` says of the split

    def describe(self) -> str:
        """Return what the rows were made from, for messages."""
        options = "".join(f", {name}={value!r}" for name, value in self.options.items())
        return f"those from {self.place} (cases: {self.cases}{options})"


class NotConvertedError(FileNotFoundError):
    """No rows of a request are converted.

    ``row_counts`` has the number of rows of each of its cases, if a part of them is; else it is None.
    """

    def __init__(self, message: str, row_counts: Sequence[int] | None) -> None:
        # FileNotFoundError takes several arguments as errno, message and file name: pass only the message.
        super().__init__(message)
        self.row_counts = row_counts

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (*self.args, self.row_counts)


#: Options of rows, and for each case its id, split, index and source.
Asked: TypeAlias = "tuple[Mapping[str, Any], Sequence[Any]]"


def _request(asked: Asked) -> str:
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]


def record_of(asked: Asked, data_set: DataSet, place: str, whole: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the record of rows that are made from the files of a data set in a place.

    ``whole`` is of a part of a split: what `whole_of` says about all of it.
    """
    options, cases = asked
    plain = {**RowOptions().keywords(), "on_missing": "raise", "on_error": "raise"}
    plain["points"] = "points" in data_set.kinds
    given = {**options, "geometry": bool(options["geometry"])}  # whose columns are listed there
    plain |= {"image_size": data_set.image_size, "label_scheme": data_set.vocabulary.schemes[0]}
    return {
        "request": _request(asked),
        "splits": list(dict.fromkeys(split for _, split, *_ in cases)),
        "cases": len(cases),
        "options": {name: value for name, value in given.items() if name in plain and value != plain[name]},
        "place": place,
        **({} if whole is None else {"whole": whole}),
    }


def whole_of(asked: Asked, row_counts: Sequence[int]) -> dict[str, Any]:
    """Return what the record of a part of a split says about all of it: the request, and how many rows."""
    return {"request": _request(asked), "rows": list(row_counts)}


def record_conversion(filesystem: Any, folder: str, record: Mapping[str, Any]) -> None:
    """Write down what the rows in ``folder`` (of an fsspec file system) are made from."""
    with filesystem.open(posixpath.join(folder, _RECORD), "w") as file:
        json.dump(record, file, indent=1)


def list_conversions(cache_dir: Path) -> list[Conversion]:
    """List the conversions in a cache of `datasets` that this library made, in the order of their folders."""
    # <cache>/<data set>/<id>/<version of rows>
    found: list[Conversion] = []
    kept: list[Conversion] = []
    for collection in _subfolders(cache_dir):
        for one in filter(lambda folder: _ID.fullmatch(folder.name), _subfolders(collection)):
            versions = (path for path in _subfolders(one) if _VERSION.fullmatch(path.name))
            folders = sorted({path.with_name(path.name.removesuffix(_INCOMPLETE)) for path in versions})
            found += filter(None, map(_conversion, folders))
        if collection.name in names() and (files := kept_files(collection / KEPT)):
            kept.append(_kept(collection / KEPT, files))
    return found + kept


def _subfolders(folder: Path) -> list[Path]:
    """Return the folders in a folder, sorted; none if it is gone: other processes may delete it meanwhile."""
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir())
    except OSError:
        return []


def _kept(folder: Path, files: Sequence[Path]) -> Conversion:
    """Return the cases that stopped conversions have finished, as one conversion."""
    return Conversion(
        id=KEPT,
        folder=folder,
        is_finished=False,
        bytes=_size(files),
        collection=folder.parent.name,
        config="3d",
        splits=(),
        cases=len(files),
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
        record = record or _read_record(path / _RECORD)
    collection, whole = folder.parent.parent.name, record.get("whole")
    if not record and collection not in names():
        return None  # of another library
    return Conversion(
        id=folder.parent.name,
        folder=folder,
        is_finished=(folder / "dataset_info.json").is_file(),
        bytes=_size(
            [Path(root, name) for one in _folders(folder) for root, _, own in os.walk(one) for name in own]
        ),
        collection=collection,
        config=folder.parent.name.partition("-")[0],
        splits=tuple(record.get("splits", ())),
        cases=record.get("cases"),
        place=record.get("place"),
        options=record.get("options", {}),
        request=record.get("request"),
        whole=whole if isinstance(whole, dict) and whole.keys() >= {"request", "rows"} else None,
    )


def _read_record(path: Path) -> dict[str, Any]:
    """Return a record; an empty one if there is none, or if another library has written it."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    types = {"request": str, "splits": list, "options": dict, "cases": int, "place": str}
    is_ours = isinstance(record, dict) and all(isinstance(record.get(name), of) for name, of in types.items())
    return record if is_ours else {}


def _size(paths: Sequence[Path]) -> int:
    """Return the bytes of files; a file with two names counts once, and one that is gone not at all."""
    sizes: dict[tuple[int, int], int] = {}
    for path in paths:
        with contextlib.suppress(OSError):
            status = path.lstat()
            sizes[status.st_dev, status.st_ino] = status.st_size
    return sum(sizes.values())


def find_conversion(cache_dir: str, collection: str, asked: Asked, place: str, what: str) -> str:
    """Return the id of the finished conversion for a request; of several, that from ``place``, or the newest.

    Args:
        cache_dir: the cache of `datasets`.
        collection: the data set's name.
        asked: options and cases.
        place: where the raw files are supposed to be.
        what: the rows, for messages.

    Raises:
        NotConvertedError: there is none.
    """
    request = _request(asked)
    every = list_conversions(Path(cache_dir).expanduser())
    ours = [one for one in every if (one.collection, one.folder.name) == (collection, ROWS_VERSION)]
    masks = _masks_in(place)  # no other masks are these
    found = [
        one
        for one in ours
        if one.is_finished and one.request == request and _masks_in(str(one.place)) == masks
    ]
    if not found:
        options, cases = asked
        splits = {split for _, split, *_ in cases}
        alike = [one for one in ours if one.config == options["config"] and set(one.splits) == splits]
        others = [one.describe() for one in alike if one.is_finished]
        message = (
            f"verify_files=False: expected converted {what} with these cases and options in {cache_dir}, "
            f"found {_found_instead(others)}. `ctspine1k cache` lists what is there. Without this "
            "option, raw files are converted."
        )
        wholes = [one.whole for one in ours if one.is_finished and one.whole]
        counts = {tuple(whole["rows"]) for whole in wholes if whole["request"] == request}
        raise NotConvertedError(message, counts.pop() if len(counts) == 1 else None)  # else they contradict
    here = [one for one in found if one.place == place] or found
    newest = max(here, key=lambda one: (one.folder / "dataset_info.json").stat().st_mtime_ns)
    if len({one.place for one in here}) > 1:
        places = ", ".join(sorted({str(one.place) for one in here}))
        warn(
            f"verify_files=False: there are {what} from {places}; the newest are used, from {newest.place}",
            CTSpine1KWarning,
        )
    return newest.id


def _masks_in(place: str) -> str:
    """Return the folder of predicted masks in the description of a place; an empty text if there is none."""
    return place.partition(" with masks in ")[2]


def _found_instead(others: Sequence[str]) -> str:
    if not others:
        return "none"
    return (
        f"others: {shortened(others, 3)}. Pass the options of those you mean, and split_file=... if the "
        "split file that lists their cases is gone"
    )


def clear(conversion: Conversion) -> None:
    """Delete a conversion; of a folder that is elsewhere, and only linked into the cache, only the link.

    Raises:
        BusyError: it is being written.
    """
    folder = conversion.folder
    if conversion.id == KEPT:
        for path in kept_files(folder):
            path.unlink(missing_ok=True)
        _remove_if_empty(folder)
        return
    with exclusive_lock(folder, Path(f"{folder}_builder.lock")):  # the lock of `datasets`
        if not folder.parent.is_symlink():
            for path in _folders(folder):
                path.unlink() if path.is_symlink() else shutil.rmtree(path)
            Path(f"{folder}{_INCOMPLETE}_info.lock").unlink(missing_ok=True)  # which `datasets` leaves
    if folder.parent.is_symlink():
        folder.parent.unlink()
    else:
        _remove_if_empty(folder.parent)


def _remove_if_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()
