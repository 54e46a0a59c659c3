"""Patches: boxes of one size out of volumes, drawn at random, some of them centred on a label or a point."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import numpy as np

from ctspine1k._messages import check_choice, check_count
from ctspine1k.storage.collate import batch_of, empty_batch, register_collate
from ctspine1k.training.cutting import affine_of_patch, read_patch
from ctspine1k.training.intensities import Intensities
from ctspine1k.training.sampling import Epoch, PatchPlan, check_size, shuffled
from ctspine1k.training.streams import END, Position, Share, Stream
from ctspine1k.training.volumes import Around, Volume, Volumes
from ctspine1k.volumes.windows import Window

__all__ = ["Draw", "PatchDataset", "PatchStream"]


class Draw(NamedTuple):
    """Where a patch is, before it is read."""

    row: int  #: of the data set
    corner: tuple[int, ...]  #: (k, i, j) of its first voxel, negative where it lies outside the volume
    is_foreground: bool  #: whether its centre was put on a label or a point


class PatchDataset:
    """Random patches of compact volumes, as a map-style data set for PyTorch.

    ::

        patches = training.PatchDataset(train.load("3d", split="train", storage="compact", geometry=True))
        for epoch in range(1000):
            patches.set_epoch(epoch)
            for batch in DataLoader(patches, batch_size=2, shuffle=True, num_workers=2):
                batch["image"], batch["segmentation"]  # (2, 128, 128, 128), float32 and uint8

    An item is a dict: ``image``; ``segmentation`` (uint8, if the data set has masks); ``case_id``;
    ``corner``, the index (k, i, j) of its first voxel in the volume, negative where it overhangs; ``affine``
    (float64, if rows have geometry), from the index in the patch to RAS+ mm; with ``dtype="stored"``
    ``slope`` and ``intercept``. Voxels outside the volume are air (-1024 HU) and background.

    Item ``n`` is of row ``n % len(data)``. What is drawn depends on seed, epoch and ``n`` alone: it is the
    same for any number of workers. Call `set_epoch` before each epoch, or all of them have the same patches.

    Args:
        data: a "3d" `datasets.Dataset` in compact storage.
        size: of a patch, (k, i, j), in voxels; any volume may be smaller.
        foreground: share of the patches whose centre is a labelled voxel, each of its case as likely as any
            other. The others lie anywhere in the volume, as do those of cases without labels.
        around: "labels", or "points" to centre these patches on the voxels of points instead. None (the
            default) for labels if the data set has masks, else points.
        balance: "class" to draw a label first, then one of its voxels (or points), as nnU-Net does.
        patches_per_case: how many patches of each case an epoch has.
        window: HU that become 0 and 1, such as ``(-1000, 2000)``, or the name of such a window ("bone",
            "spine", "soft", "wide"); None for HU.
        dtype: "float32", or "stored" for int16: HU = ``slope`` x image + ``intercept``. Images stored as
            floats, or as larger integers, are then rounded to whole HU.
        overhang: how many voxels a patch may overhang the volume, for augmentation to cut off; 0 keeps
            patches inside volumes that are not smaller. None (the default) keeps the others inside and
            centres those of the foreground exactly, however far they overhang.
        seed: of all that is drawn.

    Raises:
        ValueError: another data set, or arguments that are not allowed.
    """

    def __init__(
        self,
        data: Any,
        size: Sequence[int] = (128, 128, 128),
        foreground: float = 0.33,
        *,
        around: Around | None = None,
        balance: Literal["voxel", "class"] = "voxel",
        patches_per_case: int = 1,
        window: Window | None = None,
        dtype: Literal["float32", "stored"] = "float32",
        overhang: int | None = None,
        seed: int = 0,
    ) -> None:
        check_choice("around", around, ("labels", "points"), or_none=True)
        plan = PatchPlan(check_size(size, 3), foreground, balance, overhang, seed)
        self._intensities = Intensities(dtype, window)
        check_count("patches_per_case", patches_per_case, 1)
        self._volumes = Volumes(data)
        self._per_case = patches_per_case
        self._plan = replace(plan, around=self._volumes.require_centres(around, foreground))
        self._epoch = Epoch()

    def __len__(self) -> int:
        return len(self._volumes) * self._per_case

    @property
    def size(self) -> tuple[int, ...]:
        """Size of a patch, (k, i, j)."""
        return self._plan.size

    @property
    def seed(self) -> int:
        """Seed of all that is drawn."""
        return self._plan.seed

    @property
    def epoch(self) -> Epoch:
        """The epoch, shared with worker processes."""
        return self._epoch

    def set_epoch(self, epoch: int) -> None:
        """Draw other patches from now on; workers that stay (``persistent_workers=True``) see it, too.

        Raises:
            ValueError: no whole number, or a negative one.
        """
        self._epoch.number = epoch

    def draw(self, index: int) -> Draw:
        """Return where a patch is, without reading it.

        Raises:
            IndexError: no such item.
        """
        index = range(len(self))[index]
        row = index % len(self._volumes)
        return Draw(row, *self._plan.corner(self._volumes[row], self._epoch.number, index))

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return a patch; see the class for what is in it."""
        (patch,) = self.__getitems__([index])
        return patch

    def __getitems__(self, indices: Sequence[int]) -> Patches:
        """Return the patches of a batch, read into one array, which PyTorch's DataLoader takes as it is."""
        register_collate(Patch, _collate)
        shape = (len(indices), *self._plan.size)
        types = {"image": self._intensities.type, "segmentation": np.dtype(np.uint8)}
        columns = self._volumes.columns
        made = dict(zip(columns, empty_batch(*((shape, types[name]) for name in columns)), strict=True))
        arrays = {name: array for name, (array, _) in made.items()}
        patches = Patches({name: tensor for name, (_, tensor) in made.items()})
        for number, index in enumerate(indices):
            draw = self.draw(index)
            volume = self._volumes[draw.row]
            voxels = {name: array[number] for name, array in arrays.items()}
            read_patch(volume, draw.corner, self._intensities, voxels)
            patches.add(Patch(voxels, **self._facts(volume, draw.corner)))
        return patches

    def _facts(self, volume: Volume, corner: tuple[int, ...]) -> dict[str, Any]:
        """Return what an item has besides voxels."""
        facts: dict[str, Any] = {"case_id": volume.case_id, "corner": np.array(corner, np.int64)}
        if volume.affine is not None:
            facts["affine"] = affine_of_patch(volume.affine, corner)
        if self._intensities.dtype == "stored":
            scaling = self._intensities.scaling(volume.image)
            facts["slope"] = np.float32(scaling.slope)
            facts["intercept"] = np.float32(scaling.intercept)
        return facts


class Patch(dict[str, Any]):
    """An item. PyTorch's ``default_collate`` knows the type."""


class Patches(list[Patch]):
    """The items of a batch, whose voxels are parts of one array each.

    Args:
        voxels: the arrays, as tensors if PyTorch is in use.
    """

    def __init__(self, voxels: dict[str, Any]) -> None:
        self.voxels = voxels
        self._parts: list[Patch] = []

    def add(self, patch: Patch) -> None:
        """Append a patch, whose voxels are the next part of the arrays."""
        self.append(patch)
        self._parts.append(Patch({name: patch[name] for name in self.voxels}))

    @property
    def is_unchanged(self) -> bool:
        """Whether the patches still have their parts of the arrays: none was replaced, or left out."""
        return len(self) == len(self._parts) and all(
            patch.get(name) is part
            for patch, parts in zip(self, self._parts, strict=True)
            for name, part in parts.items()
        )


def _collate(batch: Sequence[Patch], **_: Any) -> dict[str, Any]:
    """Return a batch as one dict: tensors, and lists of texts."""
    voxels = batch.voxels if isinstance(batch, Patches) and batch.is_unchanged else {}
    return batch_of(voxels, {name: [one[name] for one in batch] for name in batch[0] if name not in voxels})


class PatchStream(Stream):
    """The patches of a `PatchDataset` in random order, to iterate over, shared between nodes and workers.

    ::

        stream = training.PatchStream(patches, batch_size=2)
        for epoch in range(1000):
            stream.set_epoch(epoch)
            for batch in DataLoader(stream, batch_size=None, num_workers=2):
                ...

    In an epoch, each patch is on one node and in one worker only. `state_dict` and `load_state_dict` make
    ``torchdata``'s ``StatefulDataLoader`` resume in the middle of an epoch.

    Args:
        patches: what to yield.
        batch_size: yield batches, which are then the same for any number of workers; pass
            ``batch_size=None`` to the DataLoader. None to yield single patches.
        drop_last: leave out a last batch that is smaller, and patches that not all nodes would have: else
            nodes may differ by one in the number of their patches, and of their batches.
        rank: number of this node; None for that of ``torch.distributed``, if it is in use, else 0.
        world_size: number of nodes; None likewise.

    Raises:
        ValueError: arguments that are not allowed.
    """

    def __init__(
        self,
        patches: PatchDataset,
        *,
        batch_size: int | None = None,
        drop_last: bool = False,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        check_count("batch_size", batch_size, 1, or_none=True)
        super().__init__(patches.epoch, rank, world_size, batch_size=batch_size)
        self._patches, self._batch_size, self._drop_last = patches, batch_size, drop_last

    def __len__(self) -> int:
        """Return the number of batches, or of patches, of this node in an epoch."""
        return self._count(self._share())

    def _count(self, share: Share) -> int:
        """Return the number of batches, or of patches, of all workers of a node."""
        count = len(range(share.rank, len(self._patches), share.world_size))
        if self._drop_last:
            count = len(self._patches) // share.world_size
        if self._batch_size is None:
            return count
        return count // self._batch_size if self._drop_last else -(-count // self._batch_size)

    def _items(self, epoch: int, start: Position, share: Share) -> Iterator[tuple[Position, Any]]:
        order = shuffled(self._patches.seed, len(self._patches), epoch)[share.rank :: share.world_size]
        numbers = range(share.worker, self._count(share), share.workers)
        for at in range(start[0], len(numbers)):
            number, after = numbers[at], (at + 1, 0) if at + 1 < len(numbers) else END
            if self._batch_size is None:
                yield after, self._patches[int(order[number])]
            else:
                chosen = order[number * self._batch_size :][: self._batch_size]
                yield after, self._batch(self._patches.__getitems__(chosen.tolist()))

    def _batch(self, patches: Patches) -> dict[str, Any]:
        """Return a batch as a DataLoader would: without PyTorch, of NumPy's arrays."""
        if "torch" in sys.modules:
            return _collate(patches)
        facts = {
            name: [patch[name] for patch in patches] for name in patches[0] if name not in patches.voxels
        }
        return {**patches.voxels, **{k: v if k == "case_id" else np.stack(v) for k, v in facts.items()}}
