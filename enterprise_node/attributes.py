"""What only the owner can say: where the node stands, which industry a consumer is in, what has happened.

``odrl:spatial``, ``odrl:industry`` and ``odrl:event`` are judged by these statements; what was not stated is unknown, and
denies. Each is an entry of the ledger, and the table changes only together with it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from federation.errors import UsageError
from federation.ledger import Ledger
from federation.policy.values import is_of_kind
from federation.policy.vocabulary import Kind

Name = Literal["place", "industry", "event"]
KINDS: dict[Name, Kind] = {"place": "place", "industry": "industry", "event": "event"}
_SCHEMA = (
    """CREATE TABLE attribute (
        name TEXT NOT NULL, subject TEXT NOT NULL, value TEXT NOT NULL, entry INTEGER NOT NULL,
        PRIMARY KEY (name, subject, value)) STRICT""",
)


class CircumstanceError(UsageError):
    """Something was stated that is no place, industry or event."""

    code = "attribute"


@dataclass(frozen=True)
class Attribute:
    """One statement of the owner; ``subject`` is a member, or empty for this node or for everybody."""

    name: str
    subject: str
    value: str
    entry: int


@dataclass(frozen=True)
class Circumstances:
    """What the owner stated, as one consumer's request sees it."""

    place: str | None = None
    industry: str | None = None
    events: tuple[str, ...] = ()


def ensure(ledger: Ledger) -> None:
    """Bring a ledger's database to hold attributes."""
    ledger.check_schema("node-attributes", 1)
    ledger.ensure_schema("node-attributes", 1, list(_SCHEMA))


def circumstances(connection: sqlite3.Connection, consumer: str) -> Circumstances:
    """What was stated about this node and a consumer; events in the order in which they were stated."""
    found = _read(connection)
    place = next((one.value for one in found if one.name == "place"), None)
    industry = next((one.value for one in found if one.name == "industry" and one.subject == consumer), None)
    events = tuple(one.value for one in found if one.name == "event" and one.subject in ("", consumer))
    return Circumstances(place, industry, tuple(dict.fromkeys(events)))


def _read(connection: sqlite3.Connection) -> list[Attribute]:
    rows = connection.execute("SELECT name, subject, value, entry FROM attribute ORDER BY entry")
    return [Attribute(*row) for row in rows]


def attributes(ledger: Ledger) -> list[Attribute]:
    """Everything that is stated now."""
    ensure(ledger)
    with ledger.reader() as connection:
        return _read(connection)


def state(ledger: Ledger, name: Name, value: str, subject: str = "") -> None:
    """Put a statement on record; a place or an industry takes the place of the one before.

    Raises:
        CircumstanceError: not a value of its kind, or an industry of nobody.
    """
    ensure(ledger)
    _check(name, value, subject)

    def apply(connection: sqlite3.Connection) -> Mapping[str, object]:
        if name != "event":
            connection.execute("DELETE FROM attribute WHERE name = ? AND subject = ?", (name, subject))
        index = connection.execute("SELECT coalesce(max(idx), -1) + 1 FROM entry").fetchone()[0]
        connection.execute("INSERT OR IGNORE INTO attribute VALUES (?, ?, ?, ?)", (name, subject, value, index))
        return {"event": "stated"}

    ledger.append("attribute", {"name": name, "subject": subject, "value": value}, apply=apply)


def withdraw(ledger: Ledger, name: Name, value: str, subject: str = "") -> None:
    """Take a statement back, on record.

    Raises:
        CircumstanceError: it was not stated.
    """
    ensure(ledger)

    def apply(connection: sqlite3.Connection) -> Mapping[str, object]:
        gone = connection.execute(
            "DELETE FROM attribute WHERE name = ? AND subject = ? AND value = ?", (name, subject, value)
        )
        if not gone.rowcount:
            raise CircumstanceError(
                "{name} {value} was not stated", hint="see `keyong node attribute list`", name=name, value=value[:100]
            )
        return {"event": "withdrawn"}

    ledger.append("attribute", {"name": name, "subject": subject, "value": value}, apply=apply)


_EXAMPLES = {"place": "CN-31", "industry": "C31", "event": "event:acceptance-test-passed"}


def _check(name: Name, value: str, subject: str) -> None:
    if not is_of_kind(KINDS[name], value):
        raise CircumstanceError(
            "{value} is no {name}",
            hint="write it like {example}",
            value=value[:100],
            name=name,
            example=_EXAMPLES[name],
        )
    if (name == "industry") != bool(subject) and name != "event":
        raise CircumstanceError(
            "an industry is stated of a member, and a place of this node",
            hint="for example: keyong node attribute set industry C31 --of mill-b",
        )
