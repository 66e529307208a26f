"""The asker's side of the encryption: a fresh key pair for each query, and its answer opened; in two sandboxes.

What makes keys never reads a byte from outside, and what parses answers makes no keys, so that no answer can have its way with
a later query's key. The secret key is bytes to us. Both sandboxes stay for the next query until they are closed; while an answer
is on its way, what will open it takes its key, and the next pair is made. Each pair serves one query.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from federation.errors import UnavailableError
from federation.wire import cipher
from federation.wire.cipher import CipherRefusedError, CipherSession
from federation.wire.loop import new_event_loop
from federation.wire.session_channel import SessionChannel, SessionEndedError, SessionFrameError
from sandbox import Limits, Runtime, SandboxError, Session, SessionSpec, Tier, open_session

T = TypeVar("T")
Pair = tuple[bytes, bytes]
SECONDS = 300.0
"""Longest that a key pair or an answer may take."""
LIFE_SECONDS = 8 * 3600.0
"""Longest that a connection keeps one sandbox; a new one takes its place."""
_BODY = 256 * 2**20


class CipherUnavailableError(UnavailableError):
    """No sandbox for the encryption can be had here, or it ended."""

    code = "sandbox-unavailable"


class Ciphers:
    """Makes key pairs and opens answers; use it as a context, or `close` it.

    Args:
        ahead: whether there will be further queries, whose pairs are made while an answer is awaited.

    Raises:
        CipherUnavailableError: from any use, where there is no sandbox for it.
    """

    def __init__(self, runtime: Runtime, tier: Tier, *, ahead: bool = False) -> None:
        self._maker = _Sandboxed(runtime, tier, "key-maker")
        self._opener = _Sandboxed(runtime, tier, "answer-opener")
        self._ahead = ahead
        self._next: Future[Pair] | None = None
        self._holds: tuple[bytes, CipherSession] | None = None
        """The key that the opener holds, and the session of its that took it; told in the opener's own thread."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def prepare(self) -> None:
        """Begin to make the next pair, and to start what will open its answer, so that nobody waits for either."""
        if self._next is None:
            self._next = self._maker.submit(lambda session: session.keys())
            self._opener.start()

    def keys(self) -> Pair:
        """A fresh public context, and the secret one; never the same twice."""
        self.prepare()
        assert self._next is not None
        made, self._next = self._next, None
        return made.result()

    def expect(self, secret: bytes) -> None:
        """An answer under this key is on its way; nobody waits for this, and what is wrong shows with the answer."""
        self._opener.submit(lambda session: self._take(session, secret))
        if self._ahead:
            self.prepare()

    def open(self, secret: bytes, parts: Sequence[memoryview]) -> NDArray[np.uint64]:
        """The elements of an answer.

        Raises:
            CipherRefusedError: the answer is not one that additions alone can have made.
        """
        return self.opening(secret, parts).result()

    def opening(self, secret: bytes, parts: Sequence[memoryview]) -> Future[NDArray[np.uint64]]:
        """Begin to open an answer; its elements, or what :meth:`open` raises, are the future's."""

        async def opened(session: CipherSession) -> NDArray[np.uint64]:
            await self._take(session, secret)
            return await session.decrypt(parts)

        return self._opener.submit(opened)

    async def _take(self, session: CipherSession, secret: bytes) -> None:
        if self._holds is None or self._holds[0] != secret or self._holds[1] is not session:
            self._holds = None
            await session.take(secret, secret=True)
            self._holds = (secret, session)

    def close(self) -> None:
        """End both sandboxes; a pair that nobody took is forgotten."""
        self._next = self._holds = None
        self._maker.close()
        self._opener.close()


class _Sandboxed:
    """One sandbox with a thread and an event loop of its own (a notebook has one already); opened with its first use."""

    def __init__(self, runtime: Runtime, tier: Tier, name: str) -> None:
        self._runtime = runtime
        self._tier = tier
        self._thread = ThreadPoolExecutor(1, name)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._session: Session | None = None
        self._cipher: CipherSession | None = None

    def submit(self, work: Callable[[CipherSession], Awaitable[T]]) -> Future[T]:
        """Have some work done in the sandbox, after what was submitted before."""
        return self._thread.submit(self._do, work)

    def start(self) -> None:
        """Open the sandbox, so that the first use need not; what is wrong with it shows there."""
        self._thread.submit(self._opened)

    def close(self) -> None:
        """End the sandbox, once what was submitted is done."""
        self._thread.submit(self._end).result()
        self._thread.shutdown()

    def _do(self, work: Callable[[CipherSession], Awaitable[T]]) -> T:
        ciphers = self._opened()
        assert self._loop is not None

        async def bounded() -> T:
            async with asyncio.timeout(SECONDS):
                return await work(ciphers)

        try:
            return self._loop.run_until_complete(bounded())
        except CipherRefusedError:
            raise
        except (SessionEndedError, SessionFrameError, TimeoutError):
            self._end()
            raise CipherUnavailableError(
                "the session that encrypts and decrypts ended", code="cipher-session"
            ) from None
        except BaseException:
            self._end()
            raise

    def _opened(self) -> CipherSession:
        if self._cipher is not None and self._session is not None and self._session.ending is None:
            return self._cipher
        self._end()
        limits = Limits(memory_bytes=cipher.MEMORY_BYTES, wall_seconds=LIFE_SECONDS)
        spec = SessionSpec(
            self._runtime, cipher.ARGUMENTS, env={"OMP_NUM_THREADS": "1"}, limits=limits, tier=self._tier
        )
        try:
            self._session = open_session(spec)
        except SandboxError as error:
            raise CipherUnavailableError(
                error.template, hint=error.hint_template, code=CipherUnavailableError.code, **error.params
            ) from None
        self._loop = new_event_loop()
        self._cipher = CipherSession(SessionChannel(self._session.channel, body_limit=_BODY, spool=None))
        return self._cipher

    def _end(self) -> None:
        session, self._session, self._cipher = self._session, None, None
        if session is not None:
            session.close()
        loop, self._loop = self._loop, None
        if loop is not None:
            loop.close()
