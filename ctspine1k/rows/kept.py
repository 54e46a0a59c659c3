"""Cases that a conversion of volumes has finished, kept until all of it is: a stopped one resumes after them.

`datasets` deletes the folder of a conversion that fails. So each case is written to a file of its own, and a
hard link to it is put into another folder as soon as it is complete; it takes no room on the disk. Its name
is made from all that the row depends on, so that other conversions find it, too: after a damaged file of
another case was repaired, say. On file systems without hard links nothing is kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

__all__ = [
    "KEPT",
    "Keeper",
    "drop_kept",
    "is_kept",
    "kept_files",
    "kept_folder",
    "kept_name",
    "prepare_cases",
]

#: Name of the folder, beside those of conversions: <cache>/<data set>/<id>/<version of rows>.
KEPT = "kept"

#: Ends of the names of files in it. Others are not ours, and are never deleted.
_FILE = re.compile(r"-[0-9a-f]{16}\.arrow$")


def kept_folder(output_dir: str) -> Path:
    """Return the folder of kept cases, given the folder of a conversion in a cache of `datasets`."""
    return Path(output_dir).parent.parent / KEPT


def kept_name(case_id: str, state: Any) -> str:
    """Return the name under which a case is kept, made from all that its row depends on."""
    beginning = case_id.encode()[:200].decode(errors="ignore")  # a file's name has 255 bytes at most
    return f"{beginning}-{hashlib.sha256(json.dumps(state).encode()).hexdigest()[:16]}"


def kept_files(folder: Path) -> list[Path]:
    """Return the files of kept cases in a folder, sorted; none if there is no such folder."""
    try:
        return sorted(path for path in folder.iterdir() if _FILE.search(path.name) and path.is_file())
    except OSError:
        return []


def is_kept(folder: Path, name: str) -> bool:
    """Return whether a case is kept under this name."""
    return _path(folder, name).is_file()


def drop_kept(folder: Path, names: Iterable[str]) -> None:
    """Delete the cases kept under these names, and the folder if no others are left."""
    with contextlib.suppress(OSError):
        for name in names:
            _path(folder, name).unlink(missing_ok=True)
        folder.rmdir()


def _path(folder: Path, name: str) -> Path:
    return folder / f"{name}.arrow"


class Keeper:
    """Keeps the files of cases, one per case, as soon as each is complete."""

    def __init__(self, folder: Path, pattern: str, names: Mapping[str, str]) -> None:
        self.case_ids: list[str] = []  #: of the files, in the order in which they were written
        self._folder, self._pattern, self._names = folder, pattern, names
        self._done = 0

    def path(self, number: int) -> Path:
        """Return the path of a file by its number."""
        return Path(self._pattern.replace("SSSSS", f"{number:05d}"))

    def watched(self, tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
        """Yield tables of one row each, and keep the file of each before the next but one is requested."""
        for table in tables:
            self.case_ids.append(table.column("patient_id")[0].as_py())
            yield table
            self.keep(len(self.case_ids) - 1)  # the last file is still open

    def keep(self, count: int) -> None:
        """Keep the first ``count`` files."""
        with contextlib.suppress(OSError):  # without hard links, the next run begins anew
            for number in range(self._done, count):
                self._folder.mkdir(parents=True, exist_ok=True)
                kept = _path(self._folder, self._names[self.case_ids[number]])
                kept.unlink(missing_ok=True)
                os.link(self.path(number), kept)
        self._done = max(self._done, count)

    def keep_complete(self) -> None:
        """Keep the files whose row is complete: after an error, the last two may or may not be."""
        for number in range(self._done, len(self.case_ids)):
            if _bytes_of(self.path(number), self.case_ids[number]) is None:
                return
            self.keep(number + 1)


def _bytes_of(path: Path, case_id: str) -> int | None:
    """Return the bytes of the row in a file; None if there is no file with one complete row, of this case."""
    try:
        with pa.memory_map(str(path)) as file:
            table = pa.ipc.open_stream(file).read_all()
        ids = table.column("patient_id").to_pylist()
    except (OSError, KeyError, pa.ArrowInvalid):
        return None
    return int(table.nbytes) if ids == [case_id] else None


def _linked(kept: Path, path: Path, case_id: str) -> int | None:
    """Link a kept file to a path, and return the bytes of its row; None if it cannot be used."""
    with contextlib.suppress(OSError):  # there is none, or it is another user's
        os.link(kept, path)
    size = _bytes_of(path, case_id)
    if size is None:
        path.unlink(missing_ok=True)
    return size


def prepare_cases(
    prepare: Callable[..., Iterator[Any]],
    jobs: Sequence[Any],
    names_of: Callable[[Any], tuple[str, str]],
    fpath: str,
    job_id: int,
) -> Iterator[Any]:
    """Write one file per case, except for those that are kept; yield what `_prepare_split_single` does.

    Args:
        prepare: `_prepare_split_single` of `datasets`, of a builder whose tables a `Keeper` watches.
        jobs: the cases to convert, in order.
        names_of: returns the case id of a job, and the name under which it is kept.
        fpath: pattern of the paths of the files, as `datasets` passes it.
        job_id: number of this process.
    """
    folder = kept_folder(str(Path(fpath).parent))
    numbered = fpath.replace("JJJJJ", f"{job_id:05d}")
    of_job = [(job, *names_of(job)) for job in jobs]
    files: dict[str, Path] = {}
    sizes: dict[str, int] = {}
    for number, (_, case_id, name) in enumerate(of_job):
        # Linked here at once: another conversion that ends meanwhile deletes what was kept.
        path = Path(numbered.replace("SSSSS", f"{number:05d}-kept"))
        if (size := _linked(_path(folder, name), path, case_id)) is not None:
            files[case_id], sizes[case_id] = path, size
    todo = [job for job, case_id, _ in of_job if case_id not in files]
    # The name must differ from those of the files of all cases, into whose order these are put at the end.
    own = numbered.replace("SSSSS", "SSSSS-new")
    keeper = Keeper(folder, own, {case_id: name for _, case_id, name in of_job})
    yield job_id, False, len(sizes)
    content: Any = ()
    try:
        # A limit of 0 bytes per file: each case begins a new one.
        for _, is_done, content in prepare({"jobs": todo, "keeper": keeper}, own, "arrow", 0, job_id):
            if not is_done:
                yield job_id, False, content
    except BaseException:
        keeper.keep_complete()
        raise
    keeper.keep(len(keeper.case_ids))
    files |= {case_id: keeper.path(number) for number, case_id in enumerate(keeper.case_ids)}
    done = [case_id for _, case_id, _ in of_job if case_id in files]
    for number, case_id in enumerate(done):
        files[case_id].replace(numbered.replace("SSSSS", f"{number:05d}"))
    if not keeper.case_ids:  # then `datasets` has written a file without rows
        empty = keeper.path(0)
        empty.unlink() if done else empty.replace(numbered.replace("SSSSS", "00000"))
    lengths = [1] * len(done) or [0]
    size = content[1] + sum(sizes.values())
    originals = (1, [len(done)]) if len(content) > 5 else ()  # later releases of `datasets`
    yield job_id, True, (len(done), size, content[2], len(lengths), lengths, *originals)
