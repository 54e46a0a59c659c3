import pytest

from ctspine1k import __version__
from ctspine1k.cli import main


def test_demo_makes_loads_and_prints(tmp_path, capsys):
    assert main(["demo", "--out", str(tmp_path / "demo")]) == 0
    printed = capsys.readouterr().out
    assert "3d: train 2 rows, validation 1 rows, test 1 rows" in printed
    assert "2d: train 54 rows, validation 36 rows, test 42 rows" in printed
    assert "image: Array3D(shape=(None, 512, 512), dtype='float32'" in printed
    assert (
        "test: image [(42, 512, 512)]; segmentation [(42, 512, 512)]; labels [0, 18, 19, 20, 21, 22]"
        in printed
    )
    assert len(list((tmp_path / "demo").rglob("*.nii.gz"))) == 8


def test_an_error_is_one_line_and_status_2(tmp_path, capsys):
    (tmp_path / "mine.txt").touch()
    assert main(["demo", "--out", str(tmp_path)]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.splitlines() == [
        f"error: {tmp_path}: expected a new or an empty folder, found something in it"
    ]
    with pytest.raises(FileExistsError):
        main(["--debug", "demo", "--out", str(tmp_path)])


def test_usage(capsys):
    with pytest.raises(SystemExit) as exit_:
        main([])
    assert exit_.value.code == 2
    assert "VERB" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"{__version__}\n"


def test_module_is_a_program(python):
    run = python(
        "import runpy, sys; sys.argv = ['x', '--help']; runpy.run_module('ctspine1k', run_name='__main__')"
    )
    assert run.returncode == 0, run.stderr
    assert "demo" in run.stdout
