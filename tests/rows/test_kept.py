"""A conversion of volumes that was stopped resumes after the cases that are done."""

import contextlib
import errno
import itertools
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.compare import identical, rows, wanted, wanted_by_id
from support.forks import fork
from support.volumes import ALL_IDS, SIZE

from ctspine1k.errors import CorruptFileError, CTSpine1KError, NoSpaceError, SkippedCasesWarning, WorkerError
from ctspine1k.rows._datasets import TableBuilder
from ctspine1k.rows.batches import case_batches
from ctspine1k.rows.kept import drop_kept, kept_name


@pytest.fixture
def one_split(tmp_path):
    """A split file with all four cases in train."""
    path = tmp_path / "one.txt"
    path.write_text("\n".join(["trainset:", *ALL_IDS]))
    return path


@pytest.fixture
def right(tree):
    """The rows by another path: plain nibabel."""
    return list(itertools.chain(*wanted_by_id(tree, "3d", ALL_IDS).values()))


def spoil(path: Path) -> bytes:
    """Change bytes of a file, but neither its size nor its time; return those that it had."""
    before, status = path.read_bytes(), path.stat()
    restore(path, before[:30] + bytes(len(before) - 30), status)
    return before


def restore(path: Path, data: bytes, status: os.stat_result) -> None:
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@contextlib.contextmanager
def spoilt(path: Path) -> Iterator[None]:
    """Spoil a file meanwhile."""
    status, good = path.stat(), spoil(path)
    yield
    restore(path, good, status)


def image(tree, case_id):
    return next(tree.rglob(f"{case_id}.nii.gz"))


def leftovers(cache):
    return sorted(path.name for path in cache.rglob("*") if path.name.endswith(("kept", ".incomplete")))


def kept_ids(cache):
    """The ids of the cases that are kept; a digest follows each."""
    return {path.stem.rpartition("-")[0] for path in cache.rglob("kept/*.arrow")}


@pytest.mark.parametrize(
    ("num_proc", "storage"),
    [(None, "dense"), (None, "compact"), pytest.param(2, "dense", marks=pytest.mark.processes)],
)
@pytest.mark.parametrize("bad", [1, 2, 3])
def test_cases_that_are_done_are_not_read_again(
    load, tree, one_split, tmp_path, right, storage, num_proc, bad
):
    options = {"split": "train", "split_file": one_split, "storage": storage}
    with spoilt(image(tree, ALL_IDS[bad])), pytest.raises(CTSpine1KError):
        load("3d", num_proc=num_proc, **options)
    assert leftovers(tmp_path / "cache") == ["kept"]
    kept = kept_ids(tmp_path / "cache")
    if num_proc is None:
        assert kept == set(ALL_IDS[:bad])
    for case_id in kept:
        spoil(image(tree, case_id))
    loaded = load("3d", **options)
    assert identical(rows(loaded), right)
    assert leftovers(tmp_path / "cache") == []
    assert identical(rows(load("3d", **options)), right)


def test_what_is_kept_needs_no_room(load, tree, one_split, monkeypatch):
    options = {"split": "train", "split_file": one_split}
    with spoilt(image(tree, ALL_IDS[3])), pytest.raises(CTSpine1KError):
        load("3d", **options)
    last = 6 * 5 * 6 * 8
    monkeypatch.setattr("ctspine1k.rows.room.free_bytes", lambda folder: last - 1)
    with pytest.raises(NoSpaceError) as caught:
        load("3d", **options)
    assert caught.value.needed == last
    monkeypatch.setattr("ctspine1k.rows.room.free_bytes", lambda folder: last)
    assert len(load("3d", **options)) == 4


def test_a_forced_conversion_keeps_nothing(load, tree, one_split):
    options = {"split": "train", "split_file": one_split}
    spoil(image(tree, ALL_IDS[2]))
    with pytest.raises(CTSpine1KError):
        load("3d", **options)
    spoil(image(tree, ALL_IDS[0]))
    with pytest.raises(CTSpine1KError) as caught:
        load("3d", download_mode="force_redownload", **options)
    assert ALL_IDS[0] in caught.value.file


@pytest.mark.parametrize(
    "change", [{}, {"on_error": "skip"}, {"cases": ALL_IDS[:2]}, {"split": "train[:2]"}], ids=str
)
def test_a_repaired_or_omitted_case_lets_the_others_be(load, tree, one_split, tmp_path, right, change):
    """The repaired file has another time, so that it is another conversion, in which the others are found."""
    options = {"split": "train", "split_file": one_split}
    path = image(tree, ALL_IDS[2])
    good = spoil(path)
    with pytest.raises(CTSpine1KError):
        load("3d", **options)
    path.write_bytes(good)
    for case_id in ALL_IDS[:2]:
        spoil(image(tree, case_id))
    count = 2 if {"cases", "split"} & set(change) else 4
    assert identical(rows(load("3d", **{**options, **change})), right[:count])
    assert leftovers(tmp_path / "cache") == []


@pytest.mark.parametrize(
    "change", [{"orientation": "RAS"}, {"geometry": True}, {"storage": "compact"}], ids=str
)
def test_other_options_find_nothing_of_it(load, tree, one_split, tmp_path, change):
    options = {"split": "train", "split_file": one_split, **change}
    want = rows(load("3d", cache_dir=tmp_path / "third", **options))
    with spoilt(image(tree, ALL_IDS[2])), pytest.raises(CTSpine1KError):
        load("3d", split="train", split_file=one_split)
    found = rows(load("3d", **options))
    assert identical(found, want)
    assert list(found[0]) == list(want[0])


def test_a_kept_file_that_is_damaged_is_made_again(load, tree, one_split, tmp_path, right):
    options = {"split": "train", "split_file": one_split}
    with spoilt(image(tree, ALL_IDS[3])), pytest.raises(CTSpine1KError):
        load("3d", **options)
    kept = sorted((tmp_path / "cache").rglob("kept/*.arrow"))
    for number, file in enumerate(kept):
        file.write_bytes(b"" if number == 0 else file.read_bytes()[:-200])
    assert identical(rows(load("3d", **options)), right)


def test_without_hard_links_it_begins_anew(load, tree, one_split, tmp_path, right, monkeypatch):
    def refuse(*_):
        raise PermissionError("no hard links here")

    monkeypatch.setattr("os.link", refuse)
    options = {"split": "train", "split_file": one_split}
    with spoilt(image(tree, ALL_IDS[3])), pytest.raises(CTSpine1KError):
        load("3d", **options)
    assert identical(rows(load("3d", **options)), right)


def test_another_conversion_may_drop_what_this_one_uses(load, tree, one_split, tmp_path, right, monkeypatch):
    options = {"split": "train", "split_file": one_split}
    with spoilt(image(tree, ALL_IDS[3])), pytest.raises(CTSpine1KError):
        load("3d", **options)

    def dropped(*args, **kwargs):  # as the other one does when it ends
        (folder,) = (tmp_path / "cache").rglob("kept")
        drop_kept(folder, [path.stem for path in folder.iterdir()])
        return case_batches(*args, **kwargs)

    monkeypatch.setattr("ctspine1k.rows.builder.case_batches", dropped)
    assert identical(rows(load("3d", **options)), right)
    assert leftovers(tmp_path / "cache") == []


def test_skipped_cases_are_named_after_a_resumption_too(load, tree, one_split, monkeypatch):
    options = {"split": "train", "split_file": one_split, "on_error": "skip"}
    spoil(image(tree, ALL_IDS[1]))

    def stopped(row_options, vocabulary, case, *args, **kwargs):
        if case.case_id == ALL_IDS[3]:
            raise KeyboardInterrupt
        return case_batches(row_options, vocabulary, case, *args, **kwargs)

    monkeypatch.setattr("ctspine1k.rows.builder.case_batches", stopped)
    with pytest.raises(KeyboardInterrupt):
        load("3d", **options)
    monkeypatch.undo()
    with pytest.warns(SkippedCasesWarning, match=ALL_IDS[1]):
        assert load("3d", **options)["patient_id"][:] == [ALL_IDS[0], *ALL_IDS[2:]]


def test_a_relative_cache(load, tree, one_split, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = {"split": "train", "split_file": one_split, "cache_dir": "here"}
    spoil(image(tree, ALL_IDS[2]))
    with pytest.raises(CTSpine1KError):
        load("3d", **options)
    assert kept_ids(tmp_path / "here") == set(ALL_IDS[:2])


@pytest.mark.parametrize("batch", [2, 3])
def test_rows_that_are_written_together_are_not_kept(load, tree, one_split, tmp_path, batch):
    options = {"split": "train", "split_file": one_split, "writer_batch_size": batch}
    with spoilt(image(tree, ALL_IDS[3])), pytest.raises(CorruptFileError):
        load("3d", **options)
    assert leftovers(tmp_path / "cache") == []
    assert len(load("3d", **options)) == 4


@pytest.mark.processes
@pytest.mark.parametrize(
    ("number", "storage", "status"), [("SIGKILL", "dense", -signal.SIGKILL), ("SIGINT", "compact", 1)]
)
def test_a_kill(load, tree, one_split, tmp_path, right, number, storage, status):
    options = {"split_file": str(one_split), "storage": storage, "image_size": SIZE}
    cache, last = tmp_path / "cache", ALL_IDS[3]
    where = {"data_dir": str(tree), "cache_dir": str(cache)}
    process = fork("support.converting:convert_until", {**options, **where}, last, number)
    assert process.wait() == status, process.printed
    assert ("KeyboardInterrupt" in process.printed[1]) == (number == "SIGINT")
    # The thread that reads ahead is in the last case while the third is not complete.
    kept = kept_ids(cache)
    assert kept >= {ALL_IDS[0]}
    for case_id in kept:
        spoil(image(tree, case_id))
    assert identical(rows(load("3d", split="train", **options)), right)


def test_rows_of_one_file_per_case(load, tree):
    """So that they can be kept; `datasets` names them in the order of the rows."""
    loaded = load("3d", split="train")
    assert [Path(file["filename"]).name for file in loaded.cache_files] == [
        "ctspine1k-train-00000-of-00002.arrow",
        "ctspine1k-train-00001-of-00002.arrow",
    ]
    assert loaded.info.splits["train"].num_bytes == loaded.data.nbytes
    assert identical(rows(loaded), wanted(tree, "3d", "train"))


@pytest.fixture
def one_kept(load, tree, one_split, tmp_path):
    """The file of the only case that a stopped conversion has kept."""
    with spoilt(image(tree, ALL_IDS[1])), pytest.raises(CTSpine1KError):
        load("3d", split="train", split_file=one_split)
    (path,) = tmp_path.rglob("kept/*.arrow")
    return path


@pytest.mark.parametrize("what", ["another case", "nothing", "another user's"])
def test_what_cannot_be_used_is_converted_again(
    load, tmp_path, one_split, one_kept, right, monkeypatch, what
):
    if what == "another case":
        load("3d", split="train", split_file=one_split, cache_dir=tmp_path / "other")
        (other,) = (tmp_path / "other").rglob("*-00001-of-*.arrow")
        one_kept.write_bytes(other.read_bytes())
    elif what == "nothing":
        one_kept.write_bytes(b"")
    else:  # the kernel's protected_hardlinks

        def refuse(*_):
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

        monkeypatch.setattr("ctspine1k.rows.kept.os.link", refuse)
    assert identical(rows(load("3d", split="train", split_file=one_split)), right)


def test_names_of_kept_cases_fit_into_a_folder():
    ids = ["x" * 244, "\u00e9" * 122]
    names = [kept_name(case_id, state) for case_id in ids for state in (1, 2)]
    assert len(set(names)) == 4
    assert max(len(f"{name}.arrow".encode()) for name in names) <= 255


def test_a_worker_stops_when_the_process_that_started_it_was_killed():
    builder = TableBuilder.__new__(TableBuilder)
    builder.check_needed()  # no worker
    builder._parent = os.getppid()
    builder.check_needed()
    builder._parent += 1
    with pytest.raises(WorkerError, match="the process that started this one has been killed"):
        builder.check_needed()
