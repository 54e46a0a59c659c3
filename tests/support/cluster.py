"""A Dask cluster of processes, started by their commands, over TCP on loopback."""

from __future__ import annotations

import contextlib
import datetime
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import distributed
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from support.exports import process_of, wait_until


@contextlib.contextmanager
def scheduler(folder: Path, **environment: str) -> Iterator[str]:
    """A scheduler's address."""
    file = folder / "scheduler.json"
    command = ("dask", "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard")
    log = folder / "scheduler.log"
    with process_of(*command, "--scheduler-file", str(file), log=log, **environment):
        wait_until(lambda: file.exists() and file.read_text().endswith("}"))
        yield json.loads(file.read_text())["address"]


def worker(
    folder: Path, address: str, name: str, **environment: str
) -> contextlib.AbstractContextManager[subprocess.Popen]:
    """A worker of it, without the nanny that would start another if it died."""
    command = ("dask", "worker", address, "--host", "127.0.0.1", "--nthreads", "1", "--no-nanny")
    return process_of(*command, "--no-dashboard", "--name", name, log=folder / f"{name}.log", **environment)


def certificate(folder: Path) -> dict[str, str]:
    """Make a certificate that signs itself: the paths of it and of its key."""
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
    with distributed.Client(address, set_as_default=False) as client:
        client.wait_for_workers(count, timeout=60)
