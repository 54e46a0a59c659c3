"""Files as they are found: of both versions, zipped or not, streamed, and damaged in every way."""

import gzip
import io

import nibabel as nib
import numpy as np
import pytest
from support.compare import same_bits
from support.volumes import AFFINE, SHAPE, expected, intensities, nifti, save

from ctspine1k import read_pair
from ctspine1k.errors import CaseError, CorruptFileError, FileFormatError, TruncatedFileError, VoxelValueError
from ctspine1k.volumes.cases import open_case


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


GOOD = gzip.compress(nifti(intensities()), mtime=0)


def damaged(at: int) -> bytes:
    data = bytearray(GOOD)
    data[at] ^= 0xFF
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (b"", FileFormatError, "expected a NIfTI file, found an empty file. Delete the file and download it again."),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", FileFormatError, "found a Git LFS pointer"),
        (b"\n <!DOCTYPE html><html>", FileFormatError, "found a web page. The download failed"),
        (b"<?xml version='1.0'?><Error/>", FileFormatError, "found a web page"),
        (b"PK\x03\x04 not a volume", FileFormatError, "expected gzip or NIfTI data, found a file that begins with bytes 50 4b"),
        (gzip.compress(b"hello, this is text" * 40), FileFormatError, "expected a NIfTI header, found bytes 68 65 6c 6c"),
        (GOOD[: len(GOOD) // 2], TruncatedFileError, "found incomplete gzip data, or extra bytes after it. The download was probably cut off"),
        (GOOD[:-4], TruncatedFileError, "expected a complete gzip stream, found incomplete gzip data"),
        (GOOD + b"g", TruncatedFileError, "expected a complete gzip stream, found incomplete gzip data, or extra bytes after it"),
        (GOOD[:200][:9], TruncatedFileError, "expected a complete gzip stream"),
        (gzip.compress(nifti(intensities())[:100]), TruncatedFileError, "expected a NIfTI header, found the end of the file too early"),
        (gzip.compress(nifti(intensities())[:350]), TruncatedFileError, "expected voxels after the header, found the end of the file too early"),
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
        (nifti(np.full(SHAPE, np.nan, "<f4")), VoxelValueError, r"expected finite intensities, found nan at \(i, j, k\) = \(0, 0, 0\), the first of 120 voxels"),
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


def test_a_missing_file_is_the_usual_error(tmp_path, mask):
    with pytest.raises(FileNotFoundError):
        read_pair(tmp_path / "nowhere.nii.gz", mask)


def test_an_error_of_the_stream_itself_is_not_the_files(mask):
    class Broken:
        def read(self, size):
            raise ConnectionResetError("the network")

    with pytest.raises(ConnectionResetError):
        read_pair(Broken(), mask)
