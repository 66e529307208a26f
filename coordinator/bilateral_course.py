"""The course of a bilateral action on the coordinator: it carries what it cannot read between one node and one asker.

A score is one exchange. An intersection is two, and between them the asker answers what the node blinded: it takes that from
here, with the node's signed receipt, and gives back its own half, which is signed in turn.
"""

from __future__ import annotations

import asyncio

import numpy as np

from coordinator.cohort import Tell
from coordinator.exchange import RoundFailedError
from coordinator.rounds import Rounds
from federation.errors import DeniedError
from federation.jobs.codec import Content, describe
from federation.statements import JobPlan
from federation.wire.body import Buffer
from federation.wire.peer import Incoming, Outgoing

ANSWER_FILE = "answer.sealed"
RECORD = "answer"
PARTS = ("statement", "setup", "first", "second")
ANSWER_SECONDS = 900.0
"""How long an asker may take over a node's blinded keys: a millisecond a key, and the way there and back."""
MOST_BYTES = 16 * 2**20
"""Longest answer of an asker: 50,000 keys of its own and as many of the node's twice take 6 MB."""


class BilateralCourse:
    """One score or intersection; of any other plan it does nothing."""

    def __init__(self, plan: JobPlan) -> None:
        self._plan = plan
        self._blinded: Incoming | None = None
        self._answered: asyncio.Future[bytes] | None = None

    async def run(self, rounds: Rounds, tell: Tell) -> bytes:
        """All exchanges; the node's sealed answer.

        Raises:
            KeyongError: see `Rounds.single`.
            RoundFailedError: the asker gave no answer in time.
        """
        header, buffers = describe(Content())
        if self._plan.score is not None:
            _, incoming = await rounds.single("score", header, _joined(buffers))
            return bytes(incoming.body)
        _, self._blinded = await rounds.single("blind", header, _joined(buffers))
        self._answered = asyncio.get_running_loop().create_future()
        await tell("blinded", {})
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                answer = await self._answered
        except TimeoutError:
            raise RoundFailedError("the asker did not answer the blinded keys", code="asker-silent") from None
        finally:
            self._blinded, self._answered = None, None
        content = Content(arrays={RECORD: dict(zip(PARTS, _cut(answer), strict=True))})
        header, buffers = describe(content)
        _, incoming = await rounds.single("size", header, _joined(buffers))
        return bytes(incoming.body)

    def given(self) -> Outgoing:
        """What the node blinded, with its receipt; raises DeniedError where nothing waits for an answer."""
        if self._blinded is None:
            raise DeniedError("no job of yours waits for an answer", code="not-waiting")
        return Outgoing(self._blinded.header, [self._blinded.body])

    def take(self, answer: memoryview) -> None:
        """Take the asker's half; the first one counts.

        Raises:
            DeniedError: nothing waits for it, or it is none.
        """
        if self._answered is None or self._answered.done():
            raise DeniedError("no job of yours waits for an answer", code="not-waiting")
        if len(answer) > MOST_BYTES:
            raise DeniedError("the answer is longer than any can be", code="message")
        data = bytes(answer)
        _cut(data)
        self._answered.set_result(data)


def _cut(answer: bytes) -> list[np.ndarray[tuple[int], np.dtype[np.uint8]]]:
    """The parts of an answer: lengths first, four bytes each."""
    sizes = np.frombuffer(answer[: 4 * len(PARTS)], dtype="<u4").tolist()
    if len(sizes) != len(PARTS) or sum(sizes) + 4 * len(PARTS) != len(answer):
        raise DeniedError("the answer is not made of its parts", code="message")
    at, parts = 4 * len(PARTS), []
    for size in sizes:
        parts.append(np.frombuffer(answer[at : at + size], dtype=np.uint8))
        at += size
    return parts


def _joined(buffers: list[memoryview]) -> memoryview:
    joined: Buffer = memoryview(b"".join(buffers))
    return memoryview(joined)
