"""The listening end: a gRPC server whose every stream belongs to a member of the roster, or to an invitation's
ticket."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

# Before grpc is imported: it reads its TLS suites once.
from federation.wire.credentials import CHANNEL_OPTIONS, HUB_WINDOW, listening  # isort: skip

import grpc
import grpc.aio
import structlog

from federation.crypto import TlsIdentity, peer_fingerprint
from federation.errors import KeyongError, UnavailableError
from federation.wire._generated.link_pb2 import Frame
from federation.wire.frame import METHOD, SERVICE, Chunk
from federation.wire.health import health_handler
from federation.wire.meter import Meter
from federation.wire.peer import Handler, Peer, place_of
from federation.wire.places import Places
from federation.wire.room import Room

log = structlog.get_logger("keyong.wire")


LEAVE_SECONDS = 1.0
"""What the other ends may take to see that we go."""
LINKS_A_MEMBER = 32
"""A node, some commands, notebooks: more at once is a mistake or a flood."""


class AddressError(UnavailableError):
    """The address cannot be listened on."""

    code = "address"


class _Links:
    def __init__(self, serve: Callable[[Any, Any, str], Awaitable[None]]) -> None:
        self._serve = serve

    async def attach(self, request_iterator: Any, context: Any) -> None:
        try:
            fingerprint = peer_fingerprint(context.auth_context())
        except KeyongError:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "not TLS 1.3 with one certificate")
        await self._serve(request_iterator, context, fingerprint)


async def _always() -> bool:
    return True


class Listener:
    """Accepts links.

    Args:
        address: host:port; port 0 takes a free one (see :attr:`port`).
        identity: our TLS identity.
        trusted: client certificates taken, asked anew at every handshake.
        handler: answers exchanges; ``peer.member`` is who asks.
        who: maps a certificate's fingerprint to the member (or ``ticket:…``); raises for strangers.
        on_link: told when a link comes (True) and goes (False).
        body_limit: longest body taken, and the most that one member's open bodies take over all its links.
        requests: longest body by method; see :class:`Peer`.
        ready: what members' health checks are told.
        places: in which large answers arrive, those of all links together; None: all at once.
        meter: counts the bytes that cross.
    """

    def __init__(
        self,
        address: str,
        identity: TlsIdentity,
        *,
        trusted: Callable[[], tuple[str, ...]],
        who: Callable[[str], str],
        handler: Handler,
        on_link: Callable[[Peer, bool], None],
        body_limit: int,
        requests: Mapping[str, int] | None = None,
        spool: Path,
        ready: Callable[[], Awaitable[bool]] = _always,
        meter: Meter | None = None,
        places: Places | None = None,
    ) -> None:
        self._address = address
        self._identity = identity
        self._trusted = trusted
        self._who = who
        self._handler = handler
        self._on_link = on_link
        self._body_limit = body_limit
        self._requests = requests
        self._rooms: WeakValueDictionary[str, Room] = WeakValueDictionary()
        self._spool = spool
        self._ready = ready
        self._meter = meter or Meter()
        self._places = places
        self._server: grpc.aio.Server | None = None
        self._running: dict[Peer, asyncio.Task[None]] = {}
        self.port = 0

    async def start(self) -> None:
        """Bind and serve; raises :class:`AddressError` where the address is taken."""
        server = grpc.aio.server(options=(*CHANNEL_OPTIONS, HUB_WINDOW))
        attach = grpc.stream_stream_rpc_method_handler(
            _Links(self._serve).attach, request_deserializer=self._meter.read, response_serializer=self._meter.write
        )
        link = grpc.method_handlers_generic_handler(SERVICE, {METHOD: attach})
        server.add_generic_rpc_handlers((link, health_handler(self._who, self._ready)))
        try:
            self.port = server.add_secure_port(self._address, listening(self._identity, self._trusted))
        except RuntimeError:
            self.port = 0
        if self.port == 0:
            raise AddressError(
                "cannot listen on {address}: it is in use, or not an address of this machine",
                hint="stop what holds it (`ss -ltnp` names it), or choose another with --listen",
                address=self._address,
            )
        await server.start()
        self._server = server

    async def stop(self, grace: float = LEAVE_SECONDS) -> None:
        """End every link and stop listening."""
        for task in list(self._running.values()):
            task.cancel()
        if self._server is not None:
            await self._server.stop(grace)
            self._server = None

    def cut(self, peer: Peer) -> None:
        """End one link at once: its member has left the roster."""
        task = self._running.get(peer)
        if task is not None:
            task.cancel()

    async def _serve(self, frames: Any, context: Any, fingerprint: str) -> None:
        try:
            member = self._who(fingerprint)
        except KeyongError:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, "not in the roster")
            return
        if sum(peer.member == member for peer in self._running) >= LINKS_A_MEMBER:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many links")
            return
        # By itself: sent with the first frame, it is unknown whether it went where that was cancelled, and a status that is
        # sent then brings it twice, which gRPC refuses. The link would stay open.
        await context.send_initial_metadata(())

        async def send(frame: Frame | Chunk) -> None:
            await context.write(frame)

        peer = Peer(
            send,
            frames,
            dialled=False,
            handler=self._handler,
            body_limit=self._body_limit,
            requests=self._requests,
            room=self._rooms.setdefault(member, Room(self._body_limit)),
            spool=self._spool,
            tell=True,
            places=self._places,
        )
        peer.member, peer.fingerprint = member, fingerprint
        task = self._running[peer] = asyncio.create_task(peer.run())
        self._on_link(peer, True)
        try:
            await asyncio.wait([task])
            if task.cancelled():
                await context.abort(grpc.StatusCode.PERMISSION_DENIED, "the link was ended")
            elif isinstance(error := task.exception(), KeyongError):
                log.warning("link-refused", peer=member, code=error.code)
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, error.code)
            elif error is not None:
                log.error("link-failed", peer=member, error=type(error).__name__, at=place_of(error))
        finally:
            self._running.pop(peer, None)
            self._on_link(peer, False)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)  # what it was answering is given up before we are
