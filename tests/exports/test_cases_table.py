"""The table of cases, as exports write it."""

import pyarrow.parquet as pq
import pytest
from support.exports import export_parquet
from support.spines import save_spine, spine
from support.verbs import scan_files
from support.volumes import break_case, files_of

import ctspine1k
from ctspine1k.errors import CTSpine1KWarning, ScanTableError


@pytest.mark.slow
def test_the_case_table_has_the_facts_and_what_a_scan_has_measured(tmp_path):
    root = tmp_path / "spines"
    save_spine(root, "liver_106", *spine([18, 19, 20, 21]))
    save_spine(root, "liver_83", *spine([23, 24, 25]))
    ids = ["liver_106", "liver_83"]
    options = {"data_dir": root, "cases": ids, "image_size": (56, 80)}
    export_parquet(tmp_path / "plain", **options)
    facts = pq.read_table(tmp_path / "plain/cases.parquet")
    assert facts.to_pylist() == [dict(ctspine1k.load_catalog()[case_id].row()) for case_id in ids]
    scan_files(data_dir=root, cases=ids)
    export_parquet(tmp_path / "scanned", **options)
    table = pq.read_table(tmp_path / "scanned/cases.parquet").to_pylist()
    assert [row["vertebrae"] for row in table] == [["T11", "T12", "L1", "L2"], ["L4", "L5", "L6"]]
    first = facts.to_pylist()[0]
    assert {key: table[0][key] for key in first} == first
    assert {"image_file", "mask_file", "problem", "geometry_problem"} & set(table[0]) == set()
    assert [row["mask_misplaced"] for row in table] == [False, False]
    assert "what a scan has measured" in (tmp_path / "scanned/README.md").read_text()
    save_spine(root, "liver_83", *spine([22, 23, 24, 25]))
    with pytest.warns(CTSpine1KWarning, match=r"current files: liver_83\. .* Run `ctspine1k scan`"):
        export_parquet(tmp_path / "stale", **options)
    table = pq.read_table(tmp_path / "stale/cases.parquet").to_pylist()
    assert [row["vertebrae"] for row in table] == [["T11", "T12", "L1", "L2"], None]
    with pytest.raises(ScanTableError):
        export_parquet(tmp_path / "none", **options, scan=tmp_path / "none.parquet")
    break_case(root, "liver_83")
    scan_files(data_dir=root, cases=ids)
    with pytest.warns(CTSpine1KWarning, match=r"not measured by the scan, .*current files: liver_83\."):
        export_parquet(tmp_path / "broken", **options, on_error="skip")
    broken = pq.read_table(tmp_path / "broken/cases.parquet").to_pylist()
    assert [row["mask_misplaced"] for row in broken] == [False, None]  # nobody knows
    assert str(root).encode() not in b"".join(files_of(tmp_path / "broken").values())
    assert str(root) not in str(pq.read_table(tmp_path / "broken/cases.parquet").to_pylist())
    export_parquet(
        tmp_path / "some", data_dir=root, cases="liver_106", has_vertebrae="T12", image_size=(56, 80)
    )
    (root / "cases.vertebrae.parquet").unlink()
    with pytest.warns(CTSpine1KWarning, match="The table of cases is written without its columns"):
        export_parquet(tmp_path / "broken", **options, on_error="skip")
