"""Ctrl-C while cases are converted: `KeyboardInterrupt`, and nothing is left of workers and half-written files."""

import json
import os
import signal
import time

import multiprocess
import pytest
from support.compare import identical, rows, wanted
from support.forks import fork
from support.paths import ROOT
from support.processes import wait_until
from support.volumes import SIZE

from ctspine1k.rows._datasets import _workers_ended

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(not hasattr(os, "killpg"), reason="Windows has no process groups"),
]


@pytest.fixture
def options(tree, split_file, tmp_path):
    """What a conversion is called with."""
    cache = str(tmp_path / "cache")
    return {"data_dir": str(tree), "split_file": str(split_file), "image_size": SIZE, "cache_dir": cache}


@pytest.fixture
def converting(options, tmp_path):
    """Start a conversion in a process group of its own, as a terminal does."""
    started = []

    def run(**more):
        process = fork("support.converting:convert_slowly", {**options, **more}, str(tmp_path))
        started.append(process)
        return process

    yield run
    for process in started:
        if not is_gone(process):
            os.killpg(process.pid, signal.SIGKILL)


def is_gone(process) -> bool:
    """Whether no process of its group is left."""
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.parametrize(
    ("num_proc", "storage", "whom"),
    [(None, "compact", "first"), (2, "dense", "all")],
)
def test_an_interrupt_ends_a_conversion_and_its_workers(
    converting, load, tree, tmp_path, num_proc, storage, whom
):
    process = converting(num_proc=num_proc, storage=storage)
    wait_until(lambda: len(list(tmp_path.glob("reading-*"))) == (num_proc or 1))
    (os.killpg if whom == "all" else os.kill)(process.pid, signal.SIGINT)
    if num_proc is None:  # the case that is being read is read to its end
        (tmp_path / "release").touch()
    status = process.wait()
    printed, told = process.printed
    assert (printed, status) == ("interrupted 0\n", 0), told
    assert "Traceback" not in told
    assert "Exception ignored" not in told
    wait_until(lambda: is_gone(process))
    assert not list((tmp_path / "cache").rglob("*.arrow"))
    assert not list((tmp_path / "cache").rglob("*.incomplete"))
    assert identical(rows(load("3d", split="train", storage=storage)), wanted(tree, "3d", "train"))


def test_a_second_interrupt_changes_nothing(converting, tmp_path):
    process = converting(num_proc=2)
    wait_until(lambda: len(list(tmp_path.glob("reading-*"))) == 2)
    for _ in range(3):
        os.killpg(process.pid, signal.SIGINT)
    process.wait()
    assert process.printed[0] == "interrupted 0\n"
    wait_until(lambda: is_gone(process))


def test_workers_end_when_the_process_that_started_them_is_killed(converting, load, tree, tmp_path):
    process = converting(num_proc=2)
    wait_until(lambda: len(list(tmp_path.glob("reading-*"))) == 2)
    process.kill()
    wait_until(lambda: is_gone(process))
    assert identical(rows(load("3d", split="train")), wanted(tree, "3d", "train"))


def test_a_worker_that_is_killed_is_an_error_that_says_so(converting, tmp_path):
    process = converting(num_proc=2)
    wait_until(lambda: len(list(tmp_path.glob("reading-*"))) == 2)
    os.kill(int(next(tmp_path.glob("reading-*")).name.partition("-")[2]), signal.SIGKILL)
    assert process.wait() == 1
    told = process.printed[1]
    assert "WorkerError: num_proc: expected processes that convert to the end, found that one was" in told
    wait_until(lambda: is_gone(process))


def test_workers_that_were_just_started_are_ended():
    """`datasets` ends those of a pool that is complete, and no others."""

    def interrupted():
        multiprocess.Process(target=time.sleep, args=(60,)).start()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), _workers_ended():
        interrupted()
    assert not multiprocess.active_children()


#: Is interrupted when Python first looks for a module after the conversion has begun.
IMPORTS = """
import json, sys
from pathlib import Path
import datasets  # before, as profiles make it slow
import ctspine1k
from support.processes import interrupt_at

options, cache = json.loads(sys.argv[1]), Path(json.loads(sys.argv[1])["cache_dir"])

def is_time():
    return bool(list(cache.rglob("*.incomplete")))

try:
    with interrupt_at("importlib._bootstrap>", "_find_and_load", "call", is_time):
        ctspine1k.load_dataset("3d", split="train", **options)
except KeyboardInterrupt:
    print("interrupted")
"""


def test_an_interrupt_while_modules_are_imported_is_not_lost(options, tmp_path, python):
    run = python(IMPORTS, json.dumps(options), PYTHONPATH=os.pathsep.join([str(ROOT), str(ROOT / "tests")]))
    assert (run.stdout, run.returncode) == ("interrupted\n", 0), run.stderr
    assert not list((tmp_path / "cache").rglob("*.arrow"))
    assert not list((tmp_path / "cache").rglob("*.incomplete"))
