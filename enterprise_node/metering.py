"""Time and volume in the ledger's transactions: reserved with each step's INTENT, settled with its OUTCOME.

What is reserved counts as used until it is settled, and a crash keeps it: two steps cannot both take the last second. A
denied step has reserved nothing. Totals are kept beside the reservations, so that a decision reads one row however long
the history is.

An attacker who can modify this table can grant or take away what agreements leave; the ledger's own entries say what was
used, and `keyong ledger replay` finds the difference.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from datetime import datetime, timedelta

from federation.policy import NEVER, Usage
from federation.statements import Metered, instant_text, parse_instant

SCHEMA = (
    """CREATE TABLE metered (
        agreement TEXT PRIMARY KEY, uses INTEGER NOT NULL, seconds INTEGER NOT NULL, bytes INTEGER NOT NULL,
        began TEXT NOT NULL, last TEXT NOT NULL) STRICT""",
    """CREATE TABLE metered_plan (
        agreement TEXT NOT NULL, plan TEXT NOT NULL, began TEXT NOT NULL, previous TEXT NOT NULL,
        PRIMARY KEY (agreement, plan)) STRICT""",
    """CREATE TABLE metered_step (
        plan TEXT NOT NULL, invocation TEXT NOT NULL, agreement TEXT NOT NULL, seconds INTEGER NOT NULL,
        bytes INTEGER NOT NULL, PRIMARY KEY (plan, invocation)) STRICT""",
)


@dataclass(frozen=True)
class Course:
    """When an agreement was used, as one plan sees it; both None where the clock contradicts the record."""

    elapsed: timedelta | None
    """Since the first use began; nothing where there was none."""
    interval: timedelta | None
    """Between this use and the one before it; ``NEVER`` where there was none."""
    used: Usage
    """What is used or reserved of the agreement."""


def usage(connection: sqlite3.Connection, agreement: str) -> Usage:
    """What is used or reserved of an agreement."""
    row = connection.execute("SELECT uses, seconds, bytes FROM metered WHERE agreement = ?", (agreement,)).fetchone()
    return Usage(*row) if row is not None else Usage()


def course(connection: sqlite3.Connection, agreement: str, plan: str, now: datetime) -> Course:
    """The times that ``odrl:elapsedTime`` and ``odrl:timeInterval`` are judged by, and what is used by now."""
    row = connection.execute(
        "SELECT began, last, uses, seconds, bytes FROM metered WHERE agreement = ?", (agreement,)
    ).fetchone()
    mine = connection.execute(
        "SELECT began, previous FROM metered_plan WHERE agreement = ? AND plan = ?", (agreement, plan)
    ).fetchone()
    elapsed = now - parse_instant(row[0]) if row is not None else timedelta()
    began, previous = (
        (parse_instant(mine[0]), mine[1]) if mine is not None else (now, row[1] if row is not None else "")
    )
    interval = began - parse_instant(previous) if previous else NEVER
    return Course(_forward(elapsed), _forward(interval), Usage(*row[2:]) if row is not None else Usage())


def _forward(span: timedelta) -> timedelta | None:
    # Times on record are whole seconds, so a moment ago may seem to lie ahead; more than that is a clock set back.
    return max(span, timedelta()) if span > timedelta(seconds=-1) else None


def reserve(
    connection: sqlite3.Connection, agreement: str, plan: str, invocation: str, now: datetime, wanted: Metered | None
) -> None:
    """Count a plan's use with its first step, and reserve what one step may come to."""
    at = instant_text(now)
    new = connection.execute(
        "INSERT OR IGNORE INTO metered_plan (agreement, plan, began, previous)"
        " VALUES (?1, ?2, ?3, coalesce((SELECT last FROM metered WHERE agreement = ?1), ''))",
        (agreement, plan, at),
    ).rowcount
    if new:
        connection.execute(
            "INSERT INTO metered (agreement, uses, seconds, bytes, began, last) VALUES (?, 1, 0, 0, ?, ?)"
            " ON CONFLICT (agreement) DO UPDATE SET uses = uses + 1, last = max(last, excluded.last)",
            (agreement, at, at),
        )
    if wanted is not None:
        connection.execute(
            "INSERT INTO metered_step (plan, invocation, agreement, seconds, bytes) VALUES (?, ?, ?, ?, ?)",
            (plan, invocation, agreement, wanted.seconds, wanted.bytes),
        )
        _add(connection, agreement, wanted.seconds, wanted.bytes)


def settle(connection: sqlite3.Connection, plan: str, invocation: str, came_to: Metered | None) -> None:
    """Replace what a step reserved with what its receipt meters; without that, what was reserved stays used."""
    key = (plan, invocation)
    row = connection.execute(
        "SELECT agreement, seconds, bytes FROM metered_step WHERE plan = ? AND invocation = ?", key
    ).fetchone()
    if row is None:
        return
    connection.execute("DELETE FROM metered_step WHERE plan = ? AND invocation = ?", key)
    if came_to is not None:
        agreement, seconds, size = row
        _add(connection, agreement, came_to.seconds - seconds, came_to.bytes - size)


def _add(connection: sqlite3.Connection, agreement: str, seconds: int, size: int) -> None:
    connection.execute(
        "UPDATE metered SET seconds = seconds + ?, bytes = bytes + ? WHERE agreement = ?", (seconds, size, agreement)
    )
