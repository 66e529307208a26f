"""The node as a process: one link outward, the line behind it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager

import structlog

from enterprise_node.line import Line
from enterprise_node.record import Record
from enterprise_node.recovery import close_open_steps
from enterprise_node.session import remove_tree
from enterprise_node.store import NodeStore
from federation.errors import UsageError
from federation.holdings import Holdings, open_engine
from federation.home import Home, now
from federation.statements import Envelope, Invocation
from federation.wire.dial import keep_attached
from federation.wire.member import connect, greet, learn, read_mail
from federation.wire.messages import Empty, Envelopes, Invoke, JobClose, JobOpen, Publish, pack, unpack
from federation.wire.peer import Incoming, Outgoing, Peer
from sandbox import Runtime, run_canary

log = structlog.get_logger("keyong.node")


class NodeService:
    """Serves one company's datasets.

    Start-up order matters: open steps of a crash are closed and leftovers removed, the canary must find the sandbox
    tight, and only then is the link dialled.
    """

    def __init__(self, home: Home, runtime: Runtime) -> None:
        self._home = home
        self._runtime = runtime
        engine = open_engine(home.path / "store.db")
        self._store = NodeStore(engine)
        self._holdings = Holdings(engine)
        self._record = Record(home.open_ledger())
        self.line = Line(home, self._record, self._store, self._holdings, runtime, now)
        self._peer: Peer | None = None
        self._mail = asyncio.Lock()
        self._reading: set[asyncio.Task[None]] = set()
        self._methods: dict[str, Callable[[Incoming], Awaitable[Outgoing]]] = {
            "job.open": self._job_open,
            "job.invoke": self._job_invoke,
            "job.close": self._job_close,
            "mail.push": self._mail_push,
            "roster.push": self._roster_push,
        }

    async def run(self, on_state: Callable[[str], None]) -> None:
        """Serve until cancelled. ``on_state`` hears ``ready`` once, then ``attached`` or ``detached: why``."""
        closed = await close_open_steps(
            self._record, self._home.key("statement"), self._home.identity.member, now()
        )
        if closed:
            log.warning("closed-open-intents", count=closed)
        for leftover in self._home.folder("sessions").iterdir():
            remove_tree(leftover)
        await asyncio.to_thread(run_canary)
        await self._record.write("node", {"event": "started", "runtime": self._runtime.digest})
        on_state("ready")
        try:
            await keep_attached(
                lambda: self._connect(),
                lambda peer: self._serve(peer, on_state),
                on_down=lambda error: on_state(f"detached: {error}"),
                jitter=random.Random(),
            )
        finally:
            await self.line.close()
            self._record.ledger.close()

    def _connect(self) -> AbstractAsyncContextManager[Peer]:
        return connect(self._home, self._handle)

    async def _serve(self, peer: Peer, on_state: Callable[[str], None]) -> None:
        await greet(peer, self._home, self._record.ledger, serves="node")
        await self.publish(peer)
        await self._read_mail(peer)
        self._peer = peer
        on_state("attached")
        try:
            await self._watch(peer)
        finally:
            self._peer = None

    async def _watch(self, peer: Peer) -> None:
        # What an owner's command changed in the store (a dataset, an agreement) is noticed here.
        stamp = self._stamp()
        while True:
            done = await peer.ended(1.0)
            if done:
                return
            if (current := self._stamp()) != stamp:
                stamp = current
                await self.publish(peer)
                await self._end_revoked()

    def _stamp(self) -> tuple[object, ...]:
        datasets = tuple((row.id, row.data_version, row.description) for row in self._store.datasets())
        return (datasets, tuple((held.digest, held.state) for held in self._holdings.list()))

    async def publish(self, peer: Peer) -> None:
        """Tell the coordinator what this node offers."""
        entries = tuple(pack(Envelope.from_bytes(row.description)) for row in self._store.datasets())
        await peer.call("catalog.publish", Publish(datasets=entries, runtime=self._runtime.digest).to_bytes(), timeout=30)

    async def _read_mail(self, peer: Peer) -> None:
        async with self._mail:
            await read_mail(peer, self._home, self._holdings, self._record.ledger)
        await self._end_revoked()

    async def _end_revoked(self) -> None:
        for held in self._holdings.list("revoked"):
            await self.line.revoke(held.digest)

    async def _handle(self, peer: Peer, message: Incoming) -> Outgoing:
        method = self._methods.get(message.method)
        if method is None:
            raise UsageError("this node does not know the method {method}", code="no-such-method", method=message.method[:40])
        return await method(message)

    async def _job_open(self, message: Incoming) -> Outgoing:
        request = JobOpen.from_bytes(message.header)
        opened = await self.line.open_job(unpack(request.plan), message.body, request.node_number)
        return Outgoing(opened.to_bytes())

    async def _job_invoke(self, message: Incoming) -> Outgoing:
        request = Invoke.from_bytes(message.header)
        envelope = unpack(request.invocation)
        plan = Invocation.read(envelope).plan
        return await self.line.invoke(plan, envelope, request.content.encode(), message.body)

    async def _job_close(self, message: Incoming) -> Outgoing:
        await self.line.close_job(JobClose.from_bytes(message.header).plan)
        return Outgoing(Empty().to_bytes())

    async def _mail_push(self, message: Incoming) -> Outgoing:
        if self._peer is not None:
            task = asyncio.create_task(self._read_mail(self._peer))
            self._reading.add(task)
            task.add_done_callback(self._reading.discard)
        return Outgoing(Empty().to_bytes())

    async def _roster_push(self, message: Incoming) -> Outgoing:
        await asyncio.to_thread(learn, self._home, self._record.ledger, Envelopes.from_bytes(message.header).envelopes)
        return Outgoing(Empty().to_bytes())
