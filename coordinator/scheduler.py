"""The lives of a coordinator's jobs: waiting for their turn, running, and how each ended, on record."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import structlog

from coordinator.events import EventFeed
from coordinator.exchange import NodesAwayError, ResumeDiffersError
from coordinator.job import Job, JobDeniedError
from coordinator.store import CoordinatorStore
from coordinator.turns import Turns
from federation.errors import KeyongError, UnavailableError
from federation.home import now
from federation.ledger import Ledger
from federation.statements import JobPlan

log = structlog.get_logger("keyong.coordinator")

PLACES_TOLD = 10
"""A queued job hears of its first place, and of every one from here on."""

AGAIN_SECONDS = 1.0
"""Until what could not be written is tried again."""
INTERRUPTED = "interrupted"


@dataclass(eq=False)
class Entry:
    """A job that waits or runs."""

    job: Job
    plan: JobPlan
    digest: str
    place: int = 1
    """In the queue, from 1; 0 where it runs."""
    moved: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None
    cancelling: bool = False


class Scheduler:
    """Runs jobs, at most ``at_once`` at a time, members in turns.

    Args:
        ledger: where the coordinator records what became of each.
    """

    def __init__(self, store: CoordinatorStore, ledger: Ledger, feed: EventFeed, at_once: int) -> None:
        self._store = store
        self._ledger = ledger
        self._feed = feed
        self._at_once = at_once
        self._turns = Turns()
        self.entries: dict[str, Entry] = {}
        self._undoing: set[asyncio.Task[bool]] = set()
        self.stopping = False

    @property
    def running(self) -> int:
        """How many jobs run; those that wait do not count."""
        return len(self.entries) - len(self._turns)

    @property
    def waiting(self) -> int:
        """How many jobs wait for their turn."""
        return len(self._turns)

    def of(self, member: str) -> int:
        """How many jobs of a member wait or run."""
        return sum(entry.plan.requester == member for entry in self.entries.values())

    def add(self, job: Job, digest: str) -> None:
        """Take a job on: it waits for its turn, runs, and ends on record."""
        plan = job.plan
        entry = self.entries[plan.id] = Entry(job, plan, digest)
        self._turns.add(plan.requester, plan.id)
        self._advance()
        entry.task = asyncio.create_task(self._life(entry))

    async def cancel(self, entry: Entry) -> None:
        """End a job, and wait until that is on record."""
        self._end(entry)
        if entry.task is not None:
            await asyncio.wait([entry.task])  # and not gather, which would hand on the caller's own cancellation

    async def undo(self, job: str, status: str, rounds_done: int, data: dict[str, Any]) -> None:
        """Give a job that could not be taken on the state that it had, or an end: now, or once the disk takes it.

        What is not written when the coordinator stops, its next start closes as interrupted.
        """
        ending = asyncio.create_task(self._until_ended(job, status, rounds_done, data))
        self._undoing.add(ending)
        ending.add_done_callback(self._undoing.discard)
        await asyncio.wait([ending], timeout=AGAIN_SECONDS / 2)  # before it is tried a second time

    async def drain(self, seconds: float) -> None:
        """Take nothing new on, begin no further exchange, and give those that are being made ``seconds`` to end."""
        self.stopping = True
        halting = [asyncio.create_task(entry.job.halt()) for entry in self._in_work()]
        if halting:
            _, late = await asyncio.wait(halting, timeout=seconds)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def stop(self) -> None:
        """End every job, as interrupted, and wait until each is on record. What their nodes are at goes on there."""
        self.stopping = True
        for entry in list(self.entries.values()):
            entry.job.leave()
            self._end(entry)
        tasks = [entry.task for entry in list(self.entries.values()) if entry.task]
        await asyncio.gather(*tasks, *self._undoing, return_exceptions=True)

    async def record(self, status: str, plan: str, rounds: int, job: Job | None = None) -> None:
        """Put what became of a job into the ledger, with the number and digest of the receipts that each node gave."""
        fields: dict[str, object] = {"event": status, "plan": plan, "rounds": rounds}
        if job is not None:
            fields["receipts"] = await asyncio.to_thread(job.receipts)
        await asyncio.wrap_future(self._ledger.submit("job", fields))

    # -- the queue ----------------------------------------------------------------------------------------------------

    def _in_work(self) -> Iterable[Entry]:
        return [entry for entry in self.entries.values() if not entry.place]

    def _shares(self) -> Counter[str]:
        return Counter(entry.plan.requester for entry in self._in_work())

    def _advance(self) -> None:
        while len(self._turns) and not self.stopping and self.running < self._at_once:
            self.entries[self._turns.take(self._shares())].place = 0
        for place, job in enumerate(self._turns.order(self._shares()), start=1):
            self.entries[job].place = place
        for entry in self.entries.values():
            entry.moved.set()

    async def _turn(self, entry: Entry) -> None:
        told = 0
        while entry.place:
            entry.moved.clear()
            if not told or (entry.place < told and entry.place <= PLACES_TOLD):
                told = entry.place
                place = {"place": told, "of": self.waiting, "running": self.running}
                await self._feed.tell(entry.plan.id, "queued", place)
                continue
            await entry.moved.wait()

    # -- the life of a job --------------------------------------------------------------------------------------------

    def _end(self, entry: Entry) -> None:
        # Once: a second cancellation would break into the first one's closing of nodes and session.
        if not entry.cancelling and entry.task is not None:
            entry.cancelling = True
            entry.task.cancel()

    async def _life(self, entry: Entry) -> None:
        job, plan = entry.job, entry.plan
        status, data = (
            "failed",
            {"code": "internal", "reason": "internal error; the coordinator's log has it", "exit": 1},
        )
        try:
            await self._turn(entry)
            plan.check_time(now())
            await asyncio.to_thread(self._store.start_job, plan.id)
            summary = await job.run()
            status, data = "done", {"total_weight": summary["total_weight"]}
        except asyncio.CancelledError:
            status = INTERRUPTED if self.stopping else "cancelled"
            reason = "the coordinator was stopped" if self.stopping else "cancelled by the requester"
            data = {"code": status, "reason": reason}
        except JobDeniedError as error:
            status, data = "denied", told(error)
        except ResumeDiffersError as error:
            status, data = INTERRUPTED, told(error)
        except KeyongError as error:
            # Nothing of it is lost where what was missing may be had again.
            again = isinstance(error, NodesAwayError | UnavailableError) and job.recording.began
            status, data = INTERRUPTED if again else "failed", told(error)
        except OSError as error:
            log.error("job-failed", job=plan.id, error=type(error).__name__, reason=str(error)[:500])
            reason = f"the coordinator's machine: {error.strerror or type(error).__name__}"
            status = INTERRUPTED if job.recording.began else "failed"
            data = {"code": "disk", "reason": reason, "exit": UnavailableError.exit_code}
        except Exception as error:
            log.error("job-failed", job=plan.id, error=type(error).__name__, exc_info=True)
        finally:
            # From here on nothing may cancel: what became of the job has to be on record.
            entry.cancelling = True
            await self._finish(entry, status, data)

    async def _finish(self, entry: Entry, status: str, data: dict[str, Any]) -> None:
        job, plan = entry.job, entry.plan
        if status == INTERRUPTED and job.recording.dropped:
            status = "failed"
        try:
            if status == "done":
                await asyncio.gather(job.close_nodes(), self.record(status, entry.digest, job.rounds_done, job))
            else:
                if status == INTERRUPTED:
                    data = {**data, **resumable(job)}
                    job.recording.close()
                else:
                    await job.close_nodes()
                # A full disk must not cost a job that can go on once there is room.
                with contextlib.suppress(*((OSError,) if status == INTERRUPTED else ())):
                    await asyncio.to_thread(job.summary, status, str(data.get("code", "")))
                await self.record(status, entry.digest, job.rounds_done, job)
        except Exception as error:
            log.error("job-not-recorded", job=plan.id, error=type(error).__name__, reason=str(error)[:500])
            status, data = "failed", {"code": "not-recorded", "reason": "how the job ended could not be recorded"}
            with contextlib.suppress(OSError):  # one that says "done" must not stay
                await asyncio.to_thread(job.summary, status, str(data["code"]))
            await job.close_nodes()
        try:
            # Where the coordinator stops, it stays open in the store, and the next start closes it as interrupted.
            ended = await self._until_ended(plan.id, status, job.rounds_done, data)
        finally:
            self.entries.pop(plan.id, None)
            self._turns.remove(plan.requester, plan.id)
            self._advance()
        if ended and status != INTERRUPTED:
            await asyncio.to_thread(job.recording.remove)

    async def _until_ended(self, job: str, status: str, rounds_done: int, data: dict[str, Any]) -> bool:
        """Whoever follows the job waits for its end: a disk that is full now is not so for ever."""
        while not (ended := await self._ended(job, status, rounds_done, data)) and not self.stopping:
            await asyncio.sleep(AGAIN_SECONDS)
        return ended

    async def _ended(self, job: str, status: str, rounds_done: int, data: dict[str, Any]) -> bool:
        """Put a job's end into the store; False where it must be tried again."""
        try:
            await self._feed.end(job, status, rounds_done, data)
        except Exception as error:
            log.error("job-not-ended", job=job, error=type(error).__name__, reason=str(error)[:500])
            return False
        return True


def resumable(job: Job) -> dict[str, int]:
    """At which exchange an interrupted job goes on, and of about how many: one a round for each of its actions."""
    return {"exchange": job.recording.answered + 1, "exchanges": job.plan.rounds * len(job.plan.actions)}


def told(error: KeyongError) -> dict[str, Any]:
    """An error as the requester is told of it: in English, and as the sentences and values that another language needs."""
    said = {
        "reason": error.template,
        "hint": error.hint_template,
        "params": {k: str(v) for k, v in error.params.items()},
    }
    return {"code": error.code, "reason": str(error), "hint": error.hint, "exit": error.exit_code, "said": said}
