"""Cases that were left out of a data set on disk, and why: one small file per case, beside its shards.

Several processes write at once, so each case has its own file.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Mapping
from typing import Any

from ctspine1k._messages import shortened, warn
from ctspine1k.errors import SkippedCasesWarning

__all__ = ["read_skipped", "record_skipped", "warn_skipped"]


def record_skipped(filesystem: Any, folder: str, case_id: str, reason: str) -> None:
    """Write down that a case was left out of the data set in ``folder`` (of an fsspec file system)."""
    filesystem.makedirs(posixpath.join(folder, "skipped"), exist_ok=True)
    with filesystem.open(posixpath.join(folder, "skipped", f"{case_id}.json"), "w") as file:
        json.dump({"case_id": case_id, "reason": reason}, file)


def read_skipped(filesystem: Any, folder: str) -> dict[str, str]:
    """Return the reason for each case that was left out of the data set in ``folder``, by case id."""
    place = posixpath.join(folder, "skipped")
    reasons = {}
    for path in sorted(filesystem.ls(place, detail=False)) if filesystem.exists(place) else []:
        with filesystem.open(path, "r") as file:
            record = json.load(file)
        reasons[record["case_id"]] = record["reason"]
    return reasons


def warn_skipped(reasons: Mapping[str, str], where: str) -> None:
    """Warn about all skipped cases at once, with their count, names and reasons."""
    listed = shortened([f"{case_id} ({reason})" for case_id, reason in reasons.items()])
    count = "1 case is" if len(reasons) == 1 else f"{len(reasons):,} cases are"
    warn(f"{count} left out of {where}: {listed}", SkippedCasesWarning)
