"""Options of rows: what decides what the rows of a case hold, beside its files."""

from __future__ import annotations

import operator
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, TypeAlias, cast

from ctspine1k._messages import check_choice
from ctspine1k.catalog.dataset import DataSet
from ctspine1k.catalog.vocabulary import LabelScheme
from ctspine1k.storage.codec import require_blosc2
from ctspine1k.volumes.orientation import check_orientation

__all__ = ["CONFIGS", "ROWS_VERSION", "Policy", "RowOptions", "Storage"]

#: "3d" has one row per case, "2d" one row per axial slice.
CONFIGS = ("3d", "2d")

Storage: TypeAlias = Literal["dense", "compact"]

#: What to do about a case that cannot be used.
Policy: TypeAlias = Literal["raise", "skip"]

#: Raise it when the same files and options give other rows: it is part of every cache's path, and of what an
#: export knows of a shard.
ROWS_VERSION = "1.0.0"


@dataclass(frozen=True)
class RowOptions:
    """What decides what the rows of a case hold, beside its files; options of `load_dataset`."""

    config: str = "3d"  #: "3d", one row per case, or "2d", one row per axial slice
    storage: Storage = "dense"
    image_size: tuple[int, int] | None = None  #: voxels of a slice; None: what the data set promises, or any
    orientation: str | None = None  #: target orientation of the files' axes; None for as stored
    label_scheme: LabelScheme | None = None  #: what segmentations hold; None for labels as they are
    geometry: bool = False  #: whether there are columns of it
    on_geometry: Literal["raise", "warn"] | None = "warn"  #: None compares nothing

    def __post_init__(self) -> None:
        """Check the options, and write each in one way, however it was given.

        Raises:
            ValueError: an option that is not allowed.
            MissingPackageError: compact storage needs a package that is not installed.
        """
        check_choice("on_geometry", self.on_geometry, ("raise", "warn"))
        if not isinstance(self.geometry, bool):
            raise ValueError(f"geometry={self.geometry!r}: expected True or False")
        check_choice("storage", self.storage, ("dense", "compact"))
        check_orientation(self.orientation)
        if self.storage == "compact":
            require_blosc2()
        if self.image_size is not None:
            object.__setattr__(self, "image_size", _checked_size(self.image_size))

    def keywords(self) -> dict[str, Any]:
        """Return the options by name, but for ``config``, as verbs take them one by one."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "config"}

    def of(self, data_set: DataSet) -> RowOptions:
        """Return the options with what a data set says where they say nothing.

        Raises:
            ValueError: a label scheme that the data set does not have, or dense rows of slices whose size it
                does not promise.
        """
        vocabulary = data_set.vocabulary
        check_choice("label_scheme", self.label_scheme, vocabulary.schemes)
        image_size = self.image_size
        if self.storage == "dense" and image_size is None:
            image_size = data_set.image_size
            if image_size is None:
                raise ValueError(
                    f"image_size=None: slices of {data_set.title} differ in size, which dense rows have to "
                    'promise: pass image_size=(i, j), or storage="compact"'
                )
        own = cast("LabelScheme", vocabulary.schemes[0])
        return replace(self, image_size=image_size, label_scheme=self.label_scheme or own)


def _checked_size(image_size: tuple[int, int]) -> tuple[int, int]:
    try:
        first, second = map(operator.index, image_size)
        if min(first, second) < 1:
            raise ValueError
    except (TypeError, ValueError):
        raise ValueError(
            f"image_size={image_size!r}: expected two positive numbers, such as (512, 512)"
        ) from None
    return first, second
