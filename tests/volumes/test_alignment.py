"""Image and mask that are stored in different orientations: by index as stored, else each by its own header."""

import itertools

import nibabel as nib
import numpy as np
import pytest
from nibabel.eulerangles import euler2mat
from support.compare import same_bits
from support.volumes import AFFINE, SHAPE, expected, intensities, labels, save

from ctspine1k import read_pair
from ctspine1k.errors import FileFormatError, GeometryWarning, PairMismatchError, TruncatedFileError
from ctspine1k.volumes.alignment import are_close
from ctspine1k.volumes.cases import open_case
from ctspine1k.volumes.orientation import ORIENTATIONS

OBLIQUE = np.eye(4)
OBLIQUE[:3, :3] = euler2mat(0.1, -0.2, 0.15) @ np.diag([-0.7, 0.8, 2.5])
OBLIQUE[:3, 3] = 10.0, -20.0, 30.0


def reoriented(voxels, affine, orientation):
    """Voxels and affine as nibabel stores them in another orientation."""
    steps = nib.orientations.ornt_transform(
        nib.io_orientation(affine), nib.orientations.axcodes2ornt(orientation)
    )
    image = nib.Nifti1Image(voxels, affine).as_reoriented(steps)
    return np.asarray(image.dataobj), image.affine


def slice_first(voxels, dtype):
    return np.transpose(voxels, (2, 0, 1)).astype(dtype, order="C")


def files(tmp_path, stored, affine=AFFINE, suffix=".nii", **fields):
    """An image stored as LAS, and its mask stored in another orientation."""
    voxels, own = reoriented(labels(), affine, stored)
    return (
        save(tmp_path / f"a{suffix}", intensities(), affine=affine),
        save(tmp_path / f"m{suffix}", voxels, affine=own, **fields),
    )


@pytest.mark.parametrize(
    ("affine", "orientations"),
    [(AFFINE, ("PIR",)), (OBLIQUE, ("RAS", "LAS", "PIR"))],  # LAS: as the image is stored; PIR: other slices
    ids=["axial", "oblique"],
)
def test_each_is_turned_by_its_own_header(tmp_path, affine, orientations):
    right = {}
    for wanted in orientations:
        (image, _), (mask, own) = (reoriented(one, affine, wanted) for one in (intensities(), labels()))
        right[wanted] = slice_first(image, "f4"), slice_first(mask, "i4"), own
    for stored in ORIENTATIONS:
        image, mask = files(tmp_path, stored, affine)
        for wanted, (image_alone, mask_alone, right_affine) in right.items():
            pair = read_pair(image, mask, orientation=wanted, on_geometry="raise")
            assert same_bits(pair.segmentation, mask_alone), (stored, wanted)
            assert same_bits(pair.image, image_alone), (stored, wanted)
            np.testing.assert_allclose(pair.affine, right_affine, atol=1e-5)
            with open_case(image, mask, orientation=wanted, on_geometry=None, threads=2) as case:
                slabs = list(map(np.copy, (part for _, part in case.slabs(3))))
                assert same_bits(np.concatenate(slabs).astype("i4"), pair.segmentation), (stored, wanted)
                assert case.geometry_mismatch() is None
        with open_case(image, mask, orientation=wanted, label_scheme="binary") as case:
            assert np.array_equal(case.read().segmentation, pair.segmentation > 0), stored


def test_slices_of_a_plane_are_those_of_the_image_for_its_mask_too(tmp_path):
    image, mask = files(tmp_path, "PSR", OBLIQUE)
    with open_case(image, mask, orientation="sagittal", on_geometry="raise") as case:
        found = case.read()
    right = read_pair(image, mask, orientation="ASL")
    assert same_bits(found.image, right.image)
    assert same_bits(found.segmentation, right.segmentation)
    assert found.orientation == "LAS"
    with pytest.raises(ValueError, match="orientation='sagittal': expected three letters"):
        read_pair(image, mask, orientation="sagittal")


def test_as_stored_they_are_paired_by_index_and_the_warning_says_what_aligns_them(tmp_path):
    image, mask = files(tmp_path, "RAS")
    with pytest.warns(GeometryWarning) as told:
        pair = read_pair(image, mask)
    (one,) = told
    assert f"{mask}: expected the affine of {image}" in str(one.message)
    assert ', which orientation="RAS" would bring to the same place. Voxels are paired by index.' in str(
        one.message
    )
    assert same_bits(pair.segmentation, expected(mask, "i4"))
    with pytest.raises(PairMismatchError, match='which orientation="RAS" would bring to the same place'):
        read_pair(image, mask, on_geometry="raise")


@pytest.mark.parametrize("stored", ["LAS", "RAS"])
def test_no_orientation_is_advised_where_the_difference_would_stay(tmp_path, stored):
    """A mask whose pixdim is wrong is at the same place already, or still has another spacing when turned."""
    image, mask = files(tmp_path, stored, pixdim=[1, 0.912345, 0.8, 2.5, 0, 0, 0, 0])
    for wanted in (None, "RAS"):
        with pytest.warns(GeometryWarning) as told:
            read_pair(image, mask, orientation=wanted)
        assert "[0.9123, 0.8, 2.5]" in str(told[0].message)
        assert "would bring" not in str(told[0].message)
    with pytest.raises(PairMismatchError) as caught:
        read_pair(image, mask, on_geometry="raise")
    assert caught.value.found.endswith("[0.9123, 0.8, 2.5]")


def test_places_are_compared_in_mm_however_far_they_are_from_the_origin():
    for far in (0.0, 5000.0):
        assert are_close(np.array([far]), np.array([far + 0.0009]))
        assert not are_close(np.array([far]), np.array([far + 0.002]))


def test_axes_in_another_order_need_an_orientation(tmp_path):
    image, mask = files(tmp_path, "SAL")
    with pytest.raises(PairMismatchError) as caught:
        read_pair(image, mask)
    assert caught.value.found == '(4, 5, 6), which orientation="RAS" would bring to the same place'
    assert caught.value.hint == "Its axes are stored in another order: pass orientation."
    other = save(tmp_path / "o.nii", labels(shape=(4, 5, 6)))
    for orientation in (None, "RAS"):
        with pytest.raises(PairMismatchError) as caught:
            read_pair(image, other, orientation=orientation)
        assert caught.value.found == "(4, 5, 6)"
        assert caught.value.hint.startswith("The mask belongs to another volume")


@pytest.mark.parametrize("stored", ["RAS", "LAS", "LPI"])
def test_a_mask_that_lies_elsewhere_is_turned_by_its_own_header_and_told(tmp_path, stored):
    voxels, own = reoriented(labels(), AFFINE, stored)
    own[:3, 3] += 0.0, 3.0, 0.0
    image = save(tmp_path / "a.nii", intensities())
    mask = save(tmp_path / "m.nii", voxels, affine=own)
    with pytest.warns(GeometryWarning) as told:
        pair = read_pair(image, mask, orientation="RAS")
    (one,) = told
    assert "Each was turned by its own header; without orientation, voxels are paired by index." in str(
        one.message
    )
    assert np.array_equal(pair.segmentation, np.transpose(reoriented(labels(), AFFINE, "RAS")[0], (2, 0, 1)))
    with pytest.warns(GeometryWarning) as told:
        read_pair(image, mask)
    assert "would bring to the same place" not in str(told[0].message)


@pytest.mark.parametrize(
    "fields",
    [
        {"affine": np.eye(4)},  # as programs write it that know no affine
        {"sform_code": 0, "qform_code": 0},
        {"srow_x": [0, 0, 0, 1.0], "qform_code": 0},
    ],
    ids=["identity", "no code", "degenerate"],
)
def test_a_mask_whose_header_says_nothing_of_these_voxels_is_turned_as_its_image(tmp_path, fields):
    right = np.diag([0.7, -0.8, 2.5, 1.0])
    image = save(tmp_path / "a.nii", intensities(), affine=right)
    mask = save(tmp_path / "m.nii", labels(), **{"affine": right, **fields})
    with pytest.warns(GeometryWarning) as told:
        pair = read_pair(image, mask, orientation="RAS")
    (one,) = told
    assert "Voxels are paired by index." in str(one.message)
    assert np.array_equal(pair.image, expected(image, "f4")[:, :, ::-1])
    assert np.array_equal(pair.segmentation, expected(mask, "i4")[:, :, ::-1])


def test_a_mask_is_turned_as_an_image_whose_place_is_a_guess(tmp_path):
    image = save(tmp_path / "a.nii", intensities(), sform_code=0, qform_code=0)
    mask = save(tmp_path / "m.nii", labels(), affine=np.diag([0.7, -0.8, 2.5, 1.0]))
    with pytest.warns(GeometryWarning) as told:
        pair = read_pair(image, mask, orientation="RAS")
    assert "found neither: both codes are 0" in str(told[0].message)
    assert np.array_equal(pair.segmentation, expected(mask, "i4")[:, ::-1])


@pytest.mark.parametrize("which", ["a", "m"])
@pytest.mark.parametrize("stored", ["RAS", "SAL"])
def test_damage_is_seen_however_they_are_turned(tmp_path, which, stored):
    image, mask = files(tmp_path, stored)
    path = tmp_path / f"{which}.nii"
    path.write_bytes(path.read_bytes()[:-1])
    with (
        pytest.raises(TruncatedFileError, match=rf"{which}\.nii: expected \d slices"),
        open_case(image, mask, orientation="RAS") as case,
    ):
        case.read()
    with pytest.raises(TruncatedFileError), open_case(image, mask, orientation="RAS") as case:
        case.check()


def test_spacing_is_compared_where_the_axes_are(tmp_path):
    """Two axes change places, whose voxels have different sizes, also by pixdim."""
    for stored, wanted in itertools.product(("ALS", "PLI"), ("RAS", "ARS")):
        image, mask = files(tmp_path, stored)
        assert nib.load(mask).shape == (SHAPE[1], SHAPE[0], SHAPE[2])
        read_pair(image, mask, orientation=wanted, on_geometry="raise")


@pytest.mark.parametrize("has_mask", [True, False])
def test_an_image_whose_axes_have_no_direction_cannot_be_turned(tmp_path, has_mask):
    flat = {"srow_y": [0, 0, 0, 1.0], "qform_code": 0}
    image, mask = (save(tmp_path / f"{kind}.nii", labels(1), **flat) for kind in ("image", "mask"))
    with (
        pytest.raises(
            FileFormatError, match=r"a direction for each axis, .*no length along j.*without orientation"
        ),
        open_case(image, mask if has_mask else None, on_geometry=None, orientation="RAS"),
    ):
        pass
    with open_case(image, None, on_geometry=None) as case:
        assert case.geometry.shape == (4, 6, 5)
