"""A data set unlike CTSpine1K (`support.tiny`) goes through every verb, from Python and from a shell."""

import dataclasses
import json
import pickle

import datasets
import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from support.compare import identical, rows
from support.tiny import IDS, LABELS, SHAPE, TINY, save_tiny

import ctspine1k
from ctspine1k.catalog import registry
from ctspine1k.cli.main import main
from ctspine1k.errors import VoxelValueError

ALL_IDS = [case_id for ids in IDS.values() for case_id in ids]


@pytest.fixture(autouse=True)
def registered(monkeypatch, tmp_path):
    monkeypatch.setattr(registry, "_registered", {})
    registry.register(TINY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def root(tmp_path):
    return save_tiny(tmp_path / "tree")


@pytest.fixture
def tiny(root):
    return ctspine1k.open_collection("tiny", data_dir=root)


def wanted(root, split):
    """The rows of a split by another path: plain nibabel."""
    found = []
    for index, case_id in enumerate(IDS[split]):
        image, mask = (
            np.transpose(nib.load(next(root.rglob(f"{case_id}-{what}.nii.gz"))).get_fdata(), (2, 0, 1))
            for what in ("ct", "labels")
        )
        case = {"patient_id": case_id, "index": index}
        found.append({"image": image.astype("f4"), "segmentation": mask.astype("i4"), **case})
    return found


def test_cases_and_files(tiny, root):
    assert [case.case_id for case in tiny] == ALL_IDS
    assert [case.case_id for case in tiny.where(scanner="new", exclude_issues="reported")] == ["c-3"]
    assert [(file.case.case_id, file.kind) for file in tiny.select("a.1").files()] == [
        ("a.1", "image"),
        ("a.1", "mask"),
        ("a.1", "points"),
    ]
    assert [file.local for file in tiny.files("mask")] == [str(path) for path in tiny.download("mask")]
    assert ctspine1k.list_files(collection="tiny", data_dir=root, scanner="old") == tiny.select("a.1").files()
    assert [file.path for file in tiny.files("points")] == [
        "old/a.1-points.json",
        "new/b_2-points.json",
        "new/c-3-points.json",
    ]


def test_it_is_in_no_hub_repo():
    tiny = ctspine1k.open_collection("tiny")
    assert len(tiny) == 3
    for verb in (tiny.files, tiny.load, tiny.scan, tiny.verify, tiny.preview):
        with pytest.raises(
            ValueError, match="expected data_dir, a folder: the files of this data set are in no"
        ):
            verb()


@pytest.mark.parametrize("storage", ["dense", "compact"])
def test_rows(tiny, root, storage):
    for split in IDS:
        assert identical(rows(tiny.load("3d", split=split, storage=storage)), wanted(root, split))
        assert identical(rows(tiny.load("3d", split=split, streaming=True)), wanted(root, split))
    slices = tiny.load("2d", storage=storage)
    assert {split: len(part) for split, part in slices.items()} == {"learn": 22, "judge": 11}
    same = ctspine1k.load_dataset("3d", collection="tiny", data_dir=root, split="learn+judge")
    assert same.info.description == TINY.description
    assert identical(rows(same), [*wanted(root, "learn"), *wanted(root, "judge")])
    regions = rows(tiny.load("3d", split="judge", label_scheme="region", geometry=True))[0]
    assert set(np.unique(regions["segmentation"])) == {0, 2}
    assert regions["source"] == ""
    with pytest.raises(ValueError, match="label_scheme='ctspine1k': expected one of 'tiny', 'region'"):
        tiny.load("3d", label_scheme="ctspine1k")
    with pytest.raises(ValueError, match="split='train': expected 'learn', 'judge' or slices of these"):
        tiny.load("3d", split="train")


@pytest.mark.parametrize(
    ("scheme", "change", "becomes"),
    [
        ("region", {"region": "lumbar"}, 3),
        ("verse", {"verse": 20}, 20),
        ("tiny", {"name": "L1", "region": "lumbar"}, 19),
    ],
)
def test_labels_that_were_corrected_are_other_rows(tiny, root, tmp_path, scheme, change, becomes):
    """In the cache, with ``verify_files=False``, and in an export."""
    options = {"label_scheme": scheme, "points": True}
    before = rows(tiny.load("3d", split="judge", **options))
    assert tiny.export_parquet(tmp_path / "out", config="3d", **options).made == 2
    first, t12, last = TINY.vocabulary.vertebrae
    vertebrae = (first, dataclasses.replace(t12, **change), last)
    vocabulary = dataclasses.replace(TINY.vocabulary, vertebrae=vertebrae)
    registry.register(dataclasses.replace(TINY, vocabulary=vocabulary))
    corrected = ctspine1k.open_collection("tiny", data_dir=root)
    with pytest.raises(FileNotFoundError, match="verify_files=False: expected converted"):
        corrected.load("3d", split="judge", verify_files=False, **options)
    (row,) = after = rows(corrected.load("3d", split="judge", **options))
    assert not identical(before, after)
    assert becomes in np.unique(row["segmentation"])
    assert corrected.export_parquet(tmp_path / "out", config="3d", **options).made == 2
    assert rows(tiny.load("3d", split="judge", **options))[0]["points"] == before[0]["points"]


def test_a_label_that_it_does_not_have_is_refused(tiny, root):
    path = root / "new/c-3-labels.nii.gz"
    mask = nib.load(path)
    voxels = np.asarray(mask.dataobj).copy()
    voxels[1, 2, 3] = 20  # CTSpine1K's L1, and below this data set's greatest label
    nib.save(nib.Nifti1Image(voxels, mask.affine, mask.header), path)
    with pytest.raises(VoxelValueError, match=r"c-3-labels\.nii\.gz: expected labels, .* found 20 among"):
        tiny.load("3d", split="judge")


def test_scan_verify_and_what_they_find(tiny, root):
    report = tiny.scan()
    cases = pd.read_parquet(report.cases).set_index("case_id")
    assert list(cases.index) == ALL_IDS
    assert set(cases.split) == set(IDS)
    assert cases.source.isna().all()
    assert all(list(labels) == list(LABELS[1:]) for labels in cases.labels)
    assert all(list(names) == ["T11", "T12", "T13"] for names in cases.vertebrae)
    found = tiny.verify()
    assert (found.measured, found.kept) == (3, 3)
    assert not {"gap", "unlisted_l6", "unexpected", "wrong_place"} & {
        finding.check for finding in found.findings
    }
    (root / "old/c-3-ct.nii.gz").write_bytes((root / "new/c-3-ct.nii.gz").read_bytes())
    (root / "new/c-3-ct.nii.gz").unlink()
    found = tiny.verify()
    assert [(f.case_id, f.expected) for f in found.findings if f.check == "wrong_place"] == [
        ("c-3", "folder new")
    ]
    assert len(tiny.where(has_vertebrae="T13")) == 3
    with pytest.raises(ValueError, match="no vertebra 'L1': expected T11 to T12 or T13"):
        tiny.where(has_vertebrae="L1")


@pytest.mark.slow
def test_pictures(tiny):
    paths = tiny.preview()
    assert [path.as_posix() for path in paths] == [f"previews/{case_id}.png" for case_id in ALL_IDS]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)
    assert [path.as_posix() for path in tiny.preview("all.png", sheet=True)] == ["all.png"]


def test_export(tiny, root, tmp_path):
    report = tiny.export_parquet(tmp_path / "out", geometry=True)
    assert (report.ok, report.made) == (True, 4)
    for split in IDS:
        loaded = datasets.load_dataset(str(tmp_path / "out"), name="3d", split=split)
        kept = [
            {name: row[name] for name in ("image", "segmentation", "patient_id", "index")}
            for row in rows(loaded)
        ]
        assert identical(kept, wanted(root, split))
    table = pd.read_parquet(tmp_path / "out/cases.parquet")
    assert table.scanner.tolist() == ["old", "new", "new"]
    card = (tmp_path / "out/README.md").read_text()
    assert "# Tiny Spines" in card
    assert "CTSpine1K" not in card
    assert "0 background, 18-19 T11-T12, 28 T13" in card
    assert f"(slices, {SHAPE[0]}, {SHAPE[1]})" in card
    assert "CC0: nothing" in card
    assert "license_name: cc0-1.0" in card


def test_export_for_nnunet(tiny, tmp_path):
    report = tiny.export_nnunet(tmp_path / "raw")
    assert (report.cases, report.files["linked"]) == ({"training": 2, "validation": 0, "test": 1}, 6)
    told = json.loads((tmp_path / "raw/Dataset511_TinySpines/dataset.json").read_text())
    assert list(told["labels"].values()) == list(range(29))  # nnU-Net wants no gaps
    assert [told["labels"][name] for name in ("T11", "T12", "T13")] == list(LABELS[1:])
    assert told["licence"] == "CC0: nothing"
    with pytest.raises(ValueError, match="label_scheme='ctspine1k': expected one of 'tiny', 'region'"):
        tiny.export_nnunet(tmp_path / "raw", label_scheme="ctspine1k")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["list", "--scanner", "new"], "b_2\tlearn\t1\tnew\tlabel_missing"),
        (["list", "--files", "--data-dir", "tree"], "c-3\tmask\t"),
        (["info", "b_2"], "scanner        new"),
        (["download", "--data-dir", "tree", "--split", "judge"], "new/c-3-ct.nii.gz"),
        (["scan", "tree", "--num-proc", "1"], "cases.vertebrae.parquet"),
        (["preview", "c-3", "--data-dir", "tree"], "c-3.png"),
        (["export", "parquet", "out", "--data-dir", "tree", "--config", "2d"], "2d learn: rows 22, shards 1"),
        (["export", "nnunet", "raw", "--data-dir", "tree"], "training 2, validation 0, test 1"),
        (["vertebrae", "T13"], "28\tT13\tthoracic"),
        (["cite"], "% The data are under CC0: nothing."),
    ],
)
def test_from_a_shell(root, capsys, words, told):
    assert main([*words, "--collection", "tiny"]) == 0, capsys.readouterr().err
    assert told in capsys.readouterr().out


@pytest.mark.processes
def test_verify_from_a_shell(root, capsys):
    assert main(["verify", "tree", "--collection", "tiny", "--json"]) == 1  # made-up voxels are no bone
    report = json.loads(capsys.readouterr().out)
    assert (report["cases"], report["measured"]) == (3, 3)


def test_points_change_what_reads_them(tiny, root):
    before = tiny.load("3d", split="judge").cache_files
    assert tiny.scan().measured == 3
    points = root / "new/c-3-points.json"
    points.write_text("[]")
    assert tiny.load("3d", split="judge").cache_files == before
    assert (tiny.scan().measured, tiny.scan().kept) == (1, 3)
    points.write_text("[1]")
    path = root / "new/c-3-ct.nii.gz"
    path.write_bytes(path.read_bytes()[:-10])
    assert files_of(tiny.verify(), "truncated") == {str(path)}  # points cannot be read without the image
    save_tiny(root)
    points.write_text("[1]")
    assert files_of(tiny.verify(), "format") == {str(points)}


def files_of(report, check):
    return {finding.file for finding in report.findings if finding.check == check}


@pytest.mark.slow
def test_a_data_set_without_masks_is_loaded_and_else_refused_by_name(root):
    registry.register(dataclasses.replace(TINY, name="images", kinds=("image",), optional=()))
    images = ctspine1k.open_collection("images", data_dir=root)
    assert [file.kind for file in images.files()] == ["image"] * 3
    assert len(images.download()) == 3
    assert images.load("3d", split="judge").column_names == ["image", "patient_id", "index"]
    assert images.scan().measured == 3
    assert images.verify().kept == 3
    assert len(images.where(has_vertebrae="T11")) == 0
    assert len(images.preview()) == 3
    with pytest.raises(
        ValueError, match="collection='images': expected image and mask of each case, found image:"
    ):
        images.export_nnunet("raw")
    with pytest.raises(ValueError, match="kind='mask': expected mask files of Tiny Spines, found none"):
        next(iter(images.points("mask")))


def test_a_collection_is_a_value(tiny):
    assert hash(tiny) == hash(ctspine1k.open_collection("tiny", data_dir=tiny.place.folder))
    copy = pickle.loads(pickle.dumps(tiny))  # noqa: S301 (our own)
    assert copy == tiny
    assert copy.files() == tiny.files()
