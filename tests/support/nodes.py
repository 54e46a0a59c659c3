"""Schedulers and workers of Dask, each in a process that is forked: distributed is imported before, once."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import dask
import huggingface_hub
from distributed.cli import dask_scheduler, dask_worker

_COMMANDS = {"scheduler": dask_scheduler.main, "worker": dask_worker.main}


def run_there(command: str, options: Sequence[str], environment: Mapping[str, str]) -> None:
    """Run `dask scheduler` or `dask worker` to its end.

    Args:
        command: "scheduler" or "worker".
        options: of the command.
        environment: variables, of which Dask and the Hub's client have read some already: they read them again.
    """
    os.environ.update(environment)
    dask.config.refresh()
    huggingface_hub.constants.HF_HUB_CACHE = os.environ["HF_HUB_CACHE"]
    _COMMANDS[command](list(options), prog_name=f"dask {command}")
