"""Three cases of real CT, where CTSPINE1K_SAMPLE says they are."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from support.compare import identical, large_rows, rows
from support.volumes import expected

import ctspine1k

SPLITS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    """`load_dataset` on the sample, with one cache for all tests: each kind of rows is converted once."""
    cache_dir = tmp_path_factory.mktemp("cache")

    def run(sample, name, **options):
        place = {"data_dir": sample, "split_file": sample / "metadata/data_split.txt"}
        return ctspine1k.load_dataset(name, **place, cache_dir=cache_dir, **options)

    return run


@pytest.mark.slow
def test_rows_are_what_nibabel_gives_bit_for_bit(load, sample):
    volumes = load(sample, "3d", geometry=True)
    slices = load(sample, "2d")
    for number, split in enumerate(SPLITS, start=1):
        image = sample / f"raw_data/volumes/sample/sample_000{number}.nii.gz"
        mask = sample / f"raw_data/labels/sample/sample_000{number}_seg.nii.gz"
        (row,) = large_rows(volumes[split])
        assert row["image"].tobytes() == expected(image, "f4").tobytes()
        assert row["segmentation"].tobytes() == expected(mask, "i4").tobytes()
        assert row["image"].shape[1:] == (512, 512)
        assert np.array_equal(row["affine"], nib.load(image).affine)
        for k, row_2d in enumerate(large_rows(slices[split])):
            assert row_2d["slice_index"] == k
            assert np.array_equal(row_2d["image"], row["image"][k])
            assert np.array_equal(row_2d["segmentation"], row["segmentation"][k])


@pytest.mark.slow
def test_labels_are_the_last_thoracic_vertebrae(load, sample):
    for part in load(sample, "3d").values():
        assert set(np.unique(large_rows(part)[0]["segmentation"])) <= {0, 18, 19}


@pytest.mark.parametrize("name", ["3d", "2d"])
def test_streaming_gives_the_same(load, sample, name):
    streamed = load(sample, name, split="train", streaming=True)
    assert identical(rows(streamed), large_rows(load(sample, name, split="train")))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["3d", "2d"])
def test_compact_storage_gives_the_same_in_less_than_the_raw_files(load, sample, name):
    dense = load(sample, name)
    compact = load(sample, name, storage="compact")
    for split in SPLITS:
        assert identical(large_rows(compact[split]), large_rows(dense[split]))
    raw = sum(path.stat().st_size for path in sample.rglob("*.nii.gz"))
    stored = sum(Path(f["filename"]).stat().st_size for part in compact.values() for f in part.cache_files)
    assert stored < 0.85 * raw
