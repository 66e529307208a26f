"""Entries as they come out of a store or an export, before anything about them is believed."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from federation.ledger.entry import Field
from federation.ledger.errors import LedgerUnreadableError
from federation.ledger.store import read_field

_PAGE = 512


class Columns(NamedTuple):
    """What the store repeats beside an entry's bytes."""

    kind: object
    ref: object
    time: object
    leaf: object


@dataclass(frozen=True, slots=True, repr=False)
class Row:
    """One entry: its place, its bytes, opened fields, the checkpoint signed when it was the last, stored columns."""

    index: int
    data: bytes
    fields: Mapping[str, Field]
    note: bytes | None = None
    columns: Columns | None = None


def stored_rows(connection: sqlite3.Connection, part: tuple[int, int] | None = None) -> Iterator[Row]:
    """Yield all stored entries by their stored index, page by page; or those of a part, from one index to before another."""
    columns = "SELECT idx, data, kind, ref, time, leaf FROM entry"
    if part is None:
        cursor = connection.execute(f"{columns} ORDER BY idx")
    else:
        cursor = connection.execute(f"{columns} WHERE idx >= ? AND idx < ? ORDER BY idx", part)
    while page := cursor.fetchmany(_PAGE):
        first, last = page[0][0], page[-1][0]
        if not all(isinstance(row[0], int) and isinstance(row[1], bytes) for row in page):
            raise LedgerUnreadableError("an entry is not stored as bytes at a whole number")
        fields: dict[int, dict[str, Field]] = {}
        for index, name, form, salt, payload in connection.execute(
            "SELECT idx, name, form, salt, payload FROM field WHERE idx BETWEEN ? AND ?", (first, last)
        ):
            fields.setdefault(index, {})[str(name)] = read_field(form, salt, payload, index)
        notes = dict(
            connection.execute("SELECT size, note FROM checkpoint WHERE size BETWEEN ? AND ?", (first + 1, last + 1))
        )
        for row in page:
            note = notes.get(row[0] + 1)
            if note is not None and not isinstance(note, bytes):
                raise LedgerUnreadableError("the checkpoint over entry {index} is not stored as bytes", index=row[0])
            yield Row(row[0], row[1], fields.get(row[0], {}), note, Columns(*row[2:]))
