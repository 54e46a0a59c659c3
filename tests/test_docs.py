"""README and docs: every command and every line of code in them runs, and prints what they say."""

import contextlib
import doctest
import gzip
import inspect
import re
import shlex
import shutil
from pathlib import Path

import datasets
import numpy as np
import pytest
from support.hub import Repo
from support.paths import ROOT
from support.volumes import nifti

import ctspine1k
from ctspine1k.catalog.ctspine1k import CTSPINE1K, ISSUE_KINDS
from ctspine1k.checks.verify import CHECKS
from ctspine1k.cli.main import main
from ctspine1k.errors import SkippedCasesWarning

pytestmark = pytest.mark.docs

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

_FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


def blocks(page: Path) -> list[tuple[str, str]]:
    """Kind and text of each fenced block."""
    return re.findall(r"^```(\w+)\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def published_files():
    image = gzip.compress(nifti(np.zeros((512, 512, 1), "<i2")), mtime=0)
    mask = gzip.compress(nifti(np.zeros((512, 512, 1), "u1")), mtime=0)
    files = {}
    for case in ctspine1k.load_catalog():
        files[f"raw_data/volumes/{case.source}/{case.case_id}.nii.gz"] = image
        files[f"raw_data/labels/{case.source}/{case.case_id}_seg.nii.gz"] = mask
    return files


@pytest.fixture
def published(hub, published_files):
    """The published repo, whole, with volumes of one slice."""
    hub.repos["alexanderdann/CTSpine1K"] = Repo(page=1000)
    hub.repos["alexanderdann/CTSpine1K"].commit(published_files)
    yield
    del hub.repos["alexanderdann/CTSpine1K"]


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """What the pages' command for a phantom makes, made once."""
    root = tmp_path_factory.mktemp("docs") / "demo"
    assert main(["demo", "--out", str(root)]) == 0
    return root


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_is_of_a_kind_that_is_run(page):
    assert {kind for kind, _ in blocks(page)} <= {"console", "pycon", "python"}
    assert page.read_text(encoding="utf-8").count("```") == 2 * len(blocks(page))


@pytest.mark.usefixtures("published")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_page(page, demo, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "CTSpine1K.py", tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr("ctspine1k.catalog.registry._registered", {})
    names: dict[str, object] = {}
    runner = doctest.DocTestRunner(optionflags=_FLAGS)
    for number, (kind, code) in enumerate(blocks(page)):
        if kind == "console":
            run_commands(code, demo, capsys)
        elif kind == "pycon":
            test = doctest.DocTestParser().get_doctest(code, names, f"{page.name} {number}", page.name, 0)
            outcome = runner.run(test, clear_globs=False)
            names.update(test.globs)
            assert outcome.failed == 0, capsys.readouterr().out
        else:
            with outcome_of(code):
                exec(code, names)  # noqa: S102
    if page.name == "loading.md":
        assert len(names["validation"]) == 197
        assert len(names["masks"]) == 6


def outcome_of(code: str):
    """What must come of a block, beside that it runs."""
    if 'on_missing="skip"' in code:
        return pytest.warns(SkippedCasesWarning)
    if "trust_remote_code" in code and not datasets.__version__.startswith("3."):
        return pytest.raises(RuntimeError, match="Dataset scripts are no longer supported")
    return contextlib.nullcontext()


def run_commands(code: str, demo: Path, capsys) -> None:
    """Run each line that starts with $, and compare what it prints with what follows it, if anything does."""
    for told in re.split(r"^\$ ", code, flags=re.MULTILINE)[1:]:
        command, _, expected = told.partition("\n")
        program, *arguments = shlex.split(command, comments=True)
        if program != "ctspine1k":
            # The environment of the tests has done it.
            assert (program, arguments[0]) == ("pip", "install")
            assert set(arguments[1:]) <= {".[compact]", ".[all]", "duckdb"}
            continue
        if arguments == ["demo", "--out", "demo"]:
            shutil.copytree(demo, "demo")
            continue
        capsys.readouterr()
        status = main(arguments)
        printed = capsys.readouterr()
        assert status == (1 if "# exits with 1" in command else 0), printed.err
        if expected:
            fits = doctest.OutputChecker().check_output(expected, printed.out, _FLAGS)
            assert fits, f"{command}\n{printed.out}"


def rows_of(page: str, heading: str) -> list[list[str]]:
    """The rows of the table whose header starts with a word."""
    text = (ROOT / page).read_text(encoding="utf-8").partition(f"\n| {heading} |")[2].partition("\n\n")[0]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in text.splitlines()[2:]]


def test_options_are_the_functions():
    arguments = inspect.signature(ctspine1k.load_dataset).parameters
    listed = re.findall(r"`(\w+)`", " ".join(row[0] for row in rows_of("docs/loading.md", "option")))
    assert sorted(listed) == sorted(arguments)


def test_checks_are_the_modules():
    assert rows_of("docs/checking.md", "check") == [
        [f"`{name}`", check.level, check.what, ", ".join(f"`{kind}`" for kind in CTSPINE1K.known_by.get(name, ()))]
        for name, check in CHECKS.items()
    ]


def test_issues_are_the_catalogs():
    issues = [issue.kind for case in ctspine1k.load_catalog() for issue in case.issues]
    listed = [(row[0].strip("`"), int(row[1])) for row in rows_of("docs/data.md", "kind")]
    assert dict(listed) == {kind: issues.count(kind) for kind in ISSUE_KINDS}


def test_links_and_pictures_are_there():
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), (page.name, target)
    assert (ROOT / "docs/preview.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
