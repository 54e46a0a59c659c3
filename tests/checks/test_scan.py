"""Scans of real files in real processes: tables, what they hold, going on after a stop."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import nibabel as nib
import numpy as np
import pandas as pd
import polars as pl
import pytest
from support.paths import ROOT, names_of_bytes
from support.processes import interrupt_at, is_at_its_end, release, wait_until
from support.scans import start, wait_for_notes
from support.spines import save_spine, spine
from support.verbs import chosen, scan_files, verify_files
from support.volumes import ALL_IDS, break_case, files_of, save

import ctspine1k
from ctspine1k.checks.records import Records, own_records
from ctspine1k.errors import (
    BusyError,
    CTSpine1KWarning,
    HubError,
    MissingFilesError,
    MissingPackageError,
    NoSpaceError,
    OutputError,
    ScanTableError,
    SkippedCasesWarning,
    WorkerError,
)
from ctspine1k.files.folder import FolderPlace
from ctspine1k.files.transfer import worker_start
from ctspine1k.running.disk import exclusive_lock
from ctspine1k.scans.containing import cases_containing
from ctspine1k.scans.tables import CASES, SCAN_VERSION, VERTEBRAE, read_tables


@pytest.fixture
def spines(tmp_path):
    """Three cases: T11 to L2, L4 to L6, C1 to C3."""
    root = tmp_path / "spines"
    save_spine(root, "liver_106", *spine([18, 19, 20, 21]), folder="MSD-T10")
    save_spine(root, "liver_83", *spine([23, 24, 25]), folder="MSD-T10")
    save_spine(root, "HN_P023", *spine([1, 2, 3]), folder="HNSCC-3DCT-RT")
    return root


IDS = ["liver_83", "liver_106", "HN_P023"]  # in the catalog's order: by split, then as in the split file


@pytest.fixture(autouse=True)
def order():
    assert [case.case_id for case in ctspine1k.load_catalog().select(IDS)] != sorted(IDS)


def scan(root, **options):
    return scan_files(data_dir=root, cases=IDS, **options)


def verify(root):
    return verify_files(data_dir=root, cases=IDS)


def test_tables_hold_what_is_in_the_files(spines):
    report = scan(spines)
    assert report.cases == spines / "cases.parquet"
    assert report.vertebrae == spines / "cases.vertebrae.parquet"
    assert (report.measured, report.kept, report.problems, report.missing) == (3, 0, {}, {})
    cases = pd.read_parquet(report.cases).set_index("case_id")
    assert list(cases.index) == [case.case_id for case in ctspine1k.load_catalog().select(IDS)]
    for case_id, row in cases.iterrows():
        image = nib.load(next(spines.rglob(f"{case_id}.nii.gz")))
        hu = image.get_fdata()
        assert row["shape"].tolist() == list(np.array(hu.shape)[[2, 0, 1]])
        assert row.spacing.tolist() == pytest.approx([1.5, 0.9, 0.8])
        assert np.array_equal(np.stack(row.affine), image.affine)
        assert (row.hu_min, row.hu_max) == (hu.min(), hu.max())
        case = ctspine1k.load_catalog()[case_id]
        assert (row.split, row["index"], row.source) == (case.split, case.index, case.source)
        assert row.problem is None or pd.isna(row.problem)
    assert cases.vertebrae["liver_83"].tolist() == ["L4", "L5", "L6"]
    assert cases.labels["HN_P023"].tolist() == [1, 2, 3]
    vertebrae = pd.read_parquet(report.vertebrae)
    of_case = vertebrae[vertebrae.case_id == "liver_106"]
    assert of_case.vertebra.tolist() == ["T11", "T12", "L1", "L2"]
    assert of_case.region.tolist() == ["thoracic"] * 2 + ["lumbar"] * 2
    assert (vertebrae.components == 1).all()
    assert vertebrae.mean_hu.between(255, 265).all()
    assert sorted(path.name for path in spines.iterdir()) == [
        "cases.parquet",
        "cases.vertebrae.parquet",
        "raw_data",
    ]


@pytest.mark.processes
def test_the_same_files_give_the_same_bytes_however_many_processes(spines, tmp_path):
    first = scan(spines, out=tmp_path / "a.parquet", num_proc=1)
    second = scan(spines, out=tmp_path / "b.parquet", num_proc=2)
    assert first.cases.read_bytes() == second.cases.read_bytes()
    assert first.vertebrae.read_bytes() == second.vertebrae.read_bytes()


def test_pandas_polars_and_duckdb_read_them(spines):
    report = scan(spines)
    counts = {"pandas": pd.read_parquet(report.vertebrae).groupby("case_id").size().to_dict()}
    counts["polars"] = dict(pl.read_parquet(report.vertebrae).group_by("case_id").len().iter_rows())
    counts["duckdb"] = dict(
        duckdb.sql(f"select case_id, count(*) from '{report.vertebrae}' group by case_id").fetchall()
    )
    assert counts["pandas"] == counts["polars"] == counts["duckdb"] == dict(zip(IDS, [3, 4, 3], strict=True))
    with_l6 = duckdb.sql(f"select case_id from '{report.cases}' where list_contains(vertebrae, 'L6')")
    assert with_l6.fetchall() == [("liver_83",)]
    assert pl.read_parquet(report.cases).columns == pd.read_parquet(report.cases).columns.tolist()
    (box,) = pl.read_parquet(report.vertebrae).filter(pl.col("vertebra") == "L6").select("start").rows()
    assert box[0][0] == 4


def test_a_bounding_box_is_a_slice_of_the_rows(spines, tmp_path):
    report = scan(spines)
    (row,) = ctspine1k.load_dataset(
        "3d", split="validation", data_dir=spines, cases="HN_P023", image_size=(56, 80), cache_dir=tmp_path
    ).with_format("numpy")
    table = pd.read_parquet(report.vertebrae)
    for _, one in table[table.case_id == "HN_P023"].iterrows():
        box = tuple(map(slice, one.start, one["stop"]))
        assert (row["segmentation"][box] == one.label).sum() == one.voxels
        assert (row["segmentation"] == one.label).sum() == one.voxels


def test_columns_are_those_that_the_module_tells():
    from ctspine1k.scans import tables

    for name in (*CASES.names, *VERTEBRAE.names):
        if name not in ("split", "index", "special_case"):  # "case_id ... source"
            assert name in tables.__doc__, name


def test_a_second_scan_reads_only_what_has_changed(spines):
    scan(spines)
    assert (scan(spines).measured, scan(spines).kept) == (0, 3)
    save_spine(spines, "liver_106", *spine([18, 19]))
    report = scan(spines)
    assert (report.measured, report.kept) == (1, 2)
    cases = pd.read_parquet(report.cases).set_index("case_id")
    assert cases.vertebrae["liver_106"].tolist() == ["T11", "T12"]
    # Of a part of the cases: the others' rows stay.
    report = scan_files(data_dir=spines, cases="HN_P023")
    assert (report.measured, report.kept) == (0, 1)
    assert len(pd.read_parquet(report.cases)) == 3


def with_sacrum(root, case_id="liver_106"):
    """Add a label that the data set does not have to a mask."""
    path = next(root.rglob(f"{case_id}_seg.nii.gz"))
    stored = nib.load(path)
    mask = np.asarray(stored.dataobj).copy()
    mask[:5, :6, :2] = 26
    save(path, mask, affine=stored.affine)


@pytest.mark.slow
def test_labels_that_the_data_set_lacks_are_measured_as_background_if_told_so(spines, tmp_path):
    """A table says which there were; rows are used by other options only where they give the same."""
    clean = read_tables(scan(spines, out=tmp_path / "clean.parquet").cases)
    with_sacrum(spines)
    assert list(scan(spines).problems) == ["liver_106"]
    report = scan(spines, other_labels="background")
    assert (report.measured, report.kept, report.problems) == (1, 2, {})
    tables = read_tables(report.cases)
    assert tables.vertebrae == clean.vertebrae
    of_files = {"image_file", "mask_file", "other_labels"}
    for row, before in zip(tables.cases, clean.cases, strict=True):
        assert row["other_labels"] == ([26] if row["case_id"] == "liver_106" else [])
        assert {k: v for k, v in row.items() if k not in of_files} == {
            k: v for k, v in before.items() if k not in of_files
        }
    assert scan(spines, other_labels="background").kept == 3
    chosen = ctspine1k.open_collection(data_dir=spines).select(IDS)
    assert [case.case_id for case in chosen.where(has_vertebrae="T12")] == ["liver_106"]
    assert [case.case_id for case in chosen.where(has_vertebrae="L6")] == ["liver_83"]
    whole = report.cases.read_bytes()
    found = verify(spines)  # by default, such labels are an error, and the scan's table is left as it is
    assert [f.case_id for f in found.findings if f.check == "values"] == ["liver_106"]
    assert (found.kept, report.cases.read_bytes()) == (2, whole)
    found = verify_files(data_dir=spines, cases=IDS, other_labels="background")
    assert (found.measured, found.kept, report.cases.read_bytes()) == (3, 3, whole)
    assert "liver_106" not in {f.case_id for f in found.findings}
    report = scan(spines)
    assert (report.measured, report.kept, list(report.problems)) == (1, 2, ["liver_106"])
    # With other options it can be read, and it does not contain what was asked for.
    with pytest.warns(CTSpine1KWarning, match="kept without knowing what they contain, .*: liver_106\\."):
        assert len(chosen.where(has_vertebrae="L6")) == 2
    assert verify_files(data_dir=spines, cases=IDS, other_labels="background").kept == 2
    assert scan(spines, other_labels="background").kept == 3  # what verify has measured


@pytest.mark.slow
def test_voxels_that_are_not_finite_are_measured_as_padding_if_told_so(spines):
    """Else `has_vertebrae` would keep a case of which nothing is known, and which rows can have."""
    path = next(spines.rglob("liver_106.nii.gz"))
    voxels = np.asarray(nib.load(path).dataobj).astype("f4")
    voxels[0, 0, :2] = np.nan, np.inf
    save(path, voxels, affine=nib.load(path).affine)
    assert list(scan(spines).problems) == ["liver_106"]
    report = scan(spines, on_voxels="replace")
    assert (report.measured, report.kept, report.problems) == (1, 2, {})
    rows = {row["case_id"]: row for row in read_tables(report.cases).cases}
    assert {case_id: row["replaced_voxels"] for case_id, row in rows.items()} == dict.fromkeys(IDS, 0) | {
        "liver_106": 2
    }
    hu = voxels[np.isfinite(voxels)]  # without the padding
    assert (rows["liver_106"]["hu_min"], rows["liver_106"]["hu_max"]) == (hu.min(), hu.max())
    chosen = ctspine1k.open_collection(data_dir=spines).select(IDS)
    assert "liver_106" not in [case.case_id for case in chosen.where(has_vertebrae="L6")]
    whole = report.cases.read_bytes()
    found = verify(spines)  # by default, they are an error, and the scan's table is left as it is
    assert [f.check for f in found.findings if f.case_id == "liver_106"] == ["values"]
    assert (found.kept, report.cases.read_bytes()) == (2, whole)
    found = verify_files(data_dir=spines, cases=IDS, on_voxels="replace")
    (finding,) = [f for f in found.findings if f.case_id == "liver_106"]
    assert (finding.check, finding.level, finding.file) == ("padded", "warning", str(path))
    assert finding.found == "2 that are not, read as -1,024 HU"
    assert (found.kept, report.cases.read_bytes()) == (3, whole)
    for verb in (scan_files, verify_files):
        with pytest.raises(ValueError, match="on_voxels='skip': expected one of 'raise', 'replace'"):
            verb(data_dir=spines, cases=IDS, on_voxels="skip")


def test_rows_tell_of_the_split_file_that_was_given(spines, tmp_path):
    scan(spines)
    mine = tmp_path / "mine.txt"
    mine.write_text("test_private:\nliver_106\nHN_P023\n")
    report = scan_files(data_dir=spines, split_file=mine)
    assert (report.measured, report.kept) == (0, 2)
    cases = pd.read_parquet(report.cases).set_index("case_id")
    assert cases.split[["liver_106", "HN_P023"]].tolist() == ["test", "test"]
    assert cases["index"][["liver_106", "HN_P023"]].tolist() == [0, 1]


def test_what_no_scan_wrote_is_never_replaced(spines):
    report = scan(spines)
    report.vertebrae.unlink()
    assert scan(spines).measured == 3  # half a table is no table
    for content in (b"no Parquet file", b"PAR1 damaged PAR1"):
        report.cases.write_bytes(content)
        with pytest.raises(OutputError) as caught:
            scan(spines)
        assert caught.value.expected == "an intact Parquet file"
        assert report.cases.read_bytes() == content
    mine = spines / "mine.parquet"
    pd.DataFrame({"a": [1]}).to_parquet(mine)
    with pytest.raises(OutputError, match="expected a scan's table, found a Parquet file that no scan wrote"):
        scan(spines, out=mine)
    assert list(pd.read_parquet(mine).columns) == ["a"]
    with pytest.raises(ValueError, match=r"precious\.txt: expected a name that ends in \.parquet"):
        scan(spines, out=spines / "precious.txt")


def test_two_scans_do_not_write_one_table(spines):
    with (
        exclusive_lock((spines / "cases.parquet").absolute()),
        pytest.raises(BusyError, match="another process is writing this output"),
    ):
        scan(spines)
    assert scan(spines).measured == 3


def test_what_was_mended_is_measured_again(spines):
    path = next(spines.rglob("liver_106.nii.gz"))
    whole, times = path.read_bytes(), path.stat()
    break_case(spines)
    assert list(scan(spines).problems) == ["liver_106"]
    path.write_bytes(whole)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    report = scan(spines)
    assert (report.measured, report.kept, report.problems) == (1, 2, {})


def test_a_file_in_the_place_of_the_tables_folder_is_named(spines, tmp_path):
    (tmp_path / "taken").touch()
    with pytest.raises(OutputError, match=r"expected a folder, .* found the file .*taken"):
        scan(spines, out=tmp_path / "taken/cases.parquet")
    with pytest.warns(CTSpine1KWarning, match=r"measures are not stored .* found the file .*taken"):
        verify_files(data_dir=spines, cases=IDS[:1], table=tmp_path / "taken/cases.parquet")


def test_another_file_in_the_place_of_the_table_stays(spines, tmp_path):
    (tmp_path / "mine.parquet").write_bytes(b"mine")
    with pytest.raises(OutputError, match=r"Choose another --out, or move what is there away\."):
        scan(spines, out=tmp_path / "mine.parquet")
    with pytest.warns(CTSpine1KWarning, match=r"not stored .* Choose another --scan, or"):
        verify_files(data_dir=spines, cases=IDS[:1], table=tmp_path / "mine.parquet")
    assert (tmp_path / "mine.parquet").read_bytes() == b"mine"


def test_measures_that_cannot_be_stored_are_told_once(tmp_path):
    (tmp_path / "made").mkdir()
    optional = Records(tmp_path / "made/cases.parquet", is_optional=True)
    (tmp_path / "made").rmdir()
    with pytest.warns(CTSpine1KWarning, match="measures are not stored for other runs"):
        optional.note({"case": {"case_id": IDS[0]}})
    optional.note({"case": {"case_id": IDS[1]}})  # without a second warning, which would be an error
    required = Records(tmp_path / "made/cases.parquet")
    with pytest.raises(FileNotFoundError):
        required.note({"case": {"case_id": IDS[0]}})


def test_a_full_disk_is_told_with_what_a_scan_takes(spines, small_disk):
    small_disk.fill_up()
    with pytest.raises(NoSpaceError, match="expected room for a scan") as caught:
        scan(spines, out=small_disk.root / "cases.parquet")
    assert caught.value.needed == 3 * 16_384


@pytest.mark.parametrize("verb", [scan_files, verify_files])
def test_without_scipy_nothing_is_begun(repo_id, split_file, hub, tmp_path, monkeypatch, verb):
    monkeypatch.chdir(tmp_path)
    before = files_of(tmp_path)
    monkeypatch.setitem(sys.modules, "scipy", None)
    with hub.watched() as requests, pytest.raises(MissingPackageError):
        verb(repo_id=repo_id, split_file=split_file)
    assert requests == []
    assert files_of(tmp_path) == before


VERBS = (scan_files, verify_files, lambda **options: list(chosen(**options).points("mask")))


@pytest.mark.parametrize("verb", VERBS, ids=["scan", "verify", "points"])
def test_what_does_not_fit_on_the_disk_is_not_begun(repo_id, split_file, hub, tmp_path, monkeypatch, verb):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ctspine1k.files.hub.hub_space", lambda: (0, tmp_path))
    place = {"repo_id": repo_id, "split_file": split_file}
    with pytest.raises(NoSpaceError, match="expected room for a download") as caught:
        verb(**place)
    assert caught.value.needed == sum(file.size for file in ctspine1k.list_files(**place))
    assert hub.downloads() == {}


@pytest.mark.parametrize("verb", ["scan", "verify", "points"])
def test_each_verb_asks_for_the_workers_that_it_was_told_to(spines, monkeypatch, verb):
    """Which show no bars, and know the tokens."""
    arguments = ["mask"] if verb == "points" else []
    cases = ctspine1k.open_collection(data_dir=spines).select(IDS)
    with pytest.raises(ValueError, match="num_proc is for processes of this machine"):
        getattr(cases, verb)(*arguments, num_proc=2, scheduler="tcp://nowhere:1")

    def executor(num_proc, scheduler, *, initializer):
        raise ZeroDivisionError(initializer.func.__name__)

    monkeypatch.setattr(f"ctspine1k.checks.{verb}.executor", executor)
    with pytest.raises(ZeroDivisionError, match=worker_start().func.__name__):
        getattr(cases, verb)(*arguments)


def test_a_bar_on_a_terminal_says_what_is_done(spines, monkeypatch, capsys):
    monkeypatch.setattr("ctspine1k.running.progress.is_terminal", lambda: True)
    scan(spines)
    shown = capsys.readouterr().err
    assert "Scanning: 100%" in shown
    assert " 3/3 " in shown


def test_of_a_case_that_is_dropped_nothing_is_noted(spines):
    path, journal = scan(spines).cases, spines / ".cases.parquet.partial"
    (record,) = (row for row in read_tables(path).cases if row["case_id"] == "HN_P023")
    with own_records(path) as records:
        records.drop("liver_106")
        records.note({"version": SCAN_VERSION, "case": record, "vertebrae": []})
    noted = [
        json.loads(line.partition(" ")[2])["case"]["case_id"] for line in journal.read_text().split("\n")[1:]
    ]
    assert sorted(noted) == ["HN_P023", "HN_P023", "liver_83"]  # those of the tables first, in any order


def test_no_case_no_scan(spines):
    with pytest.raises(ValueError, match="no case is selected: check splits, cases, split_file"):
        scan(spines, split="test")


def test_broken_cases_have_a_row_that_says_why(spines):
    path = break_case(spines)
    report = scan(spines)
    assert list(report.problems) == ["liver_106"]
    row = pd.read_parquet(report.cases).set_index("case_id").loc["liver_106"]
    assert row.problem == report.problems["liver_106"]
    assert str(path) in row.problem
    assert "the end of the file in slice" in row.problem
    assert pd.isna(row.hu_min)
    assert set(pd.read_parquet(report.vertebrae).case_id) == {"liver_83", "HN_P023"}


def test_a_file_that_is_gone_when_it_is_read_is_a_problem_of_its_case(spines, monkeypatch):
    state = FolderPlace.state

    def gone(self, file):
        if file.case.case_id == "liver_106":
            raise FileNotFoundError(2, "No such file or directory", file.name)
        return state(self, file)

    monkeypatch.setattr(FolderPlace, "state", gone)
    report = scan(spines)
    assert list(report.problems) == ["liver_106"]
    assert "that was there when the work began, found none" in report.problems["liver_106"]
    row = pd.read_parquet(report.cases).set_index("case_id").loc["liver_106"]
    assert (row.image_file, row.mask_file) == ("", "")
    assert pd.isna(row.mask_type)


def test_both_files_of_a_case_may_be_broken(spines):
    for suffix in ("", "_seg"):
        break_case(spines, suffix=suffix)
    problem = scan(spines).problems["liver_106"]
    assert problem.count("the end of the file in slice") == 2


def test_missing_cases_are_named_and_in_no_table(spines):
    next(spines.rglob("HN_P023_seg.nii.gz")).unlink()
    with pytest.warns(SkippedCasesWarning, match=r"1 of 3 cases lacks raw files in .*HN_P023 \(mask\)"):
        report = scan(spines, on_missing="skip")
    assert report.missing == {"HN_P023": "mask"}
    page = report._repr_html_()
    assert "0 unusable, 1 missing</p><table>" in page
    assert page.endswith("<tr><td>HN_P023</td><td>no mask file</td></tr></table>")
    assert len(pd.read_parquet(report.cases)) == 2
    for options in ({}, {"on_missing": "raise"}):
        with pytest.raises(MissingFilesError) as caught:
            scan(spines, **options)
        assert caught.value.missing == {"HN_P023": "mask"}


@pytest.mark.parametrize(
    ("selected", "ids"),
    [
        ({"split": "validation"}, {"HN_P023"}),
        ({"source": "MSD-T10"}, {"liver_106", "liver_83"}),
        ({"special_case": "lumbar_sacralization"}, {"liver_83"}),
    ],
)
def test_selection(spines, selected, ids):
    report = scan(spines, **selected)
    assert set(pd.read_parquet(report.cases).case_id) == ids


def test_arguments(spines):
    with pytest.raises(ValueError, match="num_proc=0: expected 1 or more"):
        scan(spines, num_proc=0)
    with pytest.raises(ValueError, match="on_missing='ignore': expected one of 'raise', 'skip'"):
        scan(spines, on_missing="ignore")
    for verb in (scan_files, verify_files):
        with pytest.raises(ValueError, match="other_labels='ignore': expected one of 'raise', 'background'"):
            verb(data_dir=spines, cases=IDS, other_labels="ignore")
        with pytest.raises(
            ValueError, match="reading='affine': expected None, since CTSpine1K has no files of"
        ):
            verb(data_dir=spines, cases=IDS, reading="affine")


@pytest.mark.processes
def test_without_scipy_the_message_names_the_command(spines, python):
    code = """
import sys
sys.modules["scipy"] = None
import ctspine1k
try:
    ctspine1k.open_collection(data_dir=sys.argv[1]).scan()
except ctspine1k.CTSpine1KError as error:
    print(error)
"""
    run = python(code, str(spines))
    assert run.stdout == "measuring vertebrae needs scipy: pip install 'ctspine1k[scan]'\n", run.stderr


def test_the_hub_is_asked_once_for_the_revision(repo_id, split_file, hub, tmp_path):
    options = {"repo_id": repo_id, "split_file": split_file}
    scan_files(**options, out=tmp_path / "a.parquet")
    hub.requests.clear()
    scan_files(**options, out=tmp_path / "b.parquet")
    asked = [request.path for request in hub.requests if "/revision/main" in request.path]
    assert len(asked) <= 2, asked  # which commit it is, and its record in the cache: not once a case


def test_from_the_hub(tree, repo_id, split_file, hub, tmp_path):
    """Also of a private repo's files by sha256: nothing is measured again from another revision of them."""
    out = tmp_path / "cases.parquet"
    options = {"repo_id": repo_id, "split_file": split_file, "out": out}
    folder = scan_files(data_dir=tree, split_file=split_file, out=tmp_path / "folder.parquet")
    report = scan_files(**options)
    assert report.measured == len(ALL_IDS)
    columns = [name for name in CASES.names if name not in ("image_file", "mask_file")]
    ours, theirs = (pd.read_parquet(r.cases)[columns].to_dict("records") for r in (report, folder))
    assert str(ours) == str(theirs)
    files = {**hub.repos[repo_id].commits[hub.repos[repo_id].refs["main"]], "README.md": b"new"}
    hub.repos[repo_id].commit(files)
    assert scan_files(**options).measured == 0


def test_the_hubs_bad_bytes_are_a_problem_of_the_case(repo_id, split_file, hub, tmp_path):
    hub.faults["liver_106.nii.gz"] = [b"x", b"x"]
    report = scan_files(repo_id=repo_id, split_file=split_file, out=tmp_path / "cases.parquet")
    assert list(report.problems) == ["liver_106"]
    assert "the Hub says" in report.problems["liver_106"]
    hub.faults.clear()
    # What the message asks for: the next scan takes it up.
    Path(re.search(r"Delete (\S+) and", report.problems["liver_106"])[1]).unlink()
    report = scan_files(repo_id=repo_id, split_file=split_file, out=tmp_path / "cases.parquet")
    assert (report.measured, report.kept, report.problems) == (1, len(ALL_IDS) - 1, {})


def test_the_hub_that_goes_away_leaves_what_is_done(repo_id, split_file, hub, tmp_path):
    options = {"repo_id": repo_id, "split_file": split_file, "out": tmp_path / "cases.parquet"}
    hub.faults["HN_P023.nii.gz"] = [500] * 20
    with pytest.raises(HubError, match="Downloaded files are kept: run again to resume"):
        scan_files(**options)
    assert not (tmp_path / "cases.parquet").exists()
    hub.faults.clear()
    assert scan_files(**options).measured == 2  # of four: two were done


@pytest.fixture
def many(tmp_path):
    """Seven cases, in the order in which they are scanned: their folder, and their ids."""
    root = tmp_path / "many"
    first = save_spine(root, "liver_0", *spine([18, 19]))
    ids = [case.case_id for case in ctspine1k.load_catalog().where(source="MSD-T10")][:7]
    assert "liver_0" in ids
    for case_id in set(ids) - {"liver_0"}:
        for path, suffix in zip(first, ("", "_seg"), strict=True):
            path.with_name(f"{case_id}{suffix}.nii.gz").hardlink_to(path)
    return root, ids


def workers_of(process):
    """The processes that do the work of a scan."""
    command = ["pgrep", "-P", str(process.pid), "-f", "spawn_main"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return list(map(int, found.stdout.split()))


@pytest.mark.processes
@pytest.mark.parametrize(("kind", "num_proc"), [("SIGKILL", 1), ("SIGINT", 2)])
def test_a_scan_that_was_stopped_goes_on_where_it_was(many, tmp_path, kind, num_proc):
    root, ids = many
    process = start(root, num_proc, held=ids[2:4])
    journal = wait_for_notes(root, 2)
    process.send_signal(signal.Signals[kind])
    assert process.wait() not in (0, 2)
    assert not (root / "cases.parquet").exists()
    noted = [json.loads(line.partition(" ")[2])["case"] for line in journal.read_text().split("\n") if line]
    assert {case["case_id"]: case["problem"] for case in noted} == dict.fromkeys(ids[:2])
    journal.write_text(journal.read_text() + '\n{"version": 1, "case": {"case_i')  # a line that was cut
    report = scan_files(data_dir=root, cases=ids)
    whole = scan_files(data_dir=root, cases=ids, out=tmp_path / "whole.parquet")
    assert (report.measured, report.kept) == (5, 2)
    assert report.cases.read_bytes() == whole.cases.read_bytes()
    assert report.vertebrae.read_bytes() == whole.vertebrae.read_bytes()
    assert not journal.exists()


@pytest.mark.processes
def test_a_worker_that_dies_is_told_and_what_is_done_is_kept(many):
    root, ids = many
    process = start(root, 2, held=ids[2:4])
    wait_for_notes(root, 2)
    os.kill(workers_of(process)[0], signal.SIGKILL)
    assert process.wait(60) == 1
    told = process.printed[1]
    assert WorkerError.__name__ in told
    assert "a worker process died before it was done, with 2 at work" in told
    with pytest.warns(SkippedCasesWarning):
        assert scan_files(data_dir=root, cases=[*ids, "liver_83"], on_missing="skip").kept == 2


@pytest.mark.skipif(os.name == "nt", reason="Windows has no named pipes of this kind")
@pytest.mark.processes
def test_workers_end_with_the_process_that_started_them(many, tmp_path):
    """They hold its stderr: who reads that must not wait for ever. Other signals: ``test_kills.py``."""
    os.mkfifo(tmp_path / "stderr")
    reader = os.open(tmp_path / "stderr", os.O_RDONLY | os.O_NONBLOCK)
    root, ids = many
    process = start(root, 2, held=ids[2:4], stderr=tmp_path / "stderr")
    wait_for_notes(root, 2)
    assert len(workers_of(process)) == 2
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == -signal.SIGTERM
    wait_until(lambda: is_at_its_end(reader), 20)
    os.close(reader)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no named pipes of this kind")
@pytest.mark.processes
def test_an_interrupt_while_workers_start_is_no_noise(many, tmp_path, monkeypatch):
    """As a terminal sends it: to all of them."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(f"open({str(gate)!r}).close()\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, (tmp_path / "site", ROOT))))
    process = start(many[0], 2)
    wait_until(lambda: len(workers_of(process)) == 2)
    for pid in (process.pid, *workers_of(process)):
        os.kill(pid, signal.SIGINT)
    while process.poll() is None:
        release(gate)
        time.sleep(0.005)
    told = process.printed[1]
    assert process.poll() not in (0, 2)
    assert "Process Spawn" not in told  # no worker's traceback
    assert told.count("Traceback") == 1
    assert re.search(r"^KeyboardInterrupt: \d of \d cases are done; run again to resume$", told, re.MULTILINE)


@pytest.mark.parametrize("verb", [scan, verify])
@pytest.mark.parametrize(
    ("file", "function", "event"),
    [
        ("nibabel/externals/oset.py", "__del__", "return"),  # Python loses what a destructor raises
        ("/gzip.py", "close", "return"),
        ("/threading.py", "__enter__", "return"),  # a lock that a thread waits for
        ("checks/records.py", "note", "call"),
        ("checks/measure.py", "measure", "return"),
    ],
)
def test_wherever_a_stop_falls_what_is_done_is_kept(
    spines, tmp_path, monkeypatch, verb, file, function, event
):
    # On one core, no thread would be waited for.
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    journal = spines / ".cases.parquet.partial"
    told = "[1-3] of 3 cases are done; run again to resume"
    with interrupt_at(file, function, event, journal.exists), pytest.raises(KeyboardInterrupt, match=told):
        verb(spines)
    assert not (spines / "cases.parquet").exists()
    noted = journal.read_text().count('"version"')
    assert 1 <= noted <= 2
    report = scan(spines)
    assert (report.measured, report.kept) == (3 - noted, noted)
    whole = scan(spines, out=tmp_path / "whole.parquet")
    assert report.cases.read_bytes() == whole.cases.read_bytes()
    assert not journal.exists()


def test_what_was_read_again_before_a_stop_is_kept_for_a_run_that_reads_nothing_again(spines):
    journal = spines / ".cases.parquet.partial"
    told = r"1 of 3 cases are done; run again without reread \(--reread\) to resume"
    stop = interrupt_at("checks/records.py", "note", "return", journal.exists)
    with stop, pytest.raises(KeyboardInterrupt, match=told):
        verify_files(data_dir=spines, cases=IDS, reread=True)
    stop = interrupt_at("checks/records.py", "note", "return", journal.exists)
    with stop, pytest.raises(KeyboardInterrupt, match="2 of 3 cases are done; run again to resume"):
        verify(spines)  # counts the one that is kept
    assert verify(spines).kept == 2


def test_a_stop_between_the_two_tables_loses_nothing(spines, monkeypatch):
    scan(spines)
    save_spine(spines, "liver_106", *spine([18, 19]))
    replace = Path.replace

    def stop(self, target):
        if target.name == "cases.parquet":
            raise KeyboardInterrupt
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", stop)
        with pytest.raises(KeyboardInterrupt):
            scan_files(data_dir=spines, cases="liver_106")
    report = scan_files(data_dir=spines, cases="liver_106")
    assert (report.measured, report.kept) == (0, 1)
    assert len(pd.read_parquet(report.cases)) == 3
    assert scan(spines).measured == 0


@pytest.mark.slow
def test_what_is_in_the_journals_place_harms_nothing(spines):
    for content in (b"notes of mine", b'{"a": 1}\n[1]\n7', b"\xff\xfe", b'\n{"version": 1}'):
        (spines / ".cases.parquet.partial").write_bytes(content)
        (spines / "cases.parquet").unlink(missing_ok=True)
        assert scan(spines).measured == 3
    with pytest.raises(ValueError, match=r"and not in \.vertebrae\.parquet"):
        scan(spines, out=spines / "cases.vertebrae.parquet")


def test_notes_that_were_damaged_are_not_used(spines):
    report = scan(spines)
    whole, tables = report.cases.read_bytes(), read_tables(report.cases)
    journal = spines / ".cases.parquet.partial"
    report.cases.unlink()
    with own_records(report.cases) as records:
        (case,) = (row for row in tables.cases if row["case_id"] == "liver_106")
        vertebrae = [row for row in tables.vertebrae if row["case_id"] == "liver_106"]
        records.note({"version": SCAN_VERSION, "case": case, "vertebrae": vertebrae})
    note = journal.read_bytes()
    for damaged, kept in ((note, 1), (note.replace(b'"hu_max": ', b'"hu_max": 1'), 0)):
        journal.write_bytes(damaged)
        report.cases.unlink(missing_ok=True)
        assert scan(spines).kept == kept
        assert report.cases.read_bytes() == whole


def test_a_case_that_vanished_is_in_no_table(spines, tmp_path):
    scan(spines)
    next(spines.rglob("liver_106.nii.gz")).unlink()
    with pytest.raises(ctspine1k.errors.MissingFilesError):
        names(spines, tmp_path, has_vertebrae=["C1"])
    with pytest.warns(SkippedCasesWarning, match="liver_106"):
        report = scan(spines, on_missing="skip")
    assert set(pd.read_parquet(report.cases).case_id) == {"liver_83", "HN_P023"}
    assert set(pd.read_parquet(report.vertebrae).case_id) == {"liver_83", "HN_P023"}


@names_of_bytes
def test_names_that_are_not_utf8(spines):
    folder = os.fsencode(spines) + b"/d\xff"
    os.mkdir(folder)  # noqa: PTH102
    for path in list(spines.rglob("liver_106*.nii.gz")):
        os.rename(path, folder + b"/" + os.fsencode(path.name))  # noqa: PTH104
    report = scan(spines)
    row = pd.read_parquet(report.cases).set_index("case_id").loc["liver_106"]
    assert row.image_file.startswith("d\\udcff/liver_106.nii.gz ")
    assert scan(spines).kept == 3
    assert scan(Path(os.fsdecode(folder)).parent, out=Path(os.fsdecode(folder)) / "x.parquet").measured == 3


def names(root, tmp_path, **options):
    loaded = ctspine1k.load_dataset(
        "3d",
        data_dir=root,
        cases=IDS,
        image_size=None,
        storage="compact",
        cache_dir=tmp_path / "cache",
        **options,
    )
    return {row["patient_id"] for part in loaded.values() for row in part}


@pytest.mark.slow
def test_has_vertebrae(spines, tmp_path):
    scan(spines)
    assert names(spines, tmp_path) == set(IDS)
    assert names(spines, tmp_path, has_vertebrae="L6") == {"liver_83"}
    # All that it has.
    assert names(spines, tmp_path, has_vertebrae=["t12", "L1", "T11", "L2"]) == {"liver_106"}
    assert names(spines, tmp_path, has_vertebrae=["C1"], streaming=True) == {"HN_P023"}
    collection = ctspine1k.open_collection(data_dir=spines).select([*IDS, "HN_P001"])  # which has no files
    found = cases_containing(collection.selection(), "L6")
    groups = (found.kept, found.without_files, found.unusable)
    assert [[case.case_id for case in cases] for cases in groups] == [
        ["HN_P001", "liver_83"],
        ["HN_P001"],
        [],
    ]
    elsewhere = scan(spines, out=tmp_path / "elsewhere.parquet").cases
    (spines / "cases.parquet").unlink()
    assert names(spines, tmp_path, has_vertebrae=["C1"], scan=elsewhere) == {"HN_P023"}
    with pytest.raises(ValueError, match="no cases in train or validation or test"):
        names(spines, tmp_path, has_vertebrae=["C1", "L6"], scan=elsewhere)
    with pytest.raises(ValueError, match="no vertebra 'S1': expected C1 to C7"):
        names(spines, tmp_path, has_vertebrae=["S1"], scan=elsewhere)
    with pytest.raises(ScanTableError, match=r"cases\.parquet: expected a scan's table, found no file\. Run"):
        names(spines, tmp_path, has_vertebrae=["C1"])


def test_has_vertebrae_believes_no_old_scan(spines, tmp_path):
    scan(spines)
    save_spine(spines, "liver_83", *spine([1, 2]))
    with pytest.raises(
        ScanTableError, match=r"found no row, or a row of other files, for liver_83\. Run `ctspine1k scan`"
    ):
        names(spines, tmp_path, has_vertebrae=["C1"])
    scan(spines)
    assert names(spines, tmp_path, has_vertebrae=["C1"]) == {"liver_83", "HN_P023"}


@pytest.mark.slow
def test_has_vertebrae_passes_over_no_broken_case_in_silence(spines, tmp_path):
    break_case(spines)
    scan(spines)
    told = {"expected_warning": CTSpine1KWarning, "match": "could not use them: liver_106"}
    with pytest.warns(**told), pytest.raises(ctspine1k.errors.TruncatedFileError):
        names(spines, tmp_path, has_vertebrae=["C1"])
    with pytest.warns(**told), pytest.warns(SkippedCasesWarning, match="is left out .*liver_106"):
        assert names(spines, tmp_path, has_vertebrae=["C1"], on_error="skip") == {"HN_P023"}


def test_real_ct(sample, tmp_path):
    report = scan_files(
        data_dir=sample, split_file=sample / "metadata/data_split.txt", out=tmp_path / "cases.parquet"
    )
    tables = read_tables(report.cases)
    assert [row["vertebrae"] for row in tables.cases] == [["T11", "T12"]] * 3
    assert {row["orientation"] for row in tables.cases} == {"SLA"}
    for row in tables.vertebrae:
        mask = next(sample.rglob(f"{row['case_id']}_seg.nii.gz"))
        places = np.argwhere(np.asarray(nib.load(mask).dataobj) == row["label"])
        assert row["voxels"] == len(places)
        assert row["centroid"] == pytest.approx(places.mean(axis=0)[[2, 0, 1]].tolist())
        assert row["touches_first_slice"] == (places[:, 2].min() == 0)
        assert 150 < row["mean_hu"] < 400
    assert json.dumps(tables.cases[0]["affine"])
