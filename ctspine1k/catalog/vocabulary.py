"""Vertebrae by label and by name: what the numbers in a segmentation mean.

Each data set has its own `Vocabulary`. It contains no arrays, so that names can be looked up without NumPy;
`ctspine1k.volumes.relabel` applies it to voxels.
"""

from __future__ import annotations

import csv
import hashlib
import json
import operator
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeAlias

from ctspine1k._messages import check_choice

__all__ = ["BACKGROUND", "REGIONS", "LabelScheme", "Vertebra", "Vocabulary", "read_vertebrae"]

BACKGROUND = 0

#: From the head downwards; in the label scheme "region" they are 1, 2, 3 and 4.
REGIONS = ("cervical", "thoracic", "lumbar", "sacral")

#: What segmentations may contain: labels of the data set as they are, regions as 1-4, 1 for every vertebra,
#: or the numbers of CTSpine1K or VerSe.
LabelScheme: TypeAlias = Literal["ctspine1k", "region", "binary", "verse"]


@dataclass(frozen=True)
class Vertebra:
    """One vertebra, and its numbers."""

    label: int  #: in the data set, from 1
    name: str  #: such as "T12"
    region: str  #: one of `REGIONS`
    verse: int | None  #: its label in VerSe; None: it has none there
    totalsegmentator: int | None  #: likewise in TotalSegmentator's task "total", version 2
    volumes: int | None  #: of the data set that contain it; None: not published
    ctspine1k: int | None = None  #: its label in CTSpine1K; None: it has none there
    is_variant: bool = False  #: most people lack it, such as a sixth lumbar vertebra


@dataclass(frozen=True)
class Vocabulary:
    """The labels of a data set, and the schemes in which its segmentations can be given."""

    vertebrae: tuple[Vertebra, ...]  #: from the head downwards, which need not be the order of their labels
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
    def regions(self) -> tuple[str, ...]:
        """The regions from the head down to the lowest that a vertebra is in."""
        return REGIONS[: 1 + max(REGIONS.index(vertebra.region) for vertebra in self.vertebrae)]

    @property
    def numbers(self) -> str:
        """Which numbers are labels or background, in words."""
        if not self.gaps:
            return f"whole numbers from 0 to {self.max_label}"
        return f"the numbers {', '.join(map(str, (BACKGROUND, *sorted(self._by_label))))}"

    def digest(self) -> str:
        """Return a text that changes when segmentations or points may be given otherwise."""
        vertebrae = [(v.label, v.name, v.region, v.verse, v.ctspine1k) for v in self.vertebrae]
        state = json.dumps([self.schemes[0], vertebrae])  # the other schemes are made of these
        return hashlib.sha256(state.encode()).hexdigest()[:16]

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

    def downwards(self, labels: Iterable[int]) -> list[int]:
        """Return labels in the order of their vertebrae, from the head downwards.

        Raises:
            ValueError: no vertebra has one of the labels.
        """
        return sorted(labels, key=lambda label: self._positions[self.vertebra(label).label])

    def names_downwards(self, names: Iterable[str]) -> list[str]:
        """Return names of vertebrae and of regions, from the head downwards; any others come last."""
        places = {name: place for place, name in enumerate((*self._by_name, *self.regions))}
        return sorted(names, key=lambda name: (places.get(name, len(places)), name))

    def missing(self, upper: int, lower: int) -> list[Vertebra]:
        """List the vertebrae that everybody has between two, given by their labels; variants are left out.

        If there are none, the two follow one another.

        Raises:
            ValueError: no vertebra has one of the labels.
        """
        first, last = (self._positions[self.vertebra(label).label] for label in (upper, lower))
        return [vertebra for vertebra in self.vertebrae[first + 1 : last] if not vertebra.is_variant]

    def convertible(self, scheme: str) -> Vocabulary:
        """Return the vocabulary of the labels that have a number in a scheme: itself, if all have one.

        Raises:
            ValueError: there is no such scheme.
        """
        values = self._values(scheme)
        own = tuple(vertebra for vertebra in self.vertebrae if values[vertebra.label] is not None)
        return self if own == self.vertebrae else replace(self, vertebrae=own)

    def table(self, scheme: str) -> tuple[int, ...] | None:
        """Return what each label, 0 to `max_label`, becomes in a scheme; None if each stays what it is.

        Numbers that are not a label, and labels that have no number in the scheme, become background in the
        table; readers reject them (`convertible`) unless they are told otherwise.

        Raises:
            ValueError: there is no such scheme.
        """
        values = self._values(scheme)
        if all(label == value for label, value in values.items()):
            return None
        return tuple(values.get(label) or BACKGROUND for label in range(self.max_label + 1))

    def _values(self, scheme: str) -> dict[int, int | None]:
        """Return the number of each label in a scheme, and None for one that has none there."""
        check_choice("label_scheme", scheme, self.schemes)
        if scheme == self.schemes[0]:
            return {v.label: v.label for v in self.vertebrae}
        values: dict[str, dict[int, int | None]] = {
            "region": {v.label: 1 + REGIONS.index(v.region) for v in self.vertebrae},
            "binary": {v.label: 1 for v in self.vertebrae},
            "verse": {v.label: v.verse for v in self.vertebrae},
            "ctspine1k": {v.label: v.ctspine1k for v in self.vertebrae},
        }
        return values[scheme]

    def names(self, scheme: str) -> dict[int, str]:
        """Return the names of the numbers in a scheme, except background.

        Raises:
            ValueError: there is no such scheme.
        """
        values = self._values(scheme)
        if scheme == "region":
            return dict(enumerate(self.regions, start=1))
        if scheme == "binary":
            return {1: "vertebra"}
        return {value: v.name for v in self.vertebrae if (value := values[v.label]) is not None}

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
            for first, last in self.convertible(scheme)._spans()
        ]
        of = {"verse": "VerSe", "ctspine1k": "CTSpine1K"}.get(scheme) if scheme != self.schemes[0] else None
        return ", ".join(["0 background", *parts, *([f"as {of} counts"] if of else [])])

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
    def _positions(self) -> dict[int, int]:
        return {vertebra.label: position for position, vertebra in enumerate(self.vertebrae)}

    @cached_property
    def _by_name(self) -> dict[str, Vertebra]:
        return {vertebra.name: vertebra for vertebra in self.vertebrae}

    @cached_property
    def _by_label(self) -> dict[int, Vertebra]:
        return {vertebra.label: vertebra for vertebra in self.vertebrae}


def read_vertebrae(path: Path) -> tuple[Vertebra, ...]:
    """Read the table of CTSpine1K's vertebrae, a CSV file."""
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
            ctspine1k=int(row["label"]),
            is_variant=row["variant"] == "yes",
        )
