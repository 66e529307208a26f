"""Running the command in this process, and as processes of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from keyong.cli import _state, run
from tests.ports import own_port

DIGEST = "sha256:" + "7" * 64


@dataclass(frozen=True)
class Ran:
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(row) for row in self.out.splitlines()]


Run = Callable[..., Ran]


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting of whoever runs the tests reaches them, nor one that a test before them gave on a command line."""
    for name in list(os.environ):
        if name.startswith("KEYONG_") and name != "KEYONG_SHARED":
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KEYONG_WAITING_WORKERS", "0")  # each costs seconds of processor time to start
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    monkeypatch.setenv("COLUMNS", "100")
    _state.prepare([])


@pytest.fixture
def keyong(capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs a command line in this process."""

    def call(*arguments: object) -> Ran:
        capfd.readouterr()
        code = run([str(one) for one in arguments])
        out, err = capfd.readouterr()
        return Ran(code, out, err)

    return call


@pytest.fixture
def founder(keyong: Run, tmp_path: Path) -> Path:
    """The home of a consortium's founder; its coordinator's address is a free port."""
    home = tmp_path / "institute"
    ran = keyong(
        "--home", home, "consortium", "init", "--name", "Plates", "--member", "inst", "--entity", "Institute",
        "--address", f"127.0.0.1:{own_port()}",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    return home


@pytest.fixture
def fingerprint(keyong: Run, founder: Path) -> str:
    """The root fingerprint."""
    return str(keyong("--home", founder, "whoami", "--format", "json").json["consortium"]["fingerprint"])


@pytest.fixture
def passes(tmp_path: Path) -> Path:
    """A CSV file of twelve rows."""
    path = tmp_path / "passes.csv"
    path.write_text("force,grade\n" + "".join(f"{n}.5,Q{n % 3}\n" for n in range(12)), encoding="utf-8")
    return path


class Process:
    """A serving ``keyong`` with ``--format json``; what it prints is read line by line."""

    def __init__(self, *arguments: object, environment: dict[str, str], log: Path) -> None:
        self._log = log
        self._out = log.with_suffix(".out")
        with log.open("wb") as err, self._out.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "keyong.cli", *map(str, arguments), "--format", "json"],
                stdout=out, stderr=err, env=environment,
            )  # fmt: skip

    def events(self) -> list[dict[str, Any]]:
        """What it has printed so far."""
        return [json.loads(row) for row in self._out.read_text(encoding="utf-8").splitlines()]

    def wait_for(self, event: str, seconds: float = 60.0) -> dict[str, Any]:
        """Wait until it printed this event."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for one in self.events():
                if one["event"] == event:
                    return one
            assert self.process.poll() is None, self._log.read_text(encoding="utf-8")
            time.sleep(0.05)
        raise AssertionError(f"no {event}: {self.events()}\n{self._log.read_text(encoding='utf-8')}")

    def end(self) -> int:
        """Tell it to end, as an operator would."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


@pytest.fixture
def runtimes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty runtime: enough for everything up to the moment code would run."""
    folder = tmp_path / "runtimes"
    (folder / "torch" / "site-packages").mkdir(parents=True)
    manifest = {"name": "torch", "digest": DIGEST, "python": "/usr/bin/python3", "packages": {}}
    (folder / "torch" / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    monkeypatch.setenv("KEYONG_RUNTIMES", str(folder))
    return folder


@pytest.fixture
def serve(tmp_path: Path, runtimes: Path) -> Iterator[Callable[..., Process]]:
    """Starts serving processes, and ends them all."""
    started: list[Process] = []

    def start(*arguments: object) -> Process:
        process = Process(*arguments, environment=dict(os.environ), log=tmp_path / f"serve-{len(started)}.log")
        started.append(process)
        return process

    yield start
    for process in reversed(started):
        process.end()


@pytest.fixture
def coordinating(founder: Path, serve: Callable[..., Process], isolating: None) -> Process:
    """The founder's coordinator, that serves."""
    return serve("--home", founder, "coordinator", "serve")


@pytest.fixture
def joined(
    keyong: Run, founder: Path, fingerprint: str, coordinating: Process, tmp_path: Path, isolating: None
) -> Path:
    """A member's home, entered over the link of a coordinator that serves."""
    assert coordinating.wait_for("ready")["port"] > 0
    invitation = tmp_path / "mill-a.invitation"
    home = tmp_path / "mill-a"
    assert keyong("--home", founder, "consortium", "invite", "mill-a", "--entity", "Mill A", "-o", invitation).code == 0
    ran = keyong("--home", home, "join", invitation, "--fingerprint", fingerprint, "--format", "json")
    assert ran.code == 0, ran.err
    assert ran.json["member"] == "mill-a"
    return home
