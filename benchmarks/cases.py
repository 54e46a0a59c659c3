"""Cases that resemble real CT, of any length: image and mask as ``.nii.gz`` in one folder.

They are made of the real slices in the folder that CTSPINE1K_SAMPLE names, or without it of the phantom's.
Each slice is used many times, so it is shifted and gets a little noise (-1, 0 or 1 HU, none in what pads a
scan): no codec can find it again. All cases of a folder are one file under many names.
"""

from __future__ import annotations

import gzip
import os
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

import ctspine1k
from ctspine1k.demo.phantom import make_phantom

#: Cases of one source, all of the split "train".
CASES = [case.case_id for case in ctspine1k.load_catalog().where(split="train", source="MSD-T10")]


def make_cases(root: Path, slices: int, count: int) -> str:
    """Write so many cases of so many slices, and tell what they are made of."""
    if "CTSPINE1K_SAMPLE" in os.environ:
        tree, origin = Path(os.environ["CTSPINE1K_SAMPLE"]), "real slices"
        sources = [sorted(tree.rglob("*_000?.nii.gz")), sorted(tree.rglob("*_seg.nii.gz"))]
    else:
        tree, origin = make_phantom(root / "phantom"), "phantom slices"
        files = ctspine1k.list_files(data_dir=tree)
        sources = [[f.local for f in files if f.kind == kind] for kind in ("image", "mask")]
    folder = root / "cases"
    folder.mkdir()
    random = np.random.default_rng(0)
    for paths, suffix in zip(sources, ("", "_seg"), strict=True):
        loaded = [nib.load(path) for path in paths]
        stack = np.concatenate([np.asarray(volume.dataobj) for volume in loaded], axis=2)
        shifted = [
            np.roll(stack[..., k % stack.shape[2]], k // stack.shape[2], axis=0) for k in range(slices)
        ]
        voxels = np.stack(shifted, axis=2)
        if not suffix:
            noise = random.integers(-1, 2, voxels.shape, voxels.dtype)
            voxels = np.where(voxels > voxels.min(), voxels + noise, voxels)
        first = folder / f"{CASES[0]}{suffix}.nii.gz"
        first.write_bytes(gzip.compress(nib.Nifti1Image(voxels, loaded[0].affine).to_bytes(), 6))
        for case_id in CASES[1:count]:
            (folder / f"{case_id}{suffix}.nii.gz").hardlink_to(first)
    return origin


def load(root: Path, name: str, storage: str, count: int, **options: Any) -> Any:
    """Load rows of the first cases, converting at the first call."""
    return ctspine1k.load_dataset(
        name,
        split="train",
        data_dir=root / "cases",
        cases=CASES[:count],
        cache_dir=root / "cache",
        storage=storage,
        **options,
    )
