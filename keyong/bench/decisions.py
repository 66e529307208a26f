"""Decisions a second: a thousand agreements of ten constraints, each request judged with the state that they keep.

What is timed is what a node does for each step between its admission and its INTENT: reading uses, time, volume, money,
circumstances and duties of the agreement, judging every constraint, and reserving what the step may take, in the ledger's
own database. The durable entry itself is `keyong bench ledger`'s; beside it, whole INTENTs a second are reported.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
import tempfile
import time
import uuid
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from enterprise_node import leaks, metering
from enterprise_node.admission import AdmittedPlan, AdmittedStep
from enterprise_node.deciding import decide_within
from enterprise_node.record import Record
from federation.crypto import SigningKey
from federation.ledger import Ledger
from federation.ledger.store import DATABASE
from federation.policy import agreement_policy
from federation.statements import (
    Agreement,
    Encoding,
    Invocation,
    JobPlan,
    MetricSpec,
    OutputSchema,
    PlannedDataset,
    StageOutput,
)
from keyong.bench.figure import Figure, percentile
from keyong.bench.progress import bar
from keyong.bench.rows import published
from keyong.text import mark

CONSTRAINTS = 10
DIGEST = "sha256:" + "a" * 64
TERMS: dict[str, str] = {"metered-time": "100000h", "total-bytes": "900000000000", "pay-amount": "900000000"}


@dataclass(frozen=True)
class Case:
    """A plan under one agreement, ready to be judged."""

    admitted: AdmittedPlan
    step: AdmittedStep


def measure(agreements: int = 1000, decisions: int = 20_000) -> list[Figure]:
    """Judge ``decisions`` requests under ``agreements``, in no order, each reserving what it may take."""
    with tempfile.TemporaryDirectory(prefix="keyong-bench-") as name:
        folder = Path(name)
        key = SigningKey.generate()
        cases = [_case(key, number) for number in range(agreements)]
        with Ledger.create(folder, "keyong/bench", SigningKey.generate()) as ledger:
            record = Record(ledger)
            intents = asyncio.run(_intents(record, cases))
        waits = _decide(folder / DATABASE, cases, decisions)
    total = sum(waits)
    waits.sort()
    note = (
        f"{decisions:,} decisions under {agreements:,} agreements of {CONSTRAINTS} constraints and two duties, one process;"
        " uses, time, volume, money, duties and circumstances read, and the step's reservation written, in each"
    )
    return [
        published("decisions-per-second", decisions / total, note=note),
        published("decisions-p99-seconds", percentile(waits, 99), spread=(waits[0], waits[-1])),
        Figure("intents-per-second", intents, "1/s", note="the same with a durable INTENT each, 64 at once"),
    ]


def _facts(now: datetime) -> dict[str, Any]:
    return {
        "action": "fed:train", "now": now, "accepted": frozenset(("A Ltd", "B Ltd", "C Ltd")), "columns": ("x", "y"),
        "rules": DIGEST, "tier": "T2", "seconds": 60, "bytes": 100_000,
    }  # fmt: skip


def _decide(database: Path, cases: Sequence[Case], decisions: int) -> list[float]:
    chance = random.Random(7)  # noqa: S311  # the order of a benchmark
    waits: list[float] = []
    with closing(sqlite3.connect(database, isolation_level=None)) as connection, bar(mark("decisions")) as advance:
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("BEGIN IMMEDIATE")
        for number in range(decisions):
            case = cases[chance.randrange(len(cases))]
            now = datetime.now(UTC)
            began = time.perf_counter()
            decision, reserved = decide_within(connection, case.admitted, _facts(now))
            plan, agreement = case.admitted.digest, case.admitted.agreement_digest
            leaks.draw(connection, agreement, plan, 0, 64)
            metering.reserve(connection, agreement, plan, str(number), now, reserved)
            waits.append(time.perf_counter() - began)
            if not decision.permit:
                raise ValueError(f"a decision of the benchmark was denied by {decision.rule}")
            if number % 1000 == 999:
                connection.execute("COMMIT")
                connection.execute("BEGIN IMMEDIATE")
                advance(number + 1, decisions)
        connection.execute("COMMIT")
    return waits


async def _intents(record: Record, cases: Sequence[Case]) -> float:
    """Durable INTENTs a second, one under each agreement, 64 at once."""
    room = asyncio.Semaphore(64)
    facts = _facts(datetime.now(UTC))

    async def one(case: Case) -> None:
        async with room:
            await record.intend(case.step, facts, lambda: None, DIGEST)

    began = time.perf_counter()
    await asyncio.gather(*(one(case) for case in cases))
    return len(cases) / (time.perf_counter() - began)


def _case(key: SigningKey, number: int) -> Case:
    now = datetime.now(UTC)
    ends = now + timedelta(days=30)
    name = f"urn:uuid:{uuid.UUID(int=number + 2**64)}"
    policy = agreement_policy(
        provider="mill-a", consumer="mill-b", dataset="plates", actions=["fed:train"],
        purposes=["fed:ProcessOptimization"], count=1_000_000, expires=ends, agreement_id=name, now=now, code=DIGEST,
        min_tier="T2", min_participants=3, columns=["x", "y"],
        further={**TERMS, "delete-within": "30d", "compensate-within": "30d"},
    )  # fmt: skip
    constraints = policy["permission"][0]["constraint"]
    policy["permission"][0]["constraint"] = constraints[:CONSTRAINTS]
    agreement = Agreement(
        issued=now, expires=ends, id=name, provider="mill-a", consumer="mill-b", dataset="plates", title="Benchmark",
        roster=DIGEST, policy=policy, cost="1", tariff="CNY; second 0.001",
    )  # fmt: skip
    agreed = agreement.seal(key)
    mine = PlannedDataset(node="mill-a", dataset="plates", data_version=DIGEST, agreement=agreed.digest)
    stage = StageOutput(sent=True, metrics=(MetricSpec(name="loss"),))
    plan = JobPlan(
        issued=now, expires=ends, id=name, requester="mill-b", coordinator="inst", roster=DIGEST, actions=("fed:train",),
        purpose="fed:RollingForceModel", code=DIGEST, runtime=DIGEST, cohort=(mine,), rounds=1000, run_config={},
        outputs=OutputSchema(train=stage, evaluate=stage, maximal_bytes=2**20),
        encoding=Encoding(ring="z64", fraction_bits=20, weight_minimum=1, weight_maximum=1000),
        protection="fed:masked", minimal_participants=1,
    )  # fmt: skip
    planned = plan.seal(key)
    admitted = AdmittedPlan(
        planned, plan, mine, agreement, agreed.digest, frozenset(("A Ltd", "B Ltd", "C Ltd")), "B Ltd"
    )
    step = Invocation(
        issued=now, expires=ends, plan=planned.digest, node="mill-a", round=1, stage="train", content=DIGEST
    )
    return Case(admitted, AdmittedStep(admitted, step.seal(key), step))
