import errno
import hashlib
import os
import shutil
from pathlib import Path

import filelock
import pytest

from ctspine1k.errors import BusyError, NoSpaceError, OutputError
from ctspine1k.running.disk import (
    atomic_write,
    delete_abandoned,
    device_of,
    exclusive_lock,
    explain_full_disk,
    explain_unwritable,
    free_bytes,
    is_full_disk,
    make_folder,
    make_parent,
    require_folder,
    require_replaceable,
    sha256_of,
)


def test_a_file_appears_when_it_is_whole(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("before")
    with atomic_write(path) as written:
        written.write_text("after")
        assert path.read_text() == "before"
        assert written.suffix == ".txt"
    assert path.read_text() == "after"
    assert list(tmp_path.iterdir()) == [path]


def fail(path):
    with atomic_write(path) as written:
        written.write_text("half")
        raise RuntimeError


def test_after_an_error_nothing_has_changed(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("before")
    with pytest.raises(RuntimeError):
        fail(path)
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_in_the_working_directory_and_in_no_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with atomic_write(tmp_path.relative_to(tmp_path) / "a.txt") as written:
        written.write_text("x")
    assert (tmp_path / "a.txt").read_text() == "x"
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "none" / "a.txt"):
        pass


def test_one_writer_at_a_time(tmp_path):
    path = tmp_path / "a.txt"
    with exclusive_lock(path):
        with (
            pytest.raises(BusyError, match=r"a\.txt: another process is writing this output"),
            exclusive_lock(path),
        ):
            pass
        with exclusive_lock(tmp_path / "b.txt"):
            pass
    with pytest.raises(ZeroDivisionError), exclusive_lock(path):
        1 / 0  # noqa: B018
    with exclusive_lock(path):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.processes
def test_another_process_is_seen(tmp_path, python):
    path = tmp_path / "out" / "a.txt"
    path.parent.mkdir()
    code = """
import sys, pathlib
from ctspine1k.errors import BusyError
from ctspine1k.running.disk import exclusive_lock
try:
    with exclusive_lock(pathlib.Path(sys.argv[1])):
        print("ours")
except BusyError as error:
    print("busy")
"""
    with exclusive_lock(path):
        assert python(code, str(path)).stdout == "busy\n"
    assert python(code, str(path)).stdout == "ours\n"


def test_the_sha256_is_of_what_is_left_to_read(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"x" + bytes(3 << 20))
    with path.open("rb") as file:
        file.read(1)
        assert sha256_of(file) == hashlib.sha256(bytes(3 << 20)).hexdigest()
        assert sha256_of(file) == hashlib.sha256(b"").hexdigest()


def test_a_folder_is_made_and_written_to_before_there_is_work_to_lose(tmp_path):
    make_parent(tmp_path / "a/b/c.txt")
    assert list((tmp_path / "a/b").iterdir()) == []


def test_only_files_of_ours_are_replaced(tmp_path):
    path = tmp_path / "a.csv"

    def check():
        require_replaceable(path, "scores", lambda file: file.readline().startswith(b"case_id,"), "--out")

    check()
    for text in ("", "case_id,dice\n" * 1000):
        path.write_text(text)
        check()
    path.write_text("mine, case_id,")
    with pytest.raises(
        OutputError, match=r"a\.csv: expected no file, or scores, found another file\. Choose another --out"
    ):
        check()
    path.unlink()
    os.mkfifo(path)  # reading it would wait for ever
    with pytest.raises(OutputError, match="found another file"):
        check()
    path.unlink()
    path.mkdir()
    with pytest.raises(OutputError, match="found a folder"):
        check()


def test_a_folder_that_is_not_there_yet_has_the_disk_of_the_one_above(tmp_path):
    assert device_of(tmp_path / "a/b") == tmp_path.stat().st_dev
    assert free_bytes(tmp_path / "a/b") > 0
    assert device_of(Path("none-such")) == Path().stat().st_dev


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_an_error_that_says_what_is_needed(tmp_path, number):
    with (
        pytest.raises(NoSpaceError, match=r"expected room for a test of 1\.00 GB, found [\d,.]+ [GM]B free"),
        explain_full_disk(tmp_path, "a test", 10**9),
    ):
        raise OSError(number, os.strerror(number))


def test_another_error_of_the_disk_passes(tmp_path):
    with pytest.raises(PermissionError), explain_full_disk(tmp_path, "a test", 1):
        raise PermissionError(errno.EACCES, "no")


def test_what_a_process_that_was_killed_has_left_is_deleted(tmp_path):
    """Its temporary folders: with a lock that nobody holds, or empty. Those of others stay."""
    for name in ("empty", "half", "older"):
        (tmp_path / f".ctspine1k-{name}").mkdir()
    for name in ("half/.lock", "half/a.nii.gz", "older/b.nii.gz"):
        (tmp_path / f".ctspine1k-{name}").touch()
    with atomic_write(tmp_path / "one") as one, atomic_write(tmp_path / "other") as other:
        one.write_text("1")
        other.write_text("2")
    found = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")}
    assert found == {"one", "other", ".ctspine1k-older", ".ctspine1k-older/b.nii.gz"}


def test_what_is_abandoned_is_deleted_under_its_lock(tmp_path, monkeypatch):
    """Else a process that has just made the folder could hold its lock when it goes."""
    (tmp_path / ".ctspine1k-half").mkdir()
    for name in (".lock", "a.nii.gz"):
        (tmp_path / ".ctspine1k-half" / name).touch()
    rmtree, tried = shutil.rmtree, []

    def watched(folder, **options):
        with pytest.raises(filelock.Timeout):
            filelock.FileLock(Path(folder, ".lock"), timeout=0).acquire()
        tried.append(folder)
        rmtree(folder, **options)

    monkeypatch.setattr(shutil, "rmtree", watched)
    delete_abandoned(tmp_path)
    assert tried == [tmp_path / ".ctspine1k-half"]
    assert not list(tmp_path.iterdir())


def test_a_temporary_folder_that_was_taken_for_abandoned_is_made_again(tmp_path, monkeypatch):
    """By another process, before there was a lock in it."""
    acquire = filelock.FileLock.acquire
    taken = []

    def late(lock, *args, **kwargs):
        if not taken:
            taken.append(Path(lock.lock_file).parent)
            taken[0].rmdir()
            raise FileNotFoundError(lock.lock_file)
        return acquire(lock, *args, **kwargs)

    monkeypatch.setattr(filelock.FileLock, "acquire", late)
    with atomic_write(tmp_path / "one") as one:
        one.write_text("1")
    assert [path.name for path in tmp_path.iterdir()] == ["one"]
    assert taken


def test_a_full_disk_is_seen_behind_the_errors_that_it_caused():
    full, other = OSError(errno.ENOSPC, "full"), OSError(errno.EACCES, "no")
    behind = RuntimeError()
    behind.__cause__, other.__context__ = other, full
    assert is_full_disk(behind)
    other.__context__ = behind  # a circle
    assert not is_full_disk(behind)
    assert not is_full_disk(None)


@pytest.mark.parametrize("below", ["", "more"])
def test_a_file_in_the_place_of_a_folder_is_named(tmp_path, below):
    (tmp_path / "taken").touch()
    folder = tmp_path / "taken" / below
    with pytest.raises(OutputError) as told:
        make_parent(folder / "picture.png")
    assert (told.value.path, told.value.found) == (str(folder), f"the file {tmp_path / 'taken'}")
    require_folder(tmp_path / "none" / "yet")
    (tmp_path / "link").symlink_to(tmp_path / "unmounted")
    with pytest.raises(OutputError, match=r"found the link .*/link, which leads nowhere\. Choose another"):
        make_parent(tmp_path / "link" / below / "picture.png")
    (tmp_path / "unmounted").mkdir()
    make_parent(tmp_path / "link" / below / "picture.png")


def test_a_folder_in_the_place_of_a_file_is_named(tmp_path):
    with pytest.raises(
        OutputError, match=r"expected a file, or none, found a folder\. Choose another path, or"
    ):
        make_parent(tmp_path)


@pytest.mark.parametrize(
    "write",
    [
        lambda path: make_folder(path / "more"),
        make_parent,
        lambda path: atomic_write(path).__enter__(),
        lambda path: exclusive_lock(path).__enter__(),
    ],
)
def test_a_place_that_cannot_be_written_to_is_named_and_no_temporary_file(tmp_path, monkeypatch, write):
    """Here everyone's rights are those of the tests, which may be root's: the system says no instead."""

    def refuse(path, *_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    with monkeypatch.context() as looking:
        looking.setattr(Path, "is_dir", refuse)  # as in a folder that nobody may look into
        with pytest.raises(OutputError, match="found Permission denied"):
            require_folder(tmp_path)
    for name in ("mkdir", "open"):
        monkeypatch.setattr(os, name, refuse)
    with pytest.raises(OutputError) as told:
        write(tmp_path / "a.png")
    monkeypatch.undo()
    assert str(told.value) == (
        f"{told.value.path}: expected a place to write to, found Permission denied. Check its permissions, and "
        "that nothing else has its name, or choose another place."
    )
    assert Path(told.value.path) in (tmp_path / "a.png", tmp_path / "a.png/more")


def test_a_full_disk_stays_one_where_nothing_can_be_written(tmp_path):
    for number, kind in ((errno.ENOSPC, OSError), (errno.EROFS, OutputError)):
        with pytest.raises(kind), explain_unwritable(tmp_path):
            raise OSError(number, os.strerror(number))
