"""The front door: cases of a data set and where their files are, with verbs for them.

::

    spine = ctspine1k.open_collection(data_dir="raw")     # without data_dir: from the Hub
    train = spine.where(split="train", exclude_issues="reported")
    train.load("3d", storage="compact")
    train.scan()
    train.export_parquet("out")

Each verb is a few lines that import and call one function of one room. Those that load, judge, export or
compute points are in the modules `verbs` of their rooms.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctspine1k.catalog.cases import Case, Catalog, Criterion
from ctspine1k.catalog.dataset import DataSet, Kind
from ctspine1k.catalog.registry import DEFAULT
from ctspine1k.checks.verbs import PointVerbs
from ctspine1k.evaluation.verbs import EvaluationVerbs
from ctspine1k.exports.verbs import ExportVerbs
from ctspine1k.files.places import Place, find_folder
from ctspine1k.files.raw import RawFile
from ctspine1k.files.selection import (
    Look,
    OnMissing,
    Selection,
    open_selection,
    require_kinds,
    selected_files,
)
from ctspine1k.rows.verbs import RowVerbs
from ctspine1k.scans.selecting import select

if TYPE_CHECKING:
    from ctspine1k.catalog.patients import OnUnknown
    from ctspine1k.checks.scan import ScanReport
    from ctspine1k.checks.verify import Report
    from ctspine1k.evaluation.results import Evaluation
    from ctspine1k.files.transfer import DownloadPlan
    from ctspine1k.volumes.relabel import Others
    from ctspine1k.volumes.slices import OnVoxels

__all__ = ["Collection", "open_collection"]


@dataclass(frozen=True)
class Collection(RowVerbs, PointVerbs, EvaluationVerbs, ExportVerbs):
    """Cases of a data set, in its order, and where their files are.

    It stores no listing: each verb lists the files when it is called, and so sees the current ones.
    """

    data_set: DataSet
    catalog: Catalog  #: all cases of the split file
    cases: Catalog  #: those selected
    place: Place  #: a folder or a Hub repo

    def __len__(self) -> int:
        return len(self.cases)

    def __iter__(self) -> Iterator[Case]:
        return iter(self.cases)

    def __contains__(self, case_id: object) -> bool:
        return case_id in self.cases

    def __getitem__(self, case_id: str) -> Case:
        """Return a case by its id; an unknown id raises `UnknownCaseError`, which names similar ones."""
        return self.cases[case_id]

    def __repr__(self) -> str:
        return f"Collection({self._title})"

    def _repr_html_(self) -> str:
        return self.cases.html(self._title)

    @property
    def _title(self) -> str:
        return f"{self.data_set.title}, {self.cases.summary}; {self.place.describe()}"

    def where(
        self,
        *,
        has_vertebrae: str | Sequence[str] | None = None,
        scan: str | os.PathLike[str] | None = None,
        **criteria: Criterion,
    ) -> Collection:
        """Keep the cases that meet all criteria, in the same order.

        Args:
            has_vertebrae: names of vertebrae that a case must contain, all of them, as a scan has found.
                Cases without files are kept: reading them raises the error. So are those that the scan could
                not use, with a warning.
            scan: the scan's table of cases; None for ``cases.parquet`` in the folder, or, for the Hub, in the
                working directory.
            criteria: facets of the data set, such as ``split="train"``, with values as for `Catalog.where`.

        Raises:
            ValueError, TypeError: a value that is not allowed, or no such facet.
            ScanTableError: there is no such table, or it does not cover all files that are there.
        """
        chosen = select(self.selection(), None, has_vertebrae=has_vertebrae, scan=scan, **criteria)
        return replace(self, cases=chosen.cases)

    def select(self, cases: str | Case | Iterable[str | Case]) -> Collection:
        """Keep the cases named, by id or as `Case`, in order; an unknown one raises `UnknownCaseError`."""
        return replace(self, cases=self.cases.select(cases))

    def with_masks(self, folder: str | os.PathLike[str]) -> Collection:
        """Return the same cases with predicted masks instead of the data set's own, for every verb.

        Tables of a scan are then in that folder, if ``scan`` or ``out`` does not say otherwise.

        Args:
            folder: where the masks are, named as `ctspine1k.files.predictions` lists: nnU-Net's
                ``<case_id>.nii.gz`` is a mask there, and not an image.

        Raises:
            ValueError: the data set has no masks.
            FileNotFoundError: there is no such folder.
        """
        from ctspine1k.files.predictions import PredictionsPlace

        require_kinds(self.data_set, "mask")
        images = self.place.images if isinstance(self.place, PredictionsPlace) else self.place
        return replace(self, place=PredictionsPlace(images, find_folder(folder, "folder", "masks")))

    def split_by_patient(
        self, fractions: Sequence[float], *, seed: int = 0, on_unknown: OnUnknown = "raise"
    ) -> list[Collection]:
        """Split the cases at random, so that all cases of a patient are in the same part.

        Arguments and errors are as for `Catalog.split_by_patient`. Where the catalogue does not know the
        patients of a data set, the names of the folders with its files do.
        """
        from ctspine1k.catalog.patients import parts_by_patient
        from ctspine1k.files.selection import patients_of

        parts = parts_by_patient(patients_of(self.selection()), fractions, seed, on_unknown)
        return [self.select(part) for part in parts]

    def files(self, kind: Kind | None = None) -> list[RawFile]:
        """List the raw files of the cases, without reading any.

        Args:
            kind: "image", "mask" or "points"; None for all that cases of the data set may have.

        Returns:
            The files that are there, in the order of cases: image, mask, points. Offline
            (``HF_HUB_OFFLINE=1`` or ``HF_DATASETS_OFFLINE=1``) these are the files in the Hub's local cache.

        Raises:
            ValueError: a kind that the data set does not have.
            AmbiguousFilesError: several files for one image or mask.
            HubError: the Hub cannot be reached, or has no such repo or revision.
        """
        return selected_files(self.selection(), kind)[0]

    def download(
        self,
        kind: Kind | None = None,
        *,
        on_missing: OnMissing = "raise",
        to: str | os.PathLike[str] | None = None,
        link: bool = False,
    ) -> list[Path]:
        """Download raw files to the Hub's local cache and check them; cached files are not fetched again.

        An interrupted transfer resumes where it stopped. Size and sha256 of each file are compared with the
        Hub's record, even if it was in the cache before.

        Args:
            kind: as for `files`. Files that a case may lack are only missing if they are asked for.
            on_missing: "raise" if a file is not there, or "skip" it with a warning.
            to: a folder to copy them to, in the published layout; what is there is kept.
            link: make symbolic links in ``to`` instead of copies.

        Returns:
            Local paths, in the order of `files`. Write to copies only: other files belong to the cache.

        Raises:
            ValueError: an argument that is not allowed, such as ``to`` with which new copies would be in the
                folder that has the files.
            MissingFilesError: a file is not there, and ``on_missing`` is "raise".
            OutputError: other files are where copies should be. Then nothing is downloaded or copied.
            NoSpaceError: they do not fit on the disk.
            ChecksumError: a file differs from the Hub's record.
            HubError: the Hub cannot be reached, or has no such repo or revision.
        """
        from ctspine1k.files.copies import download_to

        return download_to(self.selection(), kind, on_missing, to=None if to is None else Path(to), link=link)

    def plan_download(self, kind: Kind | None = None) -> DownloadPlan:
        """Return what `download` would do; errors as there, but missing files are part of the plan."""
        from ctspine1k.files.transfer import plan_download

        return plan_download(self.selection(), kind)

    def scan(
        self,
        out: str | os.PathLike[str] | None = None,
        *,
        reading: str | None = None,
        other_labels: Others = "raise",
        on_voxels: OnVoxels = "raise",
        num_proc: int = 1,
        scheduler: str | None = None,
        on_missing: OnMissing = "raise",
    ) -> ScanReport:
        """Measure cases and vertebrae, and write two tables: `ctspine1k.scans.tables` lists their columns.

        A case whose files cannot be used has a row that says why. A stopped scan resumes where it was.
        Existing tables are updated: cases that they contain, and that are not selected, stay. What was
        measured with other options, which give something else, is measured again.

        Args:
            out: the table of cases; that of vertebrae is ``NAME.vertebrae.parquet`` beside it. None for
                ``cases.parquet`` in the folder, or, for the Hub, in the working directory.
            reading: how coordinates in files of points are meant, as for `points`.
            other_labels: if a mask has labels that the data set does not have: with "raise" the case cannot
                be used; "background" measures it without them, and notes them in the table.
            on_voxels: the same for NaN and infinite voxels of an image: "raise", or "replace" them as
                `load_dataset` does, and note how many.
            num_proc: processes that measure; each needs up to 0.4 GB. If there are several, each imports the
                calling script, which therefore needs ``if __name__ == "__main__":``.
            scheduler: the address of a Dask scheduler, such as "tcp://node1:8786", or its scheduler file: its
                workers measure instead of processes of this machine.
            on_missing: what to do about cases without raw files: "raise" an error, or "skip" them with a
                warning.

        Raises:
            ValueError: an argument that is not allowed.
            MissingFilesError: cases have no raw files, and ``on_missing`` is "raise" or none has.
            OutputError: there is a file at ``out`` that no scan wrote.
            BusyError: another process is writing there.
            NoSpaceError: a disk is full; what is done is kept.
            MissingPackageError: SciPy, or for a scheduler Dask, is not installed.
            WorkerError: a worker process died, or the scheduler is lost; what is done is kept.
            HubError: the Hub cannot be reached; what is done is kept.
        """
        from ctspine1k.checks.scan import scan

        options: dict[str, Any] = {"num_proc": num_proc, "scheduler": scheduler, "on_missing": on_missing}
        options |= {"reading": reading, "other_labels": other_labels, "on_voxels": on_voxels}
        return scan(self.selection(), None if out is None else Path(out), **options)

    def verify(
        self,
        scan: str | os.PathLike[str] | None = None,
        *,
        reread: bool = False,
        reading: str | None = None,
        other_labels: Others = "raise",
        on_voxels: OnVoxels = "raise",
        num_proc: int = 1,
        scheduler: str | None = None,
    ) -> Report:
        """Check the raw files: all of `ctspine1k.checks.verify.CHECKS`.

        Every file is read to its end, except those that a scan has read, with options that give the same, and
        that have not changed since; measures are stored as a scan stores them.

        Args:
            scan: the scan's table of cases, as for `where`. If it cannot be written, a warning says so.
            reread: read every file again, even if a scan has read it.
            reading: how coordinates in files of points are meant, as for `points`.
            other_labels: labels in masks that the data set does not have: "raise" finds them (``values``),
                "background" checks masks without them.
            on_voxels: NaN and infinite voxels of an image: "raise" finds them (``values``), "replace" finds
                them as a warning (``padded``), and checks the case with -1024 HU in their place.
            num_proc: processes that read, as for `scan`.
            scheduler: a Dask scheduler, whose workers read instead, as for `scan`.

        Raises:
            ValueError: an argument that is not allowed, or no case is selected.
            MissingPackageError: SciPy, or for a scheduler Dask, is not installed.
            WorkerError: a worker process died, or the scheduler is lost.
            HubError: the Hub cannot be reached.
        """
        from ctspine1k.checks.verify import verify

        options: dict[str, Any] = {"reread": reread, "num_proc": num_proc, "scheduler": scheduler}
        options |= {"reading": reading, "other_labels": other_labels, "on_voxels": on_voxels}
        return verify(self.selection(), None if scan is None else Path(scan), **options)

    def preview(
        self,
        out: str | os.PathLike[str] | None = None,
        *,
        sheet: bool = False,
        reading: str | None = None,
        other_labels: Others = "raise",
    ) -> list[Path]:
        """Draw cases with their labels, and return the paths of the pictures.

        If there are several cases, those that cannot be drawn are left out with a warning.

        Args:
            out: the picture, or the folder for several; None for CASE.png, "previews" or "sheet.png".
            sheet: draw all cases into one picture.
            reading: how coordinates in files of points are meant, as for `points`.
            other_labels: as for `load_dataset`.

        Raises:
            ValueError: ``out`` names one picture, but there are several; its suffix is not supported; or an
                argument that is not allowed.
            MissingFilesError: no case has image and mask.
            NothingLeftError: none of several cases can be drawn.
            CaseError, ChecksumError: the only case cannot be used.
            HubError: the Hub cannot be reached.
            OutputError: something else than a picture of ours is where one would be written, or it cannot be.
            NoSpaceError: a disk is full.
            MissingPackageError: pictures need ``ctspine1k[preview]``.
        """
        from ctspine1k.pictures.previews import draw_cases

        options: dict[str, Any] = {"sheet": sheet, "reading": reading, "other_labels": other_labels}
        return list(draw_cases(self.selection(), None if out is None else Path(out).expanduser(), **options))

    def check_pictures(self, out: Path) -> None:
        """Check that nothing else is where `draw_scores` would draw."""
        from ctspine1k.pictures.scores import check_pictures

        if importlib.util.find_spec("matplotlib") is not None:
            check_pictures(out)

    def draw_scores(self, evaluation: Evaluation, out: Path) -> list[tuple[str, str]]:
        """Draw the pictures of an evaluation; without matplotlib, there are none."""
        from ctspine1k.evaluation.table import SHARES
        from ctspine1k.evaluation.worst import worst_cases
        from ctspine1k.pictures.scores import draw_scores

        if importlib.util.find_spec("matplotlib") is None:
            return []
        return draw_scores(
            out,
            evaluation.main,
            evaluation.main in SHARES,
            evaluation.values_by_vertebra(),
            evaluation.confusion(),
            worst_cases(self.selection(), evaluation),
            evaluation.label_names,
        )

    def selection(self) -> Selection:
        """Return the cases with a new look at the place; each verb makes one and passes it to its room."""
        return Selection(self.data_set, self.catalog, self.cases, Look(self.place))


def open_collection(
    name: str = DEFAULT,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    repo_id: str | None = None,
    revision: str | None = None,
    split_file: str | os.PathLike[str] | None = None,
    token: str | bool | None = None,
) -> Collection:
    """Return all cases of a data set, with verbs for them. No image is read and no request is made yet.

    Args:
        name: the data set's name; the default is CTSpine1K.
        data_dir: a folder with raw files in any known layout, instead of the Hub.
        repo_id: a Hub repo (dataset) with them; None for the data set's own.
        revision: its branch, tag or commit; None for "main".
        split_file: split file to use instead of the data set's own (same format). None for the one in
            ``data_dir``, with a warning, if that folder has one and lacks files of the data set's own cases.
        token: for a private repo; None for the token you are logged in with. It is passed only to worker
            processes of this machine; workers of a cluster use the token that is logged in there.

    Raises:
        ValueError: an argument that is not allowed, or arguments that contradict each other.
        FileNotFoundError: there is no folder at ``data_dir``, or no file at ``split_file``.
        SplitFileError: the split file cannot be read.
    """
    opened = open_selection(
        name, data_dir=data_dir, repo_id=repo_id, revision=revision, split_file=split_file, token=token
    )
    return Collection(opened.data_set, opened.catalog, opened.cases, opened.look.place)
