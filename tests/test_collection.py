"""The front door: what a collection holds, what its verbs see, and how often they look."""

import pickle

import pytest
from support.volumes import ALL_IDS, IDS, SIZE, save_case

import ctspine1k
from ctspine1k.catalog import ctspine1k as facts
from ctspine1k.catalog import split_file as parser
from ctspine1k.demo.phantom import make_phantom
from ctspine1k.errors import MissingFilesError, UnknownCaseError
from ctspine1k.files.folder import FolderPlace
from ctspine1k.files.hub import HubPlace
from ctspine1k.scans.tables import read_tables


@pytest.fixture
def spine(tree, split_file):
    return ctspine1k.open_collection(data_dir=tree, split_file=split_file)


def test_it_is_its_cases(spine):
    assert len(spine) == 4
    assert [case.case_id for case in spine] == ALL_IDS
    assert "liver_106" in spine
    assert spine["liver_106"].source == "MSD-T10"
    with pytest.raises(UnknownCaseError, match="Did you mean liver_106"):
        spine["liver_16"]
    title = f"CTSpine1K, 4 cases: train 2, validation 1, test 1; {spine.place.folder}"
    assert repr(spine) == f"Collection({title})"
    assert spine._repr_html_().startswith(f"<p>{title}</p><table>")


def test_it_is_narrowed_and_stays_what_it_was(spine):
    train = spine.where(split="train", exclude_issues="reported")
    assert [case.case_id for case in train] == IDS["train"]
    assert [case.case_id for case in train.where(source="MSD-T10")] == ["liver_106"]
    assert [case.case_id for case in spine.select(["HN_P023", spine["liver_106"]])] == [
        "liver_106",
        "HN_P023",
    ]
    assert len(spine) == 4
    with pytest.raises(ValueError, match="split='dev': expected one of 'train'"):
        spine.where(split="dev")
    with pytest.raises(TypeError, match="no criterion 'colour': expected split, source"):
        spine.where(colour="red")


def test_without_a_folder_it_is_on_the_hub_and_nothing_is_asked_for_yet(hub):
    with hub.watched() as requests:
        spine = ctspine1k.open_collection()
        assert len(spine) == 1005
        assert spine.place.describe() == "Hub repo alexanderdann/CTSpine1K at main"
    assert requests == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "vers"}, "collection='vers': expected one of 'ctspine1k'"),
        ({"data_dir": ".", "repo_id": "a/b"}, "data_dir='.' and repo_id='a/b' are two places: give one"),
        ({"data_dir": ".", "revision": "main"}, "data_dir='.' has no revisions"),
        ({"data_dir": ""}, "data_dir is empty"),
    ],
)
def test_what_contradicts_itself_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ctspine1k.open_collection(**arguments)


def test_none_is_no_choice_where_there_is_always_one(tree, split_file):
    spine = ctspine1k.open_collection(data_dir=tree, split_file=split_file)
    next(tree.rglob("liver_106_seg.nii.gz")).unlink()
    with pytest.raises(ValueError, match=r"on_missing=None: expected one of 'raise', 'skip'$"):
        spine.download(on_missing=None)
    with pytest.raises(ValueError, match=r"storage=None: expected one of 'dense', 'compact'$"):
        ctspine1k.RowOptions(storage=None)
    with pytest.raises(ValueError, match="kind='mesh': expected one of 'image', 'mask', or None"):
        spine.files("mesh")


def test_a_file_that_is_added_is_seen_by_the_next_verb(tree, split_file, tmp_path):
    path = next(tree.rglob("liver_106_seg.nii.gz"))
    data = path.read_bytes()
    path.unlink()
    spine = ctspine1k.open_collection(data_dir=tree, split_file=split_file).where(split="train")
    options = {"image_size": SIZE, "cache_dir": tmp_path / "cache"}
    assert len(spine.files()) == 3
    with pytest.raises(MissingFilesError):
        spine.load(**options)
    path.write_bytes(data)
    assert len(spine.files()) == 4
    assert len(spine.load(**options)["train"]) == 2
    assert spine.scan().measured == 2
    save_case(tree, "liver_106", seed=9)
    assert spine.scan().measured == 1
    assert spine.verify().kept == 2


def test_a_commit_that_is_added_is_seen_by_the_next_verb(hub, repo_id, split_file):
    spine = ctspine1k.open_collection(repo_id=repo_id, split_file=split_file)
    before = spine.files()
    files = dict(hub.repos[repo_id].commits[hub.repos[repo_id].refs["main"]])
    del files[before[-1].path]
    hub.repos[repo_id].commit(files)
    assert len(spine.files()) == len(before) - 1


@pytest.fixture
def counted(monkeypatch):
    """How often places are listed, and split files and tables of a scan parsed."""
    from ctspine1k.scans import containing

    counts = {"listings": 0, "split files": 0, "tables": 0}

    def count(what, owner, name):
        real = getattr(owner, name)

        def counting(*arguments, **options):
            counts[what] += 1
            return real(*arguments, **options)

        monkeypatch.setattr(owner, name, counting)

    count("listings", FolderPlace, "listing")
    count("listings", HubPlace, "listing")
    count("split files", facts, "parse_split")
    count("tables", containing, "read_tables")
    assert parser.parse_split is not facts.parse_split
    return counts


@pytest.mark.slow
@pytest.mark.parametrize("where", ["folder", "hub"])
def test_nothing_is_listed_or_parsed_twice_in_a_call(tree, split_file, repo_id, tmp_path, counted, where):
    place = {"data_dir": tree} if where == "folder" else {"repo_id": repo_id}
    table = ctspine1k.open_collection(**place, split_file=split_file).scan(tmp_path / "scan.parquet").cases
    assert counted == {"listings": 1, "split files": 1, "tables": 0}
    options = {"split_file": split_file, "image_size": SIZE, "cache_dir": tmp_path / "cache", **place}
    counted.update(dict.fromkeys(counted, 0))
    ctspine1k.load_dataset("2d", **options)  # three splits, each with a builder of its own
    assert counted == {"listings": 1, "split files": 1, "tables": 0}
    counted.update(dict.fromkeys(counted, 0))
    ctspine1k.load_dataset("2d", **options)
    assert counted == {"listings": int(where == "folder"), "split files": 1, "tables": 0}
    counted.update(dict.fromkeys(counted, 0))
    ctspine1k.load_dataset("3d", has_vertebrae=["C1"], scan=table, **options)
    assert counted == {"listings": 1, "split files": 1, "tables": 1}
    counted.update(dict.fromkeys(counted, 0))
    ctspine1k.list_files(split_file=split_file, **place)
    ctspine1k.download_files(split_file=split_file, **place)
    assert counted == {"listings": 2, "split files": 2, "tables": 0}
    spine = ctspine1k.open_collection(split_file=split_file, **place)
    counted.update(dict.fromkeys(counted, 0))
    spine.verify(tmp_path / "scan.parquet")
    assert counted == {"listings": 1, "split files": 0, "tables": 0}


def test_a_token_is_in_no_pickle_and_in_no_repr(hub, repo_id, split_file):
    hub.repos[repo_id].token = "hf_secret"
    spine = ctspine1k.open_collection(repo_id=repo_id, split_file=split_file, token="hf_secret")
    selection = spine.selection()
    assert len(selection.files()) == 8
    for value in (spine.place, selection.place, selection.look, selection.files()):
        assert b"hf_secret" not in pickle.dumps(value)
    assert "hf_secret" not in repr(spine) + repr(spine.place) + repr(selection)


def test_a_token_is_in_no_task(hub, repo_id, split_file, tmp_path, monkeypatch):
    """What is pickled for a worker, be it of this machine or of a cluster, of a scan and of an export."""
    from ctspine1k.running import executors

    hub.repos[repo_id].token = "hf_secret"
    spine = ctspine1k.open_collection(repo_id=repo_id, split_file=split_file, token="hf_secret")
    tasks = []
    run = executors._run_here

    def pickled(work, items, names):
        tasks.extend(pickle.dumps((work, item)) for item in items)
        return run(work, items, names)

    monkeypatch.setattr(executors, "_run_here", pickled)
    spine.scan(tmp_path / "cases.parquet")
    spine.export_parquet(tmp_path / "out", config="2d", image_size=SIZE)
    assert len(tasks) == 4 + 3
    assert not [task for task in tasks if b"hf_secret" in task]


READ = """
import pickle, sys
for path in sys.argv[1:]:
    print(sum(1 for _ in pickle.load(open(path, "rb"))))
"""


@pytest.mark.processes
def test_streams_of_a_private_repo_are_read_in_a_worker_that_was_sent_them(
    hub, repo_id, split_file, python, tmp_path
):
    hub.repos[repo_id].token = "hf_secret"
    there = {"repo_id": repo_id, "split_file": split_file, "token": "hf_secret"}
    spine = ctspine1k.open_collection(**there)
    options = {"split": "train", "image_size": SIZE, "streaming": True}
    paths = tmp_path / "function.pickle", tmp_path / "collection.pickle"
    for path, stream in zip(
        paths, (ctspine1k.load_dataset("2d", **there, **options), spine.load("2d", **options)), strict=True
    ):
        path.write_bytes(pickle.dumps(stream))
    run = python(READ, *map(str, paths))
    assert run.stdout == "7\n7\n", run.stderr
    assert len(list(spine.load("2d", **options))) == 7


@pytest.mark.processes
def test_worker_processes_know_the_token(hub, repo_id, split_file, tmp_path):
    hub.repos[repo_id].token = "hf_secret"
    spine = ctspine1k.open_collection(repo_id=repo_id, split_file=split_file, token="hf_secret")
    assert spine.scan(tmp_path / "cases.parquet", num_proc=2).measured == 4


def test_a_plan_says_what_a_download_would_do(hub, repo_id, split_file, tree):
    spine = ctspine1k.open_collection(repo_id=repo_id, split_file=split_file)
    sizes = {path.name: path.stat().st_size for path in tree.rglob("*.nii.gz")}
    two = spine.select(["liver_106", "HN_P023"])
    (there,) = two.select("liver_106").download("image")
    downloads = hub.downloads()
    plan = two.plan_download()
    names = ["liver_106.nii.gz", "liver_106_seg.nii.gz", "HN_P023.nii.gz", "HN_P023_seg.nii.gz"]
    assert list(plan.files) == two.files()
    assert [file.name.rpartition("/")[2] for file in plan.files] == names
    assert list(plan.needed) == two.files()[1:]
    assert plan.bytes == sum(sizes[name] for name in names)
    assert plan.bytes_needed == plan.bytes - sizes["liver_106.nii.gz"]
    assert plan.missing is None
    assert plan.cache in there.parents
    assert plan.bytes_free > 0
    assert repr(plan).endswith(f" GB are free in {plan.cache})")
    assert [file.kind for file in two.plan_download("mask").files] == ["mask", "mask"]
    assert hub.downloads() == downloads
    two.download()
    assert (two.plan_download().needed, two.plan_download().bytes_needed) == ((), 0)


def test_a_plan_names_what_is_missing_and_a_folder_needs_nothing(split_file, tree):
    spine = ctspine1k.open_collection(data_dir=tree, split_file=split_file)
    next(tree.rglob("HN_P023_seg.nii.gz")).unlink()
    plan = spine.plan_download()
    assert plan.missing.missing == {"HN_P023": "mask"}
    assert (len(plan.files), plan.needed, plan.bytes_needed) == (7, (), 0)
    assert (plan.cache, plan.bytes_free) == (None, None)  # nothing goes to the Hub's cache
    with pytest.raises(ctspine1k.errors.MissingFilesError) as caught:
        spine.download()
    assert str(caught.value) == str(plan.missing)
    with pytest.raises(ValueError, match="kind='label': expected one of"):
        spine.plan_download("label")


def test_two_collections_of_one_repo_keep_their_own_tokens(hub, repo_id, split_file):
    hub.repos[repo_id].token = "hf_secret"
    right, wrong, none = (
        ctspine1k.open_collection(repo_id=repo_id, split_file=split_file, token=token)
        for token in ("hf_secret", "hf_wrong", None)
    )
    for refused in (wrong, none):
        with pytest.raises(ctspine1k.errors.HubError):
            refused.files()
    assert len(right.files()) == 8


LIGHT = """
import sys, ctspine1k
files = ctspine1k.list_files(data_dir=sys.argv[1])
heavy = ("datasets", "huggingface_hub", "numpy", "pyarrow", "nibabel", "pandas", "isal", "tqdm", "click")
print(len(files), [name for name in heavy if name in sys.modules])
"""


@pytest.mark.processes
def test_to_list_a_folder_loads_nothing_heavy(tree, python):
    run = python(LIGHT, str(tree))
    assert run.stdout == "8 []\n", run.stderr


NAMES = """
import sys, ctspine1k
print(ctspine1k.vertebrae.name(25), ctspine1k.vertebrae.label("T12"), "numpy" in sys.modules)
"""


@pytest.mark.processes
def test_names_of_vertebrae_need_no_numpy(python):
    run = python(NAMES)
    assert run.stdout == "L6 19 False\n", run.stderr


def test_a_table_that_nothing_is_asked_of_is_refused(spine, tree, tmp_path):
    with pytest.raises(ValueError, match="scan='nowhere': expected has_vertebrae"):
        spine.where(split="train", scan="nowhere")
    with pytest.raises(ValueError, match="scan='nowhere': expected has_vertebrae"):
        ctspine1k.load_dataset(data_dir=tree, scan="nowhere")


def test_an_option_that_it_does_not_have_is_refused(spine):
    with pytest.raises(TypeError, match="token"):
        spine.load("3d", token="hf_other")


@pytest.mark.slow
def test_a_preview_from_the_hub_can_be_made_again_offline(hub, repo_id, split_file, tmp_path, monkeypatch):
    spine = ctspine1k.open_collection(repo_id=repo_id, split_file=split_file).select("liver_106")
    spine.preview(tmp_path / "a.png")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with hub.watched() as requests:
        spine.preview(tmp_path / "b.png")
    assert requests == []
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_options_of_rows_are_a_value(spine, tmp_path):
    by_name = {"orientation": "RAS", "label_scheme": "binary", "geometry": True, "image_size": SIZE}
    rows = ctspine1k.RowOptions("2d", **by_name)
    options = {"split": "train", "cache_dir": tmp_path / "cache"}
    right = spine.load("2d", **options, **by_name)
    assert "slice_index" in right.column_names
    assert spine.load(rows=rows, **options).cache_files == right.cache_files
    assert spine.load("2d", rows=rows, **options).cache_files == right.cache_files
    for name, wrong in (("3d", rows), ("2d", ctspine1k.RowOptions(**by_name))):
        with pytest.raises(ValueError, match=f"name='{name}': expected '{wrong.config}', the config of rows"):
            spine.load(name, rows=wrong, **options)
    assert spine.export_parquet(tmp_path / "out", config="2d", rows=rows).made == 3
    assert spine.export_parquet(tmp_path / "out", config="2d", **by_name).kept == 3
    with pytest.raises(ValueError, match="storage='compact': expected one of 'dense'"):
        spine.export_parquet(tmp_path / "out", rows=ctspine1k.RowOptions(storage="compact"))


def test_what_is_printed_is_short(spine, tmp_path):
    """A value typed into a notebook or a console fills no screen, however many cases there are."""
    loaded = spine.load("3d", split="train", storage="compact", image_size=None, cache_dir=tmp_path / "cache")
    lazy = ctspine1k.LazyDataset(loaded)
    pair = ctspine1k.read_pair(*spine.select("liver_106").download())
    everything = ctspine1k.open_collection()
    for value in (
        spine,
        everything,
        everything.selection(),
        spine.catalog,
        spine.data_set,
        spine.data_set.vocabulary,
        spine.selection().listing,
        spine.files()[0],
        spine.plan_download(),
        spine.scan(),
        spine.verify(),
        spine.export_parquet(tmp_path / "out", image_size=SIZE),
        read_tables(spine.scan().cases),
        lazy,
        lazy[0],
        pair,
    ):
        assert len(repr(value)) < 800, value
        assert repr(value).startswith(type(value).__name__), value
    assert repr(pair) == "VolumePair(shape=(4, 6, 5), spacing 2.5 x 0.7 x 0.8 mm, orientation 'SLA')"


def test_reports_are_tables_in_a_notebook(spine, tmp_path):
    spine.place.folder.joinpath("x<.nii.gz").touch()
    page = spine.verify()._repr_html_()
    assert "<th>hint</th>" in page
    assert "<td>x&lt;.nii.gz</td>" in page
    page = spine.export_parquet(tmp_path / "out", image_size=SIZE, config="2d")._repr_html_()
    assert page.startswith(f"<p>{tmp_path / 'out'}: shards: 3 made, 0 kept; failures: 0</p><table>")
    assert page.count("<tr>") == 4
    rows = spine.load("3d", split="test", storage="compact", image_size=None, cache_dir=tmp_path / "cache")
    page = ctspine1k.LazyDataset(rows)[0]._repr_html_()
    assert "<tr><td>patient_id</td><td>1.3.6.1.4.1.9328.50.4.0650</td></tr>" in page


@pytest.mark.parametrize("verb", ["preview", "write_points", "evaluate", "scan"])
def test_a_path_may_begin_with_the_home_folder(tmp_path, monkeypatch, verb):
    home, here = tmp_path / "home", tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(home))
    root = make_phantom(tmp_path / "verse", "verse")
    verse = ctspine1k.open_collection("verse", data_dir=root, split_file=root / "split.txt").select(
        "verse223"
    )
    given = {
        "write_points": ["~/out", "mask"],
        "evaluate": [root / "01_training/derivatives", "~/out"],
        "preview": ["~/out/a.png"],
    }
    getattr(verse, verb)(*given.get(verb, ["~/out/a.parquet"]))
    assert list((home / "out").iterdir())
    assert not list(here.iterdir())
