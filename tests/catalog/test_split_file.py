import contextlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ctspine1k import load_catalog
from ctspine1k.catalog.ctspine1k import SECTIONS
from ctspine1k.catalog.split_file import parse_split
from ctspine1k.errors import SplitFileError

KNOWN = {case.case_id: case.source for case in load_catalog()}


def parse(text: str) -> dict[str, list[str]]:
    return parse_split(text.encode(), "split.txt", SECTIONS, KNOWN)


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
        ("trainset:\na/b.nii.gz\n", 2, "a name contains a path separator"),
        ("trainset:\na\\b.nii.gz\n", 2, "a name contains a path separator"),
        ("trainset:\n..a.nii.gz\n", 2, "a name contains '..'"),
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
        parse_split(data, "split.txt", SECTIONS, KNOWN)


names = st.text(st.characters(categories=("L", "N"), include_characters="._-"), min_size=1).filter(
    lambda name: ".." not in name and ".nii.gz" not in name.lower()
)


@pytest.mark.slow
@given(st.lists(names, min_size=1, unique=True), st.sampled_from(["\n", "\r\n"]))
@example([".nii", "a.nii"], "\n")
def test_parser_gives_back_what_was_written(ids, newline):
    text = newline.join(["trainset:", *(f"{name}.nii.gz" for name in ids)])
    assert parse(text) == {"train": ids, "validation": [], "test": []}


def test_comments_are_passed_over():
    assert parse("# two lists:\ntrainset:\n#a\nb\n#c\nd\n")["train"] == ["b", "d"]


def test_a_name_that_is_two_others_may_be_one():
    for known, problem in (("a", "b"), "two names glued together"), (("a", "b", "ab"), None):
        with pytest.raises(SplitFileError, match=problem) if problem else contextlib.nullcontext():
            assert parse_split(b"trainset:\nab\n", "split.txt", SECTIONS, known)["train"] == ["ab"]


def test_a_suffix_is_taken_off_once():
    assert parse("trainset:\na.nii\nb.nii.nii.gz\n")["train"] == ["a", "b.nii"]


def test_suffixes_may_be_in_upper_case():
    assert parse("trainset:\nA.NII\nb.Nii.gz\n")["train"] == ["A", "b"]
