"""Four companies and what each has on disk after jobs: homes, ledgers, receipts; the wire between them is a function call."""

from __future__ import annotations

import asyncio
import json
import shutil
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

from enterprise_node.proving import ReceiptProver
from federation import correspondence
from federation.errors import UnavailableError, UsageError
from federation.holdings import Holdings, open_engine
from federation.home import Home, Identity, NewKeys
from federation.keyring import witness_name
from federation.ledger import Appended, Ledger, Witness, WitnessRefusedError
from federation.policy import agreement_policy
from federation.statements import (
    Agreement,
    DecisionRecord,
    Encoding,
    Envelope,
    Invocation,
    Isolation,
    JobPlan,
    Member,
    OutputSchema,
    PlannedDataset,
    Receipt,
    Root,
    Roster,
    StageOutput,
    root_fingerprint,
)
from federation.wire import messages as m
from federation.wire.peer import Incoming
from federation.witnessing import Witnessing, log_key
from keyong.client import Client

DIGEST = "sha256:" + "7" * 64
NODES = ("mill-a", "mill-b")
WITNESSES = ("mill-a", "mill-b", "mill-c")


def now() -> datetime:
    """This machine's time."""
    return datetime.now(UTC)


@dataclass
class Run:
    """One job of the lab's, and what came of it."""

    plan: Envelope
    asked: int
    receipts: dict[str, list[tuple[Receipt, Envelope, Appended]]] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return JobPlan.read(self.plan).id


class Parties:
    """An institute that coordinates, a lab that asks, three mills.

    Args:
        base: below it lies a home for each, by its name.
    """

    def __init__(self, base: Path) -> None:
        self.base = base
        names = ("institute", "lab", *WITNESSES)
        self.keys = {name: NewKeys(name, root=name == "institute") for name in names}
        self.root = self.keys["institute"].root
        assert self.root is not None
        consortium = f"urn:uuid:{uuid.uuid4()}"
        pinned = Root(threshold=1, keys=(self.root.public.text,))
        self.fingerprint = root_fingerprint(consortium, pinned)
        members = tuple(self._member(name) for name in names)
        roster = Roster(
            issued=now(),
            expires=now() + timedelta(days=30),
            consortium=consortium,
            name="Mills",
            version=1,
            root=pinned,
            members=members,
        ).seal(self.root)
        self.homes = {name: self._home(name, consortium, roster) for name in names}
        self.ledgers: dict[str, Ledger] = {name: home.open_ledger() for name, home in self.homes.items()}
        self.witnesses = {
            name: Witness(witness_name(consortium, name), self.keys[name].witness, home.folder("witnessed"), now)
            for name, home in self.homes.items()
            if name in WITNESSES
        }
        self.away: set[str] = set()
        """Nodes that cannot be reached."""
        self.asleep: set[str] = set()
        """Witnesses that cannot be reached."""

    def _member(self, name: str) -> Member:
        keys = self.keys[name]
        roles: Any = {"institute": ("coordinator",), "lab": ("analyst",)}.get(name, ("member",))
        return Member(
            id=name,
            entity=f"{name} Ltd",
            roles=roles,
            statement_key=keys.statement.public.text,
            ledger_key=keys.ledger.public.text,
            witness_key=keys.witness.public.text,
            tls_certificate=keys.tls.certificate_pem.decode(),
            address="127.0.0.1:1" if name == "institute" else "",
        )

    def _home(self, name: str, consortium: str, roster: Envelope) -> Home:
        roles: Any = {"institute": ("coordinator",), "lab": ("analyst",)}.get(name, ("member",))
        identity = Identity(
            consortium=consortium,
            name="Mills",
            fingerprint=self.fingerprint,
            member=name,
            entity=f"{name} Ltd",
            roles=roles,
            founded=name == "institute",
            coordinator="institute",
            address="127.0.0.1:1",
        )
        return Home.create(self.base / name, identity, self.keys[name], [roster])

    def close(self) -> None:
        """Close every ledger."""
        for ledger in self.ledgers.values():
            ledger.close()

    def agree(self, node: str, days: int = 30, **prices: str) -> str:
        """A node and the lab sign an agreement, in force at both; returns its digest."""
        at = now()
        expires = at + timedelta(days=days)
        ident = f"urn:uuid:{uuid.uuid4()}"
        policy = agreement_policy(
            provider=node,
            consumer="lab",
            dataset="passes",
            actions=["fed:train"],
            purposes=["fed:ProcessOptimization"],
            count=10,
            expires=expires,
            agreement_id=ident,
            now=at,
        )
        statement = Agreement(
            issued=at,
            expires=expires,
            id=ident,
            provider=node,
            consumer="lab",
            dataset="passes",
            title="Passes",
            roster=self.homes[node].history.digest,
            policy=policy,
            **prices,
        )
        envelope = statement.seal(self.keys[node].statement, self.keys["lab"].statement)
        for name in (node, "lab"):
            holdings = Holdings(open_engine(self.homes[name].path / "store.db"))
            correspondence.enter_into_force(holdings, self.ledgers[name], envelope, statement, at)
        return envelope.digest

    # -- what the parties do ------------------------------------------------------------------------------------------

    def ask(self, agreements: dict[str, str] | None = None, **changes: Any) -> Run:
        """The lab plans a job, under some nodes' agreements, and submits it."""
        under = agreements or {}
        stage = StageOutput(sent=True)
        values: dict[str, Any] = {
            "issued": now(),
            "expires": now() + timedelta(hours=6),
            "id": f"urn:uuid:{uuid.uuid4()}",
            "requester": "lab",
            "coordinator": "institute",
            "roster": self.homes["lab"].history.digest,
            "actions": ("fed:train",),
            "purpose": "fed:ProcessOptimization",
            "code": DIGEST,
            "runtime": DIGEST,
            "cohort": tuple(
                PlannedDataset(node=node, dataset="passes", data_version=DIGEST, agreement=under.get(node, DIGEST))
                for node in NODES
            ),
            "rounds": 5,
            "run_config": {},
            "outputs": OutputSchema(train=stage, evaluate=StageOutput(sent=False)),
            "encoding": Encoding(ring="z64", fraction_bits=20, weight_minimum=0, weight_maximum=1000),
            "protection": "fed:masked",
            "minimal_participants": 2,
        } | changes
        plan = JobPlan(**values).seal(self.keys["lab"].statement)
        fields = {"plan": plan.to_bytes(), "digest": plan.digest, "purpose": "fed:ProcessOptimization"}
        asked = self.ledgers["lab"].append("plan", fields).index
        submitted = {"event": "submitted", "plan": plan.digest, "requester": "lab"}
        self.ledgers["institute"].append("job", submitted)
        return Run(plan, asked)

    def intend(self, run: Run, node: str, number: int) -> tuple[Invocation, Envelope, int]:
        """A node takes a step: its INTENT."""
        invocation = Invocation(
            issued=now(),
            expires=now() + timedelta(minutes=5),
            plan=run.plan.digest,
            node=node,
            round=number,
            stage="train",
            content=DIGEST,
        )
        envelope = invocation.seal(self.keys["institute"].statement)
        fields = {
            "plan": run.plan.digest,
            "agreement": JobPlan.read(run.plan).at(node).agreement if node in NODES else DIGEST,
            "invocation": envelope.to_bytes(),
            "requester": "lab",
            "purpose": JobPlan.read(run.plan).purpose,
            "round": number,
        }
        return invocation, envelope, self.ledgers[node].append("intent", fields).index

    def step(self, run: Run, node: str, number: int, outcome: Any = "ok", **more: Any) -> Appended:
        """A node takes a step and ends it: INTENT, OUTCOME, receipt."""
        _, invocation, intent = self.intend(run, node, number)
        receipt = Receipt(
            issued=now(),
            expires=now() + timedelta(days=1),
            node=node,
            plan=run.plan.digest,
            invocation=invocation.digest,
            round=number,
            stage="train",
            intent=intent,
            outcome=outcome,
            decision=DecisionRecord(permit=True, agreement=JobPlan.read(run.plan).at(node).agreement),
            dataset="passes",
            code_digest=DIGEST,
            runtime=DIGEST,
            isolation=Isolation(),
            input=DIGEST,
            protection="fed:masked",
            started=now(),
            ended=now(),
            **more,
        )
        envelope = receipt.seal(self.keys[node].statement)
        fields = {"receipt": envelope.to_bytes(), "plan": run.plan.digest, "outcome": outcome, "intent": intent}
        appended = self.ledgers[node].append("outcome", fields, ref=intent)
        run.receipts.setdefault(node, []).append((receipt, envelope, appended))
        return appended

    def work(self, run: Run, rounds: int = 2) -> None:
        """All rounds of a job at every node, and its end at the coordinator."""
        for number in range(1, rounds + 1):
            for node in NODES:
                self.step(run, node, number)
        self.end(run, rounds)

    def end(self, run: Run, rounds: int = 2, status: str = "done") -> None:
        """The coordinator and the lab record how the job ended."""
        from federation.statements import receipts_digest

        received = {
            node: {"count": len(held), "digest": receipts_digest(envelope.digest for _, envelope, _ in held)}
            for node, held in run.receipts.items()
        }
        fields = {"event": status, "plan": run.plan.digest, "rounds": rounds, "receipts": received}
        self.ledgers["institute"].append("job", fields)
        ended = {"job": run.id, "plan": run.plan.digest, "status": status, "code": ""}
        self.ledgers["lab"].append("result", ended, ref=run.asked)

    def attest(self, *names: str) -> None:
        """Each of these parties (all, if none is named) shows its ledger to the witnesses."""
        for name in names or tuple(self.homes):
            asyncio.run(Witnessing(self.homes[name], self.ledgers[name], self._witness, None, lambda: 0.0).advance())

    async def _witness(self, member: str, request: bytes) -> tuple[int, bytes]:
        if member in self.asleep:
            raise UnavailableError("{node} is not connected", node=member, code="node-offline")
        roster = self.homes[member].history.latest
        try:
            return 200, self.witnesses[member].add_checkpoint(request, lambda origin: log_key(roster, origin))
        except WitnessRefusedError as error:
            return error.status, b"" if error.size is None else f"{error.size}\n".encode()

    def client(self, run: Run) -> Client:
        """The lab's conversation with the coordinator, about one job."""
        return cast("Client", Conversation(self, run))

    def export(self, name: str, path: Path) -> Path:
        """A party's export for an auditor."""
        from keyong.evidence import write_export

        part = path.with_suffix(".part")
        self.ledgers[name].export(part, disclose=lambda entry: tuple(entry.fields))
        write_export(path, part, self.homes[name].history.envelopes)
        part.unlink()
        return path


class Conversation:
    """What ``Client`` does, by the services' own code where it matters and without a link."""

    def __init__(self, parties: Parties, run: Run) -> None:
        self.parties, self.run = parties, run
        self.home, self.ledger = parties.homes["lab"], parties.ledgers["lab"]
        self.status = "done"
        self.acknowledged: list[Envelope] = []
        self.delivered: list[str] = []

    def result(self, job: str, folder: Path) -> dict[str, Any]:
        """What the coordinator's folder holds."""
        (folder / "receipts").mkdir(parents=True)
        (folder / "plan.json").write_bytes(self.run.plan.to_bytes())
        (folder / "model.safetensors").write_bytes(b"model")
        summary = {"job": job, "plan": self.run.plan.digest, "status": self.status}
        (folder / "summary.json").write_text(json.dumps(summary))
        for node, held in self.run.receipts.items():
            for receipt, envelope, appended in held:
                stem = folder / "receipts" / f"{receipt.round:06d}-train-{node}"
                stem.with_name(f"{stem.name}.receipt.json").write_bytes(envelope.to_bytes())
                bundle = self.parties.ledgers[node].bundle_of(appended)
                stem.with_name(f"{stem.name}.proof.json").write_bytes(bundle)
        self.parties.ledgers["institute"].append("job", {"event": "delivered", "plan": self.run.plan.digest})
        return summary

    def call(self, method: str, header: m.Message, body: Sequence[Any] = (), *, timeout: float = 1) -> Incoming:
        """Carry a request to a node, or take the acknowledgement as the coordinator does."""
        if method == "receipts.prove":
            node = cast("m.ProveReceipts", header).node
            if node in self.parties.away:
                raise UnavailableError("{node} is not connected", node=node, code="node-offline")
            message = Incoming(method, header.to_bytes(), memoryview(b""))
            answer = asyncio.run(ReceiptProver(self.parties.ledgers[node]).prove(cast("Any", None), message))
            return Incoming(method, answer.header, memoryview(b"".join(bytes(one) for one in answer.body)))
        if method == "job.acknowledge":
            envelope = m.unpack(cast("m.Envelopes", header).envelopes[0])
            fields = {"ack": envelope.to_bytes(), "digest": envelope.digest, "plan": self.run.plan.digest}
            self.parties.ledgers["institute"].append("ack", fields)
            for node, held in self.run.receipts.items():
                self.parties.ledgers[node].append("ack", fields, ref=held[-1][2].index)
            self.acknowledged.append(envelope)
            return Incoming(method, m.Empty().to_bytes(), memoryview(b""))
        raise UsageError("no method {method}", method=method)


def copied(home: Home, path: Path) -> Home:
    """A copy of a home, with everything its owner has."""
    shutil.copytree(home.path, path)
    return Home(path)
