"""No process that a story starts outlives it, however it ends.

A story runs services of every party as processes of their own. Ended in order, it ends them. Killed, it cannot: so a
watcher stands beside it, in a session of its own where no Ctrl-C reaches it, and reads from a pipe whose other end the
story alone holds. The kernel closes that end with the story. The watcher then ends whatever carries the story's mark in
its environment, which every process inherits from the one that started it, whoever that was (`PR_SET_PDEATHSIG` would
reach children only, and ends them with the thread that started them). In order, nothing is left by then, and it goes.

This file is the watcher's program, too: standard library alone, read by its path.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

MARK = "KEYONG_LEASH"
GRACE_SECONDS = 10.0
"""For services to end in order after SIGTERM, before SIGKILL."""
ENDED_BY_TERM = 128 + signal.SIGTERM
_PROC = Path("/proc")


@contextlib.contextmanager
def leash() -> Iterator[None]:
    """For the block, see to it that what is started in it ends with this process; SIGTERM leaves the block in order."""
    token = secrets.token_hex(16)
    theirs, ours = os.pipe()  # not inherited over exec, so nobody else holds our end
    before = signal.signal(signal.SIGTERM, _leave)
    try:
        subprocess.run([sys.executable, "-I", "-S", __file__, token], stdin=theirs, check=True, start_new_session=True)
        os.close(theirs)
        os.environ[MARK] = token
        yield
    finally:
        os.environ.pop(MARK, None)
        signal.signal(signal.SIGTERM, before)
        os.close(ours)


def _leave(*_: object) -> None:
    raise SystemExit(ENDED_BY_TERM)


def marked(token: str) -> list[int]:
    """The processes that carry a story's mark."""
    mark = f"{MARK}={token}".encode()
    found = []
    for entry in _PROC.iterdir():
        # Another user's, or gone meanwhile: neither is ours.
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and mark in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return found


def _end_all(token: str) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        end = time.monotonic() + GRACE_SECONDS
        told: set[int] = set()
        while (left := marked(token)) and time.monotonic() < end:
            for process in set(left) - told:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, number)
            told.update(left)
            time.sleep(0.05)


def _watch(token: str) -> None:
    # Handed over to init: none of the story's children, so that nobody counts it among what the story uses.
    if os.fork():
        return
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (1, 2):
        os.dup2(null, stream)
    while os.read(0, 1):
        pass
    _end_all(token)


if __name__ == "__main__":
    _watch(sys.argv[1])
