import pytest

from ctspine1k.errors import BusyError
from ctspine1k.running.disk import atomic_write, exclusive_lock


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
            pytest.raises(BusyError, match=r"a\.txt: expected to be the only one to write it"),
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
