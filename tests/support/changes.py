"""Changes of files, and what happens just before them: a pause, a kill, a disk that fills up."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable
from pathlib import Path

#: Audit events that change what is on disk, and how many of their arguments are paths.
_PATHS = {
    **dict.fromkeys(("os.rename", "os.link", "os.symlink"), 2),
    **dict.fromkeys(("os.remove", "os.rmdir", "os.mkdir", "os.truncate"), 1),
}


def before_changes(folder: str, call: Callable[[int], None]) -> None:
    """Call a function just before each change of a file below a folder, with its number, from 1.

    From now on, in this process and in those that it forks.
    """
    numbers = itertools.count(1)

    def watch(event: str, arguments: tuple) -> None:
        if (event == "open" or event in _PATHS) and _is_change(event, arguments, folder):
            call(next(numbers))

    sys.addaudithook(watch)


def _is_change(event: str, arguments: tuple, folder: str) -> bool:
    if event == "open":
        path, _, flags = arguments
        return bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)) and str(path).startswith(folder)
    paths = arguments[: _PATHS[event]]
    if event in ("os.remove", "os.rmdir") and arguments[1] != -1:  # a name in an open folder
        paths = (_path_of(arguments[1]) / paths[0],)
    return any(str(path).startswith(folder) for path in paths)


def _path_of(descriptor: int) -> Path:
    """Return where an open folder is."""
    if sys.platform == "darwin":  # whose /dev/fd has no links
        import fcntl  # which Windows lacks

        return Path(os.fsdecode(fcntl.fcntl(descriptor, fcntl.F_GETPATH, bytes(1024)).rstrip(b"\0")))
    return Path(f"/proc/self/fd/{descriptor}").readlink()
