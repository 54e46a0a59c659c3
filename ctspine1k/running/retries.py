"""Calls over a network that are tried again: what it refuses now, it may grant some seconds later."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

__all__ = ["retry"]

Result = TypeVar("Result")

#: How often, and after how many seconds.
_PAUSES = (1.0, 4.0, 16.0)


def retry(
    call: Callable[[], Result], failure: type[Exception], unless: tuple[type[Exception], ...] = ()
) -> Result:
    """Give what the call gives, and let it fail some times; the last failure goes on, as do other errors.

    Args:
        call: what to try.
        failure: what may pass.
        unless: failures that will not.
    """
    for pause in _PAUSES:
        try:
            return call()
        except unless:
            raise
        except failure:
            time.sleep(pause)
    return call()
