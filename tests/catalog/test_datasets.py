"""What every data set must do: the contract of `ctspine1k.catalog.dataset`."""

import pickle
import posixpath

import pytest
from support.tiny import TINY

from ctspine1k import load_catalog
from ctspine1k.catalog import registry
from ctspine1k.catalog.cases import equals
from ctspine1k.catalog.ctspine1k import CTSPINE1K
from ctspine1k.catalog.msr import MSR
from ctspine1k.catalog.verse import VERSE
from ctspine1k.catalog.vocabulary import REGIONS
from ctspine1k.checks.verify import CHECKS
from ctspine1k.errors import SplitFileError

DATA_SETS = (CTSPINE1K, VERSE, MSR, TINY)


@pytest.fixture(params=DATA_SETS, ids=lambda one: one.name)
def data_set(request):
    return request.param


def test_all_built_in_data_sets_are_held_to_it():
    assert {registry.data_set(name).name for name in registry._BUILT_IN} <= {one.name for one in DATA_SETS}


def test_cases_are_in_their_splits_in_order(data_set):
    catalog = data_set.read_cases(None)
    assert catalog.splits == data_set.splits
    assert len({case.case_id for case in catalog}) == len(catalog) > 0
    grouped = catalog.by_split()
    assert list(grouped) == [split for split in data_set.splits if split in grouped]
    for split, cases in grouped.items():
        assert [case.index for case in cases] == list(range(len(cases)))
        assert {case.split for case in cases} == {split}


def test_a_patient_is_in_one_split(data_set):
    splits = {}
    for case in data_set.read_cases(None):
        if case.patient is not None:
            splits.setdefault(case.patient, set()).add(case.split)
    assert all(len(of_patient) == 1 for of_patient in splits.values())


def test_each_case_has_the_facts_that_the_tables_have(data_set):
    catalog = data_set.read_cases(None)
    assert set(data_set.listed) <= set(catalog.facts)
    for case in catalog:
        assert tuple(case.facts) == catalog.facts
        assert list(case.row()) == ["case_id", "split", "index", *catalog.facts, "issues"]


def test_names_and_cases_go_both_ways(data_set):
    for case in data_set.read_cases(None):
        for kind in data_set.possible:
            path = data_set.file_name(case, kind)
            assert not posixpath.isabs(path)
            assert ".." not in path.split("/")
            name = posixpath.basename(path)
            before, _, ending = name.rpartition(case.case_id)
            for found in (path, name, f"any/{name}", before + case.case_id + ending.upper()):
                assert data_set.parse_name(found)[0] == (case.case_id, kind)
            assert list(data_set.misplaced(path, case, kind)) == []
            if kind in ("image", "mask"):
                assert name.endswith(data_set.suffixes)
    assert not data_set.parse_name("README.md")


@pytest.mark.parametrize("data_set", [CTSPINE1K, VERSE, MSR], ids=lambda one: one.name)
@pytest.mark.parametrize("folder", ["labelsTr", "x/labelsTs", "Labels/train", "masks", "label_new/gt"])
def test_nothing_in_a_folder_of_masks_is_an_image(data_set, folder):
    case = next(iter(data_set.read_cases(None)))
    name = posixpath.basename(data_set.file_name(case, "image"))
    for found in (name, f"{case.case_id}.nii.gz", f"{case.case_id}.NII", f"{case.case_id}_0000.nii.gz"):
        kinds = {
            kind for case_id, kind in data_set.parse_name(f"{folder}/{found}") if case_id == case.case_id
        }
        assert kinds == ({"mask"} if "mask" in data_set.kinds and "_0000" not in found else set())


@pytest.mark.parametrize("data_set", [CTSPINE1K, VERSE, MSR], ids=lambda one: one.name)
def test_nnu_nets_layout_is_read_as_what_it_is(data_set):
    case_id = next(iter(data_set.read_cases(None))).case_id
    for path in (f"imagesTr/{case_id}_0000.nii.gz", f"any/imagesTs/{case_id}_0000.NII.GZ"):
        assert data_set.parse_name(path)[0] == (case_id, "image")
    other_channel = dict(data_set.parse_name(f"imagesTr/{case_id}_0001.nii.gz"))
    assert case_id not in other_channel


def test_names_of_licences_and_files_are_those_that_others_know():
    assert {one.name: one.licence.hub_name for one in DATA_SETS[:3]} == {
        "ctspine1k": "cc-by-nc-sa",
        "verse": "cc-by-sa-4.0",
        "msr": "non-commercial-research-use",
    }
    assert {VERSE.terms(case).hub_name for case in VERSE.read_cases(None)} == {"cc-by-sa-4.0", "cc-by-nc-nd"}
    assert CTSPINE1K.suffixes == VERSE.suffixes == (".nii.gz", ".nii")
    assert MSR.suffixes == (".nii.gz", ".nii", ".mhd", ".mha")


def test_where_data_sets_are_found():
    assert {
        one.name: (one.homepage, one.repo_id, one.split_file, one.image_size) for one in DATA_SETS[:3]
    } == {
        "ctspine1k": (
            "https://arxiv.org/abs/2105.14711",
            "alexanderdann/CTSpine1K",
            "metadata/data_split.txt",
            (512, 512),
        ),
        "verse": ("https://github.com/anjany/verse", None, "split.txt", None),
        "msr": ("", None, "split.txt", None),
    }
    assert CTSPINE1K.how_to_get == ""  # it is on the Hub


def test_facets_select_and_name_what_they_allow(data_set):
    catalog = data_set.read_cases(None)
    assert data_set.facets[0].name == "split"
    assert list(catalog.where(exclude_issues="all")) == [case for case in catalog if not case.issues]
    for facet in data_set.facets:
        assert facet.help[0].isupper()
        assert facet.help.endswith(".")
        for value in facet.allowed or ():
            chosen = catalog.where(**{facet.name: value})
            if facet.matches is equals:
                assert list(chosen) == [case for case in catalog if getattr(case, facet.name) == value]
        if facet.matches is equals:
            assert {getattr(case, facet.name) for case in catalog} - {None} <= set(facet.allowed)
        if facet.allowed:
            with pytest.raises(ValueError, match=f"{facet.name}='no such': expected one of"):
                catalog.where(**{facet.name: "no such"})
    free = {"ctspine1k": ["tcia_series"], "verse": ["patient", "age"], "msr": ["annotated"]}
    if data_set is not TINY:
        assert [facet.name for facet in data_set.facets if not facet.allowed] == free[data_set.name]
    assert sum(len(catalog.where(split=split)) for split in data_set.splits) == len(catalog)


def test_labels_are_numbers_from_1_with_names_of_their_own(data_set):
    vocabulary = data_set.vocabulary
    labels = [vertebra.label for vertebra in vocabulary.vertebrae]
    assert len(labels) == len(set(labels))
    assert min(labels) >= 1
    regions = [REGIONS.index(vertebra.region) for vertebra in vocabulary.vertebrae]
    assert regions == sorted(regions)  # from the head downwards
    assert vocabulary.max_label < 256  # compact storage keeps them as bytes
    assert {vertebra.region for vertebra in vocabulary.vertebrae} <= set(REGIONS)
    for vertebra in vocabulary.vertebrae:
        assert vocabulary.label(vertebra.name) == vertebra.label
        assert vocabulary.name(vertebra.label) == vertebra.name
    assert vocabulary.table(vocabulary.schemes[0]) is None
    assert {*labels, *vocabulary.gaps} == set(range(1, vocabulary.max_label + 1))
    for scheme in vocabulary.schemes:
        assert vocabulary.describe(scheme).startswith("0 background, ")


def test_known_issues_belong_to_checks(data_set):
    assert set(data_set.known_by) <= set(CHECKS)
    kinds = next((facet.allowed for facet in data_set.facets if facet.name == "issue"), ())
    assert {kind for kinds_of_check in data_set.known_by.values() for kind in kinds_of_check} <= set(kinds)
    assert {issue.kind for case in data_set.read_cases(None) for issue in case.issues} <= set(kinds)


def test_each_case_has_a_licence(data_set):
    licences = {data_set.terms(case) for case in data_set.read_cases(None)}
    assert data_set.licence in licences
    assert all(all(vars(licence).values()) for licence in licences)


def test_kinds_of_files_are_required_or_optional(data_set):
    assert "image" in data_set.kinds
    assert not set(data_set.kinds) & set(data_set.optional)
    has_points = "points" in (*data_set.kinds, *data_set.optional)
    assert has_points == (data_set.points_format is not None)


def test_texts_are_there(data_set):
    for text in (data_set.title, data_set.description, data_set.credit, data_set.naming):
        assert text
    assert data_set.repo_id or data_set.how_to_get or data_set is TINY
    assert all(vars(data_set.licence).values())
    assert data_set.citations()[0].startswith("@")


def test_what_travels_to_workers_is_small_and_pure(data_set):
    for value in (data_set.vocabulary, next(iter(data_set.read_cases(None)))):
        assert pickle.loads(pickle.dumps(value)) == value  # noqa: S301 (our own)


def test_what_is_frozen_can_be_a_key(data_set):
    catalog = data_set.read_cases(None)
    assert {data_set: 1}[data_set] == {data_set.facets: 1}[data_set.facets] == {catalog: 1}[catalog] == 1


def test_a_name_that_there_is_not_names_those_that_there_are():
    for name in ("vers", None):
        with pytest.raises(ValueError, match=f"collection={name!r}: expected one of 'ctspine1k'"):
            load_catalog(name)


def test_a_data_set_of_your_own_replaces_none_of_ours():
    import dataclasses

    with pytest.raises(ValueError, match="collection='ctspine1k': expected a name that no data set has yet"):
        registry.register(dataclasses.replace(TINY, name="ctspine1k"))


def test_a_split_file_assigns_cases_and_may_name_others(data_set, tmp_path):
    known = [case.case_id for case in data_set.read_cases(None)][:2]
    last, first = list(data_set.sections)[-1], next(iter(data_set.sections))
    path = tmp_path / "split.txt"
    path.write_text(f"{last}:\n{known[0]}\nmine\n{first}:\n{known[1]}\n")
    catalog = data_set.read_cases(path)
    splits = data_set.sections[first], data_set.sections[last]
    assert [(case.case_id, case.split, case.index) for case in catalog] == [
        (known[1], splits[0], 0),
        (known[0], splits[1], 0),
        ("mine", splits[1], 1),
    ]
    assert tuple(catalog["mine"].facts) == catalog.facts
    if data_set is not TINY:
        assert set(catalog["mine"].facts.values()) == {None}
        path.write_text(f"{first}:\n{''.join(known)}\n")
        with pytest.raises(SplitFileError, match="two"):
            data_set.read_cases(path)
