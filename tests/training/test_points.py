"""Training without masks: patches around points, and slices."""

import pickle

import numpy as np
import pytest
from support.bare import BARE, POINTS, SHAPE, image_of, save_bare

import ctspine1k
from ctspine1k import training
from ctspine1k.catalog import registry
from ctspine1k.training.foreground import Points
from ctspine1k.training.sampling import generator

SIZE = (5, 4, 3)


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """The two cases of "learn", one with three points and one with one, which no test may change."""
    folder = tmp_path_factory.mktemp("bare")
    registered = dict(registry._registered)
    registry.register(BARE)
    collection = ctspine1k.open_collection("bare", data_dir=save_bare(folder / "tree"))
    options = {"storage": "compact", "geometry": True, "cache_dir": folder / "cache"}
    yield collection.load("3d", split="learn", **options)
    registry._registered.clear()
    registry._registered.update(registered)


def centres(case_id, label=None):
    """The voxels (k, i, j) that the points of a case are in, by another path: rounded, half up."""
    return [
        tuple(int(np.floor(at + 0.5)) for at in (k, i, j))
        for name, (i, j, k) in POINTS[case_id].items()
        if label in (None, name)
    ]


def test_patches_are_centred_on_the_voxels_of_points(bare):
    patches = training.PatchDataset(bare, SIZE, 1.0, patches_per_case=30)
    found = {"a.1": set(), "b_2": set()}
    for index in range(len(patches)):
        draw, patch = patches.draw(index), patches[index]
        assert draw.is_foreground
        assert "segmentation" not in patch
        found[patch["case_id"]].add(tuple(at + size // 2 for at, size in zip(draw.corner, SIZE, strict=True)))
        image = np.pad(image_of(patch["case_id"]), 5, constant_values=-1024)
        inside = tuple(slice(at + 5, at + 5 + size) for at, size in zip(draw.corner, SIZE, strict=True))
        assert np.array_equal(patch["image"], image[inside])
    assert found == {case_id: set(centres(case_id)) for case_id in found}


def test_the_same_is_drawn_for_ever(bare):
    """Of one point for each label, both balances draw the same."""
    for balance in ("voxel", "class"):
        options = {"around": "points", "balance": balance, "seed": 1, "patches_per_case": 3}
        patches = training.PatchDataset(bare, SIZE, 0.6, **options)
        patches.set_epoch(2)
        again = pickle.loads(pickle.dumps(patches))  # noqa: S301 (our own)
        found = [tuple(patches.draw(index)) for index in range(6)]
        assert [tuple(again.draw(index)) for index in range(5, -1, -1)] == found[::-1]
        assert found == [
            (0, (-2, 1, 2), True),
            (1, (4, 2, 5), True),
            (0, (8, -1, 2), True),
            (1, (3, 1, 3), False),
            (0, (3, 5, 3), False),
            (1, (4, 2, 5), True),
        ]


def test_a_label_or_a_point_is_drawn_first():
    points = Points(
        [{"label": 18, "voxel": [at, 0.0, 0.4]} for at in range(3)] + [{"label": 19, "voxel": [9, 9, 9.5]}]
    )
    shares = {}
    for by_class in (False, True):
        drawn = [points.draw(generator(7, number), by_class=by_class) for number in range(2000)]
        assert set(drawn) == {(0, 0, 0), (1, 0, 0), (2, 0, 0), (9, 9, 10)}
        shares[by_class] = drawn.count((9, 9, 10)) / 2000
    assert shares[False] == pytest.approx(1 / 4, abs=0.03)
    assert shares[True] == pytest.approx(1 / 2, abs=0.03)


def test_others_lie_anywhere_and_points_may_lie_outside(bare):
    anywhere = training.PatchDataset(bare, SIZE, 0, patches_per_case=20)
    assert not any(anywhere.draw(index).is_foreground for index in range(40))
    outside = bare.map(lambda row: {"points": [{**row["points"][0], "voxel": [-40.0, 2.0, 3.0]}]})
    patches = training.PatchDataset(outside, SIZE, 1.0)
    assert patches.draw(0).corner == (-42, 0, 2)
    assert (patches[0]["image"] == -1024).all()
    inside = training.PatchDataset(outside, SIZE, 1.0, overhang=0)
    assert inside.draw(0).corner == (0, 0, 2)
    for none in ([], None):
        without = outside.map(lambda row, none=none: {"points": none})
        assert not training.PatchDataset(without, SIZE, 1.0).draw(0).is_foreground


def test_streams_and_slices_of_images_alone(bare):
    stream = training.PatchStream(training.PatchDataset(bare, SIZE, patches_per_case=4), batch_size=4)
    batches = list(stream)
    assert [len(batch["image"]) for batch in batches] == [4, 4]
    assert all("segmentation" not in batch for batch in batches)
    slices = list(training.SliceDataset(bare, "axial"))
    assert {one["image"].shape for one in slices} == {(SHAPE[2], SHAPE[1])}  # its axes lead R, I and A
    assert len(slices) == 2 * SHAPE[0]
    assert all("segmentation" not in one for one in slices)


def test_what_needs_masks_or_points_says_so(bare, volumes):
    with pytest.raises(ValueError, match="foreground_only=True: expected a column segmentation"):
        training.SliceDataset(bare, "axial", foreground_only=True)
    with pytest.raises(
        ValueError, match=r"foreground=0\.33: expected a column segmentation.*pass foreground=0"
    ):
        training.PatchDataset(bare, SIZE, around="labels")
    with pytest.raises(ValueError, match=r"foreground=0\.33: expected a column segmentation"):
        training.PatchDataset(bare.remove_columns("points"), SIZE)
    with pytest.raises(ValueError, match=r'around="points", foreground=0\.33: expected a column points'):
        training.PatchDataset(volumes, SIZE, around="points")
    with pytest.raises(ValueError, match="around='mask': expected one of 'labels', 'points'"):
        training.PatchDataset(bare, SIZE, around="mask")
