"""Pictures of many cases: read one after the other, drawn, and written to files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from ctspine1k._messages import warn
from ctspine1k.catalog.cases import Case
from ctspine1k.errors import (
    CaseError,
    ChecksumError,
    GeometryWarning,
    MissingFilesError,
    NothingLeftError,
    SkippedCasesWarning,
)
from ctspine1k.files.raw import CaseFiles
from ctspine1k.files.selection import Selection, all_files, require_cases
from ctspine1k.files.transfer import fetch_case, progress_on_terminal, reading_case
from ctspine1k.pictures.canvas import check_picture_name, require_replaceable_picture, save_picture
from ctspine1k.pictures.figures import preview
from ctspine1k.pictures.sheet import contact_sheet
from ctspine1k.running.disk import make_parent
from ctspine1k.running.progress import progress_bar
from ctspine1k.running.threads import usable_threads
from ctspine1k.volumes.cases import open_case
from ctspine1k.volumes.points import check_reading, read_case_points
from ctspine1k.volumes.relabel import Others, check_others

__all__ = ["draw_cases"]


def draw_cases(
    selection: Selection,
    out: Path | None = None,
    *,
    sheet: bool = False,
    reading: str | None = None,
    other_labels: Others = "raise",
) -> Iterator[Path]:
    """Draw cases, and yield the path of each picture after it is written.

    If there are several cases, those that cannot be drawn are left out with a warning.

    Args:
        selection: the cases, and where their files are.
        out: the picture, or the folder for several; None for CASE.png, "previews" or "sheet.png".
        sheet: draw all cases into one picture.
        reading: how coordinates in files of points are meant, as for `read_points`.
        other_labels: of masks, that the data set does not have: "raise" an error, or draw "background".

    Raises:
        ValueError: no case is selected; ``out`` names one picture, but there are several; its suffix is not
            supported; or another ``reading`` or ``other_labels``.
        MissingFilesError: no case has all files that it must have.
        NothingLeftError: none of several cases can be drawn.
        CaseError, ChecksumError: the only case cannot be used.
        HubError: the Hub cannot be reached.
        NoSpaceError: a disk is full.
        OutputError: something else than a picture of ours is where one would be written, or a file is in the
            place of their folder.
        MissingPackageError: pictures need ``ctspine1k[preview]``.
    """
    check_reading(reading, selection.data_set)
    check_others(other_labels, selection.data_set)
    cases = list(require_cases(selection).cases)
    samples, vocabulary = _read_all(selection, reading, other_labels), selection.data_set.vocabulary
    targets = _targets([case.case_id for case in cases], out, sheet=sheet)
    for path in targets.values():
        require_replaceable_picture(path)
    if sheet:
        (path,) = targets.values()
        make_parent(path)
        save_picture(contact_sheet(samples, vocabulary=vocabulary), path)
        yield path
        return
    for case, sample in samples:
        path = targets[case.case_id]
        make_parent(path)  # with the first picture
        save_picture(preview(sample, case=case, vocabulary=vocabulary), path)
        yield path


def _targets(case_ids: Sequence[str], out: Path | None, *, sheet: bool) -> dict[str, Path]:
    """Return the path of each case's picture, by its id; that of a sheet is the only one."""
    if sheet:
        return {"": check_picture_name(out or Path("sheet.png"))}
    if len(case_ids) == 1:
        return {case_ids[0]: check_picture_name(out or Path(f"{case_ids[0]}.png"))}
    if out is not None and out.suffix and not out.is_dir():
        hint = "For one picture of all cases, pass sheet=True (--sheet)."
        raise ValueError(f"{out}: expected a folder, as there are several pictures. {hint}")
    return {case_id: (out or Path("previews")) / f"{case_id}.png" for case_id in case_ids}


def _read_all(
    selection: Selection, reading: str | None, other_labels: Others
) -> Iterator[tuple[Case, Mapping[str, Any]]]:
    """Yield cases with their volumes; if there are several, leave out those that cannot be used."""
    is_one = len(selection.cases) == 1
    files, missing = _complete(selection)
    skipped: dict[str, str] = {}
    selection.look.prepare([file for one in files for file in one.files.values()])
    if missing:
        warn(missing.summary, SkippedCasesWarning)
        skipped |= missing.reasons
    with nullcontext() if is_one else progress_bar("Drawing", len(files), "case") as bar:
        for one in files:
            try:
                # No variable keeps it while the next one is read.
                yield one.case, _read(selection, one, reading, other_labels)
            except (CaseError, ChecksumError) as error:
                if is_one:
                    raise
                skipped[one.case.case_id] = str(error)
                warn(f"{one.case.case_id} is left out: {error}", SkippedCasesWarning)
            if bar is not None:
                bar.update()
    if len(skipped) == len(selection.cases):
        raise NothingLeftError("the pictures", skipped, were_warned=True)


def _complete(selection: Selection) -> tuple[list[CaseFiles], MissingFilesError | None]:
    try:
        return all_files(selection, "skip")
    except MissingFilesError as error:
        hint = "Select cases that have files: `ctspine1k list --files` lists them."
        raise MissingFilesError(error.missing, error.selected, error.where, hint) from None


def _read(
    selection: Selection, files: CaseFiles, reading: str | None, other_labels: Others
) -> Mapping[str, Any]:
    """Return a case as a row of config "3d" with its points, of those of its files that there are."""
    data_set = selection.data_set
    with progress_on_terminal():
        paths = fetch_case(selection.place, files)
    with (
        reading_case(files),
        open_case(
            paths["image"],
            paths.get("mask"),
            on_geometry=None,
            on_voxels="replace",
            vocabulary=data_set.vocabulary,
            other_labels=other_labels,
            threads=usable_threads(),
        ) as case,
    ):
        # Not by ``on_geometry``, whose warning advises to use that option. Pictures say which side is which.
        if problems := case.geometry_problems(by_place=True):
            warn("\n".join(map(str, problems)), GeometryWarning)
        geometry = case.geometry
        points = read_case_points(paths, geometry, data_set.vocabulary, data_set.points_format, reading)
        volumes = vars(case.read()) if case.has_mask else {"image": case.read_image()}
    place = {"spacing": geometry.spacing, "orientation": geometry.orientation, "points": points}
    return {**volumes, **place}
