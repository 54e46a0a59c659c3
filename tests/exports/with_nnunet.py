"""nnU-Net and MONAI read what is exported for them. Run by `make test-training`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from support.volumes import IDS

import ctspine1k

pytestmark = pytest.mark.processes

#: Of slices and volumes that are cut out, (i, j, k).
SIZE = (96, 96, 10)

#: What the cases are called, with the dots of real ids.
CASES = (*IDS["train"], IDS["validation"][0])


@pytest.fixture(scope="module")
def ct(request) -> Path:
    """Real CT where there is some, else the phantom."""
    return request.getfixturevalue("sample" if "CTSPINE1K_SAMPLE" in os.environ else "phantom")


def cut(ct: Path) -> list[tuple[nib.Nifti1Image, nib.Nifti1Image]]:
    """Image and mask of three cases, around their labels, in RAS."""
    found = []
    for mask_path in sorted(ct.rglob("*_seg.nii.gz"))[:3]:
        mask = nib.load(mask_path)
        image = nib.load(next(ct.rglob(mask_path.name.replace("_seg", ""))))
        centre = [int(np.median(axis)) for axis in np.nonzero(np.asarray(mask.dataobj))]
        starts = [
            max(0, min(middle - size // 2, whole - size))
            for middle, size, whole in zip(centre, SIZE, mask.shape, strict=True)
        ]
        part = tuple(slice(start, start + size) for start, size in zip(starts, SIZE, strict=True))
        found.append(tuple(nib.as_closest_canonical(volume.slicer[part]) for volume in (image, mask)))
    return found


def turned(volume: nib.Nifti1Image, code: str) -> nib.Nifti1Image:
    """The same volume, stored in another orientation."""
    codes = nib.orientations.axcodes2ornt(code)
    return volume.as_reoriented(
        nib.orientations.ornt_transform(nib.orientations.io_orientation(volume.affine), codes)
    )


def save(volume: nib.Nifti1Image, path: Path, dtype: type) -> None:
    """Write a volume with its numbers in a type."""
    path.parent.mkdir(parents=True, exist_ok=True)
    saved = nib.Nifti1Image(np.asarray(volume.dataobj).astype(dtype), volume.affine)
    saved.set_qform(volume.affine, 1)
    nib.save(saved, path)


@pytest.fixture(scope="module")
def exported(ct, tmp_path_factory):
    """Data set 511 by us, of files as people store them; data set 512 by hand, of the same in RAS."""
    root = tmp_path_factory.mktemp("nnunet")
    environment = {name: str(root / name) for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
    volumes = dict(zip(CASES, cut(ct), strict=True))
    for (case_id, (image, mask)), codes in zip(
        volumes.items(), (("RAS", "RAS"), ("PSR", "PSR"), ("RAS", "LPS")), strict=True
    ):
        save(turned(image, codes[0]), root / f"own/{case_id}.nii.gz", np.int16)
        save(turned(mask, codes[1]), root / f"own/{case_id}_seg.nii.gz", np.float64)
        plain = root / "nnUNet_raw/Dataset512_Plain"
        save(image, plain / f"imagesTr/{case_id}_0000.nii.gz", np.int16)
        save(mask, plain / f"labelsTr/{case_id}.nii.gz", np.uint8)
    (root / "split.txt").write_text(f"trainset:\n{CASES[0]}\n{CASES[1]}\ntest_public:\n{CASES[2]}\n")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        spine = ctspine1k.open_collection(data_dir=root / "own", split_file=root / "split.txt")
        report = spine.export_nnunet(root / "nnUNet_raw")
    assert (report.ok, report.files["linked"], report.files["written"]) == (True, 3, 3)
    told = json.loads((Path(report.out) / "dataset.json").read_text())
    del told["overwrite_image_reader_writer"]
    (plain / "dataset.json").write_text(json.dumps(told))
    return root, environment


def test_nnunet_verifies_plans_and_preprocesses_what_is_exported(exported):
    """The voxels are those of a plain data set whose files are in RAS: nothing is turned or moved."""
    import blosc2

    root, environment = exported
    run = subprocess.run(
        [
            Path(sys.executable).with_name("nnUNetv2_plan_and_preprocess"),
            *("-d", "511", "512", "-c", "3d_fullres", "-np", "1", "-npfp", "1"),
            "--verify_dataset_integrity",
        ],
        env={**os.environ, **environment, "nnUNet_def_n_proc": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.count("verify_dataset_integrity Done.") == 2
    assert "Warning" not in run.stdout
    ours, plain = (
        root / f"nnUNet_preprocessed/{name}/nnUNetPlans_3d_fullres"
        for name in ("Dataset511_CTSpine1K", "Dataset512_Plain")
    )
    for case_id in CASES:
        for suffix in ("", "_seg"):
            found, right = (blosc2.open(str(one / f"{case_id}{suffix}.b2nd"))[:] for one in (ours, plain))
            assert found.dtype == right.dtype
            assert np.array_equal(found, right)
        assert found.any()
    splits = json.loads((ours.parent / "splits_final.json").read_text())
    assert splits == [{"train": list(CASES[:2]), "val": [CASES[2]]}]


def test_monai_reads_the_list(exported):
    from monai.data import load_decathlon_datalist, load_decathlon_properties

    root, _ = exported
    out = root / "nnUNet_raw/Dataset511_CTSpine1K"
    for role, ids in (("training", CASES[:2]), ("validation", CASES[2:])):
        items = load_decathlon_datalist(str(out / "datalist.json"), True, role)
        assert items == [
            {
                "image": str(out / f"imagesTr/{case_id}_0000.nii.gz"),
                "label": str(out / f"labelsTr/{case_id}.nii.gz"),
            }
            for case_id in ids
        ]
    with pytest.raises(ValueError, match="test not specified"):
        load_decathlon_datalist(str(out / "datalist.json"), True, "test")
    properties = load_decathlon_properties(str(out / "datalist.json"), ["labels", "modality", "numTraining"])
    assert (properties["labels"]["25"], properties["modality"], properties["numTraining"]) == (
        "L6",
        {"0": "CT"},
        2,
    )
