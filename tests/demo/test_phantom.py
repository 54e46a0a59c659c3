import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from support.verbs import verify_files

from ctspine1k import list_files, load_catalog, open_collection, read_pair
from ctspine1k.catalog.ctspine1k import CTSPINE1K, SOURCES
from ctspine1k.demo.phantom import PHANTOM_CASES, make_phantom
from ctspine1k.demo.run import load_phantom
from ctspine1k.errors import MissingPackageError, OutputError, SplitFileWarning


@pytest.mark.slow
def test_cases_of_every_split_and_source(phantom):
    cases = load_catalog().select(PHANTOM_CASES)
    assert {case.split for case in cases} == set(CTSPINE1K.splits)
    assert {case.source for case in cases} == set(SOURCES)
    with pytest.warns(
        SplitFileWarning, match=r"metadata/data_split\.txt is used, which lists 4 cases: train 2, "
    ):
        files = list_files(data_dir=phantom)
    assert len(files) == 2 * len(PHANTOM_CASES)


@pytest.mark.slow
@pytest.mark.parametrize("case_id", PHANTOM_CASES)
def test_it_looks_like_ct(phantom, case_id):
    split_file = phantom / "metadata/data_split.txt"
    image, mask = (file.local for file in list_files(cases=case_id, data_dir=phantom, split_file=split_file))
    pair = read_pair(image, mask, on_geometry="raise")
    assert pair.image.shape[1:] == (512, 512)
    assert nib.load(image).get_data_dtype() == np.int16
    labels = np.unique(pair.segmentation)
    assert labels[0] == 0
    assert np.array_equal(labels[1:], np.arange(labels[1], labels[-1] + 1))
    assert pair.image[pair.segmentation > 0].mean() == pytest.approx(250, abs=1)
    assert np.median(pair.image) == pytest.approx(-1000, abs=20)
    # The lowest vertebra, of the highest label, lies lowest: slices lead upwards.
    assert pair.orientation[0] == "S"
    assert pair.segmentation[1].max() == labels[-1]


@pytest.mark.slow
def test_its_split_file_names_its_cases_and_no_check_finds_a_thing(phantom, tmp_path):
    split_file = phantom / "metadata/data_split.txt"
    assert {case.case_id for case in load_catalog(split_file=split_file)} == set(PHANTOM_CASES)
    assert {c.case_id: c.split for c in load_catalog(split_file=split_file)} == {
        c.case_id: c.split for c in load_catalog().select(PHANTOM_CASES)
    }
    copy = shutil.copytree(phantom, tmp_path / "copy")  # verify keeps what it measures beside the files
    report = verify_files(data_dir=copy, split_file=split_file)
    assert report.findings == ()
    assert report.measured == len(PHANTOM_CASES)


def test_it_never_replaces_a_file(tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(OutputError, match=r"expected a new or an empty folder, found mine\.txt\. Choose"):
        make_phantom(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.slow
def test_an_empty_folder_is_used_and_nothing_is_left_beside_it(tmp_path, monkeypatch, phantom):
    monkeypatch.setattr("ctspine1k.demo.phantom._SIZE", 16)  # of a slice: what is in it is no matter here
    (tmp_path / "empty").mkdir(mode=0o700)
    before = (tmp_path / "empty").stat()
    (tmp_path / "link").symlink_to("empty")
    make_phantom(tmp_path / "link")
    after = (tmp_path / "empty").stat()
    assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)  # the same folder
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "link"]
    assert sorted(path.name for path in (tmp_path / "empty").iterdir()) == ["metadata", "raw_data"]
    assert len(list((tmp_path / "empty").rglob("*.nii.gz"))) == 2 * len(PHANTOM_CASES)
    assert [path.name for path in phantom.parent.iterdir()] == [phantom.name]


def test_what_it_needs_is_asked_for_before_there_are_files(tmp_path, monkeypatch):
    def refuse():
        raise MissingPackageError("Reading .mhd and .mha files", "SimpleITK", "msr")

    monkeypatch.setattr("ctspine1k.demo.run.require_simpleitk", refuse)
    with pytest.raises(MissingPackageError, match=r"ctspine1k\[msr\]"):
        next(load_phantom(tmp_path / "msr", tmp_path / "cache", "msr"))
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def verse(tmp_path_factory):
    return make_phantom(tmp_path_factory.mktemp("demo") / "verse", "verse")


def opened(name, root):
    return open_collection(name, data_dir=root, split_file=root / "split.txt")


def test_verse_in_its_layouts_is_plausible(verse, tmp_path):
    spine = opened("verse", shutil.copytree(verse, tmp_path / "copy"))
    assert {case.split for case in spine} == set(spine.data_set.splits)
    assert len({case.patient for case in spine}) < len(spine)
    kinds = [file.kind for file in spine.files()]
    assert (kinds.count("image"), kinds.count("mask"), kinds.count("points")) == (6, 6, 5)
    assert len({nib.aff2axcodes(nib.load(file.local).affine) for file in spine.files("mask")}) == 6
    assert spine.verify().findings == ()


def test_points_of_verse_are_in_the_bodies_of_their_vertebrae(verse):
    """By another path than that which writes them, in each of the three frames."""
    frames = set()
    files = {(file.case.case_id, file.kind): file.local for file in opened("verse", verse).files()}
    for (case_id, kind), path in files.items():
        if kind != "points":
            continue
        mask = nib.load(files[case_id, "mask"])
        head, *points = json.loads(Path(path).read_text())
        if "direction" in head:
            codes, scale = "".join(head["direction"]), np.ones(3)
            frames.add("voxels")
        else:
            points.insert(0, head)
            codes = "PIR" if path.endswith("iso-ctd.json") else "IPL"
            frames.add(codes)
        axes = nib.orientations.ornt_transform(
            nib.io_orientation(mask.affine), nib.orientations.axcodes2ornt(codes)
        )
        turned = mask.as_reoriented(axes)
        if "direction" not in head:
            scale = 1 / nib.affines.voxel_sizes(turned.affine)
        labels = np.asarray(turned.dataobj)
        assert {point["label"] for point in points} == set(np.unique(labels)) - {0}
        for point in points:
            index = np.rint(np.array([point[axis] for axis in "XYZ"]) * scale).astype(int)
            assert labels[tuple(index)] == point["label"]
    assert frames == {"voxels", "PIR", "IPL"}


def test_the_microsoft_database_in_its_layouts(tmp_path):
    root = make_phantom(tmp_path / "msr", "msr")
    spine = opened("msr", root)
    assert {case.split for case in spine} == set(spine.data_set.splits)
    assert {Path(file.local).name.partition(".")[2] for file in spine.files("image")} == {
        "nii",
        "nii.gz",
        "mhd",
    }
    for file in spine.files("points"):
        case, rows = file.case, Path(file.local).read_text().splitlines()[1:]
        names = [row.split("\t")[1].removesuffix("_center") for row in rows]
        assert (names[0], names[-1], str(len(names))) == (case.top, case.bottom, case.annotated)
    sizes = [len(part) for part in spine.split_by_patient([0.5, 0.5])]
    assert sum(sizes) == len(spine)


def test_a_data_set_without_a_phantom_is_refused(tmp_path):
    with pytest.raises(ValueError, match="collection='clinic': expected one of 'ctspine1k', 'verse', 'msr'"):
        make_phantom(tmp_path / "new", "clinic")
    assert not (tmp_path / "new").exists()
