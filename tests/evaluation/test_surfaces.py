"""Surfaces: their voxels, their corners, and the areas there."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from support.judging import corners, surface, volume

from ctspine1k.evaluation.areas import corner_areas
from ctspine1k.evaluation.surfaces import Surfaces

SPACING = (2.5, 0.7, 0.9)

#: A box around all corners.
EVERYWHERE = np.zeros(3, np.int32), np.full(3, 1000, np.int32)


@settings(max_examples=15)
@given(mask=hnp.arrays(np.uint8, (4, 3, 5), elements=st.sampled_from([0, 1, 2, 255])))
def test_voxels_corners_and_patterns_are_what_their_definitions_give(mask):
    found = Surfaces(mask)
    every = found.corners(dict.fromkeys(set(mask.flat) - {0}, EVERYWHERE))
    for label, own in every.items():
        assert sorted(map(tuple, found.voxels(label).tolist())) == surface(mask == label)
        assert sorted(map(tuple, own.places.tolist())) == corners(mask == label)
        assert [low.tolist() for low in found.box(label)] == [
            own.places.min(0).tolist(),
            own.places.max(0).tolist(),
        ]
        assert np.array_equal(own.counts, np.bincount(own.patterns, minlength=256))
        around = np.pad(mask, 1) == label
        for (i, j, k), pattern in zip(own.places, own.patterns, strict=True):
            wanted = [around[i + a, j + b, k + c] for a, b, c in itertools.product((0, 1), repeat=3)]
            assert [bool(pattern >> bit & 1) for bit in range(8)] == wanted
    assert not len(found.voxels(7))


def test_corners_are_listed_in_a_box_and_counted_everywhere():
    mask = np.random.default_rng(3).integers(0, 3, (5, 7, 6)).astype(np.uint8)
    found = Surfaces(mask)
    every = found.corners({1: EVERYWHERE, 2: EVERYWHERE})
    low, high = np.int32([1, 0, 3]), np.int32([4, 2, 3])
    some = found.corners({2: (low, high)})
    assert some.keys() == {2}
    is_in = ((every[2].places >= low) & (every[2].places <= high)).all(axis=1)
    assert 0 < is_in.sum() < len(is_in)
    assert np.array_equal(some[2].places, every[2].places[is_in])
    assert np.array_equal(some[2].patterns, every[2].patterns[is_in])
    assert np.array_equal(some[2].counts, every[2].counts)


def test_labels_that_are_everywhere_are_found_one_by_one(monkeypatch):
    mask = np.random.default_rng(4).integers(0, 4, (9, 8, 7)).astype(np.uint8)
    wanted = Surfaces(mask)
    monkeypatch.setattr("ctspine1k.evaluation.surfaces._MOST_VOXELS", 30)
    found = Surfaces(mask)
    for label in (1, 2, 3):
        assert np.array_equal(found.voxels(label), wanted.voxels(label))
        (low, high), (first, last) = found.box(label), wanted.box(label)
        assert (low <= first).all()
        assert (high >= last).all()


def test_surfaces_go_on_from_one_piece_of_the_volume_to_the_next():
    """More voxels than are looked at together, of which every slice has some."""
    mask = np.zeros((50, 240, 260), np.uint8)
    mask[:, :2, :2] = mask[:, -1, -1] = 3
    found = Surfaces(mask)
    voxels, corners = found.voxels(3), found.corners({3: EVERYWHERE})[3].places
    assert len(voxels) == mask.astype(bool).sum()  # nothing here is thick enough to have an inside
    assert len(np.unique(voxels, axis=0)) == len(voxels)
    assert len(np.unique(corners, axis=0)) == len(corners)
    # Of the thick column all 3 x 3 corners at both ends and 8 between, of the thin one all 2 x 2.
    assert len(corners) == 9 * 2 + 8 * 49 + 4 * 51


def test_the_area_of_a_box_is_that_of_its_faces_with_edges_and_corners_cut_off():
    mask = volume(np.s_[2:7, 3:9, 1:5], shape=(9, 10, 7))
    area = Surfaces(mask).corners({1: EVERYWHERE})[1].counts @ corner_areas(SPACING)
    sides = [(size - 1) * mm for size, mm in zip((5, 6, 4), SPACING, strict=True)]
    a, b, c = SPACING
    faces = 2 * (sides[0] * sides[1] + sides[0] * sides[2] + sides[1] * sides[2])
    edges = 4 * sum(
        side * math.hypot(p, q) / 2 for side, p, q in zip(sides, (b, a, a), (c, c, b), strict=True)
    )
    eighths = 8 * math.sqrt((a * b) ** 2 + (a * c) ** 2 + (b * c) ** 2) / 8
    assert area == pytest.approx(faces + edges + eighths, rel=1e-12)


def test_areas_of_all_patterns_are_those_of_the_published_table():
    """Sums over the table of DeepMind's surface-distance, which `with_peers.py` compares entry by entry."""
    areas = corner_areas((1.0, 1.0, 1.0))
    assert np.array_equal(areas, areas[::-1])  # label and background exchanged
    assert (areas > 0).sum() == 254
    assert areas.sum() == pytest.approx(241.34313970553745, rel=1e-12)
    assert corner_areas(SPACING) @ np.arange(256) ** 2 == pytest.approx(8374555.360477189, rel=1e-12)
