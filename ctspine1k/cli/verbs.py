"""Building blocks of verbs: their order, their options, and ``--debug``, which all of them have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click

from ctspine1k.cli.options import Decorator, Verb
from ctspine1k.cli.output import say

__all__ = ["DEBUG", "Settings", "Verbs", "help_if_bare", "verb"]


@dataclass
class Settings:
    """Settings of all verbs."""

    debug: bool = False


def _set_debug(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value:
        ctx.ensure_object(Settings).debug = True


DEBUG = click.option(
    "--debug",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_set_debug,
    help="Show the traceback of an error.",
)


class Verbs(click.Group):
    """Verbs in the order in which they were added."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the verbs in that order."""
        return list(self.commands)


def help_if_bare(ctx: click.Context) -> int | None:
    """Print the help if no verb is given, in the same way on every version of Click."""
    if ctx.invoked_subcommand is None:
        say(ctx.get_help())
        return 2
    return None


def verb(name: str, *options: Decorator) -> Callable[[Callable[..., Any]], click.Command]:
    """Return a decorator that makes a function a command with these options, in order, and ``--debug``."""

    def decorate(function: Callable[..., Any]) -> click.Command:
        function = DEBUG(function)
        for option in reversed(options):
            function = option(function)
        return click.command(name, cls=Verb)(function)

    return decorate
