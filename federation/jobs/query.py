"""A query session: DuckDB beside one company's snapshot, without any code of others.

Frames in: ``start`` once, with the place of the snapshot, then ``statements`` until the channel closes. Frames out: ``ready``,
``rows`` (the body: JSON, one list of rows for each statement), or ``error`` with a code. What DuckDB says of an error may hold
values, so it goes to stderr, the data owner's log.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb

from . import _json
from .frames import Channel, FrameError
from .session import MAX_BODY, finish, integer, open_channel

DATA_FILE = "data.parquet"
MOST_ROWS = 2_000_000
"""Rows of one answer: cells, or distinct keys of all cells."""


def load(place: Path, memory_bytes: int, beside: object = ()) -> duckdb.DuckDBPyConnection:
    """Return an engine that holds the snapshot as the table ``data`` and can reach nothing else.

    Args:
        beside: name and expression, both SQL, of each column that is worked out now and stands beside the snapshot's own.
    """
    more = "".join(f", {expression} AS {name}" for name, expression in _pairs(beside))
    engine = duckdb.connect(
        config={
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "memory_limit": f"{memory_bytes // 2**20}MiB",
            "temp_directory": "",
        }
    )
    made = f"CREATE TABLE data AS SELECT *{more} FROM read_parquet(?)"  # noqa: S608 - by this node's trusted side alone
    engine.execute(made, [str(place / DATA_FILE)])
    engine.execute("SET enable_external_access = false")
    engine.execute("SET lock_configuration = true")
    return engine


def _pairs(told: object) -> Iterator[tuple[str, str]]:
    for one in told if isinstance(told, list) else ():
        name, expression = one
        yield str(name), str(expression)


def answer(engine: duckdb.DuckDBPyConnection, statements: object) -> bytes:
    """Return the rows of some statements as JSON.

    Raises:
        ValueError: they are not statements, or give more than an answer may hold.
    """
    if not isinstance(statements, list) or not all(isinstance(one, str) for one in statements):
        raise ValueError("statements")
    tables = []
    for statement in statements:
        rows = engine.execute(statement).fetchmany(MOST_ROWS + 1)
        if len(rows) > MOST_ROWS:
            raise ValueError("too many rows")
        tables.append([[_told(value) for value in row] for row in rows])
    return bytes(_json.write({"tables": tables}))


def _told(value: Any) -> object:
    """A value as JSON says it exactly: a float by its hexadecimal form."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return {"f": value.hex()}
    return {"s": str(value)}


def serve(channel: Channel) -> None:
    """Answer frames until the channel closes."""
    header, _ = channel.receive(0)
    beside = header.get("beside", [])
    try:
        engine = load(Path(str(header["data"])), integer(header, "memory_bytes"), beside)
    except Exception as error:
        channel.send(_report(error))
        return
    channel.send({"op": "ready", "beside": len(beside) if isinstance(beside, list) else 0})
    while True:
        try:
            header, _ = channel.receive(MAX_BODY)
        except FrameError as error:
            if error.code == "frame-closed":
                return
            raise
        try:
            body = answer(engine, header.get("statements"))
        except Exception as error:
            channel.send(_report(error))
        else:
            channel.send({"op": "rows"}, [body])


def _report(error: BaseException) -> dict[str, object]:
    traceback.print_exception(error)
    sys.stderr.flush()
    return {
        "op": "error",
        "code": "out-of-memory" if isinstance(error, duckdb.OutOfMemoryException) else "query-engine",
    }


def main() -> None:
    """Serve the channel that the environment names, then leave."""
    serve(open_channel())
    finish()
