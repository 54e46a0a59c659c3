"""Predicted masks in a folder of their own: found by name, used by every verb instead of the data set's."""

import json
import pickle

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from support.volumes import ALL_IDS, expected, labels, place, save

import ctspine1k
from ctspine1k.catalog.ctspine1k import CTSPINE1K
from ctspine1k.catalog.msr import MSR
from ctspine1k.catalog.verse import VERSE
from ctspine1k.cli.main import main
from ctspine1k.errors import AmbiguousFilesError, MissingFilesError, NoSpaceError
from ctspine1k.files.folder import FolderPlace
from ctspine1k.files.predicted_points import find_points
from ctspine1k.files.predictions import WHOLE, Predictions, find_predictions

FIRST, LIVER, HN, LAST = ALL_IDS

#: A name that each tool would give.
NAMES = {
    FIRST: f"{FIRST.replace('.', '_')}.nii.gz",  # what does not take dots
    LIVER: f"fold_0/validation/{LIVER}.nii.gz",  # nnU-Net's
    HN: f"colon/{HN}_SEG.NII.GZ",  # the published one, in a folder with the name of another source
    LAST: f"{LAST}.nii",
}


@pytest.fixture
def predictions(tmp_path):
    for seed, (case_id, name) in enumerate(NAMES.items()):
        save(tmp_path / "predictions" / name, labels(50 + ALL_IDS.index(case_id), (6, 5, 3 + seed)))
    return tmp_path / "predictions"


@pytest.fixture
def predicted(tree, predictions):
    return ctspine1k.open_collection(data_dir=tree).select(ALL_IDS).with_masks(predictions)


def test_every_name_is_found(predicted, predictions):
    place(predictions, f"{LIVER}_0000.nii.gz", "._a.nii.gz", "plans.json")
    assert {file.case.case_id: file.local for file in predicted.files("mask")} == {
        case_id: str(predictions / name) for case_id, name in NAMES.items()
    }
    assert len(predicted.files("image")) == 4
    assert predicted.download("mask") == [predictions / name for name in NAMES.values()]


def test_rows_have_predicted_masks_and_the_images_of_the_data_set(predicted, predictions, tree):
    row = predicted.select(LIVER).load("3d", split="train", storage="compact", image_size=(6, 5))[0]
    assert np.array_equal(row["segmentation"], expected(predictions / NAMES[LIVER], "i4"))
    assert np.array_equal(row["image"], expected(next(tree.rglob(f"volumes/*/{LIVER}.nii.gz")), "f4"))
    save(predictions / NAMES[LIVER], labels(99, (6, 5, 4)))
    row = predicted.select(LIVER).load("3d", split="train", storage="compact", image_size=(6, 5))[0]
    assert np.array_equal(row["segmentation"], expected(predictions / NAMES[LIVER], "i4"))


def test_scan_and_verify(predicted, predictions, tree):
    own = ctspine1k.open_collection(data_dir=tree).select(ALL_IDS).scan()
    report = predicted.scan()
    assert (report.cases.parent, own.cases.parent) == (predictions, tree)
    assert report.measured == 4
    crc = [pd.read_parquet(path).mask_crc32 for path in (report.cases, own.cases)]
    assert not set(crc[0]) & set(crc[1])
    save(predictions / NAMES[HN], labels(98, (6, 5, 5)))
    place(predictions, "liver_9999.nii.gz")
    (predictions / NAMES[LAST]).unlink()
    found = predicted.verify()
    assert (found.measured, found.kept) == (3, 2)
    names = {(one.check, one.case_id, one.file) for one in found.findings}
    assert ("unexpected", None, str(predictions / "liver_9999.nii.gz")) in names
    assert ("missing", LAST, None) in names
    assert "wrong_place" not in {check for check, _, _ in names}
    assert len([check for check, _, _ in names if check == "unexpected"]) == 1


def test_two_predictions_of_a_case_are_refused(predicted, predictions):
    save(predictions / f"{LIVER}_seg.nii.gz", labels(1, (6, 5, 4)))
    with pytest.raises(AmbiguousFilesError, match=f"{LIVER}: .*fold_0"):
        predicted.files()


def test_a_missing_prediction_says_what_it_would_be_called(predicted, predictions):
    (predictions / NAMES[LIVER]).unlink()
    with pytest.raises(
        MissingFilesError, match=rf"{LIVER} .*predictions contains 3 files .* <case_id>\.nii\.gz"
    ):
        predicted.scan()


def test_an_id_counts_more_than_a_plain_one_and_two_plain_ones_are_refused(tmp_path, predictions):
    split_file = tmp_path / "own.txt"
    split_file.write_text(
        "trainset:\n" + "".join(f"{one}.nii.gz\n" for one in ("a.b", "a_b", "c.d_e", "c_d.e"))
    )
    cases = ctspine1k.open_collection(data_dir=tmp_path, split_file=split_file).with_masks(predictions)
    place(predictions, "a_b.nii.gz")
    assert [file.case.case_id for file in cases.files("mask")] == ["a_b"]
    place(predictions, "c_d_e.nii.gz")
    with pytest.raises(ValueError, match=r"c_d_e\.nii\.gz could belong to 'c\.d_e' or to 'c_d\.e'"):
        cases.files()


def test_images_of_the_hub(repo_id, tree, predictions, monkeypatch):
    spine = ctspine1k.open_collection(repo_id=repo_id).select(LIVER).with_masks(predictions)
    assert pickle.loads(pickle.dumps(spine.place)) == spine.place  # noqa: S301
    with monkeypatch.context() as full:
        full.setattr("ctspine1k.files.hub.hub_space", lambda: (0, predictions))
        with pytest.raises(NoSpaceError) as caught:
            spine.download()
    assert caught.value.needed == spine.files("image")[0].size
    pair = dict(zip(("image", "mask"), spine.download(), strict=True))
    assert pair["mask"] == predictions / NAMES[LIVER]
    assert pair["image"].read_bytes() == next(tree.rglob(f"volumes/*/{LIVER}.nii.gz")).read_bytes()
    assert spine.plan_download().needed == ()
    assert spine.scan().cases == predictions / "cases.parquet"


@pytest.mark.slow
def test_the_command_line(tree, predictions, capsys, tmp_path):
    options = [str(tree), "--masks", str(predictions), "--case", LIVER, "--num-proc", "1"]
    assert main(["scan", *options, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["cases"] == str(predictions / "cases.parquet")
    assert main(["verify", *options]) == 1
    assert "1 of 1 cases read to the end (1 of them by an earlier scan)" in capsys.readouterr().out
    out = str(tmp_path / "a.png")
    assert main(["preview", LIVER, "--data-dir", str(tree), "--masks", str(predictions), "--out", out]) == 0
    assert main(["verify", str(tree), "--masks", str(tmp_path / "none")]) == 2


def test_points_on_the_command_line(tree, predictions, predicted, capsys):
    options = ["--kind", "mask", "--case", LIVER, "--num-proc", "1", "--json"]
    assert main(["points", str(tree), "--masks", str(predictions), *options]) == 0
    rows = json.loads(capsys.readouterr().out)
    ((_, points),) = predicted.select(LIVER).points("mask")
    assert [(row["vertebra"], row["k"], row["i"], row["j"]) for row in rows] == [
        (point.name, *point.voxel) for point in points
    ]
    assert main(["points", str(tree), *options]) == 0
    assert json.loads(capsys.readouterr().out) != rows


def test_parquet_on_the_command_line(tree, predictions, tmp_path, capsys):
    options = ["--data-dir", str(tree), "--masks", str(predictions), "--case", LIVER, "--config", "3d"]
    assert main(["export", "parquet", str(tmp_path / "out"), *options, "--image-size", "6", "5"]) == 0
    (shard,) = (tmp_path / "out").rglob("*-of-*.parquet")
    (found,) = pq.read_table(shard)["segmentation"].to_pylist()
    assert np.array_equal(found, expected(predictions / NAMES[LIVER], "i4"))
    assert capsys.readouterr().err == ""


def test_nnunet_on_the_command_line(tree, predictions, tmp_path, capsys):
    options = ["--data-dir", str(tree), "--masks", str(predictions), "--case", LIVER]
    assert main(["export", "nnunet", str(tmp_path / "raw"), *options]) == 0
    (mask,) = (tmp_path / "raw").rglob(f"labelsTr/{LIVER}.nii.gz")
    assert np.array_equal(expected(mask, "i4"), expected(predictions / NAMES[LIVER], "i4"))
    assert capsys.readouterr().err == ""


def test_files_of_single_vertebrae_are_found_by_their_folders(tmp_path):
    names = [
        f"{LIVER}/vertebrae_L1.nii.gz",
        f"{LIVER}_0000.nii.gz/segmentations/Vertebrae_T12.nii",
        f"{FIRST.replace('.', '_')}/vertebrae_C1.nii.gz",
        f"{HN}/vertebrae_S9.nii.gz",  # no such vertebra
        f"{HN}/ribs.nii.gz",
        "vertebrae_L2.nii.gz",  # of no case
    ]
    place(tmp_path, *names)
    known, folder = ctspine1k.load_catalog(), FolderPlace(tmp_path)
    found = find_predictions(folder, CTSPINE1K, known.select([LIVER, HN]), known)
    assert {
        case_id: {vertebra: file.path for vertebra, file in own.items()}
        for case_id, own in found.files.items()
    } == {LIVER: {"L1": names[0], "T12": names[1]}}
    assert found.unknown == tuple(sorted(names[3:]))
    place(tmp_path, f"again/{LIVER}/vertebrae_l1.nii")
    with pytest.raises(AmbiguousFilesError, match=rf"{LIVER}: expected one mask file, found 2: .*again/"):
        find_predictions(folder, CTSPINE1K, known, known)


def test_points_are_named_as_those_of_the_data_set_or_by_the_case(tmp_path):
    names = ["a/sub-verse004_seg-subreg_ctd.json", "b/verse005.JSON", "c/gl003.lml", "notes.json"]
    place(tmp_path, *names, "verse006.nii.gz")
    known, folder = ctspine1k.load_catalog("verse"), FolderPlace(tmp_path)
    found = find_points(folder, VERSE, known.select(["verse004", "gl003"]), known)
    assert {case_id: own[WHOLE].path for case_id, own in found.files.items()} == {
        "verse004": names[0],
        "gl003": names[2],
    }
    assert {own[WHOLE].kind for own in found.files.values()} == {"points"}
    assert found.unknown == ("notes.json",)
    masks = find_points(folder, VERSE, known.select("verse006"), known)
    assert masks.files["verse006"][WHOLE].kind == "mask"
    assert find_points(folder, VERSE, known.select("verse007"), known) == Predictions({}, ("notes.json",))
    place(tmp_path, "verse004_ctd.json")
    with pytest.raises(AmbiguousFilesError, match="verse004: expected one points file, found 2"):
        find_points(folder, VERSE, known, known)


def test_bad_folders(predicted, tmp_path):
    with pytest.raises(
        FileNotFoundError, match="folder='/nowhere': expected a folder with masks, found none at /nowhere"
    ):
        predicted.with_masks("/nowhere")
    other = tmp_path / "other"
    save(other / f"{LIVER}.nii.gz", labels(3, (6, 5, 4)))
    again = predicted.with_masks(other)  # instead of, not beside
    assert [file.local for file in again.files("mask")] == [str(other / f"{LIVER}.nii.gz")]


def test_a_prediction_that_could_be_of_several_cases_is_an_error(tmp_path):
    """Where dots have become another character."""
    ids = ("a.b.c", "a_b.c", "a.b_c")
    (tmp_path / "split.txt").write_text("\n".join(["trainset:", *ids, ""]))
    place(tmp_path / "data", *(f"{case_id}.nii.gz" for case_id in ids))
    place(tmp_path / "predictions", "a_b_c.nii.gz")
    cases = ctspine1k.open_collection(data_dir=tmp_path / "data", split_file=tmp_path / "split.txt")
    with pytest.raises(
        ValueError, match=r"^a_b_c\.nii\.gz could belong to 'a\.b\.c' or to 'a_b\.c': load only"
    ):
        cases.with_masks(tmp_path / "predictions").files("mask")


def test_a_place_with_predictions_opens_each_file_where_it_is(predicted, predictions, tree):
    place = predicted.selection().place
    assert place.origin() == {"folder": "tree", "masks": "predictions"}
    assert (place.folder, place.tables) == (tree, predictions)
    assert place.describe() == f"{tree} with masks in {predictions}"
    image, mask = predicted.select(LIVER).files()
    for file, folder in ((image, tree), (mask, predictions)):
        with place.open(file) as path:
            assert path == place.local_path(file) == str(folder / file.path)


@pytest.mark.parametrize(
    ("data_set", "case_id", "image"),
    [
        (CTSPINE1K, LIVER, f"{LIVER}_0000.nii.gz"),
        (VERSE, "verse201", "verse401_verse201_CT-iso_0000.nii.gz"),
        (MSR, "2804506", "2804506_0000.nii.gz"),
    ],
)
def test_predictions_may_lie_in_a_folder_of_masks_with_what_they_were_made_from(
    tmp_path, data_set, case_id, image
):
    place(tmp_path, f"labelsTs/{case_id}.nii.gz", f"imagesTs/{image}", f"labelsTs/{image}")
    cases = data_set.read_cases(None)
    found = find_predictions(FolderPlace(tmp_path), data_set, cases, cases).files
    assert {one: files[WHOLE].path for one, files in found.items()} == {case_id: f"labelsTs/{case_id}.nii.gz"}
