"""The verbs of a collection that are about points.

Each imports what it needs when it is called: a collection is opened without NumPy.
"""

from __future__ import annotations

import abc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ctspine1k.catalog.cases import Case
    from ctspine1k.files.selection import OnMissing, Selection
    from ctspine1k.volumes.points import Points, PointsKind
    from ctspine1k.volumes.relabel import Others

    class PointsOptions(TypedDict, total=False):
        """Options of `PointVerbs.points`."""

        reading: str | None
        other_labels: Others
        num_proc: int
        scheduler: str | None
        on_missing: OnMissing
        on_error: OnMissing


__all__ = ["PointVerbs"]


class PointVerbs(abc.ABC):
    """Verbs of `ctspine1k.Collection`."""

    @abc.abstractmethod
    def selection(self) -> Selection:
        """Return the cases with a new look at the place."""

    def points(
        self,
        kind: PointsKind,
        *,
        reading: str | None = None,
        other_labels: Others = "raise",
        num_proc: int = 1,
        scheduler: str | None = None,
        on_missing: OnMissing = "raise",
        on_error: OnMissing = "raise",
    ) -> Iterator[tuple[Case, Points]]:
        """Yield each case with one point for each of its vertebrae, as soon as it is read.

        Voxels are those of the image as stored, (k, i, j); `Points.on` brings them into another array. Of the
        image only the header is read; from the Hub, its file is downloaded.

        Args:
            kind: "file" for the points of the data set; or computed from masks, "mask" for the centre of each
                vertebra's whole mask, "body" for that of its body, the part in front of the spinal canal
                (`ctspine1k.volumes.bodies` says how it is found). Kinds differ by centimetres, and are
                never mixed: a case without a file with points is missing for "file".
            reading: how coordinates in files are meant, as for `read_points`; None for the way that fits.
            other_labels: labels in masks that the data set does not have: "raise" an error, or read them as
                "background".
            num_proc: processes that read, as for `scan`; if there are several, cases come in any order.
            scheduler: a Dask scheduler, whose workers read instead, as for `scan`.
            on_missing: what to do about cases without files: "raise" an error, or "skip" them with a warning.
            on_error: the same for cases whose files cannot be used.

        Raises:
            ValueError: an argument that is not allowed, or the data set has no such files.
            MissingFilesError: cases lack files, and ``on_missing`` is "raise" or all lack them.
            CaseError, ChecksumError: a case's files cannot be used, and ``on_error`` is "raise".
            MissingPackageError: SciPy, which computes points, is not installed, or a scheduler needs
                ``ctspine1k[cluster]``.
            WorkerError: a worker process died, or the scheduler is lost.
            HubError: the Hub cannot be reached.
        """
        from ctspine1k.checks.points import points_of_cases

        options: dict[str, Any] = {"on_missing": on_missing, "on_error": on_error}
        options |= {"num_proc": num_proc, "scheduler": scheduler}
        options |= {"reading": reading, "other_labels": other_labels}
        return points_of_cases(self.selection(), kind, **options)

    def write_points(
        self, out: str | os.PathLike[str], kind: PointsKind, **options: Unpack[PointsOptions]
    ) -> list[Path]:
        """Write `points` as VerSe's JSON, a file for each case, and return the paths.

        Files that were written before, of the same kind, are replaced.

        Args:
            out: the folder; files are named CASE_ctd.json.
            kind: as for `points`.
            options: the others of `points`, which has the other errors.

        Raises:
            ValueError: ``out`` is in the folder of the raw files.
            OutputError: there are points of another kind in the folder, or files that are not ours.
        """
        from ctspine1k.checks.points import write_points_of_cases

        return list(write_points_of_cases(self.selection(), Path(out).expanduser(), kind, **options))
