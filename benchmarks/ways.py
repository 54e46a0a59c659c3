"""The other ways to get at the same voxels, each written plainly, as its users use it."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import datasets
import nibabel as nib
import numpy as np
from isal import igzip
from numpy.typing import NDArray

#: Of a patch: slice, first, second axis.
PATCH = (96, 128, 128)

#: Reads image and segmentation of the case with this number: the volume, or a random patch of it.
Reader = Callable[[int], Any]

#: Image and segmentation of each case.
Pairs = Sequence[tuple[NDArray[Any], NDArray[Any]]]


class Published(datasets.GeneratorBasedBuilder):
    """The published loader's way: whole volumes with ``get_fdata()``, row by row to `datasets`."""

    BUILDER_CONFIGS = [datasets.BuilderConfig(name=name) for name in ("3d", "2d")]  # noqa: RUF012

    def _info(self) -> datasets.DatasetInfo:
        is_3d = self.config.name == "3d"
        kind, shape = (datasets.Array3D, (None, 512, 512)) if is_3d else (datasets.Array2D, (512, 512))
        columns = {
            "image": kind(shape, "float32"),
            "segmentation": kind(shape, "int32"),
            "patient_id": datasets.Value("string"),
            "index": datasets.Value("int32"),
        }
        if not is_3d:
            columns["slice_index"] = datasets.Value("int32")
        return datasets.DatasetInfo(features=datasets.Features(columns))

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        return [datasets.SplitGenerator(name="train", gen_kwargs={"files": self.config.data_files["train"]})]

    def _generate_examples(self, files: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
        for index, path in enumerate(files):
            case_id = path.rpartition("/")[2].removesuffix(".nii.gz")
            mask_path = path.replace(".nii.gz", "_seg.nii.gz")
            image = np.transpose(nib.load(path).get_fdata(), (2, 0, 1)).astype(np.float32)
            mask = np.transpose(nib.load(mask_path).get_fdata(), (2, 0, 1)).astype(np.int32)
            case = {"patient_id": case_id, "index": index}
            if self.config.name == "3d":
                yield case_id, {"image": image, "segmentation": mask, **case}
                continue
            for k in range(len(image)):
                row = {"image": image[k], "segmentation": mask[k], **case, "slice_index": k}
                yield f"{case_id}/{k}", row


def inflate(paths: list[str], processes: int) -> None:
    """Inflate files and do nothing with what comes out, in this process or in several."""
    if processes == 1:
        for path in paths:
            _inflate_one(path)
        return
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        list(pool.map(_inflate_one, paths))


def _inflate_one(path: str) -> None:
    with igzip.open(path) as stream:
        while stream.read(1 << 20):
            pass


def pairs_of(folder: Path) -> list[dict[str, str]]:
    """List image and mask of each case in a folder."""
    masks = sorted(folder.glob("*_seg.nii.gz"))
    return [{"image": str(m).replace("_seg.nii.gz", ".nii.gz"), "segmentation": str(m)} for m in masks]


def nifti_feature(folder: Path) -> Reader:
    """`datasets`' own feature: the files as they are, inflated at every read."""
    pairs = pairs_of(folder)
    dataset = datasets.Dataset.from_list(pairs)
    for column in ("image", "segmentation"):
        dataset = dataset.cast_column(column, datasets.Nifti())

    def read(index: int) -> Any:
        row = dataset[index]
        return row["image"].get_fdata(dtype=np.float32), np.asarray(row["segmentation"].dataobj, np.int32)

    return read


def monai_load(folder: Path) -> Reader:
    """MONAI's ``LoadImaged``."""
    from monai.transforms import LoadImaged

    pairs, load = pairs_of(folder), LoadImaged(("image", "segmentation"))
    return lambda index: load(dict(pairs[index]))


def monai_persistent_patch(folder: Path, cache: Path, size: Sequence[int], patches: int = 1) -> Reader:
    """MONAI's ``PersistentDataset``: volumes as tensors on disk, crops after they are loaded.

    Args:
        folder: with the cases.
        cache: for the tensors.
        size: of a crop, (k, i, j).
        patches: crops of a volume that is loaded, half of them in the foreground.
    """
    from monai.data import PersistentDataset
    from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged, RandCropByPosNegLabeld

    keys = ("image", "segmentation")
    k, i, j = size
    crop = RandCropByPosNegLabeld(
        keys, "segmentation", (i, j, k), pos=1, neg=1, num_samples=patches, allow_smaller=True
    )
    steps = Compose([LoadImaged(keys), EnsureChannelFirstd(keys), crop])
    cached = PersistentDataset(pairs_of(folder), steps, cache_dir=cache)
    for index in range(len(cached)):
        cached[index]  # makes the cache
    return lambda index: cached[index]


def torchio_load(folder: Path) -> Reader:
    """TorchIO's ``Subject``."""
    subject = _subjects(folder)

    def read(index: int) -> Any:
        loaded = subject(index)
        loaded.load()
        return loaded.image.data, loaded.segmentation.data

    return read


def torchio_patch(folder: Path) -> Reader:
    """TorchIO's ``UniformSampler`` on a subject that it loads first."""
    import torchio

    subject, sampler = _subjects(folder), torchio.UniformSampler((PATCH[1], PATCH[2], PATCH[0]))

    def read(index: int) -> Any:
        loaded = subject(index)
        loaded.load()
        return next(iter(sampler(loaded, 1)))

    return read


def torchio_queue(folder: Path, count: int, size: Sequence[int], per_volume: int) -> Iterator[Any]:
    """Return the batches of an epoch from TorchIO's ``Queue``: two patches each, centred on labels."""
    import torchio

    subject = _subjects(folder)
    k, i, j = size
    queue = torchio.Queue(
        torchio.SubjectsDataset([subject(index) for index in range(count)]),
        max_length=count * per_volume,
        samples_per_volume=per_volume,
        sampler=torchio.LabelSampler((i, j, k), "segmentation"),
    )
    return iter(torchio.SubjectsLoader(queue, batch_size=2))


def _subjects(folder: Path) -> Callable[[int], Any]:
    import torchio

    pairs = pairs_of(folder)
    return lambda index: torchio.Subject(
        image=torchio.ScalarImage(pairs[index]["image"]),
        segmentation=torchio.LabelMap(pairs[index]["segmentation"]),
    )


def nnunet_write(volumes: Pairs, folder: Path, size: Sequence[int]) -> None:
    """Write volumes with nnU-Net's code, as its preprocessing does for patches of this size.

    They are normalised, but not resampled, nor cut to what is not air.
    """
    from nnunetv2.preprocessing.normalization.default_normalization_schemes import CTNormalization
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
    from nnunetv2.training.dataloading.nnunet_dataset import comp_blosc2_params, nnUNetDatasetBlosc2

    folder.mkdir()
    for index, (image, mask) in enumerate(volumes):
        low, high = np.percentile(foreground := image[mask > 0], (0.5, 99.5))
        facts = {"mean": foreground.mean(), "std": foreground.std()}
        facts |= {"percentile_00_5": low, "percentile_99_5": high}
        data = CTNormalization(use_mask_for_norm=False, intensityproperties=facts).run(image)[np.newaxis]
        seg = mask[np.newaxis].astype(np.int16)
        layout = {}
        for suffix, array in (("", data), ("_seg", seg)):
            blocks, chunks = comp_blosc2_params(array.shape, tuple(size), array.itemsize)
            layout |= {f"blocks{suffix}": blocks, f"chunks{suffix}": chunks}
        voxels = DefaultPreprocessor._sample_foreground_locations(seg, list(range(1, 26)))
        nnUNetDatasetBlosc2.save_case(
            data, seg, {"class_locations": voxels}, str(folder / f"{index}"), **layout
        )


def nnunet_read(folder: Path) -> Callable[[int, Any], Any]:
    """Read parts of what `nnunet_write` has written, as nnU-Net's data set opens it."""
    from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

    cases = nnUNetDatasetBlosc2(str(folder))

    def read(index: int, part: Any) -> Any:
        image, mask, *_ = cases.load_case(str(index))
        return image[(0, *part)], mask[(0, *part)]

    return read


def nnunet_loader(folder: Path, size: Sequence[int]) -> Iterator[Any]:
    """Return nnU-Net's loader: batches of two, the second one in the foreground, without augmentation."""
    from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
    from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
    from nnunetv2.utilities.label_handling.label_handling import LabelManager

    labels = LabelManager({"background": 0, **{str(label): label for label in range(1, 26)}}, None)
    loader: Iterator[Any] = nnUNetDataLoader(
        nnUNetDatasetBlosc2(str(folder)),
        2,
        tuple(size),
        tuple(size),
        labels,
        oversample_foreground_percent=0.5,
    )
    return loader


def zarr_sharded(volumes: Pairs, folder: Path) -> Callable[[int, Any], Any]:
    """Zarr 3: one shard a volume, in the stored types, chunks of the size of our chunks, its own codec."""
    import zarr

    for index, pair in enumerate(volumes):
        for name, array in zip(("image", "segmentation"), pair, strict=True):
            chunks = (32, 64, 64)
            shards = tuple(-(-n // c) * c for n, c in zip(array.shape, chunks, strict=True))
            made = zarr.create_array(
                store=folder / f"{index}_{name}.zarr",
                shape=array.shape,
                chunks=chunks,
                shards=shards,
                dtype=array.dtype,
            )
            made[:] = array

    def read(index: int, part: Any) -> Any:
        image, mask = (
            zarr.open_array(folder / f"{index}_{name}.zarr", mode="r")[part]
            for name in ("image", "segmentation")
        )
        return image.astype(np.float32), mask.astype(np.int32)

    return read
