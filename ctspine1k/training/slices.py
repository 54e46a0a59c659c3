"""Slices of volumes along any direction, read in slabs: one sagittal slice touches as many chunks as 48."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ctspine1k._messages import check_choice, check_count
from ctspine1k.running.threads import usable_threads
from ctspine1k.storage.collate import batch_of, register_collate
from ctspine1k.training.intensities import Intensities
from ctspine1k.training.sampling import Epoch, check_size, shuffled
from ctspine1k.training.streams import END, Position, Share, Stream
from ctspine1k.training.volumes import Volume, Volumes
from ctspine1k.volumes.orientation import PLANES, Plane, axis_along
from ctspine1k.volumes.windows import Window

__all__ = ["SliceDataset"]


class SliceDataset(Stream):
    """Slices of compact volumes in random order, as an iterable data set for PyTorch.

    ::

        slices = training.SliceDataset(dataset, "sagittal", foreground_only=True, size=(384, 512))
        for epoch in range(100):
            slices.set_epoch(epoch)
            for batch in DataLoader(slices, batch_size=8, num_workers=2):
                batch["image"], batch["segmentation"]  # (8, 384, 512), float32 and uint8

    Volumes are read in slabs, as deep as a chunk is (32 or 48 slices), in random order. A worker holds
    ``buffer`` slabs, in the types of the files, and yields their slices in random order; each slice of an
    epoch is on one node and in one worker only.

    Nodes share whole slabs: one may have many slices more than another. Where nodes wait for each other, as
    with ``DistributedDataParallel``, use its ``join``, or end each epoch after as many batches on all nodes.

    An item is a dict: ``image``; ``segmentation`` (uint8, if the data set has masks); ``case_id``; ``index``,
    that of the slice along its axis of the volume's array; ``spacing``, mm between its rows and between its
    columns, by which a slice with pixels of 5 x 0.8 mm can be resized. Axes are in the order of the volume's
    array and lead where those lead: load with ``orientation=`` to have them alike in all cases.

    Args:
        data: a "3d" `datasets.Dataset` in compact storage, loaded with ``geometry=True``.
        axis: "axial", "sagittal" or "coronal".
        foreground_only: only slices with at least one labelled voxel.
        size: (rows, columns) to which slices are cut or padded, in the middle, with air and background; None
            for all of each slice. Batches need slices of one size.
        window: HU that become 0 and 1, such as ``(-1000, 2000)``, or the name of such a window ("bone",
            "spine", "soft", "wide"); None for HU.
        buffer: slabs to draw slices from.
        seed: of the order.
        rank: number of this node; None for that of ``torch.distributed``, if it is in use, else 0.
        world_size: number of nodes; None likewise.

    Raises:
        ValueError: another data set, arguments that are not allowed, or ``foreground_only`` where no case has
            labels.
    """

    def __init__(
        self,
        data: Any,
        axis: Plane,
        *,
        foreground_only: bool = False,
        size: Sequence[int] | None = None,
        window: Window | None = None,
        buffer: int = 4,
        seed: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        check_choice("axis", str(axis), ("axial", "sagittal", "coronal"))
        check_count("buffer", buffer, 1)
        check_count("seed", seed, 0)
        super().__init__(Epoch(), rank, world_size, buffer=buffer)
        self._side, self._only = PLANES[axis], foreground_only
        self._size = None if size is None else check_size(size, 2)
        self._intensities = Intensities("float32", window)
        self._buffer, self._seed = buffer, seed
        self._volumes = Volumes(data)
        if not self._volumes.has_geometry:
            raise ValueError(
                f"axis={axis!r}: expected columns that say where axes lead. Load with geometry=True."
            )
        if foreground_only:
            self._volumes.require_masks("foreground_only", True, without=False)
        self._slabs = self._all_slabs()  # here, since workers may be started for each epoch
        if not self._slabs:
            raise ValueError("foreground_only=True: expected at least one labelled voxel, found none")

    def _all_slabs(self) -> list[_Slab]:
        """Return the slabs of all cases; with ``foreground_only`` those whose chunks may have labels."""
        slabs = []
        for row in range(len(self._volumes)):
            volume = self._volumes[row]
            axis = self._axis(volume)
            step, length = volume.image.header.chunk_shape[axis], volume.shape[axis]
            labelled = [one[axis] for one in self._labelled(volume)] if self._only else [range(length)]
            slabs += [
                _Slab(row, axis, start, min(start + step, length))
                for start in range(0, length, step)
                if any(part.start < start + step and start < part.stop for part in labelled)
            ]
        return slabs

    @staticmethod
    def _labelled(volume: Volume) -> list[tuple[range, ...]]:
        return [] if volume.segmentation is None else volume.segmentation.chunks_with_voxels()

    def _axis(self, volume: Volume) -> int:
        found = axis_along(volume.orientation or "", self._side)
        if found is None:
            raise ValueError(
                f"{volume.case_id}: expected axes that lead to a side of the patient, found orientation "
                f"{volume.orientation!r}. Leave this case out."
            )
        return found[0]

    def _items(self, epoch: int, start: Position, share: Share) -> Iterator[tuple[Position, Any]]:
        register_collate(Slice, _collate)
        order = shuffled(self._seed, len(self._slabs), epoch)[share.rank :: share.world_size]
        order = order[share.worker :: share.workers]
        number, done = start
        for first in range(number * self._buffer, len(order), self._buffer):
            buffered = self._buffered(epoch, order[first : first + self._buffer].tolist(), done)
            is_last = first + self._buffer >= len(order)
            for done, left, item in buffered:
                yield END if is_last and not left else (first // self._buffer, done), item
            done = 0

    def _buffered(self, epoch: int, numbers: list[int], done: int) -> Iterator[tuple[int, int, Slice]]:
        """Yield the slices of some slabs after the first ``done``; with each, how many are done and left."""
        slabs = [_Opened(self, self._slabs[number]) for number in numbers]
        slices = [(slab, index) for slab in slabs for index in slab.chosen]
        mixed = shuffled(self._seed, len(slices), epoch, *numbers, of_buffer=True)
        for at in range(done, len(mixed)):
            slab, index = slices[mixed[at]]
            yield at + 1, len(mixed) - at - 1, slab.item(index)


class Slice(dict[str, Any]):
    """An item. PyTorch's ``default_collate`` knows the type."""


class _Slab(NamedTuple):
    """Some slices of one case."""

    row: int
    axis: int
    start: int
    stop: int


class _Opened:
    """A slab that has been read, in the types of the file, its slices first."""

    def __init__(self, slices: SliceDataset, slab: _Slab) -> None:
        self._slices, self._slab = slices, slab
        self._volume = slices._volumes[slab.row]
        self._labels: NDArray[np.uint8] | None = None
        count = slab.stop - slab.start
        #: Numbers of the slices to be yielded, in the slab.
        self.chosen: list[int] = list(range(count))
        if self._volume.segmentation is not None:
            self._labels = self._read(self._volume.segmentation, np.dtype(np.uint8))
            if slices._only:
                self.chosen = np.flatnonzero(self._labels.reshape(count, -1).any(axis=1)).tolist()
        if self.chosen:
            self._image = self._read(self._volume.image, None)

    def _read(self, stored: Any, dtype: np.dtype[Any] | None) -> NDArray[Any]:
        axis = self._slab.axis
        ranges = [range(size) for size in stored.shape]
        ranges[axis] = range(self._slab.start, self._slab.stop)
        others = [size for at, size in enumerate(stored.shape) if at != axis]
        voxels = np.empty((len(ranges[axis]), *others), dtype or stored.dtype)
        stored.read(ranges, dtype, usable_threads(), out=np.moveaxis(voxels, 0, axis))
        return voxels

    def item(self, index: int) -> Slice:
        """Return a slice, cut or padded."""
        intensities, volume = self._slices._intensities, self._volume
        stored = self._image[index]
        size = self._slices._size or stored.shape
        source, target = zip(
            *(_middle(have, want) for have, want in zip(stored.shape, size, strict=True)), strict=True
        )
        image = np.empty(size, np.float32)
        if size != stored.shape:
            image[...] = intensities.outside(volume.image)
        intensities.write(stored[source], volume.image.header.scaling, image[target])
        item = Slice(image=image)
        if self._labels is not None:
            item["segmentation"] = np.zeros(size, np.uint8)
            item["segmentation"][target] = self._labels[index][source]
        spacing = [mm for at, mm in enumerate(volume.spacing or ()) if at != self._slab.axis]
        item.update(case_id=volume.case_id, index=self._slab.start + index, spacing=np.array(spacing))
        return item


def _middle(have: int, want: int) -> tuple[slice, slice]:
    """Return which part of an axis is kept, and where it comes to lie on one of another length."""
    common = min(have, want)
    source, target = (have - common) // 2, (want - common) // 2
    return slice(source, source + common), slice(target, target + common)


def _collate(batch: Sequence[Slice], **_: Any) -> dict[str, Any]:
    """Return a batch as one dict: tensors, and lists of texts.

    Raises:
        ValueError: slices of different sizes.
    """
    if len(shapes := sorted({one["image"].shape for one in batch})) > 1:
        raise ValueError(
            f"expected slices of one size in a batch, found {' and '.join(map(str, shapes))}. Pass size= to "
            "SliceDataset, or batch_size=None and resize them."
        )
    return batch_of({}, {name: [one[name] for one in batch] for name in batch[0]})
