"""Imported, it keeps this process on the loopback interface: any other connection is an error."""

import sys


def _stay_on_loopback(event: str, arguments: tuple) -> None:
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        host = arguments[1][0]
        if not (host.startswith("127.") or host in ("::1", "localhost")):
            raise AssertionError(f"a test connects to {host}")


sys.addaudithook(_stay_on_loopback)
