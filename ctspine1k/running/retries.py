"""Calls over a network that are tried again, as many failures pass within seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from ctspine1k.running.stops import interruptible

__all__ = ["PAUSES", "retry"]

Result = TypeVar("Result")

#: Seconds between one try and the next.
PAUSES = (1.0, 4.0, 16.0)


def retry(
    call: Callable[[], Result],
    failure: type[Exception],
    unless: tuple[type[Exception], ...] = (),
    pauses: Sequence[float] = PAUSES,
) -> Result:
    """Return the result of a call, which is tried again when it fails.

    The last failure is raised, and at once any other error.

    Args:
        call: what to try.
        failure: what may pass.
        unless: failures that will not pass.
        pauses: seconds to wait after each failure but the last.
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
