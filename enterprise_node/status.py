"""How a node stands, for its owner: from the process that serves it, or from what lies on disk while none does."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from enterprise_node.approvals import Approvals
from enterprise_node.held import HeldOutputs
from enterprise_node.job import Job
from enterprise_node.record import Record
from enterprise_node.store import NodeStore
from federation.holdings import Holdings
from federation.home import Home
from federation.ledger import Ledger
from federation.observability import Check, free_bytes, spooled_bytes
from federation.statements import Agreement, Envelope, instant_text

DENIALS = 10
"""Of the last refusals, how many are shown."""
_LOOKED_BACK = 5000
"""Entries that are searched for them."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class OpenJob(_Part):
    """A job that this node has open."""

    job: str
    plan: str
    requester: str
    purpose: str
    dataset: str
    round: int
    rounds: int
    stage: str
    running: bool
    session: bool


class Uses(_Part):
    """An agreement in force, and how many of its uses are reserved here."""

    agreement: str
    consumer: str
    dataset: str
    reserved: int
    expires: str


class Refused(_Part):
    """A refusal on record: before an INTENT (``denied``), or of what a job replied (``output``)."""

    index: int
    time: str
    kind: Literal["denied", "output"]
    code: str


class LedgerState(_Part):
    """How large the ledger is, and when its newest state was signed."""

    entries: int
    checkpoint: str
    open_steps: int


class DatasetState(_Part):
    """A registered dataset."""

    dataset: str
    rows: int
    data_version: str
    readable: bool


class NodeStatus(_Part):
    """Everything ``keyong node status`` shows; part of the JSON interface."""

    member: str
    serving: bool
    since: str = ""
    pid: int = 0
    version: str = ""
    attached: bool = False
    attached_since: str = ""
    detached_because: str = ""
    draining: bool = False
    tier: str = ""
    checks: tuple[Check, ...] = ()
    jobs: tuple[OpenJob, ...] = ()
    uses: tuple[Uses, ...]
    denials: tuple[Refused, ...]
    ledger: LedgerState
    datasets: tuple[DatasetState, ...]
    roster_version: int
    roster_expires: str
    free_bytes: int
    spool_bytes: int = 0
    approvals_waiting: int = 0
    """Codes that wait for the owner's approval (``keyong node approvals list``)."""
    outputs_held: int = 0
    """Outputs that wait for the owner's release (``keyong node review list``)."""


def stored(home: Home, record: Record, store: NodeStore, holdings: Holdings) -> NodeStatus:
    """What the stores of a node say; blocking."""
    latest = home.history.latest
    return NodeStatus(
        member=home.identity.member,
        serving=False,
        uses=tuple(_uses(home, record, holdings)),
        denials=tuple(itertools.islice(_denials(record.ledger), DENIALS)),
        ledger=LedgerState(
            entries=record.ledger.size,
            checkpoint=instant_text(record.ledger.checkpoint_time()),
            open_steps=len(record.open_steps()),
        ),
        datasets=tuple(
            DatasetState(dataset=row.id, rows=row.rows, data_version=row.data_version, readable=_there(row.path))
            for row in store.datasets()
        ),
        roster_version=latest.version,
        roster_expires=instant_text(latest.expires),
        free_bytes=free_bytes(home.path),
        spool_bytes=spooled_bytes(home.path / "spool"),
        approvals_waiting=sum(one.state == "waiting" for one in Approvals(home, record.ledger).known()),
        outputs_held=sum(row.decision is None for row in HeldOutputs(home, record.ledger).rows()),
    )


def open_jobs(jobs: Mapping[str, Job]) -> tuple[OpenJob, ...]:
    """The jobs a serving node has open."""
    return tuple(
        OpenJob(
            job=job.admitted.plan.id,
            plan=digest,
            requester=job.admitted.plan.requester,
            purpose=job.admitted.plan.purpose,
            dataset=job.admitted.mine.dataset,
            round=job.round,
            rounds=job.admitted.plan.rounds,
            stage=job.stage,
            running=job.lock.locked(),
            session=job.session is not None,
        )
        for digest, job in jobs.items()
    )


def _uses(home: Home, record: Record, holdings: Holdings) -> Iterator[Uses]:
    for held in holdings.list("in-force"):
        if held.provider != home.identity.member:
            continue
        agreement = Agreement.read(Envelope.from_bytes(held.envelope))
        yield Uses(
            agreement=held.id,
            consumer=held.consumer,
            dataset=held.dataset,
            reserved=record.uses(held.digest),
            expires=instant_text(agreement.expires),
        )


def _denials(ledger: Ledger) -> Iterator[Refused]:
    start = max(0, ledger.size - _LOOKED_BACK)
    for entry in reversed(list(ledger.entries(start))):
        index = entry.index
        if entry.kind == "denied":
            yield Refused(index=index, time=entry.time, kind="denied", code=str(ledger.fields(index).get("code", "")))
        elif entry.kind == "outcome":
            fields = ledger.fields(index)
            if fields.get("outcome") == "denied":
                yield Refused(index=index, time=entry.time, kind="output", code=str(fields.get("code", "")))


def moment(at: datetime | None) -> str:
    """An instant as text; empty where there is none."""
    return instant_text(at) if at is not None else ""


def _there(place: str) -> bool:
    """Whether a source is where it was registered; of a database on a server only a job finds out."""
    return "://" in place or Path(place).exists()
