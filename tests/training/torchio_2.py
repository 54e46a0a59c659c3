"""Compact volumes in TorchIO 2, compared with what it reads from the same files. Run by `make test-training`."""

import copy
import pickle

import numpy as np
import pytest
import torch
import torchio as tio
from torchio.data.backends import ImageDataBackend

from ctspine1k.storage.chunks import StoredArray
from ctspine1k.training.torchio import subjects

CASES = ("liver_106", "liver_0", "HN_P023")

#: (channel, i, j, k); TorchIO keeps all four axes.
PARTS = [
    np.s_[:, 3:5, 1:4, 2:4],
    np.s_[0],
    np.s_[..., -1],
    np.s_[:, -1, ::2],
    np.s_[0, 5, 4, 3],
    np.s_[...],
]


def files(tree, case_id):
    """What TorchIO reads from the case's own files."""
    return {
        "image": tio.ScalarImage(tree / f"{case_id}.nii.gz"),
        "label": tio.LabelMap(tree / f"{case_id}_seg.nii.gz"),
    }


def test_loaded_as_from_the_file(volumes, training_tree):
    found = subjects(volumes)
    assert [subject.case_id for subject in found] == list(CASES)
    for subject in found:
        for name, wanted in files(training_tree, subject.case_id).items():
            image = getattr(subject, name)
            assert type(image) is type(wanted)
            assert isinstance(image.dataobj, ImageDataBackend)
            assert (image.shape, image.dtype) == (wanted.shape, wanted.dtype)
            assert np.allclose(image.affine.data, wanted.affine.data, atol=1e-6)
            assert not image.is_loaded
            assert image.data.dtype == wanted.data.dtype
            assert torch.equal(image.data, wanted.data)


@pytest.mark.parametrize("index", PARTS, ids=str)
def test_parts(volumes, training_tree, index):
    for subject in subjects(volumes):
        for name, wanted in files(training_tree, subject.case_id).items():
            image = getattr(subject, name)
            found, right = image.dataobj[index], wanted.dataobj[index]
            assert (found.dtype, found.shape) == (right.dtype, right.shape)
            assert torch.equal(found, right)
            assert np.allclose(image[index].affine.data, wanted[index].affine.data, atol=1e-6)
            assert not image.is_loaded


def test_samplers_decode_patches_only(volumes, training_tree, monkeypatch):
    read = []
    original = StoredArray.read
    monkeypatch.setattr(
        StoredArray, "read", lambda *given, **more: read.append(given[1]) or original(*given, **more)
    )
    (subject, *_) = subjects(volumes)
    whole = files(training_tree, subject.case_id)
    patch = next(iter(tio.UniformSampler(subject, patch_size=(6, 5, 4))))
    assert [[len(axis) for axis in ranges] for ranges in read] == [[4, 6, 5]] * 2
    k, i, j = (slice(axis.start, axis.stop) for axis in read[0])
    for name, wanted in whole.items():
        assert torch.equal(getattr(patch, name).data, wanted.data[:, i, j, k])
        assert np.allclose(getattr(patch, name).affine.data, wanted[:, i, j, k].affine.data, atol=1e-6)
        assert not getattr(subject, name).is_loaded


def test_copies_stay_small(volumes):
    found = subjects(volumes)
    _ = [subject.image.shape for subject in found]
    for same in (copy.deepcopy(found), pickle.loads(pickle.dumps(found))):  # noqa: S301
        assert not any(subject.image.is_loaded for subject in same)
        assert torch.equal(same[1].image.data, found[1].image.data)
    assert len(pickle.dumps(subjects(volumes))) < 20_000
