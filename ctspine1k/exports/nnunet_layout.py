"""The folder of a data set in nnU-Net's raw format: names of its files, and what its JSON files contain.

::

    OUT/Dataset511_CTSpine1K/imagesTr/CASE_0000.nii.gz    cases of training and validation
                             labelsTr/CASE.nii.gz
                             imagesTs/, labelsTs/         cases of test
                             dataset.json                 labels, channel, reader; written last
                             splits_final.json            the official split, as nnU-Net's fold 0
                             datalist.json                the same cases for MONAI
                             case_ids.json                the ids behind plain ones, if there are any
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctspine1k import __version__
from ctspine1k._messages import shortened
from ctspine1k.catalog.cases import Case
from ctspine1k.catalog.dataset import DataSet
from ctspine1k.catalog.vocabulary import BACKGROUND
from ctspine1k.errors import OutputError
from ctspine1k.files.raw import CHANNEL, plain_id

__all__ = [
    "CASE_IDS",
    "DATALIST",
    "DATASET",
    "ENDING",
    "FOLDERS",
    "SPLITS_JSON",
    "Member",
    "check_id_is_free",
    "datalist",
    "dataset_json",
    "folder_name",
    "is_official",
    "member_of",
    "members_of",
    "splits_final",
]

DATASET, SPLITS_JSON, DATALIST, CASE_IDS = (
    "dataset.json",
    "splits_final.json",
    "datalist.json",
    "case_ids.json",
)

#: The folders of cases.
FOLDERS = ("imagesTr", "labelsTr", "imagesTs", "labelsTs")

ENDING = ".nii.gz"

#: nnU-Net takes what ends like this before its own ending for a mask.
_RESERVED = "_seg"

#: Where nnU-Net looks for data sets by their id, beside the folder that is written to.
_PLACES = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")


@dataclass(frozen=True)
class Member:
    """A case of the folder."""

    case: Case
    name: str  #: what its files are called: its id, or a plain one
    role: str  #: "training", "validation" or "test"

    @property
    def image(self) -> str:
        """The path of its image in the folder."""
        return f"images{self._end}/{self.name}{CHANNEL}{ENDING}"

    @property
    def mask(self) -> str:
        """The path of its mask in the folder."""
        return f"labels{self._end}/{self.name}{ENDING}"

    @property
    def _end(self) -> str:
        return "Ts" if self.role == "test" else "Tr"


def folder_name(number: int, name: str) -> str:
    """Return the name of the folder, such as "Dataset511_CTSpine1K".

    Raises:
        ValueError: nnU-Net does not take such an id or name.
    """
    if not isinstance(number, int) or not 1 <= number <= 999:
        raise ValueError(f"id={number!r}: expected a whole number from 1 to 999")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        raise ValueError(f"name={name!r}: expected letters, digits, - and _, such as 'CTSpine1K'")
    return f"Dataset{number:03d}_{name}"


def check_id_is_free(root: Path, folder: str) -> None:
    """Check that nnU-Net would find no other data set with the id of a folder.

    Args:
        root: where the folder is, or will be.
        folder: its name.

    Raises:
        OutputError: there is another one, in ``root`` or where nnU-Net's environment variables point to.
    """
    start = folder.partition("_")[0]
    places = [root, *(Path(found) for name in _PLACES if (found := os.environ.get(name)))]
    for place in places:
        others = [path.name for path in place.glob(f"{start}*") if path.is_dir() and path.name != folder]
        if others:
            hint = (
                "nnU-Net finds data sets by their id: choose another one (--id, id=...), the same name "
                "(--name, name=...), or move that folder away."
            )
            expected = f"no data set with the id {start.removeprefix('Dataset')} but {folder}"
            raise OutputError(str(place), expected, shortened(sorted(others)), hint)


def members_of(cases: Iterable[Case], splits: Sequence[str], *, plain_ids: bool = False) -> list[Member]:
    """Return the cases as members of the folder, in the same order.

    Args:
        cases: the cases.
        splits: of their data set, in order: the first is for training, the last one for test.
        plain_ids: replace dots in ids by ``_``.

    Raises:
        ValueError: an id that nnU-Net does not take, or two that become the same.
    """
    members: dict[str, Member] = {}
    for case in cases:
        member = member_of(case, splits, plain_ids=plain_ids)
        name = member.name
        if name.endswith(_RESERVED) or "/" in name or "\\" in name:
            raise ValueError(
                f"case {case.case_id!r}: expected an id without / and \\ that does not end in {_RESERVED}, "
                "which is how nnU-Net names masks: rename its files, or leave it out"
            )
        if name in members:
            both = f"{members[name].case.case_id!r} and {case.case_id!r}"
            raise ValueError(f"plain_ids=True: expected different names, found {name!r} for {both}")
        members[name] = member
    return list(members.values())


def member_of(case: Case, splits: Sequence[str], *, plain_ids: bool = False) -> Member:
    """Return a case as a member of the folder; arguments as for `members_of`, which also checks ids."""
    name = plain_id(case.case_id) if plain_ids else case.case_id
    is_last = case.split == splits[-1]
    return Member(case, name, "training" if case.split == splits[0] else "test" if is_last else "validation")


def _labels(data_set: DataSet, scheme: str) -> dict[int, str]:
    """Return the names of all numbers from 0: nnU-Net wants no gaps, so numbers without a label get names."""
    names = data_set.vocabulary.names(scheme)
    return {
        BACKGROUND: "background",
        **{number: names.get(number, f"unused_{number}") for number in range(1, max(names) + 1)},
    }


def dataset_json(data_set: DataSet, scheme: str, members: Sequence[Member]) -> dict[str, Any]:
    """Return what nnU-Net reads first.

    Raises:
        ValueError: the data set has no such label scheme.
    """
    return {
        "channel_names": {"0": "CT"},  # by this name nnU-Net chooses its normalization of CT
        "labels": {name: number for number, name in _labels(data_set, scheme).items()},
        "numTraining": sum(member.role != "test" for member in members),
        "file_ending": ENDING,
        # nnU-Net ignores orientation otherwise, of which the cases have several.
        "overwrite_image_reader_writer": "NibabelIOWithReorient",
        **_about(data_set, members),
        "converted_by": f"ctspine1k {__version__}",
    }


def _about(data_set: DataSet, members: Sequence[Member]) -> dict[str, str]:
    return {
        "name": data_set.title,
        "description": data_set.description,
        "reference": data_set.homepage,
        "licence": data_set.licence_text(member.case for member in members),
    }


def splits_final(members: Sequence[Member]) -> list[dict[str, list[str]]] | None:
    """Return the official split as the only fold; None if there is nothing to train or to validate with."""
    fold = {
        key: [member.name for member in members if member.role == role]
        for key, role in (("train", "training"), ("val", "validation"))
    }
    return [fold] if all(fold.values()) else None


def is_official(splits: object, every: Sequence[Member]) -> bool:
    """Return whether splits, as read from JSON, are the official one of these cases, or of some of them."""
    official = splits_final(every)
    if official is None or not isinstance(splits, list) or len(splits) != 1:
        return False
    (fold,), (ours,) = splits, official
    if not isinstance(fold, Mapping) or fold.keys() != ours.keys():
        return False
    return all(isinstance(fold[key], list) and set(fold[key]) <= set(ours[key]) for key in ours)


def datalist(data_set: DataSet, scheme: str, members: Sequence[Member]) -> dict[str, Any]:
    """Return the cases as MONAI's ``load_decathlon_datalist`` reads them, with paths from its own folder."""
    roles = [member.role for member in members]
    return {
        **_about(data_set, members),
        "modality": {"0": "CT"},
        "labels": {str(number): name for number, name in _labels(data_set, scheme).items()},
        "numTraining": roles.count("training"),
        "numTest": roles.count("test"),
        **{
            role: [{"image": one.image, "label": one.mask} for one in members if one.role == role]
            for role in ("training", "validation", "test")
            if role in roles  # MONAI does not read an empty list
        },
    }
