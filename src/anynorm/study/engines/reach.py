"""Check whether a Ray cluster answers at an address; Ray itself would try forever."""

from __future__ import annotations

import socket
import subprocess
import sys

from anynorm.errors import AnynormError

__all__ = ["check_reachable"]

_CONNECT_SECONDS = 5
_HEALTH_SECONDS = 20
_PORTS = {"ray://": 10001, "": 6379}


def check_reachable(address: str) -> None:
    """Raise `AnynormError` within half a minute unless a Ray cluster answers at `address`.

    `address` is ``host:port`` of a head node, or ``ray://host:port`` of its client server.
    """
    scheme = "ray://" if address.startswith("ray://") else ""
    host, port = _split(address.removeprefix(scheme), _PORTS[scheme], address)
    try:
        socket.create_connection((host, port), _CONNECT_SECONDS).close()
    except OSError as error:
        raise _unreachable(address, str(error)) from error
    if not scheme and not _is_healthy(f"{host}:{port}"):
        raise _unreachable(address, "something listens there, but it is not a healthy Ray head")


def _split(text: str, port: int, address: str) -> tuple[str, int]:
    host, _, given = text.rpartition(":") if ":" in text else (text, "", str(port))
    if not (host and given.isdecimal() and 0 < int(given) < 65536):
        raise AnynormError(f"the address {address!r} cannot be read; write host:port.")
    return host.strip("[]"), int(given)


def _is_healthy(address: str) -> bool:
    command = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_HEALTH_SECONDS)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def _unreachable(address: str, why: str) -> AnynormError:
    return AnynormError(
        f"no Ray cluster can be reached at {address!r}: {why}. Start one with `ray start --head` "
        "and give the address it prints, as --on ray:host:port, or leave the address out "
        "(--on ray) to run on this machine."
    )
