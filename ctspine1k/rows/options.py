"""Options of rows: together with the files of a case, they decide what its rows contain."""

from __future__ import annotations

import operator
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, TypeAlias, cast

from ctspine1k._messages import check_choice
from ctspine1k.catalog.dataset import DataSet, Kind, PointsFormat
from ctspine1k.catalog.registry import is_built_in
from ctspine1k.catalog.vocabulary import LabelScheme
from ctspine1k.storage.codec import COMPRESSIONS, Compression, require_blosc2
from ctspine1k.volumes.orientation import PLANES, Plane, check_orientation, sliced
from ctspine1k.volumes.points import READINGS
from ctspine1k.volumes.relabel import Others
from ctspine1k.volumes.resampling import Spacing, check_spacing
from ctspine1k.volumes.slices import OnVoxels

__all__ = [
    "CONFIGS",
    "GEOMETRY_COLUMNS",
    "ROWS_VERSION",
    "Compression",
    "Plane",
    "PointsChoice",
    "Policy",
    "RowOptions",
    "Spacing",
    "Storage",
]

#: "3d" has one row per case, "2d" one row per slice.
CONFIGS = ("3d", "2d")

#: Columns that rows have with ``geometry=True``.
GEOMETRY_COLUMNS = ("source", "spacing", "affine", "array_affine", "orientation", "n_labelled")

Storage: TypeAlias = Literal["dense", "compact"]

#: Whether rows have points: None if each case of the data set must have a file of them; or how coordinates in
#: these files are meant, one of the `READINGS` of the format.
PointsChoice: TypeAlias = "bool | str | None"

#: What to do if a case cannot be used.
Policy: TypeAlias = Literal["raise", "skip"]

#: Increase it when the same files and options give different rows: it is part of every cache's path, and of
#: the key of an export's shard.
ROWS_VERSION = "1.0.0"


@dataclass(frozen=True)
class RowOptions:
    """Options that decide what the rows of a case contain, together with its files; as for `load_dataset`."""

    config: str = "3d"  #: "3d", one row per case, or "2d", one row per slice
    storage: Storage = "dense"
    compression: Compression | None = None  #: of compact storage; None for "small"
    image_size: tuple[int, int] | None = None  #: voxels of a slice; None: the data set's, or any
    orientation: str | None = None  #: target orientation of the files' axes; None for as stored
    spacing: Spacing | None = None  #: mm along the patient's x, y and z; None for as stored
    plane: Plane | None = None  #: of the slices of "2d"; None for the files' own, or the orientation's
    label_scheme: LabelScheme | None = None  #: what segmentations contain; None for labels as they are
    other_labels: Others = "raise"  #: labels that the data set lacks: an error, or "background"
    geometry: bool = False  #: whether there are the columns `GEOMETRY_COLUMNS`
    points: PointsChoice = None  #: whether there is the column points, and how coordinates are meant
    on_geometry: Literal["raise", "warn"] | None = "warn"  #: None: headers are not compared
    on_voxels: OnVoxels = "raise"  #: "replace": -1024 HU in place of NaN and infinite intensities
    masks: bool = True  #: set by `of`: whether the data set has masks, and rows segmentations
    points_format: PointsFormat | None = None  #: set by `of`: what files of points are, if rows have points
    vocabulary: str | None = None  #: set by `of`: digest of the labels, which those of your own may change

    def __post_init__(self) -> None:
        """Check the options, and normalise them.

        Raises:
            ValueError: an option that is not allowed.
            MissingPackageError: compact storage needs a package that is not installed.
        """
        check_choice("on_geometry", self.on_geometry, ("raise", "warn"), or_none=True)
        check_choice("on_voxels", self.on_voxels, ("raise", "replace"))
        if not isinstance(self.geometry, bool):
            raise ValueError(f"geometry={self.geometry!r}: expected True or False")
        if not isinstance(self.points, (bool, str, type(None))):
            raise ValueError(
                f"points={self.points!r}: expected True, False, None or a reading of coordinates"
            )
        check_choice("storage", self.storage, ("dense", "compact"))
        check_choice("other_labels", self.other_labels, ("raise", "background"))
        check_orientation(self.orientation)
        object.__setattr__(self, "spacing", check_spacing(self.spacing))
        check_choice("plane", self.plane, tuple(PLANES), or_none=True)
        if self.plane is not None and self.config != "2d":
            raise ValueError(
                f'plane={self.plane!r}: expected None for "{self.config}", since volumes have no plane; load '
                '"2d", or pass orientation for the order of axes'
            )
        check_choice("compression", self.compression, COMPRESSIONS, or_none=True)
        if self.storage == "compact":
            require_blosc2()
        elif self.compression is not None:
            raise ValueError(
                f"compression={self.compression!r}: dense storage is not compressed; pass "
                'storage="compact" with it'
            )
        if self.image_size is not None:
            object.__setattr__(self, "image_size", _checked_size(self.image_size))

    @property
    def turned_to(self) -> str | None:
        """The target orientation with the slices of `plane`; the plane itself for directions as stored."""
        if self.plane is None:
            return self.orientation
        return self.plane if self.orientation is None else sliced(self.orientation, self.plane)

    def keywords(self) -> dict[str, Any]:
        """Return the options by name, except ``config``, as verbs take them."""
        names = [field.name for field in fields(self) if field.name not in ("config", *_OF_DATA_SET)]
        return {name: getattr(self, name) for name in names}

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """Kinds of the files that rows are made of."""
        kinds: dict[Kind, bool] = {"image": True, "mask": self.masks, "points": bool(self.points)}
        return tuple(kind for kind, is_used in kinds.items() if is_used)

    @property
    def geometry_columns(self) -> tuple[str, ...]:
        """The columns that there are with ``geometry=True``."""
        return GEOMETRY_COLUMNS if self.masks else GEOMETRY_COLUMNS[:-1]  # which counts labels

    def key(self) -> dict[str, Any]:
        """Return the options that rows depend on, for the ids of caches and of an export's shards.

        An option that came later is in it only where it may change rows, so that earlier ids stay valid.
        """
        key = {**asdict(self), "geometry": list(self.geometry_columns) if self.geometry else False}
        for name, earlier in _EARLIER.items():
            if key[name] in earlier:
                del key[name]
        return key

    def of(self, data_set: DataSet, *, any_size: bool = False) -> RowOptions:
        """Return the options with a data set's own values where they are None.

        Args:
            data_set: the data set.
            any_size: whether slices of dense rows may differ in size: if those of the data set do, or those
                of the orientation, there is no image size.

        Raises:
            ValueError: an option that the data set has no files for, or a label scheme that it does not have,
                or dense rows without an image size, if slices of the data set differ in size.
        """
        vocabulary = data_set.vocabulary
        masks, points = "mask" in data_set.kinds, self._points_of(data_set)
        if not masks:
            self._require_no_labels(data_set)
        check_choice("label_scheme", self.label_scheme, vocabulary.schemes, or_none=True)
        image_size = self.image_size
        if self.storage == "dense" and image_size is None:
            image_size, what = data_set.image_size, "slices"
            if self.plane in ("coronal", "sagittal"):  # which are as high as a volume has axial ones
                image_size, what = None, f"{self.plane} slices"
            if self.spacing is not None:  # volumes of one size cover fields of view of several
                image_size, what = None, "resampled slices"
            if any_size:
                if self.orientation is not None and self.orientation[-1] not in "SI":
                    image_size = None  # a data set's size is that of axial slices
            elif image_size is None:
                raise ValueError(
                    f"image_size=None: {what} of {data_set.title} differ in size, and dense rows need one "
                    'size: pass storage="compact", or image_size=(i, j)'
                )
        own = cast("LabelScheme", vocabulary.schemes[0])
        return replace(
            self,
            image_size=image_size,
            label_scheme=self.label_scheme or own,
            points=points,
            masks=masks,
            points_format=data_set.points_format if points else None,
            vocabulary=None if is_built_in(data_set.name) else vocabulary.digest(),
        )

    def _points_of(self, data_set: DataSet) -> bool | str:
        """Return ``points`` for a data set, where None is replaced.

        Raises:
            ValueError: it has no files of points, or their format no such reading.
        """
        if not self.points:
            return self.points is None and "points" in data_set.kinds
        if data_set.points_format is None or "points" not in (*data_set.kinds, *data_set.optional):
            raise ValueError(
                f"points={self.points!r}: expected None or False, since {data_set.title} has no files of "
                "points"
            )
        if isinstance(self.points, str):
            check_choice("points", self.points, READINGS[data_set.points_format])
        return self.points

    def _require_no_labels(self, data_set: DataSet) -> None:
        """Raise a `ValueError` if an option is given that is about the labels of masks."""
        own = data_set.vocabulary.schemes[0]
        for name, plain in (("label_scheme", (None, own)), ("other_labels", ("raise",))):
            if (value := getattr(self, name)) not in plain:
                raise ValueError(
                    f"{name}={value!r}: expected {plain[0]!r}, since {data_set.title} has no masks: its rows "
                    "have no segmentation. Leave the option out."
                )


#: What rows were before an option came: values with which they are the same.
_EARLIER: dict[str, tuple[Any, ...]] = {
    "other_labels": ("raise",),
    "on_voxels": ("raise",),
    "compression": (None, "small"),
    "plane": (None,),
    "spacing": (None,),
    "points": (None, False),
    "masks": (True,),
    "points_format": (None,),
    "vocabulary": (None,),
}

#: Options that depend on the data set alone: users do not pass them.
_OF_DATA_SET = ("masks", "points_format", "vocabulary")


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
