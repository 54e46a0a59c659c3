import copy
import json
import pickle
import sys

import datasets
import numpy as np
import pytest

import ctspine1k
from ctspine1k import training


def cut(array, corner, size, outside):
    """A patch by another path: one index after the other, those outside of the array replaced."""
    indices = [np.arange(at, at + n) for at, n in zip(corner, size, strict=True)]
    beside = [(one < 0) | (one >= n) for one, n in zip(indices, array.shape, strict=True)]
    found = array[np.ix_(*(one.clip(0, n - 1) for one, n in zip(indices, array.shape, strict=True)))]
    found[np.logical_or.outer(np.logical_or.outer(*beside[:2]), beside[2])] = outside
    return found


def check(patch, right, size, *, outside=-1024.0, window=None):
    image, labels, affine = right[patch["case_id"]]
    wanted = cut(image, patch["corner"], size, outside)
    if window:
        wanted = np.clip((wanted - np.float32(window[0])) / np.float32(window[1] - window[0]), 0, 1)
    assert (patch["image"].dtype, patch["segmentation"].dtype) == (np.float32, np.uint8)
    assert patch["image"].tobytes() == wanted.tobytes()
    assert np.array_equal(patch["segmentation"], cut(labels, patch["corner"], size, 0))
    for inside in ([0, 0, 0], [1, 2, 3]):
        assert np.allclose(patch["affine"] @ [*inside, 1], affine @ [*(patch["corner"] + inside), 1])


@pytest.mark.parametrize("size", [(33, 20, 65), (5, 7, 3), (48, 80, 72)])
@pytest.mark.parametrize("overhang", [None, 0, 9])
def test_patches_are_parts_of_the_files(volumes, right, size, overhang):
    """Those of volumes that are smaller than a patch, too."""
    patches = training.PatchDataset(volumes, size, 0.5, patches_per_case=3, overhang=overhang)
    assert len(patches) == 9
    for index in range(9):
        check(patches[index], right, size)
        assert patches[index]["case_id"] == volumes[index % 3]["patient_id"]


def test_a_window_scales_them(volumes, right):
    for window, limits in (((-500, 800.5), (-500, 800.5)), ("bone", (-1000, 2000))):
        patches = training.PatchDataset(volumes, (33, 20, 65), window=window, patches_per_case=2)
        for index in range(6):
            check(patches[index], right, (33, 20, 65), window=limits)


def test_stored_numbers_are_int16_with_their_scaling(volumes, right):
    patches = training.PatchDataset(volumes, (9, 9, 9), dtype="stored")
    for index, exact in enumerate([True, False, True]):  # the second is of floats, so rounded
        patch = patches[index]
        assert patch["image"].dtype == np.int16
        found = patch["image"] * patch["slope"] + patch["intercept"]
        wanted = cut(right[patch["case_id"]][0], patch["corner"], (9, 9, 9), -1024.0)
        assert found.dtype == np.float32
        assert np.array_equal(found, wanted if exact else np.rint(wanted))


def test_a_batch_is_one_array_of_its_items(volumes):
    patches = training.PatchDataset(volumes, (9, 20, 8))
    batch = patches.__getitems__([4 - 3, 0, 2])
    for patch, index in zip(batch, (1, 0, 2), strict=True):
        alone = patches[index]
        assert list(patch) == list(alone) == ["image", "segmentation", "case_id", "corner", "affine"]
        assert all(np.array_equal(patch[name], alone[name]) for name in alone)
    if "torch" not in sys.modules:
        assert batch.voxels["image"].shape == (3, 9, 20, 8)
        assert all(np.shares_memory(batch.voxels["image"], patch["image"]) for patch in batch)


def test_what_is_drawn_depends_on_seed_epoch_and_index_alone(volumes):
    def draws(patches):
        return [patches.draw(index) for index in range(len(patches))]

    patches = training.PatchDataset(volumes, (9, 20, 8), patches_per_case=5, seed=3)
    first = draws(patches)
    assert [patches.draw(index) for index in reversed(range(15))] == first[::-1]
    assert patches.draw(-1) == first[-1]
    assert draws(training.PatchDataset(volumes, (9, 20, 8), patches_per_case=5, seed=3)) == first
    assert draws(training.PatchDataset(volumes, (9, 20, 8), patches_per_case=5, seed=4)) != first
    patches.set_epoch(1)
    assert not {draw.corner for draw in draws(patches)} & {draw.corner for draw in first if draw.row == 0}
    for again in (pickle.loads(pickle.dumps(patches)), copy.deepcopy(patches)):  # noqa: S301 (our own)
        assert draws(again) == draws(patches)
        again.set_epoch(2)
        assert draws(again) != draws(patches)
    patches.set_epoch(0)
    assert draws(patches) == first
    assert len(pickle.dumps(patches)) < 20_000


def test_the_same_is_drawn_for_ever(volumes):
    """A new release of NumPy, or of ours, must not change a training that is resumed."""
    patches = training.PatchDataset(volumes, (9, 20, 8), 0.5, seed=1, patches_per_case=2)
    patches.set_epoch(2)
    assert [tuple(patches.draw(index)) for index in range(4)] == [
        (0, (26, 19, 61), True),
        (1, (-1, -9, -2), True),
        (2, (0, 2, 2), False),
        (0, (16, 12, 44), False),
    ]


@pytest.mark.slow
def test_the_share_of_the_foreground(volumes):
    only = volumes.select([1])
    patches = training.PatchDataset(only, (3, 3, 3), 0.33, patches_per_case=10_000)
    share = np.mean([patches.draw(index).is_foreground for index in range(10_000)])
    assert abs(share - 0.33) < 0.01
    for share in (0.0, 1.0):
        patches = training.PatchDataset(only, (3, 3, 3), share, patches_per_case=20)
        assert {patches.draw(index).is_foreground for index in range(20)} == {share == 1.0}
    unlabelled = training.PatchDataset(volumes.select([2]), (3, 3, 3), 1.0)
    assert not unlabelled.draw(0).is_foreground


def test_patches_of_the_foreground_are_centred_on_labels(volumes, right):
    size = (5, 4, 7)
    centred = training.PatchDataset(volumes.select([0, 1]), size, 1.0, patches_per_case=50)
    inside = training.PatchDataset(volumes.select([0]), size, 1.0, patches_per_case=50, overhang=0)
    for index in range(100):
        draw = centred.draw(index)
        labels = right[["liver_106", "liver_0"][draw.row]][1]
        assert labels[tuple(np.add(draw.corner, np.array(size) // 2))]
    for index in range(50):
        draw = inside.draw(index)
        assert all(0 <= at <= n - p for at, n, p in zip(draw.corner, (40, 70, 67), size, strict=True))
        assert inside[index]["segmentation"].any()


@pytest.mark.parametrize("overhang", [None, 0, 2])
def test_other_patches_lie_anywhere(volumes, overhang):
    size, beyond = (39, 72, 65), overhang or 0
    patches = training.PatchDataset(
        volumes.select([0]), size, 0, patches_per_case=400, overhang=overhang, seed=2
    )
    corners = np.array([patches.draw(index).corner for index in range(400)])
    for axis, (least, greatest) in enumerate([(0, 1), (-1, -1), (0, 2)]):  # the second axis is shorter
        assert set(corners[:, axis]) == set(range(least - beyond, greatest + beyond + 1))


def chi_square(found, wanted):
    return float(((found - wanted) ** 2 / wanted).sum())


@pytest.mark.slow
def test_every_labelled_voxel_is_as_likely(volumes, right):
    """Chi-square over voxels, and for "class" over labels: 1 % of other seeds fail."""
    labels = right["liver_106"][1]
    present, sizes = np.unique(labels[labels > 0], return_counts=True)
    for balance in ("voxel", "class"):
        patches = training.PatchDataset(
            volumes.select([0]), (1, 1, 1), 1.0, patches_per_case=1000, balance=balance, seed=5
        )
        places = tuple(np.array([patches.draw(index).corner for index in range(1000)]).T)
        found = labels[places]
        shares = np.full(4, 1 / 4) if balance == "class" else sizes / sizes.sum()
        counts = np.array([(found == one).sum() for one in present])
        assert chi_square(counts, 1000 * shares) < 11.34  # of 3 degrees of freedom
        where = np.flatnonzero(labels.ravel() == 2)
        at = np.searchsorted(where, np.ravel_multi_index(places, labels.shape)[found == 2])
        seen = np.bincount(at * 20 // len(where), minlength=20)
        assert chi_square(seen, np.full(20, len(at) / 20)) < 36.19  # of 19


def test_data_sets_without_geometry_or_masks(volumes):
    bare = volumes.select_columns(["image", "patient_id"])
    patch = training.PatchDataset(bare, (3, 3, 3), foreground=0)[0]
    assert list(patch) == ["image", "case_id", "corner"]
    with pytest.raises(
        ValueError, match=r"foreground=0\.33: expected a column segmentation .* foreground=0\."
    ):
        training.PatchDataset(bare, (3, 3, 3))
    rows = volumes.cast_column(
        "segmentation", ctspine1k.storage.feature.CompactArray("int32", decode=False)
    ).to_list()
    rows[1]["segmentation"] = None
    partly = training.PatchDataset(datasets.Dataset.from_list(rows, volumes.features), (3, 3, 3))
    assert partly[0]["segmentation"].shape == (3, 3, 3)
    with pytest.raises(
        ValueError, match=r'liver_0: expected a mask .* data\.remove_columns\("segmentation"\)'
    ):
        partly[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": (3, 3)}, r"size=\(3, 3\): expected 3 positive integers"),
        ({"size": (3, 3, 0)}, "expected 3 positive integers"),
        ({"size": 128}, "size=128: expected 3 positive integers"),
        ({"foreground": 1.5}, r"foreground=1.5: expected a share, from 0 to 1"),
        ({"foreground": "half"}, "foreground='half': expected a share"),
        ({"balance": "label"}, "balance='label': expected one of 'voxel', 'class'"),
        ({"balance": None}, "balance='None': expected one of 'voxel', 'class'"),
        ({"patches_per_case": 0}, "patches_per_case=0: expected 1 or more"),
        ({"patches_per_case": 1.5}, "patches_per_case=1.5: expected a whole number, 1 or more"),
        ({"window": "lung"}, r"window='lung': expected 'bone', .*\(-1000, 2000\)"),
        ({"window": (5, 5)}, r"window=\(5, 5\): expected 'bone'"),
        ({"window": "bone", "dtype": "stored"}, "window='bone': stored numbers have no window"),
        ({"dtype": "int16"}, "dtype='int16': expected one of 'float32', 'stored'"),
        ({"overhang": -1}, "overhang=-1: expected 0 or more, or None"),
        ({"overhang": (1, 2, 3)}, r"overhang=\(1, 2, 3\): expected a whole number, 0 or more, or None"),
        ({"seed": -1}, "seed=-1: expected 0 or more"),
        ({"seed": None}, "seed=None: expected a whole number, 0 or more"),
    ],
)
def test_bad_arguments(volumes, arguments, message):
    with pytest.raises(ValueError, match=message):
        training.PatchDataset(volumes, **arguments)


def test_other_data_sets(volumes, load):
    with pytest.raises(ValueError, match=r'expected a column in compact storage.*storage="compact"'):
        training.PatchDataset(load("3d", split="train"))
    with pytest.raises(ValueError, match=r'found an array of shape \(6, 5\)\. Load the config "3d"'):
        training.PatchDataset(load("2d", split="train", storage="compact"))
    with pytest.raises(ValueError, match="expected at least one case"):
        training.PatchDataset(volumes.select([]))
    with pytest.raises(ValueError, match="missing: patient_id"):
        training.PatchDataset(volumes.select_columns(["image"]))
    patches = training.PatchDataset(volumes, (3, 3, 3))
    with pytest.raises(IndexError):
        patches[3]
    with pytest.raises(ValueError, match="epoch=-1: expected 0 or more"):
        patches.set_epoch(-1)
    with pytest.raises(ValueError, match=r"epoch=1\.5: expected a whole number"):
        patches.set_epoch(1.5)


def names(stream):
    return [(patch["case_id"], *map(int, patch["corner"])) for patch in stream]


def test_a_stream_has_each_patch_once_in_an_order_of_its_own(volumes):
    patches = training.PatchDataset(volumes, (3, 3, 3), patches_per_case=5)
    stream = training.PatchStream(patches)
    assert len(stream) == len(patches) == 15
    order = names(stream)
    assert sorted(order) == sorted(names(patches[index] for index in range(15)))
    assert order != names(patches[index] for index in range(15))
    assert names(stream) == order
    stream.set_epoch(1)
    assert names(stream) != order
    assert sorted(names(stream)) == sorted(names(patches[index] for index in range(15)))
    stream.set_epoch(0)
    ranks = [training.PatchStream(patches, rank=rank, world_size=2) for rank in range(2)]
    assert [len(rank) for rank in ranks] == [8, 7]
    assert [names(rank) for rank in ranks] == [order[::2], order[1::2]]


@pytest.mark.parametrize("drop_last", [True, False])
def test_a_stream_of_batches(volumes, drop_last):
    patches = training.PatchDataset(volumes, (3, 3, 3), patches_per_case=5)
    stream = training.PatchStream(patches, batch_size=4, drop_last=drop_last)
    batches = list(stream)
    assert [len(batch["image"]) for batch in batches] == [4, 4, 4] + [3] * (not drop_last)
    assert len(stream) == len(batches)
    found = [name for batch in batches for name in batch["case_id"]]
    assert found == [name for name, *_ in names(training.PatchStream(patches))][: len(found)]


@pytest.mark.parametrize(("batch_size", "count"), [(None, 7), (4, 1)])
def test_nodes_have_as_many_batches_if_the_last_is_dropped(volumes, batch_size, count):
    """A node with more would wait for the others for ever. Of 15 patches, one node would have 8."""
    patches = training.PatchDataset(volumes, (3, 3, 3), patches_per_case=5)
    options = {"batch_size": batch_size, "drop_last": True, "world_size": 2}
    nodes = [training.PatchStream(patches, rank=rank, **options) for rank in range(2)]
    assert [len(node) for node in nodes] == [len(list(node)) for node in nodes] == [count, count]


@pytest.mark.parametrize("batch_size", [None, 2])
def test_a_stream_resumes_where_it_stopped(volumes, batch_size):
    def make():
        patches = training.PatchDataset(volumes, (3, 3, 3), patches_per_case=5)
        return training.PatchStream(patches, batch_size=batch_size)

    def corners(items):
        return [np.asarray(item["corner"]).tolist() for item in items]

    stream = make()
    stream.set_epoch(3)
    whole = corners(stream)
    running = iter(stream)
    first = corners(next(running) for _ in range(3))
    state = stream.state_dict()
    options = {"batch_size": batch_size, "world_size": 1, "workers": 1}
    assert state == {"epoch": 3, "position": [3, 0], "options": options}
    resumed = make()
    resumed.load_state_dict(state)
    assert resumed.state_dict() == state
    resumed.set_epoch(3)  # as a loop over epochs does
    assert first + corners(resumed) == whole
    assert corners(resumed) == whole  # the next time, from the start
    resumed.load_state_dict(state)
    resumed.set_epoch(4)
    assert len(corners(resumed)) == len(whole)
    list(stream)
    ended = stream.state_dict()
    assert corners(stream) == whole
    after = make()
    after.load_state_dict(ended)
    assert after.state_dict() == ended
    assert corners(after) == []  # nothing is left of epoch 3
    after.load_state_dict(ended)
    after.set_epoch(4)
    assert len(corners(after)) == len(whole)  # of epoch 4, all
    after.load_state_dict(ended)  # as StatefulDataLoader does, when the loop has set the epoch
    assert (after.state_dict()["epoch"], corners(after)) == (4, [])
    assert corners(after) == corners(resumed)


def stopped(patches, count, **options):
    """The state after so many items of epoch 3, as a file has it."""
    stream = training.PatchStream(patches, **options)
    stream.set_epoch(3)
    running = iter(stream)
    for _ in range(count):
        next(running)
    return json.loads(json.dumps(stream.state_dict()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 4}, "expected batch_size=2, found batch_size=4"),
        ({}, "expected batch_size=2, found batch_size=None"),
        (
            {"batch_size": 4, "rank": 1, "world_size": 3},
            "expected batch_size=2, world_size=1, found batch_size=4, world_size=3",
        ),
    ],
)
def test_a_stream_resumes_in_the_middle_of_an_epoch_under_its_own_options_alone(volumes, options, message):
    """Else patches would be left out, or come twice, for the rest of the epoch."""
    patches = training.PatchDataset(volumes, (3, 3, 3), patches_per_case=5)
    state = stopped(patches, 3, batch_size=np.int64(2))
    stream = training.PatchStream(patches, **options)
    stream.load_state_dict(state)
    hint = r"Resume with the same, or leave the state out and start with set_epoch\(4\)\."
    for _ in range(2):  # the second time, too
        with pytest.raises(ValueError, match=f"^state in the middle of epoch 3: {message}. {hint}$"):
            iter(stream)
    assert stream.state_dict() == state
    stream.set_epoch(4)
    assert len(list(stream)) == len(stream)


def test_a_stream_resumes_from_the_state_of_another_rank(volumes):
    """All ranks are equally far, and often only one writes its state."""
    patches = training.PatchDataset(volumes, (3, 3, 3), patches_per_case=5)
    stream = training.PatchStream(patches, batch_size=2, rank=1, world_size=2)
    stream.load_state_dict(stopped(patches, 3, batch_size=2, rank=0, world_size=2))
    assert len(list(stream)) == 1  # of 4


@pytest.mark.parametrize(("count", "left"), [(0, 4), (8, 0)])
def test_a_stream_begins_or_has_ended_under_any_options(volumes, count, left):
    patches = training.PatchDataset(volumes, (3, 3, 3), patches_per_case=5)
    state = stopped(patches, count, batch_size=2)
    stream = training.PatchStream(patches, batch_size=4)
    stream.load_state_dict(state)
    assert len(list(stream)) == left
    assert stream.state_dict()["options"]["batch_size"] == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rank": 0}, "both rank and world_size, or neither"),
        ({"rank": 2, "world_size": 2}, "rank=2: expected 0 to 1, as world_size=2"),
        ({"rank": 0.5, "world_size": 2}, "rank=0.5: expected a whole number, 0 or more"),
        ({"rank": 0, "world_size": 0}, "world_size=0: expected 1 or more"),
        ({"batch_size": 0}, "batch_size=0: expected 1 or more, or None"),
    ],
)
def test_bad_arguments_of_a_stream(volumes, arguments, message):
    with pytest.raises(ValueError, match=message):
        training.PatchStream(training.PatchDataset(volumes, (3, 3, 3)), **arguments)
