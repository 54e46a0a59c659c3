"""Conversions are found when the raw files have been moved, or are gone."""

import gzip
import json
import os
import pickle
import shutil
from pathlib import Path

import pytest
from support.compare import CONFIGS, identical, rows, wanted
from support.volumes import IDS, SIZE, intensities, nifti, save

import ctspine1k
from ctspine1k.errors import BusyError, CTSpine1KError, CTSpine1KWarning, SkippedCasesWarning
from ctspine1k.rows.conversions import clear, list_conversions
from ctspine1k.running.disk import exclusive_lock


def made(cache):
    return {path: path.stat().st_mtime_ns for path in cache.rglob("*.arrow")}


@pytest.fixture(params=[123, 0])
def timed(tree, request):
    """The tree, with times as files get them, or in whole seconds, as they come out of archives."""
    for path in tree.rglob("*.nii.gz"):
        os.utime(path, ns=(0, 1_700_000_000 * 10**9 + request.param))
    return tree


@pytest.mark.parametrize("name", CONFIGS)
def test_a_moved_folder_is_not_converted_again(load, timed, tmp_path, name):
    right = rows(load(name, split="train"))
    before = made(tmp_path / "cache")
    shutil.move(timed, tmp_path / "moved")
    assert identical(rows(load(name, split="train", data_dir=tmp_path / "moved")), right)
    shutil.copytree(tmp_path / "moved", tmp_path / "copied")  # which keeps times
    assert identical(rows(load(name, split="train", data_dir=tmp_path / "copied")), right)
    assert made(tmp_path / "cache") == before


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii"])
def test_another_folder_with_files_of_the_same_names_sizes_and_times_is_another(load, tree, tmp_path, suffix):
    """Times in whole seconds are those of archives, whose files may all have the same."""
    folders = []
    for seed in (1, 2):
        folders.append(folder := tmp_path / f"folder {seed}")
        folder.mkdir()
        for name, voxels in {
            "HN_P023": intensities(seed, (6, 5, 5)),
            "HN_P023_seg": intensities(0, (6, 5, 5), "u1") % 26,
        }.items():
            data, path = nifti(voxels), folder / f"{name}{suffix}"
            # Level 0 does not compress: both files have the same length.
            path.write_bytes(gzip.compress(data, 0) if suffix == ".nii.gz" else data)
            os.utime(path, ns=(0, 10**18))
    assert len({path.stat().st_size for path in tmp_path.rglob(f"*3{suffix}") if path.parent in folders}) == 1
    first, second = (rows(load("3d", split="validation", data_dir=folder)) for folder in folders)
    assert not identical(first, second)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("options", [{}, {"storage": "compact"}, {"orientation": "RAS", "geometry": True}])
def test_rows_can_be_opened_when_the_raw_files_are_gone(load, tree, tmp_path, name, options):
    right = rows(load(name, split="train", **options))
    shutil.rmtree(tree)
    with pytest.raises(FileNotFoundError, match="expected a folder with raw files, found none"):
        load(name, split="train", **options)
    for more in ({}, {"data_dir": None}):
        found = load(name, split="train", verify_files=False, **options, **more)
        assert str(rows(found)) == str(right)
    part = load(name, split="train[:1]", verify_files=False, **options)
    assert str(rows(part)) == str(right[:1])
    with pytest.raises(FileNotFoundError, match=r"expected converted .* rows of test with .*ctspine1k cache"):
        load(name, split="test", verify_files=False, **options)
    with pytest.raises(FileNotFoundError, match="verify_files=False"):
        load(name, split="train", verify_files=False, label_scheme="binary", **options)


def test_without_a_look_at_the_files_no_request_is_made(load, hub, repo_id, tree):
    load("3d", split="train", repo_id=repo_id)
    with hub.watched() as requests:
        found = load("3d", split="train", repo_id=repo_id, verify_files=False)
    assert identical(rows(found), wanted(tree, "3d", "train"))
    assert requests == []


def test_of_several_the_one_from_the_same_place_or_the_newest(load, tree, tmp_path):
    shutil.copytree(tree, tmp_path / "other")
    save(next((tmp_path / "other").rglob("HN_P023.nii.gz")), intensities(9, (6, 5, 5)))
    first = rows(load("3d", split="validation"))
    second = rows(load("3d", split="validation", data_dir=tmp_path / "other"))
    assert not identical(first, second)
    assert identical(rows(load("3d", split="validation", verify_files=False)), first)
    options = {"split": "validation", "verify_files": False}
    assert identical(rows(load("3d", data_dir=tmp_path / "other", **options)), second)
    with pytest.warns(CTSpine1KWarning, match="the newest are used, from .*other"):
        assert identical(rows(load("3d", data_dir=None, **options)), second)


def test_of_several_the_one_from_the_folder_that_is_gone(load, tree, tmp_path):
    first = rows(load("3d", split="validation"))
    shutil.copytree(tree, tmp_path / "other")
    save(next((tmp_path / "other").rglob("HN_P023.nii.gz")), intensities(9, (6, 5, 5)))
    load("3d", split="validation", data_dir=tmp_path / "other")
    shutil.rmtree(tree)
    assert identical(rows(load("3d", split="validation", verify_files=False)), first)


def test_which_cases_of_a_folder_that_is_gone_have_vertebrae_is_not_guessed(load, tree, split_file, tmp_path):
    load("3d", split="validation")
    ctspine1k.open_collection(data_dir=tree, split_file=split_file).scan(tmp_path / "cases.parquet")
    options = {"split": "validation", "has_vertebrae": ["T13"], "scan": tmp_path / "cases.parquet"}
    shutil.rmtree(tree)
    with pytest.raises(CTSpine1KError):
        load("3d", verify_files=False, **options)


@pytest.mark.parametrize("is_offline", [False, True])
def test_of_several_the_one_from_the_same_repo_online_or_not(
    load, publish, tree, tmp_path, monkeypatch, is_offline
):
    first_repo = publish(tree)
    save(next(tree.rglob("HN_P023.nii.gz")), intensities(9, (6, 5, 5)))
    second_repo = publish(tree)
    options = {"split": "validation", "data_dir": None}
    ctspine1k.open_collection(repo_id=first_repo).select(IDS["validation"]).download()
    if is_offline:
        monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    first = rows(load("3d", repo_id=first_repo, **options))
    monkeypatch.delenv("HF_DATASETS_OFFLINE", raising=False)
    assert not identical(rows(load("3d", repo_id=second_repo, **options)), first)
    if not is_offline:
        monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    assert identical(rows(load("3d", repo_id=first_repo, verify_files=False, **options)), first)


def test_rows_with_other_masks_are_no_substitute(tree, split_file, tmp_path):
    spine = ctspine1k.open_collection(data_dir=tree, split_file=split_file)
    predicted, other = tmp_path / "predicted", tmp_path / "other"
    for folder in (predicted, other):
        save(folder / "HN_P023.nii.gz", intensities(0, (6, 5, 5), "u1") % 2)
    options = {"split": "validation", "image_size": SIZE, "cache_dir": tmp_path / "cache"}
    spine.load("3d", **options)
    with pytest.raises(FileNotFoundError, match="verify_files=False: expected converted") as caught:
        spine.with_masks(predicted).load("3d", verify_files=False, **options)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)  # noqa: S301
    right = rows(spine.with_masks(predicted).load("3d", **options))
    assert identical(rows(spine.with_masks(predicted).load("3d", verify_files=False, **options)), right)
    with pytest.raises(FileNotFoundError, match="verify_files=False: expected converted"):
        spine.with_masks(other).load("3d", verify_files=False, **options)
    for conversion in list_conversions(tmp_path / "cache"):
        if "with masks" not in str(conversion.place):
            clear(conversion)
    with pytest.raises(FileNotFoundError, match="verify_files=False: expected converted"):
        spine.load("3d", verify_files=False, **options)


def test_a_moved_folder_with_missing_files_is_not_converted_again(load, tree, tmp_path):
    next(tree.rglob("liver_106_seg.nii.gz")).unlink()
    for folder in (tree, tmp_path / "moved"):
        if not folder.exists():
            shutil.move(tree, folder)
        with pytest.warns(SkippedCasesWarning, match="liver_106"):
            load("3d", split="train", on_missing="skip", data_dir=folder)
    assert len(list_conversions(tmp_path / "cache")) == 1


def test_a_collection_opens_them_too(load, tree, split_file, tmp_path):
    load("3d", split="train")
    spine = ctspine1k.open_collection(data_dir=tree, split_file=split_file)
    shutil.rmtree(tree)
    found = spine.load("3d", split="train", verify_files=False, image_size=SIZE, cache_dir=tmp_path / "cache")
    assert found["patient_id"][:] == IDS["train"]


@pytest.fixture
def several(load, tree, tmp_path):
    """Two conversions, and one that was stopped."""
    load("3d", split="train", storage="compact")
    load("2d", split="test", geometry=True)
    image = next(tree.rglob("liver_106.nii.gz"))
    data, status = image.read_bytes(), image.stat()
    image.write_bytes(data[:30] + bytes(len(data) - 30))
    with pytest.raises(CTSpine1KError):
        load("3d", split="train", geometry=True)
    image.write_bytes(data)
    os.utime(image, ns=(status.st_atime_ns, status.st_mtime_ns))
    return tmp_path / "cache"


def test_they_are_listed(several, tree):
    found = {(one.config, one.is_finished): one for one in list_conversions(several)}
    assert list(found) == [(one.config, one.is_finished) for one in list_conversions(several)]
    compact, slices, kept = found["3d", True], found["2d", True], found["3d", False]
    assert (compact.splits, compact.cases, compact.collection) == (("train",), 2, "ctspine1k")
    assert compact.options == {"storage": "compact", "image_size": list(SIZE)}
    assert slices.options == {"image_size": list(SIZE), "geometry": True}
    assert {Path(one.place) for one in (compact, slices)} == {tree}
    size = sum(path.stat().st_size for path in compact.folder.iterdir())
    assert compact.bytes == size
    assert (kept.id, kept.cases) == ("kept", 1)  # of the one that was stopped
    assert kept.bytes > 0


def test_a_file_that_a_running_conversion_deletes_meanwhile(load, tmp_path, monkeypatch):
    load("3d", split="train")
    first, *_ = sorted((tmp_path / "cache").rglob("*.arrow"))
    listed = os.walk

    def deleted(folder):
        found = list(listed(folder))
        first.unlink(missing_ok=True)
        return iter(found)

    monkeypatch.setattr(os, "walk", deleted)
    (found,) = list_conversions(tmp_path / "cache")
    assert found.bytes == sum(path.stat().st_size for path in found.folder.iterdir())


def test_they_are_deleted(several, load):
    first, *others = list_conversions(several)
    lock = Path(f"{first.folder}_builder.lock")  # of `datasets`, while it converts
    with exclusive_lock(first.folder, lock), pytest.raises(BusyError):
        clear(first)
    clear(first)
    assert list_conversions(several) == others
    for one in others:
        clear(one)
    assert list_conversions(several) == []
    assert not list(several.rglob("*.arrow"))
    assert len(load("2d", split="test")) == 6


@pytest.mark.parametrize(
    ("folder", "record"),
    [
        ("someone___data/3d-0123/1.0.0", None),
        ("someone___data/3d-0123456789abcdef/1.0.0", {"request": 1}),
        ("someone___data/3d-0123456789abcdef/1.0.0", ["request"]),
        ("ctspine1k/3d-slicer/1.0.0", None),
        ("ctspine1k/3d-0123456789abcdef/notes", None),
        ("someone___data/kept", None),
    ],
)
def test_what_is_not_ours_is_neither_listed_nor_deleted(tmp_path, folder, record):
    (tmp_path / folder).mkdir(parents=True)
    (tmp_path / folder / "a-0123456789abcdef.arrow").write_text("")
    if record is not None:
        (tmp_path / folder / "conversion.json").write_text(json.dumps(record))
    assert list_conversions(tmp_path) == []


def test_files_of_others_beside_kept_cases_stay(several):
    (other := several / "ctspine1k/kept/notes.txt").write_text("")
    for one in list_conversions(several):
        clear(one)
    assert [path for path in several.rglob("*") if path.is_file() and path.suffix != ".lock"] == [other]


@pytest.mark.parametrize("levels", [0, 1, 2])
def test_of_linked_folders_only_the_link_is_deleted(load, tmp_path, levels):
    """Unless the folder of the data set is the link: what is in it is ours."""
    load("3d", split="train")
    (one,) = list_conversions(tmp_path / "cache")
    linked = [one.folder, *one.folder.parents][levels]
    elsewhere = shutil.move(linked, tmp_path / "elsewhere")
    linked.symlink_to(elsewhere)
    (one,) = list_conversions(tmp_path / "cache")
    clear(one)
    assert list_conversions(tmp_path / "cache") == []
    assert len(list((tmp_path / "elsewhere").rglob("*.arrow"))) == (0 if levels == 2 else 2)
    assert linked.is_symlink() == (levels == 2)


def test_rows_of_another_data_set_or_version_are_not_opened(load, tmp_path):
    load("3d", split="train")
    (one,) = list_conversions(tmp_path / "cache")
    for other in (one.folder.parents[1].with_name("other") / one.id / "1.0.0", one.folder.with_name("0.0.1")):
        other.parent.mkdir(parents=True, exist_ok=True)
        one.folder.rename(other)
        assert list_conversions(tmp_path / "cache")[0].is_finished
        with pytest.raises(FileNotFoundError, match="verify_files=False: expected converted"):
            load("3d", split="train", verify_files=False)
        other.rename(one.folder)
