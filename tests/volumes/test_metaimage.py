"""MetaImage files: read as SimpleITK reads them, and refused before it sees what it must not."""

import gzip
import sys
import tracemalloc
import zlib

import nibabel as nib
import numpy as np
import pytest
from support.metaimage import AFFINE, DIRECTIONS, ORIGIN, SPACING, header, save_metaimage
from support.volumes import intensities, save

from ctspine1k.errors import (
    CaseError,
    CorruptFileError,
    FileFormatError,
    GeometryError,
    GeometryWarning,
    MissingPackageError,
    TruncatedFileError,
    VoxelValueError,
)
from ctspine1k.volumes import metaimage
from ctspine1k.volumes.cases import check_file, open_case
from ctspine1k.volumes.metaheader import read_meta_header

TYPES = ("i1", "u1", "<i2", ">i2", "<u2", ">i4", "<u4", "<i8", "<u8", "<f4", ">f8")
BEYOND = {"ElementDataFile": "ElementDataFile = case.raw, the file beside it, or LOCAL"}


@pytest.fixture
def voxels():
    return intensities(3)


def read(path, **options):
    with open_case(path, None, **options) as case:
        return case.read_image(), case.geometry


@pytest.mark.parametrize("name", ["case.mhd", "case.mha", "CASE.MHD"])
@pytest.mark.parametrize("packed", [False, True])
def test_voxels_and_affine_are_those_of_the_file(tmp_path, voxels, name, packed):
    if name.isupper():
        beside = tmp_path / "CASE.RAW"
        beside.write_bytes(voxels.tobytes(order="F"))
        (tmp_path / name).write_text(header(voxels, beside.name))
        path = tmp_path / name
    else:
        path = save_metaimage(tmp_path / name, voxels, packed=packed)
    image, geometry = read(path)
    assert np.array_equal(image, voxels.transpose(2, 0, 1).astype(np.float32))
    np.testing.assert_allclose(geometry.affine, AFFINE, atol=1e-12)
    np.testing.assert_allclose(geometry.spacing, (SPACING[2], *SPACING[:2]), atol=1e-12)


def test_simpleitk_places_the_voxels_there(tmp_path, voxels):
    """By its own way from an index to a point, in LPS."""
    import SimpleITK  # which takes half a second

    path = save_metaimage(tmp_path / "case.mhd", voxels)
    image = SimpleITK.ReadImage(str(path))
    assert image.GetPixel(4, 2, 3) == voxels[4, 2, 3]
    x, y, z = image.TransformIndexToPhysicalPoint((4, 2, 3))
    np.testing.assert_allclose(read(path)[1].affine @ (4, 2, 3, 1), (-x, -y, z, 1), atol=1e-9)


def test_turned_as_a_nifti_file_of_the_same_voxels(tmp_path, voxels):
    nifti = save(tmp_path / "case.nii", voxels, affine=AFFINE)
    path = save_metaimage(tmp_path / "case.mhd", voxels)
    for orientation in ("RAS", "sagittal"):
        (image, geometry), (other, expected) = (read(one, orientation=orientation) for one in (path, nifti))
        assert np.array_equal(image, other)
        np.testing.assert_allclose(geometry.affine, expected.affine, atol=1e-5)
        assert geometry.orientation == expected.orientation


@pytest.mark.parametrize("dtype", TYPES)
def test_every_type_and_byte_order(tmp_path, dtype):
    voxels = intensities(dtype=dtype)
    image, _ = read(save_metaimage(tmp_path / "case.mhd", voxels))
    assert np.array_equal(image, voxels.astype(np.float64).transpose(2, 0, 1).astype(np.float32))


def test_slabs_are_read_one_by_one(tmp_path, voxels, monkeypatch):
    monkeypatch.setattr(metaimage, "_PIECE", 2 * 6 * 5 * 2)  # two slices
    reads = []
    more = metaimage.MetaImageFile._more
    monkeypatch.setattr(metaimage.MetaImageFile, "_more", lambda self: reads.append(self._next) or more(self))
    image, _ = read(save_metaimage(tmp_path / "case.mhd", voxels))
    assert np.array_equal(image, voxels.transpose(2, 0, 1))
    assert reads[:2] == [0, 2]
    compressed, _ = read(save_metaimage(tmp_path / "case.mhd", voxels, packed=True))
    assert np.array_equal(compressed, image)


@pytest.mark.parametrize("size", ["10", "-1"])
def test_voxels_after_a_header_of_another_program(tmp_path, voxels, size):
    path = save_metaimage(tmp_path / "case.mhd", voxels, HeaderSize=size)
    raw = tmp_path / "case.raw"
    raw.write_bytes(b"0123456789" + raw.read_bytes())
    assert np.array_equal(read(path)[0], voxels.transpose(2, 0, 1))


def test_not_finite_voxels_are_refused_or_replaced(tmp_path):
    voxels = intensities(dtype="<f4")
    voxels[2, 3, 1] = np.nan
    path = save_metaimage(tmp_path / "case.mha", voxels)
    with pytest.raises(VoxelValueError, match=r"\(2, 3, 1\)"):
        read(path)
    image, _ = read(path, on_voxels="replace", on_change=lambda _: None)
    assert image[1, 2, 3] == -1024


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", ["case.mhd", "case.mha"])
def test_short_or_long_data(tmp_path, voxels, name, packed):
    path = save_metaimage(tmp_path / name, voxels, packed=packed)
    data = next((one for one in tmp_path.iterdir() if one.suffix in (".raw", ".zraw")), path)
    whole = data.read_bytes()
    data.write_bytes(whole[:-7])
    with pytest.raises(TruncatedFileError, match=data.name):
        check_file(path)
    data.write_bytes(whole + bytes(300))
    check_file(path)  # zeros are padding
    if not packed:
        data.write_bytes(whole + b"X")
        with pytest.raises(CorruptFileError, match="more bytes"):
            check_file(path)


def test_compressed_data_are_not_inflated_beyond_what_the_header_says(tmp_path, voxels):
    path = save_metaimage(tmp_path / "case.mhd", voxels, packed=True)
    check_file(path)  # which imports SimpleITK
    data = zlib.compress(bytes(32 << 20))
    save_metaimage(path, voxels, packed=True, CompressedDataSize=str(len(data)))
    (tmp_path / "case.zraw").write_bytes(data)
    tracemalloc.start()
    try:
        with pytest.raises(CorruptFileError, match=r"found more\. "):
            check_file(path)
        assert tracemalloc.get_traced_memory()[1] < 24 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("count", [1, 3, 5, 4000])
def test_compressed_data_are_counted_before_memory_is_allocated(tmp_path, voxels, count):
    path = save_metaimage(tmp_path / "case.mhd", voxels, packed=True, DimSize=f"6 5 {count}")
    with pytest.raises(
        (TruncatedFileError, CorruptFileError), match=f"{60 * count:,} bytes for its {count:,}"
    ):
        check_file(path)


def test_a_checksum_of_compressed_data_may_lie_in_another_piece(tmp_path):
    """The last voxel is inflated before the end of the data is seen."""
    for size in range(65_500, 65_540):
        voxels = intensities(shape=(1, size, 1), dtype="u1")
        if (1 << 16) < len(zlib.compress(voxels.tobytes(), 0)) <= (1 << 16) + 4:
            break
    path = save_metaimage(tmp_path / "case.mhd", voxels, packed=True, CompressedDataSize=None)
    (tmp_path / "case.zraw").write_bytes(zlib.compress(voxels.tobytes(), 0))
    assert np.array_equal(read(path)[0].reshape(-1), voxels.reshape(-1))


def test_compressed_data_with_other_bytes(tmp_path, voxels):
    path = save_metaimage(tmp_path / "case.mhd", voxels, packed=True)
    data = bytearray((tmp_path / "case.zraw").read_bytes())
    data[40] ^= 255
    (tmp_path / "case.zraw").write_bytes(data)
    with pytest.raises(CorruptFileError):
        check_file(path)
    for size, error in (("1", FileFormatError), ("999999999999", TruncatedFileError)):
        save_metaimage(path, voxels, packed=True, CompressedDataSize=size)
        with pytest.raises(error):
            check_file(path)
    save_metaimage(path, voxels, packed=True, CompressedDataSize=None)
    assert np.array_equal(read(path)[0], voxels.transpose(2, 0, 1))
    (tmp_path / "case.zraw").write_bytes(gzip.compress(voxels.tobytes(order="F")))
    assert np.array_equal(read(path)[0], voxels.transpose(2, 0, 1))
    (tmp_path / "case.zraw").write_bytes(zlib.compress(b"short"))
    with pytest.raises(TruncatedFileError):
        check_file(path)


@pytest.mark.parametrize(
    "given", ["../case.raw", "/etc/passwd", "LIST", "%d.raw 1 4 1", "other.raw", "case.nii"]
)
def test_no_other_file_is_read(tmp_path, voxels, given):
    path = save_metaimage(tmp_path / "inner" / "case.mhd", voxels)
    for name in ("case.raw", "inner/other.raw", "inner/case.nii"):
        (tmp_path / name).write_bytes(voxels.tobytes(order="F"))
    path.write_text(header(voxels, given))
    with pytest.raises(
        FileFormatError, match=r"expected ElementDataFile = case.raw, the file beside it, or LOCAL"
    ):
        check_file(path)


def test_a_file_that_is_changed_while_it_is_open_is_refused(tmp_path, voxels):
    """What SimpleITK reads is compared with what was checked."""
    path = save_metaimage(tmp_path / "case.mha", voxels)
    meta = read_meta_header(str(path))
    with metaimage.open_metaimage(str(path)) as file:
        path.unlink()
        with pytest.raises(
            CorruptFileError, match=r"a file that SimpleITK reads, found Reason: No such file"
        ):
            file.readinto(memoryview(bytearray(4)))
    save_metaimage(path, voxels)
    with metaimage.open_metaimage(str(path)) as file:
        save_metaimage(path, voxels.astype("<i4"))
        with pytest.raises(FileFormatError, match=r"int32 \(4, 5, 6\) by SimpleITK"):
            file.readinto(memoryview(bytearray(4)))
    save_metaimage(path, voxels[:, :, 1:])
    with pytest.raises(FileFormatError) as caught:
        metaimage.MetaImageFile(meta)
    assert caught.value.expected == "one int16 for each voxel of (6, 5, 4), as in its header"
    assert caught.value.found == "(3, (6, 5, 3), 1) by SimpleITK"
    assert caught.value.hint.startswith("Download it again; if the new copy")


def test_after_the_last_voxel_nothing_is_read(tmp_path, voxels):
    with metaimage.open_metaimage(str(save_metaimage(tmp_path / "case.mha", voxels))) as file:
        buffer = bytearray(voxels.nbytes + 1)
        assert file.readinto(memoryview(buffer)) == voxels.nbytes
        assert buffer[:-1] == voxels.tobytes(order="F")
        assert file.readinto(memoryview(buffer)) == file.readinto(memoryview(buffer)) == 0


def test_special_names_and_a_header_without_a_file_beside_it(tmp_path, voxels):
    for name in ("LIST.mhd", "a%d.mhd"):  # MetaIO would take them for something else
        with pytest.raises(FileFormatError, match="ElementDataFile"):
            check_file(save_metaimage(tmp_path / name, voxels))
    path = save_metaimage(tmp_path / "case.mhd", voxels)
    (tmp_path / "case.raw").unlink()
    with pytest.raises(FileFormatError, match=r"its voxels beside it, in case.raw, found no such file"):
        check_file(path)
    for name in ("case.raw", "LOcAL"):
        (tmp_path / "case.mha").write_text(header(voxels, name))
        with pytest.raises(FileFormatError, match="ElementDataFile = LOCAL"):
            check_file(tmp_path / "case.mha")
    with pytest.raises(FileFormatError, match="CompressedDataSize where they follow"):
        check_file(save_metaimage(tmp_path / "case.mha", voxels, packed=True, CompressedDataSize=None))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("NDims", "2"),
        ("NDims", None),
        ("DimSize", "6 5"),
        ("DimSize", None),
        ("ElementType", None),
        ("DimSize", "6 0 4"),
        ("DimSize", "6 5 4 1"),
        ("DimSize", "6 5 99999999999999999999"),
        ("ElementType", "MET_LONG"),
        ("ElementType", "MET_SHORT_ARRAY"),
        ("ElementNumberOfChannels", "3"),
        ("ElementSpacing", "0.3 0.5 0"),
        ("ElementSpacing", "-0.3 0.5 2"),
        ("ElementSpacing", "0,3 0,5 2,5"),
        ("ElementSpacing", "0.3 0.5 nan"),
        ("ElementSpacing", "0.3\u00a00.5 2"),
        ("ElementSpacing", None),
        ("Offset", "1 2 inf"),
        ("Offset", "1 2 1e999"),
        ("Offset", "1_0 2 3"),
        ("Origin", "1 2 3"),
        ("TransformMatrix", "1 0 0 0 1 0 0 0 0"),
        ("TransformMatrix", "1 0 0 0 1 0"),
        ("CenterOfRotation", "0 0"),
        ("BinaryData", "False"),
        ("BinaryData", "maybe"),
        ("ObjectType", "Mesh"),
        ("HeaderSize", "-2"),
        ("ElementToIntensityFunctionSlope", "2"),
    ],
)
def test_headers_that_are_refused(tmp_path, voxels, field, value, capfd):
    path = save_metaimage(tmp_path / "case.mhd", voxels, **{field: value})
    with pytest.raises(CaseError):
        check_file(path)
    assert capfd.readouterr() == ("", "")  # MetaIO prints what it does not understand


@pytest.mark.parametrize(
    ("name", "packed", "field", "value", "message"),
    [
        ("case.mhd", True, "HeaderSize", "7", "HeaderSize = 0 where voxels are compressed, found 7"),
        (
            "case.mhd",
            True,
            "CompressedDataSize",
            "7.5",
            "CompressedDataSize = a number of bytes, found 7.5",
        ),
        ("case.mhd", True, "CompressedDataSize", "-1", "CompressedDataSize = a number of bytes, found -1"),
        ("case.mha", False, "HeaderSize", "7", "HeaderSize = 0 where voxels follow the header, found 7"),
    ],
)
def test_sizes_that_cannot_be(tmp_path, voxels, name, packed, field, value, message):
    path = save_metaimage(tmp_path / name, voxels, packed=packed, **{field: value})
    with pytest.raises(FileFormatError, match=message.replace(" = ", ".* ")):
        check_file(path)


@pytest.mark.parametrize(
    "names",
    [
        ("Offset", "Position", "Origin"),
        ("TransformMatrix", "Rotation", "Orientation"),
        ("BinaryDataByteOrderMSB", "ElementByteOrderMSB"),
    ],
)
def test_a_header_uses_one_name_for_a_thing(tmp_path, voxels, names):
    path = save_metaimage(tmp_path / "case.mhd", voxels)
    right, geometry = read(path)
    text = path.read_text()
    (line,) = (line for line in text.splitlines() if line.startswith(f"{names[0]} "))
    for name in names[1:]:
        path.write_text(text.replace(line, line.replace(names[0], name)))
        image, found = read(path)
        assert np.array_equal(image, right)
        np.testing.assert_array_equal(found.affine, geometry.affine)
        path.write_text(text.replace(line, f"{line}\n{line.replace(names[0], name)}"))
        with pytest.raises(FileFormatError, match=name):
            read(path)


def test_compressed_data_that_end_too_early(tmp_path, voxels):
    path = save_metaimage(tmp_path / "case.mhd", voxels, packed=True)
    path.write_text(path.read_text().replace("CompressedDataSize", "Comment"))
    data = (tmp_path / "case.zraw").read_bytes()
    (tmp_path / "case.zraw").write_bytes(data[: len(data) // 2])
    with pytest.raises(
        TruncatedFileError, match="expected 4 slices, found the end of the file in compressed"
    ):
        check_file(path)


def test_headers_that_are_not_text_or_say_a_thing_twice(tmp_path, voxels):
    path = save_metaimage(tmp_path / "case.mhd", voxels)
    text = path.read_text()
    for data in (
        b"",
        b"\x1f\x8b\x08\x00",
        b"x" * 70000,
        text.replace("NDims = 3", "NDims = 3\nNDims = 3").encode(),
        text.replace("NDims = 3", "NDims : 3").encode(),
        text.replace("NDims = 3", "NDims = 3\x00").encode(),
        text.partition("ElementDataFile")[0].encode(),
    ):
        path.write_bytes(data)
        with pytest.raises(FileFormatError):
            check_file(path)
    path.write_bytes(text.replace("\n", "\r\n\r\n").replace("Offset", "Comment = a: b\r\nPosition").encode())
    assert np.array_equal(read(path)[0], voxels.transpose(2, 0, 1))


def test_a_header_has_an_end_and_errors_show_its_beginning(tmp_path, voxels):
    path = save_metaimage(tmp_path / "case.mhd", voxels)
    text = path.read_text()
    path.write_text(f"Comment = {'x' * 66_000}\n{text}")
    with pytest.raises(FileFormatError, match="ElementDataFile as its last line"):
        read_meta_header(str(path))
    for wrong, found in (
        ("y" * 200, f"a file that begins with {b'y' * 20!r}"),
        (f"ID = 1\n{'y' * 200}", repr("y" * 80)),
        (text.replace("MET_SHORT", "y" * 200), "y" * 100),
        (text.replace("case.raw", "y" * 300), repr("y" * 200)),
    ):
        path.write_text(wrong)
        with pytest.raises(FileFormatError) as caught:
            read_meta_header(str(path))
        assert caught.value.found == found
    for field, value in (("DimSize", "\u0666 5 4"), ("ElementSpacing", "0.3 0.5 0")):
        path.write_text(header(voxels, "case.raw", **{field: value}), encoding="utf-8")
        with pytest.raises(FileFormatError, match=f"{field} .*three positive numbers") as caught:
            read_meta_header(str(path))
        assert caught.value.found == value
    path.write_text("\n" + text)  # an empty line is none
    assert read_meta_header(str(path)).shape == voxels.shape


def test_fields_that_a_header_may_lack(tmp_path, voxels):
    spacing = " ".join(map(str, SPACING))
    path = save_metaimage(
        tmp_path / "case.mhd", voxels, ObjectType=None, ElementSpacing=None, ElementSize=spacing
    )
    image, geometry = read(path)
    assert np.array_equal(image, voxels.transpose(2, 0, 1))
    np.testing.assert_allclose(geometry.spacing, (SPACING[2], *SPACING[:2]))


def test_a_header_without_directions_is_in_doubt_if_it_is_turned(tmp_path, voxels):
    path = save_metaimage(tmp_path / "case.mhd", voxels, TransformMatrix=None)
    read(path)
    with pytest.warns(GeometryWarning, match=r"TransformMatrix, found none\. "):
        _, geometry = read(path, orientation="RAS")
    assert nib.aff2axcodes(geometry.affine) == ("R", "A", "S")
    assert DIRECTIONS[0, 0] == 0.6


@pytest.mark.parametrize(("unit", "name", "in_mm"), [("um", "microns", 0.001), ("cm", "centimetres", 10.0)])
def test_lengths_in_other_units_are_converted(tmp_path, voxels, unit, name, in_mm):
    spacing, origin = (" ".join(str(size / in_mm) for size in sizes) for sizes in (SPACING, ORIGIN))
    fields = {"DistanceUnits": unit, "ElementSpacing": spacing, "Offset": origin}
    path = save_metaimage(tmp_path / "case.mhd", voxels, **fields)
    with pytest.warns(GeometryWarning, match=rf"found lengths in {name}\. .* correct DistanceUnits"):
        _, geometry = read(path)
    np.testing.assert_allclose(geometry.affine, AFFINE, atol=1e-9)
    np.testing.assert_allclose(geometry.spacing, (SPACING[2], *SPACING[:2]), atol=1e-9)
    for sound in ("mm", "?", "MM", "furlongs"):
        path = save_metaimage(tmp_path / "case.mhd", voxels, DistanceUnits=sound)
        np.testing.assert_allclose(read(path)[1].affine, AFFINE, atol=1e-9)


def test_directions_with_lengths_contradict_the_spacing(tmp_path, voxels):
    longer = " ".join(map(repr, (DIRECTIONS * (1, 2, 1)).T.ravel().tolist()))
    path = save_metaimage(tmp_path / "case.mhd", voxels, TransformMatrix=longer)
    with pytest.warns(GeometryWarning, match=r"lengths \[1\.0, 2\.0, 1\.0\]\. .* \[0\.3125, 1\.0, 2\.5\] mm"):
        _, geometry = read(path)
    np.testing.assert_allclose(geometry.spacing, (2.5, 0.3125, 1.0), atol=1e-9)
    with pytest.raises(GeometryError, match="whose lengths are 1"):
        read(path, on_geometry="raise")


def test_streams_and_a_missing_package(tmp_path, voxels, monkeypatch):
    path = save_metaimage(tmp_path / "case.mha", voxels)
    with path.open("rb") as stream, pytest.raises(FileFormatError, match="the path of a MetaImage file"):
        check_file(stream)
    metaimage.require_simpleitk.cache_clear()
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    with pytest.raises(MissingPackageError, match=r"ctspine1k\[msr\]"):
        check_file(path)
    metaimage.require_simpleitk.cache_clear()
    with pytest.raises(FileNotFoundError):
        check_file(tmp_path / "none.mhd")


#: How many numbers a field has in a header of three dimensions.
NUMBERS = {
    1: "HeaderSize CompressedDataSize ElementNumberOfChannels ElementMin ElementMax ElementNBits ID ParentID "
    "ElementToIntensityFunctionSlope ElementToIntensityFunctionOffset",
    3: "ElementSpacing ElementSize CenterOfRotation SequenceID Offset Position Origin",
    4: "Color",
    9: "TransformMatrix Rotation Orientation",
}  # fmt: skip


@pytest.mark.parametrize("count", NUMBERS)
def test_fields_have_as_many_finite_numbers_as_they_must(tmp_path, voxels, count):
    same = {
        "Position": "Offset",
        "Origin": "Offset",
        "Rotation": "TransformMatrix",
        "Orientation": "TransformMatrix",
    }
    for field in NUMBERS[count].split():
        left_out = {same[field]: None} if field in same else {}
        for wrong in (" ".join(["1"] * (count + 1)), " ".join(["1"] * (count - 1) + ["nan"])):
            path = save_metaimage(tmp_path / "case.mhd", voxels, **left_out, **{field: wrong})
            with pytest.raises(
                FileFormatError, match=rf" {field} of {count} finite numbers, found {wrong}\."
            ):
                read_meta_header(str(path))


def test_switches_and_local_data_in_all_their_spellings(tmp_path, voxels):
    path = tmp_path / "case.mhd"
    for yes, no in (("True", "False"), ("true", "FALSE"), ("1", "0"), ("T", "f")):
        assert (
            read_meta_header(str(save_metaimage(path, voxels, BinaryData=yes, CompressedData=no))).packed
            is None
        )
        for wrong in ({"BinaryData": no}, {"BinaryData": f"{yes}!"}):
            with pytest.raises(FileFormatError, match="BinaryData"):
                read_meta_header(str(save_metaimage(path, voxels, **wrong)))
        big = read_meta_header(str(save_metaimage(path, voxels, BinaryDataByteOrderMSB=yes)))
        assert big.file_type == voxels.dtype.newbyteorder(">")
    for name in ("LOCAL", "Local", "local"):
        text = header(voxels, name)
        (tmp_path / "case.mha").write_bytes(text.encode() + voxels.tobytes(order="F"))
        assert read_meta_header(str(tmp_path / "case.mha")).start == len(text)
