"""The command line: ``ctspine1k VERB``. Results go to stdout, messages to stderr.

Each family of verbs has a module. Heavy packages are imported by the verbs that need them: ``--help`` and
completion need none.
"""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Sequence

import click

from ctspine1k import __version__
from ctspine1k.cli.cache import cache
from ctspine1k.cli.cases import cite, info, list_cases, vertebrae
from ctspine1k.cli.checks import scan, verify
from ctspine1k.cli.demo import demo
from ctspine1k.cli.evaluation import compare, evaluate
from ctspine1k.cli.exports import export
from ctspine1k.cli.files import download
from ctspine1k.cli.output import say
from ctspine1k.cli.pictures import preview
from ctspine1k.cli.points import points
from ctspine1k.cli.verbs import DEBUG, Settings, Verbs, help_if_bare
from ctspine1k.errors import CTSpine1KError, CTSpine1KWarning

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status.

    It is 0; 1 if `verify` found something or shards of an export failed; 2 after an error; 130 if stopped.
    """
    settings = Settings()
    with warnings.catch_warnings():
        warnings.simplefilter("always", CTSpine1KWarning)
        warnings.showwarning = _show_warning
        try:
            status = cli.main(
                None if argv is None else list(argv), "ctspine1k", standalone_mode=False, obj=settings
            )
        except click.Abort as stop:
            done = str(stop.__cause__ or "")  # an export says how much it has done
            say(f"stopped: {done}" if done else "stopped")
            return 130
        except SystemExit:  # Click raises it with 1 if stdout is a closed pipe, but here 1 means a finding
            return 141
        except Exception as error:
            if settings.debug:
                traceback.print_exc()
                return 2
            say(f"error: {_one_line(error)}")
            return 2
    return int(status or 0)


def _one_line(error: Exception) -> str:
    if isinstance(error, click.UsageError):
        text = " ".join(error.format_message().split())  # Click has a line for each choice
        return f"{text} (see --help)"
    if isinstance(error, click.ClickException):
        return error.format_message()
    text = " ".join(str(error).split())
    if isinstance(error, (CTSpine1KError, OSError, ValueError)):
        return text
    return f"{type(error).__name__}: {text} (unexpected; --debug shows the traceback)"


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    say(f"warning: {message}")


@click.group(
    cls=Verbs,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(__version__, message="%(version)s")
@DEBUG
@click.pass_context
def cli(ctx: click.Context) -> int | None:
    """Public spine CT from the command line: CTSpine1K, VerSe, Microsoft Research; your own scans.

    Raw files are read from --data-dir, or from a Hub repo. Results go to stdout, messages to stderr. The exit
    status is 0; 1 if something was found, or failed; 2 after an error; 130 if stopped.
    """
    return help_if_bare(ctx)


# In the order of their use.
for _command in (
    list_cases,
    info,
    download,
    scan,
    verify,
    points,
    preview,
    export,
    evaluate,
    compare,
    cache,
    vertebrae,
    cite,
    demo,
):
    cli.add_command(_command)
