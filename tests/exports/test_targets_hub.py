"""A folder in a Hub repo: `huggingface_hub` of the real thing, uploads and all, on loopback."""

import hashlib
import json
import os
import re
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import datasets
import huggingface_hub
import pytest
from support.compare import identical, rows, wanted
from support.exports import export_parquet
from support.forks import fork
from support.paths import ROOT
from support.volumes import IDS, SIZE, files_of

from ctspine1k.errors import BusyError, OutputError
from ctspine1k.exports.opening import open_target
from ctspine1k.exports.targets import WORKING, Entry

# What huggingface_hub 2 does where it uploads without Xet, as to our Hub.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture
def target(hub, publish, tmp_path, monkeypatch):
    """A private Hub repo as it is when it is new, and we are logged in."""
    (tmp_path / "new").mkdir()
    (tmp_path / "new/.gitattributes").write_text("*.parquet filter=lfs diff=lfs merge=lfs -text\n")
    repo_id = publish(tmp_path / "new")
    hub.repos[repo_id].token = "hf_secret"
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    return repo_id


@pytest.fixture(params=["", "/some/folder"])
def folder(target, request):
    """All of that repo, or a folder in it that is not there yet."""
    return open_target(f"hf://datasets/{target}{request.param}")


def files_at(hub, repo_id):
    repo = hub.repos[repo_id]
    return {name: data for name, data in repo.commits[repo.refs["main"]].items() if name != ".gitattributes"}


def listed(folder):
    return {name: entry for name, entry in folder.files().items() if name != ".gitattributes"}


def put(folder, name, data):
    with folder.atomic_write(name) as path:
        path.write_bytes(data)


def fail(folder, name):
    with folder.atomic_write(name) as path:
        path.write_bytes(b"half")
        raise RuntimeError


# A large file goes by another way than a small one does, and an empty one is small wherever it goes.
@pytest.mark.parametrize("name", ["a.json", "3d/train/a.parquet"])
@pytest.mark.parametrize("data", [b"", b"some bytes", bytes(range(256)) * 40_000])
def test_a_file_is_written_listed_read_and_removed(hub, target, folder, name, data):
    assert listed(folder) == {}
    put(folder, name, data)
    assert listed(folder) == {name: Entry(len(data), None)}
    assert list(files_at(hub, target).values()) == [data]
    assert folder.read(name) == data
    assert folder.sha256_of(name) == hashlib.sha256(data).hexdigest()
    folder.remove([name])
    assert listed(folder) == files_at(hub, target) == {}
    assert folder.sha256_of(name) is None
    with pytest.raises(FileNotFoundError, match=target):
        folder.read(name)


@pytest.mark.parametrize("name", ["a.json", "a.parquet"])
def test_a_file_appears_when_it_is_whole(hub, target, folder, name):
    put(folder, name, b"before")
    with folder.atomic_write(name) as path:
        path.write_bytes(b"after")
        assert folder.read(name) == b"before"
    assert folder.read(name) == b"after"
    commits = len(hub.repos[target].commits)
    with pytest.raises(RuntimeError):
        fail(folder, name)
    put(folder, name, b"after")
    assert folder.read(name) == b"after"
    assert len(hub.repos[target].commits) == commits  # neither half a file nor the same again is a commit


@pytest.mark.processes
def test_what_another_process_does_is_seen(hub, target, folder):
    put(folder, "a.json", b"ours")
    assert list(listed(folder)) == ["a.json"]
    other = fork("support.exports:replace_there", folder.url, "a.json", "b.json", "theirs")
    assert other.wait() == 0, other.printed
    assert folder.read("b.json") == b"theirs"
    assert list(listed(folder)) == ["b.json"]


def test_what_is_not_there_can_be_removed(hub, target, folder):
    put(folder, "a.json", b"x")
    commits = len(hub.repos[target].commits)
    folder.remove(["b.json", "c/d.parquet"])
    folder.remove(["a.json", "a.json"])
    folder.clear()
    assert listed(folder) == {}
    assert len(hub.repos[target].commits) == commits + 1


def test_clear_removes_the_hidden_folder_alone(hub, target, folder):
    for name in (f"{WORKING}/kept.json", f"{WORKING}/done/3d-train.json", "a.json", f"{WORKING}-not"):
        put(folder, name, b"x")
    folder.clear()
    folder.clear()
    assert set(listed(folder)) == {"a.json", f"{WORKING}-not"}
    assert len(files_at(hub, target)) == 2


def lock_of(folder):
    (name,) = [name for name in listed(folder) if name.startswith(".export.lock")]
    return name, json.loads(folder.read(name))


def test_one_writer_at_a_time(hub, target, folder):
    with folder.exclusive_lock():
        with (
            pytest.raises(BusyError, match=f"process {os.getpid()} of {socket.gethostname()} "),
            open_target(folder.url).exclusive_lock(),
        ):
            pass
        assert lock_of(folder)[1]["pid"] == os.getpid()
        folder.clear()
        assert lock_of(folder)[1]["pid"] == os.getpid()
    assert files_at(hub, target) == {}
    with pytest.raises(ZeroDivisionError), folder.exclusive_lock():
        1 / 0  # noqa: B018
    assert files_at(hub, target) == {}


@pytest.mark.processes
def test_the_lock_of_a_process_that_is_gone_is_taken_over(hub, target, folder):
    gone = fork("support.exports:die_with_lock", folder.url)
    assert gone.wait() == 3, gone.printed
    name, theirs = lock_of(folder)
    assert theirs["pid"] == gone.pid
    with folder.exclusive_lock():
        assert lock_of(folder)[1]["pid"] == os.getpid() != theirs["pid"]
    assert files_at(hub, target) == {}
    put(folder, name, json.dumps({**theirs, "host": "elsewhere"}).encode())
    with (
        pytest.raises(BusyError, match=f"process {theirs['pid']} of elsewhere "),
        folder.exclusive_lock(),
    ):
        pass


@pytest.fixture
def export(target, tree, split_file):
    """Export the cases of `tree` to that repo."""

    def run(**options):
        return export_parquet(
            f"hf://datasets/{target}", data_dir=tree, split_file=split_file, image_size=SIZE, **options
        )

    return run


@pytest.mark.slow
def test_an_export_to_the_hub_loads_from_there(target, export, load, tree, tmp_path, name):
    report = export()
    assert (report.ok, report.made, report.kept) == (True, 6, 0)
    loaded = datasets.load_dataset(target, name=name, cache_dir=tmp_path / "cache")
    streamed = datasets.load_dataset(target, name=name, streaming=True)
    assert set(loaded) == set(streamed) == set(IDS)
    for split in IDS:
        right = wanted(tree, name, split)
        assert identical(rows(load(name, split=split)), right)
        assert identical(rows(loaded[split]), right)
        assert identical(rows(streamed[split]), right)


@pytest.mark.slow
def test_nothing_is_made_twice(hub, target, export):
    export()
    repo = hub.repos[target]
    first, commits = files_at(hub, target), len(repo.commits)
    report = export(verify=True)
    assert (report.made, report.kept) == (0, 6)
    assert files_at(hub, target) == first
    assert not any(name.startswith(WORKING) for name in first)
    with hub.watched() as seen:
        export()
    assert not [request for request in seen if request.method == "PUT"]
    assert len(repo.commits) == commits + 4  # a lock taken and given back, twice


@pytest.mark.processes
def test_the_hub_has_what_a_disk_has(hub, target, export, tree, split_file, tmp_path):
    """Processes upload their shards; both configs: ``test_an_export_to_the_hub_loads_from_there``."""
    export(config="2d", num_proc=2)
    export_parquet(tmp_path / "out", data_dir=tree, split_file=split_file, image_size=SIZE, config="2d")
    assert files_at(hub, target) == files_of(tmp_path / "out")


@pytest.mark.slow
def test_an_export_that_was_stopped_goes_on(hub, target, export):
    first = export(config="3d")
    whole = files_at(hub, target)
    lost = "3d/train/00000-of-00001.parquet"
    open_target(f"hf://datasets/{target}").remove([lost])
    report = export(config="3d")
    assert (report.made, report.kept) == (1, first.made - 1)
    assert files_at(hub, target) == whole


@pytest.mark.processes
def test_the_documented_upload(hub, tree, split_file, tmp_path, load):
    """The command in docs/publishing.md that this release of huggingface_hub has, as a person types it."""
    out = tmp_path / "publishing" / "parquet"  # as the page exports it
    export_parquet(out, data_dir=tree, split_file=split_file, image_size=SIZE)
    made = files_of(out)
    has_large = hasattr(huggingface_hub.HfApi, "upload_large_folder")
    (line,) = re.findall(
        rf"^    (hf upload{'-large-folder' if has_large else ''} .*?) *#",
        (ROOT / "docs/publishing.md").read_text(),
        re.MULTILINE,
    )
    repo_id = f"people/documented-{datasets.__version__}"
    program, *words = line.replace("OWNER/NAME", repo_id).split()
    command = [Path(sys.executable).with_name(program), *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert files_at(hub, repo_id) == made
    for name in ("3d", "2d"):
        loaded = datasets.load_dataset(repo_id, name=name, cache_dir=tmp_path / "cache")
        for split in IDS:
            assert identical(rows(loaded[split]), rows(load(name, split=split)))


@pytest.mark.slow
def test_a_hub_that_does_not_hand_out_a_shard_is_no_reason_to_make_it_anew(hub, target, tree, split_file):
    options = {"data_dir": tree, "split_file": split_file, "image_size": SIZE, "config": "2d"}
    out = f"hf://datasets/{target}"
    assert export_parquet(out, **options).made == 3
    before = files_at(hub, target)
    hub.faults["00000-of-00001.parquet"] = [403] * 99
    with pytest.raises(OutputError, match=r"hf://datasets/.*: expected a place that can be .*, found .*403"):
        export_parquet(replace(open_target(out), pauses=(0.01,)), **options, verify=True)
    hub.faults.clear()
    assert files_at(hub, target) == before
    report = export_parquet(out, **options, verify=True)
    assert (report.made, report.kept) == (0, 3)


def test_a_repo_that_is_not_there_is_told_at_once(hub):
    out = "hf://datasets/tests/none"
    with (
        pytest.raises(OutputError, match=f"^{out}: expected a place that can be written to"),
        replace(open_target(out), pauses=(60.0,)).exclusive_lock(),
    ):
        pass


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"])
def test_nothing_is_written_offline(hub, target, monkeypatch, variable):
    if variable == "HF_HUB_OFFLINE":  # which the client has read
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv(variable, "1")
    with (
        hub.watched() as requests,
        pytest.raises(OutputError, match=rf"found {variable} set\. Unset {variable}"),
    ):
        open_target(f"hf://datasets/{target}")
    assert requests == []
