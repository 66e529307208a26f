"""A query's live sessions on this node: the engine beside the snapshot, and apart from it the encryption.

Two sandboxes, so that what parses the asker's bytes sees no row, and what reads rows sees nothing from outside but the node's
own statements.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from enterprise_node._threads import in_thread
from enterprise_node.session import JobFailedError, JobSession, SandboxUnavailableError, SessionRequest
from federation.query import QueryFailedError
from federation.wire import cipher
from federation.wire.cipher import CipherSession
from federation.wire.session_channel import SessionChannel, SessionEndedError, SessionFrameError
from sandbox import Limits, Mount, Runtime, SandboxError, Session, SessionSpec, Tier, open_session

ENGINE = ("-m", "keyong_job", "query")
ENVIRONMENT = {"OMP_NUM_THREADS": "1"}
MOST_ANSWER = 256 * 2**20
Row = list[Any]


class QuerySession(JobSession):
    """The engine's session; ends with the job, and its encryption with it."""

    def __init__(self, folder: Path, session: Session, channel: SessionChannel, request: SessionRequest) -> None:
        super().__init__(folder, session, channel, request)
        self._seconds = request.setup_seconds
        self.encryption: Encryption | None = None

    @classmethod
    async def start(cls, folder: Path, request: SessionRequest, spool: Path) -> QuerySession:
        """Open the sandbox and load the snapshot into the engine.

        Raises:
            SandboxUnavailableError: the isolation that is demanded cannot be had here.
            JobFailedError: the engine does not take the snapshot.
        """
        spec = SessionSpec(
            runtime=request.runtime,
            argv=ENGINE,
            mounts=(Mount(request.snapshot.folder, "/data"),),
            env=ENVIRONMENT,
            limits=request.limits,
            tier=request.tier,
        )
        session = await _opened(spec)
        channel = SessionChannel(session.channel, body_limit=MOST_ANSWER, spool=spool)
        started = cls(folder, session, channel, request)
        try:
            start = {"op": "start", "data": session.path("/data"), "memory_bytes": request.memory_bytes * 3 // 4}
            header, _ = await started._exchange(start, (), request.setup_seconds)
            if header.get("op") != "ready":
                raise JobFailedError("the engine did not take the snapshot", code="app-exception")
        except BaseException:
            await started.close()
            raise
        return started

    async def rows(self, statements: Sequence[str], seconds: float) -> list[list[Row]]:
        """The rows of each statement.

        Raises:
            JobFailedError, QueryFailedError: the engine failed, ended, or sent something else.
        """
        header, body = await self._exchange({"op": "statements", "statements": list(statements)}, (), seconds)
        if header.get("op") != "rows":
            memory = header.get("code") == "out-of-memory"
            raise JobFailedError("the engine failed", code="out-of-memory" if memory else "app-exception")
        try:
            tables = json.loads(bytes(body))["tables"]
            return [[[_value(value) for value in row] for row in table] for table in tables]
        except (ValueError, KeyError, TypeError):
            raise QueryFailedError("the engine's answer is not of its statement", code="query-engine") from None

    def strike(self) -> None:
        """Send the processes of both sessions their end."""
        super().strike()
        if self.encryption is not None:
            self.encryption.strike()

    async def close(self) -> None:
        """End both sessions."""
        if self.encryption is not None:
            await self.encryption.close()
        await super().close()


class Encryption:
    """The encryption's session: it is given the asker's context, and masked vectors."""

    def __init__(self, session: Session, spool: Path) -> None:
        self._session = session
        self._cipher = CipherSession(SessionChannel(session.channel, body_limit=MOST_ANSWER, spool=spool))

    @classmethod
    async def start(cls, runtime: Runtime, tier: Tier, context: bytes, spool: Path, seconds: float) -> Encryption:
        """Open the sandbox and hand it the asker's public context.

        Raises:
            SandboxUnavailableError: the isolation that is demanded cannot be had here.
            CipherRefusedError: the context is not one to encrypt under: other parameters, or a secret key in it.
        """
        limits = Limits(memory_bytes=cipher.MEMORY_BYTES, wall_seconds=seconds)
        session = await _opened(SessionSpec(runtime, cipher.ARGUMENTS, env=ENVIRONMENT, limits=limits, tier=tier))
        started = cls(session, spool)
        try:
            async with asyncio.timeout(seconds):
                await _told(started._cipher.take(context))
        except BaseException:
            await started.close()
            raise
        return started

    async def encrypt(self, elements: Any, seconds: float) -> list[memoryview]:
        """The ciphertexts of a masked vector."""
        async with asyncio.timeout(seconds):
            parts: list[memoryview] = await _told(self._cipher.encrypt(elements))
            return parts

    def strike(self) -> None:
        """Send its processes their end."""
        self._session.strike()

    async def close(self) -> None:
        """End it."""
        await in_thread(self._session.close)


async def _opened(spec: SessionSpec) -> Session:
    try:
        return await in_thread(lambda: open_session(spec), undo=lambda one: one.close())
    except SandboxError as error:
        raise SandboxUnavailableError.of(error) from None


async def _told(work: Any) -> Any:
    try:
        return await work
    except (SessionEndedError, SessionFrameError):
        raise JobFailedError("the encryption's session ended", code="app-exception") from None


def _value(told: Any) -> Any:
    if isinstance(told, dict):
        return float.fromhex(told["f"]) if "f" in told else str(told["s"])
    if told is None or isinstance(told, int):
        return told
    raise ValueError("a value of the engine")
