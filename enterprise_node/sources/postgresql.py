"""Rows of a PostgreSQL database: one read-only transaction, one COPY, streamed to a file.

The query is the owner's; what the server says of an error is never passed on, for it may quote a row.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from enterprise_node._duckdb import MAX_LINE_BYTES
from enterprise_node.reading import Reading
from enterprise_node.source_file import check_names
from enterprise_node.sources.errors import (
    SourceCredentialsError,
    SourceQueryError,
    SourceUnavailableError,
    row_too_long,
)

if TYPE_CHECKING:
    import psycopg

CONNECT_SECONDS: Final = 10
SILENT_SECONDS: Final = 60
"""A server whose TCP says nothing for so long is gone."""
_TYPES: Final = {
    16: "boolean",
    20: "integer",
    21: "integer",
    23: "integer",
    700: "number",
    701: "number",
    1700: "number",
    18: "text",
    19: "text",
    25: "text",
    1042: "text",
    1043: "text",
    2950: "text",
    1082: "date",
    1114: "timestamp",
    1184: "timestamp",
}
"""Built-in types by their number (``pg_type.dat``); enumerations have numbers of their own and are text."""
_FLOATS: Final = (700, 701, 1700)
_WITH_ZONE: Final = 1184
_LOCAL: Final = ("", "localhost", "127.0.0.1", "::1")


def copy_rows(url: str, reading: Reading, password: str, target: Path) -> tuple[tuple[str, ...], dict[str, str | None]]:
    """Write what is to be read as exact CSV; returns the columns' names and their types.

    Times with a zone come in UTC. NaN counts as missing. Columns of other types (arrays, JSON, bytes) stay empty, with no
    type.

    Raises:
        SourceUnavailableError: the server cannot be reached, or broke off.
        SourceCredentialsError: it refuses the credentials, or they may not read this.
        SourceQueryError: there is no such table, or the query does more than read.
    """
    import psycopg

    try:
        with psycopg.connect(**_parameters(url, password)) as connection:
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            connection.read_only = True
            return _copy(connection, reading, target)
    except psycopg.Error as error:
        raise _explained(error) from None


def _parameters(url: str, password: str) -> dict[str, Any]:
    from psycopg.conninfo import conninfo_to_dict

    given = conninfo_to_dict(url)
    host = str(given.get("host") or given.get("hostaddr") or "")
    remote = not (host in _LOCAL or host.startswith(("/", "@")))
    # Nobody between us and a server elsewhere may read rows or the password, unless the owner says so in the address.
    secure = {"sslmode": "verify-full", "sslrootcert": "system"} if remote and "sslmode" not in given else {}
    return {
        "client_encoding": "UTF8",
        "connect_timeout": CONNECT_SECONDS,
        "application_name": "keyong",
        "keepalives_idle": SILENT_SECONDS // 4,
        "keepalives_interval": SILENT_SECONDS // 4,
        "keepalives_count": 3,
        "tcp_user_timeout": SILENT_SECONDS * 1000,
        "passfile": "/dev/null",  # nothing of this account's own files but what the owner named
        **secure,
        **given,
        **({"password": password} if password else {}),
    }


def _copy(
    connection: psycopg.Connection[Any], reading: Reading, target: Path
) -> tuple[tuple[str, ...], dict[str, str | None]]:
    from psycopg import sql

    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL TIME ZONE 'UTC'; SET LOCAL datestyle = 'ISO, YMD'; SET LOCAL extra_float_digits = 1")
        if reading.select:
            query: sql.Composable = sql.SQL(reading.select)  # the owner's own words
        else:
            query = sql.SQL("SELECT * FROM {}").format(sql.Identifier(*reading.table.split(".")))
        asked = sql.SQL("SELECT * FROM ({}\n) AS source LIMIT 0").format(query)
        # Prepared: the server then takes one statement and no more.
        cursor.execute(asked, prepare=True)
        described = cursor.description or ()
        names = tuple(str(column.name).strip() for column in described)
        check_names(Path(reading.table or "query"), names)
        kinds = [column.type_code for column in described]
        other = [kind for kind in kinds if kind not in _TYPES]
        cursor.execute("SELECT oid FROM pg_catalog.pg_type WHERE typtype = 'e' AND oid = ANY(%s)", (other,))
        enumerations = {row[0] for row in cursor.fetchall()}
        types = [_TYPES.get(kind, "text" if kind in enumerations else None) for kind in kinds]
        places = [sql.Identifier(f"c{place}") for place in range(len(names))]
        shown = [
            _shown(place, kind, usable is not None) for place, kind, usable in zip(places, kinds, types, strict=True)
        ]
        copy = sql.SQL("COPY (SELECT {} FROM ({}\n) AS source({})) TO STDOUT (FORMAT csv, HEADER)").format(
            sql.SQL(", ").join(shown), query, sql.SQL(", ").join(places)
        )
        with target.open("xb") as file, cursor.copy(copy) as rows:
            for block in rows:  # a row each (PostgreSQL documentation, 54.2.7)
                if len(block) > MAX_LINE_BYTES:
                    raise row_too_long(MAX_LINE_BYTES)
                file.write(block)
    return names, dict(zip(names, types, strict=True))


def _shown(place: Any, kind: int, usable: bool) -> Any:
    from psycopg import sql

    if not usable:
        return sql.SQL("NULL::text AS {}").format(place)
    if kind in _FLOATS:
        return sql.SQL("nullif({}, 'NaN') AS {}").format(place, place)
    if kind == _WITH_ZONE:
        return sql.SQL("{} AT TIME ZONE 'UTC' AS {}").format(place, place)
    return place


def _explained(error: psycopg.Error) -> SourceCredentialsError | SourceQueryError | SourceUnavailableError:
    """Our error for the server's, by its SQLSTATE (PostgreSQL documentation, appendix A)."""
    state, text = error.sqlstate or "", str(error)
    refused = ("authentication failed", "no password supplied", "no pg_hba.conf entry", "role ")
    if state.startswith("28") or (not state and any(mark in text for mark in refused)):
        return SourceCredentialsError(
            "the database refuses the credentials",
            hint="check user and password (--password-file, --password-env) and the server's pg_hba.conf",
        )
    if state == "42501":
        return SourceCredentialsError(
            "the database does not let this user read that", hint="GRANT SELECT on exactly what is to be read"
        )
    if state[:2] in ("42", "3F", "3D", "25", "0A", "22", "2F"):
        return SourceQueryError(
            "the database cannot be asked for that (SQLSTATE {state})",
            hint="try the query with psql: it may be one SELECT, on tables and columns that are there",
            state=state,
        )
    return SourceUnavailableError(
        "the database cannot be read now{state}",
        hint="see that it runs and that this machine reaches it; a server elsewhere needs TLS (sslmode in the address)",
        state=f" (SQLSTATE {state})" if state else "",
    )
