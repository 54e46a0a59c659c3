"""Labels and the vertebrae they stand for, here and in other data sets.

0 is background. "volumes" is the number of volumes, of 1,005, that contain the label, as openmedlab publishes
it. VerSe has the same numbers, and three more (26 sacrum, 27 coccyx, 28 T13) that have no counterpart here;
unlike VerSe, CTSpine1K also labels vertebrae that are cut by the top or bottom of the scan. TotalSegmentator
means its task "total" in version 2, which has no L6. 25 is L6 and never S1.

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

from typing import TYPE_CHECKING, Any, Literal

from ctspine1k.catalog.ctspine1k import CTSPINE1K
from ctspine1k.catalog.vocabulary import LabelScheme, Vertebra

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from ctspine1k.volumes.relabel import Others

__all__ = [
    "REGIONS",
    "LabelScheme",
    "Vertebra",
    "all_vertebrae",
    "from_totalsegmentator",
    "from_verse",
    "label",
    "name",
    "region",
    "to_totalsegmentator",
    "to_verse",
]

_VOCABULARY = CTSPINE1K.vocabulary

#: From the head downwards.
REGIONS = _VOCABULARY.regions


def all_vertebrae() -> tuple[Vertebra, ...]:
    """Return all 25, from C1 to L6."""
    return _VOCABULARY.vertebrae


def name(label: int) -> str:
    """Return the name of a label's vertebra, such as "L6" for 25.

    Raises:
        ValueError: no vertebra has that label.
    """
    return _VOCABULARY.name(label)


def label(name: str | int) -> int:
    """Return the label of a vertebra, such as 25 for "L6", "l6" or "25".

    Raises:
        ValueError: there is no such vertebra.
    """
    return _VOCABULARY.label(name)


def region(vertebra: str | int) -> str:
    """Return the region of a vertebra, given by name or label: one of `REGIONS`.

    Raises:
        ValueError: there is no such vertebra.
    """
    return _VOCABULARY.region(vertebra)


def to_verse(labels: ArrayLike) -> NDArray[Any]:
    """Convert labels into those of VerSe.

    Args:
        labels: whole numbers 0 (background) to 25, of any shape.

    Returns:
        An array of the same shape; of the same integer type, if an array was given.

    Raises:
        ValueError: a value that is not a label; the message gives it.
    """
    return _mapped(labels, _numbers("verse"), "VerSe", "raise")


def from_verse(labels: ArrayLike, *, others: Others = "raise") -> NDArray[Any]:
    """Convert VerSe's labels into those of CTSpine1K.

    Args:
        labels: whole numbers of any shape; 0 is background.
        others: what to do with sacrum, coccyx and T13, which have no counterpart: "raise", or make them
            "background".

    Raises:
        ValueError: a value without counterpart; the message gives it.
    """
    return _mapped(labels, _back("verse"), "CTSpine1K", others)


def to_totalsegmentator(labels: ArrayLike, *, others: Others = "raise") -> NDArray[Any]:
    """Convert labels into those of TotalSegmentator's task "total", version 2: C1 is 50, L5 is 27.

    Args:
        labels: whole numbers 0 (background) to 25, of any shape.
        others: what to do with L6, which has no counterpart: "raise", or make it "background".

    Raises:
        ValueError: a value without counterpart; the message gives it.
    """
    return _mapped(labels, _numbers("totalsegmentator"), "TotalSegmentator v2", others)


def from_totalsegmentator(labels: ArrayLike, *, others: Others = "raise") -> NDArray[Any]:
    """Convert labels of TotalSegmentator's task "total", version 2, into those of CTSpine1K.

    Args:
        labels: whole numbers of any shape; 0 is background.
        others: what to do with organs, ribs and the sacrum, which have no counterpart: "raise", or make
            them "background".

    Raises:
        ValueError: a value without counterpart; the message gives it.
    """
    return _mapped(labels, _back("totalsegmentator"), "CTSpine1K", others)


def _numbers(of: Literal["verse", "totalsegmentator"]) -> dict[int, int]:
    """Return the number that each label has elsewhere; those that have none are left out."""
    return {v.label: number for v in all_vertebrae() if (number := getattr(v, of)) is not None}


def _back(of: Literal["verse", "totalsegmentator"]) -> dict[int, int]:
    return {theirs: ours for ours, theirs in _numbers(of).items()}


def _mapped(labels: ArrayLike, mapping: dict[int, int], target: str, others: Others) -> NDArray[Any]:
    from ctspine1k.volumes.relabel import map_labels  # imports NumPy, which names do not need

    return map_labels(labels, mapping, target, others)
