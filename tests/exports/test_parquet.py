"""Exports: what they hold, and who can read it."""

import hashlib
import json
import os
from pathlib import Path

import datasets
import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pytest
from support.compare import CONFIGS, identical, large_rows, rows, wanted
from support.exports import export_parquet, same
from support.paths import names_of_bytes
from support.volumes import AFFINE, ALL_IDS, IDS, break_case, files_of, intensities, labels, save, save_case

import ctspine1k
from ctspine1k import RowOptions
from ctspine1k.errors import (
    GeometryWarning,
    SkippedCasesWarning,
    VoxelWarning,
)


def loaded(out, name, **options):
    """The rows as `datasets` loads them, from a folder or a repo, in a cache of its own."""
    return datasets.load_dataset(str(out), name=name, **options)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")


@pytest.mark.slow
def test_rows_are_those_that_load_dataset_gives(export, out, load, name, tree):
    report = export()
    assert report.ok
    assert (report.made, report.kept, report.failed, report.skipped) == (6, 0, {}, {})
    here = loaded(out, name)
    there = load(name)
    assert list(here) == list(there) == list(IDS)
    for split in IDS:
        assert here[split].features == there[split].features
        assert identical(rows(here[split]), rows(there[split]))
        assert identical(rows(here[split]), wanted(tree, name, split))
        streamed = loaded(out, name, split=split, streaming=True)
        assert streamed.features == there[split].features
        assert identical(rows(streamed), wanted(tree, name, split))


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"geometry": True},
        {"orientation": "PIR", "geometry": True, "image_size": (7, 7)},
        {"label_scheme": "region"},
        {"other_labels": "background", "split": "validation"},
        {"split": "train"},
        {"cases": ["liver_106", "HN_P023"]},
    ],
    ids=str,
)
def test_options_are_those_of_load_dataset(export, out, load, name, options, tmp_path):
    if "orientation" in options:
        for case_id in ALL_IDS:
            save_case(tmp_path / "tree", case_id, shape=(7, 7, 7))
    if "other_labels" in options:
        save(next((tmp_path / "tree").rglob("HN_P023_seg.nii.gz")), np.full((6, 5, 5), 26, np.uint8))
    export(config=name, **options)
    own = ("geometry", "orientation", "label_scheme", "other_labels")
    same_there = {key: options[key] for key in own if key in options}
    if "image_size" in options:
        same_there["image_size"] = options["image_size"]
    there = load(name, splits=options.get("split"), cases=options.get("cases"), **same_there)
    here = loaded(out, name)
    assert list(here) == list(there)
    for split in there:
        assert here[split].features == there[split].features
        assert identical(rows(here[split]), rows(there[split]))


def test_slices_that_an_orientation_makes_may_differ_in_size(export, out, load, name):
    turned = {"split": "train", "orientation": "ASR", "image_size": None}
    assert export(config=name, **turned).ok
    found = large_rows(loaded(out, name, split="train"))
    assert len({row["image"].shape[-1] for row in found}) == 2  # the numbers of axial slices
    assert identical(found, large_rows(load(name, storage="compact", **turned)))


def test_slices_of_another_size_say_what_an_export_can_do(export, tree):
    save_case(tree, "HN_P023", shape=(5, 6, 4))
    (reason,) = export(config="3d", split="validation").failed.values()
    assert "HN_P023.nii.gz: expected slices of 6 x 5, found 5 x 6. Slices are not resized" in reason
    assert "with image_size=(i, j) (--image-size I J), or leave this case out with on_error=" in reason
    assert "storage" not in reason


@pytest.mark.processes
def test_two_processes_make_what_one_makes(export, out, load, tmp_path):
    assert export(cases_per_shard=1, num_proc=2).made == 8
    export(tmp_path / "alone", cases_per_shard=1)
    assert same(out, tmp_path / "alone")
    for name in CONFIGS:
        here, there = loaded(out, name), load(name)
        assert list(here) == list(there)
        for split in there:
            assert here[split].features == there[split].features
            assert identical(rows(here[split]), rows(there[split]))


ALONE = """
import sys
sys.modules["ctspine1k"] = None  # it is not there
import datasets, hashlib, numpy as np
for out in sys.argv[1:]:
    for name in ("3d", "2d"):
        digest = hashlib.sha256()
        for row in datasets.load_dataset(out, name=name, split="train", streaming=True):
            digest.update(np.asarray(row["image"], "f4").tobytes() + np.asarray(row["segmentation"], "i4").tobytes())
        whole = datasets.load_dataset(out, name=name)
        other = hashlib.sha256()
        for row in whole["train"].with_format("numpy"):
            other.update(row["image"].astype("f4").tobytes() + row["segmentation"].astype("i4").tobytes())
        print(name, digest.hexdigest() == other.hexdigest(), digest.hexdigest(), whole.num_rows)
    print(datasets.load_dataset(out, name="cases", split="cases")["case_id"][:])
"""


def digest_of(tree, name):
    digest = hashlib.sha256()
    for row in wanted(tree, name, "train"):
        digest.update(row["image"].tobytes() + row["segmentation"].tobytes())
    return digest.hexdigest()


@pytest.mark.processes
def test_it_loads_without_this_package(export, out, tree, python, publish):
    """From a folder and from the Hub."""
    export(geometry=True)
    run = python(ALONE, str(out), publish(out))
    counts = {
        "3d": "{'train': 2, 'validation': 1, 'test': 1}",
        "2d": "{'train': 7, 'validation': 5, 'test': 6}",
    }
    told = [*(f"{name} True {digest_of(tree, name)} {counts[name]}" for name in CONFIGS), str(ALL_IDS)]
    assert run.stdout.splitlines() == [*told, *told], run.stderr


@pytest.mark.slow
def test_from_a_repo_as_from_a_folder(export, out, tree, name, publish):
    export()
    repo_id = publish(out)
    for split in IDS:
        assert identical(rows(loaded(repo_id, name, split=split)), wanted(tree, name, split))
        assert identical(rows(loaded(repo_id, name, split=split, streaming=True)), wanted(tree, name, split))


def test_other_readers_read_a_shard_and_the_cases(export, out, tree):
    export(config="2d")
    shard = out / "2d/train/00000-of-00001.parquet"
    right = wanted(tree, "2d", "train")
    images = np.stack([row["image"] for row in right])
    masks = np.stack([row["segmentation"] for row in right])
    frame = pd.read_parquet(shard)
    polar = pl.read_parquet(shard)
    duck = duckdb.sql(f"select image, segmentation, slice_index from '{shard}'").fetchall()
    for read in (
        [np.stack([np.stack(image) for image in frame[column]]) for column in ("image", "segmentation")],
        [np.array(polar[column].to_list()) for column in ("image", "segmentation")],
        [np.array([row[column] for row in duck]) for column in (0, 1)],
    ):
        assert np.array_equal(np.asarray(read[0], np.float32).view(np.uint32), images.view(np.uint32))
        assert np.array_equal(read[1], masks)
    assert [row[2] for row in duck] == [row["slice_index"] for row in right]
    cases = out / "cases.parquet"
    assert list(pd.read_parquet(cases)["case_id"]) == ALL_IDS
    assert pl.read_parquet(cases)["split"].to_list() == ["train", "train", "validation", "test"]
    assert duckdb.sql(f"select count(*) from '{cases}' where source = 'MSD-T10'").fetchall() == [(1,)]


@pytest.mark.slow
def test_the_manifest_tells_what_was_made_of_what(export, out, tree, repo_id):
    export()
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["source"] == {"folder": "tree"}
    for path, data in files_of(tree).items():
        assert manifest["files"][path] == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    for shard in manifest["shards"]:
        data = (out / shard["path"]).read_bytes()
        assert (shard["bytes"], shard["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
    assert sum(shard["rows"] for shard in manifest["shards"]) == 4 + 18
    assert manifest["options"]["geometry"] is False
    assert manifest["versions"]["ctspine1k"] == ctspine1k.__version__
    assert str(tree) not in "".join(data.decode("latin-1") for data in files_of(out).values())
    export(out.with_name("from_hub"), repo_id=repo_id)
    other = json.loads((out.with_name("from_hub") / "manifest.json").read_text())
    assert list(other["source"]) == ["repo_id", "commit"]
    assert other["files"] == manifest["files"]


def test_a_shard_without_rows_is_read_beside_one_with_some(export, out, tree, load, name):
    break_case(tree, "liver_106")
    assert export(config=name, cases_per_shard=1, on_error="skip").ok
    assert [pl.read_parquet(path).height > 0 for path in sorted(out.glob(f"{name}/train/*"))] == [True, False]
    with pytest.warns(SkippedCasesWarning):
        there = load(name, split="train", on_error="skip")
    assert identical(rows(loaded(out, name, split="train")), rows(there))
    assert identical(rows(loaded(out, name, split="train", streaming=True)), rows(there))
    count = f"select count(*) from '{out}/{name}/train/*.parquet'"
    assert duckdb.sql(count).fetchall() == [(len(there),)]


@pytest.mark.slow
def test_cases_that_are_left_out_are_named_in_manifest_and_card(export, out, tree, load, name):
    break_case(tree, "liver_106")
    next(tree.rglob("HN_P023_seg.nii.gz")).unlink()
    with pytest.warns(SkippedCasesWarning, match="HN_P023"):
        report = export(on_error="skip", on_missing="skip")
    assert report.ok
    assert set(report.skipped) == {"liver_106", "HN_P023"}
    assert report.skipped["HN_P023"] == "no mask file"
    assert json.loads((out / "manifest.json").read_text())["skipped"] == report.skipped
    card = (out / "README.md").read_text()
    assert "| `HN_P023` | no mask file |" in card
    assert "| `liver_106` | " in card
    with pytest.warns(SkippedCasesWarning):
        there = load(name, on_error="skip", on_missing="skip")
    here = loaded(out, name)
    assert list(here) == list(there) == ["train", "test"]
    assert identical(rows(here["train"]), rows(there["train"]))


def test_masks_that_lie_elsewhere_are_told_once(export, tree):
    save(next(tree.rglob("liver_106_seg.nii.gz")), np.zeros((6, 5, 4), "u1"), affine=np.diag([9, 8, 7, 1.0]))
    with pytest.warns(GeometryWarning, match="liver_106") as told:
        export()
    assert len([one for one in told if issubclass(one.category, GeometryWarning)]) == 1
    report = export(on_geometry="raise", out=tree.parent / "strict", config="3d")
    assert list(report.failed) == ["liver_106 (3d/train/00000-of-00001.parquet)"]
    # Of what is there, only what a stricter policy would have decided otherwise is looked at again.
    assert (export(on_geometry="raise").kept, len(export(on_geometry="raise").failed)) == (4, 2)


def test_masks_that_are_stored_otherwise_are_turned_by_their_own_headers(export, tree, out):
    mask = labels(1, (6, 5, 4))
    backwards = AFFINE @ np.diag([-1, 1, 1, 1.0])
    backwards[:3, 3] += AFFINE[:3, 0] * 5
    save(next(tree.rglob("liver_106_seg.nii.gz")), mask[::-1], affine=backwards)
    report = export(orientation="RAS", on_geometry="raise", config="3d")
    assert report.ok
    row = next(row for row in rows(loaded(out, "3d")["train"]) if row["patient_id"] == "liver_106")
    assert np.array_equal(row["segmentation"], np.transpose(mask[::-1], (2, 0, 1)))


def test_headers_that_contradict_themselves_are_told_once(export, tree):
    save(
        next(tree.rglob("liver_106.nii.gz")), intensities(1, (6, 5, 4)), pixdim=[-1, 0.7, 0.8, 9, 0, 0, 0, 0]
    )
    with pytest.warns(GeometryWarning, match="liver_106.*by the sform, .* by pixdim") as told:
        assert export().ok
    assert len([one for one in told if issubclass(one.category, GeometryWarning)]) == 1
    report = export(on_geometry="raise", out=tree.parent / "strict", config="3d")
    assert list(report.failed) == ["liver_106 (3d/train/00000-of-00001.parquet)"]


def test_labels_that_were_rounded_are_told_once(export, tree, load, name):
    save(next(tree.rglob("liver_106_seg.nii.gz")), labels(1, (6, 5, 4), "<f4") * 5, slope=0.2, inter=0)
    with pytest.warns(VoxelWarning, match=r"liver_106_seg\.nii\.gz: .* is read as ") as told:
        report = export()  # volumes and slices
    assert len(told) == 1
    with pytest.warns(VoxelWarning):
        there = load(name, split="train")
    assert identical(rows(loaded(report.out, name, split="train")), rows(there))


@pytest.mark.slow
def test_voxels_that_are_not_finite_are_replaced_when_asked(export, tree, load, name):
    values = intensities(1, (6, 5, 4), "<f4")
    values[1, 2, 3] = np.inf
    save(next(tree.rglob("liver_106.nii.gz")), values)
    made = ["liver_106 (3d/train/00000-of-00001.parquet)", "liver_106 (2d/train/00000-of-00001.parquet)"]
    assert sorted(export().failed) == sorted(made)
    with pytest.warns(VoxelWarning, match=r"inf at \(i, j, k\) = \(1, 2, 3\)$") as told:
        report = export(on_voxels="replace")
    assert report.ok
    assert len(told) == 1
    with pytest.warns(VoxelWarning):
        there = load(name, split="train", on_voxels="replace")
    assert identical(rows(loaded(report.out, name, split="train")), rows(there))
    manifest = json.loads((Path(report.out) / "manifest.json").read_text())
    assert manifest["options"]["on_voxels"] == "replace"
    assert sorted(export().failed) == sorted(made)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"on_voxels": "skip"}, "on_voxels='skip': expected one of 'raise', 'replace'"),
        ({"config": "4d"}, "config='4d': expected one of '3d', '2d', 'all'"),
        ({"num_proc": 0}, "num_proc=0: expected 1 or more"),
        ({"cases_per_shard": 0}, "cases_per_shard=0: expected 1 or more"),
        ({"on_error": "ignore"}, "on_error='ignore': expected one of"),
        ({"on_missing": "ignore"}, "on_missing='ignore': expected one of"),
        ({"orientation": "ABC"}, "orientation='ABC'"),
        ({"num_proc": 2, "scheduler": "tcp://127.0.0.1:1"}, "num_proc is for processes of this machine"),
        ({"cases": []}, "no case is selected"),
        ({"out": "tree"}, "is data_dir: use a separate folder"),
        ({"out": "tree/../tree"}, "is data_dir: use a separate folder"),
    ],
)
def test_bad_arguments(export, out, options, message, tree):
    if "out" in options:
        options = {"out": tree.parent / options["out"]}
    with pytest.raises(ValueError, match=message):
        export(**options)
    assert not out.exists()


def test_an_export_has_the_slices_of_the_files(out, tree):
    cases = ctspine1k.open_collection(data_dir=tree).select(ALL_IDS)
    for options in (RowOptions("2d", plane="axial"), RowOptions(spacing=(1, 1, 2))):
        with pytest.raises(ValueError, match="expected None, since an export has the files' own slices"):
            cases.export_parquet(out, rows=options)


@names_of_bytes
def test_a_folder_whose_name_is_not_utf8(export, tmp_path, out):
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/o\xff"))
    assert export(odd).ok
    export(out)
    assert same(odd, out)


@pytest.mark.slow
def test_real_ct(sample, tmp_path, load, name):
    options = {"data_dir": sample, "split_file": sample / "metadata/data_split.txt"}
    report = export_parquet(tmp_path / "out", config=name, **options)
    there = ctspine1k.load_dataset(name, cache_dir=tmp_path / "cache", **options)
    raw = sum(path.stat().st_size for path in sample.rglob("*.nii.gz"))
    assert sum(size.bytes for size in report.sizes) <= 1.05 * raw
    assert sum(split.dataset_size for split in there.values()) >= 6 * sum(size.bytes for size in report.sizes)
    for split in there:
        exported = loaded(tmp_path / "out", name, split=split)
        assert identical(large_rows(exported), large_rows(there[split]))
