"""What a ledger's store holds, row by row: envelopes, opened fields, signed checkpoints."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from federation.errors import UsageError
from federation.ledger.entry import Field
from federation.ledger.store import read_field


def entry_data(connection: sqlite3.Connection, index: int) -> bytes:
    """The bytes of one envelope; raises UsageError where there is none."""
    row = connection.execute("SELECT data FROM entry WHERE idx = ?", (index,)).fetchone()
    if row is None:
        raise UsageError("the ledger has no entry {index}", index=index)
    return bytes(row[0])


def entry_fields(connection: sqlite3.Connection, index: int) -> dict[str, Field]:
    """What opens an entry's fields, by their names; erased ones are absent."""
    rows = connection.execute("SELECT name, form, salt, payload FROM field WHERE idx = ? ORDER BY name", (index,))
    return {name: read_field(form, salt, payload, index) for name, form, salt, payload in rows}


def newest_note(connection: sqlite3.Connection) -> bytes:
    """The signed checkpoint of the newest state."""
    return bytes(connection.execute("SELECT note FROM checkpoint ORDER BY size DESC LIMIT 1").fetchone()[0])


def statements(script: str) -> Iterator[str]:
    """Split a script at the ends of its statements: ``executescript`` would commit on its own."""
    statement = ""
    for piece in script.split(";"):
        statement += piece + ";"
        if sqlite3.complete_statement(statement):
            if statement.strip(" \n\t;"):
                yield statement
            statement = ""
