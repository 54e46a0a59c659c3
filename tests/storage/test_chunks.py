import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from isal.isal_zlib import crc32

from ctspine1k import __version__
from ctspine1k.errors import MissingPackageError, StoredArrayError
from ctspine1k.storage import codec, form
from ctspine1k.storage.chunks import ArrayWriter, StoredArray, store
from ctspine1k.storage.form import checksum, default_chunk_shape
from ctspine1k.volumes.scaling import Scaling

TYPES = ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", ">i2", ">f4"]


def everything(stored: StoredArray) -> list[range]:
    return [range(size) for size in stored.shape]


@st.composite
def arrays_in_chunks(draw):
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=9))
    array = draw(hnp.arrays(draw(st.sampled_from(TYPES)), shape))
    chunk_shape = draw(st.none() | st.tuples(*[st.integers(1, 10) for _ in shape]))
    return array, chunk_shape


@pytest.mark.slow
@given(arrays_in_chunks(), st.integers(1, 3))
def test_any_array_in_any_chunks_comes_back_bit_for_bit(case, threads):
    array, chunk_shape = case
    stored = StoredArray.from_fields(store(array, chunk_shape=chunk_shape))
    found = stored.read(everything(stored), threads=threads)
    assert found.dtype == array.dtype.newbyteorder("<")
    assert found.shape == array.shape
    assert found.tobytes() == array.astype(array.dtype.newbyteorder("<")).tobytes()
    stored.check()


@pytest.mark.slow
@given(st.data())
def test_any_part_is_numpys(data):
    array, chunk_shape = data.draw(arrays_in_chunks())
    slices = [data.draw(st.slices(size)) for size in array.shape]
    ranges = [range(size)[one] for size, one in zip(array.shape, slices, strict=True)]
    forward = [one[::-1] if one.step < 0 else one for one in ranges]
    stored = StoredArray.from_fields(store(array, chunk_shape=chunk_shape))
    wanted = array[np.ix_(*forward)] if array.ndim else array
    assert stored.read(forward).tobytes() == wanted.astype(stored.dtype).tobytes()
    out = np.full((2, *wanted.shape), 7, stored.dtype)  # into a part of an array that has been in use
    stored.read(forward, out=out[1, ...])
    assert out[1].tobytes() == wanted.astype(stored.dtype).tobytes()
    assert (out[0] == 7).all()


@pytest.mark.slow
@given(arrays_in_chunks())
def test_chunks_with_voxels_hold_all_that_are_not_zero(case):
    array, chunk_shape = case
    stored = StoredArray.from_fields(store(array, chunk_shape=chunk_shape))
    found = np.zeros(array.shape, bool)
    for ranges in stored.chunks_with_voxels():
        found[np.ix_(*ranges) if array.ndim else ()] = True
    assert not array[~found].any()


def test_chunks_of_zeros_are_known_without_decoding_them():
    array = np.zeros((40, 70, 65), "u1")
    array[39, 0, 64] = array[0, 69, 0] = 3
    stored = StoredArray.from_fields(store(array))
    assert stored.chunks_with_voxels() == [
        (range(32), range(48, 70), range(48)),
        (range(32, 40), range(48), range(48, 65)),
    ]


@pytest.mark.parametrize("dtype", [None, "u1", "f4"])
def test_damaged_chunks_of_zeros_are_an_error(dtype):
    fields = store(
        np.zeros((4, 5, 3), "u1"), chunk_shape=(2, 5, 3), scaling=Scaling(2.0 if dtype == "f4" else 1.0)
    )
    damaged = bytearray(fields["bytes"])
    damaged[fields["ends"][0] + 9] ^= 1
    stored = StoredArray.from_fields({**fields, "bytes": bytes(damaged)})
    assert not stored.read([range(2), range(5), range(3)], dtype).any()
    with pytest.raises(StoredArrayError, match="chunk 1: expected checksum"):
        stored.read(None, dtype)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("scaling", [Scaling(), Scaling(0.37, -1024), Scaling(-2.0, 0.0), Scaling(1.0, 5.5)])
def test_values_are_those_of_the_scaling(dtype, scaling):
    """Also where chunks hold zeros alone: minus two times zero is minus zero."""
    array = np.zeros((40, 70, 65), dtype)
    array[:5, :5, :5] = np.arange(125).reshape(5, 5, 5) - (60 if array.dtype.kind != "u" else 0)
    stored = StoredArray.from_fields(store(array, scaling=scaling))
    wanted = np.empty(array.shape, "f4")
    scaling.write(array, wanted)
    for threads in (1, 2):
        assert stored.read(everything(stored), "f4", threads).tobytes() == wanted.tobytes()


@pytest.mark.slow
@given(arrays_in_chunks())
def test_no_integer_changes_on_its_way(case):
    """64-bit ones neither: nibabel's way to float32 goes over float64, but here nothing is a float."""
    array, chunk_shape = case
    if array.dtype.kind in "iu":
        stored = StoredArray.from_fields(store(array, chunk_shape=chunk_shape))
        assert np.array_equal(stored.read(dtype=array.dtype.newbyteorder("<")), array)


@pytest.mark.parametrize(
    ("array", "scaling", "dtype"),
    [
        ([0.5], Scaling(), "u1"),
        ([70000.0], Scaling(), "i2"),
        ([np.nan], Scaling(), "i4"),
        ([-1], Scaling(), "u1"),
        ([3], Scaling(0.5), "i4"),
    ],
)
def test_what_a_type_cannot_hold_is_an_error(array, scaling, dtype):
    stored = StoredArray.from_fields(store(np.array([*array, 1]), scaling=scaling))
    with pytest.raises(StoredArrayError, match=r"expected numbers that \w+ holds, found others. Cast"):
        stored.read(dtype=dtype)
    assert StoredArray.from_fields(store(np.array([2.0, 4.0]), scaling=Scaling(0.5))).read(
        dtype="i4"
    ).tolist() == [1, 2]


def test_negative_zeros_stay():
    stored = StoredArray.from_fields(store(np.full((3, 40), -0.0, "f4")))
    assert np.signbit(stored.read(everything(stored))).all()


def test_default_chunks():
    assert default_chunk_shape((300, 512, 512)) == (32, 48, 48)
    assert default_chunk_shape((512, 512)) == (256, 512)
    assert default_chunk_shape((2, 300, 512, 512)) == (1, 32, 48, 48)
    assert default_chunk_shape((7,)) == (1 << 18,)
    assert default_chunk_shape(()) == ()


def test_only_the_chunks_that_are_touched_are_looked_at():
    """Damage elsewhere does no harm; and a long step passes over the chunks between."""
    array = np.random.default_rng(0).integers(-999, 999, (12, 10, 9), "i2")
    fields = store(array, chunk_shape=(4, 5, 3))
    damaged = bytearray(fields["bytes"])
    for number in (0, 9, 17):  # chunks (0, 0, 0), (1, 1, 0), (2, 1, 2) of 3 x 2 x 3
        damaged[fields["ends"][number] - 1] ^= 1
    stored = StoredArray.from_fields({**fields, "bytes": bytes(damaged)})
    wanted = array[1:12:10, 0:5, 5:9]
    assert np.array_equal(stored.read([range(1, 12, 10), range(5), range(5, 9)]), wanted)
    for touched in ([range(4), range(1), range(1)], [range(4, 8), range(5, 6), range(9)]):
        with pytest.raises(StoredArrayError, match=r"chunk (0|9): expected checksum"):
            stored.read(touched)


def test_layers_are_the_whole():
    array = np.random.default_rng(0).integers(-999, 999, (70, 20, 30), "i2")
    writer = ArrayWriter(array.shape, array.dtype, name="x")
    for start in range(0, 70, writer.depth):
        writer.append(array[start : start + writer.depth])
    assert writer.fields() == store(array, name="x")


def test_the_stored_form_is_documented_and_says_what_it_is():
    fields = store(
        np.arange(6, dtype=">i2").reshape(2, 3), scaling=Scaling(0.1, -1024), name="liver_106 image"
    )
    assert list(fields) == ["header", "ends", "checksums", "bytes"]
    assert json.loads(fields["header"]) == {
        "version": 1,
        "codec": "blosc2",
        "writer": f"ctspine1k {__version__}",
        "name": "liver_106 image",
        "dtype": "<i2",
        "shape": [2, 3],
        "box": [256, 512],
        "slope": 0.1,
        "intercept": -1024,
    }
    for word in json.loads(fields["header"]):
        assert f"``{word}``" in form.__doc__


#: A stored form as the first release wrote it, of ``np.arange(480).reshape(24, 20) * 3 - 700``, to be read for ever.
FIRST = {
    "header": '{"version": 1, "codec": "blosc2", "name": "first", "dtype": "<i2", "shape": [24, 20], "box": [16, 20], "slope": 2.0, "intercept": 1.0}',
    "ends": [92, 176],
    "checksums": [2880567521, 630912580],
    "bytes": bytes.fromhex(
        "0501850280020000800200005c00000001230000000005000002000000000000240000001300000028b52ffd"
        "6040004d000010440301003b2ac0021d00000028b52ffd6040009d000048fd00010001000100010450020030"
        "c50493a405018502400100004001000054000000012300000000050000020000000000002400000012000000"
        "28b52ffd20a04d000010040301001b0a60011600000028b52ffd20a06d0000200100010002000750fc28c002"
    ),
}


def test_what_was_written_is_read_for_ever():
    stored = StoredArray.from_fields(FIRST)
    numbers = np.arange(480).reshape(24, 20) * 3 - 700
    assert np.array_equal(stored.read(everything(stored)), numbers)
    assert np.array_equal(stored.read(everything(stored), "f4"), numbers * 2.0 + 1.0)


GOOD = store(
    np.random.default_rng(0).integers(-999, 999, (5, 6, 7), "i2"), name="case image", chunk_shape=(2, 6, 7)
)


def with_header(**changes):
    return {**GOOD, "header": json.dumps({**json.loads(GOOD["header"]), **changes})}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (with_header(version=2, writer="ctspine1k 9"), "case image: expected version 1, found 2. It was written by ctspine1k 9: upgrade"),
        ({**GOOD, "header": '{"version": 2}'}, "expected version 1, found 2. It was written by a later ctspine1k"),
        (with_header(codec="zstd"), "case image: expected codec 'blosc2', found 'zstd'"),
        (with_header(dtype="O"), "expected numbers of at most 64 bits, found type object"),
        (with_header(dtype="nonsense"), "expected its four fields"),
        (with_header(shape=[5, 6]), "expected the shapes of an array and of a chunk"),
        (with_header(shape=[-5, 6, 7]), "expected the shapes of an array and of a chunk"),
        (with_header(box=[0, 6, 7]), "expected the shapes of an array and of a chunk"),
        (with_header(box=[10**6, 10**6, 7]), "expected the shapes of an array and of a chunk"),
        (with_header(shape=[10**12, 6, 7]), "expected 500000000000 chunks, found 3 and 3 checksums"),
        (with_header(shape=[5.5, 6, 7]), "expected its four fields"),
        (with_header(slope="a"), "expected its four fields"),
        ({**GOOD, "header": "{"}, "expected its four fields"),
        ({**GOOD, "header": "[]"}, "expected its four fields"),
        ({**GOOD, "header": None}, "expected its four fields"),
        ({**GOOD, "header": b"\xff"}, "expected its four fields"),
        ({**GOOD, "header": "[" * 100_000}, "expected its four fields"),
        (with_header(slope=10**400), "expected its four fields"),
        (with_header(dtype="f4,(f4"), "expected"),
        ({**GOOD, "ends": [None, 1, 2]}, "expected its four fields"),
        (with_header(shape=[5, 5, 7]), "chunk 0: expected checksum"),
        ({**GOOD, "ends": GOOD["ends"][:-1]}, "expected 3 chunks, found 2 and 3 checksums"),
        ({**GOOD, "ends": None}, "expected its four fields"),
        ({"bytes": b"1"}, "expected its four fields"),
        # Believed when it is opened, but not when voxels are asked for:
        (with_header(slope=3.0), "chunk 0: expected checksum"),
        (with_header(intercept=3.0), "chunk 0: expected checksum"),
        (with_header(name="another image"), "another image, chunk 0: expected checksum"),
        (with_header(dtype="<u2"), "chunk 0: expected checksum"),
        (with_header(shape=[6, 6, 7]), "chunk 0: expected checksum"),
        ({**GOOD, "ends": [9, *GOOD["ends"][1:]]}, f"chunk 0: expected bytes within {len(GOOD['bytes'])}, found bytes 0 to 9"),
        ({**GOOD, "ends": [99, *GOOD["ends"][1:]]}, "chunk 0: expected checksum"),
        ({**GOOD, "ends": [*GOOD["ends"][:2], 10**9]}, "chunk 2: expected bytes within"),
        ({**GOOD, "ends": [-(1 << 63), *GOOD["ends"][1:]]}, "chunk 0: expected bytes within"),
        ({**GOOD, "ends": [GOOD["ends"][0], (1 << 63) - 1, GOOD["ends"][2]]}, "chunk 1: expected bytes within"),
        ({**GOOD, "ends": [GOOD["ends"][0], 0, GOOD["ends"][2]]}, "chunk 1: expected bytes within"),
        ({**GOOD, "bytes": bytes(GOOD["bytes"])[:-1]}, "chunk 2: expected bytes within"),
        ({**GOOD, "checksums": GOOD["checksums"][::-1]}, "chunk 0: expected checksum"),
    ],
    ids=lambda value: value if isinstance(value, str) else "fields",
)  # fmt: skip
def test_damaged_fields(fields, message):
    def read():
        stored = StoredArray.from_fields(fields)
        return stored.read(everything(stored))

    with pytest.raises(StoredArrayError, match=message):
        read()


def test_no_damaged_byte_passes():
    said = re.compile(r"case image, chunk \d: expected checksum .* It is damaged")
    passed = []
    for at in range(len(GOOD["bytes"])):
        damaged = bytearray(GOOD["bytes"])
        damaged[at] ^= 0x10
        stored = StoredArray.from_fields({**GOOD, "bytes": bytes(damaged)})
        try:
            stored.read(everything(stored))
            passed.append((at, "no error"))
        except StoredArrayError as error:
            if not said.search(str(error)):
                passed.append((at, str(error)))
    assert not passed


def crafted(data: bytes, **changes) -> StoredArray:
    """A stored form whose checksum fits, though its bytes are not what they should be."""
    header = json.dumps({**json.loads(store(np.ones((2, 2), "i2"))["header"]), **changes})
    checksums = [checksum(data, crc32(header.encode()), 0)]
    return StoredArray.from_fields(
        {"header": header, "ends": [len(data)], "checksums": checksums, "bytes": data}
    )


CHUNK = bytes(store(np.ones((2, 2), "i2"))["bytes"])
NOISE = bytes(store(np.arange(4000, dtype="i2").reshape(50, 80))["bytes"])


@pytest.mark.parametrize(
    ("data", "changes", "message"),
    [
        (CHUNK, {"shape": [2, 1]}, "chunk 0: expected 4 bytes of voxels"),
        (CHUNK, {"shape": [2, 3]}, "chunk 0: expected 12 bytes of voxels"),
        (b"short", {}, "chunk 0: expected bytes within 5"),
        (
            CHUNK[:31] + bytes([CHUNK[31] | 0x40]) + CHUNK[32:],
            {},
            "chunk 0: expected voxels, found a chunk that says",
        ),
        (
            NOISE[:32] + bytes([255] * 8) + NOISE[40:],
            {"shape": [50, 80], "box": [50, 80]},
            "chunk 0: expected a Blosc2 chunk",
        ),
    ],
)
def test_a_checksum_that_fits_does_not_make_a_chunk_safe(data, changes, message):
    """Blosc2 writes as many bytes as a chunk says, or leaves what was in memory before."""
    stored = crafted(data, **changes)
    with pytest.raises(StoredArrayError, match=message):
        stored.read()


def test_what_is_stored_is_told_without_its_bytes():
    told = repr(crafted(CHUNK))
    assert told.startswith("StoredArray(header=ArrayHeader(")
    assert not any(name in told for name in ("ends=", "checksums=", "data=", "seed="))


def test_a_shape_without_elements_is_no_work():
    """No chunk, and so no checksum, speaks for such a header."""
    fields = {**GOOD, "ends": [], "checksums": []}
    header = with_header(shape=[0, 10**9, 10**8], box=[1, 1, 1])["header"]
    assert StoredArray.from_fields({**fields, "header": header}).read().shape == (0, 10**9, 10**8)
    header = with_header(shape=[0, 10**18, 10**18], box=[1, 1, 1])["header"]
    with pytest.raises(StoredArrayError, match="expected the shapes of an array and of a chunk"):
        StoredArray.from_fields({**fields, "header": header})


def test_layers_and_ranges_have_the_axes_of_the_array():
    with pytest.raises(ValueError, match="zip"):
        ArrayWriter((4, 5, 6), "i2").append(np.zeros((4, 5), "i2"))
    with pytest.raises(ValueError, match="zip"):
        StoredArray.from_fields(store(np.zeros((4, 5, 6), "i2"))).read([range(4), range(5)])


def test_what_a_writer_refuses():
    with pytest.raises(ValueError, match=r"chunk_shape=\(5000, 5000\): expected at most 67,108,864 bytes"):
        store(np.zeros((2, 2), "f4"), chunk_shape=(5000, 5000))
    writer = ArrayWriter((40, 5, 5), "i2")
    writer.append(np.zeros((32, 5, 5), "i2"))
    with pytest.raises(ValueError, match="expected 2 chunks, found 1: layers are missing"):
        writer.fields()


@pytest.mark.parametrize(
    "array", [np.array(["a"]), np.array([1j]), np.array([True]), np.array([None])], ids=str
)
def test_what_is_no_number(array):
    with pytest.raises(ValueError, match="expected integers or floats of at most 64 bits"):
        store(array)


@pytest.mark.processes
def test_without_blosc2_or_with_an_old_one(python):
    code = """
import sys
old = type(sys)("blosc2")
old.__version__ = "2.7.1"
sys.modules["blosc2"] = None
import ctspine1k, ctspine1k.rows.builder
from ctspine1k.errors import MissingPackageError
for module in (None, old):
    sys.modules["blosc2"] = module
    try:
        ctspine1k.load_dataset(storage="compact", data_dir=".")
    except MissingPackageError as error:
        print(error)
"""
    message = "Compact storage needs blosc2 3 or later: pip install 'ctspine1k[compact]'\n"
    assert python(code).stdout == message * 2
    assert issubclass(MissingPackageError, ImportError)


#: Where a Blosc2 chunk says how it was compressed: its filters in order, and the format of its codec.
_FILTERS, _METAS, _CODEC, _FORMATS = slice(16, 22), slice(24, 30), 2, {1: "lz4", 4: "zstd"}


@pytest.mark.parametrize(("dtype", "shuffles"), [("i2", True), ("u1", False)])
@pytest.mark.parametrize("shape", [(40, 70, 65), (300, 520)])
def test_fast_is_another_codec_in_the_same_form(shape, dtype, shuffles):
    """A reader finds codec and filters in each chunk, and the rest where it always was."""
    array = np.random.default_rng(0).integers(0, 99, shape).astype(dtype)
    deltas = shuffles and len(shape) == 2
    small, fast = (store(array, name="one", compression=how) for how in ("small", "fast"))
    assert small["header"] == fast["header"]
    assert small["bytes"] == store(array, name="one")["bytes"] != fast["bytes"]
    for fields, name, filters, meta in (
        (small, "zstd", [1] * shuffles + [35] * deltas, [2] * deltas),
        (fast, "lz4", [1] * shuffles, []),
    ):
        stored = StoredArray.from_fields(fields)
        for part in stored.parts(everything(stored)):
            assert _FORMATS[part.chunk[_CODEC] >> 5] == name
            assert [one for one in part.chunk[_FILTERS] if one] == filters
            assert [one for one in part.chunk[_METAS] if one] == meta
        assert np.array_equal(stored.read(), array)


def test_boxes_of_background_are_stored_like_any_other():
    """Though they are not looked at one by one. The memory is that of a file, whose first axis runs fastest."""
    mask = np.zeros((40, 65, 70), "u1").transpose(0, 2, 1)
    mask[3, 66, 1] = mask[33:, 10, 64] = 7
    boxes = [
        mask[k : k + 32, i : i + 48, j : j + 48].tobytes() for k in (0, 32) for i in (0, 48) for j in (0, 48)
    ]
    compress = codec.compressor(1, "small", is_volume=True)
    assert bytes(store(mask)["bytes"]) == b"".join(map(compress, boxes))
    assert sum(box.count(7) > 0 for box in boxes) == 2


def test_a_stored_array_does_not_show_its_seed():
    assert "seed" not in repr(StoredArray.from_fields(store(np.zeros((2, 3, 4), "i2"))))
