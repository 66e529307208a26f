"""What members ask a coordinator about jobs: submit, list, follow, cancel, resume, fetch."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from coordinator.adders import Adders
from coordinator.bilateral_course import BilateralCourse
from coordinator.events import EventFeed, Told
from coordinator.intake import check_code, check_disk, open_plan, row_of
from coordinator.job import BUNDLE, Job
from coordinator.links import Links
from coordinator.recording import FOLDER, JOURNAL, ROOM, Recording, Room, room_for
from coordinator.results import FileBuffers, ResultFolder
from coordinator.scheduler import INTERRUPTED, Entry, Scheduler, resumable
from coordinator.store import CoordinatorStore, JobRow
from federation.errors import DeniedError, KeyongError, UnavailableError, UsageError
from federation.home import Home, now
from federation.ledger import Ledger, Refusals
from federation.statements import Envelope, JobPlan, instant_text
from federation.wire import messages as m
from federation.wire.peer import HEADER_BYTES, Incoming, Outgoing, Peer
from sandbox import Runtime, Tier

log = structlog.get_logger("keyong.coordinator")

AT_ONCE = 4
"""Jobs that run at the same time; each holds a session here and one at every node of its cohort."""
QUEUE = 200
QUEUE_PER_MEMBER = 64
LISTED = 1000

Method = Callable[[Peer, Incoming], Awaitable[Outgoing]]


class JobDesk:
    """Takes plans and questions; the jobs themselves are the scheduler's.

    Args:
        ledger: where the coordinator records what became of each.
        at_once: jobs that run at the same time.
        room: what recordings may take of the disk.
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
        room: Room = ROOM,
    ) -> None:
        self._home = home
        self._store = store
        self._ledger = ledger
        self._links = links
        self._runtime = runtime
        self._room = room
        self._feed = EventFeed(store)
        self._adders = Adders(runtime, home.folder("spool"))
        self._jobs = Scheduler(store, ledger, self._feed, at_once)
        self._refusals = Refusals(ledger, time.monotonic, "job", {"event": "refused"})
        self._resuming: set[str] = set()
        self._goes_on: dict[str, tuple[int, dict[str, int]]] = {}
        """Of each interrupted job that was listed: when its recording was written, and where it goes on."""
        self.tier = Tier.T2
        """What server parts are isolated by, as the canary found at the start."""
        self.methods: Mapping[str, Method] = {
            "job.submit": self._submit,
            "job.events": self._events,
            "job.list": self._list,
            "job.cancel": self._cancel,
            "job.resume": self._resume,
            "job.result": self._result,
            "mask.withdraw": self._withdraw,
            "bilateral.take": self._take,
            "bilateral.answer": self._answer,
        }

    @property
    def running(self) -> int:
        """How many jobs run; those that wait do not count."""
        return self._jobs.running

    @property
    def waiting(self) -> int:
        """How many jobs wait for their turn."""
        return self._jobs.waiting

    def places(self) -> dict[str, int]:
        """The place in the queue of each job that has not ended, from 1; 0 for those that run."""
        return {job: entry.place for job, entry in self._jobs.entries.items()}

    def watch(self, told: Told) -> None:
        """Tell of every event of every job, once it is durable."""
        self._feed.observe = told

    async def recover(self) -> None:
        """Close what the last run of this coordinator left behind, as interrupted."""
        for row in await asyncio.to_thread(self._store.unfinished):
            data = {
                "code": INTERRUPTED,
                "reason": "the coordinator was restarted",
                "exit": UnavailableError.exit_code,
            }
            job = await asyncio.to_thread(self._reopen, row)
            rounds, status = row.rounds_done, "failed"
            result = ResultFolder(self._folder(row.id))
            if job is not None and not job.recording.dropped:
                rounds, status, data = job.rounds_done, INTERRUPTED, {**data, **resumable(job)}
                await asyncio.to_thread(result.break_off, partial(job.summary, INTERRUPTED, INTERRUPTED))
            else:
                await asyncio.to_thread(result.break_off, partial(result.restate, "failed", INTERRUPTED))
            await self._jobs.record(status, row.plan_digest, rounds, job)
            await self._feed.end(row.id, status, rounds, data)
        await asyncio.to_thread(self._make_room)

    async def drain(self, seconds: float) -> None:
        """Take no further job, begin no further exchange, and give those that are being made ``seconds`` to end."""
        await self._jobs.drain(seconds)

    async def stop(self) -> None:
        """End every job, as interrupted, and wait until each is on record."""
        await self._jobs.stop()
        await self._refusals.flush()
        await self._adders.close()

    async def _withdraw(self, peer: Peer, message: Incoming) -> Outgoing:
        for text in m.Envelopes.from_bytes(message.header).envelopes:
            self._links.withdrawals.note(m.unpack(text), peer.member)
        return Outgoing(m.Empty().to_bytes())

    # -- taking on ----------------------------------------------------------------------------------------------------

    async def _submit(self, peer: Peer, message: Incoming) -> Outgoing:
        self._check_room(peer.member)
        statement = ""
        try:
            envelope = m.unpack(m.Submit.from_bytes(message.header).plan)
            statement = envelope.digest
            plan, new = await asyncio.to_thread(self._take_down, envelope, message.body, peer.member)
        except UnavailableError:
            raise
        except KeyongError as error:
            log.info("plan-refused", plan=statement, member=peer.member, code=error.code, reason=str(error)[:500])
            await self._refusals.write(error.code, {"requester": peer.member, "statement": statement})
            raise
        if not new:
            raise DeniedError("this plan was submitted before", hint="plan the job again", code="replay")
        self._feed.begin(plan.id)
        try:
            fields = {"event": "submitted", "plan": envelope.digest, "requester": plan.requester}
            recorded = asyncio.wrap_future(self._ledger.submit("job", fields))
            opened = asyncio.to_thread(self._open, envelope, plan, message.body)
            job, _ = await asyncio.gather(opened, recorded)
        except BaseException:
            failed = {"code": "not-taken", "reason": "not taken on"}
            await asyncio.shield(self._jobs.undo(plan.id, "failed", 0, failed))
            raise
        self._jobs.add(job, envelope.digest)
        return Outgoing(m.JobRef(job=plan.id).to_bytes())

    def _check_room(self, member: str) -> None:
        if self._jobs.stopping:
            raise UnavailableError("the coordinator is stopping", code="stopping")
        mine = self._jobs.of(member)
        if self._jobs.waiting >= QUEUE or mine >= QUEUE_PER_MEMBER:
            raise UnavailableError(
                "{count} jobs are waiting already", hint="try again when some have ended", code="queue-full", count=mine
            )

    def _take_down(self, envelope: Envelope, code: memoryview, sender: str) -> tuple[JobPlan, bool]:
        """The admitted plan, in the store from now on, and whether it is new there."""
        plan = self._admit(envelope, code, sender)
        parties = [plan.requester, *(planned.node for planned in plan.cohort)]
        return plan, self._store.put_job(row_of(envelope, plan, now()), parties)

    def _admit(self, envelope: Envelope, code: memoryview, sender: str) -> JobPlan:
        me = self._home.identity.member
        plan = open_plan(envelope, self._home.roster, self._runtime, me, sender, now(), self.tier)
        check_code(plan, code)
        check_disk(self._home.path)
        return plan

    def _open(self, envelope: Envelope, plan: JobPlan, code: memoryview) -> Job:
        folder = self._folder(plan.id)
        (folder / "plan.json").write_bytes(envelope.to_bytes())
        (folder / BUNDLE).write_bytes(code)
        return self._job(envelope, plan)

    def _job(self, envelope: Envelope, plan: JobPlan) -> Job:
        async def tell(kind: str, data: dict[str, Any]) -> None:
            await self._feed.tell(plan.id, kind, data)

        folder, room = self._folder(plan.id), self._room.job
        parts = (self._home, self._links, self._runtime, envelope, plan, folder, tell, self._adders)
        return Job(*parts, tier=self.tier, room=room)

    def _folder(self, job: str) -> Path:
        return self._home.folder("jobs", job.removeprefix("urn:uuid:"))

    # -- going on with an interrupted one -----------------------------------------------------------------------------

    async def _resume(self, peer: Peer, message: Incoming) -> Outgoing:
        row = await self._own(peer, m.JobRef.from_bytes(message.header).job)
        self._check_room(peer.member)
        if row.status != INTERRUPTED or row.id in self._resuming:
            raise UsageError(
                "only an interrupted job can be resumed, and this one is {status}",
                hint="plan it anew (`keyong job run`)",
                status=row.status,
                code="not-interrupted",
            )
        self._resuming.add(row.id)
        try:
            job = await asyncio.to_thread(self._admit_again, row, peer.member)
            if not await asyncio.to_thread(self._store.reopen_job, row.id):
                raise UsageError("the job is not interrupted any more", code="not-interrupted")
            fields = {"event": "resumed", "plan": row.plan_digest, "rounds": job.rounds_done}
            try:
                await asyncio.to_thread(self._ledger.append, "job", fields)
            except BaseException:
                again = {"code": INTERRUPTED, "reason": "that it goes on could not be recorded", **resumable(job)}
                await asyncio.shield(self._jobs.undo(row.id, INTERRUPTED, job.rounds_done, again))
                raise
            self._jobs.add(job, row.plan_digest)
            self._goes_on.pop(row.id, None)
        finally:
            self._resuming.discard(row.id)
        return Outgoing(m.JobRef(job=row.id).to_bytes())

    def _admit_again(self, row: JobRow, sender: str) -> Job:
        envelope = Envelope.from_bytes(row.envelope)
        expires = JobPlan.read(envelope).expires
        if expires <= now():
            raise DeniedError(
                "the plan expired at {when}, and a job is resumed under its own plan alone",
                hint="plan it anew (`keyong job run`); that is another use of each agreement",
                when=instant_text(expires),
                code="plan-expired",
            )
        me = self._home.identity.member
        plan = open_plan(envelope, self._home.roster, self._runtime, me, sender, now(), self.tier)
        check_disk(self._home.path)
        job = self._job(envelope, plan)
        job.check_resumable()
        return job

    def _reopen(self, row: JobRow) -> Job | None:
        """The job of a row, as far as its folder still has it."""
        folder = self._folder(row.id)
        if not (folder / BUNDLE).is_file():
            return None
        envelope = Envelope.from_bytes(row.envelope)
        return self._job(envelope, JobPlan.read(envelope))

    def _make_room(self) -> None:
        kept = [Recording(self._folder(row.id)) for row in self._store.interrupted()]
        room_for(kept, self._room.together)

    def _in_work(self, peer: Peer, name: str) -> Entry | None:
        """A member's own job that waits or runs, by its whole name."""
        entry = self._jobs.entries.get(f"urn:uuid:{name.removeprefix('urn:uuid:')}")
        return entry if entry is not None and entry.plan.requester == peer.member else None

    async def _own(self, peer: Peer, name: str) -> JobRow:
        return await asyncio.to_thread(self._row, peer, name)

    def _row(self, peer: Peer, name: str) -> JobRow:
        row = self._store.job(name)
        if row.requester != peer.member:
            raise DeniedError("this job is another member's", code="not-yours")
        return row

    async def _events(self, peer: Peer, message: Incoming) -> Outgoing:
        request = m.EventsSince.from_bytes(message.header)
        # Asked after every few events: of a job that runs here the store need not tell whose it is.
        entry = self._in_work(peer, request.job)
        job = entry.plan.id if entry is not None else (await self._own(peer, request.job)).id
        return Outgoing((await self._feed.after(job, request.after, request.wait)).to_bytes())

    async def _list(self, peer: Peer, message: Incoming) -> Outgoing:
        rows = await asyncio.to_thread(self._store.jobs, peer.member, LISTED)
        more = await asyncio.to_thread(lambda: {row.id: self._standing(row, peer) for row in rows})
        jobs = tuple(
            m.JobSummary(
                job=row.id,
                plan=row.plan_digest,
                requester=row.requester,
                purpose=row.purpose,
                status=row.status,
                rounds=row.rounds,
                submitted=row.submitted,
                participants=row.participants,
                protection=row.protection,
                **more[row.id],
            )
            for row in rows
        )
        return Outgoing(m.Jobs(jobs=jobs).to_bytes())

    def _standing(self, row: JobRow, peer: Peer) -> dict[str, int]:
        """How far a job is, as far as this peer's version of the protocol has words for it."""
        entry = self._jobs.entries.get(row.id)
        standing = {"rounds_done": entry.job.rounds_done if entry is not None else row.rounds_done}
        if peer.version < 2:
            return standing
        if entry is not None and entry.place:
            standing |= {"place": entry.place, "waiting": self._jobs.waiting}
        if row.status == INTERRUPTED and entry is None and row.id not in self._resuming:
            standing |= self._where_it_goes_on(row)
        return standing

    def _where_it_goes_on(self, row: JobRow) -> dict[str, int]:
        """Where an interrupted job goes on; a recording, which may be long, is read again only if it was written."""
        journal = self._folder(row.id) / FOLDER / JOURNAL
        written = journal.stat().st_mtime_ns if journal.is_file() else 0
        known = self._goes_on.get(row.id)
        if written and known is not None and known[0] == written:
            return known[1]
        job = self._reopen(row)
        found = resumable(job) if job is not None and not job.recording.dropped else {}
        self._goes_on[row.id] = (written, found)
        return found

    async def _cancel(self, peer: Peer, message: Incoming) -> Outgoing:
        name = m.JobRef.from_bytes(message.header).job
        entry = self._in_work(peer, name)  # what it runs at the nodes is ended before anything is looked up
        if entry is not None:
            await self._jobs.cancel(entry)
            return Outgoing(m.Empty().to_bytes())
        row = await self._own(peer, name)
        entry = self._jobs.entries.get(row.id)
        if entry is not None:
            await self._jobs.cancel(entry)
        elif row.status == INTERRUPTED and row.id not in self._resuming:
            await self._give_up(row)
        else:
            raise UsageError("the job is not running: it is {status}", status=row.status, code="not-running")
        return Outgoing(m.Empty().to_bytes())

    async def _give_up(self, row: JobRow) -> None:
        """End an interrupted job for good, here and at its nodes."""
        self._resuming.add(row.id)
        try:
            rounds = row.rounds_done
            job = await asyncio.to_thread(self._reopen, row)
            if job is not None:
                rounds = job.rounds_done
                await job.close_nodes()
                await asyncio.to_thread(job.summary, "cancelled", "cancelled")
            await self._jobs.record("cancelled", row.plan_digest, rounds, job)
            await self._feed.end(
                row.id, "cancelled", rounds, {"code": "cancelled", "reason": "cancelled by the requester"}
            )
            if job is not None:
                await asyncio.to_thread(job.recording.remove)
        finally:
            self._resuming.discard(row.id)

    # -- what an asker does in the middle of an intersection -----------------------------------------------------------

    async def _take(self, peer: Peer, message: Incoming) -> Outgoing:
        return self._bilateral(peer, m.JobRef.from_bytes(message.header).job).given()

    async def _answer(self, peer: Peer, message: Incoming) -> Outgoing:
        self._bilateral(peer, m.JobRef.from_bytes(message.header).job).take(message.body)
        return Outgoing(m.Empty().to_bytes())

    def _bilateral(self, peer: Peer, job: str) -> BilateralCourse:
        entry = self._jobs.entries.get(job)
        if entry is None or entry.plan.requester != peer.member:
            raise DeniedError("no job of yours waits for an answer", code="not-yours")
        return entry.job.bilateral

    async def _result(self, peer: Peer, message: Incoming) -> Outgoing:
        name = m.JobRef.from_bytes(message.header).job

        def look() -> tuple[JobRow, Path, dict[str, Any], list[tuple[str, int]]]:
            row = self._row(peer, name)
            folder = self._folder(row.id)
            if row.id in self._jobs.entries or not (folder / "summary.json").is_file():
                raise UsageError("the job has no result: it is {status}", status=row.status, code="no-result")
            summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
            return row, folder, summary, ResultFolder(folder).files()

        row, folder, summary, files = await asyncio.to_thread(look)
        listing = tuple(m.ResultFile(path=name, size=size) for name, size in files)
        header = m.Result(summary=summary, files=listing).to_bytes()
        if len(header) > HEADER_BYTES:
            raise UsageError(
                "the result has {count} files, more than one answer can list",
                hint="the coordinator's operator finds them in its folder jobs",
                code="result-too-large",
                count=len(files),
            )
        fields = {"event": "delivered", "plan": row.plan_digest, "requester": row.requester, "files": len(files)}
        await asyncio.wrap_future(self._ledger.submit("job", fields))
        return Outgoing(header, FileBuffers(folder, files))
