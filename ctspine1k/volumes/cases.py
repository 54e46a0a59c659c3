"""One case from its files: image and mask side by side, slice by slice, checked; or only an image.

Files are read in one pass, without a float64 copy of a volume, and with memory for a few slices. If several
threads may be used, the next slices of both files are inflated at the same time. The result is, bit for bit,
``np.transpose(nibabel.load(file).get_fdata(), (2, 0, 1))``, cast.

Axis order: files have axes (i, j, k); arrays here are slice first, (k, i, j). Nothing is resampled. With
another orientation, arrays are as if the file had been stored in it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ctspine1k._messages import check_choice, warn
from ctspine1k.catalog.registry import data_set
from ctspine1k.catalog.vocabulary import Vocabulary
from ctspine1k.errors import CaseError, GeometryWarning, PairMismatchError, VoxelWarning
from ctspine1k.running.stops import check_stopped
from ctspine1k.running.threads import prefetch, prefetch_together, usable_threads
from ctspine1k.volumes.alignment import Alignment
from ctspine1k.volumes.arrays import VolumePair, Voxels, pair_of, read_all
from ctspine1k.volumes.growing import GROWTH, GrowingArray, Growth
from ctspine1k.volumes.headers import Geometry
from ctspine1k.volumes.nifti import Readable
from ctspine1k.volumes.opening import open_volume
from ctspine1k.volumes.orientation import PLANES, check_orientation
from ctspine1k.volumes.positions import Doubt, with_choice
from ctspine1k.volumes.relabel import Others, Relabelling, accepted_labels, label_table
from ctspine1k.volumes.scaling import Scaling
from ctspine1k.volumes.slices import OnVoxels, VolumeReader

__all__ = [
    "CaseReader",
    "Readable",
    "VolumePair",
    "check_file",
    "open_case",
    "read_pair",
]

#: Number of slices that are read at a time by default.
_DEPTH = 8


def read_pair(
    image: Readable,
    mask: Readable,
    *,
    on_geometry: Literal["raise", "warn"] = "warn",
    on_voxels: OnVoxels = "raise",
    orientation: str | None = None,
    vocabulary: Vocabulary | None = None,
    other_labels: Others = "raise",
) -> VolumePair:
    """Read one case as arrays, not resampled.

    Args:
        image: the CT, a path or an open binary stream, ``.nii.gz`` or ``.nii``; or the path of an ``.mhd`` or
            ``.mha`` file, which needs ``ctspine1k[msr]``.
        mask: its label map, in the same forms.
        on_geometry: if the two headers place the voxels differently, or one contradicts itself: "warn", or
            "raise" an error.
        on_voxels: if voxels of the CT are NaN or infinite: "raise" an error, or "replace" them by -1024 HU,
            the value of padding, with a warning.
        orientation: None for as stored; or the orientation to bring the files' axes (i, j, k) into, such as
            "RAS": arrays, affine and spacing are then as if both files had been stored in it. Each file is
            turned by its own header. Arrays are still slice first: for "RAS" theirs is "SRA".
        vocabulary: the labels that the mask may contain; by default those of CTSpine1K.
        other_labels: if the mask has others, up to 255, such as a sacrum: "raise" an error, or make them
            "background".

    Returns:
        VolumePair: ``image`` float32 in HU and ``segmentation`` int32, both of shape (k, i, j), with the
        image's affine, spacing and orientation.

    Raises:
        CaseError: the files cannot be used; its subclasses and its message say why.
        FileNotFoundError: there is no file at a path.
        TypeError: something else than paths or binary streams.
    """
    check_orientation(orientation)
    with open_case(
        image,
        mask,
        on_geometry=on_geometry,
        on_voxels=on_voxels,
        orientation=orientation,
        vocabulary=vocabulary,
        other_labels=other_labels,
        threads=usable_threads(),
    ) as case:
        return case.read()


@contextlib.contextmanager
def open_case(
    image: Readable,
    mask: Readable | None,
    *,
    on_geometry: Literal["raise", "warn"] | None = "warn",
    on_voxels: OnVoxels = "raise",
    orientation: str | None = None,
    vocabulary: Vocabulary | None = None,
    label_scheme: str | None = None,
    other_labels: Others = "raise",
    threads: int = 1,
    on_change: Callable[[str], None] | None = None,
) -> Iterator[CaseReader]:
    """Open the files of one case and read their headers; no voxel is read yet.

    Args:
        image: the CT, as for `read_pair`.
        mask: its label map; None if there is none, or if labels are not needed.
        on_geometry: as for `read_pair`; None neither warns nor raises.
        on_voxels: as for `read_pair`.
        orientation: as for `read_pair`; or one of `PLANES`, for an order of axes with slices in that plane,
            in the directions that the image is stored in.
        vocabulary: as for `read_pair`.
        label_scheme: what labels become, one of the vocabulary's schemes; None for its first, as they are.
        other_labels: as for `read_pair`.
        threads: if above 1, a thread for each file inflates its next slices; one for both if they are
            streams, which may share a file, such as that of an archive.
        on_change: called instead of a warning with what was changed in the voxels of a file, such as labels
            that were rounded, when it is read; once a file.

    Raises:
        ValueError: an argument that is not allowed.
        CaseError: the files cannot be used; its subclasses and its message say why.
        FileNotFoundError: there is no file at a path.
    """
    check_choice("on_geometry", on_geometry, ("raise", "warn"), or_none=True)
    check_choice("on_voxels", on_voxels, ("raise", "replace"))
    if orientation not in PLANES:
        check_orientation(orientation)
    vocabulary = data_set().vocabulary if vocabulary is None else vocabulary
    check_choice("other_labels", other_labels, ("raise", "background"))
    table = label_table(vocabulary, label_scheme, other_labels)
    accepted = accepted_labels(vocabulary, label_scheme, other_labels)
    with contextlib.ExitStack() as stack:
        image_reader = VolumeReader(stack.enter_context(open_volume(image)), on_voxels)
        mask_reader = None if mask is None else VolumeReader(stack.enter_context(open_volume(mask)))
        case = CaseReader(
            image_reader,
            mask_reader,
            accepted,
            None if table is None else Relabelling(table, vocabulary),
            orientation,
            threads,
            on_change or _warn_of_change,
            are_paths=all(isinstance(file, (str, os.PathLike)) for file in (image, mask or image)),
        )
        if on_geometry is not None and (problems := case.geometry_problems()):
            advised = [with_choice(problem) for problem in problems]
            if on_geometry == "raise":
                raise advised[0]
            warn("\n".join(map(str, advised)), GeometryWarning)
        yield case


def check_file(file: Readable) -> None:
    """Read one file from its header to its end, such as that of gzip, without looking at its voxels.

    Raises:
        CaseError: it is damaged, or not a file of a scan.
        FileNotFoundError: there is no file at the path.
    """
    with open_volume(file) as opened:
        for _ in VolumeReader(opened).stored(_DEPTH):
            pass


class CaseReader:
    """The open files of one case, read once, from the first slice to the last."""

    def __init__(
        self,
        image: VolumeReader,
        mask: VolumeReader | None,
        vocabulary: Vocabulary,
        relabel: Relabelling | None,
        orientation: str | None,
        threads: int,
        on_change: Callable[[str], None],
        *,
        are_paths: bool,
    ) -> None:
        self.vocabulary = vocabulary  #: of the labels that the mask's file may contain
        self._image, self._mask, self._relabel, self._threads = image, mask, relabel, threads
        self._on_change, self._are_paths = on_change, are_paths
        self._alignment = Alignment.of(image.header, None if mask is None else mask.header, orientation)
        shape, turn = image.header.shape, self._alignment.image
        turned = None if turn is None else Geometry.of(turn.affine, turn.shape(shape))
        self.geometry = turned or self.file_geometry

    @property
    def name(self) -> str:
        """Path or name of the image, for messages."""
        return self._image.header.name

    @property
    def file_geometry(self) -> Geometry:
        """The geometry of the image as stored in its file, not turned."""
        return Geometry.of(self._image.header.affine, self._image.header.shape)

    @property
    def scaling(self) -> Scaling:
        """From the stored intensities to Hounsfield units."""
        return self._image.header.scaling

    @property
    def has_mask(self) -> bool:
        """Whether the case was opened with a mask."""
        return self._mask is not None

    @property
    def file_types(self) -> tuple[np.dtype[Any], ...]:
        """Types of the voxels in the files: of the image, and of the mask if there is one."""
        return tuple(reader.header.dtype for reader in (self._image, self._mask) if reader is not None)

    @property
    def stored_types(self) -> tuple[np.dtype[Any], ...]:
        """Types of the arrays that `slabs` yields: of the image, and of the labels if there is a mask."""
        if self._mask is None:
            return (self._image.header.dtype,)
        label_type = self._mask.label_type if self._relabel is None else self._relabel.table.dtype
        return self._image.header.dtype, label_type

    @property
    def label_rounding(self) -> float:
        """Greatest distance from a whole number of the labels read so far, which were rounded."""
        return 0.0 if self._mask is None else self._mask.label_rounding

    @property
    def replaced_voxels(self) -> int:
        """How many intensities read so far are not finite, and were replaced."""
        return self._image.replaced

    @property
    def finite_range(self) -> tuple[float, float]:
        """The least and the greatest stored intensity read so far beside `replaced_voxels`, if there are."""
        return self._image.finite_range

    @property
    def other_labels(self) -> tuple[int, ...]:
        """Labels read so far that the data set does not have, and that became background."""
        return () if self._relabel is None else tuple(sorted(self._relabel.others))

    def geometry_mismatch(self) -> PairMismatchError | None:
        """Return an error that says how the two headers place voxels differently; None if they agree."""
        return None if self._mask is None else self._alignment.mismatch(self._image.header, self._mask.header)

    @property
    def doubts(self) -> tuple[Doubt, ...]:
        """Why the position that the image's header gives, or the mask's, may be wrong."""
        return self._image.header.doubts + (() if self._mask is None else self._mask.header.doubts)

    def geometry_problems(self, *, by_place: bool = False) -> list[CaseError]:
        """List all that ``on_geometry`` is about: `geometry_mismatch`, then `doubts`.

        That an image's place is a guess matters only if the volume is turned by it, or if what is made of it
        says where voxels lie (``by_place``); a mask never is turned by a guess.
        """
        mismatch, image = self.geometry_mismatch(), self._image.header
        by_guess = image.doubts if by_place or self._alignment.image is not None else ()
        doubts = (doubt for doubt in self.doubts if doubt.kind != "unplaced" or doubt in by_guess)
        return [*([] if mismatch is None else [mismatch]), *(doubt.error for doubt in doubts)]

    def slabs(self, depth: int = _DEPTH) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        """Yield image and labels of ``depth`` slices at a time; the last time maybe fewer.

        Both have shape (slices, i, j), though not in C order, and the types in `stored_types`, in the file's
        byte order. The image is as stored: apply `scaling`, after which all values are finite. Labels are
        whole numbers from 0 to the vocabulary's greatest label. The arrays are views of buffers, which the
        next slices overwrite. The end of both files is checked after the last slice.

        If the requested orientation has other slices than the file, or another order of them, both volumes
        are read completely first.

        Raises:
            ValueError: there is no mask: see `image_slabs`.
            CaseError: a file is damaged, or contains invalid values.
        """
        self._require_mask()
        return ((image, labels) for image, labels in self.voxels(depth))

    def voxels(self, depth: int = _DEPTH) -> Iterator[Voxels]:
        """Yield what there is, as for `slabs`: image and labels, or the image alone if there is no mask."""
        return self._turned(depth, has_labels=self.has_mask)

    def image_slabs(self, depth: int = _DEPTH) -> Iterator[NDArray[Any]]:
        """Yield only the image, as for `slabs`; the mask, if there is one, is not read."""
        return (image for (image,) in self._turned(depth, has_labels=False))

    def label_slabs(self, depth: int = _DEPTH) -> Iterator[NDArray[Any]]:
        """Yield only the labels of a case opened as stored, as for `slabs`; no voxel of the image is read."""
        return (labels for (labels,) in self._read_ahead(self._labels(self._require_mask(), depth)))

    def read(self, growth: Growth = GROWTH) -> VolumePair:
        """Read all slices into two arrays, whose memory grows by ``growth``.

        Raises:
            ValueError: there is no mask: see `read_image`.
            CaseError: a file is damaged, or contains invalid values.
        """
        self._require_mask()
        return pair_of(self.geometry, self.read_voxels(growth))

    def read_voxels(self, growth: Growth = GROWTH) -> Voxels:
        """Read all slices of what there is, as `read_all` returns them."""
        return read_all(self.geometry, self.scaling, self.voxels(), growth)

    def read_image(self, growth: Growth = GROWTH) -> NDArray[np.float32]:
        """Read only the image, (k, i, j), in Hounsfield units."""
        image = GrowingArray(self.geometry.shape, "f4", growth)
        for stored in self.image_slabs():
            self.scaling.write(stored, image.extend(len(stored)))
        return image.filled

    def check(self) -> None:
        """Read both files to their ends, and keep nothing.

        Raises:
            CaseError: a file is damaged, or contains invalid values.
        """
        for volume in self._volumes(_DEPTH, has_labels=self.has_mask):
            for _ in self._read_ahead(volume):
                pass

    def _require_mask(self) -> VolumeReader:
        if self._mask is None:
            raise ValueError(f"{self.name}: opened without a mask, so there are no labels")
        return self._mask

    def _turned(self, depth: int, *, has_labels: bool) -> Iterator[Voxels]:
        """Yield slabs in the requested orientation."""
        volumes = self._volumes(depth, has_labels=has_labels)
        turns = (self._alignment.image, self._alignment.mask)[: len(volumes)]
        if all(turn is None or turn.keeps_slices for turn in turns):
            for slab in self._read_ahead(*volumes):
                yield tuple(
                    part if turn is None else turn.view(part) for part, turn in zip(slab, turns, strict=True)
                )
        else:
            turned = [
                volume if turn is None else turn.view(volume)
                for volume, turn in zip(self._gathered(volumes), turns, strict=True)
            ]
            for start in range(0, self.geometry.shape[0], depth):
                yield tuple(volume[start : start + depth] for volume in turned)

    def _volumes(self, depth: int, *, has_labels: bool) -> list[Iterator[NDArray[Any]]]:
        """Return the slabs of each volume in its stored orientation, with labels in the requested scheme."""
        volumes = [self._image.images(depth)]
        if self._mask is not None and has_labels:
            volumes.append(self._labels(self._mask, depth))
        return volumes

    def _labels(self, mask: VolumeReader, depth: int) -> Iterator[NDArray[Any]]:
        labels = mask.labels(depth, self.vocabulary)
        return labels if self._relabel is None else map(self._relabel, labels)

    def _read_ahead(self, *volumes: Iterator[NDArray[Any]]) -> Iterator[Voxels]:
        """Yield the next slab of each volume."""
        for slab in self._together(volumes):
            check_stopped()  # a volume takes seconds
            self._report_changes()
            yield slab

    def _together(self, volumes: Sequence[Iterator[NDArray[Any]]]) -> Iterator[Voxels]:
        if self._threads > 1 and self._are_paths:
            return prefetch_together(*volumes)
        one_by_one = zip(*volumes, strict=True)
        return prefetch(one_by_one) if self._threads > 1 else one_by_one

    def _report_changes(self) -> None:
        for reader in (self._image, self._mask):
            for change in reader.new_changes() if reader is not None else ():
                self._on_change(change)

    def _gathered(self, volumes: Sequence[Iterator[NDArray[Any]]]) -> Iterator[NDArray[Any]]:
        """Yield complete volumes, one after the other: their numbers of slices may differ."""
        for volume, reader, dtype in zip(volumes, (self._image, self._mask), self.stored_types, strict=False):
            if reader is not None:
                i, j, k = reader.header.shape
                whole = GrowingArray((k, i, j), dtype)
                for (slab,) in self._read_ahead(volume):
                    np.copyto(whole.extend(len(slab)), slab)
                yield whole.filled


def _warn_of_change(change: str) -> None:
    warn(change, VoxelWarning)
