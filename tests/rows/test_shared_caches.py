"""Caches that other users, other disks and other releases of datasets have made, and what is left beside them."""

import json
import os
import subprocess
from pathlib import Path

import pyarrow as pa
import pytest
from support.compare import identical, rows, wanted

import ctspine1k
from ctspine1k.errors import OutputError


@pytest.fixture
def read_only():
    """Make a folder read-only: by a mount, where this user may write anywhere, else by its mode."""
    mounted, changed = [], []

    def run(folder: Path) -> None:
        if os.geteuid():
            changed.extend(path for path in (folder, *folder.rglob("*")) if path.is_dir())
            for path in changed:
                path.chmod(0o500)
            return
        for options in (["--bind", folder, folder], ["-o", "remount,ro,bind", folder]):
            if subprocess.run(["mount", *options], check=False, capture_output=True).returncode:
                pytest.skip("this user writes anywhere, and may not mount")
            mounted.append(folder)

    yield run
    for folder in mounted[:1]:
        subprocess.run(["umount", "--lazy", folder], check=True)
    for path in changed:
        path.chmod(0o700)


def files_in(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.mark.parametrize("storage", ["dense", "compact"])
def test_what_is_converted_is_read_from_a_read_only_cache(load, tree, tmp_path, name, storage, read_only):
    load(name, storage=storage)
    for lock in (tmp_path / "cache").rglob("*.lock"):
        lock.unlink()
    before = files_in(tmp_path / "cache")
    read_only(tmp_path / "cache")
    for split, part in load(name, storage=storage).items():
        assert identical(rows(part), wanted(tree, name, split))
    assert files_in(tmp_path / "cache") == before


@pytest.mark.parametrize("is_there", [False, True])
def test_what_is_not_converted_needs_a_cache_that_can_be_written(
    load, tree, tmp_path, name, is_there, read_only
):
    (tmp_path / "lab").mkdir()
    cache = tmp_path / "lab" / "cache"
    if is_there:
        load(name, split="test", cache_dir=cache)
    read_only(tmp_path / "lab")
    for options in ({}, {"download_mode": "force_redownload"}):
        with pytest.raises(
            OutputError, match=r"lab/cache: expected a cache that can be written to, .*Pass cache_dir="
        ):
            load(name, split="train", cache_dir=cache, **options)
    streamed = load(name, split="train", cache_dir=cache, streaming=True)
    assert identical(rows(streamed), wanted(tree, name, "train"))


def test_a_shared_cache_that_has_some_of_it(load, tmp_path, read_only):
    load(split="train")
    read_only(tmp_path / "cache")
    assert len(load(split="train")) == 2
    with pytest.raises(OutputError):
        load()


def test_raw_files_are_read_from_a_read_only_cache_of_the_hub(
    load, repo_id, split_file, tree, tmp_path, read_only, monkeypatch
):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    spine = ctspine1k.open_collection(repo_id=repo_id, split_file=split_file)
    spine.where(split="train").download()
    read_only(tmp_path / "hub")
    loaded = load("3d", split="train", repo_id=repo_id)
    assert identical(rows(loaded), wanted(tree, "3d", "train"))
    message = (
        r"/hub: expected a cache that can be written to, .*\.lock\)\. Set HF_HUB_CACHE to a folder of your"
    )
    with pytest.raises(OutputError, match=message):
        spine.download()
    with pytest.raises(OutputError, match=message):  # it is not the fault of a case
        spine.scan(tmp_path / "cases.parquet")


def test_what_is_converted_is_read_without_a_lock(load, tmp_path):
    load(split="train")
    for lock in (tmp_path / "cache").rglob("*_builder.lock"):
        lock.unlink()
    load(split="train")
    assert not list((tmp_path / "cache").rglob("*_builder.lock"))


@pytest.mark.parametrize("num_proc", [None, pytest.param(2, marks=pytest.mark.processes)])
def test_a_cache_has_the_names_that_datasets_3_knows(load, tmp_path, num_proc):
    """Later releases call a list "List" instead of "Sequence", and read both."""
    first = load("2d", split="train", geometry=True, num_proc=num_proc)
    again = load("2d", split="train", geometry=True)
    streamed = load("2d", split="train", geometry=True, streaming=True)
    assert first.features == again.features == streamed.features
    assert identical(rows(first), rows(again))
    written = []
    for path in (tmp_path / "cache").rglob("*.arrow"):
        with pa.memory_map(str(path)) as source:
            written.append(json.loads(pa.ipc.open_stream(source).schema.metadata[b"huggingface"])["info"])
    written += [json.loads(path.read_text()) for path in (tmp_path / "cache").rglob("dataset_info.json")]
    assert len(written) == 1 + (num_proc or 1)
    for info in written:
        assert info["features"]["spacing"]["_type"] == "Sequence"
        assert '"List"' not in json.dumps(info)


WITHOUT_RIGHTS = """
import json, os, pickle, sys

def refuse(event, arguments):
    if event == "open" and isinstance(arguments[0], str) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        if os.path.abspath(arguments[0]).startswith(sys.argv[2]):
            raise PermissionError(13, "Permission denied", arguments[0])

sys.dont_write_bytecode = True
sys.addaudithook(refuse)
import ctspine1k
options = json.loads(sys.argv[1])
print(len(ctspine1k.load_dataset("3d", split="train", **options)))
stream = ctspine1k.load_dataset("2d", split="train", streaming=True, **options)
print(sum(1 for _ in pickle.loads(pickle.dumps(stream))))
"""


@pytest.mark.processes
def test_the_package_needs_no_rights_where_it_is_installed(tree, split_file, tmp_path, python):
    package = Path(ctspine1k.__file__).parent
    options = {"data_dir": str(tree), "split_file": str(split_file), "image_size": [6, 5]}
    run = python(WITHOUT_RIGHTS, json.dumps({**options, "cache_dir": str(tmp_path / "cache")}), str(package))
    assert run.stdout.split() == ["2", "7"], run.stderr


def test_no_lock_is_left_beside_the_package(load):
    package = Path(ctspine1k.__file__).parent
    locks = [package.with_suffix(".lock"), package.parent.with_suffix(".lock")]
    for lock in locks:
        lock.unlink(missing_ok=True)
    load(split="train")
    assert not [lock for lock in locks if lock.exists()]
