import pytest
from support.volumes import ALL_IDS, IDS

from ctspine1k import download_files, list_files, load_catalog
from ctspine1k.errors import (
    MissingFilesError,
    SkippedCasesWarning,
    UnknownCaseError,
)

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
        download_files(cases=ALL_IDS, data_dir=tree)
    assert caught.value.missing == {"liver_106": "mask", "HN_P023": "image and mask"}
    message = str(caught.value)
    assert message.startswith(
        f"2 of 4 cases lack raw files in {tree}: liver_106 (mask), HN_P023 (image and mask)."
    )
    assert "The folder contains 5 NIfTI files" in message
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


def test_kind_selects_masks_alone(hub, repo_id):
    download_files(cases=ALL_IDS, kind="mask", repo_id=repo_id)
    assert set(hub.downloads()) == {f"{case_id}_seg.nii.gz" for case_id in ALL_IDS}
