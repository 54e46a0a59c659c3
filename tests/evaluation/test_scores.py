"""Scores of one case: the published test vectors, plain definitions, and what must hold for any two masks."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from support.judging import CUBE, MOVED, SPUR, A, judged, volume

from ctspine1k.evaluation.scores import score_case, score_points
from ctspine1k.volumes.headers import Geometry

#: Of small masks, (k, i, j), unequal along all axes.
SHAPE, SPACING = (4, 6, 5), (2.5, 0.7, 0.8)

#: Few labels, so that most are in both masks.
MASKS = hnp.arrays(np.uint8, SHAPE, elements=st.integers(0, 3))
SPACINGS = st.tuples(*[st.floats(0.2, 5)] * 3)

DISTANCES = ("hd_mm", "hd95_mm", "hd95_pooled_mm", "assd_mm", "assd_two_means_mm")
SYMMETRIC = (
    "dice",
    "iou",
    *DISTANCES,
    "centroid_mm",
    "common_voxels",
    "nsd_1mm",
    "nsd_two_means_2mm",
    "nsd_area_3mm",
)


def assert_same(one, other, *, but=""):
    """Two rows of a table are equal but for the last digits, and but for one column."""
    for name in set(one) - {but}:
        assert (one[name] is None) == (other[name] is None), name
        if one[name] is not None:
            assert one[name] == pytest.approx(other[name], rel=1e-12, abs=1e-12, nan_ok=True), name


def vectors():
    return [
        ("spur", volume(A), volume(A, SPUR), (1, 1, 1), (16, 0, 0, 0.2154, 0.2107, 0.9764)),
        ("spaced", volume(A), volume(A, SPUR), (0.7, 0.7, 2.0), (11.2, 0, 0, 0.1508, 0.1475, 0.9769)),
        ("moved", volume(A), volume(MOVED), (1, 1, 1), (2, 2, 2, 0.57, 0.57, 0.7387)),
        ("cube", volume(A), volume(CUBE), (1, 1, 1), (21.7486, 19.8494, 19.8494, 15.6125, 12.313, 0)),
        (
            "voxel",
            volume((2, 2, 2), shape=(4, 5, 6)),
            volume((2, 2, 5), shape=(4, 5, 6)),
            (1, 1, 2),
            (6, 6, 6, 6, 6, 0),
        ),
    ]


@pytest.mark.parametrize(
    ("reference", "prediction", "spacing", "wanted"), [pytest.param(*v[1:], id=v[0]) for v in vectors()]
)
def test_published_vectors_come_out_to_every_digit(reference, prediction, spacing, wanted):
    found = score_case(reference, prediction, spacing).row(1).columns()
    assert tuple(round(found[name], 4) for name in (*DISTANCES, "nsd_1mm")) == wanted


@pytest.mark.slow
@settings(max_examples=25)
@given(reference=MASKS, prediction=MASKS, spacing=SPACINGS)
def test_each_measure_is_what_its_definition_gives(reference, prediction, spacing):
    score = score_case(reference, prediction, spacing)
    assert [row.label for row in score.rows] == sorted({*np.unique(reference), *np.unique(prediction)} - {0})
    for row in score.rows:
        ours, theirs = reference == row.label, prediction == row.label
        assert (row.reference, row.prediction) == (ours.any(), theirs.any())
        assert row.truncated == ((ours if row.reference else theirs)[[0, -1]].any())
        if row.reference and row.prediction:
            found = row.columns()
            for name, value in judged(ours, theirs, spacing).items():
                assert found[name] == pytest.approx(value, rel=1e-9, abs=1e-12), name


@settings(max_examples=15)
@given(reference=MASKS, prediction=MASKS, spacing=SPACINGS)
def test_symmetric_measures_are_symmetric(reference, prediction, spacing):
    there, back = (score_case(*pair, spacing) for pair in ((reference, prediction), (prediction, reference)))
    for one, other in zip(there.columns(), back.columns(), strict=True):
        assert [one[name] for name in SYMMETRIC] == pytest.approx(
            [other[name] for name in SYMMETRIC], nan_ok=True
        )
        assert one["precision"] == pytest.approx(other["recall"], nan_ok=True)
    assert (there.missed, there.false_positives) == (back.false_positives, back.missed)


@settings(max_examples=12)
@given(mask=MASKS, spacing=SPACINGS)
def test_a_mask_agrees_with_itself_in_everything(mask, spacing):
    score = score_case(mask, mask.copy(), spacing)
    assert score.all_right
    assert set(score.shifts) <= {0}
    for row in score.columns():
        assert {
            row[name] for name in row if name.startswith(("dice", "iou", "precision", "recall", "nsd"))
        } == {1.0}
        assert {row[name] for name in (*DISTANCES, "centroid_mm", "volume_error")} == {0.0}


@settings(max_examples=12)
@given(reference=MASKS, prediction=MASKS, spacing=SPACINGS, order=st.permutations([1, 2, 3]))
def test_other_labels_give_the_same_rows_under_other_labels(reference, prediction, spacing, order):
    table = np.array([0, *(40 * label for label in order)], np.uint8)
    before = score_case(reference, prediction, spacing)
    after = score_case(table[reference], table[prediction], spacing)
    for row in before.columns():
        other = after.row(table[row["label"]]).columns()
        for name in set(row) - {"label", "shift"}:
            assert other[name] == row[name] or (math.isnan(other[name]) and math.isnan(row[name])), name


@pytest.mark.slow
@settings(max_examples=12)
@given(
    reference=MASKS, prediction=MASKS, pad=st.tuples(*[st.tuples(st.integers(0, 2), st.integers(0, 2))] * 3)
)
def test_background_around_changes_nothing(reference, prediction, pad):
    """Beyond the border is background: a box around both masks gives what the volume gives."""
    before = score_case(reference, prediction, SPACING).columns()
    after = score_case(np.pad(reference, pad), np.pad(prediction, pad), SPACING).columns()
    for one, other in zip(before, after, strict=True):
        assert_same(one, other, but="truncated")


@pytest.mark.parametrize("order", [(2, 1, 0), (1, 2, 0), (0, 2, 1)])
def test_the_order_of_axes_does_not_matter(order):
    random = np.random.default_rng(3)
    masks = [random.integers(0, 4, SHAPE).astype(dtype) for dtype in ("u1", "i4")]
    wanted = score_case(*masks, SPACING)
    turned = [mask.transpose(order) for mask in masks]
    found = score_case(*turned, tuple(SPACING[axis] for axis in order), slice_axis=order.index(0))
    for one, other in zip(wanted.columns(), found.columns(), strict=True):
        assert_same(one, other)
    place, turned_place = (score.row(1).prediction_centroid for score in (wanted, found))
    assert turned_place == pytest.approx([place[axis] for axis in order])


def test_distances_are_those_of_the_patient_whatever_the_affine():
    """An oblique affine: its columns say how far it is from voxel to voxel, in RAS millimetres."""
    turn = np.array([[0.96, 0.28, 0], [-0.28, 0.96, 0], [0, 0, 1]]) @ np.array(
        [[1, 0, 0], [0, 0.6, -0.8], [0, 0.8, 0.6]]
    )
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([0.7, 0.8, 2.5])
    spacing = Geometry.of(affine, (6, 5, 4)).spacing
    reference, prediction = np.zeros((2, *SHAPE), np.uint8)
    reference[1, 2, 1], prediction[3, 5, 4] = 7, 7
    step = affine[:3, :3] @ [5 - 2, 4 - 1, 3 - 1]  # (i, j, k)
    row = score_case(reference, prediction, spacing).row(7)
    assert row.hd_mm == pytest.approx(np.linalg.norm(step), rel=1e-12)
    assert row.centroid_mm == pytest.approx(np.linalg.norm(step), rel=1e-12)


def test_volumes_that_are_read_in_pieces_give_what_small_ones_give():
    """More voxels than are looked at together, labels in all of them, and surfaces that cross from one to the next."""
    small = np.zeros((2, 60, 12, 9), np.uint8)
    small[0, 3:57, 2:9, 2:7] = 5
    small[1, 2:50, 3:10, 2:8] = 5
    small[:, 0, 0, 0], small[:, -1, -1, -1] = 1, 2
    large = np.zeros((2, 60, 240, 180), np.uint8)
    large[:, :, :12, :9] = small
    large[:, -1, 11, 8], large[:, -1, -1, -1] = 0, 2
    wanted, found = (score_case(*masks, SPACING).row(5).columns() for masks in (small, large))
    assert_same(found, wanted)
    assert [row.label for row in score_case(*large, SPACING).rows] == [1, 2, 5]


def test_28_labels():
    reference = np.zeros((30, 4, 3), np.uint8)
    reference[1:29] = np.arange(1, 29, dtype=np.uint8)[:, None, None]
    score = score_case(reference, np.roll(reference, 1, axis=1), SPACING)
    assert [row.label for row in score.rows] == list(range(1, 29))
    assert score.all_right
    assert score.shifts == {0: 28}


def test_what_is_on_one_side_only_has_a_row_and_no_distance():
    reference, prediction = np.zeros((2, *SHAPE), np.uint8)
    reference[1, 1:3, 1], reference[2, 4, 2:4] = 19, 20
    prediction[1, 1:3, 1], prediction[2, 1, 1] = 19, 24
    score = score_case(reference, prediction, SPACING)
    assert (score.missed, score.false_positives, score.unmatched) == ((20,), (24,), (20,))
    assert not score.all_right
    missed, surplus = score.row(20).columns(), score.row(24).columns()
    for row in (missed, surplus):
        assert {row[name] for name in row if name.startswith(("dice", "iou", "nsd"))} == {0.0}
        assert all(math.isnan(row[name]) for name in (*DISTANCES, "centroid_mm", "volume_error")) == (
            row is surplus
        )
        assert (row["identified"], row["identified_msr"]) == (False, False)
    assert all(math.isnan(missed[name]) for name in (*DISTANCES, "centroid_mm", "precision"))
    assert (missed["recall"], missed["volume_error"]) == (0, -1)
    assert math.isnan(surplus["recall"])
    assert (surplus["precision"], surplus["shift"], surplus["reference_voxels"]) == (0, None, 0)
    with pytest.raises(KeyError):
        score.row(18)


def test_empty_masks():
    mask = np.zeros(SHAPE, np.uint8)
    some = mask.copy()
    some[1, 2, 3] = 9
    assert score_case(mask, mask, SPACING).rows == ()
    assert score_case(mask, mask, SPACING).all_right
    assert score_case(some, mask, SPACING).missed == (9,)
    assert score_case(mask, some, SPACING).false_positives == (9,)
    assert not score_case(mask, some, SPACING).all_right


def test_a_counting_error_is_a_shift_and_not_a_bad_segmentation():
    reference = np.zeros((40, 8, 7), np.uint8)
    for number in range(6):
        reference[1 + 6 * number : 6 + 6 * number, 2:6, 1:6] = 10 + number
    prediction = np.where(reference, reference + 1, 0)
    score = score_case(reference, prediction, SPACING)
    assert score.shifts == {1: 6}
    assert (score.missed, score.false_positives, score.all_right) == ((10,), (16,), False)


def test_of_predictions_of_equal_size_the_nearest_number_counts():
    reference, prediction = np.zeros((2, *SHAPE), np.uint8)
    reference[1, 1, 1:5], prediction[1, 1, 1:5] = 10, [7, 8, 12, 14]
    assert score_case(reference, prediction, SPACING).shifts == {-2: 1}


def test_truncated_vertebrae_can_be_left_out_as_if_they_were_not_there():
    """T1 touches the first slice. Without it, the prediction of T2 has no nearer rival."""
    reference, prediction = np.zeros((2, 12, 6, 5), np.uint8)
    reference[0:3], reference[4:7], reference[8:11] = 8, 9, 10
    prediction[2:4], prediction[8:11], prediction[11] = 9, 10, 11
    score = score_case(reference, prediction, (4, 1, 1))
    assert [(row.label, row.truncated) for row in score.rows] == [
        (8, True),
        (9, False),
        (10, False),
        (11, True),
    ]
    assert not score.row(9).identified_msr
    assert score.row(9).identified
    rest = score.without_truncated()
    assert [row.label for row in rest.rows] == [9, 10]
    assert rest.row(9).identified_msr
    assert (rest.missed, rest.false_positives) == ((), ())
    assert rest.row(10) == score.row(10)


def test_overlap_alone_measures_no_surfaces():
    masks = volume(A), volume(A, SPUR)
    all_of_it, overlap = score_case(*masks, SPACING), score_case(*masks, SPACING, distances=False)
    assert math.isnan(overlap.row(1).hd_mm)
    assert overlap.row(1).nsd == {}
    for name in ("dice", "iou", "precision", "recall", "centroid_mm", "identified", "shift"):
        assert getattr(overlap.row(1), name) == getattr(all_of_it.row(1), name)


def test_points_have_the_rows_of_masks_without_their_measures():
    reference = {8: (0, 0, 0), 9: (0, 0, 25), 10: (0, 0, 50), 11: (0, 0, 100)}
    score = score_points(reference, {9: (0, 3, 29), 10: (0, 0, 26), 12: (0, 0, 99)})
    assert (score.missed, score.false_positives, score.unmatched) == ((8, 11), (12,), (8, 10))
    assert score.shifts == {1: 2}
    assert [row.identified for row in score.rows] == [False, True, False, False, False]
    assert score.row(9).centroid_mm == 5
    assert math.isnan(score.row(9).dice)
    assert score_points(reference, reference).all_right
    assert score_points(reference, {}).missed == (8, 9, 10, 11)
    counted = {
        kind(label): place
        for kind, (label, place) in zip((np.int16, float), [*reference.items()][:2], strict=True)
    }
    assert score_points(reference, counted).missed == (10, 11)  # labels of NumPy or of a column with gaps


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"prediction": np.zeros((4, 5, 6), np.uint8)},
            r"expected the shape of the reference, \(4, 6, 5\), found \(4, 5, 6\)",
        ),
        (
            {"reference": np.zeros((4, 6), np.uint8)},
            r"reference: expected a mask with three axes, found shape \(4, 6\)",
        ),
        ({"reference": np.zeros((0, 6, 5), np.uint8)}, "three axes"),
        ({"prediction": np.zeros(SHAPE)}, "prediction: expected whole numbers from 0 to 255, found float64"),
        ({"prediction": np.full(SHAPE, 256)}, "prediction: expected labels from 0 to 255, found 256"),
        ({"prediction": np.full(SHAPE, -1)}, "found -1"),
        ({"prediction": {20: (1, 2, 3)}}, "prediction: expected a mask, found centroids.* 14 to 23 mm"),
        ({"spacing": (1, 1)}, r"spacing: expected three positive numbers, in mm, found \(1, 1\)"),
        ({"spacing": (1, 0, 1)}, "positive"),
        ({"spacing": (1, math.inf, 1)}, "positive"),
        ({"slice_axis": 3}, "slice_axis: expected 0, 1 or 2, found 3"),
        ({"tolerances_mm": (1, -1)}, r"tolerances_mm: expected numbers from 0, found \(1, -1\)"),
    ],
)
def test_what_cannot_be_compared_is_refused(change, message):
    mask = np.zeros(SHAPE, np.uint8)
    with pytest.raises(ValueError, match=message):
        score_case(**{"reference": mask, "prediction": mask, "spacing": SPACING, **change})


@pytest.mark.parametrize(
    ("prediction", "message"),
    [
        (np.zeros(SHAPE, np.uint8), "prediction: expected positions by label, found ndarray.* 14 to 23 mm"),
        ({8: (1, 2)}, "prediction: expected three finite numbers for label 8"),
        ({8: (1, 2, math.nan)}, "three finite numbers"),
        ({"L1": (1, 2, 3)}, "prediction: expected whole numbers as labels, such as 20 for L1, found 'L1'"),
        ({20.7: (1, 2, 3)}, "as labels, such as 20 for L1, found 20.7"),
        ({math.nan: (1, 2, 3)}, "found nan"),
    ],
)
def test_points_are_held_against_points_only(prediction, message):
    with pytest.raises(ValueError, match=message):
        score_points({8: (1, 2, 3)}, prediction)


def test_scores_do_not_depend_on_the_number_of_threads(monkeypatch):
    random = np.random.default_rng(6)
    masks = [random.integers(0, 9, (6, 7, 8)).astype(np.uint8) for _ in range(2)]
    found = []
    for threads in (1, 3):
        monkeypatch.setattr("ctspine1k.evaluation.distances.usable_threads", lambda threads=threads: threads)
        found.append(score_case(*masks, SPACING))
    assert found[0] == found[1]
    assert len(found[0].rows) == 8
