"""Streams of volumes, whose ``shuffle`` holds one volume by default; that of `datasets` would hold 1,000.

Each case is a shard of a stream, and the order of shards is shuffled, too. So one volume at a time is enough.
"""

from __future__ import annotations

import functools
import inspect
from typing import Any

import datasets

__all__ = ["VolumeStream", "VolumeStreams", "of_volumes"]

#: Methods whose result has the rows of the stream, or some of them; some came with later releases.
_SAME_ROWS = (
    *("cast", "cast_column", "filter", "map", "remove_columns", "rename_column", "rename_columns"),
    *("select_columns", "with_format"),
)
_SAME_ROWS_OF_ONE = ("add_column", "decode", "repeat", "reshard", "shard", "skip", "take")


class VolumeStream(datasets.IterableDataset):  # type: ignore[misc]
    """A stream with one volume per row."""

    def shuffle(
        self, seed: int | None = None, generator: Any = None, buffer_size: int = 1, **options: Any
    ) -> Any:
        """Shuffle the cases, and then the rows of a buffer, as `datasets` does.

        Args:
            seed: of the order.
            generator: NumPy's generator, instead of a seed.
            buffer_size: volumes that are held in memory.
            options: others of the installed version of `datasets`.
        """
        if "max_buffer_input_shards" in inspect.signature(super().shuffle).parameters:
            options.setdefault("max_buffer_input_shards", buffer_size)  # each holds a volume, too
        return of_volumes(super().shuffle(seed, generator, buffer_size, **options))


class VolumeStreams(datasets.IterableDatasetDict):  # type: ignore[misc]
    """Streams with one volume per row, by split."""

    def shuffle(
        self, seed: int | None = None, generator: Any = None, buffer_size: int = 1, **options: Any
    ) -> VolumeStreams:
        """Shuffle each stream, as `VolumeStream.shuffle`."""
        return VolumeStreams(
            {split: stream.shuffle(seed, generator, buffer_size, **options) for split, stream in self.items()}
        )


def of_volumes(stream: Any) -> Any:
    """Return a stream, or streams by split, as one of volumes."""
    if isinstance(stream, datasets.IterableDatasetDict):
        return VolumeStreams({split: of_volumes(one) for split, one in stream.items()})
    volumes = VolumeStream.__new__(VolumeStream)
    volumes.__dict__ |= vars(stream)
    return volumes


def _keep(owner: Any, name: str) -> None:
    """Wrap a method of a class of streams, if it has it, so that streams of volumes stay such."""
    method = getattr(owner, name, None)
    if method is None:
        return
    parameters = inspect.signature(method)

    @functools.wraps(method)
    def of_same_rows(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = method(self, *args, **kwargs)
        # A function of batches may return other rows, such as many patches of a volume.
        is_batched = name == "map" and parameters.bind(self, *args, **kwargs).arguments.get("batched")
        return result if is_batched else of_volumes(result)

    setattr(owner, name, of_same_rows)


for _name in (*_SAME_ROWS, *_SAME_ROWS_OF_ONE):
    _keep(VolumeStream, _name)
for _name in _SAME_ROWS:
    _keep(VolumeStreams, _name)
