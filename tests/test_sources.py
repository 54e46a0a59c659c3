import contextlib
import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from volumes import ALL_IDS, IDS, files_of, save_case

from ctspine1k import download_files, list_files, load_catalog
from ctspine1k.errors import (
    AmbiguousFilesError,
    ChecksumError,
    HubError,
    MissingFilesError,
    SkippedCasesWarning,
    UnknownCaseError,
)

VALIDATION = {"HN_P023.nii.gz", "HN_P023_seg.nii.gz"}

#: Layouts in circulation: where the image and the mask of a case are.
LAYOUTS = {
    "hub": ("raw_data/volumes/MSD-T10/liver_106.nii.gz", "raw_data/labels/MSD-T10/liver_106_seg.nii.gz"),
    "card": ("rawdata/volumes/MSD-T10/liver_106.nii.gz", "rawdata/labels/MSD-T10/liver_106_seg.nii.gz"),
    "drive": ("data/liver/liver_106.nii.gz", "label/Liver/liver_106_seg.nii.gz"),
    "drive, colon": ("data/colon/liver_106.nii.gz", "label/conlon/liver_106_seg.nii.gz"),
    "label_new": ("data/liver/liver_106.nii.gz", "label_new/trainset/gt/liver_106_seg.nii.gz"),
    "flat": ("liver_106.nii.gz", "liver_106_seg.nii.gz"),
    "two folders": ("images/liver_106.nii.gz", "masks/liver_106_seg.nii.gz"),
    "not compressed": ("liver_106.nii", "liver_106_seg.nii"),
}


def place(root: Path, *names: str) -> list[Path]:
    paths = [root / name for name in names]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * len(path.name))
    return paths


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_found(tmp_path, layout):
    paths = place(tmp_path, *LAYOUTS[layout])
    # Neighbours whose names begin or end alike, and what other programs leave behind.
    place(
        tmp_path,
        "liver_10.nii.gz",
        "xliver_106.nii.gz",
        "._liver_106.nii.gz",
        ".cache/liver_106.nii.gz",
        "notes.txt",
    )
    files = list_files(case="liver_106", data_dir=tmp_path)
    assert [(f.case.case_id, f.kind, f.path) for f in files] == [
        ("liver_106", "image", str(paths[0])),
        ("liver_106", "mask", str(paths[1])),
    ]
    assert [f.size for f in files] == [path.stat().st_size for path in paths]
    assert [f.url for f in files] == [path.as_uri() for path in paths]
    assert download_files(case="liver_106", data_dir=tmp_path) == paths


def test_ids_with_dots_are_not_mixed_up(tmp_path):
    ids = [case.case_id for case in load_catalog().where(source="COLONOG")][:40]
    place(tmp_path, *(f"{case_id}{end}" for case_id in ids for end in (".nii.gz", "_seg.nii.gz")))
    files = list_files(data_dir=tmp_path)
    assert [Path(f.path).name for f in files] == [
        f"{case_id}{end}" for case_id in ids for end in (".nii.gz", "_seg.nii.gz")
    ]


def test_links_to_folders_are_followed_and_loops_end(tmp_path):
    place(tmp_path / "elsewhere", "liver_106.nii.gz", "liver_106_seg.nii.gz")
    root = tmp_path / "root"
    root.mkdir()
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "loop").symlink_to(root)
    assert len(list_files(data_dir=root)) == 2


def test_two_files_for_one_image_are_an_error(tmp_path):
    place(tmp_path, "data/liver_106.nii.gz", "raw_data/liver_106.nii.gz", "label/liver_106_seg.nii.gz")
    with pytest.raises(
        AmbiguousFilesError, match=r"liver_106: expected one image, found 2: .*raw_data/liver_106"
    ) as caught:
        list_files(data_dir=tmp_path)
    assert (caught.value.case_id, caught.value.kind, len(caught.value.paths)) == ("liver_106", "image", 2)
    assert list_files(data_dir=tmp_path, case="HN_P001") == []


def test_selection_combines(tree, split_file):
    def ids(**selection):
        return [
            (f.case.case_id, f.kind) for f in list_files(data_dir=tree, split_file=split_file, **selection)
        ]

    assert ids() == [(case_id, kind) for case_id in ALL_IDS for kind in ("image", "mask")]
    assert ids(split="train", kind="mask") == [(case_id, "mask") for case_id in IDS["train"]]
    assert ids(source="MSD-T10") == [("liver_106", "image"), ("liver_106", "mask")]
    assert ids(case="liver_106", split="test") == []


def test_selection_by_id_keeps_the_catalogs_order(tree):
    files = list_files(data_dir=tree, case=["HN_P023", load_catalog()["liver_106"]], kind="image")
    assert [f.case.case_id for f in files] == ["liver_106", "HN_P023"]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"kind": "label"}, ValueError, "kind='label': expected one of 'image', 'mask'"),
        ({"split": "val"}, ValueError, "split='val': expected one of 'train'"),
        ({"case": "liver_1066"}, UnknownCaseError, "liver_1066"),
        ({"revision": "main"}, ValueError, "has no revisions"),
        ({"data_dir": "/nowhere"}, FileNotFoundError, "data_dir='/nowhere': no such folder"),
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
        download_files(case=ALL_IDS, data_dir=tree)
    assert caught.value.missing == {"liver_106": "mask", "HN_P023": "image and mask"}
    message = str(caught.value)
    assert message.startswith(
        f"2 of 4 cases lack raw files in {tree}: liver_106 (mask), HN_P023 (image and mask)."
    )
    assert "The folder holds 5 NIfTI files" in message
    with pytest.warns(SkippedCasesWarning, match="2 of 4 cases lack raw files"):
        assert len(download_files(case=ALL_IDS, data_dir=tree, on_missing="skip")) == 5


def test_many_missing_names_are_shortened(tmp_path):
    with pytest.raises(MissingFilesError, match=r"610 of 610 cases .* and 600 more\."):
        download_files(split="train", data_dir=tmp_path)


def test_hub_listing_tells_what_the_hub_records(hub, repo_id, tree):
    files = list_files(case="liver_106", repo_id=repo_id)
    data = {f.kind: (tree / f.path).read_bytes() for f in files}
    assert [f.kind for f in files] == ["image", "mask"]
    assert [f.size for f in files] == [len(data["image"]), len(data["mask"])]
    assert [f.sha256 for f in files] == [hashlib.sha256(data[k]).hexdigest() for k in ("image", "mask")]
    commit = hub.repos[repo_id].refs["main"]
    assert files[0].url == f"{hub.url}/datasets/{repo_id}/resolve/{commit}/{files[0].path}"
    assert hub.downloads() == {}


def test_download_fetches_the_selection_and_nothing_else(hub, repo_id, tree):
    paths = download_files(split="validation", case=ALL_IDS, repo_id=repo_id)
    assert [path.name for path in paths] == ["HN_P023.nii.gz", "HN_P023_seg.nii.gz"]
    assert [path.read_bytes() for path in paths] == [
        next(tree.rglob(path.name)).read_bytes() for path in paths
    ]
    assert set(hub.downloads()) == VALIDATION
    with hub.watched() as again:
        assert download_files(split="validation", case=ALL_IDS, repo_id=repo_id) == paths
    assert not [request for request in again if "/resolve/" in request.path]


def test_kind_selects_masks_alone(hub, repo_id):
    download_files(case=ALL_IDS, kind="mask", repo_id=repo_id)
    assert set(hub.downloads()) == {f"{case_id}_seg.nii.gz" for case_id in ALL_IDS}


def test_revision(hub, repo_id, tree, tmp_path):
    first = hub.repos[repo_id].refs["main"]
    shutil.copytree(tree, tmp_path / "changed")
    save_case(tmp_path / "changed", "liver_106", seed=77)
    second = hub.repos[repo_id].commit(files_of(tmp_path / "changed"))
    hub.repos[repo_id].refs["v1"] = first
    read = {
        revision: download_files(case="liver_106", kind="image", repo_id=repo_id, revision=revision)[
            0
        ].read_bytes()
        for revision in (None, "main", "v1", first, second)
    }
    assert read[None] == read["main"] == read[second] != read["v1"] == read[first]


def test_a_private_repo_needs_its_token(hub, repo_id):
    hub.repos[repo_id].token = "hf_secret"
    with pytest.raises(HubError, match="token") as caught:
        list_files(case="liver_106", repo_id=repo_id, token="hf_wrong")
    assert "hf_wrong" not in str(caught.value)
    paths = download_files(case="liver_106", repo_id=repo_id, token="hf_secret")
    assert len(paths) == 2


@pytest.mark.parametrize("selection", [{"repo_id": "tests/nowhere"}, {"revision": "no-such-branch"}])
def test_what_the_hub_has_not(repo_id, selection):
    with pytest.raises(HubError, match="Check repo_id, the revision, your token"):
        list_files(**{"case": "liver_106", "repo_id": repo_id, **selection})


def test_a_transfer_that_breaks_off_is_resumed(hub, repo_id):
    data = np.random.default_rng(0).bytes(24 << 20)  # the client writes down 10 MiB at a time
    hub.repos[repo_id].commit({"liver_106.nii.gz": data})
    hub.faults["liver_106.nii.gz"] = [{"cut_after": 15 << 20}]
    assert resumed(repo_id).read_bytes() == data
    ranges = [r.range for r in hub.requests if r.method == "GET" and r.path.endswith("/liver_106.nii.gz")]
    assert ranges[1].startswith(f"bytes={10 << 20}-")
    assert hub.downloads()["liver_106.nii.gz"] == (15 + 14) << 20


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_hub_that_refuses_for_a_while_is_asked_again(hub, repo_id, tree, status):
    hub.faults["liver_106.nii.gz"] = [status]
    assert resumed(repo_id).read_bytes() == next(tree.rglob("liver_106.nii.gz")).read_bytes()


def resumed(repo_id: str) -> Path:
    """Older clients report a cut transfer and resume at the next call, newer ones at once."""
    for _ in range(2):
        with contextlib.suppress(HubError):
            return download_files(case="liver_106", kind="image", repo_id=repo_id)[0]
    raise AssertionError("not resumed at the next call")


def test_wrong_bytes_are_reported(hub, repo_id):
    hub.faults["liver_106.nii.gz"] = [b"other bytes of the same length "]
    with pytest.raises(
        ChecksumError, match=r"liver_106\.nii\.gz: sha256 is \w{64}, the Hub says \w{64}. Delete "
    ) as caught:
        download_files(case="liver_106", repo_id=repo_id)
    # As the message says: delete that file, download again.
    blob = Path(str(caught.value).partition("Delete ")[2].partition(" and download")[0])
    blob.unlink()
    assert len(download_files(case="liver_106", repo_id=repo_id)) == 2


def test_a_cached_file_that_was_changed_is_reported(repo_id):
    path = download_files(case="liver_106", kind="image", repo_id=repo_id)[0]
    blob = path.resolve()
    blob.chmod(0o644)
    blob.write_bytes(blob.read_bytes() + b"x")
    with pytest.raises(ChecksumError, match="size is"):
        download_files(case="liver_106", kind="image", repo_id=repo_id)


OFFLINE = """
import json, sys
import ctspine1k, ctspine1k.errors
try:
    paths = ctspine1k.download_files(repo_id=sys.argv[1], case=json.loads(sys.argv[2]))
    print(json.dumps([str(path) for path in paths]))
except ctspine1k.errors.CTSpine1KError as error:
    print(type(error).__name__, error)
"""


def test_offline_serves_what_is_cached_and_names_what_is_not(hub, repo_id, python):
    paths = download_files(case="liver_106", repo_id=repo_id)
    with hub.watched() as requests:
        run = python(OFFLINE, repo_id, '["liver_106"]', HF_HUB_OFFLINE="1")
        assert json.loads(run.stdout) == [str(path) for path in paths], run.stderr
        run = python(OFFLINE, repo_id, '["liver_106", "HN_P023"]', HF_HUB_OFFLINE="1")
        assert "MissingFilesError 1 of 2 cases lack raw files in the local cache" in run.stdout, run.stderr
        assert "HN_P023 (image and mask). HF_HUB_OFFLINE is set" in run.stdout
        run = python(OFFLINE, "tests/never-seen", '["liver_106"]', HF_HUB_OFFLINE="1")
        assert run.stdout.startswith("HubError HF_HUB_OFFLINE is set, and nothing of tests/never-seen"), (
            run.stderr
        )
    assert requests == []


def test_a_hub_out_of_reach_is_told(python):
    run = python(OFFLINE, "tests/x", '["liver_106"]', HF_ENDPOINT="http://127.0.0.1:9")
    assert run.stdout.startswith("HubError Hub repo tests/x at main"), run.stdout + run.stderr
    assert "HF_HUB_OFFLINE=1 serves what is in the local cache" in run.stdout
