"""Room on disk: known before anything is fetched or converted, and explained when it runs out."""

import os

import numpy as np
import pytest
from support.compare import CONFIGS, identical, rows, wanted
from support.volumes import IDS, SIZE, intensities, labels, nifti, save, save_case

import ctspine1k
from ctspine1k import RowOptions
from ctspine1k.errors import NoSpaceError, TruncatedFileError
from ctspine1k.rows.builder import CTSpine1K


def claim(path, slices):
    """Write a file whose header claims many slices."""
    data = nifti(intensities(shape=(6, 5, 4)))
    header = bytearray(data[:352])
    header[40:56] = np.array([3, 6, 5, slices, 1, 1, 1, 1], "<i2").tobytes()
    path.with_suffix("").write_bytes(bytes(header) + data[352:])
    path.unlink()


@pytest.fixture
def huge(tree):
    """A validation case that is said to have 6 x 5 x 30,000 voxels, of a disk that has less."""
    for path in tree.rglob("HN_P023*.nii.gz"):
        claim(path, 30_000)
    return tree


@pytest.fixture
def free(monkeypatch):
    """Let the disks have so many bytes free."""

    def set_free(count):
        monkeypatch.setattr("ctspine1k.rows.room.free_bytes", lambda folder: count)

    return set_free


@pytest.mark.usefixtures("huge")
@pytest.mark.parametrize("name", CONFIGS)
def test_dense_rows_are_counted_exactly_from_headers(load, free, tmp_path, name):
    needed = 6 * 5 * 30_000 * 8
    free(needed - 1)
    with pytest.raises(NoSpaceError) as caught:
        load(name, split="validation", num_proc=2)
    assert (caught.value.needed, caught.value.free) == (needed, needed - 1)
    assert str(caught.value).startswith(f"{tmp_path}/cache/")
    assert f"expected room for dense {name} rows of validation (7.20 MB) of 7.20 MB" in str(caught.value)
    for advice in ('storage="compact" (about ', "streaming=True", "fewer cases", "cache_dir", "no_checks"):
        assert advice in str(caught.value)
    assert not list((tmp_path / "cache").rglob("*.arrow"))
    free(needed)
    with pytest.raises(TruncatedFileError):  # there is room: it is the file that is not what it says
        load(name, split="validation")


@pytest.mark.parametrize("options", [{"orientation": "ASR"}, {"orientation": "LPI", "storage": "dense"}])
def test_a_turn_does_not_change_the_bytes(load, free, options):
    free(6 * 5 * 5 * 8 - 1)
    with pytest.raises(NoSpaceError, match=r"of 0\.00 MB, found"):
        load("3d", split="validation", **options)


def test_resampling_changes_the_bytes(load, free):
    def needed(**options):
        free(0)
        with pytest.raises(NoSpaceError) as caught:
            load("3d", split="validation", **options)
        return caught.value.needed

    finer = {"spacing": (0.35, 0.4, 2.5)}
    assert needed(image_size=(12, 10), **finer) == 4 * needed() == 12 * 10 * 5 * 8
    compact = {"storage": "compact", "image_size": None}
    assert needed(**compact, **finer) == pytest.approx(4 * needed(**compact), rel=0.02)
    assert needed(**compact, compression="fast") > 1.2 * needed(**compact)


def test_all_splits_are_counted_together(load, free, tmp_path):
    every = 6 * 5 * (3 + 4 + 5 + 6) * 8
    free(every - 1)
    with pytest.raises(
        NoSpaceError, match=r"rows of train .* of validation .* of test .*one split"
    ) as caught:
        load("3d")
    assert caught.value.needed == every
    assert not list((tmp_path / "cache").rglob("*.arrow"))
    assert len(load("3d", split="train")) == 2
    free(every - 6 * 5 * (3 + 4) * 8)
    assert len(load("3d")) == 3  # what is converted needs no room


def test_converted_rows_and_streams_need_no_room(load, free):
    load("3d", split="train")
    free(0)
    assert len(load("3d", split="train")) == 2
    assert len(rows(load("3d", split="train", streaming=True))) == 2
    with pytest.raises(NoSpaceError):
        load("3d", split="train", download_mode="force_redownload")


def test_compact_rows_are_estimated_from_the_files(load, free, tree):
    raw = sum(path.stat().st_size for path in tree.rglob("HN_P023*"))
    free(raw // 2)
    with pytest.raises(NoSpaceError, match="expected room for compact 3d rows of validation") as caught:
        load("3d", split="validation", storage="compact")
    assert caught.value.needed == pytest.approx(0.77 * raw, rel=0.01)
    assert "Choose streaming=True, fewer cases, or folders on a larger disk" in str(caught.value)
    free(raw)
    assert len(load("3d", split="validation", storage="compact")) == 1


def test_downloads_are_counted_too_and_estimated_where_no_header_can_be_read(load, free, hub, repo_id, tree):
    raw = sum(path.stat().st_size for path in tree.rglob("HN_P023*"))
    free(7 * raw)
    with (
        hub.watched() as requests,
        pytest.raises(NoSpaceError, match=r"downloads \(.* and dense 3d rows") as caught,
    ):
        load("3d", split="validation", repo_id=repo_id)
    assert caught.value.needed == pytest.approx(8 * raw, rel=0.01)
    assert not [request for request in requests if "/resolve/" in request.path]
    free(8 * raw)
    assert len(load("3d", split="validation", repo_id=repo_id)) == 1
    free(6 * 5 * 5 * 8)  # they are here now, and so are their headers
    assert len(load("3d", split="validation", repo_id=repo_id, geometry=True)) == 1


def test_files_in_a_repo_that_are_not_compressed_are_estimated_as_such(load, free, publish, tmp_path):
    voxels = 60 * 50 * 40
    save(tmp_path / "plain" / "HN_P023.nii", intensities(shape=(60, 50, 40)))
    save(tmp_path / "plain" / "HN_P023_seg.nii", labels(shape=(60, 50, 40)))
    free(0)
    with pytest.raises(NoSpaceError) as caught:
        load("3d", split="validation", repo_id=publish(tmp_path / "plain"))
    assert caught.value.needed == pytest.approx((8 + 3) * voxels, rel=0.01)


def test_the_check_can_be_left_out(load, free):
    free(0)
    assert len(load("3d", split="train", verification_mode="no_checks")) == 2


@pytest.fixture
def builder(tree, split_file, tmp_path):
    options = {"data_dir": str(tree), "split_file": str(split_file), "image_size": SIZE}
    return CTSpine1K(config_name="2d", cache_dir=str(tmp_path / "cache"), **options)


def test_the_builder_itself_checks(builder, free):
    """As the script does on `datasets` 3."""
    free(0)
    with pytest.raises(NoSpaceError, match="dense 2d rows of train and validation and test"):
        builder.download_and_prepare()


def test_the_disk_of_the_folder_that_is_written_counts(builder, tmp_path, monkeypatch):
    """An output_dir need not be on the disk of the cache."""
    monkeypatch.setattr(
        "ctspine1k.rows.room.free_bytes", lambda folder: 0 if folder == tmp_path / "small" else 10**6
    )
    (tmp_path / "small").mkdir()  # a folder that is there has no rows yet
    with pytest.raises(NoSpaceError, match=f"{tmp_path}/small"):
        builder.download_and_prepare(str(tmp_path / "small"))
    builder.download_and_prepare()
    with pytest.raises(NoSpaceError, match=f"{tmp_path}/small"):
        builder.download_and_prepare(str(tmp_path / "small"))
    monkeypatch.setattr("ctspine1k.rows.room.free_bytes", lambda folder: 10**6 * ("out" in str(folder)))
    builder.download_and_prepare(str(tmp_path / "out"))
    assert list((tmp_path / "out").glob("*.arrow"))
    with pytest.raises(NoSpaceError, match=f"{tmp_path}/cache"):
        builder.download_and_prepare(None, None, "force_redownload")


def test_a_named_pipe_is_not_opened(load, tree):
    """To read its header would take the bytes that the conversion needs."""
    image = next(tree.rglob("HN_P023.nii.gz"))
    image.unlink()
    os.mkfifo(image)
    place = ctspine1k.open_collection(data_dir=tree).place
    from ctspine1k.rows.shapes import local_shape

    (file,) = ctspine1k.list_files(data_dir=tree, cases="HN_P023", kind="image")
    assert local_shape(file, place, RowOptions()) is None


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("num_proc", [None, pytest.param(2, marks=pytest.mark.processes)])
def test_a_disk_that_becomes_full(load, tree, tmp_path, small_disk, name, num_proc):
    if not os.path.ismount(small_disk.root):
        pytest.skip("no small file system can be mounted")
    for case_id in IDS["train"]:
        save_case(tree, case_id, shape=(60, 50, 30))  # 0.72 MB of rows each, on 1 MB
    options = {"split": "train", "cache_dir": small_disk.root / "cache", "image_size": (60, 50)}
    with pytest.raises(NoSpaceError, match=f"expected room for dense {name} rows of train") as caught:
        load(name, num_proc=num_proc, verification_mode="no_checks", **options)
    assert caught.value.needed == 2 * 60 * 50 * 30 * 8
    assert "run again" in str(caught.value)
    kept = [path.name.rpartition("-")[0] for path in small_disk.root.rglob("kept/*.arrow")]
    if num_proc is None:  # the first was complete before the second filled the disk
        assert kept == IDS["train"][: name == "3d"]
    with pytest.raises(NoSpaceError, match="verification_mode"):  # before it is begun
        load(name, **options)
    assert identical(
        rows(load(name, **{**options, "cache_dir": tmp_path / "c"})), wanted(tree, name, "train")
    )


def test_a_download_that_fills_the_disk(load, repo_id, monkeypatch):
    import errno

    def full(self, files):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("ctspine1k.files.hub.HubPlace.fetch", full)
    with pytest.raises(NoSpaceError, match="expected room for a download of"):
        load("3d", split="train", repo_id=repo_id)
