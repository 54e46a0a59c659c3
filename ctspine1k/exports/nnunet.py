"""An export for nnU-Net: a folder in its raw format, with links to the raw files.

`ctspine1k.exports.nnunet_layout` describes the folder. ``dataset.json`` is deleted before anything changes,
and written last: where it is, the export is complete.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ctspine1k._messages import check_choice, html_table, shortened, warn
from ctspine1k.catalog.dataset import DataSet
from ctspine1k.errors import NothingLeftError, OutputError, SkippedCasesWarning
from ctspine1k.exports.folder_target import FolderTarget
from ctspine1k.exports.nnunet_case import CaseOutcome, CaseTask, export_case
from ctspine1k.exports.nnunet_layout import (
    CASE_IDS,
    DATALIST,
    DATASET,
    ENDING,
    FOLDERS,
    SPLITS_JSON,
    Member,
    check_id_is_free,
    datalist,
    dataset_json,
    folder_name,
    is_official,
    member_of,
    members_of,
    splits_final,
)
from ctspine1k.exports.opening import open_target
from ctspine1k.files.copies import require_outside, require_room
from ctspine1k.files.raw import CaseFiles, RawFile
from ctspine1k.files.selection import OnMissing, Selection, case_files, require_cases
from ctspine1k.files.transfer import download, worker_start
from ctspine1k.rows.options import Policy
from ctspine1k.running.disk import atomic_write, explain_full_disk
from ctspine1k.running.executors import executor
from ctspine1k.running.progress import run_with_bar
from ctspine1k.running.stops import check_stopped, deferred_interrupts, explain_stop
from ctspine1k.volumes.relabel import Others

__all__ = ["NnunetOptions", "NnunetReport", "export_nnunet"]

#: The environment variable that names the folder in which nnU-Net looks for splits.
_PREPROCESSED = "nnUNet_preprocessed"


@dataclass(frozen=True)
class NnunetOptions:
    """Options of an export for nnU-Net; see `ctspine1k.Collection.export_nnunet`."""

    id: int = 511
    name: str | None = None  #: None for the data set's own
    only: str | None = None  #: a split; None for all
    copy: bool = False
    plain_ids: bool = False
    label_scheme: str | None = None
    other_labels: Others = "raise"
    on_missing: OnMissing = "raise"
    on_error: Policy = "raise"
    on_geometry: Literal["raise", "warn"] = "warn"
    num_proc: int = 1

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            ValueError: an option that is not allowed.
        """
        check_choice("other_labels", self.other_labels, ("raise", "background"))
        for name in ("on_missing", "on_error"):
            check_choice(name, getattr(self, name), ("raise", "skip"))
        check_choice("on_geometry", self.on_geometry, ("raise", "warn"))
        executor(self.num_proc)

    def folder(self, data_set: DataSet) -> str:
        """Return the name of the folder; an id or a name that nnU-Net does not take raises `ValueError`."""
        name = re.sub(r"\W", "", data_set.title, flags=re.ASCII) if self.name is None else self.name
        return folder_name(self.id, name)

    def scheme(self, data_set: DataSet) -> str:
        """Return the label scheme; one that the data set does not have raises `ValueError`."""
        schemes = data_set.vocabulary.schemes
        return check_choice("label_scheme", self.label_scheme, schemes, or_none=True) or schemes[0]


@dataclass(frozen=True)
class NnunetReport:
    """What an export for nnU-Net did."""

    out: str  #: the folder of the data set
    cases: dict[str, int]  #: number of cases for training, validation and test
    files: dict[str, int]  #: number of files that were linked, copied, written and kept
    failed: dict[str, str]  #: why a case could not be exported, by case id
    skipped: dict[str, str]  #: why a case was left out, by case id

    def __repr__(self) -> str:
        return f"NnunetReport({self.out}: {self._counts})"

    def _repr_html_(self) -> str:
        return html_table(f"{self.out}: {self._counts}", ["role", "cases"], list(self.cases.items()), 3)

    @property
    def _counts(self) -> str:
        listed = (", ".join(f"{name} {count:,}" for name, count in one.items()) for one in self._groups)
        return f"{'; files: '.join(listed)}; failures: {len(self.failed):,}"

    @property
    def _groups(self) -> tuple[dict[str, int], dict[str, int]]:
        return self.cases, self.files

    @property
    def ok(self) -> bool:
        """Whether the export is complete."""
        return not self.failed

    def summary(self) -> str:
        """Return the report as text, in a few lines."""
        lines = [f"left out: {case_id}: {reason}" for case_id, reason in self.skipped.items()]
        lines += [f"failed: {case_id}: {reason}" for case_id, reason in self.failed.items()]
        return "\n".join([self.out, *lines, self._counts])


def export_nnunet(selection: Selection, out: str | os.PathLike[str], options: NnunetOptions) -> NnunetReport:
    """Write a data set in nnU-Net's raw format; see `ctspine1k.Collection.export_nnunet`.

    Raises:
        ValueError: an option that the data set does not have, ``out`` is a URL or in the folder of the raw
            files, an id of a case that nnU-Net does not take, or no case is selected.
        CTSpine1KError: the errors of `Collection.export_nnunet`.
    """
    data_set = selection.data_set
    check_choice("only", options.only, data_set.splits, or_none=True)
    folder, scheme = options.folder(data_set), options.scheme(data_set)
    if options.only is not None:
        selection = selection.keep(selection.cases.where(split=options.only))
    place = open_target(out)
    if not isinstance(place, FolderTarget):
        raise ValueError(f"out={os.fspath(out)!r}: expected a folder: nnU-Net reads no URLs")
    check_id_is_free(place.root, folder)
    target = FolderTarget(place.root / folder)
    files, missing = case_files(require_cases(selection), options.on_missing)
    if missing:
        warn(missing.summary, SkippedCasesWarning)
    members = members_of([one.case for one in files], data_set.splits, plain_ids=options.plain_ids)
    require_outside("out", target.root, [target.root / name for name in FOLDERS], selection.look.place.folder)
    _check_apart(target.root, members, files)
    _check_folders(target.root, members)
    preprocessed = _Preprocessed(
        folder,
        [member_of(case, data_set.splits, plain_ids=options.plain_ids) for case in selection.catalog],
    )
    preprocessed.check()
    export = _Export(selection, target, options, scheme, members, preprocessed)
    with deferred_interrupts(), target.exclusive_lock():
        return export.run(files, {} if missing is None else missing.reasons)


def _check_apart(root: Path, members: Sequence[Member], files: Sequence[CaseFiles]) -> None:
    """Raise a `ValueError` if a file to export is where it would be exported to, such as a predicted mask."""
    paths = (root / name for member in members for name in (member.image, member.mask))
    planned = {path.parent.resolve() / path.name for path in paths}
    local = [Path(file.local) for file in _raw(files) if file.local is not None]
    # A folder may be a link, and a file one to the very mask that would be replaced.
    if there := [
        str(path)
        for path in local
        if not planned.isdisjoint((path.resolve(), path.parent.resolve() / path.name))
    ]:
        raise ValueError(
            f"out={str(root.parent)!r}: expected another folder, name or id than that of these files, found "
            f"{shortened(there)}"
        )


def _check_folders(root: Path, members: Sequence[Member]) -> None:
    """Raise an `OutputError` if there are files of cases that do not belong to this export."""
    planned = {name for member in members for name in (member.image, member.mask)}
    others = [
        f"{folder}/{path.name}"
        for folder in FOLDERS
        if (root / folder).is_dir()
        for path in sorted((root / folder).iterdir())
        if path.name.endswith(ENDING) and f"{folder}/{path.name}" not in planned
    ]
    if others:
        raise OutputError.occupied(
            str(root),
            "files of the cases given, and no others",
            shortened(others),
            others=["another id (--id, id=...)", "give the same cases and options as before"],
        )


@dataclass(frozen=True)
class _Preprocessed:
    """The folder in which nnU-Net looks for the split, if its environment variable is set."""

    folder: str
    every: Sequence[Member]  #: all cases of the split file

    @property
    def path(self) -> Path | None:
        """The path of the split."""
        root = os.environ.get(_PREPROCESSED)
        return Path(root, self.folder, SPLITS_JSON) if root else None

    def check(self) -> None:
        """Raise an `OutputError` if there is another split than the official one."""
        path = self.path
        if path is None or not path.exists():
            return
        try:
            is_ours = is_official(json.loads(path.read_bytes()), self.every)
        except (ValueError, RecursionError):
            is_ours = False
        if not is_ours:
            hint = "Move it away to have the official split written there, or choose another id."
            raise OutputError(str(path), "no split, or the official one", "another split", hint)

    def write(self, splits: object) -> None:
        """Write the split; if there is none, delete an earlier one."""
        if (path := self.path) is None:
            return
        try:
            if splits is None:
                path.unlink(missing_ok=True)
            elif (text := _json(splits)) != (path.read_text(encoding="utf-8") if path.exists() else None):
                path.parent.mkdir(parents=True, exist_ok=True)
                with atomic_write(path) as written:
                    written.write_text(text, encoding="utf-8")
        except (PermissionError, NotADirectoryError, FileExistsError) as error:
            hint = "Check nnUNet_preprocessed, and its permissions."
            raise OutputError(str(path), "a place to write to", error.strerror or str(error), hint) from error


@dataclass(frozen=True)
class _Export:
    """An export: what its cases have in common."""

    selection: Selection
    target: FolderTarget
    options: NnunetOptions
    scheme: str
    members: Sequence[Member]
    preprocessed: _Preprocessed

    def run(self, files: Sequence[CaseFiles], skipped: Mapping[str, str]) -> NnunetReport:
        """Put all cases into the folder, and finish. The caller holds the lock of the target."""
        done: list[CaseOutcome] = []

        def progress() -> str:
            return f"{len(done):,} of {len(files):,} cases are done"

        with self._room(files), explain_stop(progress):
            tasks = self._tasks(files)
            for outcome in self._outcomes(tasks):
                done.append(outcome)
            check_stopped()
            failed = {
                one.member.case.case_id: one.problem for one in done if one.problem and not one.is_skipped
            }
            left_out = {
                one.member.case.case_id: one.problem for one in done if one.problem and one.is_skipped
            }
            left_out = {**skipped, **left_out}
            there = {one.member.case.case_id for one in done if one.problem is None}
            members = [member for member in self.members if member.case.case_id in there]
            if failed:
                self.target.remove([DATASET])
            elif not members:
                raise NothingLeftError("the export", left_out)
            else:
                self._finish(members)
            self.target.clear()
            check_stopped()
        roles = [member.role for member in members]
        deeds = [deed for one in done for deed in one.deeds]
        return NnunetReport(
            self.target.describe(),
            {role: roles.count(role) for role in ("training", "validation", "test")},
            {deed: deeds.count(deed) for deed in ("linked", "copied", "written", "kept")},
            failed,
            left_out,
        )

    @contextlib.contextmanager
    def _room(self, files: Sequence[CaseFiles]) -> Iterator[None]:
        """Raise a `NoSpaceError` before work begins, or when the disk is full."""
        needed = 0
        if self.options.copy:
            names = [name for member in self.members for name in (member.image, member.mask)]
            paths = [self.target.root / name for name in names]
            hint = (
                "Use links (without --copy), which take no room, a folder on a larger disk, or fewer cases."
            )
            needed = require_room(self.selection, _raw(files), paths, self.target.root, hint)
        with explain_full_disk(self.target.root, "an export", needed):
            yield

    def _tasks(self, files: Sequence[CaseFiles]) -> list[CaseTask]:
        """Download files that are not local yet, and list the work."""
        paths = download(self.selection.look, _raw(files))
        with contextlib.suppress(FileExistsError):
            self.target.scratch().mkdir(parents=True)
        return [
            CaseTask(
                member=member,
                files=one,
                paths={"image": image, "mask": mask},
                target=self.target,
                vocabulary=self.selection.data_set.vocabulary,
                label_scheme=self.scheme,
                other_labels=self.options.other_labels,
                on_geometry=self.options.on_geometry,
                link=not self.options.copy,
                skip=self.options.on_error == "skip",
            )
            for member, one, image, mask in zip(self.members, files, paths[::2], paths[1::2], strict=True)
        ]

    def _outcomes(self, tasks: Sequence[CaseTask]) -> Iterator[CaseOutcome]:
        """Export the cases, and yield the outcome of each."""
        workers = executor(self.options.num_proc, initializer=worker_start())
        names = [f"export/nnunet/{task.member.name}" for task in tasks]
        with contextlib.closing(run_with_bar(workers, export_case, tasks, names, "Exporting")) as outcomes:
            for outcome in outcomes:
                outcome.remarks.warn()
                yield outcome

    def _finish(self, members: Sequence[Member]) -> None:
        """Write the files beside the cases; last the one that marks the export as complete."""
        data_set = self.selection.data_set
        splits = splits_final(members)
        plain = {member.name: member.case.case_id for member in members} if self.options.plain_ids else None
        documents: dict[str, Any] = {
            SPLITS_JSON: splits,
            DATALIST: datalist(data_set, self.scheme, members),
            CASE_IDS: plain,
            DATASET: dataset_json(data_set, self.scheme, members),
        }
        texts = {name: None if one is None else _json(one) for name, one in documents.items()}
        current = {name: _text(self.target.root / name) for name in texts}
        if any(texts[name] != current[name] for name in texts):
            self.target.remove([DATASET])
            current[DATASET] = None
        self.preprocessed.write(splits)
        for name, text in texts.items():
            if text is None:
                self.target.remove([name])
            elif text != current[name]:
                with self.target.atomic_write(name) as path:
                    path.write_text(text, encoding="utf-8")


def _raw(files: Sequence[CaseFiles]) -> list[RawFile]:
    """Return image and mask of each case in turn."""
    return [one[kind] for one in files for kind in ("image", "mask")]


def _json(document: object) -> str:
    return json.dumps(document, indent=1) + "\n"


def _text(path: Path) -> str | None:
    """Return what is in a file; None if there is none, or it is no text."""
    try:
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, UnicodeDecodeError):
        return None
