"""Distances from points to the nearest of others: near by, far away, to the last bit."""

import math
import sys
import tracemalloc
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from support.judging import SPUR, A, corners, volume

from ctspine1k.errors import MissingPackageError, WorkerError
from ctspine1k.evaluation import nearest
from ctspine1k.evaluation.areas import corner_areas
from ctspine1k.evaluation.nearest import nearest_mm
from ctspine1k.evaluation.scores import score_case
from ctspine1k.evaluation.surfaces import Surfaces
from ctspine1k.running import stops

SPACING = (2.5, 0.7, 0.9)

#: Near by, where steps are tried, and so far apart that a tree is needed.
POINTS = hnp.arrays(
    np.int32,
    st.tuples(st.integers(1, 30), st.just(3)),
    elements=st.one_of(st.integers(0, 12), st.integers(40, 90)),
)


def brute_force(points, others, spacing):
    steps = (points[:, None, :] - others[None, :, :]) * np.array(spacing)
    return np.sqrt((steps**2).sum(axis=2)).min(axis=1)


@settings(max_examples=25)
@given(points=POINTS, others=POINTS, spacing=st.tuples(*[st.floats(0.2, 5)] * 3))
def test_each_point_gets_its_nearest(points, others, spacing):
    found = nearest_mm(points, others, spacing)
    assert found == pytest.approx(brute_force(points, others, spacing), rel=1e-14)
    for within in (0, found.min(), float(np.median(found)), 60):
        assert np.array_equal(
            nearest_mm(points, others, spacing, within), np.where(found <= within, found, math.inf)
        )


def test_many_points_that_all_are_far_away():
    """None is within the steps that are tried, nor may so many be looked at so often."""
    points = np.argwhere(np.ones((10, 9, 8))).astype(np.int32)
    for others in (points + np.int32([0, 40, 0]), points + np.int32([3, 0, 11])):
        assert np.array_equal(nearest_mm(points, others, SPACING), brute_force(points, others, SPACING))


@settings(max_examples=25)
@given(points=POINTS, others=POINTS, spacing=st.tuples(*[st.floats(0.2, 5)] * 3))
def test_a_distance_transform_gives_each_point_its_nearest(points, others, spacing):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nearest, "_cheapest_axes", lambda *_: ((1, 0, 2), 0))  # instead of a tree
        patch.setattr(nearest, "_SUMS", 200)  # in many pieces
        found = nearest_mm(points, others, spacing)
    assert np.array_equal(found, brute_force(points, others, spacing))


@pytest.mark.slow
def test_where_many_points_are_far_away_a_distance_transform_is_made(monkeypatch):
    monkeypatch.setattr(nearest, "_tree_type", lambda: pytest.fail)
    block = np.argwhere(np.ones((12, 9, 14))).astype(np.int32)
    for away in ([40, 0, 90], [3, 60, 1]):
        there = block + np.int32(away)
        for pair in ((block, there), (there, block)):
            assert np.array_equal(nearest_mm(*pair, SPACING), brute_force(*pair, SPACING))


def test_distances_do_not_depend_on_where_the_points_are():
    """They are computed from steps between points, not from positions.

    A tree finds some of these. Of two neighbours that are equally far but for rounding it may find the other
    one elsewhere, whose distance may differ in the last bit: with these points it does not.
    """
    random = np.random.default_rng(2)
    points, others = random.integers(0, 60, (2, 300, 3)).astype(np.int32)
    away = np.int32([400, 3, 7000])
    for spacing in ((0.1, 0.3, 0.7), SPACING):
        near, far = nearest_mm(points, others, spacing), nearest_mm(points + away, others + away, spacing)
        assert np.array_equal(near, far)
        assert np.array_equal(near, brute_force(points, others, spacing))


def test_elements_of_a_box_with_more_than_two_to_the_31_have_a_place():
    """NumPy 1 computes in the type of the points, 32 bits, unless it is told not to."""
    points, shape = np.array([[7, 5, 9], [1999, 1400, 1599]], np.int32), (2000, 1500, 1600)
    elements = nearest._elements(points, np.array([3, 0, 1]), shape)
    assert np.array_equal(elements, np.ravel_multi_index(tuple((points - [3, 0, 1]).T), shape))


def test_distances_are_the_same_in_pieces(monkeypatch):
    random = np.random.default_rng(6)
    points, others = (
        np.argwhere(random.random((2, 14, 15, 16)) < 0.2)[:, 1:].astype(np.int32)[:1300].reshape(2, -1, 3)
    )
    monkeypatch.setattr(nearest, "_POINTS", 70)
    for away in ([0, 0, 0], [9, 0, 40]):
        there = others + np.int32(away)
        assert np.array_equal(nearest_mm(points, there, SPACING), brute_force(points, there, SPACING))


@pytest.fixture
def noise(monkeypatch):
    """A reference and a prediction that is noise, which are looked at in many pieces."""
    monkeypatch.setattr("ctspine1k.evaluation.overlap._SLAB_VOXELS", 1 << 13)
    monkeypatch.setattr("ctspine1k.evaluation.surfaces._MOST_VOXELS", 1 << 12)
    monkeypatch.setattr(nearest, "_POINTS", 1 << 13)
    prediction = np.random.default_rng(7).integers(0, 2, (90, 50, 40)).astype(np.uint8)
    reference = np.zeros_like(prediction)
    reference[5:85, 20:30, 11:19] = 1
    return reference, prediction


def peak_of(work):
    """What a call returns, and the most memory that it took."""
    tracemalloc.start()
    try:
        return work(), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.slow
def test_noise_takes_little_more_memory_than_its_voxels_corners_and_distances(noise):
    surfaces = Surfaces(noise[1])
    voxels, peak = peak_of(partial(surfaces.voxels, 1))
    assert len(voxels) > 10 * nearest._POINTS
    assert peak < 1.5 * voxels.nbytes
    everywhere = np.zeros(3, np.int32), np.int32(noise[1].shape)
    own, peak = peak_of(lambda: surfaces.corners({1: everywhere})[1])
    assert peak < 2 * (own.places.nbytes + own.patterns.nbytes)
    others = np.argwhere(np.ones((45, 25, 20))).astype(np.int32) * 2  # all are near
    nearest_mm(others, others, SPACING)  # SciPy is imported
    distances, peak = peak_of(partial(nearest_mm, voxels, others, SPACING))
    assert peak < 2.5 * distances.nbytes


class StopsLater:
    """A flag that is set after some looks at it."""

    def __init__(self, looks):
        self.looks = looks

    @property
    def value(self):
        self.looks -= 1
        return self.looks < 0


def test_the_work_on_one_label_can_be_stopped(noise, monkeypatch):
    """At each slab of the volume and each piece of the points, and within the distance transform of a piece."""
    points, others = (np.argwhere(mask).astype(np.int32) for mask in noise[::-1])
    assert len(points) < 12 * nearest._POINTS
    for work, looks in (
        (lambda: Surfaces(noise[1]).voxels(1), 20),
        (partial(nearest_mm, points, others, SPACING), 20),
    ):
        monkeypatch.setattr(stops, "_stop", StopsLater(looks))
        with pytest.raises(WorkerError, match="not needed any more"):
            work()


def test_the_nsd_by_area_weighs_corners_by_the_areas_around_them():
    random = np.random.default_rng(5)
    masks = random.integers(0, 2, (2, 4, 5, 3)).astype(np.uint8)
    found = score_case(*masks, SPACING, tolerances_mm=(0.5,)).row(1).nsd[0.5].area
    near, whole = 0.0, 0.0
    for mask, other in (masks, masks[::-1]):
        own = Surfaces(mask).corners({1: (np.zeros(3), np.full(3, 9))})[1]
        distances = brute_force(own.places, np.array(corners(other == 1)), SPACING)
        areas = corner_areas(SPACING)[own.patterns]
        near, whole = near + areas[distances <= 0.5].sum(), whole + areas.sum()
    assert 0.5 < found < 0.99
    assert found == pytest.approx(near / whole, rel=1e-12)


def test_without_scipy_the_error_names_the_extra(monkeypatch):
    masks = volume(A), volume(A, SPUR)
    monkeypatch.setitem(sys.modules, "scipy.spatial", None)
    with pytest.raises(MissingPackageError, match=r"needs scipy: pip install 'ctspine1k\[evaluate\]'"):
        score_case(*masks, SPACING)
    assert score_case(*masks, SPACING, distances=False).row(1).dice > 0.99
    assert math.isnan(score_case(*masks, SPACING, distances=False).row(1).assd_mm)
