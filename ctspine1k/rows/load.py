"""`load_dataset`: the same call on every version of `datasets`.

Each split has its own builder, and so its own cache: loading one never touches another, and loading all of
them later converts only those that are missing.
"""

from __future__ import annotations

import os
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import datasets

from ctspine1k._messages import check_count, warn
from ctspine1k.catalog.cases import Case, Criterion
from ctspine1k.catalog.registry import DEFAULT
from ctspine1k.catalog.vocabulary import LabelScheme
from ctspine1k.errors import MissingFilesError, NothingLeftError, SkippedCasesWarning
from ctspine1k.files.folder import FolderPlace
from ctspine1k.files.selection import Look, OnMissing, Selection, open_selection
from ctspine1k.rows._datasets import is_forced, is_small_dataset, joined_stream
from ctspine1k.rows.builder import CTSpine1K
from ctspine1k.rows.options import Compression, Plane, PointsChoice, Policy, RowOptions, Spacing, Storage
from ctspine1k.rows.parts import Split, builders_of, check_room, specs_of, split_name
from ctspine1k.rows.shuffling import of_volumes
from ctspine1k.scans.selecting import select, select_splits
from ctspine1k.volumes.relabel import Others
from ctspine1k.volumes.slices import OnVoxels

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ctspine1k.rows.keywords import AllOptions, BuilderOptions

__all__ = ["Split", "load", "load_dataset"]


@overload
def load_dataset(
    name: str = ..., *, split: None = ..., streaming: Literal[False] = ..., **options: Unpack[AllOptions]
) -> datasets.DatasetDict: ...
@overload
def load_dataset(
    name: str = ..., *, split: Split, streaming: Literal[False] = ..., **options: Unpack[AllOptions]
) -> datasets.Dataset: ...
@overload
def load_dataset(
    name: str = ..., *, split: Sequence[Split], streaming: Literal[False] = ..., **options: Unpack[AllOptions]
) -> list[datasets.Dataset]: ...
@overload
def load_dataset(
    name: str = ..., *, split: None = ..., streaming: Literal[True], **options: Unpack[AllOptions]
) -> datasets.IterableDatasetDict: ...
@overload
def load_dataset(
    name: str = ..., *, split: Split, streaming: Literal[True], **options: Unpack[AllOptions]
) -> datasets.IterableDataset: ...
@overload
def load_dataset(
    name: str = ..., *, split: Sequence[Split], streaming: Literal[True], **options: Unpack[AllOptions]
) -> list[datasets.IterableDataset]: ...
def load_dataset(
    name: str = "3d",
    *,
    split: Split | Sequence[Split] | None = None,
    collection: str = DEFAULT,
    data_dir: str | os.PathLike[str] | None = None,
    repo_id: str | None = None,
    data_revision: str | None = None,
    revision: str | None = None,
    split_file: str | os.PathLike[str] | None = None,
    cases: str | Case | Iterable[str | Case] | None = None,
    splits: str | Sequence[str] | None = None,
    source: Criterion = None,
    special_case: Criterion = None,
    exclude_issues: Criterion = None,
    has_vertebrae: str | Sequence[str] | None = None,
    scan: str | os.PathLike[str] | None = None,
    storage: Storage = "dense",
    compression: Compression | None = None,
    image_size: tuple[int, int] | None = None,
    orientation: str | None = None,
    spacing: Spacing | None = None,
    plane: Plane | None = None,
    label_scheme: LabelScheme | None = None,
    other_labels: Others = "raise",
    geometry: bool = False,
    points: PointsChoice = None,
    on_missing: OnMissing = "raise",
    on_error: Policy = "raise",
    on_geometry: Literal["raise", "warn"] = "warn",
    on_voxels: OnVoxels = "raise",
    streaming: bool = False,
    num_proc: int | None = None,
    writer_batch_size: int | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    keep_in_memory: bool | None = None,
    download_mode: datasets.DownloadMode | str | None = None,
    verification_mode: datasets.VerificationMode | str | None = None,
    verify_files: bool = True,
    token: str | bool | None = None,
) -> Any:
    """Load a data set as `datasets.load_dataset` would, converting only the requested splits.

    Args:
        name: "3d", one row per case, or "2d", one row per slice.
        split: as in `datasets.load_dataset`: "train", "validation", "test", "train[:10%]",
            "train+validation", a `datasets.ReadInstruction`, or a list of these; None for all splits.
        collection: the data set's name; the default is CTSpine1K.
        data_dir: a folder with raw files in any known layout, instead of the Hub.
        repo_id: the Hub repo (dataset) with the raw files; None for the data set's own.
        data_revision: its branch, tag or commit; None for "main".
        revision: another name for ``data_revision``, as in `datasets.load_dataset`.
        split_file: split file to use instead of the data set's own (same format). None for the one in
            ``data_dir`` if that folder lacks files of the data set's own cases.
        cases: only these cases, by id or as `Case`; their ``index`` is still the position in the split.
        splits: only these splits, if ``split`` is None.
        source: only cases from this source, such as "COLONOG", or from several.
        special_case: only cases with this variant of the anatomy, such as "sacral_lumbarization".
        exclude_issues: leave out the cases with an issue of a kind such as "label_missing", or of several
            kinds; "errors" leaves out all with wrong labels or geometry, "reported" those that were reported
            on the data set's tracker, "all" those with any known issue (`Catalog.where`).
        has_vertebrae: only cases that contain all of these, such as ["C1", "L6"], as a scan has found.
        scan: the table of cases that `Collection.scan` wrote; None for ``cases.parquet`` in ``data_dir``, or,
            for the Hub, in the working directory.
        storage: "dense", arrays that Arrow stores as float32 and int32; or "compact", the same arrays
            compressed to less than the raw files and readable in parts (`LazyDataset`), which needs
            ``ctspine1k[compact]``.
        compression: of compact storage: None or "small", less than the raw files; or "fast", about as many
            bytes as they, from which patches are read 1.4 to 2.3 times as fast. Both are lossless.
        image_size: voxels that each slice must have along its first and second axis: this checks sizes, and
            resizes nothing. None means (512, 512) in dense storage, whose features declare a size, and any
            size in compact storage.
        orientation: None for as stored; or the target orientation of the files' axes (i, j, k), such as
            "RAS": rows are as if the files had been stored in it, with their affine and spacing, not
            resampled. Rows are still slice-first: their ``orientation`` is then "SRA".
        spacing: (x, y, z), mm between voxels from left to right, front to back and head to feet, to which
            volumes are resampled when they are converted: image linearly, segmentation to the nearest voxel
            (`ctspine1k.volumes.resampling`). None for as stored. Needs compact storage, or an ``image_size``
            that all slices then have.
        plane: of the slices of "2d": "axial", "coronal" or "sagittal". The two axes of a slice keep their
            order, and all axes their directions, as stored or as in ``orientation``. None for the slices that
            are stored, most often axial, or those of ``orientation``. Coronal and sagittal slices differ in
            size: they need compact storage, or an ``image_size`` that all have.
        label_scheme: what segmentations contain: None or "ctspine1k", labels as they are; "region", 1 for
            cervical, 2 thoracic, 3 lumbar; "binary", 1 for every vertebra; "verse", VerSe's numbers.
        other_labels: if a mask has labels that the data set does not have, up to 255, such as a sacrum:
            "raise" an error, or make them "background".
        geometry: add columns source, spacing, affine, array_affine, orientation and n_labelled.
        points: add a column points: a list of dicts with label, name, voxel (its index (k, i, j) in the
            volume's array) and mm (RAS+). In "2d", a row has the points to which its slice is the nearest.
            None where a case has no file of points, an empty list where there are none. ``points=None`` adds
            the column if each case of the data set has such a file. A text says how coordinates are meant,
            where the format leaves it open: for ``.lml`` "spacing" or "affine" (`ctspine1k.volumes.points`).
        on_missing: what to do if a case has no raw files: "raise" an error, or "skip" it with a warning.
        on_error: the same for damaged or inconsistent files.
        on_geometry: if the mask's header places it elsewhere than the image, or a header contradicts itself:
            "warn" or "raise".
        on_voxels: if voxels of an image are NaN or infinite: "raise" an error, or "replace" them by -1024 HU,
            the value of padding, with a warning.
        streaming: read from the Hub or the folder when rows are requested, without converting anything.
        num_proc: processes that convert; each needs as much memory as a single one.
        writer_batch_size: rows that are written at once; None for 1 (3d) or 16 (2d).
        cache_dir: where converted splits are stored; None for the cache of `datasets`.
        keep_in_memory: read a converted split into memory.
        download_mode: as in `datasets.load_dataset`; "force_redownload" converts again.
        verification_mode: as in `datasets.load_dataset`.
        verify_files: False opens rows that were converted before, without looking at the raw files, which may
            be gone; ``data_dir`` need not exist.
        token: for a private repo; None for the token you are logged in with.

    Returns:
        A `datasets.Dataset`; for ``split=None`` a `datasets.DatasetDict`; for a list of splits a list. With
        ``streaming=True`` the iterable counterparts. `ctspine1k.rows.builder` lists the columns.

    Raises:
        ValueError: an argument that is not allowed.
        SplitFileError, UnknownCaseError: a split file that cannot be read, a case that is not in it.
        MissingFilesError: cases have no raw files, and ``on_missing`` is "raise" or none has.
        AmbiguousFilesError: several files for one image or mask.
        CaseError: a case's files cannot be used, and ``on_error`` is "raise".
        NotConvertedError: ``verify_files`` is False, and no such rows were converted; a `FileNotFoundError`
            of `ctspine1k.rows.conversions`.
        NothingLeftError: all cases were skipped.
        NoSpaceError: there is not enough room on the disk, or it became full.
        ScanTableError: the scan's table cannot be used, or does not cover all files that are there.
        MissingPackageError: compact storage needs a package that is not installed.
        HubError, ChecksumError: the Hub cannot be reached, has no such repo or revision, or sent other bytes.
    """
    if revision is not None and data_revision not in (None, revision):
        raise ValueError(f"revision={revision!r} and data_revision={data_revision!r} mean the same: give one")
    gone = None
    if not verify_files and data_dir is not None and not Path(data_dir).expanduser().is_dir():
        gone, data_dir = FolderPlace(Path(data_dir).expanduser().resolve()), None
    opened = open_selection(
        collection,
        data_dir=data_dir,
        repo_id=repo_id,
        revision=data_revision or revision,
        split_file=split_file,
        token=token,
    )
    criteria = {"source": source, "special_case": special_case, "exclude_issues": exclude_issues}
    chosen = select(
        opened,
        cases,
        has_vertebrae=has_vertebrae,
        scan=scan,
        **{name: value for name, value in criteria.items() if value is not None},
    )
    if gone is not None:  # of several conversions, that of the folder is meant
        chosen = replace(chosen, look=Look(gone))
    return load(
        select_splits(chosen, splits),
        name,
        split=split,
        streaming=streaming,
        storage=storage,
        compression=compression,
        image_size=image_size,
        orientation=orientation,
        spacing=spacing,
        plane=plane,
        label_scheme=label_scheme,
        other_labels=other_labels,
        geometry=geometry,
        points=points,
        on_missing=on_missing,
        on_error=on_error,
        on_geometry=on_geometry,
        on_voxels=on_voxels,
        num_proc=num_proc,
        writer_batch_size=writer_batch_size,
        cache_dir=cache_dir,
        keep_in_memory=keep_in_memory,
        download_mode=download_mode,
        verification_mode=verification_mode,
        verify_files=verify_files,
        token=token,
    )


def load(
    selection: Selection,
    name: str | None = None,
    *,
    split: Split | Sequence[Split] | None = None,
    streaming: bool = False,
    num_proc: int | None = None,
    keep_in_memory: bool | None = None,
    download_mode: datasets.DownloadMode | str | None = None,
    verification_mode: datasets.VerificationMode | str | None = None,
    token: str | bool | None = None,
    rows: RowOptions | None = None,
    **options: Unpack[BuilderOptions],
) -> Any:
    """Load the cases of a selection; arguments, result and errors as for `load_dataset`.

    ``rows`` has the options of rows as one value, and the name; single options override it.
    """
    name = _checked_name(name, rows)
    check_count("num_proc", num_proc, 1, or_none=True)
    if streaming and num_proc is not None:
        raise ValueError("num_proc is for conversion: with streaming=True use the DataLoader's num_workers")
    if not options.get("verify_files", True) and (streaming or is_forced(download_mode)):
        raise ValueError("verify_files=False opens converted rows: it cannot stream them, or convert again")
    by_split = selection.cases.by_split()
    specs = specs_of(split, list(by_split), selection.data_set.splits, streaming)
    own: dict[str, Any] = {**(rows.keywords() if rows else {}), **options}
    if own.get("cache_dir") is not None:
        own["cache_dir"] = os.fspath(own["cache_dir"])
    builders, reads = builders_of(
        [part for spec in specs for part in spec],
        by_split,
        lambda cases: CTSpine1K(config_name=name, selection=selection.keep(cases), token=token, **own),
        download_mode,
    )
    to_read = {part for part, one in builders.items() if streaming or one.will_convert(download_mode)}
    _check_files(builders, to_read, may_drop=split is None)
    if not streaming:
        check_room(builders.values(), download_mode, verification_mode)
        _prepare(
            builders,
            may_drop=split is None,
            download_mode=download_mode,
            verification_mode=verification_mode,
            num_proc=num_proc,
        )
    finish = of_volumes if streaming and name == "3d" else lambda loaded: loaded
    if split is not None:
        loaded = [finish(_load(spec, builders, reads, streaming, keep_in_memory)) for spec in specs]
        return loaded if isinstance(split, (list, tuple)) else loaded[0]
    every = {part: _load([part], builders, reads, streaming, keep_in_memory) for part in builders}
    return finish(datasets.IterableDatasetDict(every)) if streaming else datasets.DatasetDict(every)


def _checked_name(name: str | None, rows: RowOptions | None) -> str:
    """Return the name of what to load: if none is given, that of ``rows``.

    Raises:
        ValueError: ``rows`` has another one.
    """
    if rows is not None and name not in (None, rows.config):
        raise ValueError(f"name={name!r}: expected {rows.config!r}, the config of rows=..., or no name")
    return (rows or RowOptions()).config if name is None else name


def _check_files(builders: dict[str, CTSpine1K], to_read: Container[str], *, may_drop: bool) -> None:
    """Check that all cases of the splits to read have their files before anything is fetched or converted.

    Splits without any files are dropped, with a warning, if ``on_missing`` allows it and others remain.
    """
    absent: dict[str, MissingFilesError] = {}
    for name, builder in builders.items():
        if name not in to_read:
            continue
        try:
            builder.config.files  # noqa: B018 (read for its errors)
        except MissingFilesError as error:
            if not may_drop or builder.config.on_missing == "raise" or len(absent) == len(builders) - 1:
                raise
            absent[name] = error
    for name, missing in absent.items():
        del builders[name]
        warn(missing.summary, SkippedCasesWarning)


def _prepare(builders: dict[str, CTSpine1K], *, may_drop: bool, **options: Any) -> None:
    """Convert each split that is not in the cache.

    Splits of which every case was skipped, with a warning, are dropped if others remain.
    """
    for name in list(builders):
        try:
            builders[name].download_and_prepare(**options)
        except NothingLeftError:
            if not may_drop or len(builders) == 1:
                raise
            del builders[name]


def _load(
    spec: Sequence[str],
    builders: dict[str, CTSpine1K],
    reads: Mapping[str, str],
    streaming: bool,
    keep_in_memory: bool | None,
) -> Any:
    """Join the parts of a data set, such as "train[:10%]" and "test"."""
    parts = []
    for part in spec:
        builder = builders[split_name(part)]
        if streaming:
            parts.append(builder.as_streaming_dataset(split=part))
            continue
        is_small = is_small_dataset(builder.info.dataset_size)
        in_memory = is_small if keep_in_memory is None else keep_in_memory
        parts.append(builder.as_dataset(split=reads[part], in_memory=in_memory))
    if len(parts) == 1 and reads[spec[0]] == spec[0]:
        return parts[0]
    if streaming:
        return joined_stream(parts, "+".join(spec))
    return datasets.concatenate_datasets(parts, split=datasets.NamedSplit("+".join(spec)))
