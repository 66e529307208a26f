"""An export laid out as a ledger's database, to be searched and looked at: nothing in it is believed, here or later.

Verification reads the export itself. This is for whoever shows it, and has to show a damaged one as far as it goes.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from federation.ledger._rows import Row
from federation.ledger.entry import decode
from federation.ledger.errors import LedgerError
from federation.ledger.export import ExportReader
from federation.ledger.merkle import Frontier, leaf_hash
from federation.ledger.store import FORMAT, SCHEMA, make_file

_COMMITTED_AT_ONCE = 4096


def unpack_export(export: Path, database: Path) -> LedgerError | None:
    """Lay ``export`` out as the new file ``database``; returns why it could not be read to its end, where it could not.

    Raises:
        LedgerUnreadableError: it is no export at all.
        LedgerUnavailableError: it cannot be opened.
    """
    make_file(database)
    with ExportReader(export) as reader, closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = OFF")  # a copy, made anew where it is lost
        connection.execute("PRAGMA synchronous = OFF")
        for statement in SCHEMA:
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {FORMAT}")
        tree, failure = Frontier(), None
        connection.execute("BEGIN")
        try:
            for row in reader.rows():
                _insert(connection, row, tree)
                if not tree.size % _COMMITTED_AT_ONCE:
                    connection.execute("COMMIT")
                    connection.execute("BEGIN")
        except LedgerError as error:
            failure = error
        if reader.final_note is not None:
            connection.execute("INSERT OR REPLACE INTO checkpoint VALUES (?, ?)", (tree.size, reader.final_note))
        connection.execute("INSERT INTO head VALUES (1, ?, ?)", (tree.size, tree.root()))
        connection.execute("COMMIT")
        return failure


def _insert(connection: sqlite3.Connection, row: Row, tree: Frontier) -> None:
    leaf = leaf_hash(row.data)
    try:
        entry = decode(row.data, row.place)
        kind, ref, time = entry.kind, entry.ref, entry.time
    except LedgerError:
        kind, ref, time = "", None, ""  # shown as what it is: bytes that are no entry
    connection.execute("INSERT INTO entry VALUES (?, ?, ?, ?, ?, ?)", (row.place, kind, ref, time, leaf, row.data))
    connection.executemany(
        "INSERT INTO field VALUES (?, ?, ?, ?, ?)", [(row.place, name, *field) for name, field in row.fields.items()]
    )
    connection.executemany(
        "INSERT INTO tile VALUES (?, ?, ?)", [(t.level, t.number, t.hash) for t in tree.append(leaf)]
    )
    if row.note is not None:
        connection.execute("INSERT OR REPLACE INTO checkpoint VALUES (?, ?)", (tree.size, row.note))
