"""Pictures of an evaluation: cases side by side, in rows, with names that are not cut off."""

import itertools

import numpy as np
import pytest

from ctspine1k.pictures.scores import side_by_side
from ctspine1k.volumes.masks import Judged

NAMES = {20: "L1", 21: "L2"}


def judged(number, *, slices=40):
    """A case whose upper vertebra lies in the last slices, and which was predicted by half."""
    reference = np.zeros((slices, 50, 60), np.uint8)
    reference[-3:, 20:30, 25:35] = 20
    reference[-12:-3, 20:30, 25:35] = 21
    prediction = np.where(reference == 21, reference, 0).astype(np.uint8)
    plane = reference.astype(np.float32) * 10
    return Judged(
        f"case {number}: Dice 0.5", reference, prediction, (2.5, 0.9, 1.1), "SLA",
        lambda axis, index: plane.take(index, axis),
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 5])
def test_cases_are_in_rows_and_nothing_is_cut_off(count):
    figure = side_by_side(map(judged, range(count)), NAMES)
    figure.draw_without_rendering()
    assert figure.get_figwidth() < 10
    assert len(figure.axes) == 2 * count
    boxes = [axes.get_window_extent() for axes in figure.axes]
    for one, other in itertools.combinations(boxes, 2):
        assert not one.overlaps(other)
    whole = figure.bbox
    for axes, box in zip(figure.axes, boxes, strict=True):
        assert whole.x0 <= box.x0
        assert box.x1 <= whole.x1
        for name in axes.texts[-2:]:
            text = name.get_window_extent()
            if name.get_text() in NAMES.values():
                assert box.y0 <= text.y0
                assert text.y1 <= box.y1
    drawn = [
        [text.get_text() for text in axes.texts if text.get_text() in NAMES.values()] for axes in figure.axes
    ]
    assert drawn == [["L2", "L1"], ["L2"]] * count
    assert len({round(box.y1) for box in boxes}) == (1 if count == 1 else 2)


def test_a_case_that_was_not_predicted_at_all():
    case = judged(0)
    empty = Judged(**{**vars(case), "prediction": np.zeros_like(case.prediction)})
    first, second = side_by_side([empty], NAMES).axes
    assert first.images[0].get_array().shape == second.images[0].get_array().shape
    with pytest.raises(ValueError, match="cases: expected at least one"):
        side_by_side([], NAMES)
