"""Requests to witnesses carried from member to member, and the coordinator's own ledger shown to the members' nodes."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable, Mapping

from coordinator.links import Links
from federation.errors import UnavailableError
from federation.home import Home
from federation.ledger import Ledger
from federation.wire import messages as m
from federation.wire.patience import ANSWER_SECONDS
from federation.wire.peer import Incoming, Outgoing, Peer
from federation.witnessing import WITNESSED_SINCE, Witnessing


class Attestation:
    """Carries requests to witnesses; believes and changes nothing in them."""

    def __init__(self, home: Home, ledger: Ledger, links: Links) -> None:
        self._home = home
        self._ledger = ledger
        self._links = links
        self._under_way: set[tuple[str, str]] = set()
        self.methods: Mapping[str, Callable[[Peer, Incoming], Awaitable[Outgoing]]] = {
            "witness.ask": self._ask,
            "witness.last": self._ask_last,
        }

    async def _ask(self, peer: Peer, message: Incoming) -> Outgoing:
        request = m.WitnessAsk.from_bytes(message.header)
        pair = (peer.member, request.witness)
        if pair in self._under_way:
            raise UnavailableError("a request of this member's to this witness is on its way", code="witness-busy")
        self._under_way.add(pair)
        try:
            return Outgoing(await self._carry(request))
        finally:
            self._under_way.discard(pair)

    async def _ask_last(self, peer: Peer, message: Incoming) -> Outgoing:
        return Outgoing(await self._carry(m.WitnessAsk.from_bytes(message.header), "witness.last"))

    async def _carry(self, request: m.WitnessAsk, method: str = "witness.add") -> bytes:
        if request.witness in self._links.online and self._links.version(request.witness) < WITNESSED_SINCE:
            raise UnavailableError(
                "{member} runs a release that witnesses nothing", code="witness-older", member=request.witness
            )
        answer = await self._links.call(request.witness, method, request.to_bytes(), timeout=ANSWER_SECONDS)
        return bytes(answer.header)

    async def run(self) -> None:
        """Show each new state of our own ledger to the members' witnesses. Goes on for ever."""

        async def ask(member: str, request: bytes) -> tuple[int, bytes]:
            wanted = m.WitnessAsk(witness=member, request=base64.b64encode(request).decode())
            answer = m.WitnessAnswer.from_bytes(await self._carry(wanted))
            return answer.status, answer.body.encode()

        async def last(member: str) -> bytes:
            origin = base64.b64encode(self._ledger.origin.encode()).decode()
            asked = m.WitnessAsk(witness=member, request=origin)
            return base64.b64decode(m.WitnessAnswer.from_bytes(await self._carry(asked, "witness.last")).body)

        clock = asyncio.get_running_loop().time
        await Witnessing(self._home, self._ledger, ask, None, clock, last).run()
