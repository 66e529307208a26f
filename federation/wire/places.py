"""Places for large answers: a few arrive at a time, the others wait at their senders.

What arrives faster than it is hashed and written lies in gRPC's buffers and in pieces on their way to the disk, some
megabytes a link: a coordinator's memory would grow with the number of nodes that answer at once. So whoever asks holds
back the body of a large answer (:data:`~federation.wire.body.MEMORY_BYTES`) until there is a place for it. Only that
body waits, at its sender: every other exchange of its link goes on.

A place is for what is fast. A body that brings less than :data:`LEAST_BYTES` in :data:`LOOK_SECONDS` piles up nothing; it goes
on, and its place is another's. So no place is held for longer by a slow line, or by an end that died or never sends.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Callable

MOST_PLACES = 8
"""The bodies of more than so many links cannot be taken at a time by one event loop, whatever the machine."""
LOOK_SECONDS = 0.5
LEAST_BYTES = 8 * 1024 * 1024
"""16 MiB a second: a line of 134 Mbit/s."""


def places_here() -> int:
    """Places for the machine: one more than it has cores, for while one body waits for its line, others are written."""
    return min(len(os.sched_getaffinity(0)) + 1, MOST_PLACES)


class Place:
    """One body's wait, then its place, until it is left.

    Args:
        job: on whose behalf it is asked for.
        let_in: called once, when there is a place.
    """

    def __init__(self, places: Places, job: str, let_in: Callable[[], None]) -> None:
        self._places = places
        self.job = job
        self._let_in: Callable[[], None] | None = let_in
        self._came = 0
        self._timer: asyncio.TimerHandle | None = None

    def moved(self, count: int) -> None:
        """So many bytes of the body have arrived."""
        self._came += count

    def begin(self) -> None:
        """There is a place from now on."""
        self._look()
        let_in, self._let_in = self._let_in, None  # it knows the body, which would live until cycles are collected
        if let_in is not None:
            let_in()

    def leave(self) -> None:
        """The body is there, or given up; without complaint where its place is another's already."""
        self._let_in = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._places.left(self)

    def _look(self) -> None:
        """Keep the place while the body comes fast."""
        self._came = 0
        self._timer = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._judge)

    def _judge(self) -> None:
        if self._came < LEAST_BYTES:
            self.leave()
        else:
            self._look()


class Places:
    """So many places, for all links of a process. Next is the job that holds the fewest; of several such, the one that was
    served longest ago; within a job, who asked first.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._held: set[Place] = set()
        self._waiting: dict[str, list[Place]] = {}
        self._served: dict[str, int] = {}
        self._turn = 0

    def ask(self, job: str, let_in: Callable[[], None]) -> Place:
        """Wait for a place from now on; where one is free, ``let_in`` is called before this returns."""
        place = Place(self, job, let_in)
        self._waiting.setdefault(job, []).append(place)
        self._fill()
        return place

    def left(self, place: Place) -> None:
        """A place is free, or nobody waits for it any more."""
        waiting = self._waiting.get(place.job, [])
        if place in waiting:
            waiting.remove(place)
            self._tidy(place.job)
        if place in self._held:
            self._held.remove(place)
            self._tidy(place.job)
            self._fill()

    def _fill(self) -> None:
        while self._waiting and len(self._held) < self.count:
            holding = Counter(place.job for place in self._held)
            job = min(self._waiting, key=lambda one: (holding[one], self._served.get(one, 0)))
            place = self._waiting[job].pop(0)
            self._turn += 1
            self._served[job] = self._turn
            self._held.add(place)
            self._tidy(job)
            place.begin()

    def _tidy(self, job: str) -> None:
        """Forget a job that neither waits nor holds anything."""
        if job in self._waiting and not self._waiting[job]:
            del self._waiting[job]
        if job not in self._waiting and all(place.job != job for place in self._held):
            self._served.pop(job, None)
