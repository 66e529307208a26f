"""The coordinator as a process: a listener for members' links, and who may call what on them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import structlog

from coordinator import enrolment, rekeying
from coordinator.attestation import Attestation
from coordinator.bilateral_course import MOST_BYTES
from coordinator.dataspace import Dataspace, serving
from coordinator.delivery import Delivery
from coordinator.desk import AT_ONCE, JobDesk, Method
from coordinator.links import Links
from coordinator.metrics import CoordinatorMetrics
from coordinator.migrations import COORDINATOR_STORE
from coordinator.post import Post
from coordinator.recording import ROOM, Room
from coordinator.standing import Standing
from coordinator.store import CoordinatorStore
from federation.crypto import certificate_fingerprint
from federation.errors import DeniedError, KeyongError, UsageError
from federation.home import Home, now
from federation.observability import Observer
from federation.release import software
from federation.statements import Envelope, UnknownMemberError, instant_text
from federation.statements.code import BUNDLE_BYTES
from federation.stores import open_engine
from federation.wire import messages as m
from federation.wire.listen import Listener
from federation.wire.patience import ANSWER_SECONDS
from federation.wire.peer import Incoming, Outgoing, Peer
from federation.wire.places import Places, places_here
from federation.wire.protocol import negotiate
from federation.wire.rosters import first_page, pages
from sandbox import Runtime, Tier, clear_leftovers, end_orphans, prove_tier

log = structlog.get_logger("keyong.coordinator")

BODY_LIMIT = 2**33
TICKET = "ticket:"
LOGGED = ("node", "code", "stage", "round", "exchange", "participants", "place")
"""What of an event stands in the log: no metric, no text of an app's."""
RENEW_BEFORE = timedelta(days=30)
WATCH_SECONDS = 0.25


class CoordinatorService:
    """Serves one consortium.

    Args:
        listen: host:port to bind.
        at_once: jobs that run at the same time; the others wait in the order they came.
        room: what the recordings of jobs may take of the disk.
        observe: host and port for metrics and health over HTTP; None for none.
        dataspace: where to serve the gateway of the Dataspace Protocol; None for nowhere.
    """

    def __init__(
        self,
        home: Home,
        runtime: Runtime,
        listen: str,
        *,
        at_once: int = AT_ONCE,
        room: Room = ROOM,
        observe: tuple[str, int] | None = None,
        development: bool = False,
        dataspace: Dataspace | None = None,
    ) -> None:
        self._home = home
        self._development = development
        self._dataspace = dataspace
        self._runtime = runtime
        self._store = CoordinatorStore(open_engine(home.path / "coordinator.db", COORDINATOR_STORE))
        self._ledger = home.open_ledger()
        self._links = Links(lambda peer: self._listener.cut(peer))
        self._tasks: set[asyncio.Task[None]] = set()
        self._enrolling = asyncio.Lock()
        self._gateway = ""
        self.desk = JobDesk(home, self._store, self._ledger, self._links, runtime, at_once=at_once, room=room)
        self.desk.watch(self._job_event)
        self.metrics = CoordinatorMetrics()
        self._standing = Standing(home, self._ledger, self._store, self._links, self.desk, self.metrics)
        self._observer = Observer(home.path, "coordinator", observe)
        post = Post(home, self._store, self._links, self._push)
        self._attestation = Attestation(home, self._ledger, self._links)
        delivery = Delivery(home, self._store, self._ledger, self._links, self._push)
        self._methods: dict[str, Method] = {
            "hello": self._hello,
            "status": self._status,
            "roster.get": self._roster_get,
            "roster.tier": self._roster_tier,
            "roster.keys": self._roster_keys,
            **post.methods,
            **self._attestation.methods,
            **self.desk.methods,
            **delivery.methods,
            "dataspace.gateway": self._dataspace_gateway,
        }
        self._listener = Listener(
            listen,
            home.tls,
            trusted=self._trusted,
            who=self._who,
            handler=self._handle,
            on_link=self._on_link,
            body_limit=BODY_LIMIT,
            requests={"job.submit": BUNDLE_BYTES, "bilateral.answer": MOST_BYTES},
            spool=home.folder("spool"),
            ready=self._standing.ready,
            meter=self.metrics.meter,
            places=Places(places_here()),
        )

    async def run(self, on_state: Callable[[str], None]) -> None:
        """Serve until cancelled. ``on_state`` hears ``ready`` once, with the port and that which is observed.

        Raises:
            AlreadyServingError: another process coordinates from this home; its jobs are not ours to call interrupted.
        """
        claim = self._home.claim("coordinator")
        try:
            await asyncio.to_thread(end_orphans)
            for place in await asyncio.to_thread(clear_leftovers):
                log.error("session-files-left", path=place)
            await self.desk.recover()
            self.desk.tier = await asyncio.to_thread(
                prove_tier, Tier(self._home.tier_floor), development=self._development
            )
            await asyncio.to_thread(enrolment.renew, Home(self._home.path), now(), RENEW_BEFORE)
            started = {"event": "started", "runtime": self._runtime.digest, "tier": str(self.desk.tier)}
            await asyncio.to_thread(self._ledger.append, "coordinator", started)
            # Before the listener: a roster that changes from here on is noticed and told.
            version = self._home.history.latest.version
            await self._listener.start()
            self._standing.port = self._listener.port
            async with (
                self._observer.serving(self._standing) as observed,
                serving(self._dataspace, self._home, self._ledger, self._links) as self._gateway,
            ):
                on_state(f"ready {self._listener.port} {observed or ''}".rstrip())
                if self._gateway:
                    on_state(f"dataspace {self._gateway}")
                tending = {
                    asyncio.create_task(self._attestation.run()),
                    asyncio.create_task(self._watch_roster(version)),
                }
                self._tasks |= tending
                ended, _ = await asyncio.wait(tending, return_when=asyncio.FIRST_COMPLETED)
                for task in ended:
                    task.result()
        finally:
            await self.desk.stop()
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await self._listener.stop()
            self._ledger.close()
            claim.release()

    async def drain(self, seconds: float) -> None:
        """Take no further job, and give exchanges that are being made ``seconds`` to end."""
        self._standing.draining = True
        log.info("draining", seconds=seconds)
        await self.desk.drain(seconds)

    def _job_event(self, job: str, kind: str, data: Mapping[str, Any]) -> None:
        self.metrics.event(job, kind, data)
        log.info(f"job-{kind}", job=job, **{name: data[name] for name in LOGGED if name in data})

    # -- who may connect ----------------------------------------------------------------------------------------------

    def _trusted(self) -> tuple[str, ...]:
        members = tuple(member.tls_certificate for member in self._home.history.latest.members)
        return members + tuple(row.certificate for row in self._store.outstanding(instant_text(now())))

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
        log.info("link", peer=peer.member.partition(":")[0], came=came)

    async def _handle(self, peer: Peer, message: Incoming) -> Outgoing:
        if peer.member.startswith(TICKET):
            if message.method != "enrol":
                raise DeniedError("an invitation's ticket can enrol and nothing else", code="ticket")
            return await self._enrol(peer, message)
        method = self._methods.get(message.method)
        if method is None:
            raise UsageError(
                "the coordinator does not know the method {method}", code="no-such-method", method=message.method[:40]
            )
        # A member removed while its link was still open may ask nothing more.
        self._home.history.latest.member(peer.member)
        return await method(peer, message)

    # -- roster -------------------------------------------------------------------------------------------------------

    async def _watch_roster(self, version: int) -> None:
        """Notice every new roster, whichever process signed it, and renew it in time. Goes on for ever."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            try:
                history = self._home.history
                if history.latest.expires - now() < RENEW_BEFORE:
                    await asyncio.to_thread(enrolment.renew, Home(self._home.path), now(), RENEW_BEFORE)
                if history.latest.version > version:
                    envelopes = history.envelopes[version:]
                    await self._spread(envelopes, version)
                    version += len(envelopes)
            except (KeyongError, OSError) as error:
                # Without this loop a removed member would keep its link: it must outlive a full disk.
                log.error("roster-watch", error=type(error).__name__, reason=str(error)[:500])

    async def _spread(self, envelopes: tuple[Envelope, ...], version: int) -> None:
        """Cut the links of those who are no longer in the roster, record it, and tell everyone else."""
        latest = self._home.history.latest.members
        members = {member.id for member in latest}
        certificates = {certificate_fingerprint(member.tls_certificate.encode()) for member in latest}
        for peer in self._links.peers:
            if peer.fingerprint not in certificates and not peer.member.startswith(TICKET):
                self._listener.cut(peer)
        headers = [m.Envelopes(envelopes=page).to_bytes() for page in pages(envelopes)]
        for node in self._links.online & members:
            self._push(node, "roster.push", *headers)
        for number, envelope in enumerate(envelopes, start=version + 1):
            fields = {"roster": envelope.digest, "version": number}
            await asyncio.to_thread(self._ledger.append, "roster", fields)

    def _push(self, member: str, method: str, *headers: bytes) -> None:
        async def quietly() -> None:
            try:
                for header in headers:
                    await self._links.call(member, method, header, timeout=ANSWER_SECONDS)
            except KeyongError as error:
                log.info("push-not-delivered", method=method, peer=member, code=error.code[:64])

        task = asyncio.create_task(quietly())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _enrol(self, peer: Peer, message: Incoming) -> Outgoing:
        envelopes = m.Envelopes.from_bytes(message.header).envelopes
        if len(envelopes) != 1:
            raise UsageError("an enrolment is one request", code="enrolment")
        ticket = peer.member.removeprefix(TICKET)
        # A Home of its own: the thread signs and learns while others read ours.
        home = Home(self._home.path)
        async with self._enrolling:
            enrolled = await asyncio.to_thread(
                enrolment.enrol, home, self._store, ticket, m.unpack(envelopes[0]), now()
            )
        log.info("enrolled", peer=enrolled.member.id)
        return Outgoing(m.Envelopes(envelopes=first_page(home.history.envelopes)).to_bytes())

    async def _roster_tier(self, peer: Peer, message: Incoming) -> Outgoing:
        envelopes = m.Envelopes.from_bytes(message.header).envelopes
        if len(envelopes) != 1:
            raise UsageError("a change of tier is one request", code="enrolment")
        home = Home(self._home.path)
        async with self._enrolling:
            changed = await asyncio.to_thread(enrolment.change_tier, home, peer.member, m.unpack(envelopes[0]), now())
        log.info("tier-changed", member=changed.member.id, tier=changed.member.floor)
        return Outgoing(m.Envelopes(envelopes=(m.pack(changed.envelope),)).to_bytes())

    async def _roster_keys(self, peer: Peer, message: Incoming) -> Outgoing:
        envelopes = m.Envelopes.from_bytes(message.header).envelopes
        if len(envelopes) != 1:
            raise UsageError("a change of keys is one request", code="enrolment")
        home = Home(self._home.path)
        async with self._enrolling:
            changed = await asyncio.to_thread(rekeying.change_keys, home, peer.member, m.unpack(envelopes[0]), now())
        log.info("keys-changed", member=changed.member.id)
        return Outgoing(m.Envelopes(envelopes=(m.pack(changed.envelope),)).to_bytes())

    # -- greeting -----------------------------------------------------------------------------------------------------

    async def _hello(self, peer: Peer, message: Incoming) -> Outgoing:
        hello = m.Hello.from_bytes(message.header)
        version = peer.version = negotiate((hello.lowest, hello.highest))
        if hello.serves == "node":
            self._links.serves(peer, hello.software)
        elif hello.serves == "dataspace":
            self._links.answers_dataspace(peer)
        rosters = self._home.history.envelopes[max(0, hello.roster_version) :]
        welcome = m.Welcome(
            version=version,
            software=software(),
            rosters=first_page(rosters),
            clock=instant_text(now()),
        )
        return Outgoing(welcome.to_bytes())

    async def _dataspace_gateway(self, peer: Peer, message: Incoming) -> Outgoing:
        return Outgoing(m.DataspaceGateway(url=self._gateway).to_bytes())

    async def _status(self, peer: Peer, message: Incoming) -> Outgoing:
        latest = self._home.history.latest
        status = m.Status(
            consortium=latest.consortium,
            name=latest.name,
            roster_version=latest.version,
            online=tuple(sorted(self._links.online)),
            jobs_running=self.desk.running,
        )
        return Outgoing(status.to_bytes())

    async def _roster_get(self, peer: Peer, message: Incoming) -> Outgoing:
        after = m.RosterSince.from_bytes(message.header).after
        chain = self._home.history.envelopes[max(0, after) :]
        return Outgoing(m.Envelopes(envelopes=first_page(chain)).to_bytes())
