"""The asker's side of bilateral actions, each in a sandbox of its own: weights encrypted, answers opened, keys blinded.

The secret of a score is bytes to us, in memory, for one opening: it is written nowhere, so that nothing of the encryption but
the figure outlives the question.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from federation.errors import UnavailableError
from federation.query import unpack_parts
from federation.wire import bilateral
from federation.wire.bilateral import IntersectionSession, Numbers, ScoringSession
from federation.wire.session_channel import SessionChannel, SessionEndedError, SessionFrameError
from sandbox import Limits, Runtime, SandboxError, SessionSpec, Tier, open_session

T = TypeVar("T")
SECONDS = 600.0
"""Longest that one of these sessions may take: 50,000 keys, three times a millisecond each."""
_BODY = 64 * 2**20


class BilateralSessionError(UnavailableError):
    """No sandbox for an asker's own part can be had here, or it ended."""

    code = "sandbox-unavailable"


@dataclass(frozen=True)
class Encrypted:
    """A model's coefficients under a fresh key.

    Attributes:
        secret: opens one result.
    """

    context: bytes
    rotations: bytes
    model: bytes
    secret: bytes = field(repr=False)


def encrypt(runtime: Runtime, tier: Tier, coefficients: Numbers) -> Encrypted:
    """Encrypt coefficients under a key made for them."""

    async def work(channel: SessionChannel) -> Encrypted:
        session = ScoringSession(channel)
        context, rotations, secret = await session.keys()
        await session.take(context)
        return Encrypted(context, rotations, await session.encrypt(coefficients), secret)

    return _in_session(runtime, tier, bilateral.SCORING, work)


def open_result(runtime: Runtime, tier: Tier, secret: bytes, answer: bytes) -> tuple[float, float]:
    """The two figures of a score, rounded; nothing else of what was decrypted leaves the session."""

    async def work(channel: SessionChannel) -> tuple[float, float]:
        session = ScoringSession(channel)
        await session.take(secret, secret=True)
        return await session.open(unpack_parts(answer))

    return _in_session(runtime, tier, bilateral.SCORING, work)


def answer_blinded(
    runtime: Runtime, tier: Tier, blinded: Sequence[memoryview], keys: Sequence[str]
) -> tuple[int, list[bytes]]:
    """How many distinct keys there are; the asker's own keys under a fresh secret, and a node's two lists under it, too."""

    async def work(channel: SessionChannel) -> tuple[int, list[bytes]]:
        count, made = await IntersectionSession(channel).answer(blinded, keys)
        return count, [bytes(one) for one in made]

    return _in_session(runtime, tier, bilateral.INTERSECTION, work)


def _in_session(
    runtime: Runtime, tier: Tier, arguments: tuple[str, ...], work: Callable[[SessionChannel], Awaitable[T]]
) -> T:
    # in a thread: a notebook has an event loop of its own already
    with ThreadPoolExecutor(1, "bilateral") as thread:
        return thread.submit(lambda: asyncio.run(_run(runtime, tier, arguments, work))).result()


async def _run(
    runtime: Runtime, tier: Tier, arguments: tuple[str, ...], work: Callable[[SessionChannel], Awaitable[T]]
) -> T:
    limits = Limits(memory_bytes=bilateral.MEMORY_BYTES, wall_seconds=SECONDS)
    spec = SessionSpec(runtime, arguments, env={"OMP_NUM_THREADS": "1"}, limits=limits, tier=tier)
    try:
        session = await asyncio.to_thread(open_session, spec)
    except SandboxError as error:
        raise BilateralSessionError(
            error.template, hint=error.hint_template, code=BilateralSessionError.code, **error.params
        ) from None
    try:
        async with asyncio.timeout(SECONDS):
            return await work(SessionChannel(session.channel, body_limit=_BODY, spool=None))
    except (SessionEndedError, SessionFrameError, TimeoutError):
        raise BilateralSessionError("the session that encrypts and decrypts ended", code="cipher-session") from None
    finally:
        await asyncio.to_thread(session.close)
