"""Registering a dataset: what an owner's file holds, as a schema without values."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

from pydantic import ValidationError

from enterprise_node._column_types import LADDER, accepts, first_guess, parquet_type
from enterprise_node._duckdb import confined, fields, identifier, literal, table, value
from enterprise_node.reading import Reading
from enterprise_node.rules import Rules
from enterprise_node.source_file import check_names, scan
from enterprise_node.sources import Staged, locate, read_credential, stage
from federation.crypto import canonical_json, digest, keyed_digest
from federation.errors import KeyongError, UsageError
from federation.statements import Column
from federation.statements.dataset import ColumnType

if TYPE_CHECKING:
    import duckdb

    from federation.home import Home

_BATCH = 100
"""Columns judged in one pass over the file."""


class SourceNotice(KeyongError):
    """What an owner should know about a file; it may be registered all the same."""

    code = "source-notice"


@dataclass(frozen=True)
class SourceDescription:
    """A source as it can be published.

    Attributes:
        place: an absolute path, or a URL.
        reading: how it is read; keep it with the registration.
        columns: name, type, whether values are missing, and what the owner declared; no more comes from the values.
        rows: how many.
        fingerprint: digest of the source's bytes; of a database, of its place and query, for its rows may change.
        problems: notices for the owner.
    """

    place: str
    reading: Reading
    columns: tuple[Column, ...]
    rows: int
    fingerprint: str
    problems: tuple[SourceNotice, ...] = ()

    @property
    def path(self) -> Path:
        """The place of a source that is a file or a folder."""
        return Path(self.place)

    @property
    def kind(self) -> str:
        """What the source is: ``csv``, ``parquet``, ``sqlite`` and so on."""
        return self.reading.kind

    @property
    def data_version(self) -> str:
        """See `data_version`; without rules."""
        return data_version(self.fingerprint, self.columns, self.reading)


def data_version(
    fingerprint: str, columns: Sequence[Column], reading: Reading, rules: Rules | None = None, *, secret: bytes = b""
) -> str:
    """The digest that a published dataset is known by: it changes with the bytes, the schema, how they are read, and the
    rules that jobs see them under.

    Args:
        secret: of the owner; without it whoever knows a file but for a few values could try those against what is published.
    """
    parts = {
        "fingerprint": keyed_digest(secret, fingerprint.encode()) if secret else fingerprint,
        "columns": [column.model_dump(mode="json") for column in columns],
        "reading": reading.document(),
    }
    return digest(canonical_json(parts | ({"rules": rules.digest} if rules else {})))


def data_secret(home: Home) -> bytes:
    """What digests of this owner's data are keyed with where others see them."""
    return home.key("statement").derive("digests of data")


_DECLARED = re.compile(rf"(?P<name>.+):(?P<kind>{'|'.join(get_args(ColumnType))})(=(?P<said>.+))?", re.DOTALL)


def parse_column(option: str) -> Column:
    """Read ``name:type`` as ``--column`` gives it, or ``name:type=what`` with what the catalog shall say of its values:
    ``a|b|c`` the categories of a text, ``low..high`` the bounds of a number. The name may hold colons.

    Raises:
        UsageError: it is not of that form, or the type is unknown.
    """
    form = _DECLARED.fullmatch(option)
    name, kind, said = (form["name"], form["kind"], form["said"]) if form else ("", "", None)
    values: dict[str, Any] = {}
    if said is not None and kind == "text":
        values = {"categories": tuple(said.split("|"))}
    elif said is not None:
        low, dots, high = said.partition("..")
        values = (
            {"minimum": low or None, "maximum": high or None} if dots and kind in ("integer", "number") else {"": ""}
        )
    try:
        return Column.model_validate({"name": name, "type": kind, **values})
    except ValidationError:
        raise UsageError(
            "{option} does not declare a column",
            hint="write NAME:TYPE, NAME:text=a|b|c or NAME:number=LOW..HIGH, with one of the types {types}",
            option=option,
            types=", ".join(get_args(ColumnType)),
        ) from None


def inspect_source(
    source: Path | str,
    *,
    encoding: str = "utf-8",
    delimiter: str | None = None,
    null_values: tuple[str, ...] = (),
    table: str = "",
    select: str = "",
    credential: str = "",
    declared: Sequence[Column] = (),
    work: Path | None = None,
) -> SourceDescription:
    """Read a source whole and describe it: a file, a folder of files, or a table or query of a database.

    Types are judged by every value, not by a sample; where the owner declares a type, every value must fit. Minimum,
    maximum and categories are published only if declared, since found ones would be values.

    Args:
        source: a path or a ``postgresql://`` URL.
        encoding: of a CSV file; GBK files from Chinese Windows want ``gb18030``.
        delimiter: of a CSV file; by default a tab in ``.tsv``, else a comma (or a semicolon or tab if the header has no
            comma).
        null_values: fields of a CSV file that stand for a missing value, besides the empty one.
        table, select: of a database, one of them: what is read of it.
        credential: where the password lies, see `enterprise_node.sources.credential_reference`.
        declared: columns whose type, unit or bounds the owner gives.
        work: where a private folder may be made for what DuckDB does not read by itself.

    Raises:
        UsageError: the source is not what it should be; the message names row and column, never a value.
        UnavailableError: it is down or refuses us, or memory or disk do not suffice.
    """
    place, reading = locate(
        str(source),
        encoding=encoding,
        delimiter=delimiter,
        null_values=null_values,
        table=table,
        select=select,
        credential=credential,
    )
    with tempfile.TemporaryDirectory(prefix="keyong-inspect-", dir=work) as folder:
        private = Path(folder)
        staged = stage(place, reading, private, read_credential(reading.credential))
        with confined(private, staged.file, called=place) as connection:
            survey = _Survey(connection, staged)
            columns, rows, problems = survey.describe(place, {column.name: column for column in declared})
        if reading.direct and scan(Path(place), reading) != staged.fingerprint:
            raise UsageError(
                "{path} changed while it was read", hint="wait until it is written, then retry", path=place
            )
    if not reading.live:
        return SourceDescription(place, reading, columns, rows, staged.fingerprint, problems)
    # Any value of a database may be missing one day.
    columns = tuple(column.model_copy(update={"nullable": True}) for column in columns)
    fingerprint = digest(canonical_json({"place": place, "reading": reading.document()}))
    live = SourceNotice(
        "the rows are read anew for each job: the catalog says that they may change, each receipt names what was read"
    )
    return SourceDescription(place, reading, columns, rows, fingerprint, (live, *problems))


class _Survey:
    """The questions asked of one file."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, staged: Staged) -> None:
        self._connection = connection
        self._staged = staged
        self._reading = staged.reading
        self._table = table(staged.file, staged.reading, len(staged.names))

    def describe(
        self, path: str, declared: Mapping[str, Column]
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
        kinds, filled, rows = self._settle(path, guesses, frozenset(declared))
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

    def _native(self, path: str) -> dict[str, ColumnType | None]:
        """Each column's type by its first values (CSV) or its declaration (Parquet, a database); None where it has no
        use."""
        if self._reading.kind == "csv":
            sample = self._connection.execute(f"SELECT * FROM {self._table} LIMIT 1000").fetchall()
            guesses = {name: first_guess([row[at] for row in sample]) for at, name in enumerate(self._staged.names)}
            return {name: self._stated(name, guess) for name, guess in guesses.items()}
        place = literal(str(self._staged.file))
        tree = self._connection.execute(f"SELECT name, num_children FROM parquet_schema({place})").fetchall()
        check_names(Path(path), tuple(_top_level(tree)))
        described = self._connection.execute(f"DESCRIBE SELECT * FROM {self._table}").fetchall()
        return {str(row[0]): parquet_type(str(row[1])) for row in described}

    def _stated(self, name: str, guess: ColumnType) -> ColumnType | None:
        """What the source itself says of a column, where it says something."""
        stated = self._staged.types.get(name, "")
        if stated == "":
            return guess
        if stated == "text-like":  # SQLite keeps dates in columns of text, and codes such as 007
            return guess if guess in ("date", "timestamp") else "text"
        return cast("ColumnType | None", stated)

    def _settle(
        self, path: str, guesses: dict[str, ColumnType], declared: frozenset[str]
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
                    raise self._misfit_error(path, name, kinds[name], declared)
                if bad:
                    kinds[name] = LADDER[kinds[name]]
                    open_.append(name)
        return kinds, filled, rows

    def _misfit_error(self, path: str, name: str, kind: ColumnType, declared: frozenset[str]) -> UsageError:
        return UsageError(
            "column {name} of {path} cannot be read as {type}: data row {row} holds something else",
            hint="correct the row, declare another type, or name the mark for missing values with --null",
            name=name,
            path=path,
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
        lenient = name in declared or bool(self._staged.types.get(name))
        fits = accepts(expression, kind, text=self._reading.kind == "csv", lenient=lenient)
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
