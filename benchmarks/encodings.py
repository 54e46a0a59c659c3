"""How an export's voxels might be written: bytes against the raw files, and seconds, in turn.

python benchmarks/encodings.py [--slices 300] [--repeat 3]
"""

from __future__ import annotations

import argparse
import inspect
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from cases import CASES, make_cases

import ctspine1k
from ctspine1k.catalog.ctspine1k import CTSPINE1K
from ctspine1k.catalog.dataset import Kind
from ctspine1k.exports.encoding import parquet_schema, plain_columns, writer_settings
from ctspine1k.rows.batches import case_batches
from ctspine1k.rows.features import features_of
from ctspine1k.rows.options import RowOptions


def variants(schema: pa.Schema) -> dict[str, dict[str, Any]]:
    """Settings of the writer: ours, and what each change of them would give."""
    ours = writer_settings(schema)
    mask = ours["use_byte_stream_split"][0].replace("image", "segmentation")
    small, leaves = ours["use_dictionary"], [*ours["use_byte_stream_split"], mask]
    others: dict[str, dict[str, Any]] = {
        "ours": {},
        "zstd 1": {"compression_level": 1},
        "zstd 6": {"compression_level": 6},
        "a dictionary for the mask": {"use_dictionary": [*small, mask]},
        "byte streams for the mask, too": {"use_byte_stream_split": leaves},
        "no byte streams": {"use_byte_stream_split": False},
        "data page 2.0": {"data_page_version": "2.0"},
        "statistics of all columns": {"write_statistics": True},
        "no page index": {"write_page_index": False},
    }
    if "use_content_defined_chunking" in inspect.signature(pq.ParquetWriter.__init__).parameters:
        others["content-defined chunking"] = {"use_content_defined_chunking": True}
    return {name: ours | changes for name, changes in others.items()}


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--repeat", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        make_cases(Path(folder), args.slices, 1)
        cases = Path(folder) / "cases"
        files: dict[Kind, Path] = {
            "image": cases / f"{CASES[0]}.nii.gz",
            "mask": cases / f"{CASES[0]}_seg.nii.gz",
        }
        raw = sum(file.stat().st_size for file in files.values())
        print("| config | written with | bytes against raw | s |\n|---|---|---|---|")
        for config in ("3d", "2d"):
            options = RowOptions(config).of(CTSPINE1K)
            features = features_of(options)
            schema = parquet_schema(features)
            case = ctspine1k.load_catalog()[CASES[0]]
            batches = case_batches(options, CTSPINE1K.vocabulary, case, files, depth=16)
            tables = [
                pa.Table.from_arrays(plain_columns(batch.table(features)), schema=schema) for batch in batches
            ]
            ways = variants(schema)
            times: dict[str, list[float]] = {name: [] for name in ways}
            sizes = {}
            for turn in range(args.repeat + 1):
                for name, settings in ways.items():
                    path = Path(folder) / "written.parquet"
                    start = time.perf_counter()
                    with pq.ParquetWriter(path, schema, **settings) as writer:
                        for table in tables:
                            writer.write_table(table, row_group_size=len(table))
                    if turn:
                        times[name].append(time.perf_counter() - start)
                    sizes[name] = path.stat().st_size
            for name, seconds in times.items():
                print(f"| {config} | {name} | {sizes[name] / raw:.3f} | {statistics.median(seconds):.2f} |")


if __name__ == "__main__":
    main()
