import numpy as np
import pytest

from ctspine1k.volumes.windows import WINDOWS, apply_window, window_limits


@pytest.mark.parametrize("dtype", ["<i2", ">i2", "u2", "f4", "f8", "i4"])
def test_a_window_becomes_0_to_1(dtype):
    values = np.array([[-3000, -200, 650], [1500, 1501, 100]])
    if np.dtype(dtype).kind == "u":
        values = values.clip(0)
    right = np.interp(values.astype("f8"), (-200, 1500), (0, 1))
    for window in ("spine", (-200, 1500), [-200.0, 1500.0]):
        found = apply_window(values.astype(dtype), window)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, right, atol=1e-6)
    assert found.max() == 1


def test_a_window_is_written_where_it_is_asked_for():
    values = np.arange(-1500, 2500, 7, "f4")
    right = apply_window(values, "bone")
    batch = np.full((2, len(values)), np.nan, "f4")
    assert apply_window(values, "bone", out=batch[1]).base is batch
    assert np.array_equal(batch[1], right)
    assert np.isnan(batch[0]).all()
    assert apply_window(values, "bone", out=values) is values
    assert np.array_equal(values, right)
    for other in (np.empty(3, "f4"), np.empty(len(values), "f8")):
        with pytest.raises(ValueError, match=r"out: expected float32 \(572,\), found float"):
            apply_window(values, "bone", out=other)


def test_names_are_ranges():
    assert window_limits("bone") == (-1000, 2000)
    assert window_limits("wide") == (-1024, 3071)
    assert window_limits("soft") == (400 - 1500 / 2, 400 + 1500 / 2)
    assert all(window_limits(name) == limits for name, limits in WINDOWS.items())


@pytest.mark.parametrize(
    "window", ["lung", (1, 1), (5, -5), (0, np.inf), (np.nan, 1), (1,), (1, 2, 3), 7, None, ("a", "b")]
)
def test_other_windows_are_refused(window):
    with pytest.raises(ValueError, match=r"expected 'bone', 'wide', .*such as \(-1000, 2000\)"):
        window_limits(window)


def test_the_type_of_the_values_changes_nothing():
    values = np.random.default_rng(0).uniform(-2000, 3000, 500).astype("f4")
    assert np.array_equal(apply_window(values.astype("f8"), "spine"), apply_window(values, "spine"))
    whole = values.astype("i4")
    assert np.array_equal(
        apply_window(whole, (-1000.1, 2000.3)), apply_window(whole.astype("f4"), (-1000.1, 2000.3))
    )
