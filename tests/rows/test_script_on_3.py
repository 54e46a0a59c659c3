"""The loading script on datasets 3.x. Later versions run no scripts: conftest.py leaves this module out there."""

import shutil
from pathlib import Path

import datasets
import pytest
from support.compare import identical, rows
from support.paths import SCRIPT
from support.verbs import scan_files
from support.volumes import SIZE

import ctspine1k


@pytest.fixture
def options(split_file, tmp_path):
    return {"split_file": str(split_file), "image_size": SIZE, "cache_dir": str(tmp_path / "cache")}


@pytest.mark.parametrize("storage", ["dense", "compact"])
@pytest.mark.parametrize("name", ["3d", "2d"])
def test_script_gives_the_librarys_rows(options, tree, name, storage):
    options["storage"] = storage
    loaded = datasets.load_dataset(
        str(SCRIPT), name=name, data_dir=str(tree), trust_remote_code=True, **options
    )
    for split, part in ctspine1k.load_dataset(name, data_dir=tree, **options).items():
        assert identical(rows(loaded[split]), rows(part))
        assert loaded[split].features == part.features


def test_script_takes_every_option(options, tree):
    loaded = datasets.load_dataset(
        str(SCRIPT),
        split="validation",
        splits=["validation"],
        cases=["HN_P023"],
        geometry=True,
        on_missing="skip",
        on_error="skip",
        on_geometry="raise",
        on_voxels="replace",
        storage="compact",
        compression="fast",
        writer_batch_size=2,
        num_proc=1,
        data_dir=str(tree),
        trust_remote_code=True,
        **options,
    )
    assert loaded[0]["orientation"] == "SLA"
    with pytest.raises(ValueError, match="doesn't have a 'typo' key"):
        datasets.load_dataset(str(SCRIPT), typo=1, data_dir=str(tree), trust_remote_code=True, **options)


def test_script_prepares_the_splits_it_is_told(options, hub, repo_id):
    datasets.load_dataset(
        str(SCRIPT),
        name="3d",
        split="test",
        splits=["test"],
        repo_id=repo_id,
        trust_remote_code=True,
        **options,
    )
    assert {name.partition(".nii")[0].removesuffix("_seg") for name in hub.downloads()} == {
        "1.3.6.1.4.1.9328.50.4.0650"
    }


@pytest.mark.parametrize("streaming", [False, True])
def test_script_from_a_hub_repo_reads_that_repo_at_its_revision(options, hub, tree, publish, streaming):
    shutil.copy(SCRIPT, tree / "placeholder.py")
    repo_id = publish(tree)
    files = hub.repos[repo_id].commits[hub.repos[repo_id].refs["main"]]
    files[f"{repo_id.partition('/')[2]}.py"] = files.pop("placeholder.py")
    hub.repos[repo_id].refs["v1"] = hub.repos[repo_id].refs["main"]
    hub.repos[repo_id].commit({name: data for name, data in files.items() if "HN_P023" not in name})
    loaded = datasets.load_dataset(
        repo_id,
        name="2d",
        split="validation",
        revision="v1",
        streaming=streaming,
        trust_remote_code=True,
        **options,
    )
    local = ctspine1k.load_dataset("2d", split="validation", data_dir=tree, **options)
    assert identical(rows(loaded), rows(local))


def test_script_from_a_hub_repo_reads_another_repo_when_told(options, hub, tree, repo_id, publish, tmp_path):
    (tmp_path / "script").mkdir()
    shutil.copy(SCRIPT, tmp_path / "script")
    script_repo = publish(tmp_path / "script")
    files = hub.repos[script_repo].commits[hub.repos[script_repo].refs["main"]]
    files[f"{script_repo.partition('/')[2]}.py"] = files.pop("CTSpine1K.py")
    loaded = datasets.load_dataset(
        script_repo, name="3d", split="test", splits="test", repo=repo_id, trust_remote_code=True, **options
    )
    assert identical(rows(loaded), rows(ctspine1k.load_dataset("3d", split="test", data_dir=tree, **options)))


def test_save_infos_writes_nothing_into_the_package(options, tree):
    datasets.load_dataset(str(SCRIPT), data_dir=str(tree), save_infos=True, trust_remote_code=True, **options)
    package = Path(ctspine1k.__file__).parent
    assert not [path.name for path in package.iterdir() if path.suffix in (".md", ".json")]


def test_script_selects_turns_and_relabels_as_the_library_does(options, tree, split_file, tmp_path):
    table = scan_files(data_dir=tree, split_file=split_file, out=tmp_path / "scan.parquet").cases
    options |= {
        "orientation": "RAS",
        "label_scheme": "region",
        "exclude_issues": "reported",
        "has_vertebrae": ["L6"],
        "scan": str(table),
    }
    loaded = datasets.load_dataset(str(SCRIPT), data_dir=str(tree), trust_remote_code=True, **options)
    own = ctspine1k.load_dataset(data_dir=tree, **options)
    assert set(loaded) == set(own)
    for split, part in own.items():
        assert identical(rows(loaded[split]), rows(part))
        assert {value for row in rows(part) for value in row["segmentation"].ravel().tolist()} <= {0, 1, 2, 3}
