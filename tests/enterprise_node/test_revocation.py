"""inv1, inv3: the owner's word ends every process of a job at once, however many sessions it leads, and nothing leaves."""

from __future__ import annotations

import asyncio
import os
import select
from datetime import timedelta
from typing import Any

import pytest

from federation import correspondence
from federation.observability import Observer, ask
from federation.statements import Agreement, Revocation
from federation.statements.code import CodeBundle
from federation.wire.messages import Invoked

CHILDREN = 20
BUSY = f"""
import os, signal, time
from flwr.app import Message
from flwr.clientapp import ClientApp
app = ClientApp()

@app.train()
def train(msg, context):
    for _ in range({CHILDREN}):
        if os.fork() == 0:
            os.setsid()
            signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
            while True:
                time.sleep(3600)
    while True:
        sum(range(10**8))  # busy in C
"""


def _members(namespace: int) -> list[int]:
    found = []
    for name in filter(str.isdecimal, os.listdir("/proc")):
        try:
            if os.stat(f"/proc/{name}/ns/pid").st_ino == namespace:
                found.append(int(name))
        except OSError:
            continue
    return found


async def _busy(world: Any) -> tuple[Any, Any, Any, list[int]]:
    """A step at work with all its children, and their pids."""
    world.bundle = CodeBundle({**world.bundle.files, "app/client.py": BUSY.encode()})
    agreement = world.agreement()
    plan = world.plan(agreement)
    await world.open(plan)
    step = asyncio.create_task(world.invoke(plan))
    while not step.done():
        job = world.line.jobs[plan.digest]
        if job.session is not None:
            namespace = os.stat(f"/proc/{job.session._session._started.init}/ns/pid").st_ino
            if len(processes := _members(namespace)) > CHILDREN:
                return agreement, plan, step, processes
        await asyncio.sleep(0.05)
    raise AssertionError(step.result())


def _gone(handles: list[int]) -> bool:
    watched = select.poll()
    for handle in handles:
        watched.register(handle, select.POLLIN)
    return len(watched.poll(0)) == len(handles)


async def _ends_killed(step: Any, handles: list[int], code: str) -> None:
    receipt, answer = await asyncio.wait_for(step, 30)
    assert _gone(handles), "a process outlived the OUTCOME"
    assert (receipt.outcome, receipt.code) == ("killed", code)
    assert not answer.body
    assert not Invoked.from_bytes(answer.header).reply
    for handle in handles:
        os.close(handle)


async def test_inv1_a_revocation_told_to_the_node_leaves_nobody(real: Any) -> None:
    world = real
    agreement, _, step, processes = await _busy(world)
    handles = [os.pidfd_open(process) for process in processes]
    now = world.clock()
    revocation = Revocation(
        issued=now, expires=now + timedelta(days=1), agreement=agreement.digest, by="mill", reason="test"
    )
    envelope = revocation.seal(world.keys["mill"].statement)
    correspondence.revoke(world.holdings, world.record.ledger, envelope, revocation)
    async with Observer(world.home.path, "node").serving(_Nothing(), world.line.uphold):
        status, _ = await asyncio.to_thread(ask, world.home.path, "node", "/uphold")
    assert status == 200
    assert _gone(handles), "the command is answered once nobody is left"
    await _ends_killed(step, handles, "agreement-revoked")
    assert not list(world.home.folder("sessions").iterdir())
    await world.line.close()


@pytest.mark.parametrize("called", ["digest", "id"])
async def test_inv1_processes_end_before_anything_is_written(
    real: Any, monkeypatch: pytest.MonkeyPatch, called: str
) -> None:
    """Neither ledger nor store answers: a revocation that is about to be written ends the job all the same, at once."""
    world = real
    agreement, _, step, processes = await _busy(world)
    name = agreement.digest if called == "digest" else Agreement.read(agreement).id
    handles = [os.pidfd_open(process) for process in processes]
    writes, stuck = asyncio.Event(), asyncio.Event()

    async def slow(*_: Any, **__: Any) -> Any:
        writes.set()
        await stuck.wait()
        return await settle(*given[0], **given[1])

    settle = world.record.settle
    given: tuple[Any, Any] = ((), {})

    def keep(*arguments: Any, **named: Any) -> Any:
        nonlocal given
        given = (arguments, named)
        return slow()

    monkeypatch.setattr(world.record, "settle", keep)
    async with Observer(world.home.path, "node").serving(_Nothing(), world.line.uphold, world.line.strike):
        status, _ = await asyncio.to_thread(ask, world.home.path, "node", f"/strike/revoked/{'sha256:' + '0' * 64}")
        assert status == 200
        assert not _gone(handles), "another agreement's"
        status, _ = await asyncio.to_thread(ask, world.home.path, "node", f"/strike/revoked/{name}")
        assert status == 200
        await asyncio.wait_for(writes.wait(), 10)
        assert _gone(handles), "the OUTCOME is written once nobody is left"
        assert (await asyncio.to_thread(ask, world.home.path, "node", "/strike/other/x"))[0] == 404
    stuck.set()
    await _ends_killed(step, handles, "agreement-revoked")
    await world.line.close()


async def test_inv1_the_end_of_a_job_leaves_nobody(real: Any) -> None:
    _, plan, step, processes = await _busy(real)
    handles = [os.pidfd_open(process) for process in processes]
    await real.line.close_job(plan.digest)
    assert _gone(handles)
    await _ends_killed(step, handles, "closed")
    await real.line.close()


class _Nothing:
    """A service that is not looked at."""

    registry: Any = None
    health: Any = None

    async def status(self) -> Any:
        raise NotImplementedError
