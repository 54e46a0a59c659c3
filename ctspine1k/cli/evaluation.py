"""Verbs that judge predictions: evaluate and compare."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from ctspine1k.catalog.registry import data_set, load_catalog
from ctspine1k.cli.options import (
    CASES,
    COLLECTION,
    FOLDER,
    JSON,
    ON_MISSING,
    PLACE,
    READING,
    SCHEDULER,
    FilePath,
    chosen,
    require_somewhere,
)
from ctspine1k.cli.output import print_json, say
from ctspine1k.cli.verbs import verb
from ctspine1k.evaluation.presets import PRESETS, default_preset, preset_of

__all__ = ["compare", "evaluate"]

PRESET = click.option(
    "--preset",
    type=click.Choice(tuple(PRESETS)),
    help="The protocol by which values are averaged [ctspine1k; of points: verse].",
)
SACRUM = click.option("--sacrum", is_flag=True, help="With the preset msr: count S1 and S2, too.")


@verb(
    "evaluate",
    click.argument("predictions", type=FilePath(path_type=Path)),
    *PLACE,
    *CASES,
    click.option(
        "--points",
        type=click.Choice(("body", "mask")),
        help="Compare points instead of masks: centres of bodies, or of whole masks, on both sides.",
    ),
    READING,
    PRESET,
    SACRUM,
    click.option("--out", type=FOLDER, metavar="FOLDER", help="Write table, report, summary and pictures."),
    click.option("--label-scheme", help="Compare in this label scheme of the data set [its own labels]."),
    click.option(
        "--numbering",
        type=click.Choice(("own", "totalsegmentator")),
        help="Numbers of predictions: the data set's, or those of TotalSegmentator's task 'total' [own].",
    ),
    click.option(
        "--other-labels",
        type=click.Choice(("raise", "background")),
        help="If masks, on either side, have labels that the data set, or the label scheme, does not have: "
        "an error at a reference and a failure of a prediction, or background [raise].",
    ),
    click.option(
        "--resample",
        type=click.Choice(("nearest",)),
        help="Bring predictions on another grid onto the reference's [they are failures].",
    ),
    click.option(
        "--truncated",
        type=click.Choice(("keep", "drop")),
        help="Keep or leave out vertebrae that are in the first or last axial slice of the reference [keep].",
    ),
    click.option("--only-overlap", is_flag=True, help="Leave out distances, which take most of the time."),
    click.option(
        "--miss-penalty-mm", type=click.FLOAT, help="What a missed vertebra counts as in means of distances."
    ),
    click.option("--seed", type=click.INT, default=0, help="Seed of the draws behind the intervals [0]."),
    ON_MISSING,
    click.option(
        "--num-proc",
        type=click.IntRange(min=1),
        default=1,
        help="Number of processes; each needs 0.3 GB for a spine in 1,000 slices [1].",
    ),
    SCHEDULER,
    JSON,
)
def evaluate(
    predictions: Path,
    preset: str | None,
    out: Path | None,
    num_proc: int,
    scheduler: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Judge predicted masks or points by a published protocol.

    PREDICTIONS is a folder of masks named by cases, as nnU-Net, TotalSegmentator and others write them; with
    --points it may be a folder of points files, or a CSV file, too. Cases that were not predicted count as
    missed. A stopped run resumes in the folder of --out.
    """
    judging = {
        name: options.pop(name)
        for name in (
            "label_scheme", "numbering", "other_labels", "resample", "truncated", "miss_penalty_mm", "seed",
            "on_missing", "sacrum", "points", "reading",
        )
    }  # fmt: skip
    judging["distances"] = not options.pop("only_overlap")
    require_somewhere(options)
    evaluation = chosen(**options).evaluate(
        predictions,
        out,
        preset=preset,
        num_proc=num_proc,
        scheduler=scheduler,
        **{name: value for name, value in judging.items() if value is not None},
    )
    if as_json:
        print_json(evaluation.document())
    else:
        click.echo(evaluation.summary())
    if out is not None:
        say(f"The results are in {out}")


@verb(
    "compare",
    click.argument("first", type=FilePath(path_type=Path)),
    click.argument("second", type=FilePath(path_type=Path)),
    COLLECTION,
    PRESET,
    SACRUM,
    click.option("--measure", help="A column of the table [the preset's first that both have]."),
    click.option("--seed", type=click.INT, default=0, help="Seed of the draws behind the intervals [0]."),
    JSON,
)
def compare(
    first: Path, second: Path, collection: str, preset: str | None, sacrum: bool, **options: Any
) -> None:
    """Compare two evaluations: paired differences over shared cases.

    FIRST and SECOND are the folders that `ctspine1k evaluate --out` wrote, or their cases.csv.
    """
    from ctspine1k.evaluation.comparing import check_alike, differing_options
    from ctspine1k.evaluation.comparing import compare as compared
    from ctspine1k.evaluation.journal import read_data_set, read_options
    from ctspine1k.evaluation.means import counted
    from ctspine1k.evaluation.table import read_scores

    tables = [read_scores(path) for path in (first, second)]
    for path in (first, second):
        if (name := read_data_set(path)) not in (None, collection):
            raise ValueError(
                f"collection={collection!r}: expected {name!r}, of whose cases {path} has the scores. "
                f"Pass --collection {name}."
            )
    is_of_masks = all("dice" in table.measures for table in tables)
    protocol = preset_of(preset or default_preset(is_of_masks=is_of_masks))
    vocabulary = data_set(collection).vocabulary
    made_with = read_options(first), read_options(second)
    check_alike(*made_with, vocabulary.schemes[0])
    patients = {case.case_id: case.patient or case.case_id for case in load_catalog(collection)}
    before, after = (counted(table, protocol, vocabulary, sacrum=sacrum) for table in tables)
    about = {"vocabulary": vocabulary, "patients": patients, "seed": options["seed"]}
    comparison = compared(before, after, protocol, options["measure"], **about)
    comparison = replace(comparison, options=differing_options(*made_with))
    if options["as_json"]:
        print_json(comparison.document())
    else:
        click.echo(comparison.summary())
