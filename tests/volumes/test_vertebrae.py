import doctest
import re

import numpy as np
import pytest

from ctspine1k import vertebrae

NAMES = [f"C{n}" for n in range(1, 8)] + [f"T{n}" for n in range(1, 13)] + [f"L{n}" for n in range(1, 7)]


def test_labels_and_names_go_both_ways():
    assert [v.label for v in vertebrae.all_vertebrae()] == list(range(1, 26))
    for number, name in enumerate(NAMES, start=1):
        assert vertebrae.name(number) == name
        assert vertebrae.label(name) == number
        assert vertebrae.label(f" {name.lower()} ") == vertebrae.label(str(number)) == number
        assert vertebrae.region(name) == vertebrae.region(np.uint8(number))
        assert vertebrae.region(name) == {"C": "cervical", "T": "thoracic", "L": "lumbar"}[name[0]]


@pytest.mark.parametrize("which", [0, 26, -1, "T13", "S1", "", "26", "-1"])
def test_what_is_no_vertebra_is_told(which):
    with pytest.raises(ValueError, match=re.escape(f"no vertebra {which!r}: expected C1 to C7, T1")):
        vertebrae.region(which)


def test_the_docstrings_table_is_the_facts():
    rows = re.findall(r"^(\d+) +(\S+) +(\S+) +(\d+) +(\S+) +(\d+)$", vertebrae.__doc__, re.MULTILINE)
    assert rows == [
        (str(v.label), v.name, v.region, str(v.verse), str(v.totalsegmentator or "-"), str(v.volumes))
        for v in vertebrae.all_vertebrae()
    ]


def test_the_docstrings_example():
    assert doctest.testmod(vertebrae).failed == 0


def test_verse_has_the_same_numbers():
    ours = np.arange(26, dtype=np.uint8).reshape(2, 13)
    assert np.array_equal(vertebrae.to_verse(ours), ours)
    assert np.array_equal(vertebrae.from_verse(ours), ours)
    assert vertebrae.to_verse(ours).dtype == np.uint8


def test_totalsegmentator_counts_downwards():
    ours = np.arange(25, dtype=np.int32)
    theirs = vertebrae.to_totalsegmentator(ours)
    assert theirs.tolist() == [0, *range(50, 26, -1)]
    assert theirs.dtype == np.int32
    assert np.array_equal(vertebrae.from_totalsegmentator(theirs), ours)
    assert vertebrae.to_totalsegmentator(7) == 44


@pytest.mark.parametrize(
    ("convert", "values", "strange", "target"),
    [
        (vertebrae.from_verse, [0, 5, 26, 28, 27, 28], "26, 27, 28", "CTSpine1K"),
        (vertebrae.to_totalsegmentator, [24, 25], "25", "TotalSegmentator v2"),
        (vertebrae.from_totalsegmentator, [1, 27, 26, 117], "1, 26, 117", "CTSpine1K"),
    ],
)
def test_what_has_no_counterpart_raises_unless_it_is_to_be_background(convert, values, strange, target):
    with pytest.raises(ValueError, match=rf"a counterpart in {target}, found {strange}\. "):
        convert(values)
    kept = convert(values, others="background")
    assert [bool(value) for value in kept] == [
        str(value) not in (*strange.split(", "), "0") for value in values
    ]
    with pytest.raises(ValueError, match="others='drop': expected one of 'raise', 'background'"):
        convert(values, others="drop")


@pytest.mark.parametrize("value", [-1, 26, 300, 2**40])
def test_a_value_that_is_no_label_raises(value):
    with pytest.raises(ValueError, match=f"a counterpart in VerSe, found {value}"):
        vertebrae.to_verse([value])


def test_floats_are_no_labels():
    with pytest.raises(ValueError, match="found float64"):
        vertebrae.to_verse([1.0])


@pytest.mark.processes
def test_names_need_no_numpy(python):
    code = """
import sys
from ctspine1k import vertebrae
print(vertebrae.name(25), vertebrae.label("T12"), vertebrae.region("C7"), len(vertebrae.all_vertebrae()))
print("numpy" in sys.modules)
print(vertebrae.to_verse([19]).tolist())
"""
    assert python(code).stdout.splitlines() == ["L6 19 cervical 25", "False", "[19]"]
