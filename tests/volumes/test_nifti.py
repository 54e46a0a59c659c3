"""Files as they are found: of both versions, zipped or not, streamed, and damaged in every way."""

import gzip
import io
import lzma
from pathlib import Path

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


@pytest.mark.parametrize("offset", [353, 348 + (1 << 16), 349 + (1 << 16)])
def test_voxels_begin_where_the_header_says(tmp_path, mask, offset):
    data = nifti(intensities(), vox_offset=offset)
    path = tmp_path / "a.nii"
    path.write_bytes(data[:352] + bytes(offset - 352) + data[352:])
    assert same_bits(read_pair(path, mask).image, np.transpose(intensities(), (2, 0, 1)).astype("f4"))


def test_trailing_dimensions_of_one_are_fine(tmp_path, mask):
    image = save(tmp_path / "a.nii.gz", intensities(shape=(*SHAPE, 1, 1)))
    wanted = np.transpose(nib.load(image).get_fdata()[..., 0, 0], (2, 0, 1)).astype("f4")
    assert same_bits(read_pair(image, mask).image, wanted)


def test_several_gzip_members_are_one_stream(tmp_path, mask):
    data = nifti(intensities())
    path = tmp_path / "a.nii.gz"
    path.write_bytes(gzip.compress(data[:500]) + gzip.compress(data[500:]) + bytes(64))  # padded, as tapes do
    assert same_bits(read_pair(path, mask).image, expected(path, "f4"))


@pytest.mark.parametrize("compress", [gzip.compress, bytes], ids=["gzip", "plain"])
@pytest.mark.parametrize("zeros", [1, 512, 1 << 16])
def test_zeros_after_the_last_voxel_are_padding(tmp_path, mask, compress, zeros):
    data = nifti(intensities())
    path = tmp_path / "a.nii"
    for number, padded in enumerate((compress(data) + bytes(zeros), compress(data + bytes(zeros)))):
        path.write_bytes(padded)
        found = read_pair(path, mask).image
        assert same_bits(found, np.transpose(intensities(), (2, 0, 1)).astype("f4")), number


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


@pytest.mark.parametrize("extra", [b"\r\n", bytes(3) + b"\r\n", b"\x1f\r\n"])
@pytest.mark.parametrize("size", [0, 1 << 16, (1 << 16) - 1, (1 << 16) - 4])
def test_bytes_behind_gzip_are_found_wherever_it_ends(tmp_path, mask, extra, size):
    """Also where it ends with one of the pieces that are read."""
    data = GOOD
    if size:
        spare = size - len(GOOD) - 2
        data = GOOD[:3] + b"\4" + GOOD[4:10] + spare.to_bytes(2, "little") + bytes(spare) + GOOD[10:]
        assert len(data) == size
    path = tmp_path / "a.nii.gz"
    for padding in (b"", bytes(3)):
        path.write_bytes(data + padding)
        assert same_bits(read_pair(path, mask).image, np.transpose(intensities(), (2, 0, 1)).astype("f4"))
    path.write_bytes(data + extra)
    with pytest.raises(CorruptFileError, match="found other bytes after its end"):
        read_pair(path, mask)


@pytest.mark.parametrize("extra", [b"\r\n", None])
def test_a_stream_that_cannot_seek_does_not_tell_what_is_behind_gzip(mask, extra):
    data = GOOD[:-3] if extra is None else GOOD + extra
    message = "found incomplete gzip data, or extra bytes after it"
    with pytest.raises(TruncatedFileError, match=message):
        read_pair(Stream(data), mask)
    error = TruncatedFileError if extra is None else CorruptFileError
    stream = io.BytesIO(b"before" + data)
    stream.seek(len(b"before"))
    with pytest.raises(error):
        read_pair(stream, mask)


GOOD = gzip.compress(nifti(intensities()), mtime=0)
TWO_MEMBERS = gzip.compress(nifti(intensities())[:400]) + bytes(5) + gzip.compress(nifti(intensities())[400:])


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
        (b"<HEAD><title>404</title>", FileFormatError, "found a web page"),
        (b"PK\x03\x04 not a volume", FileFormatError, "expected a NIfTI file, found a zip archive. Unpack it"),
        (b"BZh91AY", FileFormatError, "expected a NIfTI file, found bzip2 data. Decompress it with bunzip2"),
        (lzma.compress(nifti(intensities())), FileFormatError, "found xz data. Decompress it with unxz"),
        (b"\x28\xb5\x2f\xfd\x04", FileFormatError, "found Zstandard data. Decompress it with unzstd"),
        (b"Rar!\x1a\x07", FileFormatError, "found a RAR archive. Unpack it"),
        (b"7z\xbc\xaf\x27\x1c", FileFormatError, "found a 7z archive. Unpack it"),
        (bytes(257) + b"ustar", FileFormatError, "found a tar archive. Unpack it"),
        (bytes(128) + b"DICM", FileFormatError, "found a DICOM file. Convert it to NIfTI"),
        (b"NRRD0004\n", FileFormatError, "found an NRRD file. Convert it to NIfTI"),
        (b"ObjectType = Image\n", FileFormatError, "found a MetaImage header. Name it .mhd"),
        (b"\x89HDF\r\n", FileFormatError, "found an HDF5 file. Convert it to NIfTI"),
        (b"no volume", FileFormatError, "expected gzip or NIfTI data, found a file that begins with bytes 6e 6f 20 76. Download it again; if the new copy"),
        (gzip.compress(GOOD), FileFormatError, "expected a NIfTI file, found gzip data inside gzip. It was compressed twice: decompress it once"),
        (gzip.compress(b"PK\x03\x04" + bytes(600)), FileFormatError, "found a zip archive inside gzip. Unpack it"),
        (gzip.compress(bytes(257) + b"ustar" + bytes(600)), FileFormatError, "found a tar archive inside gzip. Unpack it"),
        (gzip.compress(b"<html>404</html>"), FileFormatError, "found a web page inside gzip. The download failed"),
        (gzip.compress(b"hello, this is text" * 40), FileFormatError, "expected a NIfTI header, found bytes 68 65 6c 6c"),
        (GOOD[: len(GOOD) // 2], TruncatedFileError, "found incomplete gzip data. The download was probably cut off"),
        (GOOD[:-4], TruncatedFileError, "expected a complete gzip stream, found incomplete gzip data\\. "),
        (GOOD + b"X", CorruptFileError, "expected one intact gzip stream, found other bytes after its end"),
        (GOOD + b"\r\n", CorruptFileError, "found other bytes after its end. Download it again; if the new copy"),
        (GOOD + bytes(99) + b"\r\n", CorruptFileError, "expected one intact gzip stream, found other bytes after its end"),
        (GOOD[:-1] + b"\r\n", CorruptFileError, "expected one intact gzip stream, found Incorrect length"),
        (TWO_MEMBERS + b"\r\n", CorruptFileError, "expected one intact gzip stream, found other bytes after its end"),
        (TWO_MEMBERS[:-3], TruncatedFileError, "expected a complete gzip stream, found incomplete gzip data\\. "),
        (GOOD + GOOD[:7], TruncatedFileError, "expected a complete gzip stream, found incomplete gzip data\\. "),
        (GOOD[:200][:9], TruncatedFileError, "expected a complete gzip stream"),
        (gzip.compress(nifti(intensities())[:100]), TruncatedFileError, "expected a NIfTI header, found the end of the file too early"),
        (gzip.compress(nifti(intensities())[:350]), TruncatedFileError, "expected voxels after the header, found the end of the file too early"),
        (gzip.compress(nifti(intensities())[:-1]), TruncatedFileError, "expected 4 slices, found the end of the file in slice 3"),
        (nifti(intensities())[:-1], TruncatedFileError, "expected 4 slices, found the end of the file in slice 3"),
        (damaged(-6), CorruptFileError, "expected one intact gzip stream, found CRC check failed"),
        (damaged(-1), CorruptFileError, "expected one intact gzip stream, found Incorrect length"),
        (GOOD + b"more garbage", CorruptFileError, "found other bytes after its end. Download it again; if the new copy"),
        (gzip.compress(nifti(intensities()) + b"x"), CorruptFileError, "expected the end of the file after the last slice"),
        (nifti(intensities()) + b"X", CorruptFileError, "expected the end of the file after the last slice, found more bytes"),
        (nifti(intensities()) + bytes(99) + b"x", CorruptFileError, "expected the end of the file after the last slice"),
        (nifti(intensities()) + bytes((1 << 16) + 1), CorruptFileError, "found more bytes. Download it again; if the new copy"),
        (nifti(intensities(), magic=b"ni1"), FileFormatError, 'found the header of a .hdr/.img pair, with magic "ni1". Save the pair as one file'),
        (gzip.compress(nifti(intensities(), magic=b"ni1", vox_offset=0)), FileFormatError, "found the header of a .hdr/.img pair"),
        (nifti(intensities(), datatype=7777), FileFormatError, "expected a valid NIfTI header"),
        (nifti(intensities(), vox_offset=100), FileFormatError, "expected a valid NIfTI header"),
        (nifti(intensities(), vox_offset=0), FileFormatError, "expected voxels from byte 352 or later, found vox_offset 0"),
        (nifti(intensities(), vox_offset=0, header_class=nib.Nifti2Header), FileFormatError, "from byte 544 or later, found vox_offset 0"),
        (nifti(intensities(), slope=1, inter=np.inf), FileFormatError, "expected a valid NIfTI header"),
        (nifti(intensities(), vox_offset=np.nan), FileFormatError, "expected a valid NIfTI header"),
        (nifti(intensities(), vox_offset=np.inf), FileFormatError, "expected a valid NIfTI header"),
        (nifti(intensities(), vox_offset=1e9), TruncatedFileError, "expected voxels after the header"),
        (nifti(intensities(), srow_y=[0, np.nan, 0, 0]), FileFormatError, "expected a finite affine, found"),
        (nifti(intensities(), sform_code=0, quatern_b=np.nan), FileFormatError, "expected a (finite affine|valid NIfTI header)"),
        (nifti(intensities(), sform_code=0, quatern_b=2, quatern_d=-3), FileFormatError, r"expected a qform whose quaternion .*, found \(2\.0, [01]\.0, -3\.0\)\. The directions"),
        (nifti(intensities(), sform_code=0, qform_code=0, pixdim=[1, np.inf, 1, 1, 1, 1, 1, 1]), FileFormatError, "expected a finite affine"),
        (nifti(intensities(), dim=[4, *SHAPE, 0, 1, 1, 1]), FileFormatError, r"expected at least 1 voxel along each axis, found shape \(6, 5, 4, 0\), with dim\[4\] = 0\. The size of an"),
        (nifti(intensities(), dim=[3, 6, 0, -4, 1, 1, 1, 1]), FileFormatError, r"found shape \(6, 0, -4\), with dim\[2\] = 0 and dim\[3\] = -4"),
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


@pytest.mark.parametrize(
    ("source", "found"),
    [
        (
            nib.Nifti1Image(intensities(), AFFINE),
            r"nibabel\.nifti1\.Nifti1Image: an image of nibabel .* pass its path",
        ),
        (intensities(), r"numpy\.ndarray: arrays have no header; pass the path"),
        (GOOD, r"builtins\.bytes: pass io\.BytesIO\(data\)"),
        (bytearray(GOOD), r"builtins\.bytearray: pass io\.BytesIO\(data\)"),
        (memoryview(GOOD), r"builtins\.memoryview: pass io\.BytesIO\(data\)"),
        (None, r"builtins\.NoneType$"),
        (3, r"builtins\.int$"),
        (["a.nii.gz"], r"builtins\.list$"),
        (io.StringIO("text"), "a stream of text: open it with open"),
        (Path("https://host/a.nii.gz"), "a URL: download the file, or open it with fsspec"),
        ("s3://bucket/a.nii.gz", "a URL: download the file, or open it with fsspec"),
        ("file:///a.nii.gz", "a URL: download the file, or open it with fsspec"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_neither_path_nor_stream_is_told(image, mask, source, found):
    expected = rf"expected a path of a \.nii\.gz or \.nii file, or a binary stream of one; found {found}"
    for pair in ((source, mask), (image, source)) if source is not None else ((source, mask),):
        with pytest.raises(TypeError, match=expected):
            read_pair(*pair)


def test_a_path_that_looks_like_a_url_is_a_path(tmp_path, monkeypatch, mask):
    monkeypatch.chdir(tmp_path)
    image = save(tmp_path / "abc:" / "a.nii.gz", intensities())
    assert same_bits(read_pair("abc:/a.nii.gz", mask).image, expected(image, "f4"))
    with pytest.raises(FileNotFoundError):
        read_pair("C:/a.nii.gz", mask)


def test_an_error_of_the_stream_itself_is_not_the_files(mask):
    class Broken:
        def read(self, size):
            raise ConnectionResetError("the network")

    with pytest.raises(ConnectionResetError):
        read_pair(Broken(), mask)
