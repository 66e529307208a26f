"""Obligations: what consumers owe for jobs that ran under an agreement, tracked in the provider's ledger to fulfilment.

Each tracked duty of the permission that a job rests on becomes an obligation with the job's first INTENT, in the same
transaction. It is fulfilled by the consumer's signed word (``odrl:delete``, ``odrl:attribute``) or by the provider's
(``odrl:compensate``, and any duty that the provider waives); each is an entry of the ledger.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from federation.errors import UsageError
from federation.ledger import Ledger
from federation.policy import Duty, Policy, Tally, deadline, duty_text, tracked_duties
from federation.policy.vocabulary import COMPENSATE
from federation.statements import Envelope, Fulfilment, instant_text

_SCHEMA = (
    """CREATE TABLE obligation (
        agreement TEXT NOT NULL, plan TEXT NOT NULL, duty TEXT NOT NULL, began TEXT NOT NULL, due TEXT NOT NULL,
        state TEXT NOT NULL, PRIMARY KEY (agreement, plan, duty)) STRICT""",
)
PENDING, CLAIMED, FULFILLED = "pending", "claimed", "fulfilled"


class NoSuchObligationError(UsageError):
    """Nothing is owed under that name."""

    code = "no-such-obligation"


@dataclass(frozen=True)
class Obligation:
    """One duty of one job; ``due`` is empty where it has no deadline.

    Attributes:
        state: ``pending``, ``claimed`` (the consumer says so; a payment counts when the provider confirms it) or
            ``fulfilled``.
    """

    agreement: str
    plan: str
    duty: str
    began: str
    due: str
    state: str

    def standing(self, now: datetime) -> str:
        """The state as it counts: not fulfilled after its deadline is ``violated``."""
        return "violated" if self.state != FULFILLED and self.due and self.due < instant_text(now) else self.state


def ensure(ledger: Ledger) -> None:
    """Bring a ledger's database to hold obligations."""
    ledger.check_schema("obligations", 1)
    ledger.ensure_schema("obligations", 1, list(_SCHEMA))


def arise(
    connection: sqlite3.Connection, agreement: str, plan: str, duties: Iterable[Duty], now: datetime
) -> list[dict[str, str]]:
    """Add what a job's use brings with it, once; what was added, for its entry."""
    added = []
    for duty in duties:
        due = deadline(duty, now)
        row = (agreement, plan, duty_text(duty), instant_text(now), instant_text(due) if due is not None else "")
        inserted = connection.execute("INSERT OR IGNORE INTO obligation VALUES (?, ?, ?, ?, ?, 'pending')", row)
        if inserted.rowcount:
            added.append({"duty": row[2], "due": row[4]})
    return added


def tallies(connection: sqlite3.Connection, agreement: str, policy: Policy, now: datetime) -> dict[str, str]:
    """How the tracked duties of a policy stand, as a decision record says it."""
    if not isinstance(duties := policy.kept.get("tracked"), tuple):
        duties = policy.kept["tracked"] = tuple(duty_text(duty) for duty in tracked_duties(policy))
    if not duties:
        return {}
    counts: dict[str, Counter[str]] = {duty: Counter() for duty in duties}
    rows = connection.execute(
        "SELECT duty, CASE WHEN state <> 'fulfilled' AND due <> '' AND due < ? THEN 'violated' ELSE state END, count(*)"
        " FROM obligation WHERE agreement = ? GROUP BY 1, 2",
        (instant_text(now), agreement),
    )
    for duty, standing, count in rows:
        if duty in counts:
            counts[duty][standing] += count
    return {
        duty: Tally(count[PENDING] + count[CLAIMED], count[FULFILLED], count["violated"]).text
        for duty, count in counts.items()
    }


def _read(connection: sqlite3.Connection, agreement: str) -> list[Obligation]:
    rows = connection.execute(
        "SELECT agreement, plan, duty, began, due, state FROM obligation WHERE agreement = ? ORDER BY began, plan, duty",
        (agreement,),
    )
    return [Obligation(*row) for row in rows]


def obligations(ledger: Ledger, agreement: str) -> list[Obligation]:
    """What was ever owed under an agreement, oldest first."""
    ensure(ledger)
    with ledger.reader() as connection:
        return _read(connection, agreement)


def fulfil(ledger: Ledger, envelope: Envelope, fulfilment: Fulfilment, provider: str) -> list[Obligation]:
    """Put a verified word on obligations on record and move them; those that moved.

    The provider's word settles any of them. The consumer's settles what the consumer alone can know; a payment it only
    claims.

    Raises:
        NoSuchObligationError: nothing of that kind is open under the agreement.
    """
    ensure(ledger)
    moved: list[Obligation] = []

    def apply(connection: sqlite3.Connection) -> dict[str, object]:
        state = CLAIMED if fulfilment.by != provider and fulfilment.duty == COMPENSATE else FULFILLED
        for one in _read(connection, fulfilment.agreement):
            named = one.duty.split(";")[0] == fulfilment.duty and fulfilment.plan in ("", one.plan)
            if not named or one.state == FULFILLED or one.state == state:
                continue
            moved.append(one)
            connection.execute(
                "UPDATE obligation SET state = ? WHERE agreement = ? AND plan = ? AND duty = ?",
                (state, one.agreement, one.plan, one.duty),
            )
        if not moved:
            raise NoSuchObligationError(
                "no obligation {duty} is open under this agreement", hint="see `keyong agreement duties`",
                duty=fulfilment.duty,
            )  # fmt: skip
        return {"state": state, "count": len(moved)}

    fields = {
        "fulfilment": envelope.to_bytes(),
        "agreement": fulfilment.agreement,
        "duty": fulfilment.duty,
        "by": fulfilment.by,
    }
    ledger.append("fulfilment", fields, apply=apply)
    return moved
