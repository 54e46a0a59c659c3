"""Predictions judged from their files: every name, layout and fault, stopped runs, and both front doors."""

import json
import math
import os
import re
import shutil
import warnings
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from support.forks import fork
from support.paths import names_of_bytes
from support.processes import wait_until
from support.spines import AFFINE, save_spine, spine
from support.volumes import files_of, save

import ctspine1k
from ctspine1k.cli.main import main
from ctspine1k.errors import (
    AmbiguousFilesError,
    BusyError,
    FileFormatError,
    GeometryWarning,
    MissingFilesError,
    OutputError,
    VoxelValueError,
    VoxelWarning,
)
from ctspine1k.evaluation.scores import score_case, score_parts
from ctspine1k.evaluation.table import read_scores
from ctspine1k.evaluation.worst import worst_cases
from ctspine1k.running.disk import exclusive_lock

IDS = ("liver_106", "liver_83", "HN_P023")


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """Three cases, of which the last is cut by its first slice."""
    root = tmp_path_factory.mktemp("raw")
    save_spine(root, "liver_106", *spine([18, 19, 20, 21]))
    save_spine(root, "liver_83", *spine([20, 21, 22], margin=6))
    save_spine(root, "HN_P023", *spine([7, 8, 9], margin=0), folder="HNSCC-3DCT-RT")
    return root


def reference(case_id):
    return spine({"liver_106": [18, 19, 20, 21], "liver_83": [20, 21, 22], "HN_P023": [7, 8, 9]}[case_id],
                 margin={"liver_106": 4, "liver_83": 6, "HN_P023": 0}[case_id])[1]  # fmt: skip


def moved(case_id, by=2):
    return np.roll(reference(case_id), by, axis=1)


@pytest.fixture
def predictions(tmp_path):
    for case_id in IDS:
        save(tmp_path / "predictions" / f"{case_id}.nii.gz", moved(case_id), affine=AFFINE)
    return tmp_path / "predictions"


@pytest.fixture
def spines(raw):
    return ctspine1k.open_collection(data_dir=raw).select(IDS)


@pytest.fixture
def undrawn(monkeypatch):
    """Results without pictures, which take many times as long as what they show."""
    monkeypatch.setattr(ctspine1k.Collection, "draw_scores", lambda *_: [])


def rows_of(evaluation, case_id):
    return {row["label"]: row for row in evaluation.table.by_case[case_id]}


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_files_give_what_arrays_give(spines, predictions, tmp_path):
    evaluation = spines.evaluate(predictions)
    for case_id in IDS:
        masks = [np.transpose(mask, (2, 0, 1)) for mask in (reference(case_id), moved(case_id))]
        spacing = tuple(float(np.float32(size)) for size in (1.5, 0.9, 0.8))
        for one in score_case(*masks, spacing).columns():
            found = rows_of(evaluation, case_id)[one["label"]]
            assert {name: found[name] for name in one} == pytest.approx(one, rel=1e-6, nan_ok=True)
    arrays = ((case_id, np.transpose(moved(case_id), (2, 0, 1)).astype("i4")) for case_id in IDS)
    assert spines.evaluate(arrays).table == evaluation.table
    arrays = ((case_id, np.transpose(moved(case_id), (2, 0, 1))) for case_id in IDS)
    assert spines.evaluate(arrays, tmp_path / "out").table == read_scores(tmp_path / "out")
    assert not (tmp_path / "out" / ".scores.partial").exists()
    assert len(evaluation.all_right) == 3
    assert evaluation.shifts == {0: 10}


@pytest.mark.slow
def test_every_preset_from_one_pass(spines, predictions):
    evaluation = spines.evaluate(predictions, preset="nnunet")
    for preset in ("ctspine1k", "verse", "msr", "totalsegmentator"):
        assert evaluation.by(preset).means == spines.evaluate(predictions, preset=preset).means
    assert evaluation.by("totalsegmentator").reported == ("dice", "nsd_area_3mm")
    with pytest.raises(ValueError, match="preset='dice'"):
        spines.evaluate(predictions, preset="dice")


def test_what_was_not_predicted_is_missed_and_what_is_of_no_case_is_named(spines, predictions):
    (predictions / "liver_83.nii.gz").unlink()
    shutil.copy(predictions / "HN_P023.nii.gz", predictions / "stray.nii.gz")
    shutil.copy(predictions / "HN_P023.nii.gz", predictions / "HN_P001.nii.gz")  # a case that is not selected
    shutil.copy(predictions / "HN_P023.nii.gz", predictions / "liver_106_0000.nii.gz")  # an image
    evaluation = spines.evaluate(predictions)
    assert evaluation.failed == {"liver_83": "no prediction"}
    assert evaluation.unknown == ("liver_106_0000.nii.gz", "stray.nii.gz")
    missed = rows_of(evaluation, "liver_83")
    assert {
        label: (row["reference"], row["prediction"], row["dice"]) for label, row in missed.items()
    } == dict.fromkeys((20, 21, 22), (True, False, 0.0))
    assert evaluation.means["dice"].n_missed == 3
    assert "not judged: 1: liver_83 (no prediction)" in evaluation.summary()
    assert "predictions of no case: 2" in evaluation.summary()


def test_a_prediction_that_cannot_be_used_is_a_failure_of_its_case(spines, predictions):
    path = predictions / "liver_83.nii.gz"
    path.write_bytes(path.read_bytes()[:-40])
    save(predictions / "HN_P023.nii.gz", reference("HN_P023") + 40, affine=AFFINE)
    evaluation = spines.evaluate(predictions)
    assert list(evaluation.failed) == ["liver_83", "HN_P023"]
    assert "gzip" in evaluation.failed["liver_83"]
    assert "found 40, 47, 48, 49 among the voxels" in evaluation.failed["HN_P023"]
    assert "--other-labels background" in evaluation.failed["HN_P023"]
    assert {row["problem"] for row in evaluation.table.by_case["HN_P023"]} == {evaluation.failed["HN_P023"]}
    assert spines.evaluate(predictions, other_labels="background", distances=False).failed.keys() == {
        "liver_83"
    }


def test_other_labels_of_a_reference_become_background_as_those_of_a_prediction(raw, tmp_path, predictions):
    shutil.copytree(raw, tmp_path / "raw")
    spines = ctspine1k.open_collection(data_dir=tmp_path / "raw").select("liver_83")
    wanted = spines.evaluate(predictions, distances=False).table
    with_sacrum = reference("liver_83")
    with_sacrum[:2, :2, :2] = 26
    save(next((tmp_path / "raw").rglob("liver_83_seg.nii.gz")), with_sacrum, affine=AFFINE)
    with pytest.raises(
        VoxelValueError, match=r"found 26 among .*\(--other-labels background\) .* both sides"
    ):
        spines.evaluate(predictions, distances=False)
    options = {"other_labels": "background", "distances": False}
    assert spines.evaluate(predictions, **options).table == wanted
    array = np.transpose(np.roll(with_sacrum, 2, axis=1), (2, 0, 1))
    assert spines.evaluate([("liver_83", array)], **options).table == wanted
    total = [("liver_83", ctspine1k.vertebrae.to_totalsegmentator(array, others="background"))]
    assert spines.evaluate(total, numbering="totalsegmentator", **options).table == wanted


def test_a_label_without_a_number_in_the_scheme_is_left_out_only_if_asked_for(tmp_path):
    """T13 of VerSe, 28, in the numbers of CTSpine1K: in the reference, in predictions, and in arrays."""
    mask = spine([19, 28, 20])[1]
    plain = np.where(mask == 28, 0, mask)
    reference, prediction = tmp_path / "raw/verse004_seg.nii.gz", tmp_path / "predictions/verse004.nii.gz"
    save(reference, mask, affine=AFFINE)
    save(prediction, np.roll(plain, 2, axis=1), affine=AFFINE)
    verse = ctspine1k.open_collection("verse", data_dir=tmp_path / "raw").select("verse004")
    options = {"label_scheme": "ctspine1k", "distances": False}
    asked = {**options, "other_labels": "background"}
    message = (
        r"labels that label_scheme='ctspine1k' has, 0 to 25, found 28 among the voxels\. Pass "
        r'other_labels="background" \(--other-labels background\)'
    )
    with pytest.raises(VoxelValueError, match=message):
        verse.evaluate(tmp_path / "predictions", **options)
    both = [row["label"] for row in verse.evaluate(tmp_path / "predictions", **asked).table.rows]
    save(reference, plain, affine=AFFINE)
    wanted = verse.evaluate(tmp_path / "predictions", **options)
    assert both == [row["label"] for row in wanted.table.rows] == [19, 20]
    assert not wanted.failed

    with_t13 = np.roll(mask, 2, axis=1)
    save(prediction, with_t13, affine=AFFINE)
    assert re.search(message, verse.evaluate(tmp_path / "predictions", **options).failed["verse004"])
    assert verse.evaluate(tmp_path / "predictions", **asked).table == wanted.table
    array = [("verse004", np.transpose(with_t13, (2, 0, 1)))]
    with pytest.raises(VoxelValueError, match=message):
        verse.evaluate(array, **options)
    assert verse.evaluate(array, **asked).table == wanted.table

    for name, label in (("T12", 19), ("T13", 28), ("L1", 20)):
        save(tmp_path / f"parts/verse004/vertebrae_{name}.nii.gz", (with_t13 == label) * 1, affine=AFFINE)
    assert re.search(message, verse.evaluate(tmp_path / "parts", **options).failed["verse004"])
    assert verse.evaluate(tmp_path / "parts", **asked).table == wanted.table
    save(tmp_path / "parts/verse004/vertebrae_T13.nii.gz", mask * 0, affine=AFFINE)  # written for all classes
    assert verse.evaluate(tmp_path / "parts", **options).table == wanted.table


def test_the_numbers_that_a_prediction_may_have_are_those_of_its_tool(spines, predictions):
    failed = spines.evaluate(predictions, numbering="totalsegmentator", distances=False).failed["HN_P023"]
    assert "expected labels, 0, 27 to 50, found 7, 8, 9 among the voxels" in failed


def test_a_reference_that_cannot_be_used_stops(raw, tmp_path, predictions):
    shutil.copytree(raw, tmp_path / "raw")
    spines = ctspine1k.open_collection(data_dir=tmp_path / "raw").select(IDS)
    mask = next((tmp_path / "raw").rglob("liver_83_seg.nii.gz"))
    save(mask, np.full(reference("liver_83").shape, 26, "u1"), affine=AFFINE)
    with pytest.raises(VoxelValueError, match=r"liver_83_seg\.nii\.gz: expected labels"):
        spines.evaluate(predictions)
    mask.unlink()
    with pytest.raises(MissingFilesError, match=r"liver_83 \(mask\)"):
        spines.evaluate(predictions)
    with pytest.warns(ctspine1k.errors.SkippedCasesWarning, match=r"liver_83 \(mask\)"):
        assert len(spines.evaluate(predictions, on_missing="skip", distances=False).results) == 2


def test_what_is_doubtful_about_files_that_are_judged_is_told(raw, tmp_path, monkeypatch):
    # Whichever thread is the first to have read its mask, what is doubtful about the reference comes first.
    monkeypatch.setattr("ctspine1k.evaluation.scoring.spread", lambda work, sides, _: work(sides[::-1]))
    shutil.copytree(raw, tmp_path / "raw")
    spines = ctspine1k.open_collection(data_dir=tmp_path / "raw").select("liver_83")
    path = tmp_path / "predictions" / "liver_83.nii.gz"
    mask = next((tmp_path / "raw").rglob("liver_83_seg.nii.gz"))
    save(path, reference("liver_83"), affine=AFFINE)
    wanted = spines.evaluate(path.parent, distances=False).table
    in_microns = AFFINE.copy()
    in_microns[:3] *= 1000
    save(mask, reference("liver_83"), affine=in_microns, xyzt_units=3)
    save(path, (reference("liver_83") / 0.3).astype("f4"), affine=AFFINE, slope=0.3, inter=0, qoffset_x=99)
    found = rf"^{re.escape(str(mask))}: .* lengths in microns.*\n{re.escape(str(path))}: .* \[99\.0, .* by the qform"
    with (
        pytest.warns(GeometryWarning, match=found),
        pytest.warns(VoxelWarning, match=rf"^{re.escape(str(path))}: labels are whole numbers but for"),
    ):
        assert spines.evaluate(path.parent, distances=False).table == wanted
    array = np.transpose(reference("liver_83"), (2, 0, 1))
    with pytest.warns(GeometryWarning, match="in microns"):
        assert spines.evaluate([("liver_83", array)], distances=False).table == wanted
    # A place that is a guess matters only where a mask is turned by it.
    turned = reference("liver_83")[::-1]
    guessed = {"sform_code": 0, "qform_code": 0}
    save(mask, reference("liver_83"), affine=AFFINE, **guessed)
    save(path, reference("liver_83"), affine=AFFINE, **guessed)
    assert spines.evaluate(path.parent, distances=False).table == wanted
    placed = nib.load(mask).affine @ np.diag([-1, 1, 1, 1])
    placed[:3, 3] += nib.load(mask).affine[:3, 0] * (len(turned) - 1)
    save(path, turned, affine=placed)
    with pytest.warns(GeometryWarning, match=r"liver_83_seg.* neither: both codes are 0"):
        assert spines.evaluate(path.parent, distances=False).table == wanted


@pytest.mark.parametrize("distances", [True, False])
def test_headers_that_give_voxels_no_size_cannot_be_measured_by(raw, tmp_path, distances):
    shutil.copytree(raw, tmp_path / "raw")
    spines = ctspine1k.open_collection(data_dir=tmp_path / "raw").select("liver_83")
    path = tmp_path / "predictions" / "liver_83.nii.gz"
    flat = {"affine": AFFINE, "srow_z": np.zeros(4)}
    save(path, reference("liver_83"), **flat)
    with pytest.warns(GeometryWarning, match=r"predictions.*\(no length along k\)"):
        failed = spines.evaluate(path.parent, distances=distances, resample="nearest").failed["liver_83"]
    assert "found affine" in failed
    assert "--resample" not in failed
    assert "gives voxels no size: save the mask again" in failed
    save(next((tmp_path / "raw").rglob("liver_83_seg.nii.gz")), reference("liver_83"), **flat)
    array = np.transpose(reference("liver_83"), (2, 0, 1))
    for given in (path.parent, [("liver_83", array)]):
        with pytest.raises(FileFormatError, match=r"liver_83_seg.*\(no length along k\).*correct the header"):
            spines.evaluate(given, distances=distances)


@pytest.mark.slow
def test_another_orientation_of_the_same_place_gives_equal_results(spines, predictions):
    wanted = spines.evaluate(predictions).table
    for case_id, codes in zip(IDS, ("RAS", "PIR", "SLP"), strict=True):
        stored = nib.load(predictions / f"{case_id}.nii.gz")
        target = nib.orientations.axcodes2ornt(codes)
        turned = stored.as_reoriented(
            nib.orientations.ornt_transform(nib.io_orientation(stored.affine), target)
        )
        nib.save(turned, predictions / f"{case_id}.nii.gz")
    assert spines.evaluate(predictions).table == wanted


@pytest.mark.slow
def test_another_grid_is_a_failure_or_resampled(spines, predictions):
    shifted = AFFINE.copy()
    shifted[:3, 3] += AFFINE[:3, :3] @ (0, 2, 0)  # the same place, two voxels further
    save(predictions / "liver_83.nii.gz", reference("liver_83"), affine=shifted)
    assert "expected the grid of" in spines.evaluate(predictions).failed["liver_83"]
    resampled = spines.evaluate(predictions, resample="nearest")
    assert not resampled.failed
    rolled = spines.evaluate((case_id, np.transpose(moved(case_id), (2, 0, 1))) for case_id in IDS)
    assert resampled.table == rolled.table


@pytest.mark.slow
def test_one_file_a_vertebra_and_totalsegmentators_numbers(spines, tmp_path):
    wanted = spines.evaluate((case_id, np.transpose(moved(case_id), (2, 0, 1))) for case_id in IDS)
    for case_id in IDS:
        for label in np.unique(moved(case_id))[1:]:
            name = ctspine1k.vertebrae.name(int(label))
            part = (moved(case_id) == label).astype("u1")
            folder = tmp_path / "parts" / case_id / "segmentations"
            save(folder / f"vertebrae_{name}.nii.gz", part, affine=AFFINE)
            save(folder / "liver.nii.gz", part, affine=AFFINE)
        numbers = ctspine1k.vertebrae.to_totalsegmentator(moved(case_id))
        save(tmp_path / "whole" / f"{case_id}.nii.gz", numbers, affine=AFFINE)
    parts = spines.evaluate(tmp_path / "parts")
    assert parts.table == wanted.table
    assert len(parts.unknown) == 3  # the livers
    assert spines.evaluate(tmp_path / "whole", numbering="totalsegmentator").table == wanted.table
    save(tmp_path / "parts" / "liver_83.nii.gz", moved("liver_83"), affine=AFFINE)
    with pytest.raises(AmbiguousFilesError, match="liver_83"):
        spines.evaluate(tmp_path / "parts")


@pytest.mark.slow
def test_vertebrae_that_the_scan_cuts_can_be_left_out(spines, predictions):
    every = rows_of(spines.evaluate(predictions, distances=False), "HN_P023")
    assert {label: row["truncated"] for label, row in every.items()} == {7: True, 8: False, 9: True}
    dropped = spines.evaluate(predictions, truncated="drop", distances=False)
    assert list(rows_of(dropped, "HN_P023")) == [8]


@pytest.mark.parametrize("codes", ["LAS", "PIR", "SLP"])
def test_cut_vertebrae_are_found_however_the_reference_is_stored(tmp_path, codes):
    """Of labels in the prediction alone, too: the reference lacks what the scan cuts, as VerSe's does."""
    mask = spine([19, 20, 21], margin=0)[1]
    stored = nib.Nifti1Image(np.where(mask == 19, 0, mask), AFFINE)
    turn = nib.orientations.ornt_transform(
        nib.io_orientation(stored.affine), nib.orientations.axcodes2ornt(codes)
    )
    (tmp_path / "raw").mkdir()
    nib.save(stored.as_reoriented(turn), tmp_path / "raw/verse004_seg.nii.gz")
    verse = ctspine1k.open_collection("verse", data_dir=tmp_path / "raw").select("verse004")
    save(tmp_path / "predictions/verse004.nii.gz", mask, affine=AFFINE)
    for points in (None, "mask"):
        options = {"points": points, "distances": False}
        rows = verse.evaluate(tmp_path / "predictions", **options).table.rows
        is_cut = {row["label"]: row["truncated"] for row in rows}
        assert is_cut == {19: True, 20: False, 21: True}
        dropped = verse.evaluate(tmp_path / "predictions", truncated="drop", **options).table.rows
        assert [row["label"] for row in dropped] == [20]


def test_label_schemes_are_of_both_sides(spines, predictions):
    evaluation = spines.evaluate(predictions, label_scheme="region")
    assert [row["vertebra"] for row in evaluation.table.by_case["liver_106"]] == ["thoracic", "lumbar"]
    assert evaluation.groups["dice"]["region"].keys() == {"cervical", "thoracic", "lumbar"}
    binary = spines.evaluate(predictions, label_scheme="binary", distances=False)
    assert [row["label"] for row in binary.table.rows] == [1, 1, 1]
    assert "hd_mm" not in binary.means
    with pytest.raises(ValueError, match="label_scheme='regions': expected one of"):
        spines.evaluate(predictions, label_scheme="regions")


def test_arrays_of_other_shapes_types_and_labels(spines):
    right = np.transpose(moved("liver_83"), (2, 0, 1))
    for wrong, message in (
        (right[:-1], r"liver_83: expected whole numbers of shape \(63, 56, 80\), slice first"),
        (right.astype(float), "found float64"),
        (right.astype(int) + 300, "expected labels from 0 to 255"),
    ):
        with pytest.raises(ValueError, match=message):
            spines.evaluate([("liver_83", wrong)])
    with pytest.raises(ValueError, match="liver_83: expected one prediction, found a second"):
        spines.evaluate([("liver_83", right)] * 2)
    of_others = ("HN_P001", "1_3_6_1_4_1_9328_50_4_0650")  # cases that are not selected
    given = [(name, right) for name in ("nobody", *of_others)]
    assert spines.evaluate(given, distances=False).unknown == ("nobody",)


@pytest.mark.slow
def test_results_in_a_folder(spines, predictions, tmp_path):
    (predictions / "liver_83.nii.gz").unlink()
    evaluation = spines.evaluate(predictions, tmp_path / "out", preset="verse")
    names = {"cases.csv", "report.md", "summary.json", "vertebrae.png", "confusion.png", "worst.png"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names
    frame = pd.read_csv(tmp_path / "out/cases.csv")
    assert list(frame.case_id.unique()) == list(IDS)
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert summary == json.loads(json.dumps(evaluation.document()))
    assert summary["failed"] == {"liver_83": "no prediction"}
    assert summary["definitions"].keys() == summary["means"].keys() >= {"dice", "nsd_area_2mm"}
    assert summary["versions"]["ctspine1k"] == ctspine1k.__version__
    assert summary["versions"]["numpy"] == np.__version__
    both = frame[frame.case_id == "liver_106"]
    metrics = summary["metric_per_case"][0]
    assert metrics["prediction_file"] == str(predictions / "liver_106.nii.gz")
    assert metrics["metrics"]["18"]["Dice"] == both[both.label == 18].dice.item()
    volume = reference("liver_106").size
    assert all(one["TP"] + one["FP"] + one["FN"] + one["TN"] == volume for one in metrics["metrics"].values())
    assert (
        summary["mean"]["18"]["n_ref"] == (reference("liver_106") == 18).sum() / 3
    )  # as nnU-Net: of all cases
    report = (tmp_path / "out/report.md").read_text()
    assert "preset `verse`" in report
    measures = [line.split()[1] for line in report.splitlines() if line.startswith("| ")]
    assert measures[1:5] == ["dice", "hd_mm", "identified", "centroid_mm"]  # then another table
    assert report.index("## dice by vertebra") < report.index("## Other measures") < report.index("| iou |")
    assert "- Not judged: 1.\n    - `liver_83`: no prediction" in report
    assert "![The worst cases: reference and prediction](worst.png)" in report
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    spines.evaluate(predictions, tmp_path / "out", preset="verse")  # nor are pictures drawn again
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == times


def test_pictures_of_others_in_the_folder_are_not_replaced(spines, predictions, tmp_path):
    out, own = tmp_path / "out", b"\x89PNG of somebody"
    out.mkdir()
    (out / "cases.csv").write_text("case_id,label,vertebra,reference,prediction,\n")
    for name in ("vertebrae.png", "confusion.png", "worst.png"):
        (out / name).write_bytes(own)
        with pytest.raises(
            OutputError, match=f"{name}: expected no file, or a picture of `ctspine1k`, found"
        ):
            spines.evaluate(predictions, out)
        assert (out / name).read_bytes() == own
        assert len(list(out.iterdir())) == 2  # nothing has begun
        (out / name).unlink()


@pytest.mark.usefixtures("undrawn")
def test_a_case_without_labels_on_either_side_is_named(spines, raw, tmp_path):
    shutil.copytree(raw, tmp_path / "raw")
    mask = next((tmp_path / "raw").rglob("liver_83_seg.nii.gz"))
    save(mask, np.zeros(reference("liver_83").shape, "u1"), affine=AFFINE)
    spines = ctspine1k.open_collection(data_dir=tmp_path / "raw").select(IDS)
    arrays = [(case_id, np.transpose(moved(case_id), (2, 0, 1))) for case_id in ("liver_106", "HN_P023")]
    arrays.append(("liver_83", np.zeros((63, 56, 80), "u1")))
    evaluation = spines.evaluate(arrays, tmp_path / "out")
    assert evaluation.empty == ("liver_83",)
    assert json.loads((tmp_path / "out/summary.json").read_text())["empty"] == ["liver_83"]
    assert "without a label on either side: 1: liver_83" in evaluation.summary()
    report = (tmp_path / "out/report.md").read_text()
    assert "- Without a label on either side: 1.\n    - `liver_83`\n" in report


def test_the_worst_cases_are_those_that_were_not_predicted(spines, predictions, tmp_path):
    (predictions / "liver_83.nii.gz").unlink()
    save(predictions / "HN_P023.nii.gz", reference("HN_P023") + 40, affine=AFFINE)
    evaluation = spines.evaluate(predictions)
    assert [(one.case_id, mean) for one, mean in evaluation.worst(2)] == [("liver_83", 0), ("HN_P023", 0)]
    drawn = list(worst_cases(spines.selection(), evaluation))
    titles = ["liver_83: no prediction", "HN_P023: prediction not usable", "liver_106: Dice 0."]
    assert [one.title[: len(title)] for one, title in zip(drawn, titles, strict=True)] == titles
    assert [one.prediction.any() for one in drawn] == [False, False, True]
    assert np.array_equal(drawn[0].reference, np.transpose(reference("liver_83"), (2, 0, 1)))
    save(predictions / "liver_106.nii.gz", reference("liver_106") + 40, affine=AFFINE)
    assert len(list(worst_cases(spines.selection(), spines.evaluate(predictions, distances=False)))) == 2


@pytest.mark.usefixtures("undrawn")
def test_published_numbers_are_told_with_their_source(spines, predictions, tmp_path):
    spines.evaluate(predictions, tmp_path / "out")
    report = (tmp_path / "out/report.md").read_text()
    assert "| dice | 0.840 | nnU-Net, the data set's test set | arXiv:2105.14711 |" in report


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_a_second_run_judges_only_what_has_changed(spines, predictions, tmp_path, monkeypatch):
    spines.evaluate(predictions, tmp_path / "out")
    first = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in (tmp_path / "out").iterdir()}
    scored = []
    monkeypatch.setattr(
        "ctspine1k.evaluation.scoring.score_parts",
        lambda *args, **options: scored.append(1) or score_parts(*args, **options),
    )
    spines.evaluate(predictions, tmp_path / "out")
    assert not scored
    assert {
        path: (path.stat().st_mtime_ns, path.read_bytes()) for path in (tmp_path / "out").iterdir()
    } == first
    save(predictions / "liver_83.nii.gz", moved("liver_83", 3), affine=AFFINE)
    changed = spines.evaluate(predictions, tmp_path / "out", preset="verse")
    assert len(scored) == 1
    assert changed.table == spines.evaluate(predictions, tmp_path / "new").table
    spines.evaluate(predictions, tmp_path / "out", distances=False)
    assert len(scored) == 1 + 3 + 3


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_a_run_that_is_stopped_while_it_draws_keeps_the_scores_of_earlier_ones(
    spines, predictions, tmp_path, monkeypatch
):
    """They are in files that it is about to replace."""
    out, scored = tmp_path / "out", []
    spines.evaluate(predictions, out, distances=False)
    monkeypatch.setattr(
        "ctspine1k.evaluation.scoring.score_parts",
        lambda *args, **options: scored.append(1) or score_parts(*args, **options),
    )
    save(predictions / "liver_83.nii.gz", moved("liver_83", 3), affine=AFFINE)

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ctspine1k.Collection, "draw_scores", stop)
        with pytest.raises(KeyboardInterrupt):
            spines.evaluate(predictions, out, distances=False)
    assert len(scored) == 1
    evaluation = spines.evaluate(predictions, out, distances=False)
    assert len(scored) == 1
    wanted = spines.evaluate(predictions, distances=False).table.csv()
    assert evaluation.table.csv() == read_scores(out).csv() == wanted
    # It makes all files again, with pictures that were not possible before.
    (out / "report.md").unlink()
    spines.evaluate(predictions, out, distances=False)
    assert (out / "report.md").exists()
    assert len(scored) == 1 + 3


@pytest.mark.usefixtures("undrawn")
def test_arrays_in_a_mapping_and_results_below_the_home_folder(spines, predictions, tmp_path, monkeypatch):
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path))
    arrays = {case_id: np.transpose(moved(case_id), (2, 0, 1)) for case_id in IDS}
    evaluation = spines.evaluate(arrays, "~/out", distances=False)
    wanted = spines.evaluate(predictions, distances=False).table
    assert evaluation.table == wanted == read_scores(tmp_path / "out")


@pytest.mark.usefixtures("undrawn")
def test_predictions_of_another_folder_with_the_same_names_sizes_and_times_are_judged(
    spines, predictions, tmp_path
):
    """As those of archives have, of files that are not compressed."""
    folders = [tmp_path / name for name in ("first", "second")]
    for by, folder in enumerate(folders, start=2):
        for case_id in IDS:
            path = save(folder / f"{case_id}.nii", moved(case_id, by), affine=AFFINE)
            os.utime(path, (1_700_000_000, 1_700_000_000))
    for folder in folders:
        found = spines.evaluate(folder, tmp_path / "out", distances=False).table.csv()
        assert found == spines.evaluate(folder, distances=False).table.csv()


@names_of_bytes
@pytest.mark.usefixtures("undrawn")
def test_names_that_are_not_utf8(spines, predictions, tmp_path):
    folder, out = Path(os.fsdecode(os.fsencode(tmp_path) + b"/d\xff")), tmp_path / "out"
    predictions.rename(folder)
    shutil.copy(folder / "liver_83.nii.gz", Path(os.fsdecode(os.fsencode(folder) + b"/x\xff.nii.gz")))
    save(folder / "HN_P023.nii.gz", reference("HN_P023") + 40, affine=AFFINE)
    spines.evaluate(folder, out, distances=False)
    assert "    - `x\\udcff.nii.gz`\n" in (out / "report.md").read_text(encoding="utf-8")
    assert "/d\\udcff/HN_P023.nii.gz: expected labels" in (out / "cases.csv").read_text(encoding="utf-8")
    wanted = files_of(out)
    spines.evaluate(folder, out, distances=False)
    assert files_of(out) == wanted


@pytest.mark.processes
def test_a_run_that_is_killed_goes_on_where_it_was(spines, raw, predictions, tmp_path):
    """With pictures; of few labels, which are drawn in a moment."""
    spines.evaluate(predictions, tmp_path / "whole", label_scheme="region")
    whole = files_of(tmp_path / "whole")
    assert sum(name.endswith(".png") for name in whole) == 3
    for notes in (1, 2):
        out = tmp_path / f"out{notes}"
        child = fork("support.scores:evaluate_there", str(raw), str(predictions), str(out), list(IDS))
        journal = out / ".scores.partial"
        wait_until(lambda: journal.exists() and journal.read_text().count("\n") >= notes)  # noqa: B023
        child.kill()
        spines.evaluate(predictions, out, label_scheme="region")
        assert files_of(out) == whole


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_damaged_notes_are_not_used(spines, predictions, tmp_path):
    out = tmp_path / "out"
    spines.evaluate(predictions, out)
    wanted = (out / "cases.csv").read_bytes()
    text = (out / "cases.csv").read_text()
    (out / "cases.csv").write_text(text.replace("True", "False", 1))
    (out / ".scores.partial").write_text("0" * 64 + ' ["key", "liver_106", [], ""]\nhalf a li')
    spines.evaluate(predictions, out)
    assert (out / "cases.csv").read_bytes() == wanted
    assert not (out / ".scores.partial").exists()


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text.replace('"liver_106": {"key"', '"liver_107": {"key"'),
        lambda text: json.dumps({**json.loads(text), "cases": []}),
        lambda text: '{"cases":' + 100_000 * "[",
    ],
)
def test_a_damaged_summary_is_not_used(spines, predictions, tmp_path, damage):
    out = tmp_path / "out"
    spines.evaluate(predictions, out)
    wanted, summary = (out / "cases.csv").read_bytes(), json.loads((out / "summary.json").read_text())
    damaged = damage(json.dumps(summary))
    assert damaged != json.dumps(summary)
    (out / "summary.json").write_text(damaged)
    spines.evaluate(predictions, out)
    assert (out / "cases.csv").read_bytes() == wanted
    assert json.loads((out / "summary.json").read_text()) == summary


def test_other_folders_are_left_alone(spines, raw, predictions, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(OutputError, match=r"folder, or one of an evaluation, found thesis\.tex\. Choose"):
        spines.evaluate(predictions, tmp_path / "mine")
    with pytest.raises(OutputError, match=r"expected a folder, .* found the file"):
        spines.evaluate(predictions, tmp_path / "mine" / "thesis.tex")
    for name in ("summary.json", "cases.csv"):  # nnU-Net's, and somebody's
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_text("{}")
        with pytest.raises(OutputError, match=f"one of an evaluation, found {name}"):
            spines.evaluate(predictions, tmp_path / name)
        assert (tmp_path / name / name).read_text() == "{}"
    for inside, what in ((predictions / "results", "predictions"), (raw / "new", "raw files")):
        with pytest.raises(OutputError, match=f"expected a folder outside of that with the {what}"):
            spines.evaluate(predictions, inside)
        assert not inside.exists()
    (tmp_path / "out").mkdir()
    with exclusive_lock(tmp_path / "out" / "cases.csv"), pytest.raises(BusyError):
        spines.evaluate(predictions, tmp_path / "out")


@pytest.mark.processes
def test_processes_give_the_same_bytes(spines, predictions, tmp_path):
    one, two = (tmp_path / name for name in ("one", "two"))
    for out, num_proc in ((one, 1), (two, 2)):
        spines.evaluate(predictions, out, num_proc=num_proc, label_scheme="region")
    assert files_of(one) == files_of(two)
    assert len(list(one.glob("*.png"))) == 3


@pytest.mark.cluster
def test_workers_of_a_cluster_give_the_same(spines, predictions, shared_cluster):
    wanted = spines.evaluate(predictions)
    assert spines.evaluate(predictions, scheduler=shared_cluster.address).table == wanted.table


@pytest.mark.slow
def test_references_of_the_hub(publish, raw, predictions, spines):
    repo_id = publish(raw)
    there = ctspine1k.open_collection(repo_id=repo_id).select(IDS)
    wanted = spines.evaluate(predictions, distances=False)
    assert there.evaluate(predictions, distances=False).table == wanted.table


@pytest.mark.slow
def test_intervals_are_over_patients_and_a_seed_repeats_them(spines, predictions):
    save(predictions / "liver_83.nii.gz", moved("liver_83", 5), affine=AFFINE)
    one, same, other = (
        spines.evaluate(predictions, seed=seed, distances=False).means["dice"] for seed in (1, 1, 2)
    )
    assert one == same
    assert one.low < one.value < one.high
    assert (one.value, one.n) == (other.value, other.n)


@pytest.mark.slow
def test_a_penalty_counts_if_nothing_was_predicted_and_only_in_what_was_measured(spines):
    penalised = spines.evaluate([], miss_penalty_mm=100)
    (n,) = {penalised.means[name].n_missed for name in ("dice", "hd_mm", "centroid_mm")}
    assert (penalised.means["hd_mm"].value, penalised.means["hd_mm"].n) == (100, n)
    assert penalised.reported == ("dice", "hd_mm")
    assert "hd_mm" not in spines.evaluate([]).means
    overlap = spines.evaluate([], miss_penalty_mm=100, distances=False).means
    assert overlap["centroid_mm"].value == 100
    assert not {"hd_mm", "assd_mm"} & set(overlap)


@pytest.mark.slow
def test_a_penalty(spines, predictions):
    (predictions / "liver_83.nii.gz").unlink()
    without = spines.evaluate(predictions, preset="msr")
    penalised = spines.evaluate(predictions, preset="msr", miss_penalty_mm=100)
    n = without.means["centroid_mm"].n
    assert penalised.means["centroid_mm"].value == pytest.approx(
        (without.means["centroid_mm"].value * n + 300) / (n + 3)
    )
    for wrong in (-1, math.inf, math.nan):
        with pytest.raises(ValueError, match=f"miss_penalty_mm={wrong}: expected 0 mm or more"):
            spines.evaluate(predictions, miss_penalty_mm=wrong)
    with pytest.raises(ValueError, match="seed=-1: expected"):
        spines.evaluate(predictions, seed=-1)


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_the_command_line(raw, predictions, tmp_path, capsys):
    cases = [word for case_id in IDS for word in ("--case", case_id)]
    there = ["--data-dir", str(raw), *cases]
    assert main(["evaluate", str(predictions), *there, "--out", str(tmp_path / "a"), "--json"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out) == json.loads((tmp_path / "a/summary.json").read_text())
    assert shown.err == f"The results are in {tmp_path / 'a'}\n"
    save(predictions / "liver_83.nii.gz", reference("liver_83"), affine=AFFINE)
    options = ["--preset", "verse", "--truncated", "drop", "--only-overlap", "--seed", "3"]
    assert main(["evaluate", str(predictions), *there, "--out", str(tmp_path / "b"), *options]) == 0
    assert capsys.readouterr().out.startswith("CTSpine1K, 3 cases, preset verse: VerSe 2019 and 2020")
    assert (
        main(["compare", str(tmp_path / "a"), str(tmp_path / "b" / "cases.csv"), "--preset", "nnunet"]) == 0
    )
    out = capsys.readouterr().out
    assert out.startswith("dice by preset nnunet: second minus first, with 95% interval\nall   n      8 ")
    assert "not made alike: truncated is 'keep' in the first, 'drop' in the second. Evaluate one" in out
    assert out.count("not made alike") == 1
    assert main(["evaluate", str(tmp_path / "none"), *there]) == 2
    assert main(["evaluate", str(tmp_path / "a"), *there]) == 2  # has results, and no mask
    assert f"{tmp_path / 'a'}: expected masks (*.nii.gz or *.nii), found none." in capsys.readouterr().err
    assert main(["evaluate", str(predictions)]) == 2
    assert "Say where" in capsys.readouterr().err


def test_nothing_warns_and_no_value_is_infinite(spines, predictions):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluation = spines.evaluate(predictions)
    assert not any(
        math.isinf(value)
        for row in evaluation.table.rows
        for value in row.values()
        if isinstance(value, float)
    )
