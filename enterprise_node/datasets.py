"""Registering a dataset: what an owner's file holds, as a schema without values."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from pydantic import ValidationError

from enterprise_node._column_types import LADDER, accepts, first_guess, parquet_type
from enterprise_node._duckdb import confined, fields, identifier, link, literal, table, value
from enterprise_node.source_file import Reading, check_names, detect_reading, read_header, scan
from federation.crypto import canonical_json, digest
from federation.errors import KeyongError, UsageError
from federation.statements import Column
from federation.statements.dataset import ColumnType

if TYPE_CHECKING:
    import duckdb

_BATCH = 100
"""Columns judged in one pass over the file."""


class SourceNotice(KeyongError):
    """What an owner should know about a file; it may be registered all the same."""

    code = "source-notice"


@dataclass(frozen=True)
class SourceDescription:
    """A file as it can be published.

    Attributes:
        path: absolute.
        reading: how it is read; keep it with the registration.
        columns: name, type, whether values are missing, and what the owner declared; no more comes from the values.
        rows: how many.
        fingerprint: digest of the file's bytes.
        problems: notices for the owner.
    """

    path: Path
    reading: Reading
    columns: tuple[Column, ...]
    rows: int
    fingerprint: str
    problems: tuple[SourceNotice, ...] = ()

    @property
    def kind(self) -> str:
        """``csv`` or ``parquet``."""
        return self.reading.kind

    @property
    def data_version(self) -> str:
        """See `data_version`."""
        return data_version(self.fingerprint, self.columns, self.reading)


def data_version(fingerprint: str, columns: Sequence[Column], reading: Reading) -> str:
    """The digest that a published dataset is known by: it changes with the bytes, the schema or how they are read."""
    return digest(
        canonical_json(
            {
                "fingerprint": fingerprint,
                "columns": [column.model_dump(mode="json") for column in columns],
                "reading": reading.model_dump(mode="json"),
            }
        )
    )


def parse_column(option: str) -> Column:
    """Read ``name:type`` as ``--column`` gives it; the name may hold colons.

    Raises:
        UsageError: it is not of that form, or the type is unknown.
    """
    name, _, kind = option.rpartition(":")
    try:
        return Column.model_validate({"name": name, "type": kind})
    except ValidationError:
        raise UsageError(
            "{option} does not declare a column",
            hint="write NAME:TYPE, with one of the types {types}",
            option=option,
            types=", ".join(get_args(ColumnType)),
        ) from None


def inspect_source(
    path: Path,
    *,
    encoding: str = "utf-8",
    delimiter: str | None = None,
    null_values: tuple[str, ...] = (),
    declared: Sequence[Column] = (),
    work: Path | None = None,
) -> SourceDescription:
    """Read a CSV or Parquet file whole and describe it.

    Types are judged by every value, not by a sample; where the owner declares a type, every value must fit. Minimum,
    maximum and categories are published only if declared, since found ones would be values.

    Args:
        path: the file.
        encoding: of a CSV file; GBK files from Chinese Windows want ``gb18030``.
        delimiter: of a CSV file; by default a tab in ``.tsv``, else a comma (or a semicolon or tab if the header has no
            comma).
        null_values: fields of a CSV file that stand for a missing value, besides the empty one.
        declared: columns whose type, unit or bounds the owner gives.
        work: where a private folder may be made for a file that is not UTF-8.

    Raises:
        UsageError: the file is not what it should be; the message names row and column, never a value.
        UnavailableError: memory or disk do not suffice.
    """
    path = path.absolute()
    reading = detect_reading(path, encoding=encoding, delimiter=delimiter, null_values=null_values)
    with tempfile.TemporaryDirectory(prefix="keyong-inspect-", dir=work) as folder:
        private = Path(folder)
        staged = None if reading.direct else private / "source"
        fingerprint = scan(path, reading, staged)
        file, plain = (link(path, private), reading) if staged is None else (staged, reading.decoded())
        header = read_header(file, plain, path) if reading.kind == "csv" else ()
        with confined(private, file) as connection:
            survey = _Survey(connection, file, plain, header)
            columns, rows, problems = survey.describe(path, {column.name: column for column in declared})
        if reading.direct and scan(path, reading) != fingerprint:
            raise UsageError("{path} changed while it was read", hint="wait until it is written, then retry", path=path)
    return SourceDescription(path, reading, columns, rows, fingerprint, problems)


class _Survey:
    """The questions asked of one file."""

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, file: Path, reading: Reading, header: tuple[str, ...]
    ) -> None:
        self._connection = connection
        self._reading = reading
        self._file = file
        self._table = table(file, reading, len(header))
        self._header = header

    def describe(
        self, path: Path, declared: Mapping[str, Column]
    ) -> tuple[tuple[Column, ...], int, tuple[SourceNotice, ...]]:
        """Columns, rows and notices."""
        native = self._native(path)
        unknown = next((name for name in declared if name not in native), None)
        if unknown is not None:
            raise UsageError("{path} has no column {name}", hint="check the spelling", path=path, name=unknown)
        self._fields = fields(self._reading, tuple(native))
        problems: list[SourceNotice] = []
        guesses: dict[str, ColumnType] = {}
        for name, guess in native.items():
            if name in declared:
                guesses[name] = declared[name].type
            elif guess is None:
                problems.append(
                    SourceNotice("column {name} is of a type that cannot be used; it is left out", name=name)
                )
            else:
                guesses[name] = guess
        if not guesses:
            raise UsageError("{path} has no column that can be used", path=path)
        kinds, filled, rows = self._settle(guesses, frozenset(declared))
        if not rows:
            raise UsageError("{path} has column names and no rows", hint="export the data again", path=path)
        columns: list[Column] = []
        for name, kind in kinds.items():
            column = declared.get(name) or Column(name=name, type=kind)
            columns.append(column.model_copy(update={"nullable": column.nullable or filled[name] < rows}))
            if not filled[name]:
                problems.append(SourceNotice("column {name} holds no value in any row", name=name))
            problems.extend(self._bounds(column))
        return tuple(columns), rows, tuple(problems)

    def _native(self, path: Path) -> dict[str, ColumnType | None]:
        """Each column's type by its first values (CSV) or its declaration (Parquet); None where it has no use."""
        if self._reading.kind == "csv":
            sample = self._connection.execute(f"SELECT * FROM {self._table} LIMIT 1000").fetchall()
            return {name: first_guess([row[place] for row in sample]) for place, name in enumerate(self._header)}
        place = literal(str(self._file))
        tree = self._connection.execute(f"SELECT name, num_children FROM parquet_schema({place})").fetchall()
        check_names(path, tuple(_top_level(tree)))
        described = self._connection.execute(f"DESCRIBE SELECT * FROM {self._table}").fetchall()
        return {str(row[0]): parquet_type(str(row[1])) for row in described}

    def _settle(
        self, guesses: dict[str, ColumnType], declared: frozenset[str]
    ) -> tuple[dict[str, ColumnType], dict[str, int], int]:
        """Types that every value fits, how many rows have a value, and the number of rows."""
        kinds = dict(guesses)
        filled: dict[str, int] = {}
        rows = 0
        open_ = list(kinds)
        while open_:
            batch, open_ = open_[:_BATCH], open_[_BATCH:]
            expressions = [f"count({self._value(name, kinds[name])})" for name in batch]
            expressions += [f"count(*) FILTER (WHERE {self._misfit(name, kinds[name], declared)})" for name in batch]
            answer = self._one(f"SELECT count(*), {', '.join(expressions)} FROM {self._table}")
            rows = answer[0]
            for name, count, bad in zip(batch, answer[1:], answer[1 + len(batch) :], strict=False):
                filled[name] = count
                if bad and name in declared:
                    raise self._misfit_error(name, kinds[name], declared)
                if bad:
                    kinds[name] = LADDER[kinds[name]]
                    open_.append(name)
        return kinds, filled, rows

    def _misfit_error(self, name: str, kind: ColumnType, declared: frozenset[str]) -> UsageError:
        return UsageError(
            "column {name} cannot be read as {type}: data row {row} holds something else",
            hint="correct the row, declare another type, or name the mark for missing values with --null",
            name=name,
            type=kind,
            row=self._first_row(self._misfit(name, kind, declared)),
        )

    def _bounds(self, column: Column) -> list[SourceNotice]:
        """A notice where a value lies outside what the owner declared."""
        kind = column.type
        cast = f"CAST({self._value(column.name, kind)} AS {'VARCHAR' if kind == 'text' else 'DOUBLE'})"
        outside: list[str] = []
        if kind in ("integer", "number"):
            outside += [f"{cast} < {bound}" for bound in (column.minimum,) if bound is not None]
            outside += [f"{cast} > {bound}" for bound in (column.maximum,) if bound is not None]
        if column.categories and kind == "text":
            outside.append(f"{cast} NOT IN ({', '.join(literal(label) for label in column.categories)})")
        row = self._first_row(" OR ".join(outside)) if outside else None
        if row is None:
            return []
        return [
            SourceNotice(
                "column {name} holds a value outside what is declared for it, first in data row {row}",
                name=column.name,
                row=row,
            )
        ]

    def _value(self, name: str, kind: ColumnType) -> str:
        return value(self._reading, self._fields[name], kind)

    def _misfit(self, name: str, kind: ColumnType, declared: frozenset[str]) -> str:
        expression = self._value(name, kind)
        fits = accepts(expression, kind, text=self._reading.kind == "csv", lenient=name in declared)
        return f"{expression} IS NOT NULL AND NOT coalesce({fits}, false)"

    def _first_row(self, condition: str) -> int | None:
        numbered = f"SELECT row_number() OVER () AS {identifier('row number')}, * FROM {self._table}"
        found: int | None = self._one(f"SELECT min({identifier('row number')}) FROM ({numbered}) WHERE {condition}")[0]
        return found

    def _one(self, query: str) -> tuple[int, ...]:
        row = self._connection.execute(query).fetchone()
        return row if row is not None else ()


def _top_level(tree: list[tuple[str, int | None]]) -> list[str]:
    """The names of a Parquet schema's columns, from its tree in depth-first order whose first node is the root."""
    names: list[str] = []
    skip = 0
    for name, children in tree[1:]:
        if skip:
            skip -= 1
        else:
            names.append(name)
        skip += children or 0
    return names
