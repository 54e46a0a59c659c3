"""Phantoms of VerSe and of the Microsoft database go through every verb, from Python and from a shell."""

import contextlib
import io
import json
from pathlib import Path

import datasets
import duckdb
import nibabel as nib
import numpy as np
import pandas as pd
import polars as pl
import pytest
from support.compare import identical, large_rows, rows

import ctspine1k
from ctspine1k.cli.main import main
from ctspine1k.demo.phantom import make_phantom
from ctspine1k.demo.small import PHANTOMS
from ctspine1k.errors import VoxelValueError

#: Cases by split, in order; those of train and test have slices of one size, except one of each data set.
IDS = {
    "verse": {
        "train": ["verse004", "verse223", "verse265"],
        "validation": ["gl017", "verse090"],
        "test": ["verse512"],
    },
    "msr": {"train": ["4528990", "4543953", "4553575"], "test": ["4633999"]},
}
SQUARE = {"verse": ["verse223", "verse265"], "msr": ["4528990", "4553575"]}


@pytest.fixture(params=PHANTOMS)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    return {name: make_phantom(tmp_path_factory.mktemp("demo") / name, name) for name in PHANTOMS}


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def root(name, roots):
    return roots[name]


def opened(name, root):
    return ctspine1k.open_collection(name, data_dir=root, split_file=root / "split.txt")


@pytest.fixture
def spine(name, root):
    return opened(name, root)


def voxels_of(path):
    """The stored voxels of a file by another path, (k, i, j)."""
    if path.suffix == ".mhd":
        told = dict(line.split(" = ") for line in path.read_text().splitlines())
        shape = tuple(map(int, told["DimSize"].split()))
        stored = np.fromfile(path.with_suffix(".raw"), "<i2").reshape(shape, order="F")
    else:
        stored = np.asarray(nib.load(path).dataobj)
    return stored.transpose(2, 0, 1)


def right(spine, case_id):
    files = {file.kind: Path(file.local) for file in spine.select(case_id).files()}
    found = {"image": voxels_of(files["image"]).astype("f4")}
    return found | ({"segmentation": voxels_of(files["mask"]).astype("i4")} if "mask" in files else {})


@pytest.mark.slow
def test_the_same_rows_dense_compact_and_streamed(spine, name):
    for split, ids in IDS[name].items():
        assert [case.case_id for case in spine.where(split=split)] == ids
        stream = rows(spine.load("3d", split=split, streaming=True, storage="compact", points=True))
        assert identical(rows(spine.load("3d", split=split, storage="compact", points=True)), stream)
        assert [row["patient_id"] for row in stream] == ids
        arrays = [
            {column: row[column] for column in ("image", "segmentation") if column in row} for row in stream
        ]
        assert identical(arrays, [right(spine, case_id) for case_id in ids])
        assert [row["points"] is None for row in stream] == [case_id == "gl017" for case_id in ids]
    called = {
        "collection": name,
        "data_dir": spine.place.folder,
        "split_file": spine.place.folder / "split.txt",
    }
    stored = ctspine1k.load_dataset("3d", split="test", storage="compact", points=True, **called)
    assert identical(rows(stored), rows(spine.load("3d", split="test", storage="compact", points=True)))
    square = spine.select(SQUARE[name])
    for config in ("3d", "2d"):
        options = {"split": "train", "points": True}
        dense = rows(square.load(config, image_size=(80, 80), **options))
        assert identical(dense, rows(square.load(config, storage="compact", **options)))
        assert identical(dense, rows(square.load(config, image_size=(80, 80), streaming=True, **options)))
        assert ("segmentation" in dense[0]) == (name == "verse")
    with pytest.raises(
        ValueError, match=r"image_size=None: slices of .* differ in size.*storage=\"compact\""
    ):
        spine.load("3d", split="train")


@pytest.mark.slow
def test_points_stay_on_their_vertebrae_when_rows_are_turned_and_resampled(roots):
    verse = opened("verse", roots["verse"])
    options = {"storage": "compact", "points": True, "orientation": "RAS", "spacing": (2, 2, 2)}
    for row in rows(verse.load("3d", split="train+test", **options)):
        for point in row["points"]:
            assert row["segmentation"][tuple(np.rint(point["voxel"]).astype(int))] == point["label"]


LAYOUTS = [
    (
        "dataset-verse19training/dataset-verse19training/{tree}/sub-verse408/sub-verse408_split-verse223_{end}",
        1,
    ),
    ("dataset-verse19training/dataset-01training/{tree}/sub-verse408/sub-verse408_split-verse223_{end}", 1),
    ("01_training/{tree}/sub-verse408/sub-verse408_split-verse223_{end}", 1),
    ("verse223{end}", 0),
    ("verse408/verse408_verse223_CT-iso{end}", 0),
]


@pytest.mark.parametrize(("layout", "is_subject_based"), LAYOUTS)
def test_all_layouts_hold_the_same_rows(roots, tmp_path, layout, is_subject_based):
    phantom = opened("verse", roots["verse"]).select("verse223")
    ends = ("ct.nii.gz", "seg-vert_msk.nii.gz") if is_subject_based else (".nii.gz", "_seg.nii.gz")
    for kind, end, tree in zip(("image", "mask"), ends, ("rawdata", "derivatives"), strict=True):
        link = tmp_path / "tree" / layout.format(tree=tree, end=end)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(phantom.files(kind)[0].local)
        (link.parent / f"._{link.name}").write_text("what macOS leaves")
    found = ctspine1k.open_collection("verse", data_dir=tmp_path / "tree").select("verse223")
    (row,) = rows(found.load("3d", split="train", storage="compact"))
    assert identical([{key: row[key] for key in ("image", "segmentation")}], [right(phantom, "verse223")])


def test_t13_becomes_a_label_of_ctspine1k_only_when_told_how(roots):
    verse = opened("verse", roots["verse"])
    t13 = verse.select("verse512")
    options = {"split": "test", "storage": "compact", "label_scheme": "ctspine1k"}
    with pytest.raises(
        VoxelValueError,
        match=r"whole numbers from 0 to 25, found 28 .* that label_scheme has no number for, other_labels=",
    ):
        t13.load("3d", **options)
    (row,) = rows(t13.load("3d", other_labels="background", points=True, **options))
    own = right(t13, "verse512")["segmentation"]
    assert np.array_equal(row["segmentation"], np.where(own == 28, 0, own))
    assert [(point["label"], point["name"]) for point in row["points"]] == [
        (19, "T12"),
        (20, "L1"),
        (28, "T13"),
    ]
    (row,) = rows(t13.load("3d", split="test", storage="compact", label_scheme="region"))
    assert set(np.unique(row["segmentation"])) == {0, 2, 3}
    others = verse.select("verse004")
    (row,) = rows(others.load("3d", **{**options, "split": "train"}))
    assert np.array_equal(row["segmentation"], right(others, "verse004")["segmentation"])


def test_copies(spine, name, tmp_path):
    copies = spine.download(to=tmp_path / "copies")
    assert len(copies) == len(spine.files())
    copied = ctspine1k.open_collection(
        name, data_dir=tmp_path / "copies", split_file=spine.place.folder / "split.txt"
    )
    assert [one.case.case_id for one in copied.files()] == [one.case.case_id for one in spine.files()]


@pytest.mark.slow
def test_an_export_of_slices_that_differ_in_size_loads_everywhere(spine, name, tmp_path):
    out = tmp_path / "out"
    assert spine.export_parquet(out, points=True).ok
    for split in IDS[name]:
        wanted = spine.load("3d", split=split, storage="compact", points=True)
        arrays = {row["patient_id"]: row for row in rows(wanted)}
        assert len({row["image"].shape for row in arrays.values()}) > 1 or split == "test"
        volumes = datasets.load_dataset(str(out), name="3d", split=split)
        assert volumes["points"][:] == wanted["points"][:]
        for row in volumes.with_format("numpy"):
            assert_same_voxels(row, arrays[row["patient_id"]])
        slices = [str(path) for path in out.glob(f"2d/{split}/*.parquet")]
        stream = datasets.load_dataset("parquet", data_files=slices, split="train", streaming=True)
        found = list(stream.with_format("numpy"))
        assert len(found) == sum(len(row["image"]) for row in arrays.values())
        for row in found:
            assert_same_voxels(row, arrays[row["patient_id"]], row["slice_index"])
    (shard,) = out.glob("3d/test/*.parquet")
    assert_voxels_as_others_read_them(str(shard), *arrays.values())
    square = spine.select(SQUARE[name])
    assert square.export_parquet(tmp_path / "square", image_size=(80, 80), config="3d").ok
    loaded = datasets.load_dataset(str(tmp_path / "square"), name="3d", split="train")
    assert loaded.features["image"] == datasets.Array3D((None, 80, 80), "float32")
    for row in large_rows(loaded):
        own = right(spine, row["patient_id"])
        assert identical([{key: row[key] for key in own}], [own])
    card = (out / "README.md").read_text()
    assert spine.data_set.licence_text(spine) in card
    table = pd.read_parquet(out / "cases.parquet")
    assert set(spine.catalog.facts) <= set(table.columns)


def assert_same_voxels(row, own, place=slice(None)):
    assert row["image"].dtype == np.float32
    for column in ("image", "segmentation"):
        assert (column in row) == (column in own)
        assert column not in own or np.array_equal(row[column], own[column][place])


def assert_voxels_as_others_read_them(shard, row):
    columns = [column for column in ("image", "segmentation") if column in row]
    frame, polar = pd.read_parquet(shard), pl.read_parquet(shard)
    (duck,) = duckdb.sql(f"select {', '.join(columns)} from '{shard}'").fetchall()
    for at, column in enumerate(columns):
        assert np.array_equal(stacked(frame[column].iloc[0]), row[column])
        for found in (polar[column][0].to_list(), duck[at]):
            assert np.array_equal(np.asarray(found, row[column].dtype), row[column])


def stacked(nested):
    """An array from arrays of arrays, as pandas has them."""
    return np.stack([stacked(one) if one.dtype.kind == "O" else one for one in nested])


@pytest.mark.slow
def test_scan_verify_points_and_pictures(spine, name, tmp_path):
    report = spine.verify(tmp_path / "cases.parquet")
    assert report.findings == ()
    assert report.measured == len(spine)
    table = pd.read_parquet(spine.scan(tmp_path / "cases.parquet").cases).set_index("case_id")
    assert list(table.index) == [case.case_id for case in spine]
    holding = spine.where(has_vertebrae=["L3"], scan=tmp_path / "cases.parquet")
    assert [case.case_id for case in holding] == {"verse": ["gl017"], "msr": ["4543953", "4633999"]}[name]
    with_file = [file.case.case_id for file in spine.files("points")]
    given = {case.case_id: points for case, points in spine.select(with_file).points("file")}
    assert list(given) == [case.case_id for case in spine if case.case_id != "gl017"]
    if name == "verse":
        for case, computed in spine.select(list(given)).points("body"):
            for one, other in zip(given[case.case_id], computed, strict=True):
                assert one.label == other.label
                assert np.linalg.norm(np.subtract(one.mm, other.mm)) < 5
    else:
        with pytest.raises(ValueError, match="kind='body': expected mask files of Microsoft"):
            list(spine.points("body"))
    paths = spine.preview("pictures")
    assert [path.stem for path in paths] == [case.case_id for case in spine]
    assert spine.select(with_file[:2]).preview("sheet.png", sheet=True)


def run(*words):
    """Run a command; return its status and output."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(list(map(str, words)))
    return status, out.getvalue(), err.getvalue()


@pytest.mark.slow
def test_from_a_shell(spine, name, root, tmp_path):
    place = ["--data-dir", root, "--split-file", root / "split.txt", "--collection", name]
    status, out, _ = run("list", "--files", "--json", *place)
    assert status == 0
    assert len(json.loads(out)) == len(spine.files())
    status, out, _ = run("download", "--kind", "points", *place, "--on-missing", "skip")
    assert status == 0
    assert out.split() == [file.local for file in spine.files("points")]
    status, out, err = run(
        "export",
        "parquet",
        tmp_path / "out",
        *place,
        "--case",
        SQUARE[name][0],
        "--config",
        "3d",
    )
    assert status == 0, err
    status, out, _ = run("points", "--kind", "file", "--on-missing", "skip", "--num-proc", "1", *place)
    assert status == 0
    assert f"{SQUARE[name][0]}\tfile\t" in out
    own = {"verse": ["--other-labels", "background"], "msr": ["--reading", "spacing"]}[name]
    status, out, err = run("preview", SQUARE[name][1], *place, *own)
    assert (status, out) == (0, f"{SQUARE[name][1]}.png\n"), err
    for verb in ("scan", "verify"):
        status, _, err = run(
            verb,
            "--num-proc",
            "1",
            *place,
            *own,
            "--scan" if verb == "verify" else "--out",
            tmp_path / "cases.parquet",
        )
        assert status == 0, err
    status, out, err = run("export", "nnunet", tmp_path / "raw", *place)
    if name == "verse":
        assert status == 0, err
        told = json.loads((tmp_path / "raw/Dataset511_VerSe/dataset.json").read_text())
        assert told["labels"]["T13"] == 28
        assert "of 1 case, CC BY-NC-ND" in told["licence"]
    else:
        assert status == 2
        assert "expected image and mask of each case, found image and points" in err


@pytest.mark.slow
def test_the_demo(name, tmp_path):
    status, out, err = run("demo", "--collection", name)
    assert (status, err) == (0, "")
    counts = [f"{split} {len(ids)} {'row' if len(ids) == 1 else 'rows'}" for split, ids in IDS[name].items()]
    assert out.startswith(f"3d: {', '.join(counts)}\n")
    assert ("segmentation" in out) == (name == "verse")
