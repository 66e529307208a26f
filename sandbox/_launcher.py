"""The launcher inside: its code for the session's interpreter, and the one line it reports before the job may run."""

from __future__ import annotations

import importlib.util
import marshal
import select
import socket
import sys
import time
from functools import lru_cache
from pathlib import Path

from sandbox._attest import does_not_hold

SOURCE = Path(__file__).parent / "inside" / "launch.py"
_REPORT = 64  # bytes, as in inside/launch.py
_SAME = f"python{sys.version_info.major}.{sys.version_info.minor}"


def launcher_file(source: bytes, inner_python: str) -> tuple[str, bytes]:
    """Return the launcher's path inside and its content, compiled where the interpreter there is of our version."""
    if Path(inner_python).name != _SAME or sys.implementation.name != "cpython":
        return "/sandbox/launch.py", source
    return "/sandbox/launch.pyc", _compiled(source)


@lru_cache(maxsize=2)
def _compiled(source: bytes) -> bytes:
    code = compile(source, "/sandbox/launch.py", "exec", dont_inherit=True, optimize=0)
    return importlib.util.MAGIC_NUMBER + bytes(12) + marshal.dumps(code)  # flags, time and size: not looked at


def await_report(channel: socket.socket, seconds: float) -> int:
    """Return the Landlock version that the launcher applied.

    Raises:
        TimeoutError: it stays silent.
        EOFError: it is gone without a report.
        SandboxError: it refuses; a forbidden act succeeded or a layer is missing.
    """
    deadline = time.monotonic() + seconds
    report = b""
    while len(report) < _REPORT:
        if not select.select([channel], [], [], max(0.0, deadline - time.monotonic()))[0]:
            raise TimeoutError("no report in time")
        piece = channel.recv(_REPORT - len(report))
        if not piece:
            raise EOFError
        report += piece
    words = report.decode("ascii", "replace").split()
    if words[:2] != ["keyong-sandbox/1", "clean"] or len(words) != 3:
        raise does_not_hold(" ".join(words[2:]))
    return int(words[2])
