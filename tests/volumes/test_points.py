"""Points in the frames of their files, each against where nibabel puts a marked voxel; and what is refused."""

import io
import json
from typing import get_args

import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import voxel_sizes
from support.tiny import TINY

from ctspine1k.catalog.registry import data_set
from ctspine1k.errors import CTSpine1KWarning, FileFormatError, OutputError, PointsError
from ctspine1k.volumes.headers import Geometry
from ctspine1k.volumes.orientation import turn_to
from ctspine1k.volumes.point_formats import format_of, read_bytes, verse_indices
from ctspine1k.volumes.points import (
    POINTS_KINDS,
    Points,
    PointsKind,
    read_case_points,
    read_points,
    write_points,
)
from ctspine1k.volumes.resampling import resampled_geometry

VOCABULARY = TINY.vocabulary

#: Of a file, (i, j, k): unequal axes and spacing, oblique, with axes towards P, I and R.
SHAPE = (9, 14, 5)
AFFINE = np.array(
    [[0.1, 0.2, 1.9, -30.0], [-0.9, 0.3, 0.2, 40.0], [-0.2, -1.4, 0.1, 50.0], [0.0, 0.0, 0.0, 1.0]]
)
GEOMETRY = Geometry.of(AFFINE, SHAPE)

#: Index (i, j, k) of a point of each label.
PLACES = {18: (2, 3, 1), 19: (7, 9, 4), 28: (0, 13, 0)}


def turned_index(place, codes, affine=AFFINE):
    """Where nibabel puts a voxel of the file in an image turned to other codes."""
    marked = np.zeros(SHAPE, np.uint8)
    marked[place] = 1
    image = nib.Nifti1Image(marked, affine)
    start, end = nib.io_orientation(affine), nib.orientations.axcodes2ornt(codes)
    turned = image.as_reoriented(nib.orientations.ornt_transform(start, end))
    (index,) = np.argwhere(np.asarray(turned.dataobj))
    return index.tolist(), voxel_sizes(turned.affine)


def entries(codes, *, in_mm=False, names="XYZ"):
    """What a file says of `PLACES`, in voxels of the turned image or in mm from its first voxel."""
    listed = []
    for label, place in PLACES.items():
        index, sizes = turned_index(place, codes)
        values = np.array(index) * (sizes if in_mm else 1)
        listed.append({"label": label, **dict(zip(names, values.tolist(), strict=True))})
    return listed


def named(content, name="case_ctd.json"):
    stream = io.BytesIO(content if isinstance(content, bytes) else json.dumps(content).encode())
    stream.name = name
    return stream


def read(content, name="case_ctd.json", **options):
    options = {"format": "lml" if name.endswith(".lml") else "verse"} | options
    return read_points(named(content, name), options.pop("geometry", GEOMETRY), VOCABULARY, **options)


def check_places(points, rounding=1e-9):
    assert [(point.label, point.name) for point in points] == [(18, "T11"), (19, "T12"), (28, "T13")]
    assert points.orientation == "RPI"
    for point in points:
        i, j, k = PLACES[point.label]
        np.testing.assert_allclose(point.voxel, (k, i, j), atol=rounding)
        np.testing.assert_allclose(point.mm, (AFFINE @ [i, j, k, 1])[:3], atol=2 * rounding)


@pytest.mark.parametrize("codes", ["PIR", "RAS", "LSA"])
def test_a_direction_is_that_of_the_turned_image(codes):
    content = [{"direction": list(codes)}, *entries(codes)]
    check_places(read(content))
    check_places(read({"verts": content}, "any.json"))
    lower = [{"direction": [code.lower() for code in codes]}, *entries(codes, names="xyz")]
    check_places(read([{key.lower(): value for key, value in one.items()} for one in lower]))


def test_without_direction_the_name_says_in_which_frame_the_points_are():
    oldest, old = entries("IPL", in_mm=True), entries("PIR", in_mm=True)
    check_places(read(oldest, "verse005_ctd.json"))
    for name in ("verse512_CT-iso_iso-ctd.json", "GL124_CT_ax-iso-ctd.json", "x_ISO-CTD.json"):
        check_places(read(old, name))
    stored = entries("".join(nib.aff2axcodes(AFFINE)))
    for name in ("sub-x_seg-subreg_ctd.json", "SUB-X_DIR-AX_SEG-VB_CTD.JSON"):
        check_places(read(stored, name))
        check_places(read([{"direction": None}, *stored], name))
    for content, form in ((oldest, "miccai2019"), (old, "miccai2020"), (stored, "voxels")):
        check_places(read(content, "other.json", reading=form))
    with pytest.raises(FileFormatError, match=r"expected a direction, or a name .* Pass reading=.* 'voxels'"):
        read(old, "other.json")


def test_what_is_no_point_is_left_out_and_parts_count_as_their_vertebra():
    content = [{"direction": ["P", "I", "R"]}, *entries("PIR")]
    content[1]["label"] += 256 * 3
    content[2]["label"] = float(content[2]["label"])
    nothing = [{"label": 19, "X": float("nan"), "Y": 1, "Z": 1}, {"label": 18, "X": None, "Y": 1, "Z": 1}]
    check_places(read([*nothing, *content]))
    assert len(read([{"direction": ["P", "I", "R"]}])) == len(read([], "other.json")) == 0
    again = {"label": 18, "X": 0, "Y": 0, "Z": 0}
    with pytest.warns(CTSpine1KWarning, match=r"case_ctd.json: several points of T11; the first is used"):
        check_places(read([*content, again]))


def test_points_at_the_border_of_the_image_and_files_of_a_megabyte_are_read():
    vocabulary = data_set("verse").vocabulary
    last = np.array(SHAPE) - 0.5
    listed = [
        {"label": label, **dict(zip("XYZ", place, strict=True))}
        for label, place in ((1, [-0.5] * 3), (28, last))
    ]
    data = json.dumps(listed).encode()
    points = read_points(
        named(data.ljust(1 << 20), "x.json"), GEOMETRY, vocabulary, format="verse", reading="voxels"
    )
    assert [(point.name, point.voxel) for point in points] == [
        ("C1", (-0.5, -0.5, -0.5)),
        ("T13", (last[2], last[0], last[1])),
    ]


def test_points_turned_and_resampled_stay_where_they_are():
    points = read([{"direction": ["P", "I", "R"]}, *entries("PIR")])
    turn = turn_to("RAS", AFFINE, SHAPE)
    turned = points.on(Geometry.of(turn.affine, turn.shape(SHAPE)))
    assert turned.orientation == "SRA"
    for point in turned:
        (i, j, k), _ = turned_index(PLACES[point.label], "RAS")
        np.testing.assert_allclose(point.voxel, (k, i, j), atol=1e-9)
    assert [point.mm for point in turned] == [point.mm for point in points]
    geometry = resampled_geometry(GEOMETRY, (1.0, 0.5, 0.7), "case")
    for point, stored in zip(points.on(geometry), points, strict=True):
        ratio = np.array(geometry.spacing) / GEOMETRY.spacing
        np.testing.assert_allclose(np.array(point.voxel) + 0.5, (np.array(stored.voxel) + 0.5) / ratio)
    with pytest.raises(ValueError, match="a volume that has no length along j"):
        points.on(Geometry.of(np.diag([1.0, 0, 1, 1]), SHAPE))


@pytest.mark.parametrize("kind", ["file", "mask", "body"])
def test_what_is_written_is_read_again(tmp_path, kind):
    aside = np.array([0.1, 0.7, 0.123456789012345])
    indices = {label: place + aside for label, place in PLACES.items()}
    indices[28][1] = 13.2
    points = Points.of(indices, GEOMETRY, VOCABULARY, kind)
    path = tmp_path / "new" / "case_ctd.json"
    write_points(points, path)
    assert read_points(path, GEOMETRY, VOCABULARY, format="verse") == points
    head, *listed = json.loads(path.read_text())
    assert head == {"direction": ["P", "I", "R"], "kind": kind}
    assert list(listed[0]) == ["label", "X", "Y", "Z"]
    turn = turn_to("LSA", AFFINE, SHAPE)
    write_points(points.on(Geometry.of(turn.affine, turn.shape(SHAPE))), path)
    for point, first in zip(read_points(path, GEOMETRY, VOCABULARY, format="verse"), points, strict=True):
        np.testing.assert_allclose(point.voxel, first.voxel, atol=1e-9)
    with pytest.raises(ValueError, match=r"orientation 'S\?A': expected a direction for each axis"):
        write_points(Points((), "file", "S?A"), path)
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_points(Points.of({18: np.array([1, np.inf, 1])}, GEOMETRY, VOCABULARY, kind), path)
    assert [one.name for one in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    "text", ['[{"direction": ["L", "P", "S"]}]', '[{"kind": "mine"}]', "[]", "{}", "7", "[" * 9999, "mine"]
)
def test_no_file_but_one_that_was_written_is_replaced_by_points(tmp_path, text):
    path = tmp_path / "verse004_ctd.json"
    path.write_text(text)
    points = Points.of(PLACES, GEOMETRY, VOCABULARY, "file")
    with pytest.raises(
        OutputError, match="expected no file, or points that were written before, found another"
    ):
        write_points(points, path)
    assert path.read_text() == text
    with pytest.raises(OutputError, match="expected a file, or none, found a folder"):
        write_points(points, tmp_path)
    path.write_text("")
    write_points(points, path)
    assert len(read_points(path, GEOMETRY, VOCABULARY, format="verse")) == len(PLACES)


POINT = {"label": 18, "X": 1, "Y": 2, "Z": 3}

BAD_JSON = {
    "cut": (b'[{"direction": ["P", "I', FileFormatError, "JSON with a list of points, found Unterminated"),
    "not JSON": (b"18 1 2 3", FileFormatError, "Extra data"),
    "no list": ({"points": []}, FileFormatError, "found other JSON"),
    "no entries": ([[18, 1, 2, 3]], FileFormatError, "found other JSON"),
    "deep": (b"[" * 100_000, FileFormatError, "JSON with a list of points"),
    "many digits": (b"[" + b"9" * 9_999 + b"]", FileFormatError, "JSON with a list of points"),
    "large": (b" " * (1 << 21), FileFormatError, "at most 1 MB, found a larger file"),
    "other direction": (
        [{"direction": ["P", "I", "S"]}, POINT],
        FileFormatError,
        "a direction with one each of",
    ),
    "no direction": ([{"direction": 5}, POINT], FileFormatError, "a direction with one each of"),
    "no label": ([{"X": 1, "Y": 2, "Z": 3}], FileFormatError, "a number as label of entry 0, found no label"),
    "text": ([{"label": 18, "X": "1", "Y": 2, "Z": 3}], FileFormatError, "number as x of entry 0, found '1'"),
    "truth": ([{"label": True, "X": 1, "Y": 2, "Z": 3}], FileFormatError, "number as label .* found True"),
    "infinite": (b'[{"label": 18, "X": 1e999, "Y": 2, "Z": 3}]', FileFormatError, "x of entry 0, found inf"),
    "background": ([{"label": 256, "X": 1, "Y": 2, "Z": 3}], PointsError, "without 0, found label 256"),
    "negative": ([{"label": 18 - 256, "X": 1, "Y": 2, "Z": 3}], PointsError, "found label -238"),
    "gap": ([{"label": 27, "X": 1, "Y": 2, "Z": 3}], PointsError, "found label 27"),
    "fraction": ([{"label": 18.5, "X": 1, "Y": 2, "Z": 3}], PointsError, "found label 18.5"),
    "outside": (
        [{"direction": ["P", "I", "R"]}, {"label": 19, "X": 8.6, "Y": 2, "Z": 3}],
        PointsError,
        r"in the image, of \(9, 14, 5\) voxels, found T12 at \(8.6, 2.0, 3.0\)",
    ),
    "before": (
        [{"direction": ["P", "I", "R"]}, {"label": 19, "X": 1, "Y": -0.6, "Z": 3}],
        PointsError,
        "found T12 at ",
    ),
    "above": (
        [{"direction": ["P", "I", "R"]}, {"label": 19, "X": -0.6, "Y": 2, "Z": 3}],
        PointsError,
        "found T12 at ",
    ),
    "aside": (
        [{"direction": ["P", "I", "R"]}, {"label": 19, "X": 1, "Y": 2, "Z": -0.6}],
        PointsError,
        "found T12 at ",
    ),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\n", FileFormatError, "a Git LFS pointer"),
    "page": (b"<!DOCTYPE html>", FileFormatError, "found a web page"),
    "empty": (b"", FileFormatError, "JSON with a list of points"),
}


@pytest.mark.parametrize("what", BAD_JSON)
def test_bad_json_is_an_error_that_says_what_is_wrong(what):
    content, error, message = BAD_JSON[what]
    with pytest.raises(error, match=rf"^case_ctd.json: .*{message}"):
        read(content)


#: A file, axis-parallel, whose first voxel lies elsewhere than at 0.
PLAIN = np.array([[-0.7, 0, 0, 10.0], [0, 0.8, 0, -20.0], [0, 0, 2.5, 30.0], [0, 0, 0, 1.0]])


def rows(values, *, between="\t", end="\n"):
    """A file with rows of `values`, by label."""
    names = {18: "T11_center", 19: "T12_center", 28: "T13"}
    lines = [
        between.join(map(str, (number, names[label], *map(float, place))))
        for number, (label, place) in enumerate(values.items(), start=7)
    ]
    return (f"Landmarks of 1 case{end}" + end.join(lines) + end).encode()


def check_indices(points):
    assert {point.label: (*np.round(point.voxel, 9),) for point in points} == {
        label: (k, i, j) for label, (i, j, k) in PLACES.items()
    }


def test_lml_has_two_readings_of_which_the_one_that_fits_is_taken():
    geometry = Geometry.of(PLAIN, SHAPE)
    from_first = {label: np.array(place) * (0.7, 0.8, 2.5) for label, place in PLACES.items()}
    in_world = {label: (PLAIN @ [*place, 1])[:3] for label, place in PLACES.items()}
    itk = {label: place * (-1, -1, 1) for label, place in in_world.items()}
    for text in (
        rows(from_first),
        rows(from_first, between="  ", end="\r\n"),
        b"\xef\xbb\xbf" + rows(from_first),
    ):
        check_indices(read(text, "1.lml", geometry=geometry))
    check_indices(read(rows(in_world), "1.lml", geometry=geometry))
    check_indices(read(rows(itk), "1.lml", geometry=geometry, world="LPS"))
    for values, reading in ((from_first, "affine"), (in_world, "spacing")):
        with pytest.raises(
            PointsError, match=rf"of \(9, 14, 5\) voxels, found 3 of 3 outside as '{reading}'\."
        ):
            read(rows(values), "1.lml", geometry=geometry, reading=reading)
    with pytest.raises(
        PointsError, match=r"3 of 3 outside as 'spacing', 3 of 3 outside as 'affine'.*reading="
    ):
        read(rows(itk), "1.lml", geometry=geometry)


def test_the_image_beside_lml_says_in_which_convention_its_header_is():
    geometry = Geometry.of(PLAIN, SHAPE)
    in_world = {label: (PLAIN @ [*place, 1])[:3] for label, place in PLACES.items()}
    itk = {label: place * (-1, -1, 1) for label, place in in_world.items()}
    nameless = io.BytesIO()
    for images, values in (
        (("a.nii.gz", nameless), in_world),
        (("a.mhd", "A.MHA", named(b"", "a.mha")), itk),
    ):
        for image in images:
            files = {"image": image, "points": named(rows(values), "1.lml")}
            check_indices(read_case_points(files, geometry, VOCABULARY, "lml"))
    files = {"image": nameless, "points": named(rows(itk), "1.lml")}
    with pytest.raises(PointsError, match="3 of 3 outside as 'affine'"):
        read_case_points(files, geometry, VOCABULARY, "lml")


def test_where_both_readings_of_lml_fit_the_first_is_taken_unless_the_user_says_which():
    near = PLAIN * [[-1, 1, 1, 0.07], [1, 1, 1, -0.04], [1, 1, 1, 0.0], [1, 1, 1, 1]]  # by one voxel, -1, 0
    geometry = Geometry.of(near, SHAPE)
    text = rows({19: (2.1, 2.4, 2.5)})
    voxel = {
        reading: read(text, "1.lml", geometry=geometry, reading=reading).points[0].voxel
        for reading in (None, "spacing", "affine")
    }
    assert voxel[None] == voxel["spacing"] == pytest.approx((1, 3, 3))
    assert voxel["affine"] == pytest.approx((1, 2, 2))


def test_names_that_lml_may_have_are_all_listed_and_further_columns_are_not_read():
    vocabulary = data_set("verse").vocabulary
    with pytest.raises(PointsError) as caught:
        read_points(named(b"1 C9_center 1 2 3", "1.lml"), GEOMETRY, vocabulary, format="lml")
    assert all(vertebra.name in caught.value.expected for vertebra in vocabulary.vertebrae)
    values = {label: np.array(place) * (0.7, 0.8, 2.5) for label, place in PLACES.items()}
    text = rows(values, end="\tmore 1 2\n")
    check_indices(read(text, "1.lml", geometry=Geometry.of(PLAIN, SHAPE)))


def test_lml_keeps_the_first_of_duplicates_and_skips_lines_without_a_number():
    geometry = Geometry.of(PLAIN, SHAPE)
    values = {label: np.array(place) * (0.7, 0.8, 2.5) for label, place in PLACES.items()}
    text = (
        b"3 landmarks\n" + rows(values) + b"\nT11_center 1 2 3\n9 T11_center 0 0 0\n10 T12_center nan 0 0\n"
    )
    with pytest.warns(CTSpine1KWarning, match="1.lml: several points of T11; the first is used"):
        check_indices(read(text, "1.lml", geometry=geometry))


BAD_LML = {
    "comma": (
        b"h\n1\tT11_center\t1,5\t2\t3",
        FileFormatError,
        "in line 2, found '1,5'. This is a decimal comma",
    ),
    "text": (b"1 T11_center x 2 3", FileFormatError, "numbers in mm in line 1, found 'x'"),
    "infinite": (b"1 T11_center 1 2 inf", FileFormatError, "finite numbers in line 1, found inf"),
    "cut": (b"h\n1\tT11_center\t1\t2", FileFormatError, "an id, a name, x, y and z in line 2"),
    "header only": (b"h\n", FileFormatError, "rows of id, name, x, y and z, found none"),
    "empty": (b"", FileFormatError, "found none"),
    "many digits": (b"1 T11_center 1 2 " + b"1" * 400, FileFormatError, rf"line 1, found {'1' * 40}\. "),
    "other vertebra": (b"1 C9_center 1 2 3", PointsError, "one of .* in line 1, found 'C9_center'"),
    "number": (b"1 18_center 1 2 3", PointsError, "found '18_center'"),
    "large": (b" " * (1 << 21), FileFormatError, "found a larger file"),
}


@pytest.mark.parametrize("what", BAD_LML)
def test_bad_lml_is_an_error_that_says_what_is_wrong(what):
    content, error, message = BAD_LML[what]
    with pytest.raises(error, match=rf"^1.lml: .*{message}"):
        read(content, "1.lml")


def test_what_cannot_be_asked_for_is_refused(tmp_path):
    assert get_args(PointsKind) == POINTS_KINDS
    with pytest.raises(ValueError, match="format='csv': expected one of 'verse', 'lml'"):
        read([], format="csv")
    with pytest.raises(ValueError, match="reading='affine': expected one of 'voxels', 'miccai2019'"):
        read([], reading="affine")
    flat = AFFINE.copy()
    flat[:, 2] = flat[:, 1]
    with pytest.raises(FileFormatError, match=r"found axes in one plane\. Load the image without points"):
        read([], geometry=Geometry.of(flat, SHAPE))
    with pytest.raises(FileNotFoundError):
        read_points(tmp_path / "none.json", GEOMETRY, VOCABULARY, format="verse")


def test_the_format_of_points_is_told_by_the_name():
    assert [format_of(name) for name in ("a/x.lml", "X.LML", "x.json")] == ["lml", "lml", "verse"]


def test_a_file_that_is_too_large_for_points_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr("ctspine1k.volumes.point_formats.MAX_POINTS_BYTES", 1 << 20)
    path = tmp_path / "points.json"
    path.write_bytes(bytes(1 << 20))
    assert len(read_bytes(path)[0]) == 1 << 20
    path.write_bytes(bytes((1 << 20) + 1))
    for file in (path, io.BytesIO(path.read_bytes())):
        with pytest.raises(
            FileFormatError, match="expected points, in a file of at most 1 MB, found a larger file"
        ):
            read_bytes(file)


def test_a_file_without_points_still_says_of_which_kind_it_is():
    data = json.dumps([{"direction": ["L", "P", "I"], "kind": "body"}]).encode()
    geometry = Geometry.of(np.eye(4), (3, 4, 5))
    assert verse_indices(data, geometry, TINY.vocabulary, None, "x.json") == ({}, "body")


def test_what_is_not_utf8_beside_the_numbers_does_not_matter():
    text = rows({label: np.array(place) * (0.7, 0.8, 2.5) for label, place in PLACES.items()})
    geometry = Geometry.of(PLAIN, SHAPE)
    check_indices(read(b"\xff\xfe" + text, "case.lml", geometry=geometry))
