"""Verification of trees that are whole, and of trees with one thing wrong."""

import gzip
import itertools
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.spines import AFFINE, save_spine, spine
from support.verbs import scan_files, verify_files
from support.volumes import break_case, files_of, save

import ctspine1k
from ctspine1k.catalog.ctspine1k import CTSPINE1K, ISSUE_KINDS
from ctspine1k.checks.verify import verify as verify_selection
from ctspine1k.errors import CTSpine1KWarning, NoSpaceError
from ctspine1k.files.folder import FolderPlace
from ctspine1k.files.selection import Look, Selection
from ctspine1k.scans.tables import read_tables

#: Each with vertebrae of its own, so that no two are alike; the ids have no known issue but where a test says so.
CASES = {
    "liver_106": (range(18, 23), "MSD-T10"),
    "liver_100": (range(19, 24), "MSD-T10"),
    "HN_P023": (range(8, 12), "HNSCC-3DCT-RT"),
}


def plant(root, case_id, change=None, **options):
    """Write a case whose image and mask may be changed first."""
    labels, folder = CASES.get(case_id, (range(17, 22), "COLONOG"))
    image, mask = spine(list(labels), margin=4 + list(CASES).index(case_id) if case_id in CASES else 9)
    if change:
        image, mask = change(image, mask)
    return save_spine(root, case_id, image, mask, folder=folder, **options)


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    """Of the Hub's files, what was measured is kept in the working directory."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")


@pytest.fixture
def fresh(tmp_path):
    """A tree of which nothing has been measured."""
    for case_id in CASES:
        plant(tmp_path / "tree", case_id)
    return tmp_path / "tree"


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    root = tmp_path_factory.mktemp("measured") / "tree"
    for case_id in CASES:
        plant(root, case_id)
    assert verify(root).measured == 3
    return root


@pytest.fixture
def root(measured, tmp_path):
    """The same tree with its measures, so that only what a test changes is measured."""
    return shutil.copytree(measured, tmp_path / "tree")


def verify(root, *more, **options):
    return verify_files(data_dir=root, cases=[*CASES, *more], **options)


def found(root, *more, **options):
    """Checks that found something, with the cases or files of which they did."""
    return {
        (f.check, f.case_id or f.file.rpartition("/")[2]) for f in verify(root, *more, **options).findings
    }


def test_a_whole_tree_is_clean(fresh):
    report = verify(fresh)
    assert report.findings == ()
    assert report.ok
    assert (report.cases, report.measured) == (3, 3)
    assert report.summary().splitlines() == [f"{fresh}: 3 of 3 cases read to the end", "nothing found"]


def image_of(root, case_id):
    return next(root.rglob(f"{case_id}.nii.gz"))


def mask_of(root, case_id):
    return next(root.rglob(f"{case_id}_seg.nii.gz"))


def test_missing(root):
    mask_of(root, "liver_106").unlink()
    report = verify(root, "liver_0")
    told = {(f.case_id, f.check, f.level, f.expected, f.found) for f in report.findings}
    assert told == {
        ("liver_106", "missing", "error", "image and mask", "only the image"),
        ("liver_0", "missing", "error", "image and mask", "neither"),
    }
    assert {f.hint for f in report.findings} == {
        "Get the files (`ctspine1k download`), or leave the case out."
    }
    assert not report.ok
    assert (report.cases, report.measured) == (4, 2)


def test_what_is_missing_is_got_where_it_is(root, publish, tmp_path):
    """Only the files of published cases are on the Hub: not own ones, nor predicted masks."""
    (tmp_path / "split.txt").write_text("trainset:\nliver_0\nmine\n")
    report = verify_files(data_dir=root, split_file=tmp_path / "split.txt")
    hints = {one.case_id: one.hint for one in report.findings if one.check == "missing"}
    assert "`ctspine1k download`" in hints["liver_0"]
    naming = (
        "An image is <case_id>.nii.gz, a mask <case_id>_seg.nii.gz. Add the files, or leave the case out."
    )
    assert hints["mine"] == f"The folder contains 6 files *.nii.gz or *.nii in all. {naming}"
    (tmp_path / "repo").mkdir()
    (tmp_path / "repo/README.md").touch()
    of_hub = verify_files(repo_id=publish(tmp_path / "repo"), cases=["liver_0"]).findings
    assert [one.hint for one in of_hub] == ["Add the files, or leave the case out."]
    (tmp_path / "predictions").mkdir()
    spine = ctspine1k.open_collection(data_dir=root).select("liver_106")
    (predicted,) = spine.with_masks(tmp_path / "predictions").verify().findings
    assert predicted.hint.startswith(f"{tmp_path / 'predictions'} contains 0 files with a mask's ending")


@pytest.mark.parametrize(
    ("name", "case_id", "where"),
    [("verse", "verse004", "https://github.com/anjany/verse"), ("msr", "4553575", "from Microsoft Research")],
)
def test_what_is_not_on_the_hub_says_where_to_get_it(tmp_path, name, case_id, where):
    spine = ctspine1k.open_collection(name, data_dir=tmp_path)
    (finding,) = spine.select(case_id).verify().findings
    assert where in finding.hint
    assert finding.hint == f"{spine.data_set.how_to_get} Or leave the case out."


def test_renamed(root):
    path = image_of(root, "liver_106")
    path.rename(path.with_name("liver_l06.nii.gz"))
    assert found(root) == {("missing", "liver_106"), ("unexpected", "liver_l06.nii.gz")}


def test_extra_files(root):
    shutil.copy(image_of(root, "liver_106"), root / "liver_106 (1).nii.gz")
    (root / "liver_106.nii.gz.incomplete").write_bytes(b"half")
    (root / "README.md").touch()  # of no concern
    assert found(root) == {
        ("unexpected", "liver_106 (1).nii.gz"),
        ("unexpected", "liver_106.nii.gz.incomplete"),
    }
    # A file of a case that was not asked for is none of that.
    plant(root, "1.3.6.1.4.1.9328.50.4.0001")
    assert {check for check, _ in found(root)} == {"unexpected"}
    assert len(found(root)) == 2


def test_duplicated(root):
    (root / "label_new/trainset/gt").mkdir(parents=True)
    shutil.copy(mask_of(root, "liver_106"), root / "label_new/trainset/gt")
    (finding,) = verify(root).findings
    assert (finding.check, finding.case_id, finding.expected) == ("duplicated", "liver_106", "one mask")
    assert finding.found.count("liver_106_seg.nii.gz") == 2
    assert finding.hint == "Keep the one you trust and move the others out of the folder."
    # Each is looked at, so that it can be told which to keep.
    bad = root / "label_new/trainset/gt/liver_106_seg.nii.gz"
    cut(bad)
    report = verify(root)
    assert [(f.check, f.file) for f in report.findings] == [("duplicated", None), ("truncated", str(bad))]
    assert report.measured == 3


def test_each_file_has_its_own_problem(root):
    """That of the mask is seen first; the image's is at its end."""
    image, mask = spine(list(CASES["liver_106"][0]))
    mask[0, 0, 0] = 77
    save(mask_of(root, "liver_106"), mask, affine=AFFINE)
    save(image_of(root, "liver_106"), image, affine=AFFINE)
    cut(image_of(root, "liver_106"))
    found = {(f.check, f.file) for f in verify(root).findings}
    assert found == {
        ("values", str(mask_of(root, "liver_106"))),
        ("truncated", str(image_of(root, "liver_106"))),
    }


def test_a_file_that_the_system_cannot_read_is_of_no_format(fresh):
    catalog = ctspine1k.load_catalog()
    selection = Selection(CTSPINE1K, catalog, catalog.select("liver_106"), Look(FolderPlace(fresh)))
    (path,) = (Path(file.local) for file in selection.files() if file.kind == "image")
    path.unlink()
    path.mkdir()  # after it was listed
    found = [
        (f.check, f.file, f.expected)
        for f in verify_selection(selection, None, reread=False, num_proc=1, scheduler=None).findings
    ]
    assert found == [("format", str(path), "a file that can be read")]


def test_of_a_data_set_without_masks_the_images_are_verified(root):
    catalog = ctspine1k.load_catalog()
    images_only = replace(CTSPINE1K, kinds=("image",))
    selection = Selection(images_only, catalog, catalog.select("liver_106"), Look(FolderPlace(root)))
    report = verify_selection(selection, None, reread=False, num_proc=1, scheduler=None)
    assert report.measured == 1
    assert {finding.file for finding in report.findings} <= {
        str(path) for path in root.rglob("liver_106.nii.gz")
    }


def test_no_case_is_no_clean_tree(root):
    with pytest.raises(ValueError, match="no case is selected"):
        verify(root, split="test")


@pytest.mark.parametrize(
    ("case_id", "folder", "expected", "told"),
    [
        ("liver_106", "raw_data/volumes/COLONOG", "a folder of source MSD-T10", "folder COLONOG"),
        ("HN_P023", "data/conlon", "a folder of source HNSCC-3DCT-RT", "folder conlon"),
        ("liver_106", "label_new/test_public/data", "a folder of split train", "folder test_public"),
    ],
)
def test_at_a_wrong_place(root, case_id, folder, expected, told):
    path = image_of(root, case_id)
    (root / folder).mkdir(parents=True, exist_ok=True)
    path.rename(root / folder / path.name)
    (finding,) = verify(root).findings
    assert (finding.check, finding.level, finding.case_id) == ("wrong_place", "warning", case_id)
    assert (finding.expected, finding.found) == (expected, told)
    assert finding.file == str(root / folder / path.name)
    assert finding.hint == "Check whose file it is, and move it to its folder."


def test_a_mask_among_images_and_an_image_among_masks(root):
    path = mask_of(root, "liver_106")
    path.rename(root / "raw_data/volumes/MSD-T10" / path.name)
    (finding,) = verify(root).findings
    assert (finding.check, finding.expected, finding.found) == (
        "wrong_place",
        "a folder of kind mask",
        "folder volumes",
    )
    image = image_of(root, "liver_100")
    image.rename(root / "raw_data/labels/MSD-T10" / image.name)  # where nothing is an image
    assert found(root) == {
        ("wrong_place", "liver_106"),
        ("duplicated", "liver_100"),
        ("missing", "liver_100"),
    }


def test_hidden_files_are_nobodys_and_an_unexpected_name_is_told_in_any_case(root):
    for name in ("._liver_106.nii.gz", "._odd.nii.gz", ".odd.nii"):
        (root / name).write_bytes(b"\0\5\x16\7")  # what macOS writes beside each file
    (root / "odd.NII.GZ").touch()
    assert found(root) == {("unexpected", "odd.NII.GZ")}


def test_nnu_nets_layout_is_right(root, tmp_path):
    for case_id in CASES:
        for path, target in (
            (image_of(root, case_id), f"imagesTr/{case_id}_0000.nii.gz"),
            (mask_of(root, case_id), f"{'Labels' if case_id == 'HN_P023' else 'labelsTr'}/{case_id}.nii.gz"),
        ):
            (tmp_path / "nnunet" / target).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, tmp_path / "nnunet" / target)
    assert found(tmp_path / "nnunet") == set()
    (tmp_path / "nnunet/imagesTr/liver_l06_0000.nii.gz").touch()
    assert found(tmp_path / "nnunet") == {("unexpected", "liver_l06_0000.nii.gz")}


@pytest.mark.parametrize(
    "layout",
    [
        ("data/HNSCC-3DCT-RT_neck", "data/liver", "label/HNSCC-3DCT-RT_neck", "label/Liver"),
        ("rawdata/volumes/x", "volumes/MSD-T10", "label_new/test_public/gt", "label_new/trainset/gt"),
        ("", "", "", ""),
    ],
)
def test_every_layout_in_circulation_is_right(root, tmp_path, layout):
    for case_id in CASES:
        for folder, path in zip(
            (layout[case_id.startswith("liver")], layout[2 + case_id.startswith("liver")]),
            (image_of(root, case_id), mask_of(root, case_id)),
            strict=True,
        ):
            if "test_public" in folder and ctspine1k.load_catalog()[case_id].split != "validation":
                folder = folder.replace("test_public", "test_private")
            (tmp_path / "other" / folder).mkdir(parents=True, exist_ok=True)
            shutil.copy(path, tmp_path / "other" / folder)
    assert found(tmp_path / "other") == set()


def lfs_pointer(path):
    path.write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 1234\n")


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def wrong_crc(path):
    data = bytearray(path.read_bytes())
    data[-8] ^= 1
    path.write_bytes(data)


def surplus(path):
    path.write_bytes(path.read_bytes() + b"more than that")


@pytest.mark.parametrize("of", [image_of, mask_of])
@pytest.mark.parametrize(
    ("damage", "check"),
    [(lfs_pointer, "format"), (cut, "truncated"), (wrong_crc, "corrupt"), (surplus, "corrupt")],
)
def test_damaged_files(root, of, damage, check):
    path = of(root, "liver_106")
    damage(path)
    (finding,) = verify(root).findings
    assert (finding.check, finding.case_id, finding.level) == (check, "liver_106", "error")
    assert finding.file == str(path)


def test_fewer_slices_than_promised(root):
    break_case(root)
    assert found(root) == {("truncated", "liver_106")}


def test_both_files_damaged_differently(root):
    cut(image_of(root, "liver_106"))
    lfs_pointer(mask_of(root, "liver_106"))
    assert found(root) == {("truncated", "liver_106"), ("format", "liver_106")}


def test_masks_of_two_cases_swapped(root):
    """Of other shapes, and of the same one: then they are on no bone."""
    one, other = mask_of(root, "liver_106"), mask_of(root, "HN_P023")
    a, b = one.read_bytes(), other.read_bytes()
    one.write_bytes(b)
    other.write_bytes(a)
    assert found(root) == {("shape", "liver_106"), ("shape", "HN_P023")}


def test_masks_of_two_cases_of_the_same_shape_swapped(root):
    def aside(image, mask):
        return np.roll(image, 40, axis=1), np.roll(mask, 40, axis=1)

    plant(root, "liver_106", aside)
    save_spine(root, "liver_0", *spine(list(CASES["liver_106"][0])))  # of the same shape, and not aside
    one, other = mask_of(root, "liver_106"), mask_of(root, "liver_0")
    a, b = one.read_bytes(), other.read_bytes()
    one.write_bytes(b)
    other.write_bytes(a)
    assert found(root, "liver_0") == {("intensity", "liver_106"), ("intensity", "liver_0")}


TWINS = "Get the files of both again: one of them may be a copy of the other."


def test_one_mask_for_two_volumes(root):
    image, mask = spine(list(CASES["liver_106"][0]))
    save_spine(root, "liver_0", image + np.int16(1), mask)
    report = verify(root, "liver_0")
    told = {(f.check, f.case_id, f.found) for f in report.findings}
    assert told == {
        ("same_mask", "liver_106", "that of liver_0"),
        ("same_mask", "liver_0", "that of liver_106"),
    }
    assert {f.hint for f in report.findings} == {TWINS}


def test_one_image_for_two_cases(root):
    image, mask = spine(list(CASES["liver_106"][0]))
    mask[28, 45, 10] = 0
    save_spine(root, "liver_0", image, mask)
    told = {(f.check, f.case_id, f.hint) for f in verify(root, "liver_0").findings}
    assert told == {("same_image", "liver_106", TWINS), ("same_image", "liver_0", TWINS)}


def test_empty_masks_are_not_the_same_mask(root):
    def empty(image, mask):
        return image, mask * 0

    plant(root, "liver_106", empty)
    plant(root, "liver_100", empty)
    assert found(root) == {("no_labels", "liver_106"), ("no_labels", "liver_100")}


def test_wrong_spacing_in_the_mask(root):
    _, mask = spine(list(CASES["liver_106"][0]))
    save(mask_of(root, "liver_106"), mask, affine=AFFINE @ np.diag([1, 1, 2.0, 1]))
    (finding,) = verify(root).findings
    assert (finding.check, finding.level) == ("geometry", "warning")
    assert "1.5" in finding.expected
    assert "3.0" in finding.found


NO_LENGTH = {"srow_y": [0, 0, 0, 1.0], "qform_code": 0}
NO_PLACE = {"sform_code": 0, "qform_code": 0}

#: For each check of a header: what is written into the header, and what is found.
HEADERS = {
    "header": (
        {"qoffset_x": 99.0},
        "origin [40.0, -30.0, 7.0] by the sform, [99.0, -30.0, 7.0] by the qform",
        "Affine and spacing come from ",
    ),
    "units": ({"xyzt_units": 1}, "lengths in metres", "They are converted: the spacing is "),
    "degenerate": (NO_LENGTH, "(no length along j)", ""),
    "unplaced": (NO_PLACE, "neither: both codes are 0", "The directions of the axes are a guess"),
}


@pytest.mark.parametrize("check", HEADERS)
@pytest.mark.parametrize("kinds", ["image", "mask", "image and mask"])
def test_headers_that_leave_in_doubt_where_voxels_lie(root, monkeypatch, check, kinds):
    """In one file, or in both in the same way, by a first run and by one that uses its measures."""
    fields, text, advice = HEADERS[check]
    affine = AFFINE
    if check == "units":
        affine = np.vstack([AFFINE[:3] / 1000, AFFINE[3:]])
    voxels = dict(zip(("image", "mask"), spine(list(CASES["liver_106"][0])), strict=True))
    paths = {"image": image_of(root, "liver_106"), "mask": mask_of(root, "liver_106")}
    for kind in kinds.split(" and "):
        save(paths[kind], voxels[kind], affine=affine, **fields)
    first = verify_files(data_dir=root, cases="liver_106")
    own = [f for f in first.findings if f.check == check]
    assert [f.file for f in own] == sorted(str(paths[kind]) for kind in kinds.split(" and "))
    assert {(f.level, f.case_id) for f in own} == {("warning", "liver_106")}
    assert all(text in f.found and advice in f.hint for f in own)
    # What to do, but not an option that `verify` does not have.
    assert {"preview" in f.hint and "on_geometry" not in f.hint for f in first.findings} == {True}
    # The pair is at one place if both headers say the same, and if one is in another unit or has another qform.
    agree = kinds == "image and mask" or check in ("header", "units")
    others = {f.check for f in first.findings} - {check}
    assert ("geometry" not in others) == agree
    assert others <= {"geometry", "header"}
    seen = reads(monkeypatch)
    second = verify_files(data_dir=root, cases="liver_106")
    assert (second.kept, seen) == (1, [])
    assert second.findings == first.findings


def test_without_size_of_voxels_there_are_no_volumes(root):
    for path, voxels in zip(
        (image_of(root, "liver_106"), mask_of(root, "liver_106")),
        spine(list(CASES["liver_106"][0])),
        strict=True,
    ):
        save(path, voxels, affine=AFFINE, **NO_LENGTH)
    scanned = scan_files(data_dir=root, cases=list(CASES))
    tables = read_tables(scanned.cases)
    volumes = {row["case_id"]: set() for row in tables.cases}
    for row in tables.vertebrae:
        volumes[row["case_id"]].add(row["volume_cm3"] is None)
    assert volumes == {"liver_106": {True}, "liver_100": {False}, "HN_P023": {False}}
    problems = {row["case_id"]: row["header_problem"] for row in tables.cases}
    assert "on_geometry" not in str(
        [[row["geometry_problem"], row["header_problem"]] for row in tables.cases]
    )
    assert "(no length along j)" in problems.pop("liver_106")
    assert set(problems.values()) == {None}
    report = verify(root)
    assert {f.check for f in report.findings} == {"header", "degenerate"}
    assert report.kept == 3


def test_a_mask_that_is_stored_otherwise_than_its_image(root):
    """Rows pair them by index, so measures do; the finding says what aligns them."""
    _, mask = spine(list(CASES["liver_106"][0]))
    flipped = AFFINE @ np.diag([1, -1, 1, 1.0])
    flipped[:3, 3] += AFFINE[:3, 1] * (mask.shape[1] - 1)
    save(mask_of(root, "liver_106"), mask[:, ::-1], affine=flipped)
    (finding,) = [f for f in verify(root).findings if f.check == "geometry"]
    assert finding.found.endswith(', which orientation="RAS" would bring to the same place')
    turned = np.swapaxes(mask, 0, 1)
    save(mask_of(root, "liver_106"), turned, affine=AFFINE[:, [1, 0, 2, 3]])
    (finding,) = verify(root).findings
    assert finding.check == "shape"
    assert finding.found.endswith(', which orientation="RAS" would bring to the same place')


def test_values_that_are_no_labels(root):
    _, mask = spine(list(CASES["liver_106"][0]))
    mask[mask == 22] = 77
    save(mask_of(root, "liver_106"), mask, affine=AFFINE)
    (finding,) = verify(root).findings
    assert (finding.check, finding.found) == ("values", "77 among the voxels")


def test_labels_moved_up_by_one_are_seen_where_they_reach_l6(root):
    def more(image, mask):
        return image, mask + np.uint8(2) * (mask > 0)

    plant(root, "liver_100", more)
    (finding,) = verify(root).findings
    assert (finding.check, finding.case_id) == ("unlisted_l6", "liver_100")
    plant(root, "liver_100")
    plant(root, "liver_106", lambda image, mask: (image, mask + np.uint8(3) * (mask > 0)))
    assert found(root) == set()  # it is in the published list


def at(label):
    return lambda mask: mask == label


def remove(label):
    return lambda image, mask: (image, np.where(mask == label, 0, mask).astype(np.uint8))


def relabel(label, other):
    return lambda image, mask: (image, np.where(mask == label, other, mask).astype(np.uint8))


def half(label):
    def change(image, mask):
        mask[28:][mask[28:] == label] = 0
        return image, mask

    return change


def inverted(image, mask):
    return image[:, ::-1], mask[:, ::-1]


def upside_down(image, mask):
    return image[..., ::-1], mask[..., ::-1]


def moved(image, mask):
    return image, np.roll(mask, 25, axis=0)


#: A case that is known for each kind of issue that pixels can show, what it looks like, and what finds it.
KNOWN = {
    "label_missing": ("1.3.6.1.4.1.9328.50.4.0291", remove(19), "gap"),
    "label_wrong_value": ("1.3.6.1.4.1.9328.50.4.0482", relabel(19, 18), "pieces"),
    "label_discontinuous": ("1.3.6.1.4.1.9328.50.4.0103", relabel(19, 11), "order"),
    "label_incomplete": ("1.3.6.1.4.1.9328.50.4.0105", half(19), "volume"),
    "image_label_mismatch": ("1.3.6.1.4.1.9328.50.4.0680", moved, "intensity"),
    "orientation_ap_inverted": ("1.3.6.1.4.1.9328.50.4.0003", inverted, "front_to_back"),
    "orientation_suspected": ("1.3.6.1.4.1.9328.50.4.0349", upside_down, "upside_down"),
    "numbering_suspected": (
        "1.3.6.1.4.1.9328.50.4.0025",
        lambda image, mask: (image, mask + np.uint8(4) * (mask > 0)),
        "unlisted_l6",
    ),
}


@pytest.mark.parametrize("kind", KNOWN)
def test_planted_forms_of_known_issues_are_found_and_known(tmp_path, kind):
    case_id, change, check = KNOWN[kind]
    assert kind in {issue.kind for issue in ctspine1k.load_catalog()[case_id].issues}
    plant(tmp_path, case_id, change)
    by_check = {f.check: f for f in verify_files(data_dir=tmp_path, cases=case_id).findings}
    assert kind in by_check[check].known
    # The same in a case that is not known for it is news.
    plant(tmp_path, "1.3.6.1.4.1.9328.50.4.0001", change)
    (other,) = [
        f
        for f in verify_files(data_dir=tmp_path, cases="1.3.6.1.4.1.9328.50.4.0001").findings
        if f.check == check
    ]
    assert other.known == ()


def test_every_kind_of_issue_is_found_by_a_check_or_cannot_be_seen():
    found_by_checks = set(itertools.chain.from_iterable(CTSPINE1K.known_by.values()))
    assert found_by_checks <= set(ISSUE_KINDS)
    # Readings of the anatomy, not properties of the voxels.
    assert set(ISSUE_KINDS) - found_by_checks == {"castellvi_grade", "transitional_not_listed"}
    assert found_by_checks == set(KNOWN)


def test_summary_and_order(fresh):
    (fresh / "x.nii.gz").touch()
    plant(fresh, "1.3.6.1.4.1.9328.50.4.0291", remove(19))
    cut(image_of(fresh, "liver_106"))
    report = verify(fresh, "1.3.6.1.4.1.9328.50.4.0291")
    assert [(f.case_id, f.check) for f in report.findings] == [
        ("1.3.6.1.4.1.9328.50.4.0291", "gap"),
        ("liver_106", "truncated"),
        (None, "unexpected"),
    ]
    lines = report.summary().splitlines()
    assert lines[0].endswith("3 of 4 cases read to the end")
    truncated = report.findings[1]
    assert truncated.hint.endswith("delete the file and download it again.")
    assert lines[lines.index(next(line for line in lines if line.startswith("error    truncated"))) + 1] == (
        f"         {truncated.file}: expected {truncated.expected}, found {truncated.found}. {truncated.hint}"
    )
    assert lines[-1] == (
        f"         {fresh}/x.nii.gz: expected the name of a case's image or mask, found x.nii.gz. Rename it, list "
        "its case in a split file, or move it out of the folder."
    )
    assert any(line.endswith("preview`. This may be the known issue label_missing.") for line in lines)
    assert (
        "warning  gap               1  a vertebra is missing between two labelled ones, 1 of them known: "
        "1.3.6.1.4.1.9328.50.4.0291" in lines
    )


def test_a_summary_shows_five_findings_of_a_check_and_a_notebook_fifty(root):
    names = [f"{root}/x{number:02}.nii.gz" for number in range(52)]
    for name in names[:5]:
        Path(name).touch()
    what = "warning  unexpected    {:5}  a file belongs to no case: "
    lines = verify(root).summary().splitlines()
    assert lines[1] == what.format(5) + ", ".join(names[:5])
    assert [line.split(":")[0].strip() for line in lines[2:]] == names[:5]
    for name in names[5:]:
        Path(name).touch()
    report = verify(root)
    lines = report.summary().splitlines()
    assert lines[1] == what.format(52) + ", ".join(names[:5]) + " and 47 more"
    assert [line.split(":")[0].strip() for line in lines[2:7]] == names[:5]
    assert lines[7:] == ["         and 47 more"]
    page = report._repr_html_()
    assert page.count("<tr>") == 51
    assert page.endswith("and 2 more</p>")


def test_from_the_hub(root, publish, hub):
    repo_id = publish(root)
    assert verify_files(repo_id=repo_id, cases=list(CASES)).ok
    files = files_of(root)
    files["raw_data/labels/COLONOG/liver_106_seg.nii.gz"] = files.pop(
        "raw_data/labels/MSD-T10/liver_106_seg.nii.gz"
    )
    files["raw_data/volumes/MSD-T10/liver_100.nii.gz"] = gzip.compress(b"no scan")
    files["raw_data/other.nii"] = b""
    del files["raw_data/volumes/HNSCC-3DCT-RT/HN_P023.nii.gz"]
    hub.repos[repo_id].commit(files)
    report = verify_files(repo_id=repo_id, cases=list(CASES))
    assert {(f.check, f.case_id or f.file) for f in report.findings} == {
        ("wrong_place", "liver_106"),
        ("format", "liver_100"),
        ("missing", "HN_P023"),
        ("unexpected", "raw_data/other.nii"),
    }


def test_the_hubs_sha256_and_size(root, publish, hub):
    repo_id = publish(root)
    hub.faults["liver_106.nii.gz"] = [b"x", b"x"]
    report = verify_files(repo_id=repo_id, cases=list(CASES))
    (finding,) = report.findings
    assert (finding.check, finding.case_id, finding.level) == ("checksum", "liver_106", "error")
    assert len(finding.expected) == len(finding.found) == 64


def test_real_ct(sample):
    report = verify_files(data_dir=sample, split_file=sample / "metadata/data_split.txt")
    assert report.measured == 3
    assert not [finding for finding in report.findings if finding.level == "error"]
    # Slabs of ten slices hold no vertebra whole.
    assert {finding.check for finding in report.findings} <= {"volume", "pieces"}


def reads(monkeypatch):
    """Count the cases that are read to their end."""
    from ctspine1k.checks import reading

    seen = []
    measure = reading.measure
    monkeypatch.setattr(
        reading, "measure", lambda case, points: seen.append(case.name) or measure(case, points)
    )
    return seen


def findings(report):
    return [finding for finding in report.findings if finding.check != "unexpected"]


@pytest.mark.slow
def test_a_scan_is_used_and_what_is_measured_is_kept_as_a_scan_keeps_it(fresh, monkeypatch, tmp_path):
    save_spine(fresh, "liver_0", *spine(list(range(15, 25)), margin=3), affine=AFFINE)
    mask = mask_of(fresh, "liver_0")
    data = gzip.decompress(mask.read_bytes())
    moved = bytearray(data)
    moved[80:84] = np.float32(2 * np.frombuffer(data[80:84], np.float32)[0]).tobytes()  # another pixdim
    mask.write_bytes(gzip.compress(bytes(moved), mtime=0))
    seen = reads(monkeypatch)
    first = verify(fresh, "liver_0")
    assert (first.measured, first.kept, len(seen)) == (4, 0, 4)
    assert {f.check for f in first.findings} >= {"geometry"}
    assert {row["case_id"] for row in read_tables(fresh / "cases.parquet").cases} == {*CASES, "liver_0"}
    other = verify(fresh, "liver_0", table=tmp_path / "other.parquet")
    seen.clear()
    second = verify(fresh, "liver_0")
    assert (second.measured, second.kept, seen) == (4, 4, [])
    assert second.findings == first.findings == other.findings
    assert (
        second.summary()
        .splitlines()[0]
        .endswith("4 of 4 cases read to the end (4 of them by an earlier scan)")
    )
    scanned = scan_files(data_dir=fresh, cases=[*CASES, "liver_0"])
    assert (scanned.measured, scanned.kept, seen) == (0, 4, [])
    by_scan = scan_files(data_dir=fresh, cases=[*CASES, "liver_0"], out=tmp_path / "scan.parquet")
    assert scanned.cases.read_bytes() == by_scan.cases.read_bytes()
    assert scanned.vertebrae.read_bytes() == by_scan.vertebrae.read_bytes()
    seen.clear()
    assert verify(fresh, "liver_0", reread=True).findings == first.findings
    assert len(seen) == 4
    plant(fresh, "liver_106", remove(20))
    seen.clear()
    third = verify(fresh, "liver_0")
    assert (third.kept, len(seen)) == (3, 1)
    assert ("gap", "liver_106") in {(f.check, f.case_id) for f in third.findings}


def test_hu_that_wrapped_around_are_told_of_the_image(root):
    image = spine(list(CASES["liver_106"][0]), margin=4)[0]
    path = save(image_of(root, "liver_106"), image.view(np.uint16), affine=AFFINE)
    (finding,) = verify(root).findings
    assert (finding.check, finding.level, finding.case_id) == ("hu_range", "warning", "liver_106")
    assert finding.file == str(path)
    assert finding.found.endswith(" to 64,536 HU")


def test_labels_that_are_whole_numbers_after_rounding_are_told_also_after_a_scan(fresh):
    clean = mask_of(fresh, "liver_106").read_bytes()
    mask = spine(list(CASES["liver_106"][0]), margin=4)[1]
    save(mask_of(fresh, "liver_106"), mask.astype("<f8") * (1 + 1e-9), affine=AFFINE)
    for kept in (0, 3):
        report = verify(fresh)
        (finding,) = report.findings
        assert (finding.check, finding.level, finding.case_id) == ("label_rounding", "warning", "liver_106")
        assert (finding.expected, finding.found) == ("whole numbers", "numbers that are up to 2.2e-08 off")
        assert report.kept == kept
    assert scan_files(data_dir=fresh, cases=list(CASES)).kept == 3
    mask_of(fresh, "liver_106").write_bytes(clean)
    assert verify(fresh).findings == ()


def test_of_duplicates_nothing_is_kept(fresh):
    (fresh / "label_new/trainset/gt").mkdir(parents=True)
    shutil.copy(mask_of(fresh, "liver_106"), fresh / "label_new/trainset/gt")
    assert verify(fresh).kept == 0
    assert verify(fresh).kept == 2
    for path in list((fresh / "label_new").rglob("*.nii.gz")):
        path.unlink()
    assert verify(fresh).kept == 2
    assert verify(fresh).kept == 3


def test_a_duplicate_takes_no_place_in_the_table_of_a_scan(fresh):
    scan_files(data_dir=fresh, cases=list(CASES))
    table = (fresh / "cases.parquet").read_bytes()
    (fresh / "label_new/trainset/gt").mkdir(parents=True)
    shutil.copy(mask_of(fresh, "liver_106"), fresh / "label_new/trainset/gt")
    assert verify(fresh).kept == 3
    assert (fresh / "cases.parquet").read_bytes() == table


def test_a_table_of_somebody_else_is_left_alone_and_told(root):
    table = root / "cases.parquet"
    table.write_bytes(b"mine")
    with pytest.warns(CTSpine1KWarning, match="measures are not stored for other runs: .*cases.parquet"):
        report = verify(root)
    assert (report.ok, report.measured, report.kept) == (True, 3, 0)
    assert table.read_bytes() == b"mine"


@pytest.mark.processes
def test_twins_are_named_in_one_order_however_many_processes(root, tmp_path):
    for case_id in ("liver_100", "HN_P023"):
        shutil.copy(image_of(root, "liver_106"), image_of(root, case_id))
        shutil.copy(mask_of(root, "liver_106"), mask_of(root, case_id))
    reports = [verify(root, num_proc=n, table=tmp_path / f"{n}.parquet") for n in (1, 2)]
    assert reports[0].findings == reports[1].findings


@pytest.mark.slow
def test_the_hubs_copies_are_compared_also_after_a_scan(root, publish, hub, monkeypatch):
    """The Hub's record says what its own file is, not what became of the copy in the cache."""
    repo_id = publish(root)
    options = {"repo_id": repo_id, "cases": list(CASES)}
    scan_files(**options)
    assert (verify_files(**options).ok, verify_files(**options).kept) == (True, 3)
    (image,) = ctspine1k.download_files(repo_id=repo_id, cases="liver_106", kind="image")
    blob = image.resolve()
    data = bytearray(blob.read_bytes())
    data[100] ^= 1
    blob.chmod(0o644)
    blob.write_bytes(data)
    report = verify_files(**options)
    assert [(f.case_id, f.check) for f in report.findings] == [("liver_106", "checksum")]
    assert report.kept == 2
    for path in blob.parent.iterdir():
        path.unlink()
    with monkeypatch.context() as full:
        full.setattr("ctspine1k.files.hub.hub_space", lambda: (0, root))
        with pytest.raises(NoSpaceError) as caught:
            verify_files(**options)
    assert caught.value.needed == sum(path.stat().st_size for path in root.rglob("*.nii.gz"))
    ctspine1k.download_files(repo_id=repo_id, cases=list(CASES))
    blob.unlink()
    hub.requests.clear()
    assert verify_files(**options).ok
    assert set(hub.downloads()) == {"liver_106.nii.gz"}


def test_a_read_only_folder_with_a_current_table_is_silent_and_one_without_says_so(root, monkeypatch):
    scan_files(data_dir=root, cases=list(CASES))

    def refused(path, lock=None):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("ctspine1k.checks.records.exclusive_lock", refused)
    assert verify(root).kept == 3
    (root / "cases.parquet").unlink()
    with pytest.warns(
        CTSpine1KWarning, match="measures are not stored for other runs: .*Permission denied"
    ) as told:
        report = verify(root)
    assert (report.ok, report.kept) == (True, 0)
    assert told[0].filename.endswith("verbs.py")  # who called the verb


def test_a_disk_that_fills_up_ends_the_notes_and_not_the_verification(root, small_disk):
    small_disk.fill_up()
    with pytest.warns(CTSpine1KWarning, match="measures are not stored for other runs: .*No space left"):
        report = verify(root, table=small_disk.root / "cases.parquet")
    assert (report.ok, report.measured) == (True, 3)


def test_a_stop_ends_also_what_is_used_of_an_earlier_run(root, monkeypatch):
    seen = []

    def looked_at(selection, files, record):
        seen.append(files.case.case_id)
        signal.raise_signal(signal.SIGINT)
        return None, ()

    monkeypatch.setattr("ctspine1k.checks.verify._looked_at", looked_at)
    with pytest.raises(KeyboardInterrupt):
        verify(root)
    assert len(seen) == 1


def test_a_full_disk_is_no_fault_of_a_case(root, publish, monkeypatch):
    from ctspine1k.files.hub import HubPlace

    def full(self, files):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(HubPlace, "fetch", full)
    for verb in (scan_files, verify_files):
        with pytest.raises(NoSpaceError, match="expected room for a download"):
            verb(repo_id=publish(root), cases=list(CASES))
