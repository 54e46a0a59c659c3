"""Slices of splits convert only the cases that they need."""

import shutil

import datasets
import pytest
from support.compare import CONFIGS, identical, rows
from support.volumes import ALL_IDS, break_case, save_case

from ctspine1k.errors import CTSpine1KError, SkippedCasesWarning

#: Slices of the four cases: 18 in all.
SLICES = [3, 4, 5, 6]


@pytest.fixture
def one_split(tmp_path, tree):
    path = tmp_path / "one.txt"
    path.write_text("\n".join(["trainset:", *ALL_IDS]))
    return path


PARTS = {
    "3d": ["train[:1]", "train[1:3]", "train[-1:]", "train[:50%]", "train[26%:74%]", "train[3:9]"],
    "2d": ["train[:1]", "train[2:4]", "train[7:12]", "train[-7:]", "train[:10%]", "train[50%:]"],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("storage", ["dense", "compact"])
def test_rows_are_those_of_the_whole_split(load, one_split, tmp_path, name, storage):
    options = {"split_file": one_split, "storage": storage}
    whole = load(name, split="train", **options)
    for number, part in enumerate(PARTS[name]):
        cache = tmp_path / str(number)
        sliced = load(name, split=part, cache_dir=cache, **options)
        (found,) = datasets.ReadInstruction.from_spec(part).to_absolute({"train": len(whole)})
        want = whole.select(range(found.from_, found.to))
        assert identical(rows(sliced), rows(want)), part
        assert sliced.features == whole.features
        assert len(set(_ids(cache))) == len(set(want["patient_id"]))
        assert str(sliced.split) == part


def _ids(cache):
    return [one for p in cache.rglob("*.arrow") for one in datasets.Dataset.from_file(str(p))["patient_id"]]


def test_several_parts_share_one_conversion(load, one_split, tmp_path):
    whole = rows(load("2d", split="train", split_file=one_split, cache_dir=tmp_path / "whole"))
    first, second = load("2d", split=["train[:2]+train[8:9]", "train[1:4]"], split_file=one_split)
    assert identical(rows(first), whole[:2] + whole[8:9])
    assert identical(rows(second), whole[1:4])
    assert set(_ids(tmp_path / "cache")) == set(ALL_IDS[:3])


def test_a_split_that_is_converted_is_used(load, one_split, tmp_path):
    load("3d", split="train", split_file=one_split)
    made = sorted((tmp_path / "cache").rglob("*.arrow"))
    assert len(load("3d", split="train[:1]", split_file=one_split)) == 1
    assert sorted((tmp_path / "cache").rglob("*.arrow")) == made


def test_the_whole_and_a_part_at_once_convert_the_whole(load, one_split, tmp_path):
    load("3d", split=["train", "train[:1]"], split_file=one_split)
    assert sorted(_ids(tmp_path / "cache")) == sorted(ALL_IDS)


def test_other_cases_are_not_read(load, tree, one_split):
    break_case(tree, ALL_IDS[3])
    assert len(load("3d", split="train[:75%]", split_file=one_split)) == 3
    with pytest.raises(CTSpine1KError):
        load("3d", split="train[3:]", split_file=one_split)


def test_where_rows_cannot_be_counted_beforehand_the_whole_split_is_converted(load, tree, one_split):
    """Which case the second row is of, depends on what is skipped."""
    break_case(tree, ALL_IDS[0])
    with pytest.warns(SkippedCasesWarning):
        part = load("3d", split="train[:2]", split_file=one_split, on_error="skip")
    assert part["patient_id"][:] == ALL_IDS[1:3]
    next(tree.rglob(f"{ALL_IDS[1]}.nii.gz")).unlink()
    with pytest.warns(SkippedCasesWarning):
        part = load("3d", split="train[1:3]", split_file=one_split, on_missing="skip", cases=ALL_IDS[1:])
    assert part["patient_id"][:] == ALL_IDS[3:]


def test_slices_of_a_repo_are_counted_once_its_files_are_here(load, hub, repo_id, one_split, tmp_path):
    options = {"repo_id": repo_id, "split_file": one_split}
    whole = rows(load("2d", split="train[:4]", **options))
    assert set(_ids(tmp_path / "cache")) == set(ALL_IDS)
    part = load("2d", split="train[:4]", cache_dir=tmp_path / "again", **options)
    assert identical(rows(part), whole)
    assert set(_ids(tmp_path / "again")) == set(ALL_IDS[:2])
    with hub.watched() as requests:
        volumes = load("3d", split="train[:1]", cache_dir=tmp_path / "volumes", **options)
    assert volumes["patient_id"][:] == ALL_IDS[:1]
    assert not [request for request in requests if ALL_IDS[1] in request.path]


def test_a_turn_changes_the_number_of_slices(load, tree, one_split):
    save_case(tree, ALL_IDS[0], shape=(6, 5, 3))
    options = {"split_file": one_split, "orientation": "ASR", "storage": "compact", "image_size": None}
    whole = rows(load("2d", split="train", **options))
    assert len(whole) == 4 * 6
    assert identical(rows(load("2d", split="train[6:8]", geometry=False, **options)), whole[6:8])


@pytest.mark.parametrize("name", CONFIGS)
def test_converted_parts_are_opened_without_a_look_at_the_files(load, tree, one_split, name):
    options = {"split_file": one_split, "verify_files": False}
    parts = ["train[2:4]", "train[1:2]"] if name == "3d" else ["train[7:12]", "train[1:2]"]
    right = [rows(load(name, split=part, split_file=one_split)) for part in parts]
    shutil.rmtree(tree)
    for part, want in zip(parts, right, strict=True):
        assert identical(rows(load(name, split=part, **options)), want)
    for missing in ("train", "train[-1:]" if name == "2d" else "train[:1]"):
        with pytest.raises(FileNotFoundError, match=r"expected converted [23]d rows of train"):
            load(name, split=missing, **options)


def test_numbers_of_rows_that_contradict_each_other_are_not_used(load, tree, one_split, tmp_path):
    options = {"split": "train[:2]", "split_file": one_split}
    for seed, case_id in enumerate(ALL_IDS):
        save_case(tmp_path / "other", case_id, seed=seed, shape=(6, 5, 2 + seed))
    first = rows(load("2d", **options))
    assert identical(rows(load("2d", verify_files=False, **options)), first)
    load("2d", data_dir=tmp_path / "other", **options)
    with pytest.raises(FileNotFoundError, match="expected converted 2d rows of train"):
        load("2d", verify_files=False, **options)


@pytest.mark.parametrize("part", ["train[:0]", "train[3:2]", "train[9:12]", "train[:x]", "train[::2]"])
def test_slices_without_rows_are_errors_before_any_work(load, one_split, tmp_path, part):
    with pytest.raises(ValueError, match="train"):
        load("3d", split=part, split_file=one_split)
    assert not list((tmp_path / "cache").rglob("*.arrow"))
