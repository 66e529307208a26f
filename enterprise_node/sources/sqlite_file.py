"""Rows of a SQLite database, read in one statement with the standard library."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from enterprise_node._duckdb import MAX_LINE_BYTES, identifier
from enterprise_node.reading import Reading
from enterprise_node.source_file import check_names
from enterprise_node.sources.errors import SourceQueryError, SourceUnavailableError, row_too_long

_BATCH: Final = 2000
_BUSY_SECONDS: Final = 10.0
_READS: Final = frozenset(
    {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
)
_REFUSED_FUNCTIONS: Final = frozenset({"load_extension", "readfile", "writefile", "edit"})


def copy_rows(path: Path, reading: Reading, target: Path) -> tuple[tuple[str, ...], dict[str, str | None]]:
    """Write what is to be read as exact CSV; returns the columns' names and what the database says of their types.

    One statement is one snapshot: whoever writes meanwhile changes nothing of what is read.

    Raises:
        SourceQueryError: there is no such table, or the query is more than one reading.
        SourceUnavailableError: the file is gone, locked or damaged.
    """
    query = reading.select or f"SELECT * FROM {identifier(reading.table)}"
    try:
        with closing(_open(path)) as connection:
            affinities = _affinities(connection, reading.table) if reading.table else {}
            connection.set_authorizer(_only_reading)
            cursor = connection.execute(query)
            names = tuple(str(column[0]).strip() for column in cursor.description or ())
            check_names(path, names)
            unusable = _write(cursor, names, target)
    except sqlite3.Error as error:
        raise _explained(error, path) from None
    types: dict[str, str | None] = {name: "text-like" for name in names if _is_text(affinities.get(name, ""))}
    return names, types | dict.fromkeys(unusable)


def _open(path: Path) -> sqlite3.Connection:
    if not path.is_file():
        raise SourceUnavailableError("there is no file {path}", hint="check the path", path=path)
    connection = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=_BUSY_SECONDS)
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA query_only = ON")
    connection.text_factory = lambda data: data.decode("utf-8", "replace")
    return connection


def _only_reading(action: int, first: str | None, second: str | None, *_: Any) -> int:
    allowed = action in _READS and not (action == sqlite3.SQLITE_FUNCTION and second in _REFUSED_FUNCTIONS)
    return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY


def _affinities(connection: sqlite3.Connection, table: str) -> dict[str, str]:
    rows = connection.execute("SELECT name, type FROM pragma_table_xinfo(?)", (table,)).fetchall()
    return {str(name).strip(): str(kind).upper() for name, kind in rows}


def _is_text(kind: str) -> bool:
    """Whether a declared type has text affinity (SQLite, "Datatypes In SQLite", section 3.1)."""
    return "INT" not in kind and any(mark in kind for mark in ("CHAR", "CLOB", "TEXT"))


def _write(cursor: sqlite3.Cursor, names: tuple[str, ...], target: Path) -> list[str]:
    """Write all rows; returns the columns that hold binary values, which have no use in a table of ours."""
    binary: set[int] = set()
    with target.open("x", encoding="utf-8", newline="") as file:
        file.write(",".join(_field(name) for name in names) + "\n")
        while rows := cursor.fetchmany(_BATCH):
            for row in rows:
                binary.update(place for place, value in enumerate(row) if isinstance(value, bytes))
            lines = [",".join(map(_field, row)) + "\n" for row in rows]
            if max(map(len, lines)) > MAX_LINE_BYTES:
                raise row_too_long(MAX_LINE_BYTES)
            file.writelines(lines)
    return [names[place] for place in sorted(binary)]


def _field(value: object) -> str:
    if value is None or isinstance(value, bytes):
        return ""
    if isinstance(value, str):
        return '"' + value.replace('"', '""').replace("\0", "") + '"'
    return repr(value)


def _explained(error: sqlite3.Error, path: Path) -> SourceQueryError | SourceUnavailableError:
    name = getattr(error, "sqlite_errorname", "")
    if name in ("SQLITE_ERROR", "SQLITE_AUTH", "SQLITE_READONLY", "") and isinstance(error, sqlite3.DatabaseError):
        return SourceQueryError(
            "{path} cannot be asked for that: there is no such table or column, or the query does more than read",
            hint="try the query with the sqlite3 command; only one SELECT is taken",
            path=path,
        )
    return SourceUnavailableError(
        "{path} cannot be read now ({reason})",
        hint="see that no other program keeps it locked, and that it is whole",
        path=path,
        reason=name,
    )
