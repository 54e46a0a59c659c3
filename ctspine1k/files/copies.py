"""Copies of raw files, or links to them, in the published layout."""

from __future__ import annotations

import filecmp
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from ctspine1k.catalog.dataset import DataSet, Kind
from ctspine1k.errors import NoSpaceError, OutputError
from ctspine1k.files.raw import RawFile
from ctspine1k.files.selection import OnMissing, Selection
from ctspine1k.files.transfer import download, download_selected, files_to_download
from ctspine1k.running.disk import atomic_write, device_of, free_bytes
from ctspine1k.running.progress import progress_bar

__all__ = ["download_to"]


def download_to(
    selection: Selection, kind: Kind | None, on_missing: OnMissing, *, to: Path | None, link: bool
) -> list[Path]:
    """Download files of cases, and copy or link them below ``to``; see `ctspine1k.Collection.download`.

    Raises:
        ValueError: ``link`` without ``to``, or ``to`` within the folder that has the files.
    """
    if to is None:
        if link:
            raise ValueError("link=True: expected a folder for the links, to=...")
        return download_selected(selection, kind, on_missing)
    to = to.expanduser()
    folder = selection.place.folder
    if folder is not None and to.resolve().is_relative_to(folder):
        raise ValueError(f"to={str(to)!r}: expected a folder outside of {folder}, which has these files")
    files = files_to_download(selection, kind, on_missing)
    targets = [to / _published_name(selection.data_set, file) for file in files]
    if not link:
        _require_room(selection, files, targets, to)
    with progress_bar("Linking" if link else "Copying", len(files), "file") as bar:
        for source, target in zip(download(selection.look, files), targets, strict=True):
            _put(source, target, link=link)
            bar.update()
    return targets


def _published_name(data_set: DataSet, file: RawFile) -> str:
    """Return the path in the published layout, with the suffix that the file has."""
    name = data_set.file_name(file.case, file.kind)
    return name if file.path.lower().endswith(".gz") else name.removesuffix(".gz")


def _require_room(selection: Selection, files: Sequence[RawFile], targets: Sequence[Path], to: Path) -> None:
    absent = [
        file
        for file, target in zip(files, targets, strict=True)
        if target.is_symlink() or not target.is_file()  # copies replace links
    ]
    needed, what = sum(file.size for file in absent), "copies"
    if downloads := selection.place.not_cached(files):
        from ctspine1k.files.hub import hub_space

        if device_of(hub_space()[1]) == device_of(to):
            needed, what = needed + sum(file.size for file in downloads), "downloads and copies"
    if needed > (free := free_bytes(to)):
        hint = "Use links (--link, link=True), which take no room, a folder on a larger disk, or fewer cases."
        raise NoSpaceError(str(to), what, needed, free, hint)


def _put(source: Path, target: Path, *, link: bool) -> None:
    """Copy or link a file, unless it is there already.

    Raises:
        OutputError: another file is there.
    """
    source = source.resolve()  # it may be the link that a copy replaces
    if target.is_symlink() and not (link and target.exists()):
        target.unlink()  # it leads nowhere, or a copy is wanted
    if target.exists():
        if not (target.is_file() and _is_copy(source, target)):
            hint = "Move it away, or choose another folder."
            raise OutputError(str(target), f"no file, or a copy of {source}", "another one", hint)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if link:
        target.symlink_to(source)
        return
    with atomic_write(target) as written:
        shutil.copyfile(source, written)
        status = source.stat()
        os.utime(written, ns=(status.st_atime_ns, status.st_mtime_ns))


def _is_copy(source: Path, target: Path) -> bool:
    one, other = source.stat(), target.stat()
    if os.path.samestat(one, other) or (one.st_size, one.st_mtime_ns) == (other.st_size, other.st_mtime_ns):
        return True
    return filecmp.cmp(source, target, shallow=False)
