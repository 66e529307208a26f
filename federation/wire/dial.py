"""The dialling end: one connection outward, kept or made anew."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Before grpc is imported: it reads its TLS suites once.
from federation.wire.credentials import CHANNEL_OPTIONS, MEMBER_WINDOW, dialling  # isort: skip

import grpc
import grpc.aio
import structlog

from federation.crypto import server_name
from federation.errors import KeyongError, UnavailableError
from federation.ledger import LedgerError
from federation.wire._generated.link_pb2 import Frame
from federation.wire.frame import METHOD, SERVICE, Chunk
from federation.wire.meter import Meter
from federation.wire.peer import Handler, Incoming, Peer, place_of

log = structlog.get_logger("keyong.wire")

CONNECT_SECONDS = 10.0
"""What a command gives a link to stand before it says that the coordinator cannot be reached."""
REDIAL_SECONDS = 5.0
"""What a node gives it: SYNs go out at 0, 1, 3 and 7 s, so a new attempt meets what came back sooner than the old."""
LEAVE_SECONDS = 1.0
"""How long the other end may take to see that we have gone, and that it has all we sent."""
FIRST_WAIT_SECONDS = 0.25
LONGEST_WAIT_SECONDS = 2.0
"""A hundred nodes then dial fifty times a second at most, and each is back within five seconds."""
STEADY_SECONDS = 10.0
"""A link that held this long was a good one: the next wait starts small again."""


class UnreachableError(UnavailableError):
    """The coordinator cannot be reached, or refuses this certificate."""

    code = "unreachable"


class LinkRefusedError(UnavailableError):
    """The coordinator ended the link because of what was sent over it."""

    code = "link-refused"


@dataclass(frozen=True)
class Address:
    """Where a coordinator listens and which certificate it must show."""

    target: str
    member: str
    certificate: str


async def refuse_all(peer: Peer, message: Incoming) -> Any:
    """The handler of a party that answers nothing."""
    raise UnavailableError("this party answers no calls", code="no-such-method")


@contextlib.asynccontextmanager
async def dial(
    address: Address,
    key_pem: bytes,
    certificate_pem: bytes,
    *,
    handler: Handler = refuse_all,
    body_limit: int = 2**32,
    spool: Path | None = None,
    tell: bool = False,
    timeout: float = CONNECT_SECONDS,
    meter: Meter | None = None,
    lent: frozenset[str] = frozenset(),
) -> AsyncIterator[Peer]:
    """A live :class:`Peer` to the coordinator for the duration of the block.

    Args:
        meter: counts the bytes that cross.
        lent: see :class:`Peer`.

    Raises:
        UnreachableError: nobody listens there, the TLS handshake was refused, or no connection came within ``timeout``
            seconds.
    """
    meter = meter or Meter()
    options = (
        *CHANNEL_OPTIONS,
        MEMBER_WINDOW,
        ("grpc.ssl_target_name_override", server_name(address.member)),
        ("grpc.enable_http_proxy", 0),
        ("grpc.use_local_subchannel_pool", 1),  # an earlier channel's growing waits are not this one's
    )
    channel = grpc.aio.secure_channel(
        address.target, dialling(key_pem, certificate_pem, address.certificate), options=options
    )
    try:
        try:
            async with asyncio.timeout(timeout):
                await _connected(channel)
        except (TimeoutError, ConnectionError):
            raise UnreachableError(
                "cannot reach the coordinator at {target}",
                hint="is `keyong coordinator serve` running there, is the address right, and has this member joined?",
                target=address.target,
            ) from None
        stream: Any = channel.stream_stream(
            f"/{SERVICE}/{METHOD}", request_serializer=meter.write, response_deserializer=meter.read
        )()
        peer = Peer(
            stream.write,
            _frames(stream),
            dialled=True,
            handler=handler,
            body_limit=body_limit,
            spool=spool,
            tell=tell,
            lent=lent,
        )
        peer.member = address.member
        reading = asyncio.create_task(peer.run())
        try:
            yield peer
        finally:
            with contextlib.suppress(Exception):
                await asyncio.wait_for(stream.done_writing(), LEAVE_SECONDS)
                await peer.ended(LEAVE_SECONDS)  # cancelled before that, what is on its way would be lost
            stream.cancel()
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
    finally:
        await channel.close()


async def _connected(channel: grpc.aio.Channel) -> None:
    """Wait until a channel is ready; raise ConnectionError at its first failure, where gRPC would try on by itself:
    whoever dials again waits with a jitter of its own, and a person is told at once."""
    state = channel.get_state(try_to_connect=True)
    while state is not grpc.ChannelConnectivity.READY:
        if state in (grpc.ChannelConnectivity.TRANSIENT_FAILURE, grpc.ChannelConnectivity.SHUTDOWN):
            raise ConnectionError
        await channel.wait_for_state_change(state)
        state = channel.get_state(try_to_connect=True)


async def _frames(stream: Any) -> AsyncIterator[Frame | Chunk]:
    try:
        async for frame in stream:
            yield frame
            del frame
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.INVALID_ARGUMENT:
            raise LinkRefusedError(
                "the coordinator ended the link: it found what we sent malformed",
                hint="are both sides of one version? see the coordinator's log",
            ) from None
        if error.code() in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
            raise UnreachableError(
                "the coordinator ended the link: this member is not in its roster",
                hint="join with an invitation, or ask the founder whether you were removed",
            ) from None


def shown_certificate(target: str, seconds: float) -> str | None:
    """The certificate (PEM) that somebody shows at an address, of which nothing is believed; None where nobody does."""
    host, _, port = target.rpartition(":")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    try:
        with (
            socket.create_connection((host.strip("[]"), int(port)), seconds) as raw,
            context.wrap_socket(raw, server_hostname="coordinator.keyong") as link,
        ):
            shown = link.getpeercert(binary_form=True)
    except (OSError, ValueError):
        return None
    return ssl.DER_cert_to_PEM_cert(shown) if shown else None


async def keep_attached(
    connect: Callable[[], contextlib.AbstractAsyncContextManager[Peer]],
    session: Callable[[Peer], Awaitable[None]],
    *,
    on_down: Callable[[KeyongError], None],
    jitter: random.Random,
) -> None:
    """Hold a link for ever: dial, run ``session``, and when either ends dial again after a growing, jittered wait.

    Nothing that the other end says ends this: a roster that does not follow, a malformed answer and a refusal all end
    the link alone. A fault of the own ledger does end it, for without one nothing may run.
    """
    wait = FIRST_WAIT_SECONDS
    while True:
        began = asyncio.get_running_loop().time()
        try:
            async with connect() as peer:
                await session(peer)
                raise UnavailableError("the link to the coordinator was lost", code="link-lost")
        except LedgerError:
            raise
        except KeyongError as error:
            on_down(error)
        except Exception as error:
            log.error("session-failed", error=type(error).__name__, at=place_of(error))
            on_down(UnavailableError("internal error on this side of the link", code="internal"))
        if asyncio.get_running_loop().time() - began > STEADY_SECONDS:
            wait = FIRST_WAIT_SECONDS
        # Jitter: a restarted coordinator is not met by all members at one moment.
        await asyncio.sleep(jitter.uniform(wait / 2, wait))
        wait = min(wait * 2, LONGEST_WAIT_SECONDS)
