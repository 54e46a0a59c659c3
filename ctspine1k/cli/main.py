"""The command line: ``ctspine1k VERB``. Data goes to stdout, the rest to stderr.

Options are named as in the library, and are the same in every verb. What is heavy is imported by the verb
that needs it: ``--help`` and completion do without.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import signal
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from ctspine1k import __version__
from ctspine1k.catalog.cases import (
    EVIDENCE,
    EXCLUDE_ISSUES,
    ISSUE_KINDS,
    SCAN_POSITIONS,
    SOURCES,
    SPECIAL_CASES,
    SPLITS,
    Case,
    Catalog,
    load_catalog,
)
from ctspine1k.errors import CTSpine1KError, CTSpine1KWarning, MissingPackageError
from ctspine1k.files.raw import KINDS

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and give its exit status.

    0; 1 if `verify` found something or shards of an export failed; 2 after an error; 130 if it was stopped.
    """
    settings = _Settings()
    with warnings.catch_warnings():
        warnings.simplefilter("always", CTSpine1KWarning)
        warnings.showwarning = _show_warning
        try:
            status = _cli.main(
                None if argv is None else list(argv), "ctspine1k", standalone_mode=False, obj=settings
            )
        except click.Abort as stop:
            done = str(stop.__cause__ or "")  # what was stopped may say how far it was
            _tell(f"stopped: {done}" if done else "stopped")
            return 130
        except SystemExit:  # Click's, where stdout is a closed pipe: its 1 would be a finding
            return 141
        except Exception as error:
            if settings.debug:
                traceback.print_exc()
                return 2
            _tell(f"error: {_one_line(error)}")
            return 2
    return int(status or 0)


@dataclass
class _Settings:
    debug: bool = False


def _one_line(error: Exception) -> str:
    if isinstance(error, click.UsageError):
        return f"{error.format_message()} (--help tells what there is)"
    if isinstance(error, click.ClickException):
        return error.format_message()
    text = " ".join(str(error).split())
    if isinstance(error, (CTSpine1KError, OSError, ValueError)):
        return text
    return f"{type(error).__name__}: {text} (not foreseen; --debug shows where)"


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    _tell(f"warning: {message}")


def _tell(text: str) -> None:
    click.echo(text, err=True)


class _Completed(click.types.StringParamType):
    """Text for which a shell knows some words."""

    def __init__(self, name: str, words: Callable[[], Iterable[str]], *, or_folder: bool = False) -> None:
        self.name, self._words, self._or_folder = name, words, or_folder

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        items = [CompletionItem(word) for word in self._words() if word.startswith(incomplete)]
        if self._or_folder and not items:
            items = [CompletionItem(incomplete, type="dir")]
        return items


def _case_ids() -> Iterator[str]:
    return (case.case_id for case in load_catalog())


def _vertebra_names() -> list[str]:
    from ctspine1k.volumes.vertebrae import all_vertebrae

    return [vertebra.name for vertebra in all_vertebrae()]


def _label_schemes() -> tuple[str, ...]:
    from ctspine1k.volumes.vertebrae import LABEL_SCHEMES

    return LABEL_SCHEMES


_CASE_ID = _Completed("id", _case_ids)
_LABEL_SCHEME = _Completed("scheme", _label_schemes)
_VERTEBRA = _Completed("name", _vertebra_names)


class _Path(click.Path):
    """A file or a folder; an empty word, as of a variable that is not set, is not the working directory."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail(f"expected a {self.name}, found an empty word.", param, ctx)
        return super().convert(value, param, ctx)


_FOLDER = _Path(path_type=Path, file_okay=False)
_FILE = _Path(path_type=Path, dir_okay=False)

_Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

#: Where the files are.
_PLACE: list[_Decorator] = [
    click.option("--data-dir", type=_FOLDER, help="Folder with raw files in any layout, instead of the Hub."),
    click.option(
        "--repo-id", "--repo", metavar="OWNER/NAME", help="Hub repo with them [alexanderdann/CTSpine1K]."
    ),
    click.option("--revision", help="Its branch, tag or commit [main]."),
]

#: The assignment.
_SPLIT_FILE = click.option("--split-file", type=_FILE, help="Another assignment, as data_split.txt.")

#: Which cases.
_CASES: list[_Decorator] = [
    _SPLIT_FILE,
    click.option("--split", type=click.Choice(SPLITS)),
    click.option("--source", type=click.Choice(SOURCES)),
    click.option("--case", type=_CASE_ID, multiple=True, help="A case by its id; may be given again."),
    click.option("--special-case", type=click.Choice(SPECIAL_CASES)),
    click.option(
        "--exclude-issues",
        type=click.Choice(EXCLUDE_ISSUES),
        help="Leave out cases with a reported issue, or with any.",
    ),
]

#: What a scan knows.
_SCANNED: list[_Decorator] = [
    click.option(
        "--has-vertebrae",
        type=_VERTEBRA,
        multiple=True,
        help="Cases that hold it, as a scan has found; may be given again.",
    ),
    click.option(
        "--scan", type=_FILE, help="The scan's table of cases [cases.parquet in --data-dir or here]."
    ),
]

_ON_MISSING = click.option(
    "--on-missing", type=click.Choice(["raise", "skip"]), help="What to do about files not there [raise]."
)
_DIRECTORY = click.argument("directory", metavar="[DIR]", required=False, type=_FOLDER)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON, for machines.")
_NUM_PROC = click.option(
    "--num-proc",
    type=click.IntRange(min=1),
    help="Processes, of up to 0.4 GB each [one a core, and 8 at most].",
)


def _set_debug(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value:
        ctx.ensure_object(_Settings).debug = True


_DEBUG = click.option(
    "--debug",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_set_debug,
    help="Show where an error comes from.",
)


class _Verbs(click.Group):
    """Verbs in the order in which they are defined, which is that of their use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(
    cls=_Verbs,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(__version__, message="%(version)s")
@_DEBUG
@click.pass_context
def _cli(ctx: click.Context) -> int | None:
    """CTSpine1K from the command line: 1,005 spine CTs with labels for more than 11,100 vertebrae.

    Raw files are those of --data-dir, or of a Hub repo. Data goes to stdout, the rest to stderr. The exit
    status is 0, or 2 after an error.
    """
    return _help_if_bare(ctx)


def _help_if_bare(ctx: click.Context) -> int | None:
    """Tell the verbs where none is given, on every version of Click in the same way."""
    if ctx.invoked_subcommand is None:
        _tell(ctx.get_help())
        return 2
    return None


def _verb(name: str, *options: _Decorator, group: click.Group = _cli) -> _Decorator:
    """Make a function a verb with these options, in this order, and --debug."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        every: list[_Decorator] = [*options, _DEBUG]
        for option in reversed(every):
            function = option(function)
        command: Callable[..., Any] = group.command(name)(function)
        return command

    return decorate


def _given(directory: Path | None = None, **options: Any) -> dict[str, Any]:
    """Give what was given, as arguments of the library; DIR is another way to say --data-dir."""
    if directory is not None:
        if options.get("data_dir") is not None:
            raise click.UsageError("DIR and --data-dir are the same: give one.")
        options["data_dir"] = directory
    if options.get("data_dir") is not None and options.get("repo_id") is not None:
        raise click.UsageError("A folder and --repo-id are two places: give one.")
    if "case" in options:
        options["case"] = list(options["case"]) or None
    return {name: value for name, value in options.items() if value is not None}


#: Options that say where files are, or which.
_WHAT = (
    *("data_dir", "repo_id", "revision"),
    *("split_file", "split", "source", "case", "special_case", "exclude_issues", "has_vertebrae"),
)


def _somewhere(given: Mapping[str, Any]) -> dict[str, Any]:
    """See that a place or some cases were given: 150 GB of the Hub are not what a bare word asks for."""
    if not given:
        raise click.UsageError("Say where (DIR, --data-dir or --repo-id), or which cases.")
    return dict(given)


def _apart(given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split what was given: where the files are, and the rest."""
    names = ("data_dir", "repo_id", "revision")
    return (
        {name: value for name, value in given.items() if name in names},
        {name: value for name, value in given.items() if name not in names},
    )


def _print_json(value: object) -> None:
    click.echo(json.dumps(value, indent=2, default=str))  # ASCII: a file's name need not be UTF-8


def _print_table(rows: Sequence[Mapping[str, object]], columns: Iterable[str]) -> None:
    """Print rows as tab-separated values, with a header."""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(columns), delimiter="\t", lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    click.echo(out.getvalue(), nl=False)


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Have SIGTERM, which a cluster sends when the time of a job is up, end the work as Ctrl-C does."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@_verb(
    "list",
    *_PLACE,
    *_CASES,
    click.option("--scan-position", type=click.Choice(SCAN_POSITIONS)),
    click.option("--tcia-series", metavar="PATTERN", help="A series' path on TCIA, such as '*Prone*'."),
    click.option("--issue", type=click.Choice(ISSUE_KINDS), help="Cases that are known for it."),
    click.option("--evidence", type=click.Choice(EVIDENCE), help="Cases with an issue that stands on it."),
    *_SCANNED,
    click.option("--files", is_flag=True, help="List raw files instead of cases."),
    _JSON,
)
def _list(
    has_vertebrae: tuple[str, ...], scan: Path | None, files: bool, as_json: bool, **options: Any
) -> None:
    """List the cases selected, or their raw files, as tab-separated values.

    Cases are listed offline; --files looks where they are, and --has-vertebrae at a scan of them.
    """
    place, selected = _apart(_given(**options))
    catalog = _select(**selected)
    if has_vertebrae:
        from ctspine1k.files.selection import ask_scan
        from ctspine1k.files.sources import find_source

        holding, lacking = ask_scan(catalog, has_vertebrae, scan, find_source(**place))
        if unknown := len(catalog) - len(holding) - len(lacking):
            _tell(f"warning: of {unknown:,} cases the scan knows nothing: no files, or none that can be used")
        catalog = holding
    cases = list(catalog)
    if files:
        _list_files(cases, place, as_json)
    elif as_json:
        _print_json([asdict(case) for case in cases])
    else:
        columns = ("case_id", "split", "index", "source", "scan_position", "special_case", "issues")
        _print_table([case.row() for case in cases], columns)


def _select(split_file: Path | None = None, case: list[str] | None = None, **criteria: Any) -> Catalog:
    return load_catalog(split_file).select(case).where(**criteria)


def _list_files(cases: Sequence[Case], place: Mapping[str, Any], as_json: bool) -> None:
    from ctspine1k.files.sources import find_source

    rows = [{**vars(file), "case": file.case.case_id} for file in find_source(**place).find(cases)]
    if as_json:
        _print_json(rows)
    else:
        _print_table(rows, ("case", "kind", "size", "path"))


@_verb("info", click.argument("case_id", metavar="CASE", type=_CASE_ID), _SPLIT_FILE, _JSON)
def _info(case_id: str, split_file: Path | None, as_json: bool) -> None:
    """Tell all that is known of CASE, offline."""
    case = load_catalog(split_file)[case_id]
    if as_json:
        _print_json(asdict(case))
        return
    for name, value in vars(case).items():
        if name != "issues":
            click.echo(f"{name:14} {'-' if value is None else value}")
    for issue in case.issues:
        click.echo(f"{'issue':14} {issue.kind} ({issue.evidence}): {issue.detail}\n{'':14} {issue.reference}")
    if not case.issues:
        click.echo(f"{'issues':14} none known")


@_verb(
    "download",
    *_PLACE,
    *_CASES,
    click.option("--kind", type=click.Choice(KINDS), help="Only images, or only masks."),
    _ON_MISSING,
    click.option("--dry-run", is_flag=True, help="Tell files, bytes and free disk, and download nothing."),
    _JSON,
)
def _download(dry_run: bool, as_json: bool, **options: Any) -> None:
    """Download raw files to the Hub's local cache, check them, and print their paths.

    What is in the cache is not fetched again, and a transfer that broke off goes on where it stopped.
    """
    from ctspine1k.files.selection import download_files
    from ctspine1k.files.sources import progress_on_terminal

    given = _given(**options)
    if dry_run:
        _plan(as_json, **given)
        return
    with progress_on_terminal():
        paths = download_files(**given)
    if as_json:
        _print_json(paths)
    else:
        click.echo("".join(f"{path}\n" for path in paths), nl=False)


def _plan(as_json: bool, kind: Any = None, on_missing: str = "raise", **given: Any) -> None:
    """Tell what a download would do; fail as it would."""
    from ctspine1k.files.selection import find_files
    from ctspine1k.files.sources import find_source, free_space

    where, selected = _apart(given)
    place = find_source(**where)
    files, missing = find_files(place, _select(**selected), kind)
    lacking = place.not_cached(files)
    free, cache = free_space()
    needed = sum(file.size for file in lacking)
    absent = {file.path for file in lacking}
    rows = [{"size": file.size, "here": file.path not in absent, "path": file.path} for file in files]
    if as_json:
        totals = {"bytes": sum(file.size for file in files), "bytes_to_download": needed, "bytes_free": free}
        _print_json({"files": rows, **totals, "cache": cache})
    else:
        _print_table(
            [{**row, "here": "yes" if row["here"] else "no"} for row in rows], ("size", "here", "path")
        )
    _tell(
        f"{len(lacking):,} of {len(files):,} files to download, {needed:,} bytes ({needed / 1e9:,.2f} GB); "
        f"{free / 1e9:,.2f} GB are free in {cache}"
    )
    if missing and on_missing == "raise":
        raise missing
    if missing:
        _tell(f"warning: {missing.summary}")


@_verb(
    "scan",
    _DIRECTORY,
    *_PLACE,
    *_CASES,
    click.option("--out", type=_FILE, help="The table of cases [cases.parquet in DIR, or here for the Hub]."),
    _NUM_PROC,
    _JSON,
)
def _scan(directory: Path | None, as_json: bool, num_proc: int | None, **options: Any) -> None:
    """Measure every case: shape, spacing, HU, and each vertebra. Writes two Parquet tables.

    NAME.parquet has a row a case, NAME.vertebrae.parquet a row a vertebra. A scan that was stopped goes on
    where it was; a second one reads only files that have changed.
    """
    from ctspine1k.checks.scan import scan_files

    given = _somewhere(_given(directory, **options))
    report = scan_files(**given, num_proc=num_proc or _default_num_proc())
    if as_json:
        _print_json(asdict(report))
        return
    click.echo(f"{report.cases}\n{report.vertebrae}")
    for case_id, problem in report.problems.items():
        _tell(f"warning: {case_id}: {problem}")
    _tell(
        f"{report.measured:,} cases measured, {report.kept:,} kept from before, "
        f"{len(report.problems):,} of them with files that cannot be used"
    )


def _default_num_proc() -> int:
    from ctspine1k.running.threads import usable_threads

    return min(8, usable_threads())


@_verb(
    "verify",
    _DIRECTORY,
    *_PLACE,
    *_CASES,
    click.option("--out", type=_FILE, help="Write the findings as CSV, too."),
    _NUM_PROC,
    _JSON,
)
def _verify(
    directory: Path | None, out: Path | None, as_json: bool, num_proc: int | None, **options: Any
) -> int:
    """Verify raw files: all there, whole, consistent and plausible.

    The exit status is 0 if nothing was found, 1 if something was, 2 if it could not be done.
    """
    from ctspine1k.checks.verify import verify_files
    from ctspine1k.running.disk import make_parent

    given = _somewhere(_given(directory, **options))
    if out is not None:
        make_parent(out)
    report = verify_files(**given, num_proc=num_proc or _default_num_proc())
    if as_json:
        _print_json({**asdict(report), "ok": report.ok})
    else:
        click.echo(report.summary())
    if out is not None:
        rows = [{**asdict(finding), "known": " ".join(finding.known)} for finding in report.findings]
        _write_csv(out, rows)
    return 0 if report.ok else 1


def _write_csv(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write findings."""
    from ctspine1k.checks.verify import Finding
    from ctspine1k.running.disk import atomic_write

    with (
        atomic_write(path) as written,
        written.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        writer = csv.DictWriter(file, list(Finding.__dataclass_fields__))
        writer.writeheader()
        writer.writerows(rows)


@_verb(
    "preview",
    click.argument(
        "target",
        metavar="[CASE|DIR]",
        required=False,
        type=_Completed("case or folder", _case_ids, or_folder=True),
    ),
    *_PLACE,
    *_CASES,
    click.option(
        "--out",
        type=_Path(path_type=Path),
        help="The picture [CASE.png, sheet.png], or for several the folder [previews].",
    ),
    click.option("--sheet", is_flag=True, help="All cases in one picture."),
    _JSON,
)
def _preview(target: str | None, out: Path | None, sheet: bool, as_json: bool, **options: Any) -> None:
    """Draw cases with their labels: axial, coronal and sagittal slices through the spine.

    CASE is an id; DIR, a folder, is another way to say --data-dir. Prints the path of each picture.
    """
    if target == "":
        raise click.UsageError("CASE or DIR: expected an id or a folder, found an empty word.")
    catalog = load_catalog(options["split_file"])
    is_folder = target is not None and target not in catalog and Path(target).is_dir()
    if target is not None and not is_folder:
        options["case"] = (target, *options["case"])
    given = _given(Path(target) if target is not None and is_folder else None, **options)
    place, selected = _apart(_somewhere(given))
    from ctspine1k.files.selection import require_cases
    from ctspine1k.files.sources import find_source
    from ctspine1k.pictures.previews import draw_cases

    drawn = draw_cases(require_cases(_select(**selected)), find_source(**place), out, sheet=sheet)
    if as_json:
        _print_json(list(drawn))
        return
    for path in drawn:
        click.echo(path)


@_cli.group("export", cls=_Verbs, invoke_without_command=True)
@_DEBUG
@click.pass_context
def _export(ctx: click.Context) -> int | None:
    """Write the data set in a form that loads without this package."""
    return _help_if_bare(ctx)


@_verb(
    "parquet",
    click.argument("out", type=click.Path()),
    click.option("--config", type=click.Choice(["3d", "2d", "all"]), help="Volumes, slices, or both [all]."),
    *_PLACE,
    *_CASES,
    *_SCANNED,
    click.option("--image-size", type=int, nargs=2, metavar="I J", help="Voxels of a slice [512 512]."),
    click.option("--orientation", metavar="CODE", help="Turn volumes so, such as RAS [as stored]."),
    click.option("--label-scheme", type=_LABEL_SCHEME, help="What masks hold, such as binary [ctspine1k]."),
    click.option("--geometry", is_flag=True, help="Add columns source, spacing, affine, orientation."),
    _ON_MISSING,
    click.option(
        "--on-error",
        type=click.Choice(["raise", "skip"]),
        help="Cases that cannot be used: let their shards fail, or leave them out and say so [raise].",
    ),
    click.option(
        "--on-geometry",
        type=click.Choice(["raise", "warn"]),
        help="Masks that lie elsewhere than their images [warn].",
    ),
    click.option("--cases-per-shard", type=click.IntRange(min=1), help="Whole cases in a file [4]."),
    click.option(
        "--num-proc",
        type=click.IntRange(min=1),
        help="Processes, of up to 9 GB each for 3d, 0.5 GB for 2d [1].",
    ),
    click.option(
        "--scheduler",
        metavar="ADDRESS",
        help="Have the workers of this Dask scheduler do the work; or its scheduler file.",
    ),
    click.option("--verify", is_flag=True, help="Read all shards that are there; make bad ones anew."),
    _JSON,
    group=_export,
)
def _export_parquet(
    out: str, geometry: bool, verify: bool, has_vertebrae: tuple[str, ...], as_json: bool, **options: Any
) -> int:
    """Write Parquet files, a table of cases, a card and a manifest to OUT, a folder or an fsspec URL.

    An export that was stopped goes on where it was. The exit status is 0, or 1 if shards failed: the others
    are made.
    """
    from ctspine1k.exports.parquet import export_parquet
    from ctspine1k.files.sources import progress_on_terminal

    given = _given(has_vertebrae=list(has_vertebrae) or None, **options)
    _somewhere({name: value for name, value in given.items() if name in _WHAT})
    with progress_on_terminal(), _ended_by_sigterm():
        report = export_parquet(out, geometry=geometry, verify=verify, **given)
    if as_json:
        _print_json({**asdict(report), "ok": report.ok})
    else:
        click.echo(report.summary())
    return 0 if report.ok else 1


@_verb(
    "vertebrae",
    click.argument("which", metavar="[NAME|LABEL]...", nargs=-1, type=_VERTEBRA),
    _JSON,
)
def _vertebrae(which: tuple[str, ...], as_json: bool) -> None:
    """Print labels and names, numbers in VerSe and TotalSegmentator v2, and how many volumes hold each."""
    from ctspine1k.volumes import vertebrae

    labels = [vertebrae.label(one) for one in which]
    rows = [asdict(v) for v in vertebrae.all_vertebrae() if not labels or v.label in labels]
    if as_json:
        _print_json(rows)
    else:
        _print_table(rows, rows[0])


@_verb("cite", _JSON)
def _cite(as_json: bool) -> None:
    """Print BibTeX of the data set and its four sources, and the licence."""
    from ctspine1k.catalog.citations import LICENCE, TERMS, bibtex

    if as_json:
        _print_json({"licence": LICENCE, "terms": TERMS, "bibtex": bibtex()})
        return
    # BibTeX passes over what stands between entries.
    click.echo("\n\n".join([f"% The data are under {LICENCE}: {TERMS}.", *bibtex()]))


@_verb(
    "demo",
    click.option("--out", type=_FOLDER, help="Keep the phantom's files, and a picture, in this folder."),
)
def _demo(out: Path | None) -> None:
    """Make a small phantom and load it as 3d and as 2d; needs no network."""
    from ctspine1k.demo.run import draw_phantom, load_phantom

    with tempfile.TemporaryDirectory(prefix="ctspine1k-") as scratch:
        root = out or Path(scratch) / "phantom"
        for line in load_phantom(root, Path(scratch) / "cache"):
            click.echo(line)
        if out is None:
            return
        _tell(f"The files are in {root}")
        try:
            _tell(f"A picture of a case is {draw_phantom(root)}")
        except MissingPackageError as error:  # a demo must not fail for want of an extra
            _tell(f"no picture: {error}")
