"""Centroids, and the two published rules of identification."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctspine1k.evaluation.centroids import identify, mask_centroids


def hits(reference, prediction):
    judged = identify(reference, prediction)
    return [[label for label in judged if getattr(judged[label], rule)] for rule in ("verse", "msr")]


def test_swapped_vertebrae_are_not_identified():
    assert hits({20: (0, 0, 0), 21: (0, 0, 30)}, {20: (0, 0, 30), 21: (0, 0, 0)}) == [[], []]


def test_exactly_20_mm_are_within_by_one_rule_and_not_by_the_other():
    assert hits({20: (1, 2, 3)}, {20: (13, 18, 3)}) == [[20], []]
    assert hits({20: (1, 2, 3)}, {20: (13, 18, 3.01)}) == [[], []]
    assert hits({20: (1, 2, 3)}, {20: (13, 17.99, 3)}) == [[20], [20]]


def test_rivals_are_the_labels_on_both_sides_or_all_of_the_reference():
    """T2 predicted at the place of T1: 1/3 for VerSe, 0/3 for MICCAI 2013."""
    reference = {8: (0, 0, 0), 9: (0, 0, 18), 10: (0, 0, 36)}
    assert hits(reference, {9: (0, 0, 0)}) == [[9], []]
    assert hits(reference, {9: (0, 0, -3)}) == [[], []]
    assert hits(reference, {9: (0, 0, 0), 8: (0, 0, 60)}) == [[], []]


PLACES = st.dictionaries(st.integers(1, 5), st.tuples(*[st.integers(-3, 3).map(lambda n: 5.0 * n)] * 3))


@settings(max_examples=40)
@given(reference=PLACES, prediction=PLACES)
def test_hits_are_what_the_texts_say(reference, prediction):
    """By the matrix of distances from each prediction; places on a grid, so that many are equally far."""
    both = sorted(reference.keys() & prediction.keys())
    verse, msr = [], []
    for label in both:
        distances = {other: math.dist(prediction[label], reference[other]) for other in reference}
        among_both = [distances[other] for other in both]
        if distances[label] == min(among_both) and not distances[label] > 20:
            verse.append(label)
        if distances[label] == min(distances.values()) and distances[label] < 20:
            msr.append(label)
    assert hits(reference, prediction) == [verse, msr]


def test_errors_and_what_is_on_one_side_only():
    judged = identify({9: (0, 0, 18), 8: (0, 0, 0)}, {11: (1, 2, 3), 9: (3, 4, 18)})
    assert list(judged) == [8, 9, 11]
    assert judged[9].error_mm == 5
    assert [math.isnan(judged[label].error_mm) for label in (8, 11)] == [True, True]
    assert identify({}, {}) == {}


def test_centres_of_mass():
    counts, sums = np.zeros(256, np.int64), np.zeros((3, 256))
    counts[[0, 3, 250]], sums[:, 3], sums[:, 250] = (9, 4, 1), (8, 6, 14), (4, 5, 6)
    assert mask_centroids(counts, sums, (2.5, 0.7, 0.8)) == {
        3: pytest.approx((2 * 2.5, 1.5 * 0.7, 3.5 * 0.8)),
        250: pytest.approx((4 * 2.5, 5 * 0.7, 6 * 0.8)),
    }
