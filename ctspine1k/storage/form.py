"""The stored form of one array: chunks, each compressed on its own, so that parts can be read.

It has four fields, which are columns in Arrow:

===========  ================  ====================================================================
field        type              what
===========  ================  ====================================================================
header       string            JSON, see below
ends         list of int64     where each chunk ends in ``bytes``; it begins where the one before ends
checksums    list of uint32    of each chunk: CRC-32 of its bytes, begun with the CRC-32 of the header
                               plus the chunk's number, so that a chunk is valid only in its own place
bytes        large binary      the chunks, in C order of their positions; voxels in C order in each
===========  ================  ====================================================================

The header, version 1, has ``version`` (1); ``codec`` ("blosc2": each chunk is a Blosc2 chunk, which names its
own compression); ``writer``, the release that wrote it; ``name``, for messages, such as "liver_106 image";
``dtype`` of the stored numbers, as NumPy writes it, such as "<i2"; ``shape`` of the array; ``box``, the shape
of a chunk, which at the far ends is cut to the array's; ``slope`` and ``intercept``: value = slope x stored +
intercept.

Before a chunk is decoded, its checksum and its length are compared: damaged bytes raise `StoredArrayError`,
and are never returned as voxels.
"""

from __future__ import annotations

import json
import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from isal.isal_zlib import crc32

from ctspine1k import __version__
from ctspine1k.errors import StoredArrayError
from ctspine1k.volumes.scaling import Scaling

__all__ = ["MAX_CHUNK_BYTES", "ArrayHeader", "checksum", "default_chunk_shape", "is_storable"]

VERSION = 1
CODEC = "blosc2"

#: Maximum size of a chunk in bytes, so that a damaged field cannot cause a huge allocation.
MAX_CHUNK_BYTES = 1 << 26

#: As small as good compression allows, and small enough for the CPU's cache: many per volume, two per slice.
_CHUNK_SHAPES = {1: (1 << 18,), 2: (256, 512), 3: (32, 48, 48)}


#: As many as some vector registers hold.
_ZEROS = np.zeros(64, np.int16)


@dataclass(frozen=True)
class ArrayHeader:
    """The header of a stored array."""

    name: str  #: for messages
    dtype: np.dtype[Any]  #: of the stored numbers
    shape: tuple[int, ...]
    chunk_shape: tuple[int, ...]  #: as many axes as ``shape``
    scaling: Scaling  #: from the stored numbers to values

    def to_json(self) -> str:
        """Return the text to be stored; it names this release as its writer."""
        return json.dumps(
            {
                "version": VERSION,
                "codec": CODEC,
                "writer": f"ctspine1k {__version__}",
                "name": self.name,
                "dtype": self.dtype.str,
                "shape": self.shape,
                "box": self.chunk_shape,
                "slope": self.scaling.slope,
                "intercept": self.scaling.intercept,
            }
        )

    @classmethod
    def from_json(cls, text: bytes, where: str) -> ArrayHeader:
        """Read the stored text; ``where`` is added to the name.

        Raises:
            StoredArrayError: a newer version, or another codec.
            Exception: of many kinds, if the text is not such a header.
        """
        fields = json.loads(text)
        name = str(fields.get("name") or "an array without a name") + where
        for what, known in (("version", VERSION), ("codec", CODEC)):
            if fields[what] != known:
                by = fields.get("writer", "a later ctspine1k")
                hint = f"It was written by {by}: upgrade to that."
                raise StoredArrayError(name, f"{what} {known!r}", repr(fields[what]), hint)
        return cls(
            name,
            np.dtype(fields["dtype"]),
            tuple(map(operator.index, fields["shape"])),
            tuple(map(operator.index, fields["box"])),
            Scaling(float(fields["slope"]), float(fields["intercept"])),
        )

    def check(self) -> None:
        """Check type and sizes, before memory is allocated for them.

        Raises:
            StoredArrayError: types or sizes that are not valid.
        """
        if not is_storable(self.dtype):
            raise StoredArrayError(self.name, "numbers of at most 64 bits", f"type {self.dtype}")
        sizes = (*self.shape, *self.chunk_shape)
        is_shape = len(self.shape) == len(self.chunk_shape) and min(sizes, default=1) >= 0
        is_too_large = math.prod(max(1, size) for size in self.shape) >= 1 << 60
        is_chunk = 0 not in self.chunk_shape and self.chunk_bytes <= MAX_CHUNK_BYTES
        if not is_shape or is_too_large or not is_chunk:
            found = f"{self.shape} and {self.chunk_shape}"
            raise StoredArrayError(self.name, "the shapes of an array and of a chunk of it", found)

    @property
    def chunk_bytes(self) -> int:
        """Size in bytes of a complete chunk, decoded."""
        return math.prod(self.chunk_shape) * self.dtype.itemsize

    @cached_property
    def grid(self) -> tuple[int, ...]:
        """Number of chunks along each axis."""
        return tuple(-(-size // step) for size, step in zip(self.shape, self.chunk_shape, strict=True))


def default_chunk_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """Return the shape of the chunks for an array; with more than three axes, 1 along the first of them."""
    last = _CHUNK_SHAPES.get(min(len(shape), 3), ())
    return (1,) * (len(shape) - len(last)) + last


def is_storable(dtype: np.dtype[Any]) -> bool:
    """Return whether numbers of this type can be stored."""
    return dtype.kind in "iuf" and dtype.itemsize <= 8


def checksum(chunk: bytes | memoryview, seed: int, number: int) -> int:
    """Return the checksum of a chunk; ``seed`` is the CRC-32 of the header."""
    found = crc32(chunk, (seed + number) & 0xFFFFFFFF)
    # ISA-L leaves the upper halves of the CPU's vector registers in use. Until a function of AVX clears them,
    # as NumPy's do at their end, Blosc2's "bytedelta", in SSE, takes half as long again.
    np.add(_ZEROS, _ZEROS, out=_ZEROS)
    return found
