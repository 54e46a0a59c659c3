"""What workers of bare PyTorch take to send patches of zeros, in stored types and in wide ones.

No loader of patches takes less: nothing is drawn, read or decoded.
"""

from __future__ import annotations

import time

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

#: What a loader yields of image and segmentation.
TYPES = {"int16 + uint8": (torch.int16, torch.uint8), "float32 + int32": (torch.float32, torch.int32)}
SIZES = {64: 400, 128: 120}  #: of a patch, in voxels along each axis, and the number of batches
WARM = 40  #: batches that are not counted


class Zeros(Dataset[list[torch.Tensor]]):
    """Batches of two patches."""

    def __init__(self, size: int, types: tuple[torch.dtype, ...]) -> None:
        self._size, self._types = size, types

    def __len__(self) -> int:
        return SIZES[self._size]

    def __getitem__(self, index: int) -> list[torch.Tensor]:
        return [torch.zeros((2, *(self._size,) * 3), dtype=one) for one in self._types]


def milliseconds(size: int, name: str) -> float:
    """Return the time of a patch through two workers."""
    batches = iter(DataLoader(Zeros(size, TYPES[name]), batch_size=None, num_workers=2))
    for _ in range(WARM):
        next(batches)
    start = time.perf_counter()
    count = sum(1 for _ in batches)
    return (time.perf_counter() - start) / count / 2 * 1e3


def main() -> None:
    """Print a row for each size: medians of five turns."""
    turns = [{(size, name): milliseconds(size, name) for size in SIZES for name in TYPES} for _ in range(5)]
    print("| patch, 2 workers, nothing read |", " | ".join(TYPES), "| ratio |\n|---|---|---|---|")
    for size in SIZES:
        stored, wide = (float(np.median([turn[size, name] for turn in turns])) for name in TYPES)
        print(f"| {size} x {size} x {size} | {stored:.3g} ms | {wide:.3g} ms | {wide / stored:.3g} |")


if __name__ == "__main__":
    main()
