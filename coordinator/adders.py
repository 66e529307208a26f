"""Sessions that add ciphertexts, kept between the queries of one member: each sees ciphertexts alone.

What parses ciphertexts is a sandbox; it is one member's, so that what one asker's context or its nodes' ciphertexts could do to
it reaches nobody else's sums. It is ended when that member asked nothing for some minutes.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace
from pathlib import Path

from coordinator.server_session import ServerUnavailableError
from federation.wire import cipher
from federation.wire.cipher import CipherSession
from federation.wire.session_channel import SessionChannel
from sandbox import Limits, Runtime, SandboxError, Session, SessionSpec, Tier, open_session

MOST_BYTES = 256 * 2**20
LIFE_SECONDS = 3 * 3600.0
"""How long one may be given another query."""
WORK_SECONDS = 3 * 3600.0
"""What a query may take beyond that."""
KEPT_SECONDS = 600.0
"""How long one waits for its member's next query."""
MOST_KEPT = 4


@dataclass(frozen=True)
class Adder:
    """A session that adds, and until when it may be given a query.

    Attributes:
        ready: it holds a context from a query before, and no sum: what it adds under is the same for all, no key is of use to it.
    """

    session: Session
    cipher: CipherSession
    tier: Tier
    until: float
    ready: bool = False

    async def close(self) -> None:
        """End it."""
        await asyncio.to_thread(self.session.close)


class Adders:
    """The adders of one coordinator."""

    def __init__(self, runtime: Runtime, spool: Path) -> None:
        self._runtime = runtime
        self._spool = spool
        self._kept: dict[str, tuple[Adder, asyncio.TimerHandle]] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._closed = False

    async def take(self, member: str, tier: Tier) -> Adder:
        """An adder that is the caller's from now on: the member's own from before, or a new one.

        Raises:
            ServerUnavailableError: there is no sandbox for it.
        """
        kept = self._kept.pop(member, None)
        if kept is not None:
            adder, timer = kept
            timer.cancel()
            if adder.session.ending is None and time.monotonic() < adder.until and adder.tier is tier:
                return adder
            await adder.close()
        limits = Limits(memory_bytes=cipher.MEMORY_BYTES, wall_seconds=LIFE_SECONDS + WORK_SECONDS)
        spec = SessionSpec(self._runtime, cipher.ARGUMENTS, env={"OMP_NUM_THREADS": "1"}, limits=limits, tier=tier)
        try:
            session = await asyncio.to_thread(open_session, spec)
        except SandboxError as error:
            raise ServerUnavailableError(
                error.template, hint=error.hint_template, code=ServerUnavailableError.code, **error.params
            ) from None
        channel = SessionChannel(session.channel, body_limit=MOST_BYTES, spool=self._spool)
        return Adder(session, CipherSession(channel), tier, time.monotonic() + LIFE_SECONDS)

    async def keep(self, member: str, adder: Adder) -> None:
        """Take one back whose query ended as it should; ended at once where there is no place for it."""
        if self._closed or member in self._kept or len(self._kept) >= MOST_KEPT or adder.session.ending is not None:
            await adder.close()
            return
        timer = asyncio.get_running_loop().call_later(KEPT_SECONDS, self._expire, member)
        self._kept[member] = (replace(adder, ready=True), timer)

    def _expire(self, member: str) -> None:
        adder, _ = self._kept.pop(member)
        task = asyncio.ensure_future(adder.close())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def close(self) -> None:
        """End them all; none is kept any more."""
        self._closed = True
        kept, self._kept = self._kept, {}
        for _, timer in kept.values():
            timer.cancel()
        await asyncio.gather(*(adder.close() for adder, _ in kept.values()), *self._ending, return_exceptions=True)
