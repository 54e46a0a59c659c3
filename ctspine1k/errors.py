"""The errors of this library, as one family.

::

    CTSpine1KError
    ├── SplitFileError         a split file that cannot be read          (ValueError)
    ├── UnknownCaseError       an id that is not in the catalog          (KeyError)
    ├── MissingFilesError      cases without raw files                   (FileNotFoundError)
    ├── AmbiguousFilesError    several files for one image or mask       (ValueError)
    ├── ChecksumError          a file that differs from the Hub's record (ValueError)
    ├── NothingLeftError       a split of which every case was skipped   (ValueError)
    ├── HubError               the Hub, or a repo or revision on it, cannot be reached (ConnectionError)
    ├── NoSpaceError           less disk is free than the work needs     (OSError)
    ├── StoredArrayError       stored voxels that cannot be read         (ValueError)
    ├── ScanTableError         a scan's table that cannot be used        (ValueError)
    ├── OutputError            a folder that cannot be written to, or has other contents (ValueError)
    ├── BusyError              another process is writing the same output (RuntimeError)
    ├── WorkerError            worker processes did not finish the work  (RuntimeError)
    ├── MissingPackageError    a package of an extra is not installed    (ImportError)
    └── CaseError              a case whose files cannot be used         (ValueError)
        ├── FileFormatError    another format, such as NIfTI without a three-dimensional scan
        │   └── UnreadableFileError  a file that the operating system cannot read
        ├── TruncatedFileError the file ends earlier than its header says
        ├── CorruptFileError   damaged bytes, or bytes that do not belong there
        ├── VoxelValueError    voxels that cannot be right
        ├── PointsError        points that cannot be right
        ├── GeometryError      a header that is in doubt about where its voxels lie
        ├── PairMismatchError  image and mask do not match
        └── ImageSizeError     slices that do not have the size that the features declare

``on_error="skip"`` skips a case after a `CaseError`, and after no other error. Each error has the parts of
its message as attributes, and can be pickled, since it may be raised in another process. A bad argument is a
plain `ValueError` that names the allowed values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ctspine1k._messages import count_text, difference_text, shortened, size_text

__all__ = [
    "AmbiguousFilesError",
    "BusyError",
    "CTSpine1KError",
    "CTSpine1KWarning",
    "CaseError",
    "ChecksumError",
    "CorruptFileError",
    "FileFormatError",
    "GeometryError",
    "GeometryWarning",
    "HubError",
    "ImageSizeError",
    "MissingFilesError",
    "MissingPackageError",
    "NoSpaceError",
    "NothingLeftError",
    "OutputError",
    "PairMismatchError",
    "PointsError",
    "ScanTableError",
    "SkippedCasesWarning",
    "SplitFileError",
    "SplitFileWarning",
    "StoredArrayError",
    "TruncatedFileError",
    "UnknownCaseError",
    "UnreadableFileError",
    "VoxelValueError",
    "VoxelWarning",
    "WorkerError",
]


class CTSpine1KError(Exception):
    """Any error of this library that is about data, files or the Hub."""


class CTSpine1KWarning(UserWarning):
    """Any warning of this library."""


class GeometryWarning(CTSpine1KWarning):
    """Headers that leave in doubt where voxels lie (``on_geometry="warn"``).

    Image and mask place the same voxel at different points, or one header contradicts itself.
    """


class VoxelWarning(CTSpine1KWarning):
    """Voxels were changed to be usable: labels were rounded, or NaN replaced (``on_voxels="replace"``)."""


class SkippedCasesWarning(CTSpine1KWarning):
    """Cases are left out, as requested by ``on_missing="skip"`` or ``on_error="skip"``."""


class SplitFileWarning(CTSpine1KWarning):
    """The split file in a folder is used although none was asked for, or is not used."""


class SplitFileError(CTSpine1KError, ValueError):
    """A split file that cannot be read. ``line`` counts from 1; 0 is the file as a whole."""

    def __init__(self, path: str, line: int, text: str, problem: str, sections: Sequence[str]) -> None:
        super().__init__(path, line, text, problem, sections)
        self.path, self.line, self.text, self.problem = path, line, text, problem
        self.sections = sections

    def __str__(self) -> str:
        where = f"{self.path}, line {self.line}: {self.text!r}" if self.line else self.path
        *others, last = (f"{section}:" for section in self.sections)
        return (
            f"{where}: {self.problem}. Expected sections {', '.join(others)} and {last}, each followed by "
            "one <case_id>.nii.gz per line."
        )


class UnknownCaseError(CTSpine1KError, KeyError):
    """A case id that is not in the catalog."""

    def __init__(self, case_id: str, similar: Sequence[str], total: int) -> None:
        super().__init__(case_id, similar, total)
        self.case_id, self.similar, self.total = case_id, similar, total

    def __str__(self) -> str:
        hint = f" Did you mean {' or '.join(self.similar)}?" if self.similar else ""
        where = f"in this catalog of {count_text(self.total, 'case')}"
        return (
            f"no case {self.case_id!r} {where}.{hint} `ctspine1k list`, with the same options, lists the ids."
        )


class MissingFilesError(CTSpine1KError, FileNotFoundError):
    """Cases whose image or mask is not where the raw files are.

    Attributes:
        missing: what each incomplete case lacks, by its id: "image", "mask" or "image and mask".
        selected: number of cases selected.
    """

    def __init__(self, missing: Mapping[str, str], selected: int, where: str, hint: str) -> None:
        # FileNotFoundError takes several arguments as errno, message and file name: pass only the message.
        verb = "lacks" if len(missing) == 1 else "lack"
        super().__init__(f"{len(missing):,} of {count_text(selected, 'case')} {verb} raw files in {where}")
        self.missing, self.selected, self.where, self.hint = dict(missing), selected, where, hint

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.missing, self.selected, self.where, self.hint)

    @property
    def reasons(self) -> dict[str, str]:
        """Why each of these cases is left out if they are skipped, by case id."""
        return {case_id: f"no {what} file" for case_id, what in self.missing.items()}

    @property
    def summary(self) -> str:
        """What is missing, without the hint."""
        named = shortened(f"{case_id} ({what})" for case_id, what in self.missing.items())
        return f"{self.args[0]}: {named}"

    def __str__(self) -> str:
        return f"{self.summary}. {self.hint}"


class AmbiguousFilesError(CTSpine1KError, ValueError):
    """Several files that could be the image, or the mask, of one case."""

    def __init__(self, case_id: str, kind: str, paths: Sequence[str]) -> None:
        super().__init__(case_id, kind, paths)
        self.case_id, self.kind, self.paths = case_id, kind, paths

    def __str__(self) -> str:
        found = f"{len(self.paths)}: {shortened(self.paths)}"
        return (
            f"{self.case_id}: expected one {self.kind} file, found {found}. "
            "Keep the one you trust and move the others out of the folder."
        )


class ChecksumError(CTSpine1KError, ValueError):
    """A file differs from the Hub's record. ``measure`` is "size" or "sha256"."""

    def __init__(self, file: str, measure: str, expected: str, found: str, hint: str) -> None:
        super().__init__(file, measure, expected, found, hint)
        self.file, self.measure, self.expected, self.found = file, measure, expected, found
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.file}: {self.measure} is {self.found}, the Hub says {self.expected}. {self.hint}"


class NothingLeftError(CTSpine1KError, ValueError):
    """Every case of a split was skipped; ``reasons`` says why, by case id.

    The message has the reasons, unless they ``were_warned`` of: then it has the names alone.
    """

    def __init__(self, split: str, reasons: Mapping[str, str], were_warned: bool = False) -> None:
        super().__init__(split, reasons, were_warned)
        self.split, self.reasons, self.were_warned = split, reasons, were_warned

    def __str__(self) -> str:
        if self.were_warned:
            listed = f"{shortened(self.reasons)}. The warnings say why"
        else:
            listed = shortened(f"{case_id} ({reason})" for case_id, reason in self.reasons.items())
        return (
            f"{self.split}: expected at least one case, found every one of them skipped: {listed}. "
            "Repair the files or select other cases."
        )


class HubError(CTSpine1KError, ConnectionError):
    """The Hub cannot be reached, or has no such repo or revision."""


class NoSpaceError(CTSpine1KError, OSError):
    """Less disk space is free than ``purpose`` needs; ``needed`` and ``free`` are in bytes."""

    def __init__(self, folder: str, purpose: str, needed: int, free: int, hint: str) -> None:
        # OSError takes several arguments as errno, message and file name: pass none.
        super().__init__()
        self.folder, self.purpose, self.needed, self.free = folder, purpose, needed, free
        self.hint = hint

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.folder, self.purpose, self.needed, self.free, self.hint)

    def __str__(self) -> str:
        return (
            f"{self.folder}: expected room for {self.purpose} of {size_text(self.needed)}, found "
            f"{size_text(self.free)} free. {self.hint}"
        )


class StoredArrayError(CTSpine1KError, ValueError):
    """Voxels in compact storage that cannot be read; the message names row and column."""

    def __init__(self, name: str, expected: str, found: str, hint: str = "") -> None:
        super().__init__(name, expected, found, hint)
        self.name, self.expected, self.found = name, expected, found
        self.hint = hint or (
            "It is damaged: convert again, or restore a copy. ctspine1k.LazyDataset(...).verify() names all "
            "such rows of a data set."
        )

    def __str__(self) -> str:
        return difference_text(self.name, self.expected, self.found, self.hint)


class ScanTableError(CTSpine1KError, ValueError):
    """A file that is not the table of a scan, or a table that does not match the current files."""

    def __init__(self, path: str, expected: str, found: str, hint: str = "") -> None:
        super().__init__(path, expected, found, hint)
        self.path, self.expected, self.found = path, expected, found
        self.hint = hint or (
            "Run `ctspine1k scan` (or Collection.scan) on these files: it measures what is new and keeps "
            "the rest."
        )

    def __str__(self) -> str:
        return difference_text(self.path, self.expected, self.found, self.hint)


class OutputError(CTSpine1KError, ValueError):
    """An output folder that cannot be written to, or that contains files which must not be replaced."""

    def __init__(self, path: str, expected: str, found: str, hint: str) -> None:
        super().__init__(path, expected, found, hint)
        self.path, self.expected, self.found, self.hint = path, expected, found, hint

    @classmethod
    def occupied(
        cls, path: str, expected: str, found: str, *, another: str = "folder", others: Sequence[str] = ()
    ) -> OutputError:
        """Return the error that something else is where an output would go.

        Args:
            path: where it would go.
            expected: what may be there.
            found: what is there.
            another: what to choose instead, such as "folder", or an option.
            others: what else can be done, such as to repeat the options of the output that is there.
        """
        steps = (f"Choose another {another}", *others)
        return cls(path, expected, found, f"{', '.join(steps)}, or move what is there away.")

    def __str__(self) -> str:
        return difference_text(self.path, self.expected, self.found, self.hint)


class BusyError(CTSpine1KError, RuntimeError):
    """Another process is writing the same output."""

    def __init__(self, path: str, who: str = "another process") -> None:
        super().__init__(path, who)
        self.path, self.who = path, who

    def __str__(self) -> str:
        return (
            f"{self.path}: {self.who} is writing this output. Wait until that is done, and run again: what "
            "it has done is kept."
        )


class WorkerError(CTSpine1KError, RuntimeError):
    """Worker processes did not finish: one died, cannot be reached, or has another version or run."""


class MissingPackageError(CTSpine1KError, ImportError):
    """An optional package is not installed; ``extra`` is the extra of ctspine1k that installs it."""

    def __init__(self, what: str, package: str, extra: str) -> None:
        super().__init__(what, package, extra)
        self.what, self.package, self.extra = what, package, extra

    def __str__(self) -> str:
        return f"{self.what} needs {self.package}: pip install 'ctspine1k[{self.extra}]'"


class CaseError(CTSpine1KError, ValueError):
    """A case whose files cannot be used: which file, what was expected, what was found, what to do."""

    def __init__(self, file: str, expected: str, found: str, hint: str) -> None:
        super().__init__(file, expected, found, hint)
        self.file, self.expected, self.found, self.hint = file, expected, found, hint

    def __str__(self) -> str:
        return difference_text(self.file, self.expected, self.found, self.hint)


class FileFormatError(CaseError):
    """A file in another format: not NIfTI, no three-dimensional scan of real numbers, or no points."""


class UnreadableFileError(FileFormatError):
    """A file that the system cannot read: permissions, a disk error, or a folder of another machine."""

    @classmethod
    def of(cls, path: str, error: OSError) -> UnreadableFileError:
        """Return the error that explains an OSError which was raised while a file was read."""
        if isinstance(error, FileNotFoundError):
            hint = (
                "All processes and workers must have access to the raw files: share the folder, or let them "
                "use the Hub."
            )
            return cls(path, "the raw file that was there when the work began", "none", hint)
        reason = error.strerror or str(error)
        return cls(path, "a file that can be read", reason, "Check its permissions and the disk.")


class TruncatedFileError(CaseError):
    """The file contains fewer voxels than its header says."""


class CorruptFileError(CaseError):
    """The file has damaged bytes, or bytes after its end."""


class VoxelValueError(CaseError):
    """NaN or infinite intensities, or labels that the data set does not have."""


class PointsError(CaseError):
    """Points outside the image, of vertebrae that the data set does not have, or of another kind."""


class GeometryError(CaseError):
    """A header that contradicts itself about where its voxels lie, does not say it, or is not in mm."""


class PairMismatchError(CaseError):
    """Image and mask have different shapes, or different positions in space."""


class ImageSizeError(CaseError):
    """A volume whose slices do not have the size that the features declare."""
