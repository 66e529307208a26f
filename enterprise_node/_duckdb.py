"""DuckDB shut in: one file to read, at most one to write, no extension, no network, bounded memory."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from enterprise_node.reading import Reading
from federation.errors import KeyongError, UnavailableError, UsageError

if TYPE_CHECKING:
    import duckdb

    from federation.statements.dataset import ColumnType

MEMORY_LIMIT: Final = "512MB"
THREADS: Final = 2
MAX_LINE_BYTES: Final = 2_000_000
"""Longest line of a CSV file, and longest row of what is read as one (SQLite, PostgreSQL)."""
SETTINGS: Final[dict[str, str | bool | int | float | list[str]]] = {
    "allow_community_extensions": False,
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "max_temp_directory_size": "8GB",
    "memory_limit": MEMORY_LIMIT,
    "preserve_insertion_order": True,
    "threads": THREADS,
}


@contextmanager
def confined(
    work: Path, readable: Path, writable: Path | None = None, *, called: str = ""
) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection that can open these files and no other; errors of DuckDB come out as ours, without a value.

    Args:
        work: a private folder, also for what does not fit the memory limit.
        readable: the only file it may read.
        writable: the only file it may write.
        called: what to call the file in an error; by default by its own name, which says no place.

    Raises:
        UsageError: the file does not hold what it should.
        UnavailableError: memory or disk do not suffice.
    """
    import duckdb  # here, for a node at rest does not need it

    connection = duckdb.connect(
        ":memory:",
        config={**SETTINGS, "python_enable_replacements": False, "temp_directory": str(work / "spill")},
    )
    try:
        paths = ", ".join(literal(str(path)) for path in (readable, writable) if path is not None)
        connection.execute(f"SET allowed_paths = [{paths}]")
        connection.execute("SET enable_progress_bar = false")  # it would be printed among the data of a command
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
        yield connection
    except duckdb.Error as error:
        raise _explained(error, called or readable.name) from None
    finally:
        connection.close()


def literal(text: str) -> str:
    """The text as an SQL string."""
    return "'" + text.replace("'", "''") + "'"


def identifier(name: str) -> str:
    """The name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def link(source: Path, work: Path) -> Path:
    """A link to ``source`` whose name is free of the characters by which DuckDB would read several files.

    Raises:
        UsageError: the private folder's own path holds one.
    """
    place = work / "source"
    if set("*?[") & set(str(place)):
        raise UsageError("the folder {path} holds one of * ? [ in its path", hint="choose another", path=work)
    place.symlink_to(source.resolve())
    return place


def table(path: Path, reading: Reading, width: int) -> str:
    """The FROM clause of a file; the columns of a CSV file are called ``c0``, ``c1``, ... and are text.

    Nothing is left to DuckDB's own detection: a file is read as it was registered, or refused.
    """
    if reading.kind == "parquet":
        return f"read_parquet({literal(str(path))})"
    columns = ", ".join(f"'c{position}': 'VARCHAR'" for position in range(width))
    nulls = ", ".join(literal(value) for value in reading.null_values)
    packed = "gzip" if reading.gzip else "none"
    quoted = "false" if reading.exact else "true"
    return (
        f"read_csv({literal(str(path))}, auto_detect = false, header = true, columns = {{{columns}}}, "
        f"delim = {literal(reading.delimiter)}, quote = '\"', escape = '\"', nullstr = [{nulls}], "
        f"allow_quoted_nulls = {quoted}, max_line_size = {MAX_LINE_BYTES}, strict_mode = true, "
        f"null_padding = false, ignore_errors = false, "
        f"compression = '{packed}')"
    )


def value(reading: Reading, field: str, kind: ColumnType) -> str:
    """The expression of a column's value before it is cast; blank fields of a CSV file are missing values."""
    return f"nullif(trim({field}), '')" if reading.kind == "csv" and kind != "text" else field


def fields(reading: Reading, names: Sequence[str]) -> dict[str, str]:
    """Each column's name in the file and how SQL calls it."""
    if reading.kind == "parquet":
        return {name: identifier(name) for name in names}
    return {name: f"c{position}" for position, name in enumerate(names)}


def _explained(error: duckdb.Error, path: str) -> KeyongError:
    """Our error for DuckDB's, whose text quotes lines and values and so goes no further."""
    import duckdb

    text = str(error)
    if isinstance(error, (duckdb.OutOfMemoryException, duckdb.IOException)):
        return UnavailableError("reading the dataset takes more memory or disk than there is", code="resources")
    line = re.search(r"CSV Error on Line: (\d+)", text)
    widths = re.search(r"Expected Number of Columns: (\d+) Found: (\d+)", text)
    if line and widths:
        return UsageError(
            "line {line} of {path} has not as many fields as the header: {found}, not {expected}",
            hint="check for a delimiter inside an unquoted field, or name the delimiter with --delimiter",
            line=int(line[1]),
            path=path,
            found=int(widths[2]),
            expected=int(widths[1]),
        )
    # A line that fills the reader's whole buffer is not even found by its number.
    if "Maximum line size" in text or isinstance(error, duckdb.NotImplementedException):
        return UsageError(
            "a line of {path} holds more than {limit} bytes",
            hint="leave the long column out when it is exported, or use Parquet",
            limit=MAX_LINE_BYTES,
            path=path,
        )
    if line and "quote" in text:
        return UsageError(
            "line {line} of {path} holds a quote that is not closed as it should be",
            hint="a field that holds a quote is written in quotes, and the quote twice",
            line=int(line[1]),
            path=path,
        )
    if line:
        return UsageError("line {line} of {path} cannot be read", line=int(line[1]), path=path)
    return UsageError("{path} cannot be read; it is damaged or not of the kind its name says", path=path)
