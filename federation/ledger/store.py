"""The SQLite file of a ledger: tables, connections, and the tree read back from them.

Nothing in the tree is ever rewritten: a leaf hash stands beside its entry, and the root of each complete subtree of
256, 65,536, ... leaves is one row of ``tile`` (the hashes of C2SP tlog-tiles, one level each). The callers' tables
(policy state, ...) live in the same file, so that an entry and what it changes are one transaction.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from federation.ledger.entry import Field
from federation.ledger.errors import LedgerUnavailableError, LedgerUnreadableError
from federation.ledger.merkle import TILE_HEIGHT, NodeSource, complete_root
from federation.release import release
from federation.stores import StoreNewerError

DATABASE = "ledger.db"
LAST_SIGNED = "ledger.checkpoint"
LOCK = "ledger.lock"
FORMAT = 1
_MAX_VALUE_BYTES = 8 * 1024 * 1024
_BUSY_MS = 10_000
_READERS = 4
"""Connections kept idle."""

SCHEMA = (
    """CREATE TABLE entry (
        idx INTEGER PRIMARY KEY, kind TEXT NOT NULL, ref INTEGER, time TEXT NOT NULL,
        leaf BLOB NOT NULL, data BLOB NOT NULL) STRICT""",
    "CREATE INDEX entry_kind ON entry (kind, idx)",
    "CREATE INDEX entry_ref ON entry (ref) WHERE ref IS NOT NULL",
    """CREATE TABLE field (
        idx INTEGER NOT NULL, name TEXT NOT NULL, form TEXT NOT NULL, salt BLOB NOT NULL, payload BLOB NOT NULL,
        PRIMARY KEY (idx, name)) STRICT""",
    """CREATE TABLE tile (
        level INTEGER NOT NULL, number INTEGER NOT NULL, hash BLOB NOT NULL,
        PRIMARY KEY (level, number)) STRICT, WITHOUT ROWID""",
    "CREATE TABLE checkpoint (size INTEGER PRIMARY KEY, note BLOB NOT NULL) STRICT",
    """CREATE TABLE head (
        one INTEGER PRIMARY KEY CHECK (one = 1), size INTEGER NOT NULL, root BLOB NOT NULL) STRICT""",
    "CREATE TABLE schema_version (name TEXT PRIMARY KEY, version INTEGER NOT NULL) STRICT",
)
TABLES = ("entry", "field", "tile", "checkpoint", "head")


def connect(path: Path) -> sqlite3.Connection:
    """Open for writing, durably: WAL, ``synchronous=FULL``, deleted values overwritten (erasure must erase)."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=_BUSY_MS / 1000)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA secure_delete = ON")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA trusted_schema = OFF")
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """Give a read-only connection that sees one unchanging snapshot, also while a writer runs.

    A file from elsewhere is not trusted: its schema may run nothing, and no value may be larger than 8 MiB. Where the
    folder is read-only and no writer left a ``-wal`` behind, the file is opened as immutable.

    Raises:
        LedgerUnavailableError: it cannot be opened.
        LedgerUnreadableError: it is not a ledger's database, or became unreadable on the way.
    """
    with closing(_connect_reader(path)) as connection:
        try:
            connection.execute("BEGIN")
            yield connection
        except (sqlite3.Error, UnicodeDecodeError, OverflowError) as error:
            raise LedgerUnreadableError("the ledger's database cannot be read: {reason}", reason=str(error)) from error


class Readers:
    """Read-only connections to the ledger that is this process's own, kept between uses: to open one takes longer than to read.

    Each use sees one unchanging snapshot, as with :func:`reading`; a connection serves again only while the file is the same and
    its tables are those that were checked.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._idle: list[tuple[sqlite3.Connection, object]] = []
        self._lock = threading.Lock()
        self._closed = False

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Give a connection; raises as :func:`reading`."""
        connection, stamp = self._take()
        kept = False
        try:
            yield connection
            connection.execute("ROLLBACK")
            kept = True
        except (sqlite3.Error, UnicodeDecodeError, OverflowError) as error:
            raise LedgerUnreadableError("the ledger's database cannot be read: {reason}", reason=str(error)) from error
        finally:
            if kept:
                self._give(connection, stamp)
            else:
                connection.close()

    def close(self) -> None:
        """Close those that are idle, and keep none any more."""
        with self._lock:
            idle, self._idle, self._closed = self._idle, [], True
        for connection, _ in idle:
            connection.close()

    def _take(self) -> tuple[sqlite3.Connection, object]:
        with self._lock:
            connection, stamp = self._idle.pop() if self._idle else (None, None)
        if connection is not None:
            try:
                connection.execute("BEGIN")
                if self._stamp(connection) == stamp:
                    return connection, stamp
            except (sqlite3.Error, OSError):
                pass  # whatever is wrong shows with a new one
            connection.close()
        connection, lasting = _open_reader(self._path)
        try:
            connection.execute("BEGIN")
            return connection, self._stamp(connection) if lasting else None
        except (sqlite3.Error, OSError) as error:
            connection.close()
            raise LedgerUnreadableError("the ledger's database cannot be read: {reason}", reason=str(error)) from error

    def _give(self, connection: sqlite3.Connection, stamp: object) -> None:
        with self._lock:
            if stamp is not None and not self._closed and len(self._idle) < _READERS:
                self._idle.append((connection, stamp))
                return
        connection.close()

    def _stamp(self, connection: sqlite3.Connection) -> object:
        """Tells this file, with these tables, from any other."""
        file = self._path.stat()
        versions = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("schema_version", "user_version"))
        return (file.st_dev, file.st_ino, *versions)


def _connect_reader(path: Path) -> sqlite3.Connection:
    return _open_reader(path)[0]


def _open_reader(path: Path) -> tuple[sqlite3.Connection, bool]:
    """A connection, and whether it sees what is written from now on."""
    if not path.is_file():
        raise LedgerUnavailableError("there is no ledger at {path}", path=path)
    wal = path.with_name(path.name + "-wal")
    failure: sqlite3.Error | None = None
    for mode in ("mode=ro", "mode=ro&immutable=1"):
        if "immutable" in mode and wal.exists() and wal.stat().st_size:
            break  # an immutable reader would not see what is in the -wal file, and would say all is well
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?{mode}",
            uri=True,
            isolation_level=None,
            check_same_thread=False,
            timeout=_BUSY_MS / 1000,
        )
        try:
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MAX_VALUE_BYTES)
            connection.execute("PRAGMA query_only = ON")
            connection.execute("PRAGMA trusted_schema = OFF")
            connection.execute("PRAGMA cell_size_check = ON")
            _check_tables(connection)
            return connection, "immutable" not in mode
        except sqlite3.Error as error:
            connection.close()
            failure = error
        except BaseException:
            connection.close()
            raise
    if isinstance(failure, sqlite3.OperationalError):
        raise LedgerUnavailableError(
            "the ledger at {path} cannot be opened: {reason}",
            hint="copy ledger.db, ledger.db-wal and ledger.checkpoint to a folder you can write to",
            path=path,
            reason=str(failure),
        ) from failure
    raise LedgerUnreadableError("{path} is not a ledger's database", path=path) from failure


def _check_tables(connection: sqlite3.Connection) -> None:
    """Raise unless our tables are plain tables: a view in their place could compute anything."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > FORMAT:
        raise newer("the ledger", version, FORMAT)
    found = {
        name: sql
        for name, sql in connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'")
        if name in TABLES
    }
    if len(found) != len(TABLES) or not all(str(sql).upper().startswith("CREATE TABLE") for sql in found.values()):
        raise LedgerUnreadableError("the database lacks a ledger's tables")
    if version != FORMAT:
        raise LedgerUnreadableError("the ledger's database has the unknown format {found}", found=version)


def newer(what: str, found: int, known: int) -> StoreNewerError:
    """The refusal of a ledger that a newer release wrote."""
    return StoreNewerError(
        "{what} has version {found}, which a newer release wrote; this is release {ours}, which knows {known}",
        hint="upgrade this software. There is no way back: a ledger restored from an older copy is refused, because others"
        " hold entries that it would lack",
        what=what,
        found=found,
        known=known,
        ours=release(),
    )


def make_file(path: Path) -> None:
    """Create the database file for its owner alone; SQLite gives -wal and -shm the same mode."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))


def node_source(connection: sqlite3.Connection) -> NodeSource:
    """Return a reader of complete subtrees from stored leaf and tile hashes."""

    def node(level: int, index: int) -> bytes:
        tile_level, height = divmod(level, TILE_HEIGHT)
        start, stop = index << height, (index + 1) << height
        if tile_level == 0:
            rows = connection.execute("SELECT leaf FROM entry WHERE idx >= ? AND idx < ? ORDER BY idx", (start, stop))
        else:
            rows = connection.execute(
                "SELECT hash FROM tile WHERE level = ? AND number >= ? AND number < ? ORDER BY number",
                (tile_level, start, stop),
            )
        hashes = [row[0] for row in rows]
        if len(hashes) != stop - start:
            raise LedgerUnreadableError(
                "hashes {start} to {stop} of tree level {level} are not all there",
                hint="keyong verify names what was changed",
                start=start,
                stop=stop - 1,
                level=tile_level * TILE_HEIGHT,
            )
        return complete_root(hashes)

    return node


def tile_source(connection: sqlite3.Connection) -> Callable[[int, int], object]:
    """Return a reader of single stored tile hashes, as they are stored."""

    def tile(level: int, number: int) -> object:
        row = connection.execute("SELECT hash FROM tile WHERE level = ? AND number = ?", (level, number)).fetchone()
        return row[0] if row else None

    return tile


def read_field(form: object, salt: object, payload: object, at: int) -> Field:
    """Return a side row as a `Field`, or raise: columns of a foreign file can hold anything."""
    if not (isinstance(salt, bytes) and isinstance(payload, bytes)) or form not in ("json", "raw"):
        raise LedgerUnreadableError("a field of entry {index} is not in this format", index=at)
    return Field("json" if form == "json" else "raw", salt, payload)
