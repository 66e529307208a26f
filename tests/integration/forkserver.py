"""The command ``keyong`` in processes forked from one that has imported it: real processes that start in no time.

Each is a process in a session of its own, reads no terminal, prints where it is told to, ends as an interpreter ends but
for giving its memory back piece by piece, and can be killed alone or with its group. Nothing else differs from a command
that a person typed; how those start and end is tested where a person types them (tests/docs, tests/demo, tests/keyong,
tests/packaging).
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import json
import os
import select
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import IO, NoReturn

TREE = Path(__file__).resolve().parents[2]
PRELOAD = (
    "alembic.command",
    "alembic.op",
    "coordinator.service",
    "cryptography.hazmat.backends",
    "dotenv",
    "duckdb",
    "enterprise_node.service",
    "federation.stores.migrations",
    "keyong.agreeing",
    "keyong.cli",
    "keyong.cli._following",
    "keyong.cli._root",
    "keyong.cli._serving",
    "keyong.cli.agreement",
    "keyong.cli.coordinator",
    "keyong.cli.inbox",
    "keyong.cli.job",
    "keyong.cli.job_check",
    "keyong.cli.job_run",
    "keyong.cli.join",
    "keyong.cli.ledger",
    "keyong.cli.node",
    "keyong.cli.node_dataset",
    "keyong.cli.peers",
    "keyong.cli.settings",
    "keyong.cli.verify",
    "keyong.client",
    "keyong.choosing",
    "keyong.outputs",
    "keyong.planning",
    "keyong.registering",
    "keyong.upgrading",
    "pydantic_settings",
    "rich.console",
    "safetensors.numpy",
    "typer.main",
)
_MESSAGE = 1 << 17


@dataclass(frozen=True)
class Request:
    """One command: what it is called with, and what a test prepares in its process first (``module:function``)."""

    arguments: Sequence[str]
    environment: Mapping[str, str]
    prepare: Sequence[str] = ()

    def become(self) -> NoReturn:
        """In the forked process: be the command, to its end."""
        os.environ.clear()
        os.environ.update(self.environment)
        sys.argv = ["keyong", *self.arguments]
        if self.prepare:
            module, _, function = self.prepare[0].partition(":")
            getattr(import_module(module), function)(*self.prepare[1:])
        _end(_ended(import_module("keyong.cli").main))


def _ended(main: Callable[[], None]) -> int:
    try:
        main()
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _end(code: int) -> NoReturn:
    """As an interpreter ends: threads are awaited, what is to run at the end runs, what was printed goes out.

    It does not take its modules apart: with all that was imported here, that takes many times what most commands take.
    """
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code & 0xFF)


class ForkServer:
    """The process that commands are forked from; it and they end with the one that started it."""

    def __init__(self, **environment: str) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        own = {"PATH": os.environ["PATH"], "PYTHONPATH": str(TREE), "LC_ALL": "C.UTF-8", **environment}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.forkserver", str(theirs.fileno())],
            pass_fds=[theirs.fileno()], env=own, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        theirs.close()
        self._lock = threading.Lock()

    def start(self, request: Request, out: int, err: int) -> Forked:
        """Start a command whose stdout and stderr are these descriptors."""
        ours, theirs = os.pipe()
        try:
            data = json.dumps([request.arguments, dict(request.environment), request.prepare]).encode()
            assert len(data) < _MESSAGE, "too long a command"
            with self._lock:
                socket.send_fds(self._socket, [data], [theirs, out, err])
        finally:
            os.close(theirs)
        return Forked(ours)


class Forked:
    """A forked command: as much of :class:`subprocess.Popen` as tests need."""

    stdout: IO[str] | None = None
    args = "keyong"

    def __init__(self, told: int) -> None:
        self._told = os.fdopen(told, "rb", buffering=0)
        self._lock = threading.Lock()
        self.returncode: int | None = None
        self.pid = self._next()

    def _next(self) -> int:
        data = self._told.read(8)
        assert data is not None and len(data) == 8, "the process that commands are forked from has ended"
        return int.from_bytes(data, "little", signed=True)

    def _look(self, seconds: float | None) -> int | None:
        with self._lock:
            if self.returncode is None and select.select([self._told], [], [], seconds)[0]:
                self.returncode = self._next()
                self._told.close()
            return self.returncode

    def poll(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        return self._look(0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end."""
        end = None if timeout is None else time.monotonic() + timeout
        while (code := self._look(0.2 if end is None else min(0.2, max(0, end - time.monotonic())))) is None:
            if end is not None and time.monotonic() >= end:
                raise subprocess.TimeoutExpired("keyong", timeout or 0)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal to it alone."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL to it alone."""
        self.send_signal(signal.SIGKILL)

    def kill_group(self) -> None:
        """SIGKILL to it and every process of its group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)


class _Server:
    """Forks for each request, and tells whoever asked its process id, then its exit code, as numbers of eight bytes."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._selector = selectors.DefaultSelector()
        self._waking, wake = os.pipe()
        for number in (self._waking, wake):
            os.set_blocking(number, False)
        self._wake = wake
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        self._selector.register(control, selectors.EVENT_READ)
        self._selector.register(self._waking, selectors.EVENT_READ)
        self._running: dict[int, int] = {}

    def serve(self) -> Request | None:
        """Serve until nobody asks any more; in each forked process, return what it is to be."""
        while True:
            ready = [key.fileobj for key, _ in self._selector.select()]
            if self._waking in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._waking, 4096)
                self._reap()
            if self._control in ready:
                data, passed, _, _ = socket.recv_fds(self._control, _MESSAGE, 3)
                if not data:
                    self._end()
                    return None
                told, out, err = passed
                if (pid := os.fork()) == 0:
                    self._forget(told)
                    _stand(out, err)
                    return Request(*json.loads(data))
                os.close(out)
                os.close(err)
                self._running[pid] = told
                _tell(told, pid)

    def _reap(self) -> None:
        while self._running:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            told = self._running.pop(pid)
            _tell(told, os.waitstatus_to_exitcode(status))
            os.close(told)

    def _end(self) -> None:
        """Whoever asked has gone, in whatever way: nothing goes on without him."""
        for pid in self._running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)

    def _forget(self, told: int) -> None:
        signal.set_wakeup_fd(-1)
        self._selector.close()
        self._control.close()
        for number in (self._waking, self._wake, told, *self._running.values()):
            os.close(number)


def _tell(told: int, number: int) -> None:
    with contextlib.suppress(BrokenPipeError):  # whoever asked has gone
        os.write(told, number.to_bytes(8, "little", signed=True))


def _stand(out: int, err: int) -> None:
    """In the forked process: a session, signals and streams as a new interpreter has them."""
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, standard in ((out, 1), (err, 2)):
        os.dup2(number, standard)
        os.close(number)
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", closefd=False, buffering=1, errors="backslashreplace")  # noqa: SIM115


def _main(control: int) -> None:
    asking = socket.socket(fileno=control)
    asking.set_inheritable(False)
    for name in PRELOAD:
        import_module(name)
    gc.collect()
    gc.freeze()  # or each command looks through all of it, and so copies it
    request = _Server(asking).serve()
    if request is not None:
        request.become()


if __name__ == "__main__":
    _main(int(sys.argv[1]))
