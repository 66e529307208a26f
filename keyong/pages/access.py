"""Who may see the pages: one login link, used once, becomes a cookie; other hosts, methods and origins are turned away.

Rules, in this order, for every request:

1. its ``Host`` is one of ours: a page of another name that resolves to this machine (DNS rebinding) gets nothing;
2. its method reads: there is nothing to write here;
3. it names no other site as where it comes from (``Sec-Fetch-Site``), but for the login link itself;
4. it brings the cookie that the login link gave, but for the style sheet and the login page.

Every answer carries a content security policy without inline script or style, and is not kept by any cache.
"""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from typing import Any

LINK_SECONDS = 600.0
"""How long a login link can be used, once."""
SESSION_SECONDS = 8 * 3600.0
"""How long its cookie is good."""
SESSIONS = 16
"""Most that are open at once; the oldest ends."""
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self';"
    " base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
HEADERS: Mapping[str, str] = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "cache-control": "no-store",
}


@dataclass
class Access:
    """The link and the sessions of one server; nothing of it is ever written down.

    Args:
        hosts: names that requests may address, without port; those of the loopback where none is given.
        cookie: name of the cookie, which all ports of a host share: so it holds the port.
    """

    hosts: tuple[str, ...] = LOOPBACK
    cookie: str = "keyong-pages"
    clock: Callable[[], float] = time.monotonic
    _links: dict[str, float] = field(default_factory=dict, repr=False)
    _sessions: dict[str, float] = field(default_factory=dict, repr=False)

    def new_link(self) -> str:
        """A token for one login; links not yet used before are good no more."""
        token = secrets.token_urlsafe(32)
        self._links = {token: self.clock() + LINK_SECONDS}
        return token

    def redeem(self, token: str) -> str | None:
        """The session that a token buys, once; None where it was used, is too old, or never was."""
        found = next((one for one in self._links if _same(one, token)), None)
        if found is None or self._links.pop(found) < self.clock():
            return None
        session = secrets.token_urlsafe(32)
        self._sessions[session] = self.clock() + SESSION_SECONDS
        while len(self._sessions) > SESSIONS:
            del self._sessions[next(iter(self._sessions))]
        return session

    def knows(self, session: str) -> bool:
        """Whether this session is open."""
        found = next((one for one in self._sessions if _same(one, session)), None)
        return found is not None and self._sessions[found] >= self.clock()

    def refusal(self, method: str, path: str, headers: Mapping[str, str]) -> int | None:
        """The status that a request is refused with; None where it may go on."""
        if not self._is_ours(headers.get("host", "")):
            return 421
        if method not in ("GET", "HEAD"):
            return 405
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and path != "/login":
            return 403
        if path == "/login" or path.startswith("/assets/"):
            return None
        return None if self.knows(read_cookie(headers, self.cookie)) else 401

    def _is_ours(self, host: str) -> bool:
        name, colon, port = host.rpartition(":")
        if not colon or not port.isdecimal():
            name = host
        return name.lower() in self.hosts


def read_cookie(headers: Mapping[str, str], name: str) -> str:
    """A cookie of a request; empty where there is none."""
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(name)
    except CookieError:
        return ""
    return found.value if found is not None else ""


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode("utf-8", "surrogatepass"))


class Guard:
    """ASGI middleware that applies :class:`Access` to every request and the headers to every answer."""

    def __init__(self, app: Any, access: Access, refused: Callable[[int, Mapping[str, str]], bytes]) -> None:
        self._app = app
        self._access = access
        self._refused = refused

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # no other protocol is spoken here
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}

        async def guarded(message: Any) -> None:
            if message["type"] == "http.response.start":
                own = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", ()), *own]}
            await send(message)

        status = self._access.refusal(scope["method"], scope["path"], headers)
        if status is None:
            await self._app(scope, receive, guarded)
            return
        body = self._refused(status, headers)
        answer = [(b"content-type", b"text/html; charset=utf-8"), (b"content-length", str(len(body)).encode())]
        await guarded({"type": "http.response.start", "status": status, "headers": answer})
        await guarded({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
