"""The README's code runs and prints what the README says."""

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
from hub import Repo
from volumes import nifti

import ctspine1k
from ctspine1k.cli import main
from ctspine1k.errors import SkippedCasesWarning

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


@pytest.fixture
def published(hub):
    """The published repo, whole, with volumes of one slice."""
    image = gzip.compress(nifti(np.zeros((512, 512, 1), "<i2")), mtime=0)
    mask = gzip.compress(nifti(np.zeros((512, 512, 1), "u1")), mtime=0)
    files = {}
    for case in ctspine1k.load_catalog():
        files[f"raw_data/volumes/{case.source}/{case.case_id}.nii.gz"] = image
        files[f"raw_data/labels/{case.source}/{case.case_id}_seg.nii.gz"] = mask
    hub.repos["alexanderdann/CTSpine1K"] = Repo(page=1000)
    hub.repos["alexanderdann/CTSpine1K"].commit(files)
    yield
    del hub.repos["alexanderdann/CTSpine1K"]


def test_kinds_of_blocks():
    assert {kind for kind, _ in BLOCKS} == {"console", "pycon", "python"}  # all of which are run


@pytest.mark.usefixtures("published")
def test_readme(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "CTSpine1K.py", tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    names: dict[str, object] = {}
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    for number, (kind, code) in enumerate(BLOCKS):
        if kind == "console":
            run_commands(code)
        elif kind == "pycon":
            test = doctest.DocTestParser().get_doctest(code, names, f"README block {number}", "README.md", 0)
            outcome = runner.run(test, clear_globs=False)
            names.update(test.globs)
            assert outcome.failed == 0, capsys.readouterr().out
        elif kind == "python":
            with outcome_of(code):
                exec(code, names)  # noqa: S102
    assert len(names["validation"]) == 197
    assert len(names["masks"]) == 6


def outcome_of(code: str):
    """What must come of a block, beside that it runs."""
    if 'on_missing="skip"' in code:
        return pytest.warns(SkippedCasesWarning)
    if "trust_remote_code" in code and not datasets.__version__.startswith("3."):
        return pytest.raises(RuntimeError, match="Dataset scripts are no longer supported")
    return contextlib.nullcontext()


def run_commands(code: str) -> None:
    for line in code.splitlines():
        program, *arguments = shlex.split(line.removeprefix("$ "), comments=True)
        if program == "ctspine1k":
            assert main(arguments) == 0
        else:
            assert [program, *arguments] == [
                "pip",
                "install",
                ".[compact]",
            ]  # the environment of the tests has done it


def test_options_are_the_functions():
    arguments = inspect.signature(ctspine1k.load_dataset).parameters
    listed = re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.*?) \|", README, re.MULTILINE)))
    assert sorted(listed) == sorted(arguments)
