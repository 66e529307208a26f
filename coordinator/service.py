"""The coordinator as a process: a listener for members' links, the methods they may call, and the jobs they submit."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import structlog

from coordinator import enrolment
from coordinator.job import Job, JobDeniedError
from coordinator.links import Links
from coordinator.store import CoordinatorStore, JobRow
from federation.crypto import certificate_fingerprint
from federation.errors import DeniedError, KeyongError, UnavailableError, UsageError
from federation.holdings import open_engine
from federation.home import Home, now
from federation.statements import (
    DatasetDescription,
    Envelope,
    JobPlan,
    StatementError,
    UnknownMemberError,
    instant_text,
)
from federation.statements.code import CodeBundle
from federation.wire import messages as m
from federation.wire.listen import Listener
from federation.wire.peer import Incoming, Outgoing, Peer
from sandbox import Runtime, run_canary

log = structlog.get_logger("keyong.coordinator")

SOFTWARE = "keyong/0.1.0"
BODY_LIMIT = 2**33
TICKET = "ticket:"
RENEW_BEFORE = timedelta(days=30)


class ProtocolVersionError(UnavailableError):
    """The two sides speak no common protocol version."""

    code = "protocol-version"


class CoordinatorService:
    """Serves one consortium.

    Args:
        listen: host:port to bind.
    """

    def __init__(self, home: Home, runtime: Runtime, listen: str) -> None:
        self._home = home
        self._runtime = runtime
        self._store = CoordinatorStore(open_engine(home.path / "coordinator.db"))
        self._ledger = home.open_ledger()
        self._links = Links()
        self._jobs: dict[str, asyncio.Task[None]] = {}
        self._changed: dict[str, asyncio.Event] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._methods: dict[str, Callable[[Peer, Incoming], Awaitable[Outgoing]]] = {
            "hello": self._hello,
            "status": self._status,
            "roster.get": self._roster_get,
            "catalog.publish": self._catalog_publish,
            "catalog.list": self._catalog_list,
            "mail.send": self._mail_send,
            "mail.fetch": self._mail_fetch,
            "job.submit": self._job_submit,
            "job.events": self._job_events,
            "job.list": self._job_list,
            "job.cancel": self._job_cancel,
            "job.result": self._job_result,
        }
        self._listener = Listener(
            listen,
            home.tls,
            trusted=self._trusted,
            who=self._who,
            handler=self._handle,
            on_link=self._on_link,
            body_limit=BODY_LIMIT,
            spool=home.folder("spool"),
        )

    async def run(self, on_state: Callable[[str], None]) -> None:
        """Serve until cancelled. ``on_state`` hears ``ready`` with the port once."""
        for job in self._store.interrupt_running():
            self._emit(job, "interrupted", {"reason": "the coordinator was restarted"})
        await asyncio.to_thread(run_canary)
        self._renew_roster()
        self._ledger.append("coordinator", {"event": "started", "runtime": self._runtime.digest})
        await self._listener.start()
        on_state(f"ready {self._listener.port}")
        try:
            await self._watch_roster()
        finally:
            for task in list(self._jobs.values()):
                task.cancel()
            await asyncio.gather(*self._jobs.values(), return_exceptions=True)
            await self._listener.stop()
            self._ledger.close()

    # -- who may connect ----------------------------------------------------------------------------------------------

    def _trusted(self) -> tuple[str, ...]:
        members = tuple(member.tls_certificate for member in self._home.history.latest.members)
        return members + tuple(row.certificate for row in self._store.outstanding())

    def _who(self, fingerprint: str) -> str:
        for member in self._home.history.latest.members:
            if certificate_fingerprint(member.tls_certificate.encode()) == fingerprint:
                return member.id
        if (row := self._store.invitation(fingerprint)) is not None and not row.used:
            return TICKET + fingerprint
        raise UnknownMemberError("this certificate is not in the roster")

    def _on_link(self, peer: Peer, came: bool) -> None:
        if came:
            self._links.came(peer)
        else:
            self._links.went(peer)
        log.info("link", member=peer.member.partition(":")[0], came=came)

    async def _handle(self, peer: Peer, message: Incoming) -> Outgoing:
        if peer.member.startswith(TICKET):
            if message.method != "enrol":
                raise DeniedError("an invitation's ticket can enrol and nothing else", code="ticket")
            return await self._enrol(peer, message)
        method = self._methods.get(message.method)
        if method is None:
            raise UsageError("the coordinator does not know the method {method}", code="no-such-method", method=message.method[:40])
        # A member removed while its link was still open may ask nothing more.
        self._home.history.latest.member(peer.member)
        return await method(peer, message)

    # -- roster -------------------------------------------------------------------------------------------------------

    def _renew_roster(self) -> None:
        latest = self._home.history.latest
        if self._home.identity.founded and latest.root.threshold == 1 and latest.expires - now() < RENEW_BEFORE:
            self._home.learn(enrolment.next_roster(self._home, latest.members, now()))

    async def _watch_roster(self) -> None:
        version = self._home.history.latest.version
        while True:
            await asyncio.sleep(0.25)
            self._renew_roster()
            history = self._home.history
            if history.latest.version > version:
                envelopes = history.envelopes[version:]
                version = history.latest.version
                await self._spread(envelopes)

    async def _spread(self, envelopes: tuple[Envelope, ...]) -> None:
        """Tell every link of a new roster, and cut those whose member is no longer in it."""
        members = {member.id for member in self._home.history.latest.members}
        for envelope in envelopes:
            self._ledger.append("roster", {"roster": envelope.digest, "version": self._home.history.latest.version})
        header = m.Envelopes(envelopes=tuple(m.pack(envelope) for envelope in envelopes)).to_bytes()
        for peer in self._links.peers:
            if peer.member not in members and not peer.member.startswith(TICKET):
                self._listener.cut(peer)
        for node in self._links.online & members:
            self._soon(self._links.call(node, "roster.push", header, timeout=30))

    def _soon(self, call: Awaitable[Any]) -> None:
        async def quietly() -> None:
            try:
                await call
            except KeyongError as error:
                log.info("push-not-delivered", code=error.code)

        task = asyncio.create_task(quietly())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _enrol(self, peer: Peer, message: Incoming) -> Outgoing:
        request = m.Envelopes.from_bytes(message.header)
        ticket = peer.member.removeprefix(TICKET)
        enrolled = enrolment.enrol(self._home, self._store, ticket, m.unpack(request.envelopes[0]), now())
        log.info("enrolled", member=enrolled.member.id)
        chain = tuple(m.pack(envelope) for envelope in self._home.history.envelopes)
        return Outgoing(m.Envelopes(envelopes=chain).to_bytes())

    # -- greeting -----------------------------------------------------------------------------------------------------

    async def _hello(self, peer: Peer, message: Incoming) -> Outgoing:
        hello = m.Hello.from_bytes(message.header)
        version = min(hello.highest, m.PROTOCOL[1])
        if version < max(hello.lowest, m.PROTOCOL[0]):
            older = "this member" if hello.highest < m.PROTOCOL[0] else "the coordinator"
            raise ProtocolVersionError(
                "no common protocol version: the member speaks {low} to {high}, the coordinator {our_low} to {our_high}",
                hint="upgrade {older}",
                low=hello.lowest,
                high=hello.highest,
                our_low=m.PROTOCOL[0],
                our_high=m.PROTOCOL[1],
                older=older,
            )
        if hello.serves == "node":
            self._links.serves(peer)
        rosters = self._home.history.envelopes[max(0, hello.roster_version) :]
        welcome = m.Welcome(
            version=version,
            software=SOFTWARE,
            rosters=tuple(m.pack(envelope) for envelope in rosters),
            clock=instant_text(now()),
        )
        return Outgoing(welcome.to_bytes())

    async def _status(self, peer: Peer, message: Incoming) -> Outgoing:
        latest = self._home.history.latest
        status = m.Status(
            consortium=latest.consortium,
            name=latest.name,
            roster_version=latest.version,
            online=tuple(sorted(self._links.online)),
            jobs_running=len(self._jobs),
        )
        return Outgoing(status.to_bytes())

    async def _roster_get(self, peer: Peer, message: Incoming) -> Outgoing:
        after = m.RosterSince.from_bytes(message.header).after
        chain = self._home.history.envelopes[max(0, after) :]
        return Outgoing(m.Envelopes(envelopes=tuple(m.pack(envelope) for envelope in chain)).to_bytes())

    # -- catalog and mail ---------------------------------------------------------------------------------------------

    async def _catalog_publish(self, peer: Peer, message: Incoming) -> Outgoing:
        publish = m.Publish.from_bytes(message.header)
        entries: dict[str, bytes] = {}
        for text in publish.datasets:
            envelope = m.unpack(text)
            description = DatasetDescription.open(envelope, [self._home.public_key(peer.member)], now())
            if description.provider != peer.member:
                raise StatementError("a member can publish its own datasets only")
            entries[description.dataset] = envelope.to_bytes()
        await asyncio.to_thread(self._store.publish, peer.member, publish.runtime, entries)
        return Outgoing(m.Empty().to_bytes())

    async def _catalog_list(self, peer: Peer, message: Incoming) -> Outgoing:
        members = {member.id for member in self._home.history.latest.members}
        entries = tuple(
            m.Entry(
                envelope=m.pack(Envelope.from_bytes(row.envelope)),
                online=row.node in self._links.online,
                runtime=row.runtime,
            )
            for row in await asyncio.to_thread(self._store.catalog)
            if row.node in members
        )
        return Outgoing(m.Catalog(entries=entries).to_bytes())

    async def _mail_send(self, peer: Peer, message: Incoming) -> Outgoing:
        mail = m.Mail.from_bytes(message.header)
        self._home.history.latest.member(mail.to)
        envelope = m.unpack(mail.envelope)
        await asyncio.to_thread(
            self._store.put_mail, mail.to, peer.member, instant_text(now()), envelope.digest, envelope.to_bytes()
        )
        if mail.to in self._links.online:
            self._soon(self._links.call(mail.to, "mail.push", m.Empty().to_bytes(), timeout=30))
        return Outgoing(m.Empty().to_bytes())

    async def _mail_fetch(self, peer: Peer, message: Incoming) -> Outgoing:
        after = m.MailSince.from_bytes(message.header).after
        rows = await asyncio.to_thread(self._store.mail, peer.member, after)
        items = tuple(
            m.MailItem(
                number=row.number or 0,
                sender=row.sender,
                arrived=row.arrived,
                envelope=m.pack(Envelope.from_bytes(row.envelope)),
            )
            for row in rows
        )
        return Outgoing(m.MailBox(items=items).to_bytes())

    # -- jobs ---------------------------------------------------------------------------------------------------------

    def _emit(self, job: str, kind: str, data: dict[str, Any]) -> None:
        self._store.add_event(job, instant_text(now()), kind, _finite(data))
        event = self._changed.get(job)
        if event is not None:
            event.set()

    async def _job_submit(self, peer: Peer, message: Incoming) -> Outgoing:
        envelope = m.unpack(m.Submit.from_bytes(message.header).plan)
        roster = self._home.roster
        claimed = JobPlan.read(envelope)
        plan = JobPlan.open(envelope, [roster.member(claimed.requester).public], now())
        if plan.requester != peer.member or plan.coordinator != self._home.identity.member:
            raise StatementError("the plan is another member's, or for another coordinator")
        if plan.runtime != self._runtime.digest:
            raise DeniedError(
                "the plan names another runtime than the coordinator's", hint="install the same runtime", code="runtime-differs"
            )
        bundle = await asyncio.to_thread(CodeBundle.from_bytes, message.body)
        if bundle.digest != plan.code:
            raise DeniedError("the code is not what the plan was signed for", code="code-mismatch")
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
        if not self._store.put_job(row):
            raise DeniedError("this plan was submitted before", hint="plan the job again", code="replay")
        await asyncio.to_thread(
            self._ledger.append, "job", {"event": "submitted", "plan": envelope.digest, "requester": plan.requester}
        )
        folder = self._job_folder(plan.id)
        (folder / "plan.json").write_bytes(envelope.to_bytes())
        self._changed[plan.id] = asyncio.Event()
        job = Job(
            self._home,
            self._links,
            self._runtime,
            envelope,
            plan,
            bundle,
            folder,
            lambda kind, data: self._emit(plan.id, kind, data),
        )
        self._jobs[plan.id] = asyncio.create_task(self._run(job, plan.id, envelope.digest))
        return Outgoing(m.JobRef(job=plan.id).to_bytes())

    def _job_folder(self, job: str) -> Path:
        return self._home.folder("jobs", job.removeprefix("urn:uuid:"))

    async def _run(self, job: Job, job_id: str, plan_digest: str) -> None:
        self._store.move_job(job_id, status="running")
        status, data = "failed", {}
        try:
            summary = await job.run()
            status, data = "done", {"total_weight": summary["total_weight"]}
        except asyncio.CancelledError:
            status, data = "cancelled", {"code": "cancelled", "reason": "cancelled"}
        except JobDeniedError as error:
            status, data = "denied", _told(error)
        except KeyongError as error:
            data = _told(error)
        except Exception as error:
            log.error("job-failed", job=job_id, error=type(error).__name__, exc_info=True)
            data = {"code": "internal", "reason": "internal error; the coordinator's log has it"}
        finally:
            try:
                if status != "done":
                    job.summary(status, str(data.get("code", "")))
                self._ledger.append("job", {"event": status, "plan": plan_digest, "rounds": job.rounds_done})
            finally:
                self._store.move_job(job_id, status=status, rounds_done=job.rounds_done)
                self._emit(job_id, status, data)
                self._jobs.pop(job_id, None)

    def _own(self, peer: Peer, name: str) -> JobRow:
        row = self._store.job(name)
        if row.requester != peer.member:
            raise DeniedError("this job is another member's", code="not-yours")
        return row

    async def _job_events(self, peer: Peer, message: Incoming) -> Outgoing:
        request = m.EventsSince.from_bytes(message.header)
        row = self._own(peer, request.job)
        event = self._changed.setdefault(row.id, asyncio.Event())
        event.clear()
        events = self._store.events(row.id, request.after)
        if not events and row.id in self._jobs and request.wait:
            try:
                async with asyncio.timeout(request.wait):
                    await event.wait()
            except TimeoutError:
                pass
            events = self._store.events(row.id, request.after)
        answer = m.Events(
            events=tuple(
                m.Event(number=row.number, time=row.time, kind=row.kind, data=json.loads(row.data)) for row in events
            ),
            status=self._store.job(row.id).status,
        )
        return Outgoing(answer.to_bytes())

    async def _job_list(self, peer: Peer, message: Incoming) -> Outgoing:
        mine = []
        for row in self._store.jobs():
            plan = JobPlan.read(Envelope.from_bytes(row.envelope))
            if peer.member in (row.requester, *(planned.node for planned in plan.cohort)):
                mine.append(
                    m.JobSummary(
                        job=row.id,
                        plan=row.plan_digest,
                        requester=row.requester,
                        purpose=row.purpose,
                        status=row.status,
                        rounds=row.rounds,
                        rounds_done=row.rounds_done,
                        submitted=row.submitted,
                        participants=row.participants,
                        protection=row.protection,
                    )
                )
        return Outgoing(m.Jobs(jobs=tuple(mine)).to_bytes())

    async def _job_cancel(self, peer: Peer, message: Incoming) -> Outgoing:
        row = self._own(peer, m.JobRef.from_bytes(message.header).job)
        task = self._jobs.get(row.id)
        if task is None:
            raise UsageError("the job is not running: it is {status}", status=row.status, code="not-running")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return Outgoing(m.Empty().to_bytes())

    async def _job_result(self, peer: Peer, message: Incoming) -> Outgoing:
        row = self._own(peer, m.JobRef.from_bytes(message.header).job)
        folder = self._job_folder(row.id)
        if row.id in self._jobs or not (folder / "summary.json").is_file():
            raise UsageError("the job has no result: it is {status}", status=row.status, code="no-result")
        files: list[m.ResultFile] = []
        body: list[bytes] = []
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            relative = path.relative_to(folder)
            if relative.parts[0] == "app" or relative.name.endswith(".partial"):
                continue
            data = path.read_bytes()
            files.append(m.ResultFile(path=relative.as_posix(), size=len(data)))
            body.append(data)
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        return Outgoing(m.Result(summary=summary, files=tuple(files)).to_bytes(), body)


def _told(error: KeyongError) -> dict[str, Any]:
    return {"code": error.code, "reason": str(error), "hint": error.hint, "exit": error.exit_code}


def _finite(value: Any) -> Any:
    """JSON has no NaN; a metric that is one is shown as null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
