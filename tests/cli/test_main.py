"""Commands, in process; some as a program."""

import csv
import json
import os
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from support.forks import fork
from support.paths import names_of_bytes
from support.printed import table
from support.spines import save_spine, spine
from support.tiny import TINY
from support.volumes import break_case

import ctspine1k
from ctspine1k import __version__
from ctspine1k.catalog import ctspine1k as catalog
from ctspine1k.catalog import registry
from ctspine1k.cli.main import cli, main


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Three cases in a folder, and a working directory of our own."""
    save_spine(tmp_path / "tree", "liver_106", *spine([18, 19, 20, 21, 22]))
    save_spine(tmp_path / "tree", "liver_83", *spine([21, 22, 23, 24, 25], margin=6))
    save_spine(tmp_path / "tree", "HN_P023", *spine([8, 9, 10], margin=5), folder="HNSCC-3DCT-RT")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "tree"


def test_without_a_verb_it_tells_the_verbs_in_the_order_of_use(run):
    status, out, err = run()
    assert (status, out) == (2, "")
    verbs = re.findall(r"^  (\w+)  ", err.partition("Commands:")[2], re.MULTILINE)
    assert verbs == [
        "list",
        "info",
        "download",
        "scan",
        "verify",
        "points",
        "preview",
        "export",
        "evaluate",
        "compare",
        "cache",
        "vertebrae",
        "cite",
        "demo",
    ]
    exports = run("export")[2].partition("Commands:")[2]
    assert re.findall(r"^  (\w+)  ", exports, re.MULTILINE) == ["parquet", "nnunet"]
    assert "..." not in err.partition("Commands:")[2] + exports  # no line is cut off
    assert run("--version") == (0, f"{__version__}\n", "")
    assert run("-h")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["frobnicate"], "error: No such command 'frobnicate'. (see --help)"),
        (["list", "--split", "dev"], "error: Invalid value for '--split': 'dev' is not one of 'train', 'val"),
        (["list", "--bogus"], "error: No such option"),
        (["info"], "error: Missing argument 'CASE'"),
        (["points", "."], "error: Missing option '--kind'. Choose from: file, mask, body (see --help)"),
        (
            ["info", "liver_1066"],
            "error: no case 'liver_1066' in this catalog of 1,005 cases. Did you mean liver_106",
        ),
        (["vertebrae", "S1"], "error: no vertebra 'S1': expected C1 to C7"),
        (["scan", "nowhere"], "error: data_dir='nowhere': expected a folder with raw files, found none at"),
        (
            ["list", "--data-dir", __file__],
            "error: Invalid value for '--data-dir': expected a directory, found a file",
        ),
        (
            ["list", "--split-file", "/"],
            "error: Invalid value for '--split-file': expected a file, found a directory",
        ),
        (
            ["list", "--split-file", "nowhere"],
            "error: split_file='nowhere': expected a file with case ids, found none",
        ),
        (["verify", "x", "--data-dir", "y"], "error: DIR and --data-dir are the same: give one."),
        (["scan", "--num-proc", "0"], "error: Invalid value for '--num-proc'"),
        (
            ["preview", "liver_1066"],
            "error: CASE or DIR: no folder 'liver_1066', and no case 'liver_1066' in",
        ),
        (
            ["list", "--data-dir", ".", "--revision", "main", "--files"],
            "error: data_dir='.' has no revisions",
        ),
        (["scan", ""], "error: Invalid value for '[DIR]': expected a directory, found an empty string."),
        (
            ["preview", ".", "--out", ""],
            "error: Invalid value for '--out': expected a path, found an empty string.",
        ),
        (
            ["verify", "--data-dir", ""],
            "error: Invalid value for '--data-dir': expected a directory, found an",
        ),
        (["preview", ""], "error: CASE or DIR: expected an id or a folder, found an empty string."),
        (["scan"], "error: Say where (DIR, --data-dir or --repo-id), or which cases."),
        (["verify", "--num-proc", "1"], "error: Say where (DIR, --data-dir or --repo-id), or which cases."),
        (["preview"], "error: Say where (DIR, --data-dir or --repo-id), or which cases."),
        *(
            (
                [*verb.split(), "--masks", "."],
                "error: Say where (DIR, --data-dir or --repo-id), or which cases.",
            )
            for verb in (
                *("scan", "verify", "preview", "points --kind mask"),
                *("export parquet out", "export nnunet out"),
            )
        ),
        (["scan", ".", "--repo-id", "a/b"], "error: A folder and --repo-id are two places: give one."),
        (
            [
                "verify",
                ".",
                "--split",
                "test",
                "--source",
                "MSD-T10",
                "--special-case",
                "lumbar_sacralization",
            ],
            "error: no case is selected: check splits, cases, split_file",
        ),
        (
            ["preview", ".", "--out", "a.gif", "--case", "liver_106"],
            "error: a.gif: expected a name that ends in .png",
        ),
        (["preview", ".", "--out", "a.gif", "--sheet"], "error: a.gif: expected a name that ends in .png"),
        (
            ["preview", ".", "--out", "a.png"],
            "error: a.png: expected a folder, as there are several pictures. For one picture of all",
        ),
        (["list", "--has-vertebrae", "L6", "--data-dir", "."], "error: /"),
        (["list", "--scan", "x.parquet"], "error: scan='x.parquet': expected has_vertebrae"),
        (["scan", ".", "--scan", "x.parquet"], "error: scan='x.parquet': expected has_vertebrae"),
    ],
)
def test_an_error_is_one_line_and_status_2(run, root, arguments, message):
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert err.startswith(message), err
    assert err.count("\n") == 1


@pytest.mark.parametrize("place", ["before", "after"])
def test_debug_shows_where_an_error_comes_from(run, place):
    arguments = ["info", "nobody"]
    arguments.insert(0 if place == "before" else 1, "--debug")
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert err.startswith("Traceback (most recent call last):")
    assert "UnknownCaseError: no case 'nobody'" in err


def test_what_was_not_foreseen_is_told_as_such(run, monkeypatch):
    def broken(name, **options):
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr("ctspine1k.cli.cases.load_catalog", broken)
    assert run("info", "liver_106") == (
        2,
        "",
        "error: ZeroDivisionError: by zero (unexpected; --debug shows the traceback)\n",
    )


def params_of(verb, *words):
    """The parameters of a verb as it is called with these words."""
    command = cli.commands[verb]
    with command.make_context(verb, list(words), resilient_parsing=True) as context:
        return command.get_params(context)


def options_of(verb, *words):
    return [option for param in params_of(verb, *words) for option in param.opts if option.startswith("--")]


PLACE = ["--collection", "--data-dir", "--repo-id", "--revision"]
FACETS = [
    *("--split", "--source", "--special-case", "--exclude-issues"),
    *("--scan-position", "--tcia-series", "--issue", "--evidence"),
]
CASES = ["--split-file", "--case", *FACETS, "--has-vertebrae", "--scan"]


def test_options_are_the_same_everywhere_and_named_as_in_the_library():
    for verb in ("list", "download", "scan", "verify", "preview"):
        assert options_of(verb)[: len(PLACE + CASES)] == PLACE + CASES
    for verb in ("list", "info", "download", "scan", "verify", "preview", "vertebrae", "cite"):
        assert "--json" in options_of(verb)
        assert "--collection" in options_of(verb)
    for verb in cli.commands:
        assert "--debug" in options_of(verb)
    for verb in ("scan", "verify", "points"):
        assert {"--num-proc", "--scheduler"} <= set(options_of(verb))
    helps = {}
    for verb in cli.commands:
        for param in params_of(verb):
            if (verb, param.opts[0]) != ("evaluate", "--num-proc"):  # which needs more memory
                helps.setdefault(param.opts[0], set()).add(getattr(param, "help", None))
    for export in cli.commands["export"].commands.values():
        for param in export.params:
            if param.opts[0] != "--num-proc":  # which say how much memory each needs
                helps.setdefault(param.opts[0], set()).add(getattr(param, "help", None))
    shared = [
        "--num-proc",
        "--scheduler",
        "--debug",
        "--on-missing",
        "--on-error",
        "--on-geometry",
        "--masks",
        "--reading",
    ]
    for name in (*PLACE, *CASES, "--json", *shared):
        assert len(helps[name]) == 1, name


def test_facets_are_those_of_the_data_set_that_is_named():
    registry.register(TINY)
    for words in (["--collection", "tiny"], ["--collection=tiny"]):
        facets = ["--split", "--scanner", "--exclude-issues", "--issue"]
        assert [option for option in options_of("list", *words) if option in {*FACETS, "--scanner"}] == facets
    assert "--scanner" not in options_of("list")


def test_list(run):
    status, out, err = run("list", "--special-case", "lumbar_sacralization", "--source", "MSD-T10")
    assert (status, err) == (0, "")
    assert [row["case_id"] for row in table(out)] == ["liver_83", "liver_93"]
    assert len(table(run("list")[1])) == 1005
    assert len(table(run("list", "--exclude-issues", "all", "--split", "train")[1])) == len(
        ctspine1k.load_catalog().where(split="train", exclude_issues="all")
    )
    issues = {row["case_id"]: row["issues"] for row in table(run("list")[1])}
    assert issues["1.3.6.1.4.1.9328.50.4.0482"] == "label_wrong_value label_missing"
    out = json.loads(run("list", "--case", "liver_106", "--case", "HN_P001", "--json")[1])
    assert [case["case_id"] for case in out] == ["HN_P001", "liver_106"]


def test_list_of_files(run, root):
    status, out, _ = run("list", "--files", "--data-dir", root, "--split", "validation")
    assert status == 0
    rows = table(out)
    assert [(row["case_id"], row["kind"]) for row in rows] == [("HN_P023", "image"), ("HN_P023", "mask")]
    assert all(os.path.getsize(row["path"]) == int(row["size"]) for row in rows)  # noqa: PTH202
    out = json.loads(run("list", "--files", "--data-dir", root, "--json")[1])
    assert {"case_id", "kind", "size", "path", "local", "url", "sha256"} == set(out[0])
    assert all(row["local"] == str(root / row["path"]) for row in out)
    assert len(out) == 6


@pytest.mark.slow
def test_which_cases_have_l6(run, root):
    three = ["--case", "liver_106", "--case", "liver_83", "--case", "HN_P023"]
    assert run("scan", root, *three, "--num-proc", 1)[0] == 0
    status, out, err = run("list", "--data-dir", root, "--has-vertebrae", "L6", *three)
    assert (status, err) == (0, "")
    assert [row["case_id"] for row in table(out)] == ["liver_83"]
    status, out, err = run("list", "--data-dir", root, "--has-vertebrae", "21", "--has-vertebrae", "l1")
    where = ctspine1k.open_collection(data_dir=root).where(has_vertebrae=["L2", "L1"])
    assert [row["case_id"] for row in table(out)] == [case.case_id for case in where]
    assert len(where) == 1003
    assert err.startswith(
        "warning: cases listed without files, so that no scan knows what they contain: 1,002: "
    )
    break_case(root)
    run("scan", root, *three, "--num-proc", 1)
    status, out, err = run("list", "--data-dir", root, "--has-vertebrae", "C1", *three)
    with pytest.warns(ctspine1k.errors.CTSpine1KWarning, match="could not use them: liver_106") as told:
        where = ctspine1k.open_collection(data_dir=root).select(three[1::2]).where(has_vertebrae="C1")
    assert [row["case_id"] for row in table(out)] == [case.case_id for case in where]
    assert err == f"warning: {told[0].message}\n"


def test_which_cases_are_known_to_be_wrong(run):
    reported = table(run("list", "--evidence", "reported")[1])
    assert [row["case_id"][-4:] for row in reported] == ["0103", "0291", "0482", "0500", "0730"]
    assert len(table(run("list", "--issue", "orientation_ap_inverted")[1])) == 7
    wrong = run("list", "--issue", "label_missing", "--issue", "label_wrong_value")[1]
    assert len(table(wrong)) == 9
    kept = run("list", "--exclude-issues", "label_missing", "--exclude-issues", "label_wrong_value")[1]
    assert len(table(kept)) == 1005 - 9
    assert len(table(run("list", "--exclude-issues", "errors")[1])) == 959
    assert len(table(run("list", "--split", "test", "--split", "validation")[1])) == 395
    assert len(table(run("list", "--scan-position", "prone", "--tcia-series", "*flipped updown*")[1])) == 12


def test_info(run):
    status, out, err = run("info", "1.3.6.1.4.1.9328.50.4.0482")
    assert (status, err) == (0, "")
    assert "source         COLONOG\n" in out
    assert "scan_position  prone\n" in out
    assert "issue          label_wrong_value (reported): label 14 (T7) where 15 (T8) is right" in out
    assert "MIRACLE-Center/CTSpine1K#15" in out
    assert "issues         none known\n" in run("info", "liver_106")[1]
    assert json.loads(run("info", "liver_106", "--json")[1])["special_case"] == "sacral_lumbarization"


def test_download_from_a_folder_and_from_the_hub(run, root, publish):
    paths = run("download", "--data-dir", root, "--case", "liver_106", "--kind", "mask")[1].splitlines()
    assert paths == [str(next(root.rglob("liver_106_seg.nii.gz")))]
    repo_id = publish(root)
    status, out, err = run("download", "--repo-id", repo_id, "--case", "liver_106")
    assert (status, err) == (0, "")  # no bar: stderr is no terminal
    image, mask = out.splitlines()
    for path, right in ((image, "liver_106.nii.gz"), (mask, "liver_106_seg.nii.gz")):
        with open(path, "rb") as file:  # noqa: PTH123
            assert file.read() == next(root.rglob(right)).read_bytes()
    assert json.loads(run("download", "--repo-id", repo_id, "--case", "liver_106", "--json")[1]) == [
        image,
        mask,
    ]
    status, out, err = run("download", "--repo-id", repo_id, "--split", "validation")
    assert (status, out) == (2, "")
    assert err.startswith("error: 196 of 197 cases lack raw files in Hub repo")
    status, out, err = run("download", "--repo-id", repo_id, "--split", "validation", "--on-missing", "skip")
    assert len(out.splitlines()) == 2
    assert err.startswith("warning: 196 of 197 cases lack raw files")


def test_dry_run_tells_files_bytes_and_free_disk_and_downloads_nothing(run, root, publish, hub):
    repo_id = publish(root)
    run("download", "--repo-id", repo_id, "--case", "liver_106", "--kind", "image")
    hub.requests.clear()
    options = ["--repo-id", repo_id, "--case", "liver_106", "--case", "liver_83", "--dry-run"]
    status, out, err = run("download", *options)
    assert status == 0
    rows = {row["path"].rpartition("/")[2]: row for row in table(out)}
    assert {name: row["here"] for name, row in rows.items()} == {
        "liver_83.nii.gz": "no",
        "liver_83_seg.nii.gz": "no",
        "liver_106.nii.gz": "yes",
        "liver_106_seg.nii.gz": "no",
    }
    sizes = {path.name: path.stat().st_size for path in root.rglob("*.nii.gz")}
    assert all(int(row["size"]) == sizes[name] for name, row in rows.items())
    needed = sum(sizes[name] for name, row in rows.items() if row["here"] == "no")
    assert re.match(
        rf"3 of 4 files to download, {needed:,} bytes \(0\.00 GB\); [\d,.]+ GB are free in /", err
    )
    # It fails as the download would.
    status, out, err = run("download", "--repo-id", repo_id, "--split", "validation", "--dry-run")
    assert status == 2
    assert len(table(out)) == 2
    assert err.splitlines()[1].startswith("error: 196 of 197 cases lack raw files")
    assert (
        run("download", "--repo-id", repo_id, "--split", "validation", "--dry-run", "--on-missing", "skip")[0]
        == 0
    )
    plan = json.loads(run("download", *options, "--json")[1])
    assert plan["bytes_to_download"] == needed
    assert plan["bytes_free"] > 0
    assert not [request for request in hub.requests if "/resolve/" in request.path]


def test_dry_run_from_a_folder_looks_at_the_folder_of_copies_and_not_at_the_hubs_cache(run, root, tmp_path):
    options = ["--data-dir", root, "--case", "HN_P023", "--dry-run"]
    size = sum(path.stat().st_size for path in root.rglob("HN_P023*"))
    status, out, err = run("download", *options)
    assert (status, len(table(out))) == (0, 2)
    assert err == "0 of 2 files to download, 0 bytes (0.00 GB)\n"
    plan = json.loads(run("download", *options, "--json")[1])
    assert (plan["bytes"], plan["bytes_free"], plan["cache"]) == (size, None, None)
    other = tmp_path / "to/raw_data/labels/HNSCC-3DCT-RT/HN_P023_seg.nii.gz"
    other.parent.mkdir(parents=True)
    other.touch()
    status, _, err = run("download", *options, "--to", tmp_path / "to")
    assert status == 2
    _, copies, error = err.splitlines()
    assert copies.startswith(f"copies take up to {size:,} bytes (0.00 GB); ")
    assert error.startswith(
        f"error: {tmp_path / 'to'}: expected nothing, or the same file, wherever a file is"
    )
    assert run("download", *options, "--to", tmp_path / "to", "--link")[2].splitlines()[1] == error


@pytest.mark.slow
def test_scan(run, root):
    where = ("scan", root, "--source", "MSD-T10", "--num-proc", "1")
    status, out, err = run(*where)
    assert (status, out) == (2, "")
    assert err.startswith("error: 148 of 150 cases lack raw files in ")
    status, out, err = run(*where, "--on-missing", "skip")
    assert status == 0
    assert out == f"{root / 'cases.parquet'}\n{root / 'cases.vertebrae.parquet'}\n"
    warning, told = err.splitlines()
    assert warning.startswith("warning: 148 of 150 cases lack raw files in ")
    assert told == "2 cases measured, 0 kept from before, 0 unusable"
    assert pd.read_parquet(root / "cases.parquet").case_id.tolist() == ["liver_106", "liver_83"]
    break_case(root)
    two = ["--case", "liver_106", "--case", "liver_83", "--num-proc", 1]
    status, out, err = run("scan", root, *two, "--out", "x.parquet")
    assert out.startswith(os.getcwd())  # noqa: PTH109
    assert status == 0
    assert "warning: liver_106: " in err
    report = json.loads(run("scan", "--data-dir", root, "--case", "liver_83", "--json")[1])
    assert (report["measured"], report["kept"]) == (0, 1)


@pytest.mark.slow
def test_verify(run, root):
    three = ["--case", "liver_106", "--case", "liver_83", "--case", "HN_P023", "--num-proc", "1"]
    status, out, err = run("verify", root, *three)
    assert (status, err) == (1, "")
    assert out.splitlines()[1].startswith("warning  unlisted_l6       1  an L6 in a case that is not listed")
    break_case(root)
    (root / "extra.nii").touch()
    status, out, _ = run("verify", root, *three, "--out", "report.csv", "--json")
    assert status == 1
    report = json.loads(out)
    assert not report["ok"]
    assert {finding["check"] for finding in report["findings"]} == {"truncated", "unlisted_l6", "unexpected"}
    with open("report.csv", encoding="utf-8", newline="") as file:  # noqa: PTH123
        rows = list(csv.DictReader(file))
    assert [row["check"] for row in rows] == [finding["check"] for finding in report["findings"]]
    assert set(rows[0]) == {"level", "check", "case_id", "file", "expected", "found", "known", "hint"}
    assert run("verify", root, *three, "--out", "new/folder/report.csv")[0] == 1
    assert sorted(os.listdir()) == ["new", "report.csv"]  # noqa: PTH208


def test_verify_replaces_only_its_own_findings(run, root):
    mask = next(root.rglob("liver_106_seg.nii.gz"))
    foreign = root / "mine.csv"
    foreign.write_text("level,mine\n")
    picture = root / "mine.png"
    picture.write_text("not a picture")
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    for path in (mask, foreign):
        status, out, err = run("verify", root, "--out", path)
        assert (status, out) == (2, "")
        assert err.startswith(
            f"error: {path}: expected no file, or findings of `ctspine1k verify`, found ano"
        )
    for name in ("metadata/data_split.txt", "raw_data/labels/MSD-T10/liver_0_seg.nii.gz", "cases.parquet"):
        status, _, err = run("verify", root, "--out", root / name)
        assert status == 2
        assert (
            "expected the name of a CSV file, such as findings.csv, found one of a file of CTSpine1K" in err
        )
    for sheet in ([], ["--sheet"]):
        status, _, err = run("preview", "HN_P023", "--data-dir", root, "--out", picture, *sheet)
        assert status == 2
        assert (
            "mine.png: expected no file, or a picture of `ctspine1k`, found another file. Choose another path"
            in err
        )
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before
    one = ["--case", "HN_P023", "--num-proc", "1", "--out", "report.csv"]
    assert [run("verify", root, *one)[0] for _ in range(2)] == [0, 0]


def test_verify_of_a_clean_tree_is_0_and_of_none_is_2(run, root):
    status, out, err = run("verify", root, "--case", "liver_106", "--case", "HN_P023", "--num-proc", 1)
    assert (status, err) == (0, "")
    assert out.endswith("2 of 2 cases read to the end\nnothing found\n")
    assert run("verify", root / "nowhere")[0] == 2


@pytest.mark.slow
def test_preview(run, root):
    status, out, err = run("preview", "liver_106", "--data-dir", root)
    assert (status, out, err) == (0, "liver_106.png\n", "")
    status, out, err = run("preview", root, "--source", "MSD-T10")
    assert status == 0
    assert out.splitlines() == ["previews/liver_106.png", "previews/liver_83.png"]
    assert err.startswith("warning: 148 of 150 cases lack raw files")
    break_case(root, "liver_83")
    status, out, err = run(
        "preview", root, "--case", "liver_106", "--case", "liver_83", "--sheet", "--out", "a.png"
    )
    assert (status, out) == (0, "a.png\n")
    assert "warning: liver_83 is left out: " in err
    assert run("preview", "liver_83", "--data-dir", root)[0] == 2
    status, out, err = run("preview", root, "--case", "liver_83", "--case", "liver_0", "--out", "none")
    assert (status, out) == (2, "")
    assert err.splitlines()[-1].startswith("error: the pictures: expected at least one case, found every one")
    os.mkdir("HN_P023")  # noqa: PTH102 (a folder of that name is no reason not to mean the case)
    assert json.loads(run("preview", "HN_P023", "--data-dir", root, "--json")[1]) == ["HN_P023.png"]
    os.rmdir("HN_P023")  # noqa: PTH106
    os.remove("HN_P023.png")  # noqa: PTH107
    assert sorted(os.listdir()) == ["a.png", "liver_106.png", "previews"]  # noqa: PTH208
    for name in ("a.png", "liver_106.png", "previews/liver_83.png"):
        with open(name, "rb") as file:  # noqa: PTH123
            assert file.read(8) == b"\x89PNG\r\n\x1a\n"


def test_vertebrae(run):
    status, out, err = run("vertebrae")
    assert (status, err) == (0, "")
    rows = table(out)
    assert len(rows) == 25
    assert rows[24] == {
        "label": "25",
        "name": "L6",
        "region": "lumbar",
        "verse": "25",
        "totalsegmentator": "",
        "volumes": "18",
    }
    assert [row["name"] for row in table(run("vertebrae", "t12", "20")[1])] == ["T12", "L1"]
    assert json.loads(run("vertebrae", "C1", "--json")[1])[0]["totalsegmentator"] == 50


def test_cite(run):
    status, out, err = run("cite")
    assert (status, err) == (0, "")
    assert out.startswith(
        "% The data are under CC BY-NC-SA: attribution, no commercial use, share alike.\n\n@"
    )
    assert out.count("\n@") == 5
    for source in catalog.SOURCES:
        assert f"Source {source} of" in out
    assert json.loads(run("cite", "--json")[1])["licence"] == "CC BY-NC-SA"


@pytest.mark.slow
def test_demo_makes_loads_and_prints(demo):
    status, out, err = demo.status, demo.out, demo.err
    assert status == 0
    assert "3d: train 2 rows, validation 1 row, test 1 row" in out
    assert "2d: train 54 rows, validation 36 rows, test 42 rows" in out
    assert "image: Array3D(shape=(None, 512, 512), dtype='float32'" in out
    assert (
        "test: image [(42, 512, 512)]; segmentation [(42, 512, 512)]; labels [0, 18, 19, 20, 21, 22]" in out
    )
    assert len(list(demo.root.rglob("*.nii.gz"))) == 8
    assert err == f"The files are in {demo.root}\nA picture of a case is {demo.root / 'preview.png'}\n"
    assert (demo.root / "preview.png").read_bytes().startswith(b"\x89PNG")


def test_demo_replaces_nothing(run, tmp_path):
    (tmp_path / "mine.txt").touch()
    status, out, err = run("demo", "--out", tmp_path)
    assert (status, out) == (2, "")
    assert err.startswith(
        f"error: {tmp_path}: expected a new or an empty folder, found mine.txt. Choose another folder, or "
    )


@pytest.mark.processes
def test_module_is_a_program(python):
    code = "import runpy, sys; sys.argv = ['x', *sys.argv[1:]]; runpy.run_module('ctspine1k', run_name='__main__')"
    run = python(code, "info", "nobody")
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.startswith("error: no case 'nobody'")


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("ctspine1k ver", ["verify", "vertebrae"]),
        (
            "ctspine1k info HN_P00",
            ["HN_P001", "HN_P002", "HN_P003", "HN_P004", "HN_P005", "HN_P007", "HN_P008"],
        ),
        ("ctspine1k list --split t", ["train", "test"]),
        ("ctspine1k preview liver_10", ["liver_100", "liver_101", "liver_102"]),
        ("ctspine1k vertebrae L", ["L1", "L2", "L3", "L4", "L5", "L6"]),
        ("ctspine1k list --has-vertebrae C", ["C1", "C2", "C3"]),
        ("ctspine1k list --exclude", ["--exclude-issues"]),
    ],
)
def test_shell_completion(monkeypatch, capsys, words, wanted):
    monkeypatch.setenv("_CTSPINE1K_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split()) - 1))
    monkeypatch.setattr(sys, "argv", ["-c"])
    main()
    told = capsys.readouterr()
    completed = [line.partition(",")[2] for line in told.out.splitlines()]
    assert completed[: len(wanted)] == wanted, told.err


@pytest.mark.processes
def test_help_and_completion_load_nothing_heavy(python):
    code = """
import sys
from ctspine1k.catalog import registry
from ctspine1k.cli.main import cli, main
main(["verify", "--help"])
print([m for m in ("datasets", "huggingface_hub", "numpy", "pandas", "pyarrow", "scipy", "matplotlib") if m in sys.modules])
"""
    assert python(code).stdout.splitlines()[-1] == "[]"


@pytest.mark.processes
def test_bars_are_shown_on_a_terminal_alone(root):
    """A terminal of our own: the bar is there, and stdout is free of it."""
    import fcntl
    import pty
    import struct
    import termios

    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    process = subprocess.run(
        [sys.executable, "-m", "ctspine1k", "scan", root, "--case", "liver_106", "--num-proc", "1"],
        stdout=subprocess.PIPE,
        stderr=follower,
        check=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(ctspine1k.__file__))},  # noqa: PTH120
    )
    os.close(follower)
    told = b""
    try:
        while chunk := os.read(leader, 4096):
            told += chunk
    except OSError:  # the terminal is closed
        pass
    os.close(leader)
    assert b"Scanning: 100%" in told
    assert process.stdout.count("\n") == 2


@pytest.mark.processes
def test_a_pipe_that_is_closed_is_no_finding(root):
    command = f"{sys.executable} -m ctspine1k list --json | true; exit ${{PIPESTATUS[0]}}"
    environment = {**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(ctspine1k.__file__))}  # noqa: PTH120
    run = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, env=environment, check=False
    )
    assert run.returncode in (0, 141)  # 0: all of it was in the pipe before that closed
    assert "Traceback" not in run.stderr


@pytest.mark.processes
def test_without_stderr(root):
    command = f"{sys.executable} -m ctspine1k verify {root} --case liver_106 --num-proc 1 2>&-"
    environment = {**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(ctspine1k.__file__))}  # noqa: PTH120
    run = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, env=environment, check=False
    )
    assert run.returncode == 0
    assert run.stdout.endswith("nothing found\n")


@names_of_bytes
def test_file_names_that_are_not_utf8(run, root):
    os.close(os.open(os.fsencode(root) + b"/x\xff.nii.gz", os.O_CREAT))
    status, out, err = run("verify", root, "--case", "liver_106", "--out", "r.csv", "--json")
    assert (status, err) == (1, "")
    assert json.loads(out)["findings"][0]["found"] == "x\udcff.nii.gz"
    with open("r.csv", encoding="utf-8", newline="") as file:  # noqa: PTH123
        assert next(csv.DictReader(file))["found"] == "x\\udcff.nii.gz"
    assert "found x\\udcff.nii.gz. Rename it" in run("verify", root, "--case", "liver_106")[1]


def test_an_output_that_cannot_be_written_is_told_before_the_work(run, root):
    (root / "file").touch()
    status, out, err = run("verify", root, "--case", "liver_106", "--out", root / "file" / "r.csv")
    assert (status, out) == (2, "")
    assert err.count("\n") == 1


def test_export(run, root):
    where = ("export", "parquet", "out", "--data-dir", root, "--image-size", 56, 80)
    cases = ("--case", "liver_83", "--case", "HN_P023")
    status, out, err = run(*where, *cases, "--config", "2d", "--geometry", "--label-scheme", "binary")
    assert (status, err) == (0, "")
    assert out.splitlines()[-1] == "shards: 2 made, 0 kept; failures: 0"
    assert re.match(r"2d train: rows \d+, shards 1, bytes [\d,]+\n2d validation: ", out)
    rows = pq.read_table("out/2d/train/00000-of-00001.parquet")
    assert {"spacing", "affine", "array_affine", "orientation"} <= set(rows.column_names)
    assert np.unique(rows["segmentation"].combine_chunks().flatten().flatten()).tolist() == [0, 1]
    status, out, err = run(
        *where, *cases, "--config", "2d", "--geometry", "--label-scheme", "binary", "--verify", "--json"
    )
    report = json.loads(out)
    assert (status, report["made"], report["kept"], report["ok"]) == (0, 0, 2, True)


@pytest.mark.processes
def test_export_of_a_broken_case(run, root):
    """Two processes have its shards fail, one leaves it out."""
    break_case(root, "liver_83")
    out = str(root.parent / "work" / "out")
    where = ("export", "parquet", out, "--data-dir", str(root), "--image-size", "56", "80")
    cases = ("--case", "liver_83", "--case", "HN_P023")
    process = fork("support.forks:command_there", [*where, *cases, "--num-proc", "2"])
    assert process.wait() == 1
    told, _ = process.printed
    where_from = "raw_data/volumes/MSD-T10/liver_83.nii.gz: expected"
    for config in ("3d", "2d"):
        assert f"failed: liver_83 ({config}/train/00000-of-00001.parquet): {where_from}" in told
    assert told.endswith("shards: 2 made, 0 kept; failures: 2\n")
    status, told, _ = run(*where, *cases, "--on-error", "skip", "--num-proc", 1)
    assert status == 0
    assert "left out: liver_83: " in told


def test_export_of_voxels_that_are_not_finite(run, root):
    values = spine([20, 21])[0].astype("<f4")
    values[1, 2, 3] = np.nan
    save_spine(root, "liver_83", values, spine([20, 21])[1])
    where = ("export", "parquet", "out", "--data-dir", root, "--image-size", 56, 80, "--config", "2d")
    assert run(*where, "--case", "liver_83")[0] == 1
    status, _, err = run(*where, "--case", "liver_83", "--on-voxels", "replace")
    assert (status, err.count("\n")) == (0, 1)
    assert err.endswith(
        "liver_83.nii.gz: NaN and infinite voxels are read as -1024 HU; the first is nan at (i, j, k) = (1, 2, 3)\n"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("out",), "Say where"),
        (("out", "--config", "2d", "--num-proc", "2", "--geometry"), "Say where"),
        (("", "--data-dir", "."), "out is empty"),
        (("nonsense://x", "--case", "liver_83", "--data-dir", "ROOT"), "expected a URL that fsspec can open"),
        (("out", "--data-dir", "ROOT", "--label-scheme", "x"), "label_scheme='x': expected one of"),
        (("out", "--data-dir", "ROOT", "--num-proc", "0"), "num-proc"),
    ],
)
def test_export_of_what_cannot_be(run, root, arguments, message):
    status, out, err = run("export", "parquet", *(root if word == "ROOT" else word for word in arguments))
    assert (status, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
