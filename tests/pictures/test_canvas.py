"""Figures of any kind, as a notebook shows them and as they are written."""

import sys

import matplotlib
import pytest
from matplotlib.figure import Figure
from support.pictures import anatomy, stored

from ctspine1k.errors import MissingPackageError, OutputError
from ctspine1k.pictures.canvas import require_replaceable_picture, save_picture
from ctspine1k.pictures.figures import preview
from ctspine1k.pictures.sheet import contact_sheet

PNG = b"\x89PNG\r\n\x1a\n"


def test_a_notebook_shows_it():
    figure = preview(stored(*anatomy()))
    assert isinstance(figure, Figure)
    assert figure._repr_png_().startswith(PNG)
    assert contact_sheet([("mine", stored(*anatomy()))])._repr_png_().startswith(PNG)


@pytest.fixture(scope="module")
def twice():
    """The same picture, drawn twice."""
    return preview(stored(*anatomy())), preview(stored(*anatomy()))


@pytest.mark.parametrize(
    ("suffix", "magic"),
    [
        (".png", PNG),
        (".jpg", b"\xff\xd8\xff"),
        pytest.param(".pdf", b"%PDF", marks=pytest.mark.slow),
        (".svg", b"<?xml"),
    ],
)
def test_the_same_picture_is_the_same_bytes(tmp_path, twice, suffix, magic):
    paths = [tmp_path / f"a{suffix}", tmp_path / f"b{suffix.upper()}"]
    for figure, path in zip(twice, paths, strict=True):
        save_picture(figure, path)
        require_replaceable_picture(path)  # by the next one
    one, two = (path.read_bytes() for path in paths)
    assert one.startswith(magic)
    assert one == two
    assert not [word for word in (b"CreationDate", b"dc:date", b"atplotlib") if word in one]
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.slow
def test_the_users_style_changes_nothing(tmp_path):
    right = preview(stored(*anatomy()))._repr_png_()
    style = {"savefig.bbox": "tight", "image.origin": "lower", "font.size": 30, "axes.grid": True}
    style |= {"savefig.dpi": 30, "savefig.facecolor": "red", "font.family": "monospace", "image.cmap": "jet"}
    with matplotlib.rc_context(style):
        before = dict(matplotlib.rcParams)
        assert preview(stored(*anatomy()))._repr_png_() == right
        assert dict(matplotlib.rcParams) == before


def test_a_picture_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.png"
    figure, other = Figure(figsize=(1, 2)), Figure(figsize=(2, 1))
    save_picture(figure, path)
    before = path.read_bytes()
    figure.text(0.5, 0.5, r"$\frac{$")  # cannot be typeset, as matplotlib finds when it draws
    with pytest.raises(ValueError, match="frac"):
        save_picture(figure, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    with path.open("rb") as old:
        save_picture(other, str(path))
        assert old.read() == before  # the new one was written beside it
    assert path.read_bytes() != before


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".pdf", ".svg"])
def test_a_picture_of_ones_own_is_not_replaced(tmp_path, suffix):
    path = tmp_path / f"liver_106{suffix}"
    figure = Figure(figsize=(1, 1))
    figure.savefig(path)
    before = path.read_bytes()
    with pytest.raises(
        OutputError, match="expected no file, or a picture of `ctspine1k`, found another file"
    ):
        save_picture(figure, path)
    assert path.read_bytes() == before
    path.unlink()
    path.mkdir()
    with pytest.raises(OutputError, match="found a folder"):
        save_picture(figure, path)


@pytest.mark.parametrize("name", ["a.gif", "a", "a.png.txt"])
def test_other_kinds_of_files(tmp_path, name):
    with pytest.raises(ValueError, match=rf"{name}: expected a name that ends in \.png, \.jpg, \.pdf, \.svg"):
        save_picture(Figure(), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_no_folder(tmp_path):
    with pytest.raises(FileNotFoundError):
        save_picture(Figure(), tmp_path / "none" / "a.png")


def test_without_matplotlib_the_message_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for draw in (lambda: preview(stored(*anatomy())), lambda: contact_sheet([])):
        with pytest.raises(MissingPackageError) as caught:
            draw()
        assert str(caught.value) == "pictures needs matplotlib: pip install 'ctspine1k[preview]'"


@pytest.mark.processes
def test_matplotlib_is_imported_late_and_pyplot_never(python):
    code = """
import sys
import numpy as np
from ctspine1k.pictures.figures import preview
from ctspine1k.pictures.sheet import contact_sheet
print("matplotlib" in sys.modules, "datasets" in sys.modules)
row = {"image": np.zeros((3, 4, 5)), "segmentation": np.ones((3, 4, 5), int)}
preview(row)._repr_png_(), contact_sheet([("a", row)])._repr_png_()
print("matplotlib.figure" in sys.modules, "matplotlib.pyplot" in sys.modules)
"""
    run = python(code)
    assert run.stdout.splitlines() == ["False False", "True False"], run.stderr
