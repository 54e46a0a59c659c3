"""Resampled volumes against SciPy, which takes values at places in space, and against weights in a loop."""

import tracemalloc

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import map_coordinates
from support.volumes import AFFINE, intensities, labels, save

from ctspine1k.errors import FileFormatError, TruncatedFileError
from ctspine1k.volumes.arrays import pair_of
from ctspine1k.volumes.cases import open_case
from ctspine1k.volumes.resampling import Axis, ResampledCase, check_spacing

SHAPE = (7, 6, 5)
OBLIQUE = (
    np.array([[0.96, 0.28, 0, 0], [-0.28, 0.96, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    @ np.array([[1, 0, 0, 0], [0, 0.96, 0.28, 0], [0, -0.28, 0.96, 0], [0, 0, 0, 1]])
    @ AFFINE
)
#: Sagittal slices: i to the back, j upwards, k to the left.
SAGITTAL = np.array([[0, 0, -0.7, 3.0], [-0.8, 0, 0, 4.0], [0, 2.5, 0, 5.0], [0, 0, 0, 1]])
AFFINES = pytest.mark.parametrize("affine", [AFFINE, OBLIQUE, SAGITTAL], ids=["axial", "oblique", "sagittal"])


def files(tmp_path, affine=AFFINE, dtype="<f4", shape=SHAPE, **fields):
    return (
        save(tmp_path / "a.nii", intensities(1, shape, dtype), affine=affine, **fields),
        save(tmp_path / "a_seg.nii", labels(1, shape), affine=affine),
    )


def resampled(paths, spacing, depth=None, **options):
    """The resampled pair, read as a whole, or in slabs."""
    with open_case(*paths, **options) as case:
        found = ResampledCase(case, spacing)
        if depth is None:
            return pair_of(found.geometry, found.read_voxels())
        image, mask = (np.concatenate(parts) for parts in zip(*found.voxels(depth), strict=True))
        return image, mask


def places(pair, image):
    """Where the voxels of a pair lie, as indices (i, j, k) in a file, by way of millimetres."""
    k, i, j = np.indices(pair.image.shape)
    to_file = np.linalg.inv(nib.load(image).affine) @ pair.affine
    return np.tensordot(to_file, np.stack([i, j, k, np.ones_like(i)]), 1)[:3]


@AFFINES
def test_a_finer_grid_has_the_values_at_the_same_places(tmp_path, affine):
    image, mask = files(tmp_path, affine)
    pair = resampled((image, mask), (0.41, 0.57, 1.3))
    there = places(pair, image)
    values, numbers = (np.asarray(nib.load(path).dataobj) for path in (image, mask))
    np.testing.assert_allclose(
        pair.image, map_coordinates(values, there, order=1, mode="nearest"), rtol=1e-4, atol=2e-3
    )
    assert np.array_equal(pair.segmentation, map_coordinates(numbers, there, order=0, mode="nearest"))
    assert (pair.image.dtype, pair.segmentation.dtype) == (np.float32, np.int32)


@AFFINES
def test_the_grid_begins_at_the_same_border(tmp_path, affine):
    image, mask = files(tmp_path, affine)
    wanted = np.array([1.1, 0.5, 4.0])
    pair = resampled((image, mask), tuple(wanted))
    border = [-0.5, -0.5, -0.5, 1]
    np.testing.assert_allclose(pair.affine @ border, nib.load(image).affine @ border, atol=1e-5)
    along = nib.io_orientation(pair.affine)[:, 0].astype(int)
    np.testing.assert_allclose(nib.affines.voxel_sizes(pair.affine), wanted[along], rtol=1e-12)
    np.testing.assert_allclose(pair.spacing, wanted[along][[2, 0, 1]], rtol=1e-12)
    extent = np.array(SHAPE) * nib.affines.voxel_sizes(nib.load(image).affine)
    assert np.array_equal(np.array(pair.image.shape)[[1, 2, 0]], np.rint(extent / wanted[along]))
    assert pair.orientation == "".join(np.array(nib.aff2axcodes(affine))[[2, 0, 1]])


def shrunk(values, axis, spacing, new):
    """Means with weights that fall linearly to zero, one voxel after the other."""
    count = max(1, round(values.shape[axis] * spacing / new))
    result = []
    for number in range(count):
        centre = (number + 0.5) * new
        weights = [
            max(0, 1 - abs((index + 0.5) * spacing - centre) / new) for index in range(values.shape[axis])
        ]
        result.append(np.average(values, axis, weights))
    return np.stack(result, axis)


def test_a_coarser_grid_has_means(tmp_path):
    image, mask = files(tmp_path, shape=(16, 15, 14))
    pair = resampled((image, mask), (1.9, 0.8, 6.1))
    values = np.asarray(nib.load(image).dataobj, np.float64)
    right = shrunk(shrunk(values, 0, 0.7, 1.9), 2, 2.5, 6.1)
    np.testing.assert_allclose(pair.image, right.transpose(2, 0, 1), rtol=1e-4, atol=1e-3)
    there = places(pair, image)
    numbers = np.asarray(nib.load(mask).dataobj)
    nearest = tuple(
        np.clip(np.rint(at).astype(int), 0, size - 1) for at, size in zip(there, numbers.shape, strict=True)
    )
    assert np.array_equal(pair.segmentation, numbers[nearest])
    flat = save(tmp_path / "flat.nii", np.full((16, 15, 14), 77, "<i2"))
    assert set(resampled((flat, mask), (1.9, 5, 80)).image.flat) == {77.0}


@pytest.mark.parametrize("dtype", ["<i2", "u1", "<i4", ">i2", "<f8", ">f4"])
def test_numbers_keep_the_type_of_the_file(tmp_path, dtype):
    """Whole ones are rounded, before they are scaled."""
    image, mask = files(tmp_path, dtype=dtype, slope=0.5, inter=-9)
    with open_case(image, mask) as case:
        found = ResampledCase(case, (0.5, 1.4, 1.9))
        assert found.stored_types == (np.dtype(dtype).newbyteorder("="), np.uint8)
        stored, numbers = (np.concatenate(parts) for parts in zip(*found.voxels(2), strict=True))
    assert (stored.dtype, numbers.dtype) == found.stored_types
    floats = save(tmp_path / "f.nii", np.asarray(nib.load(image).dataobj.get_unscaled(), "<f8"))
    right = resampled((floats, mask), (0.5, 1.4, 1.9), depth=4)[0]
    atol = 0.5 if np.dtype(dtype).kind in "iu" else 1e-3
    np.testing.assert_allclose(stored.astype("f8"), right, rtol=1e-6, atol=atol * 1.001)
    pair = resampled((image, mask), (0.5, 1.4, 1.9))
    assert np.array_equal(pair.image, (stored.astype("f8") * 0.5 - 9).astype("f4"))


def test_whole_numbers_that_float32_cannot_hold_are_kept(tmp_path):
    numbers = np.full(SHAPE, 2**24 + 1, "<i4")
    with open_case(save(tmp_path / "a.nii", numbers), None) as case:
        for (stored,) in ResampledCase(case, (0.4, 1.7, 3.1)).voxels(2):
            assert set(stored.flat) == {2**24 + 1}


@AFFINES
def test_an_axis_that_has_the_spacing_stays_as_it_is(tmp_path, affine):
    image, mask = files(tmp_path, affine, "<i2")
    own = nib.affines.voxel_sizes(nib.load(image).affine)
    spacing = own[np.argsort(nib.io_orientation(affine)[:, 0])]
    with open_case(image, mask) as case:
        right = case.read()
    pair = resampled((image, mask), tuple(float(size) for size in (spacing * (1 + 1e-4)).round(6)))
    assert np.array_equal(pair.image, right.image)
    assert np.array_equal(pair.segmentation, right.segmentation)
    assert np.array_equal(pair.affine, right.affine)


@pytest.mark.parametrize("orientation", [None, "LAI", "PSR"])
@pytest.mark.parametrize("spacing", [(0.3, 0.5, 0.9), (1.5, 2.0, 7.0), (0.7, 0.8, 1.0)])
def test_slabs_of_any_depth_and_threads_give_the_same(tmp_path, spacing, orientation):
    paths = files(tmp_path, OBLIQUE, "<i2")
    image, mask = resampled(paths, spacing, depth=1, orientation=orientation)
    assert len(image) == len(mask)
    for depth in (3, 32):
        again = resampled(paths, spacing, depth=depth, orientation=orientation, threads=2)
        assert np.array_equal(again[0], image)
        assert np.array_equal(again[1], mask)
    pair = resampled(paths, spacing, orientation=orientation)
    assert np.array_equal(pair.image, image)
    assert np.array_equal(pair.segmentation, mask)


def test_memory_is_that_of_a_few_slices(tmp_path):
    def peak(slices, dtype="<i2"):
        paths = files(tmp_path, dtype=dtype, shape=(48, 40, slices))
        tracemalloc.start()
        try:
            with open_case(*paths) as case:
                for _ in ResampledCase(case, (0.5, 0.5, 6)).voxels(4):
                    pass
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(10)  # what is imported
    few = peak(40)
    assert peak(400) < 1.3 * few
    assert max(few, peak(40, "<f4")) < 0.75 * peak(40, "<f8")


def test_files_are_read_to_their_ends(tmp_path):
    image, mask = files(tmp_path, dtype="<i2")
    image.write_bytes(image.read_bytes()[:-1])
    with pytest.raises(TruncatedFileError):
        resampled((image, mask), (1, 1, 80))
    with open_case(image, mask) as case, pytest.raises(TruncatedFileError):
        ResampledCase(case, (1, 1, 80)).check()


def test_a_volume_without_directions_is_refused(tmp_path):
    image, mask = files(tmp_path, qform_code=0, srow_x=[-0.7, 0.7, 0, 10], srow_y=[0, 0, 0, -20])
    with (
        open_case(image, mask, on_geometry=None) as case,
        pytest.raises(FileFormatError, match=r"axes in one plane.*Load it without spacing"),
    ):
        ResampledCase(case, (1, 1, 1))


def test_axes():
    """More voxels than there are, or fewer than one, are none."""
    assert Axis.of(10, 1.0, 1000.0).new_size == 1
    index, weight = Axis.of(3, 1.0, 1000.0).taps
    assert (index.T.tolist(), weight.round(2).T.tolist()) == ([[0, 1, 2]], [[0.33, 0.33, 0.33]])
    assert Axis.of(4, 1.0, 2.0).nearest.tolist() == [1, 3]
    index, weight = Axis.of(2, 1.0, 0.5).taps
    assert (index * weight).sum(axis=0).tolist() == [0.0, 0.25, 0.75, 1.0]


@pytest.mark.parametrize(
    "spacing",
    [1, "111", (1, 1), (1, 1, 0), (1, 1, -2), (1, 1, float("nan")), (1, 1, float("inf")), ("a", 1, 1)],
)
def test_other_spacings_are_refused(spacing):
    with pytest.raises(ValueError, match=r"expected three positive numbers, mm from left .*\(1, 1, 1\)"):
        check_spacing(spacing)


def test_spacings_are_floats():
    assert check_spacing(None) is None
    assert check_spacing([1, 2, np.float32(0.5)]) == (1.0, 2.0, 0.5)
