"""Telling what a source is: by its address, by its first bytes, and by what the owner says is to be read of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

from enterprise_node.reading import DATABASES, Reading
from enterprise_node.source_file import detect_reading
from federation.errors import UsageError

SCHEMES: Final = ("postgresql://", "postgres://")
MAX_SELECT: Final = 64 * 1024
_SQLITE: Final = b"SQLite format 3\0"
_DUCKDB: Final = b"DUCK"
_DUCKDB_AT: Final = 8


def locate(
    source: str,
    *,
    encoding: str = "utf-8",
    delimiter: str | None = None,
    null_values: tuple[str, ...] = (),
    table: str = "",
    select: str = "",
    credential: str = "",
) -> tuple[str, Reading]:
    """A source's place as it is registered (an absolute path or a URL), and how it is read.

    Args:
        source: a path or a ``postgresql://`` URL.
        encoding, delimiter, null_values: of a CSV file.
        table, select: of a database, one of them: what is read of it.
        credential: reference to the password, see `credential_reference`.

    Raises:
        UsageError: it is no source, or what was said does not fit it.
    """
    if source.startswith(SCHEMES):
        _check_url(source)
        return source, _query(Reading(kind="postgresql"), table, select, credential)
    path = Path(source).expanduser().absolute()
    if credential:
        raise UsageError("a password is for a PostgreSQL source; files are read with this account's rights")
    if path.is_dir():
        reading = Reading(kind="files")
    else:
        head = _head(path)
        if head.startswith(_SQLITE):
            return str(path), _query(Reading(kind="sqlite"), table, select, "")
        if head[_DUCKDB_AT:].startswith(_DUCKDB):
            return str(path), _query(Reading(kind="duckdb"), table, select, "")
        reading = detect_reading(path, encoding=encoding, delimiter=delimiter, null_values=null_values)
    if table or select:
        raise UsageError(
            "{path} is not a database: it has no table and takes no query", hint="leave out --table", path=path
        )
    return str(path), reading


def _query(reading: Reading, table: str, select: str, credential: str) -> Reading:
    if bool(table) == bool(select):
        raise UsageError(
            "it is not said what is read of the database",
            hint="give --table NAME, or --select with a query of your own",
        )
    if len(select) > MAX_SELECT or "\0" in select + table:
        raise UsageError("the query is longer than {limit} characters, or holds a NUL", limit=MAX_SELECT)
    assert reading.kind in DATABASES
    return replace(reading, table=table, select=select.strip().rstrip(";").strip(), credential=credential)


def _check_url(url: str) -> None:
    from psycopg import ProgrammingError
    from psycopg.conninfo import conninfo_to_dict

    try:
        parts = conninfo_to_dict(url)
    except ProgrammingError:
        raise UsageError(
            "the address of the database is malformed",
            hint="write postgresql://USER@HOST:PORT/DATABASE, with characters such as @ in a name as %40",
        ) from None
    if parts.get("password") or parts.get("passfile"):
        raise UsageError(
            "the address of the database holds a password, and addresses are kept and shown",
            hint="put it into a file (--password-file) or the environment (--password-env)",
        )
    if not parts.get("dbname"):
        raise UsageError(
            "the address of the database names no database", hint="write postgresql://USER@HOST:PORT/DATABASE"
        )


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_DUCKDB_AT + len(_SQLITE))
    except OSError:
        return b""  # `detect_reading` says what is wrong
