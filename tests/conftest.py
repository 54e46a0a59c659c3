"""What every test stands on: a Hub on loopback, caches of its own, and no way out."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hub import Hub, Repo
from volumes import save_case

# Before anything imports huggingface_hub or datasets: both read these once.
HUB = Hub()
_HOME = tempfile.TemporaryDirectory(prefix="ctspine1k-tests-")
ENVIRONMENT = {
    "HF_ENDPOINT": HUB.url,
    "HF_HOME": _HOME.name,
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_XET": "1",  # the server speaks plain HTTP
    "HF_HUB_DISABLE_SYMLINKS_WARNING": "1",
}
os.environ.update(ENVIRONMENT)
for _name in ("HF_HUB_OFFLINE", "HF_TOKEN", "HF_DATASETS_CACHE", "HF_HUB_CACHE", "http_proxy", "HTTP_PROXY"):
    os.environ.pop(_name, None)


def _stay_on_loopback(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        host = arguments[1][0]
        if not (host.startswith("127.") or host in ("::1", "localhost")):
            raise AssertionError(f"a test connects to {host}")


sys.addaudithook(_stay_on_loopback)

#: Two cases of train, one of validation, one of test, under real ids.
IDS = {
    "train": ["1.3.6.1.4.1.9328.50.4.0001", "liver_106"],
    "validation": ["HN_P023"],
    "test": ["1.3.6.1.4.1.9328.50.4.0650"],
}
ALL_IDS = [case_id for ids in IDS.values() for case_id in ids]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder with the cases of `IDS`, in the Hub's layout."""
    for seed, case_id in enumerate(ALL_IDS):
        save_case(tmp_path / "tree", case_id, seed=seed, shape=(6, 5, 3 + seed))
    return tmp_path / "tree"


@pytest.fixture
def split_file(tmp_path: Path) -> Path:
    """A split file that names the cases of `tree` and no others."""
    path = tmp_path / "split.txt"
    sections = zip(("trainset", "test_public", "test_private"), IDS.values(), strict=True)
    path.write_text("\n".join(f"{name}:\n" + "".join(f"{i}.nii.gz\n" for i in ids) for name, ids in sections))
    return path


@pytest.fixture
def hub() -> Iterator[Hub]:
    """The Hub on loopback, with no faults left from another test."""
    HUB.faults.clear()
    HUB.requests.clear()
    return HUB


@pytest.fixture
def repo_id(hub: Hub, tree: Path, request: pytest.FixtureRequest) -> str:
    """A Hub repo of its own for each test, with the files of `tree`."""
    name = f"tests/{request.node.originalname.replace('_', '-')[:60]}-{len(hub.repos)}"
    hub.repos[name] = Repo()
    hub.repos[name].commit(files_of(tree))
    return name


def files_of(root: Path) -> dict[str, bytes]:
    """The files below a folder, as a repo's commit has them."""
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


@pytest.fixture
def python(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run Python code in a process of its own, where warnings are shown and the environment is ours."""

    def run(code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", code, *arguments],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, **environment},
            check=False,
            timeout=120,
        )

    return run


@pytest.fixture
def sample() -> Path:
    """Three cases of real CT, where the environment says they are."""
    if "CTSPINE1K_SAMPLE" not in os.environ:
        pytest.skip("CTSPINE1K_SAMPLE names no folder with real CT")
    return Path(os.environ["CTSPINE1K_SAMPLE"])
