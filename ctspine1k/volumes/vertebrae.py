"""Labels and the vertebrae they stand for, here and in other data sets.

0 is background. "volumes" says in how many of the 1,005 volumes the label occurs, as openmedlab publishes it.
VerSe has the same numbers, and three more (26 sacrum, 27 coccyx, 28 T13) that have no counterpart here;
unlike VerSe, CTSpine1K also labels vertebrae that the top or bottom of the scan cuts. TotalSegmentator is its
task "total" in version 2, which knows no L6. 25 is L6 and never S1.

=====  ====  ========  =====  ================  =======
label  name  region    VerSe  TotalSegmentator  volumes
=====  ====  ========  =====  ================  =======
1      C1    cervical  1      50                33
2      C2    cervical  2      49                31
3      C3    cervical  3      48                31
4      C4    cervical  4      47                35
5      C5    cervical  5      46                50
6      C6    cervical  6      45                105
7      C7    cervical  7      44                134
8      T1    thoracic  8      43                136
9      T2    thoracic  9      42                136
10     T3    thoracic  10     41                137
11     T4    thoracic  11     40                146
12     T5    thoracic  12     39                167
13     T6    thoracic  13     38                291
14     T7    thoracic  14     37                489
15     T8    thoracic  15     36                701
16     T9    thoracic  16     35                859
17     T10   thoracic  17     34                938
18     T11   thoracic  18     33                970
19     T12   thoracic  19     32                972
20     L1    lumbar    20     31                967
21     L2    lumbar    21     30                953
22     L3    lumbar    22     29                939
23     L4    lumbar    23     28                932
24     L5    lumbar    24     27                921
25     L6    lumbar    25     -                 18
=====  ====  ========  =====  ================  =======

>>> from ctspine1k import vertebrae
>>> vertebrae.name(25), vertebrae.label("T12"), vertebrae.region("C7")
('L6', 19, 'cervical')
>>> vertebrae.to_totalsegmentator([0, 19, 20])
array([ 0, 32, 31])
"""

from __future__ import annotations

import csv
import functools
import operator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ctspine1k.errors import check_choice

__all__ = [
    "BACKGROUND",
    "LABEL_SCHEMES",
    "MAX_LABEL",
    "REGIONS",
    "LabelScheme",
    "Vertebra",
    "all_vertebrae",
    "from_totalsegmentator",
    "from_verse",
    "label",
    "label_table",
    "name",
    "region",
    "to_totalsegmentator",
    "to_verse",
]

BACKGROUND = 0

#: Highest label: L6.
MAX_LABEL = 25

#: From the head downwards; in the label scheme "region" they are 1, 2 and 3.
REGIONS = ("cervical", "thoracic", "lumbar")

#: What segmentations may hold: labels as they are, regions as 1-3, 1 for every vertebra, or VerSe's numbers.
LabelScheme: TypeAlias = Literal["ctspine1k", "region", "binary", "verse"]
LABEL_SCHEMES: tuple[LabelScheme, ...] = get_args(LabelScheme)

_Others: TypeAlias = Literal["raise", "background"]


@dataclass(frozen=True)
class Vertebra:
    """One vertebra, and its numbers."""

    label: int  #: 1 to 25
    name: str  #: such as "T12"
    region: str  #: one of `REGIONS`
    verse: int  #: its label in VerSe
    totalsegmentator: int | None  #: its label in TotalSegmentator's task "total", version 2; L6 has none
    volumes: int  #: of CTSpine1K that hold it


@functools.cache
def all_vertebrae() -> tuple[Vertebra, ...]:
    """Give all 25, from C1 to L6."""
    facts = Path(__file__).parents[1] / "catalog/facts/vertebrae.csv"
    with facts.open(encoding="utf-8", newline="") as file:
        return tuple(
            Vertebra(
                int(row["label"]),
                row["name"],
                row["region"],
                int(row["verse"]),
                int(row["totalsegmentator"]) if row["totalsegmentator"] else None,
                int(row["volumes"]),
            )
            for row in csv.DictReader(file)
        )


def name(label: int) -> str:
    """Name the vertebra of a label, such as "L6" for 25.

    Raises:
        ValueError: no vertebra has that label.
    """
    return _vertebra(label).name


def label(name: str | int) -> int:
    """Tell the label of a vertebra, such as 25 for "L6", "l6" or "25".

    Raises:
        ValueError: there is no such vertebra.
    """
    return _vertebra(name).label


def region(vertebra: str | int) -> str:
    """Tell the region of a vertebra, given by name or label: one of `REGIONS`.

    Raises:
        ValueError: there is no such vertebra.
    """
    return _vertebra(vertebra).region


def to_verse(labels: ArrayLike) -> NDArray[Any]:
    """Turn labels into those of VerSe.

    Args:
        labels: whole numbers 0 (background) to 25, of any shape.

    Returns:
        An array of the same shape; of the same integer type, where an array was given.

    Raises:
        ValueError: a value that is no label, by number.
    """
    return _mapped(labels, {v.label: v.verse for v in all_vertebrae()}, "VerSe", "raise")


def from_verse(labels: ArrayLike, *, others: _Others = "raise") -> NDArray[Any]:
    """Turn VerSe's labels into those of CTSpine1K.

    Args:
        labels: whole numbers of any shape; 0 is background.
        others: what to do with sacrum, coccyx and T13, which have no counterpart: "raise", or make them
            "background".

    Raises:
        ValueError: a value without counterpart, by number.
    """
    return _mapped(labels, {v.verse: v.label for v in all_vertebrae()}, "CTSpine1K", others)


def to_totalsegmentator(labels: ArrayLike, *, others: _Others = "raise") -> NDArray[Any]:
    """Turn labels into those of TotalSegmentator's task "total", version 2: C1 is 50, L5 is 27.

    Args:
        labels: whole numbers 0 (background) to 25, of any shape.
        others: what to do with L6, which has no counterpart: "raise", or make it "background".

    Raises:
        ValueError: a value without counterpart, by number.
    """
    return _mapped(labels, _totalsegmentator(), "TotalSegmentator v2", others)


def from_totalsegmentator(labels: ArrayLike, *, others: _Others = "raise") -> NDArray[Any]:
    """Turn labels of TotalSegmentator's task "total", version 2, into those of CTSpine1K.

    Args:
        labels: whole numbers of any shape; 0 is background.
        others: what to do with organs, ribs and the sacrum, which have no counterpart: "raise", or make
            them "background".

    Raises:
        ValueError: a value without counterpart, by number.
    """
    back = {theirs: ours for ours, theirs in _totalsegmentator().items()}
    return _mapped(labels, back, "CTSpine1K", others)


def label_table(scheme: LabelScheme) -> NDArray[np.uint8] | None:
    """Tell what each label, 0 to 25, becomes in a scheme; None if each stays what it is.

    Raises:
        ValueError: there is no such scheme.
    """
    check_choice("label_scheme", scheme, LABEL_SCHEMES)
    values = {
        "ctspine1k": [v.label for v in all_vertebrae()],
        "region": [1 + REGIONS.index(v.region) for v in all_vertebrae()],
        "binary": [1 for _ in all_vertebrae()],
        "verse": [v.verse for v in all_vertebrae()],
    }[scheme]
    table = np.array([BACKGROUND, *values], np.uint8)
    return None if np.array_equal(table, np.arange(len(table))) else table


def _vertebra(which: str | int) -> Vertebra:
    if isinstance(which, str) and not which.strip().isdecimal():
        found = [v for v in all_vertebrae() if v.name == which.strip().upper()]
    else:
        number = int(which) if isinstance(which, str) else operator.index(which)
        found = [v for v in all_vertebrae() if v.label == number]
    if not found:
        raise ValueError(
            f"no vertebra {which!r}: expected C1 to C7, T1 to T12 or L1 to L6, or a label from 1 to "
            f"{MAX_LABEL}"
        )
    return found[0]


def _totalsegmentator() -> dict[int, int]:
    return {v.label: v.totalsegmentator for v in all_vertebrae() if v.totalsegmentator is not None}


def _mapped(labels: ArrayLike, mapping: dict[int, int], target: str, others: _Others) -> NDArray[Any]:
    check_choice("others", others, ("raise", "background"))
    values = np.asarray(labels)
    if values.dtype.kind not in "iu":
        raise ValueError(f"labels: expected whole numbers in an integer type, found {values.dtype}")
    end = max(mapping) + 1
    table = np.full(end + 1, -1, np.int16)  # the last place is for all that lies beyond
    table[[BACKGROUND, *mapping]] = [BACKGROUND, *mapping.values()]
    mapped = np.asarray(table[np.where((values >= 0) & (values < end), values, end)])
    is_strange = mapped < 0
    if others == "raise" and is_strange.any():
        strange = ", ".join(map(str, np.unique(values[is_strange]).tolist()))
        raise ValueError(
            f"labels: expected those with a counterpart in {target}, found {strange}. "
            'Take them out first, or, where it is offered, pass others="background".'
        )
    mapped[is_strange] = BACKGROUND
    return mapped.astype(values.dtype)
