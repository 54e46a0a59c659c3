"""What is damaged by `support.fuzzing`: whole inputs, and what their readers must come to when they are not."""

from __future__ import annotations

import functools
import gzip
import io
import json
import math
import os
import signal
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from ctspine1k import load_catalog, read_pair, read_points
from ctspine1k.catalog.ctspine1k import CTSPINE1K
from ctspine1k.errors import SplitFileError
from ctspine1k.evaluation.journal import SUMMARY, TABLE, Journal, read_options
from ctspine1k.evaluation.scoring import Scored
from ctspine1k.evaluation.table import ScoreTable, read_scores
from ctspine1k.exports.folder_target import FolderTarget
from ctspine1k.exports.ledger import MANIFEST, read_records
from ctspine1k.running.notes import note_line
from ctspine1k.scans.tables import SCAN_VERSION, read_tables
from ctspine1k.storage.chunks import StoredArray, store
from ctspine1k.storage.form import checksum
from ctspine1k.volumes.cases import open_case
from ctspine1k.volumes.headers import Geometry
from ctspine1k.volumes.metaimage import require_simpleitk
from ctspine1k.volumes.points_table import read_points_table
from support.metaimage import save_metaimage
from support.scores import random_table
from support.verbs import scan_files, verify_files
from support.volumes import AFFINE, SHAPE, intensities, labels, nifti, save_case

__all__ = ["Subject", "subjects", "wrong_subjects"]


@dataclass(frozen=True)
class Subject:
    """One kind of input."""

    name: str
    whole: bytes
    #: Reads it, with a folder to write to. Raises an error of ours, or `AssertionError` if values are wrong.
    check: Callable[[bytes, Path], None]
    focus: int | None = None  #: where most damages lie: in so many bytes at the start


@functools.cache
def subjects() -> tuple[Subject, ...]:
    """Return all of them. Those of headers, which are most that is read, come several times."""
    image, mask = nifti(intensities(), slope=1.5, inter=-1000.0), nifti(labels())
    big = nifti(intensities(dtype=">f4"), header_class=nib.Nifti2Header)
    heads = (
        Subject("image", image, functools.partial(_check_image, mask=mask), 352),
        Subject("NIfTI-2 image", big, functools.partial(_check_image, mask=mask), 544),
        Subject("mask", mask, functools.partial(_check_mask, image=image), 352),
    )
    compressed = gzip.compress(image, 6, mtime=0)
    return (
        *(8 * heads),
        *_metaimage(),
        Subject("gzip", compressed, functools.partial(_check_gzip, mask=mask, whole=image)),
        *_stored(),
        *_points(),
        _split_file(),
        *_of_an_export(),
        *_of_a_scan(),
        _points_table(),
        *_of_an_evaluation(),
    )


def _voxels(data: bytes) -> np.ndarray:
    """What nibabel reads, slice first: an independent path."""
    is_first = data[:4] in (b"\x5c\x01\x00\x00", b"\x00\x00\x01\x5c")
    kind, size = (nib.Nifti1Image, 348) if is_first else (nib.Nifti2Image, 540)
    # It refuses damaged extensions, which have nothing to do with voxels: it is told that there are none.
    read = kind.from_bytes(data[:size] + bytes(4) + data[size + 4 :])
    voxels = np.asanyarray(read.dataobj)
    return np.moveaxis(voxels.reshape(voxels.shape[:3]), 2, 0)


def _read(image: bytes, mask: bytes):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return read_pair(io.BytesIO(image), io.BytesIO(mask))


def _check_image(data: bytes, folder: Path, mask: bytes) -> None:
    found = _read(data, mask).image
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert np.array_equal(found, _voxels(data).astype(np.float32))
    assert np.isfinite(found).all()


def _check_mask(data: bytes, folder: Path, image: bytes) -> None:
    found = _read(image, data).segmentation
    assert np.abs(found - _voxels(data).astype(np.float64)).max() <= 1e-3
    assert 0 <= found.min() <= found.max() <= 25


def _check_gzip(data: bytes, folder: Path, mask: bytes, whole: bytes) -> None:
    """Its checksum covers all that is inflated."""
    _check_image(whole, folder, mask)
    assert np.array_equal(_read(data, mask).image, _read(whole, mask).image)


def _metaimage() -> list[Subject]:
    require_simpleitk()  # in this process: the children that are forked from it have less memory
    voxels = intensities()
    with tempfile.TemporaryDirectory() as folder:
        wholes = {
            name: save_metaimage(Path(folder, name), voxels, packed="packed" in name).read_bytes()
            for name in ("case.mhd", "case.mha", "packed.mha")
        }
        raw = Path(folder, "case.raw").read_bytes()
    found = [
        Subject(name, whole, functools.partial(_check_metaimage, name=name, raw=raw), 600)
        for name, whole in wholes.items()
    ]
    return [*(3 * found), Subject("case.raw", raw, functools.partial(_check_raw, whole=wholes["case.mhd"]))]


def _check_metaimage(data: bytes, folder: Path, name: str, raw: bytes) -> None:
    """SimpleITK reads the same voxels at once, at the same places, and no file but these two is there."""
    sitk = require_simpleitk()
    path = folder / name
    path.write_bytes(data)
    (folder / "case.raw").write_bytes(raw)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with open_case(path, None) as case:
            found, affine = case.read_image(), case.geometry.affine
    image = sitk.ReadImage(str(path), imageIO="MetaImageIO")
    voxels = sitk.GetArrayFromImage(image).transpose(0, 2, 1)
    assert np.array_equal(found, voxels.astype(np.float64).astype(np.float32))
    assert np.isfinite(found).all()
    last = [size - 1 for size in image.GetSize()]
    x, y, z = image.TransformIndexToPhysicalPoint(last)
    assert np.allclose(affine @ [*last, 1], (-x, -y, z, 1))


def _check_raw(data: bytes, folder: Path, whole: bytes) -> None:
    """Bytes that are neither too few nor too many are voxels, whatever they are."""
    (folder / "case.mhd").write_bytes(whole)
    (folder / "case.raw").write_bytes(data)
    with open_case(folder / "case.mhd", None) as case:
        found = case.read_image()
    voxels = np.frombuffer(data[: 2 * found.size], "<i2").reshape(SHAPE, order="F")
    assert np.array_equal(found, voxels.transpose(2, 0, 1))


def _stored() -> list[Subject]:
    array = np.zeros((40, 33, 70), np.int16)
    array[3:20, 5:25, 10:50] = intensities(shape=(17, 20, 40))
    fields = store(array, name="volume")
    wholes = {
        "header": fields["header"].encode(),
        "ends": np.asarray(fields["ends"], np.int64).tobytes(),
        "checksums": np.asarray(fields["checksums"], np.uint32).tobytes(),
        "bytes": bytes(fields["bytes"]),
    }
    found = [
        Subject(
            f"stored {name}", whole, functools.partial(_check_stored, fields=fields, name=name, array=array)
        )
        for name, whole in wholes.items()
    ]
    check = functools.partial(_check_chunks, fields=fields, shape=array.shape)
    return [*found, Subject("stored bytes with their checksums", wholes["bytes"], check, 64)]


def _points() -> list[Subject]:
    """Return points files of each form, in which the same place has other numbers."""
    geometry = Geometry.of(AFFINE, SHAPE)
    place = {"label": 20, "X": 1.0, "Y": 3.5, "Z": 2.25}
    wholes = {
        "seg-subreg_ctd.json": [{"direction": ["L", "P", "S"]}, place],
        "case_ctd.json": {"verts": [place, {**place, "label": 21 + 256}]},
        "case_iso-ctd.json": [place, {"label": 24, "x": 0, "y": 1, "z": math.nan}],
    }
    found = [
        Subject(name, json.dumps(whole).encode(), functools.partial(_check_points, name, geometry))
        for name, whole in wholes.items()
    ]
    rows = b"Landmarks\r\n1\tL1_center\t1.4\t2.4\t5.0\r\n2\tL2_center\t0.7\t1.6\t2.5\r\n"
    return [*found, Subject("points.lml", rows, functools.partial(_check_points, "points.lml", geometry))]


def _check_points(name: str, geometry: Geometry, data: bytes, folder: Path) -> None:
    """Whatever is read lies in the image, with a label and a name that go together."""
    path = folder / name
    path.write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        vocabulary = CTSPINE1K.vocabulary
        points = read_points(path, geometry, vocabulary, format="lml" if name.endswith("lml") else "verse")
    assert [point.label for point in points] == sorted({point.label for point in points})
    for point in points:
        assert vocabulary.name(point.label) == point.name
        assert all(-0.5 <= at <= size - 0.5 for at, size in zip(point.voxel, geometry.shape, strict=True))
        k, i, j = point.voxel
        assert np.allclose((AFFINE @ [i, j, k, 1])[:3], point.mm)


def _points_table() -> Subject:
    whole = b"case_id,label,x_mm,y_mm,z_mm\nliver_0,20,1.0,-2.5,3e1\nliver_1,8,4,5,6\n"
    return Subject("table of points", whole, _check_points_table)


def _check_points_table(data: bytes, folder: Path) -> None:
    """Each row is read: a place of finite numbers, of a vertebra."""
    path = folder / "points.csv"
    path.write_bytes(data)
    for case_id, points in read_points_table(path, CTSPINE1K.vocabulary).items():
        assert case_id.strip() == case_id != ""
        for label, place in points.items():
            assert CTSPINE1K.vocabulary.name(label)
            assert all(map(math.isfinite, place))


def _of_an_evaluation() -> list[Subject]:
    """Return the files of one that has finished, and the notes of one that was stopped."""
    table = random_table()
    known = {f"key of {case_id}": Scored(case_id, rows) for case_id, rows in table.by_case.items()}
    cases = {one.case_id: {"key": key, "problem": None} for key, one in known.items()}
    document = {"options": {"points": None}, "cases": cases, "table": table.digest()}
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(Path(folder))
        for key, one in known.items():
            journal.note(key, one)
        notes = Path(folder, ".scores.partial").read_bytes()
    wholes = {SUMMARY: json.dumps(document, indent=1).encode(), TABLE: table.csv().encode()}
    check = functools.partial(_check_evaluation, wholes=wholes, known=known)
    found = {**wholes, ".scores.partial": notes}
    return [Subject(name, whole, functools.partial(check, name=name)) for name, whole in found.items()]


def _check_evaluation(
    data: bytes, folder: Path, name: str, wholes: dict[str, bytes], known: dict[str, Scored]
) -> None:
    """Scores that are used again are those of their case: none of a table that reads differently, else all."""
    with tempfile.TemporaryDirectory(dir=folder) as out:
        for other, whole in {} if name.startswith(".") else wholes.items():
            Path(out, other).write_bytes(whole)
        Path(out, name).write_bytes(data)
        journal = Journal(Path(out))
        for key, right in known.items():
            found = journal.get(key, right.case_id)
            assert found is None or ScoreTable(found.rows).csv() == ScoreTable(right.rows).csv()
        read_options(Path(out))
        if name == TABLE:
            is_right = read_scores(Path(out)).csv().encode() == wholes[TABLE]
            used = {journal.get(key, right.case_id) is not None for key, right in known.items()}
            assert used == {is_right}


def _numbers(data: bytes, kind: type[np.integer]) -> np.ndarray:
    size = np.dtype(kind).itemsize
    return np.frombuffer(data[: len(data) // size * size], kind)


def _check_stored(data: bytes, folder: Path, fields: dict, name: str, array: np.ndarray) -> None:
    damaged = {"ends": _numbers(data, np.int64), "checksums": _numbers(data, np.uint32)}.get(name, data)
    assert np.array_equal(StoredArray.from_fields({**fields, name: damaged}).read(), array)


def _check_chunks(data: bytes, folder: Path, fields: dict, shape: tuple[int, ...]) -> None:
    """Whoever changes a chunk and its checksum gets other voxels, but no more than that."""
    seed, ends = StoredArray.from_fields(fields).seed, fields["ends"]
    checksums = [
        checksum(data[start:end], seed, number)
        for number, (start, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True))
    ]
    changed = {**fields, "bytes": data, "checksums": checksums}
    assert StoredArray.from_fields(changed).read().shape == shape


def _split_file() -> Subject:
    ids = [case.case_id for case in load_catalog()]
    whole = "\n".join(["train:", *ids[:4], "", "validation:", *ids[4:7], "", "test:", *ids[7:9], ""])
    return Subject("split file", whole.encode(), _check_split_file)


def _check_split_file(data: bytes, folder: Path) -> None:
    path = folder / "data_split.txt"
    path.write_bytes(data)
    catalog = load_catalog(split_file=path)
    text = data.decode("utf-8-sig")
    for case in catalog:
        assert case.case_id in text
        assert not {"/", "\\"} & {*case.case_id}
        assert ".." not in case.case_id


def _of_an_export() -> list[Subject]:
    record = {
        "path": "3d/train/00000-of-00001.parquet",
        "rows": 1,
        "bytes": 4,
        "arrow_bytes": 9,
        "sha256": "0" * 64,
        "inputs": "1" * 64,
        "cases": ["liver_0"],
        "skipped": {},
        "misplaced": [],
        "policy": "on_error=raise, on_geometry=warn",
        "files": ["a.nii.gz"],
        "versions": {"ctspine1k": "1"},
    }
    document = {"ctspine1k_export": 1, "files": {"a.nii.gz": {"bytes": 1, "sha256": "2" * 64}}}
    whole = json.dumps({**document, "shards": [record]}, indent=1)
    return [Subject("manifest", whole.encode(), _check_manifest)]


def _check_manifest(data: bytes, folder: Path) -> None:
    root = folder / "export"
    shard = root / "3d/train/00000-of-00001.parquet"
    shard.parent.mkdir(parents=True, exist_ok=True)
    shard.write_bytes(b"PAR1")
    (root / MANIFEST).write_bytes(data)
    target = FolderTarget(root)
    assert set(read_records(target, target.files())) <= {"3d/train/00000-of-00001.parquet"}


def _of_a_scan() -> list[Subject]:
    with tempfile.TemporaryDirectory() as folder:
        save_case(Path(folder), "liver_0")
        report = scan_files(data_dir=folder, cases="liver_0")
        tables = read_tables(report.cases)
        wholes = {path.name: path.read_bytes() for path in (report.cases, report.vertebrae)}
    record = {"version": SCAN_VERSION, "case": tables.cases[0], "vertebrae": tables.vertebrae}
    wholes[".cases.parquet.partial"] = note_line(json.dumps(record)).encode() + b"\n"
    return [
        Subject(name, whole, functools.partial(_check_scan, name=name, wholes=wholes))
        for name, whole in wholes.items()
    ]


def _check_scan(data: bytes, folder: Path, name: str, wholes: dict[str, bytes]) -> None:
    """Verify where these tables are, or scan where these notes are: what cannot be used is measured again."""
    root = folder / "scanned"
    if not root.exists():
        save_case(root, "liver_0")
    for path in root.glob("*.parquet*"):
        path.unlink()
    for other, whole in wholes.items():
        if other != name and not name.startswith("."):
            (root / other).write_bytes(whole)
    (root / name).write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if name.startswith("."):
            scan_files(data_dir=root, cases="liver_0")
        else:
            assert verify_files(data_dir=root, cases="liver_0").measured == 1


def wrong_subjects() -> tuple[Subject, ...]:
    """Return subjects each of whose inputs fails, but for the second."""

    def end(data: bytes, folder: Path) -> None:
        os.kill(os.getpid(), signal.SIGSEGV)

    def refuse(data: bytes, folder: Path) -> None:
        raise SplitFileError("damaged", 1, "", "an error of ours", ())

    checks = {
        "an error of another's": lambda data, folder: {}[len(data)],
        "an error of ours": refuse,
        "a crash": end,
        "a hang": lambda data, folder: time.sleep(60),
        "memory": lambda data, folder: np.empty(3 << 30, np.uint8),  # no page is touched
        "a wrong value": lambda data, folder: np.testing.assert_array_equal(len(data), -1),
    }
    return tuple(Subject(name, b"whole", check) for name, check in checks.items())
