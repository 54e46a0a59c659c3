import contextlib
import dataclasses
import errno
import gzip
import hashlib
import json
import os
import shutil
import sys
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
from support.volumes import ALL_IDS, files_of, place, save_case
from tqdm import tqdm

import ctspine1k
from ctspine1k import download_files, list_files, load_dataset
from ctspine1k.errors import ChecksumError, CTSpine1KWarning, HubError, NoSpaceError, UnreadableFileError
from ctspine1k.files.hub import HubPlace
from ctspine1k.files.places import find_place
from ctspine1k.files.raw import CaseFiles, Listing
from ctspine1k.files.selection import Look
from ctspine1k.files.tokens import all_tokens, keep_token, known_token
from ctspine1k.files.transfer import copied, download, know_token, quiet_hub, reading_case, worker_start


def test_links_to_folders_are_followed_and_loops_end(tmp_path):
    place(tmp_path / "elsewhere", "liver_106.nii.gz", "liver_106_seg.nii.gz")
    root = tmp_path / "root"
    root.mkdir()
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    for name in ("again", "loop"):
        (root / name).symlink_to(root)
    assert len(list_files(data_dir=root)) == 2


def test_a_folder_that_cannot_be_read_is_told(tmp_path, monkeypatch):
    place(tmp_path, "a/liver_106.nii.gz", "b/liver_106_seg.nii.gz")
    scandir = os.scandir

    def refuse(path):
        if Path(path).name == "b":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.warns(
        CTSpine1KWarning, match=rf"^{tmp_path}/b: Permission denied: the files in it are not listed$"
    ):
        assert [file.kind for file in list_files(data_dir=tmp_path)] == ["image"]


def test_hub_listing_tells_what_the_hub_records(hub, repo_id, tree):
    files = list_files(cases="liver_106", repo_id=repo_id)
    data = {f.kind: (tree / f.path).read_bytes() for f in files}
    assert [f.kind for f in files] == ["image", "mask"]
    assert [f.size for f in files] == [len(data["image"]), len(data["mask"])]
    assert [f.sha256 for f in files] == [hashlib.sha256(data[k]).hexdigest() for k in ("image", "mask")]
    commit = hub.repos[repo_id].refs["main"]
    assert files[0].url == f"{hub.url}/datasets/{repo_id}/resolve/{commit}/{files[0].path}"
    assert hub.downloads() == {}


def test_a_file_of_the_hub_is_known_by_its_bytes(hub, repo_id):
    (file,) = list_files(cases="liver_106", kind="mask", repo_id=repo_id)
    assert HubPlace.of(repo_id, "main", None).identity(file) == f"{file.path} {file.sha256}"


def test_a_look_records_the_revision_once_and_without_a_bar(hub, repo_id, capfd):
    look = Look(HubPlace.of(repo_id, "main", None))
    files = list_files(cases="liver_106", repo_id=repo_id)
    look.prepare([])
    with hub.watched() as first:
        look.prepare(files)
    with hub.watched() as second:
        look.prepare(files)
    assert any("/revision/main" in request.path for request in first)
    assert second == []
    assert capfd.readouterr().err == ""


def test_revision(hub, repo_id, tree, tmp_path, monkeypatch):
    first = hub.repos[repo_id].refs["main"]
    shutil.copytree(tree, tmp_path / "changed")
    save_case(tmp_path / "changed", "liver_106", seed=77)
    second = hub.repos[repo_id].commit(files_of(tmp_path / "changed"))
    others = ("v1", "beef", "v" * 40, "X" * 40)  # all but the first look somewhat like commits
    hub.repos[repo_id].refs |= dict.fromkeys(others, first)

    assert {HubPlace(repo_id, one).at_commit().commit for one in others} == {first}

    def read():
        options = {"cases": "liver_106", "kind": "image", "repo_id": repo_id}
        revisions = (None, "main", *others, first, second)
        return {one: download_files(revision=one, **options)[0].read_bytes() for one in revisions}

    online = read()
    assert online[None] == online["main"] == online[second] != online[first]
    assert {online[revision] for revision in others} == {online[first]}
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")  # which the client does not read
    with hub.watched() as requests:
        assert read() == online
    assert requests == []


def test_what_a_place_is_called(hub, repo_id, monkeypatch):
    place, commit = HubPlace.of(repo_id, "main"), hub.repos[repo_id].refs["main"]
    assert place.describe() == place.recorded() == f"Hub repo {repo_id} at main"
    assert place.origin() == {"repo_id": repo_id, "commit": commit}
    assert place.version() == f"{repo_id}@{commit}"
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    assert place.describe() == f"the local cache of Hub repo {repo_id} at main"
    assert place.recorded() == f"Hub repo {repo_id} at main"


def test_a_commit_is_not_looked_up():
    digits = "0123456789abcdef" * 3
    assert HubPlace.of("tests/any", digits[:40]).at_commit().commit == digits[:40]


def test_the_hub_is_told_who_asks_and_people_how_far_it_is(hub, repo_id, capfd, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    files = list_files(cases=ALL_IDS, repo_id=repo_id)
    HubPlace.of(repo_id, "main").fetch(files)
    agent = f"ctspine1k/{ctspine1k.__version__};"
    asked = [one for one in hub.requests if one.path.endswith(("/revision/main", ".nii.gz"))]
    assert {one.method for one in asked} == {"GET", "HEAD"}
    assert all(one.agent.startswith(agent) for one in asked), [one.agent for one in asked]
    shown = capfd.readouterr().err
    assert f"Fetching {repo_id}: 100%" in shown
    size = tqdm.format_sizeof(sum(file.size for file in files))
    assert size.endswith("k")
    assert f" {size}/{size} " in shown
    assert "B/s]" in shown


def test_a_private_repo_needs_its_token(hub, repo_id):
    hub.repos[repo_id].token = "hf_secret"
    with pytest.raises(HubError, match="token") as caught:
        list_files(cases="liver_106", repo_id=repo_id, token="hf_wrong")
    assert "hf_wrong" not in str(caught.value)
    image, mask = list_files(cases="liver_106", repo_id=repo_id, token="hf_secret")
    with HubPlace.of(repo_id, "main", "hf_secret").open(image) as stream:
        data = stream.read(-1)
    paths = download_files(cases="liver_106", repo_id=repo_id, token="hf_secret")
    assert [path.stat().st_size for path in paths] == [len(data), mask.size]


@pytest.mark.parametrize("token", ["hf_secret\n", " hf_secret "])
def test_a_token_as_read_from_a_file(hub, repo_id, token):
    hub.repos[repo_id].token = "hf_secret"
    assert len(list_files(cases="liver_106", repo_id=repo_id, token=token)) == 2
    options = {"storage": "compact", "cases": "liver_106", "split": "train", "streaming": True}
    assert len(list(load_dataset("3d", repo_id=repo_id, token=token, **options))) == 1


@pytest.mark.parametrize("token", ["hf_se\ncret", "hf_se cret", "hf_sécret"])
def test_a_token_that_cannot_be_sent_is_not_printed(repo_id, token):
    with pytest.raises(ValueError, match=r"^token: expected letters and digits") as caught:
        list_files(cases="liver_106", repo_id=repo_id, token=token)
    assert caught.value.__cause__ is caught.value.__context__ is None


@pytest.mark.parametrize("selection", [{"repo_id": "tests/nowhere"}, {"revision": "no-such-branch"}])
def test_what_the_hub_has_not(repo_id, selection):
    with pytest.raises(HubError, match="Check repo_id, the revision, your token"):
        list_files(**{"cases": "liver_106", "repo_id": repo_id, **selection})


@pytest.mark.slow
def test_a_transfer_that_breaks_off_is_resumed(hub, repo_id):
    data = np.random.default_rng(0).bytes(24 << 20)  # the client writes down 10 MiB at a time
    hub.repos[repo_id].commit({"liver_106.nii.gz": data})
    hub.faults["liver_106.nii.gz"] = [{"cut_after": 15 << 20}]
    assert resumed(repo_id).read_bytes() == data
    ranges = [r.range for r in hub.requests if r.method == "GET" and r.path.endswith("/liver_106.nii.gz")]
    assert ranges[1].startswith(f"bytes={10 << 20}-")
    assert hub.downloads()["liver_106.nii.gz"] == (15 + 14) << 20


@pytest.mark.slow
@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_hub_that_refuses_for_a_while_is_asked_again(hub, repo_id, tree, status):
    hub.faults["liver_106.nii.gz"] = [status]
    assert resumed(repo_id).read_bytes() == next(tree.rglob("liver_106.nii.gz")).read_bytes()


def resumed(repo_id: str) -> Path:
    """Older clients report a cut transfer and resume at the next call, newer ones at once."""
    for _ in range(2):
        with contextlib.suppress(HubError):
            return download_files(cases="liver_106", kind="image", repo_id=repo_id)[0]
    raise AssertionError("not resumed at the next call")


def test_wrong_bytes_are_reported(hub, repo_id):
    hub.faults["liver_106.nii.gz"] = [b"other bytes of the same length "]
    with pytest.raises(
        ChecksumError, match=r"liver_106\.nii\.gz: sha256 is \w{64}, the Hub says \w{64}. Delete "
    ) as caught:
        download_files(cases="liver_106", repo_id=repo_id)
    # As the message says: delete that file, download again.
    blob = Path(str(caught.value).partition("Delete ")[2].partition(" and download")[0])
    blob.unlink()
    assert len(download_files(cases="liver_106", repo_id=repo_id)) == 2


def test_a_cached_file_that_was_changed_is_reported(repo_id):
    path = download_files(cases="liver_106", kind="image", repo_id=repo_id)[0]
    blob = path.resolve()
    blob.chmod(0o644)
    blob.write_bytes(blob.read_bytes() + b"x")
    with pytest.raises(ChecksumError, match="size is"):
        download_files(cases="liver_106", kind="image", repo_id=repo_id)


def test_what_a_full_disk_left_of_a_cached_file_is_fetched_anew(hub, repo_id, tree):
    """The client moves a file into its cache; on a full disk it copies it instead, and leaves what it could."""
    path = download_files(cases="liver_106", kind="image", repo_id=repo_id)[0]
    path.resolve().chmod(0o644)
    path.resolve().write_bytes(b"")
    assert download_files(cases="liver_106", kind="image", repo_id=repo_id) == [path]
    assert path.read_bytes() == next(tree.rglob("liver_106.nii.gz")).read_bytes()


OFFLINE = """
import json, sys
import ctspine1k, ctspine1k.errors
for options in map(json.loads, sys.argv[1:]):
    try:
        print(json.dumps([str(path) for path in ctspine1k.download_files(**options)]))
    except ctspine1k.errors.CTSpine1KError as error:
        print(type(error).__name__, error)
"""


@pytest.mark.processes
@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"])
def test_offline_serves_what_is_cached_and_names_what_is_not(hub, repo_id, python, variable):
    paths = download_files(cases="liver_106", repo_id=repo_id)
    two = ["liver_106", "HN_P023"]
    options = [
        {"repo_id": repo_id, "cases": two[:1]},
        {"repo_id": repo_id, "cases": two},
        {"repo_id": "tests/never-seen", "cases": two[:1]},
    ]
    with hub.watched() as requests:
        run = python(OFFLINE, *map(json.dumps, options), **{variable: "1"})
    cached, part, none = run.stdout.splitlines()
    assert json.loads(cached) == [str(path) for path in paths], run.stderr
    assert "MissingFilesError 1 of 2 cases lacks raw files in the local cache" in part
    assert f"HN_P023 (image and mask). {variable} is set" in part
    assert none.startswith(f"HubError {variable} is set, and nothing of tests/never-seen")
    assert requests == []


@pytest.mark.processes
def test_a_hub_out_of_reach_is_told(python):
    options = {"repo_id": "tests/x", "cases": ["liver_106"]}
    run = python(OFFLINE, json.dumps(options), HF_ENDPOINT="http://127.0.0.1:9")
    assert run.stdout.startswith("HubError Hub repo tests/x at main"), run.stdout + run.stderr
    assert "With HF_HUB_OFFLINE=1, files from the local cache are used" in run.stdout


def test_a_download_that_does_not_fit_is_not_begun(hub, repo_id):
    """The Hub's record says how large a file is: a pretended one is more than any disk."""
    files = list_files(cases="liver_106", repo_id=repo_id)
    huge = [dataclasses.replace(files[0], size=10**18), files[1]]
    with pytest.raises(
        NoSpaceError, match=r"expected room for a download of 1,000,000,000\.00 GB, found "
    ) as e:
        download(Look(HubPlace(repo_id, "main")), huge)
    assert e.value.needed == 10**18 + files[1].size
    assert hub.downloads() == {}


def test_what_is_in_the_cache_is_not_lacking(repo_id, tree):
    place = HubPlace(repo_id, "main")
    files = list_files(cases="liver_106", repo_id=repo_id)
    assert place.not_cached(files) == files
    place.fetch(files[:1])
    assert place.not_cached(files) == files[1:]
    local = list_files(cases="liver_106", data_dir=tree)
    assert find_place(tree).not_cached(local) == []


def test_a_download_that_just_fits_and_its_revision(hub, repo_id, tmp_path, monkeypatch):
    files = list_files(cases="liver_106", repo_id=repo_id)
    size, look = sum(file.size for file in files), Look(HubPlace(repo_id, "main"))
    monkeypatch.setattr("ctspine1k.files.hub.hub_space", lambda: (size - 1, tmp_path))
    with pytest.raises(NoSpaceError):
        look.prepare(files)
    monkeypatch.setattr("ctspine1k.files.hub.hub_space", lambda: (size, tmp_path))
    look.prepare(files)
    cache = Path(os.environ["HF_HOME"]) / "hub" / f"datasets--{repo_id.replace('/', '--')}"
    assert (cache / "refs" / "main").read_text() == hub.repos[repo_id].refs["main"]


@pytest.mark.parametrize(
    ("name", "nanoseconds", "identity"),
    [
        ("liver_106.nii.gz", 1_700_000_000_000_000_001, "{state}"),
        # As archives restore them: the size and the CRC at the end of a gzip file, or the folder, tell them apart.
        ("liver_106.nii.gz", 1_700_000_000_000_000_000, "{state} {end}"),
        ("liver_106.nii", 1_700_000_007_000_000_000, "{folder}/{state}"),
    ],
)
def test_what_a_file_is_known_by_when_its_folder_is_moved(tmp_path, name, nanoseconds, identity):
    path = save_case(tmp_path, "liver_106")[0]
    if not name.endswith(".gz"):
        path.write_bytes(gzip.decompress(path.read_bytes()))
    path = path.rename(tmp_path / name)
    os.utime(path, ns=(nanoseconds, nanoseconds))
    (file,) = list_files(data_dir=tmp_path, kind="image", cases="liver_106")
    end = path.read_bytes()[-8:].hex()
    known = find_place(data_dir=tmp_path).identity(file)
    assert known == identity.format(state=file.state, end=end, folder=tmp_path)


def test_where_files_come_from_is_told_without_a_machines_path(tmp_path):
    (tmp_path / "raw").mkdir()
    assert find_place(data_dir=tmp_path / "raw").origin() == {"folder": "raw"}


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"])
def test_offline_is_named_where_files_are_missing(repo_id, monkeypatch, variable):
    place, listing = HubPlace.of(repo_id, "main", None), Listing({})
    assert place.hint(listing, (), "") == ""
    if variable == "HF_HUB_OFFLINE":  # which the client has read
        monkeypatch.setattr(huggingface_hub.constants, variable, True)
    else:
        for value in ("1", "on", "Yes", "TRUE"):
            monkeypatch.setenv(variable, "0")
            assert place.hint(listing, (), "") == ""
            monkeypatch.setenv(variable, value)
            assert place.hint(listing, (), "").startswith(variable)
    assert place.hint(listing, (), "") == f"{variable} is set: unset it to download them."


def test_what_is_cached_is_checked_and_served_offline(repo_id, tree, monkeypatch):
    options = {"cases": "liver_106", "repo_id": repo_id}
    paths = download_files(**options)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert download_files(**options) == paths
    image, _ = list_files(**options)
    with HubPlace.of(repo_id, "main").open(image) as path:
        assert path == str(paths[0])
    blob = paths[1].resolve()
    blob.write_bytes(blob.read_bytes()[::-1])
    with pytest.raises(ChecksumError, match=r"liver_106_seg.* sha256 is"):
        download_files(**options)


def test_a_file_of_the_hub_is_a_stream_of_one_request(hub, repo_id, tree):
    (file,) = list_files(cases="liver_106", kind="mask", repo_id=repo_id)
    data, hub_place = (tree / file.path).read_bytes(), HubPlace.of(repo_id, "main", None)
    with hub.watched() as requests, hub_place.open(file) as stream:
        assert b"".join(iter(lambda: stream.read(100), b"")) == data
    asked = [request for request in requests if request.path.endswith(file.path)]
    assert [request.method for request in asked] == ["GET"]
    with copied(hub_place, file) as stream:
        assert [stream.read(), stream.seek(0), stream.read()] == [data, 0, data]
        assert stream.name == file.path
    (local,) = list_files(cases="liver_106", kind="mask", data_dir=tree)
    with copied(find_place(tree), local) as path:
        assert path == local.local


def test_bars_of_the_hubs_client_are_off_for_a_while():
    from huggingface_hub.utils import are_progress_bars_disabled

    assert not are_progress_bars_disabled()
    with quiet_hub():
        assert are_progress_bars_disabled()
        with quiet_hub():
            pass
        assert are_progress_bars_disabled()
    assert not are_progress_bars_disabled()


def test_workers_show_no_bars_of_the_hub_and_know_our_tokens(monkeypatch):
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "")
    start = worker_start()
    start()
    assert os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] == "1"
    assert start.args == (dict(all_tokens()),)


def test_a_place_of_another_process_is_given_its_token_here():
    there = HubPlace("tests/any", "main", login="a key of another process")
    know_token(there, None)
    assert known_token(there.login) is None
    know_token(there, "hf_secret")
    assert known_token(there.login) == "hf_secret"
    know_token(HubPlace("tests/any", "main"), "hf_secret")
    assert None not in all_tokens()


def test_a_token_has_one_key():
    first, other, of_login = (keep_token(token) for token in ("hf_first", "hf_other", True))
    assert len({first, other, of_login}) == 3
    assert [keep_token(" hf_first\n"), keep_token("hf_other"), keep_token(True)] == [first, other, of_login]
    assert (known_token(first), known_token(of_login)) == ("hf_first", True)


def test_offline_without_a_cache_says_what_to_do(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        HubError, match=r"^HF_HUB_OFFLINE is set, and nothing of tests/never-seen at main is in"
    ):
        list_files(cases="liver_106", repo_id="tests/never-seen")


def test_a_revision_that_moves_before_the_first_download(hub, repo_id, tree):
    files = list_files(cases="liver_106", repo_id=repo_id)
    place = HubPlace(repo_id, "main").at_commit()
    hub.repos[repo_id].commit(files_of(tree))
    with pytest.raises(HubError, match=rf"main moved meanwhile, from {place.commit} to \w{{40}}\. Run again"):
        place.prepare(files, is_recorded=False)
    place.prepare(files, is_recorded=True)
    assert place.fetch([]) == []


def test_no_place_says_where_to_get_the_files():
    nowhere = find_place(how_to_get="Ask the authors.")
    assert nowhere.describe() == "no place"
    with pytest.raises(
        ValueError, match=r"expected data_dir, a folder: .* in no Hub repo\. Ask the authors\.$"
    ):
        nowhere.at_commit()
    with pytest.raises(ValueError, match=r"are in no Hub repo$"):
        find_place().at_commit()
    with pytest.raises(ValueError, match=r"^revision='v1': the files of this data set are in no Hub repo$"):
        find_place(revision="v1")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.EIO])
def test_errors_of_the_machine_are_no_fault_of_a_case(tmp_path, number):
    place(tmp_path, "liver_106.nii.gz", "liver_106_seg.nii.gz")
    files = list_files(data_dir=tmp_path)
    error = OSError(number, os.strerror(number))
    case = CaseFiles(files[0].case, {file.kind: file for file in files})
    with pytest.raises((OSError, UnreadableFileError)) as caught, reading_case(case):
        raise error
    if number == errno.EIO:
        assert isinstance(caught.value, UnreadableFileError)
        assert str(caught.value).startswith(files[0].name)
        assert caught.value.__cause__ is error
    else:
        assert caught.value is error


def test_without_the_hubs_client_there_are_no_bars_to_disable(monkeypatch):
    with monkeypatch.context() as without:
        without.delitem(sys.modules, "huggingface_hub")
        with quiet_hub():
            assert "huggingface_hub" not in sys.modules
