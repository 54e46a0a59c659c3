"""Retries of calls over a network, many of whose errors are over within seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from ctspine1k.running.stops import interruptible

__all__ = ["PAUSES", "retry"]

Result = TypeVar("Result")

#: Seconds between attempts.
PAUSES = (1.0, 4.0, 16.0)


def retry(
    call: Callable[[], Result],
    failure: type[Exception],
    unless: tuple[type[Exception], ...] = (),
    pauses: Sequence[float] = PAUSES,
) -> Result:
    """Return the result of a call, which is repeated after temporary errors.

    The last of these is raised; any other error is raised at once.

    Args:
        call: the function to call.
        failure: the error that may be temporary.
        unless: kinds of it that are permanent.
        pauses: seconds to wait after each error except the last.
    """
    for pause in pauses:
        try:
            return call()
        except unless:
            raise
        except failure:
            with interruptible():
                time.sleep(pause)
    return call()
