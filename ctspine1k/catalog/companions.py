"""MetaImage files by their names: those that are a header alone need another file beside them."""

from __future__ import annotations

import posixpath

__all__ = ["companions", "is_metaimage"]

#: Endings of MetaImage files: of headers alone, and of headers with voxels.
_HEADER, _WHOLE = ".mhd", ".mha"

#: Endings of the files that may hold the voxels of a header: plain, or compressed.
_VOXELS = (".raw", ".zraw", ".RAW", ".ZRAW")


def is_metaimage(path: str) -> bool:
    """Return whether a file is MetaImage, by its name in any case of letters."""
    return path.lower().endswith((_HEADER, _WHOLE))


def companions(path: str) -> list[str]:
    """Return the paths of the files that may belong to a file: in its folder, and named as it is.

    Names alone decide, so that a listing shows all files of a case, and a cache knows of all of them.
    """
    stem, ending = posixpath.splitext(path)
    return [stem + voxels for voxels in _VOXELS] if ending.lower() == _HEADER else []
