import re

import pytest

from ctspine1k import load_catalog
from ctspine1k.catalog.ctspine1k import CTSPINE1K, SOURCES, SPECIAL_CASES, special_cases


def test_the_data_set_and_its_four_sources():
    own, *sources = CTSPINE1K.citations()
    assert "{2105.14711}" in own
    assert len(re.findall(r"\band\b", own)) == 14  # fifteen authors
    assert [re.search(r"Source (\S+) of CTSpine1K", entry)[1] for entry in sources] == list(SOURCES)


def test_entries_are_bibtex():
    for entry in CTSPINE1K.citations():
        assert re.match(r"@(misc|article)\{[a-z0-9]+,\n", entry)
        assert entry.count("{") == entry.count("}")
        assert entry.endswith("\n}")
        assert re.findall(r"^  (\w+) = \{", entry, re.MULTILINE)[:2] == ["title", "author"]
        assert re.search(r"^  (doi|eprint) = \{\S+\},$", entry, re.MULTILINE)
        assert re.search(r"^  year = \{20\d\d\},$", entry, re.MULTILINE)


#: Folders of the layouts in circulation, and what lies in them.
FOLDERS = {
    "source": {
        "COLONOG": ["COLONOG", "colon", "conlon"],
        "COVID-19": ["COVID-19", "covid-19"],
        "HNSCC-3DCT-RT": ["HNSCC-3DCT-RT", "HNSCC-3DCT-RT_neck"],
        "MSD-T10": ["MSD-T10", "liver"],
    },
    "kind": {
        "image": ["volumes", "data", "imagesTr", "imagesTs"],
        "mask": ["labels", "label", "label_new", "labelsTr", "labelsTs", "masks"],
    },
    "split": {"train": ["trainset"], "validation": ["test_public"], "test": ["test_private"]},
}


@pytest.mark.parametrize("what", FOLDERS)
def test_folders_say_what_lies_in_them(what):
    cases = {case.source: case for case in load_catalog().where(split="train")}
    cases |= {case.split: case for case in load_catalog()}
    for right, folders in FOLDERS[what].items():
        for folder in folders:
            for asked in FOLDERS[what]:
                case = cases.get(asked, cases["train"])
                kind = asked if what == "kind" else "image"
                told = list(CTSPINE1K.misplaced(f"any/{folder}/x.nii.gz", case, kind))
                wrong = [(f"a folder of {what} {asked}", f"folder {folder}")]
                assert told == ([] if asked == right else wrong), (folder, asked)
            if what == "kind":
                assert CTSPINE1K.parse_name(f"{folder}/any/x.nii.gz")[0] == ("x", right)


def test_in_a_wheel_the_lists_are_beside_the_other_facts(tmp_path, monkeypatch):
    (tmp_path / "special_cases").mkdir()
    for number, kind in enumerate(SPECIAL_CASES):
        text = f"ctspine1k:\nliver_{number}\nverse:\nverse50{number}\n"
        (tmp_path / f"special_cases/{kind}.txt").write_text(text)
    monkeypatch.setattr("ctspine1k.catalog.ctspine1k._OWN_FACTS", tmp_path)
    (tmp_path / "data_split.txt").touch()
    assert special_cases.__wrapped__() == {"liver_0": SPECIAL_CASES[0], "liver_1": SPECIAL_CASES[1]}
    assert special_cases.__wrapped__("verse") == {"verse500": SPECIAL_CASES[0], "verse501": SPECIAL_CASES[1]}
