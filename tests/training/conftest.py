"""Volumes to train on: of several chunks, of a few voxels, without labels, and of unlike types."""

import nibabel as nib
import numpy as np
import pytest
from support.volumes import intensities, save

import ctspine1k

#: (i, j, k) of the files, type and scaling of their images, and the affine's orientation.
CASES = {
    "liver_106": ((70, 67, 40), {"dtype": "<i2"}, {"slope": 0.5, "inter": -1024.0}, "RAS"),
    "liver_0": ((6, 5, 4), {"dtype": "<f4"}, {}, "LPS"),
    "HN_P023": ((50, 30, 9), {"dtype": "u1"}, {}, "LAS"),
}


def oblique(code: str) -> np.ndarray:
    """An affine that leads to these sides, nearly, with unequal spacing."""
    affine = np.array([[0.7, 0.05, 0.1, 10], [-0.05, 0.8, 0.2, -20], [-0.1, -0.2, 2.5, 30], [0, 0, 0, 1.0]])
    for axis, letter in enumerate(code):
        if letter in "LPI":
            affine[:, axis] *= -1
    return affine


@pytest.fixture(scope="session")
def training_tree(tmp_path_factory):
    """A folder with the cases, and a split file that has all of them in train."""
    tree = tmp_path_factory.mktemp("training")
    random = np.random.default_rng(3)
    for case_id, (shape, image, scaling, code) in CASES.items():
        labels = np.zeros(shape, "u1")
        if case_id == "liver_106":
            labels[5:50, 40:66, 3:36] = random.integers(0, 4, (45, 26, 33))
            labels[69, 66, 39] = 25
        elif case_id == "liver_0":
            labels[1:3, 2, 3] = 7
        save(tree / f"{case_id}.nii.gz", intensities(shape=shape, **image), affine=oblique(code), **scaling)
        save(tree / f"{case_id}_seg.nii.gz", labels, affine=oblique(code))
    (tree / "split.txt").write_text("trainset:\n" + "".join(f"{case_id}.nii.gz\n" for case_id in CASES))
    return tree


@pytest.fixture(scope="session")
def load_cases(training_tree):
    """Load the cases in compact storage, or those of another folder."""

    def run(cache, tree=training_tree, **options):
        return ctspine1k.load_dataset(
            "3d",
            split="train",
            data_dir=tree,
            split_file=training_tree / "split.txt",
            storage="compact",
            cache_dir=cache,
            **{"geometry": True, **options},
        )

    return run


@pytest.fixture(scope="session")
def volumes(load_cases, tmp_path_factory):
    """The cases as a data set, which no test may change."""
    return load_cases(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def right(training_tree):
    """Image in HU, labels and affine of each array (k, i, j), by another path: plain nibabel."""
    found = {}
    for case_id in CASES:
        image, mask = (nib.load(training_tree / f"{case_id}{end}.nii.gz") for end in ("", "_seg"))
        turned = [np.transpose(one.get_fdata(), (2, 0, 1)) for one in (image, mask)]
        found[case_id] = turned[0].astype("f4"), turned[1].astype("u1"), image.affine[:, [2, 0, 1, 3]]
    return found
