"""A target on a disk of this machine, or on a shared disk."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ctspine1k.errors import OutputError
from ctspine1k.exports.targets import LOCK, SCRATCH, WORKING, Entry
from ctspine1k.running.disk import atomic_write, exclusive_lock, explain_unwritable, free_bytes, sha256_of

__all__ = ["FolderTarget"]

#: Folders that an export makes, as patterns.
_OURS = (WORKING, SCRATCH, "[23]d", "[23]d/*")


@dataclass(frozen=True)
class FolderTarget:
    """A folder of a file system that is mounted."""

    root: Path

    def describe(self) -> str:
        """Return the path."""
        return str(self.root)

    def files(self) -> dict[str, Entry]:
        """List all files below the folder."""
        found = {}
        for folder, _, names in os.walk(self.root):
            for name in names:
                path = Path(folder, name)
                with contextlib.suppress(FileNotFoundError):  # a broken link
                    stat = path.stat()
                    found[path.relative_to(self.root).as_posix()] = Entry(stat.st_size, stat.st_mtime)
        return found

    def read(self, name: str) -> bytes:
        """Read a small file."""
        return (self.root / name).read_bytes()

    def sha256_of(self, name: str) -> str | None:
        """Read a file, and return its sha256."""
        try:
            with (self.root / name).open("rb") as file:
                return sha256_of(file)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno == errno.EIO:
                return None
            hint = "Check its permissions and the disk, and run again: what is done is kept."
            found = error.strerror or str(error)
            raise OutputError(str(self.root / name), "a file that can be read", found, hint) from error

    def is_at(self, path: Path) -> bool:
        """Return whether both paths resolve to the same folder."""
        return self.root.resolve() == path.expanduser().resolve()

    @contextlib.contextmanager
    def atomic_write(self, name: str) -> Iterator[Path]:
        """Yield a path below `SCRATCH`, then flush the file and rename it."""
        path = self.root / name
        with contextlib.ExitStack() as writing:
            with explain_unwritable(path):
                self.scratch().mkdir(parents=True, exist_ok=True)
                written = writing.enter_context(atomic_write(path, self.scratch()))
            yield written
            with explain_unwritable(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                writing.close()

    def remove(self, names: Iterable[str]) -> None:
        """Delete files."""
        for name in names:
            with explain_unwritable(self.root / name):
                (self.root / name).unlink(missing_ok=True)

    def clear(self) -> None:
        """Delete unfinished work, and empty folders of the export."""
        shutil.rmtree(self.root / WORKING, ignore_errors=True)
        for pattern in reversed(_OURS):
            for path in self.root.glob(pattern):
                with contextlib.suppress(OSError):  # it is not empty
                    path.rmdir()

    @contextlib.contextmanager
    def exclusive_lock(self) -> Iterator[None]:
        """Hold a lock that the kernel releases when this process ends, even by SIGKILL."""
        with contextlib.ExitStack() as writing:
            with explain_unwritable(self.root):
                self.root.mkdir(parents=True, exist_ok=True)
                self._check_within()
                writing.enter_context(exclusive_lock(self.root, self.root / LOCK))
            shutil.rmtree(self.scratch(), ignore_errors=True)
            yield

    def _check_within(self) -> None:
        """Raise an `OutputError` if a folder of the export is a link or a mount.

        Its target must not be deleted, and a rename into it cannot be atomic.
        """
        disk = self.root.stat().st_dev
        for path in (path for pattern in _OURS for path in self.root.glob(pattern)):
            if path.is_dir() and (path.is_symlink() or path.stat().st_dev != disk):
                hint = "Use a separate folder, on one disk."
                raise OutputError(str(path), "a folder within the export", "a link or another disk", hint)

    def scratch(self) -> Path:
        """Return a folder on the same disk, so that files can be renamed from it."""
        return self.root / SCRATCH

    def free(self) -> int:
        """Return the number of free bytes on the disk."""
        return free_bytes(self.root)
