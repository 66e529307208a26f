"""Serves the pages on one address until it is told to end; the login link is printed, never logged."""

from __future__ import annotations

import asyncio
import ipaddress
import signal
import socket
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from federation.errors import UnavailableError, UsageError
from keyong.pages.access import LOOPBACK, Access
from keyong.pages.source import open_source
from keyong.pages.watch import Watch

if TYPE_CHECKING:
    import uvicorn

GRACE_SECONDS = 3.0
"""How long answers that are on their way are waited for at the end."""
PORT = 8741


def parse_address(text: str, names: tuple[str, ...]) -> tuple[str, int, tuple[str, ...]]:
    """An address to listen on, and the host names that requests may then address.

    Raises:
        UsageError: it is no address, or one that other machines reach and nobody said under which name.
    """
    host, _, port = text.rpartition(":")
    host = host.strip("[]")
    try:
        address = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
        number = int(port)
        if not 0 <= number <= 65535:
            raise ValueError
    except ValueError:
        raise UsageError(
            "{text} is not an address to listen on",
            hint="write 127.0.0.1:8741; port 0 takes a free one",
            text=text[:80],
        ) from None
    if not address.is_loopback and not names:
        raise UsageError(
            "{text} is an address that other machines reach, and the pages show what the ledger holds, in the clear",
            hint="reach it over `ssh -L`; or put a TLS proxy before it and name it: --host-name ledger.example.com",
            text=text[:80],
        )
    return str(address), number, (*LOOPBACK, *(name.lower() for name in names))


def serve_pages(
    path: Path,
    fingerprint: str,
    address: tuple[str, int, tuple[str, ...]],
    tell: Callable[[str, str], None],
    home: Path | None = None,
) -> None:
    """Serve the pages of the ledger at ``path`` until SIGINT or SIGTERM; SIGUSR1 makes a new login link.

    Args:
        address: from :func:`parse_address`.
        tell: gets the server's address and each login link, for the person who started it.
        home: our own, where the ledger is its.
    """
    import uvicorn

    from keyong.pages.app import application

    host, port, names = address
    with (
        open_source(path, fingerprint, home) as source,
        _listening(host, port) as listener,
        Watch(source, fingerprint) as watch,
    ):
        port = listener.getsockname()[1]
        access = Access(names, f"keyong-pages-{port}")
        config = uvicorn.Config(
            application(source, watch, access), log_config=None, access_log=False, server_header=False,
            date_header=False, proxy_headers=False, ws="none", lifespan="off",
            timeout_graceful_shutdown=int(GRACE_SECONDS),
        )  # fmt: skip
        base = f"http://{f'[{host}]' if ':' in host else host}:{port}"

        def link() -> None:
            tell(base, f"{base}/login?token={access.new_link()}")

        asyncio.run(_run(uvicorn.Server(config), listener, link))


async def _run(server: uvicorn.Server, listener: socket.socket, link: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()

    def end() -> None:
        server.should_exit = True

    # uvicorn would end the process by the signal itself, once it has closed: an end that was asked for is no failure.
    server.capture_signals = nullcontext  # type: ignore[method-assign, assignment]
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end)
    loop.add_signal_handler(signal.SIGUSR1, link)
    loop.call_soon(link)  # the socket listens already: who follows the link at once is answered
    await server.serve(sockets=[listener])


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # By its protocol's name asyncio sends each part of an answer at once; otherwise the second waits 40 ms for the first's
    # acknowledgement.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise UnavailableError(
            "{host}:{port} cannot be listened on: {reason}",
            hint="another program may have it: choose another with --listen, port 0 for a free one",
            host=host,
            port=port,
            reason=error.strerror or "",
        ) from error
    return listener
