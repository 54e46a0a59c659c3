"""A small made-up data set (phantom) in the published layout, to try the library without any download.

Its images are bodies of soft tissue in air, with a spine whose vertebrae have labels: shapes, labels and
intensities look real to a program. They are of no other use. A split file lists its cases.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from ctspine1k.catalog.cases import Case, Catalog
from ctspine1k.catalog.ctspine1k import CTSPINE1K, SECTIONS
from ctspine1k.catalog.dataset import Kind
from ctspine1k.catalog.registry import load_catalog

__all__ = ["PHANTOM_CASES", "make_phantom"]

#: Real ids: at least one of each split and of each source.
PHANTOM_CASES = ("liver_106", "volume-covid19-A-0011_ct", "HN_P023", "1.3.6.1.4.1.9328.50.4.0650")

#: Number of slices, and label of the lowest vertebra, of each of `PHANTOM_CASES`.
_SLICES = (24, 30, 36, 42)
_LOWEST = (24, 19, 10, 22)

_SIZE = 512
_SLICES_PER_VERTEBRA = 9
_SPACING_MM = (0.8, 0.7, 3.0)


def make_phantom(root: Path) -> Path:
    """Write images and masks of `PHANTOM_CASES` below ``root``, in the Hub's layout: all of them or none.

    Returns:
        ``root``, to be used as ``data_dir``.

    Raises:
        FileExistsError: there are files at ``root``: a phantom never replaces any.
    """
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise FileExistsError(f"{root}: expected a new or an empty folder, found something in it")
    catalog = load_catalog()
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{root.name}-", dir=root.parent) as scratch:
        made = Path(scratch) / "phantom"
        for case_id, slices, lowest in zip(PHANTOM_CASES, _SLICES, _LOWEST, strict=True):
            _write_case(made, catalog[case_id], slices, lowest)
        _write_split_file(made / "metadata" / "data_split.txt", catalog)
        if root.exists():
            root.rmdir()
        made.rename(root)
    return root


def _write_split_file(path: Path, catalog: Catalog) -> None:
    by_split = catalog.select(PHANTOM_CASES).by_split()
    sections = (
        f"{section}:\n" + "".join(f"{case.case_id}.nii.gz\n" for case in by_split[split])
        for section, split in SECTIONS.items()
    )
    path.parent.mkdir(parents=True)
    path.write_text("\n".join(sections), encoding="utf-8")


def _write_case(root: Path, case: Case, slices: int, lowest: int) -> None:
    image, mask = _body(slices, lowest, np.random.default_rng(case.index))
    affine = np.diag([-_SPACING_MM[0], *_SPACING_MM[1:], 1.0])  # to the left, the front, upwards
    voxels_of: dict[Kind, NDArray[Any]] = {"image": image, "mask": mask}
    for kind, voxels in voxels_of.items():
        path = root / CTSPINE1K.file_name(case, kind)
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(voxels, affine), path)


def _body(
    slices: int, lowest: int, random: np.random.Generator
) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """Return image (HU) and labels, both of shape (i, j, k), whose axes point left, to the front and up."""
    i, j = np.ogrid[:_SIZE, :_SIZE]
    outline = ((i - 256) / 200) ** 2 + ((j - 256) / 140) ** 2 < 1
    image = np.full((_SIZE, _SIZE, slices), -1000, np.int16)
    mask = np.zeros(image.shape, np.uint8)
    for k in range(slices):
        image[..., k][outline] = 40
        number, height = divmod(k, _SLICES_PER_VERTEBRA)
        vertebra = _vertebra(i - 256, j - 208 - 10 * np.cos(k / 12), height)
        image[..., k][vertebra] = 250
        mask[..., k][vertebra] = lowest - number
    image += random.integers(-15, 16, image.shape, np.int16)
    return image, mask


def _vertebra(i: NDArray[Any], j: NDArray[Any], height: int) -> NDArray[np.bool_]:
    """Return one slice of a vertebra, given indices relative to its centre; at height 0 there is disc."""
    if not height:
        return np.zeros(np.broadcast_shapes(i.shape, j.shape), np.bool_)
    body = (i / 30) ** 2 + (j / 22) ** 2 < 1
    canal = (i / 13) ** 2 + ((j + 32) / 12) ** 2
    arch = (canal > 1) & (canal < 2.6) & (j < -18)
    process = (abs(i) < 5) & (j < -48) & (j > -2 * (_SLICES_PER_VERTEBRA - height) - 62)
    wings = (abs(i) < 52) & (abs(j + 34 + abs(i) / 4) < 6) & (canal > 1) & (height > 3)
    return body | arch | process | wings
