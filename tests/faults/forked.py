"""The command ``keyong`` in processes forked from one that has imported it: real processes that start in no time.

Each is a process of its own session, reads no terminal, prints to a pipe, and can be killed with its group; the fault
library is loaded and can be armed at any moment. Nothing else differs from a command that a person typed, but for the
canary of the sandbox, which runs once a cycle of these tests would make them last for minutes (tests/sandbox runs it).
"""

from __future__ import annotations

import atexit
import contextlib
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tests.faults import injection
from tests.integration.parties import TREE, WAIT_SECONDS, Ended, Party, Service

PRELOAD = [
    "tests.faults.forked",
    "alembic.command",
    "alembic.op",
    "coordinator.service",
    "cryptography.hazmat.backends",
    "dotenv",
    "duckdb",
    "enterprise_node.service",
    "federation.stores.migrations",
    "keyong.cli",
    "keyong.cli._following",
    "keyong.cli._root",
    "keyong.cli._serving",
    "keyong.cli.coordinator",
    "keyong.cli.job",
    "keyong.cli.job_run",
    "keyong.cli.node",
    "keyong.cli.settings",
    "keyong.client",
    "keyong.planning",
    "keyong.registering",
    "keyong.upgrading",
    "pydantic_settings",
    "rich.console",
    "safetensors.numpy",
    "typer.main",
]
_context: Any = multiprocessing.get_context("forkserver")
_begun = False
_library = ""


def begin() -> bool:
    """Start the process that all others are forked from, once; whether faults can be injected."""
    global _begun, _library
    if _begun:
        return bool(_library)
    _begun = True
    folder = Path(tempfile.mkdtemp(prefix="keyong-faults-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    _library = str(injection.build(folder) or "")
    changed = {"PYTHONPATH": str(TREE), "LC_ALL": "C.UTF-8"} | ({"LD_PRELOAD": _library} if _library else {})
    before = {name: os.environ.get(name) for name in changed}
    os.environ.update(changed)
    try:
        _context.set_forkserver_preload(PRELOAD)
        forkserver.ensure_running()
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
    return bool(_library)


def _command(arguments: list[str], env: dict[str, str], out: Connection, err: str, control: str) -> None:
    """In the child: become the command."""
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL if number != signal.SIGINT else signal.default_int_handler)
    os.environ.clear()
    os.environ.update(env)
    log = os.open(err, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(out.fileno(), 1)
    os.dup2(log, 2)
    out.close()
    os.close(log)
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
    sys.argv = ["keyong", *arguments]
    import coordinator.service
    import enterprise_node.service
    from keyong.cli import main
    from sandbox import Tier

    for service in (coordinator.service, enterprise_node.service):
        service.prove_tier = lambda floor: Tier.T2  # type: ignore[attr-defined]
    if control:
        injection.join(_library_of(env), control)
    try:
        main()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def _library_of(env: Mapping[str, str]) -> str:
    return env["KEYONG_TEST_FAULTLIB"]


class Forked:
    """A forked command: as much of :class:`subprocess.Popen` as a service needs, and its faults."""

    def __init__(
        self, arguments: list[str], log: Path, env: Mapping[str, str], fault: injection.Fault | None = None
    ) -> None:
        reader, writer = _context.Pipe(duplex=False)
        control = ""
        self.faults: injection.Control | None = None
        if _library:
            self.faults = injection.Control(log.with_suffix(".faults"))
            control, env = str(self.faults.path), {**env, "KEYONG_TEST_FAULTLIB": _library}
            if fault is not None:
                self.faults.arm(fault)
        self._process = _context.Process(target=_command, args=(arguments, dict(env), writer, str(log), control))
        self._process.start()
        writer.close()
        self.pid = int(self._process.pid)
        assert self.pid > 1
        self.stdout = os.fdopen(os.dup(reader.fileno()), encoding="utf-8", errors="replace")
        reader.close()

    @property
    def returncode(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        code = self._process.exitcode
        return None if code is None else int(code)

    def poll(self) -> int | None:
        """As :attr:`returncode`."""
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end."""
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired("keyong", timeout or 0)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal to it alone."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL to it alone."""
        self.send_signal(signal.SIGKILL)

    def kill_group(self) -> None:
        """SIGKILL to it and every process of its group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)


class ForkedService(Service):
    """A forked command that goes on."""

    process: Forked  # type: ignore[assignment]

    def __init__(
        self, arguments: list[str], log: Path, env: Mapping[str, str], fault: injection.Fault | None = None
    ) -> None:
        self.log = log
        self.events: list[dict[str, Any]] = []
        self._changed = threading.Condition()
        log.touch(mode=0o600)
        self._file = log.open("ab")
        self.process = Forked(arguments, log, env, fault)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def faults(self) -> injection.Control:
        """Its faults."""
        assert self.process.faults is not None, injection.NO_COMPILER
        return self.process.faults

    def first_of(self, *names: str) -> None:
        """Wait until it has told one of these events."""
        with self._changed:
            found = self._changed.wait_for(lambda: any(one.get("event") in names for one in self.events), WAIT_SECONDS)
        assert found, self.text

    def died(self, seconds: float) -> bool:
        """Wait at most so long for its end; whether it ended."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True


class ForkedParty(Party):
    """A party whose commands are forked.

    Args:
        env: what its commands see of the environment, beside what every command sees.
    """

    service: ForkedService | None

    def __init__(self, folder: Path, name: str, env: Mapping[str, str]) -> None:
        super().__init__(folder, name)
        self.env = {"PATH": os.environ["PATH"], "HOME": str(folder), "LC_ALL": "C.UTF-8", **env}
        self.logs.mkdir(exist_ok=True)

    def arguments(self, *arguments: str | Path, form: str = "text") -> list[str]:
        """What follows the program's name."""
        return ["--home", str(self.home), "--lang", "en", "--format", form, *map(str, arguments)]

    def run(self, *arguments: str | Path, form: str = "text", env: Mapping[str, str] | None = None) -> Ended:
        """Run a command to its end, whatever that is."""
        log = self.logs / f"{self.name}-{time.monotonic_ns()}.log"
        process = Forked(self.arguments(*arguments, form=form), log, {**self.env, **(env or {})})
        out = process.stdout.read()
        code = process.wait(WAIT_SECONDS)
        return Ended(code, out, log.read_text(encoding="utf-8", errors="replace") if log.exists() else "")

    def start(self, *arguments: str | Path, form: str = "json", fault: injection.Fault | None = None) -> ForkedService:
        """Start a command that goes on, with a fault armed from its first instruction on where one is given."""
        log = self.logs / f"{self.name}-{time.monotonic_ns()}.log"
        return ForkedService(self.arguments(*arguments, form=form), log, self.env, fault)

    def serve(self, *arguments: str | Path, until: str) -> ForkedService:
        """Start this party's service and wait for its event."""
        self.service = self.start(*arguments)
        self.service.wait_for(until)
        return self.service


def outcome(ended: Ended) -> dict[str, Any]:
    """The error that a command printed as JSON, or nothing."""
    found = [line for line in ended.err.splitlines() if line.startswith('{"error"')]
    return dict(json.loads(found[-1])["error"]) if found else {}


def can_inject() -> bool:
    """Whether faults can be injected: the library was built."""
    return bool(_library)
