"""Errors that workers of PyTorch's DataLoader raise."""

from __future__ import annotations

import multiprocessing
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

__all__ = ["raises_in_loader"]


@contextmanager
def raises_in_loader(error: type[Exception], match: str) -> Iterator[None]:
    """Check what iterating a DataLoader raises, and end its workers.

    The error's traceback holds the iterator, and a frame of that traceback the error. The garbage collector, which
    would find this cycle at some later time, also finalizes the connections of the iterator's queues: it closes
    descriptors under the thread that writes to them, or closes them a second time, when they are another's.
    """
    with pytest.raises(error, match=match) as caught:
        yield
    traceback.clear_frames(caught.tb)
    assert not multiprocessing.active_children()
