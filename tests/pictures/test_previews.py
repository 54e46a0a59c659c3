"""Pictures of many cases: which are drawn, where they are, and what becomes of those that cannot be."""

from pathlib import Path

import numpy as np
import pytest
from support.volumes import AFFINE, break_case, intensities, labels, save

from ctspine1k import load_catalog
from ctspine1k.catalog.ctspine1k import CTSPINE1K
from ctspine1k.errors import (
    CaseError,
    GeometryWarning,
    MissingFilesError,
    NothingLeftError,
    SkippedCasesWarning,
    VoxelValueError,
    VoxelWarning,
)
from ctspine1k.files.folder import FolderPlace
from ctspine1k.files.selection import Look, Selection
from ctspine1k.pictures.previews import draw_cases


@pytest.fixture
def draw(tree, tmp_path, monkeypatch):
    """Draw cases of the tree; files go to a folder of the test's own."""
    monkeypatch.chdir(tmp_path)
    catalog = load_catalog()

    def run(*case_ids, **options):
        selection = Selection(CTSPINE1K, catalog, catalog.select(case_ids), Look(FolderPlace(tree)))
        return [path.as_posix() for path in draw_cases(selection, **options)]

    return run


@pytest.mark.slow
def test_where_pictures_are(draw, tmp_path):
    assert draw("liver_106") == ["liver_106.png"]
    assert draw("liver_106", "HN_P023") == ["previews/liver_106.png", "previews/HN_P023.png"]
    assert draw("liver_106", "HN_P023", sheet=True) == ["sheet.png"]
    assert draw("liver_106", "HN_P023", out=tmp_path / "a/b") == [
        (tmp_path / "a/b" / name).as_posix() for name in ("liver_106.png", "HN_P023.png")
    ]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in tmp_path.glob("*.png"))


def test_of_several_those_that_cannot_be_drawn_are_passed_over(draw, tree):
    break_case(tree, "liver_106")
    with pytest.warns(SkippedCasesWarning, match="liver_106 is left out"):
        assert draw("liver_106", "HN_P023") == ["previews/HN_P023.png"]
    with pytest.warns(SkippedCasesWarning) as warned, pytest.raises(NothingLeftError) as told:
        draw("liver_106", "liver_0")
    assert list(told.value.reasons) == ["liver_0", "liver_106"]
    assert "skipped: liver_0, liver_106. The warnings say why. Repair" in str(told.value)
    whole = "\n".join([*(str(one.message) for one in warned), str(told.value)])
    assert [whole.count(reason) for reason in told.value.reasons.values()] == [
        0,
        1,
    ]  # "no image and mask file"
    with pytest.raises(CaseError):
        draw("liver_106")
    with pytest.raises(
        MissingFilesError, match=r"Select cases that have files: `ctspine1k list --files` lists"
    ):
        draw("liver_0")


def test_several_pictures_are_no_file(draw, tmp_path):
    with pytest.raises(ValueError, match=r"a\.png: expected a folder, as there are several pictures"):
        draw("liver_106", "HN_P023", out=tmp_path / "a.png")


def test_voxels_that_are_not_numbers_are_drawn_as_padding(draw, tree):
    image = next(tree.rglob("liver_106.nii.gz"))
    voxels = intensities(shape=(6, 5, 4)).astype("f4")
    voxels[1, 2, 3] = np.nan
    save(image, voxels, affine=AFFINE)
    with pytest.warns(VoxelWarning, match="NaN and infinite voxels are read as -1024 HU"):
        assert draw("liver_106") == ["liver_106.png"]


@pytest.mark.slow
def test_labels_that_the_data_set_lacks_are_drawn_as_background_if_told_so(draw, tree):
    with_sacrum = labels(1, (6, 5, 4))
    before = draw("liver_106", out=tree / "before.png")
    save(
        next(tree.rglob("liver_106_seg.nii.gz")),
        np.where(with_sacrum == 0, 26, with_sacrum).astype("u1"),
        affine=AFFINE,
    )
    with pytest.raises(VoxelValueError, match="whole numbers from 0 to 25, found 26"):
        draw("liver_106")
    after = draw("liver_106", out=tree / "after.png", other_labels="background")
    assert Path(*before).read_bytes() == Path(*after).read_bytes()
    with pytest.raises(ValueError, match="other_labels='ignore': expected one of 'raise', 'background'"):
        draw("liver_106", other_labels="ignore")


def test_a_mask_that_is_stored_otherwise_is_told(draw, tree):
    mask = next(tree.rglob("liver_106_seg.nii.gz"))
    backwards = AFFINE @ np.diag([-1, 1, 1, 1.0])
    backwards[:3, 3] += AFFINE[:3, 0] * 5
    save(mask, labels(1, (6, 5, 4))[::-1], affine=backwards)
    with pytest.warns(GeometryWarning, match='which orientation="RAS" would bring to the same place') as told:
        draw("liver_106")
    assert ["on_geometry" in str(one.message) for one in told] == [False]  # an option that it does not have


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"qoffset_x": 99.0}, "come from sform, as in nibabel"),
        (
            {"sform_code": 0, "qform_code": 0},
            "directions of the axes are a guess",
        ),  # left and right are drawn
    ],
)
def test_a_header_in_doubt_is_told(draw, tree, fields, found):
    save(next(tree.rglob("liver_106.nii.gz")), intensities(1, (6, 5, 4)), affine=AFFINE, **fields)
    with pytest.warns(GeometryWarning, match=found) as told:
        draw("liver_106")
    assert ["on_geometry" in str(one.message) for one in told] == [False]


def test_a_folder_may_have_a_dot_in_its_name(draw, tmp_path):
    (tmp_path / "v1.2").mkdir()
    with pytest.warns(SkippedCasesWarning):
        drawn = draw("liver_106", "liver_0", out=tmp_path / "v1.2")
    assert drawn == [(tmp_path / "v1.2/liver_106.png").as_posix()]
