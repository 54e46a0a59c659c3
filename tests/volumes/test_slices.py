"""One pass over the slices: what it holds in memory, and which voxels it refuses."""

import gzip
import time
import tracemalloc

import nibabel as nib
import numpy as np
import pytest
from support.compare import same_bits
from support.vocabulary import FEW
from support.volumes import SHAPE, expected, intensities, labels, nifti, save

from ctspine1k import read_pair
from ctspine1k.errors import CorruptFileError, TruncatedFileError, VoxelValueError, VoxelWarning
from ctspine1k.volumes.cases import open_case
from ctspine1k.volumes.growing import Growth
from ctspine1k.volumes.nifti import open_nifti
from ctspine1k.volumes.slices import VolumeReader, read_plane


def test_a_slab_stays_while_the_next_one_is_read(image, mask):
    with open_case(image, mask, threads=2) as reader:
        for stored, labels in reader.slabs(depth=1):
            held = stored.copy(), labels.copy()
            time.sleep(0.02)  # in which the thread reads on
            assert np.array_equal(stored, held[0])
            assert np.array_equal(labels, held[1])


def test_a_pass_over_slabs_holds_a_few_slices(tmp_path):
    shape = (64, 48, 600)
    image = save(tmp_path / "a.nii.gz", np.zeros(shape, "<i2"))
    mask = save(tmp_path / "m.nii.gz", np.zeros(shape, "u1"))
    with open_case(image, mask) as reader:
        tracemalloc.start()
        for _ in reader.slabs(depth=2):
            pass
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    one_slice = 64 * 48 * 8
    assert peak < 30 * one_slice  # of 600; gzip's own buffer is most of it


@pytest.mark.parametrize("growth", [Growth(first_bytes=1), Growth(first_bytes=1, factor=1)])
def test_volumes_that_outgrow_the_first_allocation(tmp_path, growth):
    shape = (6, 5, 23)
    image = save(tmp_path / "a.nii.gz", intensities(shape=shape))
    mask = save(tmp_path / "m.nii.gz", labels(shape=shape))
    with open_case(image, mask) as case:
        pair = case.read(growth)
    assert same_bits(pair.image, expected(image, "f4"))
    assert same_bits(pair.segmentation, expected(mask, "i4"))


@pytest.mark.parametrize(
    ("dtype", "value", "found"),
    [
        ("<f8", 2.5, "2.5"),
        ("u1", 26, "26"),
        ("u1", 255, "255"),
        ("<i2", -1, "-1"),
        ("<i8", 2**32, "4294967296"),
        ("<f4", np.nan, "nan"),
        ("<f4", np.inf, "inf"),
        ("<f8", 1e20, "1e"),
    ],
)
def test_what_is_no_label_is_an_error(tmp_path, image, dtype, value, found):
    """Also one voxel among labels, the least and the greatest."""
    values = np.zeros(SHAPE, dtype)
    values[0, 1], values[2, 3, 1] = 25, value
    mask = save(tmp_path / "m.nii.gz", values)
    message = f"expected labels, whole numbers from 0 to 25, found {found}"
    with pytest.raises(VoxelValueError, match=message) as caught:
        read_pair(image, mask)
    assert caught.value.file == str(mask)
    if np.dtype(dtype).kind in "iu":
        assert caught.value.found == f"{found} among the voxels"
    assert caught.value.hint.startswith("Is this file really a mask") == (
        found in ("2.5", "26", "255", "-1", "nan")
    )
    assert ('other_labels="background"' in caught.value.hint) == (found in ("26", "255"))


@pytest.mark.parametrize("dtype", ["<i2", "<f4"])
def test_a_volume_where_a_mask_is_expected_is_said_to_be_one(tmp_path, image, dtype):
    volume = np.full(SHAPE, -1000, dtype)
    volume[2, 3, 1] = 1500
    with pytest.raises(VoxelValueError, match=r"Values such as -1000\S* are those of a CT image, not of a"):
        read_pair(image, save(tmp_path / "m.nii.gz", volume))


def test_a_gap_between_labels_is_found_where_it_is_their_greatest(tmp_path, image):
    assert FEW.gaps[0] == 3
    mask = save(tmp_path / "m.nii", np.full(SHAPE, 2, "u1"))
    assert (read_pair(image, mask, vocabulary=FEW).segmentation == 2).all()
    mask = save(tmp_path / "m.nii", np.full(SHAPE, 3, "u1"))
    with pytest.raises(VoxelValueError, match="found 3 among"):
        read_pair(image, mask, vocabulary=FEW)


def test_one_wrong_label_among_many_is_found(tmp_path, image):
    values = labels(dtype="<f8")
    values[5, 4, 3] = 7.25
    with pytest.raises(VoxelValueError, match=r"found 7\.25 among"):
        read_pair(image, save(tmp_path / "m.nii.gz", values))


#: (i, j, k) of three voxels, in the file's order: i is fastest, k slowest.
SPOILED = [(5, 0, 1), (0, 4, 1), (3, 3, 3)]


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", ">f8"])
@pytest.mark.parametrize("scaling", [(None, None), (0.37, 12), (-2.5, -1024)])
def test_intensities_that_are_not_finite_are_counted_or_replaced(tmp_path, mask, dtype, scaling):
    values = intensities(dtype=dtype)
    for place, value in zip(SPOILED, (np.nan, np.inf, -np.inf), strict=True):
        values[place] = value
    image = save(tmp_path / "a.nii.gz", values, slope=scaling[0], inter=scaling[1])
    first = r"nan at \(i, j, k\) = \(5, 0, 1\)"
    with pytest.raises(
        VoxelValueError,
        match=rf"expected finite intensities, found {first}, the first of 3 voxels\. on_voxels=",
    ):
        read_pair(image, mask)
    message = rf"a\.nii\.gz: NaN and infinite voxels are read as -1024 HU; the first is {first}$"
    with pytest.warns(VoxelWarning, match=message) as told:
        found = read_pair(image, mask, on_voxels="replace").image
    assert len(told) == 1
    wanted = expected(image, "f4")
    kept = np.isfinite(wanted)
    assert np.count_nonzero(~kept) == 3
    assert same_bits(found[kept], wanted[kept])
    np.testing.assert_allclose(found[~kept], -1024, rtol=1e-6)


@pytest.mark.parametrize(("dtype", "value"), [("<f4", np.nan), ("<f8", 1e300)])
def test_a_single_voxel_that_is_not_finite(tmp_path, mask, dtype, value):
    """A number that float32 cannot hold is none that a row can hold."""
    values = intensities(dtype=dtype)
    values[2, 3, 3] = value
    image = save(tmp_path / "a.nii.gz", values)
    with pytest.raises(
        VoxelValueError, match=r"found (nan|inf) at \(i, j, k\) = \(2, 3, 3\), and nowhere else\. "
    ):
        read_pair(image, mask)
    with pytest.warns(VoxelWarning):
        assert read_pair(image, mask, on_voxels="replace").image[3, 2, 3] == -1024


@pytest.mark.parametrize(
    ("dtype", "slope", "inter"),
    [("<i2", 1e38, 0), ("<f4", 1e-38, 0), ("<f4", 3, -3e7)],  # the last has one for -1023
)
def test_a_scaling_without_a_number_for_padding_is_no_scan(tmp_path, mask, dtype, slope, inter):
    values = np.full(SHAPE, 100, dtype)
    if dtype == "<f4":
        values[1, 1, 1] = np.nan
    image = save(tmp_path / "a.nii.gz", values, slope=slope, inter=inter)
    with pytest.raises(
        VoxelValueError, match=r"found (inf|nan) at .*The scaling \(.*\) leaves no number for"
    ):
        read_pair(image, mask, on_voxels="replace")


def test_sound_intensities_are_as_they_are_whatever_is_done_about_others(image, mask):
    assert same_bits(read_pair(image, mask, on_voxels="replace").image, expected(image, "f4"))


def test_a_mask_has_no_padding(tmp_path, image):
    values = labels(dtype="<f4")
    values[1, 2, 3] = np.nan
    with pytest.raises(VoxelValueError, match=r"expected labels, .* found nan among"):
        read_pair(image, save(tmp_path / "m.nii.gz", values), on_voxels="replace")


def test_on_voxels_names_what_is_allowed(image, mask):
    with pytest.raises(ValueError, match="on_voxels='skip': expected one of 'raise', 'replace'"):
        read_pair(image, mask, on_voxels="skip")


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    "dtype",
    ["<f4", ">f4", "<f8", ">f8", "i1", "u1", "<i2", ">i2", "<u2", "<i4", "<u4", "<i8", "<u8"],
)
def test_labels_of_a_scaled_mask_are_rounded_with_a_warning(tmp_path, image, dtype, threads):
    """In a header, 0.2 is 0.2000000030: 24 comes back as 24.0000003576."""
    mask = save(
        tmp_path / "m.nii.gz", labels(dtype="u1").astype(dtype) * np.dtype(dtype).type(5), slope=0.2, inter=0
    )
    wanted = np.transpose(labels(), (2, 0, 1)).astype("i4")
    assert not np.array_equal(expected(mask, "f8"), wanted)
    told = []
    with open_case(image, mask, threads=threads, on_change=told.append) as case:
        assert same_bits(case.read().segmentation, wanted)
        assert 0 < case.label_rounding < 1e-6
    assert len(told) == 1
    message = rf"m\.nii\.gz: labels are whole numbers but for rounding \({np.dtype(dtype).newbyteorder('=')}, slope 0\.2, intercept 0\): "
    with pytest.warns(VoxelWarning, match=message + r"\d+\.\d+ is read as \d+$") as warned:
        read_pair(image, mask)
    assert len(warned) == 1


@pytest.mark.parametrize("dtype", ["<f4", "<f8"])
@pytest.mark.parametrize("sign", [1, -1])
def test_labels_are_rounded_by_a_thousandth_and_no_more(tmp_path, image, dtype, sign):
    values = labels(dtype=dtype)
    values[5, 4, 3] = 7 + sign * 0.0009
    values[0, 0, 0] = -0.0009  # background, too
    with pytest.warns(VoxelWarning, match=r"\(float\d\d, slope 1, intercept 0\)"):
        pair = read_pair(image, save(tmp_path / "m.nii.gz", values))
    wanted = labels()
    wanted[5, 4, 3], wanted[0, 0, 0] = 7, 0
    assert same_bits(pair.segmentation, np.transpose(wanted, (2, 0, 1)).astype("i4"))
    values[5, 4, 3] = 7 + sign * 0.0011
    with pytest.raises(
        VoxelValueError,
        match=r"found (7\.001\d*|6\.998\d*) among the voxels \(float\d\d, slope 1, intercept 0\)",
    ):
        read_pair(image, save(tmp_path / "m.nii.gz", values))


@pytest.mark.parametrize("dtype", ["<f4", ">f8"])
def test_whole_numbers_stored_as_floats_are_labels(tmp_path, image, dtype):
    values = labels(dtype=dtype)
    values[0, 0, 0] = -0.0
    pair = read_pair(image, save(tmp_path / "m.nii.gz", values))
    assert same_bits(pair.segmentation, np.transpose(values, (2, 0, 1)).astype("i4"))


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (256.0, "256.0"),
        (-1.0, "-1.0"),
        (263.0, "263.0"),
        (26.0, "26.0"),
        (np.nan, "nan"),
        (np.inf, "inf"),
        (1e300, "1e.300"),
    ],
)
def test_floats_that_uint8_cannot_hold_are_no_labels(tmp_path, image, value, found):
    """As uint8, 256 would be background, and 263 a C7."""
    values = labels(dtype="<f8")
    values[5, 4, 3] = value
    with pytest.raises(VoxelValueError, match=f"found {found} among the voxels"):
        read_pair(image, save(tmp_path / "m.nii.gz", values))


@pytest.mark.parametrize(("value", "found"), [(25.0005, None), (25.5, "25.5"), (25.9995, "25.9995")])
def test_rounding_makes_no_label_of_what_is_none(tmp_path, image, value, found):
    mask = save(tmp_path / "m.nii.gz", np.full(SHAPE, value, "<f8"))
    if found is None:
        with pytest.warns(VoxelWarning, match=r"25\.0005 is read as 25"):
            assert set(read_pair(image, mask).segmentation.ravel()) == {25}
    else:
        with pytest.raises(VoxelValueError, match=f"found {found} among"):
            read_pair(image, mask)


@pytest.mark.parametrize(
    "shape", [(32767, 32767, 32767), (6, 5, 32767), (32767, 32767, 1), (2**31, 2**31, 2)]
)
def test_a_header_that_promises_too_much_is_not_believed(tmp_path, shape):
    kind = nib.Nifti2Header if max(shape) > 32767 else nib.Nifti1Header
    lying = nifti(labels(dtype="<i2"), header_class=kind, dim=[3, *shape, 1, 1, 1, 1])
    files = []
    for name in ("a.nii.gz", "a_seg.nii.gz"):
        (tmp_path / name).write_bytes(gzip.compress(lying))
        files.append(tmp_path / name)
    tracemalloc.start()
    with pytest.raises(TruncatedFileError, match=f"expected {shape[2]} slices, found the end of the file"):
        read_pair(*files)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 160 << 20  # the first allocations of two arrays; the header says up to 70 TB


def test_voxels_in_several_slices_are_one_change(tmp_path):
    voxels = intensities(dtype="<f4")
    voxels[1, 2, 2:] = np.nan
    with open_nifti(save(tmp_path / "a.nii", voxels)) as file:
        reader = VolumeReader(file, "replace")
        changes = [change for _ in reader.images(1) for change in reader.new_changes()]
    assert [change.partition("; ")[2] for change in changes] == ["the first is nan at (i, j, k) = (1, 2, 2)"]
    with (
        open_nifti(tmp_path / "a.nii") as file,
        pytest.raises(VoxelValueError, match="the first of 2 voxels"),
    ):
        list(VolumeReader(file).images(1))


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_the_end_of_a_file_is_checked_after_its_last_slice(tmp_path, suffix):
    data = nifti(intensities()) + b"more"
    path = tmp_path / f"a{suffix}"
    path.write_bytes(gzip.compress(data) if suffix == ".nii.gz" else data)
    with open_nifti(path) as file:
        slices = VolumeReader(file).stored(1)
        assert len([next(slices) for _ in range(SHAPE[2])]) == 4
        with pytest.raises(CorruptFileError):
            next(slices)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_plane_is_that_of_the_whole_image(tmp_path, axis):
    voxels = intensities(dtype="<f4")
    voxels[2, 3, 1] = np.nan
    path = save(tmp_path / "a.nii.gz", voxels)
    whole = np.nan_to_num(np.transpose(voxels, (2, 0, 1)), nan=-1024)
    for index in range(whole.shape[axis]):
        plane = read_plane(path, axis, index)
        assert plane.dtype == np.float32
        assert np.array_equal(
            plane, whole.take([index] if axis == 0 else index, axis=axis).reshape(plane.shape)
        )


@pytest.mark.parametrize(
    ("lowest", "highest", "told"), [(-1, 3000, 3000), (-1000, 3000, -1000), (-2, 255, -2)]
)
def test_intensities_in_a_masks_place_are_told_by_one_that_no_label_is(
    tmp_path, image, lowest, highest, told
):
    voxels = np.zeros(SHAPE, "<i2")
    voxels[0, 0, 0], voxels[1, 0, 0] = lowest, highest
    with pytest.raises(VoxelValueError, match=rf"Values such as {told} are those of a CT image"):
        read_pair(image, save(tmp_path / "m.nii", voxels))
    voxels[0, 0, 0], voxels[1, 0, 0] = -1, 255
    with pytest.raises(VoxelValueError, match="Is this file really a mask"):
        read_pair(image, save(tmp_path / "m.nii", voxels))
