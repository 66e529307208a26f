"""The node as a process: it attaches, answers, and puts its house in order when it is stopped."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from enterprise_node import broadcast as broadcast_module
from enterprise_node import service as service_module
from enterprise_node.service import NodeService
from federation import correspondence
from federation.crypto import certificate_fingerprint
from federation.errors import KeyongError, UnavailableError
from federation.home import Home
from federation.jobs.codec import body_digest, nested_digest
from federation.ledger import verify_ledger
from federation.statements import Revocation, StatementError, instant_text
from federation.wire import messages as m
from federation.wire.listen import Listener
from federation.wire.peer import Incoming, Outgoing, Peer
from sandbox import SandboxError, Tier, canary
from sandbox._identity import Identity
from sandbox.session import Session

ASSIGNED = 7
"""The number under which the server part knows the node."""


class Coordinator:
    """As much of one as a node talks to, over the real wire."""

    def __init__(self, world: Any) -> None:
        self.world = world
        self.node: asyncio.Future[Peer] = asyncio.get_running_loop().create_future()
        self.published: asyncio.Queue[m.Publish] = asyncio.Queue()
        self.listener: Listener | None = None

    async def start(self) -> None:
        """Listen where the roster says."""
        world = self.world
        certificate = world.keys["mill"].tls.certificate_pem.decode()
        self.listener = Listener(
            "127.0.0.1:0",
            world.keys["inst"].tls,
            trusted=lambda: (certificate,),
            who=lambda fingerprint: {certificate_fingerprint(certificate.encode()): "mill"}[fingerprint],
            handler=self.handle,
            on_link=lambda peer, came: None,
            body_limit=2**30,
            spool=world.base,
        )
        await self.listener.start()
        members = world.home.history.latest.model_dump()["members"]
        for one in members:
            if one["id"] == "inst":
                one["address"] = f"127.0.0.1:{self.listener.port}"
        world.learn(members=members)

    async def handle(self, peer: Peer, message: Incoming) -> Outgoing:
        """Greet, take what is published, hold no mail."""
        match message.method:
            case "hello":
                welcome = m.Welcome(version=1, software="test", rosters=(), clock=instant_text(self.world.clock()))
                return Outgoing(welcome.to_bytes())
            case "catalog.publish":
                self.published.put_nowait(m.Publish.from_bytes(message.header))
                if not self.node.done():
                    self.node.set_result(peer)
                return Outgoing(m.Empty().to_bytes())
            case "mail.fetch":
                return Outgoing(m.MailBox(items=()).to_bytes())
        raise KeyongError("not here")


@pytest.fixture
async def serving(world: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(service_module, "prove_tier", lambda floor, **_: Tier.T2)  # tests/sandbox runs it
    monkeypatch.setattr(service_module, "TEND_SECONDS", 0.05)
    coordinator = Coordinator(world)
    await coordinator.start()
    leftover = world.home.folder("sessions", "left")
    (leftover / "data.parquet").write_bytes(b"rows")
    roots = world.base / "roots"  # a T1 session's, from before this node had T2
    (roots / "1879048192" / "data").mkdir(parents=True)
    monkeypatch.setattr("sandbox._own_uid.ROOTS", roots)
    monkeypatch.setattr("sandbox._own_uid.hold_if_free", lambda uid: Identity(uid, -1))
    node = NodeService(world.home, world.runtime)
    states: list[str] = []
    running = asyncio.create_task(node.run(states.append))
    async with asyncio.timeout(60):
        peer = await coordinator.node
    assert states[0] == "ready" and not leftover.exists()
    assert os.geteuid() != 0 or not list(roots.iterdir())
    yield coordinator, peer, running
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert coordinator.listener is not None
    await coordinator.listener.stop(0.1)


async def opened(world: Any, peer: Peer) -> Any:
    plan = world.plan(world.agreement())
    header = m.JobOpen(plan=m.pack(plan), node_number=ASSIGNED).to_bytes()
    answer = await peer.call("job.open", header, [world.bundle.to_bytes()], timeout=10)
    assert m.JobOpened.from_bytes(answer.header).permitted
    return plan


async def invoked(world: Any, peer: Peer, plan: Any, number: int = 1) -> Incoming:
    envelope, content, body = world.step(plan, number)
    header = m.Invoke(invocation=m.pack(envelope), content=content.decode()).to_bytes()
    return await peer.call("job.invoke", header, [body], timeout=10)


async def test_a_step_crosses_the_link_and_comes_back_with_its_receipt(world: Any, serving: Any) -> None:
    _, peer, _ = serving
    plan = await opened(world, peer)
    answer = await invoked(world, peer, plan)
    assert world.receipt(Outgoing(answer.header)).outcome == "ok" and answer.body


async def test_inv5_the_node_id_that_job_code_sees_is_drawn_by_the_node(world: Any, serving: Any) -> None:
    _, peer, _ = serving
    await invoked(world, peer, await opened(world, peer))
    assert world.sessions[0].request.node_number != ASSIGNED


async def named(world: Any, peer: Peer, plan: Any, number: int, *, send: bool, lie: bool = False) -> Incoming:
    """One step as protocol 2 has it: the body by its digest, and sent or not."""
    _, content, body = world.step(plan, number)
    digest = body_digest([body])
    envelope, _, _ = world.step(plan, number, content=nested_digest(content, digest))
    header = m.Invoke(invocation=m.pack(envelope), content=content.decode(), body=digest, withheld=not send)
    changed = memoryview(b"\1" * len(body)) if lie else body
    return await peer.call("job.invoke", header.to_bytes(), [changed] if send else [], timeout=10)


async def test_a_body_that_the_job_holds_need_not_be_sent_again(world: Any, serving: Any) -> None:
    _, peer, _ = serving
    plan = await opened(world, peer)
    with pytest.raises(UnavailableError) as missing:
        await named(world, peer, plan, 1, send=False)
    assert missing.value.code == "body-missing"
    first = world.receipt(Outgoing((await named(world, peer, plan, 1, send=True)).header))
    again = world.receipt(Outgoing((await named(world, peer, plan, 2, send=False)).header))
    assert (first.outcome, again.outcome) == ("ok", "ok") and first.input == again.input


async def test_a_body_is_named_by_what_it_is_not_by_what_is_said_of_it(
    world: Any, serving: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, peer, _ = serving
    plan = await opened(world, peer)
    receipt = world.receipt(Outgoing((await named(world, peer, plan, 1, send=True, lie=True)).header))
    assert (receipt.outcome, receipt.code) == ("denied", "content-mismatch")
    with pytest.raises(UnavailableError):  # nor is another body held under that name
        await named(world, peer, plan, 2, send=False)
    monkeypatch.setattr(broadcast_module, "body_digest", lambda _: body_digest([world.step(plan)[2]]))
    receipt = world.receipt(Outgoing((await named(world, peer, plan, 2, send=True, lie=True)).header))
    assert receipt.outcome == "ok", "without the digest taken here another body passes"


async def test_an_owners_revocation_by_another_process_ends_the_running_step(world: Any, serving: Any) -> None:
    _, peer, _ = serving
    plan = await opened(world, peer)
    started = asyncio.Event()

    async def forever() -> Any:
        started.set()
        await asyncio.Event().wait()

    world.reply = forever
    step = asyncio.create_task(invoked(world, peer, plan))
    await started.wait()
    (held,) = world.holdings.list("in-force")
    world.holdings.move(held.digest, "revoked")  # what the command does, in the same store
    receipt = world.receipt(Outgoing((await step).header))
    assert (receipt.outcome, receipt.code) == ("killed", "agreement-revoked")


async def test_a_changed_dataset_is_published_without_a_restart(world: Any, serving: Any) -> None:
    coordinator, _, _ = serving
    assert len((await coordinator.published.get()).datasets) == 1
    world.store.remove_dataset("passes")
    async with asyncio.timeout(60):
        assert (await coordinator.published.get()).datasets == ()


async def test_malformed_calls_are_refused_and_the_node_serves_on(world: Any, serving: Any) -> None:
    _, peer, running = serving
    for method in ("job.open", "job.invoke", "job.close", "roster.push", "no.such", ""):
        with pytest.raises(KeyongError):
            await peer.call(method, b"\xff{", timeout=10)
    assert not running.done()
    await opened(world, peer)


async def test_a_stop_settles_what_runs_removes_what_was_laid_out_and_closes_the_ledger(
    world: Any, serving: Any
) -> None:
    _, peer, running = serving
    plan = await opened(world, peer)
    started = asyncio.Event()

    async def forever() -> Any:
        started.set()
        await asyncio.Event().wait()

    world.reply = forever
    step = asyncio.create_task(invoked(world, peer, plan))
    await started.wait()
    running.cancel()
    async with asyncio.timeout(60):
        await asyncio.gather(running, step, return_exceptions=True)
    assert [entry["outcome"] for entry in world.entries("outcome")] == ["killed"]
    assert [entry["event"] for entry in world.entries("node")] == ["started", "stopped"]
    assert not list(Path(world.home.folder("sessions")).rglob("data*"))
    verdict = verify_ledger(world.home.path / "ledger", world.record.ledger.vkey)
    assert verdict.completeness == "complete"


@pytest.fixture
def revived(world: Any) -> Any:
    """An agreement whose revocation is on record, in a store that has gone back to a copy from before."""
    agreement, at = world.agreement(), world.clock()
    revocation = Revocation(issued=at, expires=at + timedelta(days=1), agreement=agreement.digest, by="mill")
    correspondence.revoke(
        world.holdings, world.record.ledger, revocation.seal(world.keys["mill"].statement), revocation
    )
    with contextlib.closing(sqlite3.connect(world.home.path / "store.db")) as store, store:
        store.execute("UPDATE holding SET state = 'in-force'")
    assert world.holdings.state(agreement.digest) == "in-force"
    return agreement


async def test_what_the_ledger_says_is_revoked_is_so_whatever_the_store_says(
    world: Any, revived: Any, serving: Any
) -> None:
    assert world.holdings.state(revived.digest) == "revoked"
    with contextlib.closing(sqlite3.connect(world.home.path / "store.db")) as store, store:
        store.execute("DELETE FROM holding")
    with pytest.raises(StatementError, match="on record"):
        correspondence.take(world.home, world.holdings, world.record.ledger, revived, world.clock())


async def test_inv8_where_an_act_of_the_canary_succeeds_the_node_serves_nobody(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The canary is real, and so is the hole: its session lacks Landlock. No weaker tier is taken for it, either."""
    holed = type("Holed", (Session,), {"_without": frozenset({"landlock", "canary"})})
    monkeypatch.setattr(canary, "try_acts", partial(canary.try_acts, opener=holed))
    monkeypatch.setattr(Home, "tier_floor", property(lambda home: "T1"))
    coordinator = Coordinator(world)
    await coordinator.start()
    states: list[str] = []
    try:
        with pytest.raises(SandboxError, match="read /proc/loadavg") as caught:
            await NodeService(world.home, world.runtime).run(states.append)
        assert caught.value.code == "canary"
        assert not states and not coordinator.node.done() and coordinator.published.empty()
    finally:
        assert coordinator.listener is not None
        await coordinator.listener.stop(0.1)
