"""Pictures of many cases: read one after the other, drawn, and written to files."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from ctspine1k.catalog.cases import Case
from ctspine1k.errors import (
    CaseError,
    ChecksumError,
    HubError,
    MissingFilesError,
    NoSpaceError,
    NothingLeftError,
    SkippedCasesWarning,
)
from ctspine1k.files.selection import pair_files
from ctspine1k.files.sources import Source, progress_on_terminal
from ctspine1k.pictures.figures import check_picture_name, contact_sheet, preview, save_picture
from ctspine1k.running.disk import make_parent
from ctspine1k.running.progress import progress_bar
from ctspine1k.volumes.cases import VolumePair, read_pair

__all__ = ["draw_cases"]


def draw_cases(
    cases: Sequence[Case], source: Source, out: Path | None = None, *, sheet: bool = False
) -> Iterator[Path]:
    """Draw cases, and yield the path of each picture when it is there.

    Of several cases, those that cannot be drawn are passed over with a warning.

    Args:
        cases: at least one.
        source: where their files are.
        out: the picture, or for several their folder; None for CASE.png, "previews" or "sheet.png".
        sheet: whether all are drawn into one picture.

    Raises:
        ValueError: ``out`` is one picture, where there are several; or of a kind that cannot be drawn.
        MissingFilesError: no case has image and mask.
        NothingLeftError: of several cases none can be drawn.
        CaseError: the only case cannot be used; where its files cannot be read, or are not what the Hub
            says, the error of that.
        HubError: the Hub cannot be reached.
        NoSpaceError: a disk is full.
        MissingPackageError: pictures need ``ctspine1k[preview]``.
    """
    samples = _read_all(cases, source)
    if sheet:
        path = check_picture_name(out or Path("sheet.png"))
        make_parent(path)
        save_picture(contact_sheet(samples), path)
        yield path
        return
    if len(cases) == 1:
        path = check_picture_name(out or Path(f"{cases[0].case_id}.png"))
    elif out is not None and out.suffix:
        raise ValueError(f"{out}: expected a folder, as there are several pictures; or ask for a sheet")
    for case, pair in samples:
        if len(cases) > 1:
            path = (out or Path("previews")) / f"{case.case_id}.png"
        make_parent(path)  # with the first picture
        save_picture(preview(pair, case=case), path)
        yield path


def _read_all(cases: Sequence[Case], source: Source) -> Iterator[tuple[Case, VolumePair]]:
    is_one = len(cases) == 1
    skipped: dict[str, str] = {}
    try:
        pairs, missing = pair_files(source, cases, "skip")
    except MissingFilesError as error:
        hint = "Ask for cases that are there: `ctspine1k list --files` names them."
        raise MissingFilesError(error.missing, error.selected, error.where, hint) from None
    if missing:
        warnings.warn(missing.summary, SkippedCasesWarning, stacklevel=4)
        skipped |= missing.reasons
    with contextlib.ExitStack() as shown:
        bar = None if is_one else shown.enter_context(progress_bar("Drawing", len(pairs), "case"))
        for files in pairs:
            try:
                with progress_on_terminal():
                    image, mask = source.fetch([files.image, files.mask])
                yield files.case, read_pair(image, mask)  # not held here, while the next one is read
            except (HubError, NoSpaceError):
                raise
            except (CaseError, ChecksumError, OSError) as error:
                if is_one:
                    raise
                case_id = files.case.case_id
                skipped[case_id] = str(error)
                warnings.warn(f"{case_id} is left out: {error}", SkippedCasesWarning, stacklevel=4)
            if bar is not None:
                bar.update()
    if len(skipped) == len(cases):
        raise NothingLeftError("the pictures", skipped)
