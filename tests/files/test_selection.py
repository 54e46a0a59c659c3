import pickle
import shutil

import pytest
from support.paths import ROOT
from support.tiny import TINY, save_tiny
from support.volumes import ALL_IDS, IDS, place, save_case

from ctspine1k import download_files, list_files, load_catalog, open_collection
from ctspine1k.catalog import registry
from ctspine1k.errors import (
    MissingFilesError,
    SkippedCasesWarning,
    SplitFileWarning,
    UnknownCaseError,
)
from ctspine1k.files.folder import FolderPlace
from ctspine1k.files.hub import HubPlace
from ctspine1k.files.selection import Look

VALIDATION = {"HN_P023.nii.gz", "HN_P023_seg.nii.gz"}


def test_selection_combines(tree, split_file):
    def ids(**selection):
        return [
            (f.case.case_id, f.kind) for f in list_files(data_dir=tree, split_file=split_file, **selection)
        ]

    assert ids() == [(case_id, kind) for case_id in ALL_IDS for kind in ("image", "mask")]
    assert ids(split="train", kind="mask") == [(case_id, "mask") for case_id in IDS["train"]]
    assert ids(source="MSD-T10") == [("liver_106", "image"), ("liver_106", "mask")]
    assert ids(cases="liver_106", split="test") == []


def test_selection_by_id_keeps_the_catalogs_order(tree):
    files = list_files(data_dir=tree, cases=["HN_P023", load_catalog()["liver_106"]], kind="image")
    assert [f.case.case_id for f in files] == ["liver_106", "HN_P023"]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"kind": "label"}, ValueError, "kind='label': expected one of 'image', 'mask'"),
        ({"split": "val"}, ValueError, "split='val': expected one of 'train'"),
        ({"cases": "liver_1066"}, UnknownCaseError, "liver_1066"),
        ({"revision": "main"}, ValueError, "has no revisions"),
        ({"data_dir": ""}, ValueError, "data_dir is empty"),
        (
            {"data_dir": "/nowhere"},
            FileNotFoundError,
            "'/nowhere': expected a folder with raw files, found none at ",
        ),
        ({"data_dir": __file__}, FileNotFoundError, "expected a folder with raw files, found a file at "),
        (
            {"split_file": "/nowhere"},
            FileNotFoundError,
            "'/nowhere': expected a file with case ids, found none at ",
        ),
        ({"split_file": "/"}, FileNotFoundError, "expected a file with case ids, found a folder at /"),
        ({"cases": 5}, ValueError, "cases=5: expected ids or cases, one or several in a list"),
    ],
)
def test_bad_arguments(tree, arguments, error, message):
    with pytest.raises(error, match=message):
        list_files(**{"data_dir": tree, **arguments})


def test_missing_files_are_counted_and_named(tree):
    next(tree.rglob("liver_106_seg.nii.gz")).unlink()
    next(tree.rglob("HN_P023.nii.gz")).unlink()
    next(tree.rglob("HN_P023_seg.nii.gz")).unlink()
    with pytest.raises(MissingFilesError) as caught:
        download_files(cases=ALL_IDS, data_dir=tree)
    assert caught.value.missing == {"liver_106": "mask", "HN_P023": "image and mask"}
    message = str(caught.value)
    assert message.startswith(
        f"2 of 4 cases lack raw files in {tree}: liver_106 (mask), HN_P023 (image and mask)."
    )
    assert "The folder contains 5 files *.nii.gz or *.nii in all" in message
    with pytest.warns(SkippedCasesWarning, match="2 of 4 cases lack raw files"):
        assert len(download_files(cases=ALL_IDS, data_dir=tree, on_missing="skip")) == 5


def test_many_missing_names_are_shortened(tmp_path):
    with pytest.raises(MissingFilesError, match=r"610 of 610 cases .* and 600 more\."):
        download_files(split="train", data_dir=tmp_path)


def test_download_fetches_the_selection_and_nothing_else(hub, repo_id, tree):
    paths = download_files(split="validation", cases=ALL_IDS, repo_id=repo_id)
    assert [path.name for path in paths] == ["HN_P023.nii.gz", "HN_P023_seg.nii.gz"]
    assert [path.read_bytes() for path in paths] == [
        next(tree.rglob(path.name)).read_bytes() for path in paths
    ]
    assert set(hub.downloads()) == VALIDATION
    with hub.watched() as again:
        assert download_files(split="validation", cases=ALL_IDS, repo_id=repo_id) == paths
    assert not [request for request in again if "/resolve/" in request.path]


def test_a_plan_says_what_would_be_downloaded_and_what_is_missing(tree):
    spine = open_collection(data_dir=tree).select(ALL_IDS)
    plan = spine.plan_download()
    assert repr(plan) == "DownloadPlan(0 of 8 files to download, 0.00 MB)"
    next(tree.rglob("HN_P023.nii.gz")).unlink()
    lacking = f"; 1 of 4 cases lacks raw files in {tree}"
    assert repr(spine.plan_download()) == f"DownloadPlan(0 of 7 files to download, 0.00 MB{lacking})"


def test_a_fingerprint_is_that_of_the_commit_or_of_the_files(hub, repo_id, tree, split_file):
    there = open_collection(repo_id=repo_id, split_file=split_file).selection()
    assert there.fingerprint() == [f"{repo_id}@{hub.repos[repo_id].refs['main']}"]
    here = open_collection(data_dir=tree, split_file=split_file).selection()
    known = {file: here.place.identity(file) for file in here.files()}
    assert here.fingerprint() == list(known.values())
    assert here.fingerprint(["mask"]) == [text for file, text in known.items() if file.kind == "mask"]


def test_kind_selects_masks_alone(hub, repo_id):
    download_files(cases=ALL_IDS, kind="mask", repo_id=repo_id)
    assert set(hub.downloads()) == {f"{case_id}_seg.nii.gz" for case_id in ALL_IDS}


def own_list(root, text="trainset:\nHN_P023\nmine\n\ntest_public:\nliver_106\n"):
    """Write a split file where the published layout has it."""
    (root / "metadata").mkdir(exist_ok=True)
    (root / "metadata/data_split.txt").write_text(text)
    return root / "metadata/data_split.txt"


def test_a_folder_with_its_own_split_file_needs_no_option(tree, load, monkeypatch):
    save_case(tree, "mine")
    path = own_list(tree)
    listings, listing = [], FolderPlace.listing

    def counted(self):
        listings.append(self)
        return listing(self)

    monkeypatch.setattr(FolderPlace, "listing", counted)
    message = (
        rf"{path} is used, which lists 3 cases: train 2, validation 1\. Of the 1,005 cases of CTSpine1K, 1,001 "
        r"lack files in this folder\. Pass split_file=\.\.\. \(--split-file\) to choose a list\.$"
    )
    with pytest.warns(SplitFileWarning, match=message):
        files = list_files(data_dir=tree, kind="mask")
    assert [(f.case.case_id, f.case.split, f.case.index) for f in files] == [
        ("HN_P023", "train", 0),
        ("mine", "train", 1),
        ("liver_106", "validation", 0),
    ]
    assert len(listings) == 1
    with pytest.warns(SplitFileWarning):
        assert len(open_collection(data_dir=tree)) == 3
    with pytest.warns(SplitFileWarning):
        loaded = load(split_file=None, split="train")
    assert loaded["patient_id"][:] == ["HN_P023", "mine"]
    assert len(open_collection(data_dir=tree, split_file=path)) == 3  # says nothing: it was asked for


def test_a_folder_whose_own_list_is_used_may_have_files_twice(tree):
    own_list(tree)
    (tree / "again").mkdir()
    shutil.copy(next(tree.rglob("HN_P023.nii.gz")), tree / "again")
    with pytest.warns(SplitFileWarning, match="lists 3 cases"):
        assert len(open_collection(data_dir=tree)) == 3


def test_the_list_of_a_folder_is_used_where_all_files_are_foreign(tmp_path):
    place(tmp_path, "foreign.nii.gz")
    own_list(tmp_path)
    with pytest.warns(SplitFileWarning, match="lists 3 cases"):
        assert len(open_collection(data_dir=tmp_path)) == 3


def test_the_list_of_a_folder_stays_its_own_when_the_raw_files_were_deleted(tree, load):
    own_list(tree)
    with pytest.warns(SplitFileWarning):
        load(split_file=None, split="validation")
    shutil.rmtree(tree / "raw_data")
    with pytest.warns(SplitFileWarning, match="which lists 3 cases"):
        opened = load(split_file=None, split="validation", verify_files=False)
    assert opened["patient_id"][:] == ["liver_106"]
    shutil.rmtree(tree)
    other = r"found others: those from .*tree \(cases: 1, image_size=\[6, 5\]\)\. "
    with pytest.raises(FileNotFoundError, match=other + r".*split_file=\.\.\."):
        load(split_file=None, split="validation", verify_files=False)


def test_a_part_of_the_data_set_with_its_official_split_file_stays_one(tree):
    own_list(tree, (ROOT / "data_split.txt").read_text())
    spine = open_collection(data_dir=tree)
    assert len(spine) == 1005
    assert spine["liver_106"].index == 507


@pytest.mark.slow
def test_the_whole_data_set_needs_no_other_list(tmp_path):
    cases = load_catalog()
    place(tmp_path, *(f"{case.case_id}{end}" for case in cases for end in (".nii.gz", "_seg.nii.gz")))
    own_list(tmp_path)
    message = (
        r"is not used, which lists 3 cases: train 2, validation 1\. In this folder are files of 1,005 of the "
        r"1,005 cases of CTSpine1K\. Pass split_file=\.\.\. \(--split-file\) to choose a list\.$"
    )
    with pytest.warns(SplitFileWarning, match=message):
        assert len(open_collection(data_dir=tmp_path)) == 1005
    (tmp_path / "liver_0_seg.nii.gz").unlink()
    with pytest.warns(SplitFileWarning, match="Of the 1,005 cases of CTSpine1K, 1 lacks files"):
        assert len(open_collection(data_dir=tmp_path)) == 3


def test_a_split_file_that_cannot_be_read_is_said_and_not_used(tree):
    own_list(tree, "trainset:\nliver_106.nii.gzHN_P001.nii.gz\n")
    message = "line 2: .*two names on one line.* The list of CTSpine1K is used instead of it."
    with pytest.warns(SplitFileWarning, match=message):
        assert len(open_collection(data_dir=tree)) == 1005


def test_a_list_whose_cases_have_no_files_is_said_not_to_be_used(tmp_path, load):
    """One file of the data set in a folder, whose own cases are still to come, or have other names."""
    root = tmp_path / "mixed"
    place(root, "liver_106.nii.gz", "mine (1).nii.gz")
    path = own_list(root, "trainset:\nmine\ntheirs\n")
    with pytest.warns(SplitFileWarning) as told:
        assert len(open_collection(data_dir=root)) == 1005
    assert [str(one.message) for one in told] == [
        f"{path} is not used, which lists 2 cases: train 2. In this folder are files of 1 of the 1,005 cases "
        "of CTSpine1K, and none of those that it lists. Pass split_file=... (--split-file) to choose a list."
    ]
    with pytest.warns(SplitFileWarning) as told, pytest.raises(MissingFilesError):
        load(data_dir=root, split_file=None)
    assert len(told) == 1
    assert len(open_collection(data_dir=root, split_file=path)) == 2
    place(root, "theirs_seg.nii.gz")
    with pytest.warns(SplitFileWarning, match="is used, which lists 2 cases"):
        assert len(open_collection(data_dir=root)) == 2


def test_where_nothing_fits_the_error_ends_with_the_option_to_pass(tree, split_file):
    own_list(tree, "trainset:\nelsewhere\n")
    with pytest.warns(SplitFileWarning, match="is not used, which lists 1 case"):
        spine = open_collection(data_dir=tree)
    with pytest.raises(
        MissingFilesError,
        match=r"or list your own in a split file and pass split_file='PATH' \(--split-file\)\.$",
    ):
        spine.download()
    (tree / "lists").mkdir()
    path = (tree / "lists/data_split.txt").resolve()
    path.touch()
    with pytest.raises(MissingFilesError, match=rf"and pass split_file='{path}' \(--split-file\)\.$"):
        spine.download()
    gone = open_collection(data_dir=tree / "lists", split_file=split_file)
    with pytest.raises(
        MissingFilesError,
        match=r"\(--on-missing skip\) .* or select others with cases=\[\.\.\.\] \(--case\)\.$",
    ):
        gone.scan()
    with pytest.raises(MissingFilesError) as caught:
        open_collection(data_dir=tree / "lists").scan(on_missing="skip")
    assert "on_missing" not in str(caught.value)


def test_each_data_set_has_its_split_file_in_its_own_place(tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "_registered", {"tiny": TINY})
    save_tiny(tmp_path)
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists/tiny.txt").write_text("for_judging:\nb_2\n")
    own_list(tmp_path, "for_judging:\na.1\n")
    with pytest.warns(
        SplitFileWarning, match="lists 1 case: judge 1. In this folder are files of 3 of the 3 "
    ):
        assert len(open_collection("tiny", data_dir=tmp_path)) == 3
    next(tmp_path.rglob("c-3-ct.nii.gz")).unlink()
    with pytest.warns(SplitFileWarning, match="lists 1 case: judge 1. Of the 3 cases of Tiny Spines, 1 "):
        (case,) = open_collection("tiny", data_dir=tmp_path)
    assert (case.case_id, case.split) == ("b_2", "judge")
    monkeypatch.chdir(tmp_path)
    assert len(open_collection("tiny")) == 3  # in no folder, and so not in the working directory either


def test_a_look_travels_with_its_commit_and_without_its_listing(repo_id):
    look = Look(HubPlace(repo_id, "main"))
    assert pickle.loads(pickle.dumps(look)).place == look.place  # noqa: S301 (our own)
    assert len(look.listing) > 0
    there = pickle.loads(pickle.dumps(look))  # noqa: S301
    assert there.place == look.pinned != look.place
    assert "listing" not in vars(there)
