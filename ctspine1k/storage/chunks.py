"""Arrays that are written in chunks and read in parts; `ctspine1k.storage.form` documents the stored form."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from isal.isal_zlib import crc32
from numpy.typing import DTypeLike, NDArray

from ctspine1k.errors import StoredArrayError
from ctspine1k.running.threads import spread
from ctspine1k.storage import codec
from ctspine1k.storage.form import MAX_CHUNK_BYTES, ArrayHeader, checksum, default_chunk_shape, is_storable
from ctspine1k.volumes.growing import GrowingArray
from ctspine1k.volumes.scaling import Scaling

__all__ = ["ArrayWriter", "StoredArray", "store"]

#: Bytes to decode for which another thread pays off.
_BYTES_PER_THREAD = 1 << 18


class ArrayWriter:
    """Stores one array that arrives in layers: slabs along the first axis, each as deep as a chunk.

    Args:
        shape: of the array.
        dtype: of its numbers.
        scaling: from them to values.
        name: for messages.
        chunk_shape: None for `default_chunk_shape`.
        compression: how each chunk is compressed.

    Raises:
        ValueError: numbers of this type, or chunks of this size, cannot be stored.
    """

    def __init__(
        self,
        shape: Sequence[int],
        dtype: DTypeLike,
        *,
        scaling: Scaling | None = None,
        name: str = "",
        chunk_shape: Sequence[int] | None = None,
        compression: codec.Compression = "small",
    ) -> None:
        self._header = ArrayHeader(
            name,
            np.dtype(dtype).newbyteorder("<"),
            tuple(map(int, shape)),
            tuple(chunk_shape or default_chunk_shape(shape)),
            scaling or Scaling(),
        )
        if not is_storable(self._header.dtype):
            raise ValueError(f"expected integers or floats of at most 64 bits, found {self._header.dtype}")
        if self._header.chunk_bytes > MAX_CHUNK_BYTES:
            wrong = f"chunk_shape={self._header.chunk_shape}"
            raise ValueError(f"{wrong}: expected at most {MAX_CHUNK_BYTES:,} bytes")
        self._text = self._header.to_json()
        self._seed = crc32(self._text.encode())
        self._ends: list[int] = []
        self._checksums: list[int] = []
        self._count = math.prod(self._header.grid)
        most = math.prod(shape) * self._header.dtype.itemsize + codec.OVERHEAD * self._count
        self._data = GrowingArray((most,), np.uint8)
        self._last_voxels, self._last_chunk, self._zeros = b"", b"", b""
        is_volume = len(self._header.shape) > 2
        self._compress = codec.compressor(self._header.dtype.itemsize, compression, is_volume=is_volume)

    @property
    def depth(self) -> int:
        """Number of slices in a layer."""
        return self._header.chunk_shape[0] if self._header.chunk_shape else 1

    def append(self, layer: NDArray[Any]) -> None:
        """Add the next layer of `depth` slices; the last one may have fewer."""
        layer = np.asarray(layer, self._header.dtype)
        sizes = self._header.chunk_shape
        steps = (range(0, size, step) for size, step in zip(layer.shape, sizes, strict=True))
        used = _used(layer)
        for corner in itertools.product(*steps):
            place = tuple(slice(at, at + size) for at, size in zip(corner, sizes, strict=True))
            part = layer[place]
            if used is None or used[place[1:]].any():
                voxels = part.tobytes()
            else:
                if len(self._zeros) != part.nbytes:
                    self._zeros = bytes(part.nbytes)
                voxels = self._zeros  # the same object, so that comparing it takes no time
            if voxels != self._last_voxels:  # chunks of background repeat
                self._last_voxels = voxels
                self._last_chunk = self._compress(voxels)
            chunk = self._last_chunk
            self._checksums.append(checksum(chunk, self._seed, len(self._checksums)))
            self._data.extend(len(chunk))[:] = np.frombuffer(chunk, np.uint8)
            self._ends.append(len(self._data.filled))

    def fields(self) -> dict[str, Any]:
        """Return the stored form, after all layers have been added.

        Raises:
            ValueError: layers are missing.
        """
        if len(self._ends) != self._count:
            raise ValueError(f"expected {self._count} chunks, found {len(self._ends)}: layers are missing")
        return {
            "header": self._text,
            "ends": self._ends,
            "checksums": self._checksums,
            "bytes": self._data.filled.data,
        }


def _used(layer: NDArray[Any]) -> NDArray[Any] | None:
    """Return where a layer of labels, as slices lie on each other, has others than 0; None for other arrays.

    Most of a mask is background, of which no box needs to be brought into the order of storage then.
    """
    if layer.ndim < 2 or layer.dtype.itemsize > 1:
        return None
    used: NDArray[Any] = np.bitwise_or.reduce(layer, axis=0)
    return used


def store(array: NDArray[Any], **options: Any) -> dict[str, Any]:
    """Return the stored form of an array; options as for `ArrayWriter`.

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
    """The stored form of one array, of which any part can be read; its header is checked."""

    header: ArrayHeader
    ends: NDArray[np.int64] = field(repr=False)
    checksums: NDArray[np.uint32] = field(repr=False)
    data: Any = field(repr=False)  #: any object with the buffer protocol: Arrow's buffer, bytes, a memoryview
    seed: int = field(repr=False)  #: CRC-32 of the header

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any], where: str = "") -> StoredArray:
        """Read the fields from `ArrayWriter` or Arrow; ``where`` is added to the name in messages.

        Raises:
            StoredArrayError: a newer version or another codec, or fields that contradict each other.
        """
        try:
            text = fields["header"]
            text = text.encode() if isinstance(text, str) else bytes(text)
            stored = cls(
                ArrayHeader.from_json(text, where),
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
        stored.header.check()
        count = math.prod(stored.header.grid)
        if not len(stored.ends) == len(stored.checksums) == count:
            found = f"{len(stored.ends)} and {len(stored.checksums)} checksums"
            raise StoredArrayError(stored.header.name, f"{count} chunks", found)
        return stored

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes along the axes."""
        return self.header.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the stored numbers."""
        return self.header.dtype

    def read(
        self,
        ranges: Sequence[range] | None = None,
        dtype: DTypeLike | None = None,
        threads: int = 1,
        *,
        out: NDArray[Any] | None = None,
    ) -> NDArray[Any]:
        """Read the elements at these indices along each axis, decoding only the chunks that contain them.

        Args:
            ranges: for each axis, with a positive step and within its size; None for all.
            dtype: type of the values, after scaling; None for the stored numbers.
            threads: maximum number of threads.
            out: array to write to, of the shape and type of the result, which is then this array.

        Raises:
            StoredArrayError: bytes are damaged, or ``dtype`` cannot represent the values.
        """
        header = self.header
        ranges = [range(size) for size in header.shape] if ranges is None else ranges
        size = [len(axis) for axis in ranges]
        if 0 in size:
            return np.empty(size, header.dtype if dtype is None else dtype) if out is None else out
        parts = self.parts(ranges)
        scaling = None if dtype is None else header.scaling
        decoded = parts
        if scaling is None or scaling.is_identity:
            decoded = []
            for part in parts:
                if part.is_zeros:
                    self._check(part)
                else:
                    decoded.append(part)
        # Chunks with only zeros, as most in a segmentation, need no decoding in an array of zeros.
        if out is None:
            make = np.empty if len(decoded) == len(parts) else np.zeros
            out = make(size, header.dtype if dtype is None else dtype)
        elif len(decoded) < len(parts):
            out[...] = 0
        threads = min(threads, len(decoded), sum(part.nbytes for part in decoded) // _BYTES_PER_THREAD)
        spread(lambda share: self._decode(share, out, scaling), decoded, threads)
        return out

    def parts(self, ranges: Sequence[range]) -> list[ChunkPart]:
        """Return the chunks with elements at these indices, as for `read`.

        Nothing is decoded or compared with a checksum: `read` does both.

        Raises:
            StoredArrayError: a chunk that is not within the bytes.
        """
        header = self.header
        axes = [list(_steps(*axis)) for axis in zip(ranges, header.shape, header.chunk_shape, strict=True)]
        numbers, sizes = [0], [header.dtype.itemsize]
        for steps, count in zip(axes, header.grid, strict=True):
            numbers = [number * count + step.position for number in numbers for step in steps]
            sizes = [size * step.size for size in sizes for step in steps]
        data = memoryview(self.data)
        chunks = [self._chunk(data, number) for number in numbers]
        shapes = itertools.product(*[[step.size for step in steps] for steps in axes])
        # With an ellipsis, an array without axes stays one.
        inside = itertools.product(*[[step.inside for step in steps] for steps in axes], [...])
        outside = itertools.product(*[[step.outside for step in steps] for steps in axes], [...])
        return list(map(ChunkPart, numbers, sizes, chunks, shapes, inside, outside))

    def chunks_with_voxels(self) -> list[tuple[range, ...]]:
        """Return the ranges, as for `read`, of all chunks that do not say that they contain only zeros.

        Nothing is decoded or compared with a checksum: `read` does both.
        """
        header = self.header
        data, last = np.frombuffer(self.data, np.uint8), np.zeros(len(self.ends), np.uint8)
        is_inside = (self.ends > 0) & (self.ends <= len(data))
        last[is_inside] = data[self.ends[is_inside] - 1]
        is_zeros = codec.say_zeros(np.diff(self.ends, prepend=0), last)
        axes = [
            [range(start, min(start + step, size)) for start in range(0, size, step)]
            for size, step in zip(header.shape, header.chunk_shape, strict=True)
        ]
        return list(itertools.compress(itertools.product(*axes), ~is_zeros))

    def check(self) -> None:
        """Compare every chunk with its checksum, without decoding.

        Raises:
            StoredArrayError: bytes are damaged.
        """
        data = memoryview(self.data)
        for number in range(len(self.ends)):
            self._compare(number, self._chunk(data, number))

    def _chunk(self, data: memoryview, number: int) -> memoryview:
        start, end = int(self.ends[number - 1]) if number else 0, int(self.ends[number])
        if not 0 <= start <= end - codec.OVERHEAD <= len(data) - codec.OVERHEAD:
            raise self._damaged(number, f"bytes within {len(data)}", f"bytes {start} to {end}")
        return data[start:end]

    def _compare(self, number: int, chunk: memoryview) -> None:
        if checksum(chunk, self.seed, number) != self.checksums[number]:
            raise self._damaged(number, f"checksum {self.checksums[number]:08x}", "another")

    def _check(self, part: ChunkPart) -> None:
        """Raise an error if a chunk is damaged, or cannot be decoded to its place."""
        self._compare(part.number, part.chunk)
        decoded, stored, has_voxels = codec.read_header(part.chunk)
        # Blosc2 would write as many bytes as the chunk says, even past the array, and none for some chunks.
        if decoded != part.nbytes or stored != len(part.chunk):
            raise self._damaged(part.number, f"{part.nbytes} bytes of voxels", "another length in it")
        if not has_voxels:
            raise self._damaged(part.number, "voxels", "a chunk that says it has none")

    def _decode(self, parts: Sequence[ChunkPart], out: NDArray[Any], scaling: Scaling | None) -> None:
        """Check and decode chunks, and write the requested part of each to its place in ``out``."""
        dtype = self.header.dtype
        write = None if scaling is None or scaling.is_cast(dtype, out.dtype) else scaling.write
        lossy = scaling if out.dtype.kind in "iu" and not self._fits(out.dtype) else None
        # One buffer for all chunks: it stays in the CPU's cache.
        buffer = np.empty(max((part.nbytes for part in parts), default=0) // dtype.itemsize, dtype)
        voxels = buffer[:0]
        with np.errstate(invalid="ignore"):
            for part in parts:
                self._check(part)  # here, so that its bytes are in the CPU's cache when they are decoded
                if voxels.shape != part.shape:
                    voxels = buffer[: part.nbytes // dtype.itemsize].reshape(part.shape)
                try:
                    codec.decompress(part.chunk, voxels)
                except (RuntimeError, ValueError) as error:
                    raise self._damaged(part.number, "a Blosc2 chunk", str(error)) from error
                if write is None:  # one call of NumPy less, of which a small part has few
                    out[part.outside] = voxels[part.inside]
                else:
                    write(voxels[part.inside], out[part.outside])
                if lossy and not np.array_equal(out[part.outside], lossy.values(voxels[part.inside])):
                    wanted = f"numbers that {out.dtype} holds"
                    hint = 'Cast the column to CompactArray("float32"), say.'
                    raise StoredArrayError(self.header.name, wanted, "others", hint)

    def _fits(self, dtype: np.dtype[Any]) -> bool:
        """Return whether this type can represent every possible value."""
        return self.header.scaling.is_identity and np.can_cast(self.header.dtype, dtype)

    def _damaged(self, number: int, expected: str, found: str) -> StoredArrayError:
        return StoredArrayError(f"{self.header.name}, chunk {number}", expected, found)


class _Step(NamedTuple):
    """What is read from one chunk along one axis."""

    position: int  #: of the chunk, along the axis
    size: int  #: of the chunk
    inside: slice  #: in the chunk
    outside: slice  #: in the result


class ChunkPart(NamedTuple):
    """What is read from one chunk."""

    number: int
    nbytes: int  #: of the chunk, decoded
    chunk: memoryview  #: as it is stored
    shape: tuple[int, ...]  #: of the chunk
    inside: tuple[Any, ...]  #: index in the chunk
    outside: tuple[Any, ...]  #: index in the result

    @property
    def is_zeros(self) -> bool:
        """Whether it says, without being decoded, that it contains only zeros."""
        return codec.is_zeros(self.chunk)


def _steps(indices: range, size: int, chunk_size: int) -> Iterator[_Step]:
    """Yield what is read from each chunk along an axis of this size."""
    done = 0
    while done < len(indices):
        position = indices[done] // chunk_size
        start = position * chunk_size
        inside = range(indices[done] - start, min(chunk_size, indices.stop - start), indices.step)
        yield _Step(
            position,
            min(chunk_size, size - start),
            slice(inside.start, inside.stop, inside.step),
            slice(done, done + len(inside)),
        )
        done += len(inside)
