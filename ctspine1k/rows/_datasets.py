"""Everything from `datasets` that this package uses beyond its documented interface, in one place.

``tests/rows/test__datasets.py`` lists what another version lacks. Only `ctspine1k.storage.feature` uses more:
`register_feature`, which `datasets` calls experimental.
"""

from __future__ import annotations

import contextlib
import inspect
import os
from collections.abc import Iterator
from functools import partial
from typing import Any

import datasets
from datasets.info import DatasetInfosDict
from datasets.splits import SplitDict, SplitInfo
from datasets.utils.info_utils import is_small_dataset

from ctspine1k.errors import CTSpine1KError
from ctspine1k.rows.kept import prepare_cases
from ctspine1k.running.disk import is_full_disk

__all__ = [
    "DatasetInfosDict",
    "SplitDict",
    "SplitInfo",
    "TableBuilder",
    "has_checks",
    "is_forced",
    "is_small_dataset",
    "missing_api",
    "own_errors",
]

#: Methods that are called or overridden, with the parameters that they are called with.
_METHODS: dict[Any, dict[str, tuple[str, ...]]] = {
    datasets.ArrowBasedBuilder: {
        "_prepare_split_single": ("gen_kwargs", "fpath", "file_format", "max_shard_size", "job_id"),
    },
    datasets.GeneratorBasedBuilder: {
        "_prepare_split": ("split_generator", "num_proc"),
        "_prepare_split_single": ("gen_kwargs", "fpath", "file_format", "max_shard_size", "job_id"),
        "download_and_prepare": ("num_proc",),
    },
    datasets.BuilderConfig: {"create_config_id": ("config_kwargs", "custom_features")},
    DatasetInfosDict: {"to_dataset_card_data": ("dataset_card_data",)},
}


def missing_api() -> list[str]:
    """List the methods and parameters used here that the installed `datasets` lacks."""
    missing = []
    for owner, methods in _METHODS.items():
        for name, parameters in methods.items():
            method = getattr(owner, name, None)
            found = () if method is None else inspect.signature(method).parameters
            missing += [f"{owner.__name__}.{name}({one})" for one in parameters if one not in found]
    return missing


if _missing := missing_api():
    raise ImportError(
        f"datasets {datasets.__version__} lacks {', '.join(_missing)}: install a release that this version "
        "of ctspine1k was made for (pip install 'datasets>=3.6,<6'), or a later ctspine1k."
    )


def is_forced(download_mode: datasets.DownloadMode | str | None) -> bool:
    """Return whether rows are converted even if they are in the cache."""
    reuse = datasets.DownloadMode.REUSE_DATASET_IF_EXISTS
    return bool(datasets.DownloadMode(download_mode or reuse) != reuse)


def has_checks(verification_mode: datasets.VerificationMode | str | None) -> bool:
    """Return whether anything is to be checked."""
    none = datasets.VerificationMode.NO_CHECKS
    return bool(datasets.VerificationMode(verification_mode or "basic_checks") != none)


@contextlib.contextmanager
def own_errors() -> Iterator[None]:
    """Raise our errors as they are, even if they are an `OSError`, which `datasets` replaces by another."""
    try:
        yield
        return
    except OSError as error:
        own = error.__context__
        if isinstance(error, CTSpine1KError) or not isinstance(own, CTSpine1KError):
            raise
    raise own


class TableBuilder(datasets.GeneratorBasedBuilder):  # type: ignore[misc]
    """A builder that streams rows and converts Arrow tables.

    Subclasses define ``_generate_examples`` for streams, and ``_generate_tables`` for conversions: `datasets`
    would copy every voxel of rows three times.
    """

    @property
    def output_dir(self) -> str:
        """The folder of the split; while it is being written, a temporary one."""
        return str(self._output_dir)

    @property
    def filesystem(self) -> Any:
        """The fsspec file system of `output_dir`."""
        return self._fs

    @property
    def rows_at_once(self) -> int:
        """Number of rows that are held in memory until they are written."""
        return int(self._writer_batch_size)

    def will_convert(self, download_mode: datasets.DownloadMode | str | None) -> bool:
        """Return whether `download_and_prepare` has rows to convert."""
        return is_forced(download_mode) or not os.path.exists(self.cache_dir)  # noqa: PTH110 (or a URL)

    def names_of(self, job: Any) -> tuple[str, str]:
        """Return the case id of a job, and a name made from all that its row depends on."""
        raise NotImplementedError

    def full_disk(self, error: BaseException) -> CTSpine1KError:
        """Return the error that explains a full disk; subclasses define it."""
        raise NotImplementedError

    def begin_conversion(self, num_proc: int) -> None:
        """Prepare for a conversion by this many processes; subclasses may override it."""

    def clear_leftovers(self) -> None:
        """Delete files of a conversion that was killed: we hold the lock, so nobody else writes there."""
        if self.output_dir.endswith(".incomplete"):
            for path in self.filesystem.ls(self.output_dir, detail=False):
                self.filesystem.rm(path, recursive=True)

    def _prepare_split(self, *args: Any, num_proc: int | None = None, **kwargs: Any) -> None:
        self.begin_conversion(num_proc or 1)
        super()._prepare_split(*args, num_proc=num_proc, **kwargs)

    def _prepare_split_single(
        self, gen_kwargs: Any, fpath: str, file_format: str, max_shard_size: int, job_id: int, **unused: Any
    ) -> Iterator[Any]:
        prepare = partial(datasets.ArrowBasedBuilder._prepare_split_single, self)
        # A file per case, and per row, is possible if rows are written one by one.
        is_resumable = self.config.name == "3d" and self.rows_at_once == 1 and file_format == "arrow"
        is_in_cache = os.path.dirname(fpath) == os.path.abspath(self.cache_dir) + ".incomplete"  # noqa: PTH100, PTH120
        try:
            if is_resumable and is_in_cache:
                yield from prepare_cases(prepare, gen_kwargs["jobs"], self.names_of, fpath, job_id)
            else:
                yield from prepare(gen_kwargs, fpath, file_format, max_shard_size, job_id)
            return
        except datasets.exceptions.DatasetGenerationError as error:
            # Our errors say what to do. Worker processes send only the outermost error, without its cause.
            own = error.__cause__
            if isinstance(own, CTSpine1KError):
                pass
            elif is_full_disk(error):
                own = self.full_disk(error)
            else:
                raise
        # Raised outside of the handler: inside, exception chaining would make the two errors refer to each
        # other, and if Dask is imported, errors are pickled with their chain, which would never end.
        raise own

    def _save_infos(self) -> None:
        """Ignore ``save_infos`` of `datasets` 3.x, which would write into the installed package."""
        datasets.logging.get_logger(__name__).warning(
            "save_infos is ignored: the information is in the data set's cache"
        )
