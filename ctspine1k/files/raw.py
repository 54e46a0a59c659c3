"""Raw files, and which case each belongs to.

Files are known by their names alone: ``<case_id>.nii.gz`` is an image and ``<case_id>_seg.nii.gz`` its mask
(``.nii`` is fine too), in whatever folder. So every layout in circulation is read: the Hub's ``raw_data/``
(its card writes ``rawdata/``), the ``data/`` beside ``label/`` or ``label_new/`` of Google Drive and Baidu,
and flat folders. Names of folders are not looked at; two files for one image or mask are an error.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from ctspine1k.catalog.cases import Case
from ctspine1k.errors import AmbiguousFilesError

__all__ = ["KINDS", "CaseFiles", "Kind", "RawFile", "file_names", "is_image_name", "match_names"]

Kind: TypeAlias = Literal["image", "mask"]
KINDS: tuple[Kind, Kind] = ("image", "mask")

#: What follows the case id in a file's name.
_SUFFIXES: dict[Kind, tuple[str, ...]] = {
    "image": (".nii.gz", ".nii"),
    "mask": ("_seg.nii.gz", "_seg.nii"),
}


@dataclass(frozen=True)
class RawFile:
    """One raw file, on the Hub or on disk."""

    case: Case
    kind: Kind
    size: int  #: bytes
    path: str  #: in the repo, or the absolute path on disk
    url: str
    sha256: str | None  #: as the Hub records it; None for a file in a folder


@dataclass(frozen=True)
class CaseFiles:
    """Image and mask of one case."""

    case: Case
    image: RawFile
    mask: RawFile


def is_image_name(path: str) -> bool:
    """Tell whether a path could be of an image or a mask."""
    return path.endswith(_SUFFIXES["image"])


def file_names(case: Case) -> list[str]:
    """Tell all names that a file of a case may have."""
    return [case.case_id + suffix for kind in KINDS for suffix in _SUFFIXES[kind]]


def match_names(
    paths: Iterable[str], cases: Iterable[Case], *, every: bool = False
) -> Iterator[tuple[Case, Kind, str]]:
    """Find image and mask of each case among paths, by file name.

    Args:
        paths: of any files.
        cases: what to look for.
        every: where there are several files for one image or mask, give them all.

    Raises:
        AmbiguousFilesError: several files for one image or mask, unless ``every`` is asked for.
        ValueError: ids that differ by ``_seg``, so that a file could be of both.
    """
    cases = list(cases)
    names: dict[str, str] = {}
    for case in cases:
        for name in file_names(case):
            if name in names:
                raise ValueError(
                    f"{name} would be of both {names[name]!r} and {case.case_id!r}: load one of them"
                )
            names[name] = case.case_id
    found: dict[str, list[str]] = {}
    for path in paths:
        name = os.path.basename(path)  # noqa: PTH119 (thousands of them)
        if name in names:
            found.setdefault(name, []).append(path)
    for case in cases:
        for kind in KINDS:
            candidates = [path for suffix in _SUFFIXES[kind] for path in found.get(case.case_id + suffix, [])]
            if len(candidates) > 1 and not every:
                raise AmbiguousFilesError(case.case_id, kind, sorted(candidates))
            for path in sorted(candidates):
                yield case, kind, path
