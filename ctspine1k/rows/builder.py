"""The builder: from the files of each case to the rows of a `datasets.Dataset`.

Config "3d" gives one row a case, "2d" one row an axial slice, both as the published loader did, in storage
that is "dense" as it had it, or "compact" (`ctspine1k.storage.feature`):

=============  =======================  ==========================================================
column         type                     what
=============  =======================  ==========================================================
image          float32                  (k, i, j) for 3d, (i, j) for 2d; Hounsfield units
segmentation   int32                    of the same shape; 0 background, 1-25 vertebrae (`label_scheme`)
patient_id     string                   the case id
index          int32                    position of the case in its split
slice_index    int32, 2d only           position of the slice in its volume
source         string, ``geometry``     folder name on the Hub, such as "COLONOG"
spacing        float64 x 3, ``geometry``  mm, in the order slice, first, second axis
affine         float64 4 x 4, ``geometry``  of the file: voxel index (i, j, k) -> RAS+ mm
orientation    string, ``geometry``     where slice, first and second axis lead to, such as "SLA"
=============  =======================  ==========================================================

`datasets` replaces ``open``, ``os.path``, ``pathlib.Path`` and parts of NumPy inside the module of a builder
when it streams, so this module uses none of them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Literal, TypeAlias

import datasets
import pyarrow as pa

from ctspine1k.catalog.cases import Case
from ctspine1k.catalog.citations import LICENCE, bibtex
from ctspine1k.errors import (
    CaseError,
    CTSpine1KError,
    MissingFilesError,
    NothingLeftError,
    check_choice,
)
from ctspine1k.files.raw import CaseFiles, RawFile
from ctspine1k.files.selection import pair_files, select_cases
from ctspine1k.files.sources import DEFAULT_REPO, Source, find_source
from ctspine1k.rows.batches import ROWS_VERSION, Batch, RowOptions, Storage, case_batches
from ctspine1k.rows.skipped import read_skipped, record_skipped, warn_skipped
from ctspine1k.running.threads import prefetch, usable_threads
from ctspine1k.volumes.cases import Readable
from ctspine1k.volumes.vertebrae import LabelScheme

__all__ = ["CTSpine1K", "CTSpine1KConfig", "Policy"]

Policy: TypeAlias = Literal["raise", "skip"]

_logger = logging.getLogger(__name__)

#: Rows held in memory until they are written. A dense 3d row takes 2 MiB a slice, and the next is then read.
_WRITER_BATCH_SIZE = {"3d": 1, "2d": 16}

_DESCRIPTION = "1,005 spine CT scans with voxel labels for more than 11,100 vertebrae."


@dataclass(eq=False)
class CTSpine1KConfig(datasets.BuilderConfig):  # type: ignore[misc]
    """What to load. All but the last three fields are options of ``load_dataset``, on every version."""

    data_revision: str | None = None  #: branch, tag or commit of the Hub repo; None for "main"
    split_file: str | None = None  #: another assignment in the format of ``data_split.txt``
    cases: str | Case | Sequence[str | Case] | None = None  #: only these cases
    splits: str | Sequence[str] | None = None  #: only these splits
    exclude_issues: Literal["reported", "all"] | None = None  #: leave out cases with such an issue
    has_vertebrae: str | Sequence[str] | None = None  #: only cases that hold all of these
    scan: str | None = None  #: the table of a scan that tells which do
    storage: Storage = "dense"  #: how voxels are kept on disk
    image_size: tuple[int, int] | None = None  #: first and second axis of every slice; see `RowOptions`
    orientation: str | None = None  #: where the files' axes shall lead to; None for as stored
    label_scheme: LabelScheme = "ctspine1k"  #: what segmentations hold
    geometry: bool = False  #: add columns source, spacing, affine, orientation
    on_missing: Policy = "raise"  #: a case without raw files
    on_error: Policy = "raise"  #: a case whose files cannot be used
    on_geometry: Literal["raise", "warn"] = "warn"  #: a mask that lies elsewhere than its image
    repo: str = DEFAULT_REPO  #: ``repo_id``, a name that the base class keeps for a script's own repo
    hub_token: str | bool | None = field(default=None, repr=False)
    shared_source: Source | None = field(default=None, repr=False)  #: one for several builders

    def create_config_id(self, config_kwargs: dict[str, Any], custom_features: object = None) -> str:
        """Name the cache by all that its rows depend on: options, cases and the state of their files."""
        if custom_features is not None:
            raise ValueError("features cannot be replaced: load, then Dataset.cast(features)")
        for option in ("on_missing", "on_error"):
            check_choice(option, getattr(self, option), ("raise", "skip"))
        options = {**asdict(self.row_options), "on_missing": self.on_missing, "on_error": self.on_error}
        cases = [(case.case_id, case.split, case.index, case.source) for case in self._cases]
        state = [options, cases, self.source.fingerprint(self._cases)]
        if self.on_missing == "skip":  # which cases there are is then part of what the rows are
            state.append([file.path for file in self.source.find(self._cases)])
        return f"{self.name}-{hashlib.sha256(json.dumps(state).encode()).hexdigest()[:16]}"

    @cached_property
    def row_options(self) -> RowOptions:
        """The options that decide what a row holds; errors as of `RowOptions`."""
        return RowOptions(
            config=self.name,
            storage=self.storage,
            image_size=self.image_size,
            orientation=self.orientation,
            label_scheme=self.label_scheme,
            geometry=self.geometry,
            on_geometry=self.on_geometry,
        )

    @cached_property
    def source(self) -> Source:
        """Where the raw files are."""
        if self.shared_source is not None:
            return self.shared_source
        return find_source(self.data_dir, self.repo, self.data_revision, self.hub_token)

    @cached_property
    def cases_by_split(self) -> dict[str, list[Case]]:
        """The cases asked for; splits without any are left out."""
        chosen = select_cases(
            self.split_file,
            self.cases,
            exclude_issues=self.exclude_issues,
            has_vertebrae=self.has_vertebrae,
            scan=self.scan,
            place=self.source,
        )
        return chosen.by_split(self.splits)

    @cached_property
    def pairs(self) -> tuple[list[CaseFiles], MissingFilesError | None]:
        """The files of each case, and what is missing; errors as of `pair_files`."""
        return pair_files(self.source, self._cases, self.on_missing)

    @property
    def _cases(self) -> list[Case]:
        return [case for cases in self.cases_by_split.values() for case in cases]


@dataclass(frozen=True)
class _Job:
    """One case to read: its files are local paths, or, when streaming, still where they are."""

    case: Case
    image: str | RawFile
    mask: str | RawFile


class CTSpine1K(datasets.GeneratorBasedBuilder):  # type: ignore[misc]
    """CTSpine1K as volumes ("3d") or as axial slices ("2d")."""

    BUILDER_CONFIG_CLASS = CTSpine1KConfig
    BUILDER_CONFIGS = [  # noqa: RUF012 (the base class's way)
        CTSpine1KConfig(name="3d", version=datasets.Version(ROWS_VERSION), description="one row a case"),
        CTSpine1KConfig(name="2d", version=datasets.Version(ROWS_VERSION), description="one row a slice"),
    ]
    DEFAULT_CONFIG_NAME = "3d"

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
        # A script that comes from a Hub repo reads that repo's files, at the commit it came from, unless told
        # otherwise: by ``repo``, since `datasets` itself passes the repo of the script as ``repo_id``.
        at_commit = re.search(r"/resolve/([^/]+)", base_path or "")
        if at_commit and not repo and kwargs.get("data_dir") is None:
            kwargs["data_revision"] = kwargs.get("data_revision") or at_commit[1]
        if writer_batch_size is not None and writer_batch_size < 1:
            raise ValueError(f"writer_batch_size={writer_batch_size}: expected 1 or more")
        self._threads = 1
        super().__init__(
            cache_dir=cache_dir,
            config_name=config_name,
            base_path=base_path,
            token=token,
            writer_batch_size=writer_batch_size
            or _WRITER_BATCH_SIZE.get(config_name or self.DEFAULT_CONFIG_NAME),
            # The path of the cache is the same for the script and the library, and tells nothing of a
            # script's hash: what rows depend on is in the config's id and version.
            dataset_name="ctspine1k",
            repo=repo or repo_id,
            hub_token=token,
            **kwargs,
        )

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo(
            description=_DESCRIPTION,
            features=self.config.row_options.features(),
            homepage="https://arxiv.org/abs/2105.14711",
            license=LICENCE,
            citation=bibtex()[0],
        )

    def download_and_prepare(self, *args: Any, **kwargs: Any) -> None:
        """Convert what is not in the cache; warn about the cases that are left out of it."""
        super().download_and_prepare(*args, **kwargs)
        if reasons := read_skipped(self._fs, self._output_dir):
            warn_skipped(reasons, self._output_dir)
        for split in self.info.splits.values():
            if not split.num_examples:
                raise NothingLeftError(split.name, reasons)

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        config: CTSpine1KConfig = self.config
        if not dl_manager.is_streaming:
            self._clear_leftovers()
        pairs, missing = config.pairs
        if missing:
            for case_id, reason in missing.reasons.items():
                self._skip(case_id, reason, dl_manager.is_streaming)
        if dl_manager.is_streaming:
            jobs = [_Job(pair.case, pair.image, pair.mask) for pair in pairs]
        else:
            paths: Iterator[object] = iter(
                config.source.fetch([file for pair in pairs for file in (pair.image, pair.mask)])
            )
            jobs = [_Job(pair.case, str(next(paths)), str(next(paths))) for pair in pairs]
        by_split = {
            split: [job for job in jobs if job.case.split == split] for split in config.cases_by_split
        }
        return [
            # num_proc shards over lists: each job carries what its rows need.
            datasets.SplitGenerator(name=split, gen_kwargs={"jobs": jobs})
            for split, jobs in by_split.items()
            if jobs
        ]

    def _generate_examples(self, jobs: list[_Job]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Stream: slice after slice, and nothing is read ahead."""
        for batch in self._batches(jobs, depth=1, is_streaming=True):
            yield from batch.rows()

    def _generate_tables(self, jobs: list[_Job]) -> Iterator[tuple[int, pa.Table]]:
        """Convert."""
        batches = self._batches(jobs, depth=self._writer_batch_size, is_streaming=False)
        tables: Iterator[pa.Table] = (batch.table(self.info.features) for batch in batches)
        if self.config.name == "2d":
            tables = _joined(tables)
        if self.config.storage == "dense" and self._threads > 1:
            tables = prefetch(tables)  # so that one volume is read while another is written
        yield from enumerate(tables)

    def _batches(self, jobs: list[_Job], depth: int, is_streaming: bool) -> Iterator[Batch]:
        for job in jobs:
            is_given = False
            try:
                for batch in self._case_batches(job, depth):
                    is_given = True
                    yield batch
            except CaseError as error:
                if is_given or self.config.on_error == "raise":
                    raise
                self._skip(job.case.case_id, str(error), is_streaming)

    def _case_batches(self, job: _Job, depth: int) -> Iterator[Batch]:
        config: CTSpine1KConfig = self.config
        with self._opened(job) as (image, mask):
            yield from case_batches(
                config.row_options,
                job.case,
                image,
                mask,
                depth=depth,
                threads=self._threads,
                check_first=config.on_error == "skip",
            )

    @contextlib.contextmanager
    def _opened(self, job: _Job) -> Iterator[list[Readable]]:
        with contextlib.ExitStack() as stack:
            files: list[Readable] = []
            for file in (job.image, job.mask):
                if isinstance(file, RawFile):
                    source = self.config.source
                    # Whether a case is broken must not hang on a bad transfer: then it is a whole copy.
                    opened = source.open(file) if self.config.on_error == "raise" else source.copy(file)
                    files.append(stack.enter_context(opened))
                else:
                    files.append(file)
            yield files

    def _clear_leftovers(self) -> None:
        """Remove what a conversion that was killed has left: the lock is ours, so nobody writes there now."""
        if self._output_dir.endswith(".incomplete"):
            for path in self._fs.ls(self._output_dir, detail=False):
                self._fs.rm(path, recursive=True)

    def _save_infos(self) -> None:
        """Do nothing for ``save_infos`` of `datasets` 3.x: it would write into the installed package."""
        _logger.warning("save_infos is passed over: what is known of the data set is in its cache")

    def _skip(self, case_id: str, reason: str, is_streaming: bool) -> None:
        """Leave a case out: logged at once, and recorded beside the shards, where there are any."""
        _logger.warning("%s is left out: %s", case_id, reason)
        if is_streaming:
            warn_skipped({case_id: reason}, "the stream")
        else:
            record_skipped(self._fs, self._output_dir, case_id, reason)

    def _prepare_split(self, *args: Any, num_proc: int | None = None, **kwargs: Any) -> None:
        self._threads = usable_threads(num_proc or 1)
        super()._prepare_split(*args, num_proc=num_proc, **kwargs)

    def _prepare_split_single(
        self, gen_kwargs: Any, fpath: str, file_format: str, max_shard_size: int, job_id: int, **unused: Any
    ) -> Iterator[Any]:
        # Write tables as builders of tables do: by rows, each column would be copied three times.
        try:
            yield from datasets.ArrowBasedBuilder._prepare_split_single(
                self, gen_kwargs, fpath, file_format, max_shard_size, job_id
            )
            return
        except datasets.exceptions.DatasetGenerationError as error:
            # Our errors say what to do; and from a worker process only the outermost one arrives.
            own = error.__cause__
            if not isinstance(own, CTSpine1KError):
                raise
        # Not while the other is handled, which it would then lead back to: Dask, where it is imported, has
        # errors pickled with all that they lead to.
        raise own


def _joined(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Join each table of one row with the next: `datasets` 3 would write the row after it."""
    held: list[pa.Table] = []
    for table in tables:
        held.append(table)
        if len(table) > 1 or len(held) > 1:
            yield pa.concat_tables(held)
            held.clear()
    yield from held
