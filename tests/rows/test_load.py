import gzip
import json
import os
import pickle
import re
import shutil
from pathlib import Path

import datasets
import nibabel as nib
import numpy as np
import pytest
from support.compare import CONFIGS, identical, rows, wanted
from support.hub import Repo
from support.paths import ROOT
from support.volumes import IDS, SIZE, files_of, intensities, nifti, save, save_case

import ctspine1k
from ctspine1k.errors import (
    ChecksumError,
    FileFormatError,
    HubError,
    MissingFilesError,
    OutputError,
    SkippedCasesWarning,
    TruncatedFileError,
    UnknownCaseError,
    VoxelValueError,
)
from ctspine1k.rows.builder import CTSpine1K


@pytest.mark.parametrize("storage", ["dense", "compact"])
@pytest.mark.parametrize("name", CONFIGS)
def test_streaming_gives_the_same_rows(load, name, storage):
    streamed = load(name, streaming=True, storage=storage)
    assert isinstance(streamed, datasets.IterableDatasetDict)
    for split, loaded in load(name, storage=storage).items():
        assert identical(rows(streamed[split]), rows(loaded))
        assert streamed[split].features == loaded.features


@pytest.mark.parametrize("name", CONFIGS)
def test_hub_gives_the_same_rows(load, repo_id, name):
    local = rows(load(name, split="train"))
    assert identical(rows(load(name, split="train", repo_id=repo_id)), local)
    assert identical(rows(load(name, split="train", repo_id=repo_id, streaming=True)), local)


@pytest.fixture
def official(hub):
    """A Hub repo with all 1,005 cases under their published names; those of validation hold their number."""
    files, empty = {}, gzip.compress(nifti(np.zeros((1, 1, 1), "u1")), mtime=0)
    for case in ctspine1k.load_catalog():
        voxel = np.full((1, 1, 1), case.index, "<i2")
        numbered = gzip.compress(nifti(voxel), mtime=0) if case.split == "validation" else empty
        files[f"raw_data/volumes/{case.source}/{case.case_id}.nii.gz"] = numbered
        files[f"raw_data/labels/{case.source}/{case.case_id}_seg.nii.gz"] = empty
    hub.repos["tests/official"] = Repo(page=1000)
    hub.repos["tests/official"].commit(files)
    yield "tests/official"
    del hub.repos["tests/official"]


@pytest.mark.slow
def test_the_official_splits_come_from_the_hub_whole_and_in_order(official):
    text = (ROOT / "data_split.txt").read_text(encoding="utf-8")
    ids = {
        split: [line.removesuffix(".nii.gz") for line in part.split()]
        for split, part in zip(IDS, re.split(r"^.+:$", text, flags=re.MULTILINE)[1:], strict=True)
    }
    counts = {split: len(of_split) for split, of_split in ids.items()}
    assert counts == {"train": 610, "validation": 197, "test": 198}
    spine = ctspine1k.open_collection(repo_id=official)
    there = [(file.case.split, file.case.case_id, Path(file.path).name) for file in spine.files()]
    ends = ("", "_seg")
    assert there == [
        (split, one, f"{one}{end}.nii.gz") for split in ids for one in ids[split] for end in ends
    ]
    streamed = spine.load("3d", image_size=(1, 1), streaming=True)
    assert {split: stream.n_shards for split, stream in streamed.items()} == counts
    for index in range(0, 197, 14):  # the first and the last; a row takes 8 ms
        (row,) = streamed["validation"].shard(197, index)
        found = row["patient_id"], row["index"], row["image"][0][0][0]
        assert found == (ids["validation"][index], index, index)


def test_a_stream_can_be_pickled_into_workers(load, repo_id):
    streamed = load("2d", split="train", repo_id=repo_id, streaming=True)
    assert identical(rows(pickle.loads(pickle.dumps(streamed))), rows(streamed))  # noqa: S301 (our own)
    assert streamed.n_shards == 2


SPECS = {
    "train": ["train"],
    "train[:50%]": ["train[:1]"],
    "train[1:]": ["train[1:]"],
    "train+validation": ["train", "validation"],
    "train[-1:] + test": ["train[-1:]", "test"],
    "all": ["train", "validation", "test"],
}


@pytest.mark.parametrize("spec", SPECS)
def test_split_specs(load, spec):
    joined = [row for part in SPECS[spec] for row in rows(load("3d", split=part))]
    assert identical(rows(load("3d", split=spec)), joined)


def test_other_kinds_of_split(load):
    train = rows(load(split="train"))
    assert identical(rows(load(split=datasets.Split.TRAIN)), train)
    assert identical(rows(load(split=datasets.ReadInstruction("train", to=50, unit="%"))), train[:1])
    first, second = load(split=["train", "test"])
    assert identical(rows(first), train)
    assert identical(rows(second), rows(load(split="test")))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "4d"}, "BuilderConfig '4d' not found"),
        (
            {"split": "training"},
            "split='training': expected 'train', 'validation', 'test' or slices of these",
        ),
        ({"split": "train", "splits": ["test"]}, "split='train': no cases in train: check splits, cases, "),
        ({"splits": ["dev"]}, "splits='dev': expected one of 'train', 'validation', 'test'"),
        ({"split": "train[:1]", "streaming": True}, "a stream has no slices"),
        ({"split": "train", "cases": ["HN_P023"]}, "split='train': no cases in train: check splits, cases, "),
        ({"image_size": 512}, "image_size=512: expected two positive numbers"),
        ({"image_size": (0, 5)}, r"image_size=\(0, 5\): expected two positive numbers"),
        ({"writer_batch_size": 0}, "writer_batch_size=0: expected 1 or more"),
        ({"storage": "sparse"}, "storage='sparse': expected one of 'dense', 'compact'"),
        ({"geometry": "no"}, "geometry='no': expected True or False"),
        ({"cases": []}, "no cases in train or validation or test"),
        (
            {"splits": "test", "cases": ["HN_P023"]},
            "no cases in test: check splits, cases, split_file, exclude_issues and has_vertebrae",
        ),
        ({"revision": "a", "data_revision": "b"}, "revision='a' and data_revision='b' mean the same"),
        ({"streaming": True, "num_proc": 2}, "num_proc is for conversion"),
        ({"num_proc": 0}, "num_proc=0: expected 1 or more, or None"),
        ({"num_proc": -1}, "num_proc=-1: expected 1 or more, or None"),
        ({"num_proc": True}, "num_proc=True: expected 1 or more, or None"),
        ({"num_proc": 0, "streaming": True}, "num_proc=0: expected 1 or more, or None"),
        ({"verify_files": False, "streaming": True}, "verify_files=False opens converted rows"),
        ({"verify_files": False, "download_mode": "force_redownload"}, "verify_files=False opens"),
        ({"collection": None}, "collection=None: expected one of 'ctspine1k'"),
        ({"on_missing": "ignore"}, "on_missing='ignore': expected one of 'raise', 'skip'"),
        ({"on_geometry": "skip"}, "on_geometry='skip': expected one of 'raise', 'warn'"),
        ({"on_voxels": "skip"}, "on_voxels='skip': expected one of 'raise', 'replace'"),
        ({"compression": "lz4", "storage": "compact"}, "compression='lz4': expected one of 'small', 'fast'"),
        (
            {"compression": "small"},
            "compression='small': dense storage is not compressed; pass storage=\"compact\" with it",
        ),
        ({"spacing": (1, 1)}, r"spacing=\(1, 1\): expected three positive numbers, mm from left to right"),
        (
            {"spacing": (1, 1, 1), "image_size": None},
            'image_size=None: resampled slices of CTSpine1K differ in size, .* pass storage="compact"',
        ),
        ({"plane": "oblique"}, "plane='oblique': expected one of 'axial', 'coronal', 'sagittal', or None"),
        ({"plane": "axial"}, "plane='axial': expected None for \"3d\", since volumes have no plane"),
        (
            {"name": "2d", "plane": "coronal", "image_size": None},
            'image_size=None: coronal slices of CTSpine1K differ in size, .* pass storage="compact"',
        ),
        ({"image_size": (512,)}, r"image_size=\(512,\): expected two positive numbers"),
        ({"data_revision": "main"}, "has no revisions"),
    ],
)
def test_bad_arguments(load, options, message):
    with pytest.raises(ValueError, match=message):
        load(**options)


def test_unknown_case(load):
    with pytest.raises(UnknownCaseError, match="Did you mean liver_106"):
        load(cases=["liver_1066"])


def test_cases_restrict_and_keep_their_index(load, tree):
    loaded = load("3d", cases=["liver_106", "HN_P023"])
    assert {split: [row["index"] for row in rows(part)] for split, part in loaded.items()} == {
        "train": [1],
        "validation": [0],
    }
    assert identical(rows(loaded["train"]), wanted(tree, "3d", "train")[1:])


@pytest.mark.parametrize(
    "cases", ["liver_106", ("liver_106",), {"liver_106"}, ctspine1k.load_catalog()["liver_106"]], ids=str
)
def test_however_cases_are_named(load, cases):
    assert [row["patient_id"] for row in load("3d", cases=cases)["train"]] == ["liver_106"]
    assert [row["patient_id"] for row in load("3d", cases=iter(["liver_106"]))["train"]] == ["liver_106"]


def test_split_file_replaces_the_assignment(load, tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text("test_private:\nliver_106\nHN_P023\n")
    loaded = load("3d", split_file=path)
    assert [(r["patient_id"], r["index"]) for r in rows(loaded["test"])] == [("liver_106", 0), ("HN_P023", 1)]
    assert list(loaded) == ["test"]


def test_one_split_fetches_and_converts_itself_alone(load, hub, repo_id, tmp_path):
    load("3d", split="validation", repo_id=repo_id)
    assert set(hub.downloads()) == {"HN_P023.nii.gz", "HN_P023_seg.nii.gz"}
    assert len(list((tmp_path / "cache").rglob("*.arrow"))) == 1


def test_all_splits_reuse_what_one_has_made(load, hub, repo_id, tmp_path):
    load("3d", split="validation", repo_id=repo_id)
    (first,) = (tmp_path / "cache").rglob("*.arrow")
    made = first.stat()
    with hub.watched() as requests:
        load("3d", repo_id=repo_id)
    assert (first.stat().st_mtime_ns, first.stat().st_ino) == (made.st_mtime_ns, made.st_ino)
    assert not [r for r in requests if "HN_P023" in r.path]


def test_the_same_again_is_no_work(load, hub, repo_id, tmp_path):
    load("2d", split="train", repo_id=repo_id)
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.arrow")}
    with hub.watched() as requests:
        load("2d", split="train", repo_id=repo_id, image_size=list(SIZE))  # however an option is spelt
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.arrow")} == made
    assert [r.path for r in requests] == [f"/api/datasets/{repo_id}/revision/main"]


OFFLINE = """
import json, sys
import ctspine1k
options = json.loads(sys.argv[1])
for streaming, cache_dir in ((False, sys.argv[2]), (True, sys.argv[3])):
    options |= {"streaming": streaming, "cache_dir": cache_dir}
    for row in ctspine1k.load_dataset("2d", split="test", **options):
        print(streaming, row["patient_id"], row["slice_index"])
"""


@pytest.mark.processes
def test_offline_loads_what_is_there(load, hub, repo_id, split_file, tmp_path, python):
    """From the cache; and as a stream, with no cache of `datasets`."""
    load("2d", split="test", repo_id=repo_id)
    options = {"repo_id": repo_id, "split_file": str(split_file), "image_size": SIZE}
    folders = (str(tmp_path / "cache"), str(tmp_path / "elsewhere"))
    with hub.watched() as requests:
        run = python(OFFLINE, json.dumps(options), *folders, HF_DATASETS_OFFLINE="1")
    assert run.stdout.splitlines() == [
        f"{streaming} {IDS['test'][0]} {k}" for streaming in (False, True) for k in range(6)
    ], run.stderr
    assert requests == []


@pytest.mark.processes
def test_offline_never_passes_a_part_for_the_whole(load, hub, repo_id, split_file, tmp_path, python):
    """What was skipped for being out of reach is there once it is in reach."""
    ctspine1k.download_files(cases="liver_106", repo_id=repo_id)
    options = {"split_file": str(split_file), "image_size": SIZE, "on_missing": "skip", "repo_id": repo_id}
    code = "import json, sys, ctspine1k; print(len(ctspine1k.load_dataset('3d', split='train', **json.loads(sys.argv[1]))))"
    run = python(code, json.dumps({**options, "cache_dir": str(tmp_path / "cache")}), HF_HUB_OFFLINE="1")
    assert run.stdout.strip() == "1", run.stderr
    assert len(load("3d", split="train", **options)) == 2


def test_all_splits_are_of_one_commit(load, hub, repo_id):
    with hub.watched() as requests:
        load("3d", repo_id=repo_id)
    asked = sum(request.path == f"/api/datasets/{repo_id}/revision/main" for request in requests)
    assert asked == 1 + 1  # to know it, and to have the cache remember it


def test_another_order_of_the_split_file_is_another_index(load, split_file):
    assert [row["index"] for row in load(split="train", cases=["liver_106"])] == [1]
    split_file.write_text(split_file.read_text().replace("trainset:\n", "trainset:\nliver_106.nii.gz\n", 1))
    lines = split_file.read_text().splitlines()
    del lines[lines.index("liver_106.nii.gz", 2)]
    split_file.write_text("\n".join(lines))
    assert [row["index"] for row in load(split="train", cases=["liver_106"])] == [0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "times"),
    [({"cut_after": 100}, 1), ({"cut_after": 0}, 40), (503, 1)],
    ids=["cut", "dead", "refused"],
)
def test_a_stream_that_breaks_off_is_resumed_or_reported(load, hub, repo_id, tree, fault, times):
    hub.faults["HN_P023.nii.gz"] = [fault] * times
    streamed = load("2d", split="validation", repo_id=repo_id, streaming=True)
    if times == 1:
        assert identical(rows(streamed), wanted(tree, "2d", "validation"))
    else:
        with pytest.raises((HubError, TruncatedFileError, FileFormatError)):
            rows(streamed)


@pytest.mark.parametrize("streaming", [False, True])
def test_another_revision_is_another_data_set(load, hub, repo_id, tree, tmp_path, streaming):
    first = hub.repos[repo_id].refs["main"]
    shutil.copytree(tree, tmp_path / "changed")
    save_case(tmp_path / "changed", "HN_P023", seed=99, shape=(6, 5, 5))
    hub.repos[repo_id].commit(files_of(tmp_path / "changed"))
    options = {"split": "validation", "repo_id": repo_id, "streaming": streaming}
    assert identical(rows(load(**options)), wanted(tmp_path / "changed", "3d", "validation"))
    assert identical(rows(load(**options, data_revision=first)), wanted(tree, "3d", "validation"))
    assert identical(rows(load(**options, revision=first)), wanted(tree, "3d", "validation"))


def test_a_changed_file_is_another_data_set(load, tree):
    before = rows(load(split="validation"))
    image = next(tree.rglob("HN_P023.nii.gz"))
    save(image, intensities(5, (6, 5, 5)))
    os.utime(image, ns=(0, 0))
    after = rows(load(split="validation"))
    assert not identical(before, after)
    assert identical(after, wanted(tree, "3d", "validation"))


def test_an_added_file_is_another_data_set(load, tree):
    image = next(tree.rglob("liver_106.nii.gz"))
    data = image.read_bytes()
    image.unlink()
    with pytest.warns(SkippedCasesWarning, match=r"1 case is left out .*liver_106 \(no image file\)"):
        assert len(load(split="train", on_missing="skip")) == 1
    image.write_bytes(data)
    assert len(load(split="train", on_missing="skip")) == 2


@pytest.mark.parametrize(
    "option",
    [
        {"storage": "compact"},
        {"geometry": True},
        {"on_error": "skip"},
        {"on_geometry": "raise"},
        {"on_voxels": "replace"},
        {"cases": ["HN_P023"]},
    ],
)
def test_other_options_are_another_cache_where_rows_may_differ(load, option):
    plain = load(split="validation").cache_files
    other = load(split="validation", **option).cache_files
    assert (plain == other) == (option == {"cases": ["HN_P023"]})  # all of validation: the same rows


def test_forced_conversion(load, tmp_path):
    load(split="test")
    (made,) = (tmp_path / "cache").rglob("*.arrow")
    inode, time = made.stat().st_ino, made.stat().st_mtime_ns
    load(split="test", download_mode="force_redownload")
    assert (made.stat().st_ino, made.stat().st_mtime_ns) != (inode, time)


@pytest.mark.parametrize("streaming", [False, True])
def test_files_that_are_gone_are_told_before_a_converted_split_is_read_again(load, tree, tmp_path, streaming):
    """Nothing else is converted before, and a split without files is left out where that is allowed."""
    load(split="test")
    for path in tree.rglob(f"{IDS['test'][0]}*"):
        path.unlink()
    again = {"streaming": True} if streaming else {"download_mode": "force_redownload"}
    with pytest.raises(MissingFilesError):
        load(split=["validation", "test"], **again)
    assert len(list((tmp_path / "cache").rglob("*.arrow"))) == 1
    with pytest.warns(SkippedCasesWarning, match="1 of 1 case lacks raw files"):
        assert list(load(on_missing="skip", **again)) == ["train", "validation"]


@pytest.fixture
def bars():
    """Progress bars, which a run of the demo in this process switches off."""
    was_quiet = datasets.are_progress_bars_disabled()
    datasets.enable_progress_bars()
    yield
    if was_quiet:
        datasets.disable_progress_bars()


@pytest.mark.usefixtures("bars")
def test_the_bar_of_a_conversion_has_a_total(load, name, capfd):
    count = {"3d": 2, "2d": 7}[name]
    assert len(load(name, split="train")) == count
    assert f"{count}/{count}" in capfd.readouterr().err


@pytest.mark.parametrize("below", ["", "cache"])
def test_a_file_in_the_place_of_the_cache_is_named(load, tmp_path, below):
    (tmp_path / "taken").touch()
    with pytest.raises(OutputError, match=r"expected a folder, .* found the file .*taken\. Choose another"):
        load(split="test", cache_dir=tmp_path / "taken" / below)


def test_keep_in_memory(load):
    assert load(split="test", keep_in_memory=True).cache_files == []


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A case whose image takes 30 MB: kernels take several that nobody has read."""
    root = tmp_path_factory.mktemp("large")
    shape = (128, 96, 1200)
    part = np.random.default_rng(0).integers(-999, 999, (*shape[:2], 12), np.int16)
    save(root / "raw/mine.nii", np.tile(part, (1, 1, 100)))
    save(root / "raw/mine_seg.nii.gz", np.zeros(shape, np.uint8))
    (root / "mine.txt").write_text("trainset:\nmine\n")
    return root


@pytest.mark.slow
@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_streaming_reads_no_more_than_it_needs(load, hub, publish, large, on_error):
    """The first slice costs a part of the file; to be sure that the case is not broken, all of it."""
    image = large / "raw/mine.nii"
    repo_id = publish(large / "raw")
    options = {
        "split_file": large / "mine.txt",
        "image_size": (128, 96),
        "on_error": on_error,
        "streaming": True,
    }
    rows_of_train = iter(load("2d", split="train", repo_id=repo_id, **options))
    first = np.asarray(nib.load(image).dataobj[..., 0])
    assert np.array_equal(np.asarray(next(rows_of_train)["image"], "f4"), first.astype("f4"))
    del rows_of_train
    sent, size = hub.downloads()["mine.nii"], image.stat().st_size
    assert (0 < sent < size / 3) if on_error == "raise" else sent == size
    (request,) = (r for r in hub.requests if r.method == "GET" and r.path.endswith("mine.nii"))
    assert request.range is None  # one stream, not blocks that are read ahead


def test_missing_cases_are_counted_and_named_before_any_work(load, tree, tmp_path):
    next(tree.rglob("1.3.6.1.4.1.9328.50.4.0650_seg.nii.gz")).unlink()
    with pytest.raises(MissingFilesError, match=r"1 of 1 case .*0650 \(mask\).*on_missing=\"skip\""):
        load()
    with pytest.raises(MissingFilesError) as caught:
        load(split="test", on_missing="skip")
    assert str(caught.value).endswith("<case_id>_seg.nii.gz. Select others with cases=[...] (--case).")
    assert not list((tmp_path / "cache").rglob("*.arrow"))


def test_missing_cases_are_skipped_when_asked(load, tree):
    next(tree.rglob("liver_106.nii.gz")).unlink()
    for path in list(tree.rglob("HN_P023*")):
        path.unlink()
    with pytest.warns(SkippedCasesWarning) as told:
        loaded = load(on_missing="skip")
    assert {split: len(part) for split, part in loaded.items()} == {"train": 1, "test": 1}
    assert any("liver_106 (no image file)" in str(w.message) for w in told)
    assert any("1 of 1 case lacks raw files" in str(w.message) for w in told)
    with pytest.warns(SkippedCasesWarning, match="liver_106"):  # also of a cache
        load(split="train", on_missing="skip")
    with pytest.raises(MissingFilesError):
        load(split="validation", on_missing="skip")


def test_leftovers_of_a_killed_conversion_go(load, tmp_path):
    (folder,) = {Path(file["filename"]).parent for file in load(split="train").cache_files}
    shutil.rmtree(folder)
    leftover = folder.with_name(folder.name + ".incomplete")
    leftover.mkdir()
    (leftover / "ctspine1k-train-00001-00000-of-NNNNN.arrow").write_bytes(b"half a file")
    (leftover / "skipped").mkdir()
    (leftover / "skipped" / "old.json").write_text("{}")
    assert len(load(split="train")) == 2
    assert sorted(path.suffix for path in folder.iterdir() if path.name != "LICENSE") == [
        *[".arrow"] * 2,
        *[".json"] * 2,
    ]


def test_forced_conversion_of_several_parts_converts_once(load, monkeypatch):
    made = []
    prepare = CTSpine1K.download_and_prepare
    monkeypatch.setattr(
        CTSpine1K, "download_and_prepare", lambda self, **k: made.append(self) or prepare(self, **k)
    )
    assert len(load(split=["train[:1]+train[1:]", "train"], download_mode="force_redownload")[0]) == 2
    assert len(made) == 1


def test_a_bad_transfer_is_no_broken_case(load, hub, repo_id):
    hub.faults["liver_106.nii.gz"] = [b"<html>"]
    with pytest.raises(ChecksumError, match=r"liver_106.nii.gz: sha256 is .* Try again\."):
        rows(load("2d", split="train", repo_id=repo_id, streaming=True, on_error="skip"))


def test_known_issues_are_left_out_only_when_asked(tree, tmp_path):
    """0482 has a reported issue, 0004 one that somebody else saw, liver_106 none."""
    ids = ["1.3.6.1.4.1.9328.50.4.0004", "1.3.6.1.4.1.9328.50.4.0482", "liver_106"]
    for seed, case_id in enumerate(ids[:2]):
        save_case(tree, case_id, seed=seed)
    options = {"data_dir": tree, "cases": ids, "split": "train", "image_size": SIZE, "cache_dir": tmp_path}

    def names(**more):
        return ctspine1k.load_dataset("3d", **options, **more)["patient_id"][:]

    assert names() == ids
    assert names(exclude_issues="reported") == [ids[0], "liver_106"]
    assert names(exclude_issues="all") == ["liver_106"]
    assert names(exclude_issues="errors") == [ids[0], "liver_106"]
    assert names(exclude_issues=["castellvi_grade", "label_wrong_value"]) == ["liver_106"]
    assert names(exclude_issues=[]) == ids
    assert names(source=["MSD-T10", "COVID-19"]) == ["liver_106"]
    with pytest.raises(
        ValueError, match="exclude_issues='some': expected one of 'reported', 'errors', 'all'"
    ):
        names(exclude_issues="some")


SCHEMES = {
    "ctspine1k": lambda label: label,
    "verse": lambda label: label,
    "binary": lambda label: label > 0,
    "region": lambda label: 1 * (label > 0) + (label > 7) + (label > 19),
}


@pytest.mark.parametrize("storage", ["dense", "compact"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_label_schemes(load, right, name, storage, scheme):
    convert = SCHEMES[scheme]
    for streaming in (False, True):
        loaded = rows(load(name, split="train", label_scheme=scheme, storage=storage, streaming=streaming))
        for row, plain in zip(loaded, right, strict=True):
            assert np.array_equal(row["segmentation"], convert(plain["segmentation"]))
            assert np.array_equal(row["image"], plain["image"])


@pytest.mark.parametrize("dtype", [">i2", "<f8", "<i8"])
def test_label_schemes_of_any_mask(load, tree, dtype):
    mask = next(tree.rglob("liver_106_seg.nii.gz"))
    values = np.asarray(nib.load(mask).dataobj)
    save(mask, values.astype(dtype))
    (row,) = rows(load("3d", split="train", cases=["liver_106"], label_scheme="binary"))
    assert np.array_equal(row["segmentation"], np.transpose(values > 0, (2, 0, 1)))


def test_a_scheme_that_is_none(load):
    with pytest.raises(ValueError, match="label_scheme='organs': expected one of 'ctspine1k', 'region', "):
        load("3d", label_scheme="organs")


def test_orientation_and_scheme_have_caches_of_their_own(load):
    caches = [
        load("3d", split="train", **options).cache_files[0]["filename"]
        for options in ({}, {"orientation": "RAS"}, {"label_scheme": "binary"}, {"label_scheme": "ctspine1k"})
    ]
    assert caches[0] == caches[3]
    assert len(set(caches)) == 3


@pytest.mark.parametrize("storage", ["dense", "compact"])
def test_other_labels_have_a_cache_of_their_own(load, tree, name, storage):
    mask = next(tree.rglob("HN_P023_seg.nii.gz"))
    values = np.asarray(nib.load(mask).dataobj).copy()
    values[2, 3] = 26
    save(mask, values)
    options = {"split": "validation", "storage": storage}
    with pytest.raises(VoxelValueError, match="found 26"):
        load(name, **options)
    right = np.where(values > 25, 0, values).transpose(2, 0, 1)
    for streaming in (False, True):
        loaded = rows(load(name, streaming=streaming, other_labels="background", **options))
        found = (
            loaded[0]["segmentation"] if name == "3d" else np.stack([row["segmentation"] for row in loaded])
        )
        assert np.array_equal(found, right)
    with pytest.raises(ValueError, match="other_labels='skip': expected one of 'raise', 'background'"):
        load(name, other_labels="skip")


@pytest.mark.parametrize("option", ["cache_dir", "data_dir"])
@pytest.mark.parametrize("streaming", [False, True])
def test_a_path_that_datasets_would_cut_is_refused_before_anything_is_touched(
    load, tree, tmp_path, monkeypatch, option, streaming
):
    """`lab::mine` would be `lab`, in which there is something else."""
    monkeypatch.chdir(tmp_path)
    for folder in ("lab", "lab::mine"):
        shutil.copytree(tree, tmp_path / folder)
    before = sorted(tmp_path.rglob("*"))
    for path in (tmp_path / "lab::mine", "lab::mine", Path("lab::mine/raw_data")):
        with pytest.raises(ValueError, match=rf"{option}='.*lab::mine.*without '::', .* Rename that folder"):
            load(split="train", streaming=streaming, **{option: path})
    assert sorted(tmp_path.rglob("*")) == before


def test_where_the_cache_is_by_default_is_checked_too(load, tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "a::b")
    with pytest.raises(ValueError, match=r"HF_DATASETS_CACHE='.*a::b': expected a path without '::'"):
        load(split="train", cache_dir=None)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "c")
    builder = CTSpine1K(config_name="3d", data_dir=str(tmp_path / "tree"))
    with pytest.raises(ValueError, match=r"output_dir='a::b': expected a path without '::'"):
        builder.download_and_prepare("a::b")
    for text in ("JJJJJ", "SSSSS", "NNNNN"):  # datasets would write to another folder
        with pytest.raises(ValueError, match=rf"cache_dir='.*': expected a path without '{text}'"):
            load(split="train", cache_dir=tmp_path / f"US{text}")
    assert not list(tmp_path.glob("US*"))
