"""Options of an export."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict

from ctspine1k._messages import check_choice, check_count
from ctspine1k.catalog.dataset import DataSet
from ctspine1k.catalog.vocabulary import LabelScheme
from ctspine1k.files.selection import OnMissing
from ctspine1k.files.transfer import worker_start
from ctspine1k.rows.options import CONFIGS, PointsChoice, Policy, RowOptions
from ctspine1k.running.executors import Executor, executor
from ctspine1k.running.retries import PAUSES
from ctspine1k.volumes.relabel import Others
from ctspine1k.volumes.slices import OnVoxels

__all__ = ["ExportKeywords", "ExportOptions", "NnunetKeywords", "row_keywords"]


class ExportKeywords(TypedDict, total=False):
    """Options of `Collection.export_parquet` that its signature does not name."""

    image_size: tuple[int, int] | None
    orientation: str | None
    label_scheme: LabelScheme | None
    other_labels: Others
    geometry: bool
    points: PointsChoice
    on_missing: OnMissing
    on_error: Policy
    on_geometry: Literal["raise", "warn"]
    on_voxels: OnVoxels
    cases_per_shard: int
    scan: str | os.PathLike[str] | None
    rows: RowOptions | None


class NnunetKeywords(TypedDict, total=False):
    """Options of `Collection.export_nnunet` that its signature does not name."""

    other_labels: Others
    on_missing: OnMissing
    on_error: Policy
    on_geometry: Literal["raise", "warn"]
    num_proc: int


def row_keywords(options: ExportKeywords) -> dict[str, Any]:
    """Return the options with ``rows``, the options of rows as one value, replaced by single ones.

    Raises:
        ValueError: ``rows`` asks for storage that an export does not have.
    """
    own: dict[str, Any] = dict(options)
    if (rows := own.pop("rows", None)) is None:
        return own
    keywords = rows.keywords()
    check_choice("storage", keywords.pop("storage"), ("dense",))
    del keywords["compression"]  # which dense storage does not have
    for name in ("plane", "spacing"):
        if (value := keywords.pop(name)) is not None:
            raise ValueError(f"{name}={value!r}: expected None, since an export has the files' own slices")
    return {**keywords, **own}


@dataclass(frozen=True)
class ExportOptions:
    """What an export writes, what it does about cases that cannot be used, and where the work is done."""

    config: Literal["3d", "2d", "all"] = "all"
    image_size: tuple[int, int] | None = None  #: this and the next seven as for `RowOptions`
    orientation: str | None = None
    label_scheme: LabelScheme | None = None
    other_labels: Others = "raise"
    geometry: bool = False
    points: PointsChoice = None
    on_geometry: Literal["raise", "warn"] = "warn"
    on_voxels: OnVoxels = "raise"
    on_missing: OnMissing = "raise"  #: a case without raw files is an error, or left out and listed
    on_error: Policy = "raise"  #: a case that cannot be used makes its shard fail, or is left out and listed
    cases_per_shard: int = 4
    scan: str | os.PathLike[str] | None = None  #: a scan's table of cases; None for its default path
    verify: bool = False  #: whether to read existing shards, and make those again whose bytes have changed
    num_proc: int = 1  #: processes of this machine that make shards
    scheduler: str | None = None  #: a Dask scheduler, or its scheduler file, whose workers make them instead
    pauses: tuple[float, ...] = PAUSES  #: seconds between attempts of a download or an upload

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            ValueError: an option that is not allowed.
        """
        check_choice("config", self.config, (*CONFIGS, "all"))
        check_choice("on_missing", self.on_missing, ("raise", "skip"))
        check_choice("on_error", self.on_error, ("raise", "skip"))
        executor(self.num_proc, self.scheduler)
        check_count("cases_per_shard", self.cases_per_shard, 1)

    @property
    def scan_table(self) -> Path | None:
        """The path of the scan's table of cases, if one is given."""
        return None if self.scan is None else Path(self.scan).expanduser()

    def rows(self, data_set: DataSet) -> list[RowOptions]:
        """Return the options of the rows of each config.

        Raises:
            ValueError: an option that is not allowed, or that the data set does not have.
        """
        return [
            RowOptions(
                config=config,
                image_size=self.image_size,
                orientation=self.orientation,
                label_scheme=self.label_scheme,
                other_labels=self.other_labels,
                geometry=self.geometry,
                points=self.points,
                on_geometry=self.on_geometry,
                on_voxels=self.on_voxels,
            ).of(data_set, any_size=True)
            for config in (CONFIGS if self.config == "all" else (self.config,))
        ]

    def workers(self) -> Executor:
        """Return the executor that makes the shards."""
        return executor(self.num_proc, self.scheduler, initializer=worker_start())
