"""The jobs of a coordinator: submitted, queued, run some at a time, cancelled, handed out."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog

from coordinator.events import EventFeed, Told
from coordinator.job import BUNDLE, Job, JobDeniedError
from coordinator.links import Links
from coordinator.results import FileBuffers, ResultFolder
from coordinator.store import CoordinatorStore, JobRow
from federation.errors import DeniedError, KeyongError, UnavailableError, UsageError
from federation.home import Home, now
from federation.ledger import Ledger
from federation.statements import Envelope, JobPlan, StatementError, instant_text
from federation.statements.code import CodeBundle
from federation.wire import messages as m
from federation.wire.peer import HEADER_BYTES, Incoming, Outgoing, Peer
from sandbox import Runtime, Tier

log = structlog.get_logger("keyong.coordinator")

AT_ONCE = 4
"""Jobs that run at the same time; each holds a session here and one at every node of its cohort."""
QUEUE = 200
QUEUE_PER_MEMBER = 64
PLACES_TOLD = 10
"""A queued job hears of its first place, and of every one from here on."""
DISK_RESERVE = 2 * 2**30
LISTED = 1000
AGAIN_SECONDS = 1.0
"""Until what could not be written is tried again."""

Method = Callable[[Peer, Incoming], Awaitable[Outgoing]]


@dataclass(eq=False)
class _Entry:
    job: Job
    plan: JobPlan
    digest: str
    place: int = 0
    """In the queue, from 1; 0 where it runs."""
    moved: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None
    cancelling: bool = False


class JobDesk:
    """Takes plans, runs them in the order they came, at most ``at_once`` at a time.

    Args:
        ledger: where the coordinator records what became of each.
    """

    def __init__(
        self,
        home: Home,
        store: CoordinatorStore,
        ledger: Ledger,
        links: Links,
        runtime: Runtime,
        *,
        at_once: int = AT_ONCE,
    ) -> None:
        self._home = home
        self._store = store
        self._ledger = ledger
        self._links = links
        self._runtime = runtime
        self._at_once = at_once
        self._feed = EventFeed(store)
        self._entries: dict[str, _Entry] = {}
        self._queue: list[_Entry] = []
        self._stopping = False
        self.tier = Tier.T2
        """What server parts are isolated by, as the canary found at the start."""
        self.methods: Mapping[str, Method] = {
            "job.submit": self._submit,
            "job.events": self._events,
            "job.list": self._list,
            "job.cancel": self._cancel,
            "job.result": self._result,
        }

    @property
    def running(self) -> int:
        """How many jobs run; those that wait do not count."""
        return len(self._entries) - len(self._queue)

    def places(self) -> dict[str, int]:
        """The place in the queue of each job that has not ended, from 1; 0 for those that run."""
        return {job: entry.place for job, entry in self._entries.items()}

    def watch(self, told: Told) -> None:
        """Tell of every event of every job, once it is durable."""
        self._feed.observe = told

    @property
    def waiting(self) -> int:
        """How many jobs wait for their turn."""
        return len(self._queue)

    async def drain(self, seconds: float) -> None:
        """Take no further job, and give those that run ``seconds`` to end."""
        self._stopping = True
        running = [entry.task for entry in self._entries.values() if entry.task is not None and not entry.place]
        if running:
            await asyncio.wait(running, timeout=seconds)

    async def recover(self) -> None:
        """Close what the last run of this coordinator left behind."""
        for row in await asyncio.to_thread(self._store.unfinished):
            await self._record("interrupted", row.plan_digest, row.rounds_done)
            result = ResultFolder(self._folder(row.id))
            await asyncio.to_thread(result.break_off, "interrupted", "interrupted")
            reason = {
                "code": "interrupted",
                "reason": "the coordinator was restarted",
                "exit": UnavailableError.exit_code,
            }
            await self._feed.end(row.id, "interrupted", row.rounds_done, reason)

    async def stop(self) -> None:
        """End every job, as interrupted, and wait until each is on record."""
        self._stopping = True
        for entry in list(self._entries.values()):
            self._end(entry)
        await asyncio.gather(
            *(entry.task for entry in list(self._entries.values()) if entry.task), return_exceptions=True
        )

    # -- methods ------------------------------------------------------------------------------------------------------

    async def _submit(self, peer: Peer, message: Incoming) -> Outgoing:
        if self._stopping:
            raise UnavailableError("the coordinator is stopping", code="stopping")
        mine = sum(entry.plan.requester == peer.member for entry in self._entries.values())
        if len(self._queue) >= QUEUE or mine >= QUEUE_PER_MEMBER:
            raise UnavailableError(
                "{count} jobs are waiting already", hint="try again when some have ended", code="queue-full", count=mine
            )
        envelope = m.unpack(m.Submit.from_bytes(message.header).plan)
        plan = await asyncio.to_thread(self._admit, envelope, message.body, peer.member)
        row = JobRow(
            id=plan.id,
            plan_digest=envelope.digest,
            requester=plan.requester,
            purpose=plan.purpose,
            status="submitted",
            rounds=plan.rounds,
            participants=len(plan.cohort),
            protection=plan.protection,
            submitted=instant_text(now()),
            envelope=envelope.to_bytes(),
        )
        parties = [plan.requester, *(planned.node for planned in plan.cohort)]
        if not await asyncio.to_thread(self._store.put_job, row, parties):
            raise DeniedError("this plan was submitted before", hint="plan the job again", code="replay")
        try:
            fields = {"event": "submitted", "plan": envelope.digest, "requester": plan.requester}
            await asyncio.to_thread(self._ledger.append, "job", fields)
            job = await asyncio.to_thread(self._open, envelope, plan, message.body)
        except BaseException:
            await asyncio.shield(self._feed.end(plan.id, "failed", 0, {"code": "not-taken", "reason": "not taken on"}))
            raise
        entry = self._entries[plan.id] = _Entry(job, plan, envelope.digest)
        self._queue.append(entry)
        entry.place = len(self._queue)
        entry.task = asyncio.create_task(self._life(entry))
        self._advance()
        return Outgoing(m.JobRef(job=plan.id).to_bytes())

    def _admit(self, envelope: Envelope, code: memoryview, sender: str) -> JobPlan:
        roster = self._home.roster
        claimed = JobPlan.read(envelope)
        plan = JobPlan.open(envelope, [roster.member(claimed.requester).public], now())
        if plan.requester != sender or plan.coordinator != self._home.identity.member:
            raise StatementError("the plan is another member's, or for another coordinator")
        for planned in plan.cohort:
            roster.member(planned.node)
        if plan.runtime != self._runtime.digest:
            raise DeniedError(
                "the plan names another runtime than the coordinator's",
                hint="install the same runtime everywhere (`keyong node runtime show`), then plan the job again",
                code="runtime-differs",
            )
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        if plan.memory_bytes > memory:
            raise DeniedError(
                "the plan wants {wanted} MiB of memory, and the coordinator has {here} MiB",
                hint="plan the job with less",
                code="memory-unavailable",
                wanted=plan.memory_bytes // 2**20,
                here=memory // 2**20,
            )
        if plan.aggregation == "each" and plan.protection != "fed:none":
            raise DeniedError(
                "aggregation each shows every company's reply; this plan's protection {protection} forbids it",
                hint="every agreement of the cohort must say fed:protection fed:none; else aggregate by sum",
                code="protection",
                protection=plan.protection,
            )
        if CodeBundle.from_bytes(code).digest != plan.code:
            raise DeniedError("the code is not what the plan was signed for", code="code-mismatch")
        if shutil.disk_usage(self._home.path).free < DISK_RESERVE:
            raise UnavailableError(
                "the coordinator's disk is nearly full", hint="its operator must make room", code="disk-full"
            )
        return plan

    def _open(self, envelope: Envelope, plan: JobPlan, code: memoryview) -> Job:
        folder = self._folder(plan.id)
        (folder / "plan.json").write_bytes(envelope.to_bytes())
        (folder / BUNDLE).write_bytes(code)

        async def tell(kind: str, data: dict[str, Any]) -> None:
            await self._feed.tell(plan.id, kind, data)

        return Job(self._home, self._links, self._runtime, envelope, plan, folder, tell, tier=self.tier)

    def _folder(self, job: str) -> Path:
        return self._home.folder("jobs", job.removeprefix("urn:uuid:"))

    async def _own(self, peer: Peer, name: str) -> JobRow:
        row = await asyncio.to_thread(self._store.job, name)
        if row.requester != peer.member:
            raise DeniedError("this job is another member's", code="not-yours")
        return row

    async def _events(self, peer: Peer, message: Incoming) -> Outgoing:
        request = m.EventsSince.from_bytes(message.header)
        row = await self._own(peer, request.job)
        return Outgoing((await self._feed.after(row.id, request.after, request.wait)).to_bytes())

    async def _list(self, peer: Peer, message: Incoming) -> Outgoing:
        rows = await asyncio.to_thread(self._store.jobs, peer.member, LISTED)
        jobs = tuple(
            m.JobSummary(
                job=row.id,
                plan=row.plan_digest,
                requester=row.requester,
                purpose=row.purpose,
                status=row.status,
                rounds=row.rounds,
                rounds_done=self._entries[row.id].job.rounds_done if row.id in self._entries else row.rounds_done,
                submitted=row.submitted,
                participants=row.participants,
                protection=row.protection,
            )
            for row in rows
        )
        return Outgoing(m.Jobs(jobs=jobs).to_bytes())

    async def _cancel(self, peer: Peer, message: Incoming) -> Outgoing:
        row = await self._own(peer, m.JobRef.from_bytes(message.header).job)
        entry = self._entries.get(row.id)
        if entry is None or entry.task is None:
            raise UsageError("the job is not running: it is {status}", status=row.status, code="not-running")
        self._end(entry)
        await asyncio.wait([entry.task])  # and not gather, which would hand on the caller's own cancellation
        return Outgoing(m.Empty().to_bytes())

    async def _result(self, peer: Peer, message: Incoming) -> Outgoing:
        row = await self._own(peer, m.JobRef.from_bytes(message.header).job)
        folder = self._folder(row.id)
        if row.id in self._entries or not (folder / "summary.json").is_file():
            raise UsageError("the job has no result: it is {status}", status=row.status, code="no-result")

        def look() -> tuple[dict[str, Any], list[tuple[str, int]]]:
            summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
            return summary, ResultFolder(folder).files()

        summary, files = await asyncio.to_thread(look)
        listing = tuple(m.ResultFile(path=name, size=size) for name, size in files)
        header = m.Result(summary=summary, files=listing).to_bytes()
        if len(header) > HEADER_BYTES:
            raise UsageError(
                "the result has {count} files, more than one answer can list",
                hint="the coordinator's operator finds them in its folder jobs",
                code="result-too-large",
                count=len(files),
            )
        return Outgoing(header, FileBuffers(folder, files))

    # -- the life of a job --------------------------------------------------------------------------------------------

    def _end(self, entry: _Entry) -> None:
        # Once: a second cancellation would break into the first one's closing of nodes and session.
        if not entry.cancelling and entry.task is not None:
            entry.cancelling = True
            entry.task.cancel()

    def _advance(self) -> None:
        while self._queue and not self._stopping and self.running < self._at_once:
            self._queue.pop(0).place = 0
        for place, entry in enumerate(self._queue, start=1):
            entry.place = place
        for entry in self._entries.values():
            entry.moved.set()

    async def _turn(self, entry: _Entry) -> None:
        told = 0
        while entry.place:
            entry.moved.clear()
            if not told or (entry.place < told and entry.place <= PLACES_TOLD):
                told = entry.place
                await self._feed.tell(entry.plan.id, "queued", {"place": told, "running": self.running})
                continue
            await entry.moved.wait()

    async def _life(self, entry: _Entry) -> None:
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
            status = "interrupted" if self._stopping else "cancelled"
            reason = "the coordinator was stopped" if self._stopping else "cancelled by the requester"
            data = {"code": status, "reason": reason}
        except JobDeniedError as error:
            status, data = "denied", _told(error)
        except KeyongError as error:
            data = _told(error)
        except OSError as error:
            log.error("job-failed", job=plan.id, error=type(error).__name__, reason=str(error)[:500])
            reason = f"the coordinator's machine: {error.strerror or type(error).__name__}"
            data = {"code": "disk", "reason": reason, "exit": UnavailableError.exit_code}
        except Exception as error:
            log.error("job-failed", job=plan.id, error=type(error).__name__, exc_info=True)
        finally:
            # From here on nothing may cancel: what became of the job has to be on record.
            entry.cancelling = True
            await self._finish(entry, status, data)

    async def _finish(self, entry: _Entry, status: str, data: dict[str, Any]) -> None:
        job, plan = entry.job, entry.plan
        try:
            if status != "done":
                await asyncio.to_thread(job.summary, status, str(data.get("code", "")))
            await self._record(status, entry.digest, job.rounds_done)
        except Exception as error:
            log.error("job-not-recorded", job=plan.id, error=type(error).__name__, reason=str(error)[:500])
            status, data = "failed", {"code": "not-recorded", "reason": "how the job ended could not be recorded"}
            with contextlib.suppress(OSError):  # one that says "done" must not stay
                await asyncio.to_thread(job.summary, status, str(data["code"]))
        try:
            # Whoever follows the job waits for its end: a disk that is full now is not so for ever.
            while not await self._ended(plan.id, status, job.rounds_done, data):
                await asyncio.sleep(AGAIN_SECONDS)
        finally:
            self._entries.pop(plan.id, None)
            if entry in self._queue:
                self._queue.remove(entry)
            self._advance()

    async def _ended(self, job: str, status: str, rounds_done: int, data: dict[str, Any]) -> bool:
        """Put a job's end into the store; False where it must be tried again.

        Where the coordinator stops, it stays open in the store, and the next start closes it as interrupted.
        """
        try:
            await self._feed.end(job, status, rounds_done, data)
        except Exception as error:
            log.error("job-not-ended", job=job, error=type(error).__name__, reason=str(error)[:500])
            return self._stopping
        return True

    async def _record(self, status: str, plan: str, rounds: int) -> None:
        await asyncio.to_thread(self._ledger.append, "job", {"event": status, "plan": plan, "rounds": rounds})


def _told(error: KeyongError) -> dict[str, Any]:
    return {"code": error.code, "reason": str(error), "hint": error.hint, "exit": error.exit_code}
