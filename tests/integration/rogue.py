"""A coordinator in bad hands: it holds the real one's TLS key and address, and says to nodes what the test wants."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from federation.crypto import certificate_fingerprint
from federation.errors import UsageError
from federation.home import Home, now
from federation.statements import Envelope, UnknownMemberError, instant_text
from federation.wire import messages as m
from federation.wire.listen import Listener
from federation.wire.peer import Incoming, Outgoing, Peer
from tests.integration.consortium import Consortium
from tests.integration.parties import until


class Rogue:
    """Listens at the coordinator's address.

    Args:
        ahead: how much its clock is wrong.
        rosters: what it tells members who greet.
    """

    def __init__(self, home: Home, spool: Path, *, ahead: timedelta, rosters: Sequence[Envelope]) -> None:
        self.home = home
        self.nodes: dict[str, Peer] = {}
        self._ahead = ahead
        self._rosters = rosters
        self._spool = spool
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._listener: Listener | None = None

    def start(self) -> None:
        """Listen."""
        self._thread.start()
        self._do(self._start())

    def stop(self) -> None:
        """Give the address back."""
        assert self._listener is not None
        self._do(self._listener.stop(0.2))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def call(self, member: str, method: str, header: m.Message, body: Sequence[bytes] = ()) -> Incoming:
        """Say something to a node; its errors come back as they are."""
        peer = until(lambda: self.nodes.get(member), f"{member} did not come", 30)
        return self._do(peer.call(method, header.to_bytes(), body, timeout=30))

    def _do(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    async def _start(self) -> None:
        members = self.home.history.latest.members

        def who(fingerprint: str) -> str:
            for member in members:
                if certificate_fingerprint(member.tls_certificate.encode()) == fingerprint:
                    return member.id
            raise UnknownMemberError("a stranger")

        self._listener = Listener(
            self.home.history.latest.coordinator.address,
            self.home.tls,
            trusted=lambda: tuple(member.tls_certificate for member in members),
            who=who,
            handler=self._handle,
            on_link=lambda peer, came: None,
            body_limit=2**32,
            spool=self._spool,
        )
        await self._listener.start()

    async def _handle(self, peer: Peer, message: Incoming) -> Outgoing:
        answer: m.Message
        match message.method:
            case "hello":
                hello = m.Hello.from_bytes(message.header)
                answer = m.Welcome(
                    version=hello.highest,
                    software="rogue",
                    rosters=tuple(m.pack(envelope) for envelope in self._rosters),
                    clock=instant_text(now() + self._ahead),
                )
            case "catalog.publish":
                self.nodes[peer.member] = peer
                answer = m.Empty()
            case "mail.fetch":
                answer = m.MailBox(items=())
            case "roster.get":
                answer = m.Envelopes()
            case _:
                raise UsageError("not answered", code="no-such-method")
        return Outgoing(answer.to_bytes())


@contextmanager
def in_place_of_the_coordinator(
    consortium: Consortium, spool: Path, *, ahead: timedelta = timedelta(0), rosters: Sequence[Envelope] = ()
) -> Iterator[Rogue]:
    """Stop the coordinator, let a rogue stand in its place, and afterwards bring all back as it was."""
    assert consortium.institute.service is not None
    marks = {mill.name: len(mill.service.events) for mill in consortium.mills if mill.service}
    consortium.institute.service.stop()
    rogue = Rogue(Home(consortium.institute.home), spool, ahead=ahead, rosters=rosters)
    rogue.start()
    try:
        yield rogue
    finally:
        rogue.stop()
        consortium.serve_coordinator()
        for mill in consortium.mills:
            assert mill.service is not None
            consortium.attached_again(mill, marks[mill.name])
