"""A small made-up data set (phantom) in the published layouts, to try the library without any download.

Its images are bodies of soft tissue in air, with a spine whose vertebrae have labels, or points: shapes,
labels and intensities look real to a program. They are of no other use. A split file lists its cases.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from ctspine1k._messages import check_choice, shortened
from ctspine1k.catalog.cases import Case, Catalog
from ctspine1k.catalog.ctspine1k import CTSPINE1K
from ctspine1k.catalog.dataset import DataSet, Kind
from ctspine1k.catalog.registry import DEFAULT, data_set, load_catalog
from ctspine1k.demo.small import PHANTOMS, write_scan
from ctspine1k.demo.spines import SLICES_PER_VERTEBRA, vertebra
from ctspine1k.errors import OutputError
from ctspine1k.running.disk import explain_unwritable, make_folder, require_folder

__all__ = ["PHANTOM_CASES", "make_phantom", "phantom_cases", "phantoms"]

#: Real ids of the default data set: at least one of each split and of each source.
PHANTOM_CASES = ("liver_106", "volume-covid19-A-0011_ct", "HN_P023", "1.3.6.1.4.1.9328.50.4.0650")

#: Number of slices, and label of the lowest vertebra, of each of `PHANTOM_CASES`.
_SLICES = (24, 30, 36, 42)
_LOWEST = (24, 19, 10, 22)

_SIZE = 512
_SPACING_MM = (0.8, 0.7, 3.0)


def phantoms() -> tuple[str, ...]:
    """List the names of the data sets that have a phantom."""
    return (DEFAULT, *PHANTOMS)


def phantom_cases(collection: str = DEFAULT) -> tuple[str, ...]:
    """List the ids of the cases of a data set's phantom.

    Raises:
        ValueError: the data set has none.
    """
    check_choice("collection", collection, phantoms())
    return PHANTOM_CASES if collection == DEFAULT else tuple(scan.case_id for scan in PHANTOMS[collection])


def make_phantom(root: Path, collection: str = DEFAULT) -> Path:
    """Write the files of a data set's phantom below ``root``, in its published layouts: all of them or none.

    Returns:
        ``root``, to be used as ``data_dir``.

    Raises:
        ValueError: the data set has no phantom.
        OutputError: there are files at ``root``: a phantom never replaces any; or none can be written there.
    """
    case_ids = phantom_cases(collection)
    with explain_unwritable(root):
        require_folder(root)
        is_there = root.exists()
        if is_there and (names := sorted(path.name for path in root.iterdir())):
            raise OutputError.occupied(str(root), "a new or an empty folder", shortened(names))
        make_folder(root.parent)
        _fill(root, collection, load_catalog(collection).select(case_ids), is_there=is_there)
    return root


def _fill(root: Path, collection: str, catalog: Catalog, *, is_there: bool) -> None:
    """Make the files in a temporary folder; then move them to ``root``, or rename it if there is none."""
    place = root if is_there else root.parent
    with tempfile.TemporaryDirectory(prefix=f".{root.name}-", dir=place) as scratch:
        made = Path(scratch) / "phantom"
        if collection == DEFAULT:
            for case_id, slices, lowest in zip(PHANTOM_CASES, _SLICES, _LOWEST, strict=True):
                _write_case(made, catalog[case_id], slices, lowest)
        else:
            for seed, scan in enumerate(PHANTOMS[collection]):
                write_scan(made, collection, scan, seed)
        _write_split_file(made, data_set(collection), catalog)
        if is_there:  # as its owner made it: another folder could have other permissions
            for path in made.iterdir():
                path.rename(root / path.name)
        else:
            made.rename(root)


def _write_split_file(root: Path, data_set: DataSet, catalog: Catalog) -> None:
    by_split = catalog.by_split()
    text = "\n".join(
        f"{section}:\n" + "".join(f"{case.case_id}.nii.gz\n" for case in by_split.get(split, ()))
        for section, split in data_set.sections.items()
    )
    path = root / data_set.split_file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


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
        number, height = divmod(k, SLICES_PER_VERTEBRA)
        bone = vertebra(i - 256, j - 208 - 10 * np.cos(k / 12), height)
        image[..., k][bone] = 250
        mask[..., k][bone] = lowest - number
    # Air is the same everywhere, as scanners write it around what they see, and takes no room in files.
    image[outline] += random.integers(-15, 16, image.shape, np.int16)[outline]
    return image, mask
