"""Masks on their own: as stored, on another grid, and joined from files with one vertebra each."""

import sys

import nibabel as nib
import numpy as np
import pytest
from support.volumes import AFFINE, save

from ctspine1k.errors import MissingPackageError, PairMismatchError, VoxelValueError
from ctspine1k.volumes.masks import Mask, common_window, joined, on_grid, read_mask

SHAPE = (7, 6, 5)
OBLIQUE = np.array(
    [[-0.68, 0.1, 0.4, 10.0], [0.12, 0.79, -0.3, -20.0], [0.1, 0.1, 2.4, 30.0], [0.0, 0.0, 0.0, 1.0]]
)


@pytest.fixture
def mask(tmp_path):
    labels = np.random.default_rng(3).integers(0, 26, SHAPE).astype("u1")
    return read_mask(save(tmp_path / "a.nii.gz", labels, affine=OBLIQUE))


def test_a_mask_is_read_as_bytes_slice_first(mask, tmp_path):
    stored = np.transpose(nib.load(tmp_path / "a.nii.gz").get_fdata(), (2, 0, 1))
    assert mask.labels.dtype == np.uint8
    assert np.array_equal(mask.labels, stored)
    for dtype in ("f8", "<i4"):
        voxels = np.transpose(stored, (1, 2, 0)).astype(dtype)
        other = read_mask(save(tmp_path / "b.nii.gz", voxels, affine=OBLIQUE))
        assert other.labels.dtype == np.uint8
        assert np.array_equal(other.labels, stored)


def test_only_the_part_around_all_labels_is_in_memory(tmp_path):
    stored = np.zeros((7, 6, 50), "u1")
    stored[2:4, 5, 20:30] = 7
    stored[3, 1, 33] = 255
    mask = read_mask(save(tmp_path / "a.nii.gz", stored))
    assert (mask.start, mask.box.shape) == ((16, 2, 1), (24, 2, 5))  # whole slabs of 8 slices
    assert np.array_equal(mask.labels, np.transpose(stored, (2, 0, 1)))
    empty = read_mask(save(tmp_path / "b.nii.gz", stored * 0))
    assert not empty.box.size
    assert not empty.labels.any()
    assert empty.labels.shape == mask.labels.shape == (50, 7, 6)
    window = common_window(empty, mask)
    assert window == mask.window
    assert mask.part(window) is mask.box
    assert not empty.part(window).any()


def test_numbers_that_are_no_labels_are_refused(tmp_path):
    with pytest.raises(VoxelValueError, match="found 300"):
        read_mask(save(tmp_path / "a.nii.gz", np.full(SHAPE, 300, "i2")))


@pytest.mark.parametrize("orientation", ["RAS", "SPL", "AIR"])
def test_another_orientation_of_the_same_place_is_turned(mask, tmp_path, orientation):
    stored = nib.load(tmp_path / "a.nii.gz")
    codes = nib.orientations.axcodes2ornt(orientation)
    turned = stored.as_reoriented(nib.orientations.ornt_transform(nib.io_orientation(stored.affine), codes))
    nib.save(turned, tmp_path / "turned.nii.gz")
    other = read_mask(tmp_path / "turned.nii.gz")
    assert not np.array_equal(other.labels, mask.labels)
    assert np.array_equal(on_grid(other, mask).labels, mask.labels)


def test_another_grid_is_an_error_or_resampled(mask, tmp_path):
    """Onto a grid of half the voxels, shifted and sheared: against a plain loop over voxels."""
    grid_affine = OBLIQUE.copy()
    grid_affine[:3, :3] *= 0.6
    grid_affine[:3, 3] += (-0.3, 0.7, 1.1)
    grid = read_mask(save(tmp_path / "grid.nii.gz", np.zeros((8, 9, 7), "u1"), affine=grid_affine))
    with pytest.raises(PairMismatchError, match=r"expected the grid of .*shape \(7, 8, 9\).*resample="):
        on_grid(mask, grid)
    found = on_grid(mask, grid, resample=True).labels
    source = np.asarray(nib.load(tmp_path / "a.nii.gz").dataobj)
    to_index = np.linalg.inv(mask.geometry.affine) @ grid.geometry.affine
    wanted = np.zeros((7, 8, 9), "u1")
    for i, j, k in np.ndindex(8, 9, 7):
        at = np.floor(to_index[:3] @ (i, j, k, 1) + 0.5).astype(int)
        if (at >= 0).all() and (at < SHAPE).all():
            wanted[k, i, j] = source[tuple(at)]
    assert np.array_equal(found, wanted)
    assert (wanted == 0).any()
    assert len(np.unique(wanted)) > 10


def test_another_affine_of_the_same_shape_is_no_match(mask, tmp_path):
    moved = OBLIQUE.copy()
    moved[0, 3] += 1
    other = read_mask(save(tmp_path / "b.nii.gz", np.zeros(SHAPE, "u1"), affine=moved))
    with pytest.raises(
        PairMismatchError, match=r"expected the grid of .*a\.nii\.gz, affine .*, found affine"
    ):
        on_grid(other, mask)


def test_headers_that_give_no_size_are_paired_only_if_they_are_equal(tmp_path):
    flat = AFFINE.copy()
    flat[:3, 2] = flat[:3, 1]  # two axes in one direction
    masks = [read_mask(save(tmp_path / f"{n}.nii", np.full(SHAPE, n, "u1"), affine=flat)) for n in (1, 2)]
    assert on_grid(masks[0], masks[1]) is masks[0]
    other = read_mask(save(tmp_path / "3.nii", np.full(SHAPE, 3, "u1"), affine=AFFINE))
    with pytest.raises(PairMismatchError):
        on_grid(masks[0], other, resample=True)


def test_files_of_one_vertebra_are_joined(mask):
    def part(label, where):
        labels = np.zeros(mask.labels.shape, np.uint8)
        labels[where] = 1
        return label, Mask.of(labels, mask.geometry, f"{label}.nii.gz")

    one, other = part(20, np.s_[0, :2]), part(21, np.s_[1, 2:])
    whole = joined([one, other], "case")
    assert np.array_equal(np.unique(whole.labels), [0, 20, 21])
    assert (whole.labels[0, :2] == 20).all()
    assert whole.labels.dtype == np.uint8
    with pytest.raises(VoxelValueError, match=r"22\.nii\.gz: expected voxels of no other vertebra, found 6"):
        joined([one, other, part(22, np.s_[0, 0])], "case")


def test_resampling_without_scipy_says_what_to_install(mask, tmp_path, monkeypatch):
    other = read_mask(save(tmp_path / "o.nii", np.ones((3, 4, 5), "u1"), affine=OBLIQUE))
    monkeypatch.setitem(sys.modules, "scipy.ndimage", None)
    with pytest.raises(
        MissingPackageError, match=r"^resampling needs scipy: pip install 'ctspine1k\[evaluate\]'"
    ):
        on_grid(mask, other, resample=True)
