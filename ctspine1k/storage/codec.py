"""Blosc2, which compresses chunks: imported when it is first needed, and how it is used."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import cache
from typing import Any

from numpy.typing import NDArray

from ctspine1k.errors import MissingPackageError

__all__ = ["OVERHEAD", "compressor", "decompress", "holds_no_voxels", "is_zeros", "require_blosc2", "sizes"]

#: Bytes that Blosc2 adds at most: its header. A chunk of zeros is a header alone, whose last byte says so.
OVERHEAD = 32
_ZEROS, _UNINITIALISED = 1, 4


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
    blosc2.set_releasegil(True)  # else it holds Python's lock while it works, and other threads wait
    return blosc2


def compressor(itemsize: int) -> Callable[[bytes], bytes]:
    """Return what compresses the voxels of one chunk, numbers of ``itemsize`` bytes.

    "bytedelta" after "shuffle" makes CT smaller than other filters do, and is undone as fast.
    """
    blosc2 = require_blosc2()
    # Nothing can be shuffled in single bytes, but the filters would take their time.
    filters = [blosc2.Filter.SHUFFLE, blosc2.Filter.BYTEDELTA] if itemsize > 1 else []
    options = {
        "codec": blosc2.Codec.ZSTD,
        "clevel": 1,
        "typesize": itemsize,
        "filters": filters,
        "filters_meta": [0, itemsize] if filters else [],
        "nthreads": 1,
    }

    def compress(voxels: bytes) -> bytes:
        # One block per chunk: smaller blocks compress worse, and a chunk is decoded whole anyway.
        chunk: bytes = blosc2.compress2(voxels, blocksize=len(voxels), **options)
        return chunk

    return compress


def decompress(chunk: memoryview, voxels: NDArray[Any]) -> None:
    """Decode a chunk, whose `sizes` have been checked, into an array.

    Raises:
        RuntimeError: it is not a Blosc2 chunk.
        ValueError: likewise.
    """
    require_blosc2().decompress2(chunk, dst=voxels, nthreads=1)


def sizes(chunk: memoryview) -> tuple[int, int]:
    """Return the bytes that a chunk says it has: decoded, and as it is."""
    decoded, stored = require_blosc2().get_cbuffer_sizes(chunk)[:2]
    return int(decoded), int(stored)


def is_zeros(chunk: memoryview) -> bool:
    """Return whether a chunk says that it holds zeros alone, without decoding it."""
    return len(chunk) == OVERHEAD and _special_kind(chunk) == _ZEROS


def holds_no_voxels(chunk: memoryview) -> bool:
    """Return whether a chunk says that it was never written to: decoding would leave memory as it is."""
    return _special_kind(chunk) == _UNINITIALISED


def _special_kind(chunk: memoryview) -> int:
    """Return what a chunk says it is instead of compressed bytes; 0 for these."""
    return chunk[OVERHEAD - 1] >> 4 & 7
