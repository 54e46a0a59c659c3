"""One joint histogram for all overlaps, and the window around all labels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ctspine1k.evaluation.overlap import Overlap, best_match, joint_histogram, label_window

MASKS = hnp.arrays(np.uint8, (4, 6, 5), elements=st.sampled_from([0, 0, 0, 1, 7, 255]))


@settings(max_examples=15)
@given(reference=MASKS, prediction=MASKS)
def test_pairs_of_labels_are_counted(reference, prediction):
    wanted = np.zeros((256, 256), np.int64)
    np.add.at(wanted, (reference, prediction), 1)
    wanted[0, 0] = 0
    found = joint_histogram(reference, prediction, (20, 0, 300))
    assert np.array_equal(found.counts, wanted)
    for axis, start in enumerate((20, 0, 300)):
        wanted[:] = 0
        np.add.at(wanted, (reference, prediction), np.indices(reference.shape)[axis] + start)
        wanted[0, 0] = 0
        assert np.array_equal(found.sums[axis], wanted)


def test_the_window_is_around_the_labels_of_both():
    first, second = np.zeros((2, 40, 250, 240), np.uint8)  # more than is looked at together
    assert [side.stop - side.start for side in label_window(first, second)] == [0, 0, 0]
    first[3, 20, 30], second[39, 7, 239] = 128, 1
    assert label_window(first, second) == np.s_[3:40, 7:21, 30:240]
    assert label_window(first) == np.s_[3:4, 20:21, 30:31]


def test_measures_without_a_value_are_nan():
    assert (Overlap(10, 5, 4).dice, Overlap(10, 5, 4).iou) == (8 / 15, 4 / 11)
    assert (Overlap(10, 5, 4).precision, Overlap(10, 5, 4).recall, Overlap(10, 5, 4).volume_error) == (
        0.8,
        0.4,
        -0.5,
    )
    missed, surplus = Overlap(10, 0, 0), Overlap(0, 5, 0)
    assert (missed.dice, missed.iou, missed.recall, missed.volume_error) == (0, 0, 0, -1)
    assert (surplus.dice, surplus.iou, surplus.precision) == (0, 0, 0)
    assert np.isnan([missed.precision, surplus.recall, surplus.volume_error]).all()


@pytest.mark.parametrize(
    ("counts", "wanted"),
    [
        ({}, None),
        ({9: 3}, 9),
        ({9: 3, 10: 2}, 9),
        ({9: 3, 12: 3}, 9),
        ({7: 3, 13: 3}, 7),
        ({5: 3, 14: 3}, 14),
    ],
)
def test_the_best_match_has_most_voxels_then_the_nearest_number(counts, wanted):
    histogram = np.zeros((256, 256), np.int64)
    histogram[10, 0] = 100
    for other, count in counts.items():
        histogram[10, other] = count
    assert best_match(histogram, 10) == wanted
