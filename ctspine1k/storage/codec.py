"""Blosc2, which compresses chunks: how it is imported, when first needed, and how it is used."""

from __future__ import annotations

import importlib
import struct
from collections.abc import Callable
from functools import cache
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ctspine1k.errors import MissingPackageError

__all__ = [
    "COMPRESSIONS",
    "OVERHEAD",
    "Compression",
    "compressor",
    "decompress",
    "is_zeros",
    "read_header",
    "require_blosc2",
    "say_zeros",
]

#: "small" takes the fewest bytes; "fast" a third more, from which patches are read 1.4 to 2.3 times as fast.
Compression: TypeAlias = Literal["small", "fast"]
COMPRESSIONS = ("small", "fast")

#: Bytes that Blosc2 adds at most: its header. A chunk of zeros is only a header, whose last byte says so.
OVERHEAD = 32
_ZEROS, _UNINITIALISED = 1, 4
#: In that header: sizes of the chunk decoded and of all its bytes, and the last byte.
_HEADER = struct.Struct("<4xi4xi15xB")


@cache
def require_blosc2() -> Any:
    """Import Blosc2, which only compact storage needs.

    Raises:
        MissingPackageError: it is not installed, or too old.
    """
    try:
        blosc2 = importlib.import_module("blosc2")
    except ModuleNotFoundError as error:
        raise MissingPackageError("Compact storage", "blosc2 3 or later", "compact") from error
    if int(blosc2.__version__.partition(".")[0]) < 3:
        raise MissingPackageError("Compact storage", "blosc2 3 or later", "compact")
    blosc2.set_releasegil(True)  # by default it keeps the GIL, so that other threads wait
    return blosc2


def compressor(itemsize: int, compression: Compression, *, is_volume: bool) -> Callable[[bytes], bytes]:
    """Return a function that compresses the voxels of one chunk, numbers of ``itemsize`` bytes.

    A chunk names its own codec and filters, so that any can be decoded without knowing ``compression``.
    ``is_volume`` tells chunks of volumes, with three axes, from those of slices.
    """
    blosc2 = require_blosc2()
    shuffle, bytedelta = (blosc2.Filter.SHUFFLE, 0), (blosc2.Filter.BYTEDELTA, itemsize)
    codec, level, filters = {
        # "bytedelta" saves a tenth of the bytes of slices, and a twentieth of those of volumes, whose patches
        # would take a third longer to decode.
        "small": (blosc2.Codec.ZSTD, 1, [shuffle] if is_volume else [shuffle, bytedelta]),
        # LZ4 gains nothing from "bytedelta". Level 5 compresses as fast as 1, and the LZ4HC codec 8 times as
        # slowly, to 0.88 of the bytes.
        "fast": (blosc2.Codec.LZ4, 5, [shuffle]),
    }[compression]
    if itemsize == 1:  # single bytes cannot be shuffled, but the filters would still take time
        filters = []
    options = {
        "codec": codec,
        "clevel": level,
        "typesize": itemsize,
        "filters": [kind for kind, _ in filters],
        "filters_meta": [meta for _, meta in filters],
        "nthreads": 1,
    }

    def compress(voxels: bytes) -> bytes:
        # One block per chunk: smaller blocks compress worse, and a chunk is decoded whole anyway.
        chunk: bytes = blosc2.compress2(voxels, blocksize=len(voxels), **options)
        return chunk

    return compress


def decompress(chunk: memoryview, voxels: NDArray[Any]) -> None:
    """Decode a chunk, whose `read_header` has been checked, into an array.

    Raises:
        RuntimeError, ValueError: it is not a Blosc2 chunk.
    """
    require_blosc2().decompress2(chunk, dst=voxels, nthreads=1)


def read_header(chunk: memoryview) -> tuple[int, int, bool]:
    """Return what a chunk says of itself: its bytes decoded, its bytes stored, and whether it has any voxels.

    Without any it is uninitialised: decoding it would leave memory unchanged.
    """
    decoded, stored, last = _HEADER.unpack_from(chunk)
    return decoded, stored, _kind(last) != _UNINITIALISED


def is_zeros(chunk: memoryview) -> bool:
    """Return whether a chunk says that it contains only zeros, without decoding it."""
    return len(chunk) == OVERHEAD and _kind(chunk[OVERHEAD - 1]) == _ZEROS


def say_zeros(lengths: NDArray[np.int64], last: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return `is_zeros` of many chunks at once, from the length and the last byte of each."""
    say: NDArray[np.bool_] = (lengths == OVERHEAD) & (_kind(last) == _ZEROS)
    return say


def _kind(last: Any) -> Any:
    """Return the kind of a chunk without compressed bytes, from its header's last byte; 0 if it has them."""
    return last >> 4 & 7
