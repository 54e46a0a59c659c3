"""The report of an evaluation for people, in Markdown: what was measured, how, and with which result."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

from ctspine1k import __version__
from ctspine1k._messages import count_text
from ctspine1k.evaluation.means import LEVEL, Mean
from ctspine1k.evaluation.presets import Preset
from ctspine1k.evaluation.results import Evaluation
from ctspine1k.evaluation.table import MEASURES

__all__ = ["report"]

#: What a table of groups is headed by.
_HEADS = {
    "vertebra": "Vertebra",
    "region": "Region",
    "source": "Source",
    "special_case": "Variant of the anatomy",
    "issue": "Known issue",
    "truncated": "Cut or whole",
}


def report(evaluation: Evaluation, pictures: Sequence[tuple[str, str]] = ()) -> str:
    """Return the report as text.

    Args:
        evaluation: the results.
        pictures: of each picture, its file name beside the report, and what it shows.
    """
    text = "\n".join(_lines(evaluation, pictures)) + "\n"
    return text.encode(errors="backslashreplace").decode()  # names of files need not be UTF-8


def _lines(evaluation: Evaluation, pictures: Sequence[tuple[str, str]]) -> Iterator[str]:
    preset, main = evaluation.preset, evaluation.main
    kind = evaluation.options["points"]
    of_kind = "" if kind is None else f", points of kind `{kind}`"
    cases = count_text(len(evaluation.results), "case")
    yield f"# {evaluation.data_set.title}: {cases} by preset `{preset.name}`{of_kind}"
    yield ""
    yield f"{preset.what} {preset.definition}"
    yield ""
    yield from _table("Measure", {name: evaluation.means[name] for name in evaluation.reported})
    yield ""
    yield (
        f"Intervals hold {LEVEL:.0%} of the means of patients drawn again (seed {evaluation.seed}). *n* is "
        "the number of vertebrae in the mean; *missed* were not predicted, *false* were predicted and are "
        f"not in the reference.{_left_out(evaluation, evaluation.reported)}"
    )
    yield from _published(preset)
    yield from _cases(evaluation)
    for measure, groups in evaluation.groups.items():
        for by, means in groups.items():
            if means and (measure == main or by == "region"):
                yield from ("", f"## {measure} by {_HEADS[by].lower()}", "")
                yield from _table(_HEADS[by], means)
    for name, what in pictures:
        yield from ("", f"![{what}]({name})")
    others = {name: mean for name, mean in evaluation.means.items() if name not in evaluation.reported}
    if others:
        yield from ("", "## Other measures", "")
        yield from _table("Measure", others)
        if text := _left_out(evaluation, others):
            yield from ("", text.strip())
    yield from ("", "## Options", "")
    for name, value in evaluation.options.items():
        yield f"- `{name}`: {value}"
    yield f"- ctspine1k {__version__}"


def _published(preset: Preset) -> Iterator[str]:
    if not preset.published:
        return
    yield from (
        "",
        "## Published numbers",
        "",
        "| measure | value | what | source |",
        "|---|---|---|---|",
    )
    for one in preset.published:
        yield f"| {one.measure} | {one.value:.3f} | {one.what} | {one.source} |"


def _cases(evaluation: Evaluation) -> Iterator[str]:
    """Yield what was right, and wrong, by case, and which cases were not judged."""
    yield from ("", "## Cases", "")
    yield f"- Every label right: {len(evaluation.all_right):,} of {len(evaluation.results):,}."
    shifts = ", ".join(
        f"{shift:+d}: {number:,}" if shift else f"0: {number:,}"
        for shift, number in evaluation.shifts.items()
    )
    how = "best overlap" if evaluation.options["points"] is None else "the nearest point"
    yield f"- Shift of numbers, by {how} (0 is right): {shifts or 'none'}."
    if "dice" in evaluation.table.measures:
        yield f"- Worst by the mean Dice over labels: {_worst(evaluation)}."
    for what, names in (
        ("Not judged", evaluation.failed.items()),
        ("Without a label on either side", [(case_id, "") for case_id in evaluation.empty]),
        ("Of no case", [(name, "") for name in evaluation.unknown]),
    ):
        yield f"- {what}: {len(names):,}."
        for name, reason in names:
            yield f"    - `{name}`{': ' if reason else ''}{reason}"


def _left_out(evaluation: Evaluation, measures: Iterable[str]) -> str:
    """Return which means are of predicted vertebrae only, as a missed one has no value."""
    mm = evaluation.miss_penalty_mm
    without = [name for name in measures if math.isnan(MEASURES[name])]
    penalised = [name for name in without if mm is not None and name.endswith("_mm")]
    left_out = [name for name in without if name not in penalised]
    text = ""
    if left_out:
        names = ", ".join(f"`{name}`" for name in left_out)
        text += f" A missed vertebra has no value in {names}: these means leave it out."
    if penalised:
        text += f" In {', '.join(f'`{name}`' for name in penalised)} a missed one counts {mm:g} mm."
    return text


def _worst(evaluation: Evaluation) -> str:
    worst = [f"`{one.case_id}` {mean:.4f}" for one, mean in evaluation.worst()]
    return ", ".join(worst) or "none, as every label of every case is perfect"


def _table(head: str, means: dict[str, Mean]) -> Iterator[str]:
    yield f"| {head} | mean | interval | median | std | n | missed | false |"
    yield "|---|---|---|---|---|---|---|---|"
    for name, mean in means.items():
        interval = "" if math.isnan(mean.low) else f"{mean.low:.4f} to {mean.high:.4f}"
        yield (
            f"| {name} | {_number(mean.value)} | {interval} | {_number(mean.median)} | {_number(mean.std)} "
            f"| {mean.n:,} | {mean.n_missed:,} | {mean.n_false_positive:,} |"
        )


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.4f}"
