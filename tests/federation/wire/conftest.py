"""Two ends of a link: in memory, and over loopback with mutual TLS."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from federation.crypto import TlsIdentity, certificate_fingerprint
from federation.errors import VerificationError
from federation.wire.dial import Address, dial, refuse_all
from federation.wire.listen import Listener
from federation.wire.peer import Incoming, Outgoing, Peer


async def echo(peer: Peer, message: Incoming) -> Outgoing:
    """Answer with what was asked."""
    return Outgoing(message.header, [message.body])


class Pipe:
    """Frames from one end to the other; holds as many as it is told, like flow control."""

    def __init__(self, room: int = 4) -> None:
        self.queue: asyncio.Queue[Any] = asyncio.Queue(room)
        self.sent = 0

    async def send(self, frame: Any) -> None:
        """Wait for room."""
        await self.queue.put(frame)
        self.sent += 1

    async def frames(self) -> AsyncIterator[Any]:
        """Frames until the end marker."""
        while (frame := await self.queue.get()) is not None:
            yield frame


@pytest.fixture
def pipes() -> tuple[Pipe, Pipe]:
    return Pipe(), Pipe()


Pair = Callable[..., contextlib.AbstractAsyncContextManager[tuple[Peer, Peer, list[asyncio.Task[None]]]]]


@pytest.fixture
def pair(pipes: tuple[Pipe, Pipe], tmp_path: Path) -> Pair:
    @contextlib.asynccontextmanager
    async def make(
        left: Any = refuse_all, right: Any = echo, limit: int = 2**30, tell: bool = True
    ) -> AsyncIterator[tuple[Peer, Peer, list[asyncio.Task[None]]]]:
        there, back = pipes
        options: dict[str, Any] = {"body_limit": limit, "spool": tmp_path, "tell": tell}
        one = Peer(there.send, back.frames(), dialled=True, handler=left, **options)
        two = Peer(back.send, there.frames(), dialled=False, handler=right, **options)
        tasks = [asyncio.create_task(peer.run()) for peer in (one, two)]
        try:
            yield one, two, tasks
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    return make


class Hub:
    """A listener with members that come and go."""

    def __init__(self, folder: Path) -> None:
        self.identity = TlsIdentity.generate("hub")
        self.members: dict[str, TlsIdentity] = {}
        self.handler: Callable[[Peer, Incoming], Awaitable[Outgoing]] = echo
        self.peers: set[Peer] = set()
        self.folder = folder
        self.listener: Listener | None = None

    def member(self, name: str) -> TlsIdentity:
        """Enrol a member."""
        self.members[name] = TlsIdentity.generate(name)
        return self.members[name]

    def who(self, fingerprint: str) -> str:
        """The member of a certificate."""
        for name, identity in self.members.items():
            if certificate_fingerprint(identity.certificate_pem) == fingerprint:
                return name
        raise VerificationError("a stranger")

    def on_link(self, peer: Peer, came: bool) -> None:
        (self.peers.add if came else self.peers.discard)(peer)

    async def handle(self, peer: Peer, message: Incoming) -> Outgoing:
        return await self.handler(peer, message)

    async def start(self) -> None:
        """Listen on a free port."""
        self.listener = Listener(
            "127.0.0.1:0",
            self.identity,
            trusted=lambda: tuple(one.certificate_pem.decode() for one in self.members.values()),
            who=self.who,
            handler=self.handle,
            on_link=self.on_link,
            body_limit=2**30,
            spool=self.folder,
        )
        await self.listener.start()

    @property
    def address(self) -> Address:
        """Where it listens."""
        assert self.listener is not None
        return Address(f"127.0.0.1:{self.listener.port}", "hub", self.identity.certificate_pem.decode())

    def dial(self, identity: TlsIdentity, **options: Any) -> contextlib.AbstractAsyncContextManager[Peer]:
        """Dial it as the holder of that identity."""
        values: dict[str, Any] = {"spool": self.folder, "timeout": 60.0} | options
        return dial(self.address, identity.key_pem, identity.certificate_pem, **values)


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Hub]:
    one = Hub(tmp_path)
    await one.start()
    yield one
    assert one.listener is not None
    await one.listener.stop(0.2)
