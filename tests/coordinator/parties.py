"""A consortium in one process: a real coordinator, real links, real signatures and ledgers, and nodes without data."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np

from coordinator import enrolment
from coordinator.migrations import COORDINATOR_STORE
from coordinator.recording import ROOM, Room
from coordinator.service import CoordinatorService
from coordinator.store import CoordinatorStore
from federation.errors import KeyongError
from federation.home import Home, Identity, NewKeys, now
from federation.jobs import Content, decode, encode
from federation.jobs.codec import body_digest, content_digest, nested_digest
from federation.secagg import Layout, choose_encoding
from federation.secagg import encode as encode_reply
from federation.statements import (
    DecisionRecord,
    EnrolmentRequest,
    Envelope,
    Invitation,
    Invocation,
    Isolation,
    JobPlan,
    Member,
    MetricSpec,
    OutputSchema,
    PlannedDataset,
    Receipt,
    Root,
    Roster,
    StageOutput,
    root_fingerprint,
)
from federation.statements.code import CodeBundle, bundle_folder
from federation.stores import open_engine
from federation.wire import messages as m
from federation.wire.dial import refuse_all
from federation.wire.member import connect, greet
from federation.wire.peer import Incoming, Outgoing, Peer
from sandbox import Runtime
from tests.ports import own_port

NOWHERE = Runtime(Path("/nowhere"), digest="sha256:" + "7" * 64)
"""For what never opens a session."""
AGREEMENT = "sha256:" + "a" * 64
VERSION = "sha256:" + "b" * 64

PYPROJECT = """
[project]
name = "app"
version = "1.0.0"
[tool.flwr.app]
publisher = "tests"
[tool.flwr.app.components]
serverapp = "server_app:app"
clientapp = "client_app:app"
[tool.flwr.app.config]
rounds = 2
"""
SERVER = """
import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import *
app = ServerApp()
initial = ArrayRecord({"w": Array(np.zeros(3, dtype=np.float32))})
"""
FEDAVG = (
    SERVER
    + """
@app.main()
def main(grid, context):
    result = FedAvg().start(grid, initial, num_rounds=context.run_config["rounds"])
    open("final.txt", "w").write(str(result.arrays["w"].numpy().tolist()))
"""
)


def found(path: Path, port: int) -> Home:
    """The institute: founder, coordinator and requester."""
    keys = NewKeys("institute", root=True)
    assert keys.root is not None
    at, consortium = now(), f"urn:uuid:{uuid.uuid4()}"
    root = Root(threshold=1, keys=(keys.root.public.text,))
    roles = ("member", "coordinator", "analyst")
    address = f"127.0.0.1:{port}"
    founder = _member(keys, "institute", "Institute", roles, address)
    roster = Roster(
        issued=at,
        expires=at + timedelta(days=90),
        consortium=consortium,
        name="Test",
        version=1,
        root=root,
        members=(founder,),
    )
    identity = Identity(
        consortium=consortium,
        name="Test",
        fingerprint=root_fingerprint(consortium, root),
        member="institute",
        entity="Institute",
        roles=roles,
        founded=True,
        coordinator="institute",
        address=address,
    )
    return Home.create(path, identity, keys, [roster.seal(keys.root)])


def _member(keys: NewKeys, name: str, entity: str, roles: tuple[Any, ...], address: str = "") -> Member:
    return Member(
        id=name,
        entity=entity,
        roles=roles,
        statement_key=keys.statement.public.text,
        ledger_key=keys.ledger.public.text,
        witness_key=keys.witness.public.text,
        tls_certificate=keys.tls.certificate_pem.decode(),
        address=address,
    )


def request_of(keys: NewKeys, invitation: Invitation, **changes: Any) -> Envelope:
    """An enrolment request as an honest newcomer makes it, but for ``changes``."""
    fields: dict[str, Any] = {
        "issued": now(),
        "expires": now() + timedelta(hours=1),
        "consortium": invitation.consortium,
        "member": invitation.member,
        "entity": invitation.entity,
        "statement_key": keys.statement.public.text,
        "ledger_key": keys.ledger.public.text,
        "witness_key": keys.witness.public.text,
        "tls_certificate": keys.tls.certificate_pem.decode(),
    }
    return EnrolmentRequest(**{**fields, **changes}).seal(keys.statement, keys.ledger, keys.witness)


def enrol(institute: Home, store: CoordinatorStore, path: Path, name: str) -> Home:
    """A new member, without a link."""
    invitation = enrolment.invite(institute, store, member=name, entity=f"{name} Ltd", roles=("member",), at=now())
    keys = NewKeys(name, root=False)
    ticket = store.outstanding("")[-1].fingerprint
    enrolment.enrol(institute, store, ticket, request_of(keys, invitation), now())
    identity = Identity(
        consortium=invitation.consortium,
        name="Test",
        fingerprint=invitation.fingerprint,
        member=name,
        entity=f"{name} Ltd",
        roles=("member",),
        coordinator="institute",
        address=invitation.address,
    )
    return Home.create(path, identity, keys, list(institute.history.envelopes))


Train = Callable[[str, Content, int], Content]


def step(stage: str, sent: Content, number: int) -> Content:
    """What every node does unless told otherwise: adds its number, and says so."""
    metrics: dict[str, Any] = {"metrics": {"loss": float(number), "num-examples": 1_000_000}}
    if stage == "evaluate":
        return Content(metrics=metrics)
    arrays = {
        record: {name: np.asarray(array + number, dtype=array.dtype) for name, array in entries.items()}
        for record, entries in sent.arrays.items()
    }
    return Content(arrays, metrics)


class FakeNode:
    """A node's end of a link: signs, records and proves as a real one, and computes without a sandbox.

    The hooks make it hostile: each takes what an honest node would send and returns what it sends instead.
    """

    def __init__(self, home: Home, number: int, rows: int, train: Train = step) -> None:
        self.home = home
        self.name = home.identity.member
        self.number = number
        self.rows = rows
        self.train = train
        self.ledger = home.open_ledger()
        self.plans: dict[str, JobPlan] = {}
        self.asked: list[tuple[str, Content]] = []
        self.answered: dict[str, Outgoing] = {}
        self.closed: list[str] = []
        self.held: tuple[str, memoryview] = ("", memoryview(b""))
        self.opened: Callable[[m.JobOpened], m.JobOpened] = lambda answer: answer
        self.receipt: Callable[[Receipt], Receipt] = lambda receipt: receipt
        self.proof: Callable[[bytes], bytes] = lambda proof: proof
        self.encoded: Callable[[Any], Any] = lambda reply: reply
        self.body: Callable[[bytes], bytes] = lambda body: body
        self.before: Callable[[Invocation], Any] | None = None
        self.peer: Peer | None = None

    @contextlib.asynccontextmanager
    async def attached(self) -> AsyncIterator[Peer]:
        async with connect(self.home, self._handle, timeout=30) as peer:
            await greet(peer, self.home, None, serves="node")
            self.peer = peer
            yield peer

    async def _handle(self, peer: Peer, message: Incoming) -> Outgoing:
        if message.method == "job.open":
            envelope = m.unpack(m.JobOpen.from_bytes(message.header).plan)
            self.plans[envelope.digest] = JobPlan.read(envelope)
            return Outgoing(self.opened(m.JobOpened(permitted=True)).to_bytes())
        if message.method == "job.invoke":
            return await self._invoke(m.Invoke.from_bytes(message.header), message.body)
        if message.method == "job.close":
            self.closed.append(m.JobClose.from_bytes(message.header).plan)
        return Outgoing(m.Empty().to_bytes())

    async def _invoke(self, request: m.Invoke, body: memoryview) -> Outgoing:
        envelope = m.unpack(request.invocation)
        invocation = Invocation.read(envelope)
        if envelope.digest in self.answered:
            return self.answered[envelope.digest]
        if request.withheld:
            assert self.held[0] == request.body
            body = self.held[1]
        self.held = (request.body, body)
        answer = await asyncio.to_thread(self._compute, envelope, invocation, request.content, body)
        self.answered[envelope.digest] = answer
        if self.before is not None:
            await self.before(invocation)
        return answer

    def _compute(self, envelope: Envelope, invocation: Invocation, header: str, body: memoryview) -> Outgoing:
        plan = self.plans[invocation.plan]
        sent = decode(header.encode(), body)
        assert nested_digest(header.encode(), body_digest([body])) == invocation.content
        self.asked.append((invocation.stage, Content(sent.arrays, sent.metrics, sent.configs)))
        reply = self.train(invocation.stage, sent, self.number)
        text = ""
        if plan.aggregation == "sum":
            layout = Layout.derive(sent.arrays, plan.outputs.of(invocation.stage))
            made = encode_reply(reply, sent.arrays, layout, plan.encoding, self.rows, len(plan.cohort))
            data = b"".join(self.encoded(made).to_buffers())
            digest = "sha256:" + __import__("hashlib").sha256(data).hexdigest()
        else:
            raw, views = encode(reply)
            text, data, digest = raw.decode(), b"".join(views), content_digest(raw, views)
        at, share = now(), plan.at(self.name)
        receipt = self.receipt(
            Receipt(
                issued=at,
                expires=at + timedelta(days=30),
                node=self.name,
                plan=invocation.plan,
                invocation=envelope.digest,
                round=invocation.round,
                stage=invocation.stage,
                intent=1,
                outcome="ok",
                decision=DecisionRecord(permit=True),
                dataset=share.dataset,
                data_version=share.data_version,
                code_digest=plan.code,
                runtime=plan.runtime,
                isolation=Isolation(),
                input=invocation.content,
                output=digest,
                output_bytes=len(data),
                weight=self.rows,
                protection=plan.protection,
                started=at,
                ended=at,
            )
        )
        sealed = receipt.seal(self.home.key("statement"))
        index = self.ledger.append("outcome", {"receipt": sealed.to_bytes()}).index
        proof = self.proof(self.ledger.receipt_bundle(index))
        invoked = m.Invoked(receipt=m.pack(sealed), proof=base64.b64encode(proof).decode(), reply=text)
        return Outgoing(invoked.to_bytes(), [self.body(data)])


class Consortium:
    """A running coordinator with its members."""

    def __init__(self, institute: Home, store: CoordinatorStore, members: list[Home], runtime: Runtime) -> None:
        self.institute = institute
        self.store = store
        self.members = members
        self.runtime = runtime
        self.nodes = [FakeNode(home, number, 100 * number) for number, home in enumerate(members, start=1)]
        self.service: CoordinatorService | None = None
        self.client: Peer | None = None

    @contextlib.asynccontextmanager
    async def serving(self, *, at_once: int = 4, nodes: bool = True, room: Room = ROOM) -> AsyncIterator[Consortium]:
        """The coordinator, every node's link and the requester's."""
        ready = asyncio.Event()
        address = self.institute.identity.address
        service = self.service = CoordinatorService(
            Home(self.institute.path), self.runtime, address, at_once=at_once, room=room
        )
        task = asyncio.create_task(service.run(lambda _: ready.set()))
        waiting = asyncio.create_task(ready.wait())
        await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
        try:
            async with contextlib.AsyncExitStack() as stack:
                for node in self.nodes if nodes else []:
                    await stack.enter_async_context(node.attached())
                self.client = await stack.enter_async_context(connect(self.institute, refuse_all))
                await greet(self.client, self.institute, None, serves="client")
                yield self
        finally:
            waiting.cancel()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def plan(self, bundle: CodeBundle, **changes: Any) -> JobPlan:
        """A plan over all nodes."""
        stage = StageOutput(sent=True, metrics=(MetricSpec(name="loss"),))
        fields: dict[str, Any] = {
            "issued": now(),
            "expires": now() + timedelta(hours=1),
            "id": f"urn:uuid:{uuid.uuid4()}",
            "requester": "institute",
            "coordinator": "institute",
            "roster": self.institute.history.digest,
            "actions": ("fed:train", "fed:evaluate"),
            "purpose": "fed:ProcessOptimization",
            "code": bundle.digest,
            "runtime": self.runtime.digest,
            "cohort": tuple(
                PlannedDataset(node=node.name, dataset="passes", data_version=VERSION, agreement=AGREEMENT)
                for node in self.nodes
            ),
            "rounds": 2,
            "run_config": {},
            "outputs": OutputSchema(train=stage, evaluate=StageOutput(sent=False, metrics=stage.metrics)),
            "encoding": choose_encoding([(node.rows, node.rows) for node in self.nodes]),
            "protection": "fed:none",
            "minimal_participants": len(self.nodes),
            "round_seconds": 60,
        }
        return JobPlan(**{**fields, **changes})

    async def call(self, method: str, header: m.Message, body: tuple[bytes, ...] = (), **options: Any) -> Incoming:
        assert self.client is not None
        return await self.client.call(method, header.to_bytes(), body, timeout=60, **options)

    async def submit(self, plan: JobPlan, bundle: CodeBundle) -> str:
        envelope = plan.seal(self.institute.key("statement"))
        answer = await self.call("job.submit", m.Submit(plan=m.pack(envelope)), (bundle.to_bytes(),))
        return m.JobRef.from_bytes(answer.header).job

    async def follow(self, job: str, until: str = "") -> list[m.Event]:
        """The job's events to its end, or to the first of kind ``until``."""
        events: list[m.Event] = []
        while True:
            after = events[-1].number if events else 0
            answer = m.Events.from_bytes((await self.call("job.events", m.EventsSince(job=job, after=after))).header)
            events += answer.events
            if until and any(event.kind == until for event in answer.events):
                return events
            if not answer.events and answer.status not in ("submitted", "running"):
                return events

    async def run(self, bundle: CodeBundle, **changes: Any) -> tuple[str, m.Event, list[m.Event]]:
        """Submit and follow; the job, its last event and all of them."""
        job = await self.submit(self.plan(bundle, **changes), bundle)
        events = await self.follow(job)
        return job, events[-1], events

    async def result(self, job: str) -> dict[str, bytes]:
        """A job's files."""
        answer = await self.call("job.result", m.JobRef(job=job))
        files, at = {}, 0
        for file in m.Result.from_bytes(answer.header).files:
            files[file.path] = bytes(answer.body[at : at + file.size])
            at += file.size
        assert at == len(answer.body)
        return files

    async def refused(self, plan: JobPlan, bundle: CodeBundle) -> KeyongError:
        """The error that submitting gives."""
        try:
            await self.submit(plan, bundle)
        except KeyongError as error:
            return error
        raise AssertionError("it was taken")


def bundle_of(folder: Path, server: str = FEDAVG, pyproject: str = PYPROJECT, **files: str) -> CodeBundle:
    """An app's bundle."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in {"server_app": server, "client_app": "app = None\n", **files}.items():
        (folder / f"{name}.py").write_text(text)
    (folder / "pyproject.toml").write_text(pyproject)
    return bundle_folder(folder)


def make(folder: Path, runtime: Runtime, count: int = 3) -> Consortium:
    """Found and enrol; nothing serves yet."""
    institute = found(folder / "institute", own_port())
    store = CoordinatorStore(open_engine(institute.path / "coordinator.db", COORDINATOR_STORE))
    members = [
        enrol(institute, store, folder / f"mill-{letter}", f"mill-{letter}") for letter in "abcdefghijkl"[:count]
    ]
    return Consortium(institute, store, members, runtime)


def with_totals(place: int, value: int) -> Callable[[Any], Any]:
    """Make a reply state another total."""

    def change(reply: Any) -> Any:
        totals = reply.totals.copy()
        totals[place] = value
        return replace(reply, totals=totals)

    return change


__all__ = [name for name in dir() if not name.startswith("_")]
assert json  # re-exported for tests that read metrics
