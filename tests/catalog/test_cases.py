import collections
import csv
import pickle
import re

import pytest
from support.paths import ROOT

from ctspine1k import Case, Catalog, Issue, load_catalog
from ctspine1k.catalog.cases import Facet, is_within
from ctspine1k.catalog.ctspine1k import (
    ERROR_KINDS,
    EVIDENCE,
    ISSUE_KINDS,
    SCAN_POSITIONS,
    SOURCES,
    SPECIAL_CASES,
)
from ctspine1k.errors import UnknownCaseError

SPLITS = ("train", "validation", "test")


def test_counts_by_split_and_source():
    counts = collections.Counter((case.source, case.split) for case in load_catalog())
    table = {source: [counts[source, split] for split in SPLITS] for source in SOURCES}
    assert table == {
        "COLONOG": [480, 152, 152],
        "COVID-19": [20, 10, 10],
        "HNSCC-3DCT-RT": [20, 5, 6],
        "MSD-T10": [90, 30, 30],
    }
    assert len(load_catalog()) == 1005


def test_every_id_once_and_indexed_from_zero_in_each_split():
    catalog = load_catalog()
    assert len({case.case_id for case in catalog}) == 1005
    for split in SPLITS:
        cases = catalog.where(split=split)
        assert [case.index for case in cases] == list(range(len(cases)))


def test_all_cases_of_the_other_site_are_in_validation():
    assert {c.split for c in load_catalog() if c.case_id.startswith("CTC-")} == {"validation"}
    assert sum(c.case_id.startswith("CTC-") for c in load_catalog()) == 34


def test_order_is_that_of_the_split_file(split_file):
    assert [c.case_id for c in load_catalog()][:2] == [
        "1.3.6.1.4.1.9328.50.4.0001",
        "1.3.6.1.4.1.9328.50.4.0002",
    ]
    assert [c.split for c in load_catalog(split_file=split_file)] == ["train", "train", "validation", "test"]


def test_look_up():
    catalog = load_catalog()
    assert catalog["liver_106"] == Case(
        "liver_106",
        "train",
        507,
        facts={
            "source": "MSD-T10",
            "special_case": "sacral_lumbarization",
            "tcia_series": None,
            "scan_position": None,
        },
    )
    assert "liver_106" in catalog
    unknown = r"^no case 'liver_1066' in this catalog of 1,005 cases. Did you mean liver_106"
    with pytest.raises(UnknownCaseError, match=unknown):
        catalog["liver_1066"]
    with pytest.raises(UnknownCaseError, match=r"^no case 'liver_0' in this catalog of 1 case. Did you mean"):
        catalog.select("liver_106").select("liver_0")  # which the data set has
    with pytest.raises(KeyError):
        catalog["x"]


def test_where_combines():
    chosen = load_catalog().where(split="train", source="MSD-T10", special_case="sacral_lumbarization")
    assert "liver_106" in chosen
    assert {(c.split, c.source, c.special_case) for c in chosen} == {
        ("train", "MSD-T10", "sacral_lumbarization")
    }
    assert len(load_catalog().where(special_case="sacral_lumbarization")) == 17
    assert len(load_catalog().where(special_case="lumbar_sacralization")) == 11
    assert len(load_catalog().where()) == 1005


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("split", SPLITS),
        ("source", SOURCES),
        ("special_case", SPECIAL_CASES),
        ("scan_position", SCAN_POSITIONS),
        ("issue", ISSUE_KINDS),
        ("evidence", EVIDENCE),
        ("exclude_issues", ("reported", "errors", "all", *ISSUE_KINDS)),
    ],
)
def test_where_names_what_is_allowed(name, allowed):
    with pytest.raises(ValueError, match=f"{name}='typo': expected one of .*{allowed[-1]}"):
        load_catalog().where(**{name: "typo"})


def facts(path: str) -> list[dict[str, str]]:
    with (ROOT / path).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_facts_name_cases_that_exist():
    ids = {case.case_id for case in load_catalog()}
    assert [row["case_id"] for row in facts("ctspine1k/catalog/facts/ctspine1k/cases.csv")] == [
        c.case_id for c in load_catalog()
    ]
    assert {row["case_id"] for row in facts("special_cases/known_issues.csv")} < ids
    for kind in SPECIAL_CASES:
        listed = (ROOT / f"special_cases/{kind}.txt").read_text().partition("ctspine1k:\n")[2]
        assert set(listed.partition("\n\nverse:")[0].split()) == {
            case.case_id for case in load_catalog().where(special_case=kind)
        }


def test_where_each_scan_came_from():
    counts = collections.Counter((c.source, bool(c.tcia_series)) for c in load_catalog())
    assert counts == {
        ("COLONOG", True): 784,
        ("MSD-T10", False): 150,
        ("COVID-19", False): 40,
        ("HNSCC-3DCT-RT", True): 31,
    }
    assert collections.Counter(case.scan_position for case in load_catalog()) == {
        None: 420,
        "prone": 291,
        "supine": 294,
    }
    assert {case.source for case in load_catalog().where(scan_position="prone")} == {"COLONOG"}
    assert len(load_catalog().where(tcia_series="*flipped updown*")) == 12
    series = load_catalog()["HN_P001"].tcia_series
    assert [case.case_id for case in load_catalog().where(tcia_series=series)] == ["HN_P001"]
    assert len(load_catalog().where(tcia_series="*")) == 1005
    assert len(load_catalog().where(tcia_series="?*")) == 815


def test_known_issues_with_kind_evidence_and_where_they_were_reported():
    issues = [issue for case in load_catalog() for issue in case.issues]
    assert len(issues) == 85 == len(facts("special_cases/known_issues.csv"))
    assert collections.Counter(issue.kind for issue in issues) == {
        "castellvi_grade": 31,
        "orientation_suspected": 12,
        "label_incomplete": 11,
        "label_missing": 8,
        "orientation_ap_inverted": 7,
        "transitional_not_listed": 6,
        "numbering_suspected": 6,
        "label_wrong_value": 2,
        "label_discontinuous": 1,
        "image_label_mismatch": 1,
    }
    assert {issue.kind for issue in issues} == set(ISSUE_KINDS)
    assert {issue.evidence for issue in issues} == set(EVIDENCE)
    assert all(issue.detail and issue.reference for issue in issues)
    assert load_catalog()["1.3.6.1.4.1.9328.50.4.0291"].issues == (
        Issue(
            "label_missing",
            "reported",
            "label 22 (L3) is missing between 21 and 23; the reporter left the case out",
            "MIRACLE-Center/CTSpine1K#13",
        ),
    )


def test_cases_by_issue():
    catalog = load_catalog()
    assert len(catalog.where(issue="label_missing")) == 8
    assert len(catalog.where(issue="label_missing", evidence="reported")) == 2
    assert len(catalog.where(evidence="reported")) == 5
    # Issues of one case on different evidence: the kind asked for must be what stands on it.
    assert "1.3.6.1.4.1.9328.50.4.0482" in catalog.where(issue="label_wrong_value", evidence="reported")
    assert "1.3.6.1.4.1.9328.50.4.0482" not in catalog.where(issue="label_missing", evidence="reported")


def test_nothing_is_left_out_unless_asked():
    catalog = load_catalog()
    assert len(catalog.where()) == 1005
    kept = catalog.where(exclude_issues="reported")
    assert {c.case_id for c in catalog} - {c.case_id for c in kept} == {
        f"1.3.6.1.4.1.9328.50.4.{n}" for n in ("0103", "0291", "0482", "0500", "0730")
    }
    kept = catalog.where(exclude_issues="all")
    assert len(kept) == 931
    assert not [case for case in kept if case.issues]
    assert [case.index for case in kept.where(split="train")][:3] == [0, 1, 4]  # the split's own positions


def test_kinds_of_issues_are_left_out_and_selected():
    catalog = load_catalog()
    two = ["label_missing", "label_wrong_value"]
    chosen = catalog.where(issue=two)
    assert len(chosen) == 9
    assert {case.case_id for case in catalog} - {
        case.case_id for case in catalog.where(exclude_issues=two)
    } == {case.case_id for case in chosen}
    assert len(catalog.where(issue=two, evidence=["reported"])) == 4
    errors = catalog.where(exclude_issues="errors")
    assert len(errors) == 959
    left = {issue.kind for case in errors for issue in case.issues}
    assert left == {"castellvi_grade", "transitional_not_listed"} == set(ISSUE_KINDS) - set(ERROR_KINDS)
    assert list(catalog.where(exclude_issues=["errors", *left])) == list(catalog.where(exclude_issues="all"))
    assert list(catalog.where(exclude_issues=["reported"])) == list(catalog.where(exclude_issues="reported"))
    assert len(catalog.where(exclude_issues=[])) == 1005
    with pytest.raises(ValueError, match="issue='typo': expected one of 'label_missing'"):
        catalog.where(issue=["label_missing", "typo"])
    with pytest.raises(ValueError, match="issue='3': expected one of 'label_missing'"):
        catalog.where(issue=3)


def test_every_criterion_takes_several_values():
    catalog = load_catalog()
    assert len(catalog.where(split=["validation", "test"], source=("MSD-T10", "COVID-19"))) == 80
    assert len(catalog.where(special_case=SPECIAL_CASES)) == 28
    assert len(catalog.where(tcia_series=iter(["*flipped updown*", "HN_P001/*"]))) == 13


def test_a_range_without_a_lower_end_begins_at_0():
    facets = (Facet("age", "Only patients of this age.", None, is_within),)
    newborn = Catalog((Case("a", "train", 0, facts={"age": "0"}),), ("train",), facets)
    assert [len(newborn.where(age=age)) for age in ("-30", "0", 0, "1-30")] == [1, 1, 1, 0]


def test_a_catalog_says_what_is_in_it():
    catalog = load_catalog()
    assert repr(catalog) == "Catalog(1,005 cases: train 610, validation 197, test 198)"
    assert repr(catalog.where(split="test", source="COVID-19")) == "Catalog(10 cases: test 10)"
    assert repr(catalog.select("liver_106")) == "Catalog(1 case: train 1)"
    assert repr(catalog.select([])) == "Catalog(0 cases)"


def test_a_notebook_shows_the_first_cases():
    page = load_catalog()._repr_html_()
    assert re.findall("<th>(.*?)</th>", page) == list(load_catalog().to_pandas().columns)
    assert page.startswith(
        "<p>1,005 cases: train 610, validation 197, test 198</p><table><tr><th>case_id</th>"
    )
    assert page.count("<tr>") == 11
    assert page.endswith("</table><p>and 995 more</p>")
    assert "None" not in page
    few = load_catalog().select("HN_P001")._repr_html_()
    assert few.endswith("<td></td></tr></table>")
    strange = Catalog((Case("<b>&", "train", 0, facts={}),), ("train",), ())
    assert "<td>&lt;b&gt;&amp;</td>" in strange._repr_html_()


def test_to_pandas():
    frame = load_catalog().to_pandas()
    assert list(frame.columns) == [
        "case_id",
        "split",
        "index",
        "source",
        "special_case",
        "tcia_series",
        "scan_position",
        "issues",
    ]
    assert len(frame) == 1005
    assert frame.groupby("split").size().to_dict() == {"train": 610, "validation": 197, "test": 198}
    assert (
        frame.set_index("case_id").issues["1.3.6.1.4.1.9328.50.4.0482"] == "label_wrong_value label_missing"
    )
    assert (frame.issues != "").sum() == 74
    assert list(load_catalog().where(split="test", source="MSD-T10").to_pandas().split.unique()) == ["test"]
    empty = load_catalog().where(source="MSD-T10", scan_position="prone").to_pandas()
    assert len(empty) == 0
    assert list(empty.columns) == list(frame.columns)


def test_by_split():
    chosen = load_catalog().select(["HN_P023", "liver_106", "HN_P001"])
    names = {split: [case.case_id for case in cases] for split, cases in chosen.by_split().items()}
    assert names == {"train": ["HN_P001", "liver_106"], "validation": ["HN_P023"]}
    assert list(chosen.by_split(["validation", "train"])) == ["validation", "train"]
    with pytest.raises(
        ValueError,
        match="no cases in test: check splits, cases, split_file, exclude_issues and has_vertebrae",
    ):
        chosen.by_split("test")
    with pytest.raises(ValueError, match="splits='dev': expected one of 'train'"):
        chosen.by_split(["dev"])


def test_select_keeps_the_catalogs_order():
    catalog = load_catalog()
    assert [c.case_id for c in catalog.select(["liver_106", catalog["HN_P001"]])] == ["HN_P001", "liver_106"]
    assert [c.case_id for c in catalog.select("liver_106")] == ["liver_106"]


def test_cases_of_ones_own_have_no_source(tmp_path):
    path = tmp_path / "split.txt"
    path.write_text("trainset:\nmine\nliver_106\n")
    mine, liver = load_catalog(split_file=path)
    assert (mine.case_id, mine.split, mine.index) == ("mine", "train", 0)
    assert set(mine.facts.values()) == {None}
    assert mine.source is mine.special_case is mine.patient is None
    assert (liver.index, liver.source, liver.special_case) == (1, "MSD-T10", "sacral_lumbarization")


def test_no_scan_of_another_data_set_is_a_case():
    assert not [case for case in load_catalog() if case.case_id.startswith("verse")]


def test_a_criterion_that_there_is_not_names_those_that_there_are():
    with pytest.raises(TypeError, match="no criterion 'scan_postion': expected split, source, special_case"):
        load_catalog().where(scan_postion="prone")


def test_what_a_scan_has_to_say_is_not_ignored():
    with pytest.raises(ValueError, match=r"has_vertebrae needs a scan of the files: open_collection\("):
        load_catalog().where(has_vertebrae="L6")


def test_a_patient_is_known_where_the_series_is():
    patients = [case.patient for case in load_catalog()]
    assert sum(patient is not None for patient in patients) == 815
    assert load_catalog()["HN_P001"].patient == "HN_P001"
    assert load_catalog()["liver_106"].patient is None


def test_facts_are_attributes_also_of_a_copy_from_another_process():
    case = load_catalog()["liver_106"]
    copy = pickle.loads(pickle.dumps(case))  # noqa: S301 (our own)
    assert copy == case
    assert hash(copy) == hash(case)
    assert copy.special_case == "sacral_lumbarization"
    with pytest.raises(AttributeError, match="'Case' object has no attribute 'castellvi'"):
        copy.castellvi  # noqa: B018


@pytest.mark.parametrize("value", [5, [5], ["*Prone*", 5]])
def test_values_that_are_no_texts_are_named(value):
    with pytest.raises(ValueError, match="tcia_series=5: expected a text, or several in a list"):
        load_catalog().where(tcia_series=value)
    with pytest.raises(ValueError, match=r"split=.*: expected one of 'train', 'validation', 'test'"):
        load_catalog().where(split=value)
