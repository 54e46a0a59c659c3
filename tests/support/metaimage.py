"""MetaImage files, written line by line: an oblique volume with unequal axes and spacing."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np

#: mm along i, j, k.
SPACING = (0.3125, 0.5, 2.5)

#: In LPS: where the first voxel is, and the directions of i, j, k as columns.
ORIGIN = (11.5, -20.25, 30.0)
DIRECTIONS = np.array([[0.6, 0.0, -0.8], [0.0, -1.0, 0.0], [-0.8, 0.0, -0.6]])

#: From voxel (i, j, k) to RAS+ mm.
AFFINE = np.diag([-1.0, -1.0, 1.0, 1.0]) @ np.block(
    [[DIRECTIONS * SPACING, np.array(ORIGIN)[:, None]], [np.zeros((1, 3)), np.ones((1, 1))]]
)

_TYPES = {"i1": "CHAR", "u1": "UCHAR", "i2": "SHORT", "u2": "USHORT", "i4": "INT", "u4": "UINT"}
_TYPES |= {"i8": "LONG_LONG", "u8": "ULONG_LONG", "f4": "FLOAT", "f8": "DOUBLE"}


def header(voxels: np.ndarray, data: str, **changes: str | None) -> str:
    """The text of a header for voxels (i, j, k). ``changes`` replaces fields; None leaves one out."""
    fields = {
        "ObjectType": "Image",
        "NDims": "3",
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": str(voxels.dtype.byteorder == ">"),
        "CompressedData": "False",
        "TransformMatrix": " ".join(map(repr, DIRECTIONS.T.ravel().tolist())),
        "Offset": " ".join(map(str, ORIGIN)),
        "CenterOfRotation": "0 0 0",
        "AnatomicalOrientation": "RAI",
        "ElementSpacing": " ".join(map(str, SPACING)),
        "DimSize": " ".join(map(str, voxels.shape)),
        "ElementType": f"MET_{_TYPES[voxels.dtype.str[1:]]}",
        **changes,
        "ElementDataFile": changes.get("ElementDataFile", data),
    }
    return "".join(f"{key} = {value}\n" for key, value in fields.items() if value is not None)


def save_metaimage(path: Path, voxels: np.ndarray, *, packed: bool = False, **changes: str | None) -> Path:
    """Write voxels (i, j, k) as ``.mhd`` and ``.raw`` (or ``.zraw``), or as ``.mha``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = voxels.tobytes(order="F")
    if packed:
        data = zlib.compress(data)
        changes = {"CompressedData": "True", "CompressedDataSize": str(len(data)), **changes}
    if path.suffix == ".mha":
        path.write_bytes(header(voxels, "LOCAL", **changes).encode() + data)
        return path
    beside = path.with_suffix(".zraw" if packed else ".raw")
    beside.write_bytes(data)
    path.write_text(header(voxels, beside.name, **changes))
    return path
