"""A result on its way to its requester: proofs carried from the nodes, and the word that it arrived, on record."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from coordinator.links import Links
from coordinator.results import ACKNOWLEDGED
from coordinator.store import CoordinatorStore, JobRow
from federation.crypto import write_private
from federation.errors import DeniedError, UsageError
from federation.home import Home, now
from federation.ledger import Ledger
from federation.statements import Envelope, JobPlan, ResultAcknowledgement, StatementError
from federation.wire import messages as m
from federation.wire.patience import ANSWER_SECONDS
from federation.wire.peer import Incoming, Outgoing, Peer


class Delivery:
    """Carries what a requester asks of nodes about its result; believes and changes nothing in it.

    Args:
        push: tells a connected member something, and does not wait for it.
    """

    def __init__(
        self,
        home: Home,
        store: CoordinatorStore,
        ledger: Ledger,
        links: Links,
        push: Callable[[str, str, bytes], None],
    ) -> None:
        self._home = home
        self._store = store
        self._ledger = ledger
        self._links = links
        self._push = push
        self._taking = asyncio.Lock()
        self.methods: Mapping[str, Callable[[Peer, Incoming], Awaitable[Outgoing]]] = {
            "receipts.prove": self._prove,
            "job.acknowledge": self._acknowledge,
        }

    async def _prove(self, peer: Peer, message: Incoming) -> Outgoing:
        request = m.ProveReceipts.from_bytes(message.header)
        row = await self._own(peer, request.job)
        plan = JobPlan.read(Envelope.from_bytes(row.envelope))
        if request.plan != row.plan_digest or all(planned.node != request.node for planned in plan.cohort):
            raise UsageError("{node} is not in this job's cohort", code="no-such-node", node=request.node[:64])
        answer = await self._links.call(request.node, "receipts.prove", request.to_bytes(), timeout=ANSWER_SECONDS)
        return Outgoing(bytes(answer.header), [answer.body])

    async def _acknowledge(self, peer: Peer, message: Incoming) -> Outgoing:
        envelopes = m.Envelopes.from_bytes(message.header).envelopes
        if len(envelopes) != 1:
            raise UsageError("an acknowledgement is one statement", code="acknowledgement")
        envelope = m.unpack(envelopes[0])
        said = ResultAcknowledgement.open(envelope, [self._home.public_key(peer.member)], now())
        row = await self._own(peer, said.job)
        if (said.requester, said.plan) != (peer.member, row.plan_digest):
            raise StatementError("an acknowledgement is by another member than the plan")
        async with self._taking:
            if await asyncio.to_thread(self._keep, envelope, said, row):
                header = m.Envelopes(envelopes=(m.pack(envelope),)).to_bytes()
                for node in sorted({one.node for one in said.nodes} & self._links.online):
                    self._push(node, "job.acknowledged", header)
        return Outgoing(m.Empty().to_bytes())

    def _keep(self, envelope: Envelope, said: ResultAcknowledgement, row: JobRow) -> bool:
        path = self._folder(row.id) / ACKNOWLEDGED
        if path.is_file() and Envelope.from_bytes(path.read_bytes()).digest == envelope.digest:
            return False
        fields = {
            "ack": envelope.to_bytes(),
            "digest": envelope.digest,
            "plan": said.plan,
            "requester": said.requester,
        }
        self._ledger.append("ack", fields)
        write_private(path, envelope.to_bytes(), replace=True)
        return True

    async def _own(self, peer: Peer, job: str) -> JobRow:
        row = await asyncio.to_thread(self._store.job, job)
        if row.requester != peer.member:
            raise DeniedError("this job is another member's", code="not-yours")
        return row

    def _folder(self, job: str) -> Path:
        return self._home.folder("jobs", job.removeprefix("urn:uuid:"))
