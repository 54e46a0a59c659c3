"""One case of an export for nnU-Net: its files are linked or copied, and a mask is rewritten if it must be.

nnU-Net reads images and masks separately, and compares their sizes and spacings. A mask is rewritten, as
uint8 with the header of its image, if it is not stored as whole numbers, if its labels become others, or if
its header differs from the image's. It then carries a mark in its header, by which the next run knows it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeAlias

import nibabel as nib
import numpy as np
from isal import igzip
from nibabel.affines import voxel_sizes
from numpy.typing import NDArray

from ctspine1k.catalog.dataset import Kind
from ctspine1k.catalog.vocabulary import Vocabulary
from ctspine1k.errors import CaseError, FileFormatError, GeometryError, UnreadableFileError
from ctspine1k.exports.folder_target import FolderTarget
from ctspine1k.exports.nnunet_layout import DATASET, Member
from ctspine1k.files.copies import is_copy, other_file, put_file
from ctspine1k.files.raw import CaseFiles
from ctspine1k.files.transfer import reading_case
from ctspine1k.running.stops import check_stopped
from ctspine1k.volumes.alignment import Alignment
from ctspine1k.volumes.growing import GrowingArray
from ctspine1k.volumes.headers import VolumeHeader, header_size
from ctspine1k.volumes.nifti import open_nifti
from ctspine1k.volumes.orientation import degenerate_axes
from ctspine1k.volumes.positions import GEOMETRY_TOLERANCE, with_choice
from ctspine1k.volumes.relabel import Others, accepted_labels, label_table
from ctspine1k.volumes.remarks import Remarks
from ctspine1k.volumes.slices import VolumeReader

__all__ = ["CaseOutcome", "CaseTask", "export_case"]

#: Increase it when the same masks are written differently: all are then rewritten.
_MASKS_VERSION = 1

#: How the mark begins.
_MARK = "ctspine1k "

#: nnU-Net refuses a mask whose spacing differs by a relative 1e-5.
_SPACING_TOLERANCE = 5e-6

_GZIP_MAGIC = b"\x1f\x8b"

#: Steps of the times that file systems keep, in ns: exFAT's; FAT's. Archives keep whole seconds.
_FINE_STEP_NS, _COARSE_STEP_NS = 10**7, 2 * 10**9

#: What was done to get a file.
Deed: TypeAlias = Literal["linked", "copied", "written", "kept"]


@dataclass(frozen=True)
class CaseTask:
    """All that a process needs to export a case."""

    member: Member
    files: CaseFiles
    paths: Mapping[Kind, Path]  #: local ones
    target: FolderTarget
    vocabulary: Vocabulary
    label_scheme: str | None
    other_labels: Others
    on_geometry: Literal["raise", "warn"]
    link: bool
    skip: bool  #: leave the case out if it cannot be used


@dataclass(frozen=True)
class CaseOutcome:
    """What was done for a case, or why it cannot be used."""

    member: Member
    deeds: tuple[Deed, ...] = ()  #: for mask and image
    problem: str | None = None
    is_skipped: bool = False
    remarks: Remarks = field(default_factory=Remarks)


def export_case(task: CaseTask) -> CaseOutcome:
    """Put the two files of a case into the folder.

    Raises:
        OutputError: another file is where one belongs, or nothing can be written.
    """
    remarks = Remarks()
    try:
        with reading_case(task.files):
            pair = _Pair(task)
            problems = pair.problems()
            if problems and task.on_geometry == "raise":
                raise problems[0]
            remarks.doubts += map(str, problems)
            deeds = (_put_mask(task, pair, remarks.changes), _put_image(task))
        return CaseOutcome(task.member, deeds, remarks=remarks)
    except CaseError as error:
        # A file that cannot be read is maybe not the case's fault, so it is never left out.
        is_skipped = task.skip and not isinstance(error, UnreadableFileError)
        if is_skipped:
            _withdraw(task)
        return CaseOutcome(task.member, problem=str(error), is_skipped=is_skipped)


class _Pair:
    """The headers of image and mask."""

    def __init__(self, task: CaseTask) -> None:
        """Read the headers.

        Raises:
            CaseError: a file is not a scan that nnU-Net can read, or the two are of different volumes.
        """
        self._task = task
        with open_nifti(task.paths["image"]) as image, open_nifti(task.paths["mask"]) as mask:
            self.image, self.mask = image.header, mask.header
        _check_image(self.image)
        self.stored_image = _stored_header(task.paths["image"])
        if (dimensions := int(self.stored_image["dim"][0])) != 3:
            expected, hint = "3 dimensions, as nnU-Net reads no others", "Save the scan as one volume."
            raise FileFormatError(self.image.name, expected, f"{dimensions}", hint)
        # In nnU-Net each file is turned by its own header, to RAS: here the mask is turned as its image is.
        self.alignment = Alignment.of(
            self.image, self.mask, "".join(nib.orientations.aff2axcodes(self.image.affine))
        )

    def problems(self) -> list[CaseError]:
        """List what leaves in doubt where voxels lie."""
        mismatch = self.alignment.mismatch(self.image, self.mask)
        doubts = (*self.image.doubts, *(doubt for doubt in self.mask.doubts if doubt.kind != "unplaced"))
        problems = [*([] if mismatch is None else [mismatch]), *(doubt.error for doubt in doubts)]
        return [with_choice(problem) for problem in problems]

    @cached_property
    def table(self) -> NDArray[np.uint8] | None:
        """What each label becomes; None if all stay what they are."""
        return label_table(self._task.vocabulary, self._task.label_scheme, self._task.other_labels)

    @property
    def mask_fits(self) -> bool:
        """Whether nnU-Net reads the right labels from the mask's own file."""
        image, mask = self.image, self.mask
        return (
            self.table is None
            and mask.dtype.kind in "iu"
            and mask.scaling.is_identity
            and _is_gzip(self._task.paths["mask"])
            and int(_stored_header(self._task.paths["mask"])["dim"][0]) == 3
            and mask.shape == image.shape
            and {doubt.kind for doubt in mask.doubts} <= {doubt.kind for doubt in image.doubts}
            and np.allclose(mask.affine, image.affine, rtol=0, atol=GEOMETRY_TOLERANCE)
            and np.allclose(voxel_sizes(mask.affine), voxel_sizes(image.affine), _SPACING_TOLERANCE, 0)
            and np.allclose(mask.zooms, image.zooms, _SPACING_TOLERANCE, 0, equal_nan=True)
        )

    @property
    def mark(self) -> str:
        """A text that is the same for the same rewritten mask, and fits into a header's 80 bytes."""
        table = None if self.table is None else self.table.tolist()
        made_of = [_MASKS_VERSION, list(self._task.files.states.values()), table]
        return _MARK + hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:48]


def _check_image(image: VolumeHeader) -> None:
    """Raise a `CaseError` if nnU-Net would read an image, which is not rewritten, in a wrong way."""
    if what := degenerate_axes(image.affine):
        found = f"{image.affine[:3].tolist()} ({what})"
        hint = "nnU-Net turns images by it: correct the header, or leave the case out."
        raise FileFormatError(image.name, "an affine with a direction for each axis", found, hint)
    for doubt in image.doubts:
        if doubt.kind == "units":
            hint = "nnU-Net reads all lengths as mm: correct affine, pixdim and xyzt_units."
            raise GeometryError(image.name, doubt.error.expected, doubt.error.found, hint)
    # It turns other images with nibabel, which then writes the spacing of the affine into their headers.
    sizes, is_ras = voxel_sizes(image.affine), nib.aff2axcodes(image.affine) == ("R", "A", "S")
    if is_ras and not np.allclose(sizes, image.zooms, rtol=0, atol=GEOMETRY_TOLERANCE):
        expected, found = (f"spacing {one.round(4).tolist()} mm" for one in (sizes, image.zooms))
        hint = "From an image stored in RAS, nnU-Net takes that of pixdim: correct it, or leave the case out."
        raise GeometryError(image.name, f"{expected} by pixdim, as by the affine", found, hint)


def _put_mask(task: CaseTask, pair: _Pair, changes: list[str]) -> Deed:
    """Link, copy or rewrite a mask, unless that was done before."""
    path, source = task.target.root / task.member.mask, task.paths["mask"]
    if pair.mask_fits:
        # The source may be one that was written elsewhere: it is opened where there is a mark to compare.
        if (found := _mark_of(path)) is not None and found != _mark_of(source):
            _before_change(task)
            path.unlink()
        return _put(task, source, path)
    mark = pair.mark
    if _mark_of(path) == mark:
        return "kept"
    if _is_there(path) and not _is_own(path, source):
        raise other_file(path, f"no file, or a mask that an export has written of {source}")
    labels = _labels(task, pair, changes)
    _before_change(task)
    with task.target.atomic_write(task.member.mask) as written:
        _write(written, labels, pair.stored_image, mark)
    return "written"


def _put_image(task: CaseTask) -> Deed:
    """Link or copy an image, or compress it, unless that was done before."""
    path, source = task.target.root / task.member.image, task.paths["image"]
    if _is_gzip(source):
        return _put(task, source, path)
    status = source.stat()
    if _is_there(path):
        if path.is_symlink() or not path.is_file() or not _have_one_time(path, source):
            raise other_file(path, f"no file, or {source}, compressed")
        return "kept"
    _before_change(task)
    with task.target.atomic_write(task.member.image) as written:
        with source.open("rb") as file, written.open("wb") as out, _compressing(out) as compressed:
            while piece := file.read(1 << 22):
                check_stopped()
                compressed.write(piece)
        os.utime(written, ns=(status.st_atime_ns, status.st_mtime_ns))
    return "written"


def _put(task: CaseTask, source: Path, path: Path) -> Deed:
    """Link or copy a file, unless it is there.

    Raises:
        OutputError: another file is there, or it cannot be written.
    """
    if not path.exists() or (path.is_symlink() and not task.link):
        _before_change(task)
    is_new = put_file(source, path, link=task.link, scratch=task.target.scratch())
    return ("linked" if task.link else "copied") if is_new else "kept"


def _before_change(task: CaseTask) -> None:
    """Delete what marks the export as complete, before anything in it changes."""
    task.target.remove([DATASET])


def _withdraw(task: CaseTask) -> None:
    """Delete files of a case that is left out, which an earlier run has made."""
    for name, source in ((task.member.mask, task.paths["mask"]), (task.member.image, task.paths["image"])):
        path = task.target.root / name
        if _is_there(path):
            if not _is_own(path, source):
                raise other_file(path, f"no file, as the case is left out, or a copy of {source}")
            _before_change(task)
            path.unlink()


def _is_there(path: Path) -> bool:
    return path.is_symlink() or path.exists()


def _is_own(path: Path, source: Path) -> bool:
    """Return whether an export may have made a file: a dead link, a link to the source, a copy, a mask."""
    if not path.exists():
        return True
    if not path.is_file():
        return False
    is_compressed = not _is_gzip(source) and _have_one_time(path, source)
    return is_compressed or _mark_of(path) is not None or is_copy(source.resolve(), path)


def _have_one_time(path: Path, source: Path) -> bool:
    """Return whether an image that was compressed has the time of its source, as far as disks keep it."""
    kept, given = path.stat().st_mtime_ns, source.stat().st_mtime_ns
    return abs(kept - given) <= (_FINE_STEP_NS if kept % 10**9 else _COARSE_STEP_NS)


def _mark_of(path: Path) -> str | None:
    """Return the mark of a mask that was rewritten; None for other files, or if there is none."""
    if path.is_symlink() or not path.is_file():
        return None
    try:
        text = bytes(_stored_header(path)["descrip"]).rstrip(b"\0").decode("ascii", errors="replace")
    except (CaseError, OSError, EOFError):
        return None
    return text if text.startswith(_MARK) else None


def _is_gzip(path: Path) -> bool:
    with path.open("rb", buffering=0) as file:
        return file.read(2) == _GZIP_MAGIC


def _stored_header(path: Path) -> nib.Nifti1Header:
    """Read a header as it is in the file, without nibabel's corrections."""
    with igzip.open(path, "rb") if _is_gzip(path) else path.open("rb") as file:
        start = file.read(4)
        size = header_size(start)
        block = start + file.read(size - 4) if size else b""
    if not size or len(block) < size:
        raise FileFormatError(str(path), "a NIfTI header", "other bytes", "Delete the file.")
    kind: Any = nib.Nifti1Header if size == nib.Nifti1Header.sizeof_hdr else nib.Nifti2Header
    header: nib.Nifti1Header = kind(block, check=False)
    return header


def _labels(task: CaseTask, pair: _Pair, changes: list[str]) -> NDArray[np.uint8]:
    """Read a mask: its labels, (k, i, j), turned as the image is stored.

    Raises:
        CaseError: the file is damaged, or has other labels than the data set.
    """
    accepted = accepted_labels(task.vocabulary, task.label_scheme, task.other_labels)
    i, j, k = pair.mask.shape
    whole = GrowingArray((k, i, j), np.uint8)
    with open_nifti(task.paths["mask"]) as opened:
        reader = VolumeReader(opened)
        for slab in reader.labels(8, accepted):
            check_stopped()
            np.copyto(whole.extend(len(slab)), slab if pair.table is None else pair.table[slab], "unsafe")
        changes += reader.new_changes()
    turn = pair.alignment.mask
    return whole.filled if turn is None else turn.view(whole.filled)


def _write(path: Path, labels: NDArray[np.uint8], image: nib.Nifti1Header, mark: str) -> None:
    """Write labels, (k, i, j), as uint8 with the header of an image, compressed."""
    header: Any = image.copy()
    header.set_data_dtype(np.uint8)
    header.set_slope_inter(1, 0)
    header["vox_offset"] = header.single_vox_offset
    header["cal_min"] = header["cal_max"] = 0
    header["descrip"] = mark.encode()
    with path.open("wb") as file, _compressing(file) as out:
        out.write(header.binaryblock + bytes(4))  # 4 zeros: there are no extensions
        for one in labels:
            check_stopped()
            out.write(np.ascontiguousarray(one.T).data)  # in a file, i changes fastest


def _compressing(file: Any) -> Any:
    # Without name and time, so that the same voxels give the same bytes.
    return igzip.IGzipFile("", "wb", compresslevel=3, fileobj=file, mtime=0)
