"""systemd's notifications: sent where they are wanted, and nowhere else."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from keyong.cli._supervisor import keep_watched, notify, watchdog_seconds


@pytest.fixture(params=["path", "abstract"])
def supervisor(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
        name = f"@keyong-test-{os.getpid()}" if request.param == "abstract" else str(tmp_path / "notify")
        one.bind("\0" + name[1:] if name[0] == "@" else name)
        one.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        yield one


def test_states_arrive_as_one_datagram(supervisor: socket.socket) -> None:
    notify("READY=1", "STATUS=ready")
    assert supervisor.recv(100) == b"READY=1\nSTATUS=ready"


def test_without_a_supervisor_nothing_happens(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for value in ("", "relative", str(tmp_path / "gone")):
        monkeypatch.setenv("NOTIFY_SOCKET", value)
        notify("READY=1")


async def test_signs_of_life_come_from_the_loop(supervisor: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "30000")
    watched = asyncio.create_task(keep_watched())
    for _ in range(2):
        assert await asyncio.to_thread(supervisor.recv, 100) == b"WATCHDOG=1"
    watched.cancel()


@pytest.mark.parametrize(
    ("usec", "pid", "seconds"),
    [("30000000", "", 30.0), ("30000000", "1", 0.0), ("", "", 0.0), ("x", "", 0.0)],
)
def test_the_watchdog_is_meant_for_this_process(
    usec: str, pid: str, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", usec)
    monkeypatch.setenv("WATCHDOG_PID", pid or str(os.getpid()))
    assert watchdog_seconds() == seconds
