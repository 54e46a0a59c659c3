import itertools

import numpy as np
import pytest
from support.pictures import anatomy, stored, views

from ctspine1k.catalog.ctspine1k import CTSPINE1K
from ctspine1k.pictures.planes import Sample, choose_slices, label_colour, label_counts, overlay
from ctspine1k.volumes.orientation import ORIENTATIONS


def counted(*axes):
    """Counts with label 0 to 25, from {label: voxels at each index} of each axis."""
    result = []
    for voxels in axes:
        counts = np.zeros((len(next(iter(voxels.values()))), 26), np.int64)
        for label, along in voxels.items():
            counts[:, label] = along
        result.append(counts)
    return result


def test_slices_go_through_the_spine():
    up_down = {18: [0, 9, 0, 0, 0], 19: [0, 0, 1, 3, 0], 20: [0, 0, 0, 5, 99]}
    front_back = {18: [5, 2, 0], 19: [0, 5, 0], 20: [0, 0, 6]}
    left_right = {18: [0, 4, 4, 4], 19: [0, 0, 0, 0], 20: [0, 0, 0, 0]}
    # T12 is the middle one, though others have more voxels; of three equal indices the middle is taken.
    assert choose_slices(counted(up_down, front_back, left_right)) == (3, 1, 2)
    assert choose_slices(counted({7: [1, 0]}, {7: [0, 1]}, {7: [0, 1]})) == (0, 1, 1)


def test_without_labels_the_middle_is_shown():
    assert choose_slices([np.zeros((size, 26), np.int64) for size in (9, 4, 1)]) == (4, 2, 0)


def test_the_window_is_for_bone():
    hu = np.array([-3000, -500, 400, 1300, 9000, np.nan, np.inf], "f4")
    pixels = overlay(hu, np.zeros(7, int))
    assert pixels.dtype == np.uint8
    assert pixels.tolist() == [[v] * 3 for v in (0, 0, 128, 255, 255, 0, 255)]


def test_a_label_lies_over_the_image():
    (black, white) = overlay(np.array([-500, 1300]), np.array([1, 1]))
    assert label_colour(1) == (0, 114, 178)
    assert black.tolist() == [0, 51, 80]  # 0.45 of it
    assert white.tolist() == [140, 192, 220]  # and 0.55 of 255


def test_any_label_has_a_colour():
    (first, second) = overlay(np.array([-500, -500]), np.array([28, 255]))
    assert [*first] == [round(0.45 * v) for v in label_colour(28)]
    assert [*second] == [round(0.45 * v) for v in label_colour(255)]


def luminance(colour):
    """What is left to one who sees no colour at all: relative luminance, 0 to 1."""
    linear = [(v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4) for v in np.array(colour) / 255]
    return np.dot(linear, (0.2126, 0.7152, 0.0722))


def test_neighbours_differ_in_colour():
    colours = [label_colour(label) for label in range(1, 26)]
    assert colours == [label_colour(label) for label in range(1, 26)]
    for distance, least in ((1, 100), (2, 70)):
        for one, other in zip(colours, colours[distance:], strict=False):
            assert np.linalg.norm(np.subtract(one, other)) > least
    assert all(abs(luminance(one) - luminance(two)) > 0.06 for one, two in itertools.pairwise(colours))


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_any_orientation_gives_radiologists_views(orientation):
    image, labels = anatomy()
    scan = Sample.of(stored(image, labels, orientation), None)
    found = scan.panels(label_counts(scan.labels, CTSPINE1K.vocabulary.names("ctspine1k"), "ctspine1k"))
    for panel, right in zip(found, views(image, labels), strict=True):
        assert np.array_equal(panel.pixels, right)
    spacing = [(0.8, 0.7), (2.5, 0.7), (2.5, 0.8)]  # mm, of rows and columns
    assert np.allclose([panel.spacing for panel in found], spacing, rtol=1e-6)
    assert [panel.sides for panel in found] == ["APRL", "SIRL", "SIAP"]
