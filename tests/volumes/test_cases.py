"""A case is what plain nibabel reads of its files, and its files fit each other."""

import signal
import tarfile

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.compare import same_bits
from support.threads import prefetching
from support.tiny import TINY
from support.vocabulary import FEW
from support.volumes import AFFINE, SHAPE, expected, intensities, labels, save

from ctspine1k import VolumePair, read_pair
from ctspine1k.errors import (
    GeometryWarning,
    PairMismatchError,
    TruncatedFileError,
    VoxelValueError,
)
from ctspine1k.running.stops import deferred_interrupts
from ctspine1k.volumes.cases import open_case

TYPES = ["<i2", "u1", "<i4", "<f4", "<f8", "i1", "<u2", "<u4", "<i8", "<u8", ">i2", ">i4", ">f4", ">f8"]


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii"])
@pytest.mark.parametrize("dtype", TYPES)
def test_image_is_what_nibabel_gives_bit_for_bit(tmp_path, mask, dtype, suffix):
    for slope, inter in ((None, None), (1, 0), (1, -1024), (0.37, 0), (-2.5, 3.25), (0, 7)):
        image = save(tmp_path / f"a{suffix}", intensities(dtype=dtype), slope=slope, inter=inter)
        assert same_bits(read_pair(image, mask).image, expected(image, "f4")), (slope, inter)


@pytest.mark.parametrize("dtype", TYPES)
def test_segmentation_is_what_nibabel_gives_bit_for_bit(tmp_path, image, dtype):
    mask = save(tmp_path / "m.nii.gz", labels(dtype=dtype))
    assert same_bits(read_pair(image, mask).segmentation, expected(mask, "i4"))


def test_scaled_segmentation(tmp_path, image):
    mask = save(tmp_path / "m.nii.gz", labels(dtype="<i2") * 2, slope=0.5, inter=0)
    assert same_bits(read_pair(image, mask).segmentation, expected(mask, "i4"))


@pytest.mark.slow
@settings(max_examples=60)
@given(
    raw=st.integers(-(2**15), 2**15 - 1),
    slope=st.floats(width=32, allow_nan=True, allow_infinity=True),
    inter=st.floats(-1e6, 1e6, width=32),
)
def test_any_scaling_is_nibabels(raw, slope, inter, tmp_path_factory):
    folder = tmp_path_factory.mktemp("scaling")
    image = save(folder / "a.nii", np.full(SHAPE, raw, "<i2"), slope=slope, inter=inter)
    wanted = expected(image, "f4")
    if np.isfinite(wanted).all():
        assert same_bits(read_pair(image, save(folder / "m.nii", labels())).image, wanted)


def test_negative_zero_stays(tmp_path, mask):
    image = save(tmp_path / "a.nii.gz", np.full(SHAPE, -0.0, "<f4"), slope=2, inter=0)
    assert np.signbit(read_pair(image, mask).image).all()


def test_pair_holds_geometry_in_the_arrays_axis_order(image, mask):
    pair = read_pair(str(image), mask)
    assert isinstance(pair, VolumePair)
    assert pair.image.shape == pair.segmentation.shape == (4, 6, 5)
    np.testing.assert_array_equal(pair.affine, nib.load(image).affine)
    assert pair.spacing == pytest.approx((2.5, 0.7, 0.8))
    assert pair.orientation == "SLA"


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("depth", [1, 3, 9])
@pytest.mark.parametrize("orientation", [None, "ASL", "SRA"])
def test_slabs_are_those_of_the_volume(image, mask, depth, threads, orientation):
    pair = read_pair(image, mask, orientation=orientation)
    slices = {None: 4, "ASL": 6, "SRA": 5}[orientation]
    with open_case(image, mask, threads=threads, orientation=orientation) as reader:
        slabs = [(image.astype("f4"), labels.astype("i4")) for image, labels in reader.slabs(depth)]
        assert [len(image) for image, _ in slabs] == [
            min(depth, slices - start) for start in range(0, slices, depth)
        ]
    assert same_bits(np.concatenate([image for image, _ in slabs]), pair.image)
    assert same_bits(np.concatenate([labels for _, labels in slabs]), pair.segmentation)


def test_members_of_an_archive_are_read_by_one_thread(tmp_path):
    image = save(tmp_path / "a.nii", intensities())  # its members share the position in its file
    mask = save(tmp_path / "m.nii", labels())
    with tarfile.open(tmp_path / "both.tar", "w") as archive:
        archive.add(image, "a.nii")
        archive.add(mask, "m.nii")
    with tarfile.open(tmp_path / "both.tar") as archive:
        streams = [archive.extractfile(name) for name in ("a.nii", "m.nii")]
        with open_case(*streams, threads=2) as case:
            slabs = case.slabs(1)
            next(slabs)
            assert len(prefetching()) == 1
            slabs.close()
    with open_case(image, mask, threads=2) as case:
        slabs = case.slabs(1)
        next(slabs)
        assert len(prefetching()) == 2
        slabs.close()
        assert prefetching() == []


def test_no_thread_reads_on_after_an_error_in_a_file(tmp_path, image, mask):
    values, numbers = intensities(dtype="<f4"), labels()
    values[1, 2, -1], numbers[1, 2, -1] = np.nan, 99
    strange = save(tmp_path / "nan.nii.gz", values), save(tmp_path / "99.nii.gz", numbers)
    for files in ((strange[0], mask), (image, strange[1])):
        with open_case(*files, threads=2) as case, pytest.raises(VoxelValueError) as raised:
            list(case.slabs(1))
        assert prefetching() == [], raised  # though the traceback is still there


@pytest.mark.parametrize("orientation", [None, "PIR"])
def test_the_affine_of_the_arrays_leads_to_the_same_points(tmp_path, orientation):
    """Unequal axes, oblique: the point of each array index is that of the file's voxel there."""
    turned = np.array([[0.8, -0.6, 0, 0], [0.6, 0.8, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    image = save(tmp_path / "a.nii.gz", intensities(), affine=turned @ AFFINE)
    mask = save(tmp_path / "m.nii.gz", labels(), affine=turned @ AFFINE)
    pair = read_pair(image, mask, orientation=orientation)
    stored = nib.load(image)
    for k, i, j in np.ndindex(pair.image.shape):
        point = pair.array_affine @ (k, i, j, 1)
        voxel = np.rint(np.linalg.inv(stored.affine) @ point)[:3].astype(int)
        assert np.allclose(stored.affine @ (*voxel, 1), point)
        assert pair.image[k, i, j] == stored.dataobj[tuple(voxel)]


def test_shapes_must_agree(tmp_path, image):
    mask = save(tmp_path / "m.nii.gz", labels(shape=(5, 6, 4)))
    with pytest.raises(
        PairMismatchError, match=r"expected the shape of .*case\.nii\.gz, \(6, 5, 4\), found \(5, 6, 4\)"
    ):
        read_pair(image, mask)


@pytest.mark.parametrize(
    ("affine", "zooms", "named"),
    [
        (AFFINE @ np.diag([1, 1, 1.2, 1]), None, "affine and spacing"),
        (AFFINE + np.array([[0, 0, 0, 0.5]] + [[0] * 4] * 3), None, "affine"),
        (AFFINE @ np.diag([-1, 1, 1, 1]), None, "affine"),
        (AFFINE, [1, 0.7, 0.8, 5.0, 1, 1, 1, 1], "spacing"),
    ],
)
def test_a_mask_that_lies_elsewhere(tmp_path, image, affine, zooms, named):
    fields = {} if zooms is None else {"pixdim": zooms}
    mask = save(tmp_path / "m.nii.gz", labels(), affine=affine, **fields)
    message = f"m.nii.gz: expected the {named} of .*case.nii.gz"
    with pytest.warns(GeometryWarning, match=message):
        pair = read_pair(image, mask)
    np.testing.assert_array_equal(pair.affine, nib.load(image).affine)
    with pytest.raises(PairMismatchError, match=message):
        read_pair(image, mask, on_geometry="raise")


def test_rounding_is_no_difference(tmp_path, image):
    affine = AFFINE.copy()
    affine[:3] += np.random.default_rng(0).uniform(-4e-4, 4e-4, (3, 4))
    read_pair(image, save(tmp_path / "m.nii.gz", labels(), affine=affine), on_geometry="raise")


def test_on_geometry_names_what_is_allowed(image, mask):
    with pytest.raises(ValueError, match="on_geometry='ignore': expected one of 'raise', 'warn'"):
        read_pair(image, mask, on_geometry="ignore")


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("orientation", [None, "RAS", "ASL"])
def test_an_image_alone(image, mask, orientation, threads):
    pair = read_pair(image, mask, orientation=orientation)
    with open_case(image, None, on_geometry="raise", orientation=orientation, threads=threads) as case:
        assert not case.has_mask
        assert case.geometry_mismatch() is None
        assert case.file_types == case.stored_types == (np.dtype("i2"),)
        assert case.geometry.orientation == pair.orientation
        assert same_bits(case.read_image(), pair.image)
        assert case.label_rounding == 0
    with open_case(image, None, orientation=orientation) as case:
        (alone,) = case.read_voxels()
        assert same_bits(alone, pair.image)
    with open_case(image, None, orientation=orientation, threads=threads) as case:
        slabs = [slab.astype("f4") for slab in case.image_slabs(3)]
    assert same_bits(np.concatenate(slabs), pair.image)
    with open_case(image, mask, orientation=orientation) as case:  # and beside a mask, which is then not read
        assert case.has_mask
        assert same_bits(case.read_image(), pair.image)


def test_an_image_alone_has_no_labels(image):
    with open_case(image, None) as case:
        for read in (case.slabs, case.read):
            with pytest.raises(
                ValueError, match=r"case\.nii\.gz: opened without a mask, so there are no labels"
            ):
                read()
        case.check()


def test_damage_of_an_image_alone(tmp_path):
    image = save(tmp_path / "a.nii", intensities())
    image.write_bytes(image.read_bytes()[:-1])
    for read in ("check", "read_image"):
        with (
            pytest.raises(TruncatedFileError, match="the end of the file in slice 3"),
            open_case(image, None) as case,
        ):
            getattr(case, read)()


@pytest.mark.parametrize("dtype", ["u1", ">i2", "<f4"])
def test_labels_are_those_of_the_vocabulary(tmp_path, image, dtype):
    values = np.zeros(SHAPE, dtype)
    values[0, 0, :3] = 1, 2, 28
    mask = save(tmp_path / "m.nii.gz", values)
    pair = read_pair(image, mask, vocabulary=FEW)
    assert set(np.unique(pair.segmentation)) == {0, 1, 2, 28}
    for scheme, wanted in (
        ("own", [1, 2, 28]),
        ("region", [1, 2, 2]),
        ("binary", [1, 1, 1]),
        ("verse", [1, 8, 28]),
    ):
        with open_case(image, mask, vocabulary=FEW, label_scheme=scheme) as case:
            assert case.vocabulary is FEW
            assert case.read().segmentation[:3, 0, 0].tolist() == wanted
    with pytest.raises(VoxelValueError, match="labels, whole numbers from 0 to 25, found 28"):
        read_pair(image, mask)
    for strange in (29, 7):  # beyond the greatest, and in a gap
        values[3, 3, 3] = strange
        with pytest.raises(VoxelValueError, match=f"labels, the numbers 0, 1, 2, 28, found {strange}"):
            read_pair(image, save(tmp_path / "n.nii.gz", values), vocabulary=FEW)
    values[:] = 0
    values[1, 2, 3] = 3  # the first number of a gap, and none is greater
    with pytest.raises(VoxelValueError, match="labels, the numbers 0, 1, 2, 28, found 3 "):
        read_pair(image, save(tmp_path / "n.nii.gz", values), vocabulary=FEW)
    with pytest.raises(ValueError, match="label_scheme='ctspine1k': expected one of 'own', 'region'"):
        open_case(image, mask, vocabulary=FEW, label_scheme="ctspine1k").__enter__()


@pytest.mark.parametrize("dtype", ["u1", "<i2", "<f8"])
def test_other_labels_become_background_on_request(tmp_path, image, dtype):
    values = labels(dtype=dtype)
    known = values.copy()
    values[0, :2], known[0, :2] = 26, 0
    values[1, 1], known[1, 1] = 255, 0
    mask = save(tmp_path / "m.nii.gz", values)
    with pytest.raises(VoxelValueError, match="expected labels, whole numbers from 0 to 25, found 26"):
        read_pair(image, mask)
    pair = read_pair(image, mask, other_labels="background")
    assert np.array_equal(pair.segmentation, known.transpose(2, 0, 1))
    with open_case(image, mask, label_scheme="region", other_labels="background") as case:
        segmentation = case.read().segmentation
        assert case.other_labels == (26, 255)
    assert np.array_equal(segmentation, (1 * (known > 0) + (known > 7) + (known > 19)).transpose(2, 0, 1))


def test_other_labels_are_numbers_of_a_byte(tmp_path, image):
    for value in (256, -1):
        mask = save(tmp_path / "m.nii.gz", np.full(SHAPE, value, "<i2"))
        with pytest.raises(VoxelValueError, match=f"whole numbers from 0 to 255, found {value}"):
            read_pair(image, mask, other_labels="background")
    with pytest.raises(ValueError, match="other_labels='skip': expected one of 'raise', 'background'"):
        read_pair(image, mask, other_labels="skip")


def test_numbers_between_labels_are_other_labels(tmp_path):
    """Of a data set whose labels have gaps."""
    values = np.random.default_rng(0).choice(np.array([0, 5, 18, 19, 27, 28], "u1"), SHAPE)
    image, mask = save(tmp_path / "a.nii.gz", intensities()), save(tmp_path / "m.nii.gz", values)
    options = {"vocabulary": TINY.vocabulary, "other_labels": "background"}
    with open_case(image, mask, **options) as case:
        pair = case.read()
        assert case.other_labels == (5, 27)
    right = np.where(np.isin(values, (18, 19, 28)), values, 0)
    assert np.array_equal(pair.segmentation, right.transpose(2, 0, 1))
    with open_case(image, save(tmp_path / "m.nii.gz", right), **options) as case:
        case.check()
        assert case.other_labels == ()


def test_a_pass_stops_at_its_next_slab(image, mask):
    with deferred_interrupts(), open_case(image, mask) as case:
        slabs = case.slabs(1)
        next(slabs)
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            next(slabs)
