"""Starts a session's first process under the reaper, its parent where there is no pid namespace (T1, T0)."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from sandbox._identity import Identity
from sandbox._started import START_SECONDS, cannot, end_process, first_process, memory_file, reap

REAPER = Path(__file__).parent / "_reaper.py"


@dataclass(frozen=True)
class Reaped:
    """A session's first process as the reaper started it; it has not reported yet."""

    monitor: subprocess.Popen[bytes]
    init: int
    handle: int
    channel: socket.socket


def start_reaped(
    launcher: Sequence[str],
    arguments: Sequence[str],
    environment: Mapping[str, str],
    directory: Path,
    control: int,
    undo: ExitStack,
    *,
    identity: Identity | None = None,
    filter_program: bytes = b"",
) -> Reaped:
    """Start the reaper, and through it the launcher.

    Args:
        launcher: the interpreter and the launcher's path; the channel's descriptor and ``arguments`` follow.
        arguments: what the launcher is told.
        environment: every variable of the session.
        directory: where it starts.
        control: our pipe's other end, whose closing ends the session.
        undo: gets what takes it back.
        identity: what the session runs as, held by the reaper as well; ``None`` for the reaper's own user.
        filter_program: the system call filter; none where it is empty.

    Raises:
        SandboxError: it does not come up.
    """
    with ExitStack() as inherited:  # closed here once the child has its own
        channel, inner_channel = socket.socketpair()
        undo.callback(channel.close)
        inherited.callback(inner_channel.close)
        info_read, info_write = os.pipe()
        inherited.callback(os.close, info_read)
        info = inherited.enter_context(open(info_write, "wb"))
        passed = [inner_channel.fileno(), control, info.fileno()]
        filter_fd = -1
        if filter_program:
            filter_fd = inherited.enter_context(memory_file(filter_program))
            passed.append(filter_fd)
        uid, lock = (-1, -1) if identity is None else (identity.uid, identity.lock)
        if lock >= 0:
            passed.append(lock)
        command = [sys.executable, "-I", "-S", str(REAPER)]
        command += [str(number) for number in (uid, control, info.fileno(), filter_fd, lock)]
        command += [str(directory), str(len(environment)), *(f"{name}={value}" for name, value in environment.items())]
        try:
            monitor = subprocess.Popen(
                [*command, *launcher, str(inner_channel.fileno()), *arguments],
                env={},
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                close_fds=True,
                pass_fds=passed,
                start_new_session=True,
            )
        except OSError as error:
            raise cannot("reaper", error) from None
        undo.callback(reap, monitor)
        inner_channel.close()
        info.close()
        init, handle = first_process(info_read, monitor, "reaper", START_SECONDS)
    undo.callback(end_process, handle)
    return Reaped(monitor, init, handle, channel)
