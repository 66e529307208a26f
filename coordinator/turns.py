"""Whose job is next: members take turns, so that fifty jobs of one do not keep another's one waiting.

Next is the oldest job of the member who has the fewest running; of several such members, of the one who was served
longest ago. So where others wait each has an equal share of what runs, and where nobody does one may have it all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping


class Turns:
    """The waiting jobs. Pure: it knows neither clock nor store."""

    def __init__(self) -> None:
        self._waiting: dict[str, list[str]] = {}
        self._served: dict[str, int] = {}
        self._count = 0

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def add(self, member: str, job: str) -> None:
        """A member's job waits from now on, behind the member's others."""
        self._waiting.setdefault(member, []).append(job)

    def remove(self, member: str, job: str) -> None:
        """A job does not wait any more; without complaint where it did not."""
        jobs = self._waiting.get(member, [])
        if job in jobs:
            jobs.remove(job)
        if not jobs:
            self._waiting.pop(member, None)

    def take(self, running: Mapping[str, int]) -> str:
        """The job whose turn it is; it waits no longer.

        Args:
            running: how many jobs of each member run.
        """
        member = self._next(self._waiting, Counter(running), self._served)
        job = self._waiting[member][0]
        self.remove(member, job)
        self._count += 1
        self._served[member] = self._count
        return job

    def order(self, running: Mapping[str, int]) -> list[str]:
        """All that wait, in the order in which they come to their turn if nobody else comes and nothing ends."""
        waiting = {member: list(jobs) for member, jobs in self._waiting.items()}
        counts, served, at = Counter(running), dict(self._served), self._count
        order = []
        while waiting:
            member = self._next(waiting, counts, served)
            order.append(waiting[member].pop(0))
            if not waiting[member]:
                del waiting[member]
            counts[member] += 1
            at += 1
            served[member] = at
        return order

    @staticmethod
    def _next(waiting: Mapping[str, list[str]], running: Counter[str], served: Mapping[str, int]) -> str:
        return min(waiting, key=lambda member: (running[member], served.get(member, 0)))
