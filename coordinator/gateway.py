"""The gateway of the Dataspace Protocol: HTTPS outside, the members' own links inside.

Companies' nodes take no connection from outside, so their endpoints are served here, below ``/members/ID/2025-1``. What
arrives goes unread over the link of the member it is for, and its signed answer back. The gateway can withhold; it can
alter nothing, for calls and answers are signed by their authors (:mod:`federation.dataspace.calls`).

An attacker who can speak to it without a certificate of the roster gets no further than the TLS handshake.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import structlog
import uvicorn

from coordinator.links import Links
from federation.dataspace import (
    BODY_BYTES,
    TOKEN_BYTES,
    VERSION,
    WELL_KNOWN,
    Connector,
    Request,
    Response,
    server_context,
    trust,
    versions,
)
from federation.dataspace.https import ANSWER_HEADER, REPLY_SECONDS, load_identity
from federation.errors import KeyongError, UnavailableError
from federation.home import Home
from federation.wire import messages as m

log = structlog.get_logger("keyong.coordinator")

AT_ONCE = 64
"""Requests under way at once; more are told to come again."""
AT_ONCE_FOR_ONE = 8
"""Of these for one member, so that one who is slow to answer does not take the gateway from all."""
OWN_AT_ONCE = 3
"""Of these answered here: the coordinator's threads have other work."""
_PATH = re.compile(rf"/members/([a-z0-9-]{{1,57}})(?:/{re.escape(VERSION)})?(/.*)")

Scope = dict[str, Any]


class Gateway:
    """An ASGI application that carries requests to members.

    Args:
        own: answers for the coordinator's own member.
    """

    def __init__(self, home: Home, links: Links, own: Connector) -> None:
        self._home = home
        self._links = links
        self._own = own
        self._context = server_context(home)
        self._context.sni_callback = lambda *_: (
            self._learn()
        )  # before each handshake: who joined a moment ago is let in
        self._known = home.history.latest.version
        self._busy: Counter[str] = Counter()
        self._room = asyncio.Semaphore(OWN_AT_ONCE)

    @contextlib.asynccontextmanager
    async def serving(self, host: str, port: int) -> AsyncIterator[int]:
        """Serve for the block; gives the port, which differs where 0 was asked for."""
        config = uvicorn.Config(
            self,
            host=host,
            port=port,
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            date_header=False,
            timeout_keep_alive=5,
            timeout_graceful_shutdown=2,
            h11_max_incomplete_event_size=4 * TOKEN_BYTES,
            limit_concurrency=4 * AT_ONCE,
            ws="none",
        )
        config.load()
        config.ssl = self._context
        server = _Server(config)
        task = asyncio.create_task(server.serve())
        try:
            while not server.started:
                if task.done():
                    raise UnavailableError(
                        "cannot listen on {address} for the Dataspace Protocol",
                        hint="stop what holds it (`ss -ltnp` names it), or choose another with --dataspace",
                        code="address",
                        address=f"{host}:{port}",
                    )
                await asyncio.sleep(0.01)
            yield int(server.servers[0].sockets[0].getsockname()[1])
        finally:
            server.should_exit = True
            await asyncio.gather(task, return_exceptions=True)

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        """Answer one HTTP request."""
        if scope["type"] != "http":
            return
        response = await self._answer(scope, receive)
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(response.body)).encode())]
        if response.token:
            headers.append((ANSWER_HEADER.lower().encode(), response.token.encode()))
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        await send({"type": "http.response.body", "body": response.body})

    def _learn(self) -> None:
        latest = self._home.history.latest
        if latest.version != self._known:
            trust(self._context, self._home)
            with contextlib.suppress(OSError):  # the pair is being exchanged; the old one holds until it is whole
                load_identity(self._context, self._home)
                self._known = latest.version

    async def _answer(self, scope: Scope, receive: Any) -> Response:
        path = scope["raw_path"].decode("ascii", "replace") if scope.get("raw_path") else scope["path"]
        path = path.partition("?")[0]
        if (scope["method"], path) == ("GET", WELL_KNOWN):
            members = [member.id for member in self._home.history.latest.members]
            return Response(200, json.dumps(versions(members)).encode())
        found = _PATH.fullmatch(path)
        if found is None:
            return _unsigned(404, "no-such-endpoint")
        if found[1] not in {one.id for one in self._home.history.latest.members}:
            return _unsigned(404, "unknown-member")
        if self._busy.total() >= AT_ONCE or self._busy[found[1]] >= AT_ONCE_FOR_ONE:
            return _unsigned(503, "busy")
        self._busy[found[1]] += 1
        try:
            return await self._asked(found[1], found[2], scope, receive)
        finally:
            self._busy[found[1]] -= 1

    async def _asked(self, member: str, path: str, scope: Scope, receive: Any) -> Response:
        try:
            body = await _whole_body(receive)
        except TimeoutError:
            return _unsigned(408, "body-stalled")
        if body is None:
            return _unsigned(413, "message-size")
        tokens = [value for name, value in scope["headers"] if name == b"authorization"]
        if len(tokens) > 1 or any(len(one) > TOKEN_BYTES for one in tokens):
            return _unsigned(401, "call-refused")
        token = tokens[0].decode("ascii", "replace") if tokens else ""
        return await self._carried(member, Request(scope["method"], path, token, body))

    async def _carried(self, member: str, request: Request) -> Response:
        if member == self._home.identity.member:
            async with self._room:
                return await asyncio.to_thread(self._own.answer, request)
        header = m.DataspaceAsk(method=request.method[:10], path=request.path[:2000], token=request.token)
        try:
            answer = await self._links.ask_dataspace(member, header.to_bytes(), [request.body], timeout=REPLY_SECONDS)
            reply = m.DataspaceReply.from_bytes(answer.header)
        except KeyongError as error:
            log.info("dataspace-not-carried", peer=member, code=error.code[:64])
            return _unsigned(503, error.code)
        return Response(reply.status, bytes(answer.body), reply.token)


async def _whole_body(receive: Any) -> bytes | None:
    """The body, or None where it is larger than any message."""
    parts, size = [], 0
    async with asyncio.timeout(REPLY_SECONDS):
        while True:
            event = await receive()
            if event["type"] != "http.request":
                return None
            parts.append(event.get("body", b""))
            size += len(parts[-1])
            if size > BODY_BYTES:
                return None
            if not event.get("more_body"):
                return b"".join(parts)


def _unsigned(status: int, code: str) -> Response:
    """The gateway's own word: it bears no signature, and nobody takes it for a member's."""
    return Response(status, json.dumps({"code": code}).encode())


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Any:  # signals are the service's own
        yield
