"""Compact volumes in TorchIO 1: subjects that are read when TorchIO loads them.

::

    from ctspine1k.training.torchio import subjects

    queue = tio.Queue(tio.SubjectsDataset(subjects(data)), 8, 4, tio.LabelSampler((96, 96, 96), "label"))

Importing it needs TorchIO. It reads whole volumes; `ctspine1k.training.PatchDataset` reads only patches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctspine1k.errors import MissingPackageError
from ctspine1k.training.cutting import read_as_file
from ctspine1k.training.volumes import Volumes

try:
    import torchio as tio
except ImportError as error:
    raise MissingPackageError("ctspine1k.training.torchio", "torchio", "torchio") from error

__all__ = ["subjects"]


def subjects(data: Any) -> list[Any]:
    """Return one `torchio.Subject` per case: ``image``, ``label`` if there are masks, and ``case_id``.

    Image (a `ScalarImage`) and label (a `LabelMap`) have the voxels and the affine of the NIfTI files. They
    are decoded when TorchIO loads them, and not before. ``path`` is the data set's file, for all alike.

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
