"""The format of split files: sections ``NAME:`` and, below each, one case id per line."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial

from ctspine1k.errors import SplitFileError

__all__ = ["parse_sections", "parse_split"]


def parse_split(
    data: bytes, path: str, sections: Mapping[str, str], known: Collection[str]
) -> dict[str, list[str]]:
    """Return the case ids of each split, in the order of a split file.

    Any line ends, blank lines, a byte order mark and ids without ``.nii.gz`` are fine; so is ``.NII.GZ``.

    Args:
        data: the file's bytes, UTF-8.
        path: the file's name in messages.
        sections: for each section that may occur, the split it stands for.
        known: ids of the data set, by which two glued names are recognised even without ``.nii.gz``.

    Raises:
        SplitFileError: an unknown or repeated section, a name before the first section, a name given twice,
            two names on one line, a name that is a path, or no name at all.
    """
    found = parse_sections(data, path, tuple(sections), known)
    if not any(found.values()):
        raise SplitFileError(path, 0, "", "no cases in it", tuple(sections))
    return {split: found.get(section, []) for section, split in sections.items()}


def parse_sections(
    data: bytes, path: str, allowed: Sequence[str], known: Collection[str]
) -> dict[str, list[str]]:
    """Read lines ``NAME:`` and, below each, case ids. A line that starts with # is a comment.

    Raises:
        SplitFileError: as for `parse_split`.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SplitFileError(path, 0, "", f"not UTF-8 text ({error.reason})", allowed) from None
    sections: dict[str, list[str]] = {}
    first_seen: dict[str, str] = {}
    section = None
    for number, raw_line in enumerate(text.splitlines(), start=1):
        line = raw_line.strip()
        fail = partial(SplitFileError, path, number, line, sections=allowed)
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


def _parse_case_id(line: str, fail: partial[SplitFileError], known: Collection[str]) -> str:
    suffix = next((end for end in (".nii.gz", ".nii") if line[-len(end) :].lower() == end), "")
    case_id = line[: len(line) - len(suffix)]
    if "/" in case_id or "\\" in case_id:
        raise fail("a name contains a path separator")
    if ".." in case_id:
        raise fail("a name contains '..'")
    if ".nii.gz" in case_id.lower() or any(character.isspace() for character in case_id):
        raise fail("two names on one line")
    if not case_id or not case_id.isprintable():
        raise fail("not a file name")
    if case_id not in known and any(
        case_id[:at] in known and case_id[at:] in known for at in range(1, len(case_id))
    ):
        raise fail("two names glued together")
    return case_id
