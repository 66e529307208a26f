"""The job's server part: Flower code in a sandbox session, its Grid a proxy to this trusted process (invariant 4)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from federation.errors import KeyongError, UnavailableError
from federation.wire.body import Buffer
from federation.wire.session_channel import SessionChannel, SessionEndedError
from sandbox import Limits, Mount, Runtime, SandboxError, Session, SessionSpec, Tier, open_session

WORK_PLACE = "/work"
"""Where the app works, and whose files are the result; ``keyong_job server`` goes there by ``KEYONG_WORK``."""
FRAME_BYTES = 4 * 2**30
WORK_BYTES = 512 * 1024 * 1024
END_SECONDS = 5.0
"""How long a process may go on that has closed its channel."""


class ServerPartError(KeyongError):
    """The app's server part failed; its traceback is the requester's to see, for it holds no company's data."""

    code = "server-part"


class ServerUnavailableError(UnavailableError):
    """No sandbox for the server part can be had here."""

    code = "sandbox-unavailable"


class ServerSession:
    """A running server part. What is inside may be hostile: it can say anything, nothing, or never listen.

    Args:
        silence_seconds: how long its next frame, or its taking ours, may last; None: as long as the session.
    """

    def __init__(self, session: Session, channel: SessionChannel, silence_seconds: float | None) -> None:
        self._session = session
        self._channel = channel
        self._silence = silence_seconds
        self._last_bytes = 0

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
        silence_seconds: float | None = None,
        tier: Tier = Tier.T2,
    ) -> ServerSession:
        """Open the sandbox and hand the app its start, and where it lies there.

        Raises:
            ServerUnavailableError: the isolation that is demanded cannot be had.
        """
        try:
            spec = SessionSpec(
                runtime=runtime,
                argv=("-m", "keyong_job", "server"),
                mounts=(Mount(app, "/app"),),
                scratch={WORK_PLACE: WORK_BYTES},
                env={"OMP_NUM_THREADS": "1", "FLWR_TELEMETRY_ENABLED": "0", "KEYONG_WORK": WORK_PLACE},
                limits=Limits(memory_bytes=memory_bytes, wall_seconds=wall_seconds),
                tier=tier,
            )
            session = await _opened(spec)
        except SandboxError as error:
            raise ServerUnavailableError(
                error.template, hint=error.hint_template, code=ServerUnavailableError.code, **error.params
            ) from None
        # It could announce what it does not hold, and stream zeros: a frame is a model or a file, never more than this.
        limit = min(memory_bytes, FRAME_BYTES)
        files = limit if session.sees_files else 0
        channel = SessionChannel(session.channel, body_limit=limit, spool=spool, file_limit=files, echoes=True)
        opened = cls(session, channel, silence_seconds)
        try:
            await opened.send({**start, "app": session.path("/app")})
        except BaseException:
            await asyncio.shield(opened.close())
            raise
        return opened

    async def send(self, header: dict[str, Any], body: Sequence[Buffer] = ()) -> None:
        """Send a frame to the server part; raises ServerPartError where it does not take it."""
        async with self._bounded():
            try:
                await self._channel.send(header, body, room=self._last_bytes)
            except SessionEndedError:
                raise await self._ended() from None

    async def receive(self) -> tuple[dict[str, Any], memoryview]:
        """The next frame; raises ServerPartError where the process ended, hit a limit or stays silent."""
        async with self._bounded():
            try:
                header, body = await self._channel.receive()
                self._last_bytes = len(body)  # a model, if any: the next is as large
                return header, body
            except SessionEndedError:
                raise await self._ended() from None

    @contextlib.asynccontextmanager
    async def _bounded(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._silence):
                yield
        except TimeoutError:
            raise ServerPartError(
                "the server part neither sent nor took anything for {seconds} s",
                hint="is there an endless loop in it? a plan with a longer round time gives it more",
                code="server-timeout",
                seconds=int(self._silence or 0),
            ) from None

    async def _ended(self) -> ServerPartError:
        try:
            ending = await asyncio.to_thread(self._session.wait, END_SECONDS)
        except TimeoutError:
            ending = None  # it closed its channel and goes on; or many are being ended, on a busy machine
        if limit := self._session.limit:
            return ServerPartError("the server part hit its limit of {limit}", code=f"limit-{limit}", limit=limit)
        if ending is None:
            return ServerPartError("the server part closed its channel and went on", code="server-ended")
        return ServerPartError(
            "the server part ended without a result (exit code {exit_code})",
            hint="what it printed is in the result: server-stderr.txt",
            code="server-ended",
            exit_code=ending.exit_code,
        )

    def output(self) -> tuple[bytes, bytes]:
        """What it printed: stdout and stderr, capped."""
        return self._session.stdout(), self._session.stderr()

    async def close(self) -> None:
        """End it at once."""
        await asyncio.to_thread(self._session.close)


async def _opened(spec: SessionSpec) -> Session:
    opening = asyncio.ensure_future(asyncio.to_thread(open_session, spec))
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        # The thread cannot be called off; what it opens would run on with nobody to end it.
        with contextlib.suppress(SandboxError):
            session = await opening
            await asyncio.to_thread(session.close)
        raise
