"""Room on disk for a conversion: the bytes that it will take, compared with those that are free."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ctspine1k._messages import size_text
from ctspine1k.catalog.dataset import Kind
from ctspine1k.errors import NoSpaceError
from ctspine1k.files.places import Place
from ctspine1k.files.raw import CaseFiles
from ctspine1k.rows._datasets import PLACEHOLDERS, TableBuilder, has_checks, is_forced
from ctspine1k.rows.kept import drop_kept, is_kept, kept_folder
from ctspine1k.rows.options import RowOptions, Storage
from ctspine1k.rows.shapes import local_shape
from ctspine1k.running.disk import device_of, explain_full_disk, free_bytes, require_plain_path

__all__ = ["Need", "RoomBuilder", "require_room"]

#: Bytes of a voxel in dense rows: float32 for the image, and int32 for the segmentation.
_DENSE_VOXEL = 4

#: Bytes of a voxel in files that are not compressed: int16 images and uint8 masks.
_FILE_VOXEL: dict[Kind, int] = {"image": 2, "mask": 1}

#: Bytes of rows per byte of the raw files, measured over CTSpine1K (benchmarks/README.md): 1,060 GB of dense
#: rows of image and segmentation from 150 GB. Compact rows are compressed again, from gzip or from nothing.
_PER_GZIP = {
    ("3d", "dense"): 7.0,
    ("2d", "dense"): 7.0,
    ("3d", "small"): 0.77,
    ("2d", "small"): 0.8,
    ("3d", "fast"): 1.03,
    ("2d", "fast"): 1.04,
}
_PER_PLAIN = {"small": 0.4, "fast": 0.5}

#: What to do about a disk that became full during a conversion.
_IF_FULL = {
    "3d": "Make room there, and run again: cases that are done are kept.",
    "2d": 'Make room there, and run again, or choose storage="compact", streaming=True, or fewer cases.',
}


@dataclass(frozen=True)
class Need:
    """The bytes that the conversion of some cases takes on disk."""

    what: str  #: the splits, for messages
    folder: Path | None  #: where rows are written; None if that is not a disk of this machine
    config: str
    storage: Storage
    downloads: int  #: raw files that are not on this machine yet
    rows: int  #: exact where headers of images can be read, else estimated from the sizes of files
    compact: int  #: the same rows in compact storage, estimated

    @property
    def purpose(self) -> str:
        """What the rows are, for messages."""
        return f"{self.storage} {self.config} rows of {self.what}"


def _need_of(options: RowOptions, place: Place, files: Sequence[CaseFiles], folder: str) -> Need:
    """Return what the conversion of these cases to a folder takes; errors as for `Place.not_cached`."""
    every = [file for one in files for file in one.files.values()]
    how = options.compression or "small"
    compact = [int(_estimate(one, options.config, how) * _growth(one, place, options)) for one in files]
    rows = [_dense_bytes(one, place, options) for one in files] if options.storage == "dense" else compact
    return Need(
        what=" and ".join(dict.fromkeys(one.case.split for one in files)),
        folder=None if "://" in folder else Path(folder),
        config=options.config,
        storage=options.storage,
        downloads=sum(file.total for file in place.not_cached(every)),
        rows=sum(rows),
        compact=sum(compact),
    )


def _estimate(files: CaseFiles, config: str, how: str) -> int:
    """Return the bytes of rows as they are to be expected from the sizes of the files.

    Args:
        files: of a case.
        config: "3d" or "2d".
        how: "dense", or the compression of compact storage.
    """
    kinds = [kind for kind in files.files if kind in _FILE_VOXEL]
    per_gzip = _PER_GZIP[config, how]
    if how == "dense":
        per_gzip *= len(kinds) / len(_FILE_VOXEL)
        per_plain = _DENSE_VOXEL * len(kinds) / sum(_FILE_VOXEL[kind] for kind in kinds)
    else:
        per_plain = _PER_PLAIN[how]
    return sum(
        int(file.total * (per_gzip if file.path.lower().endswith(".gz") else per_plain))
        for file in files.files.values()
    )


def _growth(files: CaseFiles, place: Place, options: RowOptions) -> float:
    """Return how many voxels resampling makes of one; 1 if that cannot be known."""
    if options.spacing is None:
        return 1.0
    now, before = (
        local_shape(files["image"], place, one) for one in (options, replace(options, spacing=None))
    )
    return 1.0 if now is None or before is None else math.prod(now) / math.prod(before)


def _dense_bytes(files: CaseFiles, place: Place, options: RowOptions) -> int:
    shape = local_shape(files["image"], place, options)
    if shape is None:
        return _estimate(files, options.config, "dense")
    slices, first, second = shape
    return slices * first * second * _DENSE_VOXEL * sum(kind in _FILE_VOXEL for kind in files.files)


def require_room(needs: Sequence[Need]) -> None:
    """Check that conversions fit on their disks, all of them together, before anything is fetched.

    Raises:
        NoSpaceError: they do not.
    """
    on_disk: dict[int, list[tuple[Path, str, int]]] = {}
    if downloads := sum(need.downloads for need in needs):
        from ctspine1k.files.hub import hub_space

        cache = hub_space()[1]
        on_disk[device_of(cache)] = [(cache, f"downloads ({size_text(downloads)})", downloads)]
    for need in needs:
        if need.folder is not None:
            item = (need.folder, f"{need.purpose} ({size_text(need.rows)})", need.rows)
            on_disk.setdefault(device_of(need.folder), []).append(item)
    for items in on_disk.values():
        folder = items[-1][0]  # of rows, where there are any
        needed, free = sum(count for *_, count in items), free_bytes(folder)
        if needed > free:
            purpose = " and ".join(text for _, text, _ in items)
            raise NoSpaceError(str(folder), purpose, needed, free, _hint(needs))


def _hint(needs: Sequence[Need]) -> str:
    ways = []
    if any(need.storage == "dense" for need in needs):
        compact = sum(need.compact for need in needs)
        ways.append(f'storage="compact" (about {size_text(compact)} of rows)')
    ways += ["streaming=True", "one split" if len(needs) > 1 else "fewer cases"]
    return (
        f"Choose {', '.join(ways)}, or folders on a larger disk (cache_dir=... for rows, HF_HUB_CACHE for "
        'downloads). verification_mode="no_checks" converts without this check.'
    )


class RoomBuilder(TableBuilder):
    """A builder that converts only what there is room for, and drops what stopped conversions have kept."""

    _begun: Need  #: of the conversion that has begun

    @cached_property
    def need(self) -> Need:
        """What a conversion into the cache takes on disk, besides the cases that a stopped one has kept."""
        return self._need_in(self.cache_dir)

    def _need_in(self, output_dir: str) -> Need:
        config = self.config
        folder = kept_folder(output_dir)
        files = config.files[0]
        if output_dir == self.cache_dir and config.name == "3d" and folder.is_dir():
            files = [one for one in files if not is_kept(folder, config.kept_name(one))]
        return _need_of(config.row_options, config.selected.place, files, output_dir)

    @contextlib.contextmanager
    def room(self, output_dir: str | None, download_mode: Any, verification_mode: Any) -> Iterator[None]:
        """Check that there is room for a conversion, and explain a disk that becomes full meanwhile."""
        if output_dir is not None:
            require_plain_path("output_dir", output_dir, PLACEHOLDERS)
        if not self.will_convert(download_mode, output_dir):
            yield
            return
        if is_forced(download_mode):
            self._drop_kept()
        self._begun = need = self.need if output_dir is None else self._need_in(os.fspath(output_dir))
        if has_checks(verification_mode):
            require_room([need])
        if need.folder is None:
            yield
            return
        with explain_full_disk(need.folder, need.purpose, need.rows, _IF_FULL[self.config.name]):
            yield
        self._drop_kept()

    def _drop_kept(self) -> None:
        config = self.config
        folder = kept_folder(self.cache_dir)
        if config.name == "3d" and folder.is_dir():
            drop_kept(folder, map(config.kept_name, config.files[0]))

    def full_disk(self, error: BaseException) -> NoSpaceError:
        """Return the error that says what the rows need."""
        need = self._begun
        folder, free = (need.folder, free_bytes(need.folder)) if need.folder else (self.output_dir, 0)
        return NoSpaceError(str(folder), need.purpose, need.rows, free, _IF_FULL[self.config.name])
