"""README and docs: every command and every line of code in them runs, and prints what they say.

Beside them, what else is written for people and services: names, files and links in it are there.
"""

import contextlib
import doctest
import gzip
import importlib.metadata
import importlib.util
import inspect
import pkgutil
import re
import shlex
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import datasets
import nibabel as nib
import numpy as np
import pytest
import trove_classifiers
import yaml
from support.hub import Repo
from support.paths import ROOT
from support.volumes import AFFINE, intensities, labels, nifti, save

import ctspine1k
from ctspine1k.catalog.ctspine1k import CTSPINE1K, ISSUE_KINDS
from ctspine1k.checks.verify import CHECKS
from ctspine1k.cli.main import main
from ctspine1k.demo.phantom import make_phantom
from ctspine1k.errors import SkippedCasesWarning, SplitFileWarning

pytestmark = pytest.mark.docs

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

#: What is read, but not run.
OTHERS = [ROOT / name for name in ("CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md")]

WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))

_FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


def blocks(page: Path) -> list[tuple[str, str]]:
    """Kind and text of each fenced block."""
    return re.findall(r"^```(\w+)\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def missing_packages(code: str) -> set[str]:
    """What a block imports that not every environment of the tests has, and this one has not."""
    imported = re.findall(r"^(?:import|from) (torch|monai|torchio)\b", code, re.MULTILINE)
    return {name for name in imported if importlib.util.find_spec(name) is None}


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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_is_of_a_kind_that_is_run(page):
    assert {kind for kind, _ in blocks(page)} <= {"console", "pycon", "python"}
    assert page.read_text(encoding="utf-8").count("```") == 2 * len(blocks(page))


@pytest.mark.usefixtures("published")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_page(page, phantom, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "CTSpine1K.py", tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr("ctspine1k.catalog.registry._registered", {})
    # As on a machine with one core, on which commands start no processes unless they are asked to.
    for module in ("checks", "points"):
        monkeypatch.setattr(f"ctspine1k.cli.{module}.default_num_proc", lambda given, scheduler: given or 1)
    names: dict[str, object] = {}
    runner = doctest.DocTestRunner(optionflags=_FLAGS)
    is_runnable = True
    for number, (kind, code) in enumerate(blocks(page)):
        missing = missing_packages(code)
        if "torch" in missing:
            is_runnable = False  # nor what follows and uses it: `make test-torch` runs all
        if kind != "console" and (missing or not is_runnable):
            continue
        if kind == "console":
            run_commands(code, phantom, capsys)
        elif kind == "pycon":
            test = doctest.DocTestParser().get_doctest(code, names, f"{page.name} {number}", page.name, 0)
            with outcome_of(code):
                outcome = runner.run(test, clear_globs=False)
            names.update(test.globs)
            assert outcome.failed == 0, capsys.readouterr().out
        else:
            with outcome_of(code):
                exec(code, names)  # noqa: S102
    if page.name == "loading.md":
        assert len(names["validation"]) == 10
        assert len(names["masks"]) == 6
    # So that all of them can be tried in one folder: an export, for one, refuses a folder of another.
    made = {path.name for path in tmp_path.iterdir()} - {"CTSpine1K.py", "cache"}
    assert made <= {page.stem} or (page.parent == ROOT and not made & {one.stem for one in PAGES})


def outcome_of(code: str):
    """What must come of a block, beside that it runs."""
    if 'on_missing="skip"' in code:
        return pytest.warns(SkippedCasesWarning)
    if "own split file is used" in code:
        return pytest.warns(SplitFileWarning)
    if "trust_remote_code" in code and not datasets.__version__.startswith("3."):
        return pytest.raises(RuntimeError, match="Dataset scripts are no longer supported")
    return contextlib.nullcontext()


def run_commands(code: str, phantom: Path, capsys) -> None:
    """Run each line that starts with $, and compare what it prints with what follows it, if anything does."""
    for told in re.split(r"^\$ ", code, flags=re.MULTILINE)[1:]:
        command, _, expected = told.partition("\n")
        program, *arguments = shlex.split(command, comments=True)
        if program != "ctspine1k":
            # The environment of the tests has done it.
            assert (program, arguments[0]) == ("pip", "install")
            extras = {extra for name in re.findall(r"\[([\w,]+)\]", command) for extra in name.split(",")}
            assert extras <= set(importlib.metadata.metadata("ctspine1k").get_all("Provides-Extra"))
            assert {re.sub(r"\[.*\]", "", argument) for argument in arguments[1:]} <= {".", "duckdb"}
            continue
        # Other tests run these; pages need the files that they make.
        if arguments[:2] == ["demo", "--out"]:
            (out,) = arguments[2:]
            shutil.copytree(phantom, out)
            continue
        if arguments[:2] == ["demo", "--collection"]:
            collection, option, out = arguments[2:]
            assert option == "--out"
            make_phantom(Path(out), collection)
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


def test_arrays_of_other_libraries_are_made_as_the_table_says(tmp_path):
    """Where nibabel and SimpleITK place the voxels of the file; MONAI and TorchIO get nibabel's array."""
    import SimpleITK  # which takes half a second

    oblique = np.array([[0.96, 0.28, 0, 0], [-0.28, 0.96, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]) @ AFFINE
    path = save(tmp_path / "a.nii.gz", intensities(1, (6, 5, 4)), affine=oblique)
    pair = ctspine1k.read_pair(path, save(tmp_path / "a_seg.nii.gz", labels(1, (6, 5, 4)), affine=oblique))
    names = {"nib": nib, "sitk": SimpleITK, "image": pair.image, "affine": pair.affine}
    made = {row[0]: re.search("`(.*?)`", row[3])[1] for row in rows_of("docs/loading.md", "library")}

    right, image = nib.load(path), eval(made.pop("nibabel"), names)  # noqa: S307 (our own page)
    assert np.array_equal(image.get_fdata(), right.get_fdata())
    assert np.array_equal(image.affine, right.affine)

    right, image = SimpleITK.ReadImage(str(path)), eval(made.pop("SimpleITK"), names)  # noqa: S307
    assert np.array_equal(SimpleITK.GetArrayViewFromImage(image), SimpleITK.GetArrayViewFromImage(right))
    affine = pair.affine * np.array([[-1], [-1], [1], [1]])
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    assert np.allclose(affine[:3, 3], right.GetOrigin())
    assert np.allclose(lengths, right.GetSpacing())
    assert np.allclose((affine[:3, :3] / lengths).ravel(), right.GetDirection())

    assert made.pop("ctspine1k") == "array_affine @ (k, i, j, 1)"
    k, i, j = 3, 5, 2
    assert np.allclose(pair.array_affine @ (k, i, j, 1), pair.affine @ (i, j, k, 1))
    for expression in (made.pop("MONAI"), made.pop("TorchIO")):
        array = re.search(r"image\.transpose.*?\[None\]", expression)[0]
        assert np.array_equal(eval(array, names)[0], nib.load(path).get_fdata())  # noqa: S307
        assert expression.endswith("affine=affine)")
    assert not made


def test_checks_are_the_modules():
    assert rows_of("docs/checking.md", "check") == [
        [
            f"`{name}`",
            check.level,
            check.what,
            ", ".join(f"`{kind}`" for kind in CTSPINE1K.known_by.get(name, ())),
        ]
        for name, check in CHECKS.items()
    ]


def test_issues_are_the_catalogs():
    issues = [issue.kind for case in ctspine1k.load_catalog() for issue in case.issues]
    listed = [(row[0].strip("`"), int(row[1])) for row in rows_of("docs/data.md", "kind")]
    assert dict(listed) == {kind: issues.count(kind) for kind in ISSUE_KINDS}


@pytest.mark.parametrize(("page", "name"), [("docs/verse.md", "verse")])
def test_issues_of_other_data_sets_are_the_catalogs(page, name):
    counts = Counter(issue.kind for case in ctspine1k.load_catalog(name) for issue in case.issues)
    assert {row[0].strip("`"): int(row[1]) for row in rows_of(page, "kind")} == counts


def anchors(page: Path) -> set[str]:
    """What the headings of a page can be linked as."""
    headings = re.findall(r"^#+ (.*)", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [*PAGES, *OTHERS], ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_and_pictures_are_there(page):
    text = page.read_text(encoding="utf-8")
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", text):
        linked = page.parent / target if target else page
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), anchor


def test_the_picture_is_one():
    assert (ROOT / "docs/preview.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


# The changelog names what is gone, too.
@pytest.mark.parametrize("page", [*PAGES, OTHERS[0], OTHERS[2]], ids=lambda page: page.name)
def test_names_and_files_that_texts_mention_are_there(page):
    folders = (ROOT, ROOT / "ctspine1k", page.parent)
    # Not in fenced blocks, which run, but between single backticks.
    for quoted in re.findall(r"(?<!`)`([^`\n]+)`(?!`)", page.read_text(encoding="utf-8")):
        if re.fullmatch(r"[\w.-]*[\w/.-]+/[\w.-]+\.(py|txt|csv|md|yml)", quoted):
            path = quoted.replace("NAME", "ctspine1k")
            in_layout = quoted == CTSPINE1K.split_file
            assert in_layout or any((folder / path).exists() for folder in folders), quoted
        if named := re.match(r"(?:import )?ctspine1k((?:\.\w+)+)", quoted):
            pkgutil.resolve_name(f"ctspine1k{named[1]}")


def make_targets() -> set[str]:
    """The targets of the Makefile that are asked for by name."""
    return set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


@pytest.mark.parametrize("page", [ROOT / "README.md", *OTHERS], ids=lambda page: page.name)
def test_make_has_what_texts_mention(page):
    text = page.read_text(encoding="utf-8")
    mentioned = re.findall(r"(?:`|^    (?:\w+=\w+ )?)make ([\w-]+)", text, re.MULTILINE)
    assert set(mentioned) <= make_targets()


def commands_of(workflow: Path) -> Iterator[str]:
    """Each line that a workflow runs, once for each entry of its matrix."""
    for job in yaml.safe_load(workflow.read_text(encoding="utf-8"))["jobs"].values():
        entries = job.get("strategy", {}).get("matrix", {}).get("include", [{}])
        for step in job["steps"]:
            for line in step.get("run", "").splitlines():
                for entry in entries:
                    yield re.sub(r"\$\{\{ matrix\.(\w+) \}\}", lambda key, entry=entry: entry[key[1]], line)


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda workflow: workflow.name)
def test_workflows_run_what_is_there(workflow):
    extras = importlib.metadata.metadata("ctspine1k").get_all("Provides-Extra")
    commands = list(commands_of(workflow))
    assert commands
    for command in commands:
        assert set(re.findall(r"^make ([\w-]+)", command)) <= make_targets()
        assert set(re.findall(r"\.\[(\w+)\]", command)) <= set(extras)
        for constraints in re.findall(r"--constraint (\S+)", command):
            assert (ROOT / constraints).is_file()
        if named := re.match(r"python -m (\w+)", command):
            assert importlib.util.find_spec(named[1]), command


def test_workflows_need_no_secrets():
    assert [workflow.name for workflow in WORKFLOWS] == ["ci.yml", "weekly.yml"]
    assert not [
        workflow for workflow in WORKFLOWS if "secrets" in workflow.read_text().replace("no secrets", "")
    ]


def test_citation_is_of_this_release_and_of_the_data_set():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (citation["cff-version"], citation["type"]) == ("1.2.0", "software")
    assert citation["version"] == ctspine1k.__version__
    (paper,) = citation["references"]
    bibtex = " ".join(CTSPINE1K.citations()[0].split())
    authors = " and ".join(
        f"{author['family-names']}, {author['given-names']}" for author in paper["authors"]
    )
    assert f"author = {{{authors}}}" in bibtex
    assert f"title = {{{paper['title']}}}" in bibtex
    assert f"year = {{{paper['year']}}}" in bibtex


def test_classifiers_are_known():
    classifiers = importlib.metadata.metadata("ctspine1k").get_all("Classifier")
    assert set(classifiers) <= trove_classifiers.classifiers
