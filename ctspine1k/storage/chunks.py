"""Arrays in boxes, each compressed by Blosc2 on its own, so that a part can be read without the rest.

The stored form has four fields, as columns of Arrow hold them:

===========  ================  ====================================================================
field        type              what
===========  ================  ====================================================================
header       string            JSON, see below
ends         list of int64     where each box ends in ``bytes``; it begins where the one before ends
checksums    list of uint32    of each box: CRC-32 of its bytes, begun with the CRC-32 of the header
                               plus the box's number, so that it holds for these bytes here alone
bytes        large binary      the boxes, in C order of their positions; voxels in C order in each
===========  ================  ====================================================================

The header, version 1, has ``version`` (1); ``codec`` ("blosc2": each box is one Blosc2 chunk); ``writer``,
the release that wrote it; ``name``, for messages, such as "liver_106 image"; ``dtype`` of the stored numbers,
as NumPy writes it, such as "<i2"; ``shape`` of the array; ``box``, the shape of a box, which at the far ends
is cut to the array's; ``slope`` and ``intercept``: value = slope x stored + intercept.

Every box that is read is first held against its checksum and against its own length: damaged bytes raise
`StoredArrayError`, and never come out as voxels. Blosc2's "bytedelta" after its "shuffle" makes CT smaller
than other filters do, and is undone as fast.
"""

from __future__ import annotations

import importlib
import itertools
import json
import math
import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any, NamedTuple

import numpy as np
from isal.isal_zlib import crc32
from numpy.typing import DTypeLike, NDArray

from ctspine1k import __version__
from ctspine1k.errors import MissingPackageError, StoredArrayError
from ctspine1k.running.threads import spread
from ctspine1k.volumes.growing import GrowingArray
from ctspine1k.volumes.scaling import Scaling

__all__ = ["ArrayWriter", "StoredArray", "require_blosc2", "store"]

VERSION = 1
CODEC = "blosc2"

#: As small as compression allows, and decoded within the cache: many for a volume, two for a slice.
_BOXES = {1: (1 << 18,), 2: (256, 512), 3: (32, 64, 64)}

#: Bytes of a box at most, so that no damaged field makes us ask for more memory than there are bytes for.
_MAX_BOX = 1 << 26

#: Bytes of the header of a Blosc2 chunk. A chunk of zeros has no more, and says so in the header's last byte.
_HEADER = 32
_ZEROS, _UNINITIALISED = 1, 4

#: Bytes to decode that are worth another thread.
_BYTES_A_THREAD = 1 << 18


@cache
def require_blosc2() -> Any:
    """Import Blosc2, which is needed for compact storage alone.

    Raises:
        MissingPackageError: it is not installed, or too old.
    """
    try:
        blosc2 = importlib.import_module("blosc2")
    except ModuleNotFoundError as error:
        raise MissingPackageError("Compact storage", "blosc2 3 or later", "compact") from error
    if int(blosc2.__version__.partition(".")[0]) < 3:
        raise MissingPackageError("Compact storage", "blosc2 3 or later", "compact")
    blosc2.set_releasegil(True)  # or it would hold up every other thread while it works
    return blosc2


def default_box(shape: Sequence[int]) -> tuple[int, ...]:
    """Choose the shape of the boxes for an array: for more than three axes, those of its last three."""
    last = _BOXES.get(min(len(shape), 3), ())
    return (1,) * (len(shape) - len(last)) + last


class ArrayWriter:
    """Stores one array that comes in layers: slabs along the first axis, each one box deep.

    Raises:
        ValueError: numbers of this type, or boxes of this size, cannot be stored.
    """

    def __init__(
        self,
        shape: Sequence[int],
        dtype: DTypeLike,
        *,
        scaling: Scaling | None = None,
        name: str = "",
        box: Sequence[int] | None = None,
    ) -> None:
        scaling = scaling or Scaling()
        self._dtype = np.dtype(dtype).newbyteorder("<")
        if not _is_storable(self._dtype):
            raise ValueError(f"expected integers or floats of at most 64 bits, found {self._dtype}")
        self._box = tuple(box or default_box(shape))
        if math.prod(self._box) * self._dtype.itemsize > _MAX_BOX:
            raise ValueError(f"box={self._box}: expected at most {_MAX_BOX:,} bytes")
        self._header = json.dumps(
            {
                "version": VERSION,
                "codec": CODEC,
                "writer": f"ctspine1k {__version__}",
                "name": name,
                "dtype": self._dtype.str,
                "shape": [int(size) for size in shape],
                "box": self._box,
                "slope": scaling.slope,
                "intercept": scaling.intercept,
            }
        )
        self._seed = crc32(self._header.encode())
        self._ends: list[int] = []
        self._checksums: list[int] = []
        # Blosc2 adds at most its header to what it cannot compress.
        self._boxes = math.prod(_grid(shape, self._box))
        most = math.prod(shape) * self._dtype.itemsize + _HEADER * self._boxes
        self._data = GrowingArray((most,), np.uint8)
        self._last_voxels, self._last_chunk = b"", b""
        blosc2 = require_blosc2()
        self._compress = blosc2.compress2
        filters = [blosc2.Filter.SHUFFLE, blosc2.Filter.BYTEDELTA]
        self._options = {
            "codec": blosc2.Codec.ZSTD,
            "clevel": 1,
            "typesize": self._dtype.itemsize,
            # There is nothing to shuffle in single bytes, but the filters would take their time.
            "filters": filters if self._dtype.itemsize > 1 else [],
            "filters_meta": [0, self._dtype.itemsize] if self._dtype.itemsize > 1 else [],
            "nthreads": 1,
        }

    @property
    def depth(self) -> int:
        """Slices of a layer."""
        return self._box[0] if self._box else 1

    def append(self, layer: NDArray[Any]) -> None:
        """Add the next layer: `depth` slices, the last one maybe fewer."""
        layer = np.asarray(layer, self._dtype)
        for corner in itertools.product(*map(range, itertools.repeat(0), layer.shape, self._box)):
            box = layer[tuple(slice(at, at + size) for at, size in zip(corner, self._box, strict=True))]
            voxels = box.tobytes()
            if voxels != self._last_voxels:  # as they often are where there is background only
                # The block is the box: smaller ones would compress worse, and a box is read whole.
                self._last_voxels = voxels
                self._last_chunk = self._compress(voxels, blocksize=len(voxels), **self._options)
            chunk = self._last_chunk
            self._checksums.append(_checksum(chunk, self._seed, len(self._checksums)))
            self._data.extend(len(chunk))[:] = np.frombuffer(chunk, np.uint8)
            self._ends.append(len(self._data.filled))

    def fields(self) -> dict[str, Any]:
        """Give the stored form, when all layers have been added.

        Raises:
            ValueError: they have not.
        """
        if len(self._ends) != self._boxes:
            raise ValueError(f"expected {self._boxes} boxes, found {len(self._ends)}: layers are missing")
        return {
            "header": self._header,
            "ends": self._ends,
            "checksums": self._checksums,
            "bytes": self._data.filled.data,
        }


def store(array: NDArray[Any], **options: Any) -> dict[str, Any]:
    """Store an array that is there as a whole; options as of `ArrayWriter`.

    Raises:
        ValueError: numbers of this type cannot be stored.
    """
    array = np.asarray(array)
    writer = ArrayWriter(array.shape, array.dtype, **options)
    if array.ndim == 0:
        writer.append(array)
    for start in range(0, len(array) if array.ndim else 0, writer.depth):
        writer.append(array[start : start + writer.depth])
    return writer.fields()


@dataclass(frozen=True)
class StoredArray:
    """The stored form of one array, checked for what it says of itself, to read any part of."""

    name: str
    dtype: np.dtype[Any]  #: of the stored numbers
    shape: tuple[int, ...]
    box: tuple[int, ...]
    scaling: Scaling
    ends: NDArray[np.int64] = field(repr=False)
    checksums: NDArray[np.uint32] = field(repr=False)
    data: Any = field(repr=False)  #: whatever shows its bytes: a buffer of Arrow, bytes, a memoryview
    seed: int = field(repr=False)  #: CRC-32 of the header

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any], where: str = "") -> StoredArray:
        """Read the fields that `ArrayWriter` or Arrow gives; ``where`` is added to the name in messages.

        Raises:
            StoredArrayError: a newer version or another codec, or fields that contradict each other.
        """
        try:
            text = fields["header"]
            text = text.encode() if isinstance(text, str) else bytes(text)
            header = json.loads(text)
            name = str(header.get("name") or "an array without a name") + where
            for what, known in (("version", VERSION), ("codec", CODEC)):
                if header[what] != known:
                    by = header.get("writer", "a later ctspine1k")
                    hint = f"It was written by {by}: upgrade to that."
                    raise StoredArrayError(name, f"{what} {known!r}", repr(header[what]), hint)
            stored = cls(
                name,
                np.dtype(header["dtype"]),
                tuple(map(operator.index, header["shape"])),
                tuple(map(operator.index, header["box"])),
                Scaling(float(header["slope"]), float(header["intercept"])),
                np.asarray(fields["ends"], np.int64),
                np.asarray(fields["checksums"], np.uint32),
                fields["bytes"],
                crc32(text),
            )
            memoryview(stored.data), len(stored.ends), len(stored.checksums)
        except StoredArrayError:
            raise
        except (
            ArithmeticError,
            AttributeError,
            LookupError,
            RecursionError,
            SyntaxError,
            TypeError,
            ValueError,
        ) as error:
            raise StoredArrayError(f"a stored array{where}", "its four fields", repr(error)) from error
        stored._check_fields()
        return stored

    def _check_fields(self) -> None:
        if not _is_storable(self.dtype):
            raise StoredArrayError(self.name, "numbers of at most 64 bits", f"type {self.dtype}")
        is_shape = len(self.box) == len(self.shape) and min((*self.shape, *self.box), default=1) >= 0
        is_too_large = math.prod(max(1, size) for size in self.shape) >= 1 << 60
        is_box = 0 not in self.box and math.prod(self.box) * self.dtype.itemsize <= _MAX_BOX
        if not is_shape or is_too_large or not is_box:
            raise StoredArrayError(self.name, "a shape and a box in it", f"{self.shape} and {self.box}")
        count = math.prod(self._grid)
        if not len(self.ends) == len(self.checksums) == count:
            found = f"{len(self.ends)} and {len(self.checksums)} checksums"
            raise StoredArrayError(self.name, f"{count} boxes", found)

    @cached_property
    def _grid(self) -> tuple[int, ...]:
        return _grid(self.shape, self.box)

    def read(
        self, ranges: Sequence[range] | None = None, dtype: DTypeLike | None = None, threads: int = 1
    ) -> NDArray[Any]:
        """Read the elements at these indices along each axis (forward steps), decoding their boxes alone.

        Args:
            ranges: for each axis, within its size; None for all.
            dtype: of the values, that is scaled; None for the stored numbers.
            threads: at most so many, where there is enough to do.

        Raises:
            StoredArrayError: bytes are damaged, or ``dtype`` cannot hold the values.
        """
        ranges = [range(size) for size in self.shape] if ranges is None else ranges
        size = [len(axis) for axis in ranges]
        if 0 in size:
            return np.empty(size, self.dtype if dtype is None else dtype)
        axes = [list(_parts(*axis)) for axis in zip(ranges, self.shape, self.box, strict=True)]
        parts = [self._part(position) for position in itertools.product(*axes)]  # all checked beforehand
        scaling = None if dtype is None else self.scaling
        decoded = parts
        if scaling is None or scaling.is_identity:
            decoded = [part for part in parts if not part.is_zero]
        # Boxes of zeros alone, as most are in a segmentation, are then there already.
        make = np.empty if len(decoded) == len(parts) else np.zeros
        out = make(size, self.dtype if dtype is None else dtype)
        threads = min(threads, len(decoded), sum(part.nbytes for part in decoded) // _BYTES_A_THREAD)
        spread(lambda some: self._decode(some, out, scaling), decoded, threads)
        return out

    def check(self) -> None:
        """Hold every box against its checksum, without decoding.

        Raises:
            StoredArrayError: bytes are damaged.
        """
        for number in range(len(self.ends)):
            self._chunk(number)

    def _part(self, axes: tuple[_AxisPart, ...]) -> _Part:
        number, nbytes = 0, self.dtype.itemsize
        for axis, count in zip(axes, self._grid, strict=True):
            number = number * count + axis.box
            nbytes *= axis.size
        chunk = self._chunk(number)
        # Blosc2 would write as many bytes as the chunk says, wherever that leads, or for some chunks none.
        if require_blosc2().get_cbuffer_sizes(chunk)[:2] != (nbytes, len(chunk)):
            raise self._damaged(number, f"{nbytes} bytes of voxels", "another length in it")
        if _special_kind(chunk) == _UNINITIALISED:
            raise self._damaged(number, "voxels", "a chunk that says it has none")
        return _Part(number, nbytes, chunk, axes)

    def _chunk(self, number: int) -> memoryview:
        start, end = int(self.ends[number - 1]) if number else 0, int(self.ends[number])
        data = memoryview(self.data)
        if not 0 <= start <= end - _HEADER <= len(data) - _HEADER:
            raise self._damaged(number, f"bytes within {len(data)}", f"bytes {start} to {end}")
        chunk = data[start:end]
        if _checksum(chunk, self.seed, number) != self.checksums[number]:
            raise self._damaged(number, f"checksum {self.checksums[number]:08x}", "another")
        return chunk

    def _decode(self, parts: Sequence[_Part], out: NDArray[Any], scaling: Scaling | None) -> None:
        decompress = require_blosc2().decompress2
        for number, _, chunk, axes in parts:
            voxels = np.empty([axis.size for axis in axes], self.dtype)
            try:
                decompress(chunk, dst=voxels, nthreads=1)
            except (RuntimeError, ValueError) as error:
                raise self._damaged(number, "a Blosc2 chunk", str(error)) from error
            inside: tuple[Any, ...] = (*[axis.inside for axis in axes], ...)
            outside: tuple[Any, ...] = (*[axis.outside for axis in axes], ...)
            found, target = voxels[inside], out[outside]
            if scaling is None:
                target[...] = found
                continue
            with np.errstate(invalid="ignore"):
                scaling.write(found, target)
            may_lose = out.dtype.kind in "iu" and not self._fits(out.dtype)
            if may_lose and not np.array_equal(target, scaling.values(found)):
                hint = 'Cast the column to CompactArray("float32"), say.'
                raise StoredArrayError(self.name, f"numbers that {out.dtype} holds", "others", hint)

    def _fits(self, dtype: np.dtype[Any]) -> bool:
        """Whether every value there may be is one of this type."""
        return self.scaling.is_identity and np.can_cast(self.dtype, dtype)

    def _damaged(self, number: int, expected: str, found: str) -> StoredArrayError:
        return StoredArrayError(f"{self.name}, box {number}", expected, found)


class _AxisPart(NamedTuple):
    """What is read of one row of boxes, along one axis."""

    box: int  #: position of the box
    size: int  #: of the box
    inside: slice  #: in the box
    outside: slice  #: in the result


class _Part(NamedTuple):
    """What is read of one box."""

    number: int
    nbytes: int  #: when it is decoded
    chunk: memoryview
    axes: tuple[_AxisPart, ...]

    @property
    def is_zero(self) -> bool:
        """Whether it is known to hold zeros alone, without decoding it."""
        return len(self.chunk) == _HEADER and _special_kind(self.chunk) == _ZEROS


def _parts(indices: range, size: int, step: int) -> Iterator[_AxisPart]:
    done = 0
    while done < len(indices):
        box = indices[done] // step
        inside = range(indices[done] - box * step, min(step, indices.stop - box * step), indices.step)
        yield _AxisPart(
            box,
            min(step, size - box * step),
            slice(inside.start, inside.stop, inside.step),
            slice(done, done + len(inside)),
        )
        done += len(inside)


def _is_storable(dtype: np.dtype[Any]) -> bool:
    return dtype.kind in "iuf" and dtype.itemsize <= 8


def _special_kind(chunk: memoryview) -> int:
    """Tell what a Blosc2 chunk says it is instead of compressed bytes; 0 for these."""
    return chunk[_HEADER - 1] >> 4 & 7


def _grid(shape: Sequence[int], box: Sequence[int]) -> tuple[int, ...]:
    """Tell how many boxes there are along each axis."""
    return tuple(-(-size // step) for size, step in zip(shape, box, strict=True))


def _checksum(chunk: bytes | memoryview, seed: int, number: int) -> int:
    return crc32(chunk, (seed + number) & 0xFFFFFFFF)
