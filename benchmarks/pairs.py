"""How fast a pair of VerSe's is read: `read_pair` beside nibabel's ``get_fdata()`` of both files.

    CTSPINE1K_SAMPLE_VERSE=FOLDER .venv/bench/bin/python benchmarks/pairs.py [--repeat 15]

The mask is the real one, of type float64. Its CT is made in the same shape and affine, of type int16: of the
real slices that CTSPINE1K_SAMPLE names, each with a little noise, or without them of noise.
"""

from __future__ import annotations

import argparse
import gzip
import os
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
from measuring import Row, Timed, compare, in_turn, table

import ctspine1k
from ctspine1k.catalog.verse import VERSE


def make_image(path: Path, mask: Path) -> str:
    """Write a CT for a mask, and tell what it is made of."""
    shape, affine = nib.load(mask).shape, nib.load(mask).affine
    random = np.random.default_rng(0)
    tree, origin = os.environ.get("CTSPINE1K_SAMPLE"), "noise"
    voxels = random.integers(-1024, 1024, shape, np.int16)
    if tree is not None:
        origin = "real slices"
        loaded = [np.asarray(nib.load(file).dataobj) for file in sorted(Path(tree).rglob("*_000?.nii.gz"))]
        stack = np.concatenate(loaded, axis=2)
        i, j = ((have - want) // 2 for have, want in zip(stack.shape, shape[:2], strict=False))
        cut = stack[i : i + shape[0], j : j + shape[1], np.arange(shape[2]) % stack.shape[2]]
        voxels = np.where(cut > cut.min(), cut + random.integers(-1, 2, shape, np.int16), cut)
    path.write_bytes(gzip.compress(nib.Nifti1Image(voxels, affine).to_bytes(), 6))
    return origin


def pair_times(image: Path, mask: Path, turns: int) -> Timed:
    """Read both files in turn with each."""
    return in_turn(
        turns,
        **{
            "read_pair": lambda _: ctspine1k.read_pair(image, mask, vocabulary=VERSE.vocabulary),
            "nibabel get_fdata": lambda _: [nib.load(file).get_fdata() for file in (image, mask)],
        },
    )


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeat", type=int, default=15)
    args = parser.parse_args()
    if "CTSPINE1K_SAMPLE_VERSE" not in os.environ:
        parser.error("CTSPINE1K_SAMPLE_VERSE names no folder with a real mask of VerSe")
    mask = next(Path(os.environ["CTSPINE1K_SAMPLE_VERSE"]).rglob("*_seg-vert_msk.nii.gz"))
    with tempfile.TemporaryDirectory() as temporary:
        image = Path(temporary) / "ct.nii.gz"
        origin = make_image(image, mask)
        times = pair_times(image, mask, args.repeat)
    what = f"reading a VerSe pair (CT of {origin})"
    rows: list[Row] = [compare(what, times, "read_pair", "nibabel get_fdata", ">= 3")]
    print(table(rows))


if __name__ == "__main__":
    main()
