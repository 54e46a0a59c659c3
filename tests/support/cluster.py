"""A Dask cluster of processes, over TCP on loopback."""

from __future__ import annotations

import contextlib
import datetime
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from support import work
from support.forks import Child, fork
from support.processes import wait_until

#: What Dask does while nothing is to be done, less often: profiles every 10 ms, a tick every 20 ms and others keep
#: a tenth of a core busy for each process.
HERE = {
    "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False",
    "DASK_DISTRIBUTED__WORKER__MEMORY__MONITOR_INTERVAL": "1s",
    "DASK_DISTRIBUTED__ADMIN__TICK__INTERVAL": "500ms",
    "DASK_DISTRIBUTED__ADMIN__SYSTEM_MONITOR__GIL__ENABLED": "False",
    "DASK_DISTRIBUTED__ADMIN__SYSTEM_MONITOR__INTERVAL": "5s",
}


@dataclass(frozen=True)
class Cluster:
    """A scheduler, and workers that are there."""

    address: str
    file: Path  #: the scheduler file
    workers: Mapping[str, Child]

    def set_environment(self, **environment: str) -> None:
        """Set variables of the workers' environment, from now on."""
        import distributed

        with distributed.Client(self.address, set_as_default=False) as client:
            client.run(work.set_environment, environment)


@contextlib.contextmanager
def cluster_of(*names: str, folder: Path, **environment: str) -> Iterator[Cluster]:
    """A scheduler with these workers, all of which start at once."""
    file = folder / "scheduler.json"
    with contextlib.ExitStack() as running:
        running.enter_context(_scheduler(folder, **environment))
        workers = {  # they wait for the scheduler file
            name: running.enter_context(_worker(folder, name, "--scheduler-file", str(file), **environment))
            for name in names
        }
        wait_until(lambda: file.exists() and file.read_text().endswith("}"))
        address = json.loads(file.read_text())["address"]
        if names:
            wait_for_workers(address, len(names))
        yield Cluster(address, file, workers)


def _scheduler(folder: Path, **environment: str) -> contextlib.AbstractContextManager[Child]:
    file = str(folder / "scheduler.json")
    options = ("--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", file)
    return _node("scheduler", *options, HF_HUB_CACHE=str(folder / "cache"), **environment)


def _worker(
    folder: Path, name: str, *scheduler: str, **environment: str
) -> contextlib.AbstractContextManager[Child]:
    # Without the nanny, which would start another worker if this one died.
    options = (*scheduler, "--host", "127.0.0.1", "--nthreads", "1", "--no-nanny", "--no-dashboard")
    # A cache as on a machine of its own.
    cache = str(folder / f"cache-{name}")
    return _node("worker", *options, "--name", name, HF_HUB_CACHE=cache, **environment)


@contextlib.contextmanager
def _node(command: str, *options: str, **environment: str) -> Iterator[Child]:
    """Run a command of Dask meanwhile."""
    node = fork("support.nodes:run_there", command, options, {**HERE, **environment})
    try:
        yield node
    finally:
        node.kill()


def worker(
    folder: Path, address: str, name: str, **environment: str
) -> contextlib.AbstractContextManager[Child]:
    """Another worker of a scheduler."""
    return _worker(folder, name, address, **environment)


def certificate(folder: Path) -> dict[str, str]:
    """Make a certificate that signs itself: the paths of it and of its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "tests")])
    now = datetime.datetime.now(datetime.timezone.utc)
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    cert, private = folder / "cert.pem", folder / "key.pem"
    cert.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return {"cert": str(cert), "key": str(private)}


def wait_for_workers(address: str, count: int) -> None:
    """Wait until so many are there."""
    import distributed

    with distributed.Client(address, set_as_default=False) as client:
        client.wait_for_workers(count, timeout=60)
