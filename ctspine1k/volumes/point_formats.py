"""What files of points say: labels and coordinates, and the voxel of the image's file that these mean.

Two formats are read. "verse" is JSON, in one of three forms, which differ in their frame (`READINGS`):

- "voxels": a list that begins with ``{"direction": ["P", "I", "R"]}``. X, Y and Z are voxels, from 0, of the
  image turned to that orientation; without a direction, of the image as stored.
- "miccai2019": without direction. X, Y and Z are mm from the first voxel, towards I, P and L.
- "miccai2020": likewise, towards P, I and R.

The last two are grids of 1 mm in index space: positions divided by the spacing, whatever the cosines. Without
``reading``, a direction makes it the first form, else the name of the file decides: ``..._ctd.json`` is the
second, ``...iso-ctd.json`` the third, ``..._seg-..._ctd.json`` the first.

"lml" is text, with a row of id, name (``T5_center``), x, y and z for each vertebra, in mm along the image's
axes. It does not say where they begin, so there are two readings: "spacing", from the first voxel, and
"affine", as coordinates of the image's header. Without ``reading``, the first one that has all points in the
image is taken.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ctspine1k._messages import shortened, warn
from ctspine1k.catalog.vocabulary import Vocabulary
from ctspine1k.errors import CTSpine1KWarning, FileFormatError, PointsError
from ctspine1k.volumes.headers import GET_AGAIN, WRITE_AGAIN, Geometry
from ctspine1k.volumes.nifti import Readable, stand_in
from ctspine1k.volumes.orientation import ORIENTATIONS, turn_to

__all__ = [
    "MAX_POINTS_BYTES",
    "READINGS",
    "Indices",
    "World",
    "format_of",
    "lml_indices",
    "read_bytes",
    "verse_indices",
]

#: Formats of points files, and the ways to read the coordinates in each.
READINGS: Mapping[str, tuple[str, ...]] = {
    "verse": ("voxels", "miccai2019", "miccai2020"),
    "lml": ("spacing", "affine"),
}

#: What X, Y and Z of the grids of 1 mm grow towards.
_GRIDS = {"miccai2019": "IPL", "miccai2020": "PIR"}

#: What the end of a name says about a file without direction.
_FORMS = (
    (re.compile(r"iso-ctd\.json$", re.IGNORECASE), "miccai2020"),
    (re.compile(r"_seg-[a-z]+_ctd\.json$", re.IGNORECASE), "voxels"),
    (re.compile(r"_ctd\.json$", re.IGNORECASE), "miccai2019"),
)

#: Files of points have a few kilobytes: of a larger one, no more than this is read.
MAX_POINTS_BYTES = 1 << 20

#: Numbers in JSON have any size: no label, and no coordinate in mm or voxels, is beyond this.
_LARGEST = 1e9

#: Labels of parts of a vertebra are its own plus multiples of this.
_PARTS = 256

_HINT = "Check that it belongs to this image; reading=... (--reading) says how its coordinates are meant."

#: Index (i, j, k) in the image's file of the point of each label.
Indices: TypeAlias = "dict[int, NDArray[np.float64]]"

#: The convention of coordinates in the header of an image.
World: TypeAlias = Literal["RAS", "LPS"]

_Triple: TypeAlias = "tuple[float, float, float]"


def format_of(path: str) -> str:
    """Return the format of a points file by the end of its name, in any case of letters."""
    return "lml" if path.lower().endswith(".lml") else "verse"


def read_bytes(file: Readable) -> tuple[bytes, str]:
    """Return what is in a file of points, and its name for messages.

    Raises:
        FileFormatError: it is too large, or something that stands where a file should be.
        FileNotFoundError: there is no file at the path.
    """
    if isinstance(file, (str, os.PathLike)):
        name = os.fspath(file)
        with Path(file).open("rb") as stream:
            data = stream.read(MAX_POINTS_BYTES + 1)
    else:
        name = str(getattr(file, "name", None) or getattr(file, "path", None) or "<stream>")
        data = file.read(MAX_POINTS_BYTES + 1)
    if len(data) > MAX_POINTS_BYTES:
        expected = f"points, in a file of at most {MAX_POINTS_BYTES >> 20} MB"
        raise FileFormatError(name, expected, "a larger file", WRITE_AGAIN)
    if instead := stand_in(data[:512]):
        raise FileFormatError(name, "a file of points", *instead)
    return data, name


def verse_indices(
    data: bytes, geometry: Geometry, vocabulary: Vocabulary, reading: str | None, name: str
) -> tuple[Indices, str | None]:
    """Read JSON: return where points are, and the kind that is noted beside the direction.

    Raises:
        FileFormatError: it is not JSON with points, or nothing says in which frame they are.
        PointsError: a vertebra that the vocabulary does not have, or points outside the image.
    """
    entries, head = _of_json(data, vocabulary, name)
    found = _without_duplicates(entries, vocabulary, name)
    if not found:  # in no frame
        return {}, head.get("kind")
    indices = _of_frame(found, geometry, reading or _form(head, name), head, name)
    if outside := _outside(indices, geometry):
        listed = shortened(
            f"{vocabulary.name(label)} at {tuple(indices[label].round(1).tolist())}" for label in outside
        )
        raise _not_in_image(listed, geometry, name)
    return indices, head.get("kind")


def lml_indices(
    data: bytes,
    geometry: Geometry,
    vocabulary: Vocabulary,
    reading: str | None,
    world: World,
    name: str,
) -> Indices:
    """Read text: return where points are, by the reading asked for, or the first that fits.

    Raises:
        FileFormatError: it has no rows with points.
        PointsError: a vertebra that the vocabulary does not have, or points outside the image.
    """
    found = _without_duplicates(_of_lml(data, vocabulary, name), vocabulary, name)
    dk, di, dj = geometry.spacing
    to_index = np.linalg.inv(geometry.affine)
    signs = np.array([-1.0, -1.0, 1.0] if world == "LPS" else [1.0, 1.0, 1.0])
    ways: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
        "spacing": lambda place: place / [di, dj, dk],
        "affine": lambda place: to_index[:3, :3] @ (place * signs) + to_index[:3, 3],
    }
    tried = []
    for way in READINGS["lml"] if reading is None else (reading,):
        indices = {label: ways[way](np.array(place)) for label, place in found.items()}
        outside = _outside(indices, geometry)
        if not outside:
            return indices
        tried.append(f"{len(outside)} of {len(found)} outside as {way!r}")
    raise _not_in_image(", ".join(tried), geometry, name)


def _of_json(
    data: bytes, vocabulary: Vocabulary, name: str
) -> tuple[list[tuple[int, _Triple]], Mapping[str, Any]]:
    """Return the label and the coordinates of each entry, and the head with the direction."""
    expected = "JSON with a list of points"
    try:
        read = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise FileFormatError(name, expected, str(error) or "lists within lists", GET_AGAIN) from error
    around = _lower(read) if isinstance(read, dict) else {}
    entries = around.pop("verts", None) if around else read
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise FileFormatError(name, expected, "other JSON", WRITE_AGAIN)
    head, found = around, []
    for number, entry in enumerate(map(_lower, entries)):
        if "direction" in entry:
            head = {**head, **entry}
            continue
        place = [_number(entry.get(key, entry), key, name, number) for key in "xyz"]
        if any(map(math.isnan, place)):
            continue
        label = _number(entry.get("label", entry), "label", name, number)
        if not (label > 0 and label.is_integer() and _has(vocabulary, int(label) % _PARTS)):
            allowed = f"labels among {vocabulary.numbers}, without 0"
            raise PointsError(name, allowed, f"label {entry['label']!r:.40}", _HINT)
        found.append((int(label) % _PARTS, (place[0], place[1], place[2])))
    return found, head


def _lower(entry: dict[str, Any]) -> dict[str, Any]:
    return {key.lower(): value for key, value in entry.items()}


def _number(value: object, key: str, name: str, entry: int) -> float:
    """Return a number of JSON; NaN for null, which some programs write for it."""
    if value is None:
        return math.nan
    if isinstance(value, (int, float)) and not isinstance(value, bool) and not abs(value) > _LARGEST:
        return float(value)  # NaN, too
    found = f"no {key}" if isinstance(value, dict) else f"{value!r:.40}"
    raise FileFormatError(name, f"a number as {key} of entry {entry}", found, WRITE_AGAIN)


def _has(vocabulary: Vocabulary, label: int) -> bool:
    return any(vertebra.label == label for vertebra in vocabulary.vertebrae)


def _form(head: Mapping[str, Any], name: str) -> str:
    """Return which of the three forms of JSON a file has."""
    if head.get("direction") is not None:
        return "voxels"
    for ending, form in _FORMS:
        if ending.search(name):
            return form
    hint = f"Pass reading=... (--reading), one of {', '.join(map(repr, READINGS['verse']))}."
    expected = "a direction, or a name that says what frame the points are in (..._ctd.json)"
    raise FileFormatError(name, expected, "neither", hint)


def _of_frame(
    found: Mapping[int, _Triple], geometry: Geometry, form: str, head: Mapping[str, Any], name: str
) -> Indices:
    """Return the index (i, j, k) of each label in the image's file, from coordinates in a turned one."""
    k, i, j = geometry.shape
    sizes, (dk, di, dj) = np.array([i, j, k]), geometry.spacing
    if form == "voxels" and head.get("direction") is None:
        return {label: np.array(place) for label, place in found.items()}
    direction = _GRIDS.get(form) or _direction(head["direction"], name)
    steps = turn_to(direction, geometry.affine, (i, j, k)).steps
    position, sign = steps[:, 0].astype(int), steps[:, 1]
    indices = {}
    for label, place in found.items():
        own = np.array(place)[position]
        if form in _GRIDS:
            own = own / [di, dj, dk]
        indices[label] = np.where(sign > 0, own, sizes - 1 - own)
    return indices


def _direction(value: Any, name: str) -> str:
    letters = "".join(map(str, value)).upper() if isinstance(value, (list, str)) else ""
    if letters not in ORIENTATIONS:
        expected = 'a direction with one each of R or L, A or P, S or I, such as ["P", "I", "R"]'
        raise FileFormatError(name, expected, f"{value!r:.40}", WRITE_AGAIN)
    return letters


def _of_lml(data: bytes, vocabulary: Vocabulary, name: str) -> list[tuple[int, _Triple]]:
    """Return the label and the coordinates of each row."""
    labels = {vertebra.name: vertebra.label for vertebra in vocabulary.vertebrae}
    found, has_rows = [], False
    for number, line in enumerate(data.decode("utf-8-sig", errors="replace").splitlines(), start=1):
        words = line.split()
        if not words or not re.fullmatch(r"[+-]?[0-9]+", words[0]):
            continue
        if number == 1 and len(words) < 5:
            continue  # a header that begins with a number
        has_rows = True
        if len(words) < 5:
            expected = f"an id, a name, x, y and z in line {number}"
            raise FileFormatError(name, expected, f"{line.strip()!r:.60}", GET_AGAIN)
        vertebra = words[1].partition("_")[0].upper()
        if vertebra not in labels:
            names = shortened(labels, limit=len(labels))
            raise PointsError(name, f"one of {names} in line {number}", f"{words[1]!r:.40}", _HINT)
        x, y, z = (_decimal(word, name, number) for word in words[2:5])
        if not any(map(math.isnan, (x, y, z))):
            found.append((labels[vertebra], (x, y, z)))
    if not has_rows:
        raise FileFormatError(name, "rows of id, name, x, y and z", "none", GET_AGAIN)
    return found


def _decimal(word: str, name: str, line: int) -> float:
    try:
        value = float(word)
    except ValueError:
        hint = WRITE_AGAIN
        if re.fullmatch(r"[+-]?[0-9]*,[0-9]+", word):
            hint = "This is a decimal comma: replace the commas in the file by points."
        raise FileFormatError(name, f"numbers in mm in line {line}", f"{word!r:.40}", hint) from None
    if math.isinf(value):
        raise FileFormatError(name, f"finite numbers in line {line}", word[:40], WRITE_AGAIN)
    return value


def _without_duplicates(
    found: Iterable[tuple[int, _Triple]], vocabulary: Vocabulary, name: str
) -> dict[int, _Triple]:
    """Return the first point of each label; a warning names those that have others."""
    first: dict[int, _Triple] = {}
    others = [label for label, place in found if first.setdefault(label, place) is not place]
    if others:
        names = shortened(dict.fromkeys(map(vocabulary.name, others)))
        warn(f"{name}: several points of {names}; the first is used", CTSpine1KWarning)
    return first


def _outside(indices: Indices, geometry: Geometry) -> list[int]:
    """List the labels of points that are in no voxel."""
    k, i, j = geometry.shape
    last = np.array([i, j, k]) - 0.5
    return [label for label, index in indices.items() if not ((index >= -0.5) & (index <= last)).all()]


def _not_in_image(found: str, geometry: Geometry, name: str) -> PointsError:
    k, i, j = geometry.shape
    return PointsError(name, f"points in the image, of {(i, j, k)} voxels", found, _HINT)
