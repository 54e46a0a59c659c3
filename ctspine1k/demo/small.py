"""Phantoms of data sets with small volumes, as data: each file with the name that one of the layouts has."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from ctspine1k.catalog.registry import data_set
from ctspine1k.demo.spines import Spine, make_spine

__all__ = ["PHANTOMS", "Scan", "write_scan"]


@dataclass(frozen=True)
class Scan:
    """One made-up scan with the id of a real one: its vertebrae, how it is stored, and its files."""

    case_id: str
    vertebrae: tuple[str, ...]  #: from the top downwards
    orientation: str
    image: str  #: path of the file
    mask: str | None
    points: str | None
    write_points: Callable[[Spine, Mapping[int, str]], str] | None
    spacing: tuple[float, float, float] = (1.3, 1.5, 2.1)  #: mm to the left, the front and upwards
    tilt_degrees: float = 0.0


def _in_voxels(spine: Spine, names: Mapping[int, str]) -> str:
    """Return points in voxels of the image as stored, with its directions."""
    codes = "".join(nib.aff2axcodes(spine.affine))
    return json.dumps([{"direction": list(codes)}, *_entries(spine.centres)])


def _on_grid(codes: str) -> Callable[[Spine, Mapping[int, str]], str]:
    """Return a writer of points on a grid of 1 mm, whose axes lead to ``codes``, without saying so."""

    def write(spine: Spine, names: Mapping[int, str]) -> str:
        axes = nib.orientations.ornt_transform(
            nib.io_orientation(spine.affine), nib.orientations.axcodes2ornt(codes)
        )
        turned = {}
        for label, centre in spine.centres.items():
            point = np.zeros(3)
            for axis, (target, sign) in enumerate(axes):
                index = centre[axis] if sign > 0 else spine.image.shape[axis] - 1 - centre[axis]
                point[int(target)] = index * spine.spacing[axis]
            turned[label] = tuple(point)
        return json.dumps(_entries(turned))

    return write


def _entries(points: Mapping[int, tuple[float, ...]]) -> list[dict[str, Any]]:
    return [
        {"label": label, **dict(zip("XYZ", (round(one, 4) for one in point), strict=True))}
        for label, point in sorted(points.items())
    ]


def _lines(spine: Spine, names: Mapping[int, str]) -> str:
    """Return a row for each vertebra, in mm along the axes of the image."""
    lines = ["id\tlandmark\tx\ty\tz"]
    for number, (label, name) in enumerate(names.items(), start=1):
        position = (index * step for index, step in zip(spine.centres[label], spine.spacing, strict=True))
        lines.append("\t".join([str(number), f"{name}_center", *(f"{mm:.4f}" for mm in position)]))
    return "\n".join([*lines, ""])


#: Of each data set: real ids, one or more of each split, in several layouts and grammars.
PHANTOMS: dict[str, tuple[Scan, ...]] = {
    "verse": (
        Scan(
            "verse004",
            ("T11", "T12", "L1"),
            "PIR",
            "dataset-verse19training/rawdata/sub-verse004/sub-verse004_ct.nii.gz",
            "dataset-verse19training/derivatives/sub-verse004/sub-verse004_seg-vert_msk.nii.gz",
            "dataset-verse19training/derivatives/sub-verse004/sub-verse004_seg-subreg_ctd.json",
            _in_voxels,
            tilt_degrees=12.0,
        ),
        Scan(
            "verse223",
            ("L1", "L2"),
            "LAS",
            "01_training/rawdata/sub-verse408/sub-verse408_split-verse223_ct.nii.gz",
            "01_training/derivatives/sub-verse408/sub-verse408_split-verse223_seg-vert_msk.nii.gz",
            "01_training/derivatives/sub-verse408/sub-verse408_split-verse223_seg-subreg_ctd.json",
            _in_voxels,
        ),
        Scan(
            "verse265",
            ("L4", "L5"),
            "RPI",
            "verse408/verse408_verse265_CT-iso.nii.gz",
            "verse408/verse408_verse265_CT-iso_seg.nii.gz",
            "verse408/verse408_verse265_CT-iso_iso-ctd.json",
            _on_grid("PIR"),
            tilt_degrees=-8.0,
        ),
        Scan(
            "verse090",
            ("T10", "T11", "T12"),
            "ASL",
            "verse090.nii.gz",
            "verse090_seg.nii.gz",
            "verse090_ctd.json",
            _on_grid("IPL"),
            tilt_degrees=5.0,
        ),
        Scan(
            "gl017",
            ("L2", "L3"),
            "LPS",
            "GL017/GL017_CT-ax.nii.gz",
            "GL017/GL017_CT_ax_seg.nii.gz",
            None,
            None,
        ),
        Scan(
            "verse512",
            ("T12", "T13", "L1"),
            "PSR",
            "dataset-verse20test/dataset-03test/rawdata/sub-verse512/sub-verse512_dir-iso_ct.nii.gz",
            "dataset-verse20test/dataset-03test/derivatives/sub-verse512/sub-verse512_dir-iso_seg-vert_msk.nii.gz",
            "dataset-verse20test/dataset-03test/derivatives/sub-verse512/sub-verse512_dir-iso_seg-vb_ctd.json",
            _in_voxels,
        ),
    ),
    "msr": (
        Scan(
            "4543953",
            ("L3", "L4", "L5", "S1", "S2"),
            "PSR",
            "spine-1/patient0001/4543953/4543953.nii.gz",
            None,
            "spine-1/patient0001/4543953/4543953.lml",
            _lines,
        ),
        Scan(
            "4528990",
            ("C1", "C2", "C3"),
            "LAS",
            "spine-1/patient0001/4528990/4528990.nii",
            None,
            "spine-1/patient0001/4528990/4528990.lml",
            _lines,
            tilt_degrees=10.0,
        ),
        Scan(
            "4553575",
            ("C1", "C2"),
            "LPS",
            "spine-2/patient0002/4553575/4553575.mhd",
            None,
            "spine-2/patient0002/4553575/4553575.lml",
            _lines,
        ),
        Scan(
            "4633999",
            ("L3", "L4", "L5", "S1", "S2"),
            "LPS",
            "spine-test-data/patient0101/4633999/4633999.nii.gz",
            None,
            "spine-test-data/patient0101/4633999/4633999.lml",
            _lines,
            tilt_degrees=-6.0,
        ),
    ),
}


def write_scan(root: Path, collection: str, scan: Scan, seed: int) -> None:
    """Write the files of a scan below a folder."""
    vocabulary = data_set(collection).vocabulary
    labels = [vocabulary.label(name) for name in scan.vertebrae]
    spine = make_spine(labels, scan.spacing, scan.orientation, scan.tilt_degrees, seed)
    _write_volume(root / scan.image, spine.image, spine.affine)
    if scan.mask is not None:
        _write_volume(root / scan.mask, spine.mask, spine.affine)
    if scan.points is not None and scan.write_points is not None:
        names = dict(zip(labels, scan.vertebrae, strict=True))
        path = root / scan.points
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(scan.write_points(spine, names), encoding="utf-8")


def _write_volume(path: Path, voxels: NDArray[Any], affine: NDArray[np.float64]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix != ".mhd":
        nib.save(nib.Nifti1Image(voxels, affine), path)
        return
    raw = path.with_suffix(".raw")
    raw.write_bytes(voxels.astype("<i2").tobytes(order="F"))
    to_lps = np.diag([-1.0, -1.0, 1.0]) @ affine[:3]
    spacing = nib.affines.voxel_sizes(affine)
    lines = {
        "ObjectType": "Image",
        "NDims": "3",
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": "False",
        "CompressedData": "False",
        # Column by column: where each axis of the image leads to.
        "TransformMatrix": _numbers((to_lps[:, :3] / spacing).T.ravel()),
        "Offset": _numbers(to_lps[:, 3]),
        "ElementSpacing": _numbers(spacing),
        "DimSize": " ".join(map(str, voxels.shape)),
        "ElementType": "MET_SHORT",
        "ElementDataFile": raw.name,
    }
    path.write_text("".join(f"{name} = {value}\n" for name, value in lines.items()), encoding="ascii")


def _numbers(values: NDArray[np.float64]) -> str:
    return " ".join(f"{value:.9g}" for value in values.tolist())
