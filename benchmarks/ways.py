"""The other ways to get at the same voxels, each written plainly, as its users use it."""

from __future__ import annotations

import math
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import blosc2
import datasets
import nibabel as nib
import numpy as np
from isal import igzip
from numpy.typing import NDArray

#: Of a patch: slice, first, second axis.
PATCH = (96, 128, 128)

#: Reads image and segmentation of the case with this number: the volume, or a random patch of it.
Reader = Callable[[int], Any]


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


def monai_persistent_patch(folder: Path, cache: Path) -> Reader:
    """MONAI's ``PersistentDataset``: volumes as tensors on disk, a random crop after they are loaded."""
    from monai.data import PersistentDataset
    from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged, RandSpatialCropd

    keys, size = ("image", "segmentation"), (PATCH[1], PATCH[2], PATCH[0])
    steps = [LoadImaged(keys), EnsureChannelFirstd(keys), RandSpatialCropd(keys, size, random_size=False)]
    cached = PersistentDataset(pairs_of(folder), Compose(steps), cache_dir=cache)
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


def _subjects(folder: Path) -> Callable[[int], Any]:
    import torchio

    pairs = pairs_of(folder)
    return lambda index: torchio.Subject(
        image=torchio.ScalarImage(pairs[index]["image"]),
        segmentation=torchio.LabelMap(pairs[index]["segmentation"]),
    )


def nnunet(volumes: list[tuple[NDArray[Any], NDArray[Any]]], folder: Path) -> Callable[[int, Any], Any]:
    """Read parts the way nnU-Net stores what it has preprocessed.

    A float32 ``.b2nd`` file each for image and segmentation, zstd level 8, with blocks that fit the level 1
    cache and chunks that fit a core's share of level 3, memory-mapped, one thread.
    """
    for index, pair in enumerate(volumes):
        for name, array in zip(("image", "segmentation"), pair, strict=True):
            blocks = _largest_power_of_two_box(32768 * 0.8 / 4, [1 << int(math.log2(n / 2)) for n in PATCH])
            chunks = _grown(blocks, array.shape, 1441792 * 0.8 / 4)
            blosc2.asarray(
                np.ascontiguousarray(array, np.float32),
                urlpath=str(folder / f"{index}_{name}.b2nd"),
                chunks=chunks,
                blocks=blocks,
                cparams={"codec": blosc2.Codec.ZSTD, "clevel": 8},
            )

    def read(index: int, part: Any) -> Any:
        paths = [str(folder / f"{index}_{name}.b2nd") for name in ("image", "segmentation")]
        return [
            blosc2.open(urlpath=path, mode="r", dparams={"nthreads": 1}, mmap_mode="r")[part]
            for path in paths
        ]

    return read


def _largest_power_of_two_box(voxels: float, box: list[int]) -> tuple[int, ...]:
    while math.prod(box) > voxels:
        longest = max(range(3), key=lambda axis: box[axis] / PATCH[axis])
        box[longest] //= 2
    return tuple(box)


def _grown(blocks: tuple[int, ...], shape: tuple[int, ...], voxels: float) -> tuple[int, ...]:
    chunks = list(blocks)
    while True:
        axis = min(range(3), key=lambda axis: (chunks[axis] >= shape[axis], chunks[axis] / PATCH[axis]))
        larger = chunks.copy()
        larger[axis] = min(chunks[axis] + blocks[axis], shape[axis])
        if math.prod(larger) > voxels or larger == chunks:
            return tuple(chunks)
        chunks = larger


def zarr_sharded(volumes: list[tuple[NDArray[Any], NDArray[Any]]], folder: Path) -> Callable[[int, Any], Any]:
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
