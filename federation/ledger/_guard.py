"""What a caller's ``apply`` may not do inside the ledger's transaction.

``apply`` is our own code, but a stray ``COMMIT`` in it would make entries durable that no checkpoint covers, and stop
the ledger for good. So SQLite itself refuses it: transaction control, pragmas, and writes to the ledger's own tables
(rows of ``field`` may be deleted, which is how an erasure works).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_NEVER = frozenset(
    {
        sqlite3.SQLITE_TRANSACTION,
        sqlite3.SQLITE_SAVEPOINT,
        sqlite3.SQLITE_PRAGMA,
        sqlite3.SQLITE_ATTACH,
        sqlite3.SQLITE_DETACH,
    }
)
_WRITES = frozenset({sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE, sqlite3.SQLITE_DELETE})
_OURS = frozenset({"entry", "field", "tile", "checkpoint", "head"})
# Primary result codes after which SQLite may have rolled the transaction back, or should have: not the caller's fault.
_STORAGE_FAULTS: Final = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_INTERRUPT,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_NOTADB,
    }
)


class ApplyGuard:
    """An SQLite authorizer that is strict while a caller's code runs."""

    def __init__(self) -> None:
        self._strict = False

    @contextmanager
    def applying(self) -> Iterator[None]:
        """Be strict for the length of the block."""
        self._strict = True
        try:
            yield
        finally:
            self._strict = False

    def __call__(self, action: int, table: str | None, _: str | None, __: str | None, ___: str | None) -> int:
        if not self._strict:
            return sqlite3.SQLITE_OK
        erasing = action == sqlite3.SQLITE_DELETE and table == "field"
        if action in _NEVER or (action in _WRITES and table in _OURS and not erasing):
            return sqlite3.SQLITE_DENY
        return sqlite3.SQLITE_OK


def is_storage_fault(error: Exception) -> bool:
    """Whether this is the disk's failure, not the statement's."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in _STORAGE_FAULTS
