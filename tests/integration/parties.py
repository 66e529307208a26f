"""Parties as real processes: each a home driven by the command line a person types, and its serving process."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, ClassVar

from keyong.demo.leash import MARK
from tests.integration.forkserver import TREE, Forked, ForkServer, Request

WAIT_SECONDS = 120.0
Process = subprocess.Popen[str] | Forked


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it printed, parsed."""
        return json.loads(self.out)

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The events that it printed, one JSON object a line."""
        return [json.loads(text) for text in self.out.splitlines() if text.startswith("{")]

    @property
    def error(self) -> dict[str, Any]:
        """The last error that it printed as JSON."""
        found = [json.loads(text)["error"] for text in self.err.splitlines() if text.startswith('{"error"')]
        assert found, self.err
        return dict(found[-1])

    def refused(self, code: int, *words: str, hint: bool = True, traceback: bool = False) -> None:
        """It ended with that code, an ``error:`` line that says all the words, a ``hint:`` line, and no traceback."""
        told = f"exit {self.code}\n{self.out}\n{self.err}"
        assert self.code == code, told
        assert traceback or "Traceback" not in self.err, told
        errors = re.findall(r"^error: .+", self.err, re.MULTILINE)
        assert errors, told
        text = " ".join(errors).lower()
        missing = [word for word in words if word.lower() not in text]
        assert not missing, f"{missing} not said\n{told}"
        if hint:
            assert re.search(r"^hint: .+", self.err, re.MULTILINE), told


def environment(**more: str) -> dict[str, str]:
    """The environment of a command: this tree first, English, and nothing else of ours."""
    kept = {
        name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", "KEYONG_RUNTIMES", MARK) if name in os.environ
    }
    return {**kept, "PYTHONPATH": str(TREE), "LC_ALL": "C.UTF-8", "KEYONG_WAITING_WORKERS": "0", **more}


class Party:
    """One party: a home, and the commands run in it."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self.home = folder / name
        self.logs = folder / "logs"
        self.service: Service | None = None

    def command(self, *arguments: str | Path, form: str = "text") -> list[str]:
        """The command line."""
        start = [sys.executable, "-m", "keyong", "--home", str(self.home), "--lang", "en", "--format", form]
        return [*start, *map(str, arguments)]

    def run(self, *arguments: str | Path, form: str = "text", env: Mapping[str, str] | None = None) -> Ended:
        """Run a command to its end, whatever that is."""
        done = subprocess.run(
            self.command(*arguments, form=form),
            capture_output=True,
            text=True,
            env=environment(**(env or {})),
            stdin=subprocess.DEVNULL,
            timeout=WAIT_SECONDS,
            check=False,
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    def ok(self, *arguments: str | Path, form: str = "json") -> Ended:
        """Run a command that must succeed."""
        done = self.run(*arguments, form=form)
        assert done.code == 0, f"keyong {' '.join(map(str, arguments))}: exit {done.code}\n{done.out}\n{done.err}"
        return done

    def start(self, *arguments: str | Path, form: str = "json") -> Service:
        """Start a command that goes on."""
        return Service(self._process(*arguments, form=form), self._log())

    def _log(self) -> Path:
        self.logs.mkdir(exist_ok=True)
        return self.logs / f"{self.name}-{time.monotonic_ns()}.log"

    def _process(self, *arguments: str | Path, form: str) -> Callable[[IO[bytes]], Process]:
        return lambda err: subprocess.Popen(
            self.command(*arguments, form=form),
            stdout=subprocess.PIPE, stderr=err, text=True, env=environment(), start_new_session=True,
        )  # fmt: skip

    def serve(self, *arguments: str | Path, until: str) -> Service:
        """Start this party's service and wait for its event."""
        self.service = self.start(*arguments)
        self.service.wait_for(until)
        return self.service


class ForkedParty(Party):
    """A party whose commands are forked from a process that has imported them: each takes its work's time alone."""

    _server: ClassVar[ForkServer | None] = None

    @classmethod
    def server(cls) -> ForkServer:
        """What commands are forked from; started once."""
        if cls._server is None:
            cls._server = ForkServer(**environment())
        return cls._server

    def request(self, *arguments: str | Path, form: str, env: Mapping[str, str] | None = None) -> Request:
        """The command line and its environment."""
        line = ("--home", str(self.home), "--lang", "en", "--format", form, *map(str, arguments))
        return Request(line, environment(**(env or {})))

    def run(self, *arguments: str | Path, form: str = "text", env: Mapping[str, str] | None = None) -> Ended:
        """Run a command to its end, whatever that is."""
        request = self.request(*arguments, form=form, env=env)
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            process = self.server().start(request, out.fileno(), err.fileno())
            try:
                code = process.wait(WAIT_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill_group()
                raise
            for file in (out, err):
                file.seek(0)
            return Ended(code, out.read().decode(), err.read().decode())

    def _process(self, *arguments: str | Path, form: str) -> Callable[[IO[bytes]], Process]:
        return partial(self.fork, self.request(*arguments, form=form))

    def fork(self, request: Request, err: IO[bytes]) -> Forked:
        """Start a command whose stdout is a pipe."""
        ours, theirs = os.pipe()
        try:
            process = self.server().start(request, theirs, err.fileno())
        finally:
            os.close(theirs)
        process.stdout = os.fdopen(ours, encoding="utf-8", errors="replace")
        return process


class Service:
    """A process that goes on, printing events; they are awaited by condition, never by time.

    Args:
        start: starts it, given where its stderr goes.
        log: that file.
    """

    def __init__(self, start: Callable[[IO[bytes]], Process], log: Path) -> None:
        self.log = log
        self.events: list[dict[str, Any]] = []
        self._changed = threading.Condition()
        self._file = log.open("ab")
        self.process = start(self._file)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for text in self.process.stdout:
            with contextlib.suppress(ValueError), self._changed:
                self.events.append(json.loads(text))
                self._changed.notify_all()
        with self._changed:
            self.events.append({"event": "process-ended"})
            self._changed.notify_all()

    def wait_for(self, event: str, after: int = 0) -> dict[str, Any]:
        """The first event of that name from number ``after`` on; fails where the process ends first."""

        def found() -> dict[str, Any] | None:
            names = (event, "process-ended")
            return next((one for one in self.events[after:] if one.get("event") in names), None)

        with self._changed:
            self._changed.wait_for(lambda: found() is not None, WAIT_SECONDS)
            one = found()
        assert one is not None and one["event"] == event, f"no {event}: {self.events}\n{self.text}"
        return one

    @property
    def text(self) -> str:
        """What it has logged on stderr."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def ended(self) -> int:
        """Wait for its end; returns the exit code."""
        code = self.process.wait(WAIT_SECONDS)
        self._reader.join(10)
        return code

    def stop(self) -> int:
        """SIGTERM, then wait, as an operator would; returns the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()
        self._reader.join(10)
        self._file.close()
        return self.process.returncode

    def kill(self) -> None:
        """SIGKILL, as a power cut would."""
        self.process.kill()
        self.process.wait()


def until(holds: Callable[[], Any], otherwise: str, seconds: float = 60.0) -> Any:
    """Wait for a condition; returns what made it hold."""
    end = time.monotonic() + seconds
    while not (value := holds()):
        assert time.monotonic() < end, otherwise
        time.sleep(0.05)
    return value
