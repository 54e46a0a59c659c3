"""Contact sheets, looked at through what matplotlib was given to draw."""

import io
import weakref

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from support.pictures import (
    FRONT,
    RIGHT,
    anatomy,
    boxes,
    overlapping,
    stored,
    views,
    within,
    without_geometry,
)
from support.volumes import ALONG_EACH

from ctspine1k import load_catalog
from ctspine1k.pictures.planes import label_colour
from ctspine1k.pictures.sheet import contact_sheet


def thumbnail_of(view, spacing):
    """A view with square pixels, 160 on the longer side, each the nearest voxel to its middle."""
    lengths = np.multiply(view.shape[:2], spacing)
    pixels = np.round(lengths / lengths.max() * 160).astype(int)
    down, right = (
        [int((n + 0.5) / count * size) for n in range(count)]
        for size, count in zip(view.shape, pixels, strict=False)
    )
    return view[np.ix_(down, right)]


@pytest.mark.parametrize("orientation", ALONG_EACH)
def test_a_thumbnail_is_the_sagittal_view_in_any_orientation(orientation):
    image, labels = anatomy()
    (thumbnail,) = contact_sheet([("mine", stored(image, labels, orientation))]).axes[0].images
    view = views(image, labels)[2]
    assert np.array_equal(thumbnail.get_array(), thumbnail_of(view, (2.5, 0.8)))


def test_a_sheet_is_a_grid_of_sagittal_views():
    cases = [case for case in load_catalog() if case.issues][:2] + [
        case for case in load_catalog() if not case.issues
    ][:5]
    image, labels = anatomy()
    figure = contact_sheet((case, stored(image, labels)) for case in cases)
    (axes,) = figure.axes
    assert len(axes.images) == 7
    height, width = axes.images[0].get_array().shape[:2]
    assert (height, width) == (160, round(160 * (11 * 0.8) / (9 * 2.5)))
    places = [picture.get_extent() for picture in axes.images]  # left, right, bottom, top
    assert len({left for left, *_ in places}) == 3
    assert len({top for *_, top in places}) == 3
    assert all(right - left == width and bottom - top == height for left, right, bottom, top in places)
    shown = {text.get_text(): to_rgb(text.get_color()) for text in axes.texts}
    assert {f"! {case.case_id}" for case in cases[:2]} | {case.case_id for case in cases[2:]} < set(shown)
    assert "7 cases, 2 with known issues (!)" in shown
    assert shown[f"! {cases[0].case_id}"] != shown[cases[2].case_id]
    assert not {"T11", "T12"} & set(shown)
    fixed = boxes([*axes.texts, *axes.images], figure)
    assert not overlapping(fixed)
    assert within(fixed, figure)


def test_points_are_marked_in_thumbnails():
    image, labels = anatomy()
    row = stored(image, labels, "RAS", points=[{"label": 18, "voxel": (6, RIGHT, FRONT)}])
    plain, marked = (
        contact_sheet([("mine", one)]).axes[0].images[0].get_array() for one in ({**row, "points": None}, row)
    )
    rows, columns = np.nonzero((plain != marked).any(axis=-1))
    down, right = ((8 - 6 + 0.5) / 9 * 160, (10 - FRONT + 0.5) / 11 * plain.shape[1])
    assert (rows.min(), rows.max()) == (int(down) - 2, int(down) + 2)
    assert (columns.min(), columns.max()) == (int(right) - 2, int(right) + 2)
    dot = marked[int(down) - 2 : int(down) + 3, int(right) - 2 : int(right) + 3]
    assert {tuple(pixel) for pixel in dot[1:-1, 1:-1].reshape(-1, 3)} == {label_colour(18)}
    assert all((side == 255).all() for side in (dot[0], dot[-1], dot[:, 0], dot[:, -1]))


def test_thumbnails_are_drawn_pixel_by_pixel():
    from PIL import Image

    figure = contact_sheet([("mine", stored(*anatomy()))])
    drawn = np.asarray(Image.open(io.BytesIO(figure._repr_png_())).convert("RGB"))
    (picture,) = figure.axes[0].images
    left, right, bottom, top = map(int, picture.get_extent())
    assert np.array_equal(drawn[top:bottom, left:right], picture.get_array())


def test_a_sheet_takes_large_volumes_and_long_ids():
    image, labels = np.zeros((300, 20, 330), "f4"), np.ones((300, 20, 330), "u1")
    figure = contact_sheet([("a" * 50 + "z" * 50, without_geometry(stored(image, labels, "RAS")))])
    (picture,) = figure.axes[0].images
    assert picture.get_array().shape == (160, round(160 * 300 / 330), 3)
    (name,) = (text.get_text() for text in figure.axes[0].texts if "…" in text.get_text())
    assert len(name) <= 27
    assert (name[:5], name[-5:]) == ("aaaaa", "zzzzz")


@pytest.mark.slow
def test_a_sheet_of_all_cases_fits():
    row = stored(*anatomy())
    figure = contact_sheet((case, row) for case in load_catalog())
    assert len(figure.axes[0].images) == 1005
    width, height = figure.bbox.size
    assert max(width, height) < 8000
    assert 0.9 < width / height < 1.1
    assert max(left for left, *_ in (p.get_extent() for p in figure.axes[0].images)) < width


def test_a_sheet_holds_one_sample_at_a_time():
    alive = []

    class Row(dict):
        """Of which there can be weak references."""

    def samples():
        for number in range(4):
            assert not [row for row in alive if row() is not None]
            row = Row(stored(*anatomy()))
            alive.append(weakref.ref(row))
            yield f"case{number}", row
            del row

    assert len(contact_sheet(samples()).axes[0].images) == 4


def test_a_sheet_needs_cases_and_volumes():
    with pytest.raises(ValueError, match="samples: expected at least one case, found none"):
        contact_sheet([])
    row = stored(*anatomy())
    with pytest.raises(ValueError, match=r"mine: expected a volume, .* found a single slice"):
        contact_sheet([("mine", {**row, "image": row["image"][0], "segmentation": row["segmentation"][0]})])
