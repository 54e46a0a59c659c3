import os
import stat
from pathlib import Path

import pytest
from support.volumes import place

from ctspine1k import download_files, list_files, load_catalog
from ctspine1k.errors import (
    AmbiguousFilesError,
    MissingFilesError,
)

#: Layouts in circulation: where the image and the mask of a case are.
LAYOUTS = {
    "hub": ("raw_data/volumes/MSD-T10/liver_106.nii.gz", "raw_data/labels/MSD-T10/liver_106_seg.nii.gz"),
    "card": ("rawdata/volumes/MSD-T10/liver_106.nii.gz", "rawdata/labels/MSD-T10/liver_106_seg.nii.gz"),
    "drive": ("data/liver/liver_106.nii.gz", "label/Liver/liver_106_seg.nii.gz"),
    "drive, colon": ("data/colon/liver_106.nii.gz", "label/conlon/liver_106_seg.nii.gz"),
    "label_new": ("data/liver/liver_106.nii.gz", "label_new/trainset/gt/liver_106_seg.nii.gz"),
    "flat": ("liver_106.nii.gz", "liver_106_seg.nii.gz"),
    "two folders": ("images/liver_106.nii.gz", "masks/liver_106_seg.nii.gz"),
    "not compressed": ("liver_106.nii", "liver_106_seg.nii"),
    "upper case": ("liver_106.NII.GZ", "liver_106_SEG.Nii.Gz"),
    "nnU-Net": ("imagesTr/liver_106_0000.nii.gz", "labelsTr/liver_106.nii.gz"),
    "nnU-Net, test": ("d/imagesTs/liver_106_0000.nii", "d/labelsTs/liver_106.nii"),
    "decathlon": ("imagesTr/liver_106.nii.gz", "labelsTr/liver_106.nii.gz"),
    "masks": ("images/liver_106.nii.gz", "masks/liver_106.nii.gz"),
    "masks, not compressed": ("images/liver_106.nii", "masks/liver_106_seg.nii"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_found(tmp_path, layout):
    paths = place(tmp_path, *LAYOUTS[layout])
    # Neighbours whose names begin or end alike, and what other programs leave behind.
    place(
        tmp_path,
        "liver_10.nii.gz",
        "xliver_106.nii.gz",
        "._liver_106.nii.gz",
        ".liver_106.nii.gz",
        "labelsTr/._liver_106.nii.gz",
        ".cache/liver_106.nii.gz",
        "__MACOSX/liver_106.nii.gz",
        "notes.txt",
    )
    files = list_files(cases="liver_106", data_dir=tmp_path)
    assert [(f.case.case_id, f.kind, f.local) for f in files] == [
        ("liver_106", "image", str(paths[0])),
        ("liver_106", "mask", str(paths[1])),
    ]
    assert [f.path for f in files] == list(LAYOUTS[layout])
    assert [f.size for f in files] == [path.stat().st_size for path in paths]
    assert [f.url for f in files] == [path.as_uri() for path in paths]
    assert download_files(cases="liver_106", data_dir=tmp_path) == paths


def test_ids_with_dots_are_not_mixed_up(tmp_path):
    ids = [case.case_id for case in load_catalog().where(source="COLONOG")][:40]
    place(tmp_path, *(f"{case_id}{end}" for case_id in ids for end in (".nii.gz", "_seg.nii.gz")))
    files = list_files(data_dir=tmp_path)
    assert [Path(f.path).name for f in files] == [
        f"{case_id}{end}" for case_id in ids for end in (".nii.gz", "_seg.nii.gz")
    ]


@pytest.mark.parametrize("folder", ["labels", "label_new/trainset/gt", "labelsTr", "data/labels/MSD-T10"])
def test_what_is_in_a_folder_of_labels_is_no_image(tmp_path, folder):
    place(tmp_path, f"{folder}/liver_106.nii.gz")
    assert [file.kind for file in list_files(data_dir=tmp_path)] == ["mask"]
    place(tmp_path, f"{folder}/liver_106_seg.nii.gz")
    with pytest.raises(AmbiguousFilesError, match="liver_106: expected one mask file, found 2"):
        list_files(data_dir=tmp_path)


def test_hidden_files_of_a_repo_are_left_out_as_those_of_a_folder(tmp_path, publish):
    names = ["liver_106.nii.gz", "a/._liver_106.nii.gz", "._HN_P001.nii.gz", ".cache/liver_106.nii.gz"]
    place(tmp_path / "repo", *names)
    files = [
        list_files(**where) for where in ({"repo_id": publish(tmp_path / "repo")}, {"data_dir": tmp_path})
    ]
    assert [[file.path for file in found] for found in files] == [names[:1], [f"repo/{names[0]}"]]


def test_images_of_other_channels_than_the_first_are_none_of_a_case(tmp_path):
    place(tmp_path, "imagesTr/liver_106_0001.nii.gz", "imagesTr/liver_106_0000.nii.gz")
    assert [file.path for file in list_files(data_dir=tmp_path)] == ["imagesTr/liver_106_0000.nii.gz"]
    place(tmp_path, "imagesTr/liver_106.nii.gz")
    with pytest.raises(AmbiguousFilesError, match="liver_106: expected one image file, found 2"):
        list_files(data_dir=tmp_path)


def test_advice_counts_no_hidden_files(tmp_path):
    place(tmp_path, "._a.nii.gz", "._b.nii.gz", "c.NII.GZ", "d.nii")
    with pytest.raises(
        MissingFilesError,
        match=r"The folder contains 2 files \*\.nii\.gz or \*\.nii in all\. An image is <case_id>\.nii\.gz",
    ):
        download_files(cases="liver_106", data_dir=tmp_path)


def test_two_files_for_one_image_are_an_error(tmp_path):
    place(tmp_path, "data/liver_106.nii.gz", "raw_data/liver_106.nii.gz", "label/liver_106_seg.nii.gz")
    with pytest.raises(
        AmbiguousFilesError, match=r"liver_106: expected one image file, found 2: .*raw_data/liver_106"
    ) as caught:
        list_files(data_dir=tmp_path)
    assert (caught.value.case_id, caught.value.kind, len(caught.value.paths)) == ("liver_106", "image", 2)
    assert list_files(data_dir=tmp_path, cases="HN_P001") == []


def test_links_that_lead_nowhere_are_not_there(tmp_path):
    place(tmp_path, "liver_106_seg.nii.gz")
    (tmp_path / "liver_106.nii.gz").symlink_to(tmp_path / "gone")
    assert [file.kind for file in list_files(cases="liver_106", data_dir=tmp_path)] == ["mask"]


def test_a_file_that_could_be_of_two_cases_is_an_error(tmp_path):
    place(tmp_path, "x.nii.gz", "x_seg.nii.gz", "x_seg_seg.nii.gz")
    (tmp_path / "split.txt").write_text("trainset:\nx\nx_seg\n")
    with pytest.raises(ValueError, match=r"x_seg\.nii\.gz could belong to 'x' or to 'x_seg'"):
        list_files(data_dir=tmp_path, split_file=tmp_path / "split.txt")
    assert len(list_files(data_dir=tmp_path, split_file=tmp_path / "split.txt", cases="x")) == 2


def test_what_is_no_file_is_not_there_and_harms_nothing(tmp_path):
    place(tmp_path, "liver_106_seg.nii.gz")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    os.mknod(tmp_path / "liver_106.nii.gz", stat.S_IFSOCK | 0o600)
    (tmp_path / "HN_P001.nii.gz").mkdir()
    assert [file.kind for file in list_files(data_dir=tmp_path)] == ["mask"]
