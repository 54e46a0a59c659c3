"""The card of an export, ``README.md``: a header for the Hub and `datasets`, and a text for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import datasets
from huggingface_hub import DatasetCardData

from ctspine1k import __version__
from ctspine1k.catalog.cases import Case
from ctspine1k.catalog.dataset import DataSet
from ctspine1k.exports.ledger import CASES_TABLE, MANIFEST, ShardRecord
from ctspine1k.rows._datasets import DatasetInfosDict, SplitDict, SplitInfo
from ctspine1k.rows.features import features_of
from ctspine1k.rows.options import RowOptions

__all__ = ["SplitSize", "make_card", "split_sizes"]

#: The Hub's size categories, by the number of rows below which each ends.
_SIZES = {10**3: "n<1K", 10**4: "1K<n<10K", 10**5: "10K<n<100K", 10**6: "100K<n<1M", 10**7: "1M<n<10M"}

_SHAPES = {"3d": "(slices, {0}, {1})", "2d": "({0}, {1})"}

#: In place of the size of slices, if it differs between cases.
_ANY_SIZE = ("first axis", "second axis")

_COLUMNS = {
    "image": "float32, {shape}: Hounsfield units",
    "segmentation": "int32, {shape}: {labels}",
    "patient_id": "the case's id, as in `" + CASES_TABLE + "`",
    "index": "position of the case in its split",
    "slice_index": "position of the slice in its volume",
    "source": "which source the scan is from; empty if that is not known",
    "spacing": "mm between voxels along the slice, first and second axis",
    "affine": "4 x 4, of the raw file: voxel index (i, j, k) to RAS+ mm",
    "array_affine": "4 x 4, of the volume: array index (slice, first, second axis) to RAS+ mm",
    "orientation": "anatomical direction of the slice, first and second axis, such as SLA",
    "n_labelled": "number of voxels with a label",
    "points": "each label, name, voxel (index in the volume's array) and mm (RAS+); {points}",
}

_TEXT = """\
# {title}

Spine CT with {what} for each vertebra, as Parquet: {rows}.
It loads without any code of its own:

```python
import datasets

rows = datasets.load_dataset("PATH-OR-REPO", name="{config}", split="{split}", streaming=True)
```

`streaming=True` decodes rows when they are requested. Without it, `datasets` first writes them uncompressed
to its cache, which takes {arrow} for all rows.

{sizes}

`{cases}` has one row per case: {facts}{scan}.
pandas, Polars, DuckDB and other tools for Parquet read it, and the shards.

## Columns

{columns}

The first axis counts the slices, the other two are the first and second of the raw file, {orientation}.
{any_size}`{cases}` lists the known issues of each case, such as labels that are wrong: none is corrected.

## Left out

{left_out}

## Terms

{licence}. This also applies to what you make from it. Credit {credit}:

```bibtex
{bibtex}
```

Made by ctspine1k {version} from {origin}; `{manifest}` describes each file.
"""


#: What the card says about arrays if the size of slices differs between cases.
_NESTED = """\
The size of slices differs between cases, so arrays are nested lists. `rows.with_format("numpy")`, or "torch",
gives each row as an array.
"""


@dataclass(frozen=True)
class SplitSize:
    """The size of a split of a config."""

    config: str
    split: str
    shards: int
    rows: int
    bytes: int  #: of the files
    arrow_bytes: int  #: of the rows in memory


def split_sizes(records: Iterable[ShardRecord], splits: Sequence[str]) -> list[SplitSize]:
    """Return the sizes of splits, in the order of ``splits``; a split without rows is left out."""
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
    return sorted((size for size in sizes if size.rows), key=lambda size: splits.index(size.split))


def make_card(
    data_set: DataSet,
    options: Sequence[RowOptions],
    sizes: Sequence[SplitSize],
    skipped: Mapping[str, str],
    origin: Mapping[str, str],
    *,
    facts: Sequence[str],
    is_scanned: bool,
    cases: Iterable[Case] = (),
) -> str:
    """Return the text of the card.

    Args:
        data_set: the data set: its title, labels, licence and citations.
        options: options of the rows of each config.
        sizes: sizes of each split of each config.
        skipped: why a case was left out, by case id.
        origin: where the raw files come from, as returned by `Place.origin`.
        facts: names of the facts in the table of cases.
        is_scanned: whether the table of cases has columns of a scan.
        cases: those of the export, whose licences may differ.
    """
    text = _TEXT.format(
        title=data_set.title,
        what="voxel labels" if options[0].masks else "a point",
        rows=" and ".join(_counted(one.config, sizes) for one in options),
        config=options[0].config,
        split=sizes[0].split,
        arrow=f"{sum(size.arrow_bytes for size in sizes) / 1e9:,.1f} GB",
        sizes=_table(
            ["config", "split", "rows", "shards", "bytes"],
            [[s.config, s.split, f"{s.rows:,}", f"{s.shards:,}", f"{s.bytes:,}"] for s in _by_config(sizes)],
        ),
        cases=CASES_TABLE,
        facts=", ".join(f"`{name}`" for name in facts),
        scan=", and what a scan has measured: shape, spacing, vertebrae and more" if is_scanned else "",
        columns="\n\n".join(_columns(data_set, one) for one in options),
        orientation="as stored" if (axes := options[0].orientation) is None else f"turned to {axes}",
        any_size=_NESTED if options[0].image_size is None else "",
        left_out=_table(["case_id", "why"], [[f"`{case}`", why] for case, why in skipped.items()])
        if skipped
        else "Nothing.",
        licence=data_set.licence_text(cases),
        credit=data_set.credit,
        bibtex="\n\n".join(data_set.citations()),
        version=__version__,
        origin=", ".join(f"{name} `{value}`" for name, value in origin.items()),
        manifest=MANIFEST,
    )
    return f"---\n{_head(data_set, options, sizes)}\n---\n\n{text}"


def _head(data_set: DataSet, options: Sequence[RowOptions], sizes: Sequence[SplitSize]) -> str:
    """Return the YAML that machines read: configs with their files, features and sizes, and Hub metadata."""
    infos = DatasetInfosDict()
    configs: list[dict[str, Any]] = []
    for one in options:
        own = [size for size in sizes if size.config == one.config]
        splits = SplitDict()
        for size in own:
            splits.add(SplitInfo(size.split, size.arrow_bytes, size.rows))
        infos[one.config] = datasets.DatasetInfo(
            features=features_of(one),
            splits=splits,
            download_size=sum(size.bytes for size in own),
            dataset_size=sum(size.arrow_bytes for size in own),
        )
        files = [{"split": size.split, "path": f"{one.config}/{size.split}/*.parquet"} for size in own]
        configs.append({"config_name": one.config, "data_files": files})
    # The Hub's viewer shows slices, but not row groups of over 300 MB, as those of volumes are.
    shown = next((config for config in configs if config["config_name"] == "2d"), configs[0])
    shown["default"] = True
    configs.append({"config_name": "cases", "data_files": [{"split": "cases", "path": CASES_TABLE}]})
    data = DatasetCardData(
        pretty_name=data_set.title,
        license="other",  # the Hub's own names of licences include a version, which not every data set states
        license_name=data_set.licence.hub_name,
        task_categories=["image-segmentation" if options[0].masks else "keypoint-detection"],
        size_categories=sorted({_size_of(one.config, sizes) for one in options}),
        tags=["medical", "CT", "spine", "vertebra", "3D"],
        configs=configs,
    )
    infos.to_dataset_card_data(data)
    info = data["dataset_info"]
    for config in info if isinstance(info, list) else [info]:
        config["features"] = [_oldest_words(feature) for feature in config["features"]]
    return str(data.to_yaml())


def _oldest_words(feature: Any) -> Any:
    """Return a feature as `datasets` 3 names it, which later releases also read: "sequence" for "list"."""
    if isinstance(feature, list):
        return [_oldest_words(one) for one in feature]
    if not isinstance(feature, dict):
        return feature
    return {"sequence" if name == "list" else name: _oldest_words(value) for name, value in feature.items()}


def _size_of(config: str, sizes: Sequence[SplitSize]) -> str:
    rows = sum(size.rows for size in sizes if size.config == config)
    return next(name for end, name in _SIZES.items() if rows < end)


def _counted(config: str, sizes: Sequence[SplitSize]) -> str:
    rows = sum(size.rows for size in sizes if size.config == config)
    return f"{rows:,} {'volumes' if config == '3d' else 'slices'} (`{config}`)"


def _by_config(sizes: Sequence[SplitSize]) -> list[SplitSize]:
    return sorted(sizes, key=lambda size: size.config, reverse=True)


def _columns(data_set: DataSet, options: RowOptions) -> str:
    labels = data_set.vocabulary.describe(options.label_scheme or data_set.vocabulary.schemes[0])
    shape = _SHAPES[options.config].format(*(options.image_size or _ANY_SIZE))
    which = "" if options.config == "3d" else "those nearest to the slice; "
    points = f"{which}null if there is no file of them"
    texts = {"shape": shape, "labels": labels, "points": points}
    rows = [[f"`{name}`", _COLUMNS[name].format(**texts)] for name in features_of(options)]
    return _table([f"column of `{options.config}`", "what"], rows)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(text: str) -> str:
    """Return a text, such as a file's name, without characters that end a cell or begin HTML."""
    return " ".join(text.split()).replace("|", "/").replace("<", "&lt;")
