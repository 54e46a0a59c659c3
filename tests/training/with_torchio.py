"""Compact volumes in TorchIO, compared with what it reads from the same files. Run by `make test-torch`."""

import copy
import pickle

import numpy as np
import pytest
import torch
import torchio as tio
from support.volumes import intensities, save

import ctspine1k
from ctspine1k.training.torchio import subjects

pytestmark = [
    pytest.mark.processes,
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),  # more than there are cores
]

CASES = ("liver_106", "liver_0", "HN_P023")


#: A rotation and unequal spacing, as scanners write them: TorchIO 1 would straighten a sheared one.
OBLIQUE = np.array([[0.0, -0.48, 2.4, 10], [0.7, 0.0, 0.0, -20], [0.0, 0.64, 1.8, 30], [0, 0, 0, 1.0]])


def test_loaded_as_from_the_file(training_tree, tmp_path):
    for number, dtype in enumerate(("<i2", "<f4", "u1")):
        shape = (6 + number, 5, 4)
        scaling = {"slope": 0.5, "inter": -1024.0} if number == 0 else {}
        labels = np.arange(np.prod(shape), dtype="u1").reshape(shape) % 26
        save(
            tmp_path / f"{CASES[number]}.nii.gz",
            intensities(shape=shape, dtype=dtype),
            affine=OBLIQUE,
            **scaling,
        )
        save(tmp_path / f"{CASES[number]}_seg.nii.gz", labels, affine=OBLIQUE)
    files = {"data_dir": tmp_path, "split_file": training_tree / "split.txt", "cache_dir": tmp_path / "cache"}
    found = subjects(ctspine1k.load_dataset("3d", split="train", storage="compact", geometry=True, **files))
    assert [subject.case_id for subject in found] == list(CASES)
    for subject in found:
        for image, kind, end in ((subject.image, tio.ScalarImage, ""), (subject.label, tio.LabelMap, "_seg")):
            wanted = kind(tmp_path / f"{subject.case_id}{end}.nii.gz")
            assert type(image) is kind
            assert (image.shape, image.data.dtype) == (wanted.shape, wanted.data.dtype)
            assert torch.equal(image.data, wanted.data)
            assert np.allclose(image.affine, wanted.affine, atol=1e-6)


def test_decoded_when_loaded(volumes, monkeypatch):
    read = []
    original = type(subjects(volumes)[0].image.reader).__call__
    monkeypatch.setattr(
        "ctspine1k.training.torchio._Reader.__call__",
        lambda self, path: read.append((self.number, self.column)) or original(self, path),
    )
    found = subjects(volumes)
    copy.deepcopy(found)
    dataset = tio.SubjectsDataset(found)
    assert read == []
    assert dataset[2].image.shape == (1, 50, 30, 9)
    assert read == [(2, "image"), (2, "segmentation")]
    assert not found[2].image._loaded  # not kept in memory


def test_transformed(volumes, training_tree):
    (subject, *_) = subjects(volumes)
    path = training_tree / f"{subject.case_id}.nii.gz"
    wanted = tio.Subject(image=tio.ScalarImage(path))
    transform = tio.Compose([tio.ToCanonical(), tio.Clamp(-1000, 2000), tio.CropOrPad((40, 50, 30))])
    assert torch.equal(transform(subject).image.data.double(), transform(wanted).image.data.double())


@pytest.mark.parametrize("workers", [0, 2])
def test_queue(volumes, right, workers):
    dataset = tio.SubjectsDataset(subjects(volumes))
    queue = tio.Queue(dataset, 8, 4, tio.UniformSampler((6, 5, 4)), num_workers=workers)
    for batch in tio.SubjectsLoader(queue, batch_size=4):
        for number, case_id in enumerate(batch["case_id"]):
            i, j, k, *ends = batch[tio.LOCATION][number].tolist()
            place = tuple(slice(a, b) for a, b in zip((i, j, k), ends, strict=True))
            image, labels, _ = right[case_id]
            for name, volume in (("image", image), ("label", labels)):
                patch = batch[name][tio.DATA][number, 0].numpy()
                assert np.allclose(patch, volume.transpose(1, 2, 0)[place])


def test_they_pickle_small(volumes):
    found = subjects(volumes)
    assert len(pickle.dumps(found)) < 20_000


def test_bad_arguments(volumes):
    with pytest.raises(ValueError, match=r"found none\. Load the data set with geometry=True"):
        subjects(volumes.remove_columns("array_affine"))
    in_memory = type(volumes).from_dict({"patient_id": ["a"]})
    with pytest.raises(ValueError, match="column in compact storage"):
        subjects(in_memory)
    (first, *_) = subjects(volumes.remove_columns("segmentation"))
    assert sorted(first) == ["case_id", "image"]
