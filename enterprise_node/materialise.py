"""The snapshot a job reads: the granted columns of one dataset, as they were registered, in read-only files.

What the job may not see is not hidden in the snapshot, it is absent. The folder holds ``data.parquet`` and
``schema.json``; neither says whose data it is.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from enterprise_node._column_types import SQL_TYPE
from enterprise_node._duckdb import confined, fields, identifier, link, literal, table, value
from enterprise_node.source_file import DatasetChangedError, Reading, read_header, scan
from federation.crypto import canonical_json, digest
from federation.errors import UsageError
from federation.statements import Column

DATA_FILE: Final = "data.parquet"
SCHEMA_FILE: Final = "schema.json"

_CELLS_PER_GROUP = 4_000_000
"""Bounds what the Parquet writer holds at once, however many columns there are."""


@dataclass(frozen=True)
class Snapshot:
    """A folder made for one job.

    Attributes:
        folder: holds the two files; nobody can write to any of the three.
        digest: over both files; what receipts name.
        rows: the weight of this node in sums.
    """

    folder: Path
    digest: str
    rows: int

    def discard(self) -> None:
        """Remove the folder; without complaint if it is gone."""
        if self.folder.exists():
            self.folder.chmod(0o700)  # an ordinary user cannot empty a folder without write permission
            shutil.rmtree(self.folder)


def materialise(
    source: Path, columns: Sequence[Column], fingerprint: str, folder: Path, *, reading: Reading
) -> Snapshot:
    """Write the granted columns of a registered file into ``folder``, rows in the file's order.

    Args:
        source: the owner's file.
        columns: what the agreement grants, as published.
        fingerprint: of the file as registered; a file that changed is another dataset.
        folder: must not exist yet. It is removed again if anything fails.
        reading: as registered.

    Raises:
        DatasetChangedError: the file is another, gone, or lacks a granted column.
        UsageError: no column is granted, or ``folder`` exists.
        UnavailableError: memory or disk do not suffice.
    """
    if not columns:
        raise UsageError("no column is granted, so there is nothing a job could read")
    with fresh_folder(folder), tempfile.TemporaryDirectory(prefix=".keyong-work-", dir=folder.parent) as work:
        private = Path(work)
        staged = None if reading.direct else private / "source"
        _check_fingerprint(source, reading, fingerprint, staged)
        file, plain = (link(source, private), reading) if staged is None else (staged, reading.decoded())
        names = read_header(file, plain, source) if reading.kind == "csv" else ()
        with confined(private, file, folder / DATA_FILE) as connection:
            origin = table(file, plain, len(names))
            if reading.kind == "parquet":
                names = tuple(str(row[0]) for row in connection.execute(f"DESCRIBE SELECT * FROM {origin}").fetchall())
            known = fields(plain, names)
            for column in columns:
                if column.name not in known:
                    raise DatasetChangedError(
                        "the dataset's file has no column {name} any more",
                        hint="register the dataset again and publish it",
                        code="dataset-column-missing",
                        name=column.name,
                    )
            cast = ", ".join(
                f"CAST({value(plain, known[c.name], c.type)} AS {SQL_TYPE[c.type]}) AS {identifier(c.name)}"
                for c in columns
            )
            group = max(2048, min(122_880, _CELLS_PER_GROUP // len(columns)))
            target = literal(str(folder / DATA_FILE))
            answer = connection.execute(
                f"COPY (SELECT {cast} FROM {origin}) TO {target} (FORMAT parquet, ROW_GROUP_SIZE {group})"
            ).fetchone()
        if reading.direct:  # DuckDB opened the file by itself: what it read must still be what was registered
            _check_fingerprint(source, reading, fingerprint, None)
        return seal(folder, columns, int(answer[0]) if answer else 0)


def seal(folder: Path, columns: Sequence[Column], rows: int) -> Snapshot:
    """Write the schema beside the data, make everything read-only and take the digest."""
    schema = canonical_json(
        {
            "format": 1,
            "columns": [{"name": c.name, "type": c.type, "nullable": c.nullable, "unit": c.unit} for c in columns],
            "rows": rows,
        }
    )
    (folder / SCHEMA_FILE).write_bytes(schema)
    with (folder / DATA_FILE).open("rb") as file:
        data = "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
    for name in (DATA_FILE, SCHEMA_FILE):
        (folder / name).chmod(0o444)
    folder.chmod(0o555)
    return Snapshot(folder, digest(canonical_json({DATA_FILE: data, SCHEMA_FILE: digest(schema)})), rows)


@contextmanager
def fresh_folder(folder: Path) -> Iterator[None]:
    """Make the folder, private until it is sealed, and remove it if the block fails.

    Raises:
        UsageError: it exists already.
    """
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        raise UsageError("the snapshot folder {folder} exists already", folder=folder) from None
    try:
        yield
    except BaseException:
        Snapshot(folder, "", 0).discard()
        raise


def _check_fingerprint(source: Path, reading: Reading, expected: str, staged: Path | None) -> None:
    try:
        found = scan(source, reading, staged)
    except UsageError:
        found = ""  # gone, or no longer readable as it was
    if found != expected:
        raise DatasetChangedError(
            "the dataset's file is not the one that was registered",
            hint="register the dataset again and publish it; agreements on the old version end with it",
        )
