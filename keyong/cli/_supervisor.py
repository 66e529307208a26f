"""Telling the supervisor that started this process how it stands: systemd's notification protocol, where it is spoken.

One datagram a change to the socket named by ``NOTIFY_SOCKET`` (sd_notify(3)); without that variable nothing is sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket

_USEC = 1_000_000


def notify(*states: str) -> None:
    """Tell the supervisor, for example ``READY=1``; without complaint where there is none, or where it has gone."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as plug:
        plug.connect("\0" + address[1:] if address[0] == "@" else address)
        plug.sendall("\n".join(states).encode())


def watchdog_seconds() -> float:
    """Within which time the supervisor wants a sign of life; 0 where it wants none of this process."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    wanted = os.environ.get("WATCHDOG_USEC", "")
    return int(wanted) / _USEC if wanted.isascii() and wanted.isdigit() else 0.0


async def keep_watched() -> None:
    """Give signs of life for ever, from the event loop itself: where it hangs, they stop."""
    seconds = watchdog_seconds()
    while seconds:
        notify("WATCHDOG=1")
        await asyncio.sleep(seconds / 3)
