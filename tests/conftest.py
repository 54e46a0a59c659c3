"""What every test stands on: a Hub on loopback, caches of its own, and no way out."""

from __future__ import annotations

import contextlib
import errno
import gc
import importlib.metadata
import io
import json
import logging
import multiprocessing.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import filelock
import hypothesis
import pytest
from support import loopback  # noqa: F401 (imported for what it does)
from support.cluster import Cluster, cluster_of
from support.compare import CONFIGS, wanted
from support.disks import fill, mounted
from support.hub import Hub, Repo
from support.volumes import SIZE, files_of, save_split_file, save_tree

# Before anything imports huggingface_hub or datasets: both read these once.
HUB = Hub()
_HOME = tempfile.TemporaryDirectory(prefix="ctspine1k-tests-")
ENVIRONMENT = HUB.environment(_HOME.name)
os.environ.update(ENVIRONMENT)
for _name in (
    "HF_HUB_OFFLINE",
    "HF_DATASETS_OFFLINE",
    "HF_TOKEN",
    "HF_DATASETS_CACHE",
    "HF_HUB_CACHE",
    "http_proxy",
    "HTTP_PROXY",
):
    os.environ.pop(_name, None)


# A shell ignores SIGINT in what it starts in the background, nohup SIGHUP. What ignores a signal passes that
# on to what it starts, in which our tests send them.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda *_: None)

# How long an example takes is the machine's affair, not a property of the code.
hypothesis.settings.register_profile(
    "tests", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("tests")

_RUNS_SCRIPTS = importlib.metadata.version("datasets").startswith("3.")
collect_ignore = [f"rows/test_script_on_{4 if _RUNS_SCRIPTS else 3}.py"]


#: Tests that start Python processes have one of these marks.
_WITH_PROCESSES = ("processes", "cluster", "docs")

#: The test that is running, unless it is marked as one that starts Python processes.
_QUICK: list[str] = []


def pytest_collection_finish() -> None:
    """Have the garbage collector pass over what imports have made, which stays: it takes 5 % of the time."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Note which test is running."""
    if not any(item.get_closest_marker(mark) for mark in _WITH_PROCESSES):
        _QUICK.append(item.nodeid)
    yield
    _QUICK.clear()


def _refuse_processes(event: str, arguments: tuple) -> None:
    program = str(arguments[0]) if event == "subprocess.Popen" else "python"
    if (
        _QUICK
        and event in ("subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn")
        and any(name in program for name in ("python", "dask", "bash"))
    ):
        raise AssertionError(f"{_QUICK[0]} starts Python processes: mark it with `processes`")


sys.addaudithook(_refuse_processes)


@pytest.fixture(autouse=True, scope="session")
def _spawned_processes_are_seen() -> None:
    """What `multiprocessing` spawns is no event of Python's, so make it one."""
    spawn = multiprocessing.util.spawnv_passfds

    def told(path: bytes, *rest: object) -> int:
        sys.audit("os.posix_spawn", path, *rest)
        return spawn(path, *rest)

    multiprocessing.util.spawnv_passfds = told


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder with the cases of `IDS`, in the Hub's layout."""
    return save_tree(tmp_path / "tree")


@pytest.fixture
def split_file(tmp_path: Path) -> Path:
    """A split file that names the cases of `tree` and no others."""
    return save_split_file(tmp_path / "split.txt")


@pytest.fixture
def load(tree, split_file, tmp_path):
    """`load_dataset` on the tree, with small slices and a cache of the test's own."""

    import ctspine1k  # after the environment is ours

    def run(name="3d", **options):
        defaults = {"split_file": split_file, "image_size": SIZE, "cache_dir": tmp_path / "cache"}
        if "repo_id" not in options:
            defaults["data_dir"] = tree
        return ctspine1k.load_dataset(name, **{**defaults, **options})

    return run


@pytest.fixture(params=CONFIGS)
def name(request: pytest.FixtureRequest) -> str:
    """Each config."""
    return request.param


@pytest.fixture(scope="session")
def all_compact(tmp_path_factory):
    """The cases of train in compact storage, by config, converted once. No test may change their files."""
    import ctspine1k  # after the environment is ours

    root = tmp_path_factory.mktemp("compact")
    files = {"data_dir": save_tree(root / "tree"), "split_file": save_split_file(root / "split.txt")}
    options = {**files, "image_size": SIZE, "cache_dir": root / "cache", "storage": "compact"}
    return {name: ctspine1k.load_dataset(name, split="train", **options) for name in CONFIGS}


@pytest.fixture
def compact(all_compact, name):
    """The cases of train in compact storage."""
    return all_compact[name]


@pytest.fixture
def right(tree, name):
    """What its rows must be."""
    return wanted(tree, name, "train")


@pytest.fixture
def hub() -> Iterator[Hub]:
    """The Hub on loopback, with no faults left from another test."""
    HUB.faults.clear()
    HUB.requests.clear()
    return HUB


@pytest.fixture
def publish(hub: Hub, request: pytest.FixtureRequest) -> Callable[[Path], str]:
    """Make a Hub repo of its own from a folder's files, and give its id."""

    def make(root: Path) -> str:
        repo_id = f"tests/{request.node.originalname.replace('_', '-')[:60]}-{len(hub.repos)}"
        hub.repos[repo_id] = Repo()
        hub.repos[repo_id].commit(files_of(root))
        return repo_id

    return make


@pytest.fixture
def repo_id(publish: Callable[[Path], str], tree: Path) -> str:
    """A Hub repo with the files of `tree`."""
    return publish(tree)


@pytest.fixture
def python(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run Python code in a process of its own, in our environment, and with no way out either."""
    guard = tmp_path / "guard"
    guard.mkdir()
    shutil.copy(Path(__file__).parent / "support" / "loopback.py", guard / "sitecustomize.py")
    # Of the code under test, not of an installed one.
    path = os.pathsep.join(map(str, [guard, Path(__file__).parent.parent]))

    def run(code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", code, *arguments],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": path, **environment},
            check=False,
            timeout=120,
        )

    return run


@dataclass(frozen=True)
class Demo:
    """What `ctspine1k demo` did."""

    root: Path  #: where it made the phantom, a folder that was not there
    status: int
    out: str
    err: str


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """One run of the command, for all processes of pytest. No test may add to its folder: others copy it."""
    from ctspine1k.cli.main import main

    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    root, told = shared / "demo" / "new" / "demo", shared / "demo.json"
    with filelock.FileLock(shared / "demo.lock"):
        if not told.exists():
            with (
                contextlib.redirect_stdout(io.StringIO()) as out,
                contextlib.redirect_stderr(io.StringIO()) as err,
            ):
                status = main(["demo", "--out", str(root)])
            told.write_text(json.dumps([status, out.getvalue(), err.getvalue()]))
    made = set(root.rglob("*"))
    yield Demo(root, *json.loads(told.read_text()))
    assert set(root.rglob("*")) == made


@pytest.fixture(scope="session")
def phantom(demo: Demo) -> Path:
    """The folder of a phantom of CT, which no test may change."""
    return demo.root


@pytest.fixture(scope="session")
def shared_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A Dask cluster of two workers, for tests that neither end it nor a worker of it."""
    with cluster_of("one", "two", folder=tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """An S3 server on loopback."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(s3_server: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """A bucket of the test's own, for this process and those that it starts."""
    import fsspec

    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "tests")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "tests")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    bucket = f"bucket-{abs(hash(request.node.nodeid))}"
    fsspec.filesystem("s3").mkdir(bucket)
    return f"s3://{bucket}"


@dataclass
class SmallDisk:
    """A file system of 1 MB, and ways to fill it but for a block, to its end, and to make room again."""

    root: Path
    fill: Callable[[], object]
    fill_up: Callable[[], object]
    empty: Callable[[], None]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """A small file system, where this user may mount one; else a folder that is full when told so."""
    with mounted(tmp_path / "small", 1 << 20) as is_small, pytest.MonkeyPatch.context() as patch:
        place = tmp_path / "small"
        if is_small:
            yield SmallDisk(
                place,
                partial(fill, place, blocks_left=1),
                partial(fill, place),
                (place / "filler").unlink,
            )
            return

        def refuse(descriptor: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        def refuse_all() -> None:
            patch.setattr(os, "fsync", refuse)

        yield SmallDisk(place, refuse_all, refuse_all, patch.undo)


@pytest.fixture(scope="session")
def sample(tmp_path_factory) -> Path:
    """A copy of three cases of real CT: `verify` keeps what it measures beside the files."""
    if "CTSPINE1K_SAMPLE" not in os.environ:
        pytest.skip("CTSPINE1K_SAMPLE names no folder with real CT")
    copy = tmp_path_factory.mktemp("real") / "sample"
    shutil.copytree(os.environ["CTSPINE1K_SAMPLE"], copy, copy_function=shutil.copyfile)
    copy.chmod(0o700)  # it may be read-only where it comes from
    return copy
