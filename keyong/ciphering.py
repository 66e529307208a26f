"""The asker's side of the encryption: a fresh key pair for a query, and its answer opened; each in a sandbox of its own.

The secret key is bytes to us; what uses it, and what parses an answer that came over the coordinator, is the session.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from federation.errors import UnavailableError
from federation.wire import cipher
from federation.wire.cipher import CipherSession
from federation.wire.session_channel import SessionChannel, SessionEndedError, SessionFrameError
from sandbox import Limits, Runtime, SandboxError, SessionSpec, Tier, open_session

T = TypeVar("T")
SECONDS = 300.0
"""Longest that a key pair or an answer may take."""
_BODY = 256 * 2**20


class CipherUnavailableError(UnavailableError):
    """No sandbox for the encryption can be had here, or it ended."""

    code = "sandbox-unavailable"


def make_keys(runtime: Runtime, tier: Tier) -> tuple[bytes, bytes]:
    """A fresh public context, and the secret one.

    Raises:
        CipherUnavailableError: there is no sandbox to make them in.
    """
    return _in_session(runtime, tier, lambda session: session.keys())


def open_answer(runtime: Runtime, tier: Tier, secret: bytes, parts: Sequence[memoryview]) -> NDArray[np.uint64]:
    """The elements of an answer.

    Raises:
        CipherRefusedError: the answer is not one that additions alone can have made.
        CipherUnavailableError: there is no sandbox to open it in.
    """

    async def opened(session: CipherSession) -> NDArray[np.uint64]:
        await session.take(secret, secret=True)
        return await session.decrypt(parts)

    return _in_session(runtime, tier, opened)


def _in_session(runtime: Runtime, tier: Tier, work: Callable[[CipherSession], Awaitable[T]]) -> T:
    # in a thread: a notebook has an event loop of its own already
    with ThreadPoolExecutor(1, "encryption") as thread:
        return thread.submit(lambda: asyncio.run(_run(runtime, tier, work))).result()


async def _run(runtime: Runtime, tier: Tier, work: Callable[[CipherSession], Awaitable[T]]) -> T:
    limits = Limits(memory_bytes=cipher.MEMORY_BYTES, wall_seconds=SECONDS)
    spec = SessionSpec(runtime, cipher.ARGUMENTS, env={"OMP_NUM_THREADS": "1"}, limits=limits, tier=tier)
    try:
        session = await asyncio.to_thread(open_session, spec)
    except SandboxError as error:
        raise CipherUnavailableError(
            error.template, hint=error.hint_template, code=CipherUnavailableError.code, **error.params
        ) from None
    try:
        async with asyncio.timeout(SECONDS):
            return await work(CipherSession(SessionChannel(session.channel, body_limit=_BODY, spool=None)))
    except (SessionEndedError, SessionFrameError, TimeoutError):
        raise CipherUnavailableError("the session that encrypts and decrypts ended", code="cipher-session") from None
    finally:
        await asyncio.to_thread(session.close)
