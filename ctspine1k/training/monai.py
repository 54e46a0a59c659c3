"""Compact volumes in MONAI: a list of items, a reader for ``LoadImaged``, and random patches as a transform.

::

    from ctspine1k.training.monai import LoadPatchesd, datalist

    transform = LoadPatchesd(["image", "label"], data, size=(128, 128, 96), num_samples=2)
    loader = monai.data.DataLoader(monai.data.Dataset(datalist(data), transform), batch_size=1)

Importing it needs MONAI. Arrays have the axes (i, j, k) of the files, and affines lead from them to RAS+ mm.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import PurePath
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ctspine1k._messages import check_count
from ctspine1k.errors import MissingPackageError
from ctspine1k.storage.chunks import StoredArray
from ctspine1k.training.cutting import affine_of_patch, read_as_file, read_patch
from ctspine1k.training.intensities import Intensities
from ctspine1k.training.sampling import PatchPlan, check_size
from ctspine1k.training.volumes import FILE_AXES, Volume, Volumes
from ctspine1k.volumes.windows import Window

try:
    import torch
    from monai.data import ImageReader, MetaTensor
    from monai.transforms import MapTransform, MultiSampleTrait, Randomizable
except ImportError as error:
    raise MissingPackageError("ctspine1k.training.monai", "monai", "monai") from error

__all__ = ["CompactReader", "LoadPatchesd", "datalist"]

#: The names in items begin with it.
_ROOT = "ctspine1k"

#: The columns of rows, by the keys that MONAI's examples have for them.
_COLUMNS = {"image": "image", "label": "segmentation"}


def datalist(data: Any) -> list[dict[str, str]]:
    """Return one item per case, for MONAI's data sets: ``image``, ``label`` if there are masks, ``case_id``.

    Image and label are names like those of files, which `CompactReader` and `LoadPatchesd` know. They contain
    a hash of the case's voxels and affine, so that `PersistentDataset` computes a case again if it changes.

    Args:
        data: a "3d" `datasets.Dataset` in compact storage, with ``geometry=True``.

    Raises:
        ValueError: another data set.
    """
    volumes = Volumes(data, need_geometry=True)
    columns = {key: name for key, name in _COLUMNS.items() if name in volumes.columns}
    return [
        {**{key: _name(volume, column) for key, column in columns.items()}, "case_id": volume.case_id}
        for volume in map(volumes.__getitem__, range(len(volumes)))
    ]


class CompactReader(ImageReader):
    """Reads whole volumes for ``LoadImaged``: voxels, type and affine are those of the NIfTI file.

    ::

        LoadImaged(["image", "label"], reader=CompactReader(data), ensure_channel_first=True)

    Args:
        data: the data set of which `datalist` has made the items.

    Raises:
        ValueError: another data set than `datalist` takes.
    """

    def __init__(self, data: Any) -> None:
        super().__init__()
        self._cases = _Cases(data)

    def verify_suffix(self, filename: Any) -> bool:
        """Return whether these are names of `datalist`."""
        names = [filename] if isinstance(filename, (str, PurePath)) else list(filename)
        return all(PurePath(name).parts[:1] == (_ROOT,) for name in names)

    def read(self, data: Any, **kwargs: Any) -> tuple[Volume, StoredArray]:
        """Open the volume of a name; nothing is decoded yet.

        Raises:
            ValueError: not one name of `datalist`, or one of other data.
        """
        names = [data] if isinstance(data, (str, PurePath)) else list(data)
        if len(names) != 1:
            raise ValueError(f"expected one name, of one volume, found {len(names)}")
        return self._cases.find(names[0])

    def get_data(self, img: tuple[Volume, StoredArray]) -> tuple[NDArray[Any], dict[str, Any]]:
        """Return voxels (i, j, k), and what `MetaTensor` needs to know about them."""
        volume, stored = img
        voxels = read_as_file(stored, np.float64)  # nibabel's type
        affine = volume.affine_of_file
        return voxels, _meta(affine, affine, voxels.shape, float("nan"))  # NaN: no axis of channels


class LoadPatchesd(Randomizable, MapTransform, MultiSampleTrait):
    """Reads random patches, in place of ``LoadImaged`` and ``RandCropByPosNegLabeld``: only what they need.

    It returns a list of ``num_samples`` items, as the latter. Each patch is a `MetaTensor` with one channel
    and the patch's affine: image float32, label uint8. Voxels outside the volume are air (-1024 HU, or 0 with
    a window) and background. What is drawn depends on MONAI's random state alone: ``set_random_state`` or
    ``set_determinism``, and MONAI's ``DataLoader``, which gives each worker its own.

    Args:
        keys: of the items: those of `datalist`, or some of them.
        data: the data set of which `datalist` has made the items.
        size: of a patch, (i, j, k), in voxels; any volume may be smaller.
        foreground: share of the patches whose centre is a labelled voxel: pos / (pos + neg).
        num_samples: patches per case.
        balance, window, overhang: as for `ctspine1k.training.PatchDataset`.
        allow_missing_keys: whether items may lack some of the keys.

    Raises:
        ValueError: another data set than `datalist` takes, or arguments that are not allowed.
    """

    def __init__(
        self,
        keys: Any,
        data: Any,
        size: Sequence[int] = (128, 128, 128),
        foreground: float = 0.33,
        *,
        num_samples: int = 1,
        balance: Literal["voxel", "class"] = "voxel",
        window: Window | None = None,
        overhang: int | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        i, j, k = check_size(size, 3)
        self._plan = PatchPlan((k, i, j), foreground, balance, overhang, seed=0)
        self._intensities = Intensities("float32", window)
        check_count("num_samples", num_samples, 1)
        self._num_samples = num_samples
        self._cases = _Cases(data)
        if foreground:
            self._cases.volumes.require_masks("foreground", foreground, without=0)
        self._corners: list[tuple[int, ...]] = []

    def randomize(self, data: Volume) -> None:
        """Draw where the patches of a volume are."""
        numbers = self.R.randint(2**63 - 1, size=self._num_samples, dtype=np.int64)
        self._corners = [self._plan.corner(data, 0, int(number))[0] for number in numbers]

    def __call__(self, data: Mapping[Hashable, Any]) -> list[dict[Hashable, Any]]:
        """Return the patches of an item; other values are copied to each.

        Raises:
            ValueError: names that are not from `datalist`, are of other data, or of several cases.
        """
        names = {key: data[key] for key in self.key_iterator(data)}
        columns, volumes = {}, []
        for key, name in names.items():
            volume, stored = self._cases.find(name)
            columns[key] = "image" if stored is volume.image else "segmentation"
            volumes.append(volume)
        if len({volume.case_id for volume in volumes}) != 1:
            found = ", ".join(volume.case_id for volume in volumes) or "none"
            raise ValueError(f"expected an item of one case under the keys {self.keys}, found {found}")
        self.randomize(volumes[0])
        samples = []
        for number, corner in enumerate(self._corners):
            patches = self._patches(volumes[0], corner, set(columns.values()))
            sample = {key: None if key in names else deepcopy(value) for key, value in data.items()}
            for key, column in columns.items():
                meta = {"filename_or_obj": str(names[key]), "patch_index": number}
                sample[key] = self._tensor(volumes[0], corner, patches[column], meta)
            samples.append(sample)
        return samples

    def _patches(self, volume: Volume, corner: Sequence[int], columns: set[str]) -> dict[str, NDArray[Any]]:
        patches: dict[str, NDArray[Any]] = {"image": np.empty(self._plan.size, self._intensities.type)}
        if "segmentation" in columns:
            patches["segmentation"] = np.empty(self._plan.size, np.uint8)
        read_patch(volume, corner, self._intensities, patches)
        return patches

    def _tensor(
        self, volume: Volume, corner: Sequence[int], patch: NDArray[Any], meta: dict[str, Any]
    ) -> Any:
        tensor = torch.from_numpy(patch.transpose(FILE_AXES)).unsqueeze(0)
        original = volume.affine_of_file
        affine = affine_of_patch(original, [corner[axis] for axis in FILE_AXES])
        meta |= _meta(affine, original, tensor.shape[1:], 0)
        return MetaTensor.ensure_torch_and_prune_meta(tensor, meta)


class _Cases:
    """Volumes by the names that `datalist` gives them."""

    def __init__(self, data: Any) -> None:
        self.volumes = Volumes(data, need_geometry=True)
        self._numbers = {case_id: number for number, case_id in enumerate(self.volumes.case_ids())}

    def find(self, name: Any) -> tuple[Volume, StoredArray]:
        """Return a case, and its image or mask.

        Raises:
            ValueError: not a name of `datalist`, or one of other data.
        """
        parts = PurePath(name).parts
        if len(parts) != 4 or parts[0] != _ROOT:
            raise ValueError(f"expected a name from ctspine1k.training.monai.datalist, found {str(name)!r}")
        _, _, column, file = parts
        case_id = file.removesuffix(".nii.gz")
        if case_id in self._numbers:
            volume = self.volumes[self._numbers[case_id]]
            if column in self.volumes.columns and PurePath(_name(volume, column)) == PurePath(name):
                return volume, volume.column(column)
        raise ValueError(
            f"{case_id}: expected an item of this data set, found one of another, or of other options. Call "
            "datalist with the data set that is read."
        )


def _meta(
    affine: NDArray[np.float64], original: NDArray[np.float64], shape: Sequence[int], channel_dim: float
) -> dict[str, Any]:
    """Return what a `MetaTensor` knows of its voxels, as MONAI's readers name it.

    Tensors, not arrays: `PersistentDataset` cannot read those again (``weights_only=True``).
    """
    return {
        "affine": torch.tensor(affine),
        "original_affine": torch.tensor(original),
        "spatial_shape": torch.tensor(shape),
        "space": "RAS",
        "original_channel_dim": channel_dim,
    }


def _name(volume: Volume, column: str) -> str:
    """Return a name that ends as a file's, since MONAI names what it writes by it."""
    stored = volume.column(column)
    header = replace(stored.header, name="")  # it has the number of the row
    content = hashlib.sha256(header.to_json().encode())
    for part in (stored.ends, stored.checksums, volume.affine_of_file):
        content.update(part.tobytes())
    return f"{_ROOT}/{content.hexdigest()[:16]}/{column}/{volume.case_id}.nii.gz"
