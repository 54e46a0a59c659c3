import pytest

from ctspine1k.outputs import whole_file


def test_a_file_appears_when_it_is_whole(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("before")
    with whole_file(path) as written:
        written.write_text("after")
        assert path.read_text() == "before"
        assert written.suffix == ".txt"
    assert path.read_text() == "after"
    assert list(tmp_path.iterdir()) == [path]


def fail(path):
    with whole_file(path) as written:
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
    with whole_file(tmp_path.relative_to(tmp_path) / "a.txt") as written:
        written.write_text("x")
    assert (tmp_path / "a.txt").read_text() == "x"
    with pytest.raises(FileNotFoundError), whole_file(tmp_path / "none" / "a.txt"):
        pass
