import itertools

import numpy as np
import pytest

import ctspine1k
from ctspine1k import training

#: Which axis of each case's array, (k, i, j), has the slices.
AXES = {"axial": 0, "sagittal": 1, "coronal": 2}
SPACING = (2.51, 0.73, 0.83)


def by_name(slices):
    """Slices by case and index; none of them may come twice."""
    found = list(slices)
    named = {(one["case_id"], one["index"]): one for one in found}
    assert len(named) == len(found)
    return named


@pytest.mark.parametrize("axis", AXES)
def test_slices_are_those_of_the_files(volumes, right, axis):
    number = AXES[axis]
    found = by_name(training.SliceDataset(volumes, axis, buffer=2))
    wanted = {
        (case_id, at): [np.take(one, at, number) for one in arrays[:2]]
        for case_id, arrays in right.items()
        for at in range(arrays[0].shape[number])
    }
    assert found.keys() == wanted.keys()
    for name, (image, labels) in wanted.items():
        one = found[name]
        assert list(one) == ["image", "segmentation", "case_id", "index", "spacing"]
        assert (one["image"].dtype, one["segmentation"].dtype) == (np.float32, np.uint8)
        assert one["image"].tobytes() == image.tobytes()
        assert np.array_equal(one["segmentation"], labels)
    spacing = np.linalg.norm(right["liver_106"][2][:3, :3], axis=0)
    assert np.allclose(found["liver_106", 0]["spacing"], np.delete(spacing, number))


def test_the_axis_is_that_of_the_patient(training_tree, tmp_path, right):
    """However the file is stored."""
    turned = ctspine1k.load_dataset(
        "3d",
        split="train",
        data_dir=training_tree,
        split_file=training_tree / "split.txt",
        cases=["liver_0"],
        storage="compact",
        geometry=True,
        orientation="SAR",
        cache_dir=tmp_path,
    )
    slices = by_name(training.SliceDataset(turned, "sagittal"))
    assert len(slices) == 6
    image = right["liver_0"][0]  # S, L, P: with R first, then S and A
    assert np.array_equal(slices["liver_0", 5]["image"], image[:, 0, ::-1])


def test_slices_with_labels_alone(volumes, right):
    for axis, number in AXES.items():
        found = by_name(training.SliceDataset(volumes, axis, foreground_only=True))
        wanted = {
            (case_id, at)
            for case_id, (_, labels, _) in right.items()
            for at in range(labels.shape[number])
            if np.take(labels, at, number).any()
        }
        assert found.keys() == wanted
        assert {name for name, _ in wanted} == {"liver_106", "liver_0"}


@pytest.mark.parametrize("size", [(41, 8), (4, 80), (40, 67)])
def test_slices_are_cut_and_padded_in_the_middle(volumes, right, size):
    found = by_name(training.SliceDataset(volumes.select([0]), "sagittal", size=size, window="bone"))
    image, labels = (one[:, 30] for one in right["liver_106"][:2])
    wanted = np.full(size, -1024, "f4")
    wanted_labels = np.zeros(size, "u1")
    source, target = {
        (41, 8): (np.s_[:, 29:37], np.s_[:40]),
        (4, 80): (np.s_[18:22], np.s_[:, 6:73]),
        (40, 67): (np.s_[:], np.s_[:]),
    }[size]
    wanted[target], wanted_labels[target] = image[source], labels[source]
    one = found["liver_106", 30]
    assert np.array_equal(one["image"], np.clip((wanted + 1000) / np.float32(3000), 0, 1))
    assert np.array_equal(one["segmentation"], wanted_labels)


def order(slices):
    return [(one["case_id"], one["index"]) for one in slices]


def test_their_order_depends_on_seed_and_epoch(volumes):
    slices = training.SliceDataset(volumes, "sagittal", buffer=2)
    first = order(slices)
    assert order(slices) == first
    assert order(training.SliceDataset(volumes, "sagittal", buffer=2)) == first
    assert order(training.SliceDataset(volumes, "sagittal", buffer=2, seed=1)) != first
    slices.set_epoch(1)
    assert order(slices) != first
    assert sorted(order(slices)) == sorted(first)
    # Slices of two slabs come mixed.
    cases = [case_id for case_id, _ in first]
    assert sum(a != b for a, b in itertools.pairwise(cases)) > 5


def test_nodes_share_them(volumes):
    parts = [
        order(training.SliceDataset(volumes, "coronal", rank=rank, world_size=3, buffer=1))
        for rank in range(3)
    ]
    assert all(parts)
    assert sorted(one for part in parts for one in part) == sorted(
        order(training.SliceDataset(volumes, "coronal"))
    )


@pytest.mark.parametrize("stop", [1, 60, 70])
def test_they_resume_where_they_stopped(volumes, stop):
    options = {"foreground_only": True, "buffer": 1}
    slices = training.SliceDataset(volumes, "sagittal", **options)
    slices.set_epoch(2)
    whole = order(slices)
    stop = min(stop, len(whole) - 1)
    running = iter(slices)
    first = order(next(running) for _ in range(stop))
    resumed = training.SliceDataset(volumes, "sagittal", **options)
    resumed.load_state_dict(slices.state_dict())
    assert first + order(resumed) == whole
    other = training.SliceDataset(volumes, "sagittal", foreground_only=True, buffer=2)
    other.load_state_dict(slices.state_dict())
    with pytest.raises(ValueError, match=r"middle of epoch 2: expected buffer=1, found buffer=2\. Resume"):
        iter(other)


def test_without_masks(volumes, right):
    bare = volumes.remove_columns("segmentation")
    found = by_name(training.SliceDataset(bare, "axial"))
    assert "segmentation" not in found["liver_0", 0]
    assert np.array_equal(found["liver_0", 3]["image"], right["liver_0"][0][3])
    with pytest.raises(ValueError, match=r"foreground_only=True: expected a column segmentation"):
        training.SliceDataset(bare, "axial", foreground_only=True)


def test_foreground_of_cases_without_labels(volumes):
    """An epoch without slices would pass unnoticed."""
    empty = volumes.select([2])
    assert len(list(training.SliceDataset(empty, "axial"))) == 9
    with pytest.raises(ValueError, match="foreground_only=True: expected at least one labelled voxel, found"):
        training.SliceDataset(empty, "axial", foreground_only=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"axis": "transverse"}, "axis='transverse': expected one of 'axial', 'sagittal', 'coronal'"),
        ({"axis": None}, "axis='None': expected one of 'axial'"),
        ({"size": (3, 3, 3)}, r"size=\(3, 3, 3\): expected 2 positive integers"),
        ({"buffer": 0}, "buffer=0: expected 1 or more"),
        ({"buffer": True}, "buffer=True: expected 1 or more"),
        ({"seed": -1}, "seed=-1: expected 0 or more"),
        ({"window": (1, 0)}, r"window=\(1, 0\): expected 'bone'"),
    ],
)
def test_bad_arguments(volumes, arguments, message):
    with pytest.raises(ValueError, match=message):
        training.SliceDataset(volumes, **{"axis": "axial", **arguments})


def test_rows_without_geometry_or_direction(volumes):
    bare = volumes.remove_columns(["spacing", "orientation", "array_affine"])
    with pytest.raises(ValueError, match=r"axis='axial': .* Load with geometry=True"):
        training.SliceDataset(bare, "axial")
    unknown = volumes.remove_columns("orientation").add_column("orientation", ["S??"] * 3)
    with pytest.raises(ValueError, match=r"liver_106: .* found orientation 'S\?\?'"):
        training.SliceDataset(unknown, "sagittal")
