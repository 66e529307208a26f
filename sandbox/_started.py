"""A session's processes as started, and what every way of starting one shares."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from sandbox._cgroup import Group, open_group
from sandbox._identity import Identity
from sandbox._meter import Meter, UidMeter
from sandbox._session_root import SessionRoot
from sandbox.errors import SandboxError
from sandbox.spec import Evidence, SessionSpec

if TYPE_CHECKING:
    from sandbox._subprocess import PlainRoot

START_SECONDS = 30.0


@dataclass
class Started:
    """The processes and descriptors of a session whose launcher has reported a clean canary, and waits for the word."""

    monitor: subprocess.Popen[bytes]
    init: int
    init_handle: int
    channel: socket.socket
    identity: Identity | None
    evidence: Evidence
    meter: Meter | UidMeter
    root: SessionRoot | PlainRoot | None = None
    """The session's own part of the file system, where it has no mount table of its own (T1, T0)."""

    alive: IO[bytes] | None = None
    """Our end of the reaper's control pipe (T1, T0): its closing, by whatever cause, ends the session."""

    group: Group | None = None
    """The session's own control group, where this process may make one."""

    sweep: Callable[[], None] = lambda: None
    """Ends whoever outlived the monitor; none of the session is left when it returns."""

    @property
    def uid(self) -> int | None:
        """The session's own uid on the host; ``None`` where it shares that of an ordinary user."""
        return None if self.identity is None else self.identity.uid

    def path(self, inner: str) -> str:
        """Where the session sees the place that its spec calls ``inner``."""
        return inner if self.root is None else self.root.path(inner)

    def clear(self) -> None:
        """Give back what the session held; nobody of it is left.

        Raises:
            SandboxError: some of its files could not be removed; the next start tries again, and nobody has its uid before.
        """
        if self.alive is not None:
            self.alive.close()
        if self.group is not None:
            self.group.remove()
        try:
            if self.root is not None:
                self.root.remove()
        except OSError as error:
            raise SandboxError(
                "what a session left in {path} cannot be removed: {reason}",
                code="left",
                hint="look for what is wrong with that disk; the next start tries again",
                path=self.root and self.root.place,
                reason=error.strerror or type(error).__name__,
            ) from None
        finally:
            if self.identity is not None:
                self.identity.release()


def make_group(undo: ExitStack, without: frozenset[str]) -> Group | None:
    """Make a session's control group; ``None`` where there can be none."""
    group = open_group() if "cgroup" not in without else None
    if group is not None:
        undo.callback(group.abandon)
    return group


def join_group(spec: SessionSpec, first: int, group: Group | None) -> Group | None:
    """Put a session that has not run anything of its own yet into its control group with its bounds; ``None`` without one.

    While its interpreter starts: the kernel takes its time to move a process.
    """
    if group is None:
        return None
    try:
        group.bound(spec.limits, scratch_bytes(spec))
        group.enter(first)
    except OSError:
        group.remove()
        return None
    return group


def scratch_bytes(spec: SessionSpec) -> int:
    """What a session's places in memory may hold together."""
    return spec.limits.scratch_bytes + spec.limits.shm_bytes + sum(spec.scratch.values())


@contextmanager
def memory_file(content: bytes) -> Iterator[int]:
    """Yield a descriptor of a file in memory that holds ``content``."""
    descriptor = os.memfd_create("session", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, content)
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield descriptor
    finally:
        os.close(descriptor)


def cannot(what: str, reason: object) -> SandboxError:
    """Return the refusal for a session that did not come up."""
    return SandboxError(
        "a session could not be started ({what}): {reason}",
        code="start",
        hint="run keyong doctor: it names the missing layer and the fix",
        what=what,
        reason=reason,
    )


def first_process(info: int, monitor: subprocess.Popen[bytes], program: str, seconds: float) -> tuple[int, int]:
    """Return pid and pidfd of the session's first process, once ``program``, its parent, has told it."""
    deadline = time.monotonic() + seconds
    text = b""
    while select.select([info], [], [], max(0.0, deadline - time.monotonic()))[0] and (piece := os.read(info, 4096)):
        text += piece
    try:
        init = int(json.loads(text)["child-pid"])
        handle = os.pidfd_open(init)
    except (ValueError, KeyError, OSError):
        raise cannot(program, last_words(monitor)) from None
    try:
        parent = int(Path(f"/proc/{init}/stat").read_text(encoding="latin-1").rsplit(")", 1)[1].split()[1])
    except OSError:
        parent = -1
    if parent != monitor.pid:
        os.close(handle)
        raise cannot(program, last_words(monitor))
    return init, handle


def last_words(monitor: subprocess.Popen[bytes]) -> str:
    """Return the last line that a failed launch wrote, or its exit code; kills what still runs."""
    try:
        _, errors = monitor.communicate(timeout=1)
    except subprocess.TimeoutExpired:
        monitor.kill()
        _, errors = monitor.communicate(timeout=START_SECONDS)
    lines = errors[-2000:].decode("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else f"exit code {monitor.returncode}"


def end_process(handle: int) -> None:
    """Kill a session's first process, and with it the session, wait until it is gone, and close its handle."""
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(handle, signal.SIGKILL)
    gone = select.poll()
    gone.register(handle, select.POLLIN)
    gone.poll(START_SECONDS * 1000)
    os.close(handle)


def reap(monitor: subprocess.Popen[bytes]) -> None:
    """Kill the monitor and close its streams."""
    monitor.kill()
    monitor.wait(START_SECONDS)
    for stream in (monitor.stdout, monitor.stderr):
        if stream is not None:
            stream.close()
