"""The slices of one file in one pass: in order, as stored, a few in memory at a time, with checked values.

Two buffers alternate: while the slices in one are used, the next may be inflated into the other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctspine1k.catalog.vocabulary import Vocabulary
from ctspine1k.errors import TruncatedFileError, VoxelValueError
from ctspine1k.volumes.headers import GET_AGAIN
from ctspine1k.volumes.nifti import NiftiFile

__all__ = ["VolumeReader"]

#: How far a stored label may be from a whole number: masks that were saved again as scaled floats, or as
#: integers with a slope, differ from whole numbers by rounding, which is less than this.
_ROUNDING = 1e-3

#: Bytes that are inflated at a time: they are copied once, which is fast while they are in the CPU's cache.
_PIECE = 1 << 19

#: Bytes that are allocated for a buffer before any have arrived.
_FIRST_BUFFER = 1 << 20


class VolumeReader:
    """Reads the slices of one open file, from the first to the last, once."""

    def __init__(self, file: NiftiFile) -> None:
        self.header = file.header
        self._file = file
        self._buffer, self._other_buffer = bytearray(), bytearray()
        self.label_rounding = 0.0  #: greatest distance from a whole number of the labels read so far
        self._changes: deque[str] = deque()

    def new_changes(self) -> Iterator[str]:
        """Yield what was changed in voxels and not yielded before, even while another thread reads on."""
        while self._changes:
            yield self._changes.popleft()

    @property
    def label_type(self) -> np.dtype[Any]:
        """Type of the arrays that `labels` yields: the file's if it stores whole numbers, else uint8."""
        return self.header.dtype if self._stores_labels else np.dtype(np.uint8)

    @property
    def _stores_labels(self) -> bool:
        return self.header.dtype.kind in "iu" and self.header.scaling.is_identity

    def images(self, depth: int) -> Iterator[NDArray[Any]]:
        """Yield intensities as stored, ``depth`` slices at a time, (slices, i, j).

        Raises:
            VoxelValueError: an intensity is not finite, after scaling and as float32.
            CaseError: the file is damaged.
        """
        may_be_infinite = self.header.dtype.kind == "f" or not self.header.scaling.is_identity
        for stored in self.stored(depth):
            if may_be_infinite:
                for one in stored:
                    self._check_finite(one)
            yield stored

    def labels(self, depth: int, vocabulary: Vocabulary) -> Iterator[NDArray[Any]]:
        """Yield labels of `label_type`, ``depth`` slices at a time, (slices, i, j).

        Raises:
            VoxelValueError: a value is neither 0 nor a label of the vocabulary, not even after rounding by
                less than 0.001, which is a change.
            CaseError: the file is damaged.
        """
        for stored in self.stored(depth):
            if self._stores_labels:
                labels = stored
                if stored.min() < 0 or stored.max() > vocabulary.max_label:
                    is_beyond = (stored < 0) | (stored > vocabulary.max_label)
                    raise self._not_a_label(stored[is_beyond][0], vocabulary)
            else:
                labels = np.stack([self._to_label_type(one, vocabulary) for one in stored])
            # Without gaps between labels, as in most data sets, checking the range is enough.
            if vocabulary.gaps and (is_gap := np.isin(labels, vocabulary.gaps)).any():
                raise self._not_a_label(labels[is_gap][0], vocabulary)
            yield labels

    def stored(self, depth: int) -> Iterator[NDArray[Any]]:
        """Yield the stored numbers, ``depth`` slices at a time, (slices, i, j), in the file's byte order.

        The arrays are views of two alternating buffers, in the file's memory order, (slices, j, i): each is
        valid until the second one after it is requested.

        Raises:
            CaseError: the file is damaged, ends too early, or continues after the last slice.
        """
        header = self.header
        rows, columns, count = header.shape
        size = rows * columns * header.dtype.itemsize
        for start in range(0, count, depth):
            slices = min(depth, count - start)
            filled = self._fill_buffer(slices * size)
            if filled < slices * size:
                found = f"the end of the file in slice {start + filled // size}"
                raise TruncatedFileError(header.name, f"{count} slices", found, GET_AGAIN)
            stored = np.frombuffer(self._buffer, header.file_type, slices * rows * columns)
            yield stored.reshape(slices, columns, rows).transpose(0, 2, 1)
            self._buffer, self._other_buffer = self._other_buffer, self._buffer
        self._file.check_end()

    def _fill_buffer(self, size: int) -> int:
        """Read ``size`` bytes into the buffer, from its start, and return how many there were.

        The buffer grows as bytes arrive: a header that announces too many costs no memory.
        """
        filled = 0
        while filled < size:
            if len(self._buffer) == filled:
                # As many bytes as the other buffer has received may well arrive here, too.
                more = max(filled, len(self._other_buffer), _FIRST_BUFFER)
                # Not extended in place: a bytearray that NumPy arrays still refer to cannot be resized.
                self._buffer = self._buffer + bytes(min(size - filled, more))
            piece = memoryview(self._buffer)[filled : min(size, filled + _PIECE)]
            count = self._file.readinto(piece)
            if not count:
                break
            filled += count
        return filled

    def _check_finite(self, stored: NDArray[Any]) -> None:
        values = np.empty(stored.shape, np.float32)
        self.header.scaling.write(stored, values)
        if not np.isfinite(values).all():
            found = f"{values[~np.isfinite(values)][0]} among the voxels"
            hint = "The scan cannot be used as it is."
            raise VoxelValueError(self.header.name, "finite intensities", found, hint)

    def _to_label_type(self, stored: NDArray[Any], vocabulary: Vocabulary) -> NDArray[Any]:
        values = self.header.scaling.values(stored)
        whole: NDArray[Any] = np.rint(values)
        with np.errstate(invalid="ignore"):
            distance = np.abs(values - whole)
            is_label = (distance <= _ROUNDING) & (whole >= 0) & (whole <= vocabulary.max_label)
        if not is_label.all():
            raise self._not_a_label(values[~is_label][0], vocabulary)
        self._note_rounding(values, whole, distance)
        return whole.astype(self.label_type)

    def _note_rounding(self, values: NDArray[Any], whole: NDArray[Any], distance: NDArray[Any]) -> None:
        farthest = np.unravel_index(distance.argmax(), distance.shape)
        if distance[farthest] and not self.label_rounding:  # once a file, since it holds for all its slices
            self._changes.append(
                f"{self.header.name}: labels are whole numbers but for rounding ({self._number_type}): "
                f"{values[farthest]} is read as {whole[farthest]:.0f}"
            )
        self.label_rounding = max(self.label_rounding, float(distance[farthest]))

    @property
    def _number_type(self) -> str:
        scaling = self.header.scaling
        return f"{self.header.dtype}, slope {scaling.slope:g}, intercept {scaling.intercept:g}"

    def _not_a_label(self, found: object, vocabulary: Vocabulary) -> VoxelValueError:
        return VoxelValueError(
            self.header.name,
            f"labels, {vocabulary.numbers}",
            f"{found} among the voxels ({self._number_type})",
            "Is this file really a mask of this data set?",
        )
