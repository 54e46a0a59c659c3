import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import fsspec
import pytest

from ctspine1k.errors import BusyError, MissingPackageError, OutputError
from ctspine1k.folders import WORKING, RemoteFolder, out_folder


@pytest.fixture(params=["local", "s3", "memory"])
def folder(request, tmp_path):
    if request.param == "local":
        return out_folder(tmp_path / "new" / "out")
    if request.param == "memory":
        return out_folder(f"memory://{request.node.originalname}/out")
    return out_folder(request.getfixturevalue("s3") + "/out")


def write(folder, name, data):
    with folder.whole(name) as path:
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
    with folder.open("3d/train/a.parquet") as file:
        assert (file.read(1), file.read(9)) == (b"a", b"bcd")
    with pytest.raises(FileNotFoundError):
        folder.read("none")
    folder.clear()
    folder.remove(["3d/train/a.parquet", "none"])
    assert folder.files() == {}


def fail(folder):
    with folder.whole("a") as path:
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
        folder.only_writer(),
        pytest.raises(BusyError, match="expected to be the only one to write it, found"),
        folder.only_writer(),
    ):
        pass
    assert [name for name in folder.files() if "lock" in name] == []
    with folder.only_writer():
        write(folder, "a", b"")
    assert list(folder.files()) == ["a"]


def test_the_lock_of_a_process_that_is_gone_does_not_count(s3):
    folder = out_folder(f"{s3}/out")
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    lock = {"host": socket.gethostname(), "pid": gone.pid}
    write(folder, ".export.lock.1", json.dumps(lock).encode())
    with folder.only_writer():
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
    folder = out_folder(f"{s3}/out")
    write(folder, ".export.lock.1", lock)
    message = rf"found {who} \(if that is dead, delete s3://.*/out/\.export\.lock\.1\)"
    with pytest.raises(BusyError, match=message), folder.only_writer():
        pass
    assert list(folder.files()) == [".export.lock.1"]


def test_of_two_that_come_at_once_never_both_write(s3):
    """Both have left their note before either looks."""
    first, second = out_folder(f"{s3}/out"), out_folder(f"{s3}/out")
    both = threading.Barrier(2)
    whole = RemoteFolder.whole

    @contextlib.contextmanager
    def together(folder, name):
        with whole(folder, name) as path:
            yield path
        both.wait(timeout=10)

    entered = []

    def enter(folder):
        with contextlib.suppress(BusyError), folder.only_writer():
            entered.append(folder)
            time.sleep(0.1)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RemoteFolder, "whole", together)
        threads = [threading.Thread(target=enter, args=(folder,)) for folder in (first, second)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(entered) <= 1
    assert first.files() == {}


def test_an_upload_that_fails_is_tried_again(s3, monkeypatch):
    folder = out_folder(f"{s3}/out")
    monkeypatch.setattr("ctspine1k.retries._PAUSES", (0.01, 0.01))
    upload, fails = RemoteFolder._upload, [ConnectionError(), RuntimeError()]

    def flaky(self, written, name):
        if fails:
            raise fails.pop()
        upload(self, written, name)

    monkeypatch.setattr(RemoteFolder, "_upload", flaky)
    write(folder, "a", b"abc")
    assert folder.read("a") == b"abc"


def test_what_a_killed_process_has_left_half_is_dropped(tmp_path):
    folder = out_folder(tmp_path)
    left = folder.scratch() / "left"
    left.mkdir(parents=True)
    (left / "half").write_bytes(b"x")
    with folder.only_writer():
        assert not left.exists()


def test_a_password_is_not_printed():
    folder = out_folder("ftp://me:se@cret@host/out")
    assert folder.describe() == "ftp://host/out"
    assert "cret" not in repr(folder)
    assert out_folder("https://host/out#secret").describe() == "https://host/out"
    with pytest.raises(ValueError, match=r"^https://host/x: expected a URL without \*, \? and \[$"):
        out_folder("https://host/x?sig=secret")


def test_a_package_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3", raising=False)
    with pytest.raises(MissingPackageError, match=r"s3:// needs s3fs: pip install 'ctspine1k\[s3\]'"):
        out_folder("s3://bucket/out")


def test_what_is_no_folder_is_told(tmp_path):
    with pytest.raises(ValueError, match="out is empty: expected a folder or a URL"):
        out_folder("")
    with pytest.raises(ValueError, match="nonsense://x: expected a URL that fsspec can open, found none"):
        out_folder("nonsense://x")
    with pytest.raises(ValueError, match=r"memory://a\[1\]: expected a URL without"):
        out_folder("memory://a[1]")
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="expected a folder, found a file"):
        out_folder(tmp_path / "file")


def test_a_file_url_is_a_path(tmp_path):
    assert out_folder(f"file://{tmp_path}/a") == out_folder(tmp_path / "a")
    assert out_folder(f"file://localhost{tmp_path}/a") == out_folder(tmp_path / "a")


@pytest.mark.parametrize("out", [Path("s3://bucket/x"), "file:/x"])
def test_a_url_that_has_lost_a_slash_is_no_path(out):
    with pytest.raises(ValueError, match="expected a folder or a URL with two slashes, as text"):
        out_folder(out)


def test_a_bucket_is_not_made(s3):
    folder = out_folder("s3://a-bucket-that-is-not-there/out")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ctspine1k.retries._PAUSES", ())
        with pytest.raises(FileNotFoundError):
            write(folder, "a", b"x")
    assert not fsspec.filesystem("s3").exists("a-bucket-that-is-not-there")


@pytest.mark.parametrize("inner", [".ctspine1k", "3d", "2d/train"])
def test_a_folder_that_is_elsewhere_is_refused(tmp_path, inner):
    precious = tmp_path / "elsewhere/scratch/precious"
    precious.mkdir(parents=True)
    (tmp_path / "out" / inner).parent.mkdir(parents=True)
    (tmp_path / "out" / inner).symlink_to(tmp_path / "elsewhere")
    message = f"{inner}: expected a folder within the export, found a link or another disk"
    with pytest.raises(OutputError, match=message), out_folder(tmp_path / "out").only_writer():
        pass
    assert precious.exists()


def test_free_bytes_are_the_disks(tmp_path, s3):
    assert 0 < out_folder(tmp_path).free() < os.statvfs(tmp_path).f_blocks * os.statvfs(tmp_path).f_frsize
    assert out_folder(f"{s3}/out").free() is None
    assert out_folder(f"{s3}/out").scratch() == Path(tempfile.gettempdir())
