"""Points computed from masks, against the points of VerSe's verse004 and made vertebrae of known geometry."""

import csv
import json
import math
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from ctspine1k.catalog.registry import data_set
from ctspine1k.volumes.bodies import _Frame, mask_indices
from ctspine1k.volumes.headers import Geometry
from ctspine1k.volumes.points import Points, read_points

#: Of a made spine: axes towards A, I and L, oblique; unequal spacing.
SPACING = (0.9, 1.1, 2.5)
TILT = math.radians(15)
AXES = np.array(
    [[0, math.sin(TILT), -math.cos(TILT)], [1, 0, 0], [0, -math.cos(TILT), -math.sin(TILT)]]
) * np.array(SPACING)
SHAPE = (110, 100, 40)


def made(labels):
    """Volume and affine of vertebrae 30 mm apart, and where the centres of their bodies are (mm)."""
    affine = np.eye(4)
    affine[:3, :3] = AXES
    affine[:3, 3] = (70.0, -50.0, 90.0)
    index = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), -1)
    x, y, z = np.moveaxis(index @ affine[:3, :3].T + affine[:3, 3], -1, 0)
    middle = affine[:3, :3] @ (np.array(SHAPE) / 2) + affine[:3, 3]
    volume, centres = np.zeros(SHAPE, np.uint8), {}
    for number, label in enumerate(labels):
        centre = middle + np.array([0.0, 15.0, 30.0 * ((len(labels) - 1) / 2 - number)])
        side, front, up = x - centre[0], y - centre[1], z - centre[2]
        is_level = abs(up) < 12
        body = (side / 20) ** 2 + (front / 15) ** 2 < 1
        canal = side**2 + (front + 24) ** 2
        ring = (canal > 10**2) & (canal < 16**2) & (front < -13)
        process = (abs(side) < 4) & (front < -38) & (front > -70)
        volume[is_level & (body | ring | (process & (up < 0)))] = label
        centres[label] = centre
    return volume, affine, centres


def errors(volume, affine, centres, kind="body"):
    """How far each point is from the centre of its body (mm)."""
    found = mask_indices(volume, Geometry.of(affine, volume.shape), kind)
    assert list(found) == sorted(centres)
    return {label: math.dist((affine @ [*index, 1])[:3], centres[label]) for label, index in found.items()}


@pytest.mark.parametrize("kind", ["mask", "body"])
def test_a_box_around_no_labels_has_no_points(kind):
    assert (
        mask_indices(np.zeros((0, 0, 0), np.uint8), Geometry.of(np.diag([0.7, 0.8, 2, 1]), SHAPE), kind) == {}
    )


@pytest.mark.slow
def test_a_body_is_in_front_of_the_canal_however_the_volume_lies():
    volume, affine, centres = made((20, 21))
    for label, index in mask_indices(volume, Geometry.of(affine, SHAPE), "body").items():
        # The canal begins 14 mm behind the centre: all that is in front of its first whole cell of 1 mm.
        places = np.argwhere(volume == label) @ affine[:3, :3].T + affine[:3, 3]
        body = places[places[:, 1] > centres[label][1] - 15]
        point = (affine @ [*index, 1])[:3]
        np.testing.assert_allclose(point, body.mean(axis=0), atol=1e-6)
        assert math.dist(point, centres[label]) < 1.5
    assert min(errors(volume, affine, centres, "mask").values()) > 8
    thick = affine @ np.diag([1.0, 3.0, 1.0, 1.0])
    assert max(errors(volume[:, ::3], thick, centres).values()) < 2
    only, _, one = made((20,))
    assert errors(only, affine, one)[20] < 1.5


@pytest.mark.parametrize(
    ("columns", "edge"),
    [
        ([8] * 5, 8),
        ([13] * 3, None),  # 39 mm2
        ([9, 7, 6, 6, 6, 6, 6, 6, 6, 7, 9], 7),  # 4 mm beside the middle is in the strip, 5 mm is not
    ],
)
def test_a_hole_of_40_mm2_is_a_canal_whose_front_is_that_of_its_middle(columns, edge):
    """On a grid of 1 mm, so that lengths and areas are exact."""
    mask, behind = np.ones((17, 22, 5), bool), 5
    for number, length in enumerate(columns):
        mask[8 - len(columns) // 2 + number, behind : behind + length] = False
    affine = np.array([[1, 0, 0, 8.0], [0, 1, 0, -9.0], [0, 0, 2.5, 4.0], [0, 0, 0, 1]])
    found = mask_indices(mask.astype(np.uint8) * 7, Geometry.of(affine, mask.shape), "body")
    places = np.argwhere(mask)
    plane = places[:, 1].mean() if edge is None else behind + edge - 0.5
    np.testing.assert_allclose(found[7], places[places[:, 1] > plane].mean(axis=0), rtol=1e-12)


def test_of_holes_and_of_pieces_in_front_of_them_the_largest_counts():
    mask = np.ones((17, 22, 5), bool)
    mask[1:3, 1:3] = mask[14:16, 1:3] = False  # holes of 4 mm2, before and after that of 40
    mask[6:11, 5:13] = False
    mask[3, 9:] = mask[13, 9:] = False
    found = mask_indices(mask.astype(np.uint8), Geometry.of(np.diag([1, 1, 2.5, 1]), mask.shape), "body")
    i, j, k = np.nonzero(mask[4:13, 13:])
    np.testing.assert_allclose(found[1], (i.mean() + 4, j.mean() + 13, k.mean()), rtol=1e-12)


def test_the_direction_at_a_vertebra_is_that_between_the_centres_next_to_it():
    """Blocks on a curve, without a canal: the plane goes through the centre of each."""
    affine = np.eye(4)
    affine[:3, :3] = [[0.0, 0.1, -2.0], [0.9, 0.2, 0.0], [0.1, -1.1, 0.3]]
    labels = np.zeros((30, 50, 8), np.uint8)
    corners = {4: (2, 1, 0), 9: (6, 12, 3), 1: (13, 25, 1), 6: (19, 40, 2)}  # from head to feet
    for label, (i, j, k) in corners.items():
        labels[i : i + 8, j : j + 6, k : k + 4] = label
    places = {label: np.argwhere(labels == label) @ affine[:3, :3].T for label in corners}
    centres = [places[label].mean(axis=0) for label in corners]
    found = mask_indices(labels, Geometry.of(affine, labels.shape), "body")
    for number, (label, own) in enumerate(places.items()):
        up = centres[max(number - 1, 0)] - centres[min(number + 1, 3)]
        front = np.cross(np.cross(up, (0, 1, 0)), up)
        ahead = own[(own - centres[number]) @ front > 1e-9]
        np.testing.assert_allclose(affine[:3, :3] @ found[label], ahead.mean(axis=0), rtol=1e-9)


def test_masks_with_one_centre_have_a_point_each():
    volume = np.zeros((9, 9, 9), np.uint8)
    volume[2:7, 2:7, 2:7] = 20
    volume[4, 4, 4] = 21
    found = mask_indices(volume, Geometry.of(np.eye(4), volume.shape), "body")
    assert found[21].tolist() == [4, 4, 4]
    assert found[20].tolist() == [4, 5.5, 4]


@pytest.mark.slow
def test_where_an_arch_is_open_the_plane_is_that_of_its_neighbours():
    volume, affine, centres = made((20, 21))
    middle = np.abs(np.arange(SHAPE[2]) - SHAPE[2] // 2) < 3
    behind = np.arange(SHAPE[0])[:, np.newaxis, np.newaxis] < 45
    volume[behind & middle & (volume == 21)] = 0
    opened = errors(volume, affine, centres)
    assert opened[20] < 1
    assert opened[21] < 4
    volume[np.broadcast_to(behind & middle, SHAPE)] = 0
    assert max(errors(volume, affine, centres).values()) < 6  # in front of the centres of the masks


@pytest.mark.slow
def test_a_box_has_the_points_of_the_volume_and_the_centre_of_a_mask_is_the_mean_of_its_voxels():
    volume, affine, _ = made((20, 21))
    geometry = Geometry.of(affine, SHAPE)
    start = np.argwhere(volume).min(axis=0)
    box = volume[tuple(slice(first, None) for first in start)]
    for kind in ("mask", "body"):
        whole, part = (
            mask_indices(part, geometry, kind, at) for part, at in ((volume, (0, 0, 0)), (box, start))
        )
        assert list(part) == list(whole) == [20, 21]
        for label, index in part.items():
            np.testing.assert_allclose(index, whole[label])
    centres = mask_indices(volume, geometry, "mask")
    for label in (20, 21):
        np.testing.assert_allclose(centres[label], np.argwhere(volume == label).mean(axis=0))
    assert mask_indices(np.zeros((3, 4, 5), np.uint8), geometry, "body") == {}


def test_points_of_a_real_case_lie_where_verse_and_others_have_them():
    if "CTSPINE1K_SAMPLE_VERSE" not in os.environ:
        pytest.skip("CTSPINE1K_SAMPLE_VERSE names no folder with a real mask of VerSe")
    root = Path(os.environ["CTSPINE1K_SAMPLE_VERSE"])
    (mask,), (centroids,) = root.rglob("*_msk.nii.gz"), root.rglob("*_ctd.json")
    image = nib.load(mask)
    labels, affine = np.asarray(image.dataobj).astype(np.uint8), image.affine
    geometry, vocabulary = Geometry.of(affine, labels.shape), data_set("verse").vocabulary
    own = read_points(centroids, geometry, vocabulary, format="verse")
    listed = {one["label"]: one for one in json.loads(centroids.read_text())[1:]}
    assert [point.label for point in own] == list(listed) == list(range(16, 25))
    for point in own:  # the image is stored in the direction of the file
        k, i, j = point.voxel
        assert (i, j, k) == pytest.approx([listed[point.label][key] for key in "XYZ"], abs=0.05)
    with (root / "verse004_vid_bodies.csv").open(newline="") as file:
        others = {
            row["vertebra"]: [float(row[f"{axis}_mm"]) for axis in "xyz"] for row in csv.DictReader(file)
        }
    apart = [math.dist(point.mm, others[point.name]) for point in own]
    assert 2.2 <= round(min(apart), 1) <= round(max(apart), 1) <= 7.7
    verse = {point.label: point.mm for point in own}
    computed = {
        kind: Points.of(mask_indices(labels, geometry, kind), geometry, vocabulary, kind)
        for kind in ("body", "mask")
    }
    to_verse = {
        kind: [math.dist(point.mm, verse[point.label]) for point in points]
        for kind, points in computed.items()
    }
    assert np.mean(to_verse["body"]) <= 1.5  # measured: 1.16
    assert 9.4 < min(to_verse["mask"]) < max(to_verse["mask"]) < 15
    thick = affine @ np.diag([1.0, 5.0, 1.0, 1.0])  # every fifth axial slice
    found = mask_indices(labels[:, ::5], Geometry.of(thick, labels[:, ::5].shape), "body")
    apart = [math.dist((thick @ [*index, 1])[:3], verse[label]) for label, index in found.items()]
    assert np.mean(apart) <= 1.5
    to_others = [math.dist(point.mm, others[point.name]) for point in computed["body"]]
    assert max(to_others) <= 7.7


@pytest.mark.parametrize(
    "up", [(0.0, 0.0, 0.5), (0.3, 0.0, 0.4), (3.0, -4.0, 12.0), (0.0, 5.0, 0.0), (-2.0, 0.01, -1.0)]
)
def test_the_directions_at_a_vertebra_are_at_right_angles_and_of_length_1(up):
    frame = _Frame.along(np.array(up))
    np.testing.assert_allclose(frame.up, np.array(up) / math.hypot(*up))
    for degrees in (0, 25, -30):
        tilted = frame.tilted(degrees)
        found = [a @ b for a in (tilted.up, tilted.front) for b in (frame.up, frame.front)]
        cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        np.testing.assert_allclose(found, [cos, sin, -sin, cos], atol=1e-12)
    assert frame.front[0] * up[0] + frame.front[1] * up[1] + frame.front[2] * up[2] == pytest.approx(
        0, abs=1e-9
    )


def test_without_a_direction_the_spine_leads_upwards():
    frame = _Frame.along(np.array([0.0, 1e-7, 0.0]))
    assert (frame.up.tolist(), frame.front.tolist()) == ([0, 0, 1], [0, 1, 0])
    for up in ([0.0, 5.0, 0.0], [0.4, 5.0, 0.0]):  # nearly to the front: then the front is downwards
        np.testing.assert_allclose(_Frame.along(np.array(up)).front, [0, 0, -1], atol=1e-12)
    up = np.array([3.0, -4.0, 12.0])
    front = np.cross(np.cross(up, (0, 1, 0)), up)
    np.testing.assert_allclose(_Frame.along(up).front, front / np.linalg.norm(front))
