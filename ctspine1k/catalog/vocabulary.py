"""Vertebrae by label and by name: what the numbers in a segmentation mean.

Each data set has its own `Vocabulary`. It contains no arrays, so that names can be looked up without NumPy;
`ctspine1k.volumes.relabel` applies it to voxels.
"""

from __future__ import annotations

import csv
import operator
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeAlias

from ctspine1k._messages import check_choice

__all__ = ["BACKGROUND", "REGIONS", "LabelScheme", "Vertebra", "Vocabulary", "read_vertebrae"]

BACKGROUND = 0

#: From the head downwards; in the label scheme "region" they are 1, 2 and 3.
REGIONS = ("cervical", "thoracic", "lumbar")

#: What segmentations may contain: labels of the data set as they are, regions as 1-3, 1 for every vertebra,
#: or VerSe's numbers.
LabelScheme: TypeAlias = Literal["ctspine1k", "region", "binary", "verse"]


@dataclass(frozen=True)
class Vertebra:
    """One vertebra, and its numbers."""

    label: int  #: in the data set, from 1
    name: str  #: such as "T12"
    region: str  #: one of `REGIONS`
    verse: int  #: its label in VerSe
    totalsegmentator: int | None  #: in TotalSegmentator's task "total", version 2; None: it has none there
    volumes: int  #: of the data set that contain it


@dataclass(frozen=True)
class Vocabulary:
    """The labels of a data set, and the schemes in which its segmentations can be given."""

    vertebrae: tuple[Vertebra, ...]  #: in the order of their labels
    schemes: tuple[str, ...]  #: the first keeps labels as they are

    def __repr__(self) -> str:
        return f"Vocabulary({self.describe(self.schemes[0])})"

    @property
    def max_label(self) -> int:
        """The greatest label: valid labels are whole numbers from 0, background, to this."""
        return max(vertebra.label for vertebra in self.vertebrae)

    @cached_property
    def gaps(self) -> tuple[int, ...]:
        """Numbers from 1 to `max_label` that are not a label."""
        return tuple(number for number in range(1, self.max_label) if number not in self._by_label)

    @property
    def numbers(self) -> str:
        """Which numbers are labels or background, in words."""
        if not self.gaps:
            return f"whole numbers from 0 to {self.max_label}"
        return f"the numbers {', '.join(map(str, (BACKGROUND, *sorted(self._by_label))))}"

    def name(self, label: int) -> str:
        """Return the name of a label's vertebra, such as "L6" for 25.

        Raises:
            ValueError: no vertebra has that label.
        """
        return self.vertebra(label).name

    def label(self, name: str | int) -> int:
        """Return the label of a vertebra, such as 25 for "L6", "l6" or "25".

        Raises:
            ValueError: there is no such vertebra.
        """
        return self.vertebra(name).label

    def region(self, vertebra: str | int) -> str:
        """Return the region of a vertebra, given by name or label: one of `REGIONS`.

        Raises:
            ValueError: there is no such vertebra.
        """
        return self.vertebra(vertebra).region

    def vertebra(self, which: str | int) -> Vertebra:
        """Return the vertebra of a name or label.

        Raises:
            ValueError: there is no such vertebra.
        """
        if isinstance(which, str) and not which.strip().isdecimal():
            found = self._by_name.get(which.strip().upper())
        else:
            found = self._by_label.get(int(which) if isinstance(which, str) else operator.index(which))
        if found is None:
            *others, last = (first if first == end else f"{first} to {end}" for first, end in self._spans())
            names = f"{', '.join(others)} or {last}" if others else last
            raise ValueError(
                f"no vertebra {which!r}: expected {names}, or a label from {self.vertebrae[0].label} to "
                f"{self.max_label}"
            )
        return found

    def table(self, scheme: str) -> tuple[int, ...] | None:
        """Return what each label, 0 to `max_label`, becomes in a scheme; None if each stays what it is.

        Numbers that are not a label become background in the table; readers reject them.

        Raises:
            ValueError: there is no such scheme.
        """
        check_choice("label_scheme", scheme, self.schemes)
        if scheme == self.schemes[0]:
            return None
        values = {
            "region": {v.label: 1 + REGIONS.index(v.region) for v in self.vertebrae},
            "binary": {v.label: 1 for v in self.vertebrae},
            "verse": {v.label: v.verse for v in self.vertebrae},
        }[scheme]
        if all(label == value for label, value in values.items()):
            return None
        return tuple(values.get(label, BACKGROUND) for label in range(self.max_label + 1))

    def names(self, scheme: str) -> dict[int, str]:
        """Return the names of the numbers in a scheme, except background.

        Raises:
            ValueError: there is no such scheme.
        """
        table = self.table(scheme)
        if scheme == "region":
            return dict(enumerate(REGIONS, start=1))
        if scheme == "binary":
            return {1: "vertebra"}
        return {v.label if table is None else table[v.label]: v.name for v in self.vertebrae}

    def describe(self, scheme: str) -> str:
        """Return what the numbers in a scheme mean, in words.

        Raises:
            ValueError: there is no such scheme.
        """
        check_choice("label_scheme", scheme, self.schemes)
        if scheme in ("region", "binary"):
            return ", ".join(
                ["0 background", *(f"{number} {name}" for number, name in self.names(scheme).items())]
            )
        numbers = {name: number for number, name in self.names(scheme).items()}
        parts = [
            f"{numbers[first]} {first}"
            if first == last
            else f"{numbers[first]}-{numbers[last]} {first}-{last}"
            for first, last in self._spans()
        ]
        return ", ".join(["0 background", *parts, *(["as VerSe counts"] if scheme == "verse" else [])])

    def _spans(self) -> list[tuple[str, str]]:
        """Return the first and the last name of each run of vertebrae of a region with consecutive labels."""
        runs: list[list[Vertebra]] = []
        for vertebra in self.vertebrae:
            before = runs[-1][-1] if runs else None
            if before and (before.label + 1, before.region) == (vertebra.label, vertebra.region):
                runs[-1].append(vertebra)
            else:
                runs.append([vertebra])
        return [(run[0].name, run[-1].name) for run in runs]

    @cached_property
    def _by_name(self) -> dict[str, Vertebra]:
        return {vertebra.name: vertebra for vertebra in self.vertebrae}

    @cached_property
    def _by_label(self) -> dict[int, Vertebra]:
        return {vertebra.label: vertebra for vertebra in self.vertebrae}


def read_vertebrae(path: Path) -> tuple[Vertebra, ...]:
    """Read a table of vertebrae, a CSV file whose columns are the fields of `Vertebra`."""
    with path.open(encoding="utf-8", newline="") as file:
        return tuple(_vertebrae(csv.DictReader(file)))


def _vertebrae(rows: Iterable[dict[str, Any]]) -> Iterable[Vertebra]:
    for row in rows:
        theirs = row["totalsegmentator"]
        yield Vertebra(
            label=int(row["label"]),
            name=row["name"],
            region=row["region"],
            verse=int(row["verse"]),
            totalsegmentator=int(theirs) if theirs else None,
            volumes=int(row["volumes"]),
        )
