"""Options that commands share, and how they become a collection.

They have the names of the library's arguments. Those that select cases are the facets of the data set that
``--collection`` names: they are looked up when a command is called.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import click
from click.shell_completion import CompletionItem

from ctspine1k.catalog.dataset import DataSet
from ctspine1k.catalog.registry import DEFAULT, data_set, names
from ctspine1k.collection import Collection, open_collection

if TYPE_CHECKING:
    from click import Context, Parameter

__all__ = [
    "CASES",
    "CASE_ID",
    "COLLECTION",
    "DIRECTORY",
    "FILE",
    "FOLDER",
    "JSON",
    "MASKS",
    "NUM_PROC",
    "ON_ERROR",
    "ON_MISSING",
    "ON_VOXELS",
    "OTHER_LABELS",
    "PLACE",
    "READING",
    "SCHEDULER",
    "SPLIT_FILE",
    "VERTEBRA",
    "CompletedText",
    "FilePath",
    "Verb",
    "chosen",
    "default_num_proc",
    "is_given",
    "label_schemes",
    "require_somewhere",
]

Decorator: TypeAlias = "Callable[[Callable[..., Any]], Callable[..., Any]]"


class Verb(click.Command):
    """A command whose options include the facets of the data set that ``--collection`` names.

    The facets take the position of the placeholder `_FACETS` among the parameters.
    """

    def parse_args(self, ctx: Context, args: list[str]) -> list[str]:
        """Read the data set's name before all other arguments, whose names depend on it."""
        ctx.meta[__name__] = _named_collection(args)
        return super().parse_args(ctx, args)

    def get_params(self, ctx: Context) -> list[Parameter]:
        """Return the parameters, with the facets of the data set."""
        params: list[Parameter] = []
        for param in super().get_params(ctx):
            params += _facet_options(_data_set(ctx)) if param.name == _FACETS else [param]
        return params


#: Name of the placeholder.
_FACETS = "facets"


def _named_collection(args: list[str]) -> str:
    """Return the value of ``--collection`` from arguments that are not parsed yet."""
    for number, word in enumerate(args):
        if word.startswith("--collection="):
            return word.partition("=")[2]
        if word == "--collection" and number + 1 < len(args):
            return args[number + 1]
    return DEFAULT


def _data_set(ctx: Context) -> DataSet:
    name = ctx.meta.get(__name__, DEFAULT)
    return data_set(name if name in names() else DEFAULT)  # --collection itself rejects a wrong name


def _facet_options(chosen: DataSet) -> list[Parameter]:
    return [
        click.Option(
            ["--" + facet.name.replace("_", "-")],
            type=click.Choice(facet.allowed) if facet.allowed is not None else click.STRING,
            metavar=None if facet.allowed is not None else "PATTERN",
            multiple=True,
            help=f"{facet.help[:-1]}; can be repeated.",
        )
        for facet in chosen.facets
    ]


class CompletedText(click.types.StringParamType):
    """Text for which a shell can complete words."""

    def __init__(
        self, name: str, words: Callable[[DataSet], Iterable[str]], *, or_folder: bool = False
    ) -> None:
        self.name, self._words, self._or_folder = name, words, or_folder

    def shell_complete(self, ctx: Context, param: Parameter, incomplete: str) -> list[CompletionItem]:
        """Return the words that begin like this, or folders."""
        words = self._words(_data_set(ctx))
        items = [CompletionItem(word) for word in words if word.startswith(incomplete)]
        if self._or_folder and not items:
            items = [CompletionItem(incomplete, type="dir")]
        return items


def case_ids(chosen: DataSet) -> Iterator[str]:
    """Yield the ids of a data set's cases."""
    return (case.case_id for case in chosen.read_cases(None))


def label_schemes(chosen: DataSet) -> tuple[str, ...]:
    """Return the names of a data set's label schemes."""
    return chosen.vocabulary.schemes


#: What `click.Path` calls what is at a path, by whether it is a folder.
_KINDS = {True: "directory", False: "file"}


class FilePath(click.Path):
    """A file or a folder; an empty string, such as an unset variable, does not mean the working directory."""

    def convert(self, value: Any, param: Parameter | None, ctx: Context | None) -> Any:
        """Return a path, or raise an error if the text is empty, or if something else is at the path."""
        if value == "":
            self.fail(f"expected a {self.name}, found an empty string.", param, ctx)
        path = Path(value)
        with contextlib.suppress(PermissionError):  # for the folder above it: the verb says what to do
            if path.exists() and not (self.dir_okay if path.is_dir() else self.file_okay):
                found = f"a {_KINDS[path.is_dir()]} at {path}"
                self.fail(f"expected a {self.name}, found {found}. Give another path.", param, ctx)
        return super().convert(value, param, ctx)


FOLDER = FilePath(path_type=Path, file_okay=False)
FILE = FilePath(path_type=Path, dir_okay=False)
MASKS = click.option(
    "--masks", type=FOLDER, metavar="FOLDER", help="Predicted masks, instead of those of the data set."
)
CASE_ID = CompletedText("id", case_ids)
VERTEBRA = CompletedText("name", lambda chosen: [v.name for v in chosen.vocabulary.vertebrae])

COLLECTION = click.option(
    "--collection",
    type=CompletedText("name", lambda _: names()),
    default=DEFAULT,
    metavar="NAME",
    help=f"The data set [{DEFAULT}].",
)
SPLIT_FILE = click.option(
    "--split-file", type=FILE, help="Split file to use instead of the data set's own (same format)."
)

#: Options that say where the files are.
PLACE: tuple[Decorator, ...] = (
    COLLECTION,
    click.option("--data-dir", type=FOLDER, help="Folder with raw files in any known layout."),
    click.option("--repo-id", metavar="OWNER/NAME", help="Hub repo with raw files [the data set's own]."),
    click.option("--revision", help="Branch, tag or commit of the Hub repo [main]."),
)

#: Options that select cases.
CASES: tuple[Decorator, ...] = (
    SPLIT_FILE,
    click.option("--case", "cases", type=CASE_ID, multiple=True, help="A case by its id; can be repeated."),
    click.option("--" + _FACETS, hidden=True),
    click.option(
        "--has-vertebrae",
        type=VERTEBRA,
        multiple=True,
        help="Only cases that contain this vertebra, as a scan has found; can be repeated.",
    ),
    click.option(
        "--scan",
        type=FILE,
        help="A scan's table of cases [cases.parquet in --data-dir, or in the working directory].",
    ),
)

DIRECTORY = click.argument("directory", metavar="[DIR]", required=False, type=FOLDER)
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON, for machines.")
ON_MISSING = click.option(
    "--on-missing",
    type=click.Choice(["raise", "skip"]),
    help="If a case has no raw files: stop with an error, or leave it out with a warning [raise].",
)
ON_ERROR = click.option(
    "--on-error",
    type=click.Choice(["raise", "skip"]),
    help="If the files of a case cannot be used: an error, or leave the case out and name it [raise].",
)
OTHER_LABELS = click.option(
    "--other-labels",
    type=click.Choice(["raise", "background"]),
    help="If a mask has labels that the data set does not have: an error, or background [raise].",
)
ON_VOXELS = click.option(
    "--on-voxels",
    type=click.Choice(["raise", "replace"]),
    help="If voxels of an image are NaN or infinite: an error, or -1024 HU in their place [raise].",
)
READING = click.option(
    "--reading",
    help="How coordinates in files of points are meant: spacing or affine, or for JSON voxels, miccai2019 or "
    "miccai2020 [the one that fits].",
)
NUM_PROC = click.option(
    "--num-proc",
    type=click.IntRange(min=1),
    help="Number of processes; each needs up to 0.4 GB of memory [one per core, at most 8].",
)
SCHEDULER = click.option(
    "--scheduler",
    metavar="ADDRESS",
    help="Address of a Dask scheduler, or its scheduler file: its workers do the work.",
)


def is_given(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that were given."""
    return {name: value for name, value in options.items() if value not in (None, ())}


def require_somewhere(options: Mapping[str, Any]) -> None:
    """Check that a place or cases were given, so that a bare verb does not download 150 GB from the Hub.

    A folder of predicted masks is no such place: images come from elsewhere.

    Raises:
        UsageError: neither was.
    """
    elsewhere = ("collection", "scan", "masks")
    if not is_given({name: value for name, value in options.items() if name not in elsewhere}):
        raise click.UsageError("Say where (DIR, --data-dir or --repo-id), or which cases.")


def chosen(
    *,
    uses_scan: bool = False,
    collection: str,
    masks: Path | None = None,
    directory: Path | None = None,
    cases: tuple[str, ...] = (),
    has_vertebrae: tuple[str, ...] = (),
    scan: Path | None = None,
    **options: Any,
) -> Collection:
    """Return the collection that options select; DIR is the same as ``--data-dir``.

    A command that ``uses_scan`` reads the table of a scan for more than ``--has-vertebrae``.
    """
    place = {name: options.pop(name, None) for name in ("data_dir", "repo_id", "revision", "split_file")}
    if directory is not None:
        if place["data_dir"] is not None:
            raise click.UsageError("DIR and --data-dir are the same: give one.")
        place["data_dir"] = directory
    if place["data_dir"] is not None and place["repo_id"] is not None:
        raise click.UsageError("A folder and --repo-id are two places: give one.")
    opened = open_collection(collection, **place)
    if masks is not None:
        opened = opened.with_masks(masks)
    if cases:
        opened = opened.select(cases)
    if uses_scan and not has_vertebrae:
        scan = None
    return opened.where(has_vertebrae=list(has_vertebrae) or None, scan=scan, **is_given(options))


def default_num_proc(given: int | None, scheduler: str | None) -> int:
    """Return the number of processes that read files: the one given, or one per core, at most 8."""
    if given is not None or scheduler is not None:
        return given or 1
    from ctspine1k.running.threads import usable_threads

    return min(8, usable_threads())
