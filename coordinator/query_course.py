"""The course of a query on the coordinator: flags of all nodes, then the cells that they open, encrypted throughout.

It runs no code of anybody, and never holds a sum: the flags stay under what the nodes alone know, the cells under the asker's
key. What it adds up is parsed in a session of its own.
"""

from __future__ import annotations

import asyncio
import contextlib

import numpy as np

from coordinator.adders import Adder, Adders
from coordinator.exchange import Exchange, RoundFailedError
from coordinator.rounds import Rounds
from coordinator.sums import CipherSum, FlagSum, Sum
from federation.errors import KeyongError
from federation.jobs.codec import Content, describe
from federation.statements import JobPlan
from federation.statements.code import CodeBundle
from sandbox import Tier

ANSWER_FILE = "answer.bfv"
CONTEXT_FILE = "context.bfv"


class QueryCourse:
    """One query.

    Args:
        code: the plan's bundle, which holds the asker's public context.
    """

    def __init__(self, plan: JobPlan, code: bytes, adders: Adders, tier: Tier) -> None:
        if plan.query is None:
            raise ValueError("the plan asks no query")
        self._plan, self._query = plan, plan.query
        self._context = CodeBundle.from_bytes(code).files.get(CONTEXT_FILE, b"")
        self._adders, self._tier = adders, tier
        self._adder: Adder | None = None
        self._taken = False
        """Whether the session has a context, and nothing that it added."""
        self._done = False

    async def open(self) -> None:
        """Have a session that adds, with a context; raises ServerUnavailableError where there is no sandbox for it."""
        self._adder = await self._adders.take(self._plan.requester, self._tier)
        self._taken = self._adder.ready
        if not self._taken:
            # One that is none shows with the first ciphertexts, as the nodes' refusal.
            with contextlib.suppress(KeyongError):
                await self._begin()
                self._taken = True

    def sums(self, exchange: Exchange) -> Sum:
        """What an exchange's vectors are added to."""
        if exchange.stage == "flags":
            return FlagSum(self._query)
        if self._adder is None:
            raise ValueError("the session is not open")
        return CipherSum(self._query, self._adder.cipher, self._begin)

    async def _begin(self) -> None:
        """Have the session begin from nothing, as it does with a context."""
        taken, self._taken = self._taken, False
        if not taken and self._adder is not None:
            await self._adder.cipher.take(self._context)

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
        self._done = True
        return cells.contributed, bytes(cells.body)

    async def close(self, opening: asyncio.Task[None]) -> None:
        """Give the session back; it is ended where the query ended otherwise than it should."""
        with contextlib.suppress(KeyongError, asyncio.CancelledError):
            await asyncio.shield(opening)
        adder, self._adder = self._adder, None
        if adder is not None and self._done:
            await self._adders.keep(self._plan.requester, adder)
        elif adder is not None:
            await adder.close()


def _joined(buffers: list[memoryview]) -> memoryview:
    return memoryview(b"".join(buffers))
