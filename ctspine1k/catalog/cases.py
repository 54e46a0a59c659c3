"""Cases: their ids, their splits, and what is known about each of them."""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

from ctspine1k._messages import check_choice, count_text, html_table
from ctspine1k.catalog.patients import OnUnknown, parts_by_patient
from ctspine1k.errors import UnknownCaseError

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "WHAT_SELECTS",
    "Case",
    "Catalog",
    "Criterion",
    "Facet",
    "Issue",
    "equals",
    "fits",
    "has_issue",
    "is_flagged",
    "is_within",
    "lacks_issue",
]

#: What to check if no case is selected.
WHAT_SELECTS = "check splits, cases, split_file, exclude_issues and has_vertebrae"


@dataclass(frozen=True)
class Issue:
    """A known issue of a case: an error, or something worth knowing. The data are not corrected."""

    kind: str  #: such as "label_missing"
    evidence: str  #: what it is based on, such as "reported"
    detail: str  #: in words
    reference: str  #: where it was reported: a repository, and its issue or file


@dataclass(frozen=True)
class Case:
    """One CT scan, and what is known about it.

    Facts that only some data sets have are in ``facts``, and can also be read as attributes: ``case.source``.
    """

    case_id: str  #: names the case in its data set; ``patient_id`` in rows
    split: str  #: such as "train"
    index: int  #: position in its split, from 0
    patient: str | None = None  #: the patient, where known: a patient may have several cases
    facts: Mapping[str, str | None] = field(default_factory=dict, hash=False)  #: by name
    issues: tuple[Issue, ...] = ()  #: what is known to be wrong with it

    def __getattr__(self, name: str) -> str | None:
        # Python calls this for attributes that do not exist; while a case is unpickled, facts does not yet.
        facts: Mapping[str, str | None] = self.__dict__.get("facts", {})
        if name in facts:
            return facts[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def row(self) -> dict[str, Any]:
        """Return the facts as a row of a table; ``issues`` is their kinds, joined by spaces."""
        return {**self._row(), "issues": " ".join(issue.kind for issue in self.issues)}

    def document(self) -> dict[str, Any]:
        """Return the same with all that is known about each issue, as plain values, ready for JSON."""
        return {**self._row(), "issues": [asdict(issue) for issue in self.issues]}

    def _row(self) -> dict[str, Any]:
        return {"case_id": self.case_id, "split": self.split, "index": self.index, **self.facts}


#: What a facet is asked for: one value, or several of which one must fit; None for any. A number is the same
#: as its digits; True is "yes", and False "no".
Criterion: TypeAlias = "str | int | Iterable[str | int] | None"

#: The criteria that were given, by name, each with its values.
Asked: TypeAlias = Mapping[str, tuple[str, ...]]

#: Whether a case meets a criterion: the case, the criterion's name, and all criteria that were given.
Matcher: TypeAlias = Callable[[Case, str, Asked], bool]


def equals(case: Case, name: str, asked: Asked) -> bool:
    """Return whether the case's fact of that name has a requested value."""
    return getattr(case, name) in asked[name]


def fits(case: Case, name: str, asked: Asked) -> bool:
    """Return whether the case's fact of that name fits a pattern such as ``"*Prone*"``, case-sensitive."""
    fact = getattr(case, name) or ""
    return any(fnmatch.fnmatchcase(fact, pattern) for pattern in asked[name])


def is_flagged(case: Case, name: str, asked: Asked) -> bool:
    """Return whether the case has the fact of that name ("yes"), or lacks it ("no"), as requested."""
    return ("yes" if getattr(case, name) else "no") in asked[name]


def is_within(case: Case, name: str, asked: Asked) -> bool:
    """Return whether the case's number of that name is a requested one, or in a range such as "40-60".

    A range includes both ends, one of which may be left out: "70-", "-30". An unknown number is in none.

    Raises:
        ValueError: neither a number nor a range.
    """
    ranges = [_range(name, value) for value in asked[name]]
    fact = getattr(case, name)
    return fact is not None and any(least <= int(fact) <= most for least, most in ranges)


def _range(name: str, value: str) -> tuple[float, float]:
    found = re.fullmatch(r"(\d*)(-?)(\d*)", value)
    if found is None or not (found[1] or found[3]):
        raise ValueError(f"{name}={value!r}: expected a number, or a range such as '40-60', '70-' or '-30'")
    least = float(found[1] or 0)
    return least, float(found[3] or "inf") if found[2] else least


def has_issue(case: Case, name: str, asked: Asked) -> bool:
    """Return whether an issue of the case has a requested kind and a requested evidence."""
    return any(
        issue.kind in asked.get("issue", (issue.kind,))
        and issue.evidence in asked.get("evidence", (issue.evidence,))
        for issue in case.issues
    )


def lacks_issue(case: Case, name: str, asked: Asked) -> bool:
    """Return whether no issue of the case has one of the given kinds or evidences; "all" is any."""
    return not any(
        value in ("all", issue.kind, issue.evidence) for issue in case.issues for value in asked[name]
    )


@dataclass(frozen=True)
class Facet:
    """A criterion by which cases can be selected."""

    name: str  #: of the argument; of the option, with dashes
    help: str
    allowed: tuple[str, ...] | None = None  #: None for any text
    matches: Matcher = equals
    #: Allowed values that stand for several others.
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)

    def values(self, asked: str | int | Iterable[str | int]) -> tuple[str, ...]:
        """Return the values that a case is compared with, with groups replaced by their members.

        Raises:
            ValueError: a value that is not allowed; the message says which are.
        """
        several = (asked,) if isinstance(asked, str) or not isinstance(asked, Iterable) else tuple(asked)
        # Patterns are texts: only for others, numbers are written as facts are.
        values: tuple[Any, ...] = several if self.matches is fits else tuple(map(_as_text, several))
        for value in values:
            if self.allowed is not None:
                check_choice(self.name, value, self.allowed)
            elif not isinstance(value, str):
                raise ValueError(f"{self.name}={value!r}: expected a text, or several in a list")
        return tuple(member for value in values for member in self.groups.get(value, (value,)))


def _as_text(value: str | int) -> str:
    """Return a value of a criterion as facts are written; anything else as it is, to be refused."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value) if isinstance(value, int) else value


@dataclass(frozen=True)
class Catalog:
    """Cases in the order of their split file. Works offline."""

    cases: tuple[Case, ...]
    splits: tuple[str, ...]  #: names of the data set's splits, in order
    facets: tuple[Facet, ...]  #: criteria by which cases can be selected
    facts: tuple[str, ...] = ()  #: names of the facts of each case

    def __iter__(self) -> Iterator[Case]:
        return iter(self.cases)

    def __len__(self) -> int:
        return len(self.cases)

    def __contains__(self, case_id: object) -> bool:
        return case_id in self._by_id

    def __repr__(self) -> str:
        return f"Catalog({self.summary})"

    def _repr_html_(self) -> str:
        return self.html(self.summary)

    def html(self, title: str) -> str:
        """Return the first cases as a table for notebooks."""
        names = ["case_id", "split", "index", *self.facts, "issues"]
        return html_table(title, names, (list(case.row().values()) for case in self), len(self))

    @property
    def summary(self) -> str:
        """How many cases there are, and in which splits, in words."""
        counts = {split: sum(case.split == split for case in self) for split in self.splits}
        total = count_text(len(self), "case")
        parts = ", ".join(f"{split} {count:,}" for split, count in counts.items() if count)
        return f"{total}: {parts}" if parts else total

    def __getitem__(self, case_id: str) -> Case:
        """Return a case by its id.

        Raises:
            UnknownCaseError: there is no case with that id; the message names similar ones.
        """
        try:
            return self._by_id[case_id]
        except KeyError:
            similar = difflib.get_close_matches(str(case_id), self._by_id)
            raise UnknownCaseError(str(case_id), similar, len(self)) from None

    def where(self, **criteria: Criterion) -> Catalog:
        """Keep the cases that meet all criteria, in the same order.

        Args:
            criteria: facets of the data set, each with one of its allowed values, several of them, or None
                for any. CTSpine1K has ``split``, ``source``, ``special_case``, ``scan_position``,
                ``tcia_series`` (a path, or a pattern such as ``"*Coloprone*"``; case-sensitive), ``issue``,
                ``evidence`` and ``exclude_issues``, which leaves out the cases with an issue of a kind such
                as "label_missing", of any kind that means wrong labels or geometry ("errors"), that was
                reported on the data set's own tracker ("reported"), or with any issue ("all"). Numbers are
                values, too, and True or False where others are "yes" or "no".

        Raises:
            ValueError: a value that is not allowed; the message lists the allowed ones.
            TypeError: there is no such facet; the message lists those that exist.
        """
        known = {facet.name: facet for facet in self.facets}
        if "has_vertebrae" in criteria:
            raise ValueError(
                "has_vertebrae needs a scan of the files: open_collection(...).where(has_vertebrae=...)"
            )
        if unknown := criteria.keys() - known.keys():
            raise TypeError(f"no criterion {min(unknown)!r}: expected {', '.join(known)}")
        asked = {name: known[name].values(value) for name, value in criteria.items() if value is not None}
        return self.keep(
            case for case in self if all(known[name].matches(case, name, asked) for name in asked)
        )

    def select(self, cases: str | Case | Iterable[str | Case] | None) -> Catalog:
        """Keep the cases named, in the catalog's order; None for all.

        Raises:
            ValueError: neither ids nor cases.
            UnknownCaseError: a case that is not in the catalog.
        """
        if cases is None:
            return self
        if isinstance(cases, (str, Case)):
            cases = [cases]
        if not isinstance(cases, Iterable):
            raise ValueError(f"cases={cases!r}: expected ids or cases, one or several in a list")
        wanted = {self[case.case_id if isinstance(case, Case) else case].case_id for case in cases}
        return self.keep(case for case in self if case.case_id in wanted)

    def keep(self, cases: Iterable[Case]) -> Catalog:
        """Return a catalog with only these cases, in the order given."""
        return replace(self, cases=tuple(cases))

    def split_by_patient(
        self, fractions: Sequence[float], *, seed: int = 0, on_unknown: OnUnknown = "raise"
    ) -> list[Catalog]:
        """Split the cases at random, so that all cases of a patient are in the same part.

        ::

            train, held_out = load_catalog("verse").where(split="train").split_by_patient([0.8, 0.2])

        Args:
            fractions: about how many of the cases each part gets; they add up to 1.
            seed: another one gives another split; the same one the same, on every machine.
            on_unknown: what to do about cases whose patient is not known: "raise" an error, or make each a
                patient of its own ("separate").

        Returns:
            A catalog for each fraction, with cases in the same order as here.

        Raises:
            ValueError: fractions that do not add up to 1, unknown patients, or fewer patients than parts.
        """
        patients = {case.case_id: case.patient for case in self}
        parts = parts_by_patient(patients, fractions, seed, on_unknown)
        return [self.select(part) for part in parts]

    def by_split(self, splits: str | Iterable[str] | None = None) -> dict[str, Catalog]:
        """Group the cases by split; a split without cases is left out.

        Args:
            splits: one split or several; None for all.

        Raises:
            ValueError: there is no such split, or no case in any of them.
        """
        wanted = [splits] if isinstance(splits, str) else [str(split) for split in splits or self.splits]
        for split in wanted:
            check_choice("splits", split, self.splits)
        grouped = {split: self.keep(case for case in self if case.split == split) for split in wanted}
        filled = {split: cases for split, cases in grouped.items() if cases}
        if not filled:
            raise ValueError(f"no cases in {' or '.join(wanted)}: {WHAT_SELECTS}")
        return filled

    def to_pandas(self) -> pd.DataFrame:
        """Return a table with one row per case; ``issues`` contains their kinds, joined by spaces."""
        import pandas as pd  # heavy, so imported only here

        columns = ["case_id", "split", "index", *self.facts, "issues"]
        return pd.DataFrame([case.row() for case in self], columns=columns)

    @cached_property
    def _by_id(self) -> dict[str, Case]:
        return {case.case_id: case for case in self.cases}
