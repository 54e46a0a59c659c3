"""From a path or URL to the target of an export."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ctspine1k.exports.folder_target import FolderTarget
from ctspine1k.exports.targets import Target
from ctspine1k.exports.url_target import UrlTarget
from ctspine1k.running.disk import require_folder
from ctspine1k.running.retries import PAUSES

__all__ = ["open_target"]


def open_target(out: str | os.PathLike[str], pauses: tuple[float, ...] = PAUSES) -> Target:
    """Return the target of a path, or of an fsspec URL such as "s3://bucket/folder". Nothing is written yet.

    Args:
        out: the path or URL.
        pauses: seconds between attempts of a request to a URL.

    Raises:
        ValueError: it is empty, or fsspec does not know the protocol, or the package for it is not installed.
        MissingPackageError: s3:// needs ``ctspine1k[s3]``.
        OutputError: there is a file at the path, or it is on the Hub, which may not be reached now.
    """
    place = os.fspath(out)
    if not place:
        raise ValueError("out is empty: expected a folder or a URL")
    if re.match(r"[a-z][a-z0-9+.-]+:/(?!/)", place):
        raise ValueError(
            f"out={place!r}: expected a folder or a URL with two slashes, as text: Path drops one"
        )
    protocol, separator, rest = place.partition("://")
    if separator and not rest.strip("/"):
        raise ValueError(f"out={place!r}: expected a place after {protocol}://, such as a bucket")
    if separator and protocol not in ("file", "local"):
        target = UrlTarget(place.rstrip("/"), pauses)
        target.check()
        return target
    root = Path(rest.removeprefix("localhost") if separator else place).expanduser().absolute()
    require_folder(root)
    return FolderTarget(root)
