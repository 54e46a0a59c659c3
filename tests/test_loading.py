import gzip
import json
import os
import pickle
import shutil
from pathlib import Path

import datasets
import nibabel as nib
import numpy as np
import pytest
from volumes import ALL_IDS, IDS, SIZE, expected, files_of, intensities, labels, save, save_case

import ctspine1k
from ctspine1k.builder import CTSpine1K
from ctspine1k.errors import (
    CorruptFileError,
    GeometryWarning,
    ImageSizeError,
    MissingFilesError,
    NothingLeftError,
    PairMismatchError,
    SkippedCasesWarning,
    TruncatedFileError,
    UnknownCaseError,
)

CONFIGS = ("3d", "2d")


@pytest.fixture
def load(tree, split_file, tmp_path):
    """`load_dataset` on the tree, with small slices and a cache of the test's own."""

    def run(name="3d", **options):
        defaults = {"split_file": split_file, "image_size": SIZE, "cache_dir": tmp_path / "cache"}
        if "repo_id" not in options:
            defaults["data_dir"] = tree
        return ctspine1k.load_dataset(name, **{**defaults, **options})

    return run


def rows(dataset) -> list[dict]:
    """Rows with arrays in the features' own types, however the format hands them out."""
    arrays = {"image": np.float32, "segmentation": np.int32}
    return [{k: np.asarray(v, arrays[k]) if k in arrays else v for k, v in row.items()} for row in dataset]


def identical(a: list[dict], b: list[dict]) -> bool:
    def bits(row):
        return {k: (v.shape, v.tobytes()) if isinstance(v, np.ndarray) else v for k, v in row.items()}

    return [bits(row) for row in a] == [bits(row) for row in b]


def wanted(tree: Path, name: str, split: str) -> list[dict]:
    """The rows of a split by another path: plain nibabel."""
    result = []
    for index, case_id in enumerate(IDS[split]):
        image = expected(next(tree.rglob(f"{case_id}.nii.gz")), "f4")
        segmentation = expected(next(tree.rglob(f"{case_id}_seg.nii.gz")), "i4")
        case = {"patient_id": case_id, "index": index}
        if name == "3d":
            result.append({"image": image, "segmentation": segmentation, **case})
        else:
            result += [
                {"image": image[k], "segmentation": segmentation[k], **case, "slice_index": k}
                for k in range(len(image))
            ]
    return result


@pytest.mark.parametrize("name", CONFIGS)
def test_rows_are_what_nibabel_gives_bit_for_bit(load, tree, name):
    loaded = load(name)
    assert list(loaded) == ["train", "validation", "test"]
    for split in loaded:
        assert identical(rows(loaded[split]), wanted(tree, name, split))


@pytest.mark.parametrize("dtype", ["<i2", "u1", "<i4", "<f4", "<f8", ">i2", ">f4"])
@pytest.mark.parametrize("scaling", [(None, None), (0.37, -1024)])
def test_rows_of_every_stored_type(load, tree, dtype, scaling):
    image = next(tree.rglob("HN_P023.nii.gz"))
    save(image, intensities(dtype=dtype, shape=(6, 5, 5)), slope=scaling[0], inter=scaling[1])
    for name in CONFIGS:
        assert identical(rows(load(name, split="validation")), wanted(tree, name, "validation"))


def test_features_are_the_published_ones(load):
    def columns(features):
        return {name: (type(f).__name__, getattr(f, "shape", None), f.dtype) for name, f in features.items()}

    tail = {"patient_id": ("Value", None, "string"), "index": ("Value", None, "int32")}
    assert list(columns(load("3d", split="test").features).items()) == list(
        {
            "image": ("Array3D", (None, 6, 5), "float32"),
            "segmentation": ("Array3D", (None, 6, 5), "int32"),
            **tail,
        }.items()
    )
    assert list(columns(load("2d", split="test").features).items()) == list(
        {
            "image": ("Array2D", (6, 5), "float32"),
            "segmentation": ("Array2D", (6, 5), "int32"),
            **tail,
            "slice_index": ("Value", None, "int32"),
        }.items()
    )


def test_published_slices_are_512_x_512():
    assert CTSpine1K.BUILDER_CONFIG_CLASS(name="3d").image_size == (512, 512)
    assert CTSpine1K.DEFAULT_CONFIG_NAME == "3d"


@pytest.mark.parametrize("name", CONFIGS)
def test_arrow_holds_float32_and_int32(load, name):
    table = load(name, split="train").data
    for column, arrow in (("image", "float"), ("segmentation", "int32")):
        kind = table.schema.field(column).type.storage_type
        while hasattr(kind, "value_type"):
            kind = kind.value_type
        assert str(kind) == arrow


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("num_proc", [2, 3])
def test_processes_change_nothing(load, tmp_path, name, num_proc):
    many = load(name, splits=["train"], num_proc=num_proc, cache_dir=tmp_path / "many")["train"]
    assert identical(rows(many), rows(load(name, split="train")))


@pytest.mark.parametrize("name", CONFIGS)
def test_streaming_gives_the_same_rows(load, name):
    streamed = load(name, streaming=True)
    assert isinstance(streamed, datasets.IterableDatasetDict)
    for split, loaded in load(name).items():
        assert identical(rows(streamed[split]), rows(loaded))
        assert streamed[split].features == loaded.features


@pytest.mark.parametrize("name", CONFIGS)
def test_hub_gives_the_same_rows(load, repo_id, name):
    local = rows(load(name, split="train"))
    assert identical(rows(load(name, split="train", repo_id=repo_id)), local)
    assert identical(rows(load(name, split="train", repo_id=repo_id, streaming=True)), local)


def test_a_stream_can_be_pickled_into_workers(load, repo_id):
    streamed = load("2d", split="train", repo_id=repo_id, streaming=True)
    assert identical(rows(pickle.loads(pickle.dumps(streamed))), rows(streamed))  # noqa: S301 (our own)
    assert streamed.n_shards == 2


@pytest.mark.parametrize("name", CONFIGS)
def test_geometry(load, tree, name):
    row = rows(load(name, split="train", geometry=True))[-1]
    assert list(row)[-4:] == ["source", "spacing", "affine", "orientation"]
    assert row["source"] == "MSD-T10"
    assert row["spacing"] == pytest.approx([2.5, 0.7, 0.8], rel=1e-6)
    assert row["orientation"] == "SLA"
    np.testing.assert_array_equal(row["affine"], nib.load(next(tree.rglob("liver_106.nii.gz"))).affine)
    streamed = rows(load(name, split="train", geometry=True, streaming=True))[-1]
    assert np.array_equal(streamed["affine"], row["affine"])
    assert (list(streamed["spacing"]), streamed["orientation"]) == (row["spacing"], "SLA")


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
        ({"split": "train", "splits": ["test"]}, "split='train': expected 'test'"),
        ({"splits": ["dev"]}, "splits='dev': expected one of 'train', 'validation', 'test'"),
        ({"split": "train[:1]", "streaming": True}, "a stream has no slices"),
        ({"split": "train", "cases": ["HN_P023"]}, "split='train': expected 'validation'"),
        ({"streaming": True, "num_proc": 2}, "num_proc is for conversion"),
        ({"on_missing": "ignore"}, "on_missing='ignore': expected one of 'raise', 'skip'"),
        ({"on_geometry": "skip"}, "on_geometry='skip': expected one of 'raise', 'warn'"),
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


def test_split_file_replaces_the_assignment(load, tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text("test_private:\nliver_106\nHN_P023\n")
    loaded = load("3d", split_file=path)
    assert [(r["patient_id"], r["index"]) for r in rows(loaded["test"])] == [("liver_106", 0), ("HN_P023", 1)]
    assert list(loaded) == ["test"]


# --- what is fetched, and when ---


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
for row in ctspine1k.load_dataset("2d", split="test", **options):
    print(row["patient_id"], row["slice_index"])
"""


@pytest.mark.parametrize("streaming", [False, True])
def test_offline_loads_what_is_there(load, hub, repo_id, split_file, tmp_path, python, streaming):
    load("2d", split="test", repo_id=repo_id)
    options = {
        "repo_id": repo_id,
        "split_file": str(split_file),
        "image_size": SIZE,
        "cache_dir": str(tmp_path / ("elsewhere" if streaming else "cache")),
        "streaming": streaming,
    }
    with hub.watched() as requests:
        run = python(OFFLINE, json.dumps(options), HF_HUB_OFFLINE="1")
    assert run.stdout.splitlines() == [f"{IDS['test'][0]} {k}" for k in range(6)], run.stderr
    assert requests == []


@pytest.mark.parametrize("streaming", [False, True])
def test_another_revision_is_another_data_set(load, hub, repo_id, tree, tmp_path, streaming):
    first = hub.repos[repo_id].refs["main"]
    shutil.copytree(tree, tmp_path / "changed")
    save_case(tmp_path / "changed", "HN_P023", seed=99, shape=(6, 5, 5))
    hub.repos[repo_id].commit(files_of(tmp_path / "changed"))
    options = {"split": "validation", "repo_id": repo_id, "streaming": streaming}
    assert identical(rows(load(**options)), wanted(tmp_path / "changed", "3d", "validation"))
    assert identical(rows(load(**options, data_revision=first)), wanted(tree, "3d", "validation"))


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
    with pytest.warns(SkippedCasesWarning, match=r"1 cases are left out .*liver_106 \(no image file\)"):
        assert len(load(split="train", on_missing="skip")) == 1
    image.write_bytes(data)
    assert len(load(split="train", on_missing="skip")) == 2


@pytest.mark.parametrize(
    "option", [{"geometry": True}, {"on_error": "skip"}, {"on_geometry": "raise"}, {"cases": ["HN_P023"]}]
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


def test_writer_batch_size(load, tmp_path):
    def batches(**options):
        dataset = load("2d", split="train", cache_dir=tmp_path / str(options), **options)
        return dataset.data.column("index").num_chunks

    assert (len(load("2d", split="train")), batches(), batches(writer_batch_size=3)) == (7, 1, 3)
    assert load("3d", split="train").data.column("index").num_chunks == 2  # a volume at a time


def test_keep_in_memory(load):
    assert load(split="test", keep_in_memory=True).cache_files == []


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_streaming_reads_no_more_than_it_needs(load, hub, publish, tmp_path, on_error):
    """The first slice costs a part of the file; to be sure that the case is not broken, all of it."""
    shape = (128, 96, 1200)  # 30 MB: kernels take several that nobody has read
    image = save(tmp_path / "big/mine.nii", np.random.default_rng(0).integers(-999, 999, shape, np.int16))
    save(tmp_path / "big/mine_seg.nii", np.zeros(shape, np.uint8))
    split_file = tmp_path / "mine.txt"
    split_file.write_text("trainset:\nmine\n")
    repo_id = publish(tmp_path / "big")
    options = {"split_file": split_file, "image_size": (128, 96), "on_error": on_error, "streaming": True}
    rows_of_train = iter(load("2d", split="train", repo_id=repo_id, **options))
    assert np.array_equal(np.asarray(next(rows_of_train)["image"], "f4"), expected(image, "f4")[0])
    del rows_of_train
    sent, size = hub.downloads()["mine.nii"], image.stat().st_size
    assert (0 < sent < size / 3) if on_error == "raise" else sent == size


# --- missing and broken cases ---


def test_missing_cases_are_counted_and_named_before_any_work(load, tree, tmp_path):
    next(tree.rglob("1.3.6.1.4.1.9328.50.4.0650_seg.nii.gz")).unlink()
    with pytest.raises(MissingFilesError, match=r"1 of 1 cases .*0650 \(mask\).*on_missing=\"skip\""):
        load()
    assert not list((tmp_path / "cache").rglob("*.arrow"))


def test_missing_cases_are_skipped_when_asked(load, tree):
    next(tree.rglob("liver_106.nii.gz")).unlink()
    for path in list(tree.rglob("HN_P023*")):
        path.unlink()
    with pytest.warns(SkippedCasesWarning) as told:
        loaded = load(on_missing="skip")
    assert {split: len(part) for split, part in loaded.items()} == {"train": 1, "test": 1}
    assert any("liver_106 (no image file)" in str(w.message) for w in told)
    assert any("1 of 1 cases lack raw files" in str(w.message) for w in told)
    with pytest.warns(SkippedCasesWarning, match="liver_106"):  # also of a cache
        load(split="train", on_missing="skip")
    with pytest.raises(MissingFilesError):
        load(split="validation", on_missing="skip")


def break_case(tree: Path, case_id: str = "liver_106", suffix: str = "") -> Path:
    """Cut off the end of the image: all but its last slice is fine."""
    path = next(tree.rglob(f"{case_id}{suffix}.nii.gz"))
    data = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(data[:-10]))
    return path


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("num_proc", [None, 2])
@pytest.mark.parametrize("suffix", ["", "_seg"])
def test_a_broken_case_stops_the_load_with_its_own_error(load, tree, tmp_path, name, num_proc, suffix):
    path = break_case(tree, suffix=suffix)
    with pytest.raises(
        TruncatedFileError, match="expected 4 slices, found the end of the file in slice 3"
    ) as caught:
        load(name, split="train", num_proc=num_proc)
    assert caught.value.file == str(path)
    assert not list((tmp_path / "cache").rglob("*.arrow"))


@pytest.mark.parametrize("name", CONFIGS)
def test_a_broken_case_stops_a_stream(load, tree, name):
    break_case(tree)
    with pytest.raises(TruncatedFileError):
        rows(load(name, split="train", streaming=True))


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("options", [{}, {"num_proc": 2}, {"streaming": True}], ids=str)
@pytest.mark.parametrize("where", ["folder", "hub"])
def test_a_skipped_case_leaves_no_rows_and_is_told(load, tree, publish, name, options, where):
    kept = [row for row in wanted(tree, name, "train") if row["patient_id"] != "liver_106"]
    break_case(tree)
    if where == "hub":
        options = {**options, "repo_id": publish(tree)}
    for _ in range(2):  # converted, then from the cache
        with pytest.warns(
            SkippedCasesWarning, match=r"1 cases are left out .*liver_106 \(.*expected 4 slices"
        ):
            assert identical(rows(load(name, split="train", on_error="skip", **options)), kept)


def test_what_was_skipped_is_listed_beside_the_data(load, tree, tmp_path):
    break_case(tree)
    with pytest.warns(SkippedCasesWarning):
        load("2d", split="train", on_error="skip")
    (listed,) = (tmp_path / "cache").rglob("skipped/*.json")
    assert json.loads(listed.read_text())["case_id"] == "liver_106"


@pytest.mark.parametrize("name", CONFIGS)
def test_a_split_of_which_nothing_is_left(load, tree, name):
    break_case(tree, "HN_P023")
    for _ in range(2):
        with (
            pytest.warns(SkippedCasesWarning),
            pytest.raises(NothingLeftError, match=r"validation: .*HN_P023"),
        ):
            load(name, split="validation", on_error="skip")


@pytest.mark.parametrize("name", CONFIGS)
def test_a_volume_of_another_size_says_how_to_load_it(load, tree, name):
    save_case(tree, "HN_P023", shape=(5, 6, 4))
    with pytest.raises(
        ImageSizeError,
        match=r"HN_P023\.nii\.gz: expected slices of 6 x 5, found 5 x 6. .*image_size=\(5, 6\)",
    ):
        load(name, split="validation")
    assert identical(
        rows(load(name, split="validation", image_size=(5, 6))), wanted(tree, name, "validation")
    )


@pytest.mark.parametrize("name", CONFIGS)
def test_a_mask_that_lies_elsewhere(load, tree, name):
    mask = next(tree.rglob("HN_P023_seg.nii.gz"))
    save(mask, labels(2, (6, 5, 5)), affine=np.diag([1.0, 1.0, 1.0, 1.0]))
    with pytest.raises(PairMismatchError, match="expected the affine and spacing"):
        load(name, split="validation", on_geometry="raise")
    with pytest.warns(GeometryWarning, match="expected the affine and spacing") as told:
        loaded = load(name, split="validation")
    assert len(told) == 1
    assert identical(rows(loaded), wanted(tree, name, "validation"))


def test_only_broken_cases_are_skipped(load, tree, monkeypatch):
    """An error of the machine is not an error of the case."""

    def denied(*args, **kwargs):
        raise PermissionError("denied")

    monkeypatch.setattr("ctspine1k.reader._opened", denied)
    with pytest.raises(datasets.exceptions.DatasetGenerationError):
        load(split="train", on_error="skip")


def test_bytes_after_the_end_are_seen_by_a_2d_pass(load, tree, tmp_path):
    image = next(tree.rglob("HN_P023.nii.gz"))
    image.write_bytes(image.read_bytes() + b"more garbage")
    with pytest.raises(CorruptFileError):
        load("2d", split="validation")
    assert not list((tmp_path / "cache").rglob("*.arrow"))


def test_ids_of_the_tree_are_real():
    catalog = ctspine1k.load_catalog()
    assert [catalog[case_id].split for case_id in ALL_IDS] == ["train", "train", "validation", "test"]
