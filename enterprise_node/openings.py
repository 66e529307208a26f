"""Which sums this node helped to open, kept with its policy state: see `federation.secagg.differencing` for what they rule out.

Written in the transaction of the OUTCOME, before a share leaves, and read in the one that decides on the next.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from federation.secagg import Opened

SCHEMA = (
    """CREATE TABLE opened_set (
        data_version TEXT NOT NULL, plan TEXT NOT NULL, members TEXT NOT NULL, round INTEGER NOT NULL,
        forgiven INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (data_version, plan, members)) STRICT""",
    """CREATE TABLE opened_content (
        plan TEXT NOT NULL, stage TEXT NOT NULL, content TEXT NOT NULL, members TEXT NOT NULL,
        PRIMARY KEY (plan, stage, content, members)) STRICT""",
)

SCHEMA_2 = (
    "ALTER TABLE opened_set ADD COLUMN data TEXT NOT NULL DEFAULT '{}'",
    "ALTER TABLE opened_set ADD COLUMN noised INTEGER NOT NULL DEFAULT 0",
    """CREATE TABLE opened_reading (
        data_version TEXT NOT NULL, plan TEXT NOT NULL, reading TEXT NOT NULL,
        PRIMARY KEY (data_version, plan, reading)) STRICT""",
)
"""Sets of before say nothing of the others' data: they are compared by companies alone, as sums without noise."""

UNKNOWN_PLAN: Final = "unknown"
"""Stands where a ledger of this node was lost: that sums may have been opened, and nobody knows between whom."""
_TABLES: Final = {
    "opened_set": "data_version, plan, members, round, forgiven, data, noised",
    "opened_content": "plan, stage, content, members",
    "opened_reading": "data_version, plan, reading",
}


@dataclass(frozen=True)
class OpenedSet:
    """Companies whose sums were opened under one plan.

    Attributes:
        plan: digest of the plan.
        members: legal entity of each node.
        round: the first round in which it was these.
        forgiven: the owner said that it no longer stands against others.
    """

    data_version: str
    plan: str
    members: dict[str, str]
    round: int
    forgiven: bool


def note_opening(connection: sqlite3.Connection, data_version: str, opened: Opened, number: int) -> None:
    """Put a set on record, within the caller's transaction."""
    members = _text(opened.members)
    connection.execute(
        "INSERT OR IGNORE INTO opened_set (data_version, plan, members, round, data, noised) VALUES (?, ?, ?, ?, ?, ?)",
        (data_version, opened.plan, members, number, _text(opened.data), opened.noised),
    )
    connection.execute(
        "INSERT OR IGNORE INTO opened_content (plan, stage, content, members) VALUES (?, ?, ?, ?)",
        (opened.plan, opened.stage, opened.content, members),
    )
    connection.executemany(
        "INSERT OR IGNORE INTO opened_reading (data_version, plan, reading) VALUES (?, ?, ?)",
        [(data_version, opened.plan, _text(reading)) for reading in opened.readings],
    )


def earlier_openings(connection: sqlite3.Connection, data_version: str, wanted: Opened) -> Iterator[Opened]:
    """What may stand against opening ``wanted``: the sets of other plans on the same data, and this plan's own.

    Other plans' sets that are alike are told once, under no plan's name: a node may have answered thousands.
    """
    readings: dict[tuple[str, ...], list[dict[str, str]]] = {}
    for *key, reading in connection.execute(
        "SELECT DISTINCT members, data, noised, reading FROM opened_set JOIN opened_reading USING (data_version, plan)"
        " WHERE data_version = ? AND plan <> ? AND NOT forgiven",
        (data_version, wanted.plan),
    ):
        readings.setdefault(tuple(key), []).append(json.loads(reading))
    for members, data, noised in connection.execute(
        "SELECT DISTINCT members, data, noised FROM opened_set WHERE data_version = ? AND plan <> ? AND NOT forgiven",
        (data_version, wanted.plan),
    ):
        found = readings.get((members, data, noised), ())
        yield Opened("", "", "", json.loads(members), json.loads(data), bool(noised), tuple(found))
    for (members,) in connection.execute(
        "SELECT members FROM opened_set WHERE data_version = ? AND plan = ?", (data_version, wanted.plan)
    ):
        yield Opened(wanted.plan, "", "", json.loads(members))
    for (members,) in connection.execute(
        "SELECT members FROM opened_content WHERE plan = ? AND stage = ? AND content = ?",
        (wanted.plan, wanted.stage, wanted.content),
    ):
        yield Opened(wanted.plan, wanted.stage, wanted.content, json.loads(members))


def opened_sets(connection: sqlite3.Connection) -> list[OpenedSet]:
    """All sets on record."""
    rows = connection.execute("SELECT data_version, plan, members, round, forgiven FROM opened_set ORDER BY rowid")
    return [
        OpenedSet(version, plan, json.loads(members), number, bool(done))
        for version, plan, members, number, done in rows
    ]


def forgive(connection: sqlite3.Connection, data_version: str) -> int:
    """Let the sets opened on a data version no longer stand against others; returns how many did."""
    return connection.execute(
        "UPDATE opened_set SET forgiven = 1 WHERE data_version = ? AND NOT forgiven", (data_version,)
    ).rowcount


def carry_over(connection: sqlite3.Connection, lost: Path | None, data_versions: Iterable[str]) -> int:
    """Go on from a ledger that was lost: what its file still says, and for each of these versions that it is not all.

    The file may be years old or beyond reading, and ends before what was lost. So every version of data that this node holds
    counts as opened between companies that nobody knows: no sum without noise fits beside that until the owner says so.

    Args:
        lost: the lost ledger's database, which need not be there; it is read as a copy, for it is evidence. None where the
            ledger here is itself what is left.

    Returns:
        How many sets the file still knew.
    """
    carried = _copied(connection, lost) if lost is not None else 0
    known = {str(row[0]) for row in connection.execute("SELECT DISTINCT data_version FROM opened_set")}
    connection.executemany(
        "INSERT OR IGNORE INTO opened_set (data_version, plan, members, round) VALUES (?, ?, '{}', 0)",
        [(version, UNKNOWN_PLAN) for version in sorted(known.union(data_versions))],
    )
    return carried


def _copied(connection: sqlite3.Connection, lost: Path) -> int:
    carried = 0
    for table, columns, rows in _readable(lost):
        marks = ", ".join("?" for _ in columns.split(","))
        connection.executemany(f"INSERT OR IGNORE INTO {table} ({columns}) VALUES ({marks})", rows)  # noqa: S608
        carried += len(rows) if table == "opened_set" else 0
    return carried


def _readable(lost: Path) -> list[tuple[str, str, list[tuple[object, ...]]]]:
    """What a lost ledger's tables still say; only what goes wrong in reading it is passed over."""
    found: list[tuple[str, str, list[tuple[object, ...]]]] = []
    with suppress(sqlite3.Error, OSError), tempfile.TemporaryDirectory(prefix="keyong-lost-") as folder:
        for name in (lost.name, f"{lost.name}-wal"):
            if (lost.parent / name).exists():
                shutil.copyfile(lost.parent / name, Path(folder) / name)
        with closing(sqlite3.connect((Path(folder) / lost.name).as_uri() + "?mode=rw", uri=True)) as before:
            for table, columns in _TABLES.items():
                rows = before.execute(f"SELECT {columns} FROM {table}").fetchall()  # noqa: S608  # our own names
                found.append((table, columns, rows))
    return found


def _text(members: object) -> str:
    return json.dumps(members, sort_keys=True, ensure_ascii=False)
