"""What a job will see, for its owner's eyes: the snapshot itself is made and looked at, and removed again."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from enterprise_node._duckdb import confined, identifier, literal
from enterprise_node.extraction import DATA_FILE
from enterprise_node.materialise import Grant, materialise_here
from enterprise_node.rules import Drop
from federation.statements import Column

ROWS = 5
MOST_ROWS = 1000


@dataclass(frozen=True)
class SeenColumn:
    """One column as a job sees it.

    Attributes:
        changed: how many values its rule changed; None where it has none.
        missing: how many rows have no value.
        least, greatest: the bounds of what is there, as text; empty where nothing is.
    """

    column: Column
    changed: int | None
    missing: int
    least: str
    greatest: str


@dataclass(frozen=True)
class Preview:
    """What a job will see.

    Attributes:
        rows: how many there are.
        columns: in order.
        head: the first rows.
        dropped: columns that the rules leave out.
        withheld: columns that the agreement does not grant.
        snapshot: digest of the snapshot, as a receipt would name it.
        files: how many files of a folder there are beside the rows.
    """

    rows: int
    columns: tuple[SeenColumn, ...]
    head: tuple[tuple[Any, ...], ...]
    dropped: tuple[str, ...]
    withheld: tuple[str, ...]
    snapshot: str
    files: int


def preview(grant: Grant, every: Sequence[Column], rows: int, work: Path) -> Preview:
    """Make the snapshot of a grant in ``work``, read it, and remove it.

    Args:
        every: all columns of the source.
        rows: how many of the first rows are wanted.

    Raises:
        KeyongError: as :func:`enterprise_node.materialise.materialise_here`.
    """
    with tempfile.TemporaryDirectory(prefix="keyong-preview-", dir=work) as folder:
        snapshot = materialise_here(grant, Path(folder) / "data", counting=True)
        try:
            shown = grant.shown
            file = snapshot.folder / DATA_FILE
            with confined(Path(folder), file) as connection:
                origin = f"read_parquet({literal(str(file))})"
                head = connection.execute(f"SELECT * FROM {origin} LIMIT {int(rows)}").fetchall()
                facts = [
                    f"count(*) - count({name}), CAST(min({name}) AS VARCHAR), CAST(max({name}) AS VARCHAR)"
                    for name in (identifier(column.name) for column in shown)
                ]
                found = connection.execute(f"SELECT {', '.join(facts)} FROM {origin}").fetchone() or ()
            files = sum(path.is_file() for path in snapshot.folder.rglob("*")) - 2
        finally:
            snapshot.discard()
    seen = tuple(
        SeenColumn(
            column,
            snapshot.changed.get(column.name),
            int(found[3 * place]),
            str(found[3 * place + 1] if found[3 * place + 1] is not None else ""),
            str(found[3 * place + 2] if found[3 * place + 2] is not None else ""),
        )
        for place, column in enumerate(shown)
    )
    granted = {column.name for column in grant.columns}
    dropped = tuple(column.name for column in every if isinstance(grant.rules.column(column.name), Drop))
    withheld = tuple(column.name for column in every if column.name not in {*granted, *dropped})
    return Preview(snapshot.rows, seen, tuple(head), dropped, withheld, snapshot.digest, files)
