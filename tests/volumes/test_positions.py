"""Headers that contradict themselves, and what is made of them: what nibabel makes of them, in mm, and a warning."""

import logging

import nibabel as nib
import numpy as np
import pytest
from nibabel.eulerangles import euler2mat
from nibabel.quaternions import angle_axis2mat
from support.compare import same_bits
from support.volumes import AFFINE, SHAPE, expected, intensities, labels, nifti, save

from ctspine1k import read_pair
from ctspine1k.errors import FileFormatError, GeometryError, GeometryWarning
from ctspine1k.volumes.cases import open_case
from ctspine1k.volumes.headers import parse_header
from ctspine1k.volumes.orientation import degenerate_axes

#: Each axis oblique to each side.
OBLIQUE = np.eye(4)
OBLIQUE[:3, :3] = euler2mat(0.3, -0.2, 0.5) @ np.diag([-0.7, 0.8, 2.5])
OBLIQUE[:3, 3] = 10.0, -20.0, 30.0

#: Sheared along k, as by a tilted gantry, which a qform cannot express.
TILTED = AFFINE.copy()
TILTED[1, 2] = 0.9

PIXDIM = [-1, 0.7, 0.8, 2.5, 0, 0, 0, 0]


def pixdim(**changed):
    """The pixdim of `AFFINE`, with some of its numbers changed."""
    return {"pixdim": [changed.get(f"at_{n}", size) for n, size in enumerate(PIXDIM)]}


def doubts(path):
    with open_case(path, None, on_geometry=None) as case:
        return {doubt.kind: (doubt.error.expected, doubt.error.found) for doubt in case.doubts}


@pytest.mark.parametrize("header_class", [nib.Nifti1Header, nib.Nifti2Header])
@pytest.mark.parametrize("affine", [AFFINE, OBLIQUE, TILTED], ids=["axial", "oblique", "tilted"])
@pytest.mark.parametrize("codes", [(1, 1), (2, 0), (0, 1), (4, 3)])
def test_sound_headers_are_not_doubted(tmp_path, header_class, affine, codes):
    for units in (0, 2, 5, 10):
        fields = {"sform_code": codes[0], "qform_code": codes[1], "xyzt_units": units}
        image = save(tmp_path / "a.nii", intensities(), affine=affine, header_class=header_class, **fields)
        assert doubts(image) == {}, units
    pair = read_pair(
        image, save(tmp_path / "m.nii", labels(), affine=nib.load(image).affine), on_geometry="raise"
    )
    assert np.array_equal(pair.affine, nib.load(image).affine)


@pytest.mark.slow
def test_every_rotation_of_a_qform_is_read_as_it_was_meant():
    """Near half a turn, a quaternion of float32 is off by a thousandth."""
    random, voxels = np.random.default_rng(5), intensities()
    for _ in range(300):
        axis = random.normal(size=3)
        turn = angle_axis2mat(np.pi - random.uniform(0, 1e-3), axis)
        affine = np.eye(4)
        affine[:3, :3] = turn @ np.diag([0.7, 0.8, random.choice([-2.5, 2.5])])
        assert parse_header(nifti(voxels, affine=affine)[:348], "a.nii").doubts == ()


def test_directions_of_small_voxels_are_compared_as_those_of_large_ones():
    """By up to 3e-3, whatever that is in mm."""
    for angle, is_doubted in ((0.0025, False), (0.004, True)):
        affine, turned = np.diag([0.3, 0.1, 0.15, 1.0]), np.eye(4)
        turned[:3, :3] = euler2mat(angle, 0, 0)
        data = bytearray(nifti(intensities(), affine=turned @ affine)[:348])
        for row, at in enumerate((280, 296, 312)):  # the sform
            data[at : at + 16] = affine[row].astype("<f4").tobytes()
        found = [doubt.error.found for doubt in parse_header(bytes(data), "a.nii").doubts]
        text = "axes RAS by the sform, RAS by the qform, up to 0.2 degrees apart"
        assert found == ([text] if is_doubted else [])


@pytest.mark.parametrize(("angle", "degrees"), [(0.1, "5.7"), (np.pi, "180.0")])
def test_an_axis_that_rounding_makes_longer_than_1_has_an_angle(angle, degrees):
    random = np.random.default_rng(7)
    for _ in range(20):
        affine, turned = np.eye(4), np.eye(4)
        affine[:3, :3] = angle_axis2mat(random.uniform(0.5, 1), random.normal(size=3))
        turned[:3, :3] = affine[:3, :3] @ angle_axis2mat(angle, [0, 0, 1])  # about its own third axis
        data = bytearray(nifti(intensities(), affine=turned)[:348])
        for row, at in enumerate((280, 296, 312)):  # the sform
            data[at : at + 16] = affine[row].astype("<f4").tobytes()
        (doubt,) = parse_header(bytes(data), "a.nii").doubts
        assert doubt.error.found.endswith(f"up to {degrees} degrees apart")


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        (pixdim(at_3=5.12347), "spacing [0.7, 0.8, 2.5] mm by the sform, [0.7, 0.8, 5.1235] mm by pixdim"),
        (pixdim(at_1=-0.7), "spacing [0.7, 0.8, 2.5] mm by the sform, [-0.7, 0.8, 2.5] mm by pixdim"),
        (pixdim(at_2=0), "spacing [0.7, 0.8, 2.5] mm by the sform, [0.7, 0.0, 2.5] mm by pixdim"),
        (pixdim(at_2=np.nan), "spacing [0.7, 0.8, 2.5] mm by the sform, [0.7, nan, 2.5] mm by pixdim"),
        (pixdim(at_2=np.inf), "spacing [0.7, 0.8, 2.5] mm by the sform, [0.7, inf, 2.5] mm by pixdim"),
        ({"qoffset_y": 7.5}, "origin [10.0, -20.0, 30.0] by the sform, [10.0, 7.5, 30.0] by the qform"),
        ({"qoffset_y": np.nan}, "origin [10.0, -20.0, 30.0] by the sform, [10.0, nan, 30.0] by the qform"),
        (pixdim(at_0=1), "axes LAS by the sform, LAI by the qform, up to 180.0 degrees apart"),
        ({"quatern_b": 0.1, "quatern_c": 0.99}, "axes LAS by the sform, LAS by the qform, up to "),
        ({"quatern_b": 2}, "a qform that cannot be read (w2 should be positive"),
        ({"quatern_b": np.nan}, "a qform that cannot be read ("),
        ({"sform_code": 77}, "sform_code 77, which does not exist"),
        ({"qform_code": -3}, "qform_code -3, which does not exist"),
        ({"sform_code": 0, "qform_code": 1, **pixdim(at_2=-0.8)}, "spacing [0.7, 0.8, 2.5] mm by the qform, [0.7, -0.8, 2.5]"),
        ({"sform_code": 0, "qform_code": 1, **pixdim(at_2=0)}, "spacing [0.7, 1.0, 2.5] mm by the qform, [0.7, 0.0, 2.5]"),
        ({"sform_code": 0, "qform_code": 0, **pixdim(at_2=0)}, "spacing [0.7, 1.0, 2.5] mm by the affine, [0.7, 0.0, 2.5]"),
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("kind", ["image", "mask", "both"])
def test_a_header_that_contradicts_itself(tmp_path, capfd, fields, found, kind):
    """Also where image and mask do it in the same way. nibabel's own remark, without a name, is not printed."""
    image = save(tmp_path / "a.nii", intensities(), **(fields if kind != "mask" else {}))
    mask = save(tmp_path / "m.nii", labels(), **(fields if kind != "image" else {}))
    for path in [image] * (kind != "mask") + [mask] * (kind != "image"):
        expected_text, found_text = doubts(path)["header"]
        assert expected_text == "a header whose sform, qform and pixdim agree"
        assert found_text.startswith(found)
    with pytest.warns(GeometryWarning) as told:
        pair = read_pair(image, mask)
    (one,) = told
    assert one.filename == __file__
    for path in [image] * (kind != "mask") + [mask] * (kind != "image"):
        assert f"{path}: expected a header whose sform, qform and pixdim agree, found {found}" in str(
            one.message
        )
    assert same_bits(pair.image, expected(image, "f4"))
    np.testing.assert_array_equal(pair.affine, nib.load(image).affine)
    sizes = nib.affines.voxel_sizes(nib.load(image).affine)
    assert pair.spacing == (sizes[2], sizes[0], sizes[1])
    if kind == "both":  # they agree with each other
        with pytest.raises(GeometryError, match=r"a\.nii: expected a header whose"):
            read_pair(image, mask, on_geometry="raise")
    capfd.readouterr()  # of nibabel's own reading
    with open_case(image, mask, on_geometry=None):
        pass
    assert capfd.readouterr() == ("", "")


def test_what_matters_to_no_reader_is_not_said(tmp_path, capfd, caplog):
    """nibabel's remark on an offset that another program could not map into memory."""
    data = bytearray((save(tmp_path / "a.nii", intensities())).read_bytes())
    data[108:112] = np.float32(360).tobytes()
    data[352:352] = bytes(8)
    (tmp_path / "a.nii").write_bytes(data)
    caplog.set_level(logging.DEBUG)
    mask = save(tmp_path / "m.nii", labels())
    pair = read_pair(tmp_path / "a.nii", mask, on_geometry="raise")
    assert capfd.readouterr() == ("", "")
    assert same_bits(pair.image, expected(tmp_path / "a.nii", "f4"))


@pytest.mark.parametrize(("code", "unit", "in_mm"), [(1, "metres", 1000), (3, "microns", 0.001)])
@pytest.mark.parametrize("time", [0, 8, 16])
def test_other_units_are_converted(tmp_path, code, unit, in_mm, time):
    small = AFFINE.copy()
    small[:3] /= in_mm
    mask = save(tmp_path / "m.nii", labels())
    for codes in ({}, {"sform_code": 0}, {"qform_code": 0}):
        image = save(tmp_path / "a.nii", intensities(), affine=small, xyzt_units=code + time, **codes)
        with pytest.warns(GeometryWarning) as told:  # the mask lies at the same place
            pair = read_pair(image, mask)
        (text,) = [str(one.message) for one in told]
        start = (
            f"{image}: expected lengths in mm, found lengths in {unit}. They are converted: the spacing is "
        )
        assert text.startswith(f"{start}[0.7, 0.8, 2.5] mm. If that is wrong, correct xyzt_units.")
        np.testing.assert_allclose(pair.affine, AFFINE, atol=1e-5)
        assert pair.spacing == pytest.approx((2.5, 0.7, 0.8), rel=1e-5)
        assert pair.orientation == "SLA"
        assert set(doubts(image)) == {"units"}
    with pytest.raises(GeometryError, match=f"found lengths in {unit}"):
        read_pair(image, mask, on_geometry="raise")


def with_rows(*srows):
    return {"sform_code": 1, **{f"srow_{axis}": row for axis, row in zip("xyz", srows, strict=True)}}


DEGENERATE = {
    "zero column": (with_rows([-0.7, 0, 0, 1], [0, 0, 0, 2], [0, 0, 2.5, 3]), "no length along j"),
    "zero row": (with_rows([0, 0, 0, 1], [0.1, 0.8, 0.3, 2], [0.3, 0.2, 2.5, 3]), "axes in one plane"),
    "two zero columns": (with_rows([0, 0, 0, 1], [0, 0.8, 0, 2], [0, 0, 0, 3]), "no length along i and k"),
    "parallel": (with_rows([0.7, 0.7, 0, 1], [0, 0, 0, 2], [0, 0, 2.5, 3]), "axes in one plane"),
    "all zero": (with_rows([0] * 4, [0] * 4, [0] * 4), "no length along i and j and k"),
    "nearly": (with_rows([0.7, 0, 0.7, 0], [0, 0.8, 0, 0], [0, 0, 2e-4, 0]), "axes in one plane"),
}


@pytest.mark.parametrize(("fields", "what"), DEGENERATE.values(), ids=DEGENERATE)
def test_a_degenerate_affine(tmp_path, fields, what):
    image = save(tmp_path / "a.nii", intensities(), qform_code=0, **fields)
    mask = save(tmp_path / "m.nii", labels(), qform_code=0, **fields)
    expected_text, found = doubts(image)["degenerate"]
    assert expected_text == "an affine with a length and a direction for each axis"
    assert found.endswith(f"({what})")
    with pytest.warns(GeometryWarning) as told:
        pair = read_pair(image, mask)
    for path in (image, mask):
        assert f"{path}: expected an affine with a length and a direction" in str(told[0].message)
    assert len(pair.orientation) == 3
    assert same_bits(pair.image, expected(image, "f4"))
    with pytest.raises(GeometryError):
        read_pair(image, mask, on_geometry="raise")
    for on_geometry in ("warn", "raise"):
        with pytest.raises(FileFormatError, match="Load it as stored, without orientation") as caught:
            read_pair(image, mask, orientation="RAS", on_geometry=on_geometry)
        assert caught.value.expected == "an affine with a direction for each axis"


def test_what_is_not_degenerate():
    """A gantry is tilted by up to 30 degrees, and a microscope's voxels are small."""
    for angle in (0, 15, 30, -30):
        tilted = AFFINE.copy()
        tilted[1, 2] = 2.5 * np.tan(np.radians(angle))
        assert degenerate_axes(tilted) is None
        assert degenerate_axes(tilted @ np.diag([1e-4, 1e-4, 1e-4, 1])) is None


@pytest.mark.parametrize(
    "fields",
    [
        {"srow_x": [1e300, 0, 0, 0]},
        {"srow_x": [0, 0, 0, 1e307], "xyzt_units": 1},
        {"sform_code": 0, **pixdim(at_1=np.inf)},
        {"sform_code": 0, **pixdim(at_1=1e308)},
    ],
    ids=str,
)
def test_numbers_without_end_are_an_error_and_no_warning_of_numpys(tmp_path, fields):
    image = save(tmp_path / "a.nii", intensities(), header_class=nib.Nifti2Header, **fields)
    with pytest.raises(FileFormatError, match="expected a finite affine, found") as caught:
        doubts(image)
    assert caught.value.found.count("[") == 1 + 3  # without the last row


def test_a_place_that_is_a_guess(tmp_path):
    """As stored, nothing depends on it; an orientation does."""
    image = save(tmp_path / "a.nii", intensities(), sform_code=0, qform_code=0)
    mask = save(tmp_path / "m.nii", labels(), sform_code=0, qform_code=0)
    assert doubts(image) == {"unplaced": ("a header with an sform or a qform", "neither: both codes are 0")}
    stored = read_pair(image, mask, on_geometry="raise")
    np.testing.assert_array_equal(stored.affine, nib.load(image).affine)
    assert stored.orientation == "SLA"
    with pytest.warns(GeometryWarning) as told:
        turned = read_pair(image, mask, orientation="RAS")
    (one,) = told
    assert str(one.message).startswith(f"{image}: expected a header with an sform or a qform, found neither")
    assert str(mask) not in str(one.message)  # it is turned as its image
    assert "The directions of the axes are a guess, about which nibabel and SimpleITK disagree." in str(
        one.message
    )
    assert np.array_equal(turned.image, stored.image[:, ::-1])
    assert np.array_equal(turned.segmentation, stored.segmentation[:, ::-1])
    with pytest.raises(GeometryError, match="found neither: both codes are 0"):
        read_pair(image, mask, orientation="RAS", on_geometry="raise")


def test_pixdim_that_is_nan_in_both_headers_is_no_mismatch(tmp_path):
    image, mask = (
        save(tmp_path / name, voxels, **pixdim(at_3=np.nan))
        for name, voxels in (("a.nii", intensities()), ("m.nii", labels()))
    )
    with open_case(image, mask, on_geometry=None) as case:
        assert case.geometry_mismatch() is None
        assert [doubt.kind for doubt in case.doubts] == ["header", "header"]


def test_two_headers_that_agree_but_for_the_unit(tmp_path):
    small = AFFINE.copy()
    small[:3] /= 1000
    image = save(tmp_path / "a.nii", intensities(), affine=small, xyzt_units=1)
    for other in (AFFINE, AFFINE @ np.diag([1, 1, 1.1, 1])):
        mask = save(tmp_path / "m.nii", labels(), affine=other)
        with open_case(image, mask, on_geometry=None) as case:
            assert (case.geometry_mismatch() is None) == (other is AFFINE)
            assert case.geometry.shape == (SHAPE[2], *SHAPE[:2])
