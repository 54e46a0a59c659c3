"""Everything from `datasets` that this package uses beyond its documented interface, in one place.

``tests/rows/test__datasets.py`` lists what another version lacks. Only `ctspine1k.storage.feature` uses more:
`register_feature`, which `datasets` calls experimental.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import datasets
from datasets.info import DatasetInfosDict
from datasets.iterable_dataset import ExamplesIterable
from datasets.splits import SplitDict, SplitInfo
from datasets.utils.info_utils import is_small_dataset

from ctspine1k.errors import CTSpine1KError

__all__ = [
    "DatasetInfosDict",
    "SplitDict",
    "SplitInfo",
    "TableBuilder",
    "is_small_dataset",
    "joined_stream",
    "missing_api",
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
    ExamplesIterable: {"__init__": ("kwargs",), "shard_data_sources": ("num_shards", "index", "contiguous")},
    datasets.IterableDataset: {"__init__": ("ex_iterable", "info", "split")},
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
        try:
            yield from datasets.ArrowBasedBuilder._prepare_split_single(
                self, gen_kwargs, fpath, file_format, max_shard_size, job_id
            )
            return
        except datasets.exceptions.DatasetGenerationError as error:
            # Our errors say what to do. Worker processes send only the outermost error, without its cause.
            own = error.__cause__
            if not isinstance(own, CTSpine1KError):
                raise
        # Raised outside of the handler: inside, exception chaining would make the two errors refer to each
        # other, and if Dask is imported, errors are pickled with their chain, which would never end.
        raise own

    def _save_infos(self) -> None:
        """Ignore ``save_infos`` of `datasets` 3.x, which would write into the installed package."""
        datasets.logging.get_logger(__name__).warning(
            "save_infos is ignored: the information is in the data set's cache"
        )


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
