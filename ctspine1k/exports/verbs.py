"""The verbs of a collection that write the data set in other forms.

Each imports what it needs when it is called: a collection is opened without NumPy.
"""

from __future__ import annotations

import abc
import os
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ctspine1k.catalog.vocabulary import LabelScheme
    from ctspine1k.exports.nnunet import NnunetReport
    from ctspine1k.exports.options import ExportKeywords, NnunetKeywords
    from ctspine1k.exports.run import ExportReport
    from ctspine1k.files.selection import Selection

__all__ = ["ExportVerbs"]


class ExportVerbs(abc.ABC):
    """Verbs of `ctspine1k.Collection`."""

    @abc.abstractmethod
    def selection(self) -> Selection:
        """Return the cases with a new look at the place."""

    def export_parquet(
        self,
        out: str | os.PathLike[str],
        *,
        config: Literal["3d", "2d", "all"] = "all",
        num_proc: int = 1,
        scheduler: str | None = None,
        verify: bool = False,
        **options: Unpack[ExportKeywords],
    ) -> ExportReport:
        """Write the rows of `load` as Parquet shards, with a card, a table of cases and a manifest.

        A stopped export resumes where it was, however it was stopped: existing shards are kept, unless their
        options, the raw files or their own bytes have changed. The same selection gives the same bytes.

        If slices of the data set, or those of ``orientation``, differ in size and ``image_size`` is None,
        arrays are nested lists.

        Args:
            out: a folder, or an fsspec URL such as "s3://bucket/folder", whose login fsspec's configuration
                has. It contains only this export.
            config: "3d", one row per case, "2d", one row per axial slice, or "all" for both.
            num_proc: processes that make shards; each needs up to 9 GB for "3d", and 0.5 GB for "2d".
            scheduler: a Dask scheduler, whose workers make the shards instead; both as for `scan`.
            verify: read all existing shards, and make those again whose bytes have changed.
            options: ``image_size``, ``orientation``, ``label_scheme``, ``other_labels``, ``geometry``,
                ``points``, ``on_missing``, ``on_error``, ``on_geometry`` and ``on_voxels`` as for
                `load_dataset` (a case that cannot be used fails its shard, and the others are made; manifest
                and card list skipped ones); ``cases_per_shard``, cases in a file, 4 of which take about
                600 MB; ``scan``, a scan's table of cases, whose columns are added to ``cases.parquet``;
                ``rows``, a `RowOptions`.

        Returns:
            What was done. If a shard failed, ``ok`` is False, there is no manifest yet, and ``failed`` says
            why: repair the files, or leave them out, and run again.

        Raises:
            ValueError: an argument that is not allowed.
            MissingFilesError: cases have no raw files, and ``on_missing`` is "raise" or none has.
            NothingLeftError: all cases were skipped.
            OutputError: ``out`` contains something else, or an export of other cases.
            BusyError: another process is writing there.
            NoSpaceError: a disk is too small, or full; what is done is kept.
            HubError: the Hub cannot be reached; what is done is kept.
            WorkerError: a worker died, or the scheduler is lost; what is done is kept.
            MissingPackageError: a scheduler needs ``ctspine1k[cluster]``.
            KeyboardInterrupt: says how much is done, which is kept.
        """
        from ctspine1k.exports.options import ExportOptions, row_keywords
        from ctspine1k.exports.parquet import export_parquet

        export_options = ExportOptions(
            config=config, num_proc=num_proc, scheduler=scheduler, verify=verify, **row_keywords(options)
        )
        return export_parquet(self.selection(), out, export_options)

    def export_nnunet(
        self,
        out: str | os.PathLike[str],
        *,
        id: int = 511,
        name: str | None = None,
        only: str | None = None,
        copy: bool = False,
        plain_ids: bool = False,
        label_scheme: LabelScheme | None = None,
        **options: Unpack[NnunetKeywords],
    ) -> NnunetReport:
        """Write the data set in the raw format of nnU-Net v2, with links to the raw files.

        Cases of training and validation go to ``imagesTr`` and ``labelsTr``, those of test to ``imagesTs``
        and ``labelsTs``. ``splits_final.json`` has the official split; it is also written to the folder that
        the environment variable ``nnUNet_preprocessed`` names, where nnU-Net looks for it. MONAI reads
        ``datalist.json``. Images stay as they are. A mask is rewritten, as uint8 with the header of its
        image, if it is not stored as whole numbers, its labels change, or its header differs. A stopped
        export resumes where it was.

        Args:
            out: the folder to make the data set's folder in, such as that of ``$nnUNet_raw``.
            id: the data set's number in nnU-Net, 1 to 999, which no other data set there may have.
            name: its name there; None for the data set's own. Id and name give "Dataset511_CTSpine1K".
            only: export only the cases of this split, such as "train".
            copy: copy files instead of making symbolic links.
            plain_ids: replace dots in the ids of cases by ``_``; ``case_ids.json`` maps them back.
            label_scheme: what masks contain, as for `load_dataset`; if not the labels as they are, every
                mask is rewritten.
            options: ``other_labels``, ``on_missing``, ``on_error`` and ``on_geometry`` as for
                `load_dataset` (a case that cannot be used fails, and the others are exported);
                ``num_proc``, processes that read headers and rewrite masks. Image and mask are each turned
                by their own header, as for ``orientation="RAS"``, since nnU-Net does the same.

        Returns:
            What was done. If a case failed, ``ok`` is False, there is no ``dataset.json``, and ``failed``
            says why: repair the files, or leave them out, and run again.

        Raises:
            ValueError: an argument that is not allowed, or an id of a case that nnU-Net does not take.
            MissingFilesError: cases have no raw files, and ``on_missing`` is "raise" or none has.
            NothingLeftError: all cases were skipped.
            OutputError: the id is in use by another name, the folder contains other cases or files, or there
                is another split.
            BusyError: another process is writing there.
            NoSpaceError: a disk is too small, or full; what is done is kept.
            ChecksumError: a file differs from the Hub's record.
            HubError: the Hub cannot be reached; what is done is kept.
            WorkerError: a worker died; what is done is kept.
            KeyboardInterrupt: says how much is done, which is kept.
        """
        from ctspine1k.exports.nnunet import NnunetOptions, export_nnunet

        own = NnunetOptions(
            id=id,
            name=name,
            only=only,
            copy=copy,
            plain_ids=plain_ids,
            label_scheme=label_scheme,
            **options,
        )
        return export_nnunet(self.selection(), out, own)
