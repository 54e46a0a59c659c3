import numpy as np
import pytest

from ctspine1k.catalog.ctspine1k import CTSPINE1K
from ctspine1k.volumes.relabel import label_table, map_labels

VOCABULARY = CTSPINE1K.vocabulary


def test_tables_of_the_schemes():
    assert label_table(VOCABULARY, "ctspine1k") is None
    assert label_table(VOCABULARY, "verse") is None  # the same numbers
    assert label_table(VOCABULARY, "binary").tolist() == [0] + [1] * 25
    assert label_table(VOCABULARY, "region").tolist() == [0] + [1] * 7 + [2] * 12 + [3] * 6
    for others in ("raise", "background"):
        assert label_table(VOCABULARY, "region", others).dtype == np.uint8
    with pytest.raises(ValueError, match="label_scheme='totalsegmentator': expected one of 'ctspine1k', "):
        label_table(VOCABULARY, "totalsegmentator")


def test_labels_are_mapped_in_their_own_type_and_shape():
    labels = np.array([[0, 3], [7, 3]], ">i2")
    mapped = map_labels(labels, {3: 30, 7: 1}, "theirs", "raise")
    assert mapped.tolist() == [[0, 30], [1, 30]]
    assert mapped.dtype == labels.dtype
    assert map_labels(labels, {3: 30}, "theirs", "background").tolist() == [[0, 30], [0, 30]]
    with pytest.raises(ValueError, match=r"expected those with a counterpart in theirs, found 7\. "):
        map_labels(labels, {3: 30}, "theirs", "raise")
