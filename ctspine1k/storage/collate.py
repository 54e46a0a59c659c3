"""Batches of PyTorch's DataLoader, if PyTorch is in use: it is never imported here."""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = ["batch_of", "empty_batch", "register_collate"]

#: Most bytes of a tensor that a worker sends as they are.
_SMALL = 1 << 12

#: Bytes to a multiple of which an array's beginning is put: a line of the CPU's cache.
_ALIGNED = 64


def register_collate(kind: type, collate: Callable[..., Any]) -> None:
    """Make ``torch.utils.data.default_collate`` call this function for a batch of values of a type.

    Args:
        kind: the type of the values.
        collate: called with a list of them, and with the keyword ``collate_fn_map``.
    """
    torch = sys.modules.get("torch")
    if torch is not None:
        # `default_collate` documents that this mapping is to be extended.
        torch.utils.data._utils.collate.default_collate_fn_map.setdefault(kind, collate)


def empty_batch(*wanted: tuple[Sequence[int], DTypeLike]) -> list[tuple[NDArray[Any], Any]]:
    """Return arrays of these shapes and types to be filled, each with the tensor that has its memory.

    In a worker of a DataLoader all have one piece of shared memory, which is sent once and without a copy: a
    tensor that is kept keeps the memory of the others. Without PyTorch, the tensor is the array again.
    """
    torch = sys.modules.get("torch")
    if torch is None or torch.utils.data.get_worker_info() is None:
        arrays = [np.empty(shape, dtype) for shape, dtype in wanted]
        return [(array, array if torch is None else torch.from_numpy(array)) for array in arrays]
    empty = [torch.from_numpy(np.empty(0, dtype)) for _, dtype in wanted]
    sizes = [math.prod(shape) * one.itemsize for (shape, _), one in zip(wanted, empty, strict=True)]
    *starts, size = itertools.accumulate((-(-size // _ALIGNED) * _ALIGNED for size in sizes), initial=0)
    # What `default_collate` does in a worker. `share_memory_()` would copy every byte.
    storage = torch.UntypedStorage._new_shared(size)
    tensors = [
        one.new_empty(0).set_(storage, start // one.itemsize, tuple(shape))
        for one, start, (shape, _) in zip(empty, starts, wanted, strict=True)
    ]
    return [(tensor.numpy(), tensor) for tensor in tensors]


def batch_of(voxels: Mapping[str, Any], facts: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """Return a batch of PyTorch.

    Args:
        voxels: tensors with those of all items.
        facts: what else the items have: numbers become tensors, texts stay lists.
    """
    torch = sys.modules["torch"]
    default_collate = torch.utils.data.default_collate
    tensors = {
        name: torch.from_numpy(np.stack(values)) if _are_small(values) else default_collate(values)
        for name, values in facts.items()
    }
    batch = {**voxels, **tensors}
    return batch if torch.utils.data.get_worker_info() is None else _Sent(batch, tensors)


def _are_small(values: Sequence[Any]) -> bool:
    """Return whether these are small arrays of numbers: of those, NumPy makes one sooner than PyTorch.

    They are alike: of others, `default_collate` makes another type, or says what is wrong.
    """
    first = values[0]
    return (
        isinstance(first, np.ndarray | np.number)
        and first.dtype.kind in "iuf"
        and first.dtype.isnative
        and first.nbytes <= _SMALL
        and all(
            isinstance(one, np.ndarray | np.number) and (one.dtype, one.shape) == (first.dtype, first.shape)
            for one in values
        )
    )


class _Sent(dict[str, Any]):
    """A batch that a worker sends, to arrive as a plain dict.

    For each tensor PyTorch makes a piece of shared memory and opens a connection to pass its file descriptor,
    which takes longer than to decode some chunks. Small ones are sent as bytes.
    """

    def __init__(self, batch: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        super().__init__(batch)
        self._facts = facts

    def __copy__(self) -> _Sent:
        return _Sent(self, self._facts)

    def __reduce__(self) -> tuple[Any, ...]:
        tensor = sys.modules["torch"].Tensor
        small = {
            name: value.numpy()
            for name, value in self._facts.items()
            # One that was put in its place since then may be of any kind.
            if self.get(name) is value and isinstance(value, tensor) and value.nbytes <= _SMALL
        }
        return _received, ({**self, **small}, tuple(small))


def _received(batch: dict[str, Any], arrays: Sequence[str]) -> dict[str, Any]:
    """Return a batch that was sent, with tensors in place of arrays."""
    from_numpy = sys.modules["torch"].from_numpy
    return {name: from_numpy(value) if name in arrays else value for name, value in batch.items()}
