"""Copies of raw files, or links to them, in the published layout."""

from __future__ import annotations

import filecmp
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from ctspine1k.catalog.dataset import DataSet, Kind
from ctspine1k.errors import NoSpaceError, OutputError
from ctspine1k.files.raw import RawFile
from ctspine1k.files.selection import OnMissing, Selection
from ctspine1k.files.transfer import download, download_selected, files_to_download
from ctspine1k.running.disk import (
    atomic_write,
    delete_abandoned,
    device_of,
    explain_full_disk,
    free_bytes,
)
from ctspine1k.running.progress import progress_bar

__all__ = ["download_to"]


def download_to(
    selection: Selection, kind: Kind | None, on_missing: OnMissing, *, to: Path | None, link: bool
) -> list[Path]:
    """Download files of cases, and copy or link them below ``to``; see `ctspine1k.Collection.download`.

    Raises:
        ValueError: ``link`` without ``to``, or ``to``, or a link in it, leads into the folder with the files.
        OutputError: another file is where one belongs.
        NoSpaceError: the disk has no room for copies.
    """
    if to is None:
        if link:
            raise ValueError("link=True: expected a folder for the links, to=...")
        return download_selected(selection, kind, on_missing)
    to = to.expanduser()
    _require_outside(to, [], selection.place.folder)
    files = files_to_download(selection, kind, on_missing)
    targets = [to / _published_name(selection.data_set, file) for file in files]
    _require_outside(to, {target.parent for target in targets}, selection.place.folder)
    needed = 0 if link else _require_room(selection, files, targets, to)
    for folder in {target.parent for target in targets}:
        delete_abandoned(folder)  # also where all files are there already
    with (
        progress_bar("Linking" if link else "Copying", len(files), "file") as bar,
        explain_full_disk(to, "links" if link else "copies", needed),
    ):
        for source, target in zip(download(selection.look, files), targets, strict=True):
            _put(source, target, link=link)
            bar.update()
    return targets


def _require_outside(to: Path, folders: Iterable[Path], root: Path | None) -> None:
    """Check that ``to`` is not in the folder that has the files, and that nothing in it leads to there."""
    if root is None:
        return
    base = to.resolve()
    for folder in (to, *folders):
        real = folder.resolve()
        is_linked = real != base / folder.relative_to(to)
        if real.is_relative_to(root) and (is_linked or folder == to):
            leads = f", found {folder}, which is {real}" if is_linked else ""
            raise ValueError(
                f"to={str(to)!r}: expected a folder outside of {root}, which has these files{leads}"
            )


def _published_name(data_set: DataSet, file: RawFile) -> str:
    """Return the path in the published layout, with the suffix that the file has."""
    name = data_set.file_name(file.case, file.kind)
    return name if file.path.lower().endswith(".gz") else name.removesuffix(".gz")


def _require_room(selection: Selection, files: Sequence[RawFile], targets: Sequence[Path], to: Path) -> int:
    """Return the bytes that copies will take.

    Raises:
        NoSpaceError: there are fewer.
    """
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
    return needed


def _put(source: Path, target: Path, *, link: bool) -> None:
    """Copy or link a file, unless it is there already.

    Raises:
        OutputError: another file is there.
    """
    source = source.resolve()  # it may be the link that a copy replaces
    if target.exists():
        if not (target.is_file() and _is_copy(source, target)):
            raise _other_file(target, f"no file, or a copy of {source}")
        if link or not target.is_symlink():
            return
    if target.is_symlink():
        target.unlink()  # it leads nowhere, or a copy is wanted
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise _other_file(target, "folders down to it, or none") from error
    if link:
        target.symlink_to(source)
        return
    with atomic_write(target) as written:
        shutil.copyfile(source, written)
        status = source.stat()
        os.utime(written, ns=(status.st_atime_ns, status.st_mtime_ns))


def _other_file(target: Path, expected: str) -> OutputError:
    return OutputError(str(target), expected, "another file", "Move it away, or choose another folder.")


def _is_copy(source: Path, target: Path) -> bool:
    one, other = source.stat(), target.stat()
    if os.path.samestat(one, other):
        return True
    # Times in whole seconds are those of archives, which several files may have.
    if one.st_mtime_ns % 10**9 and (one.st_size, one.st_mtime_ns) == (other.st_size, other.st_mtime_ns):
        return True
    filecmp.clear_cache()  # which is by size and time, too
    return filecmp.cmp(source, target, shallow=False)
