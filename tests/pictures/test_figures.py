"""Pictures of one case, looked at through what matplotlib was given to draw."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from support.pictures import (
    FRONT,
    RIGHT,
    SHAPE,
    UP,
    anatomy,
    boxes,
    overlapping,
    panels,
    same,
    stored,
    texts,
    title,
    views,
    within,
    without_geometry,
)
from support.vocabulary import FEW
from support.volumes import ALONG_EACH, IDS

import ctspine1k
from ctspine1k import load_catalog, vertebrae
from ctspine1k.catalog.cases import Case, Issue
from ctspine1k.catalog.ctspine1k import CTSPINE1K
from ctspine1k.demo.phantom import PHANTOM_CASES
from ctspine1k.pictures.canvas import save_picture
from ctspine1k.pictures.figures import preview
from ctspine1k.pictures.planes import overlay
from ctspine1k.pictures.sheet import contact_sheet


@pytest.mark.parametrize("orientation", ALONG_EACH)
def test_any_orientation_gives_radiologists_views(orientation):
    image, labels = anatomy()
    figure = preview(stored(image, labels, orientation))
    for found, right in zip(panels(figure), views(image, labels), strict=True):
        assert np.array_equal(found, right)
    aspects = [axes.get_aspect() for axes in figure.axes]
    assert np.allclose(aspects, [0.8 / 0.7, 2.5 / 0.7, 2.5 / 0.8], rtol=1e-5)
    assert all(axes.images[0].origin == "upper" for axes in figure.axes)


def test_sides_and_names_of_the_panels():
    axial, coronal, sagittal = preview(stored(*anatomy(), "LAS")).axes
    places = {"A": (0.5, 1), "P": (0.5, 0), "R": (0, 0.5), "L": (1, 0.5), "S": (0.5, 1), "I": (0.5, 0)}
    for axes, letters in ((axial, "APRL"), (coronal, "SIRL")):
        assert {t.get_text(): t.xy for t in axes.texts if hasattr(t, "xy")} == {x: places[x] for x in letters}
    places |= {"A": (0, 0.5), "P": (1, 0.5)}
    assert {t.get_text(): t.xy for t in sagittal.texts if hasattr(t, "xy")} == {x: places[x] for x in "SIAP"}
    # Where each lies in the array, (k, i, j), whose second axis leads to the left.
    assert axial.get_title() == f"axial, image[{UP}]"
    assert coronal.get_title() == f"coronal, image[:, :, {FRONT}]"
    assert sagittal.get_title() == f"sagittal, image[:, {SHAPE[0] - 1 - RIGHT}]"


@pytest.mark.parametrize("orientation", ["LAS", "PIR", "SRP"])
def test_titles_say_where_a_slice_is_stored(orientation):
    row = stored(*anatomy(), orientation)
    for axes in preview(row).axes:
        key = axes.get_title().partition("image")[2]
        assert np.array_equal(
            np.sort(eval(f"row['image']{key}"), axis=None),  # noqa: S307
            np.sort(eval_view(axes.get_title(), anatomy()[0]), axis=None),
        )


def eval_view(name, image):
    plane = name.partition(",")[0]
    return {"axial": image[:, :, UP], "coronal": image[:, FRONT], "sagittal": image[RIGHT]}[plane]


def test_without_labels_the_middle_is_drawn():
    image, labels = anatomy()
    figure = preview(stored(image, labels * 0))
    assert np.array_equal(panels(figure)[2], overlay(image[6, ::-1, ::-1].T, np.zeros((9, 11), int)))
    assert "no labels" in title(figure)
    assert not texts(figure.axes[2]) - set("SIAP")
    assert "no labels" not in title(preview(stored(image, labels)))


def test_vertebrae_are_named_where_they_are():
    _, labels = anatomy()
    figure = preview(stored(*anatomy()))
    axial, coronal, sagittal = figure.axes
    assert texts(axial) == {"T12", *"APRL"}
    assert texts(coronal) == {"T11", "T12", "L1", *"SIRL"}
    assert texts(sagittal) == {"T11", "T12", "L1", *"SIAP"}
    places = {text.get_text(): text.get_position() for text in sagittal.texts}
    view = labels[RIGHT, ::-1, ::-1].T
    for name, label in (("T11", 18), ("T12", 19), ("L1", 20)):
        rows, columns = np.nonzero(view == label)
        assert np.allclose(places[name], (columns.mean(), rows.mean())), name
    (name,) = (text for text in axial.texts if text.get_text() == "T12")
    assert to_rgb(name.get_color()) == (1, 1, 1)
    assert name.get_path_effects()


@pytest.mark.parametrize(
    ("scheme", "names"),
    [
        ("ctspine1k", {"T11", "T12", "L1"}),
        ("verse", {"T11", "T12", "L1"}),
        ("region", {"thoracic", "lumbar"}),
        ("binary", {"vertebra"}),
    ],
)
def test_label_schemes(scheme, names):
    image, labels = anatomy()
    table = CTSPINE1K.vocabulary.table(scheme)
    row = stored(image, labels if table is None else np.array(table, "u1")[labels])
    assert texts(preview(row, label_scheme=scheme).axes[2]) - set("SIAP") == names


def test_labels_of_another_data_set():
    image, labels = anatomy()
    labels = np.array([0] * 18 + [28, 2, 1], "u1")[labels]  # T11, T12 and L1 are T13, T1 and C1
    row = stored(image, labels)
    figure = preview(row, vocabulary=FEW)
    sagittal = figure.axes[2]
    assert texts(sagittal) - set("SIAP") == {"T13", "T1", "C1"}
    view = labels[RIGHT, ::-1, ::-1].T
    assert np.array_equal(panels(figure)[2], overlay(image[RIGHT, ::-1, ::-1].T, view))
    verse = preview(
        stored(image, np.array([0, 1, 8] + [0] * 25 + [28], "u1")[labels]),
        vocabulary=FEW,
        label_scheme="verse",
    )
    assert texts(verse.axes[2]) == texts(sagittal)
    (thumbnail,) = contact_sheet([("mine", row)], vocabulary=FEW).axes[0].images
    assert thumbnail.get_array().shape[2] == 3
    for draw in (preview, lambda row: contact_sheet([("mine", row)])):
        with pytest.raises(ValueError, match="expected 0 to 25 with label_scheme='ctspine1k', found 28"):
            draw(row)
    with pytest.raises(ValueError, match="expected 0 to 28 with label_scheme='own', found 3"):
        preview({**row, "segmentation": np.full(row["segmentation"].shape, 3)}, vocabulary=FEW)
    with pytest.raises(ValueError, match="label_scheme='ctspine1k': expected one of 'own'"):
        preview(row, vocabulary=FEW, label_scheme="ctspine1k")


def test_yes_or_no_is_a_label():
    image, labels = anatomy()
    row = stored(image, labels)
    whole = preview({**row, "segmentation": (row["segmentation"] > 0).astype("u1")}, label_scheme="binary")
    assert same(preview({**row, "segmentation": row["segmentation"] > 0}, label_scheme="binary"), whole)


def test_the_title_tells_what_is_known():
    case = next(case for case in load_catalog() if case.special_case and case.issues)
    shown = title(preview(stored(*anatomy(), patient_id=case.case_id))).replace("\n", " ")
    assert shown.startswith(case.case_id)
    for fact in (case.source, case.split, case.special_case, "0.70 x 0.80 x 2.50 mm (in plane x between"):
        assert fact in shown
    assert "known: " in shown
    assert all(f"{issue.kind} ({issue.evidence})" in shown for issue in case.issues)
    assert same(preview(stored(*anatomy()), case=case), preview(stored(*anatomy()), case=case.case_id))
    assert case.case_id in title(preview(stored(*anatomy()), case=case))


def test_an_issue_is_told_once():
    issue = Issue("label_missing", "reported", "", "")
    case = Case("x", "test", 0, issues=(issue, Issue("label_missing", "reported", "again", "")))
    assert title(preview(stored(*anatomy(), source="SRC"), case=case)).splitlines() == [
        "x",
        "SRC · test · 0.70 x 0.80 x 2.50 mm (in plane x between slices)",
        "known: label_missing (reported)",
    ]


def test_the_case_that_is_given_counts():
    case = load_catalog()["liver_106"]
    shown = title(preview(stored(*anatomy(), source="COLONOG", patient_id="HN_P001"), case=case))
    assert shown.startswith("liver_106\nMSD-T10 · ")
    assert "COLONOG" not in shown


def test_a_case_of_ones_own_is_just_named():
    figure = preview(stored(*anatomy(), patient_id="ours_$1_$2"))
    assert title(figure).splitlines() == [
        "ours_$1_$2",
        "0.70 x 0.80 x 2.50 mm (in plane x between slices)",
    ]
    figure._repr_png_()  # and the dollars are not taken for a formula


@pytest.mark.slow
def test_a_pair_without_a_case(phantom):
    case = load_catalog()[PHANTOM_CASES[1]]
    image = next(phantom.rglob(f"{case.case_id}.nii.gz"))
    mask = next(phantom.rglob(f"{case.case_id}_seg.nii.gz"))
    pair = ctspine1k.read_pair(image, mask)
    assert title(preview(pair)) == "0.80 x 0.70 x 3.00 mm (in plane x between slices)"
    figure = preview(pair, case=case)
    assert title(figure).startswith(f"{case.case_id}\nCOVID-19 · train · 0.80")
    axial, coronal, sagittal = figure.axes
    # Stored upwards, to the left and the front, with the vertebrae behind the middle.
    labels = pair.segmentation
    most = (labels > 0).sum(axis=(0, 1))
    j = int(coronal.get_title().partition(":, :, ")[2].rstrip("]"))
    assert most[j] == most.max()
    assert j < 256
    assert np.array_equal(panels(figure)[1], overlay(pair.image[::-1, :, j], labels[::-1, :, j]))
    i = int(sagittal.get_title().partition(":, ")[2].rstrip("]"))
    assert texts(sagittal) - set("SIAP") == {vertebrae.name(n) for n in np.unique(labels[:, i]) if n}
    assert len(texts(sagittal)) > 4
    assert len(texts(axial) - set("APRL")) == 1
    assert np.isclose(sagittal.get_aspect(), 3.0 / 0.7)
    turned = preview(ctspine1k.read_pair(image, mask, orientation="PIR"), case=case)
    assert all(np.array_equal(a, b) for a, b in zip(panels(figure), panels(turned), strict=True))


def test_without_geometry_arrays_are_drawn_as_they_lie():
    row = without_geometry(stored(*anatomy(), "RAS"))
    figure = preview(row)
    assert title(figure).splitlines() == ["mine", "spacing not in the row: load with geometry=True"]
    assert [axes.get_title() for axes in figure.axes] == [
        f"image[{UP}]",
        f"image[:, {RIGHT}]",
        f"image[:, :, {FRONT}]",
    ]
    image, labels = row["image"], row["segmentation"]
    for axes, view, over in zip(
        figure.axes,
        (image[UP], image[:, RIGHT], image[:, :, FRONT]),
        (labels[UP], labels[:, RIGHT], labels[:, :, FRONT]),
        strict=True,
    ):
        assert axes.get_aspect() == 1
        assert np.array_equal(axes.images[0].get_array(), overlay(view, over))
        assert not texts(axes) & set("RLAPSI")


def test_an_axis_that_leads_nowhere():
    row = {**stored(*anatomy(), "RAS"), "spacing": [2.5, 0.0, 0.8], "orientation": "S?A"}
    figure = preview(row)
    assert "0.00 x 0.80 x 2.50 mm" in title(figure)
    assert "drawn with square pixels ·" in title(figure)
    assert "orientation not known: drawn as stored" in title(figure)
    assert all(
        np.array_equal(a, b)
        for a, b in zip(panels(figure), panels(preview(without_geometry(row))), strict=True)
    )


@pytest.mark.parametrize(("orientation", "plane"), [("LAS", 0), ("RPI", 0), ("LSA", 1), ("ASL", 2)])
def test_a_slice_is_one_panel(orientation, plane):
    """Slices of an axial, coronal or sagittal volume, at the place that the whole of it shows."""
    row = stored(*anatomy(), orientation)
    whole = preview(row).axes[plane]
    name, _, index = whole.get_title().partition(", image")
    index = int(index.strip("[]"))
    part = {**row, "image": row["image"][index], "segmentation": row["segmentation"][index]}
    (axes,) = preview({**part, "slice_index": index}).axes
    assert axes.get_title() == f"{name}, slice {index}"
    assert np.array_equal(axes.images[0].get_array(), whole.images[0].get_array())
    assert axes.get_aspect() == whole.get_aspect()
    assert texts(axes) == texts(whole)
    figure = preview({**without_geometry(part), "slice_index": index})
    assert figure.axes[0].get_title() == f"slice {index}"
    assert np.array_equal(panels(figure)[0], overlay(part["image"], part["segmentation"]))
    assert "no labels in this slice" in title(preview({**part, "segmentation": part["segmentation"] * 0}))


@pytest.mark.slow
@pytest.mark.parametrize("geometry", [False, True])
def test_rows_of_any_config_storage_and_format(load, name, geometry, tree):
    options = {"split": "train", "geometry": geometry}
    dense, compact = (load(name, storage=storage, **options) for storage in ("dense", "compact"))
    lazy = ctspine1k.LazyDataset(compact)
    (streamed, *_) = load(name, streaming=True, **options)
    case_id = IDS["train"][0]
    figure = preview(dense[0])
    assert title(figure).startswith(case_id)
    assert len(figure.axes) == (3 if name == "3d" else 1)
    rows = [dense.with_format("numpy")[0], dense.with_format("arrow")[:1].to_pylist()[0]]
    rows += [compact[0], compact.with_format("numpy")[0], lazy[0], streamed]
    for row in rows:
        assert same(preview(row), figure)
    assert ("geometry=True" in title(figure)) is not geometry
    if name == "3d" and geometry:
        image = next(tree.rglob(f"{case_id}.nii.gz"))
        mask = next(tree.rglob(f"{case_id}_seg.nii.gz"))
        assert same(preview(ctspine1k.read_pair(image, mask), case=case_id), figure)


class Counting:
    """An array that counts what is read of it, and that cannot be had whole."""

    def __init__(self, array):
        self.array, self.shape, self.voxels, self.most = array, array.shape, 0, 0

    def __getitem__(self, key):
        part = self.array[key]
        self.voxels, self.most = self.voxels + part.size, max(self.most, part.size)
        return part

    def __array__(self, *args, **kwargs):
        raise AssertionError("read whole")


def test_only_slices_of_the_image_are_read():
    """And of the segmentation some slices at a time."""
    image, labels = (np.tile(volume, (1, 1, 10)) for volume in anatomy())
    row = stored(image, labels)
    counting = {
        **row,
        "image": Counting(row["image"]),
        "segmentation": Counting(row["segmentation"]),
    }
    assert same(preview(counting), preview(row))
    assert counting["image"].voxels == 14 * 11 + 14 * 90 + 11 * 90
    assert counting["segmentation"].most == 32 * 14 * 11


def test_labels_of_all_slabs_count():
    """The most labelled slice lies beyond the slices that are looked at first."""
    labels = np.zeros((4, 3, 100), "u1")
    labels[1, 2, :] = 5
    labels[1:3, :, 70] = 5
    axial, coronal, sagittal = preview(stored(np.zeros(labels.shape, "f4"), labels, "RAS")).axes
    assert axial.get_title() == "axial, image[70]"
    assert coronal.get_title() == "coronal, image[:, :, 2]"
    assert sagittal.get_title() == "sagittal, image[:, 1]"


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"segmentation": None}, ValueError, r"segmentation: expected the image's shape, \(9, 14, 11\)"),
        ({"image": np.zeros((2, 9, 14, 11))}, ValueError, r"found shape \(2, 9, 14, 11\)"),
        ({"image": np.zeros((0, 14, 11))}, ValueError, r"one slice \(i, j\), found shape \(0, 14, 11\)"),
        ({"segmentation": np.zeros((9, 11, 14))}, ValueError, r"\(9, 14, 11\), found \(9, 11, 14\)"),
        ({"segmentation": np.full((9, 14, 11), 26)}, ValueError, "expected 0 to 25 with label_scheme='ct"),
        ({"segmentation": np.full((9, 14, 11), -1)}, ValueError, "label_scheme='ctspine1k', found -1"),
        ({"segmentation": np.ones((9, 14, 11))}, ValueError, "expected whole numbers .* found float64"),
        ({"spacing": [1.0, 2.0]}, ValueError, "spacing: expected 3 numbers, in mm and array order, found 2"),
        ({"orientation": "SLX"}, ValueError, "orientation='SLX': expected three letters"),
    ],
)
def test_what_cannot_be_drawn_is_told(change, error, message):
    with pytest.raises(error, match=message):
        preview({**stored(*anatomy()), **change})


def test_other_things_are_refused():
    with pytest.raises(TypeError, match=r"expected a row, a mapping with image .* found PosixPath"):
        preview(Path("a.nii.gz"))
    with pytest.raises(ValueError, match="expected a column image, found mask, points"):
        preview({"mask": 0, "points": []})
    with pytest.raises(ValueError, match="label_scheme='totals': expected one of 'ctspine1k'"):
        preview(stored(*anatomy()), label_scheme="totals")
    with pytest.raises(ValueError, match="expected 0 to 3 with label_scheme='region', found 18, 19, 20"):
        preview(stored(*anatomy()), label_scheme="region")


@pytest.mark.parametrize(
    "shape",
    [
        pytest.param((512, 512, 10), id="flat", marks=pytest.mark.slow),
        pytest.param((100, 75, 450), id="tall", marks=pytest.mark.slow),
        pytest.param((15, 200, 250), id="narrow"),
        pytest.param((300, 300, 1), id="one slice"),
        pytest.param((2, 3, 4), id="tiny"),
    ],
)
@pytest.mark.parametrize("geometry", [True, False])
def test_nothing_overlaps_and_nothing_is_cut_off(shape, geometry):
    i, j, k = shape
    labels = np.zeros((k, 1, 1), "i4")  # of each slice
    for number in range(min(k, 20)):
        labels[number * k // 20 : (number + 1) * k // 20] = 22 - number
    case = next(case for case in load_catalog() if len(case.issues) > 1)
    row = stored(*anatomy(), patient_id=case.case_id)
    row |= {
        "image": np.broadcast_to(np.float32(0), (k, i, j)),
        "segmentation": np.broadcast_to(labels, (k, i, j)),
    }
    figure = preview(row if geometry else without_geometry(row))
    titles = [*figure.texts, *(axes.title for axes in figure.axes)]
    names = [text for axes in figure.axes for text in axes.texts]
    sides = [text for text in names if text.get_text() in set("RLAPSI")]
    fixed = boxes([*titles, *sides, *(axes.images[0] for axes in figure.axes)], figure)
    assert not overlapping(fixed)
    width, height = figure.bbox.size
    assert within(fixed, figure)
    assert width <= 1400
    assert height <= 760
    for axes in figure.axes:  # laid out by now
        named = [text.get_window_extent() for text in axes.texts if text not in sides]
        assert not overlapping(named)


def test_long_ids_are_broken():
    figure = preview(stored(*anatomy(), patient_id="Scan_0123_CT-" * 30))
    assert within(boxes(figure.texts, figure), figure)
    assert "".join(text.get_text() for text in figure.texts[:-1]) == "Scan_0123_CT-" * 30


def test_panels_have_one_scale():
    figure = preview(stored(*anatomy()))
    sizes = [axes.get_position().size * figure.get_size_inches() for axes in figure.axes]
    mm = [(14 * 0.7, 11 * 0.8), (14 * 0.7, 9 * 2.5), (11 * 0.8, 9 * 2.5)]
    scales = np.divide(sizes, mm)
    assert np.allclose(scales, scales[0, 0])


@pytest.mark.slow
def test_real_ct(sample, tmp_path):
    image = sample / "raw_data/volumes/sample/sample_0002.nii.gz"
    mask = sample / "raw_data/labels/sample/sample_0002_seg.nii.gz"
    figure = preview(ctspine1k.read_pair(image, mask), case="sample_0002")
    assert {"T11", "T12"} <= texts(figure.axes[2])
    assert {"T11", "T12"} <= texts(figure.axes[1])
    assert "0.98 x 0.98 x 2.00 mm" in title(figure)
    save_picture(figure, tmp_path / "a.png")
    assert 10_000 < (tmp_path / "a.png").stat().st_size < 300_000


def dots(axes):
    """Where points are drawn, in pixels."""
    return [tuple(np.round(line.get_xydata()[0], 6)) for line in axes.lines]


@pytest.mark.parametrize("orientation", ["LAS", "PIR", "SRP"])
def test_points_are_drawn_where_they_are_with_a_mask_or_without(orientation):
    image, labels = anatomy()
    places = {18: (RIGHT, FRONT, 6), 19: (RIGHT - 1, FRONT + 1, UP), 20: (RIGHT, FRONT, 0)}
    listed = []
    for label, place in places.items():
        marked = np.zeros(SHAPE, "u1")
        marked[place] = 1
        (voxel,) = np.argwhere(stored(image, marked, orientation)["segmentation"])
        listed.append({"label": label, "voxel": voxel.tolist()})
    row = stored(image, labels, orientation, points=listed)
    with_mask = preview(row)
    without = preview({name: value for name, value in row.items() if name != "segmentation"})
    for figure in (with_mask, without):
        axial, coronal, sagittal = figure.axes
        shown = SHAPE[0] - 1 - np.array([place[0] for place in places.values()])
        front, up = (
            SHAPE[axis] - 1 - np.array([place[axis] for place in places.values()]) for axis in (1, 2)
        )
        assert dots(axial) == list(zip(shown, front, strict=True))
        assert dots(coronal) == list(zip(shown, up, strict=True))
        assert dots(sagittal) == list(zip(front, up, strict=True))
        width, height = (size - 0.5 for size in (SHAPE[1], SHAPE[2]))
        assert (sagittal.get_xlim(), sagittal.get_ylim()) == ((-0.5, width), (height, -0.5))
    assert np.array_equal(
        panels(without)[2], overlay(image[RIGHT, ::-1, ::-1].T, np.zeros(SHAPE[1:], "u1").T)
    )
    assert {"T11", "T12", "L1"} <= {text.get_text() for text in without.axes[2].texts}
    assert "no labels" not in title(without)


def test_points_that_are_far_from_a_slice_are_not_in_it():
    image, labels = anatomy()
    far = stored(image, labels, "RAS", points=[{"label": 18, "voxel": (UP + 6.1, RIGHT, FRONT)}])
    axial, coronal, sagittal = preview(far).axes
    assert [len(dots(axes)) for axes in (axial, coronal, sagittal)] == [0, 1, 1]  # 15.25 mm above it


@pytest.mark.parametrize("scheme", ["binary", "region"])
@pytest.mark.parametrize("has_mask", [True, False])
def test_points_have_their_own_names_in_any_label_scheme(scheme, has_mask):
    image, labels = anatomy()
    table = np.array(CTSPINE1K.vocabulary.table(scheme), "u1")
    points = [
        {"label": label, "name": name, "voxel": (UP, RIGHT, FRONT)}
        for label, name in ((2, "C2"), (18, "T11"), (26, "S1"))  # the last one is no label of CTSpine1K
    ]
    row = stored(image, table[labels], "RAS", points=points)
    figure = preview(
        row if has_mask else {**row, "segmentation": 0 * row["segmentation"]}, label_scheme=scheme
    )
    assert {"C2", "T11", "S1"} <= texts(figure.axes[2])
