"""Turned volumes are what nibabel makes of the same files."""

import warnings

import nibabel as nib
import numpy as np
import pytest
from support.compare import rows
from support.volumes import AFFINE, SIZE, expected, intensities, labels, save

from ctspine1k import read_pair
from ctspine1k.errors import FileFormatError
from ctspine1k.volumes.cases import open_case
from ctspine1k.volumes.orientation import OPPOSITE, ORIENTATIONS, PLANES, sliced, turn_to

SHAPE = (6, 5, 4)
OBLIQUE = AFFINE @ np.array([[0.96, 0.28, 0, 0], [-0.28, 0.96, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], np.float64)
#: Sagittal slices, as some scanners store them: i backwards, j upwards, k to the left.
SAGITTAL = np.array([[0, 0, -2.5, 3.0], [-0.7, 0, 0, 4.0], [0, 0.8, 0, 5.0], [0, 0, 0, 1]])


def files(tmp_path, affine, dtype="<i2", suffix=".nii.gz", **scaling):
    return (
        save(tmp_path / f"a{suffix}", intensities(1, SHAPE, dtype), affine=affine, **scaling),
        save(tmp_path / f"a_seg{suffix}", labels(1, SHAPE), affine=affine),
    )


def turned(path, orientation):
    """The file as nibabel stores it in another orientation."""
    image = nib.load(path)
    start = nib.io_orientation(image.affine)
    end = nib.orientations.axcodes2ornt(orientation)
    return image.as_reoriented(nib.orientations.ornt_transform(start, end))


def slice_first(image, dtype):
    return np.transpose(image.get_fdata(), (2, 0, 1)).astype(dtype)


def test_there_are_48():
    assert len(set(ORIENTATIONS)) == 48
    assert {"RAS", "LPS", "PIR", "SLA"} < set(ORIENTATIONS)


@pytest.mark.parametrize("affine", [AFFINE, OBLIQUE, SAGITTAL], ids=["axial", "oblique", "sagittal"])
def test_every_orientation_is_nibabels_own(tmp_path, affine):
    image, mask = files(tmp_path, affine)
    for orientation in ORIENTATIONS:
        right = turned(image, orientation)
        pair = read_pair(image, mask, on_geometry="raise", orientation=orientation)
        assert pair.image.tobytes() == slice_first(right, "f4").tobytes(), orientation
        assert pair.segmentation.tobytes() == slice_first(turned(mask, orientation), "i4").tobytes()
        assert np.array_equal(pair.affine, right.affine), orientation
        assert np.allclose(np.array(pair.spacing)[[1, 2, 0]], right.header.get_zooms(), rtol=1e-6, atol=0)
        assert pair.orientation == orientation[2] + orientation[:2]
        assert "".join(nib.aff2axcodes(pair.affine)) == orientation
        assert pair.image.flags.c_contiguous, orientation


def test_a_voxel_keeps_its_place_and_value(tmp_path):
    """By another path than nibabel's reorientation: through millimetres."""
    image, mask = files(tmp_path, AFFINE)
    stored, pair = read_pair(image, mask), read_pair(image, mask, orientation="PIR")
    k, i, j = 3, 4, 1
    place = stored.affine @ [i, j, k, 1]
    i2, j2, k2 = np.linalg.solve(pair.affine, place)[:3].round().astype(int)
    assert pair.image[k2, i2, j2] == stored.image[k, i, j]
    assert pair.segmentation[k2, i2, j2] == stored.segmentation[k, i, j]
    assert np.array_equal(np.sort(pair.image, axis=None), np.sort(stored.image, axis=None))


def test_canonical(tmp_path):
    image, mask = files(tmp_path, AFFINE)
    pair = read_pair(image, mask, orientation="RAS")
    canonical = nib.as_closest_canonical(nib.load(image))
    assert np.array_equal(pair.image, slice_first(canonical, "f4"))
    assert np.array_equal(pair.affine, canonical.affine)


@pytest.mark.parametrize(
    ("dtype", "scaling"), [("<f4", {}), (">i2", {}), ("<i2", {"slope": 0.5, "inter": -3.0}), ("<u1", {})]
)
@pytest.mark.parametrize("orientation", ["RAS", "RPI", "ASR"])
def test_any_type_and_scaling(tmp_path, dtype, scaling, orientation):
    image, mask = files(tmp_path, AFFINE, dtype, **scaling)
    pair = read_pair(image, mask, orientation=orientation)
    assert pair.image.tobytes() == slice_first(turned(image, orientation), "f4").tobytes()


def test_none_is_as_stored(tmp_path):
    image, mask = files(tmp_path, AFFINE)
    pair = read_pair(image, mask)
    assert np.array_equal(pair.image, expected(image, "f4"))
    assert np.array_equal(pair.affine, AFFINE.astype("f4"))
    assert pair.orientation == "SLA"


@pytest.mark.parametrize("orientation", ["ras", "RAX", "RA", "RLS", "RASS", ""])
def test_what_is_no_orientation_is_told(tmp_path, orientation):
    image, mask = files(tmp_path, AFFINE)
    with pytest.raises(ValueError, match=f"orientation='{orientation}': expected three letters, one each of"):
        read_pair(image, mask, orientation=orientation)


def test_an_axis_that_leads_nowhere(tmp_path):
    image, mask = files(tmp_path, AFFINE, suffix=".nii")
    for path in (image, mask):
        data = bytearray(path.read_bytes())
        data[280:328] = np.array([[0.7, 0, 0, 0], [0, 0, 0, 0], [0, 0, 2.5, 0]], "<f4").tobytes()  # the sform
        path.write_bytes(data)
    with pytest.raises(FileFormatError) as caught:
        read_pair(image, mask, orientation="RAS")
    assert caught.value.expected == "an affine with a direction for each axis"


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("storage", ["dense", "compact"])
@pytest.mark.parametrize("orientation", ["RAS", "LAS", "LPI"])
def test_rows_are_turned_with_their_geometry(tree, load, name, storage, streaming, orientation):
    loaded = load(
        name, split="train", orientation=orientation, geometry=True, storage=storage, streaming=streaming
    )
    got = rows(loaded)
    right = []
    for case_id in ("1.3.6.1.4.1.9328.50.4.0001", "liver_106"):
        image = turned(next(tree.rglob(f"{case_id}.nii.gz")), orientation)
        mask = turned(next(tree.rglob(f"{case_id}_seg.nii.gz")), orientation)
        volumes = slice_first(image, "f4"), slice_first(mask, "i4")
        parts = [volumes] if name == "3d" else zip(*volumes, strict=True)
        right += [(case_id, *part, image.affine) for part in parts]
    assert len(got) == len(right)
    for row, (case_id, image, mask, affine) in zip(got, right, strict=True):
        assert row["patient_id"] == case_id
        assert np.asarray(row["image"], "f4").tobytes() == image.tobytes()
        assert np.asarray(row["segmentation"], "i4").tobytes() == mask.tobytes()
        assert np.array_equal(row["affine"], affine)
        assert np.array_equal(row["array_affine"], np.array(affine)[:, [2, 0, 1, 3]])
        assert row["orientation"] == orientation[2] + orientation[:2]
        assert np.allclose(row["spacing"], [2.5, 0.7, 0.8])


def test_another_slice_axis_in_compact_storage(tree, load):
    (first, _) = rows(load("3d", split="train", orientation="ASL", storage="compact", image_size=None))
    right = turned(next(tree.rglob("1.3.6.1.4.1.9328.50.4.0001.nii.gz")), "ASL")
    assert np.array_equal(first["image"], slice_first(right, "f4"))


def test_slices_that_stay_slices_are_not_gathered(tmp_path):
    """Turned within the slice, a volume is read slab by slab."""
    image, mask = files(tmp_path, AFFINE)
    with open_case(image, mask, orientation="RAS") as pair:
        assert [len(stored) for stored, _ in pair.slabs(3)] == [3, 1]
        assert pair.geometry.shape == (4, *SIZE)


def test_damage_is_seen_in_any_orientation(tmp_path):
    image, mask = files(tmp_path, AFFINE, suffix=".nii")
    image.write_bytes(image.read_bytes()[:-3])
    for orientation in ("RAS", "LAI"):
        with warnings.catch_warnings(), pytest.raises(Exception, match="the end of the file in slice 3"):
            read_pair(image, mask, orientation=orientation)


@pytest.mark.parametrize("plane", PLANES)
def test_a_plane_changes_the_order_of_axes_alone(plane):
    for code in ORIENTATIONS:
        found = sliced(code, plane)
        assert found in ORIENTATIONS
        assert set(found) == set(code)
        assert found[2] in (PLANES[plane], OPPOSITE[PLANES[plane]])
        assert [code.index(letter) for letter in found[:2]] == sorted(map(code.index, found[:2]))


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_a_turn_that_leaves_slices_in_their_order_needs_no_volume_in_memory(orientation):
    turn = turn_to(orientation, AFFINE, SHAPE)  # LAS
    assert turn.keeps_slices == (orientation[2] == "S")


@pytest.mark.parametrize(
    ("axis", "size", "found"), [(1, 0.0, "no length along j"), ([0, 2], 0.0, "no length along i and k")]
)
def test_axes_without_length_are_named(axis, size, found):
    flat = AFFINE.copy()
    flat[:3, axis] = size
    with pytest.raises(ValueError, match=f"^{found}$"):
        turn_to("RAS", flat, SHAPE)
