"""Parts of splits, such as "train[:10%]": only the cases that they need are converted, if these are known."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias

import datasets

from ctspine1k.catalog.cases import WHAT_SELECTS, Case, Catalog
from ctspine1k.rows._datasets import has_checks
from ctspine1k.rows.builder import CTSpine1K
from ctspine1k.rows.conversions import NotConvertedError, whole_of
from ctspine1k.rows.room import require_room
from ctspine1k.rows.shapes import row_counts

__all__ = ["Split", "builders_of", "check_room", "specs_of", "split_name"]

#: One data set: "train", "train[:10%]", "train+validation", or the same as an object of `datasets`.
Split: TypeAlias = "str | datasets.Split | datasets.ReadInstruction"


def split_name(part: str) -> str:
    """Return the split that a part is of."""
    return part.partition("[")[0].strip()


def specs_of(
    split: Split | Sequence[Split] | None, available: Sequence[str], known: Sequence[str], streaming: bool
) -> list[list[str]]:
    """Return ``split`` as a list of data sets, each a list of parts such as "train[:10%]"."""
    if split is None:
        return [[name] for name in available]
    specs = []
    for spec in split if isinstance(split, (list, tuple)) else [split]:
        text = spec.to_spec() if isinstance(spec, datasets.ReadInstruction) else str(spec)
        parts = re.split(r"\s*\+\s*", "+".join(available) if text == "all" else text.strip())
        for part in parts:
            if split_name(part) in known and split_name(part) not in available:
                raise ValueError(f"split={text!r}: no cases in {split_name(part)}: {WHAT_SELECTS}")
            if split_name(part) not in available:
                raise ValueError(
                    f"split={text!r}: expected {', '.join(map(repr, available))} or slices of these"
                )
            if streaming and part != split_name(part):
                raise ValueError(
                    f"split={text!r}: a stream has no slices; use .skip(n) and .take(n), or cases=[...]"
                )
        specs.append(parts)
    return specs


def builders_of(
    parts: Sequence[str],
    by_split: Mapping[str, Catalog],
    make: Callable[[Catalog], CTSpine1K],
    download_mode: datasets.DownloadMode | str | None,
) -> tuple[dict[str, CTSpine1K], dict[str, str]]:
    """Return a builder for each split, and for each part what to read from its split's builder.

    It is the builder of all cases of a split if they are converted already, if all are needed, or if it
    cannot be told beforehand which are.

    Args:
        parts: such as "train" and "validation[:10%]".
        by_split: the cases of each split.
        make: returns the builder of some cases.
        download_mode: as in `datasets.load_dataset`.
    """
    of_split: dict[str, list[str]] = {}
    for part in parts:
        of_split.setdefault(split_name(part), []).append(part)
    builders, reads = {}, {part: part for part in parts}
    for split, own in of_split.items():
        are_slices, whole = all("[" in part for part in own), None
        try:
            builders[split] = make(by_split[split])
        except NotConvertedError as error:  # without a look at the files: maybe the parts are converted
            if not are_slices or error.row_counts is None:
                raise
            counts = error.row_counts
        else:
            if not are_slices or not builders[split].will_convert(download_mode):
                continue
            if (known := _row_counts(builders[split])) is None:
                continue
            counts, whole = known, whole_of(builders[split].config.asked, known)
        counted = list(zip(by_split[split], counts, strict=True))
        cases, chosen = _needed(split, own, counted)
        if len(cases) < len(counted):
            builders[split] = make(by_split[split].select(cases))
            builders[split].whole = whole
            reads |= chosen
    return builders, reads


def _row_counts(builder: CTSpine1K) -> list[int] | None:
    """Return the number of rows of each case, in order; None if that is not known before a conversion."""
    config = builder.config
    files, missing = config.files
    if missing or config.on_error == "skip":
        return None
    return row_counts(files, config.selected.place, config.row_options)


def _needed(
    split: str, parts: Sequence[str], counted: Sequence[tuple[Case, int]]
) -> tuple[list[Case], dict[str, str]]:
    """Return the cases that parts of a split need, and for each part what it is of their rows.

    Raises:
        ValueError: a part that is no slice, or one without rows.
    """
    ends = list(itertools.accumulate(count for _, count in counted))
    ranges: dict[str, tuple[int, int]] = {}
    for part in parts:
        (absolute,) = datasets.ReadInstruction.from_spec(part).to_absolute({split: ends[-1]})
        if absolute.from_ >= absolute.to:
            raise ValueError(f"split={part!r}: expected a slice with rows, found none of {ends[-1]:,}")
        ranges[part] = (absolute.from_, absolute.to)
    cases: list[Case] = []
    starts: dict[int, int] = {}  # of a case's rows: among all rows, and among those of the cases needed
    total = 0
    for (case, count), end in zip(counted, ends, strict=True):
        if any(start < end and end - count < stop for start, stop in ranges.values()):
            cases.append(case)
            starts |= dict(zip(range(end - count, end), range(total, total + count), strict=True))
            total += count
    chosen = {
        part: f"{split}[{starts[start]}:{starts[start] + stop - start}]"
        for part, (start, stop) in ranges.items()
    }
    return cases, chosen


def check_room(
    builders: Iterable[CTSpine1K],
    download_mode: datasets.DownloadMode | str | None,
    verification_mode: datasets.VerificationMode | str | None,
) -> None:
    """Check that the conversions that are to come fit on their disks together.

    Raises:
        NoSpaceError: they do not.
    """
    if has_checks(verification_mode):
        require_room([builder.need for builder in builders if builder.will_convert(download_mode)])
