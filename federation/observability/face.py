"""A small HTTP face: a few pages, read only, one answer a connection.

It answers GET and HEAD of the paths it was given and nothing else: there is nothing to change here, no cookie, no body to
parse. A caller gets :data:`PATIENCE_SECONDS` to ask and :data:`REQUEST_BYTES` to do it in; more callers than
:data:`CALLERS` at once are turned away, so that a port scan costs a service nothing. On this machine's own address it
answers to that address or localhost alone: a page in a browser here could give it another name, and read the answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from pathlib import Path
from types import MappingProxyType

import structlog

from federation.errors import UnavailableError, UsageError

log = structlog.get_logger("keyong.observability")

PATIENCE_SECONDS = 5.0
REQUEST_BYTES = 8192
CALLERS = 16
TEXT = "text/plain; charset=utf-8"
JSON = "application/json"


class AddressNotAllowedError(UsageError):
    """An address that others reach was given where only this machine's own is meant."""

    code = "observe-address"


@dataclass(frozen=True)
class Answer:
    """What a page says."""

    body: bytes
    type: str = TEXT
    status: HTTPStatus = HTTPStatus.OK


Route = Callable[[], Awaitable[Answer]]
Named = Callable[[str], Awaitable[Answer]]
"""What answers for every path below a folder; is given the rest of the path."""


def check_address(address: str, *, anywhere: bool) -> tuple[str, int]:
    """Split HOST:PORT.

    Args:
        anywhere: whether an address that other machines reach is allowed. There is no login: who can reach the port
            reads who works with whom, and how much.

    Raises:
        UsageError: it is no address.
        AddressNotAllowedError: others reach it, and nobody said that they may.
    """
    host, colon, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise UsageError("{address} is not HOST:PORT", hint="write 127.0.0.1:9464", address=address[:255])
    if not anywhere and not _is_loopback(host):
        raise AddressNotAllowedError(
            "{address} can be reached from other machines, and what is shown there has no login",
            hint="use 127.0.0.1, or say --observe-anywhere where a firewall or a container's network keeps others out",
            address=address,
        )
    return host, int(port)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_own(value: str) -> bool:
    """Whether a ``Host`` is localhost or an address in digits, which nobody's name server gives out."""
    host = value.strip().lower()
    host = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    if host == "localhost":
        return True
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _hosts(head: bytes) -> list[str]:
    fields = (line.partition(b":") for line in head.split(b"\r\n")[1:])
    return [value.decode("ascii", "replace") for name, _, value in fields if name.strip().lower() == b"host"]


class Face:
    """Serves pages until closed.

    Args:
        routes: what answers each path.
        named: what answers for each folder of paths; the folder ends with a slash.
    """

    def __init__(self, routes: Mapping[str, Route], named: Mapping[str, Named] = MappingProxyType({})) -> None:
        self._routes = dict(routes)
        self._named = dict(named)
        self._servers: list[asyncio.Server] = []
        self._sockets: list[Path] = []
        self._callers = 0

    async def listen(self, host: str, port: int) -> int:
        """Serve on an address; returns the port, which differs where 0 was asked for."""
        try:
            serve = partial(self._serve, own=_is_loopback(host))
            server = await asyncio.start_server(serve, host, port, limit=REQUEST_BYTES)
        except OSError as error:
            raise UnavailableError(
                "cannot listen on {address}: {why}",
                hint="stop what holds it (`ss -ltnp` names it), or choose another with --observe",
                code="address",
                address=f"{host}:{port}",
                why=error.strerror or type(error).__name__,
            ) from None
        self._servers.append(server)
        return int(server.sockets[0].getsockname()[1])

    async def listen_locally(self, path: Path) -> None:
        """Serve on a socket that its owner alone can open; one that was left behind is replaced."""
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            path.unlink(missing_ok=True)
            # Through the folder's descriptor: a socket's address has 107 bytes, and homes may lie deep.
            folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                listening.bind(f"/proc/self/fd/{folder}/{path.name}")
            finally:
                os.close(folder)
            path.chmod(0o600)
            server = await asyncio.start_unix_server(self._serve, sock=listening, limit=REQUEST_BYTES)
        except OSError as error:
            listening.close()
            raise UnavailableError(
                "cannot make the socket {path}: {why}",
                hint="the home must lie on a file system of this machine that takes sockets",
                code="socket",
                path=str(path),
                why=error.strerror or type(error).__name__,
            ) from None
        self._servers.append(server)
        self._sockets.append(path)

    async def close(self) -> None:
        """Stop serving."""
        for server in self._servers:
            server.close()
        for path in self._sockets:
            path.unlink(missing_ok=True)
        self._servers, self._sockets = [], []

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, own: bool = False) -> None:
        self._callers += 1
        try:
            if self._callers <= CALLERS:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    head = await reader.readuntil(b"\r\n\r\n")
                    writer.write(await self._answer(head, own=own))
                    await writer.drain()
        except (TimeoutError, OSError, EOFError, asyncio.LimitOverrunError):
            pass  # whoever asked has gone, or does not speak HTTP
        finally:
            self._callers -= 1
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def _below(self, path: str) -> Route | None:
        folder, slash, name = path.rpartition("/")
        found = self._named.get(folder + slash)
        return partial(found, name) if found is not None and name else None

    async def _answer(self, head: bytes, *, own: bool) -> bytes:
        method, _, rest = head.split(b"\r\n", 1)[0].partition(b" ")
        path = rest.split(b" ", 1)[0].split(b"?", 1)[0].decode("ascii", "replace")
        route = self._routes.get(path) or self._below(path)
        if method not in (b"GET", b"HEAD"):
            answer = Answer(b"only GET and HEAD\n", status=HTTPStatus.METHOD_NOT_ALLOWED)
        elif own and not all(_is_own(host) for host in _hosts(head)):  # no browser leaves it out
            answer = Answer(b"ask for localhost or the address\n", status=HTTPStatus.MISDIRECTED_REQUEST)
        elif route is None:
            answer = Answer(b"no such page\n", status=HTTPStatus.NOT_FOUND)
        else:
            try:
                answer = await route()
            except Exception as error:
                log.error("page-failed", path=path, error=type(error).__name__, exc_info=True)
                answer = Answer(b"internal error\n", status=HTTPStatus.INTERNAL_SERVER_ERROR)
        lines = (
            f"HTTP/1.1 {answer.status.value} {answer.status.phrase}",
            f"Content-Type: {answer.type}",
            f"Content-Length: {len(answer.body)}",
            "Cache-Control: no-store",
            "X-Content-Type-Options: nosniff",
            "Connection: close",
        )
        return "\r\n".join((*lines, "", "")).encode() + (b"" if method == b"HEAD" else answer.body)
