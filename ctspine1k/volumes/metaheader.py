"""What a MetaImage header (``.mhd``, ``.mha``) says, checked before SimpleITK sees the file.

A header is lines of ``Key = Value``; the last one, ``ElementDataFile``, names the file with the voxels, or is
"LOCAL" if they follow. MetaIO, which SimpleITK reads with, takes what it can from a damaged line, follows any
path, and prints its errors: so each line that it interprets must be as it writes it itself.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ctspine1k.catalog.companions import companions
from ctspine1k.errors import FileFormatError, TruncatedFileError
from ctspine1k.volumes.headers import GET_AGAIN, WRITE_AGAIN

__all__ = ["MetaHeader", "read_meta_header"]

#: Bytes that a header has at most. Those of programs have some hundreds.
_MAX_BYTES = 1 << 16

_LINE = re.compile(r"([A-Za-z][A-Za-z0-9_|]*)[ \t]*=[ \t]*([^\0-\x08\x0a-\x1f]*)")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_COUNT = re.compile(r"-?\d{1,15}", re.ASCII)

#: Types of voxels. Not MET_LONG and MET_ULONG, whose size depends on the program.
_TYPES = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4",
    "MET_UINT": "u4", "MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8", "MET_FLOAT": "f4", "MET_DOUBLE": "f8",
}  # fmt: skip

#: How many numbers the other fields have that MetaIO reads as numbers, in a header of three dimensions.
_NUMBERS = {
    "HeaderSize": 1, "CompressedDataSize": 1, "ElementNumberOfChannels": 1,
    "ElementSpacing": 3, "ElementSize": 3, "CenterOfRotation": 3, "ElementMin": 1, "ElementMax": 1,
    "ElementToIntensityFunctionSlope": 1, "ElementToIntensityFunctionOffset": 1, "ElementNBits": 1,
    "ID": 1, "ParentID": 1, "Color": 4, "SequenceID": 3,
    "Offset": 3, "Position": 3, "Origin": 3, "TransformMatrix": 9, "Rotation": 9, "Orientation": 9,
}  # fmt: skip

#: Names for one thing, of which a header may use one.
_SAME = (
    ("Offset", "Position", "Origin"),
    ("TransformMatrix", "Rotation", "Orientation"),
    ("BinaryDataByteOrderMSB", "ElementByteOrderMSB"),
)

_SWITCHES = {"true": True, "false": False, "1": True, "0": False, "t": True, "f": False}

#: Units that MetaIO writes as ``DistanceUnits``. SimpleITK passes over them, and others are read as mm.
_UNITS = {"um": ("microns", 0.001), "cm": ("centimetres", 10.0)}

#: What says that voxels follow the header: in other spellings, MetaIO takes it for a file's name.
_LOCAL = ("LOCAL", "Local", "local")

#: Names that MetaIO does not take for a file's.
_SPECIAL = re.compile(r"(?i)list|local|.*%")


@dataclass(frozen=True)
class MetaHeader:
    """A header of a volume with one real number a voxel. Axes are in the file's order, (i, j, k)."""

    name: str  #: of the file, for messages
    shape: tuple[int, int, int]  #: each at least 1
    file_type: np.dtype[Any]  #: of the stored numbers, in the file's byte order
    data: str  #: path of the file with the voxels, which may be the same
    start: int  #: bytes before them in it; -1 if they are its last ones
    packed: (
        int | None
    )  #: bytes that they take compressed; 0 for all to the end of the file; None if they are not
    has_directions: bool  #: whether it says where its axes lead
    unit: tuple[str, float]  #: of lengths: its name, and mm

    @property
    def bytes(self) -> int:
        """Size of all voxels, inflated."""
        return math.prod(self.shape) * self.file_type.itemsize

    def check_data(self) -> None:
        """Check that the file with the voxels is there and, unless it is compressed, long enough.

        Raises:
            FileFormatError: there is no such file.
            TruncatedFileError: it is too short.
        """
        path = Path(self.data)
        if not path.is_file():
            expected, hint = (
                f"its voxels beside it, in {path.name}",
                "Put the file there, or download it again.",
            )
            raise FileFormatError(self.name, expected, "no such file", hint)
        size = path.stat().st_size
        needed = max(self.start, 0) + (self.bytes if self.packed is None else self.packed)
        if size < needed:
            expected = f"at least {needed:,} bytes for its {self.shape[2]:,} slices"
            raise TruncatedFileError(self.data, expected, f"{size:,}", GET_AGAIN)


def read_meta_header(path: str) -> MetaHeader:
    """Read and check the header of a file.

    Raises:
        FileFormatError: it is not a MetaImage header, or one of something else than a volume.
        FileNotFoundError: there is no file at the path.
    """
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123
        head = file.read(_MAX_BYTES) or b""
    fields, end = _fields(head, path)
    shape = _shape(fields, path)
    _require(fields, path, "BinaryData", True, default=True)
    _require_numbers(fields, path)
    kind = fields.get("ElementType", "")
    if kind not in _TYPES:
        raise _wrong(path, "ElementType", " or ".join(_TYPES), kind or "none")
    is_big = any(_switch(fields, path, name) for name in _SAME[2])
    data, start = _data(fields, path, end)
    return MetaHeader(
        path,
        shape,
        np.dtype(_TYPES[kind]).newbyteorder(">" if is_big else "<"),
        data,
        start,
        _packed(fields, path),
        has_directions=any(name in fields for name in _SAME[1]),
        unit=_UNITS.get(fields.get("DistanceUnits", "").lower(), ("mm", 1.0)),
    )


def _wrong(path: str, key: str, expected: str, found: str) -> FileFormatError:
    return FileFormatError(path, f"a MetaImage header with {key} {expected}", found[:100], WRITE_AGAIN)


def _fields(head: bytes, path: str) -> tuple[dict[str, str], int]:
    """Return the fields of a header, and where it ends.

    Raises:
        FileFormatError: a line that is no field, one that is there twice, or no end.
    """
    fields: dict[str, str] = {}
    at = 0
    while at < len(head):
        end = head.find(b"\n", at)
        end = len(head) if end < 0 else end
        line, at = os.fsdecode(head[at:end]).rstrip("\r"), end + 1
        if not line.strip(" \t"):
            continue
        if (field := _LINE.fullmatch(line)) is None:
            if not fields:
                found = f"a file that begins with {head[:20]!r}"
                raise FileFormatError(path, "a MetaImage header", found, GET_AGAIN)
            raise FileFormatError(path, "lines such as 'NDims = 3'", repr(line[:80]), WRITE_AGAIN)
        key, value = field[1], field[2].strip(" \t")
        if key in fields:
            raise _wrong(path, key, "once", "it twice")
        if key in _NUMBERS and not value.isascii():  # MetaIO has other ideas of what separates numbers
            raise _wrong(path, key, f"of {_NUMBERS[key]} numbers", value)
        fields[key] = value
        if key == "ElementDataFile":
            for names in _SAME:
                if len(used := [name for name in names if name in fields]) > 1:
                    raise _wrong(path, " or ".join(names), "once", " and ".join(used))
            return fields, min(at, len(head))
    raise _wrong(path, "ElementDataFile", "as its last line", "none")


def _shape(fields: Mapping[str, str], path: str) -> tuple[int, int, int]:
    if fields.get("ObjectType", "Image") != "Image":
        raise _wrong(path, "ObjectType", "Image", fields["ObjectType"])
    _require(fields, path, "NDims", "3", default=None)
    sizes = fields.get("DimSize", "").split()
    if len(sizes) != 3 or not all(_COUNT.fullmatch(size) and int(size) > 0 for size in sizes):
        raise _wrong(path, "DimSize", "three positive numbers", fields.get("DimSize", "none"))
    i, j, k = map(int, sizes)
    return i, j, k


def _require(fields: Mapping[str, str], path: str, key: str, value: object, *, default: object) -> None:
    found: object = default
    if key in fields:
        found = _switch(fields, path, key) if isinstance(value, bool) else fields[key]
    if found != value:
        raise _wrong(path, key, str(value), str(fields.get(key, "none")))


def _require_numbers(fields: Mapping[str, str], path: str) -> None:
    """Check what SimpleITK reads as numbers: it would take "0.3,4" for 0.3, and "inf" for 0."""
    for key, count in _NUMBERS.items():
        if key not in fields:
            continue
        numbers = fields[key].split()
        if len(numbers) != count or not all(_is_finite(number) for number in numbers):
            raise _wrong(path, key, f"of {count} finite numbers", fields[key])
    for key, only in (
        ("ElementNumberOfChannels", 1.0),
        ("ElementToIntensityFunctionSlope", 1.0),  # which SimpleITK does not apply
        ("ElementToIntensityFunctionOffset", 0.0),
    ):
        if key in fields and float(fields[key]) != only:
            raise _wrong(path, key, f"{only:g}", fields[key])
    spacing = fields.get("ElementSpacing", fields.get("ElementSize"))
    if spacing is None or min(map(float, spacing.split())) <= 0:
        raise _wrong(path, "ElementSpacing", "of three positive numbers", spacing or "none")


def _is_finite(number: str) -> bool:
    return _NUMBER.fullmatch(number) is not None and math.isfinite(float(number))


def _switch(fields: Mapping[str, str], path: str, key: str) -> bool:
    text = fields.get(key, "False")
    if text.lower() not in _SWITCHES:
        raise _wrong(path, key, "True or False", text)
    return _SWITCHES[text.lower()]


def _packed(fields: Mapping[str, str], path: str) -> int | None:
    """Return the bytes of compressed voxels, 0 if it does not say; None if they are not compressed."""
    if not _switch(fields, path, "CompressedData"):
        return None
    if fields.get("HeaderSize", "0") != "0":
        raise _wrong(path, "HeaderSize", "0 where voxels are compressed", fields["HeaderSize"])
    given = fields.get("CompressedDataSize", "0")
    if _COUNT.fullmatch(given) is None or int(given) < 0:
        raise _wrong(path, "CompressedDataSize", "a number of bytes", given)
    return int(given)


def _data(fields: Mapping[str, str], path: str, end: int) -> tuple[str, int]:
    """Return the path of the file with the voxels, and where in it they begin.

    It is this file, or the one beside it with the same name: no other file is ever read.
    """
    given, header_size = fields["ElementDataFile"], fields.get("HeaderSize", "0")
    if _COUNT.fullmatch(header_size) is None or int(header_size) < -1:
        raise _wrong(path, "HeaderSize", "a number of bytes, or -1", header_size)
    if given in _LOCAL:
        if _packed(fields, path) == 0:  # MetaIO would inflate the header with them
            raise _wrong(path, "CompressedDataSize", "where they follow the header", "none")
        if header_size != "0":
            raise _wrong(path, "HeaderSize", "0 where voxels follow the header", header_size)
        return path, end
    folder, name = os.path.split(path)
    beside = companions(name)
    if given not in beside or _SPECIAL.match(given):
        other = f"{beside[0]}, the file beside it, or " if beside else ""
        expected = f"ElementDataFile = {other}LOCAL"
        hint = "Name both files alike, and change that line; a list of files must be saved as one."
        raise FileFormatError(path, expected, repr(given[:200]), hint)
    return os.path.join(folder, given), int(header_size)  # noqa: PTH118
