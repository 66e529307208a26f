"""What happens in jobs, told to whoever waits for it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from coordinator.store import CoordinatorStore, NewEvent
from federation.home import now
from federation.statements import instant_text
from federation.wire import messages as m

PAGE_BYTES = 1024 * 1024
"""Of events in one answer, at least one event; a header takes three times as much."""
EVENT_BYTES = 256 * 1024
GATHER_SECONDS = 0.25
"""A follower is told of what comes within this time together: rounds may be faster, and nobody reads faster. Of a job's end it
is told at once."""


Told = Callable[[str, str, Mapping[str, Any]], None]
"""Hears of an event: the job, its kind and its data."""


class EventFeed:
    """Keeps events and wakes those who wait; nothing is held for a job that nobody waits for."""

    def __init__(self, store: CoordinatorStore) -> None:
        self._store = store
        self.observe: Told = lambda job, kind, data: None
        """Told of every event once it is durable."""
        self._waiting: dict[str, asyncio.Event] = {}
        self._ending: dict[str, asyncio.Event] = {}
        self._newest: dict[str, int] = {}
        """Number of the last event of each job that goes on: who has it needs no look into the store."""
        self._coming: list[tuple[NewEvent, asyncio.Future[int]]] = []
        self._adding: asyncio.Task[None] | None = None

    def begin(self, job: str) -> None:
        """Know of a job that it has no event yet: who waits for its first needs no look into the store."""
        self._newest.setdefault(job, 0)

    async def tell(self, job: str, kind: str, data: dict[str, Any]) -> None:
        """Append an event; it is durable when this returns. What is told while others are written goes in one with the next."""
        added: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._coming.append((NewEvent(job, instant_text(now()), kind, _fit(data)), added))
        if self._adding is None or self._adding.done():
            self._adding = asyncio.create_task(self._add())
        number = await added
        self._newest[job] = max(number, self._newest.get(job, 0))
        self.observe(job, kind, data)
        self._wake(job)

    async def _add(self) -> None:
        while self._coming:
            batch, self._coming = self._coming, []
            if not await self._put(batch, last=len(batch) == 1):
                for one in batch:  # each for itself: what is wrong with one job's event is no other's fault
                    await self._put([one], last=True)

    async def _put(self, batch: list[tuple[NewEvent, asyncio.Future[int]]], *, last: bool) -> bool:
        """Write some events, all or none; whether they are. After the last try whoever told them is told why not."""
        try:
            numbers = await asyncio.to_thread(self._store.add_events, [event for event, _ in batch])
        except Exception as error:
            for _, added in batch:
                if last and not added.done():
                    added.set_exception(error)
            return False
        for (_, added), number in zip(batch, numbers, strict=True):
            if not added.done():  # whoever told it may have been cancelled meanwhile
                added.set_result(number)
        return True

    async def end(self, job: str, status: str, rounds_done: int, data: dict[str, Any]) -> None:
        """Append a job's last event and set its last status."""
        await asyncio.to_thread(self._store.end_job, job, status, rounds_done, instant_text(now()), _fit(data))
        self._newest.pop(job, None)
        self.observe(job, status, data)
        self._wake(job)
        if (ending := self._ending.pop(job, None)) is not None:
            ending.set()

    def _wake(self, job: str) -> None:
        if (waiting := self._waiting.pop(job, None)) is not None:
            waiting.set()

    async def _gather(self, job: str) -> None:
        """Let more events of a job come; returns as soon as it has ended."""
        if job in self._newest:
            ending = self._ending.setdefault(job, asyncio.Event())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GATHER_SECONDS):
                    await ending.wait()

    async def after(self, job: str, number: int, wait: float) -> m.Events:
        """A job's events after a number; where there is none yet, up to ``wait`` seconds are given it to come."""
        # Taken before the store is read: an event that comes in between is either read or has set it.
        coming = self._waiting.setdefault(job, asyncio.Event())
        try:
            if not wait or self._newest.get(job, number + 1) > number:
                found = await self._read(job, number)
                if found.events or not wait or found.status not in ("submitted", "running"):
                    return found
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await coming.wait()
                await self._gather(job)
            return await self._read(job, number)
        finally:
            if not coming.is_set() and self._waiting.get(job) is coming:
                # Others that wait on the same one are woken, look again and wait anew: rare, and nothing stays behind.
                self._wake(job)

    async def _read(self, job: str, number: int) -> m.Events:
        status, rows = await asyncio.to_thread(self._store.events, job, number)
        events: list[m.Event] = []
        size = 0
        for row in rows:
            size += len(row.data.encode()) + 200
            if events and size > PAGE_BYTES:
                break
            events.append(m.Event(number=row.number, time=row.time, kind=row.kind, data=json.loads(row.data)))
        return m.Events(events=tuple(events), status=status)


def _fit(data: dict[str, Any]) -> dict[str, Any]:
    fit: dict[str, Any] = _finite(data)
    if len(json.dumps(fit)) > EVENT_BYTES:
        return {key: value for key, value in fit.items() if len(json.dumps(value)) <= 4096}
    return fit


def _finite(value: Any) -> Any:
    """JSON has no NaN; a metric that is one is shown as null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
