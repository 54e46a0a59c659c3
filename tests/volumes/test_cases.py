import gzip
import io
import time
import tracemalloc

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.volumes import AFFINE, SHAPE, expected, intensities, labels, nifti, save

from ctspine1k import VolumePair, read_pair
from ctspine1k.errors import (
    CaseError,
    CorruptFileError,
    FileFormatError,
    GeometryWarning,
    PairMismatchError,
    TruncatedFileError,
    VoxelValueError,
)
from ctspine1k.volumes.cases import open_case

TYPES = ["<i2", "u1", "<i4", "<f4", "<f8", "i1", "<u2", "<u4", "<i8", "<u8", ">i2", ">i4", ">f4", ">f8"]


@pytest.fixture
def mask(tmp_path):
    return save(tmp_path / "case_seg.nii.gz", labels())


@pytest.fixture
def image(tmp_path):
    return save(tmp_path / "case.nii.gz", intensities())


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii"])
@pytest.mark.parametrize("scaling", [(None, None), (1, 0), (1, -1024), (0.37, 0), (-2.5, 3.25), (0, 7)])
@pytest.mark.parametrize("dtype", TYPES)
def test_image_is_what_nibabel_gives_bit_for_bit(tmp_path, mask, dtype, scaling, suffix):
    image = save(tmp_path / f"a{suffix}", intensities(dtype=dtype), slope=scaling[0], inter=scaling[1])
    assert same_bits(read_pair(image, mask).image, expected(image, "f4"))


@pytest.mark.parametrize("dtype", TYPES)
def test_segmentation_is_what_nibabel_gives_bit_for_bit(tmp_path, image, dtype):
    mask = save(tmp_path / "m.nii.gz", labels(dtype=dtype))
    assert same_bits(read_pair(image, mask).segmentation, expected(mask, "i4"))


def test_scaled_segmentation(tmp_path, image):
    mask = save(tmp_path / "m.nii.gz", labels(dtype="<i2") * 2, slope=0.5, inter=0)
    assert same_bits(read_pair(image, mask).segmentation, expected(mask, "i4"))


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


@pytest.mark.parametrize("header_class", [nib.Nifti1Header, nib.Nifti2Header])
def test_both_versions_of_nifti(tmp_path, mask, header_class):
    image = save(tmp_path / "a.nii.gz", intensities(), header_class=header_class)
    assert same_bits(read_pair(image, mask).image, expected(image, "f4"))


def test_header_extensions_are_passed_over(tmp_path, mask):
    image = nib.Nifti1Image(intensities(), AFFINE)
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"x" * 300_000))
    nib.save(image, tmp_path / "a.nii.gz")
    assert same_bits(read_pair(tmp_path / "a.nii.gz", mask).image, expected(tmp_path / "a.nii.gz", "f4"))


def test_trailing_dimensions_of_one_are_fine(tmp_path, mask):
    image = save(tmp_path / "a.nii.gz", intensities(shape=(*SHAPE, 1, 1)))
    wanted = np.transpose(nib.load(image).get_fdata()[..., 0, 0], (2, 0, 1)).astype("f4")
    assert same_bits(read_pair(image, mask).image, wanted)


def test_several_gzip_members_are_one_stream(tmp_path, mask):
    data = nifti(intensities())
    path = tmp_path / "a.nii.gz"
    path.write_bytes(gzip.compress(data[:500]) + gzip.compress(data[500:]) + bytes(64))  # padded, as tapes do
    assert same_bits(read_pair(path, mask).image, expected(path, "f4"))


def test_pair_holds_geometry_in_the_arrays_axis_order(image, mask):
    pair = read_pair(str(image), mask)
    assert isinstance(pair, VolumePair)
    assert pair.image.shape == pair.segmentation.shape == (4, 6, 5)
    np.testing.assert_array_equal(pair.affine, nib.load(image).affine)
    assert pair.spacing == pytest.approx((2.5, 0.7, 0.8))
    assert pair.orientation == "SLA"


class Stream:
    """A stream that cannot seek and gives a few bytes at a time."""

    def __init__(self, data: bytes) -> None:
        self._stream = io.BytesIO(data)
        self.was_read = 0

    def read(self, size: int) -> bytes:
        data = self._stream.read(min(size, 77))
        self.was_read += len(data)
        return data


@pytest.mark.parametrize("compress", [gzip.compress, bytes])
def test_streams_that_cannot_seek(compress, image, mask):
    image_stream, mask_stream = Stream(compress(nifti(intensities()))), io.BytesIO(mask.read_bytes())
    assert same_bits(read_pair(image_stream, mask_stream).image, expected(image, "f4"))
    assert not mask_stream.closed


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("depth", [1, 3, 9])
def test_slabs_are_those_of_the_volume(image, mask, depth, threads):
    pair = read_pair(image, mask)
    with open_case(image, mask, threads=threads) as reader:
        slabs = [(image.astype("f4"), labels.astype("i4")) for image, labels in reader.slabs(depth)]
        assert [len(image) for image, _ in slabs] == {1: [1] * 4, 3: [3, 1], 9: [4]}[depth]
    assert same_bits(np.concatenate([image for image, _ in slabs]), pair.image)
    assert same_bits(np.concatenate([labels for _, labels in slabs]), pair.segmentation)


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


def test_volumes_that_outgrow_the_first_allocation(tmp_path, monkeypatch):
    monkeypatch.setattr("ctspine1k.volumes.growing._FIRST_ALLOCATION", 1)
    shape = (6, 5, 23)
    image = save(tmp_path / "a.nii.gz", intensities(shape=shape))
    mask = save(tmp_path / "m.nii.gz", labels(shape=shape))
    pair = read_pair(image, mask)
    assert same_bits(pair.image, expected(image, "f4"))
    assert same_bits(pair.segmentation, expected(mask, "i4"))


GOOD = gzip.compress(nifti(intensities()), mtime=0)


def damaged(at: int) -> bytes:
    data = bytearray(GOOD)
    data[at] ^= 0xFF
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (b"", FileFormatError, "expected a NIfTI file, found an empty file. Delete the file and get it again."),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", FileFormatError, "found a Git LFS pointer"),
        (b"\n <!DOCTYPE html><html>", FileFormatError, "found a web page. The download failed"),
        (b"<?xml version='1.0'?><Error/>", FileFormatError, "found a web page"),
        (b"PK\x03\x04 not a volume", FileFormatError, "expected gzip or NIfTI data, found a file that begins with bytes 50 4b"),
        (gzip.compress(b"hello, this is text" * 40), FileFormatError, "expected a NIfTI header, found bytes 68 65 6c 6c"),
        (GOOD[: len(GOOD) // 2], TruncatedFileError, "expected a whole gzip stream, found the end of the file in it"),
        (GOOD[:-4], TruncatedFileError, "expected a whole gzip stream, found the end of the file in it"),
        (GOOD + b"g", TruncatedFileError, "expected a whole gzip stream, found the end of the file in it, or stray"),
        (GOOD[:200][:9], TruncatedFileError, "expected a whole gzip stream"),
        (gzip.compress(nifti(intensities())[:100]), TruncatedFileError, "expected a NIfTI header, found the end of the file"),
        (gzip.compress(nifti(intensities())[:350]), TruncatedFileError, "expected voxels after the header"),
        (gzip.compress(nifti(intensities())[:-1]), TruncatedFileError, "expected 4 slices, found the end of the file in slice 3"),
        (nifti(intensities())[:-1], TruncatedFileError, "expected 4 slices, found the end of the file in slice 3"),
        (damaged(-6), CorruptFileError, "expected one intact gzip stream, found CRC check failed"),
        (damaged(-1), CorruptFileError, "expected one intact gzip stream, found Incorrect length"),
        (GOOD + b"more garbage", CorruptFileError, "expected one intact gzip stream, found other bytes after its end"),
        (gzip.compress(nifti(intensities()) + b"x"), CorruptFileError, "expected the end of the file after the last slice"),
        (nifti(intensities()) + b"x", CorruptFileError, "expected the end of the file after the last slice, found more bytes"),
        (nifti(intensities(), magic=b"ni1"), FileFormatError, "found the header of a .hdr/.img pair"),
        (nifti(intensities(), datatype=7777), FileFormatError, "expected a valid NIfTI header"),
        (nifti(intensities(), vox_offset=100), FileFormatError, "expected a valid NIfTI header"),
        (nifti(intensities(), slope=1, inter=np.inf), FileFormatError, "expected a valid NIfTI header"),
        (nifti(intensities(), vox_offset=np.nan), FileFormatError, "expected a valid NIfTI header"),
        (nifti(intensities(), vox_offset=np.inf), FileFormatError, "expected a valid NIfTI header"),
        (nifti(intensities(), vox_offset=1e9), TruncatedFileError, "expected voxels after the header"),
        (nifti(intensities(), srow_y=[0, np.nan, 0, 0]), FileFormatError, "expected a finite affine, found"),
        (nifti(intensities(), sform_code=0, quatern_b=np.nan), FileFormatError, "expected a (finite affine|valid NIfTI header)"),
        (nifti(intensities(), sform_code=0, quatern_b=2), FileFormatError, "expected a valid NIfTI header"),
        (nifti(intensities(), sform_code=0, qform_code=0, pixdim=[1, np.inf, 1, 1, 1, 1, 1, 1]), FileFormatError, "expected a finite affine"),
        (nifti(np.zeros((6, 5), "<i2")), FileFormatError, r"expected 3 dimensions, found shape \(6, 5\)"),
        (nifti(np.zeros((6, 5, 4, 2), "<i2")), FileFormatError, r"expected 3 dimensions, found shape \(6, 5, 4, 2\)"),
        (nifti(np.zeros(SHAPE, "<c8")), FileFormatError, "expected voxels that are real numbers"),
        (nifti(np.full(SHAPE, np.nan, "<f4")), VoxelValueError, "expected finite intensities, found nan"),
        (nifti(np.full(SHAPE, -np.inf, "<f8")), VoxelValueError, "expected finite intensities, found -inf"),
        (nifti(np.full(SHAPE, 1e300, "<f8")), VoxelValueError, "expected finite intensities, found inf"),
    ],
    ids=lambda value: "data" if isinstance(value, bytes) else getattr(value, "__name__", value),
)  # fmt: skip
def test_each_damage_has_its_error(tmp_path, mask, data, error, message):
    path = tmp_path / "bad.nii.gz"
    path.write_bytes(data)
    with pytest.raises(error, match=message) as caught:
        read_pair(path, mask)
    assert type(caught.value) is error
    assert caught.value.file == str(path)
    assert str(caught.value).startswith(f"{path}: expected ")
    with pytest.raises(error, match=message), open_case(path, mask) as pair:
        pair.check()


@pytest.mark.parametrize("at", range(len(GOOD) - 8 - 40, len(GOOD) - 8))
def test_no_damaged_byte_passes(tmp_path, mask, at):
    path = tmp_path / "bad.nii.gz"
    path.write_bytes(damaged(at))
    with pytest.raises(CaseError):
        read_pair(path, mask)


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (np.full(SHAPE, 2.5, "<f8"), "2.5"),
        (np.full(SHAPE, 26, "u1"), "26"),
        (np.full(SHAPE, -1, "<i2"), "-1"),
        (np.full(SHAPE, 2**32, "<i8"), "4294967296"),
        (np.full(SHAPE, np.nan, "<f4"), "nan"),
        (np.full(SHAPE, np.inf, "<f4"), "inf"),
        (np.full(SHAPE, 1e20, "<f8"), "1e"),
    ],
)
def test_what_is_no_label_is_an_error(tmp_path, image, values, found):
    mask = save(tmp_path / "m.nii.gz", values)
    message = f"expected labels, whole numbers from 0 to 25, found {found}"
    with pytest.raises(VoxelValueError, match=message) as caught:
        read_pair(image, mask)
    assert caught.value.file == str(mask)


def test_one_wrong_label_among_many_is_found(tmp_path, image):
    values = labels(dtype="<f8")
    values[5, 4, 3] = 7.25
    with pytest.raises(VoxelValueError, match=r"found 7\.25 among"):
        read_pair(image, save(tmp_path / "m.nii.gz", values))


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


def test_a_missing_file_is_the_usual_error(tmp_path, mask):
    with pytest.raises(FileNotFoundError):
        read_pair(tmp_path / "nowhere.nii.gz", mask)


def test_an_error_of_the_stream_itself_is_not_the_files(mask):
    class Broken:
        def read(self, size):
            raise ConnectionResetError("the network")

    with pytest.raises(ConnectionResetError):
        read_pair(Broken(), mask)
