"""A Dask cluster of processes, started by their commands, over TCP on loopback."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from support import work
from support.paths import ROOT
from support.processes import process_of, wait_until

#: What runs on a cluster stands in the package, or in `support.work`. The rest is what Dask does while nothing
#: is to be done: profiles every 10 ms, a tick every 20 ms and others keep a tenth of a core busy for each process.
HERE = {
    "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "tests"))),
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
    workers: Mapping[str, subprocess.Popen]

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


def _scheduler(folder: Path, **environment: str) -> contextlib.AbstractContextManager[subprocess.Popen]:
    command = ("dask", "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard")
    log, file = folder / "scheduler.log", folder / "scheduler.json"
    return process_of(*command, "--scheduler-file", str(file), log=log, **{**HERE, **environment})


def _worker(
    folder: Path, name: str, *scheduler: str, **environment: str
) -> contextlib.AbstractContextManager[subprocess.Popen]:
    # Without the nanny, which would start another worker if this one died.
    command = ("dask", "worker", *scheduler, "--host", "127.0.0.1", "--nthreads", "1", "--no-nanny")
    cache = {"HF_HUB_CACHE": str(folder / f"cache-{name}")}  # as on a machine of its own
    command += ("--no-dashboard", "--name", name)
    return process_of(*command, log=folder / f"{name}.log", **{**HERE, **cache, **environment})


def worker(
    folder: Path, address: str, name: str, **environment: str
) -> contextlib.AbstractContextManager[subprocess.Popen]:
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
