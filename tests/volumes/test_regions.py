"""Labels in arrays, against what plain NumPy counts."""

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ctspine1k.errors import MissingPackageError
from ctspine1k.volumes.regions import LabelBox, Region, centroid_of, label_regions

LABELS = hnp.arrays(
    "u1", hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=7), elements=st.integers(0, 4)
)


@given(hnp.arrays("i2", hnp.array_shapes(min_dims=2, max_dims=3, max_side=7), elements=st.integers(0, 4)))
def test_boxes_and_centroids_are_numpys(labels):
    found = {region.label: region for region in label_regions(labels, 4)}
    assert list(found) == sorted(set(labels.ravel().tolist()) - {0})
    for label, region in found.items():
        places = np.argwhere(labels == label)
        assert region.voxels == len(places)
        assert region.start == tuple(places.min(axis=0))
        assert region.stop == tuple(places.max(axis=0) + 1)
        assert region.centroid == pytest.approx(tuple(places.mean(axis=0)))
        assert 1 <= region.components <= region.voxels
        assert region.largest_component <= region.voxels


def test_pieces_touch_at_a_corner_or_not_at_all():
    labels = np.zeros((6, 7, 8), "u1")
    labels[1:3, 1:3, 1:3] = 5
    labels[3, 3, 3] = 5
    labels[5, 5, 5] = 5
    assert list(label_regions(labels, 5)) == [
        Region(5, 10, (1, 1, 1), (6, 6, 6), (2.0, 2.0, 2.0), components=2, largest_component=9)
    ]


def test_greater_labels_are_left_out():
    labels = np.array([[0, 1], [2, 9]])
    assert [region.label for region in label_regions(labels, 2)] == [1, 2]
    assert not list(label_regions(labels * 0, 2))


def test_a_part_is_measured_as_the_whole():
    labels = np.random.default_rng(0).integers(0, 3, (5, 6, 7))
    whole = np.zeros((10, 20, 30), int)
    whole[2:7, 3:9, 11:18] = labels
    assert list(label_regions(labels, 2, (2, 3, 11))) == list(label_regions(whole, 2))


@pytest.mark.slow
@given(LABELS, st.integers(1, 7))
def test_the_box_around_all_labels(labels, depth):
    box = LabelBox()
    for start in range(0, len(labels), depth):
        slab = labels[start : start + depth]
        window, labelled = box.append(slab)
        if slab.any():
            assert np.array_equal(box.last, slab[window])
            assert np.array_equal(labelled, np.flatnonzero(slab[window]))
            assert (slab[window] > 0).sum() == (slab > 0).sum()
        else:
            assert (window, labelled.size) == ((), 0)
    start, found = box.joined()
    assert found.dtype == labels.dtype
    rebuilt = np.zeros_like(labels)
    rebuilt[tuple(slice(at, at + size) for at, size in zip(start, found.shape, strict=True))] = found
    assert np.array_equal(rebuilt, labels)
    for axis in (1, 2):  # and it is tight, but for the slabs along the first axis, which are whole
        others = tuple(other for other in range(3) if other != axis)
        assert found.any(axis=others)[[0, -1]].all() if found.size else not labels.any()


def test_a_box_around_no_labels_is_empty():
    box = LabelBox()
    window, labelled = box.append(np.zeros((3, 4, 5), np.int16))
    assert (window, labelled.size) == ((), 0)
    start, found = box.joined()
    assert (start, found.shape, found.dtype) == ((0, 0, 0), (0, 0, 0), np.uint8)
    box.append(np.ones((1, 4, 5), np.int16))
    assert box.last.dtype == box.joined()[1].dtype == np.uint8


def test_a_centroid_is_exact():
    mask = np.zeros((3, 4), bool)
    mask[0, 1] = mask[2, 1] = mask[2, 2] = True
    assert centroid_of(mask) == (4 / 3, 4 / 3)


def test_without_scipy(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(MissingPackageError, match="measuring vertebrae needs scipy"):
        next(label_regions(np.ones((2, 2), int), 1))
