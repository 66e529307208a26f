"""A session: opened isolated, watched by a thread of its own, ended at once on the caller's word."""

from __future__ import annotations

import contextlib
import math
import os
import select
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, ClassVar

from sandbox._attest import attest
from sandbox._bounds import WaitingBounds, may_narrow, narrow_bounds
from sandbox._bubblewrap import process_bounds
from sandbox._launch import start
from sandbox._laying import lay
from sandbox._memory_files import can_look
from sandbox._meter import exceeded
from sandbox._started import START_SECONDS, Started, scratch_bytes
from sandbox.errors import SandboxError
from sandbox.spec import Ending, Evidence, LimitName, Limits, SessionSpec, Tier

_TICK = 0.05  # seconds between two looks at a session's totals
_WALK = 0.25  # seconds between two walks through its processes, while the kernel counts far less than it may have
_END_SECONDS = 10.0  # a killed process that is still there then hangs in the kernel
_FLOOD = 16  # times the kept output, after which the session is ended


class Session:
    """A running job in isolation; ``channel`` is the only way in or out.

    Attributes:
        pid: bubblewrap's process on the host; for the record.
        evidence: what isolates it.
        channel: the trusted end of a stream socket; descriptor 3 inside.
    """

    pid: int
    evidence: Evidence
    channel: socket.socket

    # Layers left out. Tests alone override it, in a class of their own, to show what each layer holds off.
    _without: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, spec: SessionSpec) -> None:
        self._spec = spec
        self._limits = None if spec.standby else spec.limits
        self._deadline = math.inf
        self._next_walk = 0.0
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._ready = threading.Event()
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._started: Started | None = None
        self._failure: BaseException | None = None
        self._left: SandboxError | None = None
        self._waiting: WaitingBounds | None = None
        self._killed = False
        self._limit: LimitName | None = None
        self._ending: Ending | None = None
        self._output: dict[str, bytearray] = {"stdout": bytearray(), "stderr": bytearray()}
        self._flood = {"stdout": 0, "stderr": 0}
        self._thread = threading.Thread(target=self._run, name="sandbox-session", daemon=True)
        self._thread.start()
        try:
            self._ready.wait()
        except BaseException:  # interrupted: nobody will hold this session
            self._killed = True
            self._strike()
            raise
        if self._failure is not None:
            self._thread.join()
            os.close(self._bell)
            raise self._failure
        if self._started is None:
            raise AssertionError("a session is ready or has failed")
        self.pid = self._started.monitor.pid
        self.evidence = self._started.evidence
        self.channel = self._started.channel
        if spec.standby:
            try:
                self._bound(spec.limits)
                if self._started.uid is not None and not may_narrow(self._started.init):
                    self._waiting = WaitingBounds(self._started.init, self._started.uid)
                    if self._ended.is_set():
                        self._waiting.close()
            except OSError as error:
                self.close()
                raise SandboxError(
                    "the bounds of a session on standby cannot be narrowed: {reason}",
                    code="standby",
                    hint="run without workers in waiting (KEYONG_WAITING_WORKERS=0)",
                    reason=error.strerror or type(error).__name__,
                ) from None
        with contextlib.suppress(OSError):  # already over: its ending says so
            self.channel.send(b"G")

    @property
    def sees_files(self) -> bool:
        """Whether a memory file that the job is given counts against its limit; where not, none may be given."""
        # Of gVisor's process only gVisor's own memory is seen.
        return self._started is not None and self._spec.tier is not Tier.T3 and can_look(str(self._started.init))

    @property
    def ending(self) -> Ending | None:
        """How it ended, or ``None`` while it runs."""
        return self._ending

    @property
    def limit(self) -> LimitName | None:
        """The limit for which it is being ended, or was: known before its last process is gone, which may take a while."""
        return self._limit

    def path(self, inner: str) -> str:
        """Return where the job sees the place that its spec calls ``inner``; a tier may show it elsewhere (T1)."""
        if self._started is None:
            raise AssertionError("a session is ready or has failed")
        return self._started.path(inner)

    def engage(self, limits: Limits, files: Mapping[str, Path]) -> None:
        """Give a session on standby its work: look at it from outside once more, lay out files, start bounds and clock.

        Args:
            limits: bounds of the whole session from now on; no process may have more than it was started with.
            files: by a mount's target, which must be an empty directory, what it shall hold.

        Raises:
            SandboxError: it is over, is not isolated any more, or has its work already.
            OSError: there is no room for the files.
        """
        started = self._started
        if started is None or self._limits is not None or self._ended.is_set():
            raise SandboxError("the session is not on standby", code="standby", hint="open another")
        try:
            attest(started.init, started.uid, namespaces=self._spec.tier is Tier.T2)
            self._bound(limits)
        except (OSError, KeyError):
            raise SandboxError("the session is not on standby", code="standby", hint="open another") from None
        for target, source in files.items():
            lay(source, self._outside(target))
        self._deadline = time.monotonic() + limits.wall_seconds
        self._limits = limits
        os.eventfd_write(self._bell, 1)

    def _outside(self, target: str) -> Path:
        """Where the trusted side writes what the session sees at a mount's target."""
        if self._started is not None and self._started.root is not None:
            return Path(self._started.root.path(target))
        return next(mount.source for mount in self._spec.mounts if mount.target == target)

    def _bound(self, limits: Limits) -> None:
        """Narrow what the kernel holds for the session's first process, and so for all that it will start."""
        if self._started is None:
            raise AssertionError("a session is ready or has failed")
        if self._waiting is not None:
            self._waiting.narrow(process_bounds(limits))
        else:
            narrow_bounds(self._started.init, self._started.uid, process_bounds(limits))
        if self._started.group is not None:
            self._started.group.bound(limits, scratch_bytes(self._spec))

    def stdout(self) -> bytes:
        """Return what the job has printed so far, cut at the limit; for the data owner's eyes only."""
        with self._lock:
            return bytes(self._output["stdout"])

    def stderr(self) -> bytes:
        """Return what the job has written to stderr so far, cut at the limit; for the data owner's eyes only."""
        with self._lock:
            return bytes(self._output["stderr"])

    def wait(self, timeout: float | None = None) -> Ending:
        """Return how the session ended, once no process of it is left; raise ``TimeoutError`` if that takes longer."""
        if not self._ended.wait(timeout) or self._ending is None:
            raise TimeoutError
        return self._ending

    def kill(self) -> None:
        """End every process of the session at once; after it none is left. A grace period would be a signal.

        Raises:
            SandboxError: a process hangs in the kernel and is still there after ten seconds.
        """
        self._killed = True
        self._strike()
        if not self._ended.wait(_END_SECONDS):
            raise SandboxError(
                "a killed session is still there",
                code="kill",
                hint="a process hangs in the kernel; look for its disk or device",
            )

    def close(self) -> None:
        """Kill what is left, and give back the channel and the session's uid.

        Raises:
            SandboxError: as ``kill``; or files that the session left cannot be removed.
        """
        self.kill()
        self.channel.close()
        self._thread.join()
        if self._bell >= 0:
            os.close(self._bell)
            self._bell = -1
        if self._left is not None:
            raise self._left

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def strike(self) -> None:
        """End every process of the session as ``kill`` does, without waiting for the last one to be gone."""
        self._killed = True
        self._strike()

    def _strike(self) -> None:
        with self._lock:
            if self._started is None or self._ended.is_set():
                return
            # The end of a pid namespace's first process is the end of all in it, and its exit shows only after theirs.
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._started.init_handle, signal.SIGKILL)
            if self._started.group is not None:
                self._started.group.kill()

    def _run(self) -> None:
        try:
            self._started = start(self._spec, without=self._without)
        except BaseException as error:
            self._failure = error
            self._ready.set()
            return
        if self._started.group is not None:
            self._started.group.give_way()
        if self._limits is not None:
            self._deadline = time.monotonic() + self._limits.wall_seconds
        try:
            self._ready.set()
            if self._killed:
                self._strike()
            self._watch(self._started)
        except OSError:
            self._killed = True  # what cannot be watched does not run on
        finally:
            self._finish(self._started)
            self._ready.set()

    def _watch(self, started: Started) -> None:
        """Drain output and look at totals until the session's first process is gone."""
        streams = {stream.fileno(): name for stream, name in _streams(started)}
        poll = select.poll()
        for descriptor in (started.init_handle, self._bell, *streams):
            poll.register(descriptor, select.POLLIN)
        looked = 0.0
        while True:
            ready = dict(poll.poll(None if self._limits is None else _TICK * 1000))
            if started.init_handle in ready:
                return
            if ready.pop(self._bell, None):
                os.eventfd_read(self._bell)
            for descriptor in ready:
                if not self._drain(descriptor, streams[descriptor]):
                    poll.unregister(descriptor)
            now = time.monotonic()
            limits = self._limits
            if self._limit is None and not self._killed and limits is not None and "supervisor" not in self._without:
                if now >= self._deadline:
                    self._limit = "wall"
                elif max(self._flood.values()) > _FLOOD * limits.output_bytes:
                    self._limit = "output"
                elif now - looked >= _TICK:
                    looked = now
                    self._limit = self._look(started, limits, now)
            if self._limit is not None:
                self._strike()

    def _look(self, started: Started, limits: Limits, now: float) -> LimitName | None:
        """Return the limit that the totals break; the processes are walked through only where that may say something new."""
        group = started.group if now < self._next_walk and limits.cpu_seconds is None else None
        if group is not None and group.far_below(limits):
            return started.meter.disk(limits) or _broken(started)
        self._next_walk = now + _WALK
        return exceeded(started.meter.sample(limits), limits) or _broken(started)

    def _drain(self, descriptor: int, name: str) -> bool:
        piece = os.read(descriptor, 1 << 16)
        with self._lock:
            kept = self._output[name]
            kept += piece[: self._spec.limits.output_bytes - len(kept)]
            self._flood[name] += len(piece)
        return bool(piece)

    def _finish(self, started: Started) -> None:
        """Record the ending; runs when the first process is gone, or the watch failed, which ends it too."""
        handle = select.poll()
        handle.register(started.init_handle, select.POLLIN)
        if not handle.poll(0):  # one that ended by itself is told by its monitor, which a kill would take with it
            self._strike()
            handle.poll(_END_SECONDS * 1000)
        try:
            code = started.monitor.wait(START_SECONDS)
            started.sweep()
        except (OSError, subprocess.SubprocessError):
            return  # somebody is left: it has not ended, ``kill`` says so, and its uid is given to nobody else
        for stream, name in _streams(started):
            os.set_blocking(stream.fileno(), False)
            with contextlib.suppress(BlockingIOError):
                while self._flood[name] <= _FLOOD * self._spec.limits.output_bytes and self._drain(
                    stream.fileno(), name
                ):
                    pass
            stream.close()
        if self._waiting is not None:
            self._waiting.close()
        with self._lock:
            if self._limit is None and not self._killed and "supervisor" not in self._without:
                # The kernel, or the job's own end at it, was faster than the supervisor.
                full = self._limits is not None and started.meter.left_full(self._limits)
                self._limit = _broken(started) or ("disk" if full else None)
            if self._limit is not None:
                self._ending = Ending("limit", self._limit)
            elif self._killed:
                self._ending = Ending("killed")
            else:
                self._ending = Ending("exited", exit_code=code)
            self._ended.set()
            os.close(started.init_handle)
        try:
            started.clear()
        except SandboxError as error:
            self._left = error


def _broken(started: Started) -> LimitName | None:
    return started.group.broken() if started.group is not None else None


def _streams(started: Started) -> list[tuple[IO[bytes], str]]:
    monitor = started.monitor
    return [(stream, name) for stream, name in ((monitor.stdout, "stdout"), (monitor.stderr, "stderr")) if stream]


def open_session(spec: SessionSpec) -> Session:
    """Return a session that runs ``spec`` and nothing else, isolated as demanded; blocks until the canary was clean.

    Raises:
        SandboxError: a source cannot be read, a layer is missing, or a forbidden act succeeded. Nothing ran weaker.
    """
    return Session(spec)
