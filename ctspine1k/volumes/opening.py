"""A file of a volume, opened by the reader that its name asks for: MetaImage, or else NIfTI."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from typing import Literal, Protocol

from ctspine1k.catalog.companions import is_metaimage
from ctspine1k.errors import FileFormatError
from ctspine1k.volumes.headers import VolumeHeader
from ctspine1k.volumes.metaimage import open_metaimage
from ctspine1k.volumes.nifti import Readable, open_nifti

__all__ = ["VoxelFile", "open_volume", "world_of"]


def world_of(source: Readable) -> Literal["LPS", "RAS"]:
    """Return the convention of coordinates in the header of a file, by its name."""
    return "LPS" if is_metaimage(_name(source)) else "RAS"


def _name(source: Readable) -> str:
    """Return a path as text, or the name of a stream; an empty text if it has none."""
    return os.fspath(source) if isinstance(source, (str, os.PathLike)) else str(getattr(source, "name", ""))


class VoxelFile(Protocol):
    """An open file: its header, then the bytes of its voxels in order."""

    header: VolumeHeader

    def readinto(self, buffer: memoryview) -> int:
        """Read the next bytes into ``buffer``, and return how many; 0 only at the end."""

    def check_end(self) -> None:
        """Check that nothing but padding follows the last voxel."""


def open_volume(source: Readable) -> AbstractContextManager[VoxelFile]:
    """Open a file, and read it up to its first voxel; errors as for `open_nifti` and `open_metaimage`."""
    name = _name(source)
    if not is_metaimage(name):
        return open_nifti(source)
    if not isinstance(source, (str, os.PathLike)):
        hint = "Download it, with the .raw beside it, and pass its path."
        raise FileFormatError(name, "the path of a MetaImage file", "a stream", hint)
    return open_metaimage(name)
