"""A query's live sessions on this node: the engine beside the snapshot, and apart from it the encryption.

Two sandboxes, so that what parses the asker's bytes sees no row, and what reads rows sees nothing from outside but the node's
own statements.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
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
LIFE_SECONDS = 3 * 3600.0
"""How long a session may be given something new to do."""
SPARE_SECONDS = 3600.0
"""What it may take for that."""
Row = list[Any]


@dataclass(frozen=True)
class Key:
    """What two queries must have in common to be asked of one engine: never another asker, another dataset."""

    requester: str
    agreement: str
    dataset: str
    description: str
    """Digest of the catalog entry, which names the privacy unit and how many rows of one go in."""
    data_version: str
    rules: str
    columns: tuple[str, ...]
    tier: str
    memory_bytes: int


class QuerySession(JobSession):
    """The engine's session; ends with the job, and its encryption with it."""

    def __init__(self, folder: Path, session: Session, channel: SessionChannel, request: SessionRequest) -> None:
        super().__init__(folder, session, channel, request)
        self.encryption: Encryption | None = None
        self.encrypting: asyncio.Task[Encryption] | None = None
        """Makes its encryption ready for the asker's context."""
        self.key: Key | None = None
        """What another query must have in common to be asked of this engine; None where it ends with its job."""
        self.loaded = False
        """Whether columns worked out at load stand beside the snapshot's; a runtime built before they were has none."""
        self._struck = False
        self._until = time.monotonic() + LIFE_SECONDS

    @classmethod
    async def start(
        cls, folder: Path, request: SessionRequest, spool: Path, beside: Sequence[tuple[str, str]] = ()
    ) -> QuerySession:
        """Open the sandbox and load the snapshot into the engine.

        Args:
            beside: what stands beside the snapshot's columns (`federation.query.loaded_columns`).

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
            start = {
                "op": "start",
                "data": session.path("/data"),
                "memory_bytes": request.memory_bytes * 3 // 4,
                "beside": [list(one) for one in beside],
            }
            header, _ = await started._exchange(start, (), request.setup_seconds)
            if header.get("op") != "ready":
                raise JobFailedError("the engine did not take the snapshot", code="app-exception")
            started.loaded = header.get("beside") == len(beside)
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

    async def encrypted(self) -> None:
        """Wait until its encryption holds the asker's context; raises what kept it from that."""
        if self.encrypting is not None:
            self.encryption = await self.encrypting
            self.encrypting = None

    @property
    def live(self) -> bool:
        """Whether its engine can be asked again."""
        return not self._struck and self._session.ending is None and time.monotonic() < self._until

    def log_to(self, folder: Path) -> None:
        """Keep what it prints from now on for another job's owner's log."""
        self._logs = folder

    async def kill(self) -> None:
        """End the session at once."""
        self._struck = True
        await super().kill()

    def strike(self) -> None:
        """Send the processes of both sessions their end."""
        self._struck = True
        super().strike()
        if self.encryption is not None:
            self.encryption.strike()

    async def close(self) -> None:
        """End both sessions."""
        if self.encrypting is not None:
            self.encrypting.cancel()
            (ended,) = await asyncio.gather(self.encrypting, return_exceptions=True)
            self.encrypting, self.encryption = None, ended if isinstance(ended, Encryption) else None
        if self.encryption is not None:
            await self.encryption.close()
        await super().close()


class Encryption:
    """The encryption's session: it is given the asker's context, and masked vectors."""

    def __init__(self, session: Session, spool: Path) -> None:
        self._session = session
        self._until = time.monotonic() + LIFE_SECONDS
        self._cipher = CipherSession(SessionChannel(session.channel, body_limit=MOST_ANSWER, spool=spool))

    @classmethod
    async def start(cls, runtime: Runtime, tier: Tier, spool: Path) -> Encryption:
        """Open the sandbox; it can do nothing until it is given a context.

        Raises:
            SandboxUnavailableError: the isolation that is demanded cannot be had here.
        """
        limits = Limits(memory_bytes=cipher.MEMORY_BYTES, wall_seconds=LIFE_SECONDS + SPARE_SECONDS)
        session = await _opened(SessionSpec(runtime, cipher.ARGUMENTS, env=ENVIRONMENT, limits=limits, tier=tier))
        return cls(session, spool)

    @property
    def live(self) -> bool:
        """Whether it can be given a context."""
        return self._session.ending is None and time.monotonic() < self._until

    async def take(self, context: bytes, seconds: float) -> None:
        """Hand it the asker's public context, in the place of the one before.

        Raises:
            CipherRefusedError: the context is not one to encrypt under: other parameters, or a secret key in it.
        """
        async with asyncio.timeout(seconds):
            await _told(self._cipher.take(context))

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
