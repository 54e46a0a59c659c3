"""Measures of phantoms of known geometry, and of any files by another path: plain nibabel and NumPy."""

import gzip
import sys
import zlib

import nibabel as nib
import numpy as np
import pytest
from support.spines import AFFINE, SPACING, save_spine, spine
from support.volumes import AFFINE as SMALL
from support.volumes import intensities, labels, nifti, save

from ctspine1k.catalog.ctspine1k import CTSPINE1K
from ctspine1k.checks.measure import measure
from ctspine1k.checks.plausibility import implausible
from ctspine1k.errors import MissingPackageError
from ctspine1k.volumes.cases import open_case

OBLIQUE = AFFINE @ np.array([[0.96, 0.28, 0, 0], [-0.28, 0.96, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])


def measured(image, mask, **options):
    with open_case(image, mask, on_geometry=None, **options) as pair:
        return measure(pair)


@pytest.mark.parametrize("affine", [AFFINE, OBLIQUE], ids=["straight", "oblique"])
def test_an_ellipsoid_has_its_volume_and_its_centre(tmp_path, affine):
    """Volume within 1 %, centroid within half a voxel, of what the formulas say."""
    centre, radii = np.array([30.2, 25.7, 20.4]), np.array([18.0, 14.0, 12.0])  # voxels
    grid = np.indices((64, 50, 40)).T.reshape(-1, 3)
    inside = (((grid - centre) / radii) ** 2).sum(axis=1) < 1
    mask = np.zeros((64, 50, 40), np.uint8)
    mask[tuple(grid[inside].T)] = 21
    image = np.where(mask > 0, 300, 40).astype(np.int16)
    case = measured(*save_spine(tmp_path, "liver_106", image, mask, affine=affine))
    (found,) = case.vertebrae
    assert case.hu_beside == 40
    right_cm3 = 4 / 3 * np.pi * np.prod(radii) * np.prod(SPACING) / 1000
    assert found.volume_cm3 == pytest.approx(right_cm3, rel=0.01)
    assert np.abs(np.array(found.centroid) - centre[[2, 0, 1]]).max() < 0.5
    in_mm = (affine @ [*centre, 1])[:3]
    assert np.linalg.norm(np.array(found.centroid_mm) - in_mm) < 0.5 * min(SPACING)
    assert found.mean_hu == 300
    assert found.components == 1


def test_a_box_is_measured_exactly(tmp_path):
    image, mask = np.zeros((20, 30, 12), np.int16), np.zeros((20, 30, 12), np.uint8)
    mask[3:8, 10:21, 0:5] = 9
    mask[4:5, 12:14, 7:12] = 25
    image[mask == 9] = 200
    image[mask == 25] = -7
    first, last = measured(*save_spine(tmp_path, "liver_106", image, mask)).vertebrae
    assert (first.label, first.voxels) == (9, 5 * 11 * 5)
    assert (first.start, first.stop) == ((0, 3, 10), (5, 8, 21))  # slice first
    assert first.centroid == (2.0, 5.0, 15.0)
    assert first.centroid_mm == pytest.approx((40 - 5 * 0.9, -30 + 15 * 0.8, 7 + 2 * 1.5), abs=1e-4)
    assert first.volume_cm3 == pytest.approx(275 * 0.9 * 0.8 * 1.5 / 1000, rel=1e-6)
    assert (first.touches_first_slice, first.touches_last_slice) == (True, False)
    assert (last.label, last.voxels, last.mean_hu) == (25, 10, -7)
    assert (last.start, last.stop) == ((7, 4, 12), (12, 5, 14))
    assert (last.touches_first_slice, last.touches_last_slice) == (False, True)


def test_pieces(tmp_path):
    """Voxels that share but a corner are of one piece; pieces may lie in slabs of their own."""
    mask = np.zeros((9, 8, 30), np.uint8)
    mask[1:3, 1:3, 1:3] = 5
    mask[3, 3, 3] = 5  # touches at a corner
    mask[6, 6, 3] = 5
    mask[2:4, 2:5, 20:22] = 5
    mask[2, 2, 16] = 6
    first, second = measured(*save_spine(tmp_path, "liver_106", mask.astype(np.int16), mask)).vertebrae
    assert (first.components, first.largest_component, first.voxels) == (3, 12, 22)
    assert (second.components, second.largest_component) == (1, 1)


@pytest.mark.parametrize(
    ("dtype", "scaling", "mask_type"),
    [
        ("<i2", {}, "u1"),
        (">i2", {}, ">i2"),
        ("<i2", {"slope": -0.5, "inter": 100.0}, "<f8"),
        ("<f4", {}, "<i4"),
        ("<u2", {"slope": 2.0, "inter": -1024.0}, "<u1"),
        ("<i8", {}, "<f4"),
    ],
)
def test_everything_is_what_plain_numpy_says(tmp_path, dtype, scaling, mask_type):
    shape = (6, 5, 19)
    image = save(tmp_path / "a.nii.gz", intensities(3, shape, dtype), **scaling)
    mask = save(tmp_path / "a_seg.nii.gz", labels(3, shape).astype(mask_type))
    got = measured(image, mask)
    hu = nib.load(image).get_fdata()
    seg = np.asarray(nib.load(mask).dataobj).astype(int)
    assert got.shape == (19, 6, 5)
    assert got.spacing == pytest.approx((2.5, 0.7, 0.8))
    assert got.orientation == "SLA"
    assert np.array_equal(got.affine, SMALL.astype("f4"))
    assert (got.hu_min, got.hu_max) == (hu.min(), hu.max())
    assert got.image_type == np.dtype(dtype).name
    assert got.mask_type == np.dtype(mask_type).name
    assert (got.slope, got.intercept) == (scaling.get("slope", 1), scaling.get("inter", 0))
    assert [v.label for v in got.vertebrae] == sorted(set(seg.ravel().tolist()) - {0})
    for one in got.vertebrae:
        here = seg == one.label
        places = np.argwhere(here)[:, [2, 0, 1]]
        assert one.voxels == here.sum()
        assert one.mean_hu == pytest.approx(hu[here].mean(), rel=1e-12)
        assert one.start == tuple(places.min(axis=0))
        assert one.stop == tuple(places.max(axis=0) + 1)
        assert one.centroid == pytest.approx(tuple(places.mean(axis=0)))


@pytest.mark.parametrize("scaling", [{}, {"slope": -0.5, "inter": 100.0}])
def test_padding_in_place_of_nan_is_no_extreme(tmp_path, scaling):
    """Else one voxel of it would hide intensities that are not HU."""
    stored = np.linspace(40, 3000, 7 * 6 * 19, dtype="f4").reshape((7, 6, 19))
    stored[0, 0, 0], stored[3, 2, 9], stored[-1, -1, -1] = np.nan, np.inf, np.nan  # two of the extremes
    image = save(tmp_path / "a.nii.gz", stored, **scaling)
    mask = save(tmp_path / "a_seg.nii.gz", np.zeros((7, 6, 19), np.uint8))
    replaced = {"on_voxels": "replace", "on_change": lambda _: None}
    got = measured(image, mask, **replaced)
    hu = nib.load(image).get_fdata()
    hu = hu[np.isfinite(hu)]
    assert (got.hu_min, got.hu_max, got.replaced_voxels) == (hu.min(), hu.max(), 3)
    if not scaling:
        assert [check for check, *_ in implausible(got, CTSPINE1K.vocabulary)] == [
            "hu_range",
            "padded",
            "no_labels",
        ]
    save(image, np.full_like(stored, np.nan))
    got = measured(image, mask, **replaced)
    assert (got.hu_min, got.hu_max, got.replaced_voxels) == (-1024, -1024, stored.size)


def test_no_labels(tmp_path):
    image, mask = save_spine(tmp_path, "liver_106", *(np.zeros((6, 5, 4), t) for t in (np.int16, np.uint8)))
    got = measured(image, mask)
    assert got.vertebrae == ()
    assert (got.hu_min, got.hu_max) == (0, 0)
    assert got.mask_crc32 == zlib.crc32(repr(((0, 0, 0), (0, 0, 0))).encode())


def test_checksums_tell_equal_voxels_whatever_file_they_are_in(tmp_path):
    image, mask = spine([20, 21])
    one = measured(*save_spine(tmp_path / "a", "liver_106", image, mask))
    other = measured(*save_spine(tmp_path / "b", "HN_P001", image, mask.astype(np.float64), affine=OBLIQUE))
    assert (one.image_crc32, one.mask_crc32) == (other.image_crc32, other.mask_crc32)
    assert one.image_crc32 == zlib.crc32(image.tobytes(order="F"))
    moved = np.roll(mask, 1, axis=2)
    image[0, 0, 0] += 1
    third = measured(*save_spine(tmp_path / "c", "liver_106", image, moved))
    assert third.image_crc32 != one.image_crc32
    assert third.mask_crc32 != one.mask_crc32


def test_a_mask_that_lies_elsewhere_is_told_and_measured(tmp_path):
    image, mask = spine([20])
    image, mask = (
        save_spine(tmp_path, "liver_106", image, mask)[0],
        save(tmp_path / "x_seg.nii.gz", mask, affine=AFFINE * 2),
    )
    with open_case(image, mask, on_geometry=None) as pair:
        assert "expected the affine and spacing of" in str(pair.geometry_mismatch())
        assert len(measure(pair).vertebrae) == 1


def test_reading_ahead_gives_the_same(tmp_path):
    files = save_spine(tmp_path, "liver_106", *spine([18, 19, 20]))
    assert measured(*files) == measured(*files, threads=2)


def save_large(path, parts):
    """Write parts of 100 slices, one gzip member each: equal ones are compressed once."""
    header = nifti(parts[0][..., :0], dim=[3, *parts[0].shape[:2], 100 * len(parts), 1, 1, 1, 1])
    members = {id(part): gzip.compress(part.tobytes(order="F"), 1) for part in parts}
    path.write_bytes(b"".join([gzip.compress(header), *(members[id(part)] for part in parts)]))
    return path


@pytest.mark.processes
@pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is read in /proc")
def test_memory_is_for_slices_and_the_spine_not_for_the_volume(tmp_path, python):
    """A volume of 420 MB in the file's type takes some slices' memory, and one byte per voxel of the spine."""
    air, nothing = (np.zeros((512, 512, 100), dtype, order="F") for dtype in (np.int16, np.uint8))
    column = nothing.copy(order="F")
    column[200:300, 200:300] = 20
    paths = (
        save_large(tmp_path / "a.nii.gz", [air] * 8),
        save_large(tmp_path / "a_seg.nii.gz", [nothing, *[column] * 6, nothing]),
    )
    code = """
import sys
from ctspine1k.volumes.cases import open_case
from ctspine1k.checks.measure import measure
def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) // 1024
import scipy.ndimage
before = peak()
with open_case(*sys.argv[1:]) as pair:
    assert measure(pair).vertebrae[0].voxels == 100 * 100 * 600
print(peak() - before)
"""
    run = python(code, *map(str, paths))
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) < 150


def test_the_mean_beside_labels_is_exact_where_they_are_many(tmp_path):
    """One voxel in a box of 125,000 has no label: sums in float32 would be off by more than its value."""
    values, mask = np.full((50, 50, 50), 1000.1, "f4"), np.full((50, 50, 50), 20, "u1")
    values[7, 8, 9], mask[7, 8, 9] = 0.5, 0
    found = measured(save(tmp_path / "a.nii", values), save(tmp_path / "m.nii", mask))
    assert found.hu_beside == 0.5
    assert found.vertebrae[0].mean_hu == pytest.approx(1000.1, rel=1e-7)


def test_without_scipy_nothing_is_read(tmp_path, monkeypatch):
    files = save_spine(tmp_path, "liver_106", *spine([18, 19]))
    with open_case(*files) as case:
        with monkeypatch.context() as without:
            without.setitem(sys.modules, "scipy", None)
            with pytest.raises(MissingPackageError):
                measure(case)
        assert [one.label for one in measure(case).vertebrae] == [18, 19]
