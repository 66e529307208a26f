"""Bounds that stand between a plan and this machine: memory, and the columns a snapshot may hold."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as parquet
import pytest

import sandbox
from enterprise_node import admission, stages
from enterprise_node.session import JobFailedError, JobSession
from federation.jobs import Content, describe, encode_frame
from federation.statements import JobPlan
from federation.statements.code import CodeBundle
from federation.wire.session_channel import SessionChannel


async def test_a_plan_that_wants_more_memory_than_there_is_is_refused(world: Any) -> None:
    plan = world.plan(world.agreement(), memory_bytes=admission.memory_here() + 1)
    opened = await world.open(plan)
    assert not opened.permitted and opened.code == "memory-unavailable"


async def test_without_that_bound_it_would_be_permitted(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = world.plan(world.agreement(), memory_bytes=admission.memory_here() + 1)
    monkeypatch.setattr(admission, "memory_here", lambda: 2**50)
    assert (await world.open(plan)).permitted


async def _columns(world: Any) -> set[str]:
    """The columns of the snapshot that a plan's session reads, where its agreement grants one of two."""
    plan = world.plan(world.agreement(columns=["x"]))
    assert (await world.open(plan)).permitted
    seen: set[str] = set()
    good = world.reply

    async def look() -> Any:
        (file,) = world.home.folder("sessions").rglob("data.parquet")
        seen.update(parquet.read_schema(file).names)
        return await good()

    world.reply = look
    assert (await world.invoke(plan))[0].outcome == "ok"
    return seen


async def test_inv3_a_snapshot_holds_the_granted_columns_alone(world: Any) -> None:
    assert await _columns(world) == {"x"}


async def test_inv3_without_that_limit_it_would_hold_them_all(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "columns_for", lambda admitted, action, every: every)
    assert await _columns(world) == {"x", "y"}


class _Job:
    """As much of a sandbox session as a channel needs: a reply of a megabyte and more waits in it."""

    def __init__(self) -> None:
        self.channel, self._inside = socket.socketpair()
        header, buffers = describe(Content(arrays={"arrays": {"0": np.zeros(2**18 + 2**10, dtype=np.float32)}}))
        reply = encode_frame({"op": "reply", "content": header}, buffers)
        self._writing = threading.Thread(target=self._write, args=(b"".join(bytes(part) for part in reply),))
        self._writing.start()

    def _write(self, reply: bytes) -> None:
        with suppress(OSError):  # whoever reads has had enough
            self._inside.sendall(reply)

    def kill(self) -> None:
        self.channel.close()
        self._writing.join()
        self._inside.close()


async def _replied(world: Any, tmp_path: Path) -> Content:
    """What the node takes of a reply of a megabyte and more, where two floats were sent."""
    job = _Job()
    channel = SessionChannel(job.channel, body_limit=2**30, spool=tmp_path)
    request = SimpleNamespace(logs=tmp_path, snapshot=SimpleNamespace(rows=100), worker=None)
    session = JobSession(tmp_path, job, channel, request)  # type: ignore[arg-type]
    plan = world.plan(world.agreement())
    assert (await world.open(plan)).permitted
    sent = Content(arrays={"arrays": {"0": np.zeros(2, dtype=np.float32)}})
    output = JobPlan.read(plan).outputs.of("train")
    try:
        return await session.call("train", {}, (), 20.0, stages.most_bytes_of(sent, output))
    finally:
        await session.kill()


async def test_a_reply_larger_than_any_of_its_stage_is_not_taken(
    world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(JobFailedError) as refused:
        await _replied(world, tmp_path)
    assert refused.value.code == "output-too-large"
    monkeypatch.setattr(stages, "most_bytes_of", lambda sent, output: 2**30)
    reply = await _replied(world, tmp_path)
    assert reply.arrays["arrays"]["0"].size > 2**18, "without the limit the large body is taken"


BOMB = """
import os, time
from flwr.clientapp import ClientApp
app = ClientApp()

@app.train()
def train(message, context):
    while True:
        try:
            if os.fork() == 0:
                time.sleep(99)
        except OSError:
            time.sleep(0.01)
"""


async def test_a_limit_is_named_also_where_the_last_process_takes_its_time_to_end(
    real: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a busy machine a bomb of processes is gone only after the channel is: that is not a job that no longer listens."""

    def slow(session: Any, timeout: float | None = None) -> None:
        raise TimeoutError

    monkeypatch.setattr(sandbox.Session, "wait", slow)
    real.bundle = CodeBundle({**real.bundle.files, "app/client.py": BOMB.encode()})
    plan = real.plan(real.agreement())
    assert (await real.open(plan)).permitted
    receipt, _ = await real.invoke(plan)
    assert (receipt.outcome, receipt.code) == ("failed", "limit-reached")
    await real.line.close()
