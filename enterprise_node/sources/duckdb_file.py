"""Rows of a DuckDB database, opened read-only and shut in like everything DuckDB does here."""

from __future__ import annotations

from pathlib import Path

from enterprise_node._duckdb import SETTINGS, identifier, literal
from enterprise_node.reading import Reading
from enterprise_node.sources.errors import SourceQueryError, SourceUnavailableError


def copy_rows(path: Path, reading: Reading, target: Path) -> None:
    """Write what is to be read as Parquet; DuckDB's own snapshot isolation makes it consistent.

    Raises:
        SourceQueryError: there is no such table, or the query is not one SELECT that reads this database alone.
        SourceUnavailableError: the file is gone, locked by a writer, or of another version of DuckDB.
    """
    import duckdb

    if not path.is_file():
        raise SourceUnavailableError("there is no file {path}", hint="check the path", path=path)
    settings = SETTINGS | {"temp_directory": str(target.with_name("spill"))}
    try:
        connection = duckdb.connect(str(path), read_only=True, config=settings)
    except duckdb.Error:
        raise SourceUnavailableError(
            "{path} cannot be opened now",
            hint="see that no other program has it open for writing, and that its version of DuckDB is not newer",
            path=path,
        ) from None
    try:
        connection.execute(f"SET allowed_paths = [{literal(str(target))}]")
        connection.execute("SET enable_progress_bar = false")
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
        query = reading.select or f"SELECT * FROM {'.'.join(map(identifier, reading.table.split('.')))}"
        statements = connection.extract_statements(query)
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
            raise SourceQueryError("the query is not one SELECT", hint="write one query that reads, and nothing else")
        connection.execute(f"COPY ({query}) TO {literal(str(target))} (FORMAT parquet)")
    except (duckdb.OutOfMemoryException, duckdb.IOException):
        raise SourceUnavailableError(
            "reading the dataset takes more memory or disk than there is", code="resources"
        ) from None
    except duckdb.Error:
        raise SourceQueryError(
            "{path} cannot be asked for that: there is no such table or column, or the query reads something else",
            hint="try the query with the duckdb command; it may read this database alone",
            path=path,
        ) from None
    finally:
        connection.close()
