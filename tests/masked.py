"""A consortium for masked rounds in one process: real nodes, the coordinator's real rounds, and links that a test can cut.

Everything is real but the sandbox (a session replies what the test says) and the network (a call reaches the other end's
handler, its errors as they cross a link). A test sees every message, and may lose it, change it, or ask on its own.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from coordinator.answers import Answer
from coordinator.cohort import Cohort
from coordinator.exchange import Exchange
from coordinator.links import NodeOfflineError, Withdrawals
from coordinator.recording import Recording
from coordinator.rounds import Rounds
from enterprise_node.datasets import inspect_source
from enterprise_node.service import NodeService
from enterprise_node.stages import JobSession
from federation import correspondence
from federation.errors import KeyongError
from federation.home import Home, Identity, NewKeys, now
from federation.jobs.codec import Content, encode
from federation.policy import agreement_policy
from federation.secagg import choose_encoding, threshold
from federation.statements import (
    Agreement,
    Envelope,
    Isolation,
    JobPlan,
    Member,
    MetricSpec,
    OutputSchema,
    PlannedDataset,
    Root,
    Roster,
    StageOutput,
    root_fingerprint,
)
from federation.statements.code import CodeBundle
from federation.wire.body import Buffer
from federation.wire.faults import error_of, fault_of
from federation.wire.peer import Incoming
from federation.wire.protocol import PROTOCOL
from keyong import registering
from sandbox import Runtime

RUNTIME = Runtime(Path("/nowhere"), digest="sha256:" + "7" * 64)
BUNDLE = CodeBundle({"pyproject.toml": b"[project]\nname = 'app'\nversion = '1'\n", "app.py": b""})
Reply = Callable[[str, Content], Content | Awaitable[Content]]


def trained(node: str, sent: Content, size: int = 37) -> Content:
    """What a node replies: the model and a number of its own, drawn by its name."""
    random = np.random.default_rng(sum(node.encode()))
    arrays = {
        record: {name: (array + random.normal(size=array.shape)).astype(array.dtype) for name, array in entries.items()}
        for record, entries in sent.arrays.items()
    }
    return Content(arrays=arrays, metrics={"metrics": {"loss": float(random.normal()), "num-examples": 3}})


class Session:
    """Stands where a sandbox session stands."""

    def __init__(self, request: Any, node: str, world: MaskedWorld) -> None:
        self.snapshot = request.snapshot
        self.isolation = Isolation(tier="T2")
        self._node = node
        self._world = world
        self._killed = asyncio.Event()

    async def call(self, stage: str, content: Any, body: Any, seconds: float, limit: int | None = None) -> Content:
        self._world.calls.append(self._node)
        sent = self._world.sent
        found = self._world.reply(self._node, sent)
        running = asyncio.ensure_future(_value(found))
        killed = asyncio.ensure_future(self._killed.wait())
        await asyncio.wait((running, killed), return_when=asyncio.FIRST_COMPLETED)
        killed.cancel()
        if self._killed.is_set():
            running.cancel()
            raise KeyongError("killed")
        return running.result()

    def strike(self) -> None:
        self._killed.set()

    async def kill(self) -> None:
        self._killed.set()

    async def close(self) -> None:
        self._killed.set()
        self.snapshot.discard()


async def _value(found: Any) -> Content:
    return await found if asyncio.iscoroutine(found) else found


@dataclass
class Call:
    """One message on its way to a node."""

    node: str
    method: str
    header: dict[str, Any]
    body: bytes = b""


class Links:
    """Where the coordinator's links stand: a call reaches the node's handler, unless ``loses`` says otherwise.

    Attributes:
        loses: whether this message never arrives; asked before it is delivered.
        loses_answer: whether the answer to it never comes back.
        calls: every message that was sent, and ``answers`` what came back: all that crosses to and from the coordinator.
    """

    def __init__(self, world: MaskedWorld) -> None:
        self._world = world
        self.withdrawals = Withdrawals()
        self.loses: Callable[[Call], bool] = lambda _: False
        self.loses_answer: Callable[[Call], bool] = lambda _: False
        self.changes: Callable[[Call], Any] = lambda _: None
        self.calls: list[Call] = []
        self.answers: list[tuple[Call, Incoming]] = []
        self.down: set[str] = set()
        self.versions: dict[str, int] = {}

    @property
    def online(self) -> frozenset[str]:
        return frozenset(self._world.nodes) - self.down

    def version(self, node: str) -> int:
        return self.versions.get(node, PROTOCOL[1])

    async def any_of(self, nodes: Iterable[str], seconds: float) -> frozenset[str]:
        return frozenset(nodes) & self.online

    async def call(
        self,
        node: str,
        method: str,
        header: bytes,
        body: Sequence[Buffer] = (),
        *,
        timeout: float | None,
        job: str = "",
    ) -> Incoming:
        call = Call(node, method, json.loads(header), b"".join(bytes(part) for part in body))
        self.changes(call)
        self.calls.append(call)
        if node in self.down or self.loses(call):
            raise NodeOfflineError("{node} is not connected", node=node)
        incoming = await self._world.deliver(node, method, json.dumps(call.header).encode(), call.body)
        if node in self.down or self.loses_answer(call):
            raise NodeOfflineError("{node} is not connected", node=node)
        self.answers.append((call, incoming))
        return incoming

    async def call_again(
        self, node: str, method: str, header: bytes, body: Sequence[Buffer] = (), *, timeout: float, job: str = ""
    ) -> Incoming:
        return await self.call(node, method, header, body, timeout=timeout)


@dataclass
class MaskedWorld:
    """A coordinating institute, an asking lab, and some mills with a node each."""

    base: Path
    keys: dict[str, NewKeys]
    institute: Home
    homes: dict[str, Home]
    nodes: dict[str, NodeService]
    agreements: dict[str, str]
    versions: dict[str, str]
    reply: Reply = trained
    sent: Content = field(default_factory=Content)
    calls: list[str] = field(default_factory=list)
    told: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)

    @property
    def mills(self) -> list[str]:
        """All mills, in order."""
        return sorted(self.nodes)

    def plan(self, mills: Sequence[str] | None = None, **changes: Any) -> Envelope:
        """A plan of the lab's over some mills, all of them by default."""
        names = list(mills or self.mills)
        stage = StageOutput(sent=True, metrics=(MetricSpec(name="loss"), MetricSpec(name="num-examples")))
        at = now()
        values: dict[str, Any] = {
            "issued": at,
            "expires": at + timedelta(hours=6),
            "id": f"urn:uuid:{uuid.uuid4()}",
            "requester": "lab",
            "coordinator": "inst",
            "roster": self.institute.history.digest,
            "actions": ("fed:train", "fed:evaluate"),
            "purpose": "fed:ProcessOptimization",
            "code": BUNDLE.digest,
            "runtime": RUNTIME.digest,
            "cohort": tuple(
                PlannedDataset(
                    node=name, dataset="passes", data_version=self.versions[name], agreement=self.agreements[name]
                )
                for name in names
            ),
            "rounds": 5,
            "run_config": {},
            "outputs": OutputSchema(train=stage, evaluate=StageOutput(sent=False, metrics=stage.metrics)),
            "encoding": choose_encoding([(0, 10)] * len(names)),
            "protection": "fed:masked",
            "minimal_participants": max(3, threshold(len(names))),
            "round_seconds": 60,
        } | changes
        return JobPlan(**values).seal(self.keys["lab"].statement)

    async def deliver(self, node: str, method: str, header: bytes, body: bytes) -> Incoming:
        """A message reaches a node; its answer, or its error as it crosses a link."""
        peer: Any = SimpleNamespace(member="inst", version=3, over=False)
        try:
            answer = await self.nodes[node]._handle(peer, Incoming(method, header, memoryview(body)))
        except KeyongError as error:
            raise error_of(fault_of(error, tell=True)) from None
        return Incoming(method, answer.header, memoryview(b"".join(bytes(part) for part in answer.body)))

    def agree(self, name: str, **terms: Any) -> None:
        """Let plans rest on another agreement of a mill's."""
        self.agreements[name] = _agree(self, name, self.institute.history.digest, **terms)

    def job(self, plan: Envelope, folder: str = "job", links: Links | None = None) -> Job:
        """The coordinator's side of a job, from its beginning or from its recording."""
        return Job(self, plan, folder, links or Links(self))

    def entries(self, node: str, kind: str) -> list[dict[str, Any]]:
        """The fields of a node's ledger entries of a kind."""
        ledger = self.nodes[node]._record.ledger
        return [ledger.fields(entry.index) for entry in ledger.find(kind=kind)]

    def restart(self, node: str) -> None:
        """Kill a node's process and start another; its ledger closes what was open."""
        self.stop(node)
        self.nodes[node] = NodeService(self.homes[node], RUNTIME)

    def stop(self, node: str) -> None:
        """Let go of a node as the end of its process does."""
        service = self.nodes[node]
        service._record.ledger.close()
        service._engine.dispose()
        service._claim.release()

    def model(self, value: float = 0.0, size: int = 37) -> Content:
        """What a job begins with."""
        return Content(
            arrays={"arrays": {"w": np.full(size, value, dtype=np.float32), "k": np.array([3, 4], dtype=np.int64)}},
            configs={"config": {"lr": 0.5}},
        )

    def plain(self, mills: Sequence[str], sent: Content) -> np.ndarray[Any, Any]:
        """The weighted mean as plain averaging gives it; every mill has as many rows."""
        replies = [trained(mill, sent).arrays["arrays"]["w"].astype(np.float64) for mill in mills]
        return np.mean(replies, axis=0)


class Job:
    """One job at the coordinator."""

    def __init__(self, world: MaskedWorld, plan: Envelope, folder: str, links: Links) -> None:
        self.world = world
        self.plan = JobPlan.read(plan)
        self.envelope = plan
        self.links = links
        path = world.base / folder
        path.mkdir(exist_ok=True)
        self.recording = Recording(path)
        numbers = {planned.node: at for at, planned in enumerate(self.plan.cohort, start=1)}
        code = BUNDLE.to_bytes
        home: Any = world.institute
        self.cohort = Cohort(home, links, plan, self.plan, numbers, code, self._keep, self._tell)  # type: ignore[arg-type]
        if self.recording.numbers:
            self.cohort.resume(self.recording.numbers)
        self.rounds = Rounds(
            home, home.key("statement"), links, plan, self.plan, self.cohort, self.recording, self._keep, self._fell,  # type: ignore[arg-type]
        )  # fmt: skip
        self._numbers = numbers

    async def open(self) -> Job:
        """Ask the nodes whether they would permit it."""
        await self.cohort.open()
        if not self.recording.numbers:
            self.recording.begin(self._numbers)
        return self

    async def exchange(self, sent: Content, stage: str = "train") -> Exchange:
        """One exchange; on record where it succeeds."""
        self.world.sent = sent
        header, buffers = encode(sent)
        body = memoryview(b"".join(bytes(part) for part in buffers))
        done = await self.rounds.exchange(stage, json.loads(header), body)
        if not done.replayed:
            await self.rounds.keep(done, {"round": done.round, "total_weight": 0})
        return done

    async def _keep(self, answer: Answer) -> None:
        self.world.answers.append(answer)

    async def _tell(self, kind: str, data: dict[str, Any]) -> None:
        self.world.told.append((kind, data))

    async def _fell(self, exchange: Exchange) -> None:
        self.world.told.append(("fell-out", dict(exchange.fallen)))


@contextmanager
def masked_world(
    base: Path, monkeypatch: pytest.MonkeyPatch, mills: int = 4, entities: Mapping[str, str] | None = None, **terms: Any
) -> Iterator[MaskedWorld]:
    """A consortium whose mills each hold a dataset of three rows and an agreement with the lab.

    Args:
        entities: legal entities that are not the member's own name.
        terms: of the agreements.
    """
    names = [f"mill-{chr(ord('a') + at)}" if mills <= 26 else f"mill-{at:03}" for at in range(mills)]
    keys = {name: NewKeys(name, root=name == "inst") for name in ("inst", "lab", *names)}
    root = keys["inst"].root
    assert root is not None
    consortium = f"urn:uuid:{uuid.uuid4()}"
    pinned = Root(threshold=1, keys=(root.public.text,))
    entity = {name: f"{name} Ltd" for name in keys} | dict(entities or {})
    roster = Roster(
        issued=now(),
        expires=now() + timedelta(days=30),
        consortium=consortium,
        name="Test",
        version=1,
        root=pinned,
        members=tuple(_member(name, entity[name], keys[name]) for name in keys),
    ).seal(root)

    def home(name: str) -> Home:
        identity = Identity(
            consortium=consortium, name="Test", fingerprint=root_fingerprint(consortium, pinned), member=name,
            entity=entity[name], roles=("member", "coordinator") if name == "inst" else ("member",),
            coordinator="inst", address="127.0.0.1:1",
        )  # fmt: skip
        return Home.create(base / name, identity, keys[name], [roster])

    institute = home("inst")
    homes = {name: home(name) for name in names}
    world = MaskedWorld(base, keys, institute, homes, {}, {}, {})
    for name in names:
        (base / f"{name}.csv").write_text("x,y\n1.5,1\n2.5,2\n3.5,3\n")
        source = inspect_source(base / f"{name}.csv")
        registering.register(
            homes[name], source, registering.describe_dataset(homes[name], source, dataset="passes", title="Passes")
        )
        service = world.nodes[name] = NodeService(homes[name], RUNTIME)
        world.versions[name] = service._store.dataset("passes").data_version
        for one in institute.history.latest.members:
            service._store.accept(one, "2026-01-01T00:00:00Z")
        world.agreements[name] = _agree(world, name, roster.digest, **terms)

    async def opened(folder: Path, request: Any, *rest: Any) -> Session:
        node = next(name for name in names if folder.is_relative_to(base / name))
        return Session(request, node, world)

    monkeypatch.setattr(JobSession, "open", opened)
    try:
        yield world
    finally:
        for name in names:
            world.stop(name)


def _agree(world: MaskedWorld, name: str, roster: str, **terms: Any) -> str:
    at = now()
    values: dict[str, Any] = {
        "provider": name, "consumer": "lab", "dataset": "passes", "actions": ["fed:train", "fed:evaluate"],
        "purposes": ["fed:ProcessOptimization"], "count": 10, "expires": at + timedelta(days=1),
        "agreement_id": f"urn:uuid:{uuid.uuid4()}", "now": at, "protection": "fed:masked",
    } | terms  # fmt: skip
    statement = Agreement(
        issued=at, expires=values["expires"], id=values["agreement_id"], provider=name, consumer="lab",
        dataset="passes", title="Passes", roster=roster, policy=agreement_policy(**values),
    )  # fmt: skip
    envelope = statement.seal(world.keys[name].statement, world.keys["lab"].statement)
    service = world.nodes[name]
    correspondence.enter_into_force(service._holdings, service._record.ledger, envelope, statement, at)
    return envelope.digest


def _member(name: str, entity: str, keys: NewKeys) -> Member:
    return Member(
        id=name,
        entity=entity,
        roles=("member", "coordinator") if name == "inst" else ("member",),
        statement_key=keys.statement.public.text,
        ledger_key=keys.ledger.public.text,
        witness_key=keys.witness.public.text,
        tls_certificate=keys.tls.certificate_pem.decode(),
        address="127.0.0.1:1" if name == "inst" else "",
    )
