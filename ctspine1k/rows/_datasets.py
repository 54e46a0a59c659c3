"""Everything from `datasets` that this package uses beyond its documented interface, in one place.

``tests/rows/test__datasets.py`` lists what another version lacks. Only `ctspine1k.storage.feature` uses more:
`register_feature`, which `datasets` calls experimental.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import multiprocess
from datasets.info import DatasetInfosDict
from datasets.iterable_dataset import ExamplesIterable
from datasets.splits import SplitDict, SplitInfo
from datasets.utils.info_utils import is_small_dataset

from ctspine1k.errors import CTSpine1KError, WorkerError
from ctspine1k.rows.features import lists_in
from ctspine1k.rows.kept import prepare_cases
from ctspine1k.running.disk import (
    explain_forbidden,
    is_forbidden,
    is_full_disk,
    make_parent,
    require_folder,
    require_plain_path,
)
from ctspine1k.running.stops import check_stopped, deferred_interrupts, interruptible

__all__ = [
    "PLACEHOLDERS",
    "DatasetInfosDict",
    "SplitDict",
    "SplitInfo",
    "TableBuilder",
    "has_checks",
    "is_forced",
    "is_small_dataset",
    "joined_stream",
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
        "download_and_prepare": (
            *("output_dir", "download_config", "download_mode", "verification_mode", "num_proc"),
        ),
        "_build_cache_dir": ("self",),
        "_load_info": ("self",),
    },
    datasets.builder: {"extend_dataset_builder_for_streaming": ("builder",)},
    datasets.BuilderConfig: {"create_config_id": ("config_kwargs", "custom_features")},
    DatasetInfosDict: {"to_dataset_card_data": ("dataset_card_data",)},
    ExamplesIterable: {"__init__": ("kwargs",), "shard_data_sources": ("num_shards", "index", "contiguous")},
    datasets.IterableDataset: {"__init__": ("ex_iterable", "info", "split")},
}


#: What `datasets` replaces by numbers wherever it is in the path of a file that it writes.
PLACEHOLDERS = ("JJJJJ", "SSSSS", "NNNNN")


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
        "of ctspine1k was made for (pip install 'datasets>=3.6,!=5.0.0,<6'), or a later ctspine1k."
    )


def _extend_others(builder: Any) -> None:
    """Keep `datasets` from replacing names in the modules of a `TableBuilder`.

    It would replace ``open``, ``os.path`` and more in them, which they do not need, and on 3.x lock a file
    beside the package meanwhile, where users may not write.
    """
    if not isinstance(builder, TableBuilder):
        _extend(builder)


_extend = datasets.builder.extend_dataset_builder_for_streaming
datasets.builder.extend_dataset_builder_for_streaming = _extend_others


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

    _converter: int  #: the process that converts, or that waits for its workers
    _parent: int | None = None  #: in a worker, the process that started it

    def __init__(self, cache_dir: str | None = None, **options: Any) -> None:
        option = "HF_DATASETS_CACHE" if cache_dir is None else "cache_dir"
        root = Path(cache_dir or datasets.config.HF_DATASETS_CACHE).expanduser().absolute()
        require_plain_path(option, root, PLACEHOLDERS)
        require_folder(root)
        try:
            super().__init__(cache_dir=cache_dir, **options)
            return
        except OSError as error:
            if not is_forbidden(error):
                raise
        # `datasets` cannot write its lock, since the cache is read-only or another user's. Neither stream nor
        # converted data need it, and it writes none if it takes the cache to be at a URL.
        super().__init__(cache_dir=f"file://{root}", **options)
        self._cache_dir_root = str(root)
        self._cache_downloaded_dir = str(root / datasets.config.DOWNLOADED_DATASETS_DIR)
        self._cache_dir = self._output_dir = self._build_cache_dir()
        if self._is_converted(self.output_dir):
            self.info = self._load_info()

    def download_and_prepare(
        self,
        output_dir: str | None = None,
        download_config: datasets.DownloadConfig | None = None,
        download_mode: datasets.DownloadMode | str | None = None,
        *args: Any,
        **options: Any,
    ) -> None:
        """Convert splits that are not in the cache.

        Raises:
            OutputError: they cannot be converted there, since the cache is read-only or another user's.
        """
        mode = datasets.DownloadMode(download_mode or datasets.DownloadMode.REUSE_DATASET_IF_EXISTS)
        if output_dir is None:
            if mode == datasets.DownloadMode.REUSE_DATASET_IF_EXISTS and self._is_converted(self.output_dir):
                self.info = self._load_info()  # without a lock
                return
            self._require_writable()
        try:
            with _oldest_names(self.info.features):
                super().download_and_prepare(output_dir, download_config, mode, *args, **options)
        except OSError as error:
            # `datasets` requires more free bytes than it needs, 0 if it does not know that: a full disk.
            if not str(error).startswith("Not enough disk space"):
                raise
            raise self.full_disk(error) from error

    @staticmethod
    def _is_converted(folder: str) -> bool:
        return Path(folder, datasets.config.DATASET_INFO_FILENAME).exists()

    def _require_writable(self) -> None:
        """Check that the cache can be written to.

        Raises:
            OutputError: it cannot.
        """
        lock = Path(f"{self.output_dir}_builder.lock")  # the one that `datasets` holds while it converts
        with explain_forbidden(
            Path(self._cache_dir_root),
            "a cache that can be written to, as these rows are not converted yet",
            "Pass cache_dir=... (or set HF_DATASETS_CACHE) to a folder of your own, or have the owner of "
            "this one convert them: with the same options, versions and files, it is then read as it is.",
        ):
            make_parent(lock)
            if lock.exists():
                os.close(os.open(lock, os.O_RDWR))

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

    def will_convert(
        self, download_mode: datasets.DownloadMode | str | None, output_dir: str | None = None
    ) -> bool:
        """Return whether `download_and_prepare` has rows to convert."""
        return is_forced(download_mode) or not self._is_converted(output_dir or self.cache_dir)

    def names_of(self, job: Any) -> tuple[str, str]:
        """Return the case id of a job, and a name made from all that its row depends on."""
        raise NotImplementedError

    def full_disk(self, error: BaseException) -> CTSpine1KError:
        """Return the error that explains a full disk; subclasses define it."""
        raise NotImplementedError

    def begin_conversion(self, num_proc: int) -> None:
        """Prepare for a conversion by this many processes; subclasses may override it."""

    def check_needed(self) -> None:
        """Raise an error if this process should stop converting; errors as for `check_stopped`.

        A worker outlives a process that is killed. It would write among the files of the next conversion.
        """
        check_stopped()
        if self._parent not in (None, os.getppid()):
            raise WorkerError("stopped, as the process that started this one has been killed")

    def clear_leftovers(self) -> None:
        """Delete files of a conversion that was killed: we hold the lock, so nobody else writes there."""
        if self.output_dir.endswith(".incomplete"):
            for path in self.filesystem.ls(self.output_dir, detail=False):
                self.filesystem.rm(path, recursive=True)

    def _prepare_split(
        self, split_generator: Any, *args: Any, num_proc: int | None = None, **kwargs: Any
    ) -> None:
        shards = [len(value) for value in split_generator.gen_kwargs.values() if isinstance(value, list)]
        processes = min(num_proc or 1, max(shards, default=1))
        self.begin_conversion(processes)
        self._converter = os.getpid()
        with deferred_interrupts(), _workers_ended() if processes > 1 else contextlib.nullcontext():
            super()._prepare_split(split_generator, *args, num_proc=num_proc, **kwargs)

    def _prepare_split_single(
        self, gen_kwargs: Any, fpath: str, file_format: str, max_shard_size: int, job_id: int, **unused: Any
    ) -> Iterator[Any]:
        if os.getpid() != self._converter:
            self._parent = os.getppid()
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started this worker ends it
        prepare = partial(datasets.ArrowBasedBuilder._prepare_split_single, self)
        # A file per case, and per row, is possible if rows are written one by one.
        is_resumable = self.config.name == "3d" and self.rows_at_once == 1 and file_format == "arrow"
        is_in_cache = os.path.dirname(fpath) == os.path.abspath(self.cache_dir) + ".incomplete"  # noqa: PTH100, PTH120
        try:
            with _oldest_names(self.info.features):  # also in workers, which get the features as they were
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


@contextlib.contextmanager
def _workers_ended() -> Iterator[None]:
    """Wait for workers that `datasets` starts; after Ctrl-C end them, and raise `KeyboardInterrupt`.

    `datasets` asks each worker for its result then, which is not there, and so raises a `TimeoutError`. If it
    was just starting its workers, they stay, and would keep this process from ending.

    Raises:
        WorkerError: a worker was killed.
    """
    global _has_workers
    others = set(multiprocess.active_children())
    try:
        _has_workers = True
        with interruptible():
            yield
    except BaseException as error:
        for worker in set(multiprocess.active_children()) - others:
            worker.kill()
            worker.join()
        check_stopped()
        if isinstance(error, CTSpine1KError) or not _is_of_killed(error):
            raise
        raise WorkerError(
            "num_proc: expected processes that convert to the end, found that one was killed, perhaps since "
            "memory was short. Use fewer processes, as each needs as much memory as a single one, and run "
            "again."
        ) from error
    finally:
        _has_workers = False


def _is_of_killed(error: BaseException) -> bool:
    """Return whether `datasets` raises an error when a worker, or the queue of all workers, is killed."""
    if isinstance(error, RuntimeError):
        return "abruptly died" in str(error)
    return isinstance(error, (multiprocess.TimeoutError, EOFError, ConnectionError))


#: Whether processes that are forked now are workers of a conversion, or their queue.
_has_workers = False


def _watch_parent() -> None:
    if _has_workers:
        threading.Thread(target=_exit_with, args=(os.getppid(),), daemon=True).start()


def _exit_with(parent: int) -> None:
    """Exit when the parent is gone: it was killed, and `multiprocess` would wait for its next job forever."""
    while os.getppid() == parent:
        time.sleep(0.2)
    os._exit(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_watch_parent)


@contextlib.contextmanager
def _oldest_names(features: datasets.Features) -> Iterator[None]:
    """Write the names of features that `datasets` 3 has, which all releases read: "Sequence", not "List"."""
    lists = list(lists_in(features))
    for one in lists:
        one._type = "Sequence"
    try:
        yield
    finally:
        for one in lists:
            one._type = "List"


def joined_stream(streams: Sequence[datasets.IterableDataset], split: str) -> datasets.IterableDataset:
    """Return one stream of the rows of several, one after the other, whose shards are those of all of them.

    The streams are made by builders that differ in their cases only. `datasets.concatenate_datasets` is not
    used: until 4.0 its stream has as few shards as the part with the fewest, and a DataLoader with more
    workers than that loses rows (https://github.com/huggingface/datasets/issues/7792).
    """
    sources = [stream._ex_iterable for stream in streams]
    joined = copy.copy(sources[0])
    joined.kwargs = {
        name: [one for source in sources for one in source.kwargs[name]] for name in joined.kwargs
    }
    info = datasets.DatasetInfo.from_merge([stream.info for stream in streams])
    info.features = streams[0].features
    return datasets.IterableDataset(joined, info=info, split=datasets.NamedSplit(split))
