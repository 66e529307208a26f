"""Ends what a killed service left of a session that it was just starting.

Bubblewrap dies with its parent, and with it the session. One moment is left out: between the making of the session's
first process and bubblewrap's word to it that it may go on. If the service is killed then, bubblewrap dies and its child
waits for that word for ever, with the session's mounts, and so its rows, in hand. It has run nothing of the job.
"""

from __future__ import annotations

import os
import select
import signal
from pathlib import Path

_SECONDS = 10.0
_STARTERS = ("python", "keyong")
_MARK = b"/sandbox/launch.py"


def end_orphans(processes: Path = Path("/proc")) -> int:
    """Kill each such process of this user (as root, of any session's user); returns how many.

    An orphan is a bubblewrap of ours whose parent is the machine's, the container's or the user's init, and that init is
    not itself a service that starts sessions.
    """
    ended = 0
    for entry in processes.iterdir():
        if entry.name.isdigit() and _is_orphan(entry, processes):
            ended += _end(entry, processes)
    return ended


def _is_orphan(entry: Path, processes: Path) -> bool:
    try:
        words = (entry / "cmdline").read_bytes().split(b"\0")
        if words[:2] != [b"bwrap", b"--info-fd"] or not any(word.startswith(_MARK) for word in words):
            return False
        if os.geteuid() not in (0, entry.stat().st_uid):
            return False
        parent = (entry / "stat").read_text(encoding="latin-1").rsplit(")", 1)[1].split()[1]
        name = (processes / parent / "comm").read_text(encoding="latin-1").strip()
    except OSError:
        return False  # it ended while we looked
    return name == "systemd" or (parent == "1" and not name.startswith(_STARTERS))


def _end(entry: Path, processes: Path) -> int:
    try:
        handle = os.pidfd_open(int(entry.name))
    except OSError:
        return 0
    try:
        if not _is_orphan(entry, processes):  # the number was given to another process
            return 0
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        gone = select.poll()
        gone.register(handle, select.POLLIN)
        gone.poll(_SECONDS * 1000)
    except OSError:
        return 0
    finally:
        os.close(handle)
    return 1
