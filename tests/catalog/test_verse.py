"""VerSe: every real name in the facts, in all layouts, and what the catalogue says of each series."""

import csv
from collections import Counter

import pytest
from support.paths import ROOT

from ctspine1k import load_catalog
from ctspine1k.catalog.ctspine1k import CTSPINE1K
from ctspine1k.catalog.verse import ERROR_KINDS, EVIDENCE, ISSUE_KINDS, VERSE
from ctspine1k.errors import AmbiguousFilesError
from ctspine1k.files.raw import Entry, Listing, find_files

FACTS = ROOT / "ctspine1k/catalog/facts/verse/series.csv"
PHASES = {"train": "training", "validation": "validation", "test": "test"}
NUMBERS = {"train": "01", "validation": "02", "test": "03"}


def facts():
    with FACTS.open(newline="") as file:
        return list(csv.DictReader(file))


def subject_based(row, points="seg-subreg_ctd.json"):
    """Names of a series' image, mask and points; that of the image is a listed or derived one."""
    image = row["ct_name"] or f"sub-{row['series']}_ct.nii.gz"
    stem = image.removesuffix("ct.nii.gz")
    return image, f"{stem}seg-vert_msk.nii.gz", stem + points


def in_trees(row, top, **names):
    """Paths below rawdata and derivatives, with the files beside them that are nobody's."""
    image, mask, points = subject_based(row, **names)
    folder = f"sub-{row['patient']}"
    stem = image.removesuffix("_ct.nii.gz")
    beside = [f"{top}/rawdata/{folder}/{stem}_ct.json", f"{top}/derivatives/{folder}/{stem}_seg-vert_snp.png"]
    trees = zip(("rawdata", "derivatives", "derivatives"), (image, mask, points), strict=True)
    return [f"{top}/{tree}/{folder}/{name}" for tree, name in trees], beside


def layout_1(row):
    """Subject-based 2019, nested twice, and 2020."""
    top = f"dataset-verse{row['release'][2:]}{PHASES[row['split']]}"
    return in_trees(row, f"{top}/{top}")


def layout_2(row):
    """Subject-based 2020 in a folder for each phase, with the names of 2021 for points."""
    top = f"dataset-verse{row['release'][2:]}{PHASES[row['split']]}"
    return in_trees(
        row, f"{top}/dataset-{NUMBERS[row['split']]}{PHASES[row['split']]}", points="seg-vb_ctd.json"
    )


def layout_3(row):
    return in_trees(row, f"{NUMBERS[row['split']]}_{PHASES[row['split']]}")


def layout_4(row):
    """MICCAI 2019, flat."""
    if row["in_miccai19"] == "0":
        return [], []
    series = row["series"]
    return [f"{series}.nii.gz", f"{series}_seg.nii.gz", f"{series}_ctd.json"], [f"{series}_snapshot.png"]


def layout_5(row):
    """MICCAI 2020: names of images are listed where they are known; the infix of others differs between files."""
    if row["in_miccai20"] == "0":
        return [], []
    series = row["series"].upper() if row["series"].startswith("gl") else row["series"]
    joined = series if row["patient"] == row["series"] else f"{row['patient']}-{series}"
    stem = row["miccai20_name"] or f"{joined}_CT-ax"
    points = f"{stem.replace('_CT-', '_CT_')}-iso-ctd.json"
    files = [f"{stem}.nii.gz", f"{stem}_seg.nii.gz", points]
    return [f"{row['patient']}/{name}" for name in files], [
        f"{row['patient']}/{stem}{end}" for end in (".png", "-w.png")
    ]


LAYOUTS = (layout_1, layout_2, layout_3, layout_4, layout_5)


def listing(paths):
    return Listing({path: Entry(1, path, f"file:///{path}") for path in paths})


def found(paths):
    return {
        (file.case.case_id, file.kind): file.path
        for file in find_files(listing(paths), VERSE, load_catalog("verse"))
    }


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_series_is_paired_rightly_in_every_layout(layout):
    expected, beside = {}, []
    for row in facts():
        own, nobodys = layout(row)
        expected |= {(row["series"], kind): path for kind, path in zip(VERSE.possible, own, strict=False)}
        beside += nobodys
    count = {layout_4: 160, layout_5: 319}.get(layout, 374)
    assert len(expected) == 3 * count
    assert found([*expected.values(), *beside]) == expected
    assert not [path for path in beside if VERSE.parse_name(path)]
    catalog = load_catalog("verse")
    assert not [
        found
        for (case, kind), path in expected.items()
        for found in VERSE.misplaced(path, catalog[case], kind)
    ]


@pytest.mark.parametrize(
    ("name", "series", "kind"),
    [
        ("GL017_CT_ax_seg.nii.gz", "gl017", "mask"),
        ("GL124_CT_ax-iso-ctd.json", "gl124", "points"),
        ("GL124_CT-ax.nii.gz", "gl124", "image"),
        ("verse512_CT-iso_iso-ctd.json", "verse512", "points"),
        ("verse403_verse208_CT-sag_iso-ctd.json", "verse208", "points"),
        ("verse401_verse201_CT-iso.nii.gz", "verse201", "image"),
        ("sub-verse408_split-verse223_ct.nii.gz", "verse223", "image"),
        ("sub-gl003_dir-ax_seg-vb_ctd.json", "gl003", "points"),
        ("verse005_seg.nii", "verse005", "mask"),
    ],
)
def test_names_that_were_seen(name, series, kind):
    assert VERSE.parse_name(f"any/folder/{name}") == [(series, kind)]


@pytest.mark.parametrize(
    "name",
    [
        "verse005_snapshot.png",
        "GL017_CT-ax-w.png",
        "sub-verse004_ct.json",
        "verse5.nii.gz",
        "verse0050.nii.gz",
        "xverse005.nii.gz",
        "sub-verse004_seg-vert_msk_ct.nii.gz",
        "verse005_CT-oblique.nii.gz",
        "verse005_ctd.nii.gz",
        "017.nii.gz",
    ],
)
def test_other_names_are_nobodys(name):
    assert VERSE.parse_name(name) == []


def test_the_same_number_with_another_prefix_is_another_series():
    both = [row["series"][2:] for row in facts() if row["series"].startswith("gl")]
    both = [number for number in both if f"verse{number}" in load_catalog("verse")]
    assert len(both) == 13
    for number in both:
        assert found([f"GL{number}.nii.gz", f"verse{number}.nii.gz"]) == {
            (f"gl{number}", "image"): f"GL{number}.nii.gz",
            (f"verse{number}", "image"): f"verse{number}.nii.gz",
        }


@pytest.mark.parametrize(
    ("one", "other", "kind"),
    [
        ("a/sub-verse004_ct.nii.gz", "verse004.nii.gz", "image"),
        ("a/verse012_seg.nii.gz", "b/verse012_seg.nii.gz", "mask"),
        ("sub-verse004_seg-subreg_ctd.json", "sub-verse004_seg-vb_ctd.json", "points"),
    ],
)
def test_two_files_for_one_are_an_error_that_names_both(one, other, kind):
    with pytest.raises(
        AmbiguousFilesError, match=f"expected one {kind} file, found 2: .*{one}.*{other}|{other}.*{one}"
    ):
        found([one, other])


def test_folders_that_contradict_the_name():
    case = load_catalog("verse")["verse223"]  # of verse408, train, 2019
    name = "sub-verse408_split-verse223_ct.nii.gz"
    told = {
        f"dataset-verse19training/rawdata/sub-verse408/{name}": [],
        f"dataset-verse19training/derivatives/sub-verse408/{name}": ["folder derivatives"],
        f"dataset-verse20training/rawdata/{name}": ["folder dataset-verse20training"],
        f"dataset-verse19test/rawdata/{name}": ["folder dataset-verse19test"],
        f"02_validation/rawdata/{name}": ["folder 02_validation"],
        f"Dataset-Verse19Test/RawData/{name}": ["folder Dataset-Verse19Test"],
        f"rawdata/sub-verse004/{name}": ["folder sub-verse004"],
        f"rawdata/Sub-Verse004/{name}": ["folder Sub-Verse004"],
        f"rawdata/Sub-Verse408/{name}": [],
        "verse408/verse408_verse223_CT-iso.nii.gz": [],
    }
    for path, expected in told.items():
        assert [found for _, found in VERSE.misplaced(path, case, "image")] == expected


def test_the_catalogue():
    catalog = load_catalog("verse")
    assert catalog.summary == "374 cases: train 141, validation 120, test 113"
    assert len({case.patient for case in catalog}) == 355
    assert Counter((case.release, case.split) for case in catalog) == {
        ("2019", "train"): 80, ("2019", "validation"): 40, ("2019", "test"): 40,
        ("2020", "train"): 61, ("2020", "validation"): 80, ("2020", "test"): 73,
    }  # fmt: skip
    in_miccai20 = catalog.where(in_miccai20=True)
    assert in_miccai20.summary == "319 cases: train 113, validation 103, test 103"
    assert len(catalog.where(in_miccai19="yes")) == len(catalog.where(release=2019)) == 160
    assert len(catalog.where(in_miccai20=False)) == 374 - 319
    in_both = len(catalog.where(in_miccai19=True, in_miccai20=True))
    assert f"{in_both} series are in both 2019 and 2020" in VERSE.how_to_get
    assert len(catalog.where(patient="verse405")) == 3
    assert len(catalog.where(direction=["ax", "sag"])) == 63 + 17
    assert len(catalog.where(issue="several_series")) == 37
    assert [case.case_id for case in catalog.where(issue="header_mismatch")] == [
        "verse641",
        "verse650",
        "verse651",
    ]
    assert len(catalog.where(issue="numbering_suspected")) == 15
    assert len(catalog.where(issue="spurious_labels")) == 16
    assert {issue.kind for case in catalog for issue in case.issues} == set(ISSUE_KINDS)
    assert {issue.evidence for case in catalog for issue in case.issues} == set(EVIDENCE)
    for one in EVIDENCE:
        assert {issue.evidence for case in catalog.where(evidence=one) for issue in case.issues} >= {one}
    left = {issue.kind for case in catalog.where(exclude_issues="errors") for issue in case.issues}
    assert left == {"several_series"} == set(ISSUE_KINDS) - set(ERROR_KINDS)
    assert len(catalog.where(exclude_issues="errors")) > 374 - 40 > len(catalog.where(exclude_issues="all"))


def test_variants_are_those_that_the_lists_of_ctspine1k_name_in_verse():
    catalog = load_catalog("verse")
    named = [case.case_id for case in catalog.where(special_case="lumbar_sacralization")]
    assert named == ["verse100", "verse584", "verse594"]
    assert len(catalog.where(special_case="sacral_lumbarization")) == 8
    assert catalog["verse506"].special_case == "sacral_lumbarization"  # listed as verse506_CT-iso


def test_sex_is_the_patients_and_age_only_where_it_is_listed():
    catalog = load_catalog("verse")
    for row in facts():
        case = catalog[row["series"]]
        assert case.sex == (row["sex"] or catalog[_first(row["patient"])].sex)
        assert case.age == (row["age"] or None)
    ages = [int(case.age) for case in catalog if case.age]
    for asked, expected in {
        "40-60": range(40, 61),
        "70-": range(70, 200),
        "-30": range(31),
        "57": [57],
    }.items():
        assert len(catalog.where(age=asked)) == sum(age in expected for age in ages)
    assert len(catalog.where(age=57)) == len(catalog.where(age="57"))
    for wrong in ("old", "-", "40-60-80"):
        with pytest.raises(ValueError, match=f"age='{wrong}': expected a number, or a range such as '40-60'"):
            catalog.where(age=wrong)


def _first(patient):
    return next(row["series"] for row in facts() if row["patient"] == patient)


def test_the_licence_is_told_by_case():
    catalog = load_catalog("verse")
    others = catalog.where(licence="CC BY-NC-ND")
    assert len(others) == 30
    assert all(case.case_id.startswith("gl") for case in others)
    for case in catalog:
        assert VERSE.terms(case).name == case.licence
    assert (
        "not" in VERSE.terms(others.cases[0]).terms or "no other source" in VERSE.terms(others.cases[0]).terms
    )


def test_licences_of_several_cases_are_joined():
    catalog = load_catalog("verse")
    assert VERSE.licence_names(catalog) == "CC BY-NC-ND and CC BY-SA 4.0"
    assert VERSE.licence_names(catalog.where(release=2019)) == VERSE.licence_names(()) == "CC BY-SA 4.0"
    assert VERSE.licence_text(catalog.where(release=2019)) == "CC BY-SA 4.0: attribution, share alike"
    assert "; of 30 cases, CC BY-NC-ND: " in VERSE.licence_text(catalog)
    assert "; of 1 case, CC BY-NC-ND: " in VERSE.licence_text(catalog.select("gl003"))


def test_a_t13_is_expected_only_where_it_is_listed():
    catalog = load_catalog("verse")
    assert list(VERSE.odd_labels(catalog["verse509"], [19, 28, 20])) == []
    assert list(VERSE.odd_labels(catalog["verse004"], [19, 20, 25])) == []
    ((check, _, told),) = VERSE.odd_labels(catalog["verse004"], [19, 28, 20])
    assert (check, told) == ("unlisted_t13", "T13")


def test_labels():
    vocabulary = VERSE.vocabulary
    assert vocabulary.describe("verse") == "0 background, 1-7 C1-C7, 8-19 T1-T12, 28 T13, 20-25 L1-L6"
    assert vocabulary.gaps == (26, 27)
    assert vocabulary.downwards([20, 28, 19]) == [19, 28, 20]
    assert vocabulary.names("ctspine1k") == CTSPINE1K.vocabulary.names("ctspine1k")
    assert load_catalog("ctspine1k").splits == VERSE.splits
