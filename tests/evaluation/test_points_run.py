"""Predicted points judged from their files: every format and fault, kinds that are not mixed, both protocols."""

import csv
import json
import math
import os
import pickle
import re
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from support import metaimage
from support.spines import AFFINE, save_spine, spine
from support.volumes import save

import ctspine1k
from ctspine1k.catalog.registry import data_set
from ctspine1k.cli.main import main
from ctspine1k.errors import (
    AmbiguousFilesError,
    FileFormatError,
    GeometryWarning,
    MissingFilesError,
    PointsError,
    SkippedCasesWarning,
    VoxelValueError,
)
from ctspine1k.evaluation.pointed import score_points_of
from ctspine1k.volumes.headers import Geometry
from ctspine1k.volumes.points import Points, write_points

#: Two scans of the Microsoft database: the first with voxels of 1 mm, the second oblique.
FIRST, SECOND = "2495819", "2495831"
WHOLE_MM = np.array([[-1.0, 0, 0, 9], [0, 1, 0, -20], [0, 0, 1, 5], [0, 0, 0, 1]])
SHAPES = {FIRST: (20, 22, 100), SECOND: (60, 50, 40)}
AFFINES = {FIRST: WHOLE_MM, SECOND: metaimage.AFFINE}

#: Index (i, j, k) of each point: T1, T2 and T3 are 15 mm apart; L5, S1 and S2 more than 20 mm.
PLACES = {
    FIRST: {8: (10, 11, 90), 9: (10, 11, 75), 10: (10, 11, 60)},
    SECOND: {24: (20, 30, 35), 26: (25, 28, 20), 27: (30, 20, 5)},
}
MM = {
    scan: {label: tuple((AFFINES[scan] @ [*index, 1])[:3].tolist()) for label, index in own.items()}
    for scan, own in PLACES.items()
}
NAMES = {label: data_set("msr").vocabulary.name(label) for own in PLACES.values() for label in own}


def geometry(scan):
    return Geometry.of(AFFINES[scan], SHAPES[scan])


def lml(scan):
    """The points of a scan: mm along the axes of its image, from the first voxel."""
    sizes = nib.affines.voxel_sizes(AFFINES[scan])
    rows = [
        f"{number}\t{NAMES[label]}_center\t" + "\t".join(f"{value:.4f}" for value in sizes * index)
        for number, (label, index) in enumerate(PLACES[scan].items())
    ]
    return "\n".join(["Id Name X Y Z", *rows]) + "\n"


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    root = tmp_path_factory.mktemp("msr")
    save(root / f"patient0001/{FIRST}/{FIRST}.nii.gz", np.zeros(SHAPES[FIRST], "i1"), affine=WHOLE_MM)
    save(
        root / f"patient0002/{SECOND}/{SECOND}.nii.gz", np.zeros(SHAPES[SECOND], "i1"), affine=AFFINES[SECOND]
    )
    for path in list(root.rglob("*.nii.gz")):
        scan = path.parent.name
        (path.parent / f"{scan}.lml").write_text(lml(scan))
    return root


@pytest.fixture
def scans(raw):
    return ctspine1k.open_collection("msr", data_dir=raw).select([FIRST, SECOND])


@pytest.fixture
def one(scans):
    return scans.select([FIRST])


def table(path, points, vertebra="label"):
    rows = [
        {"case_id": scan, vertebra: label if vertebra == "label" else NAMES[label]}
        | dict(zip(("x_mm", "y_mm", "z_mm"), place, strict=True))
        for scan, own in points.items()
        for label, place in own.items()
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


def rates(evaluation):
    rows = evaluation.table.rows
    return sum(row["identified"] for row in rows), sum(row["identified_msr"] for row in rows)


def test_swapped_vertebrae_are_not_identified(one):
    at = MM[FIRST]
    apart = {8: at[8], 10: at[10]}  # 30 mm
    swapped = one.evaluate([(FIRST, {8: apart[10], 10: apart[8]})], points="body")
    assert rates(swapped) == (0, 0)
    assert swapped.main == "identified"
    assert swapped.means["identified"].value == 0.0


def test_a_prediction_at_20_mm_counts_for_verse_alone(one):
    at = {label: (x - 20.0, y, z) for label, (x, y, z) in MM[FIRST].items()}
    evaluation = one.evaluate([(FIRST, at)], points="body")
    assert [row["centroid_mm"] for row in evaluation.table.rows] == [20.0] * 3
    assert rates(evaluation) == (3, 0)
    assert evaluation.by("msr").means["identified_msr"].value == 0.0


def test_a_vertebra_at_the_place_of_its_neighbour(one):
    evaluation = one.evaluate([(FIRST, {9: MM[FIRST][8]})], points="body")
    assert rates(evaluation) == (1, 0)
    assert evaluation.means["identified"].value == pytest.approx(1 / 3)
    assert evaluation.by("msr").means["identified_msr"].value == 0.0
    assert evaluation.means["identified"].n_missed == 2
    assert evaluation.shifts == {1: 1, 0: 1}  # T2 is within 20 mm of its own place, too


def test_verse_is_the_mean_of_scans_and_msr_of_all_vertebrae(scans):
    given = [(FIRST, MM[FIRST]), (SECOND, {24: MM[SECOND][24], 26: MM[SECOND][27]})]
    evaluation = scans.evaluate(given, points="body", sacrum=True)
    assert evaluation.means["identified"].value == pytest.approx((1 + 1 / 3) / 2)
    assert evaluation.by("msr").means["identified_msr"].value == pytest.approx(4 / 6)


def test_the_sacrum_counts_for_msr_only_if_it_is_asked_for(scans):
    off = {label: (x + 3.0, y, z + 4.0) for label, (x, y, z) in MM[FIRST].items()}
    given = [(FIRST, off), (SECOND, {24: MM[SECOND][24]})]
    without = scans.evaluate(given, points="body", preset="msr")
    error = without.means["centroid_mm"]
    assert (error.n, error.n_missed) == (4, 0)
    assert error.value == pytest.approx(np.mean([5, 5, 5, 0]))
    assert error.std == pytest.approx(np.std([5, 5, 5, 0]), abs=1e-3)
    assert error.median == pytest.approx(5)
    regions = without.groups["identified_msr"]["region"]
    assert {name: mean.n for name, mean in regions.items()} == {"thoracic": 3, "lumbar": 1}
    assert len(without.all_right) == 2
    asked = scans.evaluate(given, points="body", preset="msr", sacrum=True)
    assert asked.table == without.table
    assert asked.means["identified_msr"].n_missed == 2
    assert asked.groups["identified_msr"]["region"]["sacral"].value == 0
    assert without.by("verse").means["identified"].n_missed == 2


def write_json(folder, scan, name, kind="file"):
    indices = {label: np.array(index, float) for label, index in PLACES[scan].items()}
    points = Points.of(indices, geometry(scan), data_set("msr").vocabulary, kind)
    write_points(points, folder / name)
    return points


def write_grid(folder, scan, name, codes):
    """VerSe's forms without direction: mm in voxels' order, from the first voxel of a turned image."""
    start = nib.io_orientation(AFFINES[scan])
    turn = nib.orientations.ornt_transform(start, nib.orientations.axcodes2ornt(codes))
    sizes = nib.affines.voxel_sizes(AFFINES[scan])
    entries = []
    for label, index in PLACES[scan].items():
        own = [
            at if sign > 0 else last - 1 - at
            for at, last, sign in zip(index, SHAPES[scan], turn[:, 1], strict=True)
        ]
        turned = dict(zip(turn[:, 0].astype(int), sizes * own, strict=True))
        entries.append({"label": label, **{key: turned[axis] for axis, key in enumerate("XYZ")}})
    (folder / name).write_text(json.dumps(entries))


def test_every_format_has_the_same_points(scans, tmp_path):
    wanted = scans.evaluate(MM.items(), points="body").table
    folders = {name: tmp_path / name for name in ("lml", "json", "grid", "plain")}
    for folder in folders.values():
        folder.mkdir()
    for scan in (FIRST, SECOND):
        (folders["lml"] / f"{scan}.LML").write_text(lml(scan))
        points = write_json(folders["json"], scan, f"{scan}.json")
        write_grid(folders["grid"], scan, f"{scan}_ctd.json", "IPL")
        write_json(folders["plain"], scan, f"{scan}_ctd.json", "body")
    for predictions in (
        *folders.values(),
        table(tmp_path / "points.csv", MM),
        table(tmp_path / "named.csv", MM, "vertebra"),
        [(FIRST, MM[FIRST]), (SECOND, points)],
    ):
        evaluation = scans.evaluate(predictions, points="body")
        assert len(evaluation.all_right) == 2, predictions
        found = [row["centroid_mm"] for row in evaluation.table.rows]
        np.testing.assert_allclose(found, 0, atol=2e-3)
        assert [row["label"] for row in evaluation.table.rows] == [row["label"] for row in wanted.rows]


def test_what_is_missing_twice_or_of_no_case(scans, tmp_path):
    write_json(tmp_path, FIRST, f"{FIRST}.json")
    write_json(tmp_path, FIRST, "9999999.json")
    write_json(tmp_path, FIRST, "2504978.json")  # a case that is not selected
    evaluation = scans.evaluate(tmp_path, points="body")
    assert evaluation.failed == {SECOND: "no prediction"}
    assert evaluation.unknown == ("9999999.json",)
    assert evaluation.means["identified"].n_missed == 3
    (tmp_path / f"{SECOND}.json").write_text('[{"direction": ["P", "I", "R"]}, {"label": 99, "X": 1}]')
    assert "number as y of entry 1" in scans.evaluate(tmp_path, points="body").failed[SECOND]
    (tmp_path / "more").mkdir()
    write_json(tmp_path / "more", FIRST, f"{FIRST}_ctd.json")
    with pytest.raises(AmbiguousFilesError, match=FIRST):
        scans.evaluate(tmp_path, points="body")
    given = [(FIRST, MM[FIRST]), ("nobody", MM[FIRST])]
    assert scans.evaluate(given, points="body").unknown == ("nobody",)
    with pytest.raises(ValueError, match="expected one prediction, found a second one"):
        scans.evaluate([(FIRST, MM[FIRST])] * 2, points="body")
    with pytest.raises(FileNotFoundError, match=r"predictions=.*: expected a folder"):
        scans.evaluate(tmp_path / "none", points="body")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("case_id,label,x_mm,y_mm\n", r"line 1, found no column z_mm among case_id, label, x_mm, y_mm"),
        (
            "case_id;label;x_mm;y_mm;z_mm\n",
            r"found no column case_id, x_mm, y_mm, z_mm, label \(or vertebra\)",
        ),
        ("", "found no column case_id"),
        ("case_id,label,x_mm,y_mm,z_mm\n1,8,1,2,3\n1,9,1,two,3\n", "line 3, column y_mm, found 'two'"),
        ("case_id,label,x_mm,y_mm,z_mm\n1,8,1,2,nan\n", "line 2, column z_mm, found 'nan'"),
        ("case_id,label,x_mm,y_mm,z_mm\n1,8,1,2\n", "line 2, column z_mm, found an empty cell"),
        ("case_id,label,x_mm,y_mm,z_mm\n1,8,1,5,2,3\n", "5 cells in line 2, as there are columns, found 6"),
        ("case_id,label,x_mm,y_mm,z_mm\n,8,1,2,3\n", "a case in line 2, column case_id"),
        ("case_id,label,x_mm,y_mm,z_mm\n1,99,1,2,3\n", "line 2, column label, found '99'"),
        (
            "case_id,vertebra,x_mm,y_mm,z_mm\n1,T1,1,2,3\n1,T14,1,2,3\n",
            "line 3, column vertebra, found 'T14'",
        ),
        (
            "case_id,vertebra,x_mm,y_mm,z_mm\n1,T1,1,2,3\n1,t1,1,2,3\n",
            "one T1 of 1, found a second one in line 3",
        ),
        ("case_id,label,x_mm,y_mm,z_mm\n\xff", "a CSV file in UTF-8"),
    ],
)
def test_faults_of_a_table_are_named_with_line_and_column(one, tmp_path, text, message):
    (tmp_path / "points.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises((FileFormatError, PointsError), match=message):
        one.evaluate(tmp_path / "points.csv", points="body")


def test_kinds_are_told_and_never_mixed(scans, raw, tmp_path):
    with pytest.raises(ValueError, match=r'pass points="body" \(--points body\)'):
        scans.evaluate(tmp_path)
    with pytest.raises(ValueError, match="points='mask': expected a data set with masks"):
        scans.evaluate(tmp_path, points="mask")
    points = write_json(tmp_path, FIRST, f"{FIRST}.json", "mask")
    with pytest.raises(
        PointsError, match=rf"{FIRST}\.json: expected points of kind 'body', found kind 'mask'"
    ):
        scans.evaluate(tmp_path, points="body")
    with pytest.raises(PointsError, match=f"{FIRST}: expected points of kind 'body', found kind 'mask'"):
        scans.evaluate([(FIRST, points)], points="body")
    with pytest.raises(ValueError, match="points='centre': expected"):
        scans.evaluate(tmp_path, points="centre")
    with pytest.raises(ValueError, match="expected positions by label, found ndarray"):
        scans.evaluate([(FIRST, np.zeros((3, 3, 3), "u1"))], points="body")
    with pytest.raises(ValueError, match=f"{FIRST}: expected labels among .*, found 99"):
        scans.evaluate([(FIRST, {99: (1, 2, 3)})], points="body")
    for option in ({"label_scheme": "region"}, {"resample": "nearest"}, {"numbering": "totalsegmentator"},
                   {"other_labels": "background"}, {"truncated": "drop"}):  # fmt: skip
        with pytest.raises(ValueError, match=next(iter(option))):
            scans.evaluate([(FIRST, MM[FIRST])], points="body", **option)


def test_the_reading_of_files_that_do_not_say(one, tmp_path):
    write_grid(tmp_path, FIRST, f"{FIRST}.json", "PIR")
    failed = one.evaluate(tmp_path, points="body").failed[FIRST]
    assert "Pass reading=... (--reading), one of 'voxels', 'miccai2019', 'miccai2020'" in failed
    found = one.evaluate(tmp_path, points="body", reading="miccai2020")
    np.testing.assert_allclose(errors(found), 0, atol=2e-3)
    with pytest.raises(ValueError, match=rf"{FIRST}\.json: reading='x': expected one of 'voxels', 'miccai"):
        one.evaluate(tmp_path, points="body", reading="x")
    with pytest.raises(
        ValueError, match=r"reading='voxels': expected None, or files of points \(JSON, \.lml"
    ):
        one.evaluate([(FIRST, MM[FIRST])], points="body", reading="voxels")
    with pytest.raises(ValueError, match="reading='voxels': expected None without points="):
        one.evaluate(tmp_path, reading="voxels")


@pytest.mark.parametrize("predictions", ["lml", "json", "csv", "memory"])
def test_the_reading_is_that_of_the_reference_too_where_its_files_do_not_say(tmp_path, predictions):
    """The header's offset is a voxel along each axis: both readings lie in the image."""
    affine = np.array([[0.5, 0, 0, 0.5], [0, 0.75, 0, 0.75], [0, 0, 2.5, 2.5], [0, 0, 0, 1]])
    shape, text = (9, 7, 11), "Id Name X Y Z\n1 T1_center 2.0 2.25 5.0\n"
    save(tmp_path / f"raw/{FIRST}.nii.gz", np.zeros(shape, "i1"), affine=affine)
    (tmp_path / f"raw/{FIRST}.lml").write_text(text)
    given, places = tmp_path / "given", {FIRST: {8: (2.0, 2.25, 5.0)}}  # in mm of the header
    given.mkdir()
    if predictions == "lml":
        (given / f"{FIRST}.lml").write_text(text)
    elif predictions == "json":
        own, vocabulary = Geometry.of(affine, shape), data_set("msr").vocabulary
        write_points(
            Points.of({8: np.array([3.0, 2.0, 1.0])}, own, vocabulary, "body"), given / f"{FIRST}.json"
        )
    elif predictions == "csv":
        given = table(tmp_path / "given.csv", places)
    else:
        given = places
    scan = ctspine1k.open_collection("msr", data_dir=tmp_path / "raw").select([FIRST])
    found = {
        reading: float(errors(scan.evaluate(given, points="body", reading=reading))[0])
        for reading in (None, "spacing", "affine")
    }
    step = 0 if predictions == "lml" else math.hypot(0.5, 0.75, 2.5)
    assert found == pytest.approx({None: step, "spacing": step, "affine": 0}, abs=1e-4)


def test_the_reading_of_predicted_json_is_not_that_of_the_reference(tmp_path):
    """Which says by its name what frame it is in."""
    save(tmp_path / "raw/verse004.nii.gz", np.zeros(SHAPES[FIRST], "i1"), affine=WHOLE_MM)
    write_grid(tmp_path / "raw", FIRST, "verse004_ctd.json", "IPL")
    (tmp_path / "given").mkdir()
    entries = [
        {"label": label, **dict(zip("XYZ", index, strict=True))} for label, index in PLACES[FIRST].items()
    ]
    (tmp_path / "given/verse004.json").write_text(json.dumps(entries))
    scan = ctspine1k.open_collection("verse", data_dir=tmp_path / "raw").select(["verse004"])
    found = scan.evaluate(tmp_path / "given", points="body", reading="voxels")
    np.testing.assert_allclose(errors(found), 0, atol=2e-3)


@pytest.mark.processes
def test_two_processes_judge_points_as_one_does(scans, tmp_path):
    for scan in (FIRST, SECOND):
        (tmp_path / f"{scan}.lml").write_text(lml(scan))
    wanted = scans.evaluate(tmp_path, points="body").table
    assert scans.evaluate(tmp_path, points="body", num_proc=2).table.csv() == wanted.csv()


def test_a_reference_that_lacks_files(raw, tmp_path):
    for scan, patient in ((FIRST, "patient0001"), (SECOND, "patient0002")):
        for path in (raw / patient / scan).iterdir():
            (tmp_path / path.name).symlink_to(path)
    (tmp_path / f"{SECOND}.lml").unlink()
    scans = ctspine1k.open_collection("msr", data_dir=tmp_path).select([FIRST, SECOND])
    with pytest.raises(MissingFilesError, match=rf"{SECOND} \(points\)"):
        scans.evaluate(MM.items(), points="body")
    with pytest.warns(SkippedCasesWarning, match=rf"{SECOND} \(points\)"):
        assert len(scans.evaluate(MM.items(), points="body", on_missing="skip").results) == 1


def test_points_of_a_metaimage_in_mm_of_its_header_are_in_lps(tmp_path):
    metaimage.save_metaimage(tmp_path / "raw" / f"{SECOND}.mhd", np.zeros(SHAPES[SECOND], "<i2"))
    (tmp_path / "raw" / f"{SECOND}.lml").write_text(lml(SECOND))
    (tmp_path / "predictions").mkdir()
    rows = [f"{label} {NAMES[label]}_center {-x} {-y} {z}" for label, (x, y, z) in MM[SECOND].items()]
    (tmp_path / "predictions" / f"{SECOND}.lml").write_text("\n".join(rows))
    scan = ctspine1k.open_collection("msr", data_dir=tmp_path / "raw").select([SECOND])
    evaluation = scan.evaluate(tmp_path / "predictions", points="body")
    np.testing.assert_allclose([row["centroid_mm"] for row in evaluation.table.rows], 0, atol=2e-3)


@pytest.fixture(scope="module")
def masks(tmp_path_factory):
    """Two cases of CTSpine1K, of which the last is cut by its first and its last slice."""
    root = tmp_path_factory.mktemp("raw")
    save_spine(root, "liver_106", *spine([20, 21]))
    save_spine(root, "HN_P023", *spine([7, 8, 9], margin=0), folder="HNSCC-3DCT-RT")
    return root


IDS = ("liver_106", "HN_P023")


VOLUMES = {"liver_106": spine([20, 21])[1], "HN_P023": spine([7, 8, 9], margin=0)[1]}
CENTRES = {
    case_id: {int(label): np.argwhere(mask == label).mean(axis=0) for label in np.unique(mask)[1:]}
    for case_id, mask in VOLUMES.items()
}
CENTRES_MM = {
    case_id: {label: tuple((AFFINE @ [*index, 1])[:3]) for label, index in own.items()}
    for case_id, own in CENTRES.items()
}


def errors(evaluation):
    return [row["centroid_mm"] for row in evaluation.table.rows]


@pytest.mark.slow
def test_points_of_both_kinds_are_computed_from_masks(masks, tmp_path):
    spines = ctspine1k.open_collection(data_dir=masks).select(IDS)
    for case_id, mask in VOLUMES.items():
        save(tmp_path / f"{case_id}.nii.gz", np.roll(mask, 3, axis=1), affine=AFFINE)
    np.testing.assert_allclose(errors(spines.evaluate(CENTRES_MM.items(), points="mask")), 0, atol=1e-4)
    moved = spines.evaluate(tmp_path, points="mask")
    np.testing.assert_allclose(errors(moved), 2.4, atol=1e-3)  # 3 voxels of 0.8 mm
    assert [row["truncated"] for row in moved.table.rows] == [False, False, True, False, True]
    only = spines.select("liver_106")
    np.testing.assert_allclose(errors(only.evaluate(tmp_path, points="body")), 2.4, atol=1e-3)
    given = [("liver_106", CENTRES_MM["liver_106"])]
    assert min(errors(only.evaluate(given, points="body"))) > 4  # bodies are before centres of mass
    dropped = spines.evaluate(CENTRES_MM.items(), points="mask", truncated="drop")
    assert [row["label"] for row in dropped.table.rows] == [20, 21, 8]
    save(tmp_path / "liver_106.nii.gz", VOLUMES["liver_106"] + 40, affine=AFFINE)
    assert "among the voxels" in only.evaluate(tmp_path, points="mask").failed["liver_106"]
    ignored = only.evaluate(tmp_path, points="mask", other_labels="background")
    assert ignored.means["identified"].n_missed == 2
    with pytest.raises(ValueError, match=r'expected a mask, found points\. Pass points="body"'):
        spines.evaluate(CENTRES_MM.items())
    with pytest.raises(ValueError, match="A table of points needs"):
        spines.evaluate(table(tmp_path / "points.csv", CENTRES_MM))


@pytest.mark.parametrize("points", ["body", "mask"])
def test_other_labels_of_masks_become_background_whatever_predictions_are(masks, tmp_path, points):
    shutil.copytree(masks, tmp_path / "raw")
    only = ctspine1k.open_collection(data_dir=tmp_path / "raw").select("liver_106")
    given, options = [("liver_106", CENTRES_MM["liver_106"])], {"points": points}
    wanted = only.evaluate(given, **options).table
    with_sacrum = VOLUMES["liver_106"].copy()
    with_sacrum[:2, :2, :2] = 26
    save(next((tmp_path / "raw").rglob("liver_106_seg.nii.gz")), with_sacrum, affine=AFFINE)
    with pytest.raises(VoxelValueError, match="found 26 among the voxels"):
        only.evaluate(given, **options)
    options["other_labels"] = "background"
    assert only.evaluate(given, **options).table == wanted
    file = table(tmp_path / "points.csv", CENTRES_MM)
    assert only.evaluate(file, **options).table == wanted
    geometry, vocabulary = Geometry.of(AFFINE, with_sacrum.shape), only.data_set.vocabulary
    own = Points.of(CENTRES["liver_106"], geometry, vocabulary, points)
    write_points(own, tmp_path / "predictions" / "liver_106.json")
    in_file = errors(only.evaluate(tmp_path / "predictions", **options))
    np.testing.assert_allclose(in_file, [row["centroid_mm"] for row in wanted.rows], atol=1e-3)
    with pytest.raises(ValueError, match="numbering='totalsegmentator': expected 'own' for points"):
        only.evaluate(given, numbering="totalsegmentator", **options)


def test_what_is_doubtful_about_headers_that_points_depend_on_is_told_once(raw, masks, tmp_path):
    image = tmp_path / "raw" / f"{FIRST}.nii.gz"
    save(image, np.zeros(SHAPES[FIRST], "i1"), affine=WHOLE_MM, sform_code=0, qform_code=0)
    for folder in ("raw", "predictions"):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / f"{FIRST}.lml").write_text(lml(FIRST))
    guessed = ctspine1k.open_collection("msr", data_dir=tmp_path / "raw").select(FIRST)
    with pytest.warns(GeometryWarning, match=rf"^{re.escape(str(image))}: .* both codes are 0[^\n]*$"):
        guessed.evaluate(tmp_path / "predictions", points="body")
    mask = save(tmp_path / "liver_106.nii.gz", VOLUMES["liver_106"], affine=AFFINE, qform_code=77)
    spines = ctspine1k.open_collection(data_dir=masks).select("liver_106")
    with pytest.warns(GeometryWarning, match=rf"^{re.escape(str(mask))}: .* 77, which does not exist[^\n]*$"):
        spines.evaluate(tmp_path, points="mask")


@pytest.mark.slow
def test_points_files_beside_masks_in_a_folder_or_on_the_hub(publish, masks, tmp_path):
    for case_id, mask in VOLUMES.items():
        geometry = Geometry.of(AFFINE, mask.shape)
        vocabulary = data_set("ctspine1k").vocabulary
        points = Points.of(CENTRES[case_id], geometry, vocabulary, "mask")
        write_points(points, tmp_path / f"{case_id}_ctd.json")
        save(tmp_path / f"{case_id}.nii.gz", np.roll(mask, 3, axis=1), affine=AFFINE)
    here = ctspine1k.open_collection(data_dir=masks).select(IDS).evaluate(tmp_path, points="mask")
    np.testing.assert_allclose(errors(here), 0, atol=1e-4)
    there = ctspine1k.open_collection(repo_id=publish(masks)).select(IDS).evaluate(tmp_path, points="mask")
    assert there.table.csv() == here.table.csv()
    with pytest.raises(PointsError, match="expected points of kind 'body', found kind 'mask'"):
        ctspine1k.open_collection(data_dir=masks).select(IDS).evaluate(tmp_path, points="body")
    for case_id in VOLUMES:
        (tmp_path / f"{case_id}.nii.gz").unlink()
    with pytest.raises(ValueError, match=r'expected masks, found files of points\. Pass points="body"'):
        ctspine1k.open_collection(data_dir=masks).select(IDS).evaluate(tmp_path)


def test_a_folder_without_any_predictions_is_a_mistake(masks, tmp_path):
    """And not one in which every case was missed. Predictions of other cases may be that."""
    spines = ctspine1k.open_collection(data_dir=masks).select(IDS)
    (tmp_path / "notes.txt").touch()
    found = (
        r"expected points or masks \(\*\.json or \*\.lml or \*\.nii\.gz or \*\.nii\), found none\. Pass the"
    )
    for points, expected in (
        ("body", found),
        ("mask", found),
        (None, r"expected masks \(\*\.nii\.gz or \*\.nii\)"),
    ):
        with pytest.raises(ValueError, match=expected):
            spines.evaluate(tmp_path, points=points)
    (tmp_path / "HN_P001.JSON").touch()  # of a case that is not selected
    assert [one.problem for one in spines.evaluate(tmp_path, points="body").results] == ["no prediction"] * 2


@pytest.mark.slow
def test_a_second_run_judges_only_what_has_changed(scans, tmp_path, monkeypatch):
    from ctspine1k.evaluation import pointed

    scored, plain = [], pointed.score_points
    monkeypatch.setattr(pointed, "score_points", lambda *sides: scored.append(1) or plain(*sides))
    out = tmp_path / "out"
    predictions = table(tmp_path / "points.csv", MM)
    evaluation = scans.evaluate(predictions, out, points="body", preset="msr")
    assert {path.name for path in out.iterdir()} == {
        "cases.csv", "report.md", "summary.json", "vertebrae.png", "confusion.png",
    }  # fmt: skip
    assert json.loads((out / "summary.json").read_text()) == json.loads(json.dumps(evaluation.document()))
    report = (out / "report.md").read_text()
    assert "## identified_msr by vertebra" in report
    assert "- `points`: body" in report
    assert len(scored) == 2
    scans.evaluate(predictions, out, points="body", preset="msr")
    assert len(scored) == 2
    shutil.copy(out / "confusion.png", out / "worst.png")  # of an evaluation of masks
    table(predictions, {FIRST: MM[FIRST], SECOND: {24: (1, 2, 3)}})
    changed = scans.evaluate(predictions, out, points="body")
    assert len(scored) == 3
    assert not (out / "worst.png").exists()
    assert changed.table == scans.evaluate(predictions, points="body").table


def test_what_a_worker_gets_can_be_sent_to_it(scans, tmp_path):
    evaluation = scans.evaluate(table(tmp_path / "points.csv", MM), points="body")
    for one in evaluation.results:
        work = pickle.loads(pickle.dumps((score_points_of, one.task, evaluation.table)))  # noqa: S301 (our own)
        assert work[:2] == (score_points_of, one.task)
        assert work[2].csv() == evaluation.table.csv()


def test_points_of_a_real_mask_against_those_of_verse(tmp_path):
    if "CTSPINE1K_SAMPLE_VERSE" not in os.environ:
        pytest.skip("CTSPINE1K_SAMPLE_VERSE names no folder with a real mask of VerSe")
    root = Path(os.environ["CTSPINE1K_SAMPLE_VERSE"])
    verse = ctspine1k.open_collection("verse", data_dir=root).select("verse004")
    (mask,) = root.rglob("*_msk.nii.gz")
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / mask.name).symlink_to(mask)
    computed = verse.evaluate(tmp_path / "masks", points="body")
    assert computed.means["identified"].value == 1
    assert computed.means["centroid_mm"].value <= 1.5  # measured: 1.16
    own = verse.evaluate(root, points="body")  # its JSON, against itself
    assert own.means["centroid_mm"].value == 0
    assert verse.evaluate(tmp_path / "masks", points="mask").means["centroid_mm"].value == 0
    with (root / "verse004_vid_bodies.csv").open(newline="") as file:
        others = {
            verse.data_set.vocabulary.label(row["vertebra"]): [float(row[f"{axis}_mm"]) for axis in "xyz"]
            for row in csv.DictReader(file)
        }
    independent = verse.evaluate([("verse004", others)], points="body")
    assert 2.2 < independent.means["centroid_mm"].value < 7.7


def test_the_command_line(raw, scans, tmp_path, capsys):
    there = ["--collection", "msr", "--data-dir", str(raw), "--case", FIRST, "--case", SECOND]
    (tmp_path / "json").mkdir()
    write_grid(tmp_path / "json", FIRST, f"{FIRST}.json", "PIR")
    options = ["--points", "body", "--reading", "miccai2020", "--json"]
    assert main(["evaluate", str(tmp_path / "json"), *there, *options]) == 0
    assert json.loads(capsys.readouterr().out)["failed"] == {SECOND: "no prediction"}
    moved = {scan: {label: (x, y, z + 6) for label, (x, y, z) in own.items()} for scan, own in MM.items()}
    shown = {}
    for name, points in (("a", MM), ("b", moved)):
        predictions = table(tmp_path / f"{name}.csv", points)
        options = ["--points", "body", "--preset", "msr"]
        assert main(["evaluate", str(predictions), *there, *options]) == 0
        shown[name] = capsys.readouterr().out.splitlines()
        (tmp_path / name).mkdir()
        scores = scans.evaluate(predictions, points="body").table.csv()
        (tmp_path / name / "cases.csv").write_text(scores)
    assert ", 2 cases, points of kind 'body', preset msr: " in shown["a"][0]
    assert shown["a"][1].startswith("identified_msr    1.0000")
    assert shown["b"][2].startswith("centroid_mm       6.0000")
    assert "n 4, missed 0" in shown["b"][2]
    both = [str(tmp_path / "a"), str(tmp_path / "b"), "--collection", "msr"]
    assert main(["compare", *both]) == 0
    assert capsys.readouterr().out.startswith("identified by preset verse: second minus first")
    assert main(["compare", *both, "--preset", "msr", "--measure", "centroid_mm"]) == 0
    assert "all   n      4 " in capsys.readouterr().out
    assert main(["compare", *both, "--preset", "msr", "--measure", "centroid_mm", "--sacrum"]) == 0
    assert "all   n      6 " in capsys.readouterr().out
    assert main(["compare", *both, "--preset", "nnunet", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["measure"] == "centroid_mm"  # it has none of its own
    (tmp_path / "a" / "summary.json").write_text(json.dumps({"data_set": "msr"}))
    assert main(["compare", *both]) == 0
    assert main(["compare", *both[:2], "--preset", "msr"]) == 2  # whose S1 and S2 would count
    assert "Pass --collection msr" in capsys.readouterr().err
    (tmp_path / "other").mkdir()
    shutil.copy(tmp_path / "a" / "cases.csv", tmp_path / "other")
    for name, kind in (("a", "body"), ("other", "mask")):
        (tmp_path / name / "summary.json").write_text(json.dumps({"options": {"points": kind}}))
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "other" / "cases.csv")]) == 2
    assert "points: expected the same in both evaluations, found 'body' and 'mask'" in capsys.readouterr().err
    assert main(["evaluate", str(tmp_path / "a.csv"), *there]) == 2
    assert "--points body" in capsys.readouterr().err
    assert main(["evaluate", str(tmp_path / "a.csv"), *there, "--points", "mask"]) == 2
    assert "expected a data set with masks" in capsys.readouterr().err


def test_nothing_is_infinite_and_no_measure_of_masks_is_there(scans):
    evaluation = scans.evaluate([(FIRST, MM[FIRST])], points="body")
    assert set(evaluation.means) == {"identified", "identified_msr", "centroid_mm"}
    assert not any(
        math.isinf(value)
        for row in evaluation.table.rows
        for value in row.values()
        if isinstance(value, float)
    )
    missed = scans.evaluate([], points="body", miss_penalty_mm=100).means
    assert set(missed) == {"identified", "identified_msr", "centroid_mm"}
    assert missed["centroid_mm"].value == 100
    assert evaluation.worst() == []
    nnunet = evaluation.by("nnunet")
    assert nnunet.main in nnunet.summary()
