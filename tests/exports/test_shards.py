import gzip
import inspect
import json
import pickle
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
from ctspine1k.files.sources import find_source
from support.compare import identical, rows, wanted
from support.volumes import ALL_IDS, IDS, SIZE, break_case, files_of, intensities, save, save_case

import ctspine1k
from ctspine1k.errors import HubError, NoSpaceError, WorkerError
from ctspine1k.exports import shards
from ctspine1k.exports.ledger import begin, read_records
from ctspine1k.exports.shards import ShardTask, export_shard, plan_shards
from ctspine1k.exports.targets import UrlTarget, open_target
from ctspine1k.files.selection import pair_files
from ctspine1k.rows.batches import RowOptions
from ctspine1k.running.disk import sha256_of
from ctspine1k.running.retries import retry


@pytest.fixture
def task(tree, split_file, tmp_path, name):
    """The shard of train, with both of its cases."""
    cases = [case for case in ctspine1k.load_catalog(split_file=split_file) if case.split == "train"]
    folder = open_target(tmp_path / "out")
    begin(folder, [], "run")
    empty = ShardTask(
        shard=plan_shards(cases, [name], 4)[0],
        files=(),
        states=(),
        missing={},
        options=RowOptions(name, image_size=SIZE, geometry=True),
        on_error="raise",
        source=find_source(tree),
        folder=folder,
        run="run",
    )
    return fresh(empty)


def fresh(task, source=None):
    """The task with the files as they are now, or those of another place."""
    source = source or find_source(task.source.root)
    pairs, _ = pair_files(source, list(task.shard.cases), "raise")
    states = tuple((source.state(pair.image), source.state(pair.mask)) for pair in pairs)
    return replace(task, files=tuple(pairs), states=states, source=source.pinned())


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
    path = task.folder.root / task.shard.path
    made = datasets.Dataset(pq.read_table(path))
    right = wanted(tree, name, "train")
    assert identical([{key: row[key] for key in right[0]} for row in rows(made)], right)
    record = outcome.record
    assert (record.rows, record.bytes) == (len(right), path.stat().st_size)
    assert record.cases == IDS["train"]
    with path.open("rb") as file:
        assert sha256_of(file) == record.sha256
    assert len(record.files) == 4
    assert read_records(task.folder, task.folder.files())[task.shard.path].record == record


def test_columns_are_lists_and_beside_them_stands_what_they_are_to_datasets(task, name):
    export_shard(task)
    schema = pq.read_schema(task.folder.root / task.shard.path)
    assert "extension" not in str(schema)
    told = schema.metadata[b"huggingface"].decode()
    assert datasets.Features.from_dict(json.loads(told)["info"]["features"]) == task.options.features()
    assert '"Sequence"' in told  # datasets 3 knows no "List"
    assert '"List"' not in told


def test_voxels_are_encoded_as_was_measured(task, name):
    export_shard(task)
    file = pq.ParquetFile(task.folder.root / task.shard.path)
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
    ctspine1k.export_parquet(
        tmp_path / "out", config="2d", data_dir=tmp_path / "tree", case="liver_106", image_size=SIZE
    )
    file = pq.ParquetFile(tmp_path / "out/2d/train/00000-of-00001.parquet")
    assert [file.metadata.row_group(n).num_rows for n in range(3)] == [16, 16, 3]


def test_the_same_task_gives_the_same_bytes(task, name):
    first = export_shard(task).record
    data = (task.folder.root / task.shard.path).read_bytes()
    assert export_shard(task).record == first
    assert (task.folder.root / task.shard.path).read_bytes() == data


def test_what_a_shard_is_made_of(task, name):
    def of(**changes):
        return replace(task, **changes).inputs

    assert of() == task.inputs
    same = of(
        folder=open_target(task.folder.root / "other"),
        version="0.0.1",
        run="another",
        on_error="skip",
        options=replace(task.options, on_geometry="raise"),
    )
    assert same == task.inputs
    others = [
        of(options=replace(task.options, geometry=False)),
        of(options=replace(task.options, label_scheme="binary")),
        of(states=(("a", "b"), task.states[1])),
        of(missing={"liver_0": "no mask file"}),
        of(shard=replace(task.shard, cases=task.shard.cases[:1])),
    ]
    assert len({task.inputs, *others}) == len(others) + 1


def test_a_broken_case_fails_the_shard_and_each_is_named(task, tree, name):
    export_shard(task)
    before = (task.folder.root / task.shard.path).read_bytes()
    paths = [break_case(tree, case_id) for case_id in IDS["train"]]
    outcome = export_shard(fresh(task))
    assert outcome.record is None
    assert list(outcome.problems) == IDS["train"]
    assert "raw_data/volumes/any/liver_106.nii.gz: expected" in outcome.problems["liver_106"]
    assert str(paths[0].parent) not in str(outcome.problems)
    assert (task.folder.root / task.shard.path).read_bytes() == before
    assert not list(task.folder.scratch().iterdir())


def test_a_broken_case_that_is_skipped_is_left_out_whole(task, tree, name):
    break_case(tree, "liver_106")
    record = export_shard(replace(fresh(task), on_error="skip")).record
    assert record.cases == IDS["train"][:1]
    assert list(record.skipped) == ["liver_106"]
    assert "expected" in record.skipped["liver_106"]
    assert str(tree) not in record.skipped["liver_106"]
    table = pq.read_table(task.folder.root / task.shard.path)
    assert set(table["patient_id"].to_pylist()) == set(IDS["train"][:1])


def test_a_shard_of_which_nothing_is_left_is_empty(task, tree, name):
    for case_id in IDS["train"]:
        break_case(tree, case_id)
    record = export_shard(replace(fresh(task), on_error="skip")).record
    assert (record.rows, record.cases) == (0, [])
    assert pq.read_table(task.folder.root / task.shard.path).num_rows == 0


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
    assert "liver_106_seg.nii.gz: expected the raw file that was there when the export began" in problem[1]


def test_a_disk_that_fails_is_no_reason_to_leave_a_case_out(task, tree, name):
    path = next(tree.rglob("liver_106.nii.gz"))
    path.unlink()
    path.symlink_to("/proc/self/mem")  # which cannot be read from its start
    outcome = export_shard(replace(fresh(task), on_error="skip"))
    assert outcome.record is None
    assert "Input/output error" in outcome.problems["liver_106"]


def test_a_run_that_is_over_leaves_the_shard_to_the_next(task, name):
    begin(task.folder, [], "the next")
    with pytest.raises(WorkerError, match="expected the run that this shard is of, found another one"):
        export_shard(task)
    assert not (task.folder.root / task.shard.path).exists()


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
            export_shard(replace(task, folder=folder))
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
    others = [replace(task, folder=open_target(tmp_path / str(number))) for number in range(3)]
    for other in others:
        begin(other.folder, [], "run")
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
    with pytest.raises(WorkerError, match=r"a worker has ctspine1k .*, the export was begun by 9\.9\.9"):
        export_shard(replace(task, version="9.9.9"))


def test_a_hub_that_fails_now_and_then_is_asked_again(task, publish, tree, hub, name, monkeypatch):
    monkeypatch.setattr("ctspine1k.exports.shards.retry", partial(retry, pauses=(0.01, 0.01, 0.01)))
    task = fresh(task, find_source(None, publish(tree)))
    hub.faults["liver_106.nii.gz"] = [500, {"cut_after": 40}, 500]
    outcome = export_shard(task)
    made = datasets.Dataset(pq.read_table(task.folder.root / task.shard.path))
    right = wanted(tree, name, "train")
    assert identical([{key: row[key] for key in right[0]} for row in rows(made)], right)
    assert outcome.record.files["raw_data/volumes/any/liver_106.nii.gz"]["sha256"]
    assert hub.faults["liver_106.nii.gz"] == []


def test_a_hub_that_always_fails_is_told(task, publish, tree, hub, name, monkeypatch):
    monkeypatch.setattr("ctspine1k.exports.shards.retry", partial(retry, pauses=(0.01, 0.01, 0.01)))
    task = fresh(task, find_source(None, publish(tree)))
    hub.faults["liver_106_seg.nii.gz"] = [500] * 99
    with pytest.raises(HubError):
        export_shard(task)
    assert not (task.folder.root / task.shard.path).exists()


def test_a_disk_that_is_full_is_told_and_nothing_is_left(task, name, small_disk):
    task = replace(task, folder=open_target(small_disk.root / "out"))
    begin(task.folder, [], "run")
    small_disk.fill()
    with pytest.raises(NoSpaceError, match=f"expected room for shard {name}/train/00000-of-00001"):
        export_shard(task)
    assert list(task.folder.files()) == [".ctspine1k/kept.json"]


def test_a_source_is_sent_without_what_it_has_looked_up(publish, split_file, tmp_path):
    root = tmp_path / "many"
    for seed, case_id in enumerate(ALL_IDS):
        save_case(root, case_id, seed=seed)
    source = find_source(None, publish(root))
    cases = list(ctspine1k.load_catalog(split_file=split_file))
    assert len(source.find(cases)) == 8
    assert len(pickle.dumps(source.pinned())) < 500
    assert "_records" not in vars(source.pinned())
    assert source.pinned().commit == source.commit


def test_content_defined_chunking_would_change_nothing(tmp_path, monkeypatch, name):
    """A page is a slice, or a volume, already: pyarrow, where it can, would cut at the same places."""
    root = tmp_path / "tree"
    image = np.cumsum(intensities(3, (512, 512, 20), "<i2") % 7 - 3, axis=0, dtype="<i2")
    save(root / "liver_106.nii.gz", image)
    save(root / "liver_106_seg.nii.gz", (image > 9).astype("u1"))
    options = {"config": name, "data_dir": root, "case": "liver_106"}
    ctspine1k.export_parquet(tmp_path / "plain", **options)
    if "use_content_defined_chunking" in inspect.signature(pq.ParquetWriter.__init__).parameters:
        settings = shards._settings
        monkeypatch.setattr(
            shards, "_settings", lambda schema: settings(schema) | {"use_content_defined_chunking": True}
        )
    ctspine1k.export_parquet(tmp_path / "chunked", **options)
    assert files_of(tmp_path / "plain") == files_of(tmp_path / "chunked")
