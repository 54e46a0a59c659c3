import numpy as np
import pytest

from ctspine1k.volumes.windows import WINDOWS, apply_window, check_window


def test_a_window_becomes_0_to_1():
    hu = np.array([[-2000, -1000, 500], [2000, 3071, -1024]], "i2")
    found = apply_window(hu, (-1000, 2000))
    assert found.dtype == np.float32
    assert np.array_equal(found, np.float32([[0, 0, 0.5], [1, 1, 0]]))
    values = hu.astype("f4")
    assert apply_window(values, (-1000, 2000), out=values) is values
    assert np.array_equal(values, found)


def test_windows_by_name_or_by_numbers():
    for name, window in WINDOWS.items():
        assert check_window(name) == check_window(list(window)) == window
    assert check_window(np.array([-1, 2])) == (-1.0, 2.0)
    assert check_window(None) is None


@pytest.mark.parametrize("window", ["lung", (1, 1), (2, 1), (0, np.inf), (1,), (1, 2, 3), 5, ("a", "b")])
def test_anything_else_is_refused(window):
    with pytest.raises(ValueError, match=r"expected two HU, such as \(-1000, 2000\), or one of 'bone'"):
        check_window(window)
