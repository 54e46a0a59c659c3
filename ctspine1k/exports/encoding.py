"""Parquet encoding of rows: schema, columns, and settings of the writer.

Encodings were chosen by measurement (``benchmarks/README.md``): the image's bytes are split into streams,
which zstd then compresses to less than the raw file; the mask needs only zstd. A page is one slice of
512 x 512 in 2d, or one volume in 3d: content-defined chunking would cut at the same places, and take 50 %
longer.
"""

from __future__ import annotations

import json
from typing import Any

import datasets
import pyarrow as pa

__all__ = ["parquet_schema", "plain_columns", "writer_settings"]


def parquet_schema(features: datasets.Features) -> pa.Schema:
    """Return the schema of rows: arrays as nested lists, with the metadata by which `datasets` knows them.

    `Dataset.to_parquet` writes extension types instead, which Polars before 1.36 cannot read.
    """
    schema = features.arrow_schema
    metadata = json.loads(schema.metadata[b"huggingface"])
    metadata["info"]["features"] = _oldest_words(metadata["info"]["features"])
    fields = [
        field.with_type(field.type.storage_type) if isinstance(field.type, pa.BaseExtensionType) else field
        for field in schema
    ]
    return pa.schema(fields, {"huggingface": json.dumps(metadata)})


def _oldest_words(features: Any) -> Any:
    """Return features as `datasets` 3 names them, which later releases also read: "Sequence" for "List"."""
    if not isinstance(features, dict):
        return features
    kind = {"_type": "Sequence"} if features.get("_type") == "List" else {}
    return {name: _oldest_words(value) for name, value in features.items()} | kind


def plain_columns(table: pa.Table) -> list[pa.Array]:
    """Return the columns of a table in the types of `parquet_schema`, without a copy."""
    columns = [column.combine_chunks() for column in table.columns]
    return [column.storage if isinstance(column, pa.ExtensionArray) else column for column in columns]


def writer_settings(schema: pa.Schema) -> dict[str, Any]:
    """Return the arguments of `pyarrow.parquet.ParquetWriter`."""
    small = [name for name in schema.names if name not in ("image", "segmentation")]
    return {
        "compression": "zstd",
        "compression_level": 3,
        "use_byte_stream_split": [_leaf(schema.field("image"))],
        "use_dictionary": small,
        "write_statistics": small,
        "write_page_index": True,
    }


def _leaf(field: pa.Field) -> str:
    """Return Parquet's name of the innermost column of nested lists."""
    name, kind = field.name, field.type
    while pa.types.is_list(kind):
        name, kind = f"{name}.list.element", kind.value_type
    return str(name)
