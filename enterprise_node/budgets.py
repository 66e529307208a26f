"""The privacy budget in the ledger's transactions: rho reserved with a plan's first INTENT, drawn step by step, settled after.

Whatever adds noise draws on the same two budgets: what all parties together may spend on a dataset in a calendar quarter, and
what one legal entity may spend on it over all time. A plan reserves the whole of what it states under both at once; a step
draws its cost before anything runs, and gets it back only where it failed before anything could leave. A crash keeps what is
reserved. Two plans cannot overspend, because they are judged in the transaction that reserves.

Amounts are whole millionths of rho (:mod:`federation.privacy`). Budgets belong to a dataset's name, whatever version of it is
registered: rows change less than versions do.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from datetime import UTC, datetime

from federation.errors import DeniedError
from federation.privacy import STANDARD, rho_text
from federation.statements import instant_text

SCHEMA = (
    """CREATE TABLE budget_use (
        plan TEXT PRIMARY KEY, dataset TEXT NOT NULL, requester TEXT NOT NULL, agreement TEXT NOT NULL,
        quarter TEXT NOT NULL, bound INTEGER NOT NULL, drawn INTEGER NOT NULL DEFAULT 0,
        closed INTEGER NOT NULL DEFAULT 0, at TEXT NOT NULL) STRICT""",
    "CREATE INDEX budget_use_dataset ON budget_use (dataset, quarter)",
    "CREATE INDEX budget_use_requester ON budget_use (dataset, requester)",
    """CREATE TABLE budget_draw (
        intent INTEGER PRIMARY KEY, plan TEXT NOT NULL, drawn INTEGER NOT NULL, settled INTEGER) STRICT""",
    """CREATE TABLE budget_limit (
        dataset TEXT PRIMARY KEY, quarterly INTEGER NOT NULL, requester INTEGER NOT NULL) STRICT""",
)
_SPENT = "CASE WHEN closed THEN drawn ELSE max(bound, drawn) END"
"""What a use takes: all it reserved while it goes on, all it drew once it is over."""


class BudgetError(DeniedError):
    """A use would spend more of a dataset's privacy budget than there is, or than its plan states."""

    code = "budget"


@dataclass(frozen=True)
class Limits:
    """What an owner lets be spent on a dataset, in micro-rho.

    Attributes:
        quarterly: by all parties together in a calendar quarter (UTC).
        requester: by one legal entity, over all time.
    """

    quarterly: int = STANDARD.dataset
    requester: int = STANDARD.requester


@dataclass(frozen=True)
class Use:
    """Who spends on what: the plan's digest, the dataset's name, the asking legal entity, the agreement."""

    plan: str
    dataset: str
    requester: str
    agreement: str


@dataclass(frozen=True)
class Spent:
    """One plan's line in the history; ``reserved`` is what it still holds beyond what it drew."""

    plan: str
    dataset: str
    requester: str
    quarter: str
    drawn: int
    reserved: int
    at: str


@dataclass(frozen=True)
class Gauge:
    """One budget of a dataset: what is taken of it, reservations included, and where it ends.

    Attributes:
        requester: the legal entity it is for; empty for the quarter's, which is for all.
    """

    dataset: str
    requester: str
    quarter: str
    taken: int
    limit: int

    @property
    def left(self) -> int:
        """What may still be reserved."""
        return max(0, self.limit - self.taken)


def quarter_of(now: datetime) -> str:
    """The calendar quarter of a moment in UTC: ``2026Q4``."""
    at = now.astimezone(UTC)
    return f"{at.year}Q{(at.month + 2) // 3}"


def limits_of(connection: sqlite3.Connection, dataset: str) -> Limits:
    """What the owner lets be spent on a dataset; the standard profile where nothing was set."""
    row = connection.execute("SELECT quarterly, requester FROM budget_limit WHERE dataset = ?", (dataset,)).fetchone()
    return Limits(*row) if row is not None else Limits()


def set_limits(connection: sqlite3.Connection, dataset: str, limits: Limits) -> None:
    """Take the owner's word; what was spent stays spent."""
    connection.execute(
        "INSERT INTO budget_limit (dataset, quarterly, requester) VALUES (?, ?, ?) ON CONFLICT (dataset)"
        " DO UPDATE SET quarterly = excluded.quarterly, requester = excluded.requester",
        (dataset, limits.quarterly, limits.requester),
    )


def check(connection: sqlite3.Connection, use: Use, bound: int, now: datetime) -> None:
    """Raise unless both budgets have room for what a plan states, or it holds that already.

    Raises:
        BudgetError: one of them has not so much left.
    """
    held = connection.execute("SELECT closed, quarter FROM budget_use WHERE plan = ?", (use.plan,)).fetchone()
    if held is not None and not held[0]:
        return
    limits = limits_of(connection, use.dataset)
    checks = (
        # a plan that goes on spends in the quarter it began in: otherwise it would hold two
        ("quarter = ?", held[1] if held is not None else quarter_of(now), limits.quarterly),
        ("requester = ?", use.requester, limits.requester),
    )
    for where, value, limit in checks:
        taken = _taken(connection, f"dataset = ? AND plan <> ? AND {where}", (use.dataset, use.plan, value))
        if taken + bound > limit:
            raise BudgetError(
                "the privacy budget of {dataset} for {whom} is rho {limit}; {taken} are taken, {wanted} more do not fit",
                hint="ask for less, wait for the next quarter, or have the owner set it anew (`keyong budget set`)",
                dataset=use.dataset,
                whom=value,
                limit=rho_text(limit),
                taken=rho_text(taken),
                wanted=rho_text(bound),
            )


def reserve(connection: sqlite3.Connection, use: Use, bound: int, now: datetime) -> None:
    """Reserve what a plan states, with its first step; again where it was closed and goes on.

    Raises:
        BudgetError: see `check`; nothing was reserved.
    """
    check(connection, use, bound, now)
    connection.execute(
        "INSERT INTO budget_use (plan, dataset, requester, agreement, quarter, bound, at) VALUES (?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (plan) DO UPDATE SET closed = 0",
        (use.plan, use.dataset, use.requester, use.agreement, quarter_of(now), bound, instant_text(now)),
    )


def draw(connection: sqlite3.Connection, plan: str, intent: int, cost: int) -> None:
    """Take a step's cost from what its plan reserved, before the step runs.

    Raises:
        BudgetError: the plan reserved nothing, or has not so much left.
    """
    changed = connection.execute(
        "UPDATE budget_use SET drawn = drawn + ? WHERE plan = ? AND closed = 0 AND drawn + ? <= bound",
        (cost, plan, cost),
    ).rowcount
    if changed != 1:
        raise BudgetError(
            "this step costs rho {cost}, more than is left of what its plan states",
            hint="plan the job again: what it states must cover every round, evaluations included",
            cost=rho_text(cost),
        )
    connection.execute("INSERT INTO budget_draw (intent, plan, drawn) VALUES (?, ?, ?)", (intent, plan, cost))


def drawn_by(connection: sqlite3.Connection, intent: int) -> int:
    """What a step drew; 0 where it drew nothing."""
    row = connection.execute("SELECT drawn FROM budget_draw WHERE intent = ?", (intent,)).fetchone()
    return int(row[0]) if row is not None else 0


def settle(connection: sqlite3.Connection, intent: int, cost: int) -> None:
    """Replace what a step drew with what it came to, once."""
    row = connection.execute(
        "SELECT plan, drawn FROM budget_draw WHERE intent = ? AND settled IS NULL", (intent,)
    ).fetchone()
    if row is None:
        return
    plan, drawn = row
    connection.execute("UPDATE budget_draw SET settled = ? WHERE intent = ?", (cost, intent))
    connection.execute("UPDATE budget_use SET drawn = drawn + ? WHERE plan = ?", (cost - drawn, plan))


def close(connection: sqlite3.Connection, plan: str) -> None:
    """A plan is over: what it reserved and did not draw is free again."""
    connection.execute("UPDATE budget_use SET closed = 1 WHERE plan = ?", (plan,))


def undrawn(connection: sqlite3.Connection, plan: str) -> int:
    """What a plan has reserved and not drawn."""
    row = connection.execute("SELECT bound - drawn FROM budget_use WHERE plan = ? AND closed = 0", (plan,)).fetchone()
    return int(row[0]) if row is not None else 0


def taken_under(connection: sqlite3.Connection, agreement: str, but: str = "") -> int:
    """What is spent or reserved under an agreement, the plan ``but`` left out."""
    return _taken(connection, "agreement = ? AND plan <> ?", (agreement, but))


def gauges(connection: sqlite3.Connection, datasets: tuple[str, ...], now: datetime) -> list[Gauge]:
    """Each dataset's budget of this quarter, then that of each entity that ever spent on it."""
    found: list[Gauge] = []
    quarter = quarter_of(now)
    for dataset in datasets:
        limits = limits_of(connection, dataset)
        taken = _taken(connection, "dataset = ? AND quarter = ?", (dataset, quarter))
        found.append(Gauge(dataset, "", quarter, taken, limits.quarterly))
        rows = connection.execute(
            f"SELECT requester, sum({_SPENT}) FROM budget_use WHERE dataset = ? GROUP BY requester ORDER BY requester",
            (dataset,),
        )
        found += [Gauge(dataset, requester, "", int(spent), limits.requester) for requester, spent in rows]
    return found


def history(connection: sqlite3.Connection, dataset: str = "") -> list[Spent]:
    """Every plan that reserved anything, oldest first."""
    rows = connection.execute(
        f"SELECT plan, dataset, requester, quarter, drawn, {_SPENT} - drawn, at FROM budget_use"
        " WHERE ? IN ('', dataset) ORDER BY rowid",
        (dataset,),
    )
    return [Spent(*row) for row in rows]


def _taken(connection: sqlite3.Connection, where: str, values: tuple[str, ...]) -> int:
    row = connection.execute(f"SELECT sum({_SPENT}) FROM budget_use WHERE {where}", values).fetchone()
    return int(row[0] or 0)
