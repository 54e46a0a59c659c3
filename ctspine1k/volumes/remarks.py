"""What is doubtful about the files of a case that is used all the same: warnings, from any process."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from ctspine1k._messages import warn
from ctspine1k.errors import GeometryWarning, VoxelWarning
from ctspine1k.volumes.positions import Doubt

__all__ = ["Remarks"]


@dataclass
class Remarks:
    """What is doubtful about the files of a case that was used all the same."""

    doubts: list[str] = field(default_factory=list)  #: about the position that a header gives
    changes: list[str] = field(default_factory=list)  #: what was changed in voxels

    def note(self, doubts: Iterable[Doubt], changes: Iterable[str] = (), *, by_place: bool) -> None:
        """Note what is doubtful about a file.

        That its place is a guess matters only if the result depends on it (``by_place``).
        """
        texts = (str(doubt.error) for doubt in doubts if by_place or doubt.kind != "unplaced")
        self.doubts += [text for text in texts if text not in self.doubts]  # both sides may have one header
        self.changes += changes

    def warn(self) -> None:
        """Issue warnings, if there is anything to say."""
        if self.doubts:
            warn("\n".join(self.doubts), GeometryWarning)
        if self.changes:
            warn("\n".join(self.changes), VoxelWarning)
