"""Copies of raw files, or links to them, in the published layout."""

from __future__ import annotations

import filecmp
import itertools
import os
import posixpath
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ctspine1k._messages import count_text, shortened
from ctspine1k.catalog.dataset import DataSet, Kind
from ctspine1k.errors import NoSpaceError, OutputError
from ctspine1k.files.places import Place
from ctspine1k.files.raw import RawFile
from ctspine1k.files.selection import OnMissing, Selection
from ctspine1k.files.transfer import download, download_selected, files_to_download
from ctspine1k.running.disk import (
    atomic_write,
    delete_abandoned,
    device_of,
    explain_full_disk,
    explain_unwritable,
    free_bytes,
    require_folder,
    sha256_of,
)
from ctspine1k.running.progress import progress_bar

__all__ = [
    "download_to",
    "find_targets",
    "is_copy",
    "other_file",
    "put_file",
    "require_outside",
    "require_room",
]

_HINT_TO_LINK = (
    "Use links (--link, link=True), which take no room, a folder on a larger disk, or fewer cases."
)

_HINT_TO_COPY = (
    "Check its permissions. Where there can be no links, copy the files: `download` without --link "
    "(link=False), `export nnunet` with --copy (copy=True)."
)


def download_to(
    selection: Selection, kind: Kind | None, on_missing: OnMissing, *, to: Path | None, link: bool
) -> list[Path]:
    """Download files of cases, and copy or link them below ``to``; see `ctspine1k.Collection.download`.

    Raises:
        ValueError: ``link`` without ``to``; or as for `find_targets`.
        OutputError: other files are where copies belong. Then nothing is downloaded or copied.
        NoSpaceError: the disk has no room for copies.
    """
    if to is None:
        if link:
            raise ValueError("link=True: expected a folder for the links, to=...")
        return download_selected(selection, kind, on_missing)
    to = to.expanduser()
    require_outside("to", to, [], selection.place.folder)
    files = files_to_download(selection, kind, on_missing)
    targets, there = find_targets(selection, files, to)
    needed = 0 if link else require_room(selection, files, targets, to, _HINT_TO_LINK)
    for folder in {target.parent for target in targets}:
        delete_abandoned(folder)  # also where all files are there already
    with (
        progress_bar("Linking" if link else "Copying", len(files), "file") as bar,
        explain_full_disk(to, "links" if link else "copies", needed),
    ):
        sources = download(selection.look, files)
        find_targets(selection, [file for file in files if _is_unknown(file)], to)
        for file, source, target in zip(files, sources, targets, strict=True):
            for one, path in _each(file, target):
                if path not in there:
                    put_file(source.with_name(posixpath.basename(one.path)), path, link=link)
            bar.update()
    return targets


def find_targets(
    selection: Selection, files: Sequence[RawFile], to: Path
) -> tuple[list[Path], frozenset[Path]]:
    """Return where copies of files go, below ``to``, and at which paths there is one already.

    All paths are looked at before anything is copied. Of a file on the Hub that is not in its cache, size and
    sha256 are compared, or the size alone if the Hub has no sha256.

    Raises:
        ValueError: ``to`` or a link in it leads to the folder with the files, or new copies would be in that.
        OutputError: something else is at one of the paths, or a file is where a folder above it belongs.
    """
    targets = [to / _published_name(selection.data_set, file) for file in files]
    every = list(itertools.chain.from_iterable(map(_each, files, targets)))
    folders = dict.fromkeys(target.parent for target in targets)
    require_outside("to", to, folders, selection.place.folder, [path for _, path in every])
    others: dict[Path, None] = {}
    there = set()
    for one, path in every:
        if not path.exists():
            others |= dict.fromkeys(_files_above(path, to))
        elif not _may_be_copy(selection.place, one, path):
            others[path] = None
        elif not path.is_symlink():
            there.add(path)
    if others:
        names = shortened((path.relative_to(to).as_posix() for path in others), limit=_SHOWN)
        found = f"something else at {count_text(len(others), 'path')}: {names}"
        raise OutputError.occupied(str(to), "nothing, or the same file, wherever a file is copied to", found)
    return targets, frozenset(there)


#: Paths that an error names.
_SHOWN = 5


def _each(file: RawFile, target: Path) -> Iterator[tuple[RawFile, Path]]:
    """Yield the files that one needs beside it, and then that one, each with the path of its copy."""
    for one in file.beside:
        yield one, target.with_name(posixpath.basename(one.path))
    yield file, target


def _files_above(target: Path, to: Path) -> Iterator[Path]:
    """Yield the file that is in the place of a folder between ``to`` and a path, if there is one."""
    for folder in target.relative_to(to).parents:
        if os.path.lexists(to / folder):
            if not (to / folder).is_dir():
                yield to / folder
            return


def _is_unknown(file: RawFile) -> bool:
    """Return whether a file has to be fetched before it can be compared with another one."""
    return file.local is None and file.sha256 is None


def _may_be_copy(place: Place, file: RawFile, target: Path) -> bool:
    """Return whether what is at a path is a copy of a file, as far as can be known before it is fetched."""
    if not target.is_file():
        return False
    if (local := place.local_path(file)) is not None and is_copy(Path(local), target):
        return True
    if file.local is not None or target.stat().st_size != file.size:
        return False
    if file.sha256 is None:
        return local is None  # else they were compared
    with target.open("rb") as stream:
        return sha256_of(stream) == file.sha256


def require_outside(
    option: str, to: Path, folders: Iterable[Path], root: Path | None, paths: Iterable[Path] = ()
) -> None:
    """Check that a folder is not in the one that has the files, and that nothing in it leads to there.

    If the one that has the files is in the folder, it gets no new ones. That there is, or can be, such a
    folder is checked first.

    Args:
        option: name of the option, for the message.
        to: the folder to write to.
        folders: those in it that will be written to.
        root: the folder that has the files; None if they are on the Hub.
        paths: files in ``folders`` that will be written unless they are there.

    Raises:
        ValueError: it is.
        OutputError: a file is in its place, or nobody may look there.
    """
    require_folder(to)
    if root is None:
        return
    base, new = to.resolve(), {path.parent for path in paths if not path.exists()}
    for folder in (to, *folders):
        real = folder.resolve()
        is_linked = real != base / folder.relative_to(to)
        if real.is_relative_to(root) and (is_linked or folder == to or folder in new):
            leads = "" if folder == to and not is_linked else f", found {folder}"
            leads += f", which is {real}" if is_linked else ""
            raise ValueError(
                f"{option}={str(to)!r}: expected a folder outside of {root}, which has these files{leads}"
            )


def _published_name(data_set: DataSet, file: RawFile) -> str:
    """Return the path in the published layout, with the suffix that the file has.

    A header keeps its name, which those beside it have, too.
    """
    name = data_set.file_name(file.case, file.kind)
    if file.beside:
        return posixpath.join(posixpath.dirname(name), posixpath.basename(file.path))
    given, own = (_ending(path.lower(), data_set.suffixes) for path in (file.path, name))
    return name.removesuffix(own) + given


def _ending(path: str, suffixes: Sequence[str]) -> str:
    """Return with which of the suffixes a path ends; an empty text for points, which have others."""
    return next((suffix for suffix in suffixes if path.endswith(suffix)), "")


def require_room(
    selection: Selection, files: Sequence[RawFile], targets: Sequence[Path], to: Path, hint: str
) -> int:
    """Return the bytes that copies will take; ``hint`` says what to do if they do not fit.

    Raises:
        NoSpaceError: there are fewer.
    """
    absent = [
        file
        for file, target in zip(files, targets, strict=True)
        if target.is_symlink() or not target.is_file()  # copies replace links
    ]
    needed, what = sum(file.total for file in absent), "copies"
    if downloads := selection.place.not_cached(files):
        from ctspine1k.files.hub import hub_space

        if device_of(hub_space()[1]) == device_of(to):
            needed, what = needed + sum(file.total for file in downloads), "downloads and copies"
    if needed > (free := free_bytes(to)):
        raise NoSpaceError(str(to), what, needed, free, hint)
    return needed


def put_file(source: Path, target: Path, *, link: bool, scratch: Path | None = None) -> bool:
    """Copy or link a file, unless it is there already; return whether it was not.

    Args:
        source: the file.
        target: where it goes.
        link: make a symbolic link; a copy that is there is kept.
        scratch: a folder on the same disk for half-written copies; None for the folder of ``target``.

    Raises:
        OutputError: another file is there, or none can be written.
        OSError: the source cannot be read, or the disk is full.
    """
    source = source.resolve()  # it may be the link that a copy replaces
    with explain_unwritable(target, source=source):
        if target.exists():
            if not (target.is_file() and is_copy(source, target)):
                raise other_file(target, f"no file, or a copy of {source}")
            if link or not target.is_symlink():
                return False
        if target.is_symlink():
            target.unlink()  # it leads nowhere, or a copy is wanted
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise other_file(target, "folders down to it, or none") from error
        if link:
            with explain_unwritable(target, "a place for a symbolic link", _HINT_TO_COPY):
                target.symlink_to(source)
            return True
        with atomic_write(target, scratch) as written:
            shutil.copyfile(source, written)
            status = source.stat()
            os.utime(written, ns=(status.st_atime_ns, status.st_mtime_ns))
    return True


def other_file(target: Path, expected: str) -> OutputError:
    """Return the error that another file is where one belongs."""
    return OutputError.occupied(str(target), expected, "another file")


def is_copy(source: Path, target: Path) -> bool:
    """Return whether two files are the same one, or have the same bytes."""
    one, other = source.stat(), target.stat()
    if os.path.samestat(one, other):
        return True
    # Times in whole seconds are those of archives, which several files may have.
    if one.st_mtime_ns % 10**9 and (one.st_size, one.st_mtime_ns) == (other.st_size, other.st_mtime_ns):
        return True
    filecmp.clear_cache()  # which is by size and time, too
    return filecmp.cmp(source, target, shallow=False)
