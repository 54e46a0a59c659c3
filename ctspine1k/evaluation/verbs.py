"""The verb of a collection that judges predictions. It imports what it needs when it is called."""

from __future__ import annotations

import abc
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from typing_extensions import Unpack

    from ctspine1k.evaluation.centroids import Point
    from ctspine1k.evaluation.results import Evaluation
    from ctspine1k.files.selection import OnMissing, Selection
    from ctspine1k.volumes.points import Points
    from ctspine1k.volumes.relabel import Others

__all__ = ["EvaluationKeywords", "EvaluationVerbs"]


class EvaluationKeywords(TypedDict, total=False):
    """Options of `EvaluationVerbs.evaluate`, each with its default there."""

    label_scheme: str | None
    numbering: Literal["own", "totalsegmentator"]
    other_labels: Others
    resample: Literal["nearest"] | None
    reading: str | None
    truncated: Literal["keep", "drop"]
    distances: bool
    on_missing: OnMissing
    miss_penalty_mm: float | None
    seed: int
    sacrum: bool


class EvaluationVerbs(abc.ABC):
    """Verbs of `ctspine1k.Collection`."""

    @abc.abstractmethod
    def selection(self) -> Selection:
        """Return the cases with a new look at the place."""

    @abc.abstractmethod
    def check_pictures(self, out: Path) -> None:
        """Raise an `OutputError` if something else is where `draw_scores` would draw."""

    @abc.abstractmethod
    def draw_scores(self, evaluation: Evaluation, out: Path) -> list[tuple[str, str]]:
        """Draw the pictures of an evaluation into its folder; return their names, and what they show."""

    def evaluate(
        self,
        predictions: str
        | os.PathLike[str]
        | Mapping[str, NDArray[Any]]
        | Mapping[str, Points | Mapping[int, Point]]
        | Iterable[tuple[str, NDArray[Any]]]
        | Iterable[tuple[str, Points | Mapping[int, Point]]],
        out: str | os.PathLike[str] | None = None,
        *,
        points: Literal["body", "mask"] | None = None,
        preset: str | None = None,
        num_proc: int = 1,
        scheduler: str | None = None,
        **options: Unpack[EvaluationKeywords],
    ) -> Evaluation:
        """Judge predicted masks or points against those of the cases, by a published protocol.

        It goes over the reference: a case that was not predicted is a failure, and its vertebrae are missed.
        All measures are taken in one pass, so that `Evaluation.by` gives any other protocol at once.

        Args:
            predictions: a folder with masks, named as `ctspine1k.files.predictions` lists; or pairs of case
                id and array, whole numbers of shape (k, i, j) on the grid of the reference. With ``points``,
                a folder with points files, named as `ctspine1k.files.predicted_points` lists, or if there are
                none, with masks, whose points are computed; a CSV file (`ctspine1k.volumes.points_table`); or
                pairs of case id and points, `Points` or RAS+ mm by label. A mapping is its pairs.
            out: a folder for ``cases.csv``, ``report.md``, ``summary.json`` and pictures. A stopped run
                resumes there, and a second one judges only what has changed. None writes nothing.
            points: None to compare masks, or the kind of points to compare: "body", the centres of vertebral
                bodies, or "mask", centres of mass. It is the kind of the predictions, and of the reference,
                too: for "body" the data set's own files of points, where it has them, else computed from
                masks, as for "mask".
            preset: the protocol (`ctspine1k.evaluation.presets`): "ctspine1k", "nnunet", "verse", "msr" or
                "totalsegmentator"; None for "ctspine1k", or for points "verse".
            num_proc: processes that judge; each needs 0.3 GB for a spine in 1,000 slices, and more if labels
                fill the volume.
            scheduler: a Dask scheduler, whose workers judge instead; both as for `scan`.
            options: ``label_scheme``, in which both sides are compared; ``numbering`` of predictions, "own"
                or "totalsegmentator" for that of its task "total"; ``other_labels``, for labels in masks of
                the reference or of predictions that the data set does not have, or that have no number in the
                label scheme, such as T13 in that of CTSpine1K: "raise", which stops at a reference and fails
                a prediction, or "background" on both sides; ``resample``, "nearest" for predictions on
                another grid, which is an error else; ``reading``, how coordinates in files of points are
                meant, as for `ctspine1k.volumes.points.read_points`: in ``.lml`` on both sides, in JSON of
                predictions only; None for the way that fits; ``truncated``, "drop" to leave out vertebrae in
                the first or last axial slice of the reference, however it is stored, and predicted ones there
                that it does not have; ``distances``, False for overlap alone, which takes a fraction of the
                time; ``on_missing`` reference masks, "raise" or "skip"; ``miss_penalty_mm``, what a missed
                vertebra counts as in means of distances; ``seed`` of the intervals; ``sacrum``, True for S1
                and S2 to count by the preset "msr", too.

        Returns:
            The scores and their means. Cases whose predictions cannot be used are in ``failed``.

        Raises:
            ValueError: an argument that is not allowed, or the data set has no such reference.
            MissingFilesError: a case has no reference, and ``on_missing`` is "raise".
            AmbiguousFilesError: several predictions for one case.
            CaseError, ChecksumError: a reference, or a CSV file of points, cannot be used.
            PointsError: points that are known to be of another kind.
            OutputError: ``out`` has other files than results, or other pictures under their names.
            BusyError: another process is writing there.
            NoSpaceError: a disk is full; what is done is kept.
            MissingPackageError: SciPy, or for a scheduler Dask, is not installed.
            WorkerError: a worker process died, or the scheduler is lost; what is done is kept.
            HubError: the Hub cannot be reached; what is done is kept.
        """
        from ctspine1k.evaluation.presets import default_preset
        from ctspine1k.evaluation.run import EvaluationOptions, evaluate
        from ctspine1k.evaluation.scoring import ScoringOptions

        values: dict[str, Any] = dict(options)
        names = ScoringOptions.__dataclass_fields__
        scoring = ScoringOptions(
            points=points, **{name: values.pop(name) for name in list(values) if name in names}
        )
        folder = None if out is None else Path(out).expanduser()
        if folder is not None:
            self.check_pictures(folder)  # before hours of work
        given: Any = predictions.items() if isinstance(predictions, Mapping) else predictions
        preset = preset or default_preset(is_of_masks=points is None)
        return evaluate(
            self.selection(),
            Path(given) if isinstance(given, (str, os.PathLike)) else given,
            folder,
            EvaluationOptions(
                preset=preset, num_proc=num_proc, scheduler=scheduler, scoring=scoring, **values
            ),
            self.draw_scores,
        )
