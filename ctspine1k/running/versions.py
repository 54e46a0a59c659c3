"""A check that all processes have the same version: another release may measure or write differently."""

from __future__ import annotations

from ctspine1k import __version__
from ctspine1k.errors import WorkerError

__all__ = ["require_version"]


def require_version(version: str) -> None:
    """Check that this process has the same version as the one that sent it work.

    Raises:
        WorkerError: it has another version.
    """
    if version != __version__:
        raise WorkerError(
            f"a worker has ctspine1k {__version__}, the work was begun by {version}: install the same "
            "version everywhere"
        )
