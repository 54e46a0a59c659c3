"""What is shipped, what it offers, and what importing it does."""

import inspect
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from support.paths import ROOT

import ctspine1k
from ctspine1k.rows.builder import CTSpine1KConfig


def test_public_names_are_these():
    assert sorted(ctspine1k.__all__) == [
        "CTSpine1KError",
        "Case",
        "Catalog",
        "Collection",
        "Issue",
        "LazyDataset",
        "Points",
        "RawFile",
        "RowOptions",
        "VolumePair",
        "__version__",
        "download_files",
        "errors",
        "list_files",
        "load_catalog",
        "load_dataset",
        "open_collection",
        "preview",
        "read_pair",
        "read_points",
        "training",
        "vertebrae",
        "write_points",
    ]
    assert dir(ctspine1k) == sorted(ctspine1k.__all__)
    for name in ctspine1k.__all__:
        assert getattr(ctspine1k, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'LoadDataset'"):
        ctspine1k.LoadDataset  # noqa: B018


@pytest.mark.parametrize(
    "name",
    [
        "load_dataset",
        "list_files",
        "download_files",
        "load_catalog",
        "open_collection",
        "read_pair",
        "preview",
        "read_points",
        "write_points",
        "LazyDataset",
        "training.PatchDataset",
        "training.PatchStream",
        "training.SliceDataset",
        *(
            f"Collection.{verb}"
            for verb in (
                *("where", "files", "download", "scan", "verify", "preview"),
                *("points", "write_points", "export_parquet", "export_nnunet"),
            )
        ),
    ],
)
def test_every_argument_is_documented(name):
    function = ctspine1k
    for part in name.split("."):
        function = getattr(function, part)
    documentation = inspect.getdoc(function)
    arguments = [name for name in inspect.signature(function).parameters if name != "self"]
    assert [name for name in arguments if f"\n    {name}: " not in documentation] == []


def test_options_are_the_configs_with_the_same_defaults():
    """The script on datasets 3.x takes the same options as the function, with the same meaning."""
    arguments = inspect.signature(ctspine1k.load_dataset).parameters
    config = CTSpine1KConfig(name="3d")
    for option in (
        "data_revision",
        "split_file",
        "cases",
        "splits",
        "collection",
        "source",
        "special_case",
        "exclude_issues",
        "has_vertebrae",
        "scan",
        "storage",
        "compression",
        "image_size",
        "orientation",
        "plane",
        "spacing",
        "label_scheme",
        "other_labels",
        "geometry",
        "on_missing",
        "on_error",
        "on_geometry",
        "on_voxels",
        "data_dir",
    ):
        assert arguments[option].default == getattr(config, option), option
    assert arguments["repo_id"].default == config.repo


IMPORT = """
import sys
opened = []
sys.addaudithook(lambda event, args: opened.append((event, args)) if event == "open" or event.startswith("socket") else None)
import ctspine1k
dir(ctspine1k)
print([m for m in ("datasets", "huggingface_hub", "nibabel", "numpy", "pandas", "pyarrow", "isal", "blosc2", "scipy", "matplotlib", "click") if m in sys.modules])
print([event for event, _ in opened if event.startswith("socket")])
print([a[0] for e, a in opened if e == "open" and not str(a[0]).endswith((".py", ".pyc")) and ".pyc." not in str(a[0])])
"""


@pytest.mark.processes
def test_import_opens_nothing_and_loads_nothing_heavy(python):
    run = python(IMPORT)
    assert run.stdout.splitlines() == ["[]", "[]", "[]"], run.stdout + run.stderr


@pytest.mark.processes
def test_catalog_needs_no_heavy_package(python):
    run = python(
        "import sys, ctspine1k; ctspine1k.load_catalog(); print('datasets' in sys.modules, 'numpy' in sys.modules)"
    )
    assert run.stdout.strip() == "False False", run.stderr


@pytest.mark.processes
def test_import_of_everything_opens_no_socket(python):
    code = """
import sys
seen = []
sys.addaudithook(lambda event, args: seen.append(event) if event in ("socket.connect", "socket.getaddrinfo") else None)
import ctspine1k
for name in ctspine1k.__all__:
    getattr(ctspine1k, name)
import ctspine1k.rows.builder, ctspine1k.cli.main, ctspine1k.demo.phantom
print(seen)
"""
    run = python(code)
    assert run.stdout.strip() == "[]", run.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "-w",
        out,
        ROOT,
    ]
    subprocess.run(command, check=True, timeout=120)
    return next(out.glob("*.whl"))


@pytest.mark.processes
def test_facts_travel_in_the_wheel(wheel, tmp_path, python):
    names = zipfile.ZipFile(wheel).namelist()
    assert {
        "ctspine1k/catalog/facts/ctspine1k/data_split.txt",
        "ctspine1k/catalog/facts/ctspine1k/cases.csv",
        "ctspine1k/catalog/facts/ctspine1k/special_cases/sacral_lumbarization.txt",
        "ctspine1k/catalog/facts/ctspine1k/special_cases/lumbar_sacralization.txt",
        "ctspine1k/catalog/facts/ctspine1k/special_cases/known_issues.csv",
        "ctspine1k/catalog/facts/ctspine1k/citations.bib",
        "ctspine1k/catalog/facts/verse/series.csv",
        "ctspine1k/catalog/facts/verse/issues.csv",
        "ctspine1k/catalog/facts/verse/citations.bib",
        "ctspine1k/catalog/facts/msr/scans.csv",
        "ctspine1k/catalog/facts/msr/citations.bib",
        "ctspine1k/catalog/facts/vertebrae.csv",
        "ctspine1k/py.typed",
    } <= set(names)
    assert not [name for name in names if name.endswith((".nii", ".nii.gz")) or "test" in name]
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    code = """
import sys
sys.path.insert(0, sys.argv[1])
import ctspine1k
assert ctspine1k.__file__.startswith(sys.argv[1]), ctspine1k.__file__
for name in ("ctspine1k", "verse"):
    catalog = ctspine1k.load_catalog(name)
    print(len(catalog), len(catalog.where(special_case="sacral_lumbarization")))
print(len(ctspine1k.load_catalog("msr")))
"""
    assert python(code, str(tmp_path / "site")).stdout.split() == ["1005", "17", "374", "8", "302"]


def test_top_level_facts_are_those_of_the_package():
    assert (ROOT / "data_split.txt").read_bytes().count(b".nii.gz\n") == 1005
    for kind, verse in (("sacral_lumbarization", 8), ("lumbar_sacralization", 3)):
        text = (ROOT / "special_cases" / f"{kind}.txt").read_text()
        assert "they are not in this data set" in text.partition("\nctspine1k:\n")[0]
        assert len(text.partition("\nverse:\n")[2].split()) == verse


def test_nobodys_data_is_in_the_repository():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert not [name for name in tracked.splitlines() if name.endswith((".nii", ".nii.gz", ".dcm", ".arrow"))]
