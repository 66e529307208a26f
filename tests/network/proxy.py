"""A TCP proxy as companies have them between a plant and the world: it cuts idle streams, or any, or goes silent."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

LOOK_SECONDS = 0.02


class Proxy:
    """Forwards connections to a port of this machine.

    Args:
        idle: seconds after which a connection that carries nothing is cut.
        most: bytes after which a connection is cut, in the middle of whatever it carries.
    """

    def __init__(self, target: int, *, idle: float | None = None, most: int | None = None) -> None:
        self.target = target
        self.idle = idle
        self.most = most
        self.silent = False
        self.port = 0
        self.connections = 0
        self.cuts = 0
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            return
        both = {writer, back}
        self._open |= both
        # Looks, and not the clock: while the whole machine stands still, nobody is idle.
        state = {"looks": 0, "carried": 0}

        async def forward(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError):
                while data := await source.read(65536):
                    while self.silent:
                        await asyncio.sleep(0.01)
                    state["looks"] = 0
                    state["carried"] += len(data)
                    if self.most is not None and state["carried"] > self.most:
                        self.cuts += 1
                        return
                    target.write(data)
                    await target.drain()

        async def watch() -> None:
            while self.idle is None or state["looks"] * LOOK_SECONDS < self.idle:
                await asyncio.sleep(LOOK_SECONDS)
                state["looks"] += 1
            self.cuts += 1

        tasks = [asyncio.create_task(one) for one in (forward(reader, back), forward(there, writer), watch())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._open -= both
            for one in both:
                one.transport.abort()  # RST, as a box that forgot the connection answers

    def cut(self) -> None:
        """Cut every connection now."""
        for writer in self._open:
            writer.transport.abort()

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[Proxy]:
        """Listen for the duration of the block."""

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.ensure_future(self._serve(reader, writer))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        server = await asyncio.start_server(serve, "127.0.0.1", self.port)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            self.silent = False
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
