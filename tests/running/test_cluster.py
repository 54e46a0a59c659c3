import contextlib
import os
import signal
import socket
import sys
import threading
import time
from functools import partial

import pytest
from support import work
from support.cluster import certificate, cluster_of, worker
from support.processes import wait_until

from ctspine1k.errors import CTSpine1KWarning, MissingPackageError, WorkerError
from ctspine1k.running.cluster import Dask

posix = pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")


def done(work, items, scheduler, names=None, patience=60.0):
    """What each item comes to."""
    with (
        Dask(scheduler, patience).ready() as run,
        contextlib.closing(run(work, items, names or ["work"] * len(items))) as results,
    ):
        yield from results


@pytest.mark.cluster
def test_a_cluster_gives_each_item_its_result(shared_cluster):
    address = shared_cluster.address
    assert sorted(done(abs, [-1, -2, -3, -4, -5], address)) == [1, 2, 3, 4, 5]
    # Of another run, under keys of its own.
    assert sorted(done(float, [-1, -2, -3, -4, -5], address)) == [-5, -4, -3, -2, -1]
    assert list(done(abs, [-1], str(shared_cluster.file))) == [1]
    with pytest.raises(ZeroDivisionError):
        list(done(partial(divmod, 1), [0], address))


@pytest.mark.cluster
def test_an_error_of_the_work_is_no_lost_scheduler(shared_cluster, tmp_path):
    with pytest.raises(FileNotFoundError):
        list(done(os.stat, [str(tmp_path / "none")], shared_cluster.address))


@pytest.mark.cluster
def test_a_cluster_with_tls_is_talked_to_as_dasks_configuration_says(tmp_path):
    import dask

    files = certificate(tmp_path)
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
        cluster_of("one", folder=tmp_path, **environment) as cluster,
    ):
        assert cluster.address.startswith("tls://")
        assert sorted(done(abs, [-1, -2], cluster.address)) == [1, 2]


@pytest.fixture(scope="module")
def idle(tmp_path_factory):
    """A scheduler that has no workers."""
    with cluster_of(folder=tmp_path_factory.mktemp("idle")) as cluster:
        yield cluster


@contextlib.contextmanager
def after(warned, come):
    """Have something come when a warning has been given."""
    with contextlib.ExitStack() as late:

        def wait_and_come():
            wait_until(lambda: len(warned))
            come(late)

        thread = threading.Thread(target=wait_and_come)
        thread.start()
        yield
        thread.join()


@pytest.mark.cluster
def test_workers_that_come_late_are_waited_for(tmp_path, idle):
    with (
        pytest.warns(CTSpine1KWarning, match="has no workers yet: waiting for some") as warned,
        after(warned, lambda late: late.enter_context(worker(tmp_path, idle.address, "late"))),
    ):
        assert sorted(done(abs, [-1, -2], idle.address)) == [1, 2]


@pytest.mark.cluster
def test_a_scheduler_file_that_comes_late_is_waited_for(tmp_path, idle):
    file = tmp_path / "scheduler.json"

    def come(late):
        file.write_bytes(idle.file.read_bytes())
        wait_until(lambda: len(warned) == 2)
        late.enter_context(worker(tmp_path, idle.address, "late"))

    with (
        pytest.warns(CTSpine1KWarning, match="has no workers yet"),
        pytest.warns(
            CTSpine1KWarning, match="is not a scheduler file yet: waiting for it, 60 s at most"
        ) as warned,
        after(warned, come),
    ):
        assert list(done(abs, [-1], str(file))) == [1]


@posix
@pytest.mark.cluster
def test_work_that_kills_its_workers_is_told_and_the_rest_is_done(tmp_path):
    at_once = {
        "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0",
        "DASK_DISTRIBUTED__SCHEDULER__WORKER_SATURATION": "1.0",  # none waits where another one dies
    }
    with cluster_of("one", "two", folder=tmp_path, **at_once) as cluster:
        seen = []
        names = ["3d/train/0", "3d/train/1", "3d/train/2"]
        with pytest.raises(WorkerError, match=r"workers died again and again at 3d/train/1 \(tcp"):
            seen.extend(done(work.die_of_none, [1, None, 2], cluster.address, names))
    assert sorted(seen) == [1, 2]


@posix
@pytest.mark.cluster
@pytest.mark.parametrize("during", ["work", "the handing over of a result"])
def test_a_scheduler_that_is_lost_is_told(tmp_path, during, caplog):
    import distributed

    second = str(tmp_path / "never") if during == "work" else None
    with cluster_of("one", folder=tmp_path) as cluster:
        with distributed.Client(cluster.address, set_as_default=False) as client:
            pid = client.run_on_scheduler(os.getpid)
            results = done(work.wait_for, [None, second], cluster.address)
            assert next(results) is None
            wait_until(lambda: client.run_on_scheduler(work.count_done) == (1 if second else 2))
        time.sleep(0.1)  # for the end of the second item to be heard of
        os.kill(pid, signal.SIGSTOP)
        end = threading.Timer(0.5, os.kill, (pid, signal.SIGKILL))
        end.start()
        with pytest.raises(WorkerError, match="expected a Dask scheduler, found none, or lost it"):
            next(results)
        end.join()
    assert [record.message for record in caplog.records if record.exc_info] == []  # Dask's tracebacks


@pytest.mark.slow
@pytest.mark.parametrize("scheduler", ["none.json", "file", "nonsense"])
def test_a_scheduler_file_that_does_not_come_is_told(tmp_path, monkeypatch, scheduler):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text('{"address": "xyz://a:1"}')
    with (
        pytest.warns(CTSpine1KWarning, match=r"is not a scheduler file yet: waiting for it, 0\.1 s at most"),
        pytest.raises(WorkerError, match="neither an address such as tcp://node1:8786 nor a scheduler file"),
    ):
        list(done(abs, [1], scheduler, patience=0.1))


@pytest.mark.parametrize("scheduler", ["xyz://a:1", "tcp://node1", "", "/"])
def test_what_is_no_scheduler_is_told_at_once(scheduler):
    with pytest.raises(WorkerError, match="neither an address such as tcp://node1:8786 nor a scheduler file"):
        list(done(abs, [1], scheduler))


@pytest.mark.slow
@pytest.mark.parametrize(("answer", "found"), [(b"", "no answer"), (b"HTTP/1.1 400 Bad Request\r\n\r\n", "")])
def test_a_server_that_is_no_scheduler_is_told(answer, found):
    """Such as the one of the scheduler's dashboard."""
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
            list(done(abs, [1], f"tcp://127.0.0.1:{server.getsockname()[1]}", patience=0.5))
        thread.join()


def test_no_scheduler_is_told():
    import dask

    with (
        dask.config.set({"distributed.comm.timeouts.connect": "200ms"}),
        pytest.raises(WorkerError, match=r"tcp://127\.0\.0\.1:9: expected a Dask scheduler, found none"),
    ):
        list(done(abs, [1], "tcp://127.0.0.1:9"))


def test_a_cluster_needs_dask(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'ctspine1k\[cluster\]'"):
        list(done(abs, [1], "tcp://127.0.0.1:9"))
