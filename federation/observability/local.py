"""Asking the process that serves a home, through the socket in it: no network, no key, its owner alone."""

from __future__ import annotations

import http.client
import os
import socket
from pathlib import Path

from federation.errors import UnavailableError

_SECONDS = 10.0


class NotServingError(UnavailableError):
    """No process serves this home in that role."""

    code = "not-serving"


def socket_of(home: Path, role: str) -> Path:
    """Where the process that serves a home listens for its owner."""
    return home / f"{role}.sock"


def ask(home: Path, role: str, page: str) -> tuple[int, bytes]:
    """Fetch a page from the process that serves a home; returns the status and the body.

    Raises:
        NotServingError: there is none, or it does not answer.
    """
    connection = http.client.HTTPConnection("localhost", timeout=_SECONDS)
    try:
        with _connected(socket_of(home, role)) as connection.sock:
            connection.request("GET", page)
            answer = connection.getresponse()
            return answer.status, answer.read()
    except (OSError, http.client.HTTPException):
        raise NotServingError(
            "no process serves {home} as {role}, or it does not answer",
            hint="start it with `keyong {role} serve`",
            home=str(home),
            role=role,
        ) from None


def _connected(path: Path) -> socket.socket:
    plug = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    plug.settimeout(_SECONDS)
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        plug.connect(f"/proc/self/fd/{folder}/{path.name}")
    except OSError:
        plug.close()
        raise
    finally:
        os.close(folder)
    return plug
