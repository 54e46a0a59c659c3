"""Splits in which all cases of a patient are in the same part."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Literal, TypeAlias

from ctspine1k._messages import check_choice, shortened

__all__ = ["OnUnknown", "parts_by_patient"]

#: What to do about cases whose patient is not known: an error, or each is a patient of its own.
OnUnknown: TypeAlias = Literal["raise", "separate"]


def parts_by_patient(
    patients: Mapping[str, str | None], fractions: Sequence[float], seed: int, on_unknown: OnUnknown
) -> list[list[str]]:
    """Split cases into parts, so that no patient is in two of them.

    Patients are put into an order that depends on seed and patient alone, and cut where the fractions are.

    Args:
        patients: the patient of each case, by case id; None if it is not known.
        fractions: of the cases in each part; they add up to 1.
        seed: another one gives another split.
        on_unknown: what to do about cases whose patient is not known.

    Returns:
        The case ids of each part, in the order given.

    Raises:
        ValueError: an argument that is not allowed, unknown patients, or too few patients for so many parts.
    """
    check_choice("on_unknown", on_unknown, ("raise", "separate"))
    try:
        shares = [float(fraction) for fraction in fractions]
    except (TypeError, ValueError):
        shares = []
    if not shares or min(shares) <= 0 or not math.isclose(sum(shares), 1, abs_tol=1e-6):
        raise ValueError(
            f"fractions={fractions!r}: expected positive numbers that add up to 1, such as [0.8, 0.2]"
        )
    unknown = [case_id for case_id, patient in patients.items() if patient is None]
    if unknown and on_unknown == "raise":
        raise ValueError(
            f"the patient of {len(unknown):,} of {len(patients):,} cases is not known: {shortened(unknown)}. "
            'Pass on_unknown="separate" to make each of them a patient of its own, or select other cases.'
        )
    of_patient: dict[tuple[str, bool], list[str]] = {}
    for case_id, patient in patients.items():
        key = (case_id, False) if patient is None else (patient, True)
        of_patient.setdefault(key, []).append(case_id)
    ends = [end * len(patients) for end in accumulate(shares)]
    part_of, done = {}, 0
    for _, case_ids in sorted(of_patient.items(), key=lambda item: _rank(item[0][0], seed)):
        middle = done + len(case_ids) / 2
        part = sum(middle > end for end in ends[:-1])
        part_of.update(dict.fromkeys(case_ids, part))
        done += len(case_ids)
    parts = [[case_id for case_id in patients if part_of[case_id] == part] for part in range(len(shares))]
    if not all(parts):
        raise ValueError(
            f"fractions={fractions}: expected a patient in each part, found only {len(of_patient):,} of "
            f"{len(patients):,} cases: select more cases, or make fewer or larger parts"
        )
    return parts


def _rank(patient: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed} {patient}".encode()).digest()
