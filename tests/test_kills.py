"""Verbs that are killed at random moments and before changes of files, and whose disk fills up: some of each.

`make chaos` does it for long, also with conversions, of which ``rows/test_kept.py`` has some.
"""

import os
import signal

import pytest
from support.killed import verbs_of
from support.killing import Undisturbed, fill_disks, kill_again_and_again, kill_at_changes
from support.processes import is_at_its_end, wait_until
from support.signals import HeldVerb

pytestmark = pytest.mark.processes


@pytest.mark.parametrize(
    ("name", "kills", "changes"),
    [("export", 2, 3), ("nnunet", 1, 2), ("scan", 1, 2), ("download", 1, 2), ("evaluate", 1, 2)],
)
def test_kills_leave_no_trace(tmp_path, hub, name, kills, changes):
    verb = verbs_of(tmp_path / "raw", hub, [name], count=3)[-1]
    whole = Undisturbed.of(verb, tmp_path / "whole")
    kill_again_and_again(whole, tmp_path / "out", kills, seed=5)
    assert kill_at_changes(whole, tmp_path / "out", changes) == changes


def test_a_full_disk_is_told_and_leaves_no_trace(tmp_path, hub):
    (verb,) = verbs_of(tmp_path / "raw", hub, ["scan"], count=3)
    whole = Undisturbed.of(verb, tmp_path / "whole")
    found = fill_disks(whole, tmp_path / "small", 2)
    if found is None:
        pytest.skip("no small file system can be mounted")
    assert found == 2


@pytest.mark.parametrize(
    ("name", "kinds"),
    [("scan", ["SIGABRT", "SIGSEGV"]), ("verify", ["SIGKILL"]), ("evaluate", ["SIGBUS"])],
)
def test_a_worker_that_ends_by_a_signal_is_told_and_what_is_done_is_kept(tmp_path, name, kinds):
    verb = HeldVerb.of(name, tmp_path)
    notes = []
    for kind in kinds:
        process = verb.start()
        notes.append(verb.notes())
        os.kill(verb.workers()[0], signal.Signals[kind])
        assert process.wait() == 1
        assert "WorkerError: a worker process died before it was done, with 2 at work" in process.printed[1]
        assert verb.notes() == notes[0]  # of two cases, which the next run keeps


@pytest.mark.skipif(os.name == "nt", reason="Windows has no named pipes of this kind")
@pytest.mark.parametrize(
    ("name", "kinds"),
    [("scan", ["SIGKILL", "SIGHUP"]), ("verify", ["SIGTERM"]), ("evaluate", ["SIGKILL"])],
)
def test_workers_end_with_a_process_that_ends_by_a_signal(tmp_path, name, kinds):
    """They hold its stderr: who reads that must not wait for ever. ``checks/test_scan.py`` has spawned ones."""
    verb = HeldVerb.of(name, tmp_path)
    os.mkfifo(tmp_path / "stderr")
    for kind in kinds:
        reader = os.open(tmp_path / "stderr", os.O_RDONLY | os.O_NONBLOCK)
        process = verb.start(tmp_path / "stderr")
        process.send_signal(signal.Signals[kind])
        assert process.wait() == -signal.Signals[kind]
        wait_until(lambda: is_at_its_end(reader))  # noqa: B023
        os.close(reader)
