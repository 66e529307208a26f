"""The leak budget in the ledger's transactions: bits reserved with a plan's first INTENT, drawn step by step, settled after.

A plan that states how much leaves (or whose agreement wants to know) reserves that much under its agreement; each INTENT
draws what its answer may carry, each OUTCOME gives back what it did not, and the end of the job what was never drawn. A
crash keeps the reservation. Two plans cannot overdraw an agreement, because the decision is made in the same transaction.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from federation.errors import DeniedError


class LeakBudgetError(DeniedError):
    """A step would carry more out of this node than its plan says."""

    code = "leak-budget"


@dataclass(frozen=True)
class Undrawn:
    """A plan's reservation, and how much of it was drawn."""

    agreement: str
    bound: int
    drawn: int


def draw(connection: sqlite3.Connection, agreement: str, plan: str, bound: int, bits: int) -> None:
    """Reserve ``bound`` bits with a plan's first step, and draw those of one step.

    Raises:
        LeakBudgetError: the plan has a bound, and this step is beyond it.
    """
    key = (agreement, plan)
    connection.execute("INSERT OR IGNORE INTO plan_use (agreement, plan) VALUES (?, ?)", key)
    drawn = connection.execute("SELECT leak_drawn FROM plan_use WHERE agreement = ? AND plan = ?", key).fetchone()[0]
    if bound and drawn + bits > bound:
        raise LeakBudgetError(
            "the plan says that {bound} bits leave at most; {drawn} have left, and this step may carry {bits} more",
            hint="plan the job again with a trial of this very code and configuration (`keyong job check`)",
            bound=bound,
            drawn=drawn,
            bits=bits,
        )
    connection.execute(
        "UPDATE plan_use SET leak_bound = ?, leak_drawn = leak_drawn + ?, leak_closed = 0"
        " WHERE agreement = ? AND plan = ?",
        (bound, bits, *key),
    )


def settle(connection: sqlite3.Connection, plan: str, intent: int, bits: int) -> None:
    """Replace what a step drew with what it came to; before the step is closed."""
    row = connection.execute(
        "SELECT leak FROM step WHERE plan = ? AND intent = ? AND outcome IS NULL", (plan, intent)
    ).fetchone()
    if row is not None:
        connection.execute("UPDATE plan_use SET leak_drawn = leak_drawn + ? WHERE plan = ?", (bits - row[0], plan))


def close(connection: sqlite3.Connection, plan: str) -> None:
    """A plan is over: what it reserved and did not draw is free again."""
    connection.execute("UPDATE plan_use SET leak_closed = 1 WHERE plan = ?", (plan,))


def undrawn(connection: sqlite3.Connection, plan: str) -> Undrawn | None:
    """What a plan has reserved and not drawn; None where there is nothing to give back."""
    row = connection.execute(
        "SELECT agreement, leak_bound, leak_drawn FROM plan_use"
        " WHERE plan = ? AND leak_closed = 0 AND leak_bound > leak_drawn",
        (plan,),
    ).fetchone()
    return Undrawn(*row) if row is not None else None


def taken(connection: sqlite3.Connection, agreement: str, but: str = "") -> int:
    """Bits reserved or drawn under an agreement, those of the plan ``but`` left out."""
    row = connection.execute(
        "SELECT sum(CASE WHEN leak_closed THEN leak_drawn ELSE max(leak_bound, leak_drawn) END)"
        " FROM plan_use WHERE agreement = ? AND plan <> ?",
        (agreement, but),
    ).fetchone()
    return int(row[0] or 0)
