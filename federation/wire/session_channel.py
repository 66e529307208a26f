"""The trusted end of a sandbox session's channel, for asyncio: frames in, frames out, every size judged first."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from federation.errors import KeyongError
from federation.jobs.frames import HEAD_BYTES, FrameError, decode_head, encode_frame, parse_header
from federation.wire.body import CHUNK_BYTES, Body, Buffer

_JOIN_BELOW = 64 * 1024


class SessionEndedError(KeyongError):
    """The session's process is gone: it ended, was killed or hit a limit."""

    code = "session-ended"


class SessionFrameError(KeyongError):
    """The session sent something that is not a frame of the protocol."""

    code = "session-frame"


class SessionChannel:
    """Frames over the session's socket. What is inside may be hostile: nothing is allocated before its size is
    judged."""

    def __init__(self, channel: socket.socket, *, body_limit: int, spool: Path | None) -> None:
        channel.setblocking(False)
        self._socket = channel
        self._body_limit = body_limit
        self._spool = spool

    async def send(self, header: dict[str, Any], body: Sequence[Buffer] = ()) -> None:
        """Send one frame; raises :class:`SessionEndedError` where nobody reads any more."""
        loop = asyncio.get_running_loop()
        small = bytearray()
        try:
            for part in encode_frame(header, body):
                if len(part) < _JOIN_BELOW:
                    small += part
                    continue
                await loop.sock_sendall(self._socket, small)
                small = bytearray()
                await loop.sock_sendall(self._socket, part)
            await loop.sock_sendall(self._socket, small)
        except OSError:
            raise SessionEndedError("the job's session has ended") from None

    async def receive(self, limit: int | None = None) -> tuple[dict[str, Any], memoryview]:
        """Receive one frame: its header object and its body, of at most ``limit`` bytes where one is given."""
        most = self._body_limit if limit is None else min(limit, self._body_limit)
        head = await self._read(HEAD_BYTES)
        try:
            header_bytes, body_bytes = decode_head(head, most)
            header = parse_header(await self._read(header_bytes))
        except FrameError as error:
            code = "session-frame-size" if error.code == "frame-body-too-large" else None
            raise SessionFrameError("the job's session sent a malformed frame", code=code, detail=error.code) from None
        body = Body(body_bytes, self._spool)
        await self._fill(body)
        return header, body.view

    async def _read(self, size: int) -> bytearray:
        data = bytearray(size)
        view = memoryview(data)
        loop = asyncio.get_running_loop()
        at = 0
        while at < size:
            try:
                count = await loop.sock_recv_into(self._socket, view[at:])
            except OSError:
                count = 0
            if count == 0:
                raise SessionEndedError("the job's session has ended")
            at += count
        return data

    async def _fill(self, body: Body) -> None:
        loop = asyncio.get_running_loop()
        window = memoryview(bytearray(min(CHUNK_BYTES, body.size)))
        left = body.size
        while left:
            try:
                count = await loop.sock_recv_into(self._socket, window[: min(left, len(window))])
            except OSError:
                count = 0
            if count == 0:
                raise SessionEndedError("the job's session has ended")
            body.write(window[:count])
            left -= count
