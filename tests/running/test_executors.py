import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from functools import partial

import dask
import distributed
import pytest
from support import cluster
from support.exports import ROOT

from ctspine1k.errors import CTSpine1KWarning, MissingPackageError, WorkerError
from ctspine1k.running.executors import check_num_proc, check_stopped, in_processes, on_cluster


@pytest.mark.parametrize("num_proc", [1, 2, 9])
def test_each_item_has_its_result(num_proc):
    assert sorted(in_processes(abs, [-1, -2, -3], num_proc)) == [1, 2, 3]
    assert list(in_processes(abs, [], num_proc)) == []


@pytest.mark.parametrize("num_proc", [0, -1])
def test_no_process_is_too_few(num_proc):
    with pytest.raises(ValueError, match=f"num_proc={num_proc}: expected 1 or more"):
        check_num_proc(num_proc)


def test_one_process_is_this_one():
    assert list(in_processes(lambda _: os.getpid(), [1], 1)) == [os.getpid()]


def test_what_work_raises_arrives():
    with pytest.raises(ZeroDivisionError):
        list(in_processes(partial(divmod, 1), [1, 0], 2))


def test_a_worker_that_dies_is_told():
    with pytest.raises(WorkerError, match="a worker process died before it was done, with 2 at work"):
        list(in_processes(os._exit, [3, 3], 2))


#: A module that the workers can import.
LONG = """
import pathlib, time
from ctspine1k.running.executors import check_stopped
def work(folder):
    pathlib.Path(folder, "began").touch()
    while True:
        check_stopped()
        time.sleep(0.01)
"""


def test_long_work_ends_when_nobody_waits_for_it(tmp_path, monkeypatch):
    (tmp_path / "long_work.py").write_text(LONG)
    monkeypatch.syspath_prepend(tmp_path)
    import long_work

    (tmp_path / "a").mkdir()
    results = in_processes(partial(run, long_work.work), [str(tmp_path / "a"), None], 2)
    assert next(results) is None
    while not (tmp_path / "a" / "began").exists():
        time.sleep(0.01)
    results.close()  # returns, as the work has ended


def run(work, folder):
    return None if folder is None else work(folder)


IMPATIENT = """
import sys, time
sys.path.insert(0, sys.argv[1])
from ctspine1k.running.executors import in_processes
from slow_work import work
if __name__ == "__main__":
    for result in in_processes(work, [0, 1, 1, 1], 2):
        print(result, flush=True)
"""


def test_a_second_interrupt_does_not_keep_the_process_from_its_end(tmp_path):
    (tmp_path / "slow_work.py").write_text(
        "import time\ndef work(item):\n    time.sleep(item)\n    return item\n"
    )
    (tmp_path / "run.py").write_text(IMPATIENT)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, tmp_path / "run.py", tmp_path],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert process.stdout.readline() == "0\n"
    for pause in (0.0, 0.05, 0.1):
        time.sleep(pause)
        process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=20)
    assert process.returncode == -signal.SIGINT
    assert told.strip().endswith("KeyboardInterrupt")


def test_in_the_main_process_nobody_stops_work():
    check_stopped()


def done_by_cluster(work, items, scheduler, names):
    with on_cluster(scheduler) as each:
        yield from each(work, items, names)


def test_a_cluster_gives_each_item_its_result(tmp_path):
    with (
        cluster.scheduler(tmp_path) as address,
        cluster.worker(tmp_path, address, "one"),
        cluster.worker(tmp_path, address, "two"),
    ):
        cluster.wait_for_workers(address, 2)
        names = ["work"] * 5
        assert sorted(done_by_cluster(abs, [-1, -2, -3, -4, -5], address, names)) == [1, 2, 3, 4, 5]
        # Of another run, under keys of its own.
        assert sorted(done_by_cluster(float, [-1, -2, -3, -4, -5], address, names)) == [-5, -4, -3, -2, -1]
        file = str(tmp_path / "scheduler.json")
        assert list(done_by_cluster(abs, [-1], file, ["work"])) == [1]
        with pytest.raises(ZeroDivisionError):
            list(done_by_cluster(partial(divmod, 1), [0], address, ["work"]))


def test_a_cluster_with_tls_is_talked_to_as_dasks_configuration_says(tmp_path):
    files = cluster.certificate(tmp_path)
    tls = {"comm.default-scheme": "tls", "comm.tls.ca-file": files["cert"]}
    for role in ("scheduler", "worker", "client"):
        tls |= {f"comm.tls.{role}.{what}": path for what, path in files.items()}
    # As variables, for the processes; underscores stand for dots and dashes.
    environment = {
        "DASK_DISTRIBUTED__" + key.replace(".", "__").replace("-", "_").upper(): value
        for key, value in tls.items()
    }
    with (
        dask.config.set({f"distributed.{key}": value for key, value in tls.items()}),
        cluster.scheduler(tmp_path, **environment) as address,
        cluster.worker(tmp_path, address, "one", **environment),
    ):
        assert address.startswith("tls://")
        cluster.wait_for_workers(address, 1)
        assert sorted(done_by_cluster(abs, [-1, -2], address, ["work", "work"])) == [1, 2]


def test_workers_that_come_late_are_waited_for(tmp_path):
    with cluster.scheduler(tmp_path) as address, contextlib.ExitStack() as late:
        results = done_by_cluster(abs, [-1, -2], address, ["work", "work"])
        start = threading.Timer(0.5, lambda: late.enter_context(cluster.worker(tmp_path, address, "late")))
        start.start()
        with pytest.warns(CTSpine1KWarning, match="has no workers yet: waiting for some"):
            assert sorted(results) == [1, 2]
        start.join()


def die_of_none(item):
    if item is None:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def test_work_that_kills_its_workers_is_told_and_the_rest_is_done(tmp_path):
    here = {"PYTHONPATH": os.pathsep.join(str(path) for path in (ROOT, ROOT / "tests"))}
    at_once = {
        "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0",
        "DASK_DISTRIBUTED__SCHEDULER__WORKER_SATURATION": "1.0",  # none waits where another one dies
    }
    with (
        cluster.scheduler(tmp_path, **at_once, **here) as address,
        cluster.worker(tmp_path, address, "one", **here),
        cluster.worker(tmp_path, address, "two", **here),
    ):
        cluster.wait_for_workers(address, 2)
        seen = []
        names = ["3d/train/0", "3d/train/1", "3d/train/2"]
        with pytest.raises(WorkerError, match=r"workers died again and again at 3d/train/1 \(tcp"):
            seen.extend(done_by_cluster(die_of_none, [1, None, 2], address, names))
    assert sorted(seen) == [1, 2]


@pytest.mark.parametrize("during", ["work", "the handing over of a result"])
def test_a_scheduler_that_is_lost_is_told(tmp_path, during, caplog):
    second = 60 if during == "work" else 0
    with (
        cluster.scheduler(tmp_path) as address,
        cluster.worker(tmp_path, address, "one"),
        cluster.worker(tmp_path, address, "two"),
    ):
        cluster.wait_for_workers(address, 2)
        with distributed.Client(address, set_as_default=False) as client:
            pid = client.run_on_scheduler(os.getpid)
        results = done_by_cluster(time.sleep, [0, second], address, ["work", "work"])
        assert next(results) is None
        time.sleep(1)  # for the end of a short second item to be heard of
        os.kill(pid, signal.SIGSTOP)
        end = threading.Timer(0.5, os.kill, (pid, signal.SIGKILL))
        end.start()
        with pytest.raises(WorkerError, match="expected a Dask scheduler, found none, or lost it"):
            next(results)
        end.join()
    assert [record.message for record in caplog.records if record.exc_info] == []  # Dask's tracebacks


def test_an_error_of_the_work_is_no_lost_scheduler(tmp_path):
    with cluster.scheduler(tmp_path) as address, cluster.worker(tmp_path, address, "one"):
        cluster.wait_for_workers(address, 1)
        with pytest.raises(FileNotFoundError):
            list(done_by_cluster(os.stat, [str(tmp_path / "none")], address, ["work"]))


def test_a_scheduler_file_that_comes_late_is_waited_for(tmp_path):
    with contextlib.ExitStack() as late:
        results = done_by_cluster(abs, [-1], str(tmp_path / "scheduler.json"), ["work"])

        def come():
            address = late.enter_context(cluster.scheduler(tmp_path))
            late.enter_context(cluster.worker(tmp_path, address, "late"))

        start = threading.Timer(0.5, come)
        start.start()
        with (
            pytest.warns(CTSpine1KWarning, match="is no scheduler file yet: waiting for it, 60 s at most"),
            pytest.warns(CTSpine1KWarning, match="has no workers yet"),
        ):
            assert list(results) == [1]
        start.join()


@pytest.mark.parametrize("scheduler", ["none.json", "file", "nonsense"])
def test_a_scheduler_file_that_does_not_come_is_told(tmp_path, monkeypatch, scheduler):
    monkeypatch.setattr("ctspine1k.running.executors._PATIENCE", 0.1)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text('{"address": "xyz://a:1"}')
    with (
        pytest.warns(CTSpine1KWarning, match=r"is no scheduler file yet: waiting for it, 0\.1 s at most"),
        pytest.raises(WorkerError, match="no address such as tcp://node1:8786, and no scheduler file"),
    ):
        list(done_by_cluster(abs, [1], scheduler, ["work"]))


@pytest.mark.parametrize("scheduler", ["xyz://a:1", "tcp://node1", "", "/"])
def test_what_is_no_scheduler_is_told_at_once(scheduler):
    with pytest.raises(WorkerError, match="no address such as tcp://node1:8786, and no scheduler file"):
        list(done_by_cluster(abs, [1], scheduler, ["work"]))


@pytest.mark.parametrize(("answer", "found"), [(b"", "no answer"), (b"HTTP/1.1 400 Bad Request\r\n\r\n", "")])
def test_a_server_that_is_no_scheduler_is_told(monkeypatch, answer, found):
    """Such as the one of the scheduler's dashboard."""
    monkeypatch.setattr("ctspine1k.running.executors._PATIENCE", 1.0)
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        contextlib.ExitStack() as connections,
    ):

        def serve():
            connection, _ = server.accept()
            connections.enter_context(connection)
            connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        with pytest.raises(
            WorkerError, match=rf"expected a Dask scheduler, found none, or lost it \({found}"
        ):
            list(done_by_cluster(abs, [1], f"tcp://127.0.0.1:{server.getsockname()[1]}", ["work"]))
        thread.join()


def test_no_scheduler_is_told():
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "1s"}),
        pytest.raises(WorkerError, match=r"tcp://127\.0\.0\.1:9: expected a Dask scheduler, found none"),
    ):
        list(done_by_cluster(abs, [1], "tcp://127.0.0.1:9", ["work"]))


def test_a_cluster_needs_dask(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'ctspine1k\[cluster\]'"):
        list(done_by_cluster(abs, [1], "tcp://127.0.0.1:9", ["work"]))
