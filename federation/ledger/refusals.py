"""Refusals that came before anything else was written, on record without end but not without bound.

Anybody who can reach a service can be refused, as often as they like; the ledger is for ever. So refusals are written
one by one up to a rate, and beyond it counted: the next entry that is written says how many came between (invariant 2:
what is not written singly is written as a number). Only a crash loses the count since the last entry.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from types import MappingProxyType

from federation.ledger.ledger import Ledger
from federation.ledger.writer import Appended

BURST = 100
"""Refusals written one by one before the rate applies."""
SECONDS_EACH = 6.0
"""One more may be written after this time: at most 10 a minute, 14,400 entries a day, under attack."""
_CODES = 50


class Refusals:
    """A service's entries of what it refused.

    Args:
        clock: seconds that only rise.
        kind: of the entries.
        every: fields that each entry has.
    """

    def __init__(
        self,
        ledger: Ledger,
        clock: Callable[[], float],
        kind: str = "denied",
        every: Mapping[str, object] = MappingProxyType({}),
    ) -> None:
        self._ledger = ledger
        self._clock = clock
        self._kind = kind
        self._every = every
        self._tokens = float(BURST)
        self._filled = clock()
        self._counted: Counter[str] = Counter()
        self._lock = asyncio.Lock()

    async def write(self, code: str, fields: Mapping[str, object]) -> Appended | None:
        """Write one refusal and return its entry; None where it was only counted.

        Raises:
            LedgerUnavailableError: it could not be written; it is counted.
        """
        async with self._lock:
            if not self._take():
                self._count(code)
                return None
            counted, self._counted = self._counted, Counter()
            more = {"counted": dict(counted)} if counted else {}
            try:
                return await self._append({"code": code, **fields, **more})
            except BaseException:
                self._counted.update(counted)
                self._count(code)
                raise

    async def flush(self) -> None:
        """Write what was only counted, before the ledger closes."""
        async with self._lock:
            if self._counted:
                counted, self._counted = self._counted, Counter()
                await self._append({"code": "too-many-refusals", "counted": dict(counted)})

    async def _append(self, fields: Mapping[str, object]) -> Appended:
        return await asyncio.wrap_future(self._ledger.submit(self._kind, {**self._every, **fields}))

    def _count(self, code: str) -> None:
        known = code in self._counted or len(self._counted) < _CODES
        self._counted[code if known else "other"] += 1

    def _take(self) -> bool:
        now = self._clock()
        self._tokens = min(float(BURST), self._tokens + (now - self._filled) / SECONDS_EACH)
        self._filled = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
