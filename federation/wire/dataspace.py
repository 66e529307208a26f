"""The Dataspace Protocol over a member's link: what the gateway was asked for this member is answered here."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence

import structlog

from federation.dataspace import Connector, DataspaceStore, HttpsCourier, Party, Reactions, Request
from federation.errors import KeyongError, UsageError
from federation.holdings import Holdings
from federation.home import Home
from federation.ledger import Ledger
from federation.statements import DatasetDescription
from federation.wire.faults import RemoteError
from federation.wire.messages import DataspaceAsk, DataspaceGateway, DataspaceReply, Empty
from federation.wire.patience import ANSWER_SECONDS
from federation.wire.peer import Incoming, Outgoing, Peer

log = structlog.get_logger("keyong.dataspace")

AT_ONCE = 3
"""Requests answered at once: one may wait for an answer to ours, and a node's threads have other work."""
REACT_SECONDS = 1.0
"""How soon a step that is due by itself is taken."""


class DataspaceDesk:
    """Answers the protocol over a link, and takes the steps that are due.

    Args:
        uphold: ends jobs whose agreement was interrupted or is over.
        datasets: what the catalog may list; a party without data has none.
    """

    def __init__(
        self,
        home: Home,
        holdings: Holdings,
        ledger: Ledger,
        store: DataspaceStore,
        uphold: Callable[[], Awaitable[object]],
        datasets: Callable[[], Sequence[DatasetDescription]],
    ) -> None:
        self._uphold = uphold
        self._changed = False
        self._due = asyncio.Event()
        self._room = asyncio.Semaphore(AT_ONCE)
        self._courier = HttpsCourier(home)
        party = Party(home, holdings, ledger, store, self._courier, datasets=datasets, changed=self._note_change)
        self._connector, self._reactions = Connector(party), Reactions(party)

    def _note_change(self) -> None:
        self._changed = True

    async def answer(self, peer: Peer, message: Incoming) -> Outgoing:
        """Answer one request that the gateway carried."""
        ask = DataspaceAsk.from_bytes(message.header)
        request = Request(ask.method, ask.path, ask.token, bytes(message.body))
        async with self._room:
            response = await asyncio.to_thread(self._connector.answer, request)
        await self._upheld()
        self._due.set()
        header = DataspaceReply(status=response.status, token=response.token).to_bytes()
        return Outgoing(header, [response.body])

    async def run(self, peer: Peer) -> None:
        """While a link stands: learn where the gateway is, and take what is due. Goes on for ever."""
        try:
            answer = await peer.call("dataspace.gateway", Empty().to_bytes(), timeout=ANSWER_SECONDS)
        except (RemoteError, UsageError) as error:  # an older coordinator knows nothing of it, and that is no fault
            log.info("dataspace-not-known", code=error.code)
            await peer.ended()
            return
        url = DataspaceGateway.from_bytes(answer.header).url
        while True:
            try:
                if url:
                    self._courier.learn(url)
                    await asyncio.to_thread(self._reactions.run)
            except KeyongError as error:
                log.warning("dataspace-put-off", code=error.code)
            except Exception as error:  # a fault here is not to cost the node its link
                log.error("dataspace-failed", error=type(error).__name__, exc_info=True)
            await self._upheld()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REACT_SECONDS):
                    await self._due.wait()
            self._due.clear()

    async def _upheld(self) -> None:
        if self._changed:
            self._changed = False
            await self._uphold()
