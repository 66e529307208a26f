"""One mill's node with everything real: home, ledger, store, agreement signed by both, a plan signed by a lab."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from enterprise_node.datasets import inspect_source
from enterprise_node.line import Line
from enterprise_node.record import Record
from enterprise_node.session import JobFailedError
from enterprise_node.store import NodeStore
from federation import correspondence
from federation.errors import KeyongError
from federation.holdings import Holdings, open_engine
from federation.home import Home, Identity, NewKeys
from federation.jobs.codec import Content, content_digest, encode
from federation.policy import agreement_policy
from federation.statements import (
    Agreement,
    Encoding,
    Envelope,
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
from federation.statements.code import CodeBundle
from federation.wire.messages import Invoked, unpack
from federation.wire.peer import Outgoing
from keyong import registering
from keyong import runtime as runtimes
from sandbox import Runtime

MEMBERS = ("inst", "lab", "mill", "other")

CLIENT = """
import time, numpy as np, pyarrow.parquet as pq
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
app = ClientApp()

@app.train()
def train(msg, context):
    mode = str(msg.content["config"]["mode"])
    x = pq.read_table(context.node_config["dataset-path"] + "/data.parquet")["x"].to_numpy()
    if mode == "raise":
        print("a value of the mill:", x[0])
        raise RuntimeError(f"secret value {x[0]}")
    if mode == "sleep":
        time.sleep(600)
    if mode == "memory":
        kept = [bytearray(b"x" * 2**20) for _ in range(4096)]
    w = msg.content["arrays"].to_numpy_ndarrays()[0] + np.float32(1)
    records = {"arrays": ArrayRecord([w]), "metrics": MetricRecord({"loss": 0.5, "num-examples": len(x)})}
    if mode == "config":
        records["leak"] = ConfigRecord({"row": float(x[0])})
    return Message(RecordDict(records), reply_to=msg)
"""


class Clock:
    """The time of day, and as much later as a test wants."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead


class ScriptedSession:
    """Stands where a sandbox session stands and replies what a test says; the line around it is the real one."""

    def __init__(self, request: Any, world: World) -> None:
        self.request = request
        self.snapshot = request.snapshot
        self.isolation = Isolation(tier="T2")
        self._world = world
        self._killed = asyncio.Event()
        self.closed = False

    async def call(self, stage: str, content: Any, body: Any, seconds: float, limit: int | None = None) -> Content:
        """The scripted reply; a coroutine function may take its time until it is killed."""
        self._world.calls += 1
        running = asyncio.ensure_future(self._world.reply())
        killed = asyncio.ensure_future(self._killed.wait())
        try:
            await asyncio.wait((running, killed), return_when=asyncio.FIRST_COMPLETED)
            if self._killed.is_set():
                raise JobFailedError("killed")
            return running.result()
        finally:
            running.cancel()
            killed.cancel()

    def strike(self) -> None:
        """End a call."""
        self._killed.set()

    async def kill(self) -> None:
        """End a call."""
        self._killed.set()

    async def close(self) -> None:
        """End the session."""
        self._killed.set()
        self.closed = True
        self.snapshot.discard()


@dataclass
class World:
    """A consortium on disk, seen from the mill's node."""

    base: Path
    keys: dict[str, NewKeys]
    root: Any
    roster: Envelope
    home: Home
    record: Record
    store: NodeStore
    holdings: Holdings
    clock: Clock
    line: Line
    bundle: CodeBundle
    runtime: Runtime
    calls: int = 0
    sessions: list[ScriptedSession] = field(default_factory=list)
    reply: Callable[[], Any] = field(default=lambda: None)

    def agreement(self, **changes: Any) -> Envelope:
        """An agreement between mill and lab, in force."""
        at = self.clock()
        terms: dict[str, Any] = {
            "provider": "mill",
            "consumer": "lab",
            "dataset": "passes",
            "actions": ["fed:train"],
            "purposes": ["fed:ProcessOptimization"],
            "count": 10,
            "expires": at + timedelta(days=1),
            "agreement_id": f"urn:uuid:{uuid.uuid4()}",
            "now": at,
            "protection": "fed:none",
        } | changes
        prices = {name: terms.pop(name) for name in ("cost", "tariff") if name in terms}
        statement = Agreement(
            **prices,
            issued=at,
            expires=terms["expires"],
            id=terms["agreement_id"],
            provider="mill",
            consumer="lab",
            dataset="passes",
            title="Passes",
            roster=self.roster.digest,
            policy=agreement_policy(**terms),
        )
        envelope = statement.seal(self.keys["mill"].statement, self.keys["lab"].statement)
        correspondence.enter_into_force(self.holdings, self.record.ledger, envelope, statement, at)
        return envelope

    def plan(self, agreement: Envelope, *, signer: str = "lab", **changes: Any) -> Envelope:
        """A plan of the lab's for the mill's dataset."""
        at = self.clock()
        stage = StageOutput(sent=True, metrics=(MetricSpec(name="loss"), MetricSpec(name="num-examples")))
        values: dict[str, Any] = {
            "issued": at,
            "expires": at + timedelta(hours=6),
            "id": f"urn:uuid:{uuid.uuid4()}",
            "requester": "lab",
            "coordinator": "inst",
            "roster": self.home.history.digest,
            "actions": ("fed:train",),
            "purpose": "fed:ProcessOptimization",
            "code": self.bundle.digest,
            "runtime": self.runtime.digest,
            "cohort": (self.share(agreement),),
            "rounds": 5,
            "run_config": {},
            "outputs": OutputSchema(train=stage, evaluate=StageOutput(sent=False), maximal_bytes=2**20),
            "encoding": Encoding(ring="z64", fraction_bits=20, weight_minimum=0, weight_maximum=1000),
            "protection": "fed:none",
            "minimal_participants": 1,
            "round_seconds": 60,
        } | changes
        return JobPlan(**values).seal(self.keys[signer].statement)

    def share(self, agreement: Envelope) -> PlannedDataset:
        """The mill's share in a plan."""
        version = self.store.dataset("passes").data_version
        return PlannedDataset(node="mill", dataset="passes", data_version=version, agreement=agreement.digest)

    def step(
        self, plan: Envelope, number: int = 1, *, mode: str = "ok", **changes: Any
    ) -> tuple[Envelope, bytes, memoryview]:
        """An invocation of the coordinator's, with its content."""
        content = Content(arrays={"arrays": {"0": np.zeros(2, dtype=np.float32)}}, configs={"config": {"mode": mode}})
        header, buffers = encode(content)
        body = memoryview(b"".join(bytes(part) for part in buffers))
        at = self.clock()
        values: dict[str, Any] = {
            "issued": at,
            "expires": at + timedelta(minutes=5),
            "plan": plan.digest,
            "node": "mill",
            "round": number,
            "stage": "train",
            "content": content_digest(header, [body]),
        } | changes
        signer = values.pop("signer", "inst")
        return Invocation(**values).seal(self.keys[signer].statement), header, body

    async def open(self, plan: Envelope) -> Any:
        """Open a plan at the node."""
        return await self.line.open_job(plan, memoryview(self.bundle.to_bytes()))

    async def invoke(self, plan: Envelope, number: int = 1, **changes: Any) -> tuple[Receipt, Outgoing]:
        """Run one step; returns its verified receipt and the answer."""
        return self.receipt(answer := await self.line.invoke(plan.digest, *self.step(plan, number, **changes))), answer

    def receipt(self, answer: Outgoing) -> Receipt:
        """The receipt in an answer, its signature checked."""
        envelope = unpack(Invoked.from_bytes(answer.header).receipt)
        return Receipt.open(envelope, [self.keys["mill"].statement.public], self.clock())

    def entries(self, kind: str) -> list[dict[str, Any]]:
        """The fields of all ledger entries of a kind."""
        return [self.record.ledger.fields(entry.index) for entry in self.record.ledger.find(kind=kind)]

    def learn(self, **changes: Any) -> Envelope:
        """The next roster, signed by the root, taken by the mill's home."""
        old = self.home.history
        values = old.latest.model_dump() | {"version": old.latest.version + 1, "previous": old.digest} | changes
        envelope = Roster.model_validate(values).seal(self.root)
        self.home.learn(envelope)
        return envelope


def member(name: str, keys: NewKeys) -> Member:
    """A roster entry."""
    return Member(
        id=name,
        entity=f"{name} Ltd",
        roles=("member", "coordinator") if name == "inst" else ("member",),
        statement_key=keys.statement.public.text,
        ledger_key=keys.ledger.public.text,
        witness_key=keys.witness.public.text,
        tls_certificate=keys.tls.certificate_pem.decode(),
        address="127.0.0.1:1" if name == "inst" else "",
    )


@pytest.fixture(scope="session")
def runtime() -> Runtime:
    try:
        return runtimes.load()
    except KeyongError as error:
        pytest.skip(f"the runtime is not built: {error}")


@pytest.fixture
def real(tmp_path: Path) -> Iterator[World]:
    """The node as it is, sandbox and all."""
    try:
        runtime = runtimes.load()
    except KeyongError as error:
        pytest.skip(f"the runtime is not built: {error}")
    yield from make(tmp_path, runtime)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """The node with a scripted session in the sandbox's place."""
    from enterprise_node.stages import JobSession

    for world in make(tmp_path, Runtime(tmp_path, "sha256:" + "7" * 64)):

        async def good() -> Content:
            return reply()

        async def opened(folder: Path, request: Any, spool: Path) -> ScriptedSession:
            world.sessions.append(session := ScriptedSession(request, world))
            return session

        world.reply = good
        monkeypatch.setattr(JobSession, "open", opened)
        yield world


def reply(value: float = 1.0, **changes: Any) -> Content:
    """What the app replies."""
    values: dict[str, Any] = {
        "arrays": {"arrays": {"0": np.full(2, value, dtype=np.float32)}},
        "metrics": {"metrics": {"loss": 0.5, "num-examples": 3}},
    } | changes
    return Content(**values)


@pytest.fixture
def content() -> Callable[..., Content]:
    return reply


def make(base: Path, runtime: Runtime) -> Iterator[World]:
    keys = {name: NewKeys(name, root=name == "inst") for name in MEMBERS}
    root = keys["inst"].root
    assert root is not None
    consortium = f"urn:uuid:{uuid.uuid4()}"
    pinned = Root(threshold=1, keys=(root.public.text,))
    clock = Clock()
    roster = Roster(
        issued=clock(),
        expires=clock() + timedelta(days=30),
        consortium=consortium,
        name="Test",
        version=1,
        root=pinned,
        members=tuple(member(name, keys[name]) for name in MEMBERS),
    ).seal(root)
    identity = Identity(
        consortium=consortium,
        name="Test",
        fingerprint=root_fingerprint(consortium, pinned),
        member="mill",
        entity="mill Ltd",
        roles=("member",),
        coordinator="inst",
        address="127.0.0.1:1",
    )
    home = Home.create(base / "mill", identity, keys["mill"], [roster])
    (base / "passes.csv").write_text("x,y\n7531.25,1\n2.5,2\n3.5,3\n")
    source = inspect_source(base / "passes.csv")
    registering.register(home, source, registering.describe_dataset(home, source, dataset="passes", title="Passes"))
    engine = open_engine(home.path / "store.db")
    store, holdings = NodeStore(engine), Holdings(engine)
    record = Record(home.open_ledger())
    line = Line(home, record, store, holdings, runtime, clock)
    bundle = CodeBundle(
        {
            "pyproject.toml": b"""[project]
name = "app"
version = "0.1.0"
[tool.flwr.app]
publisher = "test"
[tool.flwr.app.components]
serverapp = "app.client:app"
clientapp = "app.client:app"
[tool.flwr.app.config]
lr = 0.1
""",
            "app/__init__.py": b"",
            "app/client.py": CLIENT.encode(),
        }
    )
    yield World(base, keys, root, roster, home, record, store, holdings, clock, line, bundle, runtime)
    record.ledger.close()
    engine.dispose()
