"""Local files compared with what the Hub records of them."""

from __future__ import annotations

from pathlib import Path

from ctspine1k.errors import ChecksumError
from ctspine1k.files.raw import RawFile
from ctspine1k.running.disk import sha256_of

__all__ = ["check_file_is"]


def check_file_is(path: Path, file: RawFile, hint: str) -> None:
    """Compare a local file with the Hub's record of it.

    Raises:
        ChecksumError: it differs in size or sha256.
    """
    size = path.stat().st_size
    if size != file.size:
        raise ChecksumError(file.url, "size", str(file.size), str(size), hint)
    if file.sha256 is None:  # not in LFS: the Hub records no sha256
        return
    with path.open("rb") as stream:
        found = sha256_of(stream)
    if found != file.sha256:
        raise ChecksumError(file.url, "sha256", file.sha256, found, hint)
