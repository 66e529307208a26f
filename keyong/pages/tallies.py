"""What jobs used under which agreement, counted from entries as they go by: what the gauges show.

Numbers of the index, so derived and never trusted for verification. ``keyong ledger statement`` gives the figures that both
sides can be held to.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from fractions import Fraction
from typing import Any

from federation.privacy import MICRO
from keyong.pages.facets import Glance, Term

TALLY_SCHEMA = (
    """CREATE TABLE job (
        plan TEXT PRIMARY KEY, id TEXT NOT NULL, agreement TEXT NOT NULL, dataset TEXT NOT NULL, requester TEXT NOT NULL,
        purpose TEXT NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL, began TEXT NOT NULL, ended TEXT NOT NULL,
        steps INTEGER NOT NULL, ok INTEGER NOT NULL, denied INTEGER NOT NULL, failed INTEGER NOT NULL,
        seconds INTEGER NOT NULL, bytes INTEGER NOT NULL, rho INTEGER NOT NULL, leak INTEGER NOT NULL,
        status TEXT NOT NULL) STRICT""",
    "CREATE INDEX job_agreement ON job (agreement, first)",
    "CREATE INDEX job_first ON job (first)",
    """CREATE TABLE agreement (
        digest TEXT PRIMARY KEY, entry INTEGER NOT NULL, id TEXT NOT NULL, title TEXT NOT NULL, provider TEXT NOT NULL,
        consumer TEXT NOT NULL, dataset TEXT NOT NULL, expires TEXT NOT NULL, ended INTEGER NOT NULL,
        paused TEXT NOT NULL) STRICT""",
    """CREATE TABLE budget (
        dataset TEXT PRIMARY KEY, quarterly TEXT NOT NULL, requester TEXT NOT NULL) STRICT""",
)
_LARGEST = 2**53


@dataclass(slots=True)
class Job:
    """One plan as this ledger has it; ``steps`` counts INTENTs, ``rho`` millionths reserved and not given back."""

    plan: str
    id: str = ""
    agreement: str = ""
    dataset: str = ""
    requester: str = ""
    purpose: str = ""
    first: int = -1
    last: int = -1
    began: str = ""
    ended: str = ""
    steps: int = 0
    ok: int = 0
    denied: int = 0
    failed: int = 0
    seconds: int = 0
    bytes: int = 0
    rho: int = 0
    leak: int = 0
    status: str = ""


@dataclass(slots=True)
class Contract:
    """An agreement as this ledger has it; ``paused`` names the parties whose suspension stands."""

    digest: str
    entry: int
    id: str
    title: str
    provider: str
    consumer: str
    dataset: str
    expires: str
    ended: int = 0
    paused: str = ""


JOB_COLUMNS = ", ".join(one.name for one in fields(Job))
CONTRACT_COLUMNS = ", ".join(one.name for one in fields(Contract))


class Tallies:
    """Counts one run of entries into the index's tables; :meth:`write` keeps them."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._jobs: dict[str, Job] = {}

    def inherited(self, glance: Glance) -> Iterator[Term]:
        """What an entry is found by because its job is: an OUTCOME does not repeat who asked."""
        if not glance.plan or glance.kind == "plan":
            return
        job = self._job(glance.plan)
        if asking := job.requester or self._consumer(job.agreement or glance.agreement):
            yield "party", asking
        if job.purpose:
            yield "purpose", job.purpose
        if job.agreement and not glance.agreement:
            yield "agreement", job.agreement

    def _consumer(self, agreement: str) -> str:
        """Who may ask under an agreement: a refusal names no requester."""
        row = self._connection.execute("SELECT consumer FROM agreement WHERE digest = ?", (agreement,)).fetchone()
        return str(row[0]) if row is not None else ""

    def take(self, glance: Glance) -> None:
        """Count one entry."""
        if glance.plan:
            self._take_job(self._job(glance.plan), glance)
        match glance.kind:
            case "agreement" if (held := glance.statements.get("agreement")) is not None:
                self._take_agreement(glance.index, held.digest, held.says)
            case "revocation":
                self._connection.execute("UPDATE agreement SET ended = 1 WHERE digest = ?", (glance.agreement,))
            case "suspension" if (word := glance.statements.get("suspension")) is not None:
                self._pause(glance.agreement, str(word.says.get("by", "")), word.says.get("suspended") is True)
            case "budget" if glance.text("event") == "set":
                row = [str(glance.plain.get(name, ""))[:40] for name in ("dataset", "quarterly", "requester")]
                self._connection.execute("INSERT OR REPLACE INTO budget VALUES (?, ?, ?)", row)

    def write(self) -> None:
        """Keep what was counted."""
        places = ", ".join("?" * len(fields(Job)))
        self._connection.executemany(
            f"INSERT OR REPLACE INTO job ({JOB_COLUMNS}) VALUES ({places})",  # noqa: S608
            [tuple(getattr(job, one.name) for one in fields(Job)) for job in self._jobs.values() if job.first >= 0],
        )

    def _job(self, plan: str) -> Job:
        if plan not in self._jobs:
            row = self._connection.execute(f"SELECT {JOB_COLUMNS} FROM job WHERE plan = ?", (plan,)).fetchone()  # noqa: S608
            self._jobs[plan] = Job(*row) if row is not None else Job(plan)
        return self._jobs[plan]

    def _take_job(self, job: Job, glance: Glance) -> None:
        if job.first < 0:
            job.first, job.began = glance.index, glance.time
        job.last, job.ended = glance.index, glance.time
        job.requester = job.requester or glance.text("requester")
        job.purpose = job.purpose or glance.text("purpose")
        job.dataset = job.dataset or glance.text("dataset")
        job.id = job.id or glance.text("job")
        match glance.kind:
            case "plan" if (plan := glance.statements.get("plan")) is not None:
                job.requester, job.id = str(plan.says.get("requester", ""))[:64], str(plan.says.get("id", ""))[:64]
            case "intent":
                job.agreement = job.agreement or glance.agreement
                if not job.steps:
                    job.rho = micro(glance.plain.get("rho"))
                job.steps += 1
            case "outcome" | "denied":
                self._take_receipt(job, glance)
            case "budget":
                job.rho = max(0, job.rho - micro(glance.plain.get("rho")))
            case "job":
                job.status = glance.text("event") or job.status
            case "result":
                job.status = glance.text("status") or job.status

    def _take_receipt(self, job: Job, glance: Glance) -> None:
        receipt = glance.statements.get("receipt")
        says: Mapping[str, Any] = receipt.says if receipt is not None else {}
        outcome = "denied" if glance.kind == "denied" else glance.text("outcome")
        job.ok += outcome == "ok"
        job.denied += outcome == "denied"
        job.failed += outcome in ("failed", "killed")
        job.agreement = job.agreement or glance.agreement
        job.requester = job.requester or self._consumer(job.agreement)
        metered = says.get("metered")
        if isinstance(metered, dict):
            job.seconds += _number(metered.get("seconds"))
            job.bytes += _number(metered.get("bytes"))
        elif _number(says.get("intent", -1)) or says.get("intent") == 0:  # a refusal before an INTENT took nothing
            job.seconds += _between(says.get("started"), says.get("ended"))
            job.bytes += _number(says.get("output_bytes"))
        job.leak += _number(says.get("leak_bits"))

    def _take_agreement(self, index: int, digest: str, says: Mapping[str, Any]) -> None:
        texts = [
            str(says.get(name, ""))[:300] for name in ("id", "title", "provider", "consumer", "dataset", "expires")
        ]
        self._connection.execute(
            f"INSERT OR REPLACE INTO agreement ({CONTRACT_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0, '')",  # noqa: S608
            (digest, index, *texts),
        )

    def _pause(self, digest: str, by: str, suspended: bool) -> None:
        row = self._connection.execute("SELECT paused FROM agreement WHERE digest = ?", (digest,)).fetchone()
        if row is not None:
            names = set(row[0].split()) | {by} if suspended else set(row[0].split()) - {by}
            self._connection.execute(
                "UPDATE agreement SET paused = ? WHERE digest = ?", (" ".join(sorted(names)), digest)
            )


def micro(value: object) -> int:
    """Rho as a text, in whole millionths; 0 where it is none, as ``unbounded`` is."""
    try:
        found = int(Fraction(str(value)[:40]) * MICRO)
    except (ValueError, ZeroDivisionError):
        return 0
    return found if 0 <= found < _LARGEST else 0


def _between(started: object, ended: object) -> int:
    """Whole seconds from one moment to another, as statements write them; 0 where either is none."""
    try:
        passed = datetime.fromisoformat(str(ended)[:40]) - datetime.fromisoformat(str(started)[:40])
    except (ValueError, TypeError):
        return 0
    return max(0, int(passed.total_seconds()))


def _number(value: object) -> int:
    return value if type(value) is int and 0 <= value < _LARGEST else 0
