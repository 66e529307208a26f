"""The course of a query on the coordinator: flags of all nodes, then the cells that they open, encrypted throughout.

It runs no code of anybody, and never holds a sum: the flags stay under what the nodes alone know, the cells under the asker's
key. What it adds up is parsed in a session of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import numpy as np

from coordinator.exchange import Exchange, RoundFailedError
from coordinator.rounds import Rounds
from coordinator.server_session import ServerUnavailableError
from coordinator.sums import CipherSum, FlagSum, Sum
from federation.errors import KeyongError
from federation.jobs.codec import Content, describe
from federation.statements import JobPlan
from federation.statements.code import CodeBundle
from federation.wire import cipher
from federation.wire.cipher import CipherSession
from federation.wire.session_channel import SessionChannel
from sandbox import Limits, Runtime, SandboxError, Session, SessionSpec, Tier, open_session

ANSWER_FILE = "answer.bfv"
CONTEXT_FILE = "context.bfv"
MOST_BYTES = 256 * 2**20


class QueryCourse:
    """One query.

    Args:
        code: the plan's bundle, which holds the asker's public context.
    """

    def __init__(self, plan: JobPlan, code: bytes, runtime: Runtime, tier: Tier, spool: Path) -> None:
        if plan.query is None:
            raise ValueError("the plan asks no query")
        self._plan, self._query = plan, plan.query
        self._context = CodeBundle.from_bytes(code).files.get(CONTEXT_FILE, b"")
        self._runtime, self._tier, self._spool = runtime, tier, spool
        self._session: Session | None = None
        self._cipher: CipherSession | None = None

    async def open(self) -> None:
        """Open the session that adds; raises ServerUnavailableError where there is no sandbox for it."""
        plan = self._plan
        limits = Limits(memory_bytes=cipher.MEMORY_BYTES, wall_seconds=6 * (plan.round_seconds + plan.setup_seconds))
        spec = SessionSpec(
            self._runtime, cipher.ARGUMENTS, env={"OMP_NUM_THREADS": "1"}, limits=limits, tier=self._tier
        )
        try:
            self._session = await asyncio.to_thread(open_session, spec)
        except SandboxError as error:
            raise ServerUnavailableError(
                error.template, hint=error.hint_template, code=ServerUnavailableError.code, **error.params
            ) from None
        channel = SessionChannel(self._session.channel, body_limit=MOST_BYTES, spool=self._spool)
        self._cipher = CipherSession(channel)

    def sums(self, exchange: Exchange) -> Sum:
        """What an exchange's vectors are added to."""
        if exchange.stage == "flags":
            return FlagSum(self._query)
        if self._cipher is None:
            raise ValueError("the session is not open")
        return CipherSum(self._query, self._cipher, self._context)

    async def run(self, rounds: Rounds) -> tuple[list[str], bytes]:
        """Both exchanges; who is in the answer, and the answer's ciphertexts.

        Raises:
            KeyongError: see `Rounds.exchange`.
        """
        header, buffers = describe(Content())
        flags = await rounds.exchange("flags", header, _joined(buffers))
        if flags.body is None:
            raise RoundFailedError("the contributor flags did not open")
        total = np.frombuffer(flags.body, dtype="<u8").astype(np.uint64)
        header, buffers = describe(Content(arrays={"query": {"flags": total}}))
        cells = await rounds.exchange("cells", header, _joined(buffers))
        if cells.body is None:
            raise RoundFailedError("the cells did not open")
        rounds.release()
        return cells.contributed, bytes(cells.body)

    async def close(self, opening: asyncio.Task[None]) -> None:
        """End the session."""
        with contextlib.suppress(KeyongError, asyncio.CancelledError):
            await asyncio.shield(opening)
        if self._session is not None:
            await asyncio.to_thread(self._session.close)


def _joined(buffers: list[memoryview]) -> memoryview:
    return memoryview(b"".join(buffers))
