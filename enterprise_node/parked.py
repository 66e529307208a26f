"""Engines that stay after their query: the next one under the same agreement finds its rows loaded.

One is kept for a key: asker, agreement, dataset as it is described, data version, rules, columns, isolation. It holds what that
agreement shows to that asker, has run nothing but this node's own statements, and is ended with the agreement, or when nobody
asked for some minutes. Its encryption stays with it and is given the next context of the same asker. What a database gives is
read anew for each query and never kept.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from enterprise_node.query_session import Key, QuerySession

PARKED_SECONDS = 600.0
"""How long an engine waits for the next query."""
MOST_PARKED = 4
"""Engines kept at once; the one that waited longest gives way."""


@dataclass
class Parked:
    """The engines of one node that wait."""

    clock: Callable[[], float] = time.monotonic
    _waiting: dict[Key, tuple[QuerySession, float]] = field(default_factory=dict)
    _closed: bool = False

    def take(self, key: Key) -> QuerySession | None:
        """The engine for a key, which is the caller's from now on; None where none waits."""
        session, _ = self._waiting.pop(key, (None, 0.0))
        return session if session is not None and session.live else None

    async def park(self, session: QuerySession) -> None:
        """Keep an engine that is still live; ends it where it is not."""
        key = session.key
        if key is None or self._closed or not session.live or key in self._waiting:
            await session.close()
            return
        self._waiting[key] = (session, self.clock() + PARKED_SECONDS)
        while len(self._waiting) > MOST_PARKED:
            oldest = min(self._waiting, key=lambda one: self._waiting[one][1])
            await self._end(oldest)

    def ended(self, ended: Callable[[str], object]) -> set[str]:
        """Those of their agreements that carry nothing now; asks the store."""
        return {agreement for agreement in {key.agreement for key in list(self._waiting)} if ended(agreement)}

    def strike(self, agreement: str) -> None:
        """Send the processes of an agreement's engines their end; a sweep takes them away."""
        for key, (session, _) in self._waiting.items():
            if key.agreement == agreement:
                session.strike()

    async def sweep(self, ended: Callable[[str], bool]) -> None:
        """End those whose agreement ended or whose time is over."""
        now = self.clock()
        over = [
            key
            for key, (session, until) in self._waiting.items()
            if now > until or not session.live or ended(key.agreement)
        ]
        await asyncio.gather(*(self._end(key) for key in over))

    async def close(self) -> None:
        """End them all; none is kept any more."""
        self._closed = True
        await asyncio.gather(*(self._end(key) for key in list(self._waiting)))

    async def _end(self, key: Key) -> None:
        session, _ = self._waiting.pop(key, (None, 0.0))
        if session is not None:
            session.strike()
            await session.close()
