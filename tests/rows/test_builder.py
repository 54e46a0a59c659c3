import itertools

import nibabel as nib
import numpy as np
import pytest
from support.compare import CONFIGS, identical, rows, wanted, wanted_by_id
from support.volumes import AFFINE, ALL_IDS, IDS, break_case, intensities, labels, save, save_case

from ctspine1k import LazyDataset, RowOptions, load_catalog
from ctspine1k.catalog.ctspine1k import CTSPINE1K
from ctspine1k.catalog.verse import VERSE
from ctspine1k.errors import (
    CorruptFileError,
    GeometryError,
    GeometryWarning,
    ImageSizeError,
    NothingLeftError,
    PairMismatchError,
    SkippedCasesWarning,
    TruncatedFileError,
    UnreadableFileError,
    VoxelValueError,
    VoxelWarning,
)
from ctspine1k.rows.builder import CTSpine1K
from ctspine1k.rows.options import GEOMETRY_COLUMNS
from ctspine1k.storage.feature import CompactArray
from ctspine1k.volumes.cases import open_case
from ctspine1k.volumes.resampling import ResampledCase

STORAGES = ("dense", "compact")


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("name", CONFIGS)
def test_rows_are_what_nibabel_gives_bit_for_bit(load, tree, name, storage):
    loaded = load(name, storage=storage)
    assert list(loaded) == ["train", "validation", "test"]
    for split in loaded:
        assert identical(rows(loaded[split]), wanted(tree, name, split))


@pytest.fixture
def convert(load, tmp_path):
    """Convert cases that are written as told: one for each stored type and scaling, by id."""

    def run(write, kinds, name, storage):
        root, split_file = tmp_path / "kinds", tmp_path / "kinds.txt"
        cases = dict(zip([case.case_id for case in load_catalog()], kinds, strict=False))
        for seed, (case_id, kind) in enumerate(cases.items()):
            write(*save_case(root, case_id, seed=seed), *kind)
        split_file.write_text("\n".join(["trainset:", *cases]))
        return root, cases, load(name, split="train", data_dir=root, split_file=split_file, storage=storage)

    return run


@pytest.mark.slow
@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("name", CONFIGS)
def test_rows_of_every_stored_type(convert, name, storage):
    def write(image, mask, dtype, scaling):
        save(image, intensities(dtype=dtype), slope=scaling[0], inter=scaling[1])

    types = ["<i2", "u1", "<i4", "<f4", "<f8", ">i2", ">f4"]
    kinds = itertools.product(types, [(None, None), (0.37, -1024)])
    root, cases, loaded = convert(write, kinds, name, storage)
    assert len(cases) == 14
    for case_id, right in wanted_by_id(root, name, cases).items():
        found = [row for row in rows(loaded) if row["patient_id"] == case_id]
        assert identical(found, right), cases[case_id]


@pytest.mark.parametrize("name", CONFIGS)
def test_masks_of_every_stored_type(convert, name):
    """A mask in floats, or scaled, holds whole numbers all the same, and compact storage keeps it as such."""

    def write(image, mask, dtype, scaling):
        voxels = (labels() // (scaling[0] or 1)).astype(dtype)
        save(mask, voxels, slope=scaling[0], inter=scaling[1])

    kinds = list(itertools.product(["<f8", ">i2", "<i8"], [(None, None), (2.0, 0)]))
    for storage in STORAGES:
        root, cases, loaded = convert(write, kinds, name, storage)
        assert len(cases) == 6
        for case_id, right in wanted_by_id(root, name, cases).items():
            found = [row for row in rows(loaded) if row["patient_id"] == case_id]
            assert identical(found, right), cases[case_id]
    for row in LazyDataset(loaded, dtype="stored"):
        dtype, scaling = cases[row["patient_id"]]
        right = "u1" if scaling[0] or dtype == "<f8" else np.dtype(dtype).newbyteorder("<")
        assert row.segmentation.dtype == right, (dtype, scaling)


@pytest.mark.parametrize("name", CONFIGS)
def test_compact_features(load, name):
    features = load(name, split="test", storage="compact").features
    assert features["image"] == CompactArray("float32")
    assert features["segmentation"] == CompactArray("int32")


@pytest.mark.parametrize("name", CONFIGS)
def test_fast_compression_gives_the_same_rows_from_a_cache_of_its_own(load, tree, name):
    small, fast = (load(name, split="train", storage="compact", compression=how) for how in ("small", "fast"))
    assert small.cache_files == load(name, split="train", storage="compact").cache_files
    assert small.cache_files != fast.cache_files
    assert identical(rows(fast), wanted(tree, name, "train"))
    streamed = load(name, split="train", storage="compact", compression="fast", streaming=True)
    assert identical(rows(streamed), wanted(tree, name, "train"))


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("slices", [1, 16, 17, 33])
def test_batches_of_one_slice_stay_in_order(load, tree, slices, storage):
    """`datasets` 3 writes a table of one row later than the longer one that follows it."""
    for case_id in ALL_IDS:
        save_case(tree, case_id, shape=(6, 5, slices), seed=slices)
    loaded = load("2d", split="train", storage=storage)
    assert identical(rows(loaded), wanted(tree, "2d", "train"))


@pytest.mark.parametrize("batch", [1, 2, 7])
@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("name", CONFIGS)
def test_the_batch_size_changes_nothing(load, tree, name, storage, batch):
    loaded = load(name, split="train", storage=storage, writer_batch_size=batch)
    assert identical(rows(loaded), wanted(tree, name, "train"))


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("name", CONFIGS)
def test_one_thread_gives_what_several_do(load, tree, monkeypatch, name, storage):
    monkeypatch.setattr("ctspine1k.rows.builder.usable_threads", lambda processes: 1)
    assert identical(rows(load(name, split="train", storage=storage)), wanted(tree, name, "train"))


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


def test_published_slices_are_512_x_512(tmp_path):
    assert CTSpine1K(config_name="2d", data_dir=str(tmp_path)).info.features["image"].shape == (512, 512)
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
@pytest.mark.parametrize("num_proc", [1, *(pytest.param(n, marks=pytest.mark.processes) for n in (2, 3))])
@pytest.mark.parametrize("storage", STORAGES)
def test_processes_change_nothing(load, tmp_path, name, num_proc, storage):
    """Four cases, so that three processes get unequal parts."""
    one_split = tmp_path / "one.txt"
    one_split.write_text("\n".join(["trainset:", *ALL_IDS]))
    options = {"split": "train", "split_file": one_split, "storage": storage}
    loaded = load(name, num_proc=num_proc, cache_dir=tmp_path / "many", **options)
    # A file for each case, or for each process, so each had its part.
    assert len(loaded.cache_files) == (4 if name == "3d" else num_proc)
    many = rows(loaded)
    assert identical(many, rows(load(name, **options)))
    assert [row["index"] for row in many] == sorted(row["index"] for row in many)
    assert {row["patient_id"] for row in many} == set(ALL_IDS)


@pytest.mark.parametrize("name", CONFIGS)
def test_geometry(load, tree, name):
    row = rows(load(name, split="train", geometry=True))[-1]
    assert tuple(row)[-6:] == GEOMETRY_COLUMNS
    labelled = np.count_nonzero(row["segmentation"])
    assert row["n_labelled"] == labelled != row["segmentation"].size
    assert row["source"] == "MSD-T10"
    np.testing.assert_array_equal(
        np.array(row["array_affine"])[:3, 0], [0, 0, 2.5]
    )  # a step to the next slice
    assert row["spacing"] == pytest.approx([2.5, 0.7, 0.8], rel=1e-6)
    assert row["orientation"] == "SLA"
    np.testing.assert_array_equal(row["affine"], nib.load(next(tree.rglob("liver_106.nii.gz"))).affine)
    streamed = rows(load(name, split="train", geometry=True, streaming=True))[-1]
    assert np.array_equal(streamed["affine"], row["affine"])
    assert np.array_equal(streamed["array_affine"], row["array_affine"])
    assert (list(streamed["spacing"]), streamed["orientation"]) == (row["spacing"], "SLA")
    assert streamed["n_labelled"] == labelled


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("name", CONFIGS)
def test_labelled_voxels_are_counted(load, name, storage):
    found = load(name, split="train", storage=storage, geometry=True, label_scheme="region")
    assert found["n_labelled"] == [np.count_nonzero(row["segmentation"]) for row in rows(found)]
    assert found.features["n_labelled"].dtype == "int64"


@pytest.mark.parametrize(
    ("options", "axes", "orientation"),
    [
        ({"plane": "axial"}, (2, 0, 1), "SLA"),
        ({"plane": "coronal"}, (1, 0, 2), "ALS"),
        ({"plane": "sagittal"}, (0, 1, 2), "LAS"),
        ({"plane": "sagittal", "orientation": "SAL"}, (0, 2, 1), "LSA"),
    ],
)
def test_slices_of_a_plane(load, tree, options, axes, orientation):
    """Those of files that are stored as LAS: the axis across the plane first, then the others as they were."""
    paths = [next(tree.rglob(f"HN_P023{suffix}.nii.gz")) for suffix in ("", "_seg")]
    image, mask = (np.asarray(nib.load(path).dataobj).transpose(axes) for path in paths)
    options = {**options, "split": "validation", "geometry": True, "image_size": None}
    streaming = load("2d", storage="compact", streaming=True, **options)
    for found in (rows(load("2d", storage="compact", **options)), rows(streaming)):
        assert [row["slice_index"] for row in found] == list(range(len(image)))
        assert np.array_equal([row["image"] for row in found], image)
        assert np.array_equal([row["segmentation"] for row in found], mask)
        assert {row["orientation"] for row in found} == {orientation}
    dense = load("2d", **{**options, "image_size": image.shape[1:]})
    assert np.array_equal([row["image"] for row in rows(dense)], image)


@pytest.mark.parametrize("name", CONFIGS)
def test_another_spacing(load, tree, name):
    """The axes of slices lie from left to right and from back to front. Rows are those of the resampled case."""
    options = {"split": "train", "storage": "compact", "spacing": (0.5, 1.1, 3)}
    found = rows(load(name, image_size=None, **options))
    paths = [next(tree.rglob(f"liver_106{suffix}.nii.gz")) for suffix in ("", "_seg")]
    with open_case(*paths) as case:
        resampled = ResampledCase(case, options["spacing"])
        arrays = resampled.read_voxels()
    last = [row for row in found if row["patient_id"] == "liver_106"]
    for column, array in zip(("image", "segmentation"), arrays, strict=True):
        assert np.array_equal([row[column] for row in last], [array] if name == "3d" else array)
    assert identical(rows(load(name, image_size=None, streaming=True, **options)), found)
    size = (8, 4)  # 6 x 0.7 / 0.5 and 5 x 0.8 / 1.1 voxels
    assert identical(rows(load(name, **{**options, "storage": "dense", "image_size": size})), found)
    with pytest.raises(ImageSizeError, match=r"found 8 x 4.*and spacing=\(0\.5, 1\.1, 3\.0\) may change it"):
        load(name, **{**options, "storage": "dense"})
    row = load(name, image_size=None, geometry=True, **options)[-1]
    assert row["spacing"] == pytest.approx([3, 0.5, 1.1])
    assert np.array_equal(row["affine"], resampled.geometry.affine)


@pytest.mark.parametrize("options", [{"plane": "sagittal"}, {"spacing": (0.7, 0.8, 2)}])
def test_a_part_of_other_slices_than_stored(load, options):
    """How many a case has of them is known from headers."""
    options = {**options, "storage": "compact", "image_size": None}
    part = rows(load("2d", split="train[:8]", **options))
    assert identical(part, rows(load("2d", split="train", **options))[:8])
    assert {row["patient_id"] for row in part} == set(IDS["train"])


def test_writer_batch_size(load, tree, tmp_path):
    """By default a volume, or 16 slices, are held in memory until they are written."""
    save_case(tree, "HN_P023", shape=(6, 5, 37))

    def batches(name, **options):
        column = load(name, split="validation", **options).data.column("index")
        return [len(chunk) for chunk in column.chunks]

    assert batches("2d") == batches("2d", storage="compact") == [16, 16, 5]
    assert batches("2d", writer_batch_size=20, cache_dir=tmp_path / "other") == [20, 17]
    assert load("3d", split="train").data.column("index").num_chunks == 2


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("num_proc", [None, pytest.param(2, marks=pytest.mark.processes)])
@pytest.mark.parametrize("suffix", ["", "_seg"])
@pytest.mark.parametrize("storage", STORAGES)
def test_a_broken_case_stops_the_load_with_its_own_error(
    load, tree, tmp_path, name, num_proc, suffix, storage
):
    path = break_case(tree, suffix=suffix)
    with pytest.raises(
        TruncatedFileError, match="expected 4 slices, found the end of the file in slice 3"
    ) as caught:
        load(name, split="train", num_proc=num_proc, storage=storage)
    assert caught.value.file == str(path)
    # Only volumes that are done are kept, for the next run.
    left = [path.stem.rpartition("-")[0] for path in (tmp_path / "cache").rglob("*.arrow")]
    assert left == ([IDS["train"][0]] if name == "3d" else [])


@pytest.mark.parametrize("name", CONFIGS)
def test_a_broken_case_stops_a_stream(load, tree, name):
    break_case(tree)
    with pytest.raises(TruncatedFileError):
        rows(load(name, split="train", streaming=True))


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        pytest.param({"num_proc": 2}, marks=pytest.mark.processes),
        {"streaming": True},
        {"storage": "compact"},
    ],
    ids=str,
)
@pytest.mark.parametrize("where", ["folder", "hub"])
def test_a_skipped_case_leaves_no_rows_and_is_told(load, tree, publish, name, options, where):
    kept = [row for row in wanted(tree, name, "train") if row["patient_id"] != "liver_106"]
    break_case(tree)
    if where == "hub":
        options = {**options, "repo_id": publish(tree)}
    # The message names the file as it is known where it lies, not a copy of it.
    told = r"1 case is left out .*liver_106 \(\S*raw_data/volumes/any/liver_106.nii.gz: expected 4 slices"
    for _ in range(2):  # converted, then from the cache
        with pytest.warns(SkippedCasesWarning, match=told if where == "folder" else "raw_data/.*expected 4"):
            assert identical(rows(load(name, split="train", on_error="skip", **options)), kept)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_split_of_which_nothing_is_left(load, tree, name):
    break_case(tree, "HN_P023")
    for _ in range(2):
        with (
            pytest.warns(SkippedCasesWarning),
            pytest.raises(NothingLeftError, match=r"validation: .*: HN_P023\. The warnings"),
        ):
            load(name, split="validation", on_error="skip")
        with pytest.warns(SkippedCasesWarning, match="HN_P023"):
            assert list(load(name, on_error="skip")) == ["train", "test"]
    with pytest.warns(SkippedCasesWarning), pytest.raises(NothingLeftError):
        load(name, cases=["HN_P023"], on_error="skip")


@pytest.mark.parametrize("name", CONFIGS)
def test_a_volume_of_another_size_says_how_to_load_it(load, tree, name):
    save_case(tree, "HN_P023", shape=(5, 6, 4))
    with pytest.raises(
        ImageSizeError,
        match=r"HN_P023\.nii\.gz: expected slices of 6 x 5, found 5 x 6. .*image_size=\(5, 6\)",
    ):
        load(name, split="validation")
    with pytest.raises(ImageSizeError):
        load(name, split="validation", storage="compact")  # since the fixture says image_size
    for options in ({"image_size": (5, 6)}, {"storage": "compact", "image_size": None}):
        loaded = load(name, split="validation", **options)
        assert identical(rows(loaded), wanted(tree, name, "validation"))


@pytest.mark.parametrize("name", CONFIGS)
def test_slices_that_an_orientation_makes_are_advised_to_be_compact(load, name):
    with pytest.raises(ImageSizeError) as caught:
        load(name, split="validation", orientation="ASR")
    assert caught.value.hint.startswith(
        "In dense storage all slices must have image_size, which resizes none"
    )
    assert (
        "orientation='ASR' may change it. Pass storage=\"compact\", where slices may have"
        in caught.value.hint
    )
    with pytest.raises(ImageSizeError, match="image_size checks slices and resizes none: load cases of this"):
        load(name, split="validation", orientation="ASR", storage="compact")  # the fixture says image_size
    assert len(load(name, split="validation", orientation="ASR", storage="compact", image_size=None))


@pytest.mark.parametrize("storage", STORAGES)
def test_no_column_is_none_for_a_case_of_ones_own(load, tree, tmp_path, storage):
    """A DataLoader cannot collate None."""
    save_case(tree, "mine")
    (tmp_path / "mine.txt").write_text("trainset:\nmine\n")
    options = {"split": "train", "split_file": tmp_path / "mine.txt", "storage": storage, "geometry": True}
    for streaming in (False, True):
        row = next(iter(load("2d", streaming=streaming, **options)))
        assert row["source"] == ""
        assert not [name for name, value in row.items() if value is None]


@pytest.mark.parametrize("name", CONFIGS)
def test_a_mask_that_lies_elsewhere(load, tree, name):
    mask = next(tree.rglob("HN_P023_seg.nii.gz"))
    save(mask, labels(2, (6, 5, 5)), affine=np.diag([1.0, 1.0, 1.0, 1.0]))
    with pytest.raises(PairMismatchError, match="expected the affine and spacing"):
        load(name, split="validation", on_geometry="raise")
    for on_error in ("raise", "skip"):  # then read twice, told once
        with pytest.warns(GeometryWarning, match="expected the affine and spacing") as told:
            loaded = load(name, split="validation", on_error=on_error)
        assert len(told) == 1
        assert identical(rows(loaded), wanted(tree, name, "validation"))


@pytest.mark.parametrize("name", CONFIGS)
def test_a_header_that_contradicts_itself(load, tree, name):
    """In image and mask alike."""
    for suffix, voxels in (("", intensities(2, (6, 5, 5))), ("_seg", labels(2, (6, 5, 5)))):
        save(next(tree.rglob(f"HN_P023{suffix}.nii.gz")), voxels, qoffset_x=99.0)
    with pytest.raises(GeometryError, match=r"origin .* by the sform"):
        load(name, split="validation", on_geometry="raise")
    with pytest.warns(SkippedCasesWarning), pytest.raises(NothingLeftError):
        load(name, split="validation", on_geometry="raise", on_error="skip")
    for on_error in ("raise", "skip"):
        with pytest.warns(GeometryWarning, match=r"origin .* by the sform") as told:
            loaded = load(name, split="validation", on_error=on_error)
        assert len(told) == 1
        assert identical(rows(loaded), wanted(tree, name, "validation"))


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("storage", ["dense", "compact"])
def test_a_mask_that_is_stored_otherwise_is_turned_by_its_own_header(load, tree, name, streaming, storage):
    mask = labels(2, (6, 5, 5))
    backwards = AFFINE @ np.diag([-1, 1, -1, 1.0])
    backwards[:3, 3] += AFFINE[:3, 0] * 5 + AFFINE[:3, 2] * 4
    save(next(tree.rglob("HN_P023_seg.nii.gz")), mask[::-1, :, ::-1], affine=backwards)
    loaded = load(
        name, split="validation", orientation="RAS", on_geometry="raise", streaming=streaming, storage=storage
    )
    got = [row["segmentation"] for row in rows(loaded)]
    right = np.transpose(mask[::-1], (2, 0, 1))
    assert np.array_equal(got[0] if name == "3d" else np.stack(got), right)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_labels_that_were_rounded_are_told_once_and_logged(load, tree, name, storage, on_error, caplog):
    right = wanted(tree, name, "validation")
    save(next(tree.rglob("HN_P023_seg.nii.gz")), labels(2, (6, 5, 5), "<f8") + 6e-9)
    with pytest.warns(VoxelWarning, match=r"HN_P023_seg\.nii\.gz: labels are whole numbers but for") as told:
        loaded = load(name, split="validation", storage=storage, on_error=on_error)
    assert len(told) == 1
    assert "HN_P023: " in caplog.text
    assert identical(rows(loaded), right)
    with pytest.warns(VoxelWarning, match="is read as"):
        assert identical(rows(load(name, split="validation", streaming=True)), right)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_voxels_that_are_not_finite_are_replaced_when_asked(load, tree, name, storage, on_error, caplog):
    values = intensities(2, (6, 5, 5), "<f4")
    values[4, 3, 2] = values[0, 0, 4] = -1024
    image = save(next(tree.rglob("HN_P023.nii.gz")), values)
    right = wanted(tree, name, "validation")
    values[4, 3, 2] = values[0, 0, 4] = np.nan
    save(image, values)
    options = {"split": "validation", "storage": storage, "on_error": on_error}
    if on_error == "raise":
        with pytest.raises(VoxelValueError, match=r"the first of 2 voxels\. on_voxels="):
            load(name, **options)
    with pytest.warns(
        VoxelWarning, match=r"HN_P023\.nii\.gz: NaN and infinite voxels are read as -1024"
    ) as told:
        loaded = load(name, on_voxels="replace", **options)
    assert len(told) == 1
    assert "HN_P023: " in caplog.text
    assert identical(rows(loaded), right)
    with pytest.warns(VoxelWarning):
        assert identical(rows(load(name, on_voxels="replace", streaming=True, **options)), right)


def test_ids_from_before_an_option_came_stay_valid():
    """Those of caches and exports are made of these, and of the data sets of this package of no more."""
    before = {
        "config": "2d",
        "storage": "dense",
        "image_size": None,
        "orientation": None,
        "label_scheme": None,
        "geometry": False,
        "on_geometry": "warn",
    }
    assert RowOptions("2d").key() == RowOptions("2d", on_voxels="raise").key() == before
    assert RowOptions("2d", on_voxels="replace").key() == {**before, "on_voxels": "replace"}
    compact = {**before, "storage": "compact"}
    assert RowOptions("2d", "compact").key() == RowOptions("2d", "compact", "small").key() == compact
    assert RowOptions("2d", "compact", "fast").key() == {**compact, "compression": "fast"}
    assert RowOptions("2d", plane="sagittal").key() == {**before, "plane": "sagittal"}
    assert RowOptions("2d", spacing=[1, 1, 3]).key() == {**before, "spacing": (1.0, 1.0, 3.0)}
    own = {"image_size": (512, 512), "label_scheme": "ctspine1k"}
    assert RowOptions("2d").of(CTSPINE1K).key() == {**before, **own}
    own = {"image_size": (6, 5), "label_scheme": "verse", "points": True, "points_format": "verse"}
    assert RowOptions("2d", image_size=(6, 5), points=True).of(VERSE).key() == {**before, **own}


def test_a_skip_is_logged_when_it_happens_and_told_whatever_the_path(load, tree, tmp_path, caplog):
    break_case(tree)
    cache_dir = tmp_path / "odd [x] *"
    with pytest.warns(SkippedCasesWarning, match="liver_106"):
        load("2d", split="train", on_error="skip", cache_dir=cache_dir)
    assert "liver_106 is left out: " in caplog.text
    with pytest.warns(SkippedCasesWarning, match="liver_106"):
        load("2d", split="train", on_error="skip", cache_dir=cache_dir)


@pytest.mark.parametrize("fields", [{"vox_offset": np.nan}, {"srow_x": [np.nan] * 4}])
def test_a_case_with_a_damaged_header_is_skipped_too(load, tree, fields):
    save(next(tree.rglob("liver_106.nii.gz")), intensities(1, (6, 5, 4)), **fields)
    with pytest.warns(SkippedCasesWarning, match=r"liver_106 \("):
        assert len(load(split="train", on_error="skip")) == 1


def test_only_broken_cases_are_skipped(load, tree, monkeypatch):
    """An error of the machine is not an error of the case."""

    def denied(*args, **kwargs):
        raise PermissionError("denied")

    monkeypatch.setattr("ctspine1k.volumes.cases.open_volume", denied)
    for streaming in (False, True):
        with pytest.raises(UnreadableFileError, match="expected a file that can be read, found denied"):
            list(load(split="train", on_error="skip", streaming=streaming))


@pytest.mark.parametrize("collection", ["verse", "msr"])
def test_a_script_takes_any_data_set(tmp_path, collection):
    """Whose cases need not have the facts of CTSpine1K."""
    options = {"collection": collection, "data_dir": str(tmp_path), "cache_dir": str(tmp_path / "cache")}
    CTSpine1K(config_name="3d", storage="compact", **options)


def test_bytes_after_the_end_are_seen_by_a_2d_pass(load, tree, tmp_path):
    image = next(tree.rglob("HN_P023.nii.gz"))
    image.write_bytes(image.read_bytes() + b"more garbage")
    with pytest.raises(CorruptFileError):
        load("2d", split="validation")
    assert not list((tmp_path / "cache").rglob("*.arrow"))


def test_a_script_of_another_repo_can_read_a_folder(tree):
    """`datasets` passes the repo of a script as ``repo_id``, whatever else is given."""
    builder = CTSpine1K(config_name="3d", data_dir=str(tree), repo_id="someone/else")
    assert builder.config.selected.place.folder == tree.resolve()
