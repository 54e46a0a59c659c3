import datasets
import numpy as np
import pytest
from support.volumes import intensities, labels, save

import ctspine1k
from ctspine1k.catalog.ctspine1k import CTSPINE1K
from ctspine1k.rows.batches import case_batches
from ctspine1k.rows.features import features_of
from ctspine1k.rows.options import RowOptions

CASE = ctspine1k.load_catalog()["liver_106"]


@pytest.fixture
def files(tmp_path):
    return {
        "image": save(tmp_path / "a.nii.gz", intensities()),
        "mask": save(tmp_path / "m.nii.gz", labels()),
    }


def batches(options, files, depth):
    return case_batches(options, CTSPINE1K.vocabulary, CASE, files, depth=depth)


@pytest.mark.parametrize("config", ["3d", "2d"])
@pytest.mark.parametrize("geometry", [False, True])
@pytest.mark.parametrize("storage", ["dense", "compact"])
def test_a_table_is_what_datasets_makes_of_the_rows(files, config, geometry, storage):
    options = RowOptions(config, storage, image_size=(6, 5), geometry=geometry).of(CTSPINE1K)
    features = features_of(options)
    made = list(batches(options, files, depth=3))
    assert [len(batch.keys) for batch in made] == ([1] if config == "3d" else [3, 1])
    rows = [row for batch in made for _, row in batch.rows()]
    assert [list(row) for row in rows] == [
        [
            *list(features)[:4],
            *([] if not geometry else list(features)[-6:]),
            *(["slice_index"] if config == "2d" else []),
        ]
    ] * len(rows)
    theirs = datasets.Dataset.from_list([features.encode_example(row) for row in rows], features=features)
    ours = datasets.concatenate_datasets([datasets.Dataset(batch.table(features)) for batch in made])
    assert ours.features == theirs.features
    assert ours.data.schema == theirs.data.schema
    assert ours.data.table.combine_chunks().to_pylist() == theirs.data.table.combine_chunks().to_pylist()


def test_dense_voxels_reach_arrow_without_a_copy(files):
    options = RowOptions("3d", "dense", image_size=(6, 5)).of(CTSPINE1K)
    (batch,) = batches(options, files, depth=1)
    table = batch.table(features_of(options))
    column = table.column("image").chunk(0).storage
    while hasattr(column, "values"):
        column = column.values
    assert column.buffers()[1].address == batch.columns["image"].ctypes.data


@pytest.mark.parametrize("storage", ["dense", "compact"])
def test_slices_lie_as_arrow_has_them(files, storage):
    keys, arrays = [], []
    for batch in batches(RowOptions("2d", storage, image_size=(6, 5)).of(CTSPINE1K), files, depth=3):
        keys += batch.keys
        arrays += [batch.columns["image"], batch.columns["segmentation"]]
    assert keys == [f"liver_106/{number:04d}" for number in range(4)]
    assert storage == "compact" or all(np.asarray(array).flags.c_contiguous for array in arrays)
