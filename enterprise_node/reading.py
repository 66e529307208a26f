"""How a source is read: fixed when it is registered, so that every snapshot is read the same way."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Final, Literal, Self

Kind = Literal["csv", "parquet", "sqlite", "duckdb", "postgresql", "files"]
DATABASES: Final[tuple[Kind, ...]] = ("sqlite", "duckdb", "postgresql")


@dataclass(frozen=True)
class Reading:
    """What stands beside a source's place. A dataclass, because the process that makes snapshots loads little.

    Attributes:
        kind: what the source is.
        encoding, delimiter, gzip: of a CSV file.
        null_values: fields of a CSV file that stand for a missing value.
        table: of a database, what is read; ``schema.table`` in PostgreSQL and DuckDB.
        select: the owner's own query in its place.
        credential: where the password lies: ``file:/path``, ``env:NAME``, or empty. Never the password.
        exact: CSV that this node wrote itself: an empty field is missing, a quoted empty one is empty text.
    """

    kind: Kind
    encoding: str = "utf-8"
    delimiter: str = ","
    gzip: bool = False
    null_values: tuple[str, ...] = ("",)
    table: str = ""
    select: str = ""
    credential: str = ""
    exact: bool = False

    @property
    def direct(self) -> bool:
        """Whether DuckDB reads the file itself; other sources are first written into a private folder."""
        return self.kind == "parquet" or (self.kind == "csv" and self.encoding == "utf-8")

    @property
    def live(self) -> bool:
        """Whether the rows are read anew for each job: a database changes, and its query stays."""
        return self.kind in DATABASES

    def decoded(self) -> Self:
        """How the decoded text of a CSV file is read."""
        return replace(self, encoding="utf-8", gzip=False)

    def document(self) -> dict[str, Any]:
        """As JSON; fields later than the first release stand there only where they say something."""
        first = ("kind", "encoding", "delimiter", "gzip", "null_values")
        defaults = {field.name: field.default for field in fields(self)}
        values = {name: value for name, value in asdict(self).items() if name in first or value != defaults[name]}
        return values | {"null_values": list(self.null_values)}

    def to_json(self) -> str:
        """As the store keeps it."""
        return json.dumps(self.document(), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what :meth:`to_json` wrote; unknown fields are refused."""
        values = json.loads(text)
        return cls(**values | {"null_values": tuple(values["null_values"])})
