"""Making a snapshot's files: the granted columns of a source, as the owner's rules leave them.

Runs in a process of its own for a node (:mod:`enterprise_node.snapshot_process`), in the command's own for an owner. Loads
the standard library and DuckDB alone: the process starts with each job.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from enterprise_node._column_types import SQL_TYPE, accepts
from enterprise_node._duckdb import confined, fields, identifier, literal, table, value
from enterprise_node.reading import Reading
from enterprise_node.rules.effects import result_type
from enterprise_node.rules.expressions import code_list, keyed_list, ruled
from enterprise_node.rules.kept import MAX_CODES, CodeMaps
from enterprise_node.rules.model import Codes, Drop, Pseudonym, Rule, Rules, Shift, rule_of
from enterprise_node.source_file import DatasetChangedError, scan
from enterprise_node.sources.errors import SourceQueryError
from enterprise_node.sources.folder import FILE_COLUMN, FILES_FOLDER, copy_files
from enterprise_node.sources.staging import Staged, stage
from federation.errors import UnavailableError, UsageError

if TYPE_CHECKING:
    import duckdb

    from federation.statements.dataset import ColumnType

DATA_FILE: Final = "data.parquet"
_CELLS_PER_GROUP: Final = 4_000_000
"""Bounds what the Parquet writer holds at once, however many columns there are."""
_MOST_LOOKED_UP: Final = 500_000
"""Different values whose HMACs are made beforehand: they take some 200 MB, and looking one up half as long as making it."""
_LONGEST_LOOKED_UP: Final = 64
_ROWS_PER_VALUE: Final = 4
_SUFFIX: Final = r"'(\.[A-Za-z0-9]{1,8})$'"


@dataclass(frozen=True)
class Order:
    """What is to be made, as plain values that pass through a pipe.

    Attributes:
        place: the source, see `enterprise_node.sources.locate`.
        reading: how it is read (`Reading.document`).
        fingerprint: of the source as registered; not looked at where it is read live.
        columns: name and type of each column that is to be in the snapshot, as they are in the source.
        rules: by column (`rule_document`).
        secrets: for each keyed rule its secret in hex.
        scopes: for each column with codes the scope of its map.
        maps: the database of code maps.
        folder: where the files go; it is there and empty.
        work: a private folder for what is needed on the way.
        password: of the source; never in anything that is shown.
        counting: also count the values that the rules change.
        unit, unit_rows: column of the privacy unit (empty: each row is one), and the most rows of one that go in; 0 for all.
        units: also count the privacy units.
    """

    place: str
    reading: Mapping[str, Any]
    fingerprint: str
    columns: Sequence[tuple[str, ColumnType]]
    folder: str
    work: str
    rules: Mapping[str, Any] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    scopes: Mapping[str, str] = field(default_factory=dict)
    maps: str = ""
    password: str = field(default="", repr=False)
    counting: bool = False
    unit: str = ""
    unit_rows: int = 0
    units: bool = False

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Order:
        """Read what :meth:`document` wrote."""
        return cls(**{**document, "columns": [(name, kind) for name, kind in document["columns"]]})


@dataclass(frozen=True)
class Extracted:
    """What was made.

    Attributes:
        rows: how many.
        files: each file's path below the folder, and the SHA-256 of its bytes in hex.
        changed: for each column with a rule, how many values it changed; empty unless asked for.
        values: of a live source, what tells one reading of it from another: for each column what its values in order hash to
            (64 bits, no secret), and under the empty name the number of rows.
        units: privacy units, rows where each is one; -1 unless asked for.
    """

    rows: int
    files: Mapping[str, str]
    changed: Mapping[str, int] = field(default_factory=dict)
    values: Mapping[str, str] = field(default_factory=dict)
    units: int = -1


def extract(order: Order) -> Extracted:
    """Write ``data.parquet`` (and a folder's files) with the granted columns, rows in the source's order.

    Raises:
        DatasetChangedError: the source is another one than was registered, or lacks a column, or holds a value that is
            no longer of its column's type.
        UsageError, UnavailableError: the source cannot be read; see `enterprise_node.sources`.
    """
    reading = Reading(**{**order.reading, "null_values": tuple(order.reading["null_values"])})
    folder, work = Path(order.folder), Path(order.work)
    try:
        staged = stage(order.place, reading, work, order.password)
    except UsageError:
        if reading.live:
            raise
        raise _changed() from None  # gone, or no longer readable as it was
    except OSError:
        raise UnavailableError(
            "reading the dataset takes more memory or disk than there is", code="resources"
        ) from None
    if not reading.live and staged.fingerprint != order.fingerprint:
        raise _changed()
    try:
        with confined(work, staged.file, folder / DATA_FILE) as connection:
            making = _Making(connection, order, staged, reading)
            rows = making.copy(folder / DATA_FILE)
            changed = making.count_changes() if order.counting else {}
            named = making.file_names() if reading.kind == "files" else {}
            values = making.hash_values(folder / DATA_FILE) if reading.live else {}
            units = making.count_units(rows) if order.units else -1
    except UsageError as error:
        _check_unchanged(order, reading)  # what stopped us may be the writer's half of a line
        if reading.live:  # a row that was not there when the source was registered
            params = {name: value for name, value in error.params.items() if name != "code"}
            raise SourceQueryError(error.template, hint=error.hint_template, code=None, **params) from None
        raise
    _check_unchanged(order, reading)
    if reading.live and not rows:
        raise DatasetChangedError(
            "the source gives no row now", hint="look at the table or query", code="dataset-empty"
        )
    copy_files(Path(order.place), staged.listing, named, folder / FILES_FOLDER)
    return Extracted(rows, _digests(folder), changed, values, units)


def _check_unchanged(order: Order, reading: Reading) -> None:
    """Raise where a file that DuckDB opened by itself is not what was registered, now that it was read."""
    if not reading.direct:
        return
    try:
        found = scan(Path(order.place), reading)
    except UsageError:
        found = ""
    if found != order.fingerprint:
        raise _changed()


def _changed() -> DatasetChangedError:
    return DatasetChangedError(
        "the dataset's file is not the one that was registered",
        hint="register the dataset again and publish it; agreements on the old version end with it",
    )


class _Making:
    """One snapshot on its way: what is selected, and under which rule."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, order: Order, staged: Staged, reading: Reading) -> None:
        self._connection = connection
        self._order = order
        self._staged = staged
        self._files = reading.kind == "files"
        self._origin = table(staged.file, staged.reading, len(staged.names))
        names = staged.names
        if staged.reading.kind == "parquet":
            described = connection.execute(f"DESCRIBE SELECT * FROM {self._origin}").fetchall()
            names = tuple(str(row[0]) for row in described)
        self._fields = fields(staged.reading, names)
        self._check_unit()
        self._origin = self._truncated()
        self._rules = Rules({name: rule_of(one) for name, one in order.rules.items()})
        self._columns = [(name, kind) for name, kind in order.columns if not isinstance(self._rule(name), Drop)]
        self._check_columns()
        if reading.live:
            self._check_types()
        self._found = {name: self._make_codes(name, kind) for name, kind in self._columns if self._coded(name)}
        if staged.reading.kind == "parquet":  # one column of it is read without the others
            for position, (name, kind) in enumerate(self._columns):
                self._found |= self._make_keyed(f"keyed_{position}", name, kind)

    def _check_unit(self) -> None:
        needed = self._order.unit_rows or self._order.units
        if self._order.unit and needed and self._order.unit not in self._fields:
            raise DatasetChangedError(
                "the dataset's source has no column {name} any more",
                hint="register the dataset again and publish it",
                code="dataset-column-missing",
                name=self._order.unit,
            )

    def _truncated(self) -> str:
        """The source with at most so many rows of each privacy unit, the first ones: what one unit can contribute is bounded
        before anything is computed. Rows without a unit count as one unit together, so that none escapes the bound."""
        if not (self._order.unit and self._order.unit_rows):
            return self._origin
        field = self._fields[self._order.unit]
        order, place = identifier("order in source"), identifier("rows of unit")
        unit = f"trim(CAST({field} AS VARCHAR))"
        numbered = f"SELECT *, row_number() OVER () AS {order} FROM {self._origin}"
        ranked = f"SELECT *, row_number() OVER (PARTITION BY {unit} ORDER BY {order}) AS {place} FROM ({numbered})"
        return f"(SELECT * FROM ({ranked}) WHERE {place} <= {self._order.unit_rows} ORDER BY {order})"

    def copy(self, target: Path) -> int:
        """Write the Parquet file; returns the number of rows."""
        cast = ", ".join(f"{self._after(name, kind)} AS {identifier(name)}" for name, kind in self._columns)
        group = max(2048, min(122_880, _CELLS_PER_GROUP // len(self._columns)))
        answer = self._connection.execute(
            f"COPY (SELECT {cast} FROM {self._origin}) TO {literal(str(target))} (FORMAT parquet, ROW_GROUP_SIZE {group})"
        ).fetchone()
        return int(answer[0]) if answer else 0

    def count_changes(self) -> dict[str, int]:
        """How many values each rule changes."""
        judged = [(name, kind) for name, kind in self._columns if self._rule(name) is not None]
        if not judged:
            return {}
        counts = ", ".join(
            f"count(*) FILTER (WHERE CAST({self._typed(name, kind)} AS VARCHAR) IS DISTINCT FROM "
            f"CAST({self._after(name, kind)} AS VARCHAR))"
            for name, kind in judged
        )
        found = self._connection.execute(f"SELECT {counts} FROM {self._origin}").fetchone() or ()
        return {name: int(count) for (name, _), count in zip(judged, found, strict=True)}

    def count_units(self, rows: int) -> int:
        """How many privacy units the rows are of; those without one are one together."""
        if not self._order.unit:
            return rows
        unit = f"trim(CAST({self._fields[self._order.unit]} AS VARCHAR))"
        found = self._connection.execute(f"SELECT count(DISTINCT coalesce({unit}, '')) FROM {self._origin}").fetchone()
        return int(found[0]) if found else 0

    def hash_values(self, made: Path) -> dict[str, str]:
        """What the values of each column that was written hash to, row by row, and the number of rows."""
        names = [name for name, _ in self._columns]
        columns = ", ".join(f"{identifier(name)} AS c{at}" for at, name in enumerate(names))
        hashes = ", ".join(f"bit_xor(hash(n, c{at}))" for at in range(len(names)))
        numbered = f"SELECT row_number() OVER () AS n, {columns} FROM read_parquet({literal(str(made))})"
        rows, *found = self._connection.execute(f"SELECT count(*), {hashes} FROM ({numbered})").fetchone() or (0,)
        return {"": str(rows)} | {
            name: f"{one:016x}" for name, one in zip(names, found, strict=True) if one is not None
        }

    def file_names(self) -> dict[str, str]:
        """Each listed file's name and the one it gets; empty where the names are not granted: then no file is."""
        kind = dict(self._columns).get(FILE_COLUMN)
        if kind is None:
            return {}
        field = self._fields[FILE_COLUMN]
        query = f"SELECT {field}, {self._after(FILE_COLUMN, kind)} FROM {self._origin}"
        named = {str(old): str(new) for old, new in self._connection.execute(query).fetchall()}
        if len(set(named.values())) != len(named):
            raise UnavailableError("two files would have one name after the rules", code="rules")
        return named

    def _rule(self, name: str) -> Rule | None:
        return self._rules.column(name)

    def _coded(self, name: str) -> bool:
        return isinstance(self._rule(name), Codes)

    def _check_columns(self) -> None:
        wanted = [name for name, _ in self._columns]
        wanted += [rule.unit for name in wanted if isinstance(rule := self._rule(name), Shift) and rule.unit]
        for name in wanted:
            if name not in self._fields or self._staged.types.get(name, "") is None:
                raise DatasetChangedError(
                    "the dataset's source has no column {name} any more",
                    hint="register the dataset again and publish it",
                    code="dataset-column-missing",
                    name=name,
                )
        if not self._columns:
            raise UsageError("no column is granted, so there is nothing a job could read")

    def _check_types(self) -> None:
        """A file's values were judged when it was registered, and it is the same file; a database's are judged now."""
        text = self._staged.reading.kind == "csv"
        misfits = []
        for name, kind in self._columns:
            raw = value(self._staged.reading, self._fields[name], kind)
            fits = accepts(raw, kind, text=text, lenient=True)
            misfits.append(f"count(*) FILTER (WHERE {raw} IS NOT NULL AND NOT coalesce({fits}, false))")
        found = self._connection.execute(f"SELECT {', '.join(misfits)} FROM {self._origin}").fetchone() or ()
        for (name, kind), count in zip(self._columns, found, strict=True):
            if count:
                raise DatasetChangedError(
                    "{count} values of the column {name} are not of the type {type} that it is registered with",
                    hint="mend the source, or register the dataset again",
                    code="dataset-type",
                    count=count,
                    name=name,
                    type=kind,
                )

    def _typed(self, name: str, kind: ColumnType) -> str:
        return f"CAST({value(self._staged.reading, self._fields[name], kind)} AS {SQL_TYPE[kind]})"

    def _after(self, name: str, kind: ColumnType) -> str:
        rule, typed = self._rule(name), self._typed(name, kind)
        if rule is None:
            return typed
        shown = ruled(typed, kind, rule, self._secret(name), self._unit(rule), self._found.get(name, ("", "")))
        if self._files and name == FILE_COLUMN:  # what a file is, its suffix says; loaders look at it
            shown += f" || coalesce(regexp_extract({typed}, {_SUFFIX}, 1), '')"
        return f"CAST({shown} AS {SQL_TYPE[result_type(kind, rule)]})"  # type: ignore[index]

    def _secret(self, name: str) -> bytes:
        return bytes.fromhex(self._order.secrets.get(name, ""))

    def _unit(self, rule: Rule | None) -> str:
        """The value that a shift hangs on, as text; empty where it hangs on none."""
        return f"trim(CAST({self._fields[rule.unit]} AS VARCHAR))" if isinstance(rule, Shift) and rule.unit else ""

    def _make_keyed(self, made: str, name: str, kind: ColumnType) -> dict[str, tuple[str, str]]:
        """Make the HMACs of a column's different values once, in a type and a variable called ``made``, where that pays."""
        rule = self._rule(name)
        if isinstance(rule, Pseudonym):
            text = f"CAST({self._typed(name, kind)} AS VARCHAR)"
        elif unit := self._unit(rule):
            text = f"coalesce({unit}, '')"
        else:
            return {}
        judged = f"SELECT count({text}), approx_count_distinct({text}), max(length({text})) FROM {self._origin}"
        rows, values, longest = self._connection.execute(judged).fetchone() or (0, 0, None)
        if not 0 < values <= min(_MOST_LOOKED_UP, rows // _ROWS_PER_VALUE) or (longest or 0) > _LONGEST_LOOKED_UP:
            return {}
        query, found = keyed_list(made, self._secret(name))
        different = f"SELECT DISTINCT {text} AS one FROM {self._origin} WHERE {text} IS NOT NULL"
        self._connection.execute(f"CREATE TYPE {made} AS ENUM ({different})")
        self._connection.execute(f"SET VARIABLE {made} = ({query})")
        return {name: found}

    def _make_codes(self, name: str, kind: ColumnType) -> tuple[str, str]:
        text = f"CAST({self._typed(name, kind)} AS VARCHAR)"
        query = f"SELECT DISTINCT {text} FROM {self._origin} WHERE {text} IS NOT NULL LIMIT {MAX_CODES + 1}"
        values = sorted(str(row[0]) for row in self._connection.execute(query).fetchall())
        rule = self._rule(name)
        assert isinstance(rule, Codes)
        made = CodeMaps(Path(self._order.maps)).codes(name, self._order.scopes[name], values)
        kind_name = identifier(f"codes of {name}")
        if not values:
            return "nullif(", ", NULL)"  # no value, so nothing to look up
        members, expression = code_list(kind_name, {one: rule.prefix + made[one] for one in values})
        self._connection.execute(f"CREATE TYPE {kind_name} AS ENUM ({', '.join(map(literal, members))})")
        return expression


def _digests(folder: Path) -> dict[str, str]:
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                found[path.relative_to(folder).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return found
