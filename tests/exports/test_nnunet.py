"""Exports for nnU-Net: what the folder holds, what a second run does, and what is refused."""

import contextlib
import json
import os

import nibabel as nib
import numpy as np
import pytest
from support.volumes import AFFINE, ALL_IDS, IDS, break_case, files_of, labels, save

import ctspine1k
from ctspine1k.cli.main import main
from ctspine1k.errors import (
    BusyError,
    GeometryWarning,
    MissingFilesError,
    NoSpaceError,
    NothingLeftError,
    OutputError,
    SkippedCasesWarning,
    VoxelWarning,
)
from ctspine1k.running.disk import exclusive_lock

FOLDER = "Dataset511_CTSpine1K"
LIVER, VALIDATION, TEST = "liver_106", *IDS["validation"], *IDS["test"]

#: What is written beside the cases.
DOCUMENTS = {"dataset.json", "splits_final.json", "datalist.json"}


@pytest.fixture(autouse=True)
def no_nnunet(monkeypatch):
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def spine(tree, split_file):
    return ctspine1k.open_collection(data_dir=tree, split_file=split_file)


@pytest.fixture
def raw(tmp_path):
    """The folder that the data set's folder is made in."""
    return tmp_path / "raw"


@pytest.fixture
def out(raw):
    """The data set's folder."""
    return raw / FOLDER


def document(out, name="dataset.json"):
    return json.loads((out / name).read_text())


def mask_of(tree, case_id):
    return next(tree.rglob(f"{case_id}_seg.nii.gz"))


def voxels(path):
    return np.asarray(nib.load(path).dataobj)


def test_files_are_linked_in_the_layout_of_nnunet(spine, tree, raw, out):
    report = spine.export_nnunet(raw)
    assert report.ok
    assert (report.out, report.cases) == (str(out), {"training": 2, "validation": 1, "test": 1})
    assert report.files == {"linked": 8, "copied": 0, "written": 0, "kept": 0}
    wanted = {
        f"{folder}{end}/{case_id}{suffix}.nii.gz": next(tree.rglob(f"{case_id}{raw_suffix}.nii.gz"))
        for case_id in ALL_IDS
        for end in ("Ts" if case_id == TEST else "Tr",)
        for folder, suffix, raw_suffix in (("images", "_0000", ""), ("labels", "", "_seg"))
    }
    assert files_of(out).keys() == wanted.keys() | DOCUMENTS
    for name, source in wanted.items():
        assert (out / name).is_symlink()
        assert (out / name).resolve() == source.resolve()
    assert not list(raw.rglob(".*"))
    read_back = ctspine1k.open_collection(data_dir=out, split_file=tree.parent / "split.txt")
    assert len(read_back.files()) == 8


def test_documents_say_what_nnunet_and_monai_need(spine, raw, out):
    spine.export_nnunet(raw)
    told = document(out)
    assert list(told["labels"].values()) == list(range(26))
    assert (told["labels"]["background"], told["labels"]["C1"], told["labels"]["L6"]) == (0, 1, 25)
    assert (told["channel_names"], told["file_ending"], told["numTraining"]) == ({"0": "CT"}, ".nii.gz", 3)
    assert told["overwrite_image_reader_writer"] == "NibabelIOWithReorient"
    assert told["licence"].startswith("CC BY-NC-SA")
    assert told["reference"] == "https://arxiv.org/abs/2105.14711"
    assert document(out, "splits_final.json") == [{"train": IDS["train"], "val": IDS["validation"]}]
    listed = document(out, "datalist.json")
    assert [len(listed[role]) for role in ("training", "validation", "test")] == [2, 1, 1]
    for one in (*listed["training"], *listed["validation"], *listed["test"]):
        assert (out / one["image"]).is_file()
        assert (out / one["label"]).is_file()
    assert listed["labels"]["25"] == "L6"


def test_a_second_run_keeps_all(spine, raw, out):
    spine.export_nnunet(raw, label_scheme="region")
    before = {path: path.lstat() for path in out.rglob("*") if not path.is_dir()}
    report = spine.export_nnunet(raw, label_scheme="region")
    assert report.files == {"linked": 0, "copied": 0, "written": 0, "kept": 8}
    after = {path: path.lstat() for path in out.rglob("*") if not path.is_dir()}
    assert {path: (one.st_ino, one.st_mtime_ns) for path, one in after.items()} == {
        path: (one.st_ino, one.st_mtime_ns) for path, one in before.items()
    }


def test_masks_are_rewritten_only_where_they_must_be(spine, tree, raw, out):
    """Types, scaling, another orientation, another spacing: the voxels are those of the image's grid."""
    first, second = IDS["train"]
    right = {case_id: voxels(mask_of(tree, case_id)) for case_id in ALL_IDS}
    save(mask_of(tree, first), right[first].astype(np.float64))
    save(mask_of(tree, second), right[second].astype("<i2"), slope=1.0, inter=0.0)
    stored = nib.Nifti1Image(right[VALIDATION], AFFINE)
    steps = nib.orientations.ornt_transform(
        nib.orientations.io_orientation(AFFINE), nib.orientations.axcodes2ornt("PSR")
    )
    other = stored.as_reoriented(steps)
    assert other.shape != stored.shape
    save(mask_of(tree, VALIDATION), np.asarray(other.dataobj), affine=other.affine)
    save(mask_of(tree, TEST), right[TEST], affine=AFFINE @ np.diag([1, 1, 1.0001, 1]))
    report = spine.export_nnunet(raw)
    assert report.files == {"linked": 5, "copied": 0, "written": 3, "kept": 0}
    assert (out / f"labelsTr/{second}.nii.gz").is_symlink()  # whole numbers are fine as they are
    for case_id in (first, VALIDATION, TEST):
        end = "Ts" if case_id == TEST else "Tr"
        path = out / f"labels{end}/{case_id}.nii.gz"
        written, image = nib.load(path), nib.load(out / f"images{end}/{case_id}_0000.nii.gz")
        assert written.get_data_dtype() == np.uint8
        assert np.array_equal(np.asarray(written.dataobj), right[case_id])
        assert np.array_equal(written.affine, image.affine)
        assert written.header.get_zooms() == image.header.get_zooms()
        assert not path.is_symlink()


def test_a_mask_that_lies_elsewhere_is_as_on_geometry_says(spine, tree, raw, out):
    moved = AFFINE.copy()
    moved[0, 3] += 5
    save(mask_of(tree, LIVER), voxels(mask_of(tree, LIVER)), affine=moved)
    with pytest.warns(GeometryWarning, match="liver_106_seg"):
        report = spine.export_nnunet(raw)
    assert report.files["written"] == 1
    assert np.array_equal(nib.load(out / f"labelsTr/{LIVER}.nii.gz").affine, AFFINE.astype("f4"))
    report = spine.export_nnunet(raw, on_geometry="raise")
    assert not report.ok
    assert list(report.failed) == [LIVER]
    assert not (out / "dataset.json").exists()
    with pytest.warns(GeometryWarning):
        assert spine.export_nnunet(raw).files["kept"] == 8
    assert (out / "dataset.json").exists()


def test_labels_in_another_scheme(spine, tree, raw, out):
    report = spine.export_nnunet(raw, label_scheme="region")
    assert report.files == {"linked": 4, "copied": 0, "written": 4, "kept": 0}
    assert document(out)["labels"] == {"background": 0, "cervical": 1, "thoracic": 2, "lumbar": 3}
    found, right = voxels(out / f"labelsTr/{LIVER}.nii.gz"), voxels(mask_of(tree, LIVER))
    assert np.array_equal(found, np.select([right == 0, right < 8, right < 20], [0, 1, 2], 3))
    assert spine.export_nnunet(raw).files == {"linked": 4, "copied": 0, "written": 0, "kept": 4}
    assert (out / f"labelsTr/{LIVER}.nii.gz").is_symlink()


def test_labels_that_are_rounded_or_unknown(spine, tree, raw, out):
    scaled = labels(1, (6, 5, 4)).astype("<f4")
    scaled[2, 3, 1] += 1e-4
    save(mask_of(tree, LIVER), scaled)
    with pytest.warns(VoxelWarning, match="liver_106_seg.*read as"):
        spine.export_nnunet(raw)
    assert np.array_equal(voxels(out / f"labelsTr/{LIVER}.nii.gz"), np.rint(scaled))
    save(mask_of(tree, LIVER), np.full((6, 5, 4), 26.0, "<f4"))
    report = spine.export_nnunet(raw)
    assert "expected labels, whole numbers from 0 to 25, found 26.0" in report.failed[LIVER]
    report = spine.export_nnunet(raw, other_labels="background")
    assert report.ok
    assert not voxels(out / f"labelsTr/{LIVER}.nii.gz").any()


def test_what_changed_is_made_anew_and_the_rest_is_kept(spine, tree, raw, out):
    spine.export_nnunet(raw, label_scheme="binary")
    save(mask_of(tree, LIVER), labels(77, (6, 5, 4)))
    assert spine.export_nnunet(raw, label_scheme="binary").files["written"] == 1
    found = voxels(out / f"labelsTr/{LIVER}.nii.gz")
    assert np.array_equal(found, voxels(mask_of(tree, LIVER)) > 0)


def test_a_case_that_cannot_be_used_fails_alone_or_is_left_out(spine, tree, raw, out):
    spine.export_nnunet(raw)
    whole = mask_of(tree, VALIDATION).read_bytes()
    mask_of(tree, VALIDATION).write_bytes(b"no scan")
    report = spine.export_nnunet(raw)
    assert "expected a NIfTI file" in report.failed[VALIDATION] or VALIDATION in report.failed
    assert (report.ok, report.files["kept"]) == (False, 6)
    assert not (out / "dataset.json").exists()
    report = spine.export_nnunet(raw, on_error="skip")
    assert report.ok
    assert list(report.skipped) == [VALIDATION]
    assert not list(out.rglob(f"{VALIDATION}*"))
    assert document(out)["numTraining"] == 2
    assert not (out / "splits_final.json").exists()  # nothing to validate with
    mask_of(tree, VALIDATION).write_bytes(whole)
    assert spine.export_nnunet(raw).files == {"linked": 2, "copied": 0, "written": 0, "kept": 6}
    assert document(out)["numTraining"] == 3
    for case_id in ALL_IDS:
        mask_of(tree, case_id).write_bytes(b"no scan")
    with pytest.raises(NothingLeftError):
        spine.export_nnunet(raw, on_error="skip")


def test_a_mask_of_another_shape_and_missing_files(spine, tree, raw):
    save(mask_of(tree, LIVER), labels(0, (6, 5, 9)))
    report = spine.export_nnunet(raw)
    assert "expected the shape of" in report.failed[LIVER]
    mask_of(tree, LIVER).unlink()
    with pytest.raises(MissingFilesError):
        spine.export_nnunet(raw / "other")
    with pytest.warns(SkippedCasesWarning):
        report = spine.export_nnunet(raw / "other", on_missing="skip")
    assert (list(report.skipped), report.cases["training"]) == ([LIVER], 1)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"srow_y": [0, 0, 0, 0]}, "expected an affine with a direction for each axis"),
        ({"xyzt_units": 1}, "expected lengths in mm, found lengths in metres"),
        ({"dim": [4, 6, 5, 4, 1, 1, 1, 1]}, "expected 3 dimensions"),
    ],
)
def test_an_image_that_nnunet_would_misread_fails(spine, tree, raw, change, told):
    image = next(tree.rglob(f"{LIVER}.nii.gz"))
    save(image, voxels(image), **change)
    save(mask_of(tree, LIVER), voxels(mask_of(tree, LIVER)), **change)
    assert told in spine.export_nnunet(raw).failed[LIVER]


def test_the_split_is_written_where_nnunet_looks_for_it(spine, tree, raw, tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "preprocessed"))
    path = tmp_path / "preprocessed" / FOLDER / "splits_final.json"
    spine.export_nnunet(raw)
    assert json.loads(path.read_text()) == [{"train": IDS["train"], "val": IDS["validation"]}]
    mask_of(tree, LIVER).write_bytes(b"no scan")
    spine.export_nnunet(raw, on_error="skip")
    assert json.loads(path.read_text()) == [{"train": IDS["train"][:1], "val": IDS["validation"]}]
    own = [{"train": IDS["validation"], "val": IDS["train"]}]
    for text in (json.dumps(own), "[", "{}", "[3]"):
        path.write_text(text)
        with pytest.raises(OutputError, match="expected no split, or the official one, found another split"):
            spine.export_nnunet(raw, on_error="skip")
        assert path.read_text() == text


def test_one_split_alone(spine, raw, out, tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "preprocessed"))
    report = spine.export_nnunet(raw, only="train")
    assert report.cases == {"training": 2, "validation": 0, "test": 0}
    assert document(out)["numTraining"] == 2
    assert not list(tmp_path.rglob("splits_final.json"))
    with pytest.raises(ValueError, match="only='dev': expected one of 'train', 'validation', 'test'"):
        spine.export_nnunet(raw, only="dev")


def test_plain_ids_have_a_map(spine, raw, out):
    spine.export_nnunet(raw, plain_ids=True)
    ids = {case_id.replace(".", "_"): case_id for case_id in ALL_IDS}
    assert document(out, "case_ids.json") == ids
    assert {path.name for path in (out / "labelsTr").iterdir()} == {
        f"{name}.nii.gz" for name, case_id in ids.items() if case_id != TEST
    }
    assert document(out, "splits_final.json")[0]["train"] == ["1_3_6_1_4_1_9328_50_4_0001", LIVER]
    with pytest.raises(OutputError, match="expected files of the cases given, and no others, found imagesTr"):
        spine.export_nnunet(raw)


def test_copies(spine, tree, raw, out, monkeypatch):
    sizes = sum(path.stat().st_size for path in tree.rglob("*.nii.gz"))
    monkeypatch.setattr("ctspine1k.files.copies.free_bytes", lambda folder: sizes - 1)
    with pytest.raises(NoSpaceError, match="expected room for copies"):
        spine.export_nnunet(raw, copy=True)
    monkeypatch.undo()
    assert spine.export_nnunet(raw, copy=True).files == {"linked": 0, "copied": 8, "written": 0, "kept": 0}
    assert not any(path.is_symlink() for path in out.rglob("*"))
    for path in (out / "imagesTr").iterdir():
        source = next(tree.rglob(path.name.replace("_0000", "")))
        assert path.read_bytes() == source.read_bytes()
    assert spine.export_nnunet(raw).files["kept"] == 8  # copies need no links


def test_from_the_hub(repo_id, split_file, raw, out, tree):
    spine = ctspine1k.open_collection(repo_id=repo_id, split_file=split_file)
    assert spine.export_nnunet(raw).files["linked"] == 8
    path = out / f"imagesTr/{LIVER}_0000.nii.gz"
    assert path.read_bytes() == next(tree.rglob(f"{LIVER}.nii.gz")).read_bytes()
    assert not path.resolve().is_relative_to(tree)


def test_files_that_are_not_compressed_are_compressed(tmp_path, raw):
    image, mask = tmp_path / "own/mine.1.nii", tmp_path / "own/mine.1_seg.nii"
    save(image, np.arange(120, dtype="<i2").reshape(6, 5, 4))
    save(mask, labels())
    (tmp_path / "mine.txt").write_text("trainset:\nmine.1\n")
    own = ctspine1k.open_collection(data_dir=tmp_path / "own", split_file=tmp_path / "mine.txt")
    assert own.export_nnunet(raw, name="Mine").files["written"] == 2
    out = raw / "Dataset511_Mine"
    assert np.array_equal(voxels(out / "imagesTr/mine.1_0000.nii.gz"), voxels(image))
    assert np.array_equal(voxels(out / "labelsTr/mine.1.nii.gz"), voxels(mask))
    assert own.export_nnunet(raw, name="Mine").files["kept"] == 2
    whole = mask.read_bytes()
    mask.write_bytes(whole[:-1])
    with pytest.raises(NothingLeftError):
        own.export_nnunet(raw, name="Mine", on_error="skip")
    assert not list(out.rglob("*.nii.gz"))
    mask.write_bytes(whole)
    assert own.export_nnunet(raw, name="Mine").files["written"] == 2
    os.utime(image, ns=(0, 0))
    with pytest.raises(
        OutputError, match=r"mine.1_0000.nii.gz: expected no file, or .*mine.1.nii, compressed"
    ):
        own.export_nnunet(raw, name="Mine")


@pytest.mark.parametrize("variable", [None, "nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"])
def test_an_id_that_is_in_use_is_refused(spine, raw, tmp_path, monkeypatch, variable):
    place = raw if variable is None else tmp_path / "elsewhere"
    if variable is not None:
        monkeypatch.setenv(variable, str(place))
    (place / "Dataset511_Other").mkdir(parents=True)
    with pytest.raises(
        OutputError, match=rf"no data set with the id 511 but {FOLDER}, found Dataset511_Other"
    ):
        spine.export_nnunet(raw)
    assert not (raw / FOLDER).exists()
    assert spine.export_nnunet(raw, id=7, name="Other").out.endswith("Dataset007_Other")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"id": 1000}, "id=1000: expected a whole number from 1 to 999"),
        ({"id": "7"}, "id='7': expected a whole number from 1 to 999"),
        ({"name": "a/b"}, "name='a/b': expected letters, digits"),
        ({"label_scheme": "all"}, "label_scheme='all': expected one of 'ctspine1k'"),
        ({"on_error": "warn"}, "on_error='warn': expected one of"),
        ({"num_proc": 0}, "num_proc=0: expected 1 or more"),
        ({"out": "memory://x"}, "expected a folder: nnU-Net reads no URLs"),
    ],
    ids=str,
)
def test_bad_arguments(spine, raw, options, told):
    with pytest.raises(ValueError, match=told):
        spine.export_nnunet(**{"out": raw, **options})
    assert not raw.exists()


@pytest.mark.parametrize(
    ("ids", "plain", "told"),
    [
        (["x_seg"], False, "case 'x_seg': expected an id"),
        (["a.b", "a_b"], True, "found 'a_b' for 'a.b' and 'a_b'"),
    ],
)
def test_ids_that_nnunet_does_not_take(tmp_path, raw, ids, plain, told):
    for case_id in ids:
        save(tmp_path / f"own/images/{case_id}.nii.gz", labels().astype("<i2"))
        save(tmp_path / f"own/labels/{case_id}_seg.nii.gz", labels())
    (tmp_path / "mine.txt").write_text("trainset:\n" + "\n".join(ids))
    own = ctspine1k.open_collection(data_dir=tmp_path / "own", split_file=tmp_path / "mine.txt")
    with pytest.raises(ValueError, match=told):
        own.export_nnunet(raw, plain_ids=plain, on_missing="skip")


def test_what_is_there_is_not_replaced(spine, tree, raw, out):
    path = out / f"labelsTr/{LIVER}.nii.gz"
    save(path, labels(5))
    for scheme in (None, "binary"):
        with pytest.raises(OutputError, match=rf"{LIVER}.nii.gz: expected no file, or a"):
            spine.export_nnunet(raw, label_scheme=scheme)
    path.unlink()
    save(out / "imagesTr/other_0000.nii.gz", labels(5))
    with pytest.raises(OutputError, match=r"found imagesTr/other_0000\.nii\.gz"):
        spine.export_nnunet(raw)
    with pytest.raises(ValueError, match=r"out='.*': expected a folder outside of"):
        spine.export_nnunet(tree)
    (out / "imagesTr/other_0000.nii.gz").unlink()
    with exclusive_lock(out, out / ".export.lock"), pytest.raises(BusyError):
        spine.export_nnunet(raw)


def test_a_place_without_links_is_told(spine, raw, monkeypatch):
    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("pathlib.Path.symlink_to", refuse)
    with pytest.raises(OutputError, match=r"expected a place for a symbolic link, .*--copy"):
        spine.export_nnunet(raw)


def test_a_stop_says_how_far_it_was(spine, raw, out, monkeypatch):
    from ctspine1k.exports import nnunet

    done, export_case = [], nnunet.export_case

    def stop_at_the_third(task):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(task)
        return export_case(task)

    monkeypatch.setattr(nnunet, "export_case", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt, match="2 of 4 cases are done; run again to resume"):
        spine.export_nnunet(raw)
    assert not (out / "dataset.json").exists()
    monkeypatch.undo()
    assert spine.export_nnunet(raw).files == {"linked": 4, "copied": 0, "written": 0, "kept": 4}


@pytest.mark.processes
def test_two_processes_make_what_one_makes(spine, raw, tmp_path):
    spine.export_nnunet(raw, label_scheme="binary", num_proc=2)
    spine.export_nnunet(tmp_path / "one", label_scheme="binary")
    assert files_of(raw) == files_of(tmp_path / "one")


def test_from_a_shell(tree, split_file, raw, out, capsys):
    place = ["--data-dir", str(tree), "--split-file", str(split_file)]
    words = [
        "export",
        "nnunet",
        str(raw),
        *place,
        "--id",
        "512",
        "--name",
        "Spine",
        "--label-scheme",
        "binary",
    ]
    assert main(words) == 0
    assert capsys.readouterr().out.splitlines() == [
        str(raw / "Dataset512_Spine"),
        "training 2, validation 1, test 1; files: linked 4, copied 0, written 4, kept 0; failures: 0",
    ]
    break_case(tree, suffix="_seg")
    assert main([*words, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["ok"] is False


def test_headers_of_nifti_2_are_kept(spine, tree, raw, out):
    image = next(tree.rglob(f"{LIVER}.nii.gz"))
    shape = nib.load(image).shape
    save(image, np.zeros(shape, ">i2"), header_class=nib.Nifti2Header)
    assert nib.load(image).header.sizeof_hdr == 540
    spine.export_nnunet(raw, label_scheme="binary")
    written = nib.load(out / f"labelsTr/{LIVER}.nii.gz")
    assert written.header.sizeof_hdr == 540
    assert np.array_equal(np.asarray(written.dataobj), voxels(mask_of(tree, LIVER)) > 0)


def test_an_image_in_ras_whose_pixdim_contradicts_its_affine_fails(spine, tree, raw):
    """nnU-Net takes its spacing from pixdim; that of an image which it turns, from the affine."""
    image = next(tree.rglob(f"{LIVER}.nii.gz"))
    ras, wrong = AFFINE @ np.diag([-1, 1, 1, 1]), [1, 0.7, 0.8, 1.0, 1, 1, 1, 1]
    for affine, fails in ((ras, True), (AFFINE, False)):
        for path in (image, mask_of(tree, LIVER)):
            save(path, voxels(path), affine=affine, pixdim=wrong)
        with pytest.warns(GeometryWarning) if not fails else contextlib.nullcontext():
            report = spine.export_nnunet(raw / str(fails))
        assert list(report.failed) == ([LIVER] if fails else [])
        if fails:
            expected, found = "spacing [0.7, 0.8, 2.5] mm by pixdim", "found spacing [0.7, 0.8, 1.0] mm"
            assert f"{expected}, as by the affine, {found}" in report.failed[LIVER]


def test_copies_of_masks_that_were_rewritten_elsewhere_are_kept(spine, split_file, raw, out):
    spine.export_nnunet(raw, label_scheme="region", copy=True)
    again = ctspine1k.open_collection(data_dir=out, split_file=split_file)
    assert again.export_nnunet(raw, id=512, copy=True).files["copied"] == 8
    assert again.export_nnunet(raw, id=512, copy=True).files["kept"] == 8


def test_masks_are_never_exported_onto_themselves(spine, tree, raw, out):
    spine.export_nnunet(raw, label_scheme="region")
    before = files_of(out)
    linked = raw.parent / "predicted"
    linked.mkdir()
    (linked / "fold_0").symlink_to(out, target_is_directory=True)
    for folder in (out, linked):
        for options in ({}, {"label_scheme": "binary"}, {"copy": True}):
            with pytest.raises(ValueError, match=r"expected another folder, name or id than"):
                spine.with_masks(folder).export_nnunet(raw, **options)
    assert files_of(out) == before


@pytest.mark.parametrize("step", [10**3, 10**9, 2 * 10**9])
def test_a_disk_or_an_archive_may_round_the_times_of_compressed_images(tmp_path, raw, step):
    image = save(tmp_path / "own/mine.nii", np.arange(120, dtype="<i2").reshape(6, 5, 4))
    save(tmp_path / "own/mine_seg.nii", labels())
    (tmp_path / "mine.txt").write_text("trainset:\nmine\n")
    own = ctspine1k.open_collection(data_dir=tmp_path / "own", split_file=tmp_path / "mine.txt")
    own.export_nnunet(raw)
    rounded = image.stat().st_mtime_ns // step * step
    exported = raw / FOLDER / "imagesTr/mine_0000.nii.gz"
    os.utime(exported, ns=(rounded, rounded))
    assert own.export_nnunet(raw).files["kept"] == 2
    for path, seconds in ((exported, 1_700_000_000.5), (image, 1_700_000_001.5)):
        os.utime(path, (seconds, seconds))
    with pytest.raises(OutputError, match="found another file"):  # which was changed, a second later
        own.export_nnunet(raw)
