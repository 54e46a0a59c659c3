"""Find predicted points of cases in a folder, by their names.

Files are named like the data set's own points, or by the case: ``<case_id>.json``, ``<case_id>_ctd.json`` or
``<case_id>.lml``, with ``_`` for dots in the id if need be. They may be in any folder below the one given.
"""

from __future__ import annotations

import posixpath
import re

from ctspine1k.catalog.cases import Catalog
from ctspine1k.catalog.dataset import DataSet
from ctspine1k.errors import AmbiguousFilesError
from ctspine1k.files.folder import FolderPlace
from ctspine1k.files.predictions import WHOLE, Predictions, case_names, find_predictions
from ctspine1k.files.raw import RawFile, raw_file

__all__ = ["POINTS_ENDINGS", "find_points"]

#: How names of files with points end.
POINTS_ENDINGS = (".json", ".lml")

_NAME = re.compile(r"(?P<case>.+?)(?:(?:_ctd)?\.json|\.lml)", re.IGNORECASE)


def find_points(place: FolderPlace, data_set: DataSet, cases: Catalog, known: Catalog) -> Predictions:
    """Find the points files of cases; if there are none at all, find masks as `find_predictions` does.

    Args:
        place: the folder.
        data_set: the data set, which knows how its files are named.
        cases: those to find.
        known: all cases of the data set, whose files are not unknown even if their case is not wanted.

    Raises:
        AmbiguousFilesError: several files of one case.
        ValueError: a mask that could belong to either of two cases.
    """
    names = case_names(known)
    files: dict[str, RawFile] = {}
    unknown = []
    listing = place.listing()
    for path, entry in sorted(listing.entries.items()):
        match = _NAME.fullmatch(posixpath.basename(path))
        if match is None:
            continue
        owners = [case_id for case_id, kind in data_set.parse_name(path) if kind == "points"]
        owner = next((one for one in (*owners, names.get(match["case"])) if one in known), None)
        if owner is None:
            unknown.append(path)
        if owner is None or owner not in cases or entry is None:
            continue
        file = raw_file(cases[owner], "points", path, entry, listing)
        if owner in files:
            raise AmbiguousFilesError(owner, "points", [files[owner].name, file.name])
        files[owner] = file
    if files:
        return Predictions({case_id: {WHOLE: file} for case_id, file in files.items()}, tuple(unknown))
    masks = find_predictions(place, data_set, cases, known)
    return masks if masks.files else Predictions({}, tuple(sorted((*unknown, *masks.unknown))))
