"""Rows with points, and rows without masks: a data set has what its kinds of files say."""

import json

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
from support.bare import ALL_IDS, BARE, IDS, POINTS, SHAPE, image_of, save_bare
from support.compare import identical, rows
from support.metaimage import AFFINE
from support.tiny import TINY, save_tiny
from support.volumes import save

import ctspine1k
from ctspine1k.catalog import registry
from ctspine1k.cli.main import main
from ctspine1k.errors import FileFormatError, PointsError, SkippedCasesWarning
from ctspine1k.rows.builder import CTSpine1K
from ctspine1k.rows.options import RowOptions

#: mm along the axes of the array, (k, i, j), of `support.bare`.
SPACING = (2.5, 0.3125, 0.5)


@pytest.fixture(autouse=True)
def registered(monkeypatch, tmp_path):
    monkeypatch.setattr(registry, "_registered", {})
    registry.register(BARE)
    registry.register(TINY)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def root(tmp_path):
    return save_bare(tmp_path / "tree")


@pytest.fixture
def bare(root):
    return ctspine1k.open_collection("bare", data_dir=root)


def check_points(points, case_id, affine=AFFINE):
    """Points of a volume, of which only mm do not depend on its grid, which has this affine."""
    assert [(one["label"], one["name"]) for one in points] == [
        (BARE.vocabulary.label(name), name) for name in POINTS[case_id]
    ]
    for one, place in zip(points, POINTS[case_id].values(), strict=True):
        np.testing.assert_allclose(one["mm"], (AFFINE @ [*place, 1])[:3], atol=1e-4)
        k, i, j = one["voxel"]
        np.testing.assert_allclose((np.asarray(affine) @ [i, j, k, 1])[:3], one["mm"], atol=1e-4)


@pytest.mark.parametrize("storage", ["dense", "compact"])
def test_volumes_have_image_and_points_alone(bare, storage):
    options = {"storage": storage, "image_size": SHAPE[:2]}
    loaded = bare.load("3d", split="learn", geometry=True, **options)
    geometry = ["source", "spacing", "affine", "array_affine", "orientation"]
    assert loaded.column_names == ["image", "patient_id", "index", *geometry, "points"]
    for row, case_id in zip(loaded, IDS["learn"], strict=True):
        assert np.array_equal(row["image"], image_of(case_id))
        assert row["spacing"] == pytest.approx(SPACING)
        check_points(row["points"], case_id)
        for point, (i, j, k) in zip(row["points"], POINTS[case_id].values(), strict=True):
            assert point["voxel"] == pytest.approx((k, i, j), abs=1e-4)
    stream = bare.load("3d", split="learn", streaming=True, **options)
    assert identical(rows(stream), rows(bare.load("3d", split="learn", **options)))
    without = bare.load("3d", split="learn", points=False, **options)
    assert without.column_names == ["image", "patient_id", "index"]


@pytest.mark.parametrize("storage", ["dense", "compact"])
def test_a_slice_has_the_points_that_it_is_nearest_to(bare, storage):
    options = {"storage": storage, "image_size": SHAPE[:2]}
    loaded = bare.load("2d", split="learn", **options)
    assert loaded.column_names == ["image", "patient_id", "index", "slice_index", "points"]
    found = rows(loaded)
    assert np.array_equal([row["image"] for row in found[:11]], image_of("a.1"))
    named = [[point["name"] for point in row["points"]] for row in found]
    assert named[:11] == [["T13"], ["T12"], *[[]] * 8, ["T11"]]  # 0.5 is the second's
    assert named[11:] == [*[[]] * 6, ["T12"], *[[]] * 4]
    assert found[1]["points"][0]["voxel"] == pytest.approx((0.5, 8, 6), abs=1e-4)
    assert identical(rows(bare.load("2d", split="learn", streaming=True, **options)), found)


@pytest.mark.parametrize(
    "options", [{"orientation": "LPI"}, {"orientation": "SRA"}, {"spacing": (1.1, 0.7, 1.3)}]
)
def test_voxels_are_those_of_the_array_turned_or_resampled(bare, options):
    for row in bare.load("3d", split="learn", storage="compact", geometry=True, **options):
        check_points(row["points"], row["patient_id"], row["affine"])
    for row in bare.load("2d", split="learn", storage="compact", geometry=True, **options):
        for point in row["points"]:
            place = np.linalg.inv(row["array_affine"]) @ [*point["mm"], 1]
            np.testing.assert_allclose(point["voxel"], place[:3], atol=1e-4)


def test_points_of_each_plane_are_all_there(bare):
    for plane in ("sagittal", "coronal"):
        found = bare.load("2d", split="learn", storage="compact", plane=plane)
        names = sorted(point["name"] for row in found for point in row["points"])
        assert names == ["T11", "T12", "T12", "T13"]
        for row in found:
            for point in row["points"]:
                assert row["slice_index"] == np.floor(point["voxel"][0] + 0.5)


def test_a_lazy_row_without_masks(bare):
    lazy = ctspine1k.LazyDataset(bare.load("3d", split="learn", storage="compact"))
    row = lazy[1]
    assert np.array_equal(row.image[3:5, 2:7, :], image_of("b_2")[3:5, 2:7, :])
    assert [point["name"] for point in row.points] == ["T12"]
    assert "segmentation" not in row
    assert lazy.verify() == []


def test_no_file_of_points_is_none_and_an_empty_one_is_a_list(tmp_path):
    root = save_tiny(tmp_path / "tiny")
    tiny = ctspine1k.open_collection("tiny", data_dir=root)
    (root / "new/b_2-points.json").unlink()
    (root / "new/c-3-points.json").write_text(json.dumps([{"direction": ["L", "A", "S"]}]))
    for streaming in (False, True):
        loaded = tiny.load("3d", points=True, streaming=streaming)
        found = [row["points"] for part in loaded.values() for row in part]
        assert [points if points is None else len(points) for points in found] == [1, None, 0]
    slices = rows(tiny.load("2d", split="learn", points=True))
    assert [row["points"] is None for row in slices] == [False] * 11 + [True] * 11
    assert "points" not in tiny.load("3d", split="learn").column_names


def test_rows_are_made_again_if_what_they_are_made_of_changes(bare, root, tmp_path):
    options = {"split": "learn", "storage": "compact"}
    before = bare.load("3d", **options).cache_files
    assert bare.load("3d", **options).cache_files == before
    raw = root / "b/b_2.raw"
    raw.write_bytes(raw.read_bytes()[::-1])
    changed = bare.load("3d", **options)
    assert changed.cache_files != before
    assert not np.array_equal(changed[1]["image"], image_of("b_2"))
    without = bare.load("3d", points=False, **options).cache_files
    (root / "b/b_2.lml").write_text("id\tname\tx\ty\tz\n1\tT13_c\t1\t2\t3\n")
    assert bare.load("3d", **options)[1]["points"][0]["name"] == "T13"
    assert bare.load("3d", points=False, **options).cache_files == without
    tiny = ctspine1k.open_collection("tiny", data_dir=save_tiny(tmp_path / "tiny"))
    before = tiny.load("3d", split="judge", points=True).cache_files
    (tmp_path / "tiny/new/c-3-points.json").write_text('[{"direction": ["L", "A", "S"]}]')
    assert tiny.load("3d", split="judge", points=True).cache_files != before


def test_what_a_data_set_has_no_files_for_is_refused(bare, tmp_path):
    for options, message in (
        ({"label_scheme": "binary"}, "label_scheme='binary': expected None, since Bare Spines has no masks"),
        ({"other_labels": "background"}, "other_labels='background': expected 'raise', since Bare"),
        ({"points": "voxels"}, "points='voxels': expected one of 'spacing', 'affine'"),
        ({"points": 1}, "points=1: expected True, False, None or a reading"),
    ):
        with pytest.raises(ValueError, match=message):
            bare.load("3d", storage="compact", **options)
    with pytest.raises(ValueError, match="points=True: expected None or False, since CTSpine1K has no files"):
        ctspine1k.load_dataset("3d", points=True, data_dir=tmp_path)
    with pytest.raises(ValueError, match="this cannot be done without mask"):
        bare.export_nnunet(tmp_path / "raw")


def test_bad_points_and_points_of_another_kind(bare, root, tmp_path):
    (root / "b/b_2.lml").write_text("id\tname\n1\tT12_center\t1,5\t2\t3\n")
    with pytest.raises(FileFormatError, match=r"b_2\.lml"):
        bare.load("3d", split="learn", storage="compact")
    for name in ("3d", "2d"):
        with pytest.warns(SkippedCasesWarning, match="b_2"):
            left = bare.load(name, split="learn", storage="compact", on_error="skip")
        assert set(left["patient_id"]) == {"a.1"}
    assert len(bare.load("3d", split="learn", storage="compact", points=False)) == 2
    (root / "b/b_2.lml").unlink()
    assert len(bare.load("3d", split="learn", storage="compact", points=False)) == 2
    tiny = save_tiny(tmp_path / "tiny")
    computed = [{"direction": ["L", "A", "S"], "kind": "body"}, {"label": 19, "X": 1, "Y": 2, "Z": 3}]
    (tiny / "new/c-3-points.json").write_text(json.dumps(computed))
    with pytest.raises(PointsError, match="of kind 'body'"):
        ctspine1k.open_collection("tiny", data_dir=tiny).load("3d", split="judge", points=True)


def test_dense_rows_need_room_for_images_alone(bare, tmp_path):
    for points in (True, False):  # files of points take next to nothing
        options = {"image_size": SHAPE[:2], "points": points, "cache_dir": str(tmp_path / "room")}
        builder = CTSpine1K(config_name="3d", selection=bare.where(split="learn").selection(), **options)
        assert builder.need.rows == 2 * 9 * 7 * 11 * 4


def test_ids_of_caches_change_only_with_points_that_rows_have():
    before = RowOptions().of(TINY).key()
    assert not {"points", "masks", "points_format"} & set(before)
    assert RowOptions(points=False).of(TINY).key() == before
    assert RowOptions(points=True).of(TINY).key() == {**before, "points": True, "points_format": "verse"}


@pytest.mark.slow
def test_an_export_without_masks(bare, tmp_path):
    report = bare.export_parquet(tmp_path / "out", image_size=SHAPE[:2], geometry=True)
    assert report.ok
    for name, split in (("3d", "learn"), ("2d", "learn"), ("3d", "judge")):
        loaded = datasets.load_dataset(
            str(tmp_path / "out"), name=name, split=split, cache_dir=str(tmp_path / "cache")
        )
        expected = bare.load(name, split=split, image_size=SHAPE[:2], geometry=True)
        assert loaded.features == expected.features
        assert identical(rows(loaded), rows(expected))
    files = json.loads((tmp_path / "out/manifest.json").read_text())["files"]
    assert {"b/b_2.mhd", "b/b_2.raw", "b/b_2.lml"} <= set(files)
    card = (tmp_path / "out/README.md").read_text()
    assert "Spine CT with a point for each vertebra" in card
    assert "`segmentation`" not in card
    assert "| `points` |" in card
    assert bare.export_parquet(tmp_path / "images", points=False, config="3d").ok
    files = json.loads((tmp_path / "images/manifest.json").read_text())["files"]
    assert {"b/b_2.mhd", "b/b_2.raw"} <= set(files)
    assert "b/b_2.lml" not in files
    assert set(ALL_IDS) == {*IDS["learn"], *IDS["judge"]}


def test_an_export_from_a_shell(tmp_path, capsys):
    root = save_tiny(tmp_path / "tiny")
    words = ["export", "parquet", "--collection", "tiny", "--data-dir", str(root), "--config", "3d"]
    for flags, has_points in (([], False), (["--points"], True), (["--no-points"], False)):
        assert main([*words, str(tmp_path / f"out{len(flags)}{has_points}"), *flags]) == 0, (
            capsys.readouterr().err
        )
        (shard,) = pq.read_table(tmp_path / f"out{len(flags)}{has_points}/3d/judge").to_pylist()
        assert ("points" in shard) is has_points
        assert not has_points or len(shard["points"]) == 1


def test_an_export_from_a_shell_reads_coordinates_as_it_is_told(root, tmp_path, capsys):
    """An offset of a voxel along each axis: both readings lie in the image, and the first would be taken."""
    affine = np.array([[0.5, 0, 0, 0.5], [0, 0.75, 0, 0.75], [0, 0, 2.5, 2.5], [0, 0, 0, 1]])
    save(root / "a/a.1.nii.gz", np.zeros(SHAPE, "<i2"), affine=affine)
    (root / "a/a.1.lml").write_text("id name x y z\n1 T12_center 2.0 2.25 5.0\n")
    words = ["export", "parquet", "--collection", "bare", "--data-dir", str(root), "--case", "a.1"]
    voxels = []
    for flags in ([], ["--reading", "spacing"], ["--reading", "affine"], ["--points", "--reading", "affine"]):
        out = tmp_path / "-".join(["out", *flags])
        assert main([*words, str(out), "--config", "3d", *flags]) == 0, capsys.readouterr().err
        (row,) = pq.read_table(out / "3d/learn").to_pylist()
        voxels.append(row["points"][0]["voxel"])
    assert voxels == [[2, 4, 3], [2, 4, 3], [1, 3, 2], [1, 3, 2]]
    capsys.readouterr()
    for flags, message in (
        (["--no-points", "--reading", "affine"], "--no-points leaves out what --reading is for: give one."),
        (["--reading", "voxels"], "expected one of 'spacing', 'affine'"),
    ):
        assert main([*words, str(tmp_path / "none"), *flags]) == 2
        assert message in capsys.readouterr().err


def test_copies_and_links_have_the_raw_beside_the_header(bare, root, tmp_path):
    for link in (False, True):
        to = tmp_path / f"copies-{link}"
        paths = bare.download(to=to, link=link)
        assert {to / "a/a.1.nii.gz", to / "b/b_2.mhd", to / "c/c-3.mha", to / "c/c-3.lml"} <= set(paths)
        assert (to / "b/b_2.raw").read_bytes() == (root / "b/b_2.raw").read_bytes()
        assert (to / "b/b_2.raw").is_symlink() is link
        copied = ctspine1k.open_collection("bare", data_dir=to).load("3d", split="learn", storage="compact")
        assert np.array_equal(copied[1]["image"], image_of("b_2"))
    assert bare.plan_download().bytes == sum(
        path.stat().st_size for path in root.rglob("*") if path.is_file()
    )
