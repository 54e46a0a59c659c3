"""Ctrl-C while cases are converted: `KeyboardInterrupt`, and nothing is left of workers and half-written files."""

import json
import os
import signal
import subprocess
import sys

import pytest
from support.compare import identical, rows, wanted
from support.paths import ROOT
from support.processes import wait_until
from support.volumes import SIZE

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(not hasattr(os, "killpg"), reason="Windows has no process groups"),
]

#: Converts cases that take until there is a file "release", and says how it ended.
CONVERTS = """
import json, os, sys, time
from pathlib import Path
import multiprocess
import ctspine1k
import ctspine1k.rows.builder as builder

options, folder = json.loads(sys.argv[1]), Path(sys.argv[2])
read = builder.case_batches

def slow(*args, **kwargs):
    (folder / f"reading-{os.getpid()}").touch()
    while not (folder / "release").exists():
        time.sleep(0.02)
    yield from read(*args, **kwargs)

builder.case_batches = slow
try:
    ctspine1k.load_dataset("3d", split="train", **options)
except KeyboardInterrupt:
    print("interrupted", len(multiprocess.active_children()))
"""


@pytest.fixture
def converting(tree, split_file, tmp_path):
    """Start a conversion in a process group of its own, as a terminal does."""
    started = []

    def run(code=CONVERTS, **options):
        options |= {"data_dir": str(tree), "split_file": str(split_file), "image_size": SIZE}
        options["cache_dir"] = str(tmp_path / "cache")
        process = subprocess.Popen(
            [sys.executable, "-c", code, json.dumps(options), str(tmp_path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])},
            start_new_session=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        if not is_gone(process):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        process.stderr.close()


def is_gone(process) -> bool:
    """Whether no process of its group is left."""
    process.poll()
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
    printed, told = process.communicate(timeout=60)
    assert (printed, process.returncode) == ("interrupted 0\n", 0), told
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
    assert process.communicate(timeout=60)[0] == "interrupted 0\n"
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
    _, told = process.communicate(timeout=60)
    assert "WorkerError: num_proc: expected processes that convert to the end, found that one was" in told
    wait_until(lambda: is_gone(process))


#: Is interrupted when Python first looks for a module after the conversion has begun.
IMPORTS = """
import json, sys
from pathlib import Path
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


def test_an_interrupt_while_modules_are_imported_is_not_lost(converting, tmp_path):
    process = converting(IMPORTS)
    printed, told = process.communicate(timeout=60)
    assert (printed, process.returncode) == ("interrupted\n", 0), told
    assert not list((tmp_path / "cache").rglob("*.arrow"))
    assert not list((tmp_path / "cache").rglob("*.incomplete"))
