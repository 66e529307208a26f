"""Ports for services whose address is signed before they listen: nobody is given one of them in between."""

from __future__ import annotations

import secrets
import socket
import sys
from contextlib import suppress
from pathlib import Path

_SYSTEMS = Path("/proc/sys/net/ipv4/ip_local_port_range")
_FIRST, _COUNT = 1 << 13, 1 << 16
_held: list[socket.socket] = []
"""Each to the end of this process, whatever becomes of the service."""


def own_port() -> int:
    """A port of loopback that is this process's own to its end, for a service that starts later, or again.

    It is none of those that the system hands out: another's connection never has it. Other test processes see that it is
    taken by a name beside it (Linux).
    """
    handed_out = _handed_out()
    while True:
        port = _FIRST + secrets.randbelow(_COUNT - _FIRST)
        if port in handed_out:
            continue
        with suppress(OSError), socket.socket() as listening:
            listening.bind(("127.0.0.1", port))
            _hold(port)
            return port


def _hold(port: int) -> None:
    if sys.platform == "linux":
        name = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            name.bind(f"\0keyong-test-port-{port}")
        except OSError:
            name.close()
            raise
        _held.append(name)


def _handed_out() -> range:
    """What the system gives to connections, and to whoever asks for any port."""
    with suppress(OSError):
        first, last = map(int, _SYSTEMS.read_text().split())
        if last - first < _COUNT - _FIRST - 1000:  # or there are none beside them
            return range(first, last + 1)
    return range(49152, _COUNT)
