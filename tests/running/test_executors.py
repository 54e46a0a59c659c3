import contextlib
import os
import signal
import subprocess
import sys
from functools import partial

import pytest
from support import work
from support.paths import ROOT
from support.processes import wait_until

from ctspine1k.errors import WorkerError
from ctspine1k.running.cluster import Dask
from ctspine1k.running.executors import InProcess, Spawned, executor
from ctspine1k.running.stops import check_stopped

posix = pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")


def done(work, items, num_proc, **options):
    """What each item comes to."""
    with executor(num_proc, **options).ready() as run, contextlib.closing(run(work, items, items)) as results:
        yield from results


@pytest.mark.parametrize("num_proc", [1, *(pytest.param(n, marks=pytest.mark.processes) for n in (2, 9))])
def test_each_item_has_its_result(num_proc):
    assert sorted(done(abs, [-1, -2, -3], num_proc)) == [1, 2, 3]
    assert list(done(abs, [], num_proc)) == []


@pytest.mark.parametrize("num_proc", [0, -1])
def test_no_process_is_too_few(num_proc):
    with pytest.raises(ValueError, match=f"num_proc={num_proc}: expected 1 or more"):
        executor(num_proc)


def test_options_say_who_does_the_work():
    assert executor() == InProcess()
    assert executor(3, initializer=os.getpid) == Spawned(3, os.getpid)
    assert executor(scheduler="tcp://a:1") == Dask("tcp://a:1", patience=60)
    assert [one.processes for one in (InProcess(), Spawned(3), Dask("tcp://a:1"))] == [1, 3, 0]
    with pytest.raises(ValueError, match="num_proc is for processes of this machine: with a scheduler its"):
        executor(2, "tcp://a:1")


def test_one_process_is_this_one():
    assert list(done(lambda _: os.getpid(), [1], 1)) == [os.getpid()]
    assert list(done(lambda _: os.getpid(), [1], 2)) == [os.getpid()]  # nor does one item start another one


def test_this_process_is_not_set_up(tmp_path):
    for num_proc in (1, 2):
        initializer = partial(work.set_up, str(tmp_path))
        assert list(done(work.is_set_up, [1], num_proc, initializer=initializer)) == [(os.getpid(), None)]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.processes
def test_each_worker_is_set_up_before_it_works(tmp_path, capfd):
    results = set(done(work.is_set_up, [1, 2, 3], 2, initializer=partial(work.set_up, str(tmp_path))))
    # A line of code in a worker is not the user's.
    assert set(capfd.readouterr().err.splitlines()) == {"warning: set up"}
    assert {told for _, told in results} == {"yes"}
    assert {str(worker) for worker, _ in results} <= {path.name for path in tmp_path.iterdir()}
    assert "CTSPINE1K_SET_UP" not in os.environ


@pytest.mark.processes
def test_what_work_raises_arrives():
    with pytest.raises(ZeroDivisionError):
        list(done(partial(divmod, 1), [1, 0], 2))


@pytest.mark.processes
def test_a_worker_that_dies_is_told():
    with pytest.raises(WorkerError, match="a worker process died before it was done, with 2 at work"):
        list(done(os._exit, [3, 3], 2))


@posix
@pytest.mark.processes
@pytest.mark.parametrize("calls", [2, 6, 10])
def test_a_worker_that_dies_while_it_asks_whether_to_stop_is_reported(calls):
    with pytest.raises(WorkerError, match="a worker process died before it was done"):
        list(done(work.die_while_asking, [calls, calls], 2))


@pytest.mark.processes
def test_long_work_ends_when_nobody_waits_for_it(tmp_path):
    results = done(work.go_on_until_stopped, [str(tmp_path), None], 2)
    assert next(results) is None
    wait_until((tmp_path / "began").exists)
    results.close()  # returns, as the work has ended


@posix
@pytest.mark.processes
def test_workers_leave_interrupts_to_the_process_that_started_them():
    assert list(done(work.holds_interrupts, [1, 2], 2)) == [True, True]
    assert not work.holds_interrupts(None)


#: Workers do the first item, and wait with the others.
WAITING = """
import sys
from ctspine1k.running.executors import Spawned
from support.work import wait_for
if __name__ == "__main__":
    with Spawned(2).ready() as run:
        for result in run(wait_for, [None, *[sys.argv[1]] * 3], "abcd"):
            print(result, flush=True)
"""


@pytest.fixture
def waiting(tmp_path):
    """A process whose workers wait for a file named "go"."""
    (tmp_path / "run.py").write_text(WAITING)
    process = subprocess.Popen(
        [sys.executable, tmp_path / "run.py", tmp_path / "go"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "tests")))},
    )
    assert process.stdout.readline() == "None\n"
    yield process
    (tmp_path / "go").touch()
    process.kill()
    process.communicate()


@posix
@pytest.mark.processes
def test_a_second_interrupt_does_not_keep_the_process_from_its_end(waiting, tmp_path):
    for pause in (0.0, 0.05, 0.1):
        with contextlib.suppress(subprocess.TimeoutExpired):  # it waits for the work at hand
            waiting.wait(pause)
        waiting.send_signal(signal.SIGINT)
    (tmp_path / "go").touch()
    _, told = waiting.communicate(timeout=20)
    assert waiting.returncode == -signal.SIGINT
    assert told.strip().endswith("KeyboardInterrupt")


@posix
@pytest.mark.processes
@pytest.mark.parametrize("kind", [9, 1])
def test_workers_end_with_the_process_that_started_them(waiting, kind):
    """They hold its stderr: who reads that must not wait for ever."""
    waiting.send_signal(kind)
    waiting.communicate(timeout=20)
    assert waiting.returncode == -kind


def test_in_the_main_process_nobody_stops_work():
    check_stopped()
