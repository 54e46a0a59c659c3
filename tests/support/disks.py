"""Small file systems, where this user may mount them."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def mounted(place: Path, size: int) -> Iterator[bool]:
    """Mount an empty file system of some bytes meanwhile; yield whether that was possible."""
    place.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
    done = subprocess.run(["mount", *options], check=False, capture_output=True)
    try:
        yield done.returncode == 0
    finally:
        if done.returncode == 0:
            subprocess.run(["umount", "--lazy", place], check=True)


def fill(place: Path, blocks_left: int = 0) -> Path:
    """Fill the file system of a folder with a file; return that."""
    disk = os.statvfs(place)
    filler = place / "filler"
    filler.write_bytes(bytes((disk.f_bavail - blocks_left) * disk.f_frsize))
    return filler
