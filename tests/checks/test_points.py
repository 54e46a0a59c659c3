"""Points of cases through the verbs that read files: scan, verify and points, with masks and without."""

import json
import math
import re
import zlib
from dataclasses import replace

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from support.points import CENTRES, LABELS, save_with_points, world, write_json, write_lml
from support.spines import AFFINE, SPACING, save_spine, spine
from support.volumes import intensities, labels, save

import ctspine1k
from ctspine1k.catalog.ctspine1k import CTSPINE1K
from ctspine1k.catalog.verse import VERSE as VERSE_DATA
from ctspine1k.checks import levels
from ctspine1k.checks.points import points_of_cases
from ctspine1k.cli.main import main
from ctspine1k.errors import (
    GeometryWarning,
    MissingFilesError,
    OutputError,
    PointsError,
    SkippedCasesWarning,
    VoxelValueError,
    VoxelWarning,
)
from ctspine1k.scans.tables import read_tables
from ctspine1k.volumes.points import Point

VERSE, MSR = "verse004", "2804506"
NAMES = ["T10", "T11", "T12", "L1", "L2"]


@pytest.fixture
def verse(tmp_path):
    """A case of VerSe: the collection, and its files."""
    files = save_with_points(tmp_path / "verse", "verse", VERSE)
    return ctspine1k.open_collection("verse", data_dir=tmp_path / "verse").select(VERSE), files


@pytest.fixture
def msr(tmp_path):
    """A case of the Microsoft database: likewise."""
    files = save_with_points(tmp_path / "msr", "msr", MSR)
    return ctspine1k.open_collection("msr", data_dir=tmp_path / "msr").select(MSR), files


def checks(report):
    """What was found."""
    return [finding.check for finding in report.findings]


def check_centres(points, rounding=1e-6):
    assert [point.name for point in points] == NAMES
    for point in points:
        i, j, k = CENTRES[point.label]
        np.testing.assert_allclose(point.voxel, (k, i, j), atol=rounding)
        np.testing.assert_allclose(point.mm, world((i, j, k)), atol=2 * rounding)


def test_a_scan_has_the_points_of_files_beside_the_labels(verse):
    collection, files = verse
    report = collection.scan()
    case = pd.read_parquet(report.cases).iloc[0]
    assert case.points_file.startswith(files["points"].relative_to(files["points"].parents[3]).as_posix())
    assert list(case.vertebrae) == NAMES
    table = pd.read_parquet(report.vertebrae).set_index("label")
    for label, place in CENTRES.items():
        i, j, k = place
        assert table.point[label].tolist() == [k, i, j]
        np.testing.assert_allclose(table.point_mm[label], world(place))
        assert table.voxels[label] > 0
    assert (collection.scan().measured, collection.scan().kept) == (0, 1)
    write_json(files["points"], {17: CENTRES[17], 22: (28.0, 45.0, 2.0)})
    assert collection.scan().measured == 1
    table = pd.read_parquet(report.vertebrae).set_index("vertebra")
    assert table.point.notna().to_dict() == {name: name in ("T10", "L3") for name in [*NAMES, "L3"]}
    assert math.isnan(table.voxels["L3"])
    assert list(pd.read_parquet(report.cases).iloc[0].vertebrae) == NAMES
    assert len(collection.where(has_vertebrae="L2")) == 1
    files["points"].unlink()
    assert collection.scan().measured == 1
    assert pd.read_parquet(report.vertebrae).point.isna().all()
    assert collection.scan(reading="voxels").kept == 1  # without points, none is read


def test_a_scan_of_images_without_masks_has_their_points(msr):
    collection, files = msr
    report = collection.scan()
    case = pd.read_parquet(report.cases).iloc[0]
    assert case[["mask_type", "mask_file", "mask_crc32", "hu_beside", "label_rounding"]].isna().all()
    assert case.hu_min == -1000
    voxels = np.asarray(nib.load(files["image"]).dataobj)
    assert case.image_crc32 == zlib.crc32(voxels.tobytes(order="F"))
    assert list(case.vertebrae) == NAMES
    table = pd.read_parquet(report.vertebrae)
    assert list(table.label) == list(LABELS)
    assert table[["voxels", "mean_hu", "centroid", "components"]].isna().all(axis=None)
    assert len(collection.where(has_vertebrae=["T12", "L1"])) == 1
    assert len(collection.where(has_vertebrae="L3")) == 0
    for reread in (False, True):
        found = collection.verify(reread=reread)
        assert (found.measured, found.kept) == (1, int(not reread))
        assert checks(found) == ["unlisted_range"]  # the real scan shows other vertebrae


@pytest.mark.slow
def test_what_was_measured_in_one_reading_is_not_taken_for_another(msr, tmp_path):
    collection, files = msr
    both = {label: (28.0, 30.0, k) for label, (_, _, k) in CENTRES.items()}  # in the image in either reading
    write_lml(files["points"], both)

    def points(report):
        tables = read_tables(report.cases)
        return tables.cases[0]["reading"], [row["point_mm"] for row in tables.vertebrae]

    in_mm = np.multiply([both[label] for label in LABELS], SPACING)
    report = collection.scan()
    whole = report.cases.read_bytes()
    reading, found = points(report)
    assert reading is None
    np.testing.assert_allclose(found, [world(both[label]) for label in LABELS])
    # A verification in another reading neither uses the table nor changes it.
    assert collection.verify(reading="affine").kept == 0
    assert (collection.verify().kept, report.cases.read_bytes()) == (1, whole)
    report = collection.scan(reading="affine")
    assert (report.measured, report.kept) == (1, 0)
    reading, found = points(report)
    assert reading == "affine"
    np.testing.assert_allclose(found, in_mm)
    assert (collection.scan(reading="affine").kept, collection.verify(reading="affine").kept) == (1, 1)
    write_lml(files["points"])  # in the image only as "spacing"
    assert checks(collection.verify(reading="affine")) == ["points"]
    with pytest.raises(PointsError, match="outside as 'affine'"):
        collection.preview(tmp_path / "a.png", reading="affine")
    for verb in (collection.scan, collection.verify, collection.preview):
        with pytest.raises(ValueError, match="reading='voxels': expected one of 'spacing', 'affine'"):
            verb(reading="voxels")
        with pytest.raises(ValueError, match="other_labels='background': expected 'raise', since Microsoft"):
            verb(other_labels="background")


def test_an_image_that_is_cropped_to_the_spine_needs_no_air(msr):
    collection, files = msr
    voxels = np.asarray(nib.load(files["image"]).dataobj)
    for lowest, found in ((-100, []), (-40, ["hu_range"])):
        save(files["image"], np.maximum(voxels, lowest))
        assert checks(collection.verify()) == [*found, "unlisted_range"]


def moved(label, by):
    return {**CENTRES, label: tuple(np.add(CENTRES[label], by))}


STRANGE = {
    "gap": (
        {label: CENTRES[label] for label in (17, 18, 20, 21)},
        ("all labels from T10 to L2", "no T12"),
    ),
    "order": (
        {**CENTRES, 19: CENTRES[18], 18: CENTRES[19]},
        ("each vertebra below the one before", "T12 above T11"),
    ),
    "distance": (moved(21, (0, 0, 14)), ("neighbours 8 to 60 mm apart", "L1 to L2 6 mm")),
    "upside_down": (
        dict(zip(LABELS, sorted(CENTRES.values()), strict=True)),
        ("T10 above L2, by the header", "it below"),
    ),
}


@pytest.mark.parametrize("check", STRANGE)
def test_points_that_cannot_be_right_are_found(msr, check):
    collection, files = msr
    centres, told = STRANGE[check]
    write_lml(files["points"], centres)
    findings = [one for one in collection.verify().findings if one.file == str(files["points"])]
    assert told in [(one.expected, one.found) for one in findings if one.check == check]


@pytest.mark.parametrize(
    ("apart", "found"), [(7.9, ["distance"]), (8.0, []), (60.0, []), (60.1, ["distance"])]
)
def test_how_far_apart_neighbours_may_be(apart, found):
    points = [Point(20 + n, f"L{1 + n}", (1.0, 2.0, 3.0), (0.0, 0.0, -apart * n)) for n in range(2)]
    assert [check for check, *_ in levels.implausible_points(points, {}, CTSPINE1K.vocabulary)] == found


@pytest.mark.parametrize(("middle", "found"), [(30, []), (48, []), (49, ["distance"])])
def test_plausible_distances_are_compared_with_those_beside_them(middle, found):
    """Of four, the two in the middle are ``middle`` mm apart, the others 30 mm."""
    heights = (0, -30, -30 - middle, -60 - middle)
    points = [Point(20 + n, f"L{1 + n}", (1.0, 2.0, 3.0), (0.0, 0.0, at)) for n, at in enumerate(heights)]
    told = list(levels.implausible_points(points, {}, CTSPINE1K.vocabulary))
    assert [check for check, *_ in told] == found
    assert not found or told[0][1:] == (
        "neighbours as far apart as those beside them",
        "L2 to L3 49 mm (30 mm beside it)",
    )


@pytest.mark.parametrize(("rise", "found"), [(-0.5, None), (0.0, "it below"), (0.5, "it below")])
def test_two_that_are_level_are_upside_down_and_not_in_another_order(rise, found):
    places = {20: (0.0, 0.0, 0.0), 21: (0.0, 9.0, rise)}
    assert levels.order(places, CTSPINE1K.vocabulary) is None
    told = levels.upside_down(places, CTSPINE1K.vocabulary)
    assert told == (found and ("L1 above L2, by the header", found))


def test_of_a_broken_image_the_points_are_not_looked_at(verse):
    collection, files = verse
    files["image"].write_bytes(files["image"].read_bytes()[:-100])
    assert checks(collection.verify()) == ["truncated"]


def test_points_outside_the_image_or_of_no_vertebra_are_errors(msr, verse):
    for collection, files in (msr, verse):
        write = write_lml if "mask" not in files else write_json
        write(files["points"], moved(21, (0, 0, -12)))
        (finding,) = collection.verify().findings
        assert (finding.level, finding.check, finding.file) == ("error", "points", str(files["points"]))
        assert finding.expected == "points in the image, of (56, 80, 95) voxels"
        with pytest.raises(PointsError):
            list(collection.points("file"))
    write_json(files["points"], {27: (1, 2, 3)})
    assert checks(collection.verify()) == ["points"]
    files["points"].write_text("[")
    assert checks(collection.verify()) == ["format"]
    write_json(files["points"], {})
    assert [(one.check, one.expected) for one in collection.verify().findings] == [
        ("no_labels", "points of vertebrae")
    ]


def test_a_point_outside_the_labels_of_its_vertebra_is_found(verse):
    collection, files = verse
    assert checks(collection.verify()) == []
    shifted = {label + 1: place for label, place in CENTRES.items()}
    write_json(files["points"], shifted)
    (finding,) = collection.verify().findings
    assert (finding.check, finding.found) == ("point_place", "T11, T12, L1, L2, L3")


@pytest.mark.slow
def test_points_are_those_of_the_kind_that_is_asked_for(verse, msr):
    collection, files = verse
    found = {kind: next(iter(collection.points(kind))) for kind in ("file", "mask", "body")}
    assert {kind: (case.case_id, points.kind) for kind, (case, points) in found.items()} == {
        kind: (VERSE, kind) for kind in found
    }
    check_centres(found["file"][1])
    check_centres(found["body"][1], rounding=1)
    for point in found["mask"][1]:
        assert point.voxel[2] < 45 - 3 / SPACING[1]  # the processes are behind
    for _, points in msr[0].points("file"):
        check_centres(points)
    with pytest.raises(ValueError, match=r"kind='body': expected mask files of .*: pass kind='file'"):
        msr[0].points("body")
    with pytest.raises(ValueError, match="kind='all': expected one of 'file', 'mask', 'body'"):
        collection.points("all")
    with pytest.raises(ValueError, match="reading='affine': expected one of 'voxels', 'miccai2019'"):
        collection.points("file", reading="affine")
    with pytest.raises(ValueError, match="reading='voxels': expected None for kind='mask'"):
        collection.points("mask", reading="voxels")
    files["points"].unlink()
    with pytest.raises(MissingFilesError, match=rf"{VERSE} \(points\)"):
        collection.points("file")


@pytest.mark.slow
def test_kinds_are_not_mixed(verse, tmp_path):
    collection, files = verse
    (path,) = collection.write_points(tmp_path / "out", "body")
    assert path == tmp_path / "out" / f"{VERSE}_ctd.json"
    written = path.read_bytes()
    assert collection.write_points(tmp_path / "out", "body") == [path]
    assert path.read_bytes() == written
    for kind in ("mask", "file"):
        expected = f"no points but those that were written before, of kind {kind!r}"
        with pytest.raises(OutputError, match=rf"{expected}, found points of kind 'body'\. Choose"):
            collection.write_points(tmp_path / "out", kind)
    with pytest.raises(ValueError, match=r"^out='.*/out': expected a folder outside of .*verse, which has"):
        collection.write_points(tmp_path / "verse" / "out", "body")
    files["points"].write_bytes(written)
    with pytest.raises(PointsError, match=r"computed from a mask, of kind 'body'\. Ask for kind='body'"):
        next(iter(collection.points("file")))
    assert checks(collection.verify()) == ["points"]
    with pytest.warns(SkippedCasesWarning, match="verse004 is left out"):
        assert list(collection.points("file", on_error="skip")) == []
    own = tmp_path / "own" / "a_ctd.json"
    write_json(own)  # notes no kind: a data set's own
    before = own.read_bytes()
    for kind in ("mask", "file"):
        with pytest.raises(OutputError, match=rf"of kind {kind!r}, found another file\."):
            collection.write_points(tmp_path / "own", kind)
    assert own.read_bytes() == before
    with pytest.raises(ValueError, match="kind='all': expected one of 'file', 'mask', 'body'"):
        collection.write_points(tmp_path / "own", "all")


@pytest.mark.slow
def test_points_from_a_shell(verse, tmp_path, capsys):
    where = [str(tmp_path / "verse"), "--collection", "verse", "--case", VERSE]
    assert main(["points", *where, "--kind", "file"]) == 0
    header, first, *_ = capsys.readouterr().out.splitlines()
    assert header.replace("\t", " ") == "case_id kind label vertebra k i j x_mm y_mm z_mm"
    i, j, k = CENTRES[17]
    assert first.split("\t")[:7] == [VERSE, "file", "17", "T10", str(k), str(i), str(j)]
    assert main(["points", *where, "--kind", "mask", "--json"]) == 0
    assert [one["vertebra"] for one in json.loads(capsys.readouterr().out)] == NAMES
    assert main(["points", *where, "--kind", "body", "--out", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.splitlines() == [str(tmp_path / "out" / f"{VERSE}_ctd.json")]
    assert main(["points", *where]) == 2
    assert "--kind" in capsys.readouterr().err


@pytest.mark.slow
def test_pictures_with_points_and_without_a_mask(verse, msr, tmp_path):
    for number, (collection, _) in enumerate((verse, msr)):
        (path,) = collection.preview(tmp_path / f"{number}.png")
        assert path.read_bytes().startswith(b"\x89PNG")
        (path,) = collection.preview(tmp_path / f"{number}-sheet.png", sheet=True)
        assert path.read_bytes().startswith(b"\x89PNG")
    write_lml(msr[1]["points"], {label: (28.0, 30.0, k) for label, (_, _, k) in CENTRES.items()})
    drawn = [
        msr[0].preview(tmp_path / "read.png", sheet=True, reading=reading)[0].read_bytes()
        for reading in (None, "spacing", "affine")
    ]
    assert drawn[0] == drawn[1] != drawn[2]


def test_options_of_points_are_checked_and_named(msr):
    collection, _ = msr
    for option in ("on_missing", "on_error"):
        with pytest.raises(ValueError, match=rf"^{option}='ignore': expected one of 'raise', 'skip'"):
            collection.points("file", **{option: "ignore"})
    selection = collection.selection()
    bare = replace(selection, data_set=replace(VERSE_DATA, kinds=("image",), optional=()))
    with pytest.raises(ValueError, match=r"kind='file': expected points files of VerSe, found none$"):
        points_of_cases(bare, "file")


def test_points_of_a_mask_with_other_labels(tmp_path):
    mask = labels()
    save(tmp_path / "liver_106.nii.gz", intensities())
    save(tmp_path / "liver_106_seg.nii.gz", mask)
    collection = ctspine1k.open_collection(data_dir=tmp_path).select("liver_106")
    ((_, wanted),) = collection.points("mask")
    mask[mask == 0] = 26
    save(tmp_path / "liver_106_seg.nii.gz", mask)
    with pytest.raises(VoxelValueError, match=r"found 26.* scan, verify, points, preview and export"):
        next(iter(collection.points("mask")))
    ((_, points),) = collection.points("mask", other_labels="background")
    assert list(points) == list(wanted)
    with pytest.raises(ValueError, match="other_labels='background': expected 'raise' for kind='file'"):
        ctspine1k.open_collection("verse", data_dir=tmp_path).points("file", other_labels="background")


def test_points_of_a_mask_have_the_names_of_their_data_set(tmp_path):
    files = {"": intensities(), "_seg": (labels() > 0) * np.uint8(28)}
    for end, voxels in files.items():
        save(tmp_path / f"{VERSE}{end}.nii.gz", voxels)
    collection = ctspine1k.open_collection("verse", data_dir=tmp_path).select(VERSE)
    ((_, points),) = collection.points("mask")
    assert [(point.label, point.name) for point in points] == [(28, "T13")]


@pytest.mark.parametrize("kind", ["mask", "body"])
def test_what_is_doubtful_about_headers_and_masks_is_told_without_options_that_there_are_not(tmp_path, kind):
    image, mask = spine([18, 19])
    guessed = {"affine": AFFINE, "sform_code": 0, "qform_code": 0}
    files = save_spine(tmp_path, "liver_106", image, mask)
    save(files[0], image, **guessed)
    save(files[1], (mask / 0.3).astype("f4"), slope=0.3, inter=0, **guessed)
    with (
        pytest.warns(VoxelWarning, match="whole numbers but for rounding"),
        pytest.warns(
            GeometryWarning, match=rf"^{re.escape(str(files[0]))}: .*both codes are 0[^\n]*$"
        ) as told,
    ):
        ((_, points),) = ctspine1k.open_collection(data_dir=tmp_path).select("liver_106").points(kind)
    assert [point.name for point in points] == ["T11", "T12"]
    assert not [one for one in told if "on_geometry" in str(one.message)]


def test_no_points_of_a_mask_whose_voxels_have_no_place(tmp_path):
    flat = {"qform_code": 0, "srow_x": [-0.7, 0.7, 0, 10], "srow_y": [0, 0, 0, -20]}
    save(tmp_path / "liver_106.nii.gz", intensities(), **flat)
    save(tmp_path / "liver_106_seg.nii.gz", labels(), **flat)
    cases = ctspine1k.open_collection(data_dir=tmp_path).select(["liver_106", "liver_100"])
    with (
        pytest.warns() as told,
        pytest.raises(PointsError, match=r"axes in one plane.*Its points have no pos"),
    ):
        list(cases.points("mask", on_missing="skip"))
    assert "liver_100" in str(next(one for one in told if one.category is SkippedCasesWarning).message)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_points_may_lie_a_little_outside_the_labels(axis):
    """By one voxel beyond the sides of the outermost ones."""
    vocabulary, boxes = CTSPINE1K.vocabulary, {20: ((3, 10, 20), (9, 30, 41))}
    for side, sign in zip(boxes[20], (-1, 1), strict=True):
        for beyond, checks in ((0, []), (1e-3, ["point_place"])):
            voxel = [6.0, 20.0, 30.0]
            voxel[axis] = side[axis] - 0.5 + sign * (1 + beyond)
            point = Point(20, "L1", tuple(voxel), (0.0, 0.0, 0.0))
            assert [check for check, *_ in levels.implausible_points([point], boxes, vocabulary)] == checks
    other = Point(21, "L2", (6.0, 20.0, 30.0), (0.0, 0.0, 30.0))
    assert not list(levels.implausible_points([other], {}, vocabulary))
    ((check, _, found),) = levels.implausible_points([other], boxes, vocabulary)
    assert (check, found) == ("point_place", "L2")
