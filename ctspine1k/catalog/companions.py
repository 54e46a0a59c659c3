"""Files that are incomplete alone: a header, and beside it the file with its voxels."""

from __future__ import annotations

import posixpath

__all__ = ["companions"]

#: Endings of the files that may hold the voxels of a header, by its own ending: plain, or compressed.
_ENDINGS = {".mhd": (".raw", ".zraw", ".RAW", ".ZRAW")}


def companions(path: str) -> list[str]:
    """Return the paths, with slashes, of the files that may belong to a file: in its folder, named as it is.

    Names alone decide, so that a listing shows which files a case has, and a cache knows all of them.
    """
    stem, ending = posixpath.splitext(path)
    return [stem + other for other in _ENDINGS.get(ending.lower(), ())]
