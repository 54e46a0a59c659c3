"""`ctspine1k cache`, and what `download --to` and `list --data-dir` print."""

import json
from pathlib import Path

import pytest
from support.printed import table
from support.volumes import ALL_IDS, SIZE

from ctspine1k.rows.conversions import list_conversions
from ctspine1k.running.disk import exclusive_lock


@pytest.fixture
def cache(load, tmp_path):
    """A cache with two conversions."""
    load("3d", split="train", storage="compact")
    load("2d", split="test")
    return tmp_path / "cache"


def test_it_lists_conversions(run, cache, tree):
    status, out, err = run("cache", "--cache-dir", cache)
    slices, compact = table(out)
    assert status == 0
    assert slices["id"].startswith("2d-")
    assert (compact["splits"], compact["cases"], compact["state"]) == ("train", "2", "finished")
    assert compact["options"] == f"storage=compact image_size={list(SIZE)}"
    assert compact["from"] == str(tree)
    assert err.startswith("2 conversions, 0.0")
    assert err.rstrip().endswith(f"in {cache}")
    documents = json.loads(run("cache", compact["id"], "--cache-dir", cache, "--json")[1])
    assert [one["config"] for one in documents] == ["3d"]
    assert str(documents[0]["bytes"]) == compact["bytes"]


def test_it_deletes_what_is_named(run, cache):
    first, second = (row["id"] for row in table(run("cache", "--cache-dir", cache)[1]))
    status, _, err = run("cache", "--clear", "--cache-dir", cache)
    assert (status, err) == (2, "error: --clear needs an ID, --unfinished or --all. (see --help)\n")
    status, _, err = run("cache", "2d-none", "--clear", "--cache-dir", cache)
    assert (status, err.partition(" in ")[0]) == (2, "error: no conversion 2d-none")
    assert table(run("cache", "--clear", "--unfinished", "--cache-dir", cache)[1]) == []
    status, out, err = run("cache", first, "--clear", "--cache-dir", cache)
    assert (status, [row["id"] for row in table(out)]) == (0, [first])
    assert err.startswith("1 conversion, ")
    assert f"deleted from {cache}" in err
    assert [row["id"] for row in table(run("cache", "--cache-dir", cache)[1])] == [second]
    run("cache", "--clear", "--all", "--cache-dir", cache)
    assert table(run("cache", "--cache-dir", cache)[1]) == []


def test_what_is_being_written_stays(run, cache):
    first, second = list_conversions(cache)
    with exclusive_lock(first.folder, Path(f"{first.folder}_builder.lock")):
        status, _, err = run("cache", "--clear", "--all", "--cache-dir", cache)
    assert status == 2
    assert err.splitlines()[1].startswith("1 conversion, ")
    assert "another process is writing this output" in err
    assert [one.id for one in list_conversions(cache)] == [first.id]
    assert not second.folder.exists()


def test_what_cannot_be_deleted_stays_and_lets_the_others_be(run, cache):
    first, second = list_conversions(cache)
    lock = Path(f"{first.folder}_builder.lock")
    lock.unlink(missing_ok=True)
    lock.mkdir()  # can be opened by nobody, as a file of another user cannot
    status, out, err = run("cache", "--clear", "--all", "--json", "--cache-dir", cache)
    kept, count, error = err.splitlines()
    assert status == 2
    assert kept.startswith(f"{first.id} is not deleted: ")
    assert str(lock) in kept
    assert count.startswith("1 conversion, ")
    assert f"expected conversions that can be deleted, found others: {first.id}. Delete them when" in error
    assert [one["id"] for one in json.loads(out)] == [second.id]
    assert [one.id for one in list_conversions(cache)] == [first.id]
    assert not second.folder.exists()


def test_the_cache_of_datasets_is_the_default(run, cache, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", cache)
    assert len(table(run("cache")[1])) == 2


@pytest.mark.parametrize("link", [False, True])
def test_download_to(run, tree, split_file, tmp_path, link):
    options = ["--data-dir", tree, "--split-file", split_file, "--split", "train", "--to", tmp_path / "to"]
    options += ["--link"] * link
    status, out, err = run("download", *options, "--dry-run")
    assert status == 0
    assert ("copies take up to" in err) == (not link)
    assert not (tmp_path / "to").exists()
    status, out, err = run("download", *options)
    assert (status, err) == (0, "")
    names = sorted(path.name for path in (tmp_path / "to").rglob("*.nii.gz"))
    assert sorted(line.rpartition("/")[2] for line in out.splitlines()) == names
    assert len(names) == 4
    status, _, err = run("download", "--data-dir", tree, "--split-file", split_file, "--link")
    assert (status, err) == (2, "error: --link needs --to: a folder for the links. (see --help)\n")


def test_list_says_that_it_lists_the_catalogue(run, tree, split_file):
    status, out, err = run("list", "--data-dir", tree, "--split", "train")
    assert (status, len(table(out))) == (0, 610)
    assert err == f"cases of the catalogue: 610; of these with files in {tree}: 2 (--files lists them)\n"
    status, out, err = run("list", "--data-dir", tree, "--split-file", split_file, "--json")
    assert len(json.loads(out)) == 4
    assert err.startswith("cases of the catalogue: 4; of these with files in ")
    assert run("list", "--data-dir", tree, "--case", ALL_IDS[0], "--files")[2] == ""
    assert run("list", "--case", ALL_IDS[0])[2] == ""
