"""The requester's word that a result reached it, kept in the ledger of each node that the result rests on."""

from __future__ import annotations

import asyncio
from typing import Final

from enterprise_node.record import Record
from federation.errors import DeniedError
from federation.home import Home, now
from federation.statements import Envelope, ResultAcknowledgement, StatementError
from federation.wire.messages import Empty, Envelopes, unpack
from federation.wire.peer import Incoming, Outgoing, Peer

KEPT: Final = 8
"""Of one plan: a result may be fetched again when more vouch for it, but nobody fills a ledger with its own word."""


class Acknowledgements:
    """Takes acknowledgements that the coordinator hands on; each is the requester's own, of a plan that ran here."""

    def __init__(self, home: Home, record: Record) -> None:
        self._home = home
        self._record = record

    async def take(self, peer: Peer, message: Incoming) -> Outgoing:
        """Put what arrived on record; the same one again changes nothing."""
        for text in Envelopes.from_bytes(message.header).envelopes[:1]:
            await asyncio.to_thread(self._take, unpack(text))
        return Outgoing(Empty().to_bytes())

    def _take(self, envelope: Envelope) -> None:
        claimed = ResultAcknowledgement.read(envelope)
        said = ResultAcknowledgement.open(envelope, [self._home.public_key(claimed.requester)], now())
        ledger = self._record.ledger
        last = self._record.last_step(said.plan)
        if last is None:
            raise StatementError("an acknowledgement names a plan that has no ended step here")
        intent = ledger.entry(last.entry).ref
        if intent is None or ledger.fields(intent).get("requester", said.requester) != said.requester:
            raise StatementError("an acknowledgement is by another member than the plan")
        before = [ledger.fields(entry.index) for entry in ledger.find(kind="ack", ref=last.entry)]
        if any(one.get("digest") == envelope.digest for one in before):
            return
        if len(before) >= KEPT:
            raise DeniedError("{count} acknowledgements of this plan are on record", code="acknowledged", count=KEPT)
        fields = {
            "ack": envelope.to_bytes(),
            "digest": envelope.digest,
            "plan": said.plan,
            "requester": said.requester,
        }
        ledger.append("ack", fields, ref=last.entry)
