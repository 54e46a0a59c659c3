import hashlib
import json
import os
import time
from dataclasses import asdict, replace

import pytest

from ctspine1k.errors import OutputError, WorkerError
from ctspine1k.exports.ledger import (
    MANIFEST,
    ShardRecord,
    begin,
    check_run,
    finish,
    forget,
    is_export,
    note,
    read_records,
    withdraw,
)
from ctspine1k.exports.opening import open_target


def record(path, inputs="a"):
    return ShardRecord(
        path=path,
        inputs=inputs,
        rows=3,
        bytes=100,
        arrow_bytes=1000,
        sha256="00",
        cases=["liver_106"],
        skipped={"liver_0": "why"},
        misplaced=[],
        policy="",
        files={f"{path}.nii.gz": {"bytes": 1, "sha256": "11"}, "shared.nii.gz": {"bytes": 2, "sha256": "22"}},
        versions={"ctspine1k": "1"},
    )


A, B = record("3d/train/00000-of-00002.parquet"), record("3d/train/00001-of-00002.parquet")


def edited(**changes):
    return {**asdict(A), "files": [], **changes}


def make(folder, path, size=100):
    with folder.atomic_write(path) as file:
        file.write_bytes(bytes(size))


@pytest.fixture
def folder(tmp_path):
    """With the shards of A and B."""
    folder = open_target(tmp_path / "out")
    make(folder, A.path)
    make(folder, B.path)
    folder.clear()
    return folder


def known(folder):
    return {path: found.record for path, found in read_records(folder, folder.files()).items()}


def test_what_is_noted_is_known_until_work_begins_anew(folder):
    assert not is_export(folder.files())
    begin(folder, [], "run")
    assert is_export(folder.files())
    note(folder, A)
    note(folder, B)
    assert known(folder) == {A.path: A, B.path: B}
    begin(folder, [B], "run")
    assert known(folder) == {B.path: B}


def test_what_was_noted_last_counts(folder):
    begin(folder, [A], "run")
    again = record(A.path, inputs="b")
    note(folder, again)
    assert known(folder) == {A.path: again}


def test_a_shard_that_is_forgotten_is_unknown_until_it_is_noted(folder):
    begin(folder, [A, B], "run")
    forget(folder, A.path)
    assert known(folder) == {B.path: B}
    note(folder, A)
    assert known(folder) == {A.path: A, B.path: B}


def test_a_record_is_of_a_shard_that_is_there_and_has_its_size(folder):
    begin(folder, [A, B], "run")
    folder.remove([A.path])
    make(folder, B.path, size=99)
    assert known(folder) == {}


def test_a_shard_that_is_younger_than_its_record_may_be_another_one(folder):
    begin(folder, [A, B], "run")
    os.utime(folder.root / B.path, (time.time() + 9, time.time() + 9))
    found = read_records(folder, folder.files())
    assert {path: one.is_sure for path, one in found.items()} == {A.path: True, B.path: False}


def test_shards_may_be_of_other_states_of_the_same_raw_file(folder):
    other = replace(B, files={"shared.nii.gz": {"bytes": 2, "sha256": "33"}})
    begin(folder, [A, other], "run")
    assert known(folder) == {A.path: A, B.path: other}
    note(folder, A)
    assert known(folder) == {A.path: A, B.path: other}


def test_a_task_of_the_run_before_that_is_still_busy_is_told(folder):
    begin(folder, [A, B], "first")
    kept = list(known(folder).values())
    forget(folder, A.path)  # a task of the first
    make(folder, A.path, size=100)
    other = record(A.path, inputs="other")
    note(folder, other)
    with pytest.raises(WorkerError, match=rf"found others at {A.path}: a worker of a run that was stopped"):
        begin(folder, kept, "second")
    assert known(folder) == {A.path: other, B.path: B}


def test_where_there_is_a_manifest_it_alone_counts(folder):
    """The rest may have been about to be deleted when a run was killed."""
    begin(folder, [record(A.path, inputs="old")], "run")
    left = folder.read(".ctspine1k/kept.json")
    finish(folder, {}, [A, B])
    with folder.atomic_write(".ctspine1k/kept.json") as path:
        path.write_bytes(left)
    forget(folder, B.path)
    assert known(folder) == {A.path: A, B.path: B}


@pytest.mark.parametrize("recorded", [True, False])
def test_a_shard_that_came_too_late_is_taken_away_unless_it_is_the_one(folder, recorded):
    late = replace(A, sha256=hashlib.sha256(bytes(100)).hexdigest())
    finish(folder, {}, [late if recorded else A, B])
    withdraw(folder, late)
    assert (A.path in folder.files()) is recorded
    withdraw(folder, replace(B, sha256="77"))  # another one has come after it
    assert B.path in folder.files()


def test_in_the_end_there_is_one_file_that_says_all(folder):
    begin(folder, [A], "run")
    note(folder, B)
    finish(folder, {"source": {"folder": "tree"}}, [A, B])
    assert set(folder.files()) == {A.path, B.path, MANIFEST}
    assert known(folder) == {A.path: A, B.path: B}
    manifest = json.loads(folder.read(MANIFEST))
    assert manifest["ctspine1k_export"] == 1
    assert manifest["source"] == {"folder": "tree"}
    assert manifest["files"]["shared.nii.gz"] == {"bytes": 2, "sha256": "22"}
    assert manifest["shards"][1]["files"] == [f"{B.path}.nii.gz", "shared.nii.gz"]


def test_while_shards_are_made_nothing_says_that_the_export_is_whole(folder):
    begin(folder, [], "run")
    finish(folder, {}, [A, B])
    begin(folder, [A], "run")
    assert MANIFEST not in folder.files()
    assert known(folder) == {A.path: A}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("{", "found something else"),
        ("[]", "found something else"),
        ('{"name": "another"}', "found something else"),
        ('{"ctspine1k_export": 2}', "found format 2"),
        ('{"ctspine1k_export": 1, "files": {}, "shards": [{"path": "x"}]}', "found something else"),
        (json.dumps({"ctspine1k_export": 1, "files": {}, "shards": [edited(rows="6")]}), "found something"),
        (json.dumps({"ctspine1k_export": 1, "files": {}, "shards": [edited(skipped=None)]}), "found some"),
        ("[" * 100_000, "found something else"),
    ],
)
def test_another_manifest_is_refused(folder, text, found):
    with folder.atomic_write(MANIFEST) as path:
        path.write_text(text)
    with pytest.raises(OutputError, match=rf"manifest\.json: expected the manifest of an export.*{found}"):
        known(folder)


def test_a_record_that_was_cut_off_is_none(folder):
    begin(folder, [A], "run")
    note(folder, B)
    (name,) = [name for name in folder.files() if "/done/" in name]
    with folder.atomic_write(name) as path:
        path.write_text("{")
    assert known(folder) == {A.path: A}
    with folder.atomic_write(".ctspine1k/kept.json") as path:
        path.write_text("[]")
    assert known(folder) == {}


def test_an_export_is_of_the_run_that_began_last(folder):
    begin(folder, [], "first")
    check_run(folder, "first")
    begin(folder, [], "second")
    with pytest.raises(WorkerError, match="expected the run that this shard belongs to, found another one"):
        check_run(folder, "first")
    finish(folder, {}, [])
    with pytest.raises(WorkerError):
        check_run(folder, "second")
