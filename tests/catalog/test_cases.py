import collections
import csv
import dataclasses

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.paths import ROOT

from ctspine1k import Case, Issue, load_catalog
from ctspine1k.catalog.cases import (
    EVIDENCE,
    EXCLUDE_ISSUES,
    ISSUE_KINDS,
    SCAN_POSITIONS,
    SOURCES,
    SPECIAL_CASES,
    SPLITS,
    parse_split,
)
from ctspine1k.errors import SplitFileError, UnknownCaseError

KNOWN = {case.case_id: case.source for case in load_catalog()}


def parse(text: str) -> dict[str, list[str]]:
    return parse_split(text.encode(), "split.txt", KNOWN)


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
    assert [c.split for c in load_catalog(split_file)] == ["train", "train", "validation", "test"]


def test_look_up():
    catalog = load_catalog()
    assert catalog["liver_106"] == Case("liver_106", "train", 507, "MSD-T10", "sacral_lumbarization")
    assert "liver_106" in catalog
    with pytest.raises(
        UnknownCaseError, match=r"no case 'liver_1066' in the catalog. Did you mean liver_106"
    ):
        catalog["liver_1066"]
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
        ("exclude_issues", EXCLUDE_ISSUES),
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
    assert [row["case_id"] for row in facts("ctspine1k/catalog/facts/ctspine1k/cases.csv")] == [c.case_id for c in load_catalog()]
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


def test_to_pandas():
    frame = load_catalog().to_pandas()
    assert list(frame.columns) == [field.name for field in dataclasses.fields(Case)]
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


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("suffix", ["", ".nii.gz"])
@pytest.mark.parametrize("end", ["", "\n", "\n\n\n"])
@pytest.mark.parametrize("start", ["", "\ufeff", "\n"])
def test_parser_takes_any_file_of_the_format(newline, suffix, end, start):
    lines = ["trainset:", "a.b.c", "", "d", "test_public:", "", "  e", "test_private:", "f"]
    text = (
        start
        + "\n".join(line if line.endswith(":") or not line else f"{line}{suffix} " for line in lines)
        + end
    )
    assert parse(text.replace("\n", newline)) == {"train": ["a.b.c", "d"], "validation": ["e"], "test": ["f"]}


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("trainset:\na.nii.gz\na\n", 3, "'a' is already in trainset, line 2"),
        ("trainset:\na\ntest_public:\na\n", 4, "'a' is already in trainset, line 2"),
        ("training:\na\n", 1, "unknown section 'training'"),
        ("trainset:\na\ntrainset:\nb\n", 3, "section 'trainset' is given twice"),
        ("a\ntrainset:\n", 1, "a name before the first section"),
        ("trainset:\na.nii.gzb.nii.gz\n", 2, "two names on one line"),
        ("trainset:\na.nii.gzb\n", 2, "two names on one line"),
        ("trainset:\na b\n", 2, "two names on one line"),
        ("trainset:\nHN_P001liver_106\n", 2, "two names glued together"),
        ("trainset:\na/b.nii.gz\n", 2, "a name holds a path separator"),
        ("trainset:\na\\b.nii.gz\n", 2, "a name holds a path separator"),
        ("trainset:\n..a.nii.gz\n", 2, "a name holds '..'"),
        ("trainset:\n.nii.gz\n", 2, "not a file name"),
        ("trainset:\na\0b\n", 2, "not a file name"),
    ],
)
def test_parser_says_line_and_text(text, line, problem):
    with pytest.raises(SplitFileError) as caught:
        parse(text)
    assert caught.value.line == line
    assert caught.value.problem == problem
    written = text.splitlines()[line - 1]
    assert f"split.txt, line {line}: {written!r}: {problem}. Expected sections trainset:" in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"trainset:\n", b"\xff\xfe\x00"])
def test_parser_refuses_a_file_without_names(data):
    with pytest.raises(SplitFileError, match=r"split\.txt: (no cases in it|not UTF-8)"):
        parse_split(data, "split.txt", KNOWN)


names = st.text(st.characters(categories=("L", "N"), include_characters="._-"), min_size=1).filter(
    lambda name: ".." not in name and ".nii.gz" not in name
)


@given(st.lists(names, min_size=1, unique=True), st.sampled_from(["\n", "\r\n"]))
@example([".nii", "a.nii"], "\n")
def test_parser_gives_back_what_was_written(ids, newline):
    text = newline.join(["trainset:", *(f"{name}.nii.gz" for name in ids)])
    assert parse(text) == {"train": ids, "validation": [], "test": []}


def test_a_suffix_is_taken_off_once():
    assert parse("trainset:\na.nii\nb.nii.nii.gz\n")["train"] == ["a", "b.nii"]


def test_cases_of_ones_own_have_no_source(tmp_path):
    path = tmp_path / "split.txt"
    path.write_text("trainset:\nmine\nliver_106\n")
    mine, liver = load_catalog(path)
    assert mine == Case("mine", "train", 0, None, None)
    assert liver == Case("liver_106", "train", 1, "MSD-T10", "sacral_lumbarization")


def test_no_scan_of_another_data_set_is_a_case():
    assert not [case for case in load_catalog() if case.case_id.startswith("verse")]
