"""The 1,005 cases: split, source, variants, and what is known to be wrong with them. Works offline.

The facts are text files: ``data_split.txt`` (the official assignment) and ``special_cases/`` (anatomical
variants, known issues) stand at the top of the repository and travel inside the wheel; ``cases.csv`` beside
this module says where each scan came from. This module reads them and nothing else.
"""

from __future__ import annotations

import csv
import difflib
import fnmatch
import functools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from ctspine1k.errors import SplitFileError, UnknownCaseError, check_choice

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "EVIDENCE",
    "EXCLUDE_ISSUES",
    "ISSUE_KINDS",
    "SCAN_POSITIONS",
    "SECTIONS",
    "SOURCES",
    "SPECIAL_CASES",
    "SPLITS",
    "WHAT_SELECTS",
    "Case",
    "Catalog",
    "Issue",
    "load_catalog",
    "parse_split",
]

#: Names of the splits, in the order of the split file.
SPLITS = ("train", "validation", "test")

#: What is known of the cases, in the wheel with the split file and the special cases.
_FACTS = Path(__file__).resolve().parent / "facts" / "ctspine1k"

#: The split file's name of each section, and ours.
SECTIONS = dict(zip(("trainset", "test_public", "test_private"), SPLITS, strict=True))

#: Folder names of the four sources, as on the Hub.
SOURCES = ("COLONOG", "COVID-19", "HNSCC-3DCT-RT", "MSD-T10")

#: Anatomical variants that the data set lists.
SPECIAL_CASES = ("sacral_lumbarization", "lumbar_sacralization")

#: How the patient lay, where the name of the source's series says so.
SCAN_POSITIONS = ("prone", "supine")

#: What is known to be wrong with a case, or worth knowing of it.
ISSUE_KINDS = (
    "label_missing",  # a vertebra between two labelled ones has no label
    "label_wrong_value",  # a vertebra, or a part of one, has the label of another
    "label_discontinuous",  # labels do not follow one another along the spine
    "label_incomplete",  # a part of a vertebra has no label
    "image_label_mismatch",  # the mask does not lie on bone
    "orientation_ap_inverted",  # image and mask are inverted front to back
    "orientation_suspected",  # the series' name says that the image was flipped
    "numbering_suspected",  # all labels may be off by one
    "transitional_not_listed",  # a lumbosacral variant that the published lists do not have
    "castellvi_grade",  # a reading of a lumbosacral variant: information, no error
)

#: Who says so: the original data set's issue tracker, another project, or a series' name.
EVIDENCE = ("reported", "third_party", "derived")

#: What ``exclude_issues`` may ask for: to leave out cases with a reported issue, or with any.
EXCLUDE_ISSUES = ("reported", "all")


#: What to look at where no case is left.
WHAT_SELECTS = "check splits, cases, split_file, exclude_issues and has_vertebrae"


@dataclass(frozen=True)
class Issue:
    """Something that is known of a case. None is corrected in the data."""

    kind: str  #: one of `ISSUE_KINDS`
    evidence: str  #: one of `EVIDENCE`
    detail: str  #: in words
    reference: str  #: where it was reported: a repository, and its issue or file


@dataclass(frozen=True)
class Case:
    """One CT scan and its label map."""

    case_id: str  #: the volume's file name without ``.nii.gz``; ``patient_id`` in rows
    split: str  #: "train", "validation" or "test"
    index: int  #: position in its split, from 0
    source: str | None  #: folder name on the Hub, such as "COLONOG"; None for a case of your own
    special_case: str | None  #: "sacral_lumbarization", "lumbar_sacralization", or None
    tcia_series: str | None = None  #: path in the TCIA collection that the volume was made from
    scan_position: str | None = None  #: "prone" or "supine" where it is known: most of COLONOG
    issues: tuple[Issue, ...] = ()  #: what is known to be wrong with it

    def row(self) -> dict[str, object]:
        """Give the fields as a row of a table: of ``issues`` the kinds, joined by spaces."""
        return {**vars(self), "issues": " ".join(issue.kind for issue in self.issues)}


@dataclass(frozen=True)
class Catalog:
    """Cases in the order of the split file."""

    cases: tuple[Case, ...]

    def __iter__(self) -> Iterator[Case]:
        return iter(self.cases)

    def __len__(self) -> int:
        return len(self.cases)

    def __contains__(self, case_id: object) -> bool:
        return case_id in self._by_id

    def __getitem__(self, case_id: str) -> Case:
        """Look a case up by its id.

        Raises:
            UnknownCaseError: there is none of that id; the message names similar ones.
        """
        try:
            return self._by_id[case_id]
        except KeyError:
            similar = difflib.get_close_matches(str(case_id), self._by_id, n=3)
            raise UnknownCaseError(str(case_id), similar) from None

    def where(
        self,
        *,
        split: str | None = None,
        source: str | None = None,
        special_case: str | None = None,
        scan_position: str | None = None,
        tcia_series: str | None = None,
        issue: str | None = None,
        evidence: str | None = None,
        exclude_issues: str | None = None,
    ) -> Catalog:
        """Keep the cases that match all that is given, in the same order.

        Args:
            split: "train", "validation" or "test".
            source: one of `SOURCES`.
            special_case: one of `SPECIAL_CASES`.
            scan_position: one of `SCAN_POSITIONS`.
            tcia_series: a series' path, or a pattern of it such as ``"*Coloprone*"`` (case counts).
            issue: one of `ISSUE_KINDS`: cases that are known for it.
            evidence: one of `EVIDENCE`: cases with an issue (of that kind) that stands on it.
            exclude_issues: "reported" to leave out the cases with an issue that was reported on the
                original data set's tracker, "all" to leave out those with any issue.

        Raises:
            ValueError: a value that cannot match; the message names those that can.
        """
        wanted = {
            "split": check_choice("split", split, SPLITS),
            "source": check_choice("source", source, SOURCES),
            "special_case": check_choice("special_case", special_case, SPECIAL_CASES),
            "scan_position": check_choice("scan_position", scan_position, SCAN_POSITIONS),
        }
        asked = {name: value for name, value in wanted.items() if value is not None}
        check_choice("issue", issue, ISSUE_KINDS)
        check_choice("evidence", evidence, EVIDENCE)
        check_choice("exclude_issues", exclude_issues, EXCLUDE_ISSUES)

        def matches(case: Case) -> bool:
            return (
                all(getattr(case, name) == value for name, value in asked.items())
                and (tcia_series is None or fnmatch.fnmatchcase(case.tcia_series or "", tcia_series))
                and ((issue is None and evidence is None) or _has_issue(case, issue, evidence))
                and not (exclude_issues == "reported" and _has_issue(case, None, "reported"))
                and not (exclude_issues == "all" and case.issues)
            )

        return Catalog(tuple(filter(matches, self)))

    def select(self, cases: str | Case | Iterable[str | Case] | None) -> Catalog:
        """Keep the cases named, in the catalog's order; None for all.

        Raises:
            UnknownCaseError: a name that is not here.
        """
        if cases is None:
            return self
        if isinstance(cases, (str, Case)):
            cases = [cases]
        wanted = {self[case.case_id if isinstance(case, Case) else case] for case in cases}
        return Catalog(tuple(case for case in self if case in wanted))

    def by_split(self, splits: str | Iterable[str] | None = None) -> dict[str, list[Case]]:
        """Group the cases by split; a split without any is left out.

        Args:
            splits: one split or several; None for all.

        Raises:
            ValueError: there is no such split, or no case in any of them.
        """
        wanted = [splits] if isinstance(splits, str) else [str(split) for split in splits or SPLITS]
        grouped = {split: list(self.where(split=check_choice("splits", split, SPLITS))) for split in wanted}
        filled = {split: cases for split, cases in grouped.items() if cases}
        if not filled:
            raise ValueError(f"no cases in {' or '.join(wanted)}: {WHAT_SELECTS}")
        return filled

    def to_pandas(self) -> pd.DataFrame:
        """Give a row a case; columns are the fields of `Case`, ``issues`` the kinds, joined by spaces."""
        import pandas as pd  # heavy: only who asks for it

        return pd.DataFrame([case.row() for case in self], columns=[field.name for field in fields(Case)])

    @functools.cached_property
    def _by_id(self) -> dict[str, Case]:
        return {case.case_id: case for case in self.cases}


def _has_issue(case: Case, kind: str | None, evidence: str | None) -> bool:
    return any(
        (kind is None or issue.kind == kind) and (evidence is None or issue.evidence == evidence)
        for issue in case.issues
    )


def load_catalog(split_file: str | os.PathLike[str] | None = None) -> Catalog:
    """Load the cases, in the order of ``data_split.txt``.

    Args:
        split_file: another assignment in the same format. What is known of the cases of
            CTSpine1K holds there, too; any other name is a case of your own, whose source is None.

    Raises:
        SplitFileError: the file is not of that format; the message says line and text.
        FileNotFoundError: there is no file at ``split_file``.
    """
    return _official_catalog() if split_file is None else _read_catalog(Path(split_file).expanduser())


@functools.cache
def _official_catalog() -> Catalog:
    return _read_catalog(_facts() / "data_split.txt")


def _read_catalog(path: Path) -> Catalog:
    scans = _scans()
    assignment = parse_split(path.read_bytes(), str(path), known=scans)
    special_cases, issues = _special_cases(), _issues()
    unknown = {"source": None, "tcia_series": None, "scan_position": None}
    return Catalog(
        tuple(
            Case(
                case_id,
                split,
                index,
                special_case=special_cases.get(case_id),
                issues=issues.get(case_id, ()),
                **scans.get(case_id, unknown),
            )
            for split, case_ids in assignment.items()
            for index, case_id in enumerate(case_ids)
        )
    )


def parse_split(data: bytes, path: str, known: Mapping[str, object]) -> dict[str, list[str]]:
    """Read a split file: for each of `SPLITS` the case ids, in order.

    Any line ends, blank lines, a byte order mark and ids without ``.nii.gz`` are fine.

    Args:
        data: the file's bytes, UTF-8.
        path: what to call the file in messages.
        known: ids of CTSpine1K, by which two glued names are told even without ``.nii.gz``.

    Raises:
        SplitFileError: an unknown or repeated section, a name outside of any, a name given twice,
            two names on one line, a name that is a path, or no name at all.
    """
    sections = _parse_sections(data, path, tuple(SECTIONS), known)
    if not any(sections.values()):
        raise SplitFileError(path, 0, "", "no cases in it")
    return {split: sections.get(section, []) for section, split in SECTIONS.items()}


def _parse_sections(
    data: bytes, path: str, allowed: Sequence[str], known: Mapping[str, object]
) -> dict[str, list[str]]:
    """Read lines ``NAME:`` and, below each, case ids. A line that starts with # is a comment."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SplitFileError(path, 0, "", f"not UTF-8 text ({error.reason})") from None
    sections: dict[str, list[str]] = {}
    first_seen: dict[str, str] = {}
    section = None
    for number, raw_line in enumerate(text.splitlines(), start=1):
        line = raw_line.strip()
        fail = functools.partial(SplitFileError, path, number, line)
        if not line or line.startswith("#"):
            continue
        if line.endswith(":"):
            section = line[:-1].rstrip()
            if section not in allowed:
                raise fail(f"unknown section {section!r}")
            if section in sections:
                raise fail(f"section {section!r} is given twice")
            sections[section] = []
            continue
        if section is None:
            raise fail("a name before the first section")
        case_id = _parse_case_id(line, fail, known)
        if case_id in first_seen:
            raise fail(f"{case_id!r} is already in {first_seen[case_id]}")
        first_seen[case_id] = f"{section}, line {number}"
        sections[section].append(case_id)
    return sections


def _parse_case_id(line: str, fail: functools.partial[SplitFileError], known: Mapping[str, object]) -> str:
    case_id = line.removesuffix(".nii.gz" if line.endswith(".nii.gz") else ".nii")
    if "/" in case_id or "\\" in case_id:
        raise fail("a name holds a path separator")
    if ".." in case_id:
        raise fail("a name holds '..'")
    if ".nii.gz" in case_id or any(character.isspace() for character in case_id):
        raise fail("two names on one line")
    if not case_id or not case_id.isprintable():
        raise fail("not a file name")
    if case_id not in known and any(
        case_id[:at] in known and case_id[at:] in known for at in range(1, len(case_id))
    ):
        raise fail("two names glued together")
    return case_id


@functools.cache
def _scans() -> dict[str, dict[str, str | None]]:
    """Where each scan came from: source, series and position, by case id."""
    return {
        row.pop("case_id"): {name: value or None for name, value in row.items()}
        for row in _csv_rows(_FACTS / "cases.csv")
    }


@functools.cache
def _issues() -> dict[str, tuple[Issue, ...]]:
    issues: dict[str, tuple[Issue, ...]] = {}
    for row in _csv_rows(_facts() / "special_cases" / "known_issues.csv"):
        case_id = row.pop("case_id")
        issues[case_id] = (*issues.get(case_id, ()), Issue(**row))
    return issues


def _csv_rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@functools.cache
def _special_cases() -> dict[str, str]:
    special_cases = {}
    for kind in SPECIAL_CASES:
        path = _facts() / "special_cases" / f"{kind}.txt"
        # The section "verse" names scans of another data set: read to be checked, and left there.
        sections = _parse_sections(path.read_bytes(), str(path), ("ctspine1k", "verse"), known={})
        special_cases.update(dict.fromkeys(sections["ctspine1k"], kind))
    return special_cases


def _facts() -> Path:
    """Where ``data_split.txt`` and ``special_cases/`` are: in the wheel, or at the top of a checkout."""
    return _FACTS if (_FACTS / "data_split.txt").is_file() else _FACTS.parents[3]
