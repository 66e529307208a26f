"""The way of one invocation, gathered from its entries: from the plan to what left, and the receipt.

A node's ledger has it from INTENT to OUTCOME; a refusal before an INTENT is a way that ended at the gate.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from federation.errors import KeyongError
from federation.policy import Policy, parse_policy
from keyong.pages.records import Record, read_record
from keyong.pages.search import Wanted, search

BETWEEN = 200
"""Most entries between an INTENT and its OUTCOME that are looked at."""


@dataclass(frozen=True)
class Course:
    """One invocation: its entries, as far as they are there.

    Attributes:
        first: the INTENT, or the refusal.
        between: stage, held and review entries, in order.
        agreement: the entry that brought the agreement into force here.
        policy: what that agreement permits; None where it is not on record or cannot be read.
    """

    first: Record
    outcome: Record | None = None
    between: tuple[Record, ...] = ()
    acknowledgements: tuple[Record, ...] = ()
    agreement: Record | None = None
    policy: Policy | None = None
    receipt: Mapping[str, Any] = field(default_factory=dict)

    @property
    def refused(self) -> bool:
        """Whether it ended before anything ran."""
        return self.first.kind == "denied"

    @property
    def state(self) -> str:
        """``ok``, ``denied``, ``failed``, ``killed``, or ``open`` while there is no OUTCOME."""
        if self.refused:
            return "denied"
        return self.outcome.text("outcome") if self.outcome is not None else "open"

    @property
    def plan(self) -> str:
        """Digest of the plan it is a step of."""
        return self.first.text("plan")

    @property
    def decision(self) -> Mapping[str, Any]:
        """The decision on record, INTENT's before the receipt's."""
        found = self.first.values.get("decision") or self.receipt.get("decision")
        return found if isinstance(found, Mapping) else {}

    @property
    def invocation(self) -> Mapping[str, Any]:
        """The coordinator's request."""
        return self.first.statement("invocation")

    def says(self, name: str) -> Any:
        """A value by its name: INTENT's, else the receipt's."""
        value = self.first.values.get(name)
        return value if value not in (None, "") else self.receipt.get(name, "")


def first_of(connection: sqlite3.Connection, record: Record) -> int | None:
    """The index at which the invocation begins that an entry belongs to; None where it belongs to none."""
    if record.kind in ("intent", "denied"):
        return record.index
    of = record.values.get("intent")
    if record.kind in ("outcome", "aborted") and record.ref is not None:
        return record.ref
    if record.kind == "ack" and record.ref is not None:
        row = connection.execute("SELECT kind, ref FROM entry WHERE idx = ?", (record.ref,)).fetchone()
        return row[1] if row is not None and row[0] == "outcome" else None
    held = record.values.get("held")
    if record.kind == "review" and isinstance(held, int) and (parked := read_record(connection, held)) is not None:
        of = parked.values.get("intent")
    return of if type(of) is int else None


def gather(connection: sqlite3.Connection, index: sqlite3.Connection, first: Record) -> Course:
    """Everything on record of the invocation that begins with this INTENT or refusal."""
    outcome = None if first.kind == "denied" else _settling(connection, first.index, ("outcome", "aborted"))
    receipt = (outcome or first).statement("receipt")
    agreement = _agreement(connection, index, _agreement_of(first, receipt))
    acks = _referring(connection, outcome.index, "ack") if outcome is not None else ()
    return Course(
        first,
        outcome,
        _between(connection, first, outcome),
        acks,
        agreement,
        policy_of(agreement),
        receipt,
    )


def policy_of(agreement: Record | None) -> Policy | None:
    """The policy of an agreement's entry, where it can be read."""
    policy = agreement.statement("agreement").get("policy") if agreement is not None else None
    if not isinstance(policy, dict):
        return None
    try:
        return parse_policy(policy)
    except KeyongError:
        return None


def _agreement_of(first: Record, receipt: Mapping[str, Any]) -> str:
    decision = receipt.get("decision")
    decided = decision.get("agreement") if isinstance(decision, Mapping) else None
    return first.text("agreement") or (decided if isinstance(decided, str) else "")


def _agreement(connection: sqlite3.Connection, index: sqlite3.Connection, digest: str) -> Record | None:
    row = index.execute("SELECT entry FROM agreement WHERE digest = ?", (digest,)).fetchone() if digest else None
    return read_record(connection, row[0]) if row is not None else None


def _settling(connection: sqlite3.Connection, index: int, kinds: Sequence[str]) -> Record | None:
    for found, kind in connection.execute("SELECT idx, kind FROM entry WHERE ref = ? ORDER BY idx", (index,)):
        if kind in kinds:
            return read_record(connection, found)
    return None


def _referring(connection: sqlite3.Connection, index: int, kind: str) -> tuple[Record, ...]:
    rows = connection.execute("SELECT idx FROM entry WHERE ref = ? AND kind = ? LIMIT 20", (index, kind)).fetchall()
    return tuple(record for (found,) in rows if (record := read_record(connection, found)) is not None)


def _between(connection: sqlite3.Connection, first: Record, outcome: Record | None) -> tuple[Record, ...]:
    """What stands between: entries of other invocations do too, so each has to name this one."""
    if first.kind == "denied":
        return ()
    end = outcome.index if outcome is not None else 2**53
    rows = connection.execute(
        "SELECT idx FROM entry WHERE idx > ? AND idx < ? AND kind IN ('stage', 'held', 'review') ORDER BY idx LIMIT ?",
        (first.index, end, BETWEEN),
    ).fetchall()
    found, held = [], set()
    for (index,) in rows:
        record = read_record(connection, index)
        if record is None:
            continue
        if record.values.get("intent") == first.index:
            held.add(record.index)
            found.append(record)
        elif record.kind == "review" and record.values.get("held") in held:
            found.append(record)
    return tuple(found)


def steps_of(
    connection: sqlite3.Connection, index: sqlite3.Connection, plan: str, before: int | None = None
) -> tuple[list[int], int, int | None]:
    """The entries of a job, newest first, how many there are in all, and where to go on."""
    found = search(index, connection, Wanted((("job", plan),)), before)
    return list(found.indices), found.total, found.older
