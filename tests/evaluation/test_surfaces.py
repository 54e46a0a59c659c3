"""Areas of surfaces, corners, and distances that do not depend on where a mask lies."""

import math
import sys

import numpy as np
import pytest
from support.judging import SPUR, A, corner_distances, volume

from ctspine1k.errors import MissingPackageError
from ctspine1k.evaluation.areas import corner_areas
from ctspine1k.evaluation.overlap import label_window
from ctspine1k.evaluation.scores import score_case
from ctspine1k.evaluation.surfaces import surface_distances, surfaces

SPACING = (2.5, 0.7, 0.9)


def box(mask):
    return surfaces(mask, label_window(mask))[1]


def test_the_area_of_a_box_is_that_of_its_faces_with_edges_and_corners_cut_off():
    mask = volume(np.s_[2:7, 3:9, 1:5], shape=(9, 10, 7))
    area = corner_areas(SPACING)[box(mask).corners[1]].sum()
    sides = [(size - 1) * mm for size, mm in zip((5, 6, 4), SPACING, strict=True)]
    a, b, c = SPACING
    faces = 2 * (sides[0] * sides[1] + sides[0] * sides[2] + sides[1] * sides[2])
    edges = 4 * sum(
        side * math.hypot(p, q) / 2 for side, p, q in zip(sides, (b, a, a), (c, c, b), strict=True)
    )
    corners = 8 * math.sqrt((a * b) ** 2 + (a * c) ** 2 + (b * c) ** 2) / 8
    assert area == pytest.approx(faces + edges + corners, rel=1e-12)


def test_areas_of_all_patterns_are_those_of_the_published_table():
    """Sums over the table of DeepMind's surface-distance, which `with_peers.py` compares entry by entry."""
    areas = corner_areas((1.0, 1.0, 1.0))
    assert np.array_equal(areas, areas[::-1])  # label and background exchanged
    assert (areas > 0).sum() == 254
    assert areas.sum() == pytest.approx(241.34313970553745, rel=1e-12)
    assert corner_areas(SPACING) @ np.arange(256) ** 2 == pytest.approx(8374555.360477189, rel=1e-12)


def test_the_nsd_by_area_weighs_corners_by_their_distances():
    random = np.random.default_rng(5)
    masks = random.integers(0, 2, (2, 4, 5, 3)).astype(np.uint8)
    found = score_case(*masks, SPACING, tolerances_mm=(0.8,)).row(1).nsd[0.8].area
    near, whole = 0.0, 0.0
    for one, other in (masks, masks[::-1]):
        codes = dict(zip(*(part.tolist() for part in box(one).corners), strict=True))
        distances = corner_distances(one, other, SPACING)
        assert len(codes) == len(distances)
        for at, distance in distances.items():
            area = corner_areas(SPACING)[codes[np.ravel_multi_index(at, (5, 6, 4))]]
            whole, near = whole + area, near + area * (distance <= 0.8)
    assert found == pytest.approx(near / whole, rel=1e-12)


def test_distances_are_the_same_wherever_the_masks_lie():
    """To the last bit: they are computed from steps between voxels, not from positions."""
    masks = [volume(A), volume(A, SPUR)]
    far = [np.pad(mask, ((301, 0), (0, 0), (777, 0))) for mask in masks]
    near, away = (surface_distances(*map(box, pair), (0.1, 0.3, 0.7)) for pair in (masks, far))
    assert np.array_equal(near.pooled, away.pooled)
    assert np.array_equal(near.corners_from_prediction, away.corners_from_prediction)


def test_without_scipy_the_error_names_the_extra(monkeypatch):
    masks = volume(A), volume(A, SPUR)
    monkeypatch.setitem(sys.modules, "scipy.spatial", None)
    with pytest.raises(MissingPackageError, match=r"needs scipy: pip install 'ctspine1k\[evaluate\]'"):
        score_case(*masks, SPACING)
    assert score_case(*masks, SPACING, distances=False).row(1).dice > 0.99
