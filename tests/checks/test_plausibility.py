"""What is strange about labels, planted one thing at a time into a plausible spine."""

import re
from dataclasses import replace

import numpy as np
import pytest
from support.spines import AFFINE, save_spine, spine
from support.volumes import save

from ctspine1k.catalog.ctspine1k import CTSPINE1K
from ctspine1k.catalog.msr import MSR
from ctspine1k.catalog.vocabulary import Vocabulary
from ctspine1k.checks.measure import measure
from ctspine1k.checks.plausibility import implausible
from ctspine1k.volumes.cases import open_case
from ctspine1k.volumes.vertebrae import label

VOCABULARY = CTSPINE1K.vocabulary

#: T10 to L3, from the top downwards.
LABELS = [17, 18, 19, 20, 21, 22]


def strange(tmp_path, image, mask, affine=AFFINE):
    paths = save(tmp_path / "a.nii", image, affine=affine), save(tmp_path / "a_seg.nii", mask, affine=affine)
    with open_case(*paths, on_geometry=None) as pair:
        return {
            check: (expected, found) for check, expected, found in implausible(measure(pair), pair.vocabulary)
        }


@pytest.fixture
def healthy():
    return spine(LABELS)


@pytest.mark.parametrize("labels", [LABELS, [24, 25], [20], range(1, 8), range(5, 25)])
def test_a_healthy_spine_is_plausible(tmp_path, labels):
    # Cervical bodies of 20 mm radius would be too large: they are made lower.
    image, mask = spine(list(labels))
    found = strange(tmp_path, image, mask)
    assert set(found) <= ({"volume"} if min(labels) < 8 else set())


@pytest.mark.parametrize("orientation", ["LAS", "RPI", "SAL", "PIR"])
def test_however_it_is_stored(tmp_path, healthy, orientation):
    import nibabel as nib

    turned = [
        nib.Nifti1Image(voxels, AFFINE).as_reoriented(
            nib.orientations.ornt_transform(
                nib.io_orientation(AFFINE), nib.orientations.axcodes2ornt(orientation)
            )
        )
        for voxels in healthy
    ]
    image, mask = (np.asarray(one.dataobj) for one in turned)
    assert strange(tmp_path, image, mask, turned[0].affine) == {}
    upside_down = turned[0].affine.copy()
    upside_down[2] *= -1
    assert set(strange(tmp_path, image, mask, upside_down)) == {"upside_down"}
    inverted = turned[0].affine.copy()
    inverted[1] *= -1
    assert set(strange(tmp_path, image, mask, inverted)) == {"front_to_back"}


def with_voxel(image, value):
    """An image with another value in a corner, which is in air."""
    image[0, 0, 0] = value
    return image


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda image: image + 1024, r"24 to 1,\d+ HU"),  # what scanners store, without the intercept
        (lambda image: (image + 1024).astype(np.uint16), r"24 to 1,\d+ HU"),
        (lambda image: image.view(np.uint16), r"\d+ to 6[45],\d+ HU"),
        (lambda image: np.maximum(image, -499), r"-499 to \d+ HU"),
        (lambda image: with_voxel(image.astype(np.float32), 32768), "-1,000 to 32,768 HU"),
    ],
)
@pytest.mark.parametrize("labelled", [True, False])
def test_numbers_that_are_no_hu(tmp_path, healthy, change, found, labelled):
    image, mask = healthy
    told = strange(tmp_path, change(image), mask * labelled)
    expected, seen = told["hu_range"]
    assert expected == "air, below -500 HU, and nothing beyond 32,767 HU"
    assert re.fullmatch(found, seen)
    assert set(told) <= {"hu_range", "no_labels", "intensity"}


@pytest.mark.parametrize(
    "change",
    [
        lambda image: np.maximum(image, -500),
        lambda image: with_voxel(image, 32767),
        lambda image: with_voxel(image, -3024),  # outside the field of view
    ],
)
def test_numbers_that_may_be_hu(tmp_path, healthy, change):
    image, mask = healthy
    assert strange(tmp_path, change(image), mask) == {}


@pytest.mark.parametrize(("lowest", "found"), [(-50.0, []), (-49.0, ["hu_range"]), (974.0, ["hu_range"])])
def test_a_scan_that_is_cropped_to_the_spine_shows_fat_and_perhaps_no_air(measured, lowest, found):
    told = list(implausible(replace(measured, hu_min=lowest), VOCABULARY, is_cropped=MSR.is_cropped))
    assert [check for check, *_ in told] == found
    assert not found or told[0][1] == "fat, below -50 HU, and nothing beyond 32,767 HU"


def test_no_labels(tmp_path, healthy):
    image, mask = healthy
    assert strange(tmp_path, image, mask * 0) == {"no_labels": ("labelled vertebrae", "only background")}


def test_a_vertebra_that_has_no_label(tmp_path, healthy):
    image, mask = healthy
    mask[mask == label("T12")] = 0
    assert strange(tmp_path, image, mask) == {"gap": ("all labels from T10 to L3", "no T12")}


def test_a_vertebra_that_is_passed_over_by_the_numbers(tmp_path):
    """label_discontinuous: the numbers go on, the vertebrae do not."""
    image, mask = spine([16, 17, 18, 19, 20, 21, 22])
    mask[mask == 19] = 0
    mask[(mask > 0) & (mask < 19)] += 1
    found = strange(tmp_path, image, mask)
    assert found == {
        "distance": ("neighbours as far apart as those beside them", "T12 to L1 54 mm (27 mm beside it)")
    }


def test_labels_in_another_order(tmp_path, healthy):
    image, mask = healthy
    first, second = mask == label("T12"), mask == label("L1")
    mask[first], mask[second] = label("L1"), label("T12")
    assert strange(tmp_path, image, mask)["order"] == ("each vertebra below the one before", "L1 above T12")


def test_a_vertebra_with_anothers_label(tmp_path, healthy):
    """label_wrong_value: a vertebra in two pieces, and a gap."""
    image, mask = healthy
    mask[mask == label("T12")] = label("T11")
    found = strange(tmp_path, image, mask)
    assert found["gap"][1] == "no T12"
    assert found["pieces"][1].startswith("T11 in 2 pieces, ")


def test_the_upper_slices_with_the_label_above(tmp_path):
    """label_wrong_value, as reported: on the top slices, where the vertebra above is not in the scan."""
    image, mask = spine(LABELS, margin=0)
    top = mask.shape[2] - 7
    part = mask[..., top:]
    part[part == 17] = 16
    assert set(strange(tmp_path, image, mask)) == {"volume"}
    image, mask = spine(LABELS)
    upper = mask[..., -4 - 7 :]
    upper[upper == 17] = 16
    assert set(strange(tmp_path, image, mask)) == {"distance"}


def test_one_label_at_two_levels_is_too_high_even_where_the_scan_cuts_it(tmp_path):
    image, mask = spine([16, *LABELS], margin=0)
    mask[mask == 16] = 17
    assert "T10 2.2 times as high as those beside it" in strange(tmp_path, image, mask)["pieces"][1]


@pytest.mark.parametrize("left", [1, 2, 4])
@pytest.mark.parametrize("end", ["top", "bottom"])
def test_a_sliver_of_the_next_vertebra_makes_none_too_high(tmp_path, left, end):
    image, mask = spine([15, 16, 17, 18, 19], margin=0)
    gone = 15 - left
    kept = slice(gone, None) if end == "bottom" else slice(None, -gone)
    # The whole one beside the sliver is a slice taller than the others, as may be.
    image, mask = image[..., kept], mask[..., kept]
    whole, place = (18, left + 2) if end == "bottom" else (16, mask.shape[2] - left - 3)
    mask[..., place][mask[..., left + 5 if end == "bottom" else mask.shape[2] - left - 6] == whole] = whole
    image[mask > 0] = 260
    assert strange(tmp_path, image, mask) == {}


def test_half_of_a_vertebra_without_label(tmp_path, healthy):
    """label_incomplete."""
    image, mask = healthy
    places = np.argwhere(mask == label("L1"))
    mask[tuple(places[places[:, 0] < 28].T)] = 0
    assert strange(tmp_path, image, mask) == {
        "volume": ("whole vertebrae of a usual size", "L1 12.9 cm3 (of its region 18 to 139)")
    }
    image, mask = spine(LABELS)
    mask[tuple(places[places[:, 0] < 28].T)] = 0
    mask[mask > 0] -= 3  # T7 to T12: of a region whose vertebrae may be as small
    assert strange(tmp_path, image, mask)["volume"][1] == "T10 12.9 cm3 (24.9 cm3 beside it)"


def test_a_piece_beside_a_vertebra(tmp_path, healthy):
    image, mask = healthy
    mask[2:6, 60:66, 40:50] = label("T12")
    assert strange(tmp_path, image, mask)["pieces"][1] == "T12 in 2 pieces, 240 voxels apart"


def test_a_few_stray_voxels_are_none_of_that(tmp_path, healthy):
    image, mask = healthy
    mask[2:4, 60:63, 40:43] = label("T12")
    assert strange(tmp_path, image, mask) == {}


def test_a_vertebra_of_an_unlikely_size(tmp_path):
    """Every vertebra is of the same size, and the voxels are small."""
    image, mask = spine(LABELS)
    small = AFFINE.copy()
    small[:3, :3] *= 0.4
    _, found = strange(tmp_path, image, mask, small)["volume"]
    assert found.count("cm3 (of its region") == 6
    assert "(of its region 18 to 139)" in found


@pytest.mark.parametrize("axis", [0, 1])
def test_labels_beside_the_bone(tmp_path, healthy, axis):
    """image_label_mismatch."""
    image, mask = healthy
    expected, found = strange(tmp_path, image, np.roll(mask, 25, axis=axis))["intensity"]
    assert expected == "bone: 80 to 1000 HU, and 70 HU more than beside it"
    assert "HU in labels and" in found


def test_labels_on_no_bone_at_all(tmp_path, healthy):
    image, mask = healthy
    image[:] = 45
    found = strange(tmp_path, image, mask)["intensity"][1]
    assert found.startswith("T10 45 HU, T11 45 HU")
    assert found.endswith("45 HU in labels and 45 HU beside them")


def test_a_mask_that_is_upside_down(tmp_path, healthy):
    image, mask = healthy
    assert strange(tmp_path, image, mask[..., ::-1])["upside_down"] == (
        "T10 above L3, by the header",
        "it below",
    )


def test_a_mask_that_is_inverted_front_to_back(tmp_path, healthy):
    image, mask = healthy
    assert set(strange(tmp_path, image, mask[:, ::-1])) == {"front_to_back"}


def test_image_and_mask_inverted_front_to_back(tmp_path, healthy):
    """orientation_ap_inverted: they fit each other."""
    image, mask = healthy
    found = strange(tmp_path, image[:, ::-1], mask[:, ::-1])
    assert found == {
        "front_to_back": ("vertebral bodies in front of their processes, by the header", "them behind")
    }


@pytest.mark.parametrize("axis", range(3))
def test_voxels_without_size(tmp_path, healthy, axis):
    """Nothing that needs mm is judged; the rest is."""
    flat = AFFINE.copy()
    flat[:3, axis] *= 1e-30
    image, mask = healthy
    assert strange(tmp_path, image, mask, flat) == {}
    table = np.arange(256, dtype=np.uint8)
    table[[label("T12"), label("L1")]] = label("L1"), label("T12")
    assert strange(tmp_path, image[:, ::-1], table[mask][:, ::-1], flat) == {}
    mask[mask == label("T12")] = 0
    assert set(strange(tmp_path, image[..., ::-1], mask[..., ::-1], flat)) == {"gap"}
    image, mask = spine([16, *LABELS])
    mask[mask == label("T12")] = 0
    mask[(mask > 0) & (mask < label("T12"))] += 1  # numbers without a gap, though there is one between bodies
    assert strange(tmp_path, image, mask, flat) == {}


@pytest.fixture
def measured(tmp_path, healthy):
    """The measures of a healthy spine, T10 to L3, with heights and places of 25 voxels."""
    with open_case(*save_spine(tmp_path, "liver_106", *healthy), on_geometry=None) as pair:
        measures = measure(pair)
    return replace(measures, vertebrae=tuple(replace(v, mean_hu=300.0) for v in measures.vertebrae))


def changed(measures, **values):
    """Return the checks that find something in measures whose vertebrae have these values."""
    vertebrae = tuple(
        replace(one, **{name: of_each[number] for name, of_each in values.items()})
        for number, one in enumerate(measures.vertebrae[: len(next(iter(values.values())))])
    )
    return {check for check, *_ in implausible(replace(measures, vertebrae=vertebrae), VOCABULARY)}


def at_heights(*heights):
    return [(0.0, 0.0, -float(height)) for height in heights]


@pytest.mark.parametrize(
    ("check", "name", "inside", "outside"),
    [
        ("intensity", "mean_hu", [80.0, 1000.0, 300.0], [79.9, 1000.0, 300.0]),
        ("intensity", "mean_hu", [80.0, 1000.0, 300.0], [80.0, 1000.1, 300.0]),
        (
            "volume",
            "volume_cm3",
            [20.0, 20.0, 34.0, 20.0, 20.0],
            [20.0, 20.0, 34.1, 20.0, 20.0],
        ),  # 1.7 times that beside it
        ("volume", "volume_cm3", [20.0, 12.0, 20.0], [20.0, 11.9, 20.0]),  # 0.6 times
        ("distance", "centroid_mm", at_heights(0, 10, 26, 36), at_heights(0, 10, 26.1, 36.1)),
        ("distance", "centroid_mm", at_heights(0, 10, 20, 26, 36, 46), at_heights(0, 10, 20, 25.9, 36, 46)),
        ("order", "centroid_mm", at_heights(0, 10, 20.0, 30), at_heights(0, 10, 10, 30)),
    ],
)
def test_limits_are_allowed_and_what_is_beyond_is_not(measured, check, name, inside, outside):
    assert changed(measured, **{name: inside}) & {check} == set()
    assert changed(measured, **{name: outside}) & {check} == {check}


@pytest.mark.parametrize(("label", "least", "most"), [(3, 4.0, 37.0), (17, 8.0, 94.0), (22, 18.0, 139.0)])
def test_each_region_has_sizes_of_its_own(measured, label, least, most):
    for volume, found in ((least, set()), (most, set()), (least - 0.1, {"volume"}), (most + 0.1, {"volume"})):
        assert changed(measured, label=[label], volume_cm3=[volume]) & {"volume"} == found


def test_rounding_is_told_and_by_how_much(measured):
    found = list(implausible(replace(measured, label_rounding=2.5e-4), VOCABULARY))
    assert found == [("label_rounding", "whole numbers", "numbers that are up to 0.00025 off")]
    assert list(implausible(measured, VOCABULARY)) == []


@pytest.mark.parametrize("orientation", ["SLA", "SLP"])
@pytest.mark.parametrize(("behind", "found"), [(1.0, {"front_to_back"}), (0.9, set())])
def test_how_far_behind_its_middle_a_vertebra_may_be(measured, behind, found, orientation):
    """Of 25 voxels from 10 to 34, the middle is 22."""
    measured, axis = replace(measured, orientation=orientation), {"A": 1, "P": -1}
    (number,) = (n for n, code in enumerate(measured.orientation) if code in axis)
    start, stop, centre = [5, 5, 5], [30, 30, 30], [17.0, 17.0, 17.0]
    start[number], stop[number] = 10, 35
    centre[number] = 22 - axis[measured.orientation[number]] * behind
    places = {"start": [tuple(start)] * 2, "stop": [tuple(stop)] * 2, "centroid": [tuple(centre)] * 2}
    assert changed(measured, **places) & {"front_to_back"} == found
    # Of the neck, bodies are smaller than their processes.
    assert changed(measured, label=[3, 4], **places) & {"front_to_back"} == set()


@pytest.mark.parametrize("orientation", ["SLA", "ILA"])
@pytest.mark.parametrize(("top", "found"), [(90, {"pieces"}), (89, set())])
def test_heights_are_those_along_the_spine(measured, orientation, top, found):
    places = {
        "start": [(50, 5, 5), (30, 5, 5), (10, 5, 5)],
        "stop": [(top, 30, 30), (50, 30, 30), (30, 30, 30)],
    }
    turned = replace(measured, orientation=orientation)
    assert changed(turned, **places) & {"pieces"} == found
    # A stray voxel stretches the box: then its height says nothing.
    sizes = {"voxels": [1000] * 3, "largest_component": [999, 1000, 1000]}
    assert changed(turned, **places, **sizes) & {"pieces"} == set()


def test_how_much_of_a_vertebra_may_be_apart(measured):
    for largest, found in ((991, set()), (990, {"pieces"})):
        assert changed(measured, voxels=[1000], largest_component=[largest]) & {"pieces"} == found
        cut = {"start": [(0, 5, 5)], "stop": [(30, 30, 30)]}
        assert changed(measured, voxels=[1000], largest_component=[largest], **cut) & {"pieces"} == set()


def test_what_the_scan_cuts_is_in_order_but_at_no_known_distance(measured):
    cut = {"start": [(0, 5, 5)] * 4}
    assert changed(measured, centroid_mm=at_heights(0, 10, 10, 30), **cut) & {"order"} == {"order"}
    assert changed(measured, centroid_mm=at_heights(0, 10, 26.1, 36.1), **cut) & {"distance"} == set()


def test_how_much_brighter_than_what_is_beside_it_bone_is(measured):
    for beside, found in ((230.0, set()), (230.1, {"intensity"})):
        told = implausible(replace(measured, hu_beside=beside), VOCABULARY)
        assert {check for check, *_ in told} == found


def test_a_sacrum_may_have_any_size(measured):
    (first, *_) = measured.vertebrae
    sacrum = replace(measured, vertebrae=(replace(first, label=26, volume_cm3=0.5),))
    assert list(implausible(sacrum, MSR.vocabulary)) == []


def test_names_are_those_of_the_vocabulary(tmp_path, healthy):
    """A data set whose labels are one less than ours, and whose regions are of no known size."""
    image, mask = healthy
    mask[mask == label("T12")] = 0
    mask[mask == label("L2")] = label("L3")
    others = Vocabulary(
        tuple(
            replace(v, label=v.label - 1, name=f"V{v.name}", region="lumbar") for v in VOCABULARY.vertebrae
        ),
        ("own",),
    )
    paths = save_spine(tmp_path, "liver_106", image, np.where(mask > 0, mask - 1, 0).astype("u1"))
    with open_case(*paths, vocabulary=others) as case:
        found = {check: found for check, _, found in implausible(measure(case), others)}
    ours = {check: found for check, (_, found) in strange(tmp_path, image, mask).items()}
    assert set(found) == set(ours)
    assert found["gap"] == "no VT12, VL2"
    assert ours["gap"] == "no T12, L2"
    assert found["pieces"] == ours["pieces"].replace("L3", "VL3")


@pytest.mark.slow
def test_real_ct_is_plausible_and_moved_masks_are_not(sample, tmp_path):
    import nibabel as nib

    for image in sorted((sample / "raw_data/volumes").rglob("*.nii.gz")):
        mask = next(sample.rglob(image.name.replace(".nii.gz", "_seg.nii.gz")))
        hu = np.asarray(nib.load(image).dataobj)
        labels, affine = np.asarray(nib.load(mask).dataobj), nib.load(image).affine
        found = strange(tmp_path, hu, labels, affine)
        assert "intensity" not in found
        assert "order" not in found
        assert "upside_down" not in found
        for moved in (
            np.roll(labels, 20, axis=0),
            np.roll(labels, -20, axis=1),
            labels[::-1],
            labels[:, ::-1],
        ):
            assert "intensity" in strange(tmp_path, hu, moved, affine)
        assert "upside_down" in strange(tmp_path, hu[..., ::-1], labels[..., ::-1], affine)
