import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ctspine1k.volumes.scaling import Scaling

NUMBERS = st.floats(-1e6, 1e6, width=32)


@pytest.mark.slow
@given(hnp.arrays(st.sampled_from(["i2", "u1", "i4", "i8", "u8", "f4"]), (2, 3, 4)), NUMBERS, NUMBERS)
def test_values_are_nibabels(stored, slope, intercept):
    """By another path: nibabel's own array proxy, cast."""
    with np.errstate(all="ignore"):
        wanted = nib.volumeutils.apply_read_scaling(stored, np.float64(slope), np.float64(intercept))
        wanted = np.asarray(wanted, np.float64).astype(np.float32)
    found = np.empty(stored.shape, np.float32)
    with np.errstate(all="ignore"):
        Scaling(slope, intercept).write(stored, found)
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("dtype", ["i8", "u8"])
def test_unscaled_wide_integers_are_exact_among_integers(dtype):
    stored = np.array([np.iinfo(dtype).max, np.iinfo(dtype).min, 2**53 + 1], dtype)
    out = np.empty_like(stored)
    Scaling().write(stored, out)
    assert np.array_equal(out, stored)


@pytest.mark.parametrize("dtype", ["i8", "u8"])
def test_unscaled_wide_integers_are_rounded_by_way_of_float64(dtype):
    """As nibabel does: this one to float64 first, of which float32 then has two as near, and takes the even."""
    stored = np.array([2**60 + 2**36 + 1], dtype)
    out = np.empty(1, "f4")
    Scaling().write(stored, out)
    assert out == stored.astype("f8").astype("f4") == 2**60
    assert stored.astype("f4") == 2**60 + 2**37


@pytest.mark.parametrize("dtype", ["i1", "u2", "<i4", "f4", "f8"])
def test_numbers_that_float64_holds_are_their_own_values(dtype):
    """Without a copy. Others are rounded once, as by nibabel."""
    stored = np.array([3, 7], dtype)
    assert Scaling().values(stored) is stored
    assert Scaling().values(stored.astype("i8")).dtype == np.float64
    out = np.empty(2, "i4")
    for scaling, wanted in ((Scaling(), [3, 7]), (Scaling(2.0, 0.5), [6, 14]), (Scaling(1.0, 1.0), [4, 8])):
        scaling.write(stored, out)
        assert out.tolist() == wanted


def test_negative_zero_stays():
    out = np.empty(1, "f4")
    for scaling in (Scaling(), Scaling(2.0)):
        scaling.write(np.array([-0.0], "f4"), out)
        assert np.signbit(out).all()


def test_identity():
    assert Scaling().is_identity
    assert not Scaling(2.0).is_identity
    assert not Scaling(1.0, -1024.0).is_identity
