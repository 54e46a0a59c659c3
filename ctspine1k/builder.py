"""The builder: from the files of each case to the rows of a `datasets.Dataset`.

Config "3d" gives one row a case, "2d" one row an axial slice, both as the published loader did:

=============  =======================  ==========================================================
column         type                     what
=============  =======================  ==========================================================
image          float32                  (k, i, j) for 3d, (i, j) for 2d; Hounsfield units
segmentation   int32                    of the same shape; 0 background, 1-25 vertebrae
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
import operator
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, TypeAlias

import datasets

from ctspine1k.catalog import Case, load_catalog
from ctspine1k.errors import (
    CaseError,
    CTSpine1KError,
    GeometryWarning,
    ImageSizeError,
    MissingFilesError,
    NothingLeftError,
    check_choice,
)
from ctspine1k.rawfiles import CaseFiles, RawFile
from ctspine1k.reader import PairReader, Readable, open_pair
from ctspine1k.selection import pair_files
from ctspine1k.skipped import read_skipped, record_skipped, warn_skipped
from ctspine1k.sources import DEFAULT_REPO, Source, find_source

__all__ = ["CTSpine1K", "CTSpine1KConfig", "Policy"]

Policy: TypeAlias = Literal["raise", "skip"]
Row: TypeAlias = "tuple[str, dict[str, Any]]"

_logger = logging.getLogger(__name__)

#: Raise it when the same files and options give other rows: it is part of every cache's path.
ROWS_VERSION = "1.0.0"

#: Rows held in memory until they are written: a 3d row takes 2 MiB a slice, and four more while written.
_WRITER_BATCH_SIZE = {"3d": 1, "2d": 16}

_DESCRIPTION = "1,005 spine CT scans with voxel labels for more than 11,100 vertebrae."
_CITATION = """\
@misc{deng2021ctspine1k,
  title = {CTSpine1K: A Large-Scale Dataset for Spinal Vertebrae Segmentation in Computed Tomography},
  author = {Deng, Yang and Wang, Ce and Hui, Yuan and Li, Qian and Li, Jun and Luo, Shiwei and Sun, Mengke and
            Quan, Quan and Yang, Shuxin and Hao, You and Liu, Pengbo and Xiao, Honghu and Zhao, Chunpeng and
            Wu, Xinbao and Zhou, S. Kevin},
  year = {2021},
  eprint = {2105.14711},
  archivePrefix = {arXiv},
}"""


@dataclass(eq=False)
class CTSpine1KConfig(datasets.BuilderConfig):  # type: ignore[misc]
    """What to load. All but the last three fields are options of ``load_dataset``, on every version."""

    data_revision: str | None = None  #: branch, tag or commit of the Hub repo; None for "main"
    split_file: str | None = None  #: another assignment in the format of ``data_split.txt``
    cases: str | Case | Sequence[str | Case] | None = None  #: only these cases
    splits: str | Sequence[str] | None = None  #: only these splits
    image_size: tuple[int, int] = (512, 512)  #: first and second axis of every slice
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
        self._normalise()
        options = {
            name: getattr(self, name)
            for name in ("image_size", "geometry", "on_missing", "on_error", "on_geometry")
        }
        state = [options, [vars(case) for case in self._cases], self.source.fingerprint(self._cases)]
        if self.on_missing == "skip":  # which cases there are is then part of what the rows are
            state.append([file.path for file in self.source.find(self._cases)])
        return f"{self.name}-{hashlib.sha256(json.dumps(state).encode()).hexdigest()[:16]}"

    @cached_property
    def source(self) -> Source:
        """Where the raw files are."""
        if self.shared_source is not None:
            return self.shared_source
        return find_source(self.data_dir, self.repo, self.data_revision, self.hub_token)

    @cached_property
    def cases_by_split(self) -> dict[str, list[Case]]:
        """The cases asked for; splits without any are left out."""
        catalog = load_catalog(self.split_file)
        chosen = catalog if self.cases is None else catalog.select(self.cases)
        return chosen.by_split(self.splits)

    @cached_property
    def pairs(self) -> tuple[list[CaseFiles], MissingFilesError | None]:
        """The files of each case, and what is missing; errors as of `pair_files`."""
        return pair_files(self.source, self._cases, self.on_missing)

    @property
    def _cases(self) -> list[Case]:
        return [case for cases in self.cases_by_split.values() for case in cases]

    def _normalise(self) -> None:
        """Check the options, and write each in one way, however it was given."""
        for option in ("on_missing", "on_error"):
            check_choice(option, getattr(self, option), ("raise", "skip"))
        check_choice("on_geometry", self.on_geometry, ("raise", "warn"))
        if not isinstance(self.geometry, bool):
            raise ValueError(f"geometry={self.geometry!r}: expected True or False")
        try:
            first, second = map(operator.index, self.image_size)
            if min(first, second) < 1:
                raise ValueError
        except (TypeError, ValueError):
            raise ValueError(
                f"image_size={self.image_size!r}: expected two positive numbers, such as (512, 512)"
            ) from None
        self.image_size = first, second


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
            features=_features(self.config),
            homepage="https://arxiv.org/abs/2105.14711",
            license="CC BY-NC-SA",
            citation=_CITATION,
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
            for case_id, what in missing.missing.items():
                self._skip(case_id, f"no {what} file", dl_manager.is_streaming)
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
            datasets.SplitGenerator(
                name=split, gen_kwargs={"jobs": jobs, "is_streaming": dl_manager.is_streaming}
            )
            for split, jobs in by_split.items()
            if jobs
        ]

    def _generate_examples(self, jobs: list[_Job], is_streaming: bool) -> Iterator[Row]:
        for job in jobs:
            with self._opened(job) as (image, mask):
                try:
                    rows = self._rows(job.case, image, mask)
                except CaseError as error:
                    if self.config.on_error == "raise":
                        raise
                    self._skip(job.case.case_id, str(error), is_streaming)
                else:
                    yield from rows

    def _rows(self, case: Case, image: Readable, mask: Readable) -> Iterable[Row]:
        """Give the rows of a case; with ``on_error="skip"`` no row of a broken case is given at all."""
        if self.config.name == "3d":
            return [self._volume_row(case, image, mask)]
        if self.config.on_error == "skip":
            # Slices are given before the end of the file is seen: see it first.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", GeometryWarning)  # told once, with the rows
                with self._reader(image, mask) as pair:
                    pair.check()
            _rewind(image, mask)
        return self._slice_rows(case, image, mask)

    def _volume_row(self, case: Case, image: Readable, mask: Readable) -> Row:
        with self._reader(image, mask) as pair:
            volume = pair.read()
            return case.case_id, {
                "image": volume.image,
                "segmentation": volume.segmentation,
                "patient_id": case.case_id,
                "index": case.index,
                **self._geometry_columns(case, pair),
            }

    def _slice_rows(self, case: Case, image: Readable, mask: Readable) -> Iterator[Row]:
        with self._reader(image, mask) as pair:
            geometry = self._geometry_columns(case, pair)
            for number, (slice_image, slice_mask) in enumerate(pair.slices()):
                yield (
                    f"{case.case_id}/{number:04d}",
                    {
                        "image": slice_image,
                        "segmentation": slice_mask,
                        "patient_id": case.case_id,
                        "index": case.index,
                        "slice_index": number,
                        **geometry,
                    },
                )

    @contextlib.contextmanager
    def _reader(self, image: Readable, mask: Readable) -> Iterator[PairReader]:
        with open_pair(image, mask, on_geometry=self.config.on_geometry) as pair:
            size, expected = pair.geometry.shape[1:], self.config.image_size
            if size != expected:
                raise ImageSizeError(
                    pair.name,
                    f"slices of {expected[0]} x {expected[1]}",
                    f"{size[0]} x {size[1]}",
                    f"Load cases of this size with image_size={size} (and cases=[...]), or leave this "
                    'one out with on_error="skip".',
                )
            yield pair

    def _geometry_columns(self, case: Case, pair: PairReader) -> dict[str, Any]:
        if not self.config.geometry:
            return {}
        geometry = pair.geometry
        return {
            "source": case.source,
            "spacing": list(geometry.spacing),
            "affine": geometry.affine,
            "orientation": geometry.orientation,
        }

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

    def _prepare_split_single(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        try:
            yield from super()._prepare_split_single(*args, **kwargs)
        except datasets.exceptions.DatasetGenerationError as error:
            # Our errors say what to do; and from a worker process only the outermost one arrives.
            if isinstance(error.__cause__, CTSpine1KError):
                raise error.__cause__ from None
            raise


def _features(config: CTSpine1KConfig) -> datasets.Features:
    size = tuple(config.image_size)
    if config.name == "3d":
        voxels, shape, position = datasets.Array3D, (None, *size), {}
    else:
        voxels, shape, position = datasets.Array2D, size, {"slice_index": datasets.Value("int32")}
    geometry = {
        "source": datasets.Value("string"),
        "spacing": datasets.Sequence(datasets.Value("float64"), length=3),
        "affine": datasets.Array2D((4, 4), "float64"),
        "orientation": datasets.Value("string"),
    }
    return datasets.Features(
        {
            "image": voxels(shape, "float32"),
            "segmentation": voxels(shape, "int32"),
            "patient_id": datasets.Value("string"),
            "index": datasets.Value("int32"),
            **position,
            **(geometry if config.geometry else {}),
        }
    )


def _rewind(*files: Readable) -> None:
    for file in files:
        if not isinstance(file, str):
            file.seek(0)  # type: ignore[union-attr]
