"""Compact volumes in MONAI, compared with what it reads from the same files. Run by `make test-torch`."""

import pickle
import re
from functools import partial

import monai
import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor, PersistentDataset, list_data_collate
from monai.transforms import Compose, LoadImaged, RandFlipd, SaveImage
from support.volumes import save

from ctspine1k.training.monai import CompactReader, LoadPatchesd, datalist

pytestmark = [
    pytest.mark.processes,
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),  # more than there are cores
]

CASES = ("liver_106", "liver_0", "HN_P023")

KEYS = ["image", "label"]
SIZE = (20, 8, 9)  # (i, j, k)


def files(tree):
    """The items that a user of MONAI writes by hand."""
    return [
        {"image": str(tree / f"{case_id}.nii.gz"), "label": str(tree / f"{case_id}_seg.nii.gz")}
        for case_id in CASES
    ]


def is_same(found, wanted):
    assert isinstance(found, MetaTensor)
    assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape)
    assert torch.equal(found.as_tensor(), wanted.as_tensor())
    assert torch.equal(found.affine, wanted.affine)
    for name in ("original_affine", "spatial_shape"):
        assert np.array_equal(found.meta[name], wanted.meta[name])
    assert found.meta["space"] == wanted.meta["space"]
    dims = found.meta["original_channel_dim"], wanted.meta["original_channel_dim"]
    assert np.array_equal(*dims, equal_nan=True)
    return True


@pytest.mark.parametrize("dtype", [np.float32, None])
@pytest.mark.parametrize("ensure", [False, True])
def test_loaded_as_from_the_file(volumes, training_tree, dtype, ensure):
    options = {"dtype": dtype, "ensure_channel_first": ensure}
    ours, theirs = LoadImaged(KEYS, CompactReader(volumes), **options), LoadImaged(KEYS, **options)
    for item, paths in zip(datalist(volumes), files(training_tree), strict=True):
        found, wanted = ours(item), theirs(paths)
        assert all(is_same(found[key], wanted[key]) for key in KEYS)


# MONAI writes a tensor into an array, of which NumPy before 2.3 warns; panoptica holds NumPy there.
@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
def test_loaded_in_another_orientation(training_tree, load_again):
    turned = load_again(orientation="RAS")
    wanted = monai.transforms.Orientationd(KEYS, "RAS", labels=(("L", "R"), ("P", "A"), ("I", "S")))
    ours, theirs = (
        LoadImaged(KEYS, CompactReader(turned), ensure_channel_first=True),
        LoadImaged(KEYS, ensure_channel_first=True),
    )
    for item, paths in zip(datalist(turned), files(training_tree), strict=True):
        found, right = ours(item), wanted(theirs(paths))
        for key in KEYS:
            assert torch.equal(found[key].as_tensor(), right[key].as_tensor())
            assert torch.allclose(found[key].affine, right[key].affine, atol=1e-9)


@pytest.fixture
def load_again(load_cases, tmp_path):
    """Load the cases once more."""
    return partial(load_cases, tmp_path / "cache")


@pytest.mark.parametrize("track_meta", [False, True])
def test_persistent(volumes, training_tree, tmp_path, track_meta):
    """Read from the cache, without the reader, it is the same."""
    wanted = [LoadImaged(KEYS)(paths) for paths in files(training_tree)]
    for reader in (CompactReader(volumes), None):
        load = LoadImaged(KEYS, reader)
        found = PersistentDataset(datalist(volumes), load, tmp_path / "cache", track_meta=track_meta)
        for one, right in zip(found, wanted, strict=True):
            for key in KEYS:
                if track_meta or reader:
                    assert is_same(one[key], right[key])
                assert torch.equal(torch.as_tensor(one[key]), right[key].as_tensor())
    assert len(list((tmp_path / "cache").iterdir())) == len(CASES)


def test_names_change_when_the_data_does(volumes, training_tree, tmp_path, load_again):
    """And only those of the case that has changed, so that a cache computes no others again."""
    items = datalist(volumes)
    assert datalist(load_again()) == datalist(volumes.with_format("torch")) == items
    assert datalist(volumes.select([2, 0])) == [items[2], items[0]]
    for path in training_tree.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    labels = np.zeros((6, 5, 4), "u1")
    affine = nib.load(training_tree / "liver_0_seg.nii.gz").affine
    save(tmp_path / "liver_0_seg.nii.gz", labels, affine=affine)
    changed = load_again(tmp_path)
    found = datalist(changed)
    assert (found[0], found[2]) == (items[0], items[2])
    assert found[1]["image"] == items[1]["image"]
    assert found[1]["label"] != items[1]["label"]
    with pytest.raises(ValueError, match=r"^liver_0: expected an item of this data set, found one of ano"):
        LoadPatchesd("label", changed, SIZE)(items[1])
    with pytest.raises(RuntimeError, match="liver_0: expected an item of this data set"):
        LoadImaged("label", CompactReader(changed))(items[1])


def test_reader_knows_its_names(volumes):
    reader, (item, *_) = CompactReader(volumes), datalist(volumes)
    assert reader.verify_suffix(item["image"])
    assert not reader.verify_suffix([item["image"], "liver_106.nii.gz"])
    with pytest.raises(ValueError, match=r"expected a name from .*datalist, found 'liver_106\.nii\.gz'"):
        reader.read("liver_106.nii.gz")
    with pytest.raises(ValueError, match="expected one name, of one volume, found 2"):
        reader.read([item["image"], item["label"]])


def test_saved_under_the_name_of_the_case(volumes, tmp_path):
    (item, *_) = datalist(volumes)
    image = LoadImaged("image", CompactReader(volumes), ensure_channel_first=True)(item)["image"]
    SaveImage(tmp_path, output_postfix="seg", print_log=False)(image)
    assert (tmp_path / "liver_106/liver_106_seg.nii.gz").is_file()


def check_patch(sample, right):
    """Compare a patch with the volume, at the place that its affine says."""
    image, labels, affine = right  # (k, i, j)
    name = re.fullmatch(
        r"ctspine1k/[0-9a-f]{16}/image/(.*)\.nii\.gz", sample["image"].meta["filename_or_obj"]
    )
    assert name[1] == sample["case_id"]
    to_index = np.linalg.inv(affine[:, [1, 2, 0, 3]])
    for key, volume, outside in (("image", image, -1024), ("label", labels, 0)):
        patch = sample[key]
        relative = to_index @ patch.affine.numpy()
        assert np.allclose(relative[:, :3], np.eye(4)[:, :3], atol=1e-6)
        corner = np.rint(relative[:3, 3])
        assert np.allclose(relative[:3, 3], corner, atol=1e-6)
        padded = np.pad(volume.transpose(1, 2, 0), 100, constant_values=outside)
        place = tuple(
            slice(int(at) + 100, int(at) + 100 + size) for at, size in zip(corner, SIZE, strict=True)
        )
        assert patch.shape == (1, *SIZE)
        assert patch.dtype == (torch.float32 if key == "image" else torch.uint8)
        assert np.array_equal(patch.numpy()[0], padded[place])
        assert np.array_equal(patch.meta["spatial_shape"], SIZE)


def test_patches(volumes, right):
    transform = LoadPatchesd(KEYS, volumes, SIZE, 0.5, num_samples=6).set_random_state(3)
    for item in datalist(volumes):
        extra = {"weights": [1]}
        samples = transform({**item, **extra})
        assert len(samples) == 6
        for number, sample in enumerate(samples):
            assert list(sample) == ["image", "label", "case_id", "weights"]
            assert sample["weights"] == [1]
            assert sample["weights"] is not extra["weights"]
            assert sample["image"].meta["patch_index"] == number
            check_patch(sample, right[item["case_id"]])


def test_share_of_patches_on_labels(volumes):
    (item, *_) = datalist(volumes)
    centre = (slice(None), *(size // 2 for size in SIZE))
    for foreground in (0, 1):
        transform = LoadPatchesd("label", volumes, SIZE, foreground, num_samples=50).set_random_state(0)
        on_labels = [bool(sample["label"][centre] > 0) for sample in transform(item)]
        assert all(on_labels) if foreground else not all(on_labels)


def test_patches_are_drawn_from_monais_state(volumes):
    (item, *_) = datalist(volumes)

    def draw(transform, seed):
        transform.set_random_state(seed)
        return [sample["image"].affine.tolist() for _ in range(2) for sample in transform(item)]

    transform = LoadPatchesd(KEYS, volumes, SIZE, num_samples=4)
    first = draw(transform, 1)
    assert len({str(affine) for affine in first}) > 4
    again = pickle.loads(pickle.dumps(transform))  # noqa: S301
    assert draw(transform, 1) == draw(again, 1) == first
    assert draw(transform, 2) != first
    assert draw(Compose([transform, RandFlipd(KEYS)]), 1) == draw(Compose([transform, RandFlipd(KEYS)]), 1)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_of_patches(volumes, right, workers):
    transform = LoadPatchesd(KEYS, volumes, SIZE, 0.5, num_samples=2)
    loader = DataLoader(
        Dataset(datalist(volumes), transform),
        batch_size=1,
        num_workers=workers,
        generator=torch.Generator().manual_seed(5),
    )
    places = []
    for _ in range(2):
        for batch in loader:
            assert batch["image"].shape == (2, 1, *SIZE)
            for sample in monai.data.decollate_batch(batch):
                check_patch(sample, right[sample["case_id"]])
                places.append(str(sample["image"].affine))
    assert len(set(places)) > 9  # of 12: two workers do not draw the same, nor two epochs


def test_persistent_data_sets_draw_anew(volumes, tmp_path):
    """Nothing of what is drawn gets into the cache."""
    transform = LoadPatchesd(KEYS, volumes, SIZE, num_samples=2)
    items = PersistentDataset(datalist(volumes), transform, tmp_path)
    first, second = (list_data_collate([items[0]]) for _ in range(2))
    assert not torch.equal(first["image"].affine[0], second["image"].affine[0])


def test_they_pickle_small(volumes):
    item = datalist(volumes)[0]
    for one in (CompactReader(volumes), LoadPatchesd(KEYS, volumes, SIZE)):
        one.read(item["image"]) if isinstance(one, CompactReader) else one(item)
        assert len(pickle.dumps(one)) < 10_000


def test_windowed_and_without_masks(volumes, right):
    bare = volumes.remove_columns("segmentation")
    (item, *_) = datalist(bare)
    assert list(item) == ["image", "case_id"]
    patch = LoadPatchesd("image", bare, SIZE, 0, window="bone", overhang=0)(item)[0]["image"]
    assert patch.min() >= 0
    assert patch.max() <= 1
    with pytest.raises(KeyError, match="label"):
        LoadPatchesd(KEYS, bare, SIZE, 0)(item)
    (sample,) = LoadPatchesd(KEYS, bare, SIZE, 0, allow_missing_keys=True)(item)
    assert list(sample) == ["image", "case_id"]


def test_bad_arguments(volumes, load_again):
    first, second, _ = datalist(volumes)
    with pytest.raises(ValueError, match=r"an item of one case under the keys .*, found liver_106, liver_0"):
        LoadPatchesd(KEYS, volumes, SIZE)({"image": first["image"], "label": second["label"]})
    with pytest.raises(ValueError, match="num_samples=0: expected 1 or more"):
        LoadPatchesd(KEYS, volumes, SIZE, num_samples=0)
    with pytest.raises(ValueError, match=r"foreground=0\.33: expected a column segmentation"):
        LoadPatchesd("image", volumes.remove_columns("segmentation"), SIZE)
    for make in (datalist, CompactReader, lambda data: LoadPatchesd(KEYS, data)):
        with pytest.raises(ValueError, match=r"found none\. Load the data set with geometry=True"):
            make(volumes.remove_columns("array_affine"))


def test_untracked(volumes):
    """`set_track_meta(False)` gives plain tensors."""
    monai.data.set_track_meta(False)
    try:
        (sample,) = LoadPatchesd(KEYS, volumes, SIZE)(datalist(volumes)[0])
    finally:
        monai.data.set_track_meta(True)
    assert type(sample["image"]) is type(sample["label"]) is torch.Tensor
