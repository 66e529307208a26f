"""The parties of the demo: each a home, driven by the same commands a person would type, and its serving process."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from federation.errors import KeyongError
from keyong.text import language

READY_SECONDS = 120.0


class DemoError(KeyongError):
    """A step of the demo did not go as the story says."""

    code = "demo"


class Party:
    """One party: a home and the commands run in it."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self.home = folder / name
        self.service: Service | None = None

    def command(self, *arguments: str) -> list[str]:
        """The command line of ``keyong`` for this party."""
        return [sys.executable, "-m", "keyong", "--home", str(self.home), "--lang", language(), *arguments]

    def run(self, *arguments: str, expect: int = 0) -> Any:
        """Run a command with JSON output; returns what it printed, parsed.

        Raises:
            DemoError: it exited otherwise than expected.
        """
        done = subprocess.run(
            self.command("--format", "json", *arguments),
            capture_output=True,
            text=True,
            env=_environment(),
            check=False,
        )
        if done.returncode != expect:
            raise DemoError(
                "`keyong {command}` ended with {exit}, expected {expected}: {why}",
                command=" ".join(arguments),
                exit=done.returncode,
                expected=expect,
                why=(done.stderr.strip() or done.stdout.strip())[-2000:],
            )
        if arguments[:2] == ("job", "run"):
            return [json.loads(text) for text in done.stdout.splitlines()]
        return json.loads(done.stdout) if done.stdout.strip() else None

    def show(self, *arguments: str, expect: int | None = 0) -> int:
        """Run a command as a person would see it, on this terminal; returns its exit code."""
        sys.stdout.flush()
        code = subprocess.run(self.command(*arguments), env=_environment(), check=False).returncode
        if expect is not None and code != expect:
            raise DemoError(
                "`keyong {command}` ended with {exit}, expected {expected}: {why}",
                command=" ".join(arguments),
                exit=code,
                expected=expect,
                why="see above",
            )
        return code

    def listen(self, *arguments: str) -> tuple[int, list[str]]:
        """Run a command and return its exit code and what it told on stderr, line by line."""
        done = subprocess.run(self.command(*arguments), capture_output=True, text=True, env=_environment(), check=False)
        return done.returncode, done.stderr.splitlines()

    def serve(self, *arguments: str, logs: Path) -> Service:
        """Start this party's service in a process of its own."""
        self.service = Service(self.command("--format", "json", *arguments), logs / f"{self.name}.log", self.name)
        return self.service


class Service:
    """A serving process; its events are awaited by condition, never by time."""

    def __init__(self, command: Sequence[str], log: Path, name: str) -> None:
        self.name = name
        self._log = log
        self._events: list[dict[str, Any]] = []
        self._changed = threading.Condition()
        self._file = log.open("ab")
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=self._file, text=True, env=_environment(), start_new_session=True
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for text in self._process.stdout:
            with contextlib.suppress(ValueError), self._changed:
                self._events.append(json.loads(text))
                self._changed.notify_all()
        with self._changed:
            self._events.append({"event": "ended"})
            self._changed.notify_all()

    @property
    def pid(self) -> int:
        """The process, which others may have been started by."""
        return self._process.pid

    def wait_for(self, event: str, count: int = 1) -> dict[str, Any]:
        """The ``count``-th event of that name; raises :class:`DemoError` where the process ended first or took too long."""

        def found() -> dict[str, Any] | None:
            told = [item for item in self._events if item.get("event") in (event, "ended")]
            ended = next((item for item in told if item["event"] == "ended"), None)
            return ended or (told[count - 1] if len(told) >= count else None)

        with self._changed:
            self._changed.wait_for(lambda: found() is not None, READY_SECONDS)
            item = found()
        if item is None or item["event"] != event:
            raise DemoError(
                "the process of {name} did not come up: {why}",
                hint="its log is {log}",
                name=self.name,
                why=self._log.read_text(encoding="utf-8", errors="replace").strip()[-1000:],
                log=str(self._log),
            )
        return item

    def told(self, event: str) -> list[dict[str, Any]]:
        """All events of that name so far."""
        return [item for item in self._events if item.get("event") == event]

    def kill(self) -> None:
        """End the process as a failure would: SIGKILL."""
        self._process.kill()
        self.stop()

    def stop(self) -> None:
        """End the process as an operator would: SIGTERM, then wait."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
        self._reader.join(5)
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _environment() -> dict[str, str]:
    return {
        "KEYONG_WAITING_WORKERS": "0",  # several companies on one machine: each waiting worker would hold its memory
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(Path.cwd()), os.environ.get("PYTHONPATH", "")])),
    }
