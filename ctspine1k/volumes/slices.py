"""The slices of one file in one pass: in order, as stored, a few in memory at a time, with checked values.

Two buffers alternate: while the slices in one are used, the next may be inflated into the other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ctspine1k.catalog.vocabulary import Vocabulary
from ctspine1k.errors import TruncatedFileError, VoxelValueError
from ctspine1k.volumes.headers import GET_AGAIN
from ctspine1k.volumes.nifti import Readable
from ctspine1k.volumes.opening import VoxelFile, open_volume
from ctspine1k.volumes.relabel import ALL_BYTES

__all__ = ["OnVoxels", "VolumeReader", "read_plane"]

#: What to do about NaN and infinite intensities: an error, or the value of padding in their place.
OnVoxels: TypeAlias = Literal["raise", "replace"]

#: HU that scanners write outside the field of view.
_PADDING_HU = -1024.0

#: How far a stored label may be from a whole number: masks that were saved again as scaled floats, or as
#: integers with a slope, differ from whole numbers by rounding, which is less than this.
_ROUNDING = 1e-3

#: Bytes that are read at a time: if they are copied, that is fast while they are in the CPU's cache.
_PIECE = 1 << 19

#: Values beyond these are no labels of any data set that we know, but intensities.
_LOWEST_OF_MASKS, _HIGHEST_OF_MASKS = -1, 255

#: Bytes that are allocated for a buffer before any have arrived.
_FIRST_BUFFER = 1 << 20


class VolumeReader:
    """Reads the slices of one open file, from the first to the last, once.

    Args:
        file: the file, of which no voxel was read yet.
        on_voxels: what to do about NaN and infinite intensities.
    """

    def __init__(self, file: VoxelFile, on_voxels: OnVoxels = "raise") -> None:
        self.header = file.header
        self._replaces = on_voxels == "replace"
        self._file = file
        self._buffer, self._other_buffer = np.empty(0, np.uint8), np.empty(0, np.uint8)
        self.label_rounding = 0.0  #: greatest distance from a whole number of the labels read so far
        self.replaced = 0  #: intensities read so far that are not finite, and were replaced
        self.finite_range = (np.inf, -np.inf)  #: of the stored others, if any may be replaced
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
            VoxelValueError: intensities are not finite, after scaling and as float32, and are not replaced.
            CaseError: the file is damaged.
        """
        may_be_infinite = self.header.dtype.kind == "f" or not self.header.scaling.is_identity
        slabs = self.stored(depth)
        return self._finite(slabs) if may_be_infinite else slabs

    def labels(self, depth: int, vocabulary: Vocabulary) -> Iterator[NDArray[Any]]:
        """Yield labels of `label_type`, ``depth`` slices at a time, (slices, i, j).

        Raises:
            VoxelValueError: a value is neither 0 nor a label of the vocabulary, not even after rounding by
                0.001 or less, which is a change.
            CaseError: the file is damaged.
        """
        highest = vocabulary.max_label
        all_fit = self.header.dtype == np.uint8 and highest >= np.iinfo(np.uint8).max  # none is looked at
        for stored in self.stored(depth):
            if self._stores_labels:
                labels = stored
                is_signed = stored.dtype.kind == "i"  # finding the least number takes time
                if not all_fit and (stored.max() > highest or (is_signed and stored.min() < 0)):
                    is_beyond = (stored < 0) | (stored > highest)
                    raise self._not_a_label(stored[is_beyond][0], stored, vocabulary)
            elif (exact := self._exact_labels(stored, vocabulary)) is not None:
                labels = exact
            else:
                labels = np.stack([self._to_label_type(one, vocabulary) for one in stored])
            # Without gaps between labels, as in most data sets, checking the range is enough.
            if vocabulary.gaps and labels.max() >= vocabulary.gaps[0]:
                is_gap = np.isin(labels, vocabulary.gaps)
                if is_gap.any():
                    raise self._not_a_label(labels[is_gap][0], labels, vocabulary)
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
                larger = np.empty(filled + min(size - filled, more), np.uint8)
                larger[:filled] = self._buffer
                self._buffer = larger
            piece = self._buffer.data[filled : min(size, filled + _PIECE)]
            count = self._file.readinto(piece)
            if not count:
                break
            filled += count
        return filled

    def _finite(self, slabs: Iterator[NDArray[Any]]) -> Iterator[NDArray[Any]]:
        """Yield slabs with finite intensities: others are replaced, or counted to the end and refused."""
        padding = self._stored_padding() if self._replaces else None
        first, count, done = "", 0, 0
        for slab in slabs:
            for one in slab:
                values = np.empty(one.shape, np.float32)
                self.header.scaling.write(one, values)
                is_finite = np.isfinite(values)
                are_finite = is_finite.all()
                if padding is not None:
                    self._note_range(one if are_finite else one[is_finite])
                if not are_finite:
                    if not count:
                        j, i = np.argwhere(~is_finite.T)[0]  # the first in the file
                        first = f"{values[i, j]} at (i, j, k) = ({i}, {j}, {done})"
                    count += int(np.count_nonzero(~is_finite))
                    if padding is not None:
                        one[~is_finite] = padding
                        self.replaced = count
                done += 1
            if padding is not None and first:
                what = f"NaN and infinite voxels are read as {_PADDING_HU:g} HU"
                self._changes.append(f"{self.header.name}: {what}; the first is {first}")
                first = ""  # once a file
            if padding is not None or not count:
                yield slab
        if padding is None and count:
            raise self._not_finite(first, count)

    def _note_range(self, stored: NDArray[Any]) -> None:
        if stored.size:
            lowest, highest = self.finite_range
            self.finite_range = min(lowest, stored.min()), max(highest, stored.max())

    def _stored_padding(self) -> NDArray[Any] | None:
        """Return the stored number that means `_PADDING_HU`; None if the file's type has none."""
        scaling = self.header.scaling
        if self.header.dtype.kind != "f":  # whole numbers are only infinite after an absurd scaling
            return None
        with np.errstate(over="ignore"):
            stored = np.array([(_PADDING_HU - scaling.intercept) / scaling.slope]).astype(self.header.dtype)
        return stored if abs(float(scaling.values(stored)[0]) - _PADDING_HU) < 1 else None

    def _not_finite(self, first: str, count: int) -> VoxelValueError:
        hint = (
            f"The scaling ({self._number_type}) leaves no number for padding: convert the file."
            if self._replaces
            else 'on_voxels="replace" (--on-voxels replace) of loading, scan, verify and export parquet '
            f"reads {_PADDING_HU:g} HU in their place."
        )
        found = f"{first}, the first of {count:,} voxels" if count > 1 else f"{first}, and nowhere else"
        return VoxelValueError(self.header.name, "finite intensities", found, hint)

    def _exact_labels(self, stored: NDArray[Any], vocabulary: Vocabulary) -> NDArray[Any] | None:
        """Return labels that are stored as whole numbers of type float; None if some are anything else."""
        if self.header.dtype.kind != "f" or not self.header.scaling.is_identity:
            return None
        with np.errstate(invalid="ignore"):  # NaN, and what uint8 cannot hold, becomes another number
            labels = stored.astype(self.label_type)
        is_sound = labels.max() <= vocabulary.max_label and np.array_equal(labels, stored)
        return labels if is_sound else None

    def _to_label_type(self, stored: NDArray[Any], vocabulary: Vocabulary) -> NDArray[Any]:
        values = self.header.scaling.values(stored)
        whole: NDArray[Any] = np.rint(values)
        with np.errstate(invalid="ignore"):
            distance = np.abs(values - whole)
            is_label = (distance <= _ROUNDING) & (whole >= 0) & (whole <= vocabulary.max_label)
        if not is_label.all():
            raise self._not_a_label(values[~is_label][0], values, vocabulary)
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

    def _not_a_label(self, found: Any, values: NDArray[Any], vocabulary: Vocabulary) -> VoxelValueError:
        of_type = "" if self._stores_labels else f" ({self._number_type})"
        hint = "Is this file really a mask of this data set?"
        if 0 < found <= ALL_BYTES.max_label and found == int(found):
            hint += (
                " If it also has labels of other structures, or some that label_scheme has no number for, "
                'other_labels="background" (--other-labels) of loading, scan, verify, points, preview and '
                "export leaves them out."
            )
        lowest, highest = values.min(), values.max()
        if lowest < _LOWEST_OF_MASKS or highest > _HIGHEST_OF_MASKS:
            value = lowest if lowest < _LOWEST_OF_MASKS else highest
            hint = (
                f"Values such as {value} are those of a CT image, not of a mask: are the two files swapped?"
            )
        return VoxelValueError(
            self.header.name, f"labels, {vocabulary.numbers}", f"{found} among the voxels{of_type}", hint
        )


def read_plane(source: Readable, axis: int, index: int) -> NDArray[np.float32]:
    """Read one slice of an image across any axis, with memory for a few slices as stored.

    NaN and infinite voxels are padding.

    Args:
        source: a path or an open binary stream.
        axis: of the array, (k, i, j).
        index: along it.

    Returns:
        HU, of the other two axes in their order.

    Raises:
        CaseError: the file cannot be used.
    """
    parts = []
    with open_volume(source) as file:
        reader = VolumeReader(file, "replace")
        for number, slab in enumerate(reader.images(1)):
            if axis or number == index:
                part = slab.take(index if axis else 0, axis=axis)
                values = np.empty(part.shape, np.float32)
                reader.header.scaling.write(part, values)
                parts.append(values)
    return np.concatenate(parts)
