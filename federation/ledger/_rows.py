"""Entries as they come out of a store or an export, before anything about them is believed."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import NamedTuple

from federation.ledger.entry import DOMAINS, Field
from federation.ledger.errors import LedgerUnreadableError

PAGE = 256


class Columns(NamedTuple):
    """What the store repeats beside an entry's bytes."""

    kind: object
    ref: object
    time: object
    leaf: object


class Row(NamedTuple):
    """One entry: its place, its bytes, opened fields, the checkpoint signed when it was the last, stored columns."""

    place: int
    data: bytes
    fields: Mapping[str, Field]
    note: bytes | None = None
    columns: Columns | None = None

    def __repr__(self) -> str:
        return f"Row({self.place})"  # never what is in it


Page = Sequence[Row]
"""Some entries in a row, of the store or of an export."""


def paged(rows: Iterable[Row]) -> Iterator[Page]:
    """``rows``, some at a time."""
    rows = iter(rows)
    while page := list(islice(rows, PAGE)):
        yield page


def stored_rows(connection: sqlite3.Connection) -> Iterator[Row]:
    """Yield all stored entries by their stored index."""
    return chain.from_iterable(stored_pages(connection))


def stored_pages(connection: sqlite3.Connection, part: tuple[int, int] | None = None) -> Iterator[Page]:
    """Yield all stored entries by their stored index, page by page; or those of a part, from one index to before another."""
    columns = "SELECT idx, data, kind, ref, time, leaf FROM entry"
    if part is None:
        cursor = connection.execute(f"{columns} ORDER BY idx")
    else:
        cursor = connection.execute(f"{columns} WHERE idx >= ? AND idx < ? ORDER BY idx", part)
    while page := cursor.fetchmany(PAGE):
        first, last = page[0][0], page[-1][0]
        if not all(isinstance(row[0], int) and isinstance(row[1], bytes) for row in page):
            raise LedgerUnreadableError("an entry is not stored as bytes at a whole number")
        opened = _opened(connection, {row[0]: {} for row in page}, first, last)
        notes = dict(
            connection.execute("SELECT size, note FROM checkpoint WHERE size BETWEEN ? AND ?", (first + 1, last + 1))
        )
        for size, note in notes.items():
            if not isinstance(note, bytes):
                raise LedgerUnreadableError("the checkpoint over entry {index} is not stored as bytes", index=size - 1)
        yield [
            Row(index, data, opened[index], notes.get(index + 1), Columns(kind, ref, time, leaf))
            for index, data, kind, ref, time, leaf in page
        ]


_new = tuple.__new__
"""Makes a `Field` in half of the time; a long ledger has millions."""


def _opened(
    connection: sqlite3.Connection, entries: dict[int, dict[str, Field]], first: int, last: int
) -> dict[int, dict[str, Field]]:
    """``entries`` with the fields that open their commitments, in the order of their names."""
    at, fields = first, entries[first]
    for index, name, form, salt, payload in connection.execute(
        "SELECT idx, name, form, salt, payload FROM field WHERE idx BETWEEN ? AND ? ORDER BY idx, name", (first, last)
    ):
        if type(salt) is not bytes or type(payload) is not bytes or form not in DOMAINS:
            raise LedgerUnreadableError("a field of entry {index} is not in this format", index=index)
        if index != at:
            at, fields = index, entries.get(index, {})  # one of no entry is found at the end
        fields[name if type(name) is str else str(name)] = _new(Field, (form, salt, payload))
    return entries
