"""A header and the file with its voxels are one raw file: found, fetched, told apart from others and counted."""

import os
from pathlib import Path

import numpy as np
import pytest
from support.bare import BARE, image_of, save_bare

import ctspine1k
from ctspine1k.catalog import registry
from ctspine1k.catalog.companions import companions, is_metaimage
from ctspine1k.errors import ChecksumError, OutputError


@pytest.fixture(autouse=True)
def registered(monkeypatch, tmp_path):
    monkeypatch.setattr(registry, "_registered", {})
    registry.register(BARE)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def root(tmp_path):
    return save_bare(tmp_path / "tree")


def image(root, case_id="b_2"):
    selection = ctspine1k.open_collection("bare", data_dir=root).select(case_id).selection()
    return next(file for file in selection.files() if file.kind == "image"), selection.place


def test_names_alone_decide():
    assert companions("a.b/x.1.MHD") == ["a.b/x.1.raw", "a.b/x.1.zraw", "a.b/x.1.RAW", "a.b/x.1.ZRAW"]
    assert companions("a/x.mha") == companions("a/x.nii.gz") == companions("a/mhd") == []
    assert [is_metaimage(name) for name in ("x.mhd", "X.MHA", "x.mhd.gz", "x.nii")] == [
        True,
        True,
        False,
        False,
    ]


def test_the_state_and_the_size_of_a_header_are_those_of_both_files(root):
    file, place = image(root)
    assert [one.path for one in file.every] == ["b/b_2.mhd", "b/b_2.raw"]
    assert file.total == sum((root / one.path).stat().st_size for one in file.every)
    assert place.state(file) == file.state
    assert place.identity(file) == file.state
    raw = root / "b/b_2.raw"
    os.utime(raw, ns=(1, 5_000_000_001))
    changed, _ = image(root)
    assert place.state(file) == changed.state != file.state
    os.utime(raw, (1, 5))  # in whole seconds, as archives have it: the folder is added
    stamped, _ = image(root)
    assert f" + {root}/b/b_2.raw" in place.identity(stamped)
    raw.unlink()
    alone, _ = image(root)
    assert alone.beside == ()
    assert alone.state not in (file.state, changed.state)


def test_a_file_without_others_is_as_before(root):
    file, place = image(root, "a.1")
    assert file.every == (file,)
    assert file.total == file.size
    assert (
        place.state(file) == file.state == f"a/a.1.nii.gz {file.size} {Path(file.local).stat().st_mtime_ns}"
    )


def test_from_the_hub_both_are_fetched_and_checked(hub, publish, root):
    repo_id = publish(root)
    bare = ctspine1k.open_collection("bare", repo_id=repo_id)
    assert bare.plan_download().bytes_needed == sum(
        path.stat().st_size for path in root.rglob("*") if path.is_file()
    )
    stream = bare.load("3d", split="learn", streaming=True, storage="compact")
    assert [np.array_equal(row["image"], image_of(row["patient_id"])) for row in stream] == [True, True]
    loaded = bare.load("3d", split="learn", storage="compact")
    assert np.array_equal(loaded[1]["image"], image_of("b_2"))
    paths = bare.select("b_2").download("image")
    raw = paths[0].with_name("b_2.raw")
    assert [path.name for path in paths] == ["b_2.mhd"]
    assert bare.select("b_2").plan_download().needed == ()
    blob = raw.resolve()
    blob.chmod(0o644)
    blob.write_bytes(blob.read_bytes() + b"x")
    with pytest.raises(ChecksumError, match=r"b_2\.raw"):
        bare.select("b_2").download("image")
    raw.unlink()
    assert [file.path for file in bare.select("b_2").plan_download("image").needed] == ["b/b_2.mhd"]


def test_copies_keep_both_files_together_under_the_headers_name(root, tmp_path):
    bare = ctspine1k.open_collection("bare", data_dir=root)
    paths = bare.select("b_2").download("image", to=tmp_path / "to")
    assert paths == [tmp_path / "to/b/b_2.mhd"]
    copied = paths[0].with_name("b_2.raw")
    assert copied.read_bytes() == (root / "b/b_2.raw").read_bytes()
    copied.write_bytes(b"another")
    paths[0].unlink()
    with pytest.raises(OutputError, match=r"something else at 1 path: b/b_2\.raw"):
        bare.download("image", to=tmp_path / "to")
    assert [path.name for path in (tmp_path / "to").rglob("*.*")] == ["b_2.raw"]
