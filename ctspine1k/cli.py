"""The command line: ``ctspine1k VERB``. Data goes to stdout, the rest to stderr."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ctspine1k import __version__
from ctspine1k.errors import CTSpine1KError

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status: 0, or 2 after an error, which is told in a line."""
    args = _parser().parse_args(argv)
    try:
        args.run(args)
    except (CTSpine1KError, OSError) as error:
        if args.debug:
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ctspine1k", description="CTSpine1K, from the command line.")
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument("--debug", action="store_true", help="show where an error comes from")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    demo = verbs.add_parser("demo", help="make a small phantom and load it as 3d and as 2d; needs no network")
    demo.add_argument("--out", type=Path, metavar="DIR", help="keep the phantom's files in DIR")
    demo.set_defaults(run=_demo)
    return parser


def _demo(args: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(prefix="ctspine1k-") as scratch:
        _load_phantom(args.out or Path(scratch) / "phantom", Path(scratch) / "cache")
    if args.out:
        print(f"The files are in {args.out}", file=sys.stderr)


def _load_phantom(root: Path, cache_dir: Path) -> None:
    # Heavy packages: `ctspine1k --help` does without them.
    import numpy as np

    from ctspine1k.loading import load_dataset
    from ctspine1k.phantom import PHANTOM_CASES, make_phantom

    make_phantom(root)
    for name in ("3d", "2d"):
        loaded = load_dataset(name, data_dir=root, cases=PHANTOM_CASES, cache_dir=cache_dir)
        print(f"{name}: {', '.join(f'{split} {len(rows)} rows' for split, rows in loaded.items())}")
        for column, feature in loaded["train"].features.items():
            print(f"  {column}: {feature}")
        for split, rows in loaded.items():
            shapes: dict[str, set[tuple[int, ...]]] = {"image": set(), "segmentation": set()}
            labels: set[int] = set()
            for row in rows.with_format("numpy"):
                for column, seen in shapes.items():
                    seen.add(row[column].shape)
                labels.update(np.unique(row["segmentation"]).tolist())
            told = "; ".join(f"{column} {sorted(seen)}" for column, seen in shapes.items())
            print(f"  {split}: {told}; labels {sorted(labels)}")
