"""Runs of an export: what is kept, what is made again, what is refused, and what is said of it."""

import os
import time
from pathlib import Path

import datasets
import pytest
from support.compare import identical, rows, wanted
from support.exports import ByPickle, Elsewhere, SmallTarget, StoppedAfter, StoppedAt, same, shards_in
from support.processes import wait_until
from support.volumes import ALL_IDS, IDS, break_case, files_of, intensities, save, save_case

from ctspine1k.errors import (
    CTSpine1KWarning,
    HubError,
    MissingFilesError,
    NoSpaceError,
    NothingLeftError,
    OutputError,
    WorkerError,
)
from ctspine1k.running.cluster import Dask


def loaded(out, name, **options):
    """The rows as `datasets` loads them, from a folder or a repo, in a cache of its own."""
    return datasets.load_dataset(str(out), name=name, **options)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")


def times(out):
    return {path: path.stat().st_mtime_ns for path in out.rglob("*.parquet") if path.parent != out}


def test_a_second_run_makes_nothing(export, out):
    export()
    before, written = files_of(out), times(out)
    report = export()
    assert (report.made, report.kept) == (0, 6)
    assert report.sizes == export(verify=True).sizes
    assert (files_of(out), times(out)) == (before, written)


@pytest.mark.slow
def test_a_run_without_the_manifest_makes_all_anew_or_refuses(export, out):
    export()
    before = files_of(out)
    (out / "manifest.json").unlink()
    with pytest.raises(
        OutputError, match=r"expected a new or an empty folder, or an export, found README\.md"
    ):
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_shards_of_other_options_are_made_anew(export, out, load):
    export(config="2d")
    assert len(remade(out, export, config="2d", geometry=True)) == 3
    assert identical(rows(loaded(out, "2d", split="test")), rows(load("2d", split="test", geometry=True)))


def test_options_given_by_mistake_cost_only_the_shards_that_are_made(export, out):
    export(config="2d", cases_per_shard=1)
    before = files_of(out)
    with pytest.raises(KeyboardInterrupt, match="0 of 4 shards are made; run again to resume"):
        export(config="2d", cases_per_shard=1, geometry=True, workers=StoppedAfter(0))
    report = export(config="2d", cases_per_shard=1)
    assert (report.made, report.kept) == (0, 4)
    assert files_of(out) == before
    with pytest.raises(KeyboardInterrupt, match="1 of 4 shards are made"):
        export(config="2d", cases_per_shard=1, geometry=True, workers=StoppedAfter(1))
    assert remade(out, export, config="2d", cases_per_shard=1) == {"2d/train/00000-of-00002.parquet"}
    assert files_of(out) == before


def test_a_shard_that_was_about_to_be_replaced_is_not_believed(export, out):
    """Where a file system tells no times, a record of the old one could be taken for one of the new."""
    export(config="2d", cases_per_shard=1)
    before = files_of(out)
    with pytest.raises(KeyboardInterrupt):
        export(StoppedAt(out, "/done/"), config="2d", cases_per_shard=1, label_scheme="binary")
    report = export(config="2d", cases_per_shard=1)
    assert (report.made, report.kept) == (1, 3)
    assert files_of(out) == before


@pytest.mark.slow
def test_a_scheduler_that_is_not_there_changes_nothing(export, out):
    export(config="2d")
    before = files_of(out)
    with (
        pytest.warns(CTSpine1KWarning, match="not a scheduler file yet"),
        pytest.raises(WorkerError, match="expected a Dask scheduler, found none"),
    ):
        export(config="2d", geometry=True, workers=Dask("schedler.json", patience=0.1))
    assert files_of(out) == before


def test_shards_that_are_replaced_make_room(export, out, tree):
    export(config="3d", cases_per_shard=1)
    room = sum(path.stat().st_size for path in tree.rglob("*.nii.gz")) * 3 // 4
    with pytest.raises(NoSpaceError, match="expected room for an export"):
        export(SmallTarget(tree.parent / "new", room), config="3d", cases_per_shard=1)
    assert export(SmallTarget(out, room), config="3d", cases_per_shard=1, label_scheme="binary").made == 4


def test_shards_that_were_bad_make_no_room_twice(export, out, tree):
    export(config="3d", cases_per_shard=1)
    room = sum(path.stat().st_size for path in tree.rglob("*.nii.gz")) * 3 // 4
    for path in shards_in(out):
        path.write_bytes(spoil(path))
        os.utime(path, (time.time() + 9, time.time() + 9))
    with pytest.raises(NoSpaceError, match="expected room for an export"):
        export(SmallTarget(out, room), config="3d", cases_per_shard=1)
    assert shards_in(out) == []


def test_folders_that_a_killed_run_has_left_empty_go(export, out, tmp_path):
    (out / "2d/train").mkdir(parents=True)
    export(config="3d")
    export(tmp_path / "at_once", config="3d")
    assert same(out, tmp_path / "at_once")


def test_a_cache_that_is_full_is_told_as_that(export, out, repo_id, monkeypatch):
    free = iter([10**12, 10**12, *[0] * 99])
    monkeypatch.setattr("ctspine1k.files.hub.hub_space", lambda: (next(free), Path("/small/cache")))
    with pytest.raises(NoSpaceError, match=r"^/small/cache: expected room for a download.*set HF_HUB_CACHE"):
        export(repo_id=repo_id)


def test_a_config_that_comes_later_leaves_the_other(export, out, tmp_path):
    export(config="3d")
    assert {path.split("/")[0] for path in remade(out, export)} == {"2d"}
    export(tmp_path / "at_once")
    assert same(out, tmp_path / "at_once")


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
    assert export(config="2d", verify=True, workers=ByPickle()).made == 1
    assert files_of(out) == before
    path.unlink()
    path.symlink_to("/proc/self/mem")  # which cannot be read from its start
    assert export(config="2d", verify=True).made == 1
    assert files_of(out) == before


def test_a_shard_that_verify_found_bad_is_not_believed_by_the_next_run(export, out):
    export(config="2d")
    before = files_of(out)
    path = out / "2d/train/00000-of-00001.parquet"
    spoil_unseen(path)
    with pytest.raises(KeyboardInterrupt):
        export(StoppedAt(out, "kept.json"), config="2d", verify=True)
    assert export(config="2d").made == 1
    assert files_of(out) == before


def test_another_selection_does_not_go_into_the_same_folder(export, out):
    export(config="2d")
    before = files_of(out)
    with pytest.raises(
        OutputError, match=r"expected shards of the cases, configs and cases_per_shard given.*found 2d/"
    ):
        export(config="2d", cases="liver_106")
    with pytest.raises(
        OutputError, match="Choose another folder, give the same cases and options as before, or"
    ):
        export(config="3d")
    with pytest.raises(OutputError, match="cases_per_shard"):
        export(config="2d", cases_per_shard=1)
    assert files_of(out) == before


def test_other_cases_do_not_replace_shards_of_the_same_name(export, out):
    first, second = IDS["train"]
    export(config="2d", cases=first)
    before = files_of(out)
    with pytest.raises(OutputError, match=r"found 2d/train/00000-of-00001\.parquet\. Choose another"):
        export(config="2d", cases=second)
    assert files_of(out) == before


def test_what_is_not_ours_is_not_replaced(export, out):
    out.mkdir()
    (out / "README.md").write_text("mine")
    with pytest.raises(OutputError, match=r"found README\.md. Choose another folder"):
        export()
    assert files_of(out) == {"README.md": b"mine"}
    (out / "README.md").rename(out / "notes.txt")
    assert export().ok
    assert (out / "notes.txt").read_text() == "mine"


def test_a_broken_case_fails_its_shards_alone(export, out, tree):
    break_case(tree, "HN_P023")
    report = export(workers=ByPickle())
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


@pytest.mark.slow
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
        export("memory://nowhere/out", workers=Elsewhere())


def test_a_full_disk_is_told_wherever_it_shows(small_disk, export):
    small_disk.fill_up()
    with pytest.raises(NoSpaceError, match=r"expected room for an export of [\d.]+ MB"):
        export(small_disk.root / "out", config="3d")


def test_raw_files_of_both_configs_are_counted_once(export, repo_id, tree, monkeypatch):
    raw = sum(len(data) for data in files_of(tree).values())
    place = Path(os.environ["HF_HOME"]) / "hub"
    monkeypatch.setattr("ctspine1k.files.hub.hub_space", lambda: (raw * 3 // 2, place))
    assert export(repo_id=repo_id).ok


def test_a_hub_that_is_away_stops_the_export_and_what_is_done_is_kept(export, out, repo_id, hub):
    hub.faults["1.3.6.1.4.1.9328.50.4.0650.nii.gz"] = [500] * 9
    with pytest.raises(HubError):
        export(repo_id=repo_id, config="3d", pauses=(0.01,))
    hub.faults.clear()
    report = export(repo_id=repo_id, config="3d")
    assert (report.made, report.kept) == (1, 2)


def test_wrong_bytes_from_the_hub_are_never_exported(export, out, repo_id, hub):
    hub.faults["liver_106.nii.gz"] = [b"x"]
    report = export(repo_id=repo_id, config="3d")
    assert list(report.failed) == ["liver_106 (3d/train/00000-of-00001.parquet)"]
    assert "the Hub says" in next(iter(report.failed.values()))
    assert not (out / "3d/train").exists()
