"""Scans and verifications whose cases are read by the workers of a Dask cluster."""

import dataclasses
import sys
from pathlib import Path

import pandas as pd
import pytest
from support.spines import save_spine, spine
from support.verbs import scan_files, verify_files
from support.volumes import break_case

import ctspine1k
from ctspine1k.cli.main import main
from ctspine1k.files.folder import FolderPlace

pytestmark = pytest.mark.cluster

IDS = ["liver_83", "liver_106", "HN_P023"]


@pytest.fixture
def root(tmp_path):
    """Three cases, one of them broken."""
    root = tmp_path / "tree"
    save_spine(root, "liver_83", *spine([21, 22, 23, 24]))
    save_spine(root, "liver_106", *spine([18, 20, 21]))  # without T12
    save_spine(root, "HN_P023", *spine([1, 2, 3]), folder="HNSCC-3DCT-RT")
    break_case(root, "HN_P023")
    return root


def test_a_scan_gives_the_same_bytes_as_in_this_process(root, tmp_path, shared_cluster):
    here = scan_files(data_dir=root, cases=IDS, out=tmp_path / "here.parquet")
    there = scan_files(
        data_dir=root, cases=IDS, out=tmp_path / "there.parquet", scheduler=shared_cluster.address
    )
    assert here.cases.read_bytes() == there.cases.read_bytes()
    assert here.vertebrae.read_bytes() == there.vertebrae.read_bytes()
    assert (there.measured, there.kept, list(there.problems)) == (3, 0, ["HN_P023"])
    assert there.problems == here.problems


def test_a_verification_finds_the_same_as_in_this_process(root, tmp_path, shared_cluster):
    here, there = (
        verify_files(data_dir=root, cases=IDS, table=tmp_path / f"{name}.parquet", **options)
        for name, options in (("here", {}), ("there", {"scheduler": str(shared_cluster.file)}))
    )
    assert there == here
    assert {(finding.check, finding.case_id) for finding in there.findings} == {
        ("truncated", "HN_P023"),
        ("gap", "liver_106"),
    }
    assert (tmp_path / "there.parquet").read_bytes() == (tmp_path / "here.parquet").read_bytes()


def test_files_of_the_hub_are_fetched_where_they_are_read(root, tmp_path, shared_cluster, publish, hub):
    repo_id = publish(root)
    folder = scan_files(data_dir=root, cases=IDS[:2], out=tmp_path / "folder.parquet")
    report = scan_files(
        repo_id=repo_id, cases=IDS[:2], out=tmp_path / "hub.parquet", scheduler=shared_cluster.address
    )
    assert report.measured == 2
    names = ["image_file", "mask_file"]
    ours, theirs = (str(pd.read_parquet(r.cases).drop(columns=names).to_dict()) for r in (report, folder))
    assert ours == theirs


def test_from_a_shell(root, tmp_path, shared_cluster, capsys):
    words = [word for case_id in IDS for word in ("--case", case_id)]
    out = tmp_path / "cases.parquet"
    assert main(["scan", str(root), *words, "--out", str(out), "--scheduler", shared_cluster.address]) == 0
    told = capsys.readouterr()
    assert told.out == f"{out}\n{out.with_suffix('.vertebrae.parquet')}\n"
    problem, counts = told.err.splitlines()
    assert problem.startswith("warning: HN_P023: ")
    assert counts == "3 cases measured, 0 kept from before, 1 unusable"
    words += ["--scan", str(out), "--scheduler", str(shared_cluster.file)]
    assert main(["verify", str(root), *words]) == 1
    assert (
        capsys.readouterr()
        .out.splitlines()[0]
        .endswith("2 of 3 cases read to the end (2 of them by an earlier scan)")
    )


def test_points_are_those_of_this_machine(root, shared_cluster, capsys):
    words = ["points", str(root), "--kind", "mask", "--case", IDS[0]]
    assert main([*words, "--scheduler", shared_cluster.address]) == 0
    there = capsys.readouterr().out
    assert main([*words, "--num-proc", "1"]) == 0
    assert there == capsys.readouterr().out
    assert there.startswith("case_id\t")
    assert there.count("\n") > 1


@pytest.mark.skipif(sys.platform != "linux", reason="a path that means another folder in each process")
def test_workers_that_do_not_see_the_folder_say_so(root, tmp_path, shared_cluster, monkeypatch):
    """The folder is one of this process's working directory, and the workers have another one."""
    monkeypatch.chdir(tmp_path)
    here = FolderPlace(Path("/proc/self/cwd") / root.name)
    two = dataclasses.replace(ctspine1k.open_collection(data_dir=root).select(IDS[:2]), place=here)
    report = two.scan(tmp_path / "cases.parquet", scheduler=shared_cluster.address)
    assert list(report.problems) == [case.case_id for case in two]
    for problem in report.problems.values():
        assert str(here.folder) in problem
        assert "expected the raw file that was there when the work began, found none" in problem
        assert "All processes and workers must have access to the raw files" in problem
    found = two.verify(tmp_path / "verify.parquet", scheduler=shared_cluster.address)
    assert {(finding.check, finding.case_id) for finding in found.findings} == {
        ("format", case_id) for case_id in IDS[:2]
    }
    # What no worker could read is read by the next scan.
    report = two.scan(tmp_path / "cases.parquet")
    assert (report.measured, report.kept, report.problems) == (2, 0, {})
