"""Compact volumes in TorchIO: subjects that are read when TorchIO loads them, or with TorchIO 2 in parts.

::

    from ctspine1k.training.torchio import subjects

    queue = tio.Queue(tio.SubjectsDataset(subjects(data)), 8, 4, tio.LabelSampler((96, 96, 96), "label"))

Importing it needs TorchIO. TorchIO 1 and the queue of TorchIO 2 read whole volumes, whereas the samplers of
TorchIO 2 read the patches that they draw, as `ctspine1k.training.PatchDataset` does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctspine1k.errors import MissingPackageError
from ctspine1k.running.threads import usable_threads
from ctspine1k.storage.chunks import StoredArray
from ctspine1k.storage.lazy import LazyArray
from ctspine1k.training.cutting import read_as_file
from ctspine1k.training.volumes import FILE_AXES, Volume, Volumes

try:
    import torch
    import torchio as tio
except ImportError as error:
    raise MissingPackageError("ctspine1k.training.torchio", "torchio", "torchio") from error

__all__ = ["subjects"]


def subjects(data: Any) -> list[Any]:
    """Return one `torchio.Subject` per case: ``image``, ``label`` if there are masks, and ``case_id``.

    Image (a `ScalarImage`) and label (a `LabelMap`) have the voxels and the affine of the NIfTI files. They
    are decoded when TorchIO loads them, and not before; with TorchIO 2, slicing one (``subject.image[...]``)
    decodes only that part. ``path`` is the data set's file, for all alike.

    Args:
        data: a "3d" `datasets.Dataset` in compact storage, with ``geometry=True``.

    Raises:
        ValueError: another data set, or one that is only in memory.
    """
    volumes = Volumes(data, need_geometry=True)
    # TorchIO looks whether there is a file whenever it copies an image.
    if not volumes.files:
        raise ValueError("expected a data set in a file, found one in memory: pass keep_in_memory=False")
    path, found = volumes.files[0], []
    for number, case_id in enumerate(volumes.case_ids()):
        images = {"image": tio.ScalarImage(path, reader=_Reader(volumes, number, "image"))}
        if volumes.has_masks:
            images["label"] = tio.LabelMap(path, reader=_Reader(volumes, number, "segmentation"))
        found.append(tio.Subject(**images, case_id=case_id))
    return found


@dataclass(frozen=True)
class _Reader:
    """Reads one image or mask, whatever the path."""

    volumes: Volumes
    number: int
    column: str

    def __deepcopy__(self, memo: dict[int, Any]) -> _Reader:
        return self  # TorchIO copies a subject before it loads it

    def __call__(self, path: Any) -> tuple[NDArray[Any], NDArray[np.float64]]:
        volume = self.volumes[self.number]
        voxels = read_as_file(volume.column(self.column), np.float32)  # TorchIO's type
        return voxels[np.newaxis], volume.affine_of_file

    def create_backend(self, request: Any) -> _Backend:
        """Return what TorchIO 2 reads parts with."""
        return _Backend(self)


@dataclass(frozen=True)
class _Backend:
    """One image or mask, of which TorchIO 2 reads parts, (1, i, j, k): an ``ImageDataBackend``."""

    reader: _Reader  #: it pickles small, and opens the volume again

    @property
    def _volume(self) -> Volume:
        return self.reader.volumes[self.reader.number]

    @property
    def _stored(self) -> StoredArray:
        return self._volume.column(self.reader.column)

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes along the axes."""
        return (1, *(self._stored.shape[axis] for axis in FILE_AXES))

    @property
    def affine(self) -> Any:
        """The affine of the NIfTI file, a tensor."""
        return torch.tensor(self._volume.affine_of_file)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the numbers in the file."""
        return self._stored.dtype

    def __getitem__(self, index: Any) -> Any:
        """Return a part as a tensor with all four axes: of the file's type, or float64 if it is scaled."""
        from torchio.data.backends import normalize_index  # which TorchIO 1 does not have

        channels, i, j, k = normalize_index(index)
        dtype = None if self._stored.header.scaling.is_identity else np.float64  # nibabel's type
        part = LazyArray(self._stored, dtype, usable_threads())[k, i, j].transpose(FILE_AXES)
        return torch.from_numpy(np.ascontiguousarray(part[np.newaxis][channels]))

    def to_tensor(self) -> Any:
        """Return all of it."""
        return self[...]
