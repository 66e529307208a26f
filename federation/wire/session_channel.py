"""The trusted end of a sandbox session's channel, for asyncio: frames in, frames out, every size judged first."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from federation.errors import KeyongError
from federation.jobs.frames import (
    ECHO,
    FILE_FROM,
    HEAD_BYTES,
    IN_FILE,
    FrameError,
    decode_head,
    encode_frame,
    parse_header,
)
from federation.wire.body import CHUNK_BYTES, Body, Buffer, total_bytes
from federation.wire.memory_file import MemoryFile, UnsealedError, file_of

_JOIN_BELOW = 64 * 1024


class SessionEndedError(KeyongError):
    """The session's process is gone: it ended, was killed or hit a limit."""

    code = "session-ended"


class SessionFrameError(KeyongError):
    """The session sent something that is not a frame of the protocol."""

    code = "session-frame"


class SessionChannel:
    """Frames over the session's socket. What is inside may be hostile: nothing is allocated before its size is
    judged.

    Args:
        body_limit: longest body taken.
        file_limit: longest body that is held in memory files rather than sent and spooled; the session's own bound of
            memory, for it would not take more.
        echoes: whether the session may say that its body is the one it was sent last in a file. Nothing is believed: it
            is given what was sent.
    """

    def __init__(
        self, channel: socket.socket, *, body_limit: int, spool: Path | None, file_limit: int = 0, echoes: bool = False
    ) -> None:
        channel.setblocking(False)
        self._socket = channel
        self._body_limit = body_limit
        self._file_limit = file_limit
        self._spool = spool
        self._sent: tuple[memoryview, MemoryFile] | None = None
        self._room: MemoryFile | None = None
        self._echoes = echoes
        self._echo: memoryview | None = None

    async def send(self, header: dict[str, Any], body: Sequence[Buffer] = (), *, room: int = 0) -> None:
        """Send one frame; raises :class:`SessionEndedError` where nobody reads any more.

        Args:
            room: longest body that the answer may have; it need not cross the socket then.
        """
        loop = asyncio.get_running_loop()
        size = total_bytes(body)
        file = await self._file(body, size) if FILE_FROM <= size <= self._file_limit else None
        self._room = MemoryFile(room) if FILE_FROM <= room <= self._file_limit else None
        files = [one.descriptor for one in (file, self._room) if one is not None]
        lent = self._room is not None
        parts = encode_frame(header, body, room=lent) if file is None else encode_frame(header, in_file=size, room=lent)
        small = bytearray()
        try:
            if files:
                await self._send_files(parts.pop(0), files)
            for part in parts:
                if len(part) < _JOIN_BELOW:
                    small += part
                    continue
                await loop.sock_sendall(self._socket, small)
                small = bytearray()
                await loop.sock_sendall(self._socket, part)
            await loop.sock_sendall(self._socket, small)
        except OSError:
            raise SessionEndedError("the job's session has ended") from None

    async def _file(self, body: Sequence[Buffer], size: int) -> MemoryFile:
        """The body in a file: the one made before, where it is the very same body (a model evaluated, then trained)."""
        if self._sent is not None and len(body) == 1 and self._sent[0] is body[0]:
            return self._sent[1]
        self._sent = None
        file = file_of(body)
        if file is not None:
            self._echo = body[0] if self._echoes and isinstance(body[0], memoryview) else None
            return file
        file = await asyncio.to_thread(MemoryFile.holding, body, size)
        if len(body) == 1 and isinstance(body[0], memoryview) and body[0].readonly:
            self._sent = (body[0], file)
        if self._echoes:
            self._echo = file.view(size)
        return file

    async def _send_files(self, head: Buffer, files: list[int]) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                done = socket.send_fds(self._socket, [head], files)
                break
            except BlockingIOError:
                writable = asyncio.Event()
                loop.add_writer(self._socket, writable.set)
                try:
                    await writable.wait()
                finally:
                    loop.remove_writer(self._socket)
        await loop.sock_sendall(self._socket, memoryview(head)[done:])

    async def receive(self, limit: int | None = None) -> tuple[dict[str, Any], memoryview]:
        """Receive one frame: its header object and its body, of at most ``limit`` bytes where one is given."""
        most = self._body_limit if limit is None else min(limit, self._body_limit)
        head = await self._read(HEAD_BYTES)
        try:
            header_bytes, body_bytes, marks = decode_head(head, most)
            header = parse_header(await self._read(header_bytes))
            if marks:
                return header, self._echoed(body_bytes) if marks == ECHO else self._in_room(body_bytes, marks)
        except FrameError as error:
            code = "session-frame-size" if error.code == "frame-body-too-large" else None
            raise SessionFrameError("the job's session sent a malformed frame", code=code, detail=error.code) from None
        except UnsealedError as error:
            raise SessionFrameError(
                "the job's session sent a malformed frame", code=error.code, detail="frame-unsealed"
            ) from None
        body = Body(body_bytes, self._spool)
        await self._fill(body)
        return header, body.view

    def _echoed(self, size: int) -> memoryview:
        if self._echo is None or size != len(self._echo):
            raise SessionFrameError("the job's session sent a malformed frame", detail="frame-echo")
        return self._echo

    def _in_room(self, size: int, marks: int) -> memoryview:
        room, self._room = self._room, None
        if marks != IN_FILE or room is None or not 0 < size <= room.size:
            raise SessionFrameError("the job's session sent a malformed frame", detail="frame-file")
        try:
            room.seal()
            return room.view(size)
        finally:
            room.close()

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
