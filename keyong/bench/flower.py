"""Flower's own deployment engine with the same app on the same machine: what a governed round is compared with.

One SuperLink and one SuperNode for each node, as ``flower-superlink`` and ``flower-supernode`` start them (each with its
executor, which starts a process for the server part and one for every message), over TLS, with state in memory. Telemetry,
the question for updates and the installation of dependencies are off; homes, logs and certificates lie in a folder that is
removed. Nothing of Flower is imported here: these are its commands.

**The share of its polls.** Flower's Grid asks for replies, and where not all are there it sleeps for three seconds before it
asks again. The app notes, at the end of each round, how long those sleeps have been so far; the share is what they took of the
steady rounds. Beside it stands the processor time that all of Flower's processes used in a round.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from federation.errors import UnavailableError
from keyong.bench.certificate import write_certificate
from keyong.bench.line import APP, between
from keyong.bench.processes import Peak, below, cpu_seconds
from keyong.bench.progress import Advance
from keyong.demo.consortium import free_port

COMMANDS = ("flower-superlink", "flower-supernode", "flwr")
START_SECONDS = 60.0
ROUND_SECONDS = 120.0


@dataclass(frozen=True)
class Mark:
    """The end of a round: when it was, and how long the Grid's polls had slept by then."""

    time: float
    slept: float


@dataclass(frozen=True)
class FlowerRun:
    """What was measured: seconds of each round, the first one first; the share of polls; processor time; peak memory."""

    version: str
    rounds: tuple[float, ...]
    poll_share: float
    cpu_seconds_per_round: float
    peak: Peak


def available() -> bool:
    """Whether Flower's commands are installed beside this Python."""
    return all(_command(name).is_file() for name in COMMANDS)


def poll_share(marks: Sequence[Mark]) -> float:
    """The share of the steady rounds (from the end of the first on) that the polls slept.

    Args:
        marks: the first is written before the first round, then one a round.
    """
    steady = marks[1:]
    if len(steady) < 2:
        return 0.0
    return (steady[-1].slept - steady[0].slept) / (steady[-1].time - steady[0].time)


def run_rounds(folder: Path, rounds: int, floats: int, nodes: int, advance: Advance) -> FlowerRun:
    """Run the benchmark's app under Flower's engine.

    Raises:
        UnavailableError: Flower is not installed, did not start, or stopped answering.
    """
    marks_file = folder / "marks"
    marks_file.touch()
    with engine(folder, nodes) as (roots, submit), Peak(lambda: roots) as peak:
        settings = f'num-server-rounds={rounds} floats={floats} nodes={nodes} marks="{marks_file}"'
        submit(settings)
        _until(marks_file, 2, ROUND_SECONDS, advance, rounds)
        spent = _spent(roots)
        marks = _until(marks_file, rounds + 1, ROUND_SECONDS, advance, rounds)
        spent = _spent(roots) - spent
    took = between([mark.time - marks[0].time for mark in marks[1:]])
    return FlowerRun(version("flwr"), tuple(took), poll_share(marks), spent / (rounds - 1), peak)


@contextmanager
def engine(folder: Path, nodes: int) -> Iterator[tuple[list[int], _Submit]]:
    """A SuperLink and its SuperNodes; gives their processes and what submits the app. All are ended on leaving."""
    if not available():
        raise UnavailableError(
            "Flower is not installed here, so there is nothing to compare with",
            hint="pip install 'keyong[jobs]', or measure with --no-compare",
        )
    port = free_port()
    address = f"127.0.0.1:{port}"
    certificate, key = write_certificate(folder)
    link = ["--ssl-certfile", certificate, "--ssl-keyfile", key, "--ssl-ca-certfile", certificate]
    with ExitStack() as stack:
        roots = [
            stack.enter_context(
                _process(
                    folder, "flower-superlink", *link, "--host", "127.0.0.1", "--port", port,
                    "--disable-runtime-dependency-installation", home="superlink",
                )
            )
        ]  # fmt: skip
        _until_listening(folder, "superlink", port)
        for number in range(nodes):
            roots.append(
                stack.enter_context(
                    _process(
                        folder, "flower-supernode", "--root-certificates", certificate, "--superlink", address,
                        "--host", "127.0.0.1", "--port", free_port(),
                        "--node-config", f"partition-id={number} num-partitions={nodes}", home=f"supernode-{number}",
                    )
                )
            )  # fmt: skip
        yield roots, _Submit(folder, address, certificate)


class _Submit:
    """Hands the app to the SuperLink, as a person would with ``flwr run``."""

    def __init__(self, folder: Path, address: str, certificate: Path) -> None:
        self._folder = folder
        home = folder / "user"
        home.mkdir()
        (home / "config.toml").write_text(
            f'[superlink]\ndefault = "bench"\n\n[superlink.bench]\naddress = "{address}"\n'
            f'root-certificates = "{certificate}"\n',
            encoding="utf-8",
        )

    def __call__(self, settings: str) -> None:
        app = self._folder / "app"
        shutil.copytree(APP, app, ignore=shutil.ignore_patterns("__pycache__"))
        done = subprocess.run(
            [str(_command("flwr")), "run", str(app), "bench", "--run-config", settings, "--format", "json"],
            env=_environment(self._folder / "user"), capture_output=True, text=True, check=False, timeout=START_SECONDS,
        )  # fmt: skip
        if done.returncode or '"success": true' not in done.stdout:
            raise UnavailableError(
                "Flower did not take the app: {why}", why=(done.stdout + done.stderr).strip()[-1000:]
            )


@contextmanager
def _process(folder: Path, name: str, *arguments: object, home: str) -> Iterator[int]:
    own = folder / home
    own.mkdir()
    with (
        (folder / f"{home}.log").open("wb") as log,
        subprocess.Popen(
            [str(_command(name)), *map(str, arguments)],
            env=_environment(own), cwd=own, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        ) as process,
    ):  # fmt: skip
        try:
            yield process.pid
        finally:
            # Its executors are in processes of their own, some of which outlive it.
            family = below([process.pid])
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            for one in family:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(one, signal.SIGKILL)


def _environment(home: Path) -> dict[str, str]:
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
    }


def _command(name: str) -> Path:
    return Path(sys.executable).parent / name


def _spent(roots: Sequence[int]) -> float:
    return sum(map(cpu_seconds, below(roots)))


def _until_listening(folder: Path, home: str, port: int) -> None:
    import socket

    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.1)
    raise _silent(folder, home)


def _until(path: Path, count: int, patience: float, advance: Advance, rounds: int) -> list[Mark]:
    """Wait for so many marks; ``patience`` is how long one may be in coming."""
    seen, since = 0, time.monotonic()
    while True:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        marks = [json.loads(one) for one in lines if one.endswith("\n")]
        if len(marks) > seen:
            seen, since = len(marks), time.monotonic()
            advance(max(0, seen - 1), rounds)
        if seen >= count:
            return [Mark(one["time"], one["slept"]) for one in marks]
        if time.monotonic() - since > patience:
            raise _silent(path.parent, "superlink")
        time.sleep(0.1)


def _silent(folder: Path, home: str) -> UnavailableError:
    log = (folder / f"{home}.log").read_text(encoding="utf-8", errors="replace")
    return UnavailableError("Flower's engine did not answer in time: {why}", why=log.strip()[-1000:])


def until_executor(node: int) -> None:
    """Wait until a SuperNode has started its executor."""
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if len(below([node])) > 1:
            return
        time.sleep(0.1)
    raise UnavailableError("Flower's SuperNode started no executor")
