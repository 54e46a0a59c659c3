"""Scores kept between runs: those of the last finished run, and a journal of cases that were done since."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ctspine1k._messages import shortened
from ctspine1k.errors import OutputError
from ctspine1k.evaluation.scoring import Scored
from ctspine1k.evaluation.table import ScoreTable, read_scores
from ctspine1k.running.disk import explain_unwritable, require_folder
from ctspine1k.running.notes import append_notes, read_notes

__all__ = ["SUMMARY", "TABLE", "Journal", "check_folder", "read_data_set", "read_options"]

#: Names of files in the folder of an evaluation. The summary is written last: without it, it is not finished.
SUMMARY, TABLE = "summary.json", "cases.csv"

_JOURNAL = ".scores.partial"

#: What a summary raises that is damaged, or is another's.
_UNUSABLE = (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError)


class Journal:
    """Scores of cases by a key that changes when their files or the options do.

    Each case is noted as soon as it is done, so that a stopped run loses nothing.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / _JOURNAL
        self._finished, noted = _finished(folder), _noted(self._path)
        self._known = {**self._finished, **noted}
        with explain_unwritable(folder):
            self._path.touch()  # shows whose folder it is until the results are whole

    def get(self, key: str, case_id: str) -> Scored | None:
        """Return the scores of an earlier run; None if the case has to be scored."""
        known = self._known.get(key)
        # The id stands beside the key in a summary that may be damaged: of another id, there may be no rows.
        return known if known is not None and known.case_id == case_id else None

    def note(self, key: str, scored: Scored) -> None:
        """Keep the scores of a case."""
        self._known[key] = scored
        append_notes(self._path, [_note(key, scored)])

    def keep(self) -> None:
        """Note the scores of the last finished run, too: its files are about to be replaced."""
        known = [(key, one) for key, one in self._finished.items() if self._known[key] is one]
        append_notes(self._path, (_note(key, one) for key, one in known))

    def delete(self) -> None:
        """Delete the notes: the run is finished."""
        self._path.unlink(missing_ok=True)


def check_folder(folder: Path) -> None:
    """Check that a folder is new, empty, or that of an evaluation.

    Raises:
        OutputError: it has other files, or is a file.
    """
    require_folder(folder)
    if not folder.exists():
        return
    names = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    is_ours = _is_table(folder / TABLE) or (folder / _JOURNAL).exists()  # else a run was stopped
    if names and not is_ours:
        expected = "a new or an empty folder, or one of an evaluation"
        raise OutputError.occupied(str(folder), expected, shortened(sorted(names)))


def read_options(path: Path) -> Mapping[str, Any]:
    """Return the options with which a table was made, as the summary beside it says; none if there is none.

    Args:
        path: the folder of an evaluation, or its table.
    """
    try:
        return dict(_summary_beside(path)["options"])
    except _UNUSABLE:
        return {}


def read_data_set(path: Path) -> str | None:
    """Return the name of the data set of a table, as the summary beside it says; None if there is none.

    Args:
        path: the folder of an evaluation, or its table.
    """
    try:
        return str(_summary_beside(path)["data_set"])
    except _UNUSABLE:
        return None


def _summary_beside(path: Path) -> Any:
    folder = path if path.is_dir() else path.parent
    return json.loads((folder / SUMMARY).read_text(encoding="utf-8"))


def _is_table(path: Path) -> bool:
    """Return whether a file begins as our table does: others have files of that name, too."""
    try:
        with path.open("rb") as file:
            return file.readline().startswith(b"case_id,label,vertebra,reference,prediction,")
    except OSError:
        return False


def _finished(folder: Path) -> dict[str, Scored]:
    """Return the scores of the last finished run, by key; none if there is no intact one."""
    try:
        summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
        keys: Mapping[str, Any] = summary["cases"]
        table = read_scores(folder / TABLE)
        if summary["table"] != table.digest():
            return {}
        return {
            one["key"]: Scored(case_id, _rows_of(table, case_id), one["problem"] or "")
            for case_id, one in keys.items()
            if one["key"]
        }
    except (OutputError, *_UNUSABLE):
        return {}


def _rows_of(table: ScoreTable, case_id: str) -> tuple[Mapping[str, Any], ...]:
    return table.by_case.get(case_id, ())


def _note(key: str, scored: Scored) -> str:
    return json.dumps([key, scored.case_id, [dict(row) for row in scored.rows], scored.problem])


def _noted(path: Path) -> dict[str, Scored]:
    notes = map(json.loads, read_notes(path))
    return {key: Scored(case_id, tuple(rows), problem) for key, case_id, rows, problem in notes}
