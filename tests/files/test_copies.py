"""Copies of raw files, or links to them, in the published layout."""

import errno
import os
from pathlib import Path

import pytest
from support.volumes import IDS, files_of, intensities, save

import ctspine1k
from ctspine1k.errors import MissingFilesError, NoSpaceError, OutputError, SkippedCasesWarning
from ctspine1k.files.copies import put_file

LIVER = "liver_106"


@pytest.fixture
def published():
    """Paths of two cases in the published layout."""
    return {
        f"raw_data/{folder}/{source}/{case_id}{suffix}.nii.gz"
        for case_id, source in ((IDS["train"][0], "COLONOG"), (LIVER, "MSD-T10"))
        for folder, suffix in (("volumes", ""), ("labels", "_seg"))
    }


@pytest.fixture(params=["folder", "hub"])
def spine(request, tree, split_file):
    """The cases of train, in a folder of another layout and on the Hub."""
    place = (
        {"data_dir": tree} if request.param == "folder" else {"repo_id": request.getfixturevalue("repo_id")}
    )
    return ctspine1k.open_collection(split_file=split_file, **place).where(split="train")


@pytest.mark.parametrize("link", [False, True])
def test_files_get_the_published_layout(spine, tree, tmp_path, published, link):
    paths = spine.download(to=tmp_path / "to", link=link)
    assert {path.relative_to(tmp_path / "to").as_posix() for path in paths} == published
    assert [path.name for path in paths] == [file.path.rpartition("/")[2] for file in spine.files()]
    for path in paths:
        assert path.read_bytes() == next(tree.rglob(path.name)).read_bytes()
        assert path.is_symlink() == link
        assert os.access(path, os.W_OK)
    assert [path.stat().st_mtime_ns for path in paths] == [
        path.stat().st_mtime_ns for path in spine.download()
    ]
    copied = ctspine1k.open_collection(data_dir=tmp_path / "to", split_file=tmp_path / "split.txt")
    assert len(copied.where(split="train").files()) == 4
    assert list((tmp_path / "to").rglob(".*")) == []


@pytest.mark.parametrize(("link", "what"), [(False, "Copying"), (True, "Linking")])
def test_a_bar_on_a_terminal_says_what_is_done(tree, split_file, tmp_path, monkeypatch, capsys, link, what):
    monkeypatch.setattr("ctspine1k.running.progress.is_terminal", lambda: True)
    spine = ctspine1k.open_collection(data_dir=tree, split_file=split_file).where(split="train")
    spine.download(to=tmp_path / "to", link=link)
    shown = capsys.readouterr().err
    assert f"{what}: 100%" in shown
    assert " 4/4 " in shown


def test_what_is_there_is_kept(spine, tmp_path):
    paths = spine.download(to=tmp_path / "to")
    before = [path.stat() for path in paths]
    paths[0].unlink()
    os.utime(paths[1], ns=(0, 0))  # the same bytes, at another time
    half = paths[-1].with_name(".ctspine1k-half")  # of a process that was killed
    half.mkdir()
    for name in (".lock", paths[-1].name):
        (half / name).touch()
    assert spine.download(to=tmp_path / "to") == paths
    after = [path.stat() for path in paths]
    assert [one.st_ino for one in after[1:]] == [one.st_ino for one in before[1:]]
    assert not half.exists()
    assert spine.download(to=tmp_path / "to", link=True) == paths
    assert not any(path.is_symlink() for path in paths)


def test_whether_a_file_was_there_is_told(tmp_path):
    source = save(tmp_path / "from.nii", intensities())
    for link in (True, True, False, False, True):
        is_new = not (tmp_path / "to.nii").exists() or ((tmp_path / "to.nii").is_symlink() and not link)
        assert put_file(source, tmp_path / "to.nii", link=link) == is_new
        assert (tmp_path / "to.nii").read_bytes() == source.read_bytes()


def test_a_target_that_cannot_be_written_is_named_and_an_unreadable_source_is_the_callers(
    tmp_path, monkeypatch
):
    source, target = save(tmp_path / "from.nii", intensities()), tmp_path / "to.nii"

    def fail(named):
        def copy(*_):
            raise OSError(errno.EIO, os.strerror(errno.EIO), named)

        return copy

    monkeypatch.setattr("shutil.copyfile", fail(str(tmp_path / "half" / "to.nii")))
    with pytest.raises(OutputError, match=r"to\.nii: expected a place to write to, found Input/output error"):
        put_file(source, target, link=False)
    monkeypatch.setattr("shutil.copyfile", fail(str(source)))
    (tmp_path / "link.nii").symlink_to(source)
    with pytest.raises(OSError, match=r"from\.nii"):
        put_file(tmp_path / "link.nii", target, link=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["from.nii", "link.nii"]


def test_another_file_is_not_replaced(spine, tmp_path):
    paths = spine.download("mask", to=tmp_path / "to")
    paths[1].write_bytes(b"corrected by hand")
    with pytest.raises(OutputError) as told:
        spine.download(to=tmp_path / "to")
    assert told.value.path == str(tmp_path / "to")
    assert told.value.found == "something else at 1 path: raw_data/labels/MSD-T10/liver_106_seg.nii.gz"
    assert paths[1].read_bytes() == b"corrected by hand"
    paths[1].unlink()
    paths[1].mkdir()
    with pytest.raises(OutputError):
        spine.download("mask", to=tmp_path / "to")


@pytest.mark.parametrize("link", [False, True])
def test_all_other_files_are_found_before_anything_is_copied(spine, hub, tmp_path, link):
    files = spine.files()
    names = [path.relative_to(tmp_path / "a") for path in spine.download(to=tmp_path / "a")]
    last = tmp_path / "to" / names[-1]
    last.parent.mkdir(parents=True)
    last.write_bytes(bytes(files[-1].size))  # of the same size
    with hub.watched() as requests, pytest.raises(OutputError, match="something else at 1 path: "):
        spine.download(to=tmp_path / "to", link=link)
    assert not [request for request in requests if "/resolve/" in request.path]
    assert [path for path in (tmp_path / "to").rglob("*") if path.is_file()] == [last]


def test_another_file_that_is_as_large_where_the_hub_has_no_sha256(tmp_path, publish):
    (tmp_path / "raw").mkdir()
    for name in ("verse004.nii.gz", "verse004_seg.nii.gz", "verse004_ctd.json"):
        (tmp_path / "raw" / name).write_text(name)
    verse = ctspine1k.open_collection("verse", repo_id=publish(tmp_path / "raw")).select("verse004")
    assert [file.sha256 is None for file in verse.files()] == [False, False, True]
    points = tmp_path / "to" / verse.data_set.file_name(verse["verse004"], "points")
    points.parent.mkdir(parents=True)
    points.write_text("x" * len("verse004_ctd.json"))
    for _ in range(2):  # with the cache empty, and full
        with pytest.raises(OutputError, match=r"something else at 1 path: .*\.json"):
            verse.download(to=tmp_path / "to")
        assert [path for path in (tmp_path / "to").rglob("*") if path.is_file()] == [points]


def test_five_of_many_other_files_are_named(tree, split_file, tmp_path):
    spine = ctspine1k.open_collection(data_dir=tree, split_file=split_file)
    paths = spine.download(to=tmp_path / "to")
    for path in paths[1:]:
        path.write_text("other")
    with pytest.raises(OutputError) as told:
        spine.download(to=tmp_path / "to")
    names = ", ".join(path.relative_to(tmp_path / "to").as_posix() for path in paths[1:6])
    assert told.value.found == f"something else at 7 paths: {names} and 2 more"
    assert paths[0].read_bytes() == next(tree.rglob(paths[0].name)).read_bytes()


def test_a_link_to_another_file_is_not_replaced(spine, tmp_path):
    paths = spine.download("mask", to=tmp_path / "to")
    corrected = paths[1].rename(tmp_path / "corrected.nii.gz")
    paths[1].symlink_to(corrected)
    spine.download("mask", to=tmp_path / "to")  # the same bytes: a copy instead of the link
    assert not paths[1].is_symlink()
    corrected.write_bytes(b"corrected by hand")
    paths[1].unlink()
    paths[1].symlink_to(corrected)
    with pytest.raises(OutputError, match=r"something else at 1 path: .*/liver_106_seg.nii.gz"):
        spine.download("mask", to=tmp_path / "to")
    assert paths[1].is_symlink()


def test_times_of_archives_do_not_make_a_copy(tree, split_file, tmp_path):
    in_whole_seconds = (0, 1_700_000_007 * 10**9)
    for path in tree.rglob("*.nii.gz"):
        os.utime(path, ns=in_whole_seconds)
    spine = ctspine1k.open_collection(data_dir=tree, split_file=split_file)
    for _ in range(2):
        spine.download(to=tmp_path / "to")
    raw = next(tree.rglob("liver_106_seg.nii.gz"))
    raw.write_bytes(raw.read_bytes()[::-1])
    os.utime(raw, ns=in_whole_seconds)
    with pytest.raises(OutputError):
        spine.download(to=tmp_path / "to")


@pytest.mark.parametrize("is_file", [False, True])
def test_a_file_where_a_folder_belongs(spine, tmp_path, is_file):
    (tmp_path / "to").mkdir()
    (in_the_way := tmp_path / "to" / ("raw_data" if is_file else "raw_data/labels")).parent.mkdir(
        exist_ok=True
    )
    in_the_way.write_text("")
    name = in_the_way.relative_to(tmp_path / "to").as_posix()
    with pytest.raises(OutputError, match=rf"found something else at 1 path: {name}\. Choose another folder"):
        spine.download("mask", to=tmp_path / "to")


def test_a_disk_that_fills_meanwhile(spine, small_disk, tmp_path, monkeypatch):
    monkeypatch.setattr("ctspine1k.files.copies.free_bytes", lambda folder: 1 << 40)
    small_disk.fill_up()
    with pytest.raises(NoSpaceError, match="expected room for copies of") as told:
        spine.download(to=small_disk.root / "to")
    assert told.value.needed == sum(file.size for file in spine.files())

    def refuse(self, target):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "symlink_to", refuse)
    with pytest.raises(NoSpaceError, match="expected room for links of") as told:
        spine.download(to=tmp_path / "links", link=True)
    assert told.value.needed == 0


def test_links_become_copies_and_dead_links_are_replaced(spine, tree, tmp_path):
    paths = spine.download(to=tmp_path / "to", link=True)
    paths[0].unlink()
    paths[0].symlink_to(tmp_path / "gone")
    assert spine.download(to=tmp_path / "to", link=True) == paths
    assert all(path.is_symlink() and path.exists() for path in paths)
    assert spine.download(to=tmp_path / "to") == paths
    assert not any(path.is_symlink() for path in paths)
    assert files_of(tree).keys() == {f"raw_data/{one}" for one in _names(tree)}


def test_links_become_copies_also_where_they_are_the_raw_files(tree, split_file, tmp_path, monkeypatch):
    linked = tmp_path / "to"
    ctspine1k.open_collection(data_dir=tree, split_file=split_file).download(to=linked, link=True)
    spine = ctspine1k.open_collection(data_dir=linked / "raw_data", split_file=split_file)
    monkeypatch.setattr("ctspine1k.files.copies.free_bytes", lambda folder: 0)
    with pytest.raises(NoSpaceError):
        spine.download(to=linked)
    monkeypatch.undo()
    paths = spine.download(to=linked)
    assert not any(path.is_symlink() for path in paths)
    for path in paths:
        assert path.read_bytes() == next(tree.rglob(path.name)).read_bytes()


def test_a_folder_may_be_in_the_home(spine, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (path, _) = spine.download("mask", to="~/copies", link=True)
    assert path.is_relative_to(tmp_path / "copies")


def _names(tree):
    return {path.relative_to(tree / "raw_data").as_posix() for path in tree.rglob("*.nii.gz")}


def test_cases_of_ones_own_and_uncompressed_files(tmp_path):
    save(tmp_path / "raw/mine-1.nii", intensities())
    save(tmp_path / "raw/mine-1_seg.nii.gz", intensities(dtype="u1") % 26)
    (tmp_path / "mine.txt").write_text("trainset:\nmine-1\n")
    mine = ctspine1k.open_collection(data_dir=tmp_path / "raw", split_file=tmp_path / "mine.txt")
    image, mask = mine.download(to=tmp_path / "to")
    assert image == tmp_path / "to/raw_data/volumes/other/mine-1.nii"
    assert mask == tmp_path / "to/raw_data/labels/other/mine-1_seg.nii.gz"


@pytest.mark.parametrize("within", [".", "raw_data/copies"])
def test_not_into_the_folder_itself(tree, split_file, within):
    spine = ctspine1k.open_collection(data_dir=tree, split_file=split_file)
    before = files_of(tree)
    with pytest.raises(
        ValueError, match=r"to='.*': expected a folder outside of .*/tree, which has these files$"
    ):
        spine.download(to=tree / within)
    assert files_of(tree) == before
    with pytest.raises(ValueError, match="link=True: expected a folder for the links"):
        spine.download(link=True)
    next(tree.rglob("liver_106.nii.gz")).unlink()  # the folder is named before what is missing
    with pytest.raises(ValueError, match=r"expected a folder outside of .*/tree"):
        spine.download(to=tree / within)


@pytest.mark.parametrize("link", [False, True])
def test_no_new_files_in_the_folder_if_it_is_where_copies_go(tree, split_file, tmp_path, link):
    """With them, each file would be there twice."""
    (tmp_path / "work/raw_data").mkdir(parents=True)
    for path in tree.rglob("*.nii.gz"):
        path.rename(tmp_path / "work/raw_data" / path.name)
    spine = ctspine1k.open_collection(data_dir=tmp_path / "work/raw_data", split_file=split_file)
    before, files = files_of(tmp_path), spine.files()
    message = (
        r"to='.*/work': expected a folder outside of .*/work/raw_data, .*, found .*/raw_data/volumes/\S+$"
    )
    with pytest.raises(ValueError, match=message):
        spine.download(to=tmp_path / "work", link=link)
    assert files_of(tmp_path) == before
    spine.download(to=tmp_path / "other", link=link)
    assert spine.files() == files


def test_not_through_a_link_into_the_folder(tree, split_file, tmp_path):
    spine = ctspine1k.open_collection(data_dir=tree, split_file=split_file)
    before = files_of(tree)
    (tmp_path / "to").mkdir()
    (tmp_path / "to/raw_data").symlink_to(tree / "raw_data")
    message = r"^to='.*/to': expected a folder outside of .*/tree, .*, found .*/to/raw_data/"
    with pytest.raises(ValueError, match=message):
        spine.download(to=tmp_path / "to")
    assert files_of(tree) == before


def test_points_have_no_suffix_of_images(tmp_path):
    for name in ("verse004.nii", "verse004_seg.NII.GZ", "verse004_ctd.json"):
        (tmp_path / "raw" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "raw" / name).write_text(name)
    verse = ctspine1k.open_collection("verse", data_dir=tmp_path / "raw").select("verse004")
    paths = verse.download(to=tmp_path / "to")
    assert [path.name for path in paths] == [
        f"sub-verse004_{end}" for end in ("ct.nii", "seg-vert_msk.nii.gz", "seg-subreg_ctd.json")
    ]


def test_missing_files(tree, split_file, tmp_path):
    next(tree.rglob("liver_106.nii.gz")).unlink()
    spine = ctspine1k.open_collection(data_dir=tree, split_file=split_file).where(split="train")
    with pytest.raises(MissingFilesError):
        spine.download(to=tmp_path / "to")
    with pytest.raises(ValueError, match=r"^on_missing='ignore': expected one of 'raise', 'skip'"):
        spine.download(to=tmp_path / "to", on_missing="ignore")
    with pytest.warns(SkippedCasesWarning):
        assert len(spine.download(to=tmp_path / "to", on_missing="skip")) == 3


def test_copies_that_do_not_fit_are_not_begun(spine, tmp_path, monkeypatch, hub):
    raw = sum(file.size for file in spine.files())
    is_hub = spine.place.folder is None
    needed = 2 * raw if is_hub else raw
    monkeypatch.setattr("ctspine1k.files.copies.free_bytes", lambda folder: needed - 1)
    with pytest.raises(NoSpaceError, match=r"to: expected room for .*copies of .*--link") as caught:
        spine.download(to=tmp_path / "to")
    assert caught.value.needed == needed
    assert hub.downloads() == {}
    assert not (tmp_path / "to").exists()
    assert len(spine.download(to=tmp_path / "links", link=True)) == 4
    monkeypatch.setattr("ctspine1k.files.copies.free_bytes", lambda folder: raw)
    assert len(spine.download(to=tmp_path / "to")) == 4  # what was downloaded needs no room any more
    monkeypatch.setattr("ctspine1k.files.copies.free_bytes", lambda folder: 0)
    assert len(spine.download(to=tmp_path / "to")) == 4
