"""Options of `load_dataset` as keywords, for the signatures of functions that pass them on."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Literal, TypeAlias, TypedDict

import datasets

from ctspine1k.catalog.cases import Case, Criterion
from ctspine1k.catalog.vocabulary import LabelScheme
from ctspine1k.files.selection import OnMissing
from ctspine1k.rows.options import Compression, Plane, PointsChoice, Policy, RowOptions, Spacing, Storage
from ctspine1k.rows.parts import Split
from ctspine1k.volumes.relabel import Others
from ctspine1k.volumes.slices import OnVoxels

__all__ = ["AllOptions", "BuilderOptions", "LoadOptions", "Split"]

PathLike: TypeAlias = "str | os.PathLike[str]"


class RowKeywords(TypedDict, total=False):
    """Options that decide what rows contain."""

    storage: Storage
    compression: Compression | None
    image_size: tuple[int, int] | None
    orientation: str | None
    spacing: Spacing | None
    plane: Plane | None
    label_scheme: LabelScheme | None
    other_labels: Others
    geometry: bool
    points: PointsChoice
    on_geometry: Literal["raise", "warn"]
    on_voxels: OnVoxels


class BuilderOptions(RowKeywords, total=False):
    """Options of a split's builder."""

    on_missing: OnMissing
    on_error: Policy
    verify_files: bool
    writer_batch_size: int | None
    cache_dir: PathLike | None


class ConversionOptions(BuilderOptions, total=False):
    """Options of `load_dataset`, except those that select cases, splits and files."""

    num_proc: int | None
    keep_in_memory: bool | None
    download_mode: datasets.DownloadMode | str | None
    verification_mode: datasets.VerificationMode | str | None


class LoadOptions(ConversionOptions, total=False):
    """Options of `Collection.load`."""

    rows: RowOptions | None


class AllOptions(ConversionOptions, total=False):
    """Options of `load_dataset`, except ``name``, ``split`` and ``streaming``."""

    collection: str
    data_dir: PathLike | None
    repo_id: str | None
    data_revision: str | None
    revision: str | None
    split_file: PathLike | None
    cases: str | Case | Iterable[str | Case] | None
    splits: str | Sequence[str] | None
    source: Criterion
    special_case: Criterion
    exclude_issues: Criterion
    has_vertebrae: str | Sequence[str] | None
    scan: PathLike | None
    token: str | bool | None
