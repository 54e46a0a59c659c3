"""The builder: from the files of each case to the rows of a `datasets.Dataset`.

Config "3d" has one row per case, "2d" one row per slice, like the published loader; storage is "dense", like
the published loader's, or "compact" (`ctspine1k.storage.feature`):

=============  =======================  ==========================================================
column         type                     what
=============  =======================  ==========================================================
image          float32                  (k, i, j) for 3d, (i, j) for 2d; Hounsfield units
segmentation   int32, with masks        of the same shape; 0 background, then vertebrae (`label_scheme`)
patient_id     string                   the case id
index          int32                    position of the case in its split
slice_index    int32, 2d only           position of the slice in its volume
source         string, ``geometry``     folder name on the Hub, such as "COLONOG"; "" for a case of your own
spacing        float64 x 3, ``geometry``  mm, in the order slice, first, second axis
affine         float64 4 x 4, ``geometry``  of the file: voxel index (i, j, k) -> RAS+ mm
array_affine   float64 4 x 4, ``geometry``  of the volume: array index (k, i, j) -> RAS+ mm
orientation    string, ``geometry``     anatomical direction of slice, first and second axis, such as "SLA"
n_labelled     int64, ``geometry``      number of voxels of the segmentation that are not background
points         list, ``points``         label, name, voxel (k, i, j) and mm of each; None: there is no file
=============  =======================  ==========================================================

`datasets` would replace ``open``, ``os.path``, ``pathlib.Path`` and parts of NumPy inside the module of a
builder; `ctspine1k.rows._datasets` keeps it from doing so.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import re
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, Literal

import datasets
import pyarrow as pa

from ctspine1k._messages import check_choice, check_count, warn
from ctspine1k.catalog.cases import Case, Criterion
from ctspine1k.catalog.dataset import Kind
from ctspine1k.catalog.registry import DEFAULT
from ctspine1k.catalog.vocabulary import LabelScheme
from ctspine1k.errors import CaseError, MissingFilesError, NothingLeftError, UnreadableFileError, VoxelWarning
from ctspine1k.files.raw import CaseFiles
from ctspine1k.files.selection import OnMissing, Selection, case_files, open_selection
from ctspine1k.files.transfer import copied, download, know_token, reading_case
from ctspine1k.rows._datasets import own_errors
from ctspine1k.rows.batches import Batch, case_batches, joined
from ctspine1k.rows.conversions import find_conversion, record_conversion, record_of
from ctspine1k.rows.features import features_of
from ctspine1k.rows.kept import Keeper, kept_name
from ctspine1k.rows.options import (
    ROWS_VERSION,
    Compression,
    Plane,
    PointsChoice,
    Policy,
    RowOptions,
    Spacing,
    Storage,
)
from ctspine1k.rows.room import RoomBuilder
from ctspine1k.rows.shapes import row_counts
from ctspine1k.rows.skipped import read_skipped, record_skipped, warn_skipped
from ctspine1k.running.disk import require_plain_path
from ctspine1k.running.stops import closed_at_exit
from ctspine1k.running.threads import prefetch, usable_threads
from ctspine1k.scans.selecting import select, select_splits
from ctspine1k.volumes.cases import Readable
from ctspine1k.volumes.relabel import Others
from ctspine1k.volumes.slices import OnVoxels

__all__ = ["CTSpine1K", "CTSpine1KConfig"]

_logger = logging.getLogger(__name__)

#: Rows held in memory until they are written. A dense 3d row takes 2 MiB per slice, while the next is read.
_WRITER_BATCH_SIZE = {"3d": 1, "2d": 16}


@dataclass(eq=False)
class CTSpine1KConfig(datasets.BuilderConfig):  # type: ignore[misc]
    """What to load. All but the last four fields are options of ``load_dataset``, on every version."""

    collection: str = DEFAULT  #: the data set's name
    data_revision: str | None = None  #: branch, tag or commit of the Hub repo; None for "main"
    split_file: str | None = None  #: split file to use instead of the data set's own (same format)
    cases: str | Case | Sequence[str | Case] | None = None  #: only these cases
    splits: str | Sequence[str] | None = None  #: only these splits
    source: Criterion = None  #: only cases from this source
    special_case: Criterion = None  #: only cases with this variant of the anatomy
    exclude_issues: Criterion = None  #: leave out cases with such an issue
    has_vertebrae: str | Sequence[str] | None = None  #: only cases that contain all of these
    scan: str | None = None  #: the scan's table of cases, for ``has_vertebrae``
    storage: Storage = "dense"  #: how voxels are kept on disk
    compression: Compression | None = None  #: of compact storage; None for "small"
    image_size: tuple[int, int] | None = None  #: size that every slice must have; see `RowOptions`
    orientation: str | None = None  #: target orientation of the files' axes; None for as stored
    spacing: Spacing | None = None  #: mm along the patient's x, y and z; None for as stored
    plane: Plane | None = None  #: of the slices of "2d"; None for those that are stored
    label_scheme: LabelScheme | None = None  #: what segmentations contain; None for labels as they are
    other_labels: Others = "raise"  #: if a mask has labels that the data set does not have
    geometry: bool = False  #: add the columns `GEOMETRY_COLUMNS`
    points: PointsChoice = None  #: add the column points; None if the data set has points of each case
    on_missing: OnMissing = "raise"  #: if a case has no raw files
    on_error: Policy = "raise"  #: if a case's files cannot be used
    on_geometry: Literal["raise", "warn"] = "warn"  #: if headers leave in doubt where voxels lie
    on_voxels: OnVoxels = "raise"  #: if voxels of an image are NaN or infinite
    verify_files: bool = True  #: look at the raw files; False opens rows that were converted before
    repo: str | None = None  #: ``repo_id``, a name that the base class uses for a script's own repo
    hub_token: str | bool | None = field(default=None, repr=False)
    selection: Selection | None = field(default=None, repr=False)  #: instead of the options that select
    cache_root: str | None = field(default=None, repr=False)  #: the folder with all converted rows

    def create_config_id(self, config_kwargs: dict[str, Any], custom_features: object = None) -> str:
        """Return an id for the cache, made from all that its rows depend on: options, cases, file states."""
        if custom_features is not None:
            raise ValueError("features cannot be replaced: load, then Dataset.cast(features)")
        for option in ("on_missing", "on_error"):
            check_choice(option, getattr(self, option), ("raise", "skip"))
        chosen = self.selected
        if not self.verify_files:
            what = f"{self.name} rows of {' and '.join(chosen.cases.by_split())}"
            place, collection = chosen.look.place.recorded(), chosen.data_set.name
            return find_conversion(str(self.cache_root), collection, self.asked, place, what)
        state = [*self.asked, chosen.fingerprint(self.row_options.kinds)]
        if self.on_missing == "skip":  # the rows then depend on which files exist
            state.append([file.path for file in chosen.files()])
        return f"{self.name}-{hashlib.sha256(json.dumps(state).encode()).hexdigest()[:16]}"

    @property
    def asked(self) -> tuple[dict[str, Any], list[Any]]:
        """The options and the cases."""
        options = {**self.row_options.key(), "on_missing": self.on_missing, "on_error": self.on_error}
        cases = self.selected.cases
        return options, [(case.case_id, case.split, case.index, case.facts.get("source")) for case in cases]

    def kept_name(self, files: CaseFiles) -> str:
        """Return a name for the row of a case in "3d", made from all that it depends on."""
        case, place = files.case, self.selected.place
        states = {kind: place.identity(file) for kind, file in files.files.items()}
        state = [ROWS_VERSION, self.row_options.key(), case.index, case.facts.get("source"), states]
        return kept_name(case.case_id, state)

    @cached_property
    def row_options(self) -> RowOptions:
        """The options that decide what a row contains; errors as for `RowOptions`."""
        keywords = {name: getattr(self, name) for name in RowOptions().keywords()}
        return RowOptions(self.name, **keywords).of(self.selected.data_set)

    @cached_property
    def selected(self) -> Selection:
        """The cases selected, in the order of splits, and where their files are."""
        if self.selection is not None:
            return self.selection
        opened = open_selection(
            self.collection,
            data_dir=self.data_dir,
            repo_id=self.repo,
            revision=self.data_revision,
            split_file=self.split_file,
            token=self.hub_token,
        )
        asked = {name: getattr(self, name) for name in ("source", "special_case", "exclude_issues")}
        criteria = {name: value for name, value in asked.items() if value is not None}
        chosen = select(opened, self.cases, has_vertebrae=self.has_vertebrae, scan=self.scan, **criteria)
        return select_splits(chosen, self.splits)

    @cached_property
    def files(self) -> tuple[list[CaseFiles], MissingFilesError | None]:
        """The files of each case, and what is missing; errors as for `case_files`."""
        return case_files(self.selected, self.on_missing, self.row_options.kinds)


@dataclass(frozen=True)
class _Job:
    """One case to read; its files are local paths, or None when streaming."""

    files: CaseFiles
    paths: Mapping[Kind, str] | None


class CTSpine1K(RoomBuilder):
    """CTSpine1K, or another data set, as volumes ("3d") or as axial slices ("2d")."""

    BUILDER_CONFIG_CLASS = CTSpine1KConfig
    BUILDER_CONFIGS = [  # noqa: RUF012 (the base class's way)
        CTSpine1KConfig(name="3d", version=datasets.Version(ROWS_VERSION), description="one row per case"),
        CTSpine1KConfig(name="2d", version=datasets.Version(ROWS_VERSION), description="one row per slice"),
    ]
    DEFAULT_CONFIG_NAME = "3d"

    #: Of a part of a split: what its record says about all of it.
    whole: Mapping[str, Any] | None = None

    def __init__(
        self,
        cache_dir: str | None = None,
        *,
        config_name: str | None = None,
        repo_id: str | None = None,
        repo: str | None = None,
        base_path: str | None = None,
        token: str | bool | None = None,
        writer_batch_size: int | None = None,
        hash: str | None = None,
        dataset_name: str | None = None,
        **kwargs: Any,
    ) -> None:
        # A script from a Hub repo reads the files of that repo, at the commit that it came from, unless other
        # ones are given: by ``repo``, since `datasets` itself passes the script's repo as ``repo_id``.
        at_commit = re.search(r"/resolve/([^/]+)", base_path or "")
        if at_commit and not repo and kwargs.get("data_dir") is None:
            kwargs["data_revision"] = kwargs.get("data_revision") or at_commit[1]
        check_count("writer_batch_size", writer_batch_size, 1, or_none=True)
        self._threads = 1
        selection = kwargs.get("selection")
        folder = kwargs.get("data_dir") if selection is None else selection.look.place.folder
        if folder is not None:
            require_plain_path("data_dir", folder)
        super().__init__(
            cache_dir=cache_dir,
            config_name=config_name,
            base_path=base_path,
            token=token,
            writer_batch_size=writer_batch_size
            or _WRITER_BATCH_SIZE.get(config_name or self.DEFAULT_CONFIG_NAME),
            # The path of the cache is the same for the script and the library, without a script's hash:
            # config id and version have everything that rows depend on.
            dataset_name=selection.data_set.name if selection else kwargs.get("collection", DEFAULT),
            # `datasets` passes the repo of a script as ``repo_id``, even if a folder is given.
            repo=repo or (None if kwargs.get("data_dir") is not None else repo_id),
            hub_token=token,
            cache_root=str(cache_dir or datasets.config.HF_DATASETS_CACHE),
            **kwargs,
        )

    def _info(self) -> datasets.DatasetInfo:
        config: CTSpine1KConfig = self.config
        data_set = config.selected.data_set
        return datasets.DatasetInfo(
            description=data_set.description,
            features=features_of(config.row_options),
            homepage=data_set.homepage,
            license=data_set.licence_names(config.selected.cases),
            citation=data_set.citations()[0],
        )

    def download_and_prepare(
        self,
        output_dir: str | None = None,
        download_config: datasets.DownloadConfig | None = None,
        download_mode: datasets.DownloadMode | str | None = None,
        verification_mode: datasets.VerificationMode | str | None = None,
        *args: Any,
        **options: Any,
    ) -> None:
        """Convert splits that are not in the cache; warn about the cases that are left out of it.

        Raises:
            ValueError: `datasets` would cut ``output_dir``.
            NoSpaceError: there is not enough room for them, or the disk became full.
        """
        with self.room(output_dir, download_mode, verification_mode), own_errors():
            super().download_and_prepare(
                output_dir, download_config, download_mode, verification_mode, *args, **options
            )
        if reasons := read_skipped(self.filesystem, self.output_dir):
            warn_skipped(reasons, self.output_dir)
        for split in self.info.splits.values():
            if not split.num_examples:
                raise NothingLeftError(split.name, reasons, were_warned=True)

    def names_of(self, job: _Job) -> tuple[str, str]:
        """Return the case id of a job, and a name made from all that its row depends on."""
        return job.files.case.case_id, self.config.kept_name(job.files)

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        config: CTSpine1KConfig = self.config
        if not dl_manager.is_streaming:
            self.clear_leftovers()
            place = config.selected.look.place.recorded()
            record = record_of(config.asked, config.selected.data_set, place, self.whole)
            record_conversion(self.filesystem, self.output_dir, record)
        files, missing = config.files
        if missing:
            for case_id, reason in missing.reasons.items():
                self._skip(case_id, reason, dl_manager.is_streaming)
        if dl_manager.is_streaming:
            jobs = [_Job(one, None) for one in files]
        else:
            every = [file for one in files for file in one.files.values()]
            paths = iter(download(config.selected.look, every))
            jobs = [_Job(one, {kind: str(next(paths)) for kind in one.files}) for one in files]
        of_split: dict[str, list[_Job]] = {}
        for job in jobs:
            of_split.setdefault(job.files.case.split, []).append(job)
        generators = []
        for split, own in of_split.items():
            # With num_proc, `datasets` splits lists among processes: each job has all that its rows need.
            generators.append(datasets.SplitGenerator(name=split, gen_kwargs={"jobs": own}))
            if not dl_manager.is_streaming:  # the total of the progress bar; rows are counted when written
                counts = row_counts([job.files for job in own], config.selected.place, config.row_options)
                generators[-1].split_info.num_examples = sum(counts or [])
        return generators

    def _generate_examples(self, jobs: list[_Job]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield rows for a stream: slice by slice, without reading ahead."""
        return closed_at_exit(self._examples(jobs))

    def _examples(self, jobs: list[_Job]) -> Generator[tuple[str, dict[str, Any]], None, None]:
        for batch in self._batches(jobs, depth=1, is_streaming=True):
            yield from batch.rows()

    def _generate_tables(
        self, jobs: list[_Job], keeper: Keeper | None = None
    ) -> Iterator[tuple[int, pa.Table]]:
        """Yield tables for a conversion."""
        batches = self._batches(jobs, depth=self.rows_at_once, is_streaming=False)
        tables: Iterator[pa.Table] = (batch.table(self.info.features) for batch in batches)
        if self.config.name == "2d":
            tables = joined(tables)
        if self.config.storage == "dense" and self._threads > 1:
            tables = prefetch(tables)  # so that one volume is read while another is written
        for number, table in enumerate(tables if keeper is None else keeper.watched(tables)):
            self.check_needed()  # here, in the main thread: another one may read
            yield number, table
        self.check_needed()

    def _batches(self, jobs: list[_Job], depth: int, is_streaming: bool) -> Iterator[Batch]:
        for job in jobs:
            is_given = False
            try:
                for batch in self._case_batches(job, depth):
                    is_given = True
                    yield batch
            except CaseError as error:
                is_unread = isinstance(error, UnreadableFileError)  # maybe not the case's fault
                if is_given or is_unread or self.config.on_error == "raise":
                    raise
                self._skip(job.files.case.case_id, str(error), is_streaming)

    def _case_batches(self, job: _Job, depth: int) -> Iterator[Batch]:
        config: CTSpine1KConfig = self.config
        with reading_case(job.files), self._opened(job) as files:
            yield from case_batches(
                config.row_options,
                config.selected.data_set.vocabulary,
                job.files.case,
                files,
                depth=depth,
                threads=self._threads,
                check_first=config.on_error == "skip",
                on_change=partial(_note_change, job.files.case.case_id),
            )

    @contextlib.contextmanager
    def _opened(self, job: _Job) -> Iterator[Mapping[Kind, Readable]]:
        if job.paths is not None:
            yield job.paths
            return
        config: CTSpine1KConfig = self.config
        place = config.selected.place
        know_token(place, config.hub_token)  # in a worker of a DataLoader, which was sent this builder
        with contextlib.ExitStack() as stack:
            files: dict[Kind, Readable] = {}
            for kind, file in job.files.files.items():
                # A bad transfer must not be mistaken for a broken case: the file is copied and checked first.
                opened = place.open(file) if config.on_error == "raise" else copied(place, file)
                files[kind] = stack.enter_context(opened)
            yield files

    def _skip(self, case_id: str, reason: str, is_streaming: bool) -> None:
        """Leave a case out: log it at once, and record it beside the shards, or warn if there are none."""
        _logger.warning("%s is left out: %s", case_id, reason)
        if is_streaming:
            warn_skipped({case_id: reason}, "the stream")
        else:
            record_skipped(self.filesystem, self.output_dir, case_id, reason)

    def begin_conversion(self, num_proc: int) -> None:
        """Divide the cores among the processes that convert."""
        self._threads = usable_threads(num_proc)


def _note_change(case_id: str, change: str) -> None:
    """Log what was changed in the voxels of a case, and warn about it."""
    _logger.warning("%s: %s", case_id, change)
    warn(change, VoxelWarning)
