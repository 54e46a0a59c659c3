import contextlib
import hashlib
import json
import os
import pickle
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import fsspec
import pytest
from fsspec import AbstractFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from ctspine1k.errors import BusyError, MissingPackageError, OutputError
from ctspine1k.exports.ledger import MANIFEST, read_records
from ctspine1k.exports.opening import open_target
from ctspine1k.exports.targets import WORKING
from ctspine1k.exports.url_target import UrlTarget


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.slow), "memory"])
def folder(request, tmp_path):
    if request.param == "local":
        return open_target(tmp_path / "new" / "out")
    if request.param == "memory":
        return open_target(f"memory://{request.node.originalname}/out")
    return open_target(request.getfixturevalue("s3") + "/out")


def write(folder, name, data):
    with folder.atomic_write(name) as path:
        path.write_bytes(data)


def test_files_are_written_listed_read_and_removed(folder):
    assert folder.files() == {}
    write(folder, "3d/train/a.parquet", b"abc")
    write(folder, f"{WORKING}/done/b.json", b"{}")
    write(folder, "3d/train/a.parquet", b"abcd")
    assert {name: entry.size for name, entry in folder.files().items()} == {
        "3d/train/a.parquet": 4,
        f"{WORKING}/done/b.json": 2,
    }
    assert folder.read("3d/train/a.parquet") == b"abcd"
    assert folder.sha256_of("3d/train/a.parquet") == hashlib.sha256(b"abcd").hexdigest()
    assert folder.sha256_of("none") is None
    with pytest.raises(FileNotFoundError):
        folder.read("none")
    folder.clear()
    folder.remove(["3d/train/a.parquet", "none"])
    assert folder.files() == {}


def fail(folder):
    with folder.atomic_write("a") as path:
        path.write_bytes(b"half")
        raise RuntimeError


def test_after_an_error_there_is_nothing_new(folder):
    write(folder, "a", b"before")
    with pytest.raises(RuntimeError):
        fail(folder)
    assert folder.read("a") == b"before"
    assert list(folder.files()) == ["a"]


def test_one_process_writes(folder):
    with (
        folder.exclusive_lock(),
        pytest.raises(BusyError, match="is writing this output"),
        folder.exclusive_lock(),
    ):
        pass
    assert [name for name in folder.files() if "lock" in name] == []
    with folder.exclusive_lock():
        write(folder, "a", b"")
    assert list(folder.files()) == ["a"]


@pytest.mark.processes
def test_the_lock_of_a_process_that_is_gone_does_not_count(s3):
    folder = open_target(f"{s3}/out")
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    lock = {"host": socket.gethostname(), "pid": gone.pid}
    write(folder, ".export.lock.1", json.dumps(lock).encode())
    with folder.exclusive_lock():
        (name,) = folder.files()
        assert json.loads(folder.read(name))["pid"] == os.getpid()
    assert folder.files() == {}


@pytest.mark.parametrize(
    ("lock", "who"),
    [
        (b'{"host": "node7", "pid": 12}', "process 12 of node7"),
        (b"{", "somebody"),
        (b"[]", "somebody"),
        (b'{"host": "node7", "pid": "x"}', "somebody"),
    ],
)
def test_the_lock_of_another_machine_counts_and_the_message_says_what_to_do(s3, lock, who):
    folder = open_target(f"{s3}/out")
    write(folder, ".export.lock.1", lock)
    message = rf"{who} \(if that is dead, delete s3://.*/out/\.export\.lock\.1\)"
    with pytest.raises(BusyError, match=message), folder.exclusive_lock():
        pass
    assert list(folder.files()) == [".export.lock.1"]


def test_of_two_that_come_at_once_never_both_write(s3):
    """Both have left their note before either looks."""
    first, second = open_target(f"{s3}/out"), open_target(f"{s3}/out")
    both = threading.Barrier(2)
    check_others = UrlTarget._check_others

    def together(folder, mine):
        both.wait(timeout=10)
        check_others(folder, mine)

    entered = []

    def enter(folder):
        with contextlib.suppress(BusyError), folder.exclusive_lock():
            entered.append(folder)
            time.sleep(0.1)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(UrlTarget, "_check_others", together)
        threads = [threading.Thread(target=enter, args=(folder,)) for folder in (first, second)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(entered) <= 1
    assert first.files() == {}


class Odd(MemoryFileSystem):
    """A file system that refuses: all that is in `faults`, and, where it is told to, to replace a file."""

    protocol = "odd"
    store: ClassVar = {}
    pseudo_dirs: ClassVar = [""]
    faults: ClassVar = []
    replaces = "yes"

    def _fail(self):
        if self.faults:
            raise self.faults.pop()

    def mv(self, path1, path2, **options):
        self._fail()
        if self.replaces != "yes" and self.exists(path2):
            if self.replaces == "silently not":
                return
            raise FileExistsError(path2)
        super().mv(path1, path2, **options)

    find = AbstractFileSystem.find  # which asks `ls`, and is what most file systems have

    def ls(self, *arguments, **options):
        self._fail()
        return super().ls(*arguments, **options)

    def info(self, *arguments, **options):
        self._fail()
        return super().info(*arguments, **options)

    def _open(self, *arguments, **options):
        self._fail()
        return super()._open(*arguments, **options)

    def cat_file(self, *arguments, **options):
        self._fail()
        return super().cat_file(*arguments, **options)

    def rm_file(self, path):
        self._fail()
        super().rm_file(path)


@pytest.fixture
def odd(monkeypatch):
    monkeypatch.setattr(Odd, "faults", [])
    monkeypatch.setattr(Odd, "store", {})
    fsspec.register_implementation("odd", Odd, clobber=True)
    return replace(open_target("odd://out"), pauses=(0.01, 0.01))


@pytest.mark.parametrize("do", ["write", "list", "read", "digest", "remove"])
def test_what_fails_is_tried_again_and_told_in_the_end(odd, do):
    write(odd, "a", b"abc")
    what = {
        "write": lambda: write(odd, "a", b"abc"),
        "list": odd.files,
        "read": lambda: odd.read("a"),
        "digest": lambda: odd.sha256_of("a"),
        "remove": lambda: odd.remove(["a"]),
    }[do]
    Odd.faults[:] = [ConnectionResetError("third"), RuntimeError("second"), OSError("first")]
    message = r"odd://out: expected a place that can be .*, found ConnectionResetError: third\. Check that"
    with pytest.raises(OutputError, match=message) as told:
        what()
    assert str(pickle.loads(pickle.dumps(told.value))) == str(told.value)  # noqa: S301
    Odd.faults[:] = [RuntimeError("second"), OSError("first")]
    what()
    assert Odd.faults == []


def test_what_will_not_pass_is_told_at_once(odd):
    Odd.faults[:] = [OSError(), PermissionError("not yours")]
    with pytest.raises(OutputError, match="found PermissionError: not yours"):
        odd.files()
    assert len(Odd.faults) == 1


def test_a_place_that_cannot_be_reached_is_told_at_once(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "tests")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "tests")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    fsspec.filesystem("s3").clear_instance_cache()
    message = (
        "s3://bucket/out: expected a place that can be written to and read, found EndpointConnectionError"
    )
    target = replace(open_target("s3://bucket/out"), pauses=(60.0,))
    with pytest.raises(OutputError, match=message), target.exclusive_lock():
        pass
    fsspec.filesystem("s3").clear_instance_cache()


def test_a_file_is_there_or_it_is_told(odd):
    """Whatever fails on the way, and however often."""
    for failures in range(12):
        Odd.faults[:] = [ConnectionResetError() for _ in range(failures)]
        with contextlib.suppress(OutputError):
            write(odd, f"3d/{failures}", b"abc")
            Odd.faults.clear()
            assert odd.read(f"3d/{failures}") == b"abc"


def test_a_store_that_does_not_answer_is_no_lock_and_no_record(odd):
    write(odd, ".export.lock.1", b"{}")
    check_others = UrlTarget._check_others

    def fail_at_the_lock(folder, mine):
        files = folder.files()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(UrlTarget, "files", lambda _: files)
            Odd.faults[:] = [ConnectionResetError() for _ in range(3)]
            check_others(folder, mine)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(UrlTarget, "_check_others", fail_at_the_lock)
        with pytest.raises(OutputError, match="found ConnectionResetError"), odd.exclusive_lock():
            pass
    assert list(odd.files()) == [".export.lock.1"]
    odd.remove([".export.lock.1"])
    for name in (MANIFEST, ".ctspine1k/kept.json"):
        write(odd, name, b"{}")
        files = odd.files()
        Odd.faults[:] = [ConnectionResetError() for _ in range(3)]
        with pytest.raises(OutputError, match="found ConnectionResetError"):
            read_records(odd, {name: files[name]})


@pytest.mark.parametrize("replaces", ["no", "silently not"])
def test_a_file_is_replaced_where_a_rename_does_not(odd, monkeypatch, replaces):
    write(odd, "3d/a", b"one")
    monkeypatch.setattr(Odd, "replaces", replaces)
    write(odd, "3d/a", b"another")
    assert odd.read("3d/a") == b"another"
    assert list(odd.files()) == ["3d/a"]


def test_what_a_killed_process_has_left_half_is_dropped(tmp_path):
    folder = open_target(tmp_path)
    left = folder.scratch() / "left"
    left.mkdir(parents=True)
    (left / "half").write_bytes(b"x")
    with folder.exclusive_lock():
        assert not left.exists()


def test_a_password_is_not_printed():
    folder = open_target("ftp://me:se@cret@host/out")
    assert folder.describe() == "ftp://host/out"
    assert "cret" not in repr(folder)
    assert open_target("https://host/out#secret").describe() == "https://host/out"
    with pytest.raises(ValueError, match=r"^https://host/x: expected a URL without \*, \?, \[ and ::$"):
        open_target("https://host/x?sig=secret")


def test_a_package_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3", raising=False)
    with pytest.raises(MissingPackageError, match=r"s3:// needs s3fs: pip install 'ctspine1k\[s3\]'"):
        open_target("s3://bucket/out")


def test_what_is_no_folder_is_told(tmp_path):
    with pytest.raises(ValueError, match="out is empty: expected a folder or a URL"):
        open_target("")
    for url in ("s3://", "hf:///", "file://"):
        with pytest.raises(ValueError, match=f"out='{url}': expected a place after [a-z3]+://, such as a"):
            open_target(url)
    with pytest.raises(ValueError, match="nonsense://x: expected a URL that fsspec can open, found none"):
        open_target("nonsense://x")
    with pytest.raises(ValueError, match=r"memory://a\[1\]: expected a URL without"):
        open_target("memory://a[1]")
    with pytest.raises(ValueError, match=r"memory://a::b: expected a URL without \*, \?, \[ and ::"):
        open_target("memory://a::b")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"expected a folder, .* found the file"):
        open_target(tmp_path / "file")


def test_a_file_url_is_a_path(tmp_path):
    assert open_target(f"file://{tmp_path}/a") == open_target(tmp_path / "a")
    assert open_target(f"file://localhost{tmp_path}/a") == open_target(tmp_path / "a")


@pytest.mark.parametrize("out", [Path("s3://bucket/x"), "file:/x"])
def test_a_url_that_has_lost_a_slash_is_no_path(out):
    with pytest.raises(ValueError, match="expected a folder or a URL with two slashes, as text"):
        open_target(out)


def test_a_bucket_is_not_made(s3):
    folder = open_target("s3://a-bucket-that-is-not-there/out")
    with pytest.raises(OutputError, match="found FileNotFoundError: The specified bucket does not exist"):
        write(folder, "a", b"x")
    assert not fsspec.filesystem("s3").exists("a-bucket-that-is-not-there")


@pytest.mark.parametrize("inner", [".ctspine1k", "3d", "2d/train"])
def test_a_folder_that_is_elsewhere_is_refused(tmp_path, inner):
    precious = tmp_path / "elsewhere/scratch/precious"
    precious.mkdir(parents=True)
    (tmp_path / "out" / inner).parent.mkdir(parents=True)
    (tmp_path / "out" / inner).symlink_to(tmp_path / "elsewhere")
    message = f"{inner}: expected a folder within the export, found a link or another disk"
    with pytest.raises(OutputError, match=message), open_target(tmp_path / "out").exclusive_lock():
        pass
    assert precious.exists()


def test_a_disk_that_has_lost_bytes_is_told_from_one_that_does_not_answer(tmp_path):
    folder = open_target(tmp_path)
    (tmp_path / "lost").symlink_to("/proc/self/mem")  # which cannot be read from its start
    assert folder.sha256_of("lost") is None
    (tmp_path / "folder").mkdir()
    with pytest.raises(
        OutputError, match=r"folder: expected a file that can be read, found Is a directory\. Check"
    ):
        folder.sha256_of("folder")


def test_a_folder_has_many_names(tmp_path, s3):
    (tmp_path / "link").symlink_to(tmp_path)
    for name in (tmp_path, tmp_path / "link", tmp_path / "new" / ".."):
        assert open_target(name).is_at(tmp_path)
        assert open_target(tmp_path).is_at(name)
    assert not open_target(tmp_path / "out").is_at(tmp_path)
    assert not open_target(f"{s3}/out").is_at(tmp_path)


@pytest.mark.parametrize(
    ("there", "do"),
    [
        (".ctspine1k", lambda folder: write(folder, "a", b"x")),
        (".ctspine1k/scratch", lambda folder: write(folder, "a", b"x")),
        ("3d", lambda folder: write(folder, "3d/train/a", b"x")),
        (".export.lock/", lambda folder: folder.exclusive_lock().__enter__()),
        ("manifest.json/", lambda folder: write(folder, "manifest.json", b"x")),
        ("manifest.json/", lambda folder: folder.remove(["manifest.json"])),
    ],
)
def test_what_is_in_the_way_is_told(tmp_path, there, do):
    path = tmp_path / "out" / there
    path.parent.mkdir(parents=True)
    path.mkdir() if there.endswith("/") else path.write_text("")
    with pytest.raises(
        OutputError, match=r"/out.*: expected a place to write to, found .*\. Check its permissions"
    ):
        do(open_target(tmp_path / "out"))


def test_free_bytes_are_the_disks(tmp_path, s3):
    assert 0 < open_target(tmp_path).free() < os.statvfs(tmp_path).f_blocks * os.statvfs(tmp_path).f_frsize
    assert open_target(f"{s3}/out").free() is None
    assert open_target(f"{s3}/out").scratch() == Path(tempfile.gettempdir())
