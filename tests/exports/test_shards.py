import gzip
import inspect
import json
import pickle
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
from support.compare import identical, rows, wanted
from support.exports import export_parquet
from support.volumes import ALL_IDS, IDS, SIZE, break_case, files_of, intensities, save, save_case

import ctspine1k
from ctspine1k.demo.phantom import make_phantom
from ctspine1k.errors import HubError, NoSpaceError, WorkerError
from ctspine1k.exports import shards
from ctspine1k.exports.encoding import writer_settings
from ctspine1k.exports.ledger import begin, read_records
from ctspine1k.exports.opening import open_target
from ctspine1k.exports.options import ExportOptions
from ctspine1k.exports.plan import plan_shards
from ctspine1k.exports.run import Export
from ctspine1k.exports.shards import export_shard
from ctspine1k.exports.url_target import UrlTarget
from ctspine1k.files.selection import case_files, open_selection
from ctspine1k.rows.features import features_of
from ctspine1k.running.disk import sha256_of
from ctspine1k.running.executors import InProcess


def selection_of(cases, **place):
    """The selection of cases, by id."""
    chosen = open_selection(**place)
    return chosen.keep(chosen.cases.select(cases))


@pytest.fixture
def task(tree, split_file, tmp_path, name):
    """The shard of train, with both of its cases."""
    target = open_target(tmp_path / "out")
    begin(target, [], "run")
    options = ExportOptions(config=name, image_size=SIZE, geometry=True)
    selection = selection_of(IDS["train"], data_dir=tree, split_file=split_file)
    return task_of(selection, target, options)


def task_of(selection, target, options):
    """The first shard of a selection."""
    export = Export(selection, target, options, options.rows(selection.data_set), InProcess())
    return replace(export.plan(case_files(selection, "raise")[0], {})[0], run="run")


def fresh(task, **place):
    """The task with the files as they are now, or those of another place."""
    place = place or {"data_dir": task.place.folder}
    selection = open_selection(**place)
    files, _ = case_files(selection.keep(selection.catalog.keep(task.shard.cases)), "raise")
    return replace(task, files=tuple(files), place=selection.place)


def test_the_plan_is_of_the_selection_alone():
    cases = list(ctspine1k.load_catalog())
    plan = plan_shards(cases, ["3d", "2d"], 4)
    assert plan[0].path == "3d/train/00000-of-00153.parquet"
    assert [shard.path for shard in plan[:3:2]] == [
        "3d/train/00000-of-00153.parquet",
        "3d/train/00001-of-00153.parquet",
    ]
    assert plan[1] == replace(plan[0], config="2d")
    assert len({shard.path for shard in plan}) == len(plan) == 2 * (153 + 50 + 50)
    for config in ("3d", "2d"):
        assert [case for shard in plan if shard.config == config for case in shard.cases] == cases
    assert plan_shards(cases, ["3d"], 4) == [shard for shard in plan if shard.config == "3d"]
    assert len(plan_shards(cases, ["3d"], 10_000)) == 3


def test_a_shard_holds_the_rows_that_nibabel_gives(task, tree, name):
    outcome = export_shard(task)
    assert (outcome.problems, outcome.warnings) == ({}, ())
    path = task.target.root / task.shard.path
    made = datasets.Dataset(pq.read_table(path))
    right = wanted(tree, name, "train")
    assert identical([{key: row[key] for key in right[0]} for row in rows(made)], right)
    record = outcome.record
    assert (record.rows, record.bytes) == (len(right), path.stat().st_size)
    assert record.cases == IDS["train"]
    with path.open("rb") as file:
        assert sha256_of(file) == record.sha256
    assert len(record.files) == 4
    assert read_records(task.target, task.target.files())[task.shard.path].record == record


def test_columns_are_lists_and_beside_them_stands_what_they_are_to_datasets(task, name):
    export_shard(task)
    schema = pq.read_schema(task.target.root / task.shard.path)
    assert "extension" not in str(schema)
    told = schema.metadata[b"huggingface"].decode()
    assert datasets.Features.from_dict(json.loads(told)["info"]["features"]) == features_of(task.options)
    assert '"Sequence"' in told  # datasets 3 knows no "List"
    assert '"List"' not in told


def test_voxels_are_encoded_as_was_measured(task, name):
    export_shard(task)
    file = pq.ParquetFile(task.target.root / task.shard.path)
    groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
    # 3d: a volume each; 2d: slices of one case each.
    assert [group.num_rows for group in groups] == ([1, 1] if name == "3d" else [3, 4])
    for group in groups:
        columns = {group.column(n).path_in_schema: group.column(n) for n in range(group.num_columns)}
        image = next(column for path, column in columns.items() if path.startswith("image."))
        mask = next(column for path, column in columns.items() if path.startswith("segmentation."))
        assert "BYTE_STREAM_SPLIT" in image.encodings
        assert "RLE_DICTIONARY" not in (*image.encodings, *mask.encodings)
        assert {column.compression for column in columns.values()} == {"ZSTD"}
        assert all(column.has_offset_index for column in columns.values())
        assert columns["patient_id"].statistics.min == columns["patient_id"].statistics.max
        assert image.statistics is None


def test_a_row_group_holds_some_slices(tmp_path):
    save_case(tmp_path / "tree", "liver_106", shape=(6, 5, 35))
    export_parquet(
        tmp_path / "out", config="2d", data_dir=tmp_path / "tree", cases="liver_106", image_size=SIZE
    )
    file = pq.ParquetFile(tmp_path / "out/2d/train/00000-of-00001.parquet")
    assert [file.metadata.row_group(n).num_rows for n in range(3)] == [16, 16, 3]


def test_the_same_task_gives_the_same_bytes(task, name):
    first = export_shard(task).record
    data = (task.target.root / task.shard.path).read_bytes()
    assert export_shard(task).record == first
    assert (task.target.root / task.shard.path).read_bytes() == data


def with_state(files, state):
    """The files of a case, with the image in another state."""
    image = replace(files["image"], state=state)
    return replace(files, files={**files.files, "image": image})


@pytest.mark.parametrize(
    ("options", "inputs"),
    [
        ({"config": "3d"}, "16dc4bd3de02f0f2f72ae155847e2f1756e6e22568096712a43742a54b32fd86"),
        (
            {
                "config": "2d",
                "image_size": SIZE,
                "geometry": True,
                "orientation": "RAS",
                "label_scheme": "binary",
            },
            "46d05e25ebc6f1f172bdacf0026eb284af8a92dcc8ba28e7c884aad364166529",
        ),
    ],
    ids=["3d", "2d"],
)
def test_what_was_exported_stays_current(tmp_path, options, inputs):
    """Another hash of the same inputs would have every export made again."""
    for kind, name in (("image", "liver_106.nii.gz"), ("mask", "liver_106_seg.nii.gz")):
        (tmp_path / name).write_text(kind)
    selection = selection_of("liver_106", data_dir=tmp_path)
    made = task_of(selection, open_target(tmp_path / "out"), ExportOptions(**options))
    (files,) = made.files
    states = {"image": "image.nii.gz 12 34", "mask": "mask.nii.gz 5 67"}
    files = replace(files, files={kind: replace(files[kind], state=states[kind]) for kind in states})
    cases = (files.case, selection.catalog["liver_0"])
    made = replace(
        made, shard=replace(made.shard, cases=cases), files=(files,), missing={"liver_0": "no mask file"}
    )
    assert made.inputs == inputs


def test_what_a_shard_is_made_of(task, name):
    def of(**changes):
        return replace(task, **changes).inputs

    assert of() == task.inputs
    same = of(
        target=open_target(task.target.root / "other"),
        version="0.0.1",
        run="another",
        on_error="skip",
        options=replace(task.options, on_geometry="raise"),
    )
    assert same == task.inputs
    others = [
        of(options=replace(task.options, geometry=False)),
        of(options=replace(task.options, label_scheme="binary")),
        of(options=replace(task.options, on_voxels="replace")),
        of(files=(with_state(task.files[0], "another"), task.files[1])),
        of(missing={"liver_0": "no mask file"}),
        of(shard=replace(task.shard, cases=task.shard.cases[:1])),
    ]
    assert len({task.inputs, *others}) == len(others) + 1


def test_a_broken_case_fails_the_shard_and_each_is_named(task, tree, name):
    export_shard(task)
    before = (task.target.root / task.shard.path).read_bytes()
    paths = [break_case(tree, case_id) for case_id in IDS["train"]]
    outcome = export_shard(fresh(task))
    assert outcome.record is None
    assert list(outcome.problems) == IDS["train"]
    assert "raw_data/volumes/any/liver_106.nii.gz: expected" in outcome.problems["liver_106"]
    assert str(paths[0].parent) not in str(outcome.problems)
    assert (task.target.root / task.shard.path).read_bytes() == before
    assert not list(task.target.scratch().iterdir())


def test_a_broken_case_that_is_skipped_is_left_out_whole(task, tree, name):
    break_case(tree, "liver_106")
    record = export_shard(replace(fresh(task), on_error="skip")).record
    assert record.cases == IDS["train"][:1]
    assert list(record.skipped) == ["liver_106"]
    assert "expected" in record.skipped["liver_106"]
    assert str(tree) not in record.skipped["liver_106"]
    table = pq.read_table(task.target.root / task.shard.path)
    assert set(table["patient_id"].to_pylist()) == set(IDS["train"][:1])


def test_a_shard_of_which_nothing_is_left_is_empty(task, tree, name):
    for case_id in IDS["train"]:
        break_case(tree, case_id)
    record = export_shard(replace(fresh(task), on_error="skip")).record
    assert (record.rows, record.cases) == (0, [])
    assert pq.read_table(task.target.root / task.shard.path).num_rows == 0


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_files_that_were_replaced_meanwhile_are_no_part_of_it(task, tree, on_error, name):
    path = next(tree.rglob("liver_106.nii.gz"))
    save(path, intensities(seed=7, shape=(6, 5, 4)))
    outcome = export_shard(replace(task, on_error=on_error))
    assert outcome.record is None
    assert "expected the files that were there when the export began" in outcome.problems["liver_106"]


def test_a_file_that_is_gone_is_named(task, tree, name):
    next(tree.rglob("liver_106_seg.nii.gz")).unlink()
    (problem,) = export_shard(task).problems.items()
    assert problem[0] == "liver_106"
    assert "liver_106_seg.nii.gz: expected the raw file that was there when the work began" in problem[1]


@pytest.mark.skipif(sys.platform != "linux", reason="a file that fails when it is read is in /proc")
def test_a_disk_that_fails_is_no_reason_to_leave_a_case_out(task, tree, name):
    path = next(tree.rglob("liver_106.nii.gz"))
    path.unlink()
    path.symlink_to("/proc/self/mem")  # which cannot be read from its start
    outcome = export_shard(replace(fresh(task), on_error="skip"))
    assert outcome.record is None
    assert "Input/output error" in outcome.problems["liver_106"]


def test_a_run_that_is_over_leaves_the_shard_to_the_next(task, name):
    begin(task.target, [], "the next")
    with pytest.raises(WorkerError, match="expected the run that this shard belongs to, found another one"):
        export_shard(task)
    assert not (task.target.root / task.shard.path).exists()


def test_an_upload_that_outlives_its_run_is_taken_back(task, name, monkeypatch):
    folder = open_target(f"memory://late-{name}/out")
    begin(folder, [], "run")
    put = UrlTarget._put

    def slow(self, written, path, **options):
        put(self, written, path, **options)
        if path == task.shard.path:
            begin(folder, [], "the next")

    with monkeypatch.context() as patch:
        patch.setattr(UrlTarget, "_put", slow)
        with pytest.raises(WorkerError, match="found another one"):
            export_shard(replace(task, target=folder))
    assert list(folder.files()) == [".ctspine1k/kept.json"]


def test_one_shard_at_a_time_in_a_process(task, tmp_path, name, monkeypatch):
    make, at_work = shards._Maker.make, []

    def alone(maker):
        at_work.append(maker)
        time.sleep(0.05)
        assert at_work == [maker]
        record = make(maker)
        at_work.remove(maker)
        return record

    monkeypatch.setattr(shards._Maker, "make", alone)
    others = [replace(task, target=open_target(tmp_path / str(number))) for number in range(3)]
    for other in others:
        begin(other.target, [], "run")
    with ThreadPoolExecutor(3) as pool:
        records = [outcome.record for outcome in pool.map(export_shard, others)]
    assert records == [export_shard(task).record] * 3


def test_masks_that_lie_elsewhere_are_told(task, tree, name):
    path = next(tree.rglob("liver_106_seg.nii.gz"))
    data = bytearray(gzip.decompress(path.read_bytes()))
    data[80:84] = np.float32(9.0).tobytes()  # pixdim[1] and sform's first entry
    data[280:284] = np.float32(9.0).tobytes()
    path.write_bytes(gzip.compress(bytes(data)))
    task = fresh(task)
    outcome = export_shard(task)
    assert ["liver_106" in told for told in outcome.warnings] == [True]
    assert outcome.record.misplaced == ["liver_106"]
    strict = replace(task, options=replace(task.options, on_geometry="raise"))
    assert task.is_made(outcome.record)
    assert not strict.is_made(outcome.record)
    assert list(export_shard(strict).problems) == ["liver_106"]


def test_a_worker_of_another_version_says_so(task, name):
    with pytest.raises(WorkerError, match=r"a worker has ctspine1k .*, the work was begun by 9\.9\.9"):
        export_shard(replace(task, version="9.9.9"))


@pytest.mark.slow
def test_a_hub_that_fails_now_and_then_is_asked_again(task, publish, tree, hub, name):
    task = replace(fresh(task, repo_id=publish(tree)), pauses=(0.01, 0.01, 0.01))
    hub.faults["liver_106.nii.gz"] = [500, {"cut_after": 40}, 500]
    outcome = export_shard(task)
    made = datasets.Dataset(pq.read_table(task.target.root / task.shard.path))
    right = wanted(tree, name, "train")
    assert identical([{key: row[key] for key in right[0]} for row in rows(made)], right)
    assert outcome.record.files["raw_data/volumes/any/liver_106.nii.gz"]["sha256"]
    assert hub.faults["liver_106.nii.gz"] == []


def test_a_hub_that_always_fails_is_told(task, publish, tree, hub, name):
    task = replace(fresh(task, repo_id=publish(tree)), pauses=(0.01, 0.01, 0.01))
    hub.faults["liver_106_seg.nii.gz"] = [500] * 99
    with pytest.raises(HubError):
        export_shard(task)
    assert not (task.target.root / task.shard.path).exists()


def test_a_disk_that_is_full_is_told_and_nothing_is_left(task, name, small_disk):
    task = replace(task, target=open_target(small_disk.root / "out"))
    begin(task.target, [], "run")
    small_disk.fill()
    with pytest.raises(NoSpaceError, match=f"expected room for shard {name}/train/00000-of-00001"):
        export_shard(task)
    assert list(task.target.files()) == [".ctspine1k/kept.json"]


def test_a_task_is_sent_without_a_token_and_without_a_listing(publish, hub, split_file, tmp_path):
    root = tmp_path / "many"
    for seed, case_id in enumerate(ALL_IDS):
        save_case(root, case_id, seed=seed)
    repo_id = publish(root)
    hub.repos[repo_id].token = "hf_secret"
    selection = open_selection(repo_id=repo_id, split_file=split_file, token="hf_secret")
    options = ExportOptions(image_size=SIZE, cases_per_shard=1)
    made = task_of(selection, open_target(tmp_path / "out"), options)
    assert len(selection.listing) == 8
    sent = pickle.dumps(made)
    assert b"hf_secret" not in sent
    assert len(pickle.dumps(made.place)) < 500
    assert not [case_id for case_id in ALL_IDS[1:] if case_id.encode() in sent]
    assert pickle.loads(sent).place.commit == selection.place.commit  # noqa: S301


@pytest.mark.slow
def test_content_defined_chunking_would_change_nothing(tmp_path, monkeypatch, name):
    """A page is a slice, or a volume, already: pyarrow, where it can, would cut at the same places."""
    root = tmp_path / "tree"
    image = np.cumsum(intensities(3, (512, 512, 20), "<i2") % 7 - 3, axis=0, dtype="<i2")
    save(root / "liver_106.nii.gz", image)
    save(root / "liver_106_seg.nii.gz", (image > 9).astype("u1"))
    options = {"config": name, "data_dir": root, "cases": "liver_106"}
    export_parquet(tmp_path / "plain", **options)
    if "use_content_defined_chunking" in inspect.signature(pq.ParquetWriter.__init__).parameters:
        monkeypatch.setattr(
            shards,
            "writer_settings",
            lambda schema: writer_settings(schema) | {"use_content_defined_chunking": True},
        )
    export_parquet(tmp_path / "chunked", **options)
    assert files_of(tmp_path / "plain") == files_of(tmp_path / "chunked")


def test_paths_of_files_beside_others_are_relative_too(tmp_path):
    pytest.importorskip("SimpleITK")
    root = make_phantom(tmp_path / "msr", "msr")
    (raw,) = root.rglob("*.raw")
    raw.write_bytes(raw.read_bytes()[:-10])
    msr = ctspine1k.open_collection("msr", data_dir=root, split_file=root / "split.txt")
    report = msr.export_parquet(tmp_path / "out", config="2d", on_error="skip")
    assert report.skipped["4553575"].startswith("spine-2/patient0002/4553575/4553575.raw: expected")
