"""The job's server part: Flower code in a sandbox session, its Grid a proxy to this trusted process (invariant 4)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from federation.errors import KeyongError, UnavailableError
from federation.wire.body import Buffer
from federation.wire.session_channel import SessionChannel, SessionEndedError
from sandbox import Limits, Mount, Runtime, SandboxError, Session, SessionSpec, open_session

WORK_BYTES = 512 * 1024 * 1024


class ServerPartError(KeyongError):
    """The app's server part failed; its traceback is the requester's to see, for it holds no company's data."""

    code = "server-part"


class ServerSession:
    """A running server part."""

    def __init__(self, session: Session, channel: SessionChannel) -> None:
        self._session = session
        self._channel = channel

    @classmethod
    async def open(
        cls,
        app: Path,
        runtime: Runtime,
        start: Mapping[str, Any],
        *,
        memory_bytes: int,
        wall_seconds: float,
        spool: Path,
    ) -> ServerSession:
        """Open the sandbox and hand the app its start; raises ServerUnavailableError where isolation cannot be had."""
        spec = SessionSpec(
            runtime=runtime,
            argv=("-m", "keyong_job", "server"),
            mounts=(Mount(app, "/app"),),
            scratch={"/work": WORK_BYTES},
            env={"OMP_NUM_THREADS": "1", "FLWR_TELEMETRY_ENABLED": "0"},
            limits=Limits(memory_bytes=memory_bytes, wall_seconds=wall_seconds),
        )
        try:
            session = await asyncio.to_thread(open_session, spec)
        except SandboxError as error:
            raise ServerUnavailableError(error.template, hint=error.hint_template, **error.params) from None
        opened = cls(session, SessionChannel(session.channel, body_limit=2**36, spool=spool))
        await opened.send(dict(start))
        return opened

    async def send(self, header: dict[str, Any], body: Sequence[Buffer] = ()) -> None:
        """Send a frame to the server part."""
        await self._channel.send(header, body)

    async def receive(self) -> tuple[dict[str, Any], memoryview]:
        """The next frame; raises ServerPartError where the process ended or hit a limit."""
        try:
            return await self._channel.receive()
        except SessionEndedError:
            ending = await asyncio.to_thread(self._session.wait, 5.0)
            limit = ending.limit if ending is not None else None
            if limit:
                raise ServerPartError("the server part hit its limit of {limit}", limit=limit) from None
            raise ServerPartError("the server part ended without a result") from None

    def output(self) -> tuple[bytes, bytes]:
        """What it printed: stdout and stderr, capped."""
        return self._session.stdout(), self._session.stderr()

    async def close(self) -> None:
        """End it at once."""
        await asyncio.to_thread(self._session.kill)
        await asyncio.to_thread(self._session.close)


class ServerUnavailableError(UnavailableError):
    """No sandbox for the server part can be had here."""

    code = "sandbox-unavailable"
