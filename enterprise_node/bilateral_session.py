"""Sessions of bilateral actions on this node: keys beside their secret, and encryption apart from every row."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import TypeVar

from enterprise_node._threads import in_thread
from enterprise_node.session import JobFailedError, JobSession, SandboxUnavailableError, SessionRequest
from federation.wire import bilateral
from federation.wire.bilateral import IntersectionSession, Numbers, ScoringSession
from federation.wire.session_channel import SessionChannel, SessionEndedError, SessionFrameError
from sandbox import Limits, Mount, Runtime, SandboxError, Session, SessionSpec, Tier, open_session

ENVIRONMENT = {"OMP_NUM_THREADS": "1"}
MOST_ANSWER = 64 * 2**20
T = TypeVar("T")


class KeysSession(JobSession):
    """The session of an intersection: it reads the granted column, and holds the secrets it blinded its keys with."""

    def __init__(self, folder: Path, session: Session, channel: SessionChannel, request: SessionRequest) -> None:
        super().__init__(folder, session, channel, request)
        self._data = session.path("/data")
        self._keys = IntersectionSession(channel)

    @classmethod
    async def start(cls, folder: Path, request: SessionRequest, spool: Path) -> KeysSession:
        """Open the sandbox.

        Raises:
            SandboxUnavailableError: the isolation that is demanded cannot be had here.
        """
        spec = SessionSpec(
            runtime=request.runtime,
            argv=bilateral.INTERSECTION,
            mounts=(Mount(request.snapshot.folder, "/data"),),
            env=ENVIRONMENT,
            limits=request.limits,
            tier=request.tier,
        )
        session = await _opened(spec)
        return cls(folder, session, SessionChannel(session.channel, body_limit=MOST_ANSWER, spool=spool), request)

    async def blind(self, column: str, seconds: float) -> list[memoryview]:
        """The keys of a column, blinded twice."""
        return await _told(self._keys.blind(self._data, column), seconds)

    async def size(self, setup: memoryview, responses: Sequence[memoryview], seconds: float) -> tuple[int, int, int]:
        """How many keys both sides have, how many this one, how many the asker."""
        return await _told(self._keys.size(setup, responses), seconds)


async def evaluated(
    runtime: Runtime,
    tier: Tier,
    context: Sequence[bytes],
    model: bytes,
    moments: Numbers,
    spool: Path,
    seconds: float,
) -> list[memoryview]:
    """Moments under noise times encrypted coefficients, in a sandbox that sees nothing else.

    Args:
        context: the asker's public context and rotation keys.

    Raises:
        SandboxUnavailableError: the isolation that is demanded cannot be had here.
        BilateralRefusedError: the asker's bytes are not what they should be.
    """
    limits = Limits(memory_bytes=bilateral.MEMORY_BYTES, wall_seconds=2 * seconds)
    session = await _opened(SessionSpec(runtime, bilateral.SCORING, env=ENVIRONMENT, limits=limits, tier=tier))
    try:
        scoring = ScoringSession(SessionChannel(session.channel, body_limit=MOST_ANSWER, spool=spool))
        await _told(scoring.take(*context), seconds)
        return await _told(scoring.evaluate(model, moments), seconds)
    finally:
        await in_thread(session.close)


async def _opened(spec: SessionSpec) -> Session:
    try:
        return await in_thread(lambda: open_session(spec), undo=lambda one: one.close())
    except SandboxError as error:
        raise SandboxUnavailableError.of(error) from None


async def _told(work: Awaitable[T], seconds: float) -> T:
    try:
        async with asyncio.timeout(seconds):
            return await work
    except (SessionEndedError, SessionFrameError):
        raise JobFailedError("the session of a bilateral action ended", code="app-exception") from None
    except TimeoutError:
        raise JobFailedError("the job took longer than the plan allows", code="limit-wall") from None
