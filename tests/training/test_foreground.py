import numpy as np
import pytest

from ctspine1k.errors import StoredArrayError
from ctspine1k.storage.chunks import StoredArray, store
from ctspine1k.training.foreground import Foreground


class Sequence:
    """Draws given numbers instead of random ones."""

    def __init__(self, *numbers):
        self.numbers = list(numbers)

    def integers(self, limit):
        number = self.numbers.pop(0)
        assert 0 <= number < limit
        return number


@pytest.fixture
def labels():
    """In several chunks, some of which are cut by the array's end."""
    labels = np.zeros((12, 11, 10), "u1")
    labels[2:9, 3:5, 1:9] = np.random.default_rng(0).integers(0, 3, (7, 2, 8))
    labels[11, 10, 9] = 200
    return labels


@pytest.fixture
def foreground(labels):
    return Foreground(StoredArray.from_fields(store(labels, chunk_shape=(5, 4, 7))))


def test_each_labelled_voxel_is_drawn_by_one_number(foreground, labels):
    """So that all are exactly as likely."""
    wanted = set(zip(*map(tuple, np.nonzero(labels)), strict=True))
    found = [foreground.draw(Sequence(number)) for number in range(len(wanted))]
    assert set(found) == wanted


def test_each_voxel_of_a_label_is_drawn_by_one_number(foreground, labels):
    assert foreground.labels == (1, 2, 200)
    for at, label in enumerate(foreground.labels):
        wanted = set(zip(*map(tuple, np.nonzero(labels == label)), strict=True))
        found = [foreground.draw(Sequence(at, number), by_class=True) for number in range(len(wanted))]
        assert set(found) == wanted


def test_a_mask_without_labels():
    foreground = Foreground(StoredArray.from_fields(store(np.zeros((4, 3, 2), "u1"))))
    assert foreground.labels == ()
    assert foreground.draw(Sequence()) is None
    assert foreground.draw(Sequence(), by_class=True) is None


def test_labels_that_a_byte_cannot_hold():
    stored = StoredArray.from_fields(store(np.full((4, 3, 2), 300, "i2")))
    for by_class in (False, True):
        with pytest.raises(StoredArrayError, match="numbers that uint8 holds"):
            Foreground(stored).draw(Sequence(0, 0), by_class=by_class)
