"""The process that makes snapshots: same result, typed errors, no network, no environment, and it ends with its caller."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import structlog

from enterprise_node import snapshot_process
from enterprise_node.datasets import SourceDescription, inspect_source
from enterprise_node.materialise import Grant, Snapshot, materialise_apart, materialise_here
from enterprise_node.rules import Kept, parse_rules
from enterprise_node.source_file import DatasetChangedError
from enterprise_node.sources import SourceSlowError
from federation.errors import UnavailableError

log = structlog.get_logger()


@pytest.fixture
def source(tmp_path: Path) -> SourceDescription:
    (tmp_path / "a.csv").write_text("id,coil\n3,c1\n1,c2\n")
    return inspect_source(tmp_path / "a.csv")


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[Grant]:
    """A source that keeps its reader waiting."""
    with closing(sqlite3.connect(tmp_path / "a.sqlite", isolation_level=None)) as writer:
        writer.execute("CREATE TABLE t AS SELECT 1 AS a")
        found = inspect_source(tmp_path / "a.sqlite", table="t")
        writer.execute("BEGIN EXCLUSIVE")
        yield Grant(found.place, found.reading, found.fingerprint, found.columns)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[asyncio.subprocess.Process]:
    """Every process that is started, with how."""
    found: list[asyncio.subprocess.Process] = []
    start = asyncio.create_subprocess_exec

    async def watched(*argv: Any, **options: Any) -> asyncio.subprocess.Process:
        assert options["env"] == {} and "-I" in argv
        found.append(await start(*argv, **options))
        return found[-1]

    monkeypatch.setattr(asyncio, "create_subprocess_exec", watched)
    return found


async def apart(grant: Grant, folder: Path, seconds: float = 60) -> Snapshot:
    return await materialise_apart(grant, folder, seconds=seconds, log=log)


async def test_the_snapshot_is_the_same_and_the_process_is_gone(
    source: SourceDescription, tmp_path: Path, started: list[asyncio.subprocess.Process]
) -> None:
    (tmp_path / "home" / "keys").mkdir(parents=True, mode=0o700)
    kept = Kept(tmp_path / "home", "a")
    kept.ensure_key()
    rules = parse_rules("[columns.coil]\nrule = 'pseudonym'")
    grant = Grant(source.place, source.reading, source.fingerprint, source.columns, rules, kept, "sha256:1")
    one, other = await apart(grant, tmp_path / "1"), materialise_here(grant, tmp_path / "2")
    assert (one.digest, one.rows, one.rules) == (other.digest, 2, rules.digest)
    assert [process.returncode for process in started] == [0]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".keyong")]


async def test_its_errors_come_back_as_they_are_and_leave_nothing(source: SourceDescription, tmp_path: Path) -> None:
    source.path.write_text("id,coil\n3,c1\n1,c3\n")
    grant = Grant(source.place, source.reading, source.fingerprint, source.columns)
    with pytest.raises(DatasetChangedError) as refused:
        await apart(grant, tmp_path / "s")
    assert refused.value.code == "dataset-changed" and refused.value.exit_code == 3 and refused.value.hint
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


async def test_whoever_is_cancelled_leaves_no_process_and_no_file(
    locked: Grant, tmp_path: Path, started: list[asyncio.subprocess.Process]
) -> None:
    making = asyncio.create_task(apart(locked, tmp_path / "s"))
    while not started:
        await asyncio.sleep(0.01)
    making.cancel()
    with pytest.raises(asyncio.CancelledError):
        await making
    assert started[0].returncode == -signal.SIGKILL
    assert [path.name for path in tmp_path.iterdir()] == ["a.sqlite"]


async def test_a_source_that_gives_nothing_in_time(locked: Grant, tmp_path: Path) -> None:
    with pytest.raises(SourceSlowError):
        await apart(locked, tmp_path / "s", seconds=0.2)
    assert not (tmp_path / "s").exists()


async def test_a_process_that_dies_is_told_as_such(
    locked: Grant, tmp_path: Path, started: list[asyncio.subprocess.Process]
) -> None:
    making = asyncio.create_task(apart(locked, tmp_path / "s"))
    while not started:
        await asyncio.sleep(0.01)
    started[0].kill()
    with pytest.raises(UnavailableError) as refused:
        await making
    assert refused.value.code == "resources" and not (tmp_path / "s").exists()


async def test_no_file_grows_beyond_its_bound(
    source: SourceDescription, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grant = Grant(source.place, source.reading, source.fingerprint, source.columns)
    monkeypatch.setattr(snapshot_process, "MAX_FILE_BYTES", 100)
    with pytest.raises(UnavailableError) as refused:
        await apart(grant, tmp_path / "s")
    assert refused.value.code == "resources" and not (tmp_path / "s").exists()
    monkeypatch.undo()
    assert (await apart(grant, tmp_path / "s")).rows == 2


def test_it_ends_with_its_input(locked: Grant, tmp_path: Path) -> None:
    """The node's end closes the pipe, however it came."""
    (tmp_path / "s").mkdir()
    order = locked.order(tmp_path / "s", tmp_path)
    start = {"path": [os.path.abspath(entry) for entry in sys.path], "file_bytes": 1 << 20, "order": order.document()}
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", snapshot_process._BOOT],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={},
    )  # fmt: skip
    assert process.stdin is not None
    process.stdin.write(json.dumps(start).encode() + b"\n")
    process.stdin.close()
    assert process.wait(60) == 1


PROBE = """
import socket, sys, threading
sys.path[:] = {path!r}
if {give_up}:
    from enterprise_node._offline import give_up_network
    give_up_network()
found = []
def probe():
    for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
        try:
            socket.socket(family).close()
            found.append("open")
        except PermissionError:
            found.append("shut")
probe()
thread = threading.Thread(target=probe)
thread.start()
thread.join()
print(*sorted(set(found)))
"""


@pytest.mark.parametrize(("give_up", "answer"), [(True, "shut"), (False, "open")])
def test_it_gives_up_the_network(give_up: bool, answer: str) -> None:
    probe = PROBE.format(path=[os.path.abspath(entry) for entry in sys.path], give_up=give_up)
    done = subprocess.run([sys.executable, "-I", "-S", "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [answer]
