import pytest

from ctspine1k.catalog.ctspine1k import CTSPINE1K
from ctspine1k.catalog.vocabulary import Vertebra, Vocabulary

OURS = CTSPINE1K.vocabulary

#: As VerSe has them: a gap before T13, which is the greatest label though it is not the lowest vertebra.
OTHERS = Vocabulary(
    (Vertebra(19, "T12", "thoracic", 19, 32, 0), Vertebra(28, "T13", "thoracic", 28, None, 0)),
    ("own", "binary", "region"),
)


def test_the_greatest_label_is_l6():
    assert OURS.max_label == 25
    assert OURS.name(25) == "L6"


def test_tables_of_the_schemes():
    assert OURS.table("ctspine1k") is None
    assert OURS.table("verse") is None  # the same numbers
    assert OURS.table("binary") == (0, *[1] * 25)
    assert OURS.table("region") == (0, *[1] * 7, *[2] * 12, *[3] * 6)
    with pytest.raises(ValueError, match="label_scheme='totalsegmentator': expected one of 'ctspine1k', "):
        OURS.table("totalsegmentator")


def test_numbers_without_a_vertebra_are_known():
    assert OURS.gaps == ()
    assert OTHERS.gaps == (*range(1, 19), *range(20, 28))
    assert OTHERS.table("own") is None
    assert OTHERS.max_label == 28
    assert OTHERS.table("binary") == tuple(int(label in (19, 28)) for label in range(29))
    assert OTHERS.names("own") == {19: "T12", 28: "T13"}
    with pytest.raises(ValueError, match="no vertebra 20: expected T12 or T13, or a label from 19 to 28"):
        OTHERS.name(20)


#: In the order of the spine, which is not that of the labels.
SPINE = Vocabulary(
    (
        Vertebra(19, "T12", "thoracic", 19, 32, None, 19),
        Vertebra(28, "T13", "thoracic", 28, None, None, is_variant=True),
        Vertebra(20, "L1", "lumbar", 20, 31, None, 20),
        Vertebra(21, "L2", "lumbar", 21, 30, None, 21),
    ),
    ("verse", "ctspine1k", "region"),
)


def test_labels_in_the_order_of_the_spine():
    assert SPINE.downwards([28, 21, 19]) == [19, 28, 21]
    assert SPINE.missing(19, 20) == []  # most people have no T13
    assert [vertebra.name for vertebra in SPINE.missing(28, 21)] == ["L1"]
    assert SPINE.missing(21, 19) == []
    assert SPINE.describe("verse") == "0 background, 19 T12, 28 T13, 20-21 L1-L2"
    with pytest.raises(ValueError, match="no vertebra 22"):
        SPINE.downwards([22])


def test_a_label_without_a_number_in_a_scheme():
    assert SPINE.convertible("verse") is SPINE
    assert SPINE.convertible("region") is SPINE
    assert [vertebra.label for vertebra in SPINE.convertible("ctspine1k").vertebrae] == [19, 20, 21]
    assert SPINE.table("ctspine1k") == tuple(
        label if label in (19, 20, 21) else 0 for label in range(SPINE.max_label + 1)
    )
    assert SPINE.names("ctspine1k") == {19: "T12", 20: "L1", 21: "L2"}
    assert SPINE.describe("ctspine1k") == "0 background, 19 T12, 20-21 L1-L2, as CTSpine1K counts"


def test_names_and_words_of_the_schemes():
    assert OURS.names("ctspine1k")[25] == OURS.names("verse")[25] == "L6"
    assert OURS.names("region") == {1: "cervical", 2: "thoracic", 3: "lumbar"}
    assert OURS.names("binary") == {1: "vertebra"}
    assert OURS.describe("ctspine1k") == "0 background, 1-7 C1-C7, 8-19 T1-T12, 20-25 L1-L6"
    assert OURS.describe("verse") == "0 background, 1-7 C1-C7, 8-19 T1-T12, 20-25 L1-L6, as VerSe counts"
    assert OURS.describe("region") == "0 background, 1 cervical, 2 thoracic, 3 lumbar"
    assert OURS.describe("binary") == "0 background, 1 vertebra"
    assert OTHERS.describe("own") == "0 background, 19 T12, 28 T13"
    with pytest.raises(ValueError, match="label_scheme='own': expected one of 'ctspine1k'"):
        OURS.describe("own")
