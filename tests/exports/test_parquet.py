"""Exports in real processes: what they hold, who can read it, and what is left of them after every mishap."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import datasets
import duckdb
import fsspec
import numpy as np
import pandas as pd
import polars as pl
import pytest
from support.cluster import cluster_of, worker
from support.compare import identical, rows, wanted
from support.exports import finish, options_of, options_of_many, same, shards_in, start
from support.killing import kill_again_and_again, stop_at_every_step
from support.processes import wait_until
from support.volumes import ALL_IDS, IDS, break_case, files_of, intensities, save, save_case

import ctspine1k
from ctspine1k.errors import (
    BusyError,
    CTSpine1KWarning,
    GeometryWarning,
    HubError,
    MissingFilesError,
    NoSpaceError,
    NothingLeftError,
    OutputError,
    SkippedCasesWarning,
    WorkerError,
)
from ctspine1k.exports.shards import export_shard
from ctspine1k.running.cluster import Dask
from ctspine1k.running.executors import executor
from ctspine1k.running.retries import retry


@pytest.fixture
def export(tree, split_file, tmp_path):
    """`export_parquet` of the tree, to a folder of the test's own."""

    def run(out=tmp_path / "out", **options):
        defaults = options_of(tree, split_file)
        if "repo_id" in options:
            del defaults["data_dir"]
        return ctspine1k.export_parquet(out, **{**defaults, **options})

    return run


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def loaded(out, name, **options):
    """The rows as `datasets` loads them, from a folder or a repo, in a cache of its own."""
    return datasets.load_dataset(str(out), name=name, **options)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")


def test_rows_are_those_that_load_dataset_gives(export, out, load, name, tree):
    report = export()
    assert report.ok
    assert (report.made, report.kept, report.failed, report.skipped) == (6, 0, {}, {})
    here = loaded(out, name)
    there = load(name)
    assert list(here) == list(there) == list(IDS)
    for split in IDS:
        assert here[split].features == there[split].features
        assert identical(rows(here[split]), rows(there[split]))
        assert identical(rows(here[split]), wanted(tree, name, split))
        streamed = loaded(out, name, split=split, streaming=True)
        assert streamed.features == there[split].features
        assert identical(rows(streamed), wanted(tree, name, split))


@pytest.mark.parametrize(
    "options",
    [
        {"geometry": True},
        {"orientation": "PIR", "geometry": True, "image_size": (7, 7)},
        {"label_scheme": "region"},
        {"cases_per_shard": 1, "num_proc": 2},
        {"split": "train"},
        {"case": ["liver_106", "HN_P023"]},
    ],
    ids=str,
)
def test_options_are_those_of_load_dataset(export, out, load, name, options, tmp_path):
    if "orientation" in options:
        for case_id in ALL_IDS:
            save_case(tmp_path / "tree", case_id, shape=(7, 7, 7))
    export(config=name, **options)
    same_there = {key: options[key] for key in ("geometry", "orientation", "label_scheme") if key in options}
    if "image_size" in options:
        same_there["image_size"] = options["image_size"]
    there = load(name, splits=options.get("split"), cases=options.get("case"), **same_there)
    here = loaded(out, name)
    assert list(here) == list(there)
    for split in there:
        assert here[split].features == there[split].features
        assert identical(rows(here[split]), rows(there[split]))


ALONE = """
import sys
sys.modules["ctspine1k"] = None  # it is not there
import datasets, hashlib, numpy as np
out = sys.argv[1]
for name in ("3d", "2d"):
    digest = hashlib.sha256()
    for row in datasets.load_dataset(out, name=name, split="train", streaming=True):
        digest.update(np.asarray(row["image"], "f4").tobytes() + np.asarray(row["segmentation"], "i4").tobytes())
    whole = datasets.load_dataset(out, name=name)
    other = hashlib.sha256()
    for row in whole["train"].with_format("numpy"):
        other.update(row["image"].astype("f4").tobytes() + row["segmentation"].astype("i4").tobytes())
    print(name, digest.hexdigest() == other.hexdigest(), digest.hexdigest(), whole.num_rows)
print(datasets.load_dataset(out, name="cases", split="cases")["case_id"][:])
"""


def digest_of(tree, name):
    digest = hashlib.sha256()
    for row in wanted(tree, name, "train"):
        digest.update(row["image"].tobytes() + row["segmentation"].tobytes())
    return digest.hexdigest()


@pytest.mark.parametrize("place", ["folder", "hub"])
def test_it_loads_without_this_package(export, out, tree, python, publish, place):
    export(geometry=True)
    where = str(out) if place == "folder" else publish(out)
    run = python(ALONE, where)
    counts = {
        "3d": "{'train': 2, 'validation': 1, 'test': 1}",
        "2d": "{'train': 7, 'validation': 5, 'test': 6}",
    }
    assert run.stdout.splitlines() == [
        *(f"{name} True {digest_of(tree, name)} {counts[name]}" for name in ("3d", "2d")),
        str(ALL_IDS),
    ], run.stderr


def test_from_a_repo_as_from_a_folder(export, out, tree, name, publish):
    export()
    repo_id = publish(out)
    for split in IDS:
        assert identical(rows(loaded(repo_id, name, split=split)), wanted(tree, name, split))
        assert identical(rows(loaded(repo_id, name, split=split, streaming=True)), wanted(tree, name, split))


def test_other_readers_read_a_shard_and_the_cases(export, out, tree):
    export(config="2d")
    shard = out / "2d/train/00000-of-00001.parquet"
    right = wanted(tree, "2d", "train")
    images = np.stack([row["image"] for row in right])
    masks = np.stack([row["segmentation"] for row in right])
    frame = pd.read_parquet(shard)
    polar = pl.read_parquet(shard)
    duck = duckdb.sql(f"select image, segmentation, slice_index from '{shard}'").fetchall()
    for read in (
        [np.stack([np.stack(image) for image in frame[column]]) for column in ("image", "segmentation")],
        [np.array(polar[column].to_list()) for column in ("image", "segmentation")],
        [np.array([row[column] for row in duck]) for column in (0, 1)],
    ):
        assert np.array_equal(np.asarray(read[0], np.float32).view(np.uint32), images.view(np.uint32))
        assert np.array_equal(read[1], masks)
    assert [row[2] for row in duck] == [row["slice_index"] for row in right]
    cases = out / "cases.parquet"
    assert list(pd.read_parquet(cases)["case_id"]) == ALL_IDS
    assert pl.read_parquet(cases)["split"].to_list() == ["train", "train", "validation", "test"]
    assert duckdb.sql(f"select count(*) from '{cases}' where source = 'MSD-T10'").fetchall() == [(1,)]


def test_the_manifest_tells_what_was_made_of_what(export, out, tree, repo_id):
    export()
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["source"] == {"folder": "tree"}
    for path, data in files_of(tree).items():
        assert manifest["files"][path] == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    for shard in manifest["shards"]:
        data = (out / shard["path"]).read_bytes()
        assert (shard["bytes"], shard["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
    assert sum(shard["rows"] for shard in manifest["shards"]) == 4 + 18
    assert manifest["options"]["geometry"] is False
    assert manifest["versions"]["ctspine1k"] == ctspine1k.__version__
    assert str(tree) not in "".join(data.decode("latin-1") for data in files_of(out).values())
    export(out.with_name("from_hub"), repo_id=repo_id)
    other = json.loads((out.with_name("from_hub") / "manifest.json").read_text())
    assert list(other["source"]) == ["repo_id", "commit"]
    assert other["files"] == manifest["files"]


def times(out):
    return {path: path.stat().st_mtime_ns for path in out.rglob("*.parquet") if path.parent != out}


def test_a_second_run_makes_nothing(export, out):
    export()
    before, written = files_of(out), times(out)
    report = export()
    assert (report.made, report.kept) == (0, 6)
    assert report.sizes == export(verify=True).sizes
    assert (files_of(out), times(out)) == (before, written)


def test_a_run_without_the_manifest_makes_all_anew_or_refuses(export, out):
    export()
    before = files_of(out)
    (out / "manifest.json").unlink()
    with pytest.raises(OutputError, match=r"expected an empty folder or an export, found README\.md"):
        export()
    (out / "README.md").unlink()
    (out / "cases.parquet").unlink()
    assert export().made == 6
    assert files_of(out) == before


def remade(out, export, **options):
    """Which shards a run makes."""
    before = times(out)
    export(**options)
    return {path.relative_to(out).as_posix() for path, at in times(out).items() if before.get(path) != at}


def test_only_shards_whose_sources_have_changed_are_made_anew(export, out, tree, name):
    export(config=name, cases_per_shard=1)
    save(next(tree.rglob("liver_106.nii.gz")), intensities(9, (6, 5, 4)))
    made = remade(out, export, config=name, cases_per_shard=1)
    assert made == {f"{name}/train/00001-of-00002.parquet"}
    assert identical(rows(loaded(out, name, split="train")), wanted(tree, name, "train"))
    break_case(tree, "liver_106")
    assert not export(config=name, cases_per_shard=1).ok
    assert not {"README.md", "manifest.json"} & set(files_of(out))  # it is not whole any more
    save(next(tree.rglob("liver_106.nii.gz")), intensities(9, (6, 5, 4)))
    export(config=name, cases_per_shard=1)
    assert remade(out, export, config=name, cases_per_shard=1) == set()


def test_shards_of_other_options_are_made_anew(export, out, load):
    export(config="2d")
    assert len(remade(out, export, config="2d", geometry=True)) == 3
    assert identical(rows(loaded(out, "2d", split="test")), rows(load("2d", split="test", geometry=True)))


def test_options_given_by_mistake_cost_only_the_shards_that_are_made(export, out, monkeypatch):
    export(config="2d", cases_per_shard=1)
    before = files_of(out)
    with monkeypatch.context() as patch:
        patch.setattr("ctspine1k.exports.parquet.export_shard", stop)
        with pytest.raises(KeyboardInterrupt, match="0 of 4 shards are made; run again to go on from there"):
            export(config="2d", cases_per_shard=1, geometry=True)
    report = export(config="2d", cases_per_shard=1)
    assert (report.made, report.kept) == (0, 4)
    assert files_of(out) == before
    made = []

    def make(task):
        if made:
            raise KeyboardInterrupt
        made.append(task.shard.path)
        return export_shard(task)

    with monkeypatch.context() as patch:
        patch.setattr("ctspine1k.exports.parquet.export_shard", make)
        with pytest.raises(KeyboardInterrupt, match="1 of 4 shards are made"):
            export(config="2d", cases_per_shard=1, geometry=True)
    assert remade(out, export, config="2d", cases_per_shard=1) >= set(made)
    assert files_of(out) == before


def test_a_shard_that_was_about_to_be_replaced_is_not_believed(export, out, monkeypatch):
    """Where a file system tells no times, a record of the old one could be taken for one of the new."""
    export(config="2d", cases_per_shard=1)
    before = files_of(out)
    with monkeypatch.context() as patch:
        patch.setattr("ctspine1k.exports.shards.note", stop)
        with pytest.raises(KeyboardInterrupt):
            export(config="2d", cases_per_shard=1, label_scheme="binary")
    report = export(config="2d", cases_per_shard=1)
    assert (report.made, report.kept) == (1, 3)
    assert files_of(out) == before


def impatient(num_proc, scheduler=None, **options):
    return executor(num_proc, **options) if scheduler is None else Dask(scheduler, patience=0.1)


def test_a_scheduler_that_is_not_there_changes_nothing(export, out, monkeypatch):
    monkeypatch.setattr("ctspine1k.exports.parquet.executor", impatient)
    export(config="2d")
    before = files_of(out)
    with (
        pytest.warns(CTSpine1KWarning, match="no scheduler file yet"),
        pytest.raises(WorkerError, match="expected a Dask scheduler, found none"),
    ):
        export(config="2d", geometry=True, scheduler="schedler.json")
    assert files_of(out) == before


def test_shards_that_are_replaced_make_room(export, out, tree, monkeypatch):
    export(config="3d", cases_per_shard=1)
    raw = sum(path.stat().st_size for path in tree.rglob("*.nii.gz"))
    monkeypatch.setattr("ctspine1k.exports.targets.free_bytes", lambda _: raw * 3 // 4)
    with pytest.raises(NoSpaceError, match="expected room for an export"):
        export(tree.parent / "new", config="3d", cases_per_shard=1)
    assert export(config="3d", cases_per_shard=1, label_scheme="binary").made == 4


def test_shards_that_were_bad_make_no_room_twice(export, out, tree, monkeypatch):
    export(config="3d", cases_per_shard=1)
    raw = sum(path.stat().st_size for path in tree.rglob("*.nii.gz"))
    for path in shards_in(out):
        path.write_bytes(spoil(path))
        os.utime(path, (time.time() + 9, time.time() + 9))
    monkeypatch.setattr("ctspine1k.exports.targets.free_bytes", lambda _: raw * 3 // 4)
    with pytest.raises(NoSpaceError, match="expected room for an export"):
        export(config="3d", cases_per_shard=1)
    assert shards_in(out) == []


def test_folders_that_a_killed_run_has_left_empty_go(export, out, tmp_path):
    (out / "2d/train").mkdir(parents=True)
    export(config="3d")
    export(tmp_path / "at_once", config="3d")
    assert same(out, tmp_path / "at_once")


def test_a_cache_that_is_full_is_told_as_that(export, out, repo_id, monkeypatch):
    free = iter([10**12, 10**12, *[0] * 99])
    monkeypatch.setattr("ctspine1k.files.sources.free_space", lambda: (next(free), Path("/small/cache")))
    with pytest.raises(NoSpaceError, match=r"^/small/cache: expected room for a download.*set HF_HUB_CACHE"):
        export(repo_id=repo_id)


def test_a_shard_without_rows_is_read_beside_one_with_some(export, out, tree, load, name):
    break_case(tree, "liver_106")
    assert export(config=name, cases_per_shard=1, on_error="skip").ok
    assert [pl.read_parquet(path).height > 0 for path in sorted(out.glob(f"{name}/train/*"))] == [True, False]
    with pytest.warns(SkippedCasesWarning):
        there = load(name, split="train", on_error="skip")
    assert identical(rows(loaded(out, name, split="train")), rows(there))
    assert identical(rows(loaded(out, name, split="train", streaming=True)), rows(there))
    count = f"select count(*) from '{out}/{name}/train/*.parquet'"
    assert duckdb.sql(count).fetchall() == [(len(there),)]


def test_a_config_that_comes_later_leaves_the_other(export, out, tmp_path):
    export(config="3d")
    assert {path.split("/")[0] for path in remade(out, export)} == {"2d"}
    export(tmp_path / "at_once")
    assert same(out, tmp_path / "at_once")


def stop(*_):
    raise KeyboardInterrupt


def spoil(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    return bytes(data)


def spoil_unseen(path):
    """Change a bit, and neither size nor time."""
    stat = path.stat()
    path.write_bytes(spoil(path))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_a_shard_whose_bytes_have_changed_is_made_anew(export, out):
    export(config="2d")
    before = files_of(out)
    path = out / "2d/train/00000-of-00001.parquet"
    path.write_bytes(path.read_bytes()[:-1])
    assert export(config="2d").made == 1
    data = spoil(path)
    wait_until(
        lambda: path.write_bytes(data) and path.stat().st_mtime > (out / "manifest.json").stat().st_mtime
    )
    assert export(config="2d").made == 1
    assert files_of(out) == before


def test_verify_finds_what_time_and_size_do_not_tell(export, out):
    export(config="2d")
    before = files_of(out)
    path = out / "2d/train/00000-of-00001.parquet"
    spoil_unseen(path)
    assert export(config="2d").made == 0
    assert export(config="2d", verify=True, num_proc=2).made == 1
    assert files_of(out) == before
    path.unlink()
    path.symlink_to("/proc/self/mem")  # which cannot be read from its start
    assert export(config="2d", verify=True).made == 1
    assert files_of(out) == before


def test_a_shard_that_verify_found_bad_is_not_believed_by_the_next_run(export, out, monkeypatch):
    export(config="2d")
    before = files_of(out)
    path = out / "2d/train/00000-of-00001.parquet"
    spoil_unseen(path)
    with monkeypatch.context() as patch:
        patch.setattr("ctspine1k.exports.parquet.begin", stop)
        with pytest.raises(KeyboardInterrupt):
            export(config="2d", verify=True)
    assert export(config="2d").made == 1
    assert files_of(out) == before


def test_another_selection_does_not_go_into_the_same_folder(export, out):
    export(config="2d")
    before = files_of(out)
    with pytest.raises(
        OutputError, match=r"expected shards of the cases, configs and cases_per_shard given.*found 2d/"
    ):
        export(config="2d", case="liver_106")
    with pytest.raises(OutputError, match="Give the same as before, or another folder"):
        export(config="3d")
    with pytest.raises(OutputError, match="cases_per_shard"):
        export(config="2d", cases_per_shard=1)
    assert files_of(out) == before


def test_what_is_not_ours_is_not_replaced(export, out):
    out.mkdir()
    (out / "README.md").write_text("mine")
    with pytest.raises(OutputError, match=r"found README\.md. Give a folder of its own"):
        export()
    assert files_of(out) == {"README.md": b"mine"}
    (out / "README.md").rename(out / "notes.txt")
    assert export().ok
    assert (out / "notes.txt").read_text() == "mine"


def test_a_broken_case_fails_its_shards_alone(export, out, tree):
    break_case(tree, "HN_P023")
    report = export(num_proc=2)
    assert not report.ok
    shards = [f"HN_P023 ({name}/validation/00000-of-00001.parquet)" for name in ("2d", "3d")]
    assert sorted(report.failed) == shards
    assert "HN_P023.nii.gz: expected" in report.failed[shards[0]]
    assert f"failed: {shards[0]}: " in report.summary()
    assert report.made == 4
    assert not (out / "3d/validation").exists()
    assert not (out / "manifest.json").exists()
    assert not (out / "README.md").exists()
    save_case(tree, "HN_P023", seed=2, shape=(6, 5, 5))
    assert remade(out, export) == {f"{name}/validation/00000-of-00001.parquet" for name in ("2d", "3d")}
    assert (out / "manifest.json").exists()


def test_cases_that_are_left_out_are_named_in_manifest_and_card(export, out, tree, load, name):
    break_case(tree, "liver_106")
    next(tree.rglob("HN_P023_seg.nii.gz")).unlink()
    with pytest.warns(SkippedCasesWarning, match="HN_P023"):
        report = export(on_error="skip", on_missing="skip")
    assert report.ok
    assert set(report.skipped) == {"liver_106", "HN_P023"}
    assert report.skipped["HN_P023"] == "no mask file"
    assert json.loads((out / "manifest.json").read_text())["skipped"] == report.skipped
    card = (out / "README.md").read_text()
    assert "| `HN_P023` | no mask file |" in card
    assert "| `liver_106` | " in card
    with pytest.warns(SkippedCasesWarning):
        there = load(name, on_error="skip", on_missing="skip")
    here = loaded(out, name)
    assert list(here) == list(there) == ["train", "test"]
    assert identical(rows(here["train"]), rows(there["train"]))


def test_an_export_of_nothing_is_none(export, out, tree):
    for case_id in ALL_IDS:
        break_case(tree, case_id)
    with pytest.raises(NothingLeftError):
        export(on_error="skip")
    assert not (out / "README.md").exists()


def test_what_is_missing_is_told_before_anything_is_done(export, out, tree):
    next(tree.rglob("HN_P023_seg.nii.gz")).unlink()
    with pytest.raises(MissingFilesError, match="HN_P023"):
        export()
    assert not out.exists()


def test_masks_that_lie_elsewhere_are_told_once(export, tree):
    save(next(tree.rglob("liver_106_seg.nii.gz")), np.zeros((6, 5, 4), "u1"), affine=np.diag([9, 8, 7, 1.0]))
    with pytest.warns(GeometryWarning, match="liver_106") as told:
        export()
    assert len([one for one in told if issubclass(one.category, GeometryWarning)]) == 1
    report = export(on_geometry="raise", out=tree.parent / "strict", config="3d")
    assert list(report.failed) == ["liver_106 (3d/train/00000-of-00001.parquet)"]
    # Of what is there, only what a stricter policy would have decided otherwise is looked at again.
    assert (export(on_geometry="raise").kept, len(export(on_geometry="raise").failed)) == (4, 2)


def test_to_leave_out_what_failed_makes_nothing_twice(export, out, tree):
    break_case(tree, "HN_P023")
    whole = export()
    assert (whole.made, whole.ok) == (4, False)
    again = export(on_error="skip")
    assert (again.made, again.kept, list(again.skipped)) == (2, 4, ["HN_P023"])
    assert export(on_error="skip").kept == 6
    export(tree.parent / "at_once", on_error="skip")
    assert same(out, tree.parent / "at_once")
    assert export().kept == 4  # those with a case that was left out are tried again


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"config": "4d"}, "config='4d': expected one of '3d', '2d', 'all'"),
        ({"num_proc": 0}, "num_proc=0: expected 1 or more"),
        ({"cases_per_shard": 0}, "cases_per_shard=0: expected 1 or more"),
        ({"on_error": "ignore"}, "on_error='ignore': expected one of"),
        ({"on_missing": "ignore"}, "on_missing='ignore': expected one of"),
        ({"orientation": "ABC"}, "orientation='ABC'"),
        ({"num_proc": 2, "scheduler": "tcp://127.0.0.1:1"}, "num_proc is for processes of this machine"),
        ({"case": []}, "no case is selected"),
        ({"out": "tree"}, "is data_dir: give a folder of its own"),
        ({"out": "tree/../tree"}, "is data_dir: give a folder of its own"),
    ],
)
def test_bad_arguments(export, out, options, message, tree):
    if "out" in options:
        options = {"out": tree.parent / options["out"]}
    with pytest.raises(ValueError, match=message):
        export(**options)
    assert not out.exists()


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Enough cases, of some size, to be stopped in the middle of."""
    return options_of_many(tmp_path_factory.mktemp("many"))


@pytest.fixture(scope="module")
def undisturbed(many, tmp_path_factory):
    """What their export is when nothing happens."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    ctspine1k.export_parquet(out, **many)
    return out


@pytest.mark.parametrize("num_proc", [1, 2])
def test_an_export_that_is_killed_goes_on_where_it_was(many, undisturbed, out, num_proc):
    options = many
    process = start(out, {**options, "num_proc": num_proc})
    wait_until(lambda: len(shards_in(out)) >= 3)
    process.kill()
    process.communicate()
    assert not (out / "manifest.json").exists()
    made, kept, failed = finish(out, options)
    assert (made + kept, failed) == (32, {})
    assert kept >= 3 - num_proc  # the last of each process may have had no record yet
    assert same(out, undisturbed)


@pytest.mark.parametrize("num_proc", [1, 2])
def test_a_stop_says_how_far_it_was_and_leaves_nothing_half(many, out, num_proc):
    options = many
    arguments = ["--cases-per-shard", "1", "--image-size", "160", "150", "--num-proc", str(num_proc)]
    arguments += [word for case_id in options["case"] for word in ("--case", case_id)]
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "ctspine1k",
            "export",
            "parquet",
            out,
            "--data-dir",
            options["data_dir"],
            *arguments,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: len(shards_in(out)) >= 3)
    process.send_signal(signal.SIGINT)
    printed, told = process.communicate(timeout=60)
    assert (process.returncode, printed) == (130, "")
    told = told.strip().splitlines()[-1]
    done = re.fullmatch(r"stopped: (\d+) of 32 shards are made; run again to go on from there", told)
    assert done, told
    assert list((out / ".ctspine1k/scratch").iterdir()) == []
    assert not (out / ".export.lock").exists()
    made, kept, _ = finish(out, options)
    assert made + kept == 32
    assert kept >= int(done[1])  # a shard may be done that was not told of yet


def test_the_second_of_two_says_so_and_stops(many, out):
    options = many
    process = start(out, options)
    wait_until(lambda: len(shards_in(out)) >= 1)
    with pytest.raises(BusyError, match="found another process at it"):
        ctspine1k.export_parquet(out, **options)
    printed, told = process.communicate(timeout=120)
    assert json.loads(printed) == [32, 0, {}], told


def test_a_worker_that_is_killed_is_told_and_what_is_done_is_kept(many, out):
    options = many
    process = start(out, {**options, "num_proc": 2})
    wait_until(lambda: len(shards_in(out)) >= 2)
    children = subprocess.run(
        ["pgrep", "-P", str(process.pid), "-f", "spawn_main"], capture_output=True, text=True, check=True
    )
    os.kill(int(children.stdout.split()[0]), signal.SIGKILL)
    _, told = process.communicate(timeout=60)
    assert "a worker process died before it was done, with 2 at work" in told
    _, kept, _ = finish(out, options)
    assert kept >= 1


def small(tree, split_file):
    return options_of(tree, split_file, cases_per_shard=1)


def test_kills_at_random_moments_leave_no_trace(many, undisturbed, out):
    _, halves = kill_again_and_again(undisturbed, out, many, kills=4, seed=5)
    assert halves >= 2


def test_a_kill_before_any_change_of_a_file_leaves_no_trace(tree, split_file, tmp_path):
    """Some of them: `make chaos` tries each."""
    options = small(tree, split_file)
    ctspine1k.export_parquet(tmp_path / "whole", **options)
    (tmp_path / "steps").mkdir()
    assert stop_at_every_step(tmp_path / "whole", tmp_path / "steps", options, first=3, step=17) >= 5


def test_too_small_a_disk_is_told_before_anything_is_done(export, out, tree):
    os.truncate(next(tree.rglob("liver_106.nii.gz")), 15 * 10**12)  # of which the disk holds nothing
    with pytest.raises(
        NoSpaceError, match=r"expected room for an export of 30,000\.00 GB, found [\d,.]+ GB free"
    ):
        export()
    assert shards_in(out) == []


def test_a_disk_that_fills_up_leaves_no_broken_shard(small_disk, export, tmp_path):
    out = small_disk.root / "out"
    export(out, config="3d", cases_per_shard=1)
    for path in (out / "manifest.json", out / "README.md", out / "cases.parquet", *shards_in(out)[1:]):
        path.unlink()
    small_disk.fill()
    with pytest.raises(
        NoSpaceError, match=r"small/out/.* Make room there, or select fewer cases, and run again"
    ):
        export(out, config="3d", cases_per_shard=1)
    small_disk.empty()
    report = export(out, config="3d", cases_per_shard=1)
    assert report.made + report.kept == 4
    export(tmp_path / "whole", config="3d", cases_per_shard=1)
    assert same(out, tmp_path / "whole")


def test_shards_that_are_not_there_are_not_said_to_be(export):
    """Each process has a memory of its own."""
    with pytest.raises(WorkerError, match=r"found none: .* Processes and workers must share the folder"):
        export("memory://nowhere/out", num_proc=2)


def test_a_shard_that_is_taken_away_meanwhile_is_not_said_to_be_there(many, out):
    options = many
    process = start(out, options)
    wait_until(lambda: len(shards_in(out)) >= 3)
    shards_in(out)[0].unlink()
    _, told = process.communicate(timeout=120)
    assert "expected the shards that were made, found none, or others, at" in told
    assert not (out / "manifest.json").exists()
    assert finish(out, options)[:2] == [1, 31]


def test_a_full_disk_is_told_wherever_it_shows(small_disk, export):
    small_disk.fill_up()
    with pytest.raises(NoSpaceError, match=r"expected room for an export of [\d.]+ MB"):
        export(small_disk.root / "out", config="3d")


def test_a_folder_whose_name_is_not_utf8(export, tmp_path, out):
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/o\xff"))
    assert export(odd).ok
    export(out)
    assert same(odd, out)


@pytest.mark.cluster
def test_a_cluster_does_the_same_and_outlives_lost_workers(many, undisturbed, out, tmp_path):
    options = many
    with cluster_of("one", "two", folder=tmp_path) as cluster:
        process = start(out, {**options, "scheduler": cluster.address})
        wait_until(lambda: len(shards_in(out)) >= 3)
        cluster.workers["one"].kill()
        wait_until(lambda: len(shards_in(out)) >= 6)
        cluster.workers["two"].kill()
        cluster.workers["two"].wait()
        assert len(shards_in(out)) < 32  # so that there is something left for the one that comes late
        with worker(tmp_path, cluster.address, "late"):
            printed, told = process.communicate(timeout=120)
        assert json.loads(printed) == [32, 0, {}], told
    assert same(out, undisturbed)


def stored(url):
    """The files of a folder at a URL."""
    filesystem, root = fsspec.core.url_to_fs(url)
    filesystem.invalidate_cache()
    return {path.removeprefix(f"{root}/"): filesystem.cat_file(path) for path in filesystem.find(root)}


@pytest.mark.cluster
def test_a_cluster_takes_from_the_hub_and_gives_to_an_object_store(
    export, tmp_path, repo_id, hub, s3, split_file, shared_cluster
):
    shared_cluster.set_environment(
        **{name: os.environ[name] for name in os.environ if name.startswith("AWS_")}
    )
    hub.faults["liver_106.nii.gz"] = [429, 500, {"cut_after": 50}]
    hub.faults["HN_P023_seg.nii.gz"] = [500]
    options = {"repo_id": repo_id, "cases_per_shard": 1}
    report = export(f"{s3}/a/b", **options, scheduler=shared_cluster.address)
    assert (report.made, report.failed) == (8, {})
    assert export(f"{s3}/a/b", **options, scheduler=shared_cluster.address, verify=True).kept == 8
    assert [faults for faults in hub.faults.values() if faults] == []
    export(tmp_path / "whole", **options)
    assert stored(f"{s3}/a/b") == files_of(tmp_path / "whole")


def test_an_export_to_an_object_store_goes_on_after_a_kill(many, undisturbed, s3):
    options = many
    process = start(f"{s3}/out", options)
    filesystem = fsspec.filesystem("s3")

    def are_there():
        filesystem.invalidate_cache()
        return len(filesystem.glob(f"{s3}/out/*/*/*.parquet")) >= 3

    wait_until(are_there)
    process.kill()
    process.communicate()
    made, kept, failed = finish(f"{s3}/out", options)
    assert (made + kept, failed) == (32, {})
    assert kept >= 2
    assert stored(f"{s3}/out") == files_of(undisturbed)


def test_raw_files_of_both_configs_are_counted_once(export, repo_id, tree, monkeypatch):
    raw = sum(len(data) for data in files_of(tree).values())
    place = Path(os.environ["HF_HOME"]) / "hub"
    monkeypatch.setattr("ctspine1k.files.sources.free_space", lambda: (raw * 3 // 2, place))
    assert export(repo_id=repo_id).ok


@pytest.mark.cluster
def test_a_scheduler_that_is_lost_is_told_and_what_is_done_is_kept(many, out, tmp_path):
    options = many
    with cluster_of("one", "two", folder=tmp_path) as cluster:
        process = start(out, {**options, "scheduler": str(cluster.file)})
        wait_until(lambda: len(shards_in(out)) >= 3)
    _, told = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "expected a Dask scheduler, found none, or lost it" in told
    _, kept, _ = finish(out, options)
    assert kept >= 1  # of each worker's last shard there may be no record yet


@pytest.mark.cluster
def test_a_run_right_after_a_stopped_one_on_a_cluster(many, out, tmp_path, shared_cluster):
    """Its tasks may go on: whatever they do, the second run's options are what is there in the end."""
    options = many
    process = start(out, {**options, "scheduler": shared_cluster.address})
    wait_until(lambda: len(shards_in(out)) >= 3)
    process.kill()
    process.communicate()
    address = shared_cluster.address
    report = ctspine1k.export_parquet(out, **options, label_scheme="binary", scheduler=address)
    assert (report.made, report.kept) == (32, 0)
    ctspine1k.export_parquet(tmp_path / "whole", **options, label_scheme="binary")
    assert same(out, tmp_path / "whole")


def test_a_hub_that_is_away_stops_the_export_and_what_is_done_is_kept(export, out, repo_id, hub, monkeypatch):
    monkeypatch.setattr("ctspine1k.exports.shards.retry", partial(retry, pauses=(0.01,)))
    hub.faults["1.3.6.1.4.1.9328.50.4.0650.nii.gz"] = [500] * 9
    with pytest.raises(HubError):
        export(repo_id=repo_id, config="3d")
    hub.faults.clear()
    report = export(repo_id=repo_id, config="3d")
    assert (report.made, report.kept) == (1, 2)


def test_wrong_bytes_from_the_hub_are_never_exported(export, out, repo_id, hub):
    hub.faults["liver_106.nii.gz"] = [b"x"]
    report = export(repo_id=repo_id, config="3d")
    assert list(report.failed) == ["liver_106 (3d/train/00000-of-00001.parquet)"]
    assert "the Hub says" in next(iter(report.failed.values()))
    assert not (out / "3d/train").exists()


def test_real_ct(sample, tmp_path, load, name):
    options = {"data_dir": sample, "split_file": sample / "metadata/data_split.txt"}
    report = ctspine1k.export_parquet(tmp_path / "out", config=name, **options)
    there = ctspine1k.load_dataset(name, cache_dir=tmp_path / "cache", **options)
    raw = sum(path.stat().st_size for path in sample.rglob("*.nii.gz"))
    assert sum(size.bytes for size in report.sizes) <= 1.05 * raw
    assert sum(split.dataset_size for split in there.values()) >= 6 * sum(size.bytes for size in report.sizes)
    for split in there:
        assert identical(rows(loaded(tmp_path / "out", name, split=split)), rows(there[split]))
