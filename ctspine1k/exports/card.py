"""The card of an export, ``README.md``: what the Hub and `datasets` read at its head, for people below."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import datasets
from datasets.info import DatasetInfosDict
from datasets.splits import SplitDict, SplitInfo
from huggingface_hub import DatasetCardData

from ctspine1k import __version__
from ctspine1k.catalog.cases import SPLITS
from ctspine1k.catalog.citations import LICENCE, TERMS, bibtex
from ctspine1k.exports.ledger import CASES_TABLE, MANIFEST, ShardRecord
from ctspine1k.rows.batches import RowOptions

__all__ = ["SplitSize", "make_card", "split_sizes"]

#: The Hub's classes of size, by the number of rows that they end before.
_SIZES = {10**3: "n<1K", 10**4: "1K<n<10K", 10**5: "10K<n<100K", 10**6: "100K<n<1M", 10**7: "1M<n<10M"}

_SHAPES = {"3d": "(slices, {0}, {1})", "2d": "({0}, {1})"}

_LABELS = {
    "ctspine1k": "0 background, 1-7 C1-C7, 8-19 T1-T12, 20-25 L1-L6",
    "verse": "0 background, 1-7 C1-C7, 8-19 T1-T12, 20-25 L1-L6, as VerSe counts",
    "region": "0 background, 1 cervical, 2 thoracic, 3 lumbar",
    "binary": "0 background, 1 vertebra",
}

_COLUMNS = {
    "image": "float32, {shape}: Hounsfield units",
    "segmentation": "int32, {shape}: {labels}",
    "patient_id": "the case's id, as in `" + CASES_TABLE + "`",
    "index": "position of the case in its split",
    "slice_index": "position of the slice in its volume",
    "source": "which of the four sources the scan is from",
    "spacing": "mm, in the order slice, first, second axis",
    "affine": "4 x 4, of the raw file: voxel index (i, j, k) to RAS+ mm",
    "orientation": "where slice, first and second axis lead to",
}

_TEXT = """\
# CTSpine1K

Spine CT with voxel labels for each vertebra, as Parquet: {rows}.
It loads without any code of its own:

```python
import datasets

rows = datasets.load_dataset("PATH-OR-REPO", name="{config}", split="{split}", streaming=True)
```

`streaming=True` decodes rows as they are asked for. Without it, `datasets` first writes them uncompressed to
its cache, which takes {arrow} for all that is here.

{sizes}

`{cases}` has a row for each case: split, source, special case, known issues{scan}.
pandas, Polars, DuckDB and all that reads Parquet read it, and the shards.

## Columns

{columns}

The first axis counts the slices, the other two are the first and second of the raw file, {orientation}.
Some labels are known to be wrong, and none is corrected: `{cases}` names the issues of each case.

## Left out

{left_out}

## Terms

{licence}: {terms}. That goes for what you make of it, too. Name the data set and its four sources:

```bibtex
{bibtex}
```

Made by ctspine1k {version} from {origin}; `{manifest}` tells of each file.
"""


@dataclass(frozen=True)
class SplitSize:
    """How much is in a split of a config."""

    config: str
    split: str
    shards: int
    rows: int
    bytes: int  #: of the files
    arrow_bytes: int  #: of the rows in memory


def split_sizes(records: Iterable[ShardRecord]) -> list[SplitSize]:
    """Add up the shards, in the order of `SPLITS`; a split without rows is left out."""
    of_split: dict[tuple[str, str], list[ShardRecord]] = {}
    for record in records:
        config, split, _ = record.path.split("/")
        of_split.setdefault((config, split), []).append(record)
    sizes = [
        SplitSize(
            config,
            split,
            len(shards),
            sum(shard.rows for shard in shards),
            sum(shard.bytes for shard in shards),
            sum(shard.arrow_bytes for shard in shards),
        )
        for (config, split), shards in of_split.items()
    ]
    return sorted((size for size in sizes if size.rows), key=lambda size: SPLITS.index(size.split))


def make_card(
    options: Sequence[RowOptions],
    sizes: Sequence[SplitSize],
    skipped: Mapping[str, str],
    origin: Mapping[str, str],
    *,
    is_scanned: bool,
) -> str:
    """Write the card."""
    text = _TEXT.format(
        rows=" and ".join(_counted(one.config, sizes) for one in options),
        config=options[0].config,
        split=sizes[0].split,
        arrow=f"{sum(size.arrow_bytes for size in sizes) / 1e9:,.1f} GB",
        sizes=_table(
            ["config", "split", "rows", "shards", "bytes"],
            [[s.config, s.split, f"{s.rows:,}", f"{s.shards:,}", f"{s.bytes:,}"] for s in _by_config(sizes)],
        ),
        cases=CASES_TABLE,
        scan=", and what a scan has measured: shape, spacing, vertebrae and more" if is_scanned else "",
        columns="\n\n".join(_columns(one) for one in options),
        orientation="as stored" if (axes := options[0].orientation) is None else f"turned to {axes}",
        left_out=_table(["case", "why"], [[f"`{case}`", why] for case, why in skipped.items()])
        if skipped
        else "Nothing.",
        licence=LICENCE,
        terms=TERMS,
        bibtex="\n\n".join(bibtex()),
        version=__version__,
        origin=", ".join(f"{name} `{value}`" for name, value in origin.items()),
        manifest=MANIFEST,
    )
    return f"---\n{_head(options, sizes)}\n---\n\n{text}"


def _head(options: Sequence[RowOptions], sizes: Sequence[SplitSize]) -> str:
    """Write what machines read: configs with their files, features and sizes, and what the Hub shows."""
    infos = DatasetInfosDict()
    configs: list[dict[str, Any]] = []
    for one in options:
        own = [size for size in sizes if size.config == one.config]
        splits = SplitDict()
        for size in own:
            splits.add(SplitInfo(size.split, size.arrow_bytes, size.rows))
        infos[one.config] = datasets.DatasetInfo(
            features=one.features(),
            splits=splits,
            download_size=sum(size.bytes for size in own),
            dataset_size=sum(size.arrow_bytes for size in own),
        )
        files = [{"split": size.split, "path": f"{one.config}/{size.split}/*.parquet"} for size in own]
        configs.append({"config_name": one.config, "data_files": files})
    configs[0]["default"] = True
    configs.append({"config_name": "cases", "data_files": [{"split": "cases", "path": CASES_TABLE}]})
    data = DatasetCardData(
        pretty_name="CTSpine1K",
        # The data set names no version of its licence, so none of the Hub's own words fits.
        license="other",
        license_name="cc-by-nc-sa",
        task_categories=["image-segmentation"],
        size_categories=sorted({_size_of(one.config, sizes) for one in options}),
        tags=["medical", "CT", "spine", "vertebra", "3D"],
        configs=configs,
    )
    infos.to_dataset_card_data(data)
    info = data["dataset_info"]
    for config in info if isinstance(info, list) else [info]:
        config["features"] = [_oldest_words(feature) for feature in config["features"]]
    return str(data.to_yaml())


def _oldest_words(feature: Mapping[str, Any]) -> dict[str, Any]:
    """Write a feature as `datasets` 3 does, and later releases read, too: they say "list" for "sequence"."""
    return {"sequence" if name == "list" else name: value for name, value in feature.items()}


def _size_of(config: str, sizes: Sequence[SplitSize]) -> str:
    rows = sum(size.rows for size in sizes if size.config == config)
    return next(name for end, name in _SIZES.items() if rows < end)


def _counted(config: str, sizes: Sequence[SplitSize]) -> str:
    rows = sum(size.rows for size in sizes if size.config == config)
    return f"{rows:,} {'volumes' if config == '3d' else 'slices'} (`{config}`)"


def _by_config(sizes: Sequence[SplitSize]) -> list[SplitSize]:
    return sorted(sizes, key=lambda size: size.config, reverse=True)


def _columns(options: RowOptions) -> str:
    labels, shape = _LABELS[options.label_scheme], _SHAPES[options.config].format(*(options.image_size or ()))
    rows = [[f"`{name}`", _COLUMNS[name].format(shape=shape, labels=labels)] for name in options.features()]
    return _table([f"column of `{options.config}`", "what"], rows)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(text: str) -> str:
    """Keep a text, such as a file's name, from ending a cell, and from being HTML."""
    return " ".join(text.split()).replace("|", "/").replace("<", "&lt;")
