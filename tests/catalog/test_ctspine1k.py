import re

from ctspine1k.catalog.ctspine1k import CTSPINE1K, SOURCES


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
