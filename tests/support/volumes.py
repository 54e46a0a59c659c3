"""Small cases in the published formats: unequal axes and spacing, so that a swapped axis cannot pass."""

from __future__ import annotations

import functools
import gzip
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

#: (i, j, k) of a file, and the size of its slices.
SHAPE = (6, 5, 4)
SIZE = (6, 5)

AFFINE = np.array(
    [[-0.7, 0.0, 0.0, 10.0], [0.0, 0.8, 0.0, -20.0], [0.0, 0.0, 2.5, 30.0], [0.0, 0.0, 0.0, 1.0]]
)

#: Of the 48 orientations, those that have each axis first, in both directions.
ALONG_EACH = ("RAS", "LPI", "PIR", "AIL", "SRP", "ILA")

#: Two cases of train, one of validation, one of test, under real ids.
IDS = {
    "train": ["1.3.6.1.4.1.9328.50.4.0001", "liver_106"],
    "validation": ["HN_P023"],
    "test": ["1.3.6.1.4.1.9328.50.4.0650"],
}
ALL_IDS = [case_id for ids in IDS.values() for case_id in ids]


def intensities(seed: int = 0, shape: tuple[int, ...] = SHAPE, dtype: str = "<i2") -> np.ndarray:
    random = np.random.default_rng(seed)
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return random.normal(0, 500, shape).astype(kind)
    limits = np.iinfo(kind)
    return random.integers(max(limits.min, -(2**40)), min(limits.max, 2**62), shape, dtype=np.int64).astype(
        kind
    )


def labels(seed: int = 0, shape: tuple[int, ...] = SHAPE, dtype: str = "u1") -> np.ndarray:
    return np.random.default_rng(1000 + seed).integers(0, 26, shape).astype(dtype)


def nifti(
    voxels: np.ndarray,
    *,
    affine: np.ndarray = AFFINE,
    slope: float | None = None,
    inter: float | None = None,
    header_class: type[nib.Nifti1Header] = nib.Nifti1Header,
    **fields: Any,
) -> bytes:
    """The bytes of a ``.nii`` file with exactly these stored voxels, in their own byte order."""
    order = ">" if voxels.dtype.byteorder == ">" else "<"
    header = header_class(endianness=order)
    header.set_data_dtype(voxels.dtype)
    header.set_data_shape(voxels.shape)
    header.set_sform(affine, code=1)
    header.set_qform(affine, code=1)
    header["magic"] = b"n+1" if header_class is nib.Nifti1Header else header["magic"]
    header["vox_offset"] = header.single_vox_offset
    header["scl_slope"] = np.nan if slope is None else slope
    header["scl_inter"] = np.nan if inter is None else inter
    for name, value in fields.items():
        header[name] = value
    return header.binaryblock + bytes(4) + voxels.tobytes(order="F")


def save(path: Path, voxels: np.ndarray, **options: Any) -> Path:
    """Write voxels as ``.nii.gz`` or ``.nii``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = nifti(voxels, **options)
    path.write_bytes(_compressed(data) if path.suffix == ".gz" else data)
    return path


@functools.lru_cache(maxsize=64)  # many tests write the same few volumes
def _compressed(data: bytes) -> bytes:
    return gzip.compress(data, 1, mtime=0)


def save_case(
    root: Path, case_id: str, *, seed: int = 0, shape: tuple[int, ...] = SHAPE, folder: str = "any"
) -> tuple[Path, Path]:
    """Write image and mask of a case below ``root``, in the layout of the Hub."""
    image = root / f"raw_data/volumes/{folder}/{case_id}.nii.gz"
    mask = root / f"raw_data/labels/{folder}/{case_id}_seg.nii.gz"
    for path, data in zip((image, mask), _case_data(seed, shape), strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return image, mask


def save_tree(root: Path) -> Path:
    """Write the cases of `IDS`, of 3 to 6 slices, in the layout of the Hub."""
    for seed, case_id in enumerate(ALL_IDS):
        save_case(root, case_id, seed=seed, shape=(6, 5, 3 + seed))
    return root


def save_split_file(path: Path) -> Path:
    """Write a split file that names the cases of `IDS` and no others."""
    sections = zip(("trainset", "test_public", "test_private"), IDS.values(), strict=True)
    path.write_text("\n".join(f"{name}:\n" + "".join(f"{i}.nii.gz\n" for i in ids) for name, ids in sections))
    return path


@functools.lru_cache(maxsize=256)
def _case_data(seed: int, shape: tuple[int, ...]) -> tuple[bytes, bytes]:
    return _compressed(nifti(intensities(seed, shape))), _compressed(nifti(labels(seed, shape)))


def expected(path: Path, dtype: str) -> np.ndarray:
    """What a row must hold, by another path: plain nibabel."""
    with np.errstate(over="ignore"):
        return np.transpose(nib.load(path).get_fdata(), (2, 0, 1)).astype(dtype)


def files_of(root: Path) -> dict[str, bytes]:
    """The files below a folder, as a repo's commit has them."""
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def break_case(tree: Path, case_id: str = "liver_106", suffix: str = "") -> Path:
    """Cut off the end of the image: all but its last slice is fine."""
    path = next(tree.rglob(f"{case_id}{suffix}.nii.gz"))
    data = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(data[:-10]))
    return path


def place(root: Path, *names: str) -> list[Path]:
    """Write files of these names below a folder, with something in them."""
    paths = [root / name for name in names]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * len(path.name))
    return paths
