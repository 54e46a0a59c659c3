"""The Microsoft database: names, folders, folds."""

import pytest

from ctspine1k import load_catalog
from ctspine1k.catalog.msr import MSR
from ctspine1k.errors import AmbiguousFilesError
from ctspine1k.files.raw import Entry, Listing, find_files


def found(*paths):
    listing = Listing({path: Entry(1, path, f"file:///{path}") for path in paths})
    return {
        (file.case.case_id, file.kind): file.path for file in find_files(listing, MSR, load_catalog("msr"))
    }


def test_the_catalogue():
    catalog = load_catalog("msr")
    assert catalog.summary == "302 cases: train 242, test 60"
    assert len(catalog.where(fold=1)) == len(catalog.where(fold="2")) == 112
    assert len(catalog.where(fold=[1, 2], split="train")) == 224
    assert len(catalog.where(annotated="-2")) == 2
    assert {case.top for case in catalog.where(top=["C1", "L6"])} == {"C1"}
    for end in ("top", "bottom"):
        with pytest.raises(ValueError, match=rf"^{end}='L7': .*'S1', 'S2'"):
            catalog.where(**{end: "L7"})
    assert len(catalog.where(exclude_issues="errors")) == 302
    assert {case.patient for case in catalog} == {None}


@pytest.mark.parametrize("ending", [".mhd", ".mha", ".nii", ".nii.gz", ".NII.GZ"])
@pytest.mark.parametrize(
    "layout",
    ["patient0001/{scan}/{scan}", "spine-1/patient0001/{scan}/{scan}", "spine-1/spine-1/{scan}", "{scan}"],
)
def test_every_scan_is_paired_rightly_in_every_layout(layout, ending):
    expected, beside = {}, []
    for case in load_catalog("msr"):
        stem = layout.format(scan=case.case_id)
        if case.split == "test":
            stem = stem.replace("spine-1", "spine-test-data")
        expected[case.case_id, "image"] = stem + ending
        expected[case.case_id, "points"] = stem + ".lml"
        beside.append(stem + ".raw")
    assert found(*expected.values(), *beside) == expected
    catalog = load_catalog("msr")
    assert not [
        one for (case, kind), path in expected.items() for one in MSR.misplaced(path, catalog[case], kind)
    ]


@pytest.mark.parametrize(
    "name",
    ["2804506.raw", "280450.mhd", "28045060.nii.gz", "x2804506.mhd", "2804506_seg.nii.gz", "readme.lml"],
)
def test_other_names_are_nobodys(name):
    assert MSR.parse_name(f"patient0001/2804506/{name}") == []


def test_both_packages_in_one_folder_are_an_error_that_names_both():
    with pytest.raises(
        AmbiguousFilesError, match=r"2804506: expected one image file, found 2: .*\.mhd.*\.nii\.gz"
    ):
        found("a/2804506.mhd", "b/2804506.nii.gz", "a/2804506.lml")


def test_the_patient_is_the_folders():
    assert MSR.parse_patient("spine-1/Patient0001/2804506/2804506.mhd") == "patient0001"
    assert MSR.parse_patient("2804506/2804506.mhd") is None
    assert MSR.parse_patient("patient1/2804506.mhd") is None


def test_folders_that_contradict_the_name():
    case = next(iter(load_catalog("msr").where(split="test")))
    name = f"{case.case_id}.mhd"
    assert list(MSR.misplaced(f"spine-test-data/{case.case_id}/{name}", case, "image")) == []
    for folder in ("spine-1", "Spine-2"):
        assert list(MSR.misplaced(f"{folder}/2495819/{name}", case, "image")) == [
            ("a folder of split test", f"folder {folder}"),
            (f"a folder of scan {case.case_id}", "folder 2495819"),
        ]


def test_points_that_the_list_does_not_have():
    case = load_catalog("msr")["4553575"]  # C1, C2
    assert list(MSR.odd_labels(case, [2, 1])) == []
    assert list(MSR.odd_labels(case, [])) == []
    assert list(MSR.odd_labels(case, [1, 2, 3])) == [
        ("unlisted_range", "2 vertebrae from C1 to C2", "3 vertebrae from C1 to C3")
    ]


def test_labels():
    vocabulary = MSR.vocabulary
    assert (vocabulary.label("S1"), vocabulary.label("S2")) == (26, 27)
    assert vocabulary.region("S2") == "sacral"
    assert vocabulary.names("region") == {1: "cervical", 2: "thoracic", 3: "lumbar", 4: "sacral"}
    assert vocabulary.missing(24, 26) == []  # most people have no L6
    assert vocabulary.missing(23, 26) == [vocabulary.vertebra("L5")]
