import io
import json
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ctspine1k.catalog.dataset import KINDS
from ctspine1k.errors import OutputError, ScanTableError
from ctspine1k.scans.tables import (
    CASES,
    SCAN_VERSION,
    VERTEBRAE,
    ScanTables,
    check_target,
    file_columns,
    is_current,
    read_tables,
    vertebrae_path,
    write_tables,
)


def case(case_id, **columns):
    return {"case_id": case_id, "image_file": f"{case_id} 1", "mask_file": f"{case_id} 2", **columns}


TABLES = ScanTables(
    [case("a", labels=[20], shape=[3, 4, 5], affine=[[1.0, 0, 0, 0]] * 4), case("b", problem="cut")],
    [{"case_id": "a", "label": 20, "start": [0, 1, 2], "centroid_mm": [0.5, 1.5, -2.5]}],
)


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "x.parquet"
    write_tables(path, TABLES)
    assert vertebrae_path(path) == tmp_path / "x.vertebrae.parquet"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.parquet", "x.vertebrae.parquet"]
    read = read_tables(path)
    assert [{k: v for k, v in row.items() if v is not None} for row in read.cases] == TABLES.cases
    assert [{k: v for k, v in row.items() if v is not None} for row in read.vertebrae] == TABLES.vertebrae
    assert pq.read_schema(path).names == CASES.names
    assert pq.read_schema(vertebrae_path(path)).names == VERTEBRAE.names


def test_columns_of_the_tables():
    """Whoever reads them asks for these names."""
    assert CASES.names == [
        *("case_id", "split", "index", "source", "special_case", "shape", "spacing", "orientation", "affine"),
        *("image_type", "mask_type", "slope", "intercept", "hu_min", "hu_max", "hu_beside", "label_rounding"),
        *("other_labels", "replaced_voxels", "labels", "vertebrae", "geometry_problem", "header_problem"),
        *("image_crc32", "mask_crc32", "image_file", "mask_file", "problem"),
    ]
    assert VERTEBRAE.names == [
        *("case_id", "label", "vertebra", "region", "voxels", "volume_cm3", "mean_hu", "start", "stop"),
        *("centroid", "centroid_mm", "touches_first_slice", "touches_last_slice", "components"),
        "largest_component",
    ]


def test_only_data_sets_with_points_have_columns_for_them(tmp_path):
    states = {"image": "a 1", "points": "a 3"}
    without, having = (file_columns(states, kinds) for kinds in (("image", "mask"), ("image", "points")))
    assert without == {"image_file": "a 1", "mask_file": None}
    assert having == {**without, "points_file": "a 3"}
    path = tmp_path / "x.parquet"
    for columns in (without, having):
        write_tables(path, ScanTables([{"case_id": "a", **columns}], []))
        names, vertebrae = pq.read_schema(path).names, pq.read_schema(vertebrae_path(path)).names
        added = set(names) - set(CASES.names), set(vertebrae) - set(VERTEBRAE.names)
        assert added == (
            ({"points_file", "reading"}, {"point", "point_mm"}) if columns is having else (set(), set())
        )
        assert [row["mask_file"] for row in read_tables(path).cases] == [None]
    assert names[names.index("mask_file") + 1] == "points_file"
    assert vertebrae[vertebrae.index("centroid_mm") + 1 :][:2] == ["point", "point_mm"]


def test_a_row_is_current_if_the_files_it_was_measured_in_are_there_unchanged():
    row = file_columns({"image": "a 1", "mask": "a 2"}, ("image", "mask"))
    assert is_current(row, {"image": "a 1", "mask": "a 2"}, KINDS)
    assert is_current(row, {"image": "a 1"})
    for states in ({"image": "a 1"}, {"image": "a 1", "mask": "b 2"}, {"mask": "a 2"}):
        assert not is_current(row, states, KINDS)
    assert not is_current(row, {"image": "b 1"})
    assert not is_current(row, {"points": "a 3"})


def test_threads_of_arrow_read_no_file_of_python(tmp_path, monkeypatch):
    """They may abort Python when it exits."""
    write_tables(tmp_path / "x.parquet", TABLES)
    wanted, readers = read_tables(tmp_path / "x.parquet"), set()

    class Noting(io.BufferedReader):
        def read(self, *args):
            readers.add(threading.get_ident())
            return super().read(*args)

    monkeypatch.setattr(Path, "open", lambda path, *_, **__: Noting(io.FileIO(path)))
    assert read_tables(tmp_path / "x.parquet") == wanted
    assert readers <= {threading.get_ident()}


def test_nothing_appears_when_a_row_does_not_fit(tmp_path):
    bad = ScanTables([case("a", shape="no list")], [])
    with pytest.raises(pa.ArrowException):
        write_tables(tmp_path / "x.parquet", bad)
    assert not (tmp_path / "x.parquet").exists()


def test_tables_of_two_scans_do_not_go_together(tmp_path):
    write_tables(tmp_path / "x.parquet", TABLES)
    write_tables(tmp_path / "y.parquet", ScanTables([case("c")], []))
    (tmp_path / "y.vertebrae.parquet").replace(tmp_path / "x.vertebrae.parquet")
    with pytest.raises(
        ScanTableError, match=r"expected the vertebrae of x\.parquet, found those of another scan"
    ):
        read_tables(tmp_path / "x.parquet")
    # Of the same files, too, if they were measured with other options.
    for name, option in (
        ("x", {"reading": "affine"}),
        ("y", {"reading": None}),
        ("y", {"other_labels": [26]}),
        ("y", {"replaced_voxels": 2}),
    ):
        write_tables(tmp_path / f"{name}.parquet", ScanTables([case("a", points_file="a 3", **option)], []))
        if name == "y":
            (tmp_path / "y.vertebrae.parquet").replace(tmp_path / "x.vertebrae.parquet")
            with pytest.raises(ScanTableError, match="found those of another scan"):
                read_tables(tmp_path / "x.parquet")


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (lambda path: path.unlink(), "no file"),
        (lambda path: path.write_bytes(b"PAR1 not"), "Parquet"),
        (lambda path: pq.write_table(pa.table({"a": [1]}), path), "a Parquet file that no scan wrote"),
    ],
)
def test_what_is_no_table_is_told(tmp_path, make, found):
    path = tmp_path / "x.parquet"
    write_tables(path, TABLES)
    make(path)
    with pytest.raises(ScanTableError, match=rf"x\.parquet: expected .*{found}"):
        read_tables(path)


def test_another_version_is_told(tmp_path):
    path = tmp_path / "x.parquet"
    write_tables(path, TABLES)
    for one in (path, vertebrae_path(path)):
        table = pq.read_table(one)
        key = b"ctspine1k_scan"
        mark = {**json.loads(table.schema.metadata[key]), "version": 99}
        pq.write_table(table.replace_schema_metadata({key: json.dumps(mark)}), one)
    with pytest.raises(ScanTableError, match=f"expected a scan of version {SCAN_VERSION}, found another"):
        read_tables(path)


def test_bytes_damaged_inside_are_told(tmp_path):
    path = tmp_path / "x.parquet"
    write_tables(path, TABLES)
    data = bytearray(path.read_bytes())
    data[len(data) // 3 : len(data) - 8] = bytes(len(data) - 8 - len(data) // 3)
    path.write_bytes(data)
    with pytest.raises(ScanTableError, match=r"intact Parquet file, found .*[^.]\. Run `"):
        read_tables(path)


def test_a_scan_may_replace_its_own_tables_alone(tmp_path):
    path = tmp_path / "x.parquet"
    check_target(path, "--out")
    write_tables(path, TABLES)
    check_target(path, "--out")
    with pytest.raises(ValueError, match=r"expected a name that ends in \.parquet"):
        check_target(tmp_path / "precious.txt", "--out")
    pq.write_table(pa.table({"a": [1]}), vertebrae_path(path))
    with pytest.raises(OutputError) as caught:
        check_target(path, "--out")
    assert caught.value.path.endswith("x.vertebrae.parquet")
    assert caught.value.hint == "Choose another --out, or move what is there away."


def test_other_columns_are_reported(tmp_path):
    path = tmp_path / "x.parquet"
    write_tables(path, TABLES)
    table = pq.read_table(path)
    renamed = table.rename_columns(["no_id", *table.column_names[1:]])
    pq.write_table(renamed.replace_schema_metadata(table.schema.metadata), path)
    with pytest.raises(
        ScanTableError, match=r"x\.parquet: expected the columns of a scan's table, found others"
    ):
        read_tables(path)


@pytest.mark.slow
def test_each_byte_of_a_table_that_changes_is_noticed_or_changes_nothing(tmp_path):
    path = tmp_path / "x.parquet"
    write_tables(path, TABLES)
    whole, tables = path.read_bytes(), read_tables(path)
    noticed = 0
    for at in range(0, len(whole), 41):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
        try:
            read = read_tables(path)
        except ScanTableError:
            noticed += 1
        else:
            assert read == tables, at
    assert noticed > 50
