"""Conversion of voxel labels into those of a scheme, or of another data set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ctspine1k._messages import check_choice
from ctspine1k.catalog.dataset import DataSet
from ctspine1k.catalog.vocabulary import BACKGROUND, Vertebra, Vocabulary

__all__ = [
    "ALL_BYTES",
    "Others",
    "Relabelling",
    "accepted_labels",
    "check_others",
    "label_table",
    "map_labels",
]

#: What to do with labels that have no counterpart.
Others: TypeAlias = Literal["raise", "background"]

#: The labels of masks of any origin: all numbers of a byte. More are in no mask, but in images.
ALL_BYTES = Vocabulary(
    tuple(Vertebra(label, str(label), "", None, None, None) for label in range(1, 256)), schemes=("all",)
)


def check_others(other_labels: str, data_set: DataSet) -> None:
    """Check what to do with labels in masks of a data set that it does not have.

    Raises:
        ValueError: there is no such choice, or the data set has no masks.
    """
    check_choice("other_labels", other_labels, ("raise", "background"))
    if other_labels == "background" and "mask" not in data_set.possible:
        raise ValueError(
            f"other_labels={other_labels!r}: expected 'raise', since {data_set.title} has no masks"
        )


def accepted_labels(
    vocabulary: Vocabulary, scheme: str | None = None, others: Others = "raise"
) -> Vocabulary:
    """Return the labels that a mask may contain: those that become something in a scheme, or all numbers.

    Raises:
        ValueError: there is no such scheme.
    """
    if others == "background":
        return ALL_BYTES
    return vocabulary if scheme is None else vocabulary.convertible(scheme)


def label_table(
    vocabulary: Vocabulary, scheme: str | None = None, others: Others = "raise"
) -> NDArray[np.uint8] | None:
    """Return what each label becomes in a scheme, by label; None if each stays what it is.

    Args:
        vocabulary: the labels.
        scheme: one of its schemes; None for its first.
        others: with "background", the table has all of `ALL_BYTES`, and other labels become background.

    Raises:
        ValueError: there is no such scheme.
    """
    table = None if scheme is None else vocabulary.table(scheme)
    if others == "background":
        numbers = [BACKGROUND, *(vertebra.label for vertebra in vocabulary.vertebrae)]
        every = np.full(ALL_BYTES.max_label + 1, BACKGROUND, np.uint8)
        every[numbers] = numbers if table is None else [table[number] for number in numbers]
        return every
    return None if table is None else np.array(table, np.uint8)


class Relabelling:
    """Converts labels by a table, and notes those that the data set does not have."""

    def __init__(self, table: NDArray[np.uint8], vocabulary: Vocabulary) -> None:
        self.table = table  #: what each label becomes
        self.others: set[int] = set()  #: labels converted so far that are not in the vocabulary
        self._is_other = np.ones(len(table), bool)
        self._is_other[[BACKGROUND, *(vertebra.label for vertebra in vocabulary.vertebrae)]] = False
        self._first_other = int(np.argmax(self._is_other)) if self._is_other.any() else len(table)

    def __call__(self, labels: NDArray[Any]) -> NDArray[np.uint8]:
        """Return what labels become."""
        if labels.max() >= self._first_other:  # in few slices, if in any
            self.others.update(np.unique(labels[self._is_other[labels]]).tolist())
        relabelled: NDArray[np.uint8] = self.table[labels]
        return relabelled


def map_labels(labels: ArrayLike, mapping: Mapping[int, int], target: str, others: Others) -> NDArray[Any]:
    """Convert labels by a mapping; background stays background.

    Args:
        labels: whole numbers of any shape.
        mapping: from labels to labels.
        target: the data set whose labels they become, for messages.
        others: "raise" if a label is not in the mapping, or make it "background".

    Returns:
        An array of the same shape; of the same integer type, if an array was given.

    Raises:
        ValueError: labels that are not integers, or a label without counterpart; the message gives it.
    """
    check_choice("others", others, ("raise", "background"))
    values = np.asarray(labels)
    if values.dtype.kind not in "iu":
        raise ValueError(f"labels: expected whole numbers in an integer type, found {values.dtype}")
    end = max(mapping) + 1
    table = np.full(end + 1, -1, np.int16)  # the last entry is for all numbers out of range
    table[[BACKGROUND, *mapping]] = [BACKGROUND, *mapping.values()]
    mapped = np.asarray(table[np.where((values >= 0) & (values < end), values, end)])
    is_strange = mapped < 0
    if others == "raise" and is_strange.any():
        strange = ", ".join(map(str, np.unique(values[is_strange]).tolist()))
        raise ValueError(
            f"labels: expected those with a counterpart in {target}, found {strange}. "
            'Remove them first, or pass others="background" if the function has it.'
        )
    mapped[is_strange] = BACKGROUND
    return mapped.astype(values.dtype)
