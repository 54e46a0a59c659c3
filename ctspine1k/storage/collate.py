"""Batches of PyTorch's DataLoader, if PyTorch is in use: it is never imported here."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = ["empty_batch", "register_collate"]


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


def empty_batch(shape: Sequence[int], dtype: DTypeLike) -> tuple[NDArray[Any], Any]:
    """Return an array to be filled, and the tensor that has its memory: without PyTorch, the array again.

    In a worker of a DataLoader the memory is shared, so that the tensor is sent without a copy.
    """
    torch = sys.modules.get("torch")
    if torch is None or torch.utils.data.get_worker_info() is None:
        array = np.empty(shape, dtype)
        return array, array if torch is None else torch.from_numpy(array)
    dtype = np.dtype(dtype)
    # What `default_collate` does in a worker. `share_memory_()` would copy every byte.
    storage = torch.UntypedStorage._new_shared(math.prod(shape) * dtype.itemsize)
    tensor = torch.from_numpy(np.empty(0, dtype)).new_empty(0).set_(storage, 0, tuple(shape))
    return tensor.numpy(), tensor
