"""Exports that are killed, stopped or disturbed: what is left of them, and what the next run makes of it."""

import os
import re
import signal
import threading

import fsspec
import pytest
from support.cluster import cluster_of, worker
from support.exports import (
    Gate,
    ended,
    export_parquet,
    finish,
    options_of_many,
    same,
    shards_in,
    start,
)
from support.forks import fork
from support.processes import interrupt_at, wait_until
from support.volumes import files_of

from ctspine1k.errors import BusyError

pytestmark = pytest.mark.processes


@pytest.fixture
def gate(tmp_path):
    """What lets three shards pass."""
    return Gate(tmp_path / "gate", 3)


def test_an_export_that_is_killed_goes_on_where_it_was(many, undisturbed, out, gate):
    process = start(out, {**many, "num_proc": 2}, gate)
    gate.wait_for(2)
    process.kill()
    there = len(shards_in(out))
    assert 3 <= there <= 4
    assert not (out / "manifest.json").exists()
    assert finish(out, many) == [12 - there, there, {}]
    assert same(out, undisturbed)


def command_of(out, options, num_proc):
    """The words of the command line for an export."""
    words = ["export", "parquet", str(out), "--data-dir", options["data_dir"], "--cases-per-shard", "1"]
    words += ["--image-size", *map(str, options["image_size"]), "--num-proc", str(num_proc)]
    return words + [word for case_id in options["cases"] for word in ("--case", case_id)]


@pytest.mark.parametrize(("num_proc", "number"), [(1, signal.SIGTERM), (2, signal.SIGINT)])
def test_a_stop_says_how_far_it_was_and_leaves_nothing_half(many, undisturbed, out, gate, num_proc, number):
    process = fork("support.exports:command_there", command_of(out, many, num_proc), str(gate.folder))
    gate.wait_for(num_proc)
    process.send_signal(number)
    status = process.wait()
    printed, told = process.printed
    assert (status, printed) == (130, "")
    told = told.strip().splitlines()[-1]
    done = re.fullmatch(r"stopped: (\d+) of 12 shards are made; run again to resume", told)
    assert done, told
    assert list((out / ".ctspine1k/scratch").iterdir()) == []
    assert not (out / ".export.lock").exists()
    there = len(shards_in(out))
    assert 3 <= there <= 2 + num_proc
    assert there >= int(done[1])  # a shard may be done whose outcome had not arrived yet
    assert finish(out, many) == [12 - there, there, {}]
    assert same(out, undisturbed)


@pytest.mark.parametrize(
    ("file", "function", "event"),
    [
        # Python loses what a destructor raises, and goes on: of nibabel, and of isal's file.
        ("nibabel/externals/oset.py", "__del__", "return"),
        ("/gzip.py", "close", "return"),
        # Arrow makes another error of it.
        ("datasets/features/features.py", "__arrow_ext_deserialize__", "call"),
        # There is a folder that nobody knows yet, or one that is about to go.
        ("/tempfile.py", "mkdtemp", "return"),
        ("/tempfile.py", "_rmtree", "call"),
        ("/shutil.py", "_rmtree_safe_fd", "return"),
        # A lock is taken, which a thread waits for.
        ("/threading.py", "__enter__", "return"),
        ("running/disk.py", "_flush", "return"),
        ("exports/ledger.py", "check_run", "return"),
    ],
)
def test_wherever_a_stop_falls_it_says_how_far_it_was_and_leaves_nothing_half(
    export, out, tmp_path, file, function, event
):
    with (
        interrupt_at(file, function, event, lambda: len(shards_in(out)) >= 2),
        pytest.raises(KeyboardInterrupt, match=r"^[2-7] of 8 shards are made; run again to resume$"),
    ):
        export(cases_per_shard=1)
    assert list((out / ".ctspine1k/scratch").iterdir()) == []
    assert not (out / ".export.lock").exists()
    there = len(shards_in(out))
    report = export(cases_per_shard=1)
    assert (report.made, report.kept) == (8 - there, there)
    export(tmp_path / "whole", cases_per_shard=1)
    assert same(out, tmp_path / "whole")


def test_the_second_of_two_says_so_and_stops(many, out, gate):
    process = start(out, many, gate)
    gate.wait_for()
    with pytest.raises(BusyError) as told:
        export_parquet(out, **many)
    assert (told.value.path, told.value.who) == (str(out), "another process")
    gate.open()
    assert ended(process) == [12, 0, {}]


def test_a_worker_that_is_killed_is_told_and_what_is_done_is_kept(many, out, gate):
    process = start(out, {**many, "num_proc": 2}, gate)
    gate.wait_for(2)
    os.kill(gate.held()[0], signal.SIGKILL)
    assert process.wait() == 1
    assert "a worker process died before it was done, with 2 at work" in process.printed[1]
    there = len(shards_in(out))
    assert there >= 3
    assert finish(out, many) == [12 - there, there, {}]


def test_a_shard_that_is_taken_away_meanwhile_is_not_said_to_be_there(many, out, gate):
    process = start(out, many, gate)
    gate.wait_for()
    shards_in(out)[0].unlink()
    gate.open()
    assert process.wait() == 1
    assert "expected the shards that were made, found none, or others, at" in process.printed[1]
    assert not (out / "manifest.json").exists()
    assert finish(out, many)[:2] == [1, 11]


@pytest.mark.cluster
def test_a_cluster_does_the_same_and_outlives_lost_workers(many, undisturbed, out, tmp_path, gate):
    with cluster_of("one", "two", folder=tmp_path) as cluster:
        process = start(out, {**many, "scheduler": cluster.address}, gate)
        gate.wait_for(2)
        cluster.workers["one"].kill()
        gate.open(6)
        wait_until(lambda: len(shards_in(out)) >= 6)
        cluster.workers["two"].kill()
        cluster.workers["two"].wait()
        assert len(shards_in(out)) < 12  # so that there is something left for the one that comes late
        gate.open()
        with worker(tmp_path, cluster.address, "late"):
            assert ended(process) == [12, 0, {}]
    assert same(out, undisturbed)


def stored(url):
    """The files of a folder at a URL."""
    filesystem, root = fsspec.core.url_to_fs(url)
    filesystem.invalidate_cache()
    return {path.removeprefix(f"{root}/"): filesystem.cat_file(path) for path in filesystem.find(root)}


@pytest.mark.cluster
def test_a_cluster_takes_from_the_hub_and_gives_to_an_object_store(
    export, tmp_path, repo_id, hub, s3, shared_cluster
):
    shared_cluster.set_environment(
        **{name: os.environ[name] for name in os.environ if name.startswith("AWS_")}
    )
    hub.faults["liver_106.nii.gz"] = [429, 500, {"cut_after": 50}]
    hub.faults["HN_P023_seg.nii.gz"] = [500]
    options = {"repo_id": repo_id, "cases_per_shard": 1}
    report = export(f"{s3}/a/b", **options, scheduler=shared_cluster.address, pauses=(0.05, 0.05, 0.05))
    assert (report.made, report.failed) == (8, {})
    assert export(f"{s3}/a/b", **options, scheduler=shared_cluster.address, verify=True).kept == 8
    assert [faults for faults in hub.faults.values() if faults] == []
    export(tmp_path / "whole", **options)
    assert stored(f"{s3}/a/b") == files_of(tmp_path / "whole")


def test_an_export_to_an_object_store_goes_on_after_a_kill(tmp_path, s3, gate):
    options = options_of_many(tmp_path / "raw", 3)
    process = start(f"{s3}/out", options, gate)
    gate.wait_for()
    process.kill()
    assert finish(f"{s3}/out", options) == [3, 3, {}]
    export_parquet(tmp_path / "whole", **options)
    assert stored(f"{s3}/out") == files_of(tmp_path / "whole")


@pytest.mark.cluster
def test_a_scheduler_that_is_lost_is_told_and_what_is_done_is_kept(many, out, tmp_path, gate):
    with cluster_of("one", "two", folder=tmp_path) as cluster:
        process = start(out, {**many, "scheduler": str(cluster.file)}, gate)
        gate.wait_for(2)
    assert process.wait() == 1
    assert "expected a Dask scheduler, found none, or lost it" in process.printed[1]
    there = len(shards_in(out))
    assert there >= 3
    assert finish(out, many) == [12 - there, there, {}]


@pytest.mark.cluster
def test_a_run_right_after_a_stopped_one_on_a_cluster(many, out, tmp_path, gate, shared_cluster):
    """Its tasks may go on: whatever they do, the second run's options are what is there in the end."""
    process = start(out, {**many, "scheduler": shared_cluster.address}, gate)
    gate.wait_for(2)
    process.kill()
    kept = out / ".ctspine1k/kept.json"
    first = kept.read_bytes()

    def go_on():  # when the second run has begun
        wait_until(lambda: kept.exists() and kept.read_bytes() != first)
        gate.open()

    others = threading.Thread(target=go_on)
    others.start()
    options = {**many, "label_scheme": "binary"}
    report = export_parquet(out, **options, scheduler=shared_cluster.address)
    others.join()
    assert (report.made, report.kept) == (12, 0)
    export_parquet(tmp_path / "whole", **options)
    assert same(out, tmp_path / "whole")
