"""A selection: cases of a data set, and the place with their files. Every verb works on one."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeAlias

from ctspine1k._messages import check_choice, warn
from ctspine1k.catalog.cases import WHAT_SELECTS, Case, Catalog, Criterion
from ctspine1k.catalog.dataset import DataSet, Kind
from ctspine1k.catalog.registry import DEFAULT, data_set, load_catalog
from ctspine1k.errors import MissingFilesError, SplitFileError, SplitFileWarning
from ctspine1k.files.places import Place, find_place
from ctspine1k.files.raw import CaseFiles, Listing, RawFile, find_files, group_files

__all__ = [
    "Look",
    "OnMissing",
    "Selection",
    "all_files",
    "case_files",
    "open_selection",
    "patients_of",
    "require_cases",
    "require_kinds",
    "selected_files",
]

#: What to do about a case without raw files.
OnMissing: TypeAlias = Literal["raise", "skip"]


class Look:
    """One look at a place: its commit and its listing, each requested once, when it is first needed.

    A verb takes one look, so that it uses the same files throughout; the next verb sees the current ones.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        self._is_recorded = False

    @cached_property
    def pinned(self) -> Place:
        """The place, pinned to its current commit."""
        return self.place.at_commit()

    @cached_property
    def listing(self) -> Listing:
        """All files of the place."""
        return self.pinned.listing()

    def prepare(self, files: Sequence[RawFile]) -> None:
        """Check that files can be fetched, before the first one is; errors as for `Place.prepare`."""
        self.pinned.prepare(files, is_recorded=self._is_recorded)
        self._is_recorded = self._is_recorded or bool(files)

    def __reduce__(self) -> tuple[Any, ...]:
        return Look, (vars(self).get("pinned", self.place),)  # without the listing: it may be long


@dataclass(frozen=True)
class Selection:
    """Cases, and a look at the place with their files, which selections made from this one share."""

    data_set: DataSet
    catalog: Catalog  #: all cases of the split file
    cases: Catalog  #: those selected
    look: Look

    @property
    def place(self) -> Place:
        """Where the files are, at its commit."""
        return self.look.pinned

    @property
    def listing(self) -> Listing:
        """All files of the place."""
        return self.look.listing

    def keep(self, cases: Catalog) -> Selection:
        """Return a selection with only these cases."""
        return Selection(self.data_set, self.catalog, cases, self.look)

    def files(self, *, every: bool = False) -> list[RawFile]:
        """Find the files of the cases; arguments and errors as for `find_files`."""
        return find_files(self.listing, self.data_set, self.cases, every=every)

    def narrow(
        self, cases: str | Case | Iterable[str | Case] | None, criteria: Mapping[str, Criterion]
    ) -> Selection:
        """Return a selection with the cases named that meet all criteria; errors as for `Catalog.where`."""
        return self.keep(self.cases.select(cases).where(**criteria))

    def fingerprint(self, kinds: Sequence[Kind] | None = None) -> list[str]:
        """Return a list of texts that changes when files of the cases do: of these kinds, or those required.

        It is the place's version, if it has one: a listing of the Hub is then not needed.
        """
        if (version := self.place.version()) is not None:
            return [version]
        used = self.data_set.kinds if kinds is None else kinds
        return [self.place.identity(file) for file in self.files() if file.kind in used]

    def missing(
        self, files: Sequence[RawFile], kinds: Sequence[Kind], on_missing: OnMissing = "raise"
    ) -> MissingFilesError | None:
        """Return an error that lists the missing files, to be raised or shown; None if none is missing.

        Its advice is for a caller who has asked for ``on_missing``.
        """
        there = {(file.case.case_id, file.kind) for file in files}
        absent = {
            case.case_id: " and ".join(lacking)
            for case in self.cases
            if (lacking := [kind for kind in kinds if (case.case_id, kind) not in there])
        }
        if not absent:
            return None
        data_set = self.data_set
        hint = self.place.hint(self.listing, data_set.suffixes, data_set.naming)
        is_published = not absent.keys().isdisjoint(case.case_id for case in data_set.read_cases(None))
        hints = hint, data_set.how_to_get if is_published else "", self._advice(on_missing)
        where = self.look.place.describe()
        return MissingFilesError(absent, len(self.cases), where, " ".join(filter(None, hints)))

    def _advice(self, on_missing: OnMissing) -> str:
        """Return what to do about cases without files: options that were not passed yet."""
        skip = 'pass on_missing="skip" (--on-missing skip) to continue without these cases'
        choices = [] if on_missing == "skip" else [skip]
        choices.append("select others with cases=[...] (--case)")
        if self.catalog.cases == self.data_set.read_cases(None).cases:
            path = self._found_split_file() or "PATH"
            choices.append(f"list your own in a split file and pass split_file={path!r} (--split-file)")
        *others, last = choices
        text = f"{', '.join(others)} or {last}" if others else last
        return f"{text[0].upper()}{text[1:]}."

    def _found_split_file(self) -> str | None:
        """Return the path of a file in the folder that has the name of a split file, if there is one."""
        if self.place.folder is None:
            return None
        name = posixpath.basename(self.data_set.split_file)
        # The one in the published layout was looked at when the folder was opened, and does not fit.
        others = (path for path in self.listing if path != self.data_set.split_file)
        found = sorted(path for path in others if posixpath.basename(path) == name)
        return str(self.place.folder / found[0]) if found else None


def open_selection(
    collection: str = DEFAULT,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    repo_id: str | None = None,
    revision: str | None = None,
    split_file: str | os.PathLike[str] | None = None,
    token: str | bool | None = None,
) -> Selection:
    """Return all cases of a data set, and the place with their files. The Hub is not asked yet.

    Args:
        collection: the data set's name.
        data_dir: a folder with raw files in any known layout, instead of the Hub.
        repo_id: a Hub repo (dataset) with them; None for the data set's own.
        revision: its branch, tag or commit; None for "main".
        split_file: split file to use instead of the data set's own (same format).
        token: for a private repo; None for the token you are logged in with.

    Without ``split_file``, the one in the folder is used if the folder lacks files of the data set's own
    cases, and has some of those that it lists, or none of either. A warning says whether it is used. Only if
    there is one is the folder listed.

    Raises:
        ValueError: an argument that is not allowed, or arguments that contradict each other.
        FileNotFoundError: there is no folder at ``data_dir``, or no file at ``split_file``.
        SplitFileError: the split file cannot be read.
    """
    chosen: DataSet = data_set(collection)
    if data_dir is not None and repo_id not in (None, chosen.repo_id):
        raise ValueError(f"data_dir={os.fspath(data_dir)!r} and repo_id={repo_id!r} are two places: give one")
    look = Look(find_place(data_dir, repo_id or chosen.repo_id, revision, token, chosen.how_to_get))
    catalog = load_catalog(collection, split_file=split_file)
    opened = Selection(chosen, catalog, catalog, look)
    if data_dir is None or split_file is not None:
        return opened
    cases = _cases_of_folder(opened)
    return opened if cases is None else Selection(chosen, cases, cases, look)


def _cases_of_folder(opened: Selection) -> Catalog | None:
    """Return the cases of the folder's own split file if the data set's own do not fit.

    They fit if none of them lacks a file. None if they do, or if there is no such split file, or if only the
    data set's own cases have files: where none is left of either, as after the raw files were deleted, the
    folder's list says which they were. A warning says whether the file is used.
    """
    data_set, folder = opened.data_set, opened.look.place.folder
    if folder is None or not (path := folder / data_set.split_file).is_file():
        return None
    try:
        own = data_set.read_cases(path)
    except (SplitFileError, OSError) as error:
        own, problem = None, str(error)
    if own is not None and own.cases == opened.catalog.cases:
        return None
    missing = opened.missing(opened.files(every=True), data_set.kinds)
    if own is None:
        if missing is not None:
            warn(f"{problem} The list of {data_set.title} is used instead of it.", SplitFileWarning)
        return None
    found = {case_id for listed in opened.listing for case_id, _ in data_set.parse_name(listed)}
    there = sum(case.case_id in found for case in opened.catalog)
    every = f"the {len(opened.catalog):,} cases of {data_set.title}"
    advice = "Pass split_file=... (--split-file) to choose a list."
    if missing is not None and (not there or any(one in own for one in found)):
        lacking = len(missing.missing)
        warn(
            f"{path} is used, which lists {own.summary}. Of {every}, {lacking:,} "
            f"{'lacks' if lacking == 1 else 'lack'} files in this folder. {advice}",
            SplitFileWarning,
        )
        return own
    reason = "" if missing is None else ", and none of those that it lists"
    warn(
        f"{path} is not used, which lists {own.summary}. In this folder are files of {there:,} of "
        f"{every}{reason}. {advice}",
        SplitFileWarning,
    )
    return None


def patients_of(selection: Selection) -> dict[str, str | None]:
    """Return the patient of each case, by id: as the catalogue says, or else the folders of its files.

    Raises:
        ValueError: files of a case are in the folders of two patients; or there is no place with files, which
            would say it.
        HubError: the Hub cannot be reached.
    """
    patients = {case.case_id: case.patient for case in selection.cases}
    parse = selection.data_set.parse_patient
    if parse is None or None not in patients.values():
        return patients
    for file in selection.files(every=True):
        case_id, patient = file.case.case_id, parse(file.path)
        if patient is not None and patients[case_id] not in (None, patient):
            raise ValueError(
                f"{file.name}: expected a file of {patients[case_id]}, as others of {case_id} are, found it "
                f"in the folder of {patient}: move it to where it belongs"
            )
        patients[case_id] = patient or patients[case_id]
    return patients


def require_cases(selection: Selection) -> Selection:
    """Return the selection.

    Raises:
        ValueError: it has no cases, so that there is nothing to do.
    """
    if not selection.cases:
        raise ValueError(f"no case is selected: {WHAT_SELECTS}")
    return selection


def require_kinds(data_set: DataSet, *kinds: Kind) -> None:
    """Check that a data set has files of these kinds.

    Raises:
        ValueError: it does not; the message lists those that it has.
    """
    if absent := [kind for kind in kinds if kind not in data_set.kinds]:
        raise ValueError(
            f"collection={data_set.name!r}: expected {' and '.join(kinds)} of each case, found "
            f"{' and '.join(data_set.kinds)}: this cannot be done without {' and '.join(absent)}"
        )


def selected_files(
    selection: Selection, kind: Kind | None = None
) -> tuple[list[RawFile], MissingFilesError | None]:
    """Find the files of the cases, of one kind or of all that there may be, and what is missing.

    Kinds that cases may lack are missing only if they are asked for by name.

    Raises:
        ValueError: the data set has no files of that kind.
        AmbiguousFilesError: several files of one kind for a case.
        HubError: the Hub cannot be reached.
    """
    data_set = selection.data_set
    check_choice("kind", kind, data_set.possible, or_none=True)
    kinds = data_set.possible if kind is None else (kind,)
    files = [file for file in selection.files() if file.kind in kinds]
    return files, selection.missing(files, data_set.kinds if kind is None else kinds)


def case_files(
    selection: Selection, on_missing: OnMissing, kinds: Sequence[Kind] | None = None
) -> tuple[list[CaseFiles], MissingFilesError | None]:
    """Find the files of each case that has all kinds that the data set requires, and what is missing.

    Args:
        selection: the cases.
        on_missing: what to do about a case that lacks a file.
        kinds: only these, of which those that cases may lack are not required; None for all required ones,
            which then must be images and masks.

    Raises:
        ValueError: the data set has no images, or no masks.
        MissingFilesError: a case lacks a file, and ``on_missing`` is "raise" or all cases lack one.
        AmbiguousFilesError: several files of one kind for a case.
        HubError: the Hub cannot be reached.
    """
    if kinds is None:
        require_kinds(selection.data_set, "image", "mask")
        kinds = selection.data_set.kinds
    required = [kind for kind in selection.data_set.kinds if kind in kinds]
    return _complete_cases(selection, on_missing, kinds, required)


def all_files(
    selection: Selection, on_missing: OnMissing, kinds: Sequence[Kind] | None = None
) -> tuple[list[CaseFiles], MissingFilesError | None]:
    """Find the files of each case that has all kinds that are required, and what is missing.

    Args:
        selection: the cases, and where their files are.
        on_missing: as for `case_files`, which has the errors.
        kinds: those required, and no others; None for all of the data set, with those that a case may lack
            where it has them.
    """
    required = selection.data_set.kinds if kinds is None else kinds
    wanted = selection.data_set.possible if kinds is None else kinds
    return _complete_cases(selection, on_missing, wanted, required)


def _complete_cases(
    selection: Selection, on_missing: OnMissing, wanted: Sequence[Kind], required: Sequence[Kind]
) -> tuple[list[CaseFiles], MissingFilesError | None]:
    """Find the files of the wanted kinds of each case that has all required ones, and what is missing."""
    files = [file for file in selection.files() if file.kind in wanted]
    missing = selection.missing(files, required, on_missing)
    complete = [one for one in group_files(files).values() if set(required) <= one.files.keys()]
    if missing and (on_missing == "raise" or not complete):
        raise missing
    return complete, missing
