"""Verbs that need no voxels, for each data set of the package."""

import json

import pytest

from ctspine1k.catalog import registry
from ctspine1k.cli.main import main


def run(capsys, *words):
    status = main(list(words))
    printed = capsys.readouterr()
    return status, printed.out, printed.err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["list", "--in-miccai20", "no", "--split", "test"], "verse"),
        (["list", "--patient", "verse408"], "verse223\ttrain\t78\tverse408\t2019\t\tF\t74\tCC BY-SA 4.0\t"),
        (["list", "--licence", "CC BY-NC-ND", "--age", "-30"], "gl059"),
        (["info", "verse201"], "issue          orientation_differs (compiled): MICCAI 2019: image and mask"),
        (["info", "gl003"], "licence        CC BY-NC-ND"),
        (["vertebrae", "T13", "L6"], "28\tT13\tthoracic\t\t\t"),
        (["cite"], "% The data are under CC BY-SA 4.0: attribution, share alike; of 30 cases, CC BY-NC-ND: "),
    ],
)
def test_verse(capsys, words, told):
    status, out, err = run(capsys, *words, "--collection", "verse")
    assert (status, err) == (0, "")
    assert told in out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["list", "--fold", "1", "--bottom", "S2", "--annotated", "-5"], "4543953\ttrain\t"),
        (["info", "4553575"], "top            C1"),
        (["vertebrae", "S1"], "26\tS1\tsacral\t\t\t\t"),
        (["cite"], "% The data are under non-commercial research use: under the terms of its page"),
    ],
)
def test_msr(capsys, words, told):
    status, out, err = run(capsys, *words, "--collection", "msr")
    assert (status, err) == (0, "")
    assert told in out


@pytest.mark.parametrize("verb", ["download", "scan", "verify", "preview", "points"])
@pytest.mark.parametrize(
    ("name", "case", "where"),
    [("verse", "verse004", "https://github.com/anjany/verse"), ("msr", "4553575", "from Microsoft Research")],
)
def test_what_is_not_fetched_says_where_to_get_it_and_how_to_lay_it_out(capsys, verb, name, case, where):
    words = [verb, case] if verb == "preview" else [verb, "--case", case]
    words += ["--kind", "file"] if verb == "points" else []
    status, out, err = run(capsys, *words, "--collection", name)
    assert (status, out) == (2, "")
    assert err.startswith(
        "error: expected data_dir, a folder: the files of this data set are in no Hub repo. Get "
    )
    assert where in err
    assert "side by side" in err
    assert len(err.splitlines()) == 1


def test_files_that_are_there_are_listed_and_missing_ones_explained(capsys, tmp_path):
    name = "sub-verse408_split-verse223_ct.nii.gz"
    (tmp_path / name).write_text("")
    status, out, _ = run(
        capsys, "list", "--files", "--collection", "verse", "--data-dir", str(tmp_path), "--json"
    )
    assert status == 0
    assert [(file["case_id"], file["kind"], file["path"]) for file in json.loads(out)] == [
        ("verse223", "image", name)
    ]
    words = ["download", "--case", "verse223", "--collection", "verse", "--data-dir", str(tmp_path)]
    status, _, err = run(capsys, *words)
    assert status == 2
    assert (
        "verse223 (mask). The folder contains 1 file *.nii.gz or *.nii in all. An image is sub-<series>"
        in err
    )
    status, _, err = run(capsys, *words, "--kind", "points")
    assert "verse223 (points)" in err


@pytest.mark.parametrize("name", registry.names())
def test_every_verb_takes_collection(capsys, name):
    for verb in (
        "list",
        "info",
        "download",
        "scan",
        "verify",
        "preview",
        "points",
        "vertebrae",
        "cite",
        "demo",
    ):
        status, out, _ = run(capsys, verb, "--collection", name, "--help")
        assert status == 0
        assert "--collection NAME" in out
    for facet in registry.data_set(name).facets:
        assert "--" + facet.name.replace("_", "-") in run(capsys, "list", "--collection", name, "--help")[1]
