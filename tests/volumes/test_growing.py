import numpy as np
import pytest

from ctspine1k.volumes.growing import GrowingArray, Growth


@pytest.mark.parametrize("step", [1, 3, 7])
@pytest.mark.parametrize("first", [1, 1 << 10, 1 << 26])
def test_what_was_written_stays_however_it_grows(step, first):
    wanted = np.arange(21 * 6 * 5, dtype="i2").reshape(21, 6, 5)
    array = GrowingArray(wanted.shape, "i2", Growth(first_bytes=first, factor=2))
    for start in range(0, 21, step):
        array.extend(step)[:] = wanted[start : start + step]
        assert np.array_equal(array.filled, wanted[: start + step])
    assert array.filled.dtype == "i2"


def test_a_promise_is_not_believed_at_first():
    array = GrowingArray((10**9, 512, 512), "f4")
    array.extend(1)
    assert array.filled.base.nbytes <= 1 << 26
    assert array.filled.shape == (1, 512, 512)


def test_a_promise_may_be_too_small():
    array = GrowingArray((2,), "u1")
    array.extend(5)[:] = 7
    assert array.filled.tolist() == [7] * 5


def test_an_array_that_is_just_large_enough_is_not_copied():
    array = GrowingArray((3, 2), "u1")
    parts = [array.extend(1) for _ in range(3)]
    assert {id(part.base) for part in parts} == {id(array.filled.base)}
    assert array.extend(1).base is not parts[0].base
